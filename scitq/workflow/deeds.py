"""What can be done about a whole workflow, or about a step of it: halted, let go on, cancelled, relaunched, edited, deleted.

Each deed is written in one transaction, or in steps that may be repeated: killed in between, the next one finds the rest to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scitq.adopting import is_call
from scitq.engine import Engine
from scitq.errors import IllegalMove, NoDriver
from scitq.hints import driver_of
from scitq.saying import several
from scitq.selection import Selection
from scitq.states import FINAL, LIVE, RECALLABLE, UNPLACED, Halt, TaskState
from scitq.store import batches, glances, listing, tasks, workflows
from scitq.task import TaskId
from scitq.workflow.looking import command_text
from scitq.workflow.rewording import Rewording
from scitq.workflow.workflow import halt as halt

if TYPE_CHECKING:
    import apsw

    from scitq.task import ExecutionId, TaskRow

# Not launched yet, as far as is known: their commands may still be edited.
UNLAUNCHED = UNPLACED | RECALLABLE
# What may be queued once more.
AGAIN = frozenset({TaskState.FAILED, TaskState.CANCELLED})


def tasks_of(engine: Engine, name: str, states: frozenset[TaskState]) -> Selection:
    """The tasks of a workflow that are in these states."""
    db = engine._reader()
    steps = workflows.steps(db, workflows.get(db, name).id)
    with db:  # one view of the file
        found = [TaskId(id) for step in steps for id in listing.numbers(db, states, step.batch)]
    return Selection(engine, found)


def step_tasks(engine: Engine, batch: str, states: frozenset[TaskState]) -> Selection:
    """The tasks of a step that are in these states."""
    db = engine._reader()
    with db:
        found = [TaskId(id) for id in listing.numbers(db, states, batch)]
    return Selection(engine, found)


def destroy(
    engine: Engine,
    name: str,
    *,
    said: Callable[[str], None] = lambda _: None,
    is_off: Callable[[], bool] = lambda: False,
    timeout_s: float | None = None,
) -> int | None:
    """Delete a workflow: its steps and recruiters, its tasks with history and logs. What they delivered stays. What runs is
    stopped first. Returns how many tasks went. Killed in between, it can be called again.

    `said` hears how far it is; once `is_off`, the waiting ends, and None is returned: all of it is cancelled, and still there.

    Raises:
        UnknownWorkflow: there is none of that name.
        IllegalMove: a task outside of it needs one of its tasks. Nothing was done.
        NoDriver: workers hold tasks of it, and nobody drives the file to stop them. Nothing was done, if that was so at once.
        TimeoutError: workers have not stopped them in time; all of it is cancelled.
    """
    refuse(engine, name)
    halt(engine, name, Halt.PAUSED)  # nothing of it is begun any more
    tasks_of(engine, name, frozenset(TaskState) - FINAL).cancel()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        seen = engine._changes.count
        if not (live := len(tasks_of(engine, name, LIVE))):
            break
        if driver_of(engine) is None:
            engine._drive()
            if not engine._may_drive:
                raise NoDriver(
                    _undriven(engine, name, live) + f" All of {name} is cancelled; delete it once somebody drives."
                )
        if is_off():
            return None
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(
                f"{several(live, 'task')} of {name} {'is' if live == 1 else 'are'} still being stopped. All of it is cancelled; "
                "delete it once they are."
            )
        said(f"{several(live, 'task')} {'is' if live == 1 else 'are'} being stopped…")
        engine._changes.wait(seen, 1.0)
    now = time.time_ns() // 1_000_000

    def write(db: apsw.Connection) -> tuple[int, list[ExecutionId]]:
        row = workflows.get(db, name)
        steps = workflows.steps(db, row.id)
        ids = [id for step in steps for id in tasks.of_batch(db, step.id)]
        gone = tasks.delete(db, now, ids) if ids else []
        for step in steps:
            gone += batches.delete(db, now, step.batch)
        workflows.delete(db, row.id)
        return len(ids), gone

    count, gone = engine._write(write)
    engine._drop_logs(gone)
    return count


def refuse(engine: Engine, name: str) -> None:
    """Say at once that a workflow cannot be deleted: others wait for it, or nobody is there who could stop what runs.

    Raises:
        UnknownWorkflow: there is none of that name.
        IllegalMove: a task outside of it, which has not ended, needs one of its tasks.
        NoDriver: workers hold tasks of it, and nobody drives the file, nor may this process.
    """
    needed = glances.needed_outside(engine._reader(), workflows.get(engine._reader(), name).id)
    if needed is not None:
        task, batch = needed
        raise IllegalMove(
            f"task {task} of batch {batch} needs a task of {name}: nothing was deleted. Cancel or delete that one first.",
            task=task,
        )
    live = len(tasks_of(engine, name, LIVE))
    if live and not engine._may_drive and driver_of(engine) is None:
        raise NoDriver(_undriven(engine, name, live) + " Nothing was deleted.")


def _undriven(engine: Engine, name: str, live: int) -> str:
    return (
        f"{several(live, 'task')} of {name} {'is' if live == 1 else 'are'} at a worker, and nobody drives {engine.path.name} to "
        "stop what runs there."
    )


# --- editing ------------------------------------------------------------------------------------------------------------------


@dataclass
class Edit:
    """An edit of one task's command, and what the same change makes of the others of its step that are not launched yet."""

    task: TaskId
    batch: str
    change: Rewording
    fits: list[tuple[TaskId, str, str]] = field(default_factory=list)
    differ: int = 0

    def preview(self) -> Iterator[str]:
        """What would change, as `diff -u` says it: a few tasks, those whose commands differ most easily seen first."""
        for task, before, _ in self.fits[:3]:
            yield f"@@ task {task} @@"
            yield from (line for line in self.change.difference(before) if not line.startswith("@@"))
        if len(self.fits) > 3:
            yield f"@@ and {len(self.fits) - 3:,} more @@"


def look_for(engine: Engine, edit: Edit, *, is_off: Callable[[], bool]) -> Edit:
    """Find what the change makes of every task of the step that is not launched yet, unless nobody waits for it any more."""
    edit.fits, edit.differ = [], 0
    shell = listing.get(engine._reader(), edit.task).spec.shell
    for row in unlaunched(engine, edit.batch):
        if is_off():
            break
        before = command_text(row)
        after = edit.change.made_to(before) if row.spec.shell == shell and not is_call(row) else None
        if after is None:
            edit.differ += 1
        elif after != before:
            edit.fits.append((row.id, before, after))
    return edit


def unlaunched(engine: Engine, batch: str) -> Iterator[TaskRow]:
    """The tasks of a step whose commands may still be edited."""
    ids = step_tasks(engine, batch, UNLAUNCHED).ids
    for start in range(0, len(ids), 1000):
        rows = listing.select(engine._reader(), ids=ids[start : start + 1000])
        yield from (row for row in rows if row.state in UNLAUNCHED)


def edit_one(engine: Engine, task: TaskId, text: str) -> str:
    """Give one task another command; returns the sentence that says what came of it.

    Raises:
        IllegalMove: it is launched; nothing was changed.
        BadInput: the command makes no sense.
    """
    now = time.time_ns() // 1_000_000
    row = listing.get(engine._reader(), task)
    changes, columns = engine._edit_of(row, {"command": text})
    if not engine._write(lambda db: tasks.update(db, now, task, changes, **columns)):
        return f"Task {row.label} is at a worker: it is called back, and changed then."
    again = " r runs it again." if row.state.is_final else ""
    return f"Task {row.label} is changed.{again}"


def edit_all(engine: Engine, edit: Edit) -> tuple[int, int]:
    """Make the edit to all that it fits and that are still as they were seen; returns how many, and how many were launched."""
    done = 0
    for start in range(0, len(edit.fits), 1000):
        some = edit.fits[start : start + 1000]
        done += engine._write(lambda db, some=some: _edit_some(engine, db, some))  # type: ignore[misc]
    return done, len(edit.fits) - done


def _edit_some(engine: Engine, db: apsw.Connection, some: list[tuple[TaskId, str, str]]) -> int:
    now, done = time.time_ns() // 1_000_000, 0
    rows = {row.id: row for row in listing.select(db, ids=[id for id, _, _ in some])}
    for id, before, after in some:
        row = rows.get(id)
        if row is None or row.state not in UNLAUNCHED or command_text(row) != before:
            continue
        changes, columns = engine._edit_of(row, {"command": after})
        try:
            tasks.update(db, now, id, changes, **columns)
        except IllegalMove:  # it was launched
            continue
        done += 1
    return done
