"""Tasks that wait for their debug session: what may be launched next, one put in the queue, or all that are left.

Every function runs on a reader or inside a transaction of the caller's. The dialogue is `workflow.debugging`.
"""

from __future__ import annotations

from typing import NamedTuple

import apsw

from scitq.errors import IllegalMove
from scitq.states import BAD, FINAL, LIVE, Outcome, TaskState
from scitq.store import listing, query, tasks
from scitq.store.workflows import WorkflowId
from scitq.task import TaskId

# Found by (batch, state), however many other tasks there are.
_OF = "from task where batch in (select id from batch where workflow = ?1) and state"


SKIPPED = "skipped in its debug session"
"""The reason of a task that ended badly and is not to be asked about again, until it is relaunched or declared otherwise."""


class Offer(NamedTuple):
    """What may be launched now, by number: tasks whose prerequisites are all done, those that ended badly, and of these the ones
    that were skipped."""

    ready: list[TaskId]
    ended: list[TaskId]
    skipped: list[TaskId]


def left(db: apsw.Connection, workflow: WorkflowId) -> int:
    """How many tasks wait for the session."""
    return int(query.one(db, f"select count(*) {_OF} = {int(TaskState.DEBUG)}", (workflow,))[0])


def offer(db: apsw.Connection, workflow: WorkflowId) -> Offer:
    """What may be launched now."""
    ended = f"{int(TaskState.FAILED)}, {int(TaskState.CANCELLED)}"
    ready = query.rows(db, f"select id {_OF} = {int(TaskState.DEBUG)} and unmet = 0 order by id", (workflow,))
    again = query.rows(db, f"select id, reason is ?2 {_OF} in ({ended}) order by id", (workflow, SKIPPED))
    return Offer(
        [TaskId(id) for (id,) in ready], [TaskId(id) for id, is_skipped in again if not is_skipped],
        [TaskId(id) for id, is_skipped in again if is_skipped],
    )  # fmt: skip


def skip(db: apsw.Connection, task: TaskId) -> None:
    """Ask no more about a task that ended badly."""
    ended = f"{int(TaskState.FAILED)}, {int(TaskState.CANCELLED)}"
    db.execute(f"update task set reason = ? where id = ? and state in ({ended})", (SKIPPED, task))


def is_skipped(db: apsw.Connection, task: TaskId) -> bool:
    """Whether it ended badly and is not to be asked about."""
    return query.row(db, "select 1 from task where id = ? and reason = ?", (task, SKIPPED)) is not None


def unlocked(db: apsw.Connection, workflow: WorkflowId) -> TaskId | None:
    """Of what the newest success made possible, the first that waits for the session."""
    row = query.row(
        db,
        f"""select task.id from requirement join task on task.id = requirement.child
        where requirement.parent = (
            select execution.task from execution join task t on t.id = execution.task join batch on batch.id = t.batch
            where batch.workflow = ?1 and execution.outcome = {int(Outcome.SUCCEEDED)} order by execution.ended desc, execution.id desc
            limit 1)
          and task.state = {int(TaskState.DEBUG)} and task.unmet = 0
          and task.batch in (select id from batch where workflow = ?1) order by task.id limit 1""",
        (workflow,),
    )
    return None if row is None else TaskId(row[0])


def launched(db: apsw.Connection, workflow: WorkflowId) -> TaskId | None:
    """The first that has been launched and has not ended, if there is one."""
    states = ", ".join(str(int(state)) for state in sorted({*LIVE, TaskState.PENDING, TaskState.PAUSED}))
    row = query.row(db, f"select id {_OF} in ({states}) order by id limit 1", (workflow,))
    return None if row is None else TaskId(row[0])


def launch(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Put one in the queue, to be tried once: the session asks before it is tried again.

    Raises:
        IllegalMove: it is in the queue, or runs.
    """
    row = listing.get(db, task)
    if row.state is not TaskState.DEBUG and row.state not in FINAL:
        raise IllegalMove(f"task {row.label} is {row.state.word} already.", task=task)
    if row.spec.retry:
        tasks.update(db, now_ms, task, {"retry": 0})
    if row.state in FINAL:
        return tasks.relaunch(db, now_ms, task)
    return tasks.requeue(db, now_ms, task, not_before_ms=None, tries=0, reason=None)


def release(db: apsw.Connection, now_ms: int, workflow: WorkflowId) -> int:
    """Put all in the queue that wait for the session; returns how many those are. There is no way back."""
    rows = query.rows(
        db,
        f"""update task set state = iif(unmet = 0, {int(TaskState.PENDING)}, {int(TaskState.WAITING)}), changed = ?2, reason = null
        where batch in (select id from batch where workflow = ?1) and state = {int(TaskState.DEBUG)} returning id""",
        (workflow, now_ms),
    )
    bad = ", ".join(str(int(state)) for state in sorted(BAD))
    roots = query.rows(
        db,
        f"""select distinct p.id from requirement join task p on p.id = requirement.parent join task c on c.id = requirement.child
        where p.state in ({bad}) and c.state = {int(TaskState.WAITING)}
          and c.batch in (select id from batch where workflow = ?) order by p.id""",
        (workflow,),
    )
    for (root,) in roots:
        tasks.block_dependents(db, now_ms, root)
    return len(rows)
