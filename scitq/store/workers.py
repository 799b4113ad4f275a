"""Workers as rows, and how far each one's journal has been read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import apsw

from scitq.errors import BadInput, UnknownWorker
from scitq.states import WorkerState
from scitq.store import query
from scitq.worker import WorkerId, WorkerRow

_COLUMNS = """worker.id, worker.name, worker.kind, worker.state, batch.name, worker.concurrency, worker.prefetch,
  worker.facts, worker.declared, worker.note, worker.journal, worker.acked, worker.created, worker.seen,
  worker.stats
  from worker left join batch on batch.id = worker.batch"""


def ensure(db: apsw.Connection, now_ms: int, name: str, kind: str, concurrency: int) -> WorkerId:
    """The worker of that name, made when it is new."""
    row = query.row(db, "select id from worker where name = ?", (name,))
    if row is None:
        row = query.one(
            db,
            "insert into worker(name, kind, state, concurrency, created) values (?, ?, ?, ?, ?) returning id",
            (name, kind, int(WorkerState.PREPARING), concurrency, now_ms),
        )
    return WorkerId(row[0])


def all_of(db: apsw.Connection) -> list[WorkerRow]:
    """Every worker that has not gone, by number."""
    rows = query.rows(db, f"select {_COLUMNS} where worker.state <> {int(WorkerState.GONE)} order by worker.id")
    return [_worker(row) for row in rows]


def find(db: apsw.Connection, name_or_id: str | int) -> WorkerRow:
    """One worker.

    Raises:
        UnknownWorker: no such worker.
    """
    column = "worker.id" if isinstance(name_or_id, int) else "worker.name"
    row = query.row(db, f"select {_COLUMNS} where {column} = ?", (name_or_id,))
    if row is None:
        raise UnknownWorker(
            f"no worker {name_or_id!r} in this file. scitq worker list shows what there is.", worker=name_or_id
        )
    return _worker(row)


def move(db: apsw.Connection, now_ms: int, worker: WorkerId, state: WorkerState, note: str | None = None) -> None:
    """Change a worker's state, with the reason."""
    db.execute("update worker set state = ?, note = ?, seen = ? where id = ?", (int(state), note, now_ms, worker))


def describe(db: apsw.Connection, worker: WorkerId, facts: Mapping[str, Any]) -> None:
    """Store what the agent says of its machine."""
    db.execute("update worker set facts = ? where id = ?", (json.dumps(facts, separators=(",", ":")), worker))


def measure(db: apsw.Connection, worker: WorkerId, stats: Mapping[str, Any]) -> None:
    """Store how busy the agent says that its machine is."""
    db.execute("update worker set stats = ? where id = ?", (json.dumps(stats, separators=(",", ":")), worker))


def advance(db: apsw.Connection, worker: WorkerId, journal: str | None, acked: int, to_journal: str, to: int) -> bool:
    """Move the place up to which a worker's journal has been applied; False when somebody else has moved it meanwhile."""
    rows = query.rows(
        db,
        "update worker set journal = ?, acked = ? where id = ? and journal is ? and acked = ? returning id",
        (to_journal, to, worker, journal, acked),
    )
    return bool(rows)


def declare(db: apsw.Connection, worker: WorkerId, values: Mapping[str, Any]) -> None:
    """Say what a worker has, against what its agent finds; None takes a declaration back."""
    known = json.loads(query.one(db, "select declared from worker where id = ?", (worker,))[0])
    kept = {key: value for key, value in {**known, **values}.items() if value is not None}
    db.execute("update worker set declared = ? where id = ?", (json.dumps(kept), worker))


def update(
    db: apsw.Connection,
    worker: WorkerId,
    *,
    concurrency: int | None = None,
    prefetch: int | None = None,
    auto_prefetch: bool = False,
) -> None:
    """Change how much a worker runs and stages ahead. Takes effect at once.

    Raises:
        BadInput: a negative number.
    """
    for name, value in (("concurrency", concurrency), ("prefetch", prefetch)):
        if value is not None and value < 0:
            raise BadInput(f"{name} must be 0 or more, not {value}.")
    if concurrency is not None:
        db.execute("update worker set concurrency = ? where id = ?", (concurrency, worker))
    if prefetch is not None or auto_prefetch:
        db.execute("update worker set prefetch = ? where id = ?", (prefetch, worker))


def _worker(row: tuple[Any, ...]) -> WorkerRow:
    return WorkerRow(
        id=WorkerId(row[0]),
        name=row[1],
        kind=row[2],
        state=WorkerState(row[3]),
        batch=row[4],
        concurrency=row[5],
        prefetch=row[6],
        facts=_facts(row[7], row[8]),
        note=row[9],
        journal=row[10],
        acked=row[11],
        created_ms=row[12],
        seen_ms=row[13],
        measured=row[14],
    )


@lru_cache(maxsize=1024)
def _facts(found: str, declared: str) -> Mapping[str, Any]:
    """What is known of a machine; shared by all rows with the same texts, so that a driver's round parses nothing."""
    return {**json.loads(found), **json.loads(declared)}
