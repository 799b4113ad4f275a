"""What screens ask of the file again and again, in a few look-ups whose cost does not grow with the tasks that have ended.

Every function runs on a reader, and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import apsw

from scitq.states import FINAL, Outcome, Stage, TaskState, Wanted
from scitq.store import listing, query
from scitq.store.listing import LISTED
from scitq.task import BatchId, ExecutionId, TaskId, TaskRow, describe

# So many of the newest entries of the journal tell how fast tasks have ended lately.
PACE_SAMPLE = 4000
PACE_MS = 600_000
# A search reads so many tasks at a time.
SEARCHED = 2000
_FAILED = int(TaskState.FAILED)
_FINAL = ",".join(str(int(state)) for state in sorted(FINAL))


def served(db: apsw.Connection) -> dict[BatchId, frozenset[int]]:
    """The workers (by number) that hold executions of each batch."""
    rows = query.rows(
        db,
        """select distinct task.batch, execution.worker from execution indexed by execution_worker
        join task on task.id = execution.task where execution.ended is null and execution.worker is not null""",
    )
    found: dict[BatchId, set[int]] = {}
    for batch, worker in rows:
        found.setdefault(BatchId(batch), set()).add(worker)
    return {batch: frozenset(workers) for batch, workers in found.items()}


def ended_lately(db: apsw.Connection, now_ms: int) -> tuple[float, dict[BatchId, int]]:
    """How many tasks of each batch have ended in so many seconds until now, as far as the newest entries tell."""
    since = now_ms - PACE_MS
    rows = query.rows(
        db,
        f"""select task.batch, count(*), min(at) from
          (select at, task, dst from journal order by id desc limit {PACE_SAMPLE}) entry join task on task.id = entry.task
        where entry.dst in ({int(TaskState.SUCCEEDED)}, {_FAILED}) and at >= ? group by task.batch""",
        (since,),
    )
    if not rows:
        return 0.0, {}
    first = min(at for _, _, at in rows)
    return max(0.001, (now_ms - first) / 1000), {BatchId(batch): count for batch, count, _ in rows}


@dataclass(frozen=True)
class Attempt:
    """The latest execution of a task, as far as a list shows it. Times are milliseconds since 1970."""

    id: ExecutionId
    worker: str | None
    started_ms: int | None
    ended_ms: int | None
    run_s: float | None
    cause: str | None


def attempts(db: apsw.Connection, tasks: Sequence[int]) -> dict[TaskId, Attempt]:
    """The latest execution of each of some tasks; those that never had one are absent."""
    rows = query.rows(
        db,
        f"""select task, execution.id, worker.name, started, ended, run_s, outcome, stage, exit_code, signal
        from execution left join worker on worker.id = execution.worker
        where execution.id in (select max(id) from execution where task in {LISTED} group by task)""",
        (json.dumps(list(tasks)),),
    )
    found = {}
    for task, id, worker, started, ended, run_s, outcome, stage, exit_code, signal in rows:
        how = None if outcome is None else Outcome(outcome)
        cause = describe(how, None if stage is None else Stage(stage), exit_code, signal)
        found[TaskId(task)] = Attempt(ExecutionId(id), worker, started, ended, run_s, cause)
    return found


class Held(NamedTuple):
    """An execution that has not ended, as far as a list shows it. `spec` is the task's where it has no name."""

    execution: ExecutionId
    task: TaskId
    name: str | None
    batch: str
    worker: int | None
    worker_name: str | None
    state: TaskState
    started_ms: int | None
    assigned_ms: int
    wanted: Wanted
    spec: str | None


def held(db: apsw.Connection, limit: int) -> list[Held]:
    """What workers hold: the executions that have not ended, however many have."""
    rows = query.rows(
        db,
        """select execution.id, execution.task, task.name, batch.name, execution.worker, worker.name, task.state, execution.started,
          execution.assigned, execution.wanted, iif(task.name is null, task.spec, null)
        from execution indexed by execution_live cross join task on task.id = execution.task
        join batch on batch.id = task.batch left join worker on worker.id = execution.worker
        where execution.ended is null limit ?""",
        (limit,),
    )
    return [
        Held(
            ExecutionId(row[0]),
            TaskId(row[1]),
            row[2],
            row[3],
            row[4],
            row[5],
            TaskState(row[6]),
            row[7],
            row[8],
            Wanted(row[9]),
            row[10],
        )
        for row in rows
    ]


def page(
    db: apsw.Connection,
    batch: str,
    states: Iterable[TaskState] | None,
    text: str,
    *,
    after: int = 0,
    before: int = 1 << 62,
    newest_first: bool = False,
    limit: int = 100,
) -> list[TaskRow]:
    """Tasks of a batch by number, ascending: the first ones after a number, or the last ones before one (`newest_first`).

    With `text`, only those that have it in their name or their command, or as their number.
    """
    if not text:
        rows = listing.select(
            db, states=states, batch=batch, after=after, before=before, newest_first=newest_first, limit=limit
        )
        return sorted(rows, key=lambda row: row.id)
    with db:  # one view of the file
        ids = listing.numbers(db, states, batch, after, before, newest_first)
        found: list[int] = []
        while len(found) < limit and (some := list(islice(ids, SEARCHED))):
            hits = query.rows(
                db,
                f"""select id from task where id in {LISTED} and (instr(lower(coalesce(name, '')), ?2)
                or instr(lower(spec ->> '$.command'), ?2) or cast(id as text) = ?2)""",
                (json.dumps(some), text.lower()),
            )
            found += sorted((id for (id,) in hits), reverse=newest_first)
        rows = listing.select(db, ids=found[:limit], limit=limit) if found else []
    return rows


def failures(
    db: apsw.Connection, workflow: int, after: int, limit: int = 1000
) -> tuple[int, list[tuple[TaskId, BatchId]]]:
    """The tasks of a workflow that failed since an entry of the journal, with their batches; and the entry looked at last."""
    rows = query.rows(
        db,
        """select journal.id, journal.task, dst, batch.id from journal left join task on task.id = journal.task
        left join batch on batch.id = task.batch and batch.workflow = ?
        where journal.id > ? order by journal.id limit ?""",
        (workflow, after, limit),
    )
    found = [(TaskId(task), BatchId(batch)) for _, task, dst, batch in rows if dst == _FAILED and batch is not None]
    return (rows[-1][0] if rows else after), found


def needed_outside(db: apsw.Connection, workflow: int) -> tuple[TaskId, str] | None:
    """A task of another batch, with that batch's name, that has not ended and needs one of this workflow: its success, or what it
    left; None: there is none."""
    row = query.row(
        db,
        f"""select dependent.id, other.name from batch of cross join task on task.batch = of.id
        cross join requirement on parent = task.id
        join task dependent on dependent.id = child and dependent.state not in ({_FINAL})
          and (task.state <> {int(TaskState.SUCCEEDED)} or dependent.spec glob '*"task://' || task.id || '["/|]*')
        join batch other on other.id = dependent.batch and other.workflow is not of.workflow
        where of.workflow = ? limit 1""",
        (workflow,),
    )
    return None if row is None else (TaskId(row[0]), row[1])
