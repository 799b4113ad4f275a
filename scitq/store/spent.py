"""What machines did for whom, added up: by batch and worker, over a stretch of executions at a time.

Only reads. A stretch has a bounded cost, so that whoever adds up millions can say how far he is, and be stopped.
"""

from __future__ import annotations

from typing import NamedTuple

import apsw

from scitq.states import Outcome
from scitq.store import query

# How long an execution had its slots: measured, or else by the clock; of one that is live, so far.
_RUN_S = "coalesce(run_s, max(0, coalesce(ended, ?3) - started) / 1000.0, 0)"


class Spent(NamedTuple):
    """Of one batch on one worker (None: those that took an earlier result): executions, and what they took in seconds.

    `slot_s` is run time by slots; `bad_slot_s` is that of executions that ended otherwise than well.
    """

    batch: int
    worker: int | None
    executions: int
    run_s: float
    slot_s: float
    bad_slot_s: float
    cpu_s: float
    last_ms: int


def newest(db: apsw.Connection) -> int:
    """The number of the newest execution; 0 without any."""
    return int(query.one(db, "select coalesce(max(id), 0) from execution")[0])


def between(db: apsw.Connection, after: int, upto: int, now_ms: int) -> list[Spent]:
    """What the executions after a number, up to another, took."""
    rows = query.rows(
        db,
        f"""select task.batch, worker, count(*), total({_RUN_S}), total({_RUN_S} * slots),
          total(iif(outcome is null or outcome = {int(Outcome.SUCCEEDED)}, 0, {_RUN_S} * slots)), total(cpu_s),
          max(coalesce(ended, ?3))
        from execution join task on task.id = execution.task where execution.id > ?1 and execution.id <= ?2
        group by task.batch, worker""",
        (after, upto, now_ms),
    )
    return [Spent(*row) for row in rows]


class Machine(NamedTuple):
    """A worker, for as long as it was there."""

    id: int
    name: str
    kind: str
    concurrency: int
    created_ms: int
    seen_ms: int | None


def machines(db: apsw.Connection) -> list[Machine]:
    """Every worker that ever was."""
    return [
        Machine(*row)
        for row in query.rows(db, "select id, name, kind, concurrency, created, seen from worker order by id")
    ]


def batch_names(db: apsw.Connection) -> dict[int, tuple[str, str | None]]:
    """For each batch its name, and that of its workflow."""
    rows = query.rows(
        db, "select batch.id, batch.name, workflow.name from batch left join workflow on workflow.id = batch.workflow"
    )
    return {id: (name, workflow) for id, name, workflow in rows}
