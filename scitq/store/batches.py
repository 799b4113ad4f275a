"""Batches as rows: paused, suspended, deleted, and the default arguments of their tasks.

Every function runs inside a transaction of the caller's (or on a reader). A batch is made by its first task: see `tasks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import apsw

from scitq.errors import UnknownBatch
from scitq.events import EventKind
from scitq.states import RECALLABLE, Halt, TaskState, Wanted
from scitq.store import journal, query, recruiters, tasks
from scitq.task import BatchId, ExecutionId


def halt(db: apsw.Connection, now_ms: int, name: str, wanted: Halt) -> int:
    """Pause or suspend a batch, or let it go on; returns how many executions of it are affected.

    What runs is stopped in a suspended batch only: pausing one that is suspended lets what runs there go on.

    Raises:
        UnknownBatch: no task was ever submitted to it.
    """
    batch = known(db, name)
    db.execute("update batch set halt = ? where id = ?", (int(wanted), batch))
    journal.note(db, now_ms, EventKind.NOTE, batch=name, halt=wanted.word)
    count = 0
    if wanted is not Halt.SUSPENDED:
        count = _want(db, batch, Wanted.RESUMED, f"task.hold = 0 and wanted = {int(Wanted.SUSPENDED)}")
    if wanted is Halt.GO:
        return count
    recalled = ",".join(str(int(state)) for state in RECALLABLE)
    count += _want(db, batch, Wanted.RECALLED, f"task.state in ({recalled}) and wanted = {int(Wanted.RUN)}")
    if wanted is Halt.SUSPENDED:
        passing = f"{int(Wanted.RUN)}, {int(Wanted.RESUMED)}"
        running = f"task.state = {int(TaskState.RUNNING)} and wanted in ({passing})"
        count += _want(db, batch, Wanted.SUSPENDED, running)
    return count


def _want(db: apsw.Connection, batch: BatchId, wanted: Wanted, where: str) -> int:
    return len(
        query.rows(
            db,
            f"""update execution set wanted = ? where ended is null and id in
            (select execution.id from execution join task on task.execution = execution.id
             where task.batch = ? and execution.ended is null and {where}) returning id""",
            (int(wanted), batch),
        )
    )


def known(db: apsw.Connection, name: str) -> BatchId:
    """The number of a batch.

    Raises:
        UnknownBatch: there is none of that name.
    """
    row = query.row(db, "select id from batch where name = ?", (name,))
    if row is None:
        known = ", ".join(sorted(name for (name,) in query.rows(db, "select name from batch limit 10")))
        raise UnknownBatch(f"no batch is named {name!r} (known: {known or 'none'}).", batch=name)
    return BatchId(row[0])


def all_of(db: apsw.Connection) -> dict[str, tuple[Halt, dict[str, Any]]]:
    """Whether each batch goes on, and its settings."""
    rows = query.rows(db, "select name, halt, settings from batch order by id")
    return {name: (Halt(halt), json.loads(settings)) for name, halt, settings in rows}


def delete(db: apsw.Connection, now_ms: int, name: str) -> list[ExecutionId]:
    """Remove a batch with its settings and all its tasks; returns their executions.

    Raises:
        UnknownBatch: there is none of that name.
        IllegalMove: one of its tasks is on a worker, or needed by another batch's.
    """
    batch = known(db, name)
    gone = tasks.delete(db, now_ms, [id for (id,) in query.rows(db, "select id from task where batch = ?", (batch,))])
    # A worker that a recruiter had brought there goes back to where its user had it.
    home = "settings ->> '$.home.batch'"
    db.execute(f"update worker set settings = json_remove(settings, '$.home') where {home} = ?", (batch,))
    db.execute(
        f"""update worker set batch = {home}, concurrency = coalesce(settings ->> '$.home.concurrency', concurrency),
        settings = json_remove(settings, '$.home') where batch = ?""",
        (batch,),
    )
    recruiters.delete(db, batch)
    db.execute("delete from counter where batch = ?", (batch,))
    db.execute("delete from batch where id = ?", (batch,))
    return gone


def settings(db: apsw.Connection, name: str) -> dict[str, Any]:
    """The default arguments of a batch; empty for an unknown one."""
    row = query.row(db, "select settings from batch where name = ?", (name,))
    return json.loads(row[0]) if row is not None and row[0] != "{}" else {}


def set_settings(db: apsw.Connection, name: str, values: Mapping[str, Any]) -> None:
    """Replace the default arguments of a batch, which is made if it is new."""
    db.execute("update batch set settings = ? where id = ?", (json.dumps(values), tasks.batch_id(db, name)))
