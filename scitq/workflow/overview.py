"""What is to be seen of a workflow at one moment: its steps with their counts, who works for them, how fast, for how long.

Read from the file by few look-ups, whose cost does not depend on how many tasks there are. How it is drawn is in `drawing`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scitq.engine import Engine
from scitq.errors import UnknownTask
from scitq.handle import Task
from scitq.hints import driver_of
from scitq.saying import clean, without_place
from scitq.spending import Cost, told
from scitq.states import BAD, LIVE, Halt, TaskState, WorkerState
from scitq.store import glances, workflows
from scitq.store.workflows import StepRow, WorkflowRow
from scitq.task import BatchId, TaskRow
from scitq.worker import WorkerRow

# So many of the newest failures are told, and so much of what each wrote last.
TROUBLES = 3
LAST = 160
# The states that a line tells apart, in the order in which tasks pass them.
QUEUED = (TaskState.WAITING, TaskState.PENDING, TaskState.PAUSED, TaskState.DEBUG)
# How many ends make a rate; over which times (s) they are looked for, the shortest first.
ENOUGH_ENDS = 5
SPANS_S = (60.0, 600.0, 7200.0)


@dataclass(frozen=True)
class Step:
    """One step: `workers` serve it now; `rate` is in tasks a second, `left_s` how long the rest takes at that rate."""

    row: StepRow
    workers: int = 0
    rate: float | None = None
    left_s: float | None = None
    cost: str | None = None
    """What it has cost, with the currency."""

    @property
    def name(self) -> str:
        """Its name inside the workflow."""
        return self.row.step

    def count(self, *states: TaskState) -> int:
        """How many of its tasks are in these states."""
        return sum(self.row.counts.get(state, 0) for state in states)

    @property
    def total(self) -> int:
        """All its tasks."""
        return sum(self.row.counts.values())

    @property
    def settled(self) -> int:
        """Tasks to which nothing more happens by itself."""
        return sum(n for state, n in self.row.counts.items() if state.is_settled)

    @property
    def ran(self) -> int:
        """Tasks that have come to their end, well or not."""
        return self.count(TaskState.SUCCEEDED, TaskState.FAILED)


@dataclass(frozen=True)
class Overview:
    """A workflow at one moment. `driver` describes who drives the file; None: nobody does."""

    row: WorkflowRow
    steps: tuple[Step, ...]
    driver: str | None
    stands_still: bool
    now_ms: int
    counts: Mapping[TaskState, int] = field(default_factory=dict)
    # The newest failures, a line each: what failed, how, and what it wrote last.
    troubles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.row.name

    @property
    def total(self) -> int:
        """All its tasks."""
        return sum(self.counts.values())

    @property
    def live(self) -> int:
        """Tasks that workers hold."""
        return sum(self.counts.get(state, 0) for state in LIVE)

    @property
    def queued(self) -> int:
        """Tasks that no worker holds yet."""
        return sum(self.counts.get(state, 0) for state in QUEUED)

    @property
    def bad(self) -> int:
        """Tasks that ended badly, or will never begin."""
        return sum(self.counts.get(state, 0) for state in BAD)

    @property
    def is_settled(self) -> bool:
        """Nothing more happens by itself; blocked ones wait for ever."""
        return not self.live and not self.queued

    @property
    def halt(self) -> Halt:
        """What holds for all steps that are not over: GO, unless every one of them is halted."""
        halts = [step.row.halt for step in self.steps if step.settled < step.total] or [
            step.row.halt for step in self.steps
        ]
        return min(halts, default=Halt.GO)

    @property
    def state(self) -> str:
        """The word for how it stands."""
        if self.is_settled:
            return "no tasks" if not self.total else "failed" if self.bad else "succeeded"
        if self.halt is not Halt.GO:
            return self.halt.word
        if self.live:
            return "running"
        return "queued" if self.counts.get(TaskState.PENDING) else "waiting"

    @property
    def elapsed_s(self) -> float | None:
        """For how long its last run has gone on, or went on; None when that is not known."""
        if self.row.started_ms is None:
            return None
        end = self.row.ended_ms
        if end is None and self.is_settled:
            return None
        return max(0, (self.now_ms if end is None else end) - self.row.started_ms) / 1000


class Watch:
    """Looks at one workflow again and again. It remembers how its counts grew, which is how fast its steps go."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._paces: dict[BatchId, _Pace] = {}
        self._seed: tuple[float, dict[BatchId, int]] | None = None
        self._failed: tuple[int, ...] = ()
        self._troubles: tuple[str, ...] = ()

    def look(self) -> Overview:
        """How it stands now.

        Raises:
            UnknownWorkflow: there is none of that name (any more).
        """
        db, now, clock = self.engine._reader(), time.time_ns() // 1_000_000, time.monotonic()
        row = workflows.get(db, self.name)
        serving = glances.served(db)
        if self._seed is None:
            self._seed = glances.ended_lately(db, now)
        workers = self.engine.workers()
        steps = tuple(self._step(one, serving, workers, clock) for one in workflows.steps(db, row.id))
        spent: dict[int | None, list[Cost]] = {}
        for cost in self.engine.cost("batch"):
            spent.setdefault(cost.id, []).append(cost)
        if spent:
            steps = tuple(replace(step, cost=told(spent.get(step.row.id, ())) or None) for step in steps)
        counts: dict[TaskState, int] = {}
        for step in steps:
            for state, n in step.row.counts.items():
                counts[state] = counts.get(state, 0) + n
        holder = driver_of(self.engine)
        driver = None if holder is None else holder.describe(now)
        still = holder is not None and holder.stands_still(now)
        return Overview(row, steps, driver, still, now, counts, self._newest_failures(steps))

    def _newest_failures(self, steps: Sequence[Step]) -> tuple[str, ...]:
        failed = tuple(step.count(TaskState.FAILED) for step in steps)
        if failed != self._failed:
            self._failed = failed
            found = [
                row
                for step in steps
                if step.count(TaskState.FAILED)
                for row in glances.page(
                    self.engine._reader(),
                    step.row.batch,
                    [TaskState.FAILED],
                    "",
                    newest_first=True,
                    limit=TROUBLES,
                )
            ]
            newest = sorted(found, key=lambda row: row.changed_ms)[-TROUBLES:]
            self._troubles = tuple(failure(self.engine, row) for row in newest)
        return self._troubles

    def _step(
        self, row: StepRow, serving: Mapping[BatchId, frozenset[int]], known: Sequence[WorkerRow], clock: float
    ) -> Step:
        workers = set(serving.get(row.id, ()))
        workers |= {int(one.id) for one in known if one.batch == row.batch and one.state is WorkerState.READY}
        step = Step(row, len(workers))
        pace = self._paces.get(row.id)
        if pace is None:
            assert self._seed is not None
            span_s, ended = self._seed
            pace = self._paces[row.id] = _Pace(clock, step.ran, span_s, ended.get(row.id, 0))
        rate = pace.seen(clock, step.ran)
        left = step.total - step.settled
        if not rate or not step.count(*LIVE, TaskState.PENDING) or row.halt:
            return Step(row, len(workers))
        return Step(row, len(workers), rate, left / rate)


def failure(engine: Engine, row: TaskRow) -> str:
    """`12 's07' failed (exit 1): what it wrote last`."""
    task = Task(engine, row.id)
    try:
        last, tail = task.executions[-1:], [line for line in task.tail() if line.strip()][-1:]
    except UnknownTask:
        last, tail = [], []
    cause = (last[0].cause if last else None) or row.reason or "failed"
    wrote = f": {without_place(tail[0]).strip()[:LAST]}" if tail else ""
    return clean(f"{row.label} {cause}{wrote}")


class _Pace:
    """How many tasks of a step had ended when: enough of it to tell how fast they do."""

    def __init__(self, clock: float, ended: int, span_s: float, before: int) -> None:
        # What ended shortly before somebody looked counts too, so that a rate is there from the beginning.
        self._points = [(clock - span_s, ended - before)] if before else []
        self._points.append((clock, ended))

    def seen(self, clock: float, ended: int) -> float | None:
        """Take note of a count; gives the rate (tasks a second) of late, None when there is none."""
        last_clock, last = self._points[-1]
        if ended < last:  # relaunched: it begins anew
            self._points = [(clock, ended)]
        elif ended > last and clock - last_clock >= 1.0:
            self._points.append((clock, ended))
            self._points = [point for point in self._points if clock - point[0] <= SPANS_S[-1]][-2000:]
        for span_s in SPANS_S:
            at, then = next((point for point in self._points if clock - point[0] <= span_s), self._points[-1])
            if ended - then >= ENOUGH_ENDS or (span_s == SPANS_S[-1] and ended > then):
                return (ended - then) / max(1.0, clock - at)
        return None
