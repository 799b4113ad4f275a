"""Lists of tasks a page at a time, in several orders and under any filter, at a cost that does not grow with their number.

An order is a stretch of an index that is walked from where the page before has ended (its mark), in chunks that the filter
then thins out. When a filter is so fine that a page would take too long to fill, what was found so far is given, with the mark
from which to go on. Every function runs on a reader, and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

import apsw

from scitq.states import TaskState
from scitq.store import listing, query
from scitq.task import TaskId

CHUNK = 2000
# A page looks at so many tasks at most, or for so long, before it gives what it has.
LOOKED = 60_000
LOOKED_S = 0.12
# A selection of so few is sorted as a whole.
FEW = 5000
# Executions of one worker are looked for among so many at a time.
WINDOW = 20_000
_FIRST, _LAST = 0, 1 << 62


class Order(StrEnum):
    """By what a list is sorted. `TIME`: when the latest execution was given to its worker."""

    ID = "id"
    NAME = "name"
    BATCH = "batch"
    STATE = "state"
    TIME = "time"
    WORKER = "worker"


# In the place of a task: here something was looked at that is none of the order's.
PASSED = 0
# A place in an order: comparable within it, and written as JSON into addresses. The last part is a number.
Mark = tuple[Any, ...]
_Chunk = list[tuple[Mark, int]]


@dataclass(frozen=True)
class Filter:
    """Which tasks. `text`: in the name or the command, or the number; with `*` or `?`, a pattern for the name. `where` is SQL."""

    states: frozenset[TaskState] | None = None
    batch: str | None = None
    worker: str | None = None
    text: str | None = None
    where: str | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the file's counters know how many these are."""
        return not (self.worker or self.text or self.where)


@dataclass(frozen=True)
class Page:
    """Tasks in their order. `first`, `last`: their marks; `rest`: from where to go on when the search was broken off."""

    ids: list[TaskId]
    first: Mark | None
    last: Mark | None
    rest: Mark | None
    looked: int


@dataclass(frozen=True)
class Way:
    """How an order is walked: `descending` turns it round; `backwards` walks what comes of that from its end."""

    order: Order
    descending: bool = False
    backwards: bool = False

    @property
    def turned(self) -> bool:
        """Whether the larger come first on this walk."""
        return self.descending != self.backwards


def page(
    db: apsw.Connection, wanted: Filter, order: Order, mark: Mark | None = None, *, descending: bool = False,
    backwards: bool = False, limit: int = 50,
) -> Page:  # fmt: skip
    """The tasks after a mark; with `backwards` those before it, the nearest first.

    Raises:
        BadInput: `where` is no condition.
    """
    found: _Chunk = []
    way = Way(order, descending, backwards)
    looked, ends = 0, time.monotonic() + LOOKED_S
    with db:  # one view of the file
        for chunk in _chunks(db, wanted, way, mark):
            looked += len(chunk)
            kept = set(_kept(db, wanted, [id for _, id in chunk if id != PASSED]))
            found += [(at, id) for at, id in chunk if id in kept]
            if len(found) > limit:
                break
            if chunk and (looked >= LOOKED or time.monotonic() > ends):
                shown = found[:limit]
                return Page([TaskId(id) for _, id in shown], *_ends(shown), chunk[-1][0], looked)
    # The list ends here: nothing comes after the last one.
    shown = found[:limit]
    first, last = _ends(shown)
    return Page([TaskId(id) for _, id in shown], first, last if len(found) > limit else None, None, looked)


def every(db: apsw.Connection, wanted: Filter) -> list[TaskId]:
    """All of them, by number: for what is done to all that a filter shows."""
    found: list[TaskId] = []
    with db:
        for chunk in _chunks(db, wanted, Way(Order.ID), None):
            found += [TaskId(id) for id in _kept(db, wanted, [id for _, id in chunk])]
    return found


def count(db: apsw.Connection, wanted: Filter) -> int:
    """How many tasks have the states and the batch that are wanted."""
    counts = listing.counts(db, wanted.batch)
    return sum(n for state, n in counts.items() if wanted.states is None or state in wanted.states)


def _ends(found: _Chunk) -> tuple[Mark | None, Mark | None]:
    return (found[0][0], found[-1][0]) if found else (None, None)


# --- orders ---------------------------------------------------------------------------------------------------------------


def _chunks(db: apsw.Connection, wanted: Filter, way: Way, mark: Mark | None) -> Iterator[_Chunk]:
    order, is_few = way.order, wanted.states is not None or wanted.batch is not None
    if order is Order.ID:
        yield from _marked(_numbers(db, wanted, wanted.batch, mark[-1] if mark else None, way.turned))
    elif order is Order.BATCH:
        yield from _by_group(db, wanted, _batches(db, wanted), mark, way.turned)
    elif order is Order.STATE:
        yield from _by_group(db, wanted, sorted(wanted.states or TaskState), mark, way.turned)
    elif is_few and count(db, wanted) <= FEW:
        keyed = _keyed(db, order, list(_numbers(db, wanted, wanted.batch, None, False)))
        yield [one for one in _sorted(keyed, way) if mark is None or _is_past(one[0], mark, way)]
    elif order is Order.NAME:
        yield from _with_rest(db, lambda at: _named(db, at, way.turned), "name is null", mark, way)
    elif order is Order.TIME:
        yield from _with_rest(db, lambda at: _started(db, wanted, at, way.turned), _NEVER_RAN, mark, way)
    else:
        yield from _with_rest(db, lambda at: _by_worker(db, wanted, at, way.turned), _NEVER_RAN, mark, way)


def _sorted(chunk: _Chunk, way: Way) -> _Chunk:
    """A few, in their order; those that it says nothing of are its end, whichever way round it is."""
    parts = [sorted((one for one in chunk if one[0][0] == kind), reverse=way.descending) for kind in (0, 1)]
    whole = parts[0] + parts[1]
    return whole[::-1] if way.backwards else whole


def _is_past(one: Mark, mark: Mark, way: Way) -> bool:
    if one[0] != mark[0]:
        return bool((one[0] > mark[0]) != way.backwards)
    return bool(one < mark if way.turned else one > mark)


def _marked(ids: Iterator[int]) -> Iterator[_Chunk]:
    while some := list(islice(ids, CHUNK)):
        yield [((id,), id) for id in some]


def _numbers(
    db: apsw.Connection, wanted: Filter, batch: str | None, mark: int | None, descending: bool
) -> Iterator[int]:
    """The tasks of these states and of a batch, by number."""
    after = mark if mark is not None and not descending else _FIRST
    before = mark if mark is not None and descending else _LAST
    if wanted.states is not None or batch is not None:
        yield from listing.numbers(db, wanted.states, batch, after, before, descending)
        return
    way = "desc" if descending else "asc"
    sql = f"select id from task where id > ? and id < ? order by id {way} limit {CHUNK}"
    while some := query.rows(db, sql, (after, before)):
        yield from (id for (id,) in some)
        after, before = (after, some[-1][0]) if descending else (some[-1][0], before)


def _batches(db: apsw.Connection, wanted: Filter) -> list[str]:
    if wanted.batch is not None:
        return [wanted.batch]
    return [name for (name,) in query.rows(db, "select name from batch order by name")]


def _by_group(
    db: apsw.Connection, wanted: Filter, groups: list[Any], mark: Mark | None, descending: bool
) -> Iterator[_Chunk]:
    """Batch by batch, or state by state; in each by number."""
    for group in reversed(groups) if descending else groups:
        key = int(group) if isinstance(group, TaskState) else group
        at = mark[-1] if mark and mark[0] == key else None
        if mark and at is None and (key > mark[0] if descending else key < mark[0]):
            continue
        if isinstance(group, TaskState):
            ids = listing.numbers(
                db, [group], wanted.batch, at if at and not descending else _FIRST,
                at if at is not None and descending else _LAST, descending,
            )  # fmt: skip
        else:
            ids = _numbers(db, wanted, group, at, descending)
        while some := list(islice(ids, CHUNK)):
            yield [((key, id), id) for id in some]


# Those without what an order is by (a name, an execution) come after all others: their marks begin with 1, the others' with 0.


def _named(db: apsw.Connection, mark: Mark | None, turned: bool) -> Iterator[_Chunk]:
    way, than = ("desc", "<") if turned else ("asc", ">")
    sql = f"""select name, id from task indexed by task_name where name is not null and (name, id) {than} (?, ?)
      order by name {way}, id {way} limit {CHUNK}"""
    begin: tuple[str, int] = ("\U0010ffff" * 9, _LAST) if turned else ("", _FIRST)
    at = (mark[1], mark[2]) if mark else begin
    while some := query.rows(db, sql, at):
        at = some[-1]
        yield [((0, name, id), id) for name, id in some]


def _started(db: apsw.Connection, wanted: Filter, mark: Mark | None, turned: bool) -> Iterator[_Chunk]:
    workers = None if wanted.worker is None else _numbers_of(db, wanted.worker)
    for some in _executions(db, workers, mark[1] if mark else None, turned):
        yield [((0, execution), task) for execution, task in some]


def _by_worker(db: apsw.Connection, wanted: Filter, mark: Mark | None, turned: bool) -> Iterator[_Chunk]:
    # "" are results that were taken from the cache: no worker has run them.
    names = ["", *(name for (name,) in query.rows(db, "select name from worker order by name"))]
    for name in sorted((name for name in names if wanted.worker in (None, name)), reverse=turned):
        if mark and (name > mark[1] if turned else name < mark[1]):
            continue
        at = mark[2] if mark and mark[1] == name else None
        for some in _executions(db, _numbers_of(db, name), at, turned):
            yield [((0, name, execution), task) for execution, task in some]


_NEVER_RAN = "not exists (select 1 from execution where execution.task = task.id)"


def _with_rest(
    db: apsw.Connection, first: Callable[[Mark | None], Iterator[_Chunk]], rest: str, mark: Mark | None, way: Way
) -> Iterator[_Chunk]:
    """What an order is about, and then the tasks that it says nothing of; backwards, these first."""

    def others(at: Mark | None) -> Iterator[_Chunk]:
        ids = _numbers(db, Filter(), None, at[-1] if at else None, way.turned)
        while some := list(islice(ids, CHUNK)):
            rows = query.rows(db, f"select id from task where id in {listing.LISTED} and {rest}", (json.dumps(some),))
            fit = {id for (id,) in rows}
            yield [((1, id), id if id in fit else PASSED) for id in some]

    parts = [(0, first), (1, others)]
    for kind, part in reversed(parts) if way.backwards else parts:
        if mark is None or kind == mark[0]:
            yield from part(mark)
        elif (kind > mark[0]) != way.backwards:
            yield from part(None)


def _numbers_of(db: apsw.Connection, worker: str) -> list[int] | None:
    """The worker of that name; none for executions without one (results that were taken from the cache)."""
    return [id for (id,) in query.rows(db, "select id from worker where name = ?", (worker,))]


def _executions(
    db: apsw.Connection, workers: list[int] | None, mark: int | None, descending: bool
) -> Iterator[list[tuple[int, int]]]:
    """The latest executions of tasks (on a worker; an empty list: on none), by number: execution and task each."""
    last = int(query.one(db, "select coalesce(max(id), 0) from execution")[0])
    low, high = (0, last if mark is None else mark - 1) if descending else (mark or 0, last)
    where = "1" if workers is None else "worker is null" if not workers else f"worker in {listing.LISTED}"
    values: tuple[Any, ...] = (json.dumps(workers),) if workers else ()
    span = CHUNK if workers is None else WINDOW
    while low < high:
        begin, end = (max(low, high - span), high) if descending else (low, min(high, low + span))
        rows = query.rows(
            db,
            f"""select id, task from execution one where id > ? and id <= ? and {where}
            and not exists (select 1 from execution later where later.task = one.task and later.id > one.id)
            order by id {"desc" if descending else "asc"}""",
            (begin, end, *values),
        )
        yield [*rows, (begin + 1 if descending else end, PASSED)]
        low, high = (low, begin) if descending else (end, high)


def _keyed(db: apsw.Connection, order: Order, ids: list[int]) -> _Chunk:
    """A few tasks with their marks."""
    if order is Order.NAME:
        rows = query.rows(db, f"select id, name, id from task where id in {listing.LISTED}", (json.dumps(ids),))
        return [((1, id) if name is None else (0, name, id), id) for id, name, _ in rows]
    rows = query.rows(
        db,
        f"""select task.id, execution.id, coalesce(worker.name, '') from task
        left join execution on execution.id = (select max(id) from execution where execution.task = task.id)
        left join worker on worker.id = execution.worker where task.id in {listing.LISTED}""",
        (json.dumps(ids),),
    )
    if order is Order.TIME:
        return [((1, id) if execution is None else (0, execution), id) for id, execution, _ in rows]
    return [((1, id) if execution is None else (0, worker, execution), id) for id, execution, worker in rows]


# --- filters --------------------------------------------------------------------------------------------------------------


def _kept(db: apsw.Connection, wanted: Filter, ids: list[int]) -> list[int]:
    """Those of some tasks that the filter lets through."""
    if not ids:
        return []
    where, values = [f"task.id in {listing.LISTED}"], [json.dumps(ids)]
    if wanted.states is not None:
        where.append(f"task.state in {listing.LISTED}")
        values.append(json.dumps([int(state) for state in wanted.states]))
    if wanted.batch is not None:
        where.append("task.batch = (select id from batch where name = ?)")
        values.append(wanted.batch)
    if wanted.text:
        if any(letter in wanted.text for letter in "*?["):
            where.append("task.name glob ?")
            values.append(wanted.text)
        else:
            where.append(
                """(instr(lower(coalesce(name, '')), ?) or instr(lower(spec ->> '$.command'), ?) or cast(task.id as text) = ?)"""
            )
            values += [wanted.text.lower()] * 3
    if wanted.worker is not None:
        where.append(
            """(select worker from execution where execution.task = task.id order by execution.id desc limit 1)
            = (select id from worker where name = ?)"""
        )
        values.append(wanted.worker)
    if len(where) > 1:
        ids = [
            id
            for (id,) in query.rows(db, f"select id from task where {' and '.join(where)} order by id", tuple(values))
        ]
    if wanted.where and ids:
        from scitq.store.analysis import select_ids

        return select_ids(db, wanted.where, among=ids)
    return ids
