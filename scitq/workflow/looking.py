"""What is to be seen of tasks: a page of a step's, and one of them with its history and what it writes.

Read from the file page by page: a step of a million tasks is looked at as quickly as one of ten.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from scitq.engine import Engine
from scitq.handle import FOLLOW_S, Task
from scitq.saying import Harmless, duration, size
from scitq.states import Outcome, TaskState
from scitq.store import executions, glances, listing, logs
from scitq.task import ExecutionId, ExecutionRow, TaskId, TaskRow

# Rows that are read around the one that is selected.
AROUND = 100
# What is kept of a task's output to look back at.
KEPT_BYTES = 256 << 10
KEPT_LINES = 5000
LINE_CHARACTERS = 2000


@dataclass(frozen=True)
class TaskLine:
    """A task in a list."""

    id: TaskId
    name: str
    state: TaskState
    word: str
    worker: str | None
    started_ms: int | None
    run_s: float | None
    note: str


@dataclass(frozen=True)
class Page:
    """Tasks of a step, by number. Whether there are more before and behind them."""

    rows: tuple[TaskLine, ...]
    more_before: bool
    more_after: bool


def page(engine: Engine, batch: str, states: frozenset[TaskState] | None, text: str, at: int | None) -> Page:
    """The tasks around a number; without one, the first; -1: the last ones."""
    db = engine._reader()
    if at is None:
        rows = glances.page(db, batch, states, text, limit=2 * AROUND + 1)
        return Page(_lines(engine, rows[: 2 * AROUND]), False, len(rows) > 2 * AROUND)
    if at < 0:
        rows = glances.page(db, batch, states, text, newest_first=True, limit=2 * AROUND + 1)
        return Page(_lines(engine, rows[-2 * AROUND :]), len(rows) > 2 * AROUND, False)
    before = glances.page(db, batch, states, text, before=at, newest_first=True, limit=AROUND + 1)
    after = glances.page(db, batch, states, text, after=at - 1, limit=AROUND + 1)
    return Page(_lines(engine, [*before[-AROUND:], *after[:AROUND]]), len(before) > AROUND, len(after) > AROUND)


def _lines(engine: Engine, rows: list[TaskRow]) -> tuple[TaskLine, ...]:
    attempts = glances.attempts(engine._reader(), [row.id for row in rows])
    return tuple(_line(row, attempts.get(row.id)) for row in rows)


def _line(row: TaskRow, last: glances.Attempt | None) -> TaskLine:
    name = row.name or row.spec.line()
    queued = row.state in (TaskState.WAITING, TaskState.PENDING, TaskState.PAUSED, TaskState.DEBUG)
    if last is None or (queued and last.ended_ms is not None):
        # What it is in the queue for now has no execution yet; how the last one ended may still be worth a word.
        cause = f"last try {last.cause}" if last is not None and last.cause and row.tries else ""
        return TaskLine(row.id, name, row.state, row.state.word, None, None, None, row.reason or cause)
    is_bad = row.state is TaskState.FAILED
    note = (last.cause or "") if is_bad else row.reason or ""
    return TaskLine(row.id, name, row.state, row.state.word, last.worker, last.started_ms, last.run_s, note)


# --- one task -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttemptLine:
    """An execution in the history of a task, as it is shown."""

    number: int
    worker: str
    started: str
    time: str
    memory: str
    how: str
    style: str


@dataclass(frozen=True)
class Detail:
    """A task, as far as its screen shows it. `output`: (stream, line) as they came."""

    id: TaskId
    batch: str
    label: str
    state: TaskState
    why: str
    command: str
    attempts: tuple[AttemptLine, ...]
    output: tuple[tuple[int, str], ...]
    edit_waits: bool


class Follower:
    """Looks at one task again and again, and reads on in what it writes where it stopped before."""

    def __init__(self, engine: Engine, task: TaskId) -> None:
        self._task = Task(engine, task)
        self._engine = engine
        self._execution: ExecutionId | None = None
        self._streams: list[_Stream] = []
        self._lines: list[tuple[int, str]] = []
        self._asked = 0.0

    @property
    def id(self) -> TaskId:
        """The task."""
        return self._task.id

    def look(self) -> Detail:
        """How it stands now.

        Raises:
            UnknownTask: it was deleted.
        """
        db = self._engine._reader()
        row = listing.get(db, self._task.id)
        attempts = executions.of_task(db, row.id)
        self._read(row, attempts[-1] if attempts else None)
        return Detail(
            id=row.id, batch=row.batch, label=row.label, state=row.state, why=self._task.why(), command=command_text(row),
            attempts=tuple(_attempt(one) for one in attempts[-10:]), output=self._output(),
            edit_waits=listing.edit_pending(db, row.id),
        )  # fmt: skip

    def _output(self) -> tuple[tuple[int, str], ...]:
        # What has no end of line yet is shown as far as it goes.
        begun = [(stream.number, stream.begun) for stream in self._streams if stream.begun]
        return (*self._lines, *begun)

    def _read(self, row: TaskRow, last: ExecutionRow | None) -> None:
        if last is None:
            return
        if last.id != self._execution:
            self._execution, self._lines = last.id, []
            self._streams = [_Stream(self._engine, last.id, stream) for stream in (logs.OUT, logs.ERR)]
        if row.state in (TaskState.RUNNING, TaskState.COLLECTING) and time.monotonic() >= self._asked:
            self._task._ask_to_follow()
            self._asked = time.monotonic() + FOLLOW_S / 2
        for stream in self._streams:
            self._lines += [(stream.number, line) for line in stream.read(is_over=last.ended_ms is not None)]
        del self._lines[:-KEPT_LINES]


class _Stream:
    """One stream of an execution, line by line, from near its end on if it is long."""

    def __init__(self, engine: Engine, execution: ExecutionId, number: int) -> None:
        self.number = number
        self._engine = engine
        self._execution = execution
        self._offset = -1
        self._filter = Harmless(colours=False)
        self._rest = ""
        self._is_over = False

    @property
    def begun(self) -> str:
        """The line that is not finished."""
        return self._rest.expandtabs()[:LINE_CHARACTERS]

    def read(self, *, is_over: bool) -> list[str]:
        """The lines that have come since; an unfinished one once the execution is over."""
        if self._is_over:
            return []
        if self._offset < 0:
            self._offset = max(0, size_of(self._engine, self._execution, self.number) - KEPT_BYTES)
            if self._offset:
                self._rest = "(earlier output is left out: scitq task output) "
        text = self._rest
        while piece := self._engine._log_bytes(self._execution, self.number, self._offset, limit=KEPT_BYTES):
            self._offset += len(piece)
            text = (text + self._filter.feed(piece))[-4 * KEPT_BYTES :]
        if is_over:
            self._is_over = True
            text += self._filter.end()
        *whole, rest = text.split("\n")
        if is_over and rest:
            whole, rest = [*whole, rest], ""
        self._rest = rest[-KEPT_BYTES:]
        return [line.expandtabs()[:LINE_CHARACTERS] for line in whole]


def size_of(engine: Engine, execution: ExecutionId, stream: int) -> int:
    """How many bytes of a stream there are: of one that is written still, how many have come so far."""
    stored = logs.get(engine._reader(), execution, stream)
    if stored is not None:
        return stored.size
    for path in logs.parts(engine.side, execution, stream)[-1:]:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0
    return 0


def command_text(row: TaskRow) -> str:
    """A task's command as one would edit it: the script, or its words as a shell would take them."""
    return row.spec.command if isinstance(row.spec.command, str) else row.spec.line()


def _attempt(one: ExecutionRow) -> AttemptLine:
    started = "" if one.started_ms is None else datetime.fromtimestamp(one.started_ms / 1000).strftime("%H:%M:%S")
    run_s = one.run_s
    if run_s is None and one.ended_ms is None and one.started_ms is not None:
        run_s = max(0, time.time_ns() // 1_000_000 - one.started_ms) // 1000
    how = one.cause or ("runs" if one.started_ms is not None else "is held by its worker")
    style = "" if one.outcome is None else "good" if one.outcome is Outcome.SUCCEEDED else "bad"
    if one.stop_wanted and one.outcome is None:
        how = "is asked to stop"
    detail = f": {one.detail}" if one.detail else ""
    memory = "" if one.peak_memory_bytes is None else size(one.peak_memory_bytes)
    return AttemptLine(
        one.attempt, one.worker or "", started, "" if run_s is None else duration(run_s), memory, how + detail, style
    )
