"""Ends of batches and workflows: since when there has been work whose end was not told, and when an end was told last.

`began` is set by whoever drives once there is work, and taken back once its end was told (or was too short a matter for that);
so an end that nobody was there to tell, since the driver had died, say, is told by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import apsw

from scitq.states import FINAL, TaskState
from scitq.store import query

What = Literal["batch", "workflow"]
_SETTLED = ",".join(str(int(state)) for state in sorted(FINAL | {TaskState.BLOCKED}))
# The batches that have work left.
_OPEN = f"select distinct batch from counter where n > 0 and state not in ({_SETTLED})"


class Bout(NamedTuple):
    """Work that is going on (`is_open`) and was not written down as such, or that was, and is over."""

    what: What
    id: int
    began_ms: int | None
    is_open: bool
    is_run: bool
    """A script that runs the workflow has not said that it is done with it: it may declare more."""


class End(NamedTuple):
    """What there is to tell of an end. Times are milliseconds since 1970."""

    what: What
    name: str
    workflow: str | None
    step: str | None
    counts: dict[TaskState, int]
    began_ms: int


def bouts(db: apsw.Connection) -> list[Bout]:
    """What is to be written down or told. Reads the counters of all batches, but no task."""
    rows = query.rows(
        db,
        f"""with open as ({_OPEN})
        select 'batch', id, began, began is null, 0 from batch where (id in open) = (began is null)
        union all select 'workflow', id, began, began is null, started is not null and ended is null from workflow
        where exists(select 1 from batch where batch.workflow = workflow.id and batch.id in open) = (began is null)""",
    )
    return [Bout(what, id, began, bool(is_open), bool(is_run)) for what, id, began, is_open, is_run in rows]


def begin(db: apsw.Connection, since_ms: int, what: What, id: int) -> None:
    """There has been work since then."""
    db.execute(f"update {what} set began = ? where id = ? and began is null", (since_ms, id))


def forget(db: apsw.Connection, bouts: Iterable[Bout]) -> None:
    """Some were over too soon to be told of."""
    for one in bouts:
        db.execute(f"update {one.what} set began = null where id = ? and began = ?", (one.id, one.began_ms))


def told(db: apsw.Connection, now_ms: int, bout: Bout) -> None:
    """An end was told. What has come meanwhile is another matter, with an end of its own."""
    which = "batch.id = ?2" if bout.what == "batch" else "batch.workflow = ?2"
    db.execute(
        f"""update {bout.what} set told = ?1, began = iif(exists(select 1 from batch where {which} and batch.id in ({_OPEN})), ?1, null)
        where id = ?2 and began = ?3""",
        (now_ms, bout.id, bout.began_ms),
    )


def end_of(db: apsw.Connection, bout: Bout) -> End | None:
    """What there is to tell; None when it goes on again, was told by another, or is gone."""
    if bout.what == "batch":
        found: Any = query.row(
            db,
            """select batch.name, workflow.name, step, batch.began from batch left join workflow on workflow.id = batch.workflow
            where batch.id = ?""",
            (bout.id,),
        )
        which = "batch = ?"
    else:
        found = query.row(db, "select name, name, null, began from workflow where id = ?", (bout.id,))
        which = "batch in (select id from batch where workflow = ?)"
    if found is None or found[3] != bout.began_ms:
        return None
    rows = query.rows(
        db, f"select state, sum(n) from counter where {which} group by state having sum(n) > 0", (bout.id,)
    )
    counts = {TaskState(state): int(count) for state, count in rows}
    if any(not state.is_settled for state in counts):
        return None
    return End(bout.what, found[0], found[1], found[2], counts, int(found[3]))
