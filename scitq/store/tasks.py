"""Tasks, their requirements and batches, as rows. Every function runs inside a transaction of the caller's (or on a reader).

A task's moves while it has an execution are in `executions`. What is allowed at all is said by `states`, and enforced by triggers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any

import apsw

from scitq.errors import IllegalMove, UnknownBatch, UnknownTask
from scitq.events import EventKind
from scitq.states import BAD, FINAL, LIVE, UNPLACED, Halt, TaskState, Wanted
from scitq.states import RECALLABLE as _RECALLABLE
from scitq.store import journal, query
from scitq.store.query import compact
from scitq.task import RETRY_DELAY_S, BatchId, ExecutionId, Need, PendingTask, Spec, TaskId, TaskRow

_COLUMNS = """task.id, task.name, batch.name, task.state, task.priority, task.unmet, task.tries, task.execution, task.not_before,
  task.created, task.changed, task.reason, task.spec from task join batch on batch.id = task.batch"""
# From so many on, tasks are inserted in bulk: below, compiling every statement anew would cost more than it saves.
BULK_FROM = 1000
# So many ids are read from the index at a time.
PAGE = 256
# Pending tasks are listed through the index of the ready ones, unless a batch has more different ranks than this.
RANKS = 100
_LIVE_CODES = ",".join(str(int(state)) for state in sorted(LIVE))
_OUT_OF_PLACE = ",".join(str(int(state)) for state in sorted({TaskState.PENDING, *LIVE}))
# Statements stay constant (and so prepared) because lists travel as one JSON parameter.
_LISTED = "(select value from json_each(?))"


def spec_text(spec: Spec, *, without_command: bool = False) -> str:
    """The stored form of a spec: JSON, fields at their default left out; or only what follows the command in it."""
    fields: dict[str, Any] = {} if without_command else {"command": spec.command}
    if spec.shell is not None:
        fields["shell"] = spec.shell
    if spec.env:
        fields["env"] = dict(spec.env)
    if spec.retry:
        fields["retry"] = spec.retry
    if spec.retry_delay != RETRY_DELAY_S:
        fields["retry_delay"] = spec.retry_delay
    if spec.run_timeout is not None:
        fields["run_timeout"] = spec.run_timeout
    if spec.tags:
        fields["tags"] = dict(spec.tags)
    for name in ("cpus", "memory", "gpus"):
        if (value := getattr(spec, name)) is not None:
            fields[name] = value
    text = compact(fields)
    return (f",{text[1:]}" if fields else "}") if without_command else text


def spec_of(text: str) -> Spec:
    """The spec that `spec_text` stored."""
    return Spec(**json.loads(text))


def batch_id(db: apsw.Connection, name: str) -> BatchId:
    """The number of a batch, made when it is new."""
    return batch_for(db, name)[0]


def batch_for(db: apsw.Connection, name: str) -> tuple[BatchId, dict[str, Any]]:
    """The number and the default arguments of a batch, made when it is new."""
    row = query.row(db, "select id, settings from batch where name = ?", (name,))
    if row is None:
        row = query.one(db, "insert into batch(name) values (?) returning id, settings", (name,))
    return BatchId(row[0]), {} if row[1] == "{}" else json.loads(row[1])


def need_id(db: apsw.Connection, need: Need | None) -> int:
    """The number of a kind of request, made when it is new; 0 for none."""
    if need is None:
        return 0
    values = (need.cpus or 0.0, need.memory or 0, need.gpus or 0)
    row = query.row(db, "select id from need where cpus = ? and memory = ? and gpus = ?", values)
    return int((row or query.one(db, "insert into need(cpus, memory, gpus) values (?, ?, ?) returning id", values))[0])


def needs(db: apsw.Connection) -> dict[int, tuple[Need | None, str | None]]:
    """Every kind of request, with the reason why no worker can ever meet it, if that is so."""
    rows = query.rows(db, "select id, cpus, memory, gpus, note from need")
    found = {id: (Need(cpus or None, memory or None, gpus or None), note) for id, cpus, memory, gpus, note in rows}
    return {0: (None, None), **found}


def note_need(db: apsw.Connection, need: int, note: str | None) -> None:
    """Record why no worker can ever meet a kind of request, or that one can."""
    db.execute("update need set note = ? where id = ?", (note, need))


def context_id(db: apsw.Connection, context: Mapping[str, Any]) -> int:
    """The number of the circumstances of submission, stored once."""
    text = json.dumps(context, sort_keys=True, separators=(",", ":"))
    row = query.row(db, "select id from context where data = ?", (text,))
    if row is None:
        row = query.one(db, "insert into context(data) values (?) returning id", (text,))
    return int(row[0])


def add_many(
    db: apsw.Connection,
    now_ms: int,
    rows: Sequence[tuple[str | None, BatchId, int, str, int]],
    context: int | None,
    requires: Sequence[Sequence[int]] | None = None,
) -> range:
    """Insert tasks given as (name, batch, priority, spec text, kind of request), with each one's prerequisites; returns their ids.

    Raises:
        UnknownTask: a prerequisite does not exist.
    """
    last = query.row(db, "select seq from sqlite_sequence where name = 'task'")
    first = (last[0] if last else 0) + 1
    ids = range(first, first + len(rows))
    pending = int(TaskState.PENDING)
    values = (
        (id, pending, batch, priority, now_ms, now_ms, context, name, spec, need)
        for id, (name, batch, priority, spec, need) in zip(ids, rows, strict=True)
    )
    if len(rows) < BULK_FROM:
        db.executemany(_INSERT, values)
    else:
        _insert_without_triggers(db, values)
        for batch, count in Counter(row[1] for row in rows).items():
            db.execute("update counter set n = n + ? where batch = ? and state = ?", (count, batch, pending))
    journal.note(db, now_ms, EventKind.SUBMITTED, task=first, first=first, count=len(rows))
    if requires is not None:
        for id, parents in zip(ids, requires, strict=True):
            if parents:
                _require(db, now_ms, id, parents)
    return ids


_INSERT = """insert into task(id, state, batch, priority, created, changed, context, name, spec, need)
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def _insert_without_triggers(db: apsw.Connection, values: Iterable[tuple[Any, ...]]) -> None:
    """Half of what an insert costs is its triggers, which guard a birth that is right here by construction and count it."""
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    try:
        db.executemany(_INSERT, values)
    finally:
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)


def _require(db: apsw.Connection, now_ms: int, child: int, parents: Sequence[int]) -> None:
    wanted = sorted(set(parents))
    known = json.dumps(wanted)
    missing = query.rows(
        db,
        f"select value from json_each(?) where value not in (select id from task where id in {_LISTED})",
        (known, known),
    )
    if missing:
        raise UnknownTask(f"no task {missing[0][0]} to require.", task=missing[0][0])
    db.executemany("insert into requirement(parent, child) values (?, ?)", ((parent, child) for parent in wanted))
    bad = _worst_parent(db, child)
    if bad is not None:
        _move(db, now_ms, child, TaskState.BLOCKED, _blame(bad))


def _worst_parent(db: apsw.Connection, child: int) -> TaskRow | None:
    """A prerequisite that ended badly, if there is one (the root of the trouble rather than one it blocked)."""
    codes = ",".join(str(int(state)) for state in sorted(BAD))
    row = query.row(
        db,
        f"select {_COLUMNS} join requirement on requirement.parent = task.id "
        f"where requirement.child = ? and task.state in ({codes}) order by task.state, task.id limit 1",
        (child,),
    )
    return _task(row) if row else None


def _blame(bad: TaskRow) -> str:
    if bad.state is TaskState.BLOCKED and bad.reason:
        return bad.reason
    return f"{bad.label} {bad.state.word}"


def _move(db: apsw.Connection, now_ms: int, task: int, state: TaskState, reason: str | None) -> None:
    db.execute("update task set state = ?, changed = ?, reason = ? where id = ?", (int(state), now_ms, reason, task))


def block_dependents(db: apsw.Connection, now_ms: int, task: int) -> None:
    """A task ended badly: everything that needs it, directly or not, cannot run."""
    row = get(db, TaskId(task))
    reason = _blame(row)
    codes = f"{int(TaskState.WAITING)},{int(TaskState.PENDING)}"
    level = [task]
    while level:
        level = [
            found[0]
            for found in query.rows(
                db,
                f"""update task set state = {int(TaskState.BLOCKED)}, changed = ?, reason = ?
                where state in ({codes}) and id in (select child from requirement where parent in {_LISTED}) returning id""",
                (now_ms, reason, json.dumps(level)),
            )
        ]


def unblock_dependents(db: apsw.Connection, now_ms: int, task: int) -> None:
    """A task that had ended badly is in the queue again: what only that kept from running waits again."""
    codes = ",".join(str(int(state)) for state in sorted(BAD))
    level = [task]
    while level:
        level = [
            found[0]
            for found in query.rows(
                db,
                f"""update task set reason = null, changed = ?,
                  state = iif(hold, {int(TaskState.PAUSED)},
                              iif(unmet = 0, {int(TaskState.PENDING)}, {int(TaskState.WAITING)}))
                where state = {int(TaskState.BLOCKED)} and id in (select child from requirement where parent in {_LISTED})
                  and not exists (select 1 from requirement r join task p on p.id = r.parent
                                  where r.child = task.id and p.state in ({codes})) returning id""",
                (now_ms, json.dumps(level)),
            )
        ]


def requeue(
    db: apsw.Connection, now_ms: int, task: int, *, not_before_ms: int | None, tries: int, reason: str | None
) -> TaskState:
    """Put a task that has no execution any more back in the queue: pending; or waiting or blocked when a prerequisite is
    not (or no longer) done; or paused, when that was asked. The row must leave its present state by this call."""
    unmet, hold = query.one(
        db,
        f"""select (select count(*) from requirement join task p on p.id = parent
          where child = task.id and p.state <> {int(TaskState.SUCCEEDED)}), hold from task where id = ?""",
        (task,),
    )
    bad = _worst_parent(db, task) if unmet else None
    state = TaskState.PENDING if not unmet else TaskState.BLOCKED if bad else TaskState.WAITING
    if hold:
        state, bad, reason = TaskState.PAUSED, None, None
    db.execute(
        """update task set state = ?, unmet = ?, execution = null, not_before = ?, tries = ?, changed = ?, reason = ?
        where id = ?""",
        (int(state), unmet, not_before_ms, tries, now_ms, _blame(bad) if bad else reason, task),
    )
    return state


def relaunch(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Queue an ended task once more, with all its retries; its dependents are freed.

    Raises:
        UnknownTask: no such task.
        IllegalMove: the task has not ended (a blocked one is freed by relaunching what blocks it).
    """
    row = get(db, task)
    if row.state not in FINAL:
        if row.state is TaskState.BLOCKED:
            raise IllegalMove(
                f"task {row.label} is blocked: {row.reason}. Relaunch that one, and this one goes on.", task=task
            )
        raise IllegalMove(
            f"task {row.label} is {row.state.word}: only a task that has ended can be relaunched.", task=task
        )
    journal.note(db, now_ms, EventKind.RELAUNCHED, task=task)
    db.execute("update task set hold = 0 where id = ?", (task,))
    state = requeue(db, now_ms, task, not_before_ms=None, tries=0, reason=None)
    if state is TaskState.BLOCKED:
        block_dependents(db, now_ms, task)
    else:
        unblock_dependents(db, now_ms, task)
    return state


def cancel(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Cancel a task: at once when no worker has it, else its execution is wanted stopped and the worker is told.

    Returns the state after the call; an ended task is left as it is.
    """
    row = get(db, task)
    if row.state in FINAL:
        return row.state
    journal.note(db, now_ms, EventKind.CANCEL_ASKED, task=task, execution=row.execution)
    if row.execution is not None:
        db.execute(
            "update execution set wanted = ? where id = ? and ended is null", (int(Wanted.STOPPED), row.execution)
        )
        return row.state
    db.execute(
        "update task set state = ?, changed = ?, not_before = null, reason = ? where id = ?",
        (int(TaskState.CANCELLED), now_ms, "cancelled by you", task),
    )
    block_dependents(db, now_ms, task)
    return TaskState.CANCELLED


def pause(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Keep a task from being launched; one that runs is stopped where it is (SIGSTOP). An ended one is left as it is."""
    row = get(db, task)
    if row.state in FINAL or row.state is TaskState.PAUSED:
        return row.state
    journal.note(db, now_ms, EventKind.UPDATED, task=task, pause=True)
    db.execute("update task set hold = 1 where id = ?", (task,))
    if row.state is TaskState.BLOCKED:  # its dependents need to see that it is; it is paused when it comes free
        return row.state
    if row.execution is None:
        _move(db, now_ms, task, TaskState.PAUSED, None)
        return TaskState.PAUSED
    _ask(db, row.execution, Wanted.RECALLED if row.state in _RECALLABLE else Wanted.SUSPENDED)
    return row.state


def resume(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Let a paused task go on, from where it was stopped if it had been launched. One that its batch stops too stays stopped."""
    row = get(db, task)
    journal.note(db, now_ms, EventKind.UPDATED, task=task, pause=False)
    db.execute("update task set hold = 0 where id = ?", (task,))
    if row.state is TaskState.PAUSED:
        state = requeue(db, now_ms, task, not_before_ms=None, tries=row.tries, reason=None)
        if state is TaskState.BLOCKED:
            block_dependents(db, now_ms, task)
        return state
    halt = query.one(db, "select halt from batch join task on task.batch = batch.id where task.id = ?", (task,))[0]
    if row.execution is not None and halt != Halt.SUSPENDED:
        _ask(db, row.execution, Wanted.RESUMED, where=f"wanted = {int(Wanted.SUSPENDED)}")
    return row.state


def _ask(db: apsw.Connection, execution: int, wanted: Wanted, where: str = "true") -> None:
    """Say what is wanted of a live execution; a wish that it stop is not taken back."""
    db.execute(
        f"update execution set wanted = ? where id = ? and ended is null and wanted <> {int(Wanted.STOPPED)} and {where}",
        (int(wanted), execution),
    )


def update(
    db: apsw.Connection,
    now_ms: int,
    task: TaskId,
    changes: Mapping[str, Any],
    *,
    name: str | None = None,
    batch: str | None = None,
    priority: int | None = None,
    requires: Sequence[int] | None = None,
) -> bool:
    """Edit a task that has not been launched; `changes` are fields of its spec. True when the edit is made.

    False when a worker holds the task without having launched it, as far as is known: the worker is asked to give it back,
    and the edit is made then (or dropped, when it had been launched already): see `edit_pending`.

    Raises:
        UnknownTask: no such task, or prerequisite.
        IllegalMove: it has been launched, or a new prerequisite is younger than the task.
    """
    row = get(db, task)
    if row.state in LIVE and row.state not in _RECALLABLE:
        raise IllegalMove(
            f"task {row.label} is already launched ({row.state.word}): cancel it first, or edit it once it has ended.",
            task=task,
        )
    if row.execution is not None and query.row(
        db, f"select 1 from execution where id = ? and wanted = {int(Wanted.STOPPED)}", (row.execution,)
    ):
        raise IllegalMove(f"task {row.label} is being cancelled: edit it once it has ended.", task=task)
    if row.execution is not None and requires is not None:
        raise IllegalMove(f"what task {row.label} requires was met, and a worker holds it: pause it first.", task=task)
    if row.execution is not None:
        wanted: dict[str, Any] = {"changes": dict(changes), "name": name, "batch": batch, "priority": priority}
        before = query.row(db, "select data from edit where task = ?", (task,))
        if before is not None:  # a second edit before the first could be made: both hold
            old = json.loads(before[0])
            wanted = {"changes": {**old["changes"], **changes}} | {
                key: old[key] if wanted[key] is None else wanted[key] for key in ("name", "batch", "priority")
            }
        db.execute("insert or replace into edit values (?, ?, ?)", (task, row.execution, json.dumps(wanted)))
        _ask(db, row.execution, Wanted.RECALLED, where=f"wanted in ({int(Wanted.RUN)}, {int(Wanted.RECALLED)})")
        return False
    if requires is not None:  # first: what is refused here must leave the rest as it was
        _replace_requirements(db, now_ms, row, requires)
    _edit(db, now_ms, row, changes, name=name, batch=batch, priority=priority)
    return True


def edit_pending(db: apsw.Connection, task: TaskId) -> bool:
    """Whether an edit waits for a worker to give the task back."""
    return query.row(db, "select 1 from edit where task = ?", (task,)) is not None


def settle_edit(db: apsw.Connection, now_ms: int, task: TaskId, *, launched: bool) -> None:
    """A worker told what became of a task that had an edit waiting: make it, or drop it because it came too late."""
    found = query.row(db, "delete from edit where task = ? returning data", (task,))
    if found is None:
        return
    wanted = json.loads(found[0])
    if launched:
        journal.note(db, now_ms, EventKind.NOTE, task=task, edit="refused: already launched")
    else:
        _edit(db, now_ms, get(db, task), wanted.pop("changes"), **wanted)


def _edit(
    db: apsw.Connection,
    now_ms: int,
    row: TaskRow,
    changes: Mapping[str, Any],
    *,
    name: str | None,
    batch: str | None,
    priority: int | None,
) -> None:
    if changes:
        old = spec_text(row.spec)
        new = spec_text(Spec(**{**row.spec.__dict__, **changes}))
        # What an earlier execution ran stays known: it keeps the spec that this edit replaces.
        db.execute("update execution set spec = ? where task = ? and spec is null", (old, row.id))
        need = need_id(db, spec_of(new).need)
        db.execute("update task set spec = ?, need = ?, changed = ? where id = ?", (new, need, now_ms, row.id))
        journal.note(db, now_ms, EventKind.UPDATED, task=row.id, fields=sorted(changes), before=json.loads(old))
    if name is not None:
        db.execute("update task set name = ?, changed = ? where id = ?", (name, now_ms, row.id))
    if batch is not None:
        db.execute("update task set batch = ?, changed = ? where id = ?", (batch_id(db, batch), now_ms, row.id))
    if priority is not None:
        db.execute("update task set priority = ?, changed = ? where id = ?", (priority, now_ms, row.id))


def need_of(db: apsw.Connection, task: TaskId) -> tuple[Need | None, str | None]:
    """What a task asks, and why no worker can ever meet it, if that is so."""
    row = query.row(
        db, "select cpus, memory, gpus, note from task join need on need.id = task.need where task.id = ?", (task,)
    )
    return (None, None) if row is None else (Need(row[0] or None, row[1] or None, row[2] or None), row[3])


def delete(db: apsw.Connection, now_ms: int, ids: Sequence[int]) -> list[ExecutionId]:
    """Remove tasks with their history from the file; returns their executions, whose log files may go too.

    Raises:
        IllegalMove: one is live, or something else that has not ended waits for one that has not succeeded.
    """
    listed = json.dumps(sorted(ids))
    live = query.row(db, f"select id from task where id in {_LISTED} and execution is not null limit 1", (listed,))
    if live is not None:
        label = get(db, TaskId(live[0])).label
        raise IllegalMove(
            f"task {label} is on a worker: cancel it and wait for its end before deleting it.", task=live[0]
        )
    needed = query.row(
        db,
        f"""select parent, child from requirement join task p on p.id = parent join task c on c.id = child
        where parent in {_LISTED} and child not in {_LISTED} and p.state <> {int(TaskState.SUCCEEDED)}
          and c.state in ({",".join(str(int(state)) for state in UNPLACED)}) limit 1""",
        (listed, listed),
    )
    if needed is not None:
        parent, child = get(db, TaskId(needed[0])), get(db, TaskId(needed[1]))
        raise IllegalMove(f"task {child.label} requires {parent.label}: delete or cancel that one too.", task=parent.id)
    gone = [ExecutionId(id) for (id,) in query.rows(db, f"select id from execution where task in {_LISTED}", (listed,))]
    db.execute(f"delete from requirement where parent in {_LISTED} or child in {_LISTED}", (listed, listed))
    logs_of = json.dumps([2 * id + stream for id in gone for stream in (0, 1)])
    db.execute(f"delete from log where id in {_LISTED}", (logs_of,))
    for table, column in (("edit", "task"), ("follow", "task"), ("execution", "task"), ("task", "id")):
        db.execute(f"delete from {table} where {column} in {_LISTED}", (listed,))
    journal.note(db, now_ms, EventKind.NOTE, deleted=len(ids), first=min(ids, default=0))
    return gone


def _replace_requirements(db: apsw.Connection, now_ms: int, row: TaskRow, requires: Sequence[int]) -> None:
    if row.state not in UNPLACED:
        raise IllegalMove(f"task {row.label} has ended: relaunch it before changing what it requires.", task=row.id)
    younger = [parent for parent in requires if parent >= row.id]
    if younger:
        raise IllegalMove(
            f"task {row.label} cannot require {younger[0]}: a task may only require older ones. Submit it anew instead.",
            task=row.id,
        )
    db.execute("delete from requirement where child = ?", (row.id,))
    if row.state is TaskState.BLOCKED:
        _move(db, now_ms, row.id, TaskState.PENDING, None)
    if requires:
        _require(db, now_ms, row.id, requires)
    hold = query.one(db, "select hold from task where id = ?", (row.id,))[0]
    if hold and get(db, row.id).state in (TaskState.PENDING, TaskState.WAITING):
        _move(db, now_ms, row.id, TaskState.PAUSED, None)
    after = get(db, row.id)
    if after.state is TaskState.BLOCKED and row.state is not TaskState.BLOCKED:
        block_dependents(db, now_ms, row.id)
    elif row.state is TaskState.BLOCKED and after.state is not TaskState.BLOCKED:
        unblock_dependents(db, now_ms, row.id)


def get(db: apsw.Connection, task: TaskId) -> TaskRow:
    """One task.

    Raises:
        UnknownTask: no such task.
    """
    row = query.row(db, f"select {_COLUMNS} where task.id = ?", (task,))
    if row is None:
        raise UnknownTask(f"no task {task} in this file. scitq task list shows what there is.", task=task)
    return _task(row)


def find(db: apsw.Connection, name: str) -> TaskId:
    """The one task of that name (the newest counts when the older ones have ended).

    Raises:
        UnknownTask: none, or several that have not ended.
    """
    rows = query.rows(db, "select id, state from task where name = ? order by id desc limit 100", (name,))
    if not rows:
        raise UnknownTask(f"no task is named {name!r}. scitq task list shows the names.", task=name)
    open_ones = [id for id, state in rows if TaskState(state) not in FINAL]
    if len(open_ones) > 1:
        ids = ", ".join(str(id) for id in sorted(open_ones)[:5])
        raise UnknownTask(f"{len(open_ones)} tasks are named {name!r} ({ids}…): give the number instead.", task=name)
    return TaskId(open_ones[0] if open_ones else rows[0][0])


def state_of(db: apsw.Connection, task: TaskId) -> TaskState:
    """The state of one task.

    Raises:
        UnknownTask: no such task.
    """
    row = query.row(db, "select state from task where id = ?", (task,))
    if row is None:
        raise UnknownTask(f"no task {task} in this file. scitq task list shows what there is.", task=task)
    return TaskState(row[0])


def select(
    db: apsw.Connection,
    *,
    states: Iterable[TaskState] | None = None,
    batch: str | None = None,
    name: str | None = None,
    ids: Iterable[int] | None = None,
    after: int = 0,
    newest_first: bool = False,
    limit: int = 1000,
) -> list[TaskRow]:
    """Tasks that meet every condition given, by id. `name` may hold `*` and `?`."""
    if name is None and ids is None and (states is not None or batch is not None):
        # Found through an index, however many other tasks there are.
        found = list(islice(_ids(db, states, batch, after, newest_first), limit))
        rows = [
            row
            for page in (found[at : at + 1000] for at in range(0, len(found), 1000))
            for row in query.rows(db, f"select {_COLUMNS} where task.id in {_LISTED}", (json.dumps(page),))
        ]
        return [_task(row) for row in sorted(rows, reverse=newest_first)]
    where, values = ["task.id > ?"], [after]
    conditions: list[Any] = values
    if states is not None:
        where.append(f"task.state in {_LISTED}")
        conditions.append(json.dumps([int(state) for state in states]))
    if batch is not None:
        where.append("batch.name = ?")
        conditions.append(batch)
    if name is not None:
        where.append("task.name glob ?" if any(c in name for c in "*?[") else "task.name = ?")
        conditions.append(name)
    if ids is not None:
        where.append(f"task.id in {_LISTED}")
        conditions.append(json.dumps(sorted(ids)))
    order = "desc" if newest_first else "asc"
    sql = f"select {_COLUMNS} where {' and '.join(where)} order by task.id {order} limit ?"
    return [_task(row) for row in query.rows(db, sql, (*conditions, limit))]


def _ids(
    db: apsw.Connection, states: Iterable[TaskState] | None, batch: str | None, after: int, newest_first: bool
) -> Iterator[int]:
    """The ids of tasks in these states (of a batch) in order, merged from the stretches of an index that hold any."""
    wanted = None if states is None else frozenset(states)
    stretches = query.rows(
        db,
        "select counter.batch, state from counter join batch on batch.id = counter.batch where n > 0 and name = coalesce(?, name)",
        (batch,),
    )
    # Live ones, which are few, are not in that index: they come and go too fast.
    live = query.rows(
        db,
        f"""select task.id, task.state, batch.name from execution indexed by execution_worker join task on task.id = execution.task
        join batch on batch.id = task.batch where ended is null and task.id > ? and task.state in ({_LIVE_CODES})""",
        (after,),
    )
    fit = [id for id, state, of in live if (wanted is None or state in wanted) and of == (batch or of)]
    parts: list[Iterable[int]] = [sorted(fit, reverse=newest_first)]
    for number, state in stretches:
        if state in LIVE or (wanted is not None and state not in wanted):
            continue
        if state != TaskState.PENDING:
            parts.append(_stretch(db, _IN_PLACE, (number, state), after, newest_first))
            continue
        # Pending tasks stand in the index from which they are placed, by what they ask and by priority.
        kinds = list(islice(_ranks(db, number), RANKS + 1))
        if len(kinds) > RANKS:
            parts.append(_stretch(db, "task where batch = ? and state = ?", (number, state), after, newest_first))
            continue
        parts += [_stretch(db, _IN_RANK, (number, *kind), after, newest_first) for kind in kinds]
        parts.append(_stretch(db, _IN_DELAY, (number,), after, newest_first))
    return merge(*parts, reverse=newest_first)


_READY = f"state = {int(TaskState.PENDING)} and not_before is null"
_IN_PLACE = f"task indexed by task_place where batch = ? and state = ? and state not in ({_OUT_OF_PLACE})"
_IN_RANK = f"task indexed by task_ready where batch = ? and need = ? and priority = ? and {_READY}"
_IN_DELAY = (
    f"task indexed by task_later where batch = ? and state = {int(TaskState.PENDING)} and not_before is not null"
)


def _ranks(db: apsw.Connection, batch: int) -> Iterator[tuple[int, int]]:
    """The kinds of requests and priorities of a batch's ready tasks, by skipping through the index from one to the next."""
    source = f"select need, priority from task indexed by task_ready where batch = ? and {_READY}"
    rank = query.row(db, f"{source} order by need, priority desc limit 1", (batch,))
    while rank is not None:
        yield rank
        rank = query.row(
            db, f"{source} and need = ? and priority < ? order by priority desc limit 1", (batch, *rank)
        ) or query.row(db, f"{source} and need > ? order by need, priority desc limit 1", (batch, rank[0]))


def _stretch(
    db: apsw.Connection, source: str, values: tuple[int, ...], after: int, newest_first: bool
) -> Iterator[int]:
    """The ids in one stretch of an index, a page at a time."""
    low, high = after, 1 << 62
    order = "desc" if newest_first else "asc"
    sql = f"select id from {source} and id > ? and id < ? order by id {order} limit {PAGE}"
    while page := query.rows(db, sql, (*values, low, high)):
        yield from (id for (id,) in page)
        if newest_first:
            high = page[-1][0]
        else:
            low = page[-1][0]


def pending(db: apsw.Connection, limit: int) -> list[PendingTask]:
    """The tasks that could run now, best first: by priority, then age, over the batches that go on."""
    batches = query.rows(
        db,
        f"""select batch from counter join batch on batch.id = counter.batch
        where state = {int(TaskState.PENDING)} and n > 0 and halt = {int(Halt.GO)}""",
    )
    # One look-up in the index for each batch with pending tasks: paused ones cost nothing, however many tasks they hold.
    # So do kinds of requests: thousands that ask for more than is free do not hide the small one behind them.
    is_plain = newest_need(db) == 0
    waiting = {batch: [0] if is_plain else _kinds_of(db, batch) for (batch,) in batches}
    kinds = needs(db) if any(kind for found in waiting.values() for kind in found) else {0: (None, None)}
    found = [
        (-priority, id, batch, kind)
        for batch, its_kinds in waiting.items()
        for kind in its_kinds
        for id, priority in query.rows(
            db,
            f"""select id, priority from task indexed by task_ready where batch = ? and need = ?
            and state = {int(TaskState.PENDING)} and not_before is null order by priority desc, id limit ?""",
            (batch, kind, limit),
        )
    ]
    if len(batches) > 1 or len(kinds) > 1:
        found.sort()
    return [PendingTask(TaskId(id), BatchId(batch), -worse, kinds[kind][0]) for worse, id, batch, kind in found]


def _kinds_of(db: apsw.Connection, batch: int) -> list[int]:
    """The kinds of requests that a batch's pending tasks make, by skipping through the index from one to the next."""
    ready = f"from task indexed by task_ready where batch = ?1 and {_READY}"
    rows = query.rows(
        db,
        f"""with recursive kind(need) as (
          select min(need) {ready} union all select (select min(need) {ready} and need > kind.need) from kind where need is not null)
        select need from kind where need is not null""",
        (batch,),
    )
    return [need for (need,) in rows]


def newest_need(db: apsw.Connection) -> int:
    """The number of the newest kind of request."""
    return int(query.one(db, "select coalesce(max(id), 0) from need")[0])


def release_due(db: apsw.Connection, now_ms: int) -> int:
    """Let tasks whose retry delay is over be placed; returns how many."""
    return len(query.rows(db, "update task set not_before = null where not_before <= ? returning id", (now_ms,)))


def clock_was_set_back(db: apsw.Connection, now_ms: int) -> int:
    """Tasks whose retry delay began in what is now the future wait as long from now on; returns how many those are."""
    return len(
        query.rows(
            db,
            """update task set not_before = ?1 + max(0, not_before - changed), changed = ?1
            where not_before is not null and changed > ?1 returning id""",
            (now_ms,),
        )
    )


def counts(db: apsw.Connection, batch: str | None = None) -> dict[TaskState, int]:
    """How many tasks are in each state; states without any are absent."""
    if batch is None:
        rows = query.rows(db, "select state, sum(n) from counter group by state")
    else:
        rows = query.rows(
            db, "select state, n from counter join batch on batch.id = counter.batch where batch.name = ?", (batch,)
        )
    return {TaskState(state): n for state, n in rows if n}


def batch_counts(db: apsw.Connection) -> dict[str, dict[TaskState, int]]:
    """Counts by state for each batch."""
    found: dict[str, dict[TaskState, int]] = {}
    for name, state, n in query.rows(
        db,
        "select batch.name, state, n from counter join batch on batch.id = counter.batch where n > 0 order by batch.id, state",
    ):
        found.setdefault(name, {})[TaskState(state)] = n
    return found


def parents(db: apsw.Connection, task: TaskId, limit: int = 1000) -> list[TaskRow]:
    """The prerequisites of a task, those not done first."""
    rows = query.rows(
        db,
        f"""select {_COLUMNS} join requirement on requirement.parent = task.id where requirement.child = ?
        order by task.state = {int(TaskState.SUCCEEDED)}, task.id limit ?""",
        (task, limit),
    )
    return [_task(row) for row in rows]


def parent_counts(db: apsw.Connection, task: TaskId) -> dict[TaskState, int]:
    """How many prerequisites are in each state."""
    rows = query.rows(
        db,
        "select p.state, count(*) from requirement join task p on p.id = parent where child = ? group by p.state",
        (task,),
    )
    return {TaskState(state): n for state, n in rows}


def ahead_of(db: apsw.Connection, row: TaskRow, limit: int = 10_000) -> int:
    """How many pending tasks will be placed before this one (counted up to a limit for each batch)."""
    total = 0
    for (batch,) in query.rows(db, f"select id from batch where halt = {int(Halt.GO)}"):
        total += query.one(
            db,
            f"""select count(*) from (select 1 from task indexed by task_ready
            where batch = ? and need = (select need from task where id = ?) and state = {int(TaskState.PENDING)}
            and not_before is null and (priority > ? or (priority = ? and id < ?)) limit ?)""",
            (batch, row.id, row.priority, row.priority, row.id, limit),
        )[0]
    return total


def halt(db: apsw.Connection, now_ms: int, name: str, wanted: Halt) -> int:
    """Pause or suspend a batch, or let it go on; returns how many executions of it are affected.

    Raises:
        UnknownBatch: no task was ever submitted to it.
    """
    batch = known_batch(db, name)
    db.execute("update batch set halt = ? where id = ?", (int(wanted), batch))
    journal.note(db, now_ms, EventKind.NOTE, batch=name, halt=wanted.word)
    if wanted is Halt.GO:
        return _want_of_batch(db, batch, Wanted.RESUMED, f"task.hold = 0 and wanted = {int(Wanted.SUSPENDED)}")
    recalled = ",".join(str(int(state)) for state in _RECALLABLE)
    count = _want_of_batch(db, batch, Wanted.RECALLED, f"task.state in ({recalled}) and wanted = {int(Wanted.RUN)}")
    if wanted is Halt.SUSPENDED:
        passing = f"{int(Wanted.RUN)}, {int(Wanted.RESUMED)}"
        running = f"task.state = {int(TaskState.RUNNING)} and wanted in ({passing})"
        count += _want_of_batch(db, batch, Wanted.SUSPENDED, running)
    return count


def _want_of_batch(db: apsw.Connection, batch: BatchId, wanted: Wanted, where: str) -> int:
    return len(
        query.rows(
            db,
            f"""update execution set wanted = ? where ended is null and id in
            (select execution.id from execution join task on task.execution = execution.id
             where task.batch = ? and execution.ended is null and {where}) returning id""",
            (int(wanted), batch),
        )
    )


def known_batch(db: apsw.Connection, name: str) -> BatchId:
    """The number of a batch.

    Raises:
        UnknownBatch: there is none of that name.
    """
    row = query.row(db, "select id from batch where name = ?", (name,))
    if row is None:
        known = ", ".join(sorted(name for (name,) in query.rows(db, "select name from batch limit 10")))
        raise UnknownBatch(f"no batch is named {name!r} (known: {known or 'none'}).", batch=name)
    return BatchId(row[0])


def batches(db: apsw.Connection) -> dict[str, tuple[Halt, dict[str, Any]]]:
    """Whether each batch goes on, and its settings."""
    rows = query.rows(db, "select name, halt, settings from batch order by id")
    return {name: (Halt(halt), json.loads(settings)) for name, halt, settings in rows}


def delete_batch(db: apsw.Connection, now_ms: int, name: str) -> list[ExecutionId]:
    """Remove a batch with its settings and all its tasks; returns their executions.

    Raises:
        UnknownBatch: there is none of that name.
        IllegalMove: one of its tasks is on a worker, or needed by another batch's.
    """
    batch = known_batch(db, name)
    gone = delete(db, now_ms, [id for (id,) in query.rows(db, "select id from task where batch = ?", (batch,))])
    db.execute("update worker set batch = null where batch = ?", (batch,))
    db.execute("delete from counter where batch = ?", (batch,))
    db.execute("delete from batch where id = ?", (batch,))
    return gone


def settings(db: apsw.Connection, name: str) -> dict[str, Any]:
    """The default arguments of a batch; empty for an unknown one."""
    row = query.row(db, "select settings from batch where name = ?", (name,))
    return json.loads(row[0]) if row is not None and row[0] != "{}" else {}


def set_settings(db: apsw.Connection, name: str, values: Mapping[str, Any]) -> None:
    """Replace the default arguments of a batch, which is made if it is new."""
    db.execute("update batch set settings = ? where id = ?", (json.dumps(values), batch_id(db, name)))


def follow(db: apsw.Connection, task: TaskId, until_ms: int) -> None:
    """Ask the driver to bring the task's output home while it is written, until then."""
    db.execute(
        "insert into follow values (?, ?) on conflict(task) do update set until = max(until, excluded.until)",
        (task, until_ms),
    )


def end_follows(db: apsw.Connection, now_ms: int) -> None:
    """Forget whose output somebody wanted to see until now."""
    db.execute("delete from follow where until < ?", (now_ms,))


def _task(row: tuple[Any, ...]) -> TaskRow:
    id, name, batch, state, priority, unmet, tries, execution, not_before, created, changed, reason, spec = row
    return TaskRow(
        id=TaskId(id),
        name=name,
        batch=batch,
        state=TaskState(state),
        priority=priority,
        unmet=unmet,
        tries=tries,
        execution=None if execution is None else ExecutionId(execution),
        not_before_ms=not_before,
        created_ms=created,
        changed_ms=changed,
        reason=reason,
        spec=spec_of(spec),
    )
