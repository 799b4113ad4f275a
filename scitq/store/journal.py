"""The journal: the ordered record of everything that happened. Moves of tasks and workers are written by triggers; the rest here."""

from __future__ import annotations

import json
from typing import Any

import apsw

from scitq.events import Event, EventKind
from scitq.states import TaskState
from scitq.store import query
from scitq.store.query import compact


def note(
    db: apsw.Connection,
    at_ms: int,
    kind: EventKind,
    *,
    task: int | None = None,
    execution: int | None = None,
    worker: int | None = None,
    **data: Any,
) -> None:
    """Append one entry."""
    text = compact(data) if data else None
    db.execute(
        "insert into journal(at, kind, task, execution, worker, data) values (?, ?, ?, ?, ?, ?)",
        (at_ms, int(kind), task, execution, worker, text),
    )


def note_submission(db: apsw.Connection, at_ms: int, first: int, count: int) -> None:
    """Append that tasks were submitted, from number `first` on: the commonest entry, so it makes no detours."""
    db.execute(
        "insert into journal(at, kind, task, data) values (?, ?, ?, ?)",
        (at_ms, _SUBMITTED, first, f'{{"first":{first},"count":{count}}}'),
    )


_SUBMITTED = int(EventKind.SUBMITTED)


def last(db: apsw.Connection) -> int:
    """The number of the newest entry, 0 for none."""
    row = query.one(db, "select max(id) from journal")
    return int(row[0] or 0)


def since(db: apsw.Connection, seen: int, limit: int = 1000) -> list[Event]:
    """Entries after number `seen`, oldest first."""
    rows = query.rows(
        db,
        "select id, at, kind, task, execution, worker, src, dst, data from journal where id > ? order by id limit ?",
        (seen, limit),
    )
    return [_event(row) for row in rows]


def newest(db: apsw.Connection, count: int) -> list[Event]:
    """The newest entries, oldest first."""
    rows = query.rows(
        db,
        "select id, at, kind, task, execution, worker, src, dst, data from journal order by id desc limit ?",
        (count,),
    )
    return [_event(row) for row in reversed(rows)]


def settled_since(db: apsw.Connection, seen: int, limit: int = 10_000) -> tuple[int, list[tuple[int, TaskState]]]:
    """The last entry number looked at, and the moves of tasks after `seen` as (task, new state)."""
    end = last(db)
    rows = query.rows(
        db,
        "select id, task, dst from journal where id > ? and id <= ? and dst is not null order by id limit ?",
        (seen, end, limit),
    )
    moves = [(task, TaskState(dst)) for _, task, dst in rows]
    return (rows[-1][0] if len(rows) == limit else max(seen, end)), moves


def has_deletion(db: apsw.Connection, after: int, to: int) -> bool:
    """Whether tasks were deleted, among the entries after one number up to another."""
    found = query.row(
        db,
        "select 1 from journal where id > ? and id <= ? and kind = ? and data ->> '$.deleted' is not null",
        (after, to, int(EventKind.NOTE)),
    )
    return found is not None


def was_refused(db: apsw.Connection, task: int, since: int) -> bool:
    """Whether an edit of a task came too late, since an entry number."""
    found = query.row(
        db,
        "select 1 from journal where id > ? and task = ? and kind = ? and data ->> '$.edit' is not null",
        (since, task, int(EventKind.NOTE)),
    )
    return found is not None


def _event(row: tuple[Any, ...]) -> Event:
    number, at, kind, task, execution, worker, src, dst, data = row
    return Event(
        id=number,
        at_ms=at,
        kind=EventKind(kind),
        task=task,
        execution=execution,
        worker=worker,
        src=None if src is None else TaskState(src),
        dst=None if dst is None else TaskState(dst),
        data=json.loads(data) if data else {},
    )
