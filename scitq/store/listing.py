"""Tasks, read: one, many by state, batch or name, those that could be placed, and how many there are.

Every function runs on a reader or inside a transaction of the caller's, and changes nothing. Writing is in `tasks`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any

import apsw

from scitq.errors import UnknownTask
from scitq.states import FINAL, LIVE, Halt, Probe, TaskState
from scitq.store import query
from scitq.store.query import compact
from scitq.task import RETRY_DELAY_S, BatchId, ExecutionId, Need, PendingTask, Spec, TaskId, TaskRow, raised_of

COLUMNS = """task.id, task.name, batch.name, task.state, task.priority, task.unmet, task.tries, task.execution, task.not_before,
  task.created, task.changed, task.reason, task.spec, task.raised from task join batch on batch.id = task.batch"""
# So many ids are read from the index at a time.
PAGE = 256
# Pending tasks are listed through the index of the ready ones, unless a batch has more different ranks than this.
RANKS = 100
_LIVE_CODES = ",".join(str(int(state)) for state in sorted(LIVE))
OUT_OF_PLACE = ",".join(str(int(state)) for state in sorted({TaskState.PENDING, *LIVE}))
# Statements stay constant (and so prepared) because lists travel as one JSON parameter.
LISTED = "(select value from json_each(?))"


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
    for name in ("cpus", "memory", "gpus", "python"):
        if (value := getattr(spec, name)) is not None:
            fields[name] = value
    if spec.input:
        fields["input"] = list(spec.input)
    if spec.resource:
        fields["resource"] = list(spec.resource)
    if spec.output is not None:
        fields["output"] = spec.output
    if spec.overwrite:
        fields["overwrite"] = True
    if not spec.keep_failed:
        fields["keep_failed"] = False
    if spec.skip_if_exists:
        fields["skip_if_exists"] = True
    if spec.stage_in_timeout is not None:
        fields["stage_in_timeout"] = spec.stage_in_timeout
    for name in ("retry_memory", "retry_timeout"):
        if (value := getattr(spec, name)) is not None:
            fields[name] = value
    if spec.container is not None:
        fields["container"] = spec.container
    if spec.container_options:
        fields["container_options"] = list(spec.container_options)
    if spec.use_cache:
        fields["use_cache"] = True
    text = compact(fields)
    return (f",{text[1:]}" if fields else "}") if without_command else text


def spec_of(text: str) -> Spec:
    """The spec that `spec_text` stored."""
    return Spec(**json.loads(text))


def needs(db: apsw.Connection) -> dict[int, tuple[Need | None, str | None]]:
    """Every kind of request, with the reason why no worker can ever meet it, if that is so."""
    rows = query.rows(db, "select id, note, cpus, memory, gpus, python from need")
    found = {id: (need_from(*asked), note) for id, note, *asked in rows}
    return {0: (None, None), **found}


def edit_pending(db: apsw.Connection, task: TaskId) -> bool:
    """Whether an edit waits for a worker to give the task back."""
    return query.row(db, "select 1 from edit where task = ?", (task,)) is not None


def need_of(db: apsw.Connection, task: TaskId) -> tuple[Need | None, str | None]:
    """What a task asks, and why no worker can ever meet it, if that is so."""
    row = query.row(
        db,
        "select note, cpus, memory, gpus, python from task join need on need.id = task.need where task.id = ?",
        (task,),
    )
    return (None, None) if row is None else (need_from(*row[1:]), row[0])


def need_from(cpus: float, memory: int, gpus: int, python: str) -> Need:
    """A request from its columns."""
    return Need(cpus or None, memory or None, gpus or None, python or None)


def get(db: apsw.Connection, task: TaskId) -> TaskRow:
    """One task.

    Raises:
        UnknownTask: no such task.
    """
    row = query.row(db, f"select {COLUMNS} where task.id = ?", (task,))
    if row is None:
        raise UnknownTask(f"no task {task} in this file. scitq task list shows what there is.", task=task)
    return row_of(row)


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
    before: int = 1 << 62,
    newest_first: bool = False,
    limit: int = 1000,
) -> list[TaskRow]:
    """Tasks that meet every condition given, by id. `name` may hold `*` and `?`."""
    if name is None and ids is None and (states is not None or batch is not None):
        # Found through an index, however many other tasks there are; in one view of the file, for a task that moves from one
        # stretch of it to another meanwhile stands in neither.
        with db:
            found = list(islice(numbers(db, states, batch, after, before, newest_first), limit))
            rows = [
                row
                for page in (found[at : at + 1000] for at in range(0, len(found), 1000))
                for row in query.rows(db, f"select {COLUMNS} where task.id in {LISTED}", (json.dumps(page),))
            ]
        return [row_of(row) for row in sorted(rows, reverse=newest_first)]
    where, values = ["task.id > ? and task.id < ?"], [after, before]
    conditions: list[Any] = values
    if states is not None:
        where.append(f"task.state in {LISTED}")
        conditions.append(json.dumps([int(state) for state in states]))
    if batch is not None:
        where.append("batch.name = ?")
        conditions.append(batch)
    if name is not None:
        where.append("task.name glob ?" if any(c in name for c in "*?[") else "task.name = ?")
        conditions.append(name)
    if ids is not None:
        where.append(f"task.id in {LISTED}")
        conditions.append(json.dumps(sorted(ids)))
    order = "desc" if newest_first else "asc"
    sql = f"select {COLUMNS} where {' and '.join(where)} order by task.id {order} limit ?"
    return [row_of(row) for row in query.rows(db, sql, (*conditions, limit))]


def ids(
    db: apsw.Connection,
    *,
    states: Iterable[TaskState] | None = None,
    batch: str | None = None,
    name: str | None = None,
    limit: int | None = None,
) -> list[TaskId]:
    """The numbers of the tasks that `select` would find, all of one moment."""
    most = -1 if limit is None else limit
    if name is not None:
        is_pattern = any(c in name for c in "*?[")
        wanted = None if states is None else json.dumps([int(state) for state in states])
        rows = query.rows(
            db,
            f"""select task.id from task join batch on batch.id = task.batch where task.name {"glob" if is_pattern else "="} ?1
            and (?2 is null or batch.name = ?2) and (?3 is null or task.state in (select value from json_each(?3)))
            order by task.id limit ?4""",
            (name, batch, wanted, most),
        )
    elif states is None and batch is None:
        rows = query.rows(db, "select id from task order by id limit ?", (most,))
    else:
        with db:  # one view of the file: see `select`
            return [TaskId(id) for id in islice(numbers(db, states, batch), limit)]
    return [TaskId(id) for (id,) in rows]


def numbers(
    db: apsw.Connection,
    states: Iterable[TaskState] | None,
    batch: str | None,
    after: int = 0,
    before: int = 1 << 62,
    newest_first: bool = False,
) -> Iterator[int]:
    """The ids of tasks in these states (of a batch) in order, merged from the stretches of an index that hold any.

    Read them to the end inside one transaction (`with db:`).
    """
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
        join batch on batch.id = task.batch where ended is null and task.id > ? and task.id < ? and task.state in ({_LIVE_CODES})""",
        (after, before),
    )
    fit = [id for id, state, of in live if (wanted is None or state in wanted) and of == (batch or of)]
    parts: list[Iterable[int]] = [sorted(fit, reverse=newest_first)]
    for number, state in stretches:
        if state in LIVE or (wanted is not None and state not in wanted):
            continue
        if state != TaskState.PENDING:
            parts.append(_stretch(db, _IN_PLACE, (number, state), after, before, newest_first))
            continue
        # Pending tasks stand in the index from which they are placed, by what they ask and by priority.
        kinds = list(islice(_ranks(db, number), RANKS + 1))
        if len(kinds) > RANKS:
            parts.append(
                _stretch(db, "task where batch = ? and state = ?", (number, state), after, before, newest_first)
            )
            continue
        parts += [_stretch(db, _IN_RANK, (number, *kind), after, before, newest_first) for kind in kinds]
        parts.append(_stretch(db, _IN_DELAY, (number,), after, before, newest_first))
        parts.append(_stretch(db, _IN_DOUBT, (number,), after, before, newest_first))
    return merge(*parts, reverse=newest_first)


_GOING_ON = f"""from counter join batch on batch.id = counter.batch
  where state = {int(TaskState.PENDING)} and n > 0 and halt = {int(Halt.GO)}"""
READY = f"state = {int(TaskState.PENDING)} and not_before is null and probe < {int(Probe.WANTED)}"
_IN_PLACE = f"task indexed by task_place where batch = ? and state = ? and state not in ({OUT_OF_PLACE})"
_IN_RANK = f"task indexed by task_ready where batch = ? and need = ? and priority = ? and {READY}"
_IN_DELAY = (
    f"task indexed by task_later where batch = ? and state = {int(TaskState.PENDING)} and not_before is not null"
)
_IN_DOUBT = (  # what waits for the cache's answer
    f"task indexed by task_probe where batch = ? and state = {int(TaskState.PENDING)} and probe >= {int(Probe.WANTED)} "
    "and not_before is null"
)


def _ranks(db: apsw.Connection, batch: int) -> Iterator[tuple[int, int]]:
    """The kinds of requests and priorities of a batch's ready tasks, by skipping through the index from one to the next."""
    source = f"select need, priority from task indexed by task_ready where batch = ? and {READY}"
    rank = query.row(db, f"{source} order by need, priority desc limit 1", (batch,))
    while rank is not None:
        yield rank
        rank = query.row(
            db, f"{source} and need = ? and priority < ? order by priority desc limit 1", (batch, *rank)
        ) or query.row(db, f"{source} and need > ? order by need, priority desc limit 1", (batch, rank[0]))


def _stretch(
    db: apsw.Connection, source: str, values: tuple[int, ...], after: int, before: int, newest_first: bool
) -> Iterator[int]:
    """The ids in one stretch of an index, a page at a time."""
    low, high = after, before
    order = "desc" if newest_first else "asc"
    sql = f"select id from {source} and id > ? and id < ? order by id {order} limit {PAGE}"
    while page := query.rows(db, sql, (*values, low, high)):
        yield from (id for (id,) in page)
        if newest_first:
            high = page[-1][0]
        else:
            low = page[-1][0]


def has_pending(db: apsw.Connection) -> bool:
    """Whether a batch that goes on has a pending task (which may still have to wait before its next try)."""
    found = query.row(db, f"select 1 {_GOING_ON} limit 1")
    return found is not None


def pending(db: apsw.Connection, limit: int) -> list[PendingTask]:
    """The tasks that could run now, best first: by priority, then age, over the batches that go on."""
    batches = query.rows(db, f"select batch {_GOING_ON}")
    # One look-up in the index for each batch with pending tasks: paused ones cost nothing, however many tasks they hold.
    # So do kinds of requests: thousands that ask for more than is free do not hide the small one behind them.
    is_plain = newest_need(db) == 0
    waiting = {batch: [0] if is_plain else kinds_of(db, batch) for (batch,) in batches}
    kinds = needs(db) if any(kind for found in waiting.values() for kind in found) else {0: (None, None)}
    found = [
        (-priority, id, batch, kind, probe)
        for batch, its_kinds in waiting.items()
        for kind in its_kinds
        for id, priority, probe in query.rows(
            db,
            f"""select id, priority, probe from task indexed by task_ready where batch = ? and need = ?
            and {READY} order by priority desc, id limit ?""",
            (batch, kind, limit),
        )
    ]
    if len(batches) > 1 or len(kinds) > 1:
        found.sort()
    # Few tasks avoid a worker.
    avoid = {
        id: tuple(json.loads(workers))
        for id, workers in query.rows(
            db,
            f"""select id, raised ->> '$.avoid' from task indexed by task_raised
            where state = {int(TaskState.PENDING)} and raised ->> '$.avoid' is not null""",
        )
    }
    return [
        PendingTask(
            TaskId(id), BatchId(batch), -worse, kinds[kind][0], avoid=avoid.get(id, ()), is_probed=probe == Probe.MISSED
        )
        for worse, id, batch, kind, probe in found
    ]


def waiting(db: apsw.Connection, limit: int) -> list[tuple[PendingTask, tuple[int, ...]]]:
    """Tasks that wait for others, over the batches that go on, each after what it requires; with what they wait for still."""
    kinds = needs(db)
    rows = query.rows(
        db,
        f"""select task.id, task.batch, task.priority, task.need,
          (select json_group_array(parent) from requirement join task p on p.id = parent
            where child = task.id and p.state <> {int(TaskState.SUCCEEDED)})
        from task join batch on batch.id = task.batch where task.state = {int(TaskState.WAITING)} and hold = 0
        and halt = {int(Halt.GO)} order by task.id limit ?""",
        (limit,),
    )
    return [
        (PendingTask(TaskId(id), BatchId(batch), priority, kinds[kind][0]), tuple(json.loads(parents)))
        for id, batch, priority, kind, parents in rows
    ]


def spec_of_task(db: apsw.Connection, task: int) -> Spec:
    """What a task asks for."""
    return spec_of(query.one(db, "select spec from task where id = ?", (task,))[0])


def kinds_of(db: apsw.Connection, batch: int) -> list[int]:
    """The kinds of requests that a batch's pending tasks make, by skipping through the index from one to the next."""
    ready = f"from task indexed by task_ready where batch = ?1 and {READY}"
    rows = query.rows(
        db,
        f"""with recursive kind(need) as (
          select min(need) {ready} union all select (select min(need) {ready} and need > kind.need) from kind where need is not null)
        select need from kind where need is not null""",
        (batch,),
    )
    return [need for (need,) in rows]


def needs_of(db: apsw.Connection, batch: int) -> list[Need | None]:
    """What the tasks of a batch that could run now ask for, each kind of request once."""
    if newest_need(db) == 0:
        return [None]
    kinds = needs(db)
    return [kinds[kind][0] for kind in kinds_of(db, batch)]


def newest_need(db: apsw.Connection) -> int:
    """The number of the newest kind of request."""
    return int(query.one(db, "select coalesce(max(id), 0) from need")[0])


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
        f"""select {COLUMNS} join requirement on requirement.parent = task.id where requirement.child = ?
        order by task.state = {int(TaskState.SUCCEEDED)}, task.id limit ?""",
        (task, limit),
    )
    return [row_of(row) for row in rows]


def children(db: apsw.Connection, task: TaskId, limit: int = 1000) -> list[TaskRow]:
    """The tasks that require a task, oldest first."""
    rows = query.rows(
        db,
        f"select {COLUMNS} join requirement on requirement.child = task.id where requirement.parent = ? order by task.id limit ?",
        (task, limit),
    )
    return [row_of(row) for row in rows]


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
            where batch = ? and need = (select need from task where id = ?) and {READY}
            and (priority > ? or (priority = ? and id < ?)) limit ?)""",
            (batch, row.id, row.priority, row.priority, row.id, limit),
        )[0]
    return total


def row_of(row: tuple[Any, ...]) -> TaskRow:
    id, name, batch, state, priority, unmet, tries, execution, not_before, created, changed, reason, spec, raised = row
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
        raised=raised_of(raised),
    )
