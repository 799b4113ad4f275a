"""Workers as rows, and how far each one's journal has been read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import apsw

from scitq.errors import BadInput, NameTaken, UnknownWorker
from scitq.states import WorkerState
from scitq.store import query
from scitq.worker import WorkerId, WorkerRow

# The trend of a worker: a sample so often at most, and so many of them.
SAMPLE_MS = 30_000
SAMPLES = 240

_COLUMNS = """worker.id, worker.name, worker.kind, worker.state, batch.name, worker.concurrency, worker.prefetch,
  worker.facts, worker.declared, worker.note, worker.journal, worker.acked, worker.created, worker.seen,
  worker.stats, worker.address, worker.settings, worker.link, worker.silent_ms, worker.batch
  from worker left join batch on batch.id = worker.batch"""


class Sample(NamedTuple):
    """How busy a worker's machine was: the time in milliseconds since 1970, sizes in bytes, `net_…` since it was started."""

    at_ms: int
    load: float | None
    cpu: float | None
    memory_free: int | None
    disk_free: int | None
    net_in: int | None
    net_out: int | None


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


def add(
    db: apsw.Connection,
    now_ms: int,
    name: str,
    kind: str,
    address: str | None,
    *,
    concurrency: int = 1,
    prefetch: int | None = None,
    batch: int | None = None,
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    state: WorkerState = WorkerState.PREPARING,
) -> WorkerId:
    """A new worker, to be prepared. One of that name that has gone gives its name away.

    Raises:
        NameTaken: there is a worker of that name.
    """
    old = query.row(db, "select id, state from worker where name = ?", (name,))
    if old is not None:
        if old[1] != WorkerState.GONE:
            raise NameTaken(f"there is a worker {name!r} already. Give this one another name (--name).", worker=name)
        db.execute("update worker set name = ? where id = ?", (f"{name} #{old[0]}", old[0]))
    row = query.one(
        db,
        """insert into worker(name, kind, address, state, concurrency, prefetch, batch, settings, facts, created)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id""",
        (name, kind, address, int(state), concurrency, prefetch, batch,
         query.compact(dict(settings or {})), query.compact(dict(facts or {})), now_ms),
    )  # fmt: skip
    return WorkerId(row[0])


def linked(db: apsw.Connection, worker: WorkerId, link: Mapping[str, Any]) -> None:
    """Store what was found of the way to a worker."""
    db.execute("update worker set link = ? where id = ?", (query.compact(dict(link)), worker))


def silent(db: apsw.Connection, worker: WorkerId, silent_ms: int) -> None:
    """Store for how long a worker has not been told that its work is its own."""
    db.execute("update worker set silent_ms = ? where id = ?", (silent_ms, worker))


def serve(db: apsw.Connection, worker: WorkerId, batch: int | None) -> None:
    """Let a worker serve one batch only, or all."""
    db.execute("update worker set batch = ? where id = ?", (batch, worker))


def key(db: apsw.Connection) -> str:
    """What the driver of this file proves itself with to agents elsewhere. A secret: never shown, logged or put on a command line."""
    return str(query.one(db, "select v from meta where k = 'key'")[0])


def settle(db: apsw.Connection, worker: WorkerId, values: Mapping[str, Any]) -> None:
    """Change the user's settings of a worker; None takes one back."""
    known = json.loads(query.one(db, "select settings from worker where id = ?", (worker,))[0])
    kept = {key: value for key, value in {**known, **values}.items() if value is not None}
    db.execute("update worker set settings = ? where id = ?", (query.compact(kept), worker))


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
    """Store how busy the agent says that its machine is; and, now and then, for its trend."""
    db.execute("update worker set stats = ? where id = ?", (json.dumps(stats, separators=(",", ":")), worker))
    at = stats.get("at")
    if not isinstance(at, int):
        return
    last = query.one(db, "select max(at) from sample where worker = ?", (worker,))[0]
    if last is not None and 0 <= at - last < SAMPLE_MS:
        return
    shares = [_number(stats.get(key)) for key in ("load", "cpu")]
    sizes = [_number(stats.get(key)) for key in ("memory_free", "disk_free", "net_in", "net_out")]
    row = (worker, at, *shares, *(None if size is None else int(size) for size in sizes))
    db.execute("insert or replace into sample values (?, ?, ?, ?, ?, ?, ?, ?)", row)
    # Those of a clock that was set back since, and those that are old.
    db.execute(
        """delete from sample where worker = ?1 and (at > ?2 or at < (
        select at from sample where worker = ?1 order by at desc limit 1 offset ?3))""",
        (worker, at, SAMPLES - 1),
    )


def _number(value: object) -> float | None:
    """A figure as an agent says it, if it can be one."""
    is_sane = isinstance(value, int | float) and abs(value) < 1 << 62  # not so: not-a-number, infinity
    return float(value) if is_sane else None  # type: ignore[arg-type]


def samples(db: apsw.Connection, worker: int, since_ms: int = 0) -> list[Sample]:
    """How busy a worker's machine was, oldest first."""
    rows = query.rows(
        db,
        """select at, load, cpu, memory_free, disk_free, net_in, net_out from sample
        where worker = ? and at >= ? order by at""",
        (worker, since_ms),
    )
    return [Sample(*row) for row in rows]


def watch(db: apsw.Connection, until_ms: int) -> None:
    """Somebody looks at workers until then: whoever drives asks them more often."""
    db.execute(
        "insert into meta(k, v) values ('watched', ?) on conflict(k) do update set v = max(v, excluded.v)", (until_ms,)
    )


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
        address=row[15],
        settings=_parsed(row[16]),
        link=_parsed(row[17] or "{}"),
        silent_ms=row[18],
        batch_id=row[19],
    )


@lru_cache(maxsize=1024)
def _facts(found: str, declared: str) -> Mapping[str, Any]:
    """What is known of a machine; shared by all rows with the same texts, so that a driver's round parses nothing."""
    return {**json.loads(found), **json.loads(declared)}


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = json.loads(text)
    return parsed
