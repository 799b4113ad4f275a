"""Workers as values: who they are and how much more they can take; the jobs that concern them, and the rules that get them.
Nothing here touches a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NewType

from scitq.states import JobState, WorkerState

WorkerId = NewType("WorkerId", int)
JobId = NewType("JobId", int)

# Kinds of workers: this machine; a host that SSH leads to; a machine that a provider rents, or lends, us (with a row in `rental`).
LOCAL = "local"
SSH = "ssh"
RENTED_KIND = "rented"
# The note of a worker that somebody has declared lost, until it has been heard: what it holds is not its own any more.
DECLARED_LOST = "declared lost"
# Beyond this many staged executions a worker gains nothing, and the queue loses control of them (measured on a prototype).
PREFETCH_LIMIT = 64
# A worker must hold the work of one ring and one round trip of its link, so that its slots never wait for us.
ROUND_S = 0.05
# One elsewhere must go on through a link that is silent for a while, and until it has been taken up again.
SILENCE_S = 20.0


@dataclass(frozen=True)
class WorkerRow:
    """One row of table `worker`, as read at one moment. `prefetch` None means: as short tasks need it."""

    id: WorkerId
    name: str
    kind: str
    state: WorkerState
    batch: str | None
    concurrency: int
    prefetch: int | None
    facts: Mapping[str, Any]
    note: str | None
    journal: str | None
    acked: int
    created_ms: int
    seen_ms: int | None
    measured: str | None = None
    # What the user calls its host, what was said and found of the way there, and how long it has been silent: awake time
    # since its agent was last told that its work is its own.
    address: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    link: Mapping[str, Any] = field(default_factory=dict)
    silent_ms: int = 0
    batch_id: int | None = None

    @property
    def slots(self) -> int:
        """How many executions it may run at once now."""
        return 0 if self.state is WorkerState.PAUSED else self.concurrency

    @property
    def stats(self) -> Mapping[str, Any]:
        """How busy its machine was when it was last asked, which is done now and then while it has work. Empty: never.

        `at` (milliseconds since 1970), `load` (of the last minute), `cpu` (share of all CPUs busy since the look before),
        `memory`, `memory_free`, `disk`, `disk_free` (bytes; the disk is that of its folder), `running`, `queued` (tasks),
        `net_in`, `net_out` (bytes) and `uptime` (seconds) since it was started, `read_s`, `written_s` (bytes of all disks, a
        second, since the look before), `disks` (bytes, and bytes free, of each), `tasks`
        (CPU seconds and bytes of memory of each execution that runs there, as far as its system tells), `polite` (why it starts
        nothing now, if others come first).
        """
        return json.loads(self.measured) if self.measured else {}

    @property
    def cpus(self) -> float:
        """CPUs: declared, or found by the agent."""
        return float(self.facts.get("cpus") or 0)

    @property
    def memory(self) -> int:
        """Bytes of memory: declared, or found by the agent."""
        return int(self.facts.get("memory") or 0)

    @property
    def output_cap(self) -> int | None:
        """Bytes of each stream of a task that are kept there; None: the agent's own limit, 1 GiB."""
        cap = self.facts.get("output_cap")
        return None if cap is None else int(cap)

    @property
    def container_engine(self) -> str | None:
        """The program that runs containers there, if one was chosen; None: the first that the agent finds."""
        chosen = self.facts.get("container_engine")
        return None if chosen is None else str(chosen)

    @property
    def python(self) -> str | None:
        """The minor version of the Python that calls of functions find there; None where they find the submitter's own."""
        return None if self.kind == LOCAL else ".".join(str(self.facts.get("python", "")).split(".")[:2])

    @property
    def limits_wanted(self) -> bool:
        """Tasks are to be held to the memory and CPUs that they asked for, where the system can do that."""
        return self.facts.get("limits") is not False

    @property
    def limits(self) -> tuple[str, ...]:
        """What tasks are held to of what they asked for: `memory`, `cpus`. Other requests only keep room for them."""
        return tuple(str(what) for what in self.facts.get("limits") or ())

    @property
    def limits_reason(self) -> str | None:
        """Why tasks are not held to all that they asked for; None when they are, or nobody has asked the agent yet."""
        if not self.limits_wanted:
            return "switched off"
        reason = self.facts.get("limits_reason")
        return None if reason is None else str(reason)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of GPUs: declared, or found by the agent."""
        return tuple(str(gpu) for gpu in self.facts.get("gpus") or ())


@dataclass(frozen=True)
class JobRow:
    """One row of table `job`: a long operation of ours. `data` is what was asked for, and what came of it."""

    id: JobId
    kind: str
    worker: WorkerId | None
    worker_name: str | None
    state: JobState
    step: str | None
    progress: float | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    tries: int
    note: str | None
    log: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Recruiter:
    """One row of table `recruiter`: a rule that gets workers for a batch, tried by rank. None: nothing was said of it.

    `flavor` is a name or a protofilter; `concurrency` is how many tasks of the batch a worker runs at once, `prefetch` how many
    it holds ready beyond those; one worker is wanted for every `tasks_per_worker` tasks, from `minimum_tasks` on. With a `provider`
    ("auto": any) machines may be rented.
    """

    batch: int
    rank: int
    tasks_per_worker: int | None = None
    flavor: str | None = None
    provider: str | None = None
    region: str | None = None
    concurrency: int | None = None
    prefetch: int | None = None
    minimum_tasks: int | None = None
    maximum_workers: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_name: str = ""

    @property
    def rounds(self) -> int:
        """How many times its slots' worth of tasks a worker is got for, where `tasks_per_worker` does not say it."""
        return int(self.settings.get("rounds") or 1)

    @property
    def market(self) -> str | None:
        """`ondemand`, `spot` or `any`; None: as is usual with the provider."""
        return self.settings.get("market")

    @property
    def max_price(self) -> float | None:
        """The most that a machine may cost an hour."""
        return self.settings.get("max_price")

    @property
    def max_cost(self) -> str | None:
        """The most that all its machines may cost together: see `money.limit_of`."""
        return self.settings.get("max_cost")

    @property
    def patience_s(self) -> float:
        """For how long the first task must have waited before a machine is rented."""
        return float(self.settings.get("patience") or 0.0)

    @property
    def idle_timeout(self) -> float | None:
        """After how many seconds without work a machine is let go; None: as `staffing` has it."""
        return self.settings.get("idle_timeout")


class Load(NamedTuple):
    """What the executions of a worker occupy that still need, or will need, to run."""

    slots: int = 0
    memory: int = 0
    gpus: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Capacity:
    """What a worker can take now: `slots` executions that would start at once, `queue` more that would wait there.

    `batch` None serves every batch. `concurrency`, `cpus`, `memory_total` and `gpu_count` are what it has in all; `memory`
    (bytes) and `gpus` (their ids) are what of that is free. `python` is its minor version (`3.12`) for calls of functions;
    None: whatever interpreter a call names is there. `over` slots' worth waits there already; `ahead` is how much some batch may
    have waiting there, because its recruiter says so.
    """

    slots: int
    queue: int = 0
    concurrency: int = 1
    batch: int | None = None
    cpus: float = 0.0
    memory: int = 0
    memory_total: int = 0
    gpus: tuple[str, ...] = ()
    gpu_count: int = 0
    python: str | None = None
    over: int = 0
    ahead: int = 0


def window(concurrency: int, prefetch: int | None, mean_run_s: float | None, *, is_far: bool = False) -> int:
    """How many executions a worker may hold at once: its slots and what it prefetches.

    With no prefetch set, enough tasks are staged ahead that no slot waits for the link: the work of `ROUND_S` here, none for
    tasks of a second or more (they would only be hoarded from other workers); elsewhere that of `SILENCE_S`, which for tasks
    that take longer than that is little or none. Nothing known yet: one a slot.
    """
    if concurrency <= 0:
        return 0
    if prefetch is not None:
        return concurrency + prefetch
    if mean_run_s is None:
        return 2 * concurrency
    if mean_run_s >= 1.0 and not is_far:
        return concurrency
    ahead = int(concurrency * (SILENCE_S if is_far else ROUND_S) / max(mean_run_s, 1e-4))
    if mean_run_s < 1.0:
        ahead = max(concurrency, ahead)
    return concurrency + min(PREFETCH_LIMIT, ahead)
