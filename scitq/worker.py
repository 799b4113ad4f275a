"""Workers as values: who they are and how much more they can take. Nothing here touches a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NewType

from scitq.states import WorkerState

WorkerId = NewType("WorkerId", int)

LOCAL = "local"
# Beyond this many staged executions a worker gains nothing, and the queue loses control of them (measured on a prototype).
PREFETCH_LIMIT = 64
# A worker must hold the work of one ring and one round trip of its link, so that its slots never wait for us.
ROUND_S = 0.05


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

    @property
    def stats(self) -> Mapping[str, Any]:
        """How busy its machine was when it was last asked, which is done now and then while it has work. Empty: never.

        `at` (milliseconds since 1970), `load` (of the last minute), `cpu` (share of all CPUs busy since the look before),
        `memory`, `memory_free`, `disk`, `disk_free` (bytes; the disk is that of its folder), `running`, `queued` (tasks).
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
    None: whatever interpreter a call names is there.
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


def window(concurrency: int, prefetch: int | None, mean_run_s: float | None) -> int:
    """How many executions a worker may hold at once: its slots and what it prefetches.

    With no prefetch set, enough short tasks are staged ahead that no slot waits for the link: the work of `ROUND_S`,
    none for tasks of a second or more (they would only be hoarded from other workers). Nothing known yet: one a slot.
    """
    if concurrency <= 0:
        return 0
    if prefetch is not None:
        return concurrency + prefetch
    if mean_run_s is None:
        return 2 * concurrency
    if mean_run_s >= 1.0:
        return concurrency
    ahead = max(concurrency, int(concurrency * ROUND_S / max(mean_run_s, 1e-4)))
    return concurrency + min(PREFETCH_LIMIT, ahead)
