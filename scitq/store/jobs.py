"""Long operations of ours as rows: begun, told of while they go, ended, tried again. What they do is `fleet` and `remote`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import apsw

from scitq.errors import UnknownJob
from scitq.states import JobState
from scitq.store import query
from scitq.worker import JobId, JobRow, WorkerId

_COLUMNS = """job.id, job.kind, job.worker, worker.name, job.state, job.step, job.progress, job.created, job.started, job.ended,
  job.tries, job.note, job.log, job.data from job left join worker on worker.id = job.worker"""
_OPEN = f"({int(JobState.PENDING)}, {int(JobState.RUNNING)})"
# What a job says of itself beyond this is dropped from the front: it is for people.
LOG_LIMIT = 100_000


def add(
    db: apsw.Connection, now_ms: int, kind: str, worker: WorkerId | None, data: Mapping[str, Any] | None = None
) -> JobId:
    """A wish for an operation. One that is open already for the same worker is the same wish; its data are added to."""
    known = query.row(
        db,
        f"select id, data from job where kind = ? and coalesce(worker, 0) = ? and state in {_OPEN}",
        (kind, worker or 0),
    )
    if known is None:
        row = query.one(
            db,
            "insert into job(kind, worker, created, data) values (?, ?, ?, ?) returning id",
            (kind, worker, now_ms, query.compact(dict(data or {}))),
        )
        return JobId(row[0])
    if data:
        merged = {**json.loads(known[1]), **data}
        db.execute("update job set data = ? where id = ?", (query.compact(merged), known[0]))
    return JobId(known[0])


def move(db: apsw.Connection, now_ms: int, job: JobId, state: JobState, note: str | None = None) -> None:
    """Change a job's state: begin it, end it, queue it again."""
    if state is JobState.RUNNING:
        db.execute(
            "update job set state = ?, started = ?, ended = null, tries = tries + 1, note = ? where id = ?",
            (int(state), now_ms, note, job),
        )
        return
    ended = None if state is JobState.PENDING else now_ms
    progress = 1.0 if state is JobState.SUCCEEDED else None
    db.execute(
        "update job set state = ?, ended = ?, note = ?, progress = coalesce(?, progress) where id = ?",
        (int(state), ended, note, progress, job),
    )


def say(db: apsw.Connection, job: JobId, step: str | None, progress: float | None, line: str | None = None) -> None:
    """What a job is at; `line` is added to its log."""
    db.execute(
        "update job set step = ?, progress = ?, log = iif(?, substr(log || ?, ?), log) where id = ?",
        (step, progress, line is not None, f"{line}\n", -LOG_LIMIT, job),
    )


def result(db: apsw.Connection, job: JobId, data: Mapping[str, Any]) -> None:
    """Add to what is known of a job what came of it."""
    known = json.loads(query.one(db, "select data from job where id = ?", (job,))[0])
    db.execute("update job set data = ? where id = ?", (query.compact({**known, **data}), job))


def find(db: apsw.Connection, job: int) -> JobRow:
    """One job.

    Raises:
        UnknownJob: there is none of that number.
    """
    row = query.row(db, f"select {_COLUMNS} where job.id = ?", (job,))
    if row is None:
        raise UnknownJob(f"no job {job} in this file. scitq job list shows what there is.", job=job)
    return _job(row)


def wanted(db: apsw.Connection, kind: str) -> JobRow | None:
    """The oldest job of a kind that nobody has begun."""
    row = query.row(
        db,
        f"select {_COLUMNS} where job.kind = ? and job.state = {int(JobState.PENDING)} order by job.id limit 1",
        (kind,),
    )
    return None if row is None else _job(row)


def open_ones(db: apsw.Connection) -> list[JobRow]:
    """Jobs that have not ended, oldest first."""
    return [_job(row) for row in query.rows(db, f"select {_COLUMNS} where job.state in {_OPEN} order by job.id")]


def of_worker(db: apsw.Connection, worker: WorkerId, limit: int = 100) -> list[JobRow]:
    """The latest jobs of a worker, newest first."""
    rows = query.rows(db, f"select {_COLUMNS} where job.worker = ? order by job.id desc limit ?", (worker, limit))
    return [_job(row) for row in rows]


def latest(db: apsw.Connection, limit: int = 100) -> list[JobRow]:
    """The latest jobs, newest first."""
    return [_job(row) for row in query.rows(db, f"select {_COLUMNS} order by job.id desc limit ?", (limit,))]


def _job(row: tuple[Any, ...]) -> JobRow:
    return JobRow(
        id=JobId(row[0]),
        kind=row[1],
        worker=None if row[2] is None else WorkerId(row[2]),
        worker_name=row[3],
        state=JobState(row[4]),
        step=row[5],
        progress=row[6],
        created_ms=row[7],
        started_ms=row[8],
        ended_ms=row[9],
        tries=row[10],
        note=row[11],
        log=row[12],
        data=json.loads(row[13]),
    )
