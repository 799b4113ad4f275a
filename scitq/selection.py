"""Many tasks at once: the ones of a `submit_many`, and those that a condition chose."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from scitq.adopting import is_call
from scitq.errors import IllegalMove
from scitq.handle import Task
from scitq.pictured import Pictured
from scitq.states import FINAL, LIVE, TaskState
from scitq.store import listing, tasks
from scitq.task import TaskId, TaskRow

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine
    from scitq.frames import Plots
    from scitq.markup import Markup


def chunks(items: list[TaskId], size: int) -> Iterator[list[TaskId]]:
    """Pieces of a list."""
    return (items[start : start + size] for start in range(0, len(items), size))


class Tasks(Pictured, Sequence[Task]):
    """Many tasks of one file."""

    _engine: Engine

    @property
    def ids(self) -> Sequence[TaskId]:
        """Their numbers."""
        raise NotImplementedError

    def _at(self, index: int) -> TaskId:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [Task(self._engine, self._at(i)) for i in range(*index.indices(len(self)))]
        return Task(self._engine, self._at(index))

    def __eq__(self, other: object) -> bool:
        """As a list of the same tasks is."""
        if isinstance(other, Tasks):
            return other._engine.path == self._engine.path and list(other.ids) == list(self.ids)
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} {'task' if len(self) == 1 else 'tasks'} of {self._engine.path.name}>"

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_tasks(self._engine, self.ids)

    def to_frame(self) -> Any:
        """A pandas DataFrame: a row for each task with its latest execution. Times are UTC, `…_s` seconds, `…_gb` 10⁹ bytes; what
        is not known is missing. `to_frame().plot.timeline()` draws who ran what when.

        Raises:
            BadInput: pandas is not installed.
        """
        from scitq import frames

        return frames.of_tasks(self._engine, self.ids)

    @property
    def plot(self) -> Plots:
        """`plot.timeline()` draws which worker ran what when (with matplotlib)."""
        from scitq import frames

        return frames.Plots(lambda: frames.spans_of(self._engine, self.ids))


def reworded(row: TaskRow, old: str, new: str) -> str | list[str] | None:
    """The command of a task with `new` in the place of `old`; None: that is not in it, or it calls a function of Python."""
    command = row.spec.command
    if is_call(row) or not any(old in word for word in ([command] if isinstance(command, str) else command)):
        return None
    return command.replace(old, new) if isinstance(command, str) else [word.replace(old, new) for word in command]


class TaskList(Tasks):
    """Handles on the tasks of one `submit_many`, made as they are asked for: a million take no memory."""

    def __init__(self, engine: Engine, ranges: list[range]) -> None:
        self._engine = engine
        self._ranges = ranges

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._ranges)

    def __iter__(self) -> Iterator[Task]:
        return (Task(self._engine, TaskId(id)) for ids in self._ranges for id in ids)

    def _at(self, index: int) -> TaskId:
        place = index + len(self) if index < 0 else index
        for ids in self._ranges:
            if 0 <= place < len(ids):
                return TaskId(ids[place])
            place -= len(ids)
        raise IndexError(f"task {index} of {len(self)}")

    @property
    def ids(self) -> Sequence[TaskId]:
        """Their numbers."""
        return [TaskId(id) for ids in self._ranges for id in ids]


class Selection(Tasks):
    """Tasks chosen by a condition, as they were at that moment. Each deed is one transaction; a task that cannot follow
    (it has ended, is launched…) is left as it is, and the number of those that did is returned."""

    def __init__(self, engine: Engine, ids: list[TaskId]) -> None:
        self._engine = engine
        self._ids = ids
        # Asked before each thousand tasks: what was done until then stays done, and its number is returned.
        self.is_stopped: Callable[[], bool] = bool

    @property
    def ids(self) -> list[TaskId]:
        """Their numbers."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def _at(self, index: int) -> TaskId:
        return self._ids[index]

    def relaunch(self) -> int:
        """Queue those that have ended once more."""
        count = self._each(tasks.relaunch, FINAL)
        self._engine._drive()
        return count

    def cancel(self) -> int:
        """Cancel those that have not ended."""
        return self._each(tasks.cancel, frozenset(TaskState) - FINAL)

    def pause(self) -> int:
        """Pause those that have not ended."""
        return self._each(tasks.pause, frozenset(TaskState) - FINAL)

    def resume(self) -> int:
        """Let those that are paused or stopped go on."""
        count = self._each(tasks.resume, LIVE | {TaskState.PAUSED, TaskState.BLOCKED})
        self._engine._drive()
        return count

    def update(self, *, replace: tuple[str, str] | None = None, **changes: Any) -> int:
        """Edit those that are not launched; what workers hold is called back for it. The number asked for is returned.

        `replace=(old, new)` puts `new` in the place of `old` wherever it is in a command; tasks in whose command it is not stay
        as they are.
        """
        engine = self._engine
        count = 0
        for page in self._pages():
            edits = []
            for row in listing.select(engine._reader(), ids=page, limit=len(page)):
                wanted = dict(changes)
                if replace is not None:
                    if (command := reworded(row, *replace)) is None:
                        continue
                    wanted["command"] = command
                edits.append((row.id, *engine._edit_of(row, wanted)))
            count += engine._write(functools.partial(_update_all, edits))
        return count

    def holding(self, text: str) -> Selection:
        """Those in whose command that is."""
        found: list[TaskId] = []
        for page in chunks(self.ids, 1000):
            rows = listing.select(self._engine._reader(), ids=page, limit=len(page))
            found += [row.id for row in rows if reworded(row, text, text) is not None]
        return Selection(self._engine, found)

    def delete(self, *, keep_cache: bool = False) -> int:
        """Remove them from the file, all or none; with `keep_cache` others may still take their results.

        Raises:
            IllegalMove: one is on a worker, or needed by a task outside of the selection.
        """
        self._engine._delete(self.ids, keep_cache=keep_cache)
        return len(self.ids)

    def _pages(self) -> Iterator[list[TaskId]]:
        """So many at a time as one transaction takes."""
        for page in chunks(self.ids, 1000):
            if self.is_stopped():
                return
            yield page

    def _each(self, deed: Callable[[apsw.Connection, int, TaskId], object], states: frozenset[TaskState]) -> int:
        count = 0
        for page in self._pages():
            count += self._engine._write(functools.partial(_do_to_all, deed, states, page))
        return count


def _do_to_all(
    deed: Callable[[apsw.Connection, int, TaskId], object],
    states: frozenset[TaskState],
    ids: list[TaskId],
    db: apsw.Connection,
) -> int:
    now = time.time_ns() // 1_000_000
    able = [row.id for row in listing.select(db, ids=ids) if row.state in states]
    for id in able:
        deed(db, now, id)
    return len(able)


def _update_all(edits: list[tuple[TaskId, dict[str, Any], dict[str, Any]]], db: apsw.Connection) -> int:
    now, count = time.time_ns() // 1_000_000, 0
    for id, changes, columns in edits:
        with contextlib.suppress(IllegalMove):  # it was launched
            tasks.update(db, now, id, changes, **columns)
            count += 1
    return count
