"""Many tasks at once: the ones of a `submit_many`, and those that a condition chose."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scitq.errors import IllegalMove
from scitq.handle import Task
from scitq.states import FINAL, LIVE, TaskState
from scitq.store import listing, tasks
from scitq.task import TaskId

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine


def chunks(items: list[TaskId], size: int) -> Iterator[list[TaskId]]:
    """Pieces of a list."""
    return (items[start : start + size] for start in range(0, len(items), size))


class TaskList(Sequence[Task]):
    """Handles on the tasks of one `submit_many`, made as they are asked for: a million take no memory."""

    def __init__(self, engine: Engine, ranges: list[range]) -> None:
        self._engine = engine
        self._ranges = ranges

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._ranges)

    def __iter__(self) -> Iterator[Task]:
        return (Task(self._engine, TaskId(id)) for ids in self._ranges for id in ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        for ids in self._ranges:
            if 0 <= place < len(ids):
                return Task(self._engine, TaskId(ids[place]))
            place -= len(ids)
        raise IndexError(f"task {index} of {len(self)}")

    def __repr__(self) -> str:
        return f"<{len(self)} tasks of {self._engine.path.name}>"


class Selection(Sequence[Task]):
    """Tasks chosen by a condition, as they were at that moment. Each deed is one transaction; a task that cannot follow
    (it has ended, is launched…) is left as it is, and the number of those that did is returned."""

    def __init__(self, engine: Engine, ids: list[TaskId]) -> None:
        self._engine = engine
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Task(self._engine, id) for id in self.ids[index]]
        return Task(self._engine, self.ids[index])

    def __repr__(self) -> str:
        return f"<{len(self)} tasks of {self._engine.path.name}>"

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

    def update(self, **changes: Any) -> int:
        """Edit those that are not launched; what workers hold is called back for it. The number asked for is returned."""
        engine = self._engine
        count = 0
        for page in chunks(self.ids, 1000):
            edits = [(row.id, *engine._edit_of(row, changes)) for row in listing.select(engine._reader(), ids=page)]
            count += engine._write(functools.partial(_update_all, edits))
        return count

    def delete(self, *, keep_cache: bool = False) -> int:
        """Remove them from the file, all or none; with `keep_cache` others may still take their results.

        Raises:
            IllegalMove: one is on a worker, or needed by a task outside of the selection.
        """
        self._engine._delete(self.ids, keep_cache=keep_cache)
        return len(self.ids)

    def _each(self, deed: Callable[[apsw.Connection, int, TaskId], object], states: frozenset[TaskState]) -> int:
        count = 0
        for page in chunks(self.ids, 1000):
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
