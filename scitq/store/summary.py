"""Many tasks in a few numbers, for people: states of a selection, requests that nobody can meet, what batches really used.

Only reads; every function may run on a reader.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import apsw

from scitq.states import LIVE, Halt, Outcome, Probe, TaskState, Wanted
from scitq.store import listing, query
from scitq.task import Need, TaskId

T = TypeVar("T")


def states_of(db: apsw.Connection, ids: Sequence[int]) -> dict[TaskState, int]:
    """How many of these tasks are in each state; states without any are absent."""
    rows = query.rows(
        db,
        "select state, count(*) from task where id in (select value from json_each(?)) group by state",
        (json.dumps(ids),),
    )
    return {TaskState(state): n for state, n in rows}


@dataclass(frozen=True)
class Held:
    """What somebody has stopped, and must let go on: tasks, of which the first few are named, and batches."""

    paused: int
    first: tuple[TaskId, ...]
    batches: tuple[str, ...]
    suspended: int


def held(db: apsw.Connection) -> Held | None:
    """What keeps the rest from going on; None: there is something that goes on by itself, or nothing is left."""
    rows = query.rows(
        db,
        """select batch.name, batch.halt, counter.state, counter.n, batch.id from counter join batch on batch.id = counter.batch
        where counter.n > 0""",
    )
    counts = [(name, Halt(halt), TaskState(state), n, batch) for name, halt, state, n, batch in rows]
    ((suspended,),) = query.rows(
        db,
        f"""select count(*) from execution join task on task.execution = execution.id
        where execution.ended is null and execution.wanted = {int(Wanted.SUSPENDED)} and task.state = {int(TaskState.RUNNING)}""",
    )
    live = sum(n for _, _, state, n, _ in counts if state in LIVE)
    goes_on = any(
        state is TaskState.DEBUG or (state is TaskState.PENDING and halt is Halt.GO) for _, halt, state, _, _ in counts
    )
    stopped = tuple(
        name for name, halt, state, _, _ in counts if halt is not Halt.GO and state in LIVE | {TaskState.PENDING}
    )
    paused = [(n, batch) for _, _, state, n, batch in counts if state is TaskState.PAUSED]
    if goes_on or live > suspended or not (paused or stopped or suspended):
        return None
    sql = f"select id from task where batch = ? and state = {int(TaskState.PAUSED)} order by id limit 3"
    first = sorted(id for _, batch in paused[:3] for (id,) in query.rows(db, sql, (batch,)))[:3]
    return Held(sum(n for n, _ in paused), tuple(map(TaskId, first)), tuple(dict.fromkeys(stopped)), suspended)


@dataclass(frozen=True)
class InVain:
    """Queued tasks of one kind of request that no worker can ever meet: how many, the oldest, and why."""

    need: Need
    note: str
    tasks: int
    first: TaskId


def in_vain(db: apsw.Connection) -> list[InVain]:
    """The pending tasks that ask for what no worker has, by kind of request."""
    # Through the index of what could run: other pending tasks, however many, are not looked at.
    rows = query.rows(
        db,
        f"""select need.note, count(*), min(task.id), need.cpus, need.memory, need.gpus, need.python
        from need cross join batch cross join task indexed by task_ready
          on task.batch = batch.id and task.need = need.id and task.state = {int(TaskState.PENDING)} and task.not_before is null
          and task.probe < {int(Probe.WANTED)}
        where need.note is not null group by need.id order by min(task.id)""",
    )
    return [InVain(listing.need_from(*asked), note, count, TaskId(first)) for note, count, first, *asked in rows]


@dataclass(frozen=True)
class Work:
    """What a worker has done: ended executions by outcome, and what they took together."""

    outcomes: dict[Outcome, int]
    run_s: float
    mean_run_s: float | None
    cpu_s: float
    read_bytes: int
    written_bytes: int

    @property
    def ended(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())


def work_of(db: apsw.Connection, worker: int) -> Work:
    """All that a worker has ever done. Reads its whole history: for people who ask, not for the driver."""
    outcomes: dict[Outcome, int] = {}
    runs, totals = 0, [0.0, 0.0, 0, 0]
    for outcome, count, measured, *sums in query.rows(
        db,
        """select outcome, count(*), count(run_s), total(run_s), total(cpu_s), total(read_bytes), total(written_bytes)
        from execution where worker = ? and outcome is not null group by outcome order by outcome""",
        (worker,),
    ):
        outcomes[Outcome(outcome)] = count
        runs += measured
        totals = [total + one for total, one in zip(totals, sums, strict=True)]
    run_s, cpu_s, read, written = totals
    return Work(outcomes, run_s, run_s / runs if runs else None, cpu_s, int(read), int(written))


def outcomes(db: apsw.Connection) -> dict[int, dict[Outcome, int]]:
    """How many executions of each worker (by number) have ended how. Reads them all: for pages, which keep it for a while."""
    found: dict[int, dict[Outcome, int]] = {}
    for worker, outcome, count in query.rows(
        db,
        """select worker, outcome, count(*) from execution where outcome is not null and worker is not null
        group by worker, outcome""",
    ):
        found.setdefault(worker, {})[Outcome(outcome)] = count
    return found


@dataclass(frozen=True)
class Times:
    """How long executions of a batch that ended one way ran: seconds."""

    runs: int
    mean_s: float
    least_s: float
    most_s: float


def times(db: apsw.Connection, latest: int) -> dict[str, dict[Outcome, Times]]:
    """The run times of each batch by outcome, of so many executions, the latest."""
    found: dict[str, dict[Outcome, Times]] = {}
    for batch, outcome, *figures in query.rows(
        db,
        """select batch.name, outcome, count(*), avg(run_s), min(run_s), max(run_s) from
          (select task, outcome, run_s from execution order by id desc limit ?) ended
        join task on task.id = ended.task join batch on batch.id = task.batch
        where outcome is not null and run_s is not null group by batch.id, outcome""",
        (latest,),
    ):
        found.setdefault(batch, {})[Outcome(outcome)] = Times(*figures)
    return found


@dataclass(frozen=True)
class Usage:
    """What the successful executions of a batch took. `cpu_use` is CPU time by run time: how many CPUs were busy.

    `asked` are the largest requests among their tasks. Memory is that of the largest process of a task. Others were
    `out_of_memory`; `memory_short` is the most that one of these had asked for. None: it was never measured.
    """

    batch: str
    runs: int
    run_s_median: float | None
    run_s_p95: float | None
    run_s_max: float | None
    cpu_s: float | None
    cpu_use: float | None
    cpu_use_p95: float | None
    memory_median: int | None
    memory_max: int | None
    asked: Need
    read_median: int | None = None
    written_median: int | None = None
    out_of_memory: int = 0
    memory_short: int | None = None


class _Figures:
    """What the executions of one batch took, as they are read. Compact: there may be millions."""

    def __init__(self) -> None:
        self.runs = self.out_of_memory = self.memory_short = 0
        self.run_s, self.cpu_s, self.cpu_use, self.memory = array("d"), array("d"), array("d"), array("q")
        self.read, self.written = array("q"), array("q")
        self.measured_s = 0.0
        self.asked: tuple[float, int, int] = (0.0, 0, 0)

    def add(
        self, run_s: float | None, cpu_s: float | None, memory: int | None, read: int | None, written: int | None
    ) -> None:
        """One execution."""
        if read is not None and written is not None:
            self.read.append(read)
            self.written.append(written)
        self.runs += 1
        if run_s is not None:
            self.run_s.append(run_s)
        if cpu_s is not None:
            self.cpu_s.append(cpu_s)
            if run_s:
                self.cpu_use.append(cpu_s / run_s)
                self.measured_s += run_s
        if memory is not None:
            self.memory.append(memory)

    def usage(self, batch: str) -> Usage:
        """All of them in a few numbers."""
        run_s, cpu_use, memory = sorted(self.run_s), sorted(self.cpu_use), sorted(self.memory)
        cpus, bytes_, gpus = self.asked
        return Usage(
            batch=batch, runs=self.runs, run_s_median=_rank(run_s, 50), run_s_p95=_rank(run_s, 95), run_s_max=_rank(run_s, 100),
            cpu_s=sum(self.cpu_s) if self.cpu_s else None, cpu_use=sum(self.cpu_s) / self.measured_s if self.measured_s else None,
            cpu_use_p95=_rank(cpu_use, 95), memory_median=_rank(memory, 50), memory_max=_rank(memory, 100),
            asked=Need(cpus or None, bytes_ or None, gpus or None),
            read_median=_rank(sorted(self.read), 50), written_median=_rank(sorted(self.written), 50),
            out_of_memory=self.out_of_memory, memory_short=self.memory_short or None,
        )  # fmt: skip


def usage(db: apsw.Connection, batch: str | None = None) -> list[Usage]:
    """What the executions that succeeded used, for each batch (or one), in the order of the batches."""
    # The rows are read once and ranked here: ranking three figures by window functions took four times as long.
    names: dict[int, str] = dict(
        query.rows(db, "select id, name from batch where ?1 is null or name = ?1 order by id", (batch,))
    )
    needs = {id: values for id, *values in query.rows(db, "select id, cpus, memory, gpus from need")}
    found = {id: _Figures() for id in names}
    asked: set[tuple[int, int]] = set()
    for outcome, reserved, id, need, *figures in db.execute(
        f"""select outcome, execution.memory, task.batch, task.need, run_s, cpu_s, peak_memory, read_bytes, written_bytes
        from execution join task on task.id = execution.task
        where outcome in ({int(Outcome.SUCCEEDED)}, {int(Outcome.OUT_OF_MEMORY)})
        and (?1 is null or task.batch = (select id from batch where name = ?1))""",
        (batch,),
    ):
        if id not in found:
            continue  # of a batch that was made a moment ago
        if outcome == Outcome.OUT_OF_MEMORY:
            found[id].out_of_memory += 1
            found[id].memory_short = max(found[id].memory_short, reserved)
        else:
            found[id].add(*figures)
            asked.add((id, need))
    for id, need in asked:
        if need not in needs:
            continue
        cpus, memory, gpus = found[id].asked
        found[id].asked = (max(cpus, needs[need][0]), max(memory, needs[need][1]), max(gpus, needs[need][2]))
    return [of_batch.usage(names[id]) for id, of_batch in found.items() if of_batch.runs or of_batch.out_of_memory]


def _rank(values: Sequence[T], percent: int) -> T | None:
    """The nearest rank of a percentile among sorted values; None where there are none."""
    return values[(len(values) * percent + 99) // 100 - 1] if values else None
