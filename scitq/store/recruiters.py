"""Recruiters as rows: the rules that get workers for a batch, tried by rank; and what is asked of batches and workers for them.

Every function runs inside a transaction of the caller's (or on a reader). What follows from the rows is `scitq.recruiting`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import apsw

from scitq import recruiting
from scitq.errors import UnknownRecruiter
from scitq.states import Halt, TaskState
from scitq.store import query
from scitq.store.listing import LISTED
from scitq.worker import Recruiter, WorkerId

_COLUMNS = """recruiter.batch, rank, tasks_per_worker, flavor, provider, region, concurrency, prefetch, minimum_tasks,
  maximum_workers, recruiter.settings, batch.name"""
_FROM = "from recruiter join batch on batch.id = recruiter.batch"


def put(db: apsw.Connection, batch: int, rank: int, **fields: Any) -> None:
    """Write a recruiter down in the place of the one of that rank, if there is one. `fields`: see `recruiting.FIELDS`.

    Raises:
        BadInput: a field makes no sense.
    """
    given = recruiting.checked(fields)
    own = {name: value for name, value in given.items() if name in recruiting.COLUMNS}
    rest = {name: value for name, value in given.items() if name not in own and value is not None}
    columns = ", ".join(("batch", "rank", "settings", *own))  # the names are our own
    places = ", ".join("?" for _ in range(3 + len(own)))
    db.execute(
        f"insert or replace into recruiter({columns}) values ({places})",
        (batch, recruiting.rank_of(rank), query.compact(rest), *own.values()),
    )


def update(db: apsw.Connection, batch: int, rank: int, **fields: Any) -> None:
    """Change some fields of a recruiter; None takes one back.

    Raises:
        UnknownRecruiter: the batch has none of that rank.
        BadInput: a field makes no sense.
    """
    settings = dict(get(db, batch, rank).settings)
    for name, value in recruiting.checked(fields).items():
        if name in recruiting.COLUMNS:  # the names are our own
            db.execute(f"update recruiter set {name} = ? where batch = ? and rank = ?", (value, batch, rank))
        else:
            settings[name] = value
    kept = query.compact({name: value for name, value in settings.items() if value is not None})
    db.execute("update recruiter set settings = ? where batch = ? and rank = ?", (kept, batch, rank))


def delete(db: apsw.Connection, batch: int, rank: int | None = None) -> int:
    """Remove the recruiter of a rank, or all of a batch; returns how many that were."""
    found = query.rows(
        db, "delete from recruiter where batch = ? and rank = coalesce(?, rank) returning rank", (batch, rank)
    )
    return len(found)


def get(db: apsw.Connection, batch: int, rank: int) -> Recruiter:
    """One recruiter.

    Raises:
        UnknownRecruiter: the batch has none of that rank.
    """
    row = query.row(db, f"select {_COLUMNS} {_FROM} where recruiter.batch = ? and rank = ?", (batch, rank))
    if row is None:
        name = query.one(db, "select name from batch where id = ?", (batch,))[0]
        raise UnknownRecruiter(f"batch {name} has no recruiter of rank {rank}.", batch=name, rank=rank)
    return _recruiter(row)


def all_of(db: apsw.Connection, batch: int | None = None) -> list[Recruiter]:
    """Every recruiter (of one batch), by batch and rank."""
    rows = query.rows(
        db,
        f"select {_COLUMNS} {_FROM} where recruiter.batch = coalesce(?, recruiter.batch) order by recruiter.batch, rank",
        (batch,),
    )
    return [_recruiter(row) for row in rows]


def of_task(db: apsw.Connection, task: int) -> list[Recruiter]:
    """The recruiters of a task's batch, by rank."""
    rows = query.rows(
        db,
        f"select {_COLUMNS} {_FROM} where recruiter.batch = (select batch from task where id = ?) order by rank",
        (task,),
    )
    return [_recruiter(row) for row in rows]


def wanted(db: apsw.Connection) -> list[Recruiter]:
    """The recruiters of batches that go on and have something pending. Without any recruiter this costs next to nothing."""
    rows = query.rows(
        db,
        f"""select {_COLUMNS} from recruiter cross join counter on counter.batch = recruiter.batch
        and counter.state = {int(TaskState.PENDING)} and n > 0 cross join batch on batch.id = recruiter.batch
        where halt = {int(Halt.GO)} order by recruiter.batch, rank""",
    )
    return [_recruiter(row) for row in rows]


def held(db: apsw.Connection, batches: Iterable[int]) -> dict[int, dict[WorkerId, int]]:
    """By batch, how many executions of it each worker has that have not ended. Looks at live executions only."""
    found: dict[int, dict[WorkerId, int]] = {}
    for batch, worker, count in query.rows(
        db,
        f"""select task.batch, worker, count(*) from execution indexed by execution_worker join task on task.id = execution.task
        where ended is null and worker is not null and task.batch in {LISTED} group by task.batch, worker""",
        (json.dumps(list(batches)),),
    ):
        found.setdefault(batch, {})[WorkerId(worker)] = count
    return found


def pending(db: apsw.Connection, batches: Iterable[int]) -> dict[int, int]:
    """How many tasks of some batches are pending, of those of which any are; a batch that is paused counts as well."""
    rows = query.rows(
        db,
        f"select batch, n from counter where batch in {LISTED} and state = {int(TaskState.PENDING)} and n > 0",
        (json.dumps(list(batches)),),
    )
    return dict(rows)


def names(db: apsw.Connection, batches: Iterable[int]) -> Mapping[int, str]:
    """What batches are called."""
    return dict(query.rows(db, f"select id, name from batch where id in {LISTED}", (json.dumps(list(batches)),)))


def reweigh(db: apsw.Connection, worker: WorkerId, old: int, new: int) -> None:
    """A worker has other slots than it had: what it holds takes as large a share of it as before."""
    if new != old and new > 0 and old > 0:
        up = old - 1 if new > old else 0
        db.execute(
            "update execution set slots = max(1, (slots * ? + ?) / ?) where worker = ? and ended is null",
            (new, up, old, worker),
        )


def _recruiter(row: tuple[Any, ...]) -> Recruiter:
    return Recruiter(*(*row[:10], json.loads(row[10]), row[11]))
