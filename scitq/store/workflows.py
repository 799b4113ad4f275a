"""Workflows as rows: which there are, their steps (which are batches), and the tasks that a script declared.

Every function runs on a reader or inside a transaction of the caller's. What follows from a declaration is decided by
`workflow.plan`; recruiters are in `recruiters`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NewType

import apsw

from scitq.errors import UnknownWorkflow
from scitq.pictured import Pictured
from scitq.states import FINAL, Halt, TaskState
from scitq.store import query, tasks
from scitq.store.listing import LISTED
from scitq.task import BatchId, TaskId

if TYPE_CHECKING:
    from scitq.markup import Markup

WorkflowId = NewType("WorkflowId", int)
_COLUMNS = "id, name, created, declared, started, ended, settings, script"
PAGE = 10_000


@dataclass(frozen=True)
class WorkflowRow(Pictured):
    """One row of table `workflow`. Times are milliseconds since 1970; `script` is the program that declared it last."""

    id: WorkflowId
    name: str
    created_ms: int
    declared_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    settings: Mapping[str, Any]
    script: str | None

    def _picture(self) -> Markup:
        from datetime import datetime

        from scitq.markup import joined, table, tag

        moments = (("declared", self.declared_ms), ("started", self.started_ms), ("ended", self.ended_ms))
        rows = [
            (word, f"{datetime.fromtimestamp(at / 1000):%Y-%m-%d %H:%M:%S}") for word, at in moments if at is not None
        ]
        given = " ".join(f"{key}={value}" for key, value in self.settings.items())
        more = [(word, text) for word, text in (("script", self.script), ("settings", given)) if text]
        return joined([tag("b", f"workflow {self.name}"), table(None, [*rows, *more])])


@dataclass(frozen=True)
class StepRow:
    """A step: its batch (`batch` is the whole name, `workflow.step`), and how many of its tasks are in each state."""

    id: BatchId
    batch: str
    step: str
    position: int
    halt: Halt
    counts: Mapping[TaskState, int] = field(default_factory=dict)


class Member(NamedTuple):
    """A task that a script declared, and how it stands."""

    task: TaskId
    batch: BatchId
    name: str
    digest: str
    position: int
    seen: tuple[str | None, ...] | None
    origin: TaskId | None
    grown: bool
    state: TaskState


def put(db: apsw.Connection, now_ms: int, name: str, settings: Mapping[str, Any], script: str | None) -> WorkflowId:
    """The number of a workflow, made when it is new; it is declared now."""
    row = query.one(
        db,
        """insert into workflow(name, created, declared, settings, script) values (?, ?, ?, ?, ?) on conflict(name) do update
        set declared = excluded.declared, settings = excluded.settings, script = excluded.script returning id""",
        (name, now_ms, now_ms, json.dumps(settings), script),
    )
    return WorkflowId(row[0])


def number(db: apsw.Connection, now_ms: int, name: str) -> WorkflowId:
    """The number of a workflow, made when it is new; nothing is declared by that."""
    row = query.row(db, "select id from workflow where name = ?", (name,))
    if row is None:
        row = query.one(db, "insert into workflow(name, created) values (?, ?) returning id", (name, now_ms))
    return WorkflowId(row[0])


def get(db: apsw.Connection, name: str) -> WorkflowRow:
    """The workflow of that name.

    Raises:
        UnknownWorkflow: there is none.
    """
    row = query.row(db, f"select {_COLUMNS} from workflow where name = ?", (name,))
    if row is None:
        known = ", ".join(name for (name,) in query.rows(db, "select name from workflow order by id desc limit 10"))
        raise UnknownWorkflow(f"no workflow is named {name!r} (known: {known or 'none'}).", workflow=name)
    return _row_of(row)


def all_of(db: apsw.Connection) -> list[WorkflowRow]:
    """Every workflow, oldest first."""
    return [_row_of(row) for row in query.rows(db, f"select {_COLUMNS} from workflow order by id")]


def _row_of(row: tuple[Any, ...]) -> WorkflowRow:
    id, name, created, declared, started, ended, settings, script = row
    return WorkflowRow(WorkflowId(id), name, created, declared, started, ended, json.loads(settings), script)


def begun(db: apsw.Connection, now_ms: int, workflow: WorkflowId) -> None:
    """A run of it begins."""
    db.execute("update workflow set started = ?, ended = null where id = ?", (now_ms, workflow))


def over(db: apsw.Connection, now_ms: int, workflow: WorkflowId) -> None:
    """Nothing more happens in it by itself."""
    db.execute("update workflow set ended = ? where id = ? and ended is null", (now_ms, workflow))


def delete(db: apsw.Connection, workflow: WorkflowId) -> None:
    """Forget a workflow; its batches and tasks are deleted by whoever asked, or stay as what they are."""
    db.execute("delete from workflow where id = ?", (workflow,))


# --- steps --------------------------------------------------------------------------------------------------------------------


def batch_name(workflow: str, step: str) -> str:
    """What the batch of a step is called."""
    return f"{workflow}.{step}"


def put_step(db: apsw.Connection, workflow: WorkflowId, name: str, step: str, position: int) -> BatchId:
    """The batch of a step, made when it is new. `name` is the workflow's."""
    batch = tasks.batch_id(db, batch_name(name, step))
    db.execute(
        "update batch set workflow = ?, step = ?, position = coalesce(iif(workflow = ?1, position, null), ?) where id = ?",
        (workflow, step, position, batch),
    )
    return batch


def steps(db: apsw.Connection, workflow: WorkflowId) -> list[StepRow]:
    """The steps of a workflow in the order of their first declaration, with their counts."""
    counts: dict[int, dict[TaskState, int]] = {}
    for batch, state, n in query.rows(
        db,
        "select counter.batch, state, n from counter join batch on batch.id = counter.batch where workflow = ? and n > 0",
        (workflow,),
    ):
        counts.setdefault(batch, {})[TaskState(state)] = n
    rows = query.rows(
        db, "select id, name, step, position, halt from batch where workflow = ? order by position, id", (workflow,)
    )
    return [
        StepRow(BatchId(id), name, step, position, Halt(halt), counts.get(id, {}))
        for id, name, step, position, halt in rows
    ]


# --- members ------------------------------------------------------------------------------------------------------------------


def members(db: apsw.Connection, workflow: WorkflowId, steps: Sequence[int] | None = None) -> Iterator[Member]:
    """The tasks that a workflow declared, by position; or those of some of its batches."""
    which = "" if steps is None else f" and member.batch in {LISTED}"
    rows = db.execute(
        f"""select member.task, member.batch, member.name, digest, position, seen, origin, grown, task.state
        from member join task on task.id = member.task where workflow = ? and member.name is not null{which}
        order by position, member.task""",
        (workflow,) if steps is None else (workflow, json.dumps(list(steps))),
    )
    for row in rows:
        yield _member_of(row)


def member(db: apsw.Connection, batch: BatchId, name: str) -> Member | None:
    """The task of that name in a step."""
    row = query.row(
        db,
        """select member.task, member.batch, member.name, digest, position, seen, origin, grown, task.state
        from member join task on task.id = member.task where member.batch = ? and member.name = ?""",
        (batch, name),
    )
    return None if row is None else _member_of(row)


def _member_of(row: tuple[Any, ...]) -> Member:
    task, batch, name, digest, position, seen, origin, grown, state = row
    marks = None if seen is None else tuple(json.loads(seen))
    return Member(TaskId(task), BatchId(batch), name, digest, position, marks, origin, bool(grown), TaskState(state))


def put_members(db: apsw.Connection, workflow: WorkflowId, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write what was declared: rows of (task, batch, name, digest, position, seen as text, origin, grown)."""
    db.executemany(
        f"insert or replace into member(workflow, task, batch, name, digest, position, seen, origin, grown) "
        f"values ({int(workflow)}, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def supersede(db: apsw.Connection, task: TaskId) -> None:
    """Another task has taken its place: it is a member without a name, to be removed once it may be."""
    db.execute("update member set name = null where task = ?", (task,))


def superseded(db: apsw.Connection, workflow: WorkflowId) -> list[TaskId]:
    """The tasks in whose place others stand."""
    rows = query.rows(db, "select task from member where workflow = ? and name is null", (workflow,))
    return [TaskId(task) for (task,) in rows]


def workflow_of(db: apsw.Connection, task: int) -> tuple[str, str, str] | None:
    """Which workflow declared a task: (workflow, step, the name it has there); None for one that none did."""
    row = query.row(
        db,
        """select workflow.name, batch.step, coalesce(member.name, '') from member join workflow on workflow.id = member.workflow
        join batch on batch.id = member.batch where member.task = ?""",
        (task,),
    )
    return row


def deletable(db: apsw.Connection, workflow: WorkflowId, *, everything: bool) -> list[TaskId]:
    """The tasks of a workflow's steps that have succeeded (or, with `everything`, ended or are blocked), and that nothing that
    stays and has not ended requires."""
    states = sorted(FINAL | {TaskState.BLOCKED}) if everything else [TaskState.SUCCEEDED]
    codes = ",".join(str(int(state)) for state in states)
    final = ",".join(str(int(state)) for state in sorted(FINAL))
    rows = query.rows(
        db,
        f"""select task.id from task join batch on batch.id = task.batch where batch.workflow = ? and task.state in ({codes})
        and not exists(select 1 from requirement join task c on c.id = child join batch b on b.id = c.batch where parent = task.id
          and c.state not in ({final}{f",{int(TaskState.BLOCKED)}" if everything else ""}))""",
        (workflow,),
    )
    return [TaskId(id) for (id,) in rows]


def all_tasks(db: apsw.Connection, workflow: WorkflowId) -> list[TaskId]:
    """Every task of a workflow's steps, whoever submitted it."""
    rows = query.rows(
        db, "select task.id from task join batch on batch.id = task.batch where batch.workflow = ?", (workflow,)
    )
    return [TaskId(id) for (id,) in rows]


def drop_recruiters(db: apsw.Connection, workflow: WorkflowId) -> None:
    """Get no more workers for its steps."""
    db.execute("delete from recruiter where batch in (select id from batch where workflow = ?)", (workflow,))


def won(db: apsw.Connection, batch: str) -> set[int]:
    """The tasks of a batch that have succeeded."""
    rows = query.rows(
        db,
        f"select task.id from task where state = {int(TaskState.SUCCEEDED)} and batch = (select id from batch where name = ?)",
        (batch,),
    )
    return {id for (id,) in rows}


def unsettled(db: apsw.Connection, workflow: WorkflowId) -> int:
    """How many tasks of a workflow's steps have not ended and are not blocked."""
    settled = ",".join(str(int(state)) for state in TaskState if state.is_settled)
    return int(
        query.one(
            db,
            f"""select coalesce(sum(n), 0) from counter join batch on batch.id = counter.batch
            where workflow = ? and state not in ({settled})""",
            (workflow,),
        )[0]
    )
