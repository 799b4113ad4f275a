"""`scitq tail`: what several tasks write, line by line, each behind the name of its task."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click

from scitq.handle import FOLLOW_S
from scitq.saying import Harmless, clean
from scitq.shell import facts
from scitq.shell.show import Screen
from scitq.shell.tasks import FRESH_S
from scitq.states import FINAL, TaskState
from scitq.store import batches, executions, listing, logs, tasks
from scitq.task import ExecutionId, ExecutionRow, TaskId, TaskRow
from scitq.workflow.cells import cut, pad, width
from scitq.workflow.looking import size_of

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine

# So many tasks at once; and how wide a name may be.
MOST = 1000
NAME_CELLS = 24
PIECE_BYTES = 1 << 18
# So far back the last lines of a stream are looked for; so much without an end of line is a line.
BACK_BYTES = 64 << 10
LINE_BYTES = 64 << 10
# At most so often the file is looked at, however fast it changes.
LOOK_S = 0.2
# Names are told apart by colours that are read on light and dark, stderr by red.
_COLOURS = (36, 33, 32, 35, 34, 96)
_OPEN = frozenset(TaskState) - FINAL


def tail(engine: Engine, args: SimpleNamespace) -> int:
    """Print the last lines, and go on if that is wanted."""
    screen: Screen = args.screen
    if args.lines < 0:
        raise click.UsageError(f"--lines takes 0 or more, not {args.lines}.")
    chosen, notes = _chosen(engine, args)
    for note in notes:
        screen.say(note)
    teller = _Teller(engine, screen)
    watched = _Watched(engine, teller, chosen, args.batch if args.follow else None)
    watched.begin(args.lines)
    if args.follow:
        if watched.is_open:
            for note in facts.nobody_drives(engine):
                screen.say(note)
        watched.follow()
    return 0


def _chosen(engine: Engine, args: SimpleNamespace) -> tuple[list[TaskId], list[str]]:
    """The tasks that the arguments mean, and what is to be said of that."""
    found = [engine.task(given).id for given in args.ids]
    if args.where is not None:
        found += engine.where(args.where).ids
    notes = []
    if args.batch is not None:
        batches.known(engine._reader(), args.batch)
        states = _OPEN if args.follow else None
        rows = engine.rows(status=states, batch=args.batch, limit=MOST + 1, newest_first=not args.follow)
        found += sorted(row.id for row in rows)
    elif not found and args.where is None:
        raise click.UsageError("which tasks? Give numbers or names, --batch or --where; scitq task list shows them.")
    found = list(dict.fromkeys(found))
    if len(found) > MOST:
        notes.append(f"These are {MOST:,} of them; there are more.")
        found = found[:MOST] if args.follow else found[-MOST:]
    if not found:
        notes.append("No such tasks." if not args.follow else f"All of {args.batch or 'them'} is over.")
    return found, notes


class _Teller:
    """Prints lines behind the names of their tasks."""

    def __init__(self, engine: Engine, screen: Screen) -> None:
        self._engine = engine
        self._screen = screen
        self._names: dict[int, str] = {}
        self._cells = 0
        self.is_plain = not screen.is_terminal

    def introduce(self, rows: Iterable[TaskRow]) -> None:
        """Who will have something to say: names are as wide as the widest of them."""
        for row in rows:
            name = clean(f"{row.id} {row.name}" if row.name else str(row.id))
            self._names[int(row.id)] = cut(name, NAME_CELLS)
            self._cells = max(self._cells, width(self._names[int(row.id)]))

    def line(self, task: int, execution: int, stream: int, data: bytes) -> None:
        """One line of a task."""
        if self._screen.as_json:
            self._screen.json(
                {
                    "task": task,
                    "execution": execution,
                    "stream": ("stdout", "stderr")[stream],
                    "text": data.decode(errors="replace"),
                }
            )
            return
        name, mark = pad(self._names[task], self._cells), "!" if stream else "|"
        if self.is_plain:
            self._screen.out(f"{name} {mark} {data.decode(errors='backslashreplace')}")
            return
        colours = self._screen.has_colour
        plain = Harmless(colours=colours)
        text = plain.feed(data) + plain.end()
        if colours:
            red = "\x1b[31m" if stream else ""
            head = f"\x1b[{_COLOURS[task % len(_COLOURS)]}m{name}\x1b[0m {red}{mark} "
            end = "\x1b[0m" if stream else ""
        else:
            head, end = f"{name} {mark} ", ""
        # What a carriage return was to draw over is a line of its own.
        for part in text.split("\n"):
            self._screen.out(f"{head}{part}{end}")


class _Stream:
    """One stream of an execution, from which whole lines are taken."""

    def __init__(self, engine: Engine, execution: ExecutionId, number: int) -> None:
        self.number = number
        self._engine, self._execution = engine, execution
        self._offset = 0
        self._rest = b""

    def last(self, count: int) -> list[bytes]:
        """The last lines of what is there; what comes later is taken from then on."""
        size = size_of(self._engine, self._execution, self.number)
        self._offset = start = max(0, size - BACK_BYTES)
        *lines, self._rest = b"".join(self._pieces(size)).split(b"\n")
        if start and lines:
            del lines[0]  # its beginning is not there
        return lines[-count:] if count else []

    def lines(self, *, is_over: bool) -> Iterator[bytes]:
        """The whole lines that have come since; the unfinished one, too, once it is over."""
        for piece in self._pieces():
            *whole, self._rest = (self._rest + piece).split(b"\n")
            yield from whole
            if len(self._rest) > LINE_BYTES:
                yield self._rest
                self._rest = b""
        if is_over and self._rest:
            yield self._rest
            self._rest = b""

    def _pieces(self, until: int | None = None) -> Iterator[bytes]:
        while until is None or self._offset < until:
            limit = PIECE_BYTES if until is None else min(PIECE_BYTES, until - self._offset)
            piece = self._engine._log_bytes(self._execution, self.number, self._offset, limit=limit)
            if not piece:
                return
            self._offset += len(piece)
            yield piece


class _Cursor:
    """How far one task has been told."""

    def __init__(self, task: TaskId) -> None:
        self.task = task
        self.current: ExecutionId | None = None
        self.streams: list[_Stream] = []
        self.done: set[ExecutionId] = set()
        self.state: TaskState | None = None


class _Watched:
    """The tasks that are looked at, and how far each has been told."""

    def __init__(self, engine: Engine, teller: _Teller, chosen: list[TaskId], batch: str | None) -> None:
        self._engine, self._teller, self._batch = engine, teller, batch
        self._cursors: dict[TaskId, _Cursor] = {}
        self._newest = 0
        self._asked = float("-inf")
        self._followed: set[TaskId] = set()
        rows = listing.select(engine._reader(), ids=chosen, limit=len(chosen) or 1) if chosen else []
        teller.introduce(rows)
        for row in sorted(rows, key=lambda row: row.id):
            self._cursors[row.id] = _Cursor(row.id)
        if batch is not None:
            newest = engine.rows(limit=1, newest_first=True)
            self._newest = int(newest[0].id) if newest else 0

    @property
    def is_open(self) -> bool:
        """Something may still be written."""
        return bool(self._cursors)

    def begin(self, count: int) -> None:
        """The last lines of each task's latest execution."""
        states = self._states()
        self._ask(states)
        if any(state is TaskState.RUNNING for state in states.values()) and facts.driver_of(self._engine) is not None:
            self._let_come()
        for cursor in self._cursors.values():
            attempts = self._attempts(cursor.task)
            if not attempts:
                continue
            last = attempts[-1]
            cursor.done = {one.id for one in attempts[:-1]}
            self._enter(cursor, last)
            is_over = last.ended_ms is not None
            for stream in cursor.streams:
                lines = stream.last(count + 1)  # the last one may have no end
                unfinished = list(stream.lines(is_over=is_over)) if is_over else []
                shown = [*lines, *unfinished]
                for line in shown[-count:] if count else []:
                    self._teller.line(int(cursor.task), int(last.id), stream.number, line)
            if is_over:
                cursor.done.add(last.id)

    def follow(self) -> None:
        """What they write from then on, until all are over."""
        self._engine._begin_to_wait()
        while True:
            seen, began = self._engine._changes.count, time.monotonic()
            self._join()
            states = self._states()
            for cursor in list(self._cursors.values()):
                state = states.get(cursor.task)  # None: deleted
                if state is None or state.is_live or state is not cursor.state:
                    self._tell(cursor)
                cursor.state = state
                if state is None or state.is_settled:
                    del self._cursors[cursor.task]
            if not self._cursors and not self._has_more():
                return
            self._ask(states)
            is_live = any(state.is_live for state in states.values())
            self._engine._changes.wait(seen, 1.0 if is_live else 15.0)
            time.sleep(max(0.0, began + LOOK_S - time.monotonic()))

    def _has_more(self) -> bool:
        return self._batch is not None and any(not state.is_settled for state in self._engine.counts(self._batch))

    def _join(self) -> None:
        """New tasks of the batch, and those of it that are queued once more."""
        if self._batch is None:
            return
        db = self._engine._reader()
        new = listing.select(db, batch=self._batch, after=self._newest, limit=MOST)
        again = listing.select(db, states=_OPEN, batch=self._batch, limit=MOST)
        rows = [row for row in {row.id: row for row in (*new, *again)}.values() if row.id not in self._cursors]
        rows = rows[: max(0, MOST - len(self._cursors))]
        self._newest = max([self._newest, *(int(row.id) for row in new)])
        self._teller.introduce(rows)
        for row in rows:
            cursor = self._cursors[row.id] = _Cursor(row.id)
            if int(row.id) <= self._newest and row not in new:
                cursor.done = {one.id for one in self._attempts(row.id) if one.ended_ms is not None}

    def _tell(self, cursor: _Cursor) -> None:
        """All that has come of a task since."""
        for attempt in self._attempts(cursor.task):
            if attempt.id in cursor.done:
                continue
            if attempt.id != cursor.current:
                self._enter(cursor, attempt)
            is_over = attempt.ended_ms is not None
            for stream in cursor.streams:
                for line in stream.lines(is_over=is_over):
                    self._teller.line(int(cursor.task), int(attempt.id), stream.number, line)
            if is_over:
                cursor.done.add(attempt.id)

    def _enter(self, cursor: _Cursor, attempt: ExecutionRow) -> None:
        cursor.current = attempt.id
        cursor.streams = [_Stream(self._engine, attempt.id, stream) for stream in (logs.OUT, logs.ERR)]

    def _attempts(self, task: TaskId) -> list[ExecutionRow]:
        return executions.of_task(self._engine._reader(), task)

    def _states(self) -> dict[TaskId, TaskState]:
        if not self._cursors:
            return {}
        rows = listing.select(self._engine._reader(), ids=list(self._cursors), limit=len(self._cursors))
        return {row.id: row.state for row in rows}

    def _ask(self, states: dict[TaskId, TaskState]) -> None:
        """Have whoever drives bring home what those that run write."""
        now = time.monotonic()
        wanted = [id for id, state in states.items() if state in (TaskState.RUNNING, TaskState.COLLECTING)]
        if not wanted or now < self._asked + FOLLOW_S / 2:
            fresh = [id for id in wanted if id not in self._followed]
            if not fresh:
                return
            wanted = fresh
        else:
            self._asked, self._followed = now, set()
        self._followed |= set(wanted)
        until_ms = int((time.time() + FOLLOW_S) * 1000)

        def ask(db: apsw.Connection) -> None:
            for id in wanted:
                tasks.follow(db, id, until_ms)

        self._engine._write_if_possible(ask)

    def _let_come(self) -> None:
        """What has been written by now, and nobody had asked for, needs a moment to come."""
        live = [one.id for task in self._cursors for one in self._attempts(task)[-1:] if one.ended_ms is None]
        deadline, before = time.monotonic() + FRESH_S, -1
        while time.monotonic() < deadline:
            seen = self._engine._changes.count
            size = sum(size_of(self._engine, id, stream) for id in live for stream in (logs.OUT, logs.ERR))
            if size and size == before:
                return
            before = size
            self._engine._changes.wait(seen, 0.3)
