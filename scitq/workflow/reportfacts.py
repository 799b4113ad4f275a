"""What a report says of a workflow, as values: sums by step, what failed, what was read and left, and when who worked.

Pure. `reportgather` fills them from the state file; pages, pictures and documents are made of them by the other `report…`
modules. Their size does not depend on how many tasks there are. Times are milliseconds since 1970, lengths of time seconds.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scitq.states import Outcome, TaskState
from scitq.workflow.reportcommand import Patterns

# Up to so many tasks each one is told of by itself; up to so many executions each one is a bar of the timeline.
TASKS_TOLD = 300
BARS_DRAWN = 1200
# So many failures are shown with what they wrote, of each step and cause so many that wrote different things, and so many names of
# those that are like one of these; what more wrote is not looked at. So many inputs and outputs are listed.
FAILURES_SHOWN, FAILURES_OF_A_KIND, ALIKE_NAMED, FAILURES_READ = 40, 3, 10, 1000
DATA_LISTED = 2000
# The time in which nothing ran at all, between a run and the next, is left out of the timeline where it is longer than that.
PAUSE_SHARE, PAUSE_S = 0.1, 30.0
# Into so many parts the timeline is divided where there are too many executions for bars.
PARTS = 160


class Spread(NamedTuple):
    """Many figures in a few."""

    number: int
    total: float
    median: float
    p95: float
    largest: float


def spread(values: Sequence[float]) -> Spread | None:
    """Of these; None for none."""
    if not values:
        return None
    ranked = sorted(values)

    def rank(percent: int) -> float:
        return ranked[(len(ranked) * percent + 99) // 100 - 1]

    return Spread(len(ranked), sum(ranked), rank(50), rank(95), ranked[-1])


class Range(NamedTuple):
    """The least and the most that was asked for."""

    least: float
    most: float

    def with_(self, value: float) -> Range:
        """Widened to hold this one too."""
        return Range(min(self.least, value), max(self.most, value))


def widened(found: Range | None, value: float | None) -> Range | None:
    """A range that holds this value too, if there is one."""
    if value is None:
        return found
    return Range(value, value) if found is None else found.with_(value)


class Image(NamedTuple):
    """A container: the name it was asked by, and the bits that ran (by digest, or id where they have none)."""

    name: str
    bits: str | None


@dataclass
class Step:
    """One step: how its tasks stand, what its executions took beside what they asked for."""

    id: int
    name: str
    batch: str
    position: int
    counts: Counter[TaskState] = field(default_factory=Counter)
    cached: int = 0
    executions: int = 0
    tried_again: int = 0
    bad_ends: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    waiting_s: array[float] = field(default_factory=lambda: array("d"))
    staging_s: array[float] = field(default_factory=lambda: array("d"))
    run_s: array[float] = field(default_factory=lambda: array("d"))
    collecting_s: array[float] = field(default_factory=lambda: array("d"))
    cpu_s: float = 0.0
    cpus_used: array[float] = field(default_factory=lambda: array("d"))
    memory_used: array[float] = field(default_factory=lambda: array("d"))
    read_bytes: int = 0
    written_bytes: int = 0
    cpus_asked: Range | None = None
    memory_asked: Range | None = None
    gpus_asked: Range | None = None
    images: Counter[Image] = field(default_factory=Counter)
    shells: Counter[str] = field(default_factory=Counter)
    commands: Patterns = field(default_factory=Patterns)
    output_files: int = 0
    output_bytes: int = 0
    is_last: bool = True

    @property
    def tasks(self) -> int:
        """All of its tasks."""
        return sum(self.counts.values())


@dataclass
class Failure:
    """A task that failed finally, with the end of what it wrote; and those of its step that ended and wrote just the same."""

    task: int
    name: str
    step: int
    cause: str
    detail: str | None
    worker: str | None
    tries: int
    ended_ms: int | None
    command: str
    stream: str
    tail: bytes
    is_cut: bool
    alike: list[str] = field(default_factory=list)
    alike_more: int = 0


class File(NamedTuple):
    """A file that was read or left: `mark` is what tells its version (`md5:…`, `etag:…`, `time:…`), None where nothing does."""

    name: str
    size: int | None
    mark: str | None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """Its checksum with its kind."""
        kind, _, value = (self.mark or "").partition(":")
        return (kind, value) if kind in ("md5", "sha256") else None


@dataclass
class Source:
    """What was read at an address. `files` None: it is not known (any more) what there was."""

    address: str
    what: str
    files: list[File] | None
    tasks: int = 1

    @property
    def size(self) -> int | None:
        """Bytes of all of it, where they are known."""
        sizes = [file.size for file in self.files or ()]
        return None if self.files is None or None in sizes else sum(size or 0 for size in sizes)


@dataclass(frozen=True)
class Left:
    """What a task left at an address."""

    address: str
    task: int
    name: str
    step: int
    files: list[File]


@dataclass(frozen=True)
class TaskLine:
    """One task, where each is told of."""

    id: int
    name: str
    step: int
    state: TaskState
    is_cached: bool
    worker: str | None
    executions: int
    staging_s: float | None
    run_s: float | None
    collecting_s: float | None
    memory: int | None
    cause: str | None
    command: str


class Bar(NamedTuple):
    """One execution in the timeline: when it came to the worker, was staged in, ran, and ended. Of one that is live, now."""

    worker: int
    step: int
    label: str
    outcome: Outcome | None
    assigned: int
    staged: int | None
    started: int | None
    run_end: int | None
    ended: int


@dataclass(frozen=True)
class Worker:
    """A machine that ran something."""

    id: int
    name: str
    kind: str
    concurrency: int
    cpus: float | None
    memory: int | None
    gpus: tuple[str, ...]
    python: str | None
    scitq: str | None
    executions: int
    busy_s: float


@dataclass(frozen=True)
class Axis:
    """Moments as places from 0 to 1; long times in which nothing ran are left out. `parts` are (from, to) in order."""

    parts: tuple[tuple[int, int], ...]

    @property
    def length_ms(self) -> int:
        """All that is not left out."""
        return sum(end - start for start, end in self.parts)

    def place(self, at_ms: float) -> float:
        """Where a moment is."""
        passed = 0.0
        for start, end in self.parts:
            if at_ms < start:
                break
            passed += min(at_ms, end) - start
        return passed / self.length_ms if self.length_ms else 0.0

    @property
    def cuts(self) -> list[tuple[float, int]]:
        """Where something was left out, and how much of it (ms)."""
        pairs = zip(self.parts, self.parts[1:], strict=False)
        return [(self.place(before[1]), after[0] - before[1]) for before, after in pairs]


@dataclass
class Facts:
    """All that a report says."""

    name: str
    state_file: str
    version: str
    made_ms: int
    created_ms: int
    declared_ms: int | None
    script: str | None
    settings: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    executions: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    links: list[tuple[int | None, int, int]] = field(default_factory=list)
    tasks: list[TaskLine] = field(default_factory=list)
    parents: list[tuple[int, int]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed_more: int = 0
    sources: list[Source] = field(default_factory=list)
    sources_more: int = 0
    left: list[Left] = field(default_factory=list)
    left_more: int = 0
    workers: list[Worker] = field(default_factory=list)
    axis: Axis = Axis(())
    bars: list[Bar] = field(default_factory=list)
    # How many executions each worker had at once, by (worker, step), in `PARTS` parts of the axis; where there are no bars.
    loads: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    cost: str | None = None
    # SHA-256 that were computed for this report, by address, name and mark.
    checksums: dict[tuple[str, str, str | None], str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[TaskState]:
        """How many tasks are in each state."""
        return sum((step.counts for step in self.steps), Counter())

    @property
    def task_count(self) -> int:
        """All of its tasks."""
        return sum(step.tasks for step in self.steps)

    @property
    def is_over(self) -> bool:
        """Nothing more happens by itself."""
        return all(state.is_settled for state, count in self.counts.items() if count)

    @property
    def cached(self) -> int:
        """How many took the result of an earlier success."""
        return sum(step.cached for step in self.steps)

    def step(self, id: int) -> Step:
        """The step of that number."""
        return next(step for step in self.steps if step.id == id)


# Values of such variables are nobody's business who reads a report.
_SECRET = re.compile(r"(?i)token|secret|passw|credential|api_?key|private|auth")


def shareable(env: dict[str, str]) -> dict[str, str]:
    """Variables as a report may show them: of those whose names say that they are secret, only the names."""
    return {name: "(not shown)" if _SECRET.search(name) else value for name, value in env.items()}


def axis_of(spans: Sequence[tuple[int, int]]) -> Axis:
    """The axis on which these stretches of activity stand, in order and apart from each other."""
    total = sum(end - start for start, end in spans)
    limit = max(PAUSE_S * 1000, PAUSE_SHARE * total)
    parts: list[tuple[int, int]] = []
    for start, end in spans:
        if parts and start - parts[-1][1] <= limit:
            parts[-1] = (parts[-1][0], max(end, parts[-1][1]))
        else:
            parts.append((start, end))
    if parts and not sum(end - start for start, end in parts):
        parts[-1] = (parts[-1][0], parts[-1][1] + 1)
    return Axis(tuple(parts))
