"""Tasks and their requirements, written. Every function runs inside a transaction of the caller's; reading is in `listing`.

A task's moves while it has an execution are in `executions`. What is allowed at all is said by `states`, and enforced by triggers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import apsw

from scitq.errors import IllegalMove, UnknownTask
from scitq.events import EventKind
from scitq.states import BAD, FINAL, LIVE, RECALLABLE, UNPLACED, Halt, Probe, TaskState, Wanted
from scitq.store import journal, listing, query
from scitq.store.listing import COLUMNS, LISTED
from scitq.task import BatchId, ExecutionId, Need, Raised, Spec, TaskId, TaskRow

# From so many on, tasks are inserted in bulk: below, compiling every statement anew would cost more than it saves.
BULK_FROM = 1000
# Of tasks that differ in their specs only so many go into one statement, if they are not too few, nor too long.
ALIKE, ALIKE_FROM, ALIKE_CHARACTERS = 1000, 20, 4_000_000

# A task to be: name, batch, priority, spec text, kind of request.
_Row = tuple[str | None, BatchId, int, str, int]


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
    values = (need.cpus or 0.0, need.memory or 0, need.gpus or 0, need.python or "")
    row = query.row(db, "select id from need where cpus = ? and memory = ? and gpus = ? and python = ?", values)
    made = "insert into need(cpus, memory, gpus, python) values (?, ?, ?, ?) returning id"
    return int((row or query.one(db, made, values))[0])


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


def add(
    db: apsw.Connection,
    now_ms: int,
    row: _Row,
    context: int | None,
    requires: Sequence[int],
) -> TaskId:
    """Insert one task given as in `add_many`; returns its id.

    Raises:
        UnknownTask: a prerequisite does not exist.
    """
    name, batch, priority, spec, need = row
    db.execute(_INSERT, (None, _PENDING, batch, priority, now_ms, now_ms, context, name, spec, need))
    id = TaskId(db.last_insert_rowid())
    journal.note_submission(db, now_ms, id, 1)
    if requires:
        _require(db, now_ms, id, requires)
    return id


def add_many(
    db: apsw.Connection,
    now_ms: int,
    rows: Sequence[_Row],
    context: int | None,
    requires: Sequence[Sequence[int]] | None = None,
    *,
    state: TaskState = TaskState.PENDING,
) -> range:
    """Insert tasks given as (name, batch, priority, spec text, kind of request), with each one's prerequisites; returns their ids.

    They are born pending, or in debug. The numbers that they get are those after `last_id`.

    Raises:
        UnknownTask: a prerequisite does not exist.
    """
    first = last_id(db) + 1
    ids = range(first, first + len(rows))
    if len(rows) < BULK_FROM:
        db.executemany(_INSERT, _values(zip(ids, rows, strict=True), now_ms, context, int(state)))
    else:
        _insert_without_triggers(db, zip(ids, rows, strict=True), now_ms, context, int(state))
        for batch, count in Counter(map(itemgetter(1), rows)).items():
            db.execute("update counter set n = n + ? where batch = ? and state = ?", (count, batch, int(state)))
    journal.note_submission(db, now_ms, first, len(rows))
    if requires is not None and len(rows) < BULK_FROM:
        for id, parents in zip(ids, requires, strict=True):
            if parents:
                _require(db, now_ms, id, parents)
    elif requires is not None:
        _require_in_bulk(db, now_ms, ids, requires, int(state))
    return ids


def last_id(db: apsw.Connection) -> int:
    """The number of the newest task that there ever was."""
    last = query.row(db, "select seq from sqlite_sequence where name = 'task'")
    return int(last[0]) if last else 0


_PENDING = int(TaskState.PENDING)
_INSERT = """insert into task(id, state, batch, priority, created, changed, context, name, spec, need)
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


# The same for tasks that differ in nothing but their specs, which come as one JSON array.
_INSERT_ALIKE = """insert into task(id, state, batch, priority, created, changed, context, name, spec, need)
  select ?1 + key, ?2, ?3, ?4, ?5, ?5, ?6, ?7, value, ?8 from json_each(?9)"""


def _values(
    numbered: Iterable[tuple[int, _Row]], now_ms: int, context: int | None, state: int
) -> Iterator[tuple[int | str | None, ...]]:
    for id, (name, batch, priority, spec, need) in numbered:
        yield id, state, batch, priority, now_ms, now_ms, context, name, spec, need


def _insert_without_triggers(
    db: apsw.Connection, numbered: Iterable[tuple[int, _Row]], now_ms: int, context: int | None, state: int
) -> None:
    """Half of what an insert costs is its triggers, which guard a birth that is right here by construction and count it."""
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    others: list[tuple[int, _Row]] = []
    try:
        for (name, batch, priority, need), run in groupby(numbered, _all_but_spec):
            while some := list(islice(run, ALIKE)):
                first, specs = some[0][0], [row[3] for _, row in some]
                if len(specs) < ALIKE_FROM or sum(map(len, specs)) > ALIKE_CHARACTERS:
                    others += some
                else:  # a third of the time: rows are not bound one by one
                    text = f"[{','.join(specs)}]"
                    db.execute(_INSERT_ALIKE, (first, state, batch, priority, now_ms, context, name, need, text))
        db.executemany(_INSERT, _values(others, now_ms, context, state))
    finally:
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)


def _all_but_spec(numbered: tuple[int, _Row]) -> tuple[str | None, BatchId, int, int]:
    name, batch, priority, _, need = numbered[1]
    return name, batch, priority, need


def want_probes(db: apsw.Connection, ids: range) -> None:
    """Of these new tasks, those that may use the cache wait for its answer before they are placed."""
    db.execute(
        f"update task set probe = {int(Probe.WANTED)} where id >= ? and id < ? and spec ->> '$.use_cache'",
        (ids.start, ids.stop),
    )


def _require(db: apsw.Connection, now_ms: int, child: int, parents: Sequence[int]) -> None:
    wanted = sorted(set(parents))
    known = json.dumps(wanted)
    missing = query.rows(
        db,
        f"select value from json_each(?) where value not in (select id from task where id in {LISTED})",
        (known, known),
    )
    if missing:
        raise UnknownTask(f"no task {missing[0][0]} to require.", task=missing[0][0])
    db.executemany("insert into requirement(parent, child) values (?, ?)", ((parent, child) for parent in wanted))
    bad = _worst_parent(db, child)
    if bad is not None and listing.state_of(db, TaskId(child)) is not TaskState.DEBUG:
        _move(db, now_ms, child, TaskState.BLOCKED, _blame(bad))


def _require_in_bulk(
    db: apsw.Connection, now_ms: int, ids: range, requires: Sequence[Sequence[int]], state: int
) -> None:
    """The same for all of many new tasks, which were born in that state: a fifth of the time. What the triggers would do for
    each is done for all at once; a birth needs no entry in the journal."""
    older = json.dumps(sorted({parent for parents in requires for parent in parents if parent < ids.start}))
    missing = query.row(
        db,
        f"select value from json_each(?) where value not in (select id from task where id in {LISTED})",
        (older, older),
    )
    newest = max((max(parents) for parents in requires if parents), default=0)
    if missing is not None or newest >= ids.stop:
        unknown = newest if missing is None else missing[0]
        raise UnknownTask(f"no task {unknown} to require.", task=unknown)
    new = (ids.start, ids.stop)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    try:
        db.executemany(
            "insert into requirement(parent, child) values (?, ?)",
            ((parent, id) for id, parents in zip(ids, requires, strict=True) for parent in sorted(set(parents))),
        )
        db.execute(
            f"""update task set unmet = r.n, state = iif(state = {_PENDING}, {int(TaskState.WAITING)}, state)
            from (select child, count(*) as n from requirement join task p on p.id = parent
              where child >= ? and child < ? and p.state <> {int(TaskState.SUCCEEDED)} group by child) r where task.id = r.child""",
            new,
        )
        if state == _PENDING:
            waiting = f"""select batch, count(*) as n from task where id >= ? and id < ? and state = {int(TaskState.WAITING)}
              group by batch"""
            for batch, count in query.rows(db, waiting, new):
                for code, more in ((_PENDING, -count), (int(TaskState.WAITING), count)):
                    db.execute("update counter set n = n + ? where batch = ? and state = ?", (more, batch, code))
    finally:
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    codes = ",".join(str(int(state)) for state in sorted(BAD))
    bad = f"select id from task where id in {LISTED} and state in ({codes}) order by state, id"
    for (parent,) in query.rows(db, bad, (older,)):
        block_dependents(db, now_ms, parent)


def _worst_parent(db: apsw.Connection, child: int) -> TaskRow | None:
    """A prerequisite that ended badly, if there is one (the root of the trouble rather than one it blocked)."""
    codes = ",".join(str(int(state)) for state in sorted(BAD))
    row = query.row(
        db,
        f"select {COLUMNS} join requirement on requirement.parent = task.id "
        f"where requirement.child = ? and task.state in ({codes}) order by task.state, task.id limit 1",
        (child,),
    )
    return listing.row_of(row) if row else None


def _blame(bad: TaskRow) -> str:
    if bad.state is TaskState.BLOCKED and bad.reason:
        return bad.reason
    return f"{bad.label} {bad.state.word}"


def _move(db: apsw.Connection, now_ms: int, task: int, state: TaskState, reason: str | None) -> None:
    db.execute("update task set state = ?, changed = ?, reason = ? where id = ?", (int(state), now_ms, reason, task))


def block_dependents(db: apsw.Connection, now_ms: int, task: int) -> None:
    """A task ended badly: everything that needs it, directly or not, cannot run."""
    row = listing.get(db, TaskId(task))
    reason = _blame(row)
    codes = f"{int(TaskState.WAITING)},{int(TaskState.PENDING)}"
    level = [task]
    while level:
        level = [
            found[0]
            for found in query.rows(
                db,
                f"""update task set state = {int(TaskState.BLOCKED)}, changed = ?, reason = ?
                where state in ({codes}) and id in (select child from requirement where parent in {LISTED}) returning id""",
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
                where state = {int(TaskState.BLOCKED)} and id in (select child from requirement where parent in {LISTED})
                  and not exists (select 1 from requirement r join task p on p.id = r.parent
                                  where r.child = task.id and p.state in ({codes})) returning id""",
                (now_ms, json.dumps(level)),
            )
        ]


def requeue(
    db: apsw.Connection,
    now_ms: int,
    task: int,
    *,
    not_before_ms: int | None,
    tries: int,
    reason: str | None,
    raised: Raised | None = None,
) -> TaskState:
    """Put a task that has no execution any more back in the queue: pending; or waiting or blocked when a prerequisite is
    not (or no longer) done; or paused, when that was asked. The row must leave its present state by this call.

    `raised`: what has changed for the next try; None: nothing."""
    if raised is not None:
        raise_to(db, now_ms, task, raised)
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


def raise_to(db: apsw.Connection, now_ms: int, task: int, raised: Raised) -> None:
    """Give the later tries of a task something else than the earlier ones had."""
    spec, before = query.one(db, "select spec, raised from task where id = ?", (task,))
    text = raised.text()
    if text == before:
        return
    need = need_id(db, raised.applied(listing.spec_of(spec)).need)
    db.execute("update task set raised = ?, need = ? where id = ?", (text, need, task))
    old, new = (json.loads(each or "{}") for each in (before, text))
    # The counts of retries alone are no news.
    changed = {key: new.get(key) for key in {*old, *new} - {"used"} if old.get(key) != new.get(key)}
    if changed:
        journal.note(db, now_ms, EventKind.NOTE, task=task, raised=changed)


def hold_for_debug(db: apsw.Connection, now_ms: int, task: int) -> None:
    """Keep a task that is queued for whoever debugs it."""
    db.execute(
        f"update task set state = ?, changed = ?, reason = null, not_before = null where id = ? and state in ({_HELD})",
        (int(TaskState.DEBUG), now_ms, task),
    )


_HELD = ",".join(
    str(int(state)) for state in (TaskState.WAITING, TaskState.PENDING, TaskState.PAUSED, TaskState.BLOCKED)
)


def release_from_debug(db: apsw.Connection, now_ms: int, task: int) -> TaskState:
    """Put a task that is kept for debugging in the queue as any other; returns its state then."""
    if listing.state_of(db, TaskId(task)) is not TaskState.DEBUG:
        return listing.state_of(db, TaskId(task))
    return requeue(db, now_ms, task, not_before_ms=None, tries=0, reason=None)


def relaunch(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Queue an ended task once more, with all its retries; its dependents are freed.

    Raises:
        UnknownTask: no such task.
        IllegalMove: the task has not ended (a blocked one is freed by relaunching what blocks it).
    """
    row = listing.get(db, task)
    if row.state not in FINAL:
        if row.state is TaskState.BLOCKED:
            raise IllegalMove(
                f"task {row.label} is blocked: {row.reason}. Relaunch that one, and this one goes on.", task=task
            )
        raise IllegalMove(
            f"task {row.label} is {row.state.word}: only a task that has ended can be relaunched.", task=task
        )
    journal.note(db, now_ms, EventKind.RELAUNCHED, task=task)
    # It is to run, whatever is known of its like.
    db.execute(f"update task set hold = 0, probe = {int(Probe.NONE)} where id = ?", (task,))
    db.execute("delete from probe where task = ?", (task,))
    # As it was asked for, but for the bits of its image: those stay.
    raised = Raised(image=row.raised.image)
    state = requeue(db, now_ms, task, not_before_ms=None, tries=0, reason=None, raised=raised)
    if state is TaskState.BLOCKED:
        block_dependents(db, now_ms, task)
    else:
        unblock_dependents(db, now_ms, task)
    return state


def cancel(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Cancel a task: at once when no worker has it, else its execution is wanted stopped and the worker is told.

    Returns the state after the call; an ended task is left as it is.
    """
    row = listing.get(db, task)
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
    row = listing.get(db, task)
    # Nothing launches one that waits for its debug session.
    if row.state in FINAL or row.state in (TaskState.PAUSED, TaskState.DEBUG):
        return row.state
    journal.note(db, now_ms, EventKind.UPDATED, task=task, pause=True)
    db.execute("update task set hold = 1 where id = ?", (task,))
    if row.state is TaskState.BLOCKED:  # its dependents need to see that it is; it is paused when it comes free
        return row.state
    if row.execution is None:
        _move(db, now_ms, task, TaskState.PAUSED, None)
        return TaskState.PAUSED
    _ask(db, row.execution, Wanted.RECALLED if row.state in RECALLABLE else Wanted.SUSPENDED)
    return row.state


def resume(db: apsw.Connection, now_ms: int, task: TaskId) -> TaskState:
    """Let a paused task go on, from where it was stopped if it had been launched. One that its batch stops too stays stopped."""
    row = listing.get(db, task)
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
    row = listing.get(db, task)
    if row.state in LIVE and row.state not in RECALLABLE:
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


def settle_edit(db: apsw.Connection, now_ms: int, task: TaskId, *, launched: bool) -> None:
    """A worker told what became of a task that had an edit waiting: make it, or drop it because it came too late."""
    found = query.row(db, "delete from edit where task = ? returning data", (task,))
    if found is None:
        return
    wanted = json.loads(found[0])
    if launched:
        journal.note(db, now_ms, EventKind.NOTE, task=task, edit="refused: already launched")
    else:
        _edit(db, now_ms, listing.get(db, task), wanted.pop("changes"), **wanted)


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
    # `changed` stays: it says since when the task is in its state, which an edit leaves alone.
    if changes:
        old = listing.spec_text(row.spec)
        new = listing.spec_text(Spec(**{**row.spec.__dict__, **changes}))
        # What an earlier execution ran stays known: it keeps the spec that this edit replaces.
        db.execute("update execution set spec = ? where task = ? and spec is null", (old, row.id))
        raised, spec = row.raised.without(changes), listing.spec_of(new)
        need = need_id(db, raised.applied(spec).need)
        probe = Probe.WANTED if spec.use_cache else Probe.NONE
        db.execute("delete from probe where task = ?", (row.id,))
        db.execute(
            "update task set spec = ?, need = ?, raised = ?, probe = ? where id = ?",
            (new, need, raised.text(), int(probe), row.id),
        )
        journal.note(db, now_ms, EventKind.UPDATED, task=row.id, fields=sorted(changes), before=json.loads(old))
    if name is not None:
        db.execute("update task set name = ? where id = ?", (name, row.id))
    if batch is not None:
        db.execute("update task set batch = ? where id = ?", (batch_id(db, batch), row.id))
    if priority is not None:
        db.execute("update task set priority = ? where id = ?", (priority, row.id))


def of_batch(db: apsw.Connection, batch: BatchId) -> list[int]:
    """The tasks of a batch."""
    return [id for (id,) in query.rows(db, "select id from task where batch = ?", (batch,))]


def delete(db: apsw.Connection, now_ms: int, ids: Sequence[int]) -> list[ExecutionId]:
    """Remove tasks with their history from the file; returns their executions, whose log files may go too.

    Raises:
        IllegalMove: one is live, or something else that has not ended waits for one that has not succeeded, or for what
            it left.
    """
    listed = json.dumps(sorted(ids))
    live = query.row(db, f"select id from task where id in {LISTED} and execution is not null limit 1", (listed,))
    if live is not None:
        label = listing.get(db, TaskId(live[0])).label
        raise IllegalMove(
            f"task {label} is on a worker: cancel it and wait for its end before deleting it.", task=live[0]
        )
    needed = query.row(
        db,
        f"""select parent, child from requirement join task p on p.id = parent join task c on c.id = child
        where parent in {LISTED} and child not in {LISTED}
          and (p.state <> {int(TaskState.SUCCEEDED)} or c.spec glob '*"task://' || p.id || '["/|]*')
          and c.state in ({",".join(str(int(state)) for state in UNPLACED)}) limit 1""",
        (listed, listed),
    )
    if needed is not None:
        parent, child = listing.get(db, TaskId(needed[0])), listing.get(db, TaskId(needed[1]))
        raise IllegalMove(f"task {child.label} requires {parent.label}: delete or cancel that one too.", task=parent.id)
    gone = [ExecutionId(id) for (id,) in query.rows(db, f"select id from execution where task in {LISTED}", (listed,))]
    db.execute(f"delete from requirement where parent in {LISTED} or child in {LISTED}", (listed, listed))
    logs_of = json.dumps([2 * id + stream for id in gone for stream in (0, 1)])
    db.execute(f"delete from log where id in {LISTED}", (logs_of,))
    for table in ("manifest", "note", "recipe"):
        db.execute(f"delete from {table} where execution in {LISTED}", (json.dumps(gone),))
    for table, column in (
        ("edit", "task"),
        ("follow", "task"),
        ("probe", "task"),
        ("execution", "task"),
        ("task", "id"),
    ):
        db.execute(f"delete from {table} where {column} in {LISTED}", (listed,))
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
    if hold and listing.get(db, row.id).state in (TaskState.PENDING, TaskState.WAITING):
        _move(db, now_ms, row.id, TaskState.PAUSED, None)
    after = listing.get(db, row.id)
    if after.state is TaskState.BLOCKED and row.state is not TaskState.BLOCKED:
        block_dependents(db, now_ms, row.id)
    elif row.state is TaskState.BLOCKED and after.state is not TaskState.BLOCKED:
        unblock_dependents(db, now_ms, row.id)


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


def follow(db: apsw.Connection, task: TaskId, until_ms: int) -> None:
    """Ask the driver to bring the task's output home while it is written, until then."""
    db.execute(
        "insert into follow values (?, ?) on conflict(task) do update set until = max(until, excluded.until)",
        (task, until_ms),
    )


def end_follows(db: apsw.Connection, now_ms: int) -> None:
    """Forget whose output somebody wanted to see until now."""
    db.execute("delete from follow where until < ?", (now_ms,))
