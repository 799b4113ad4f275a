"""Executions as rows: begun with their reservation, moved by agents' events, ended once with all consequences.

Every function runs inside a transaction of the caller's (or on a reader). All of them are idempotent by execution id: an event
that was already applied changes nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apsw

from scitq.offers import RENTED
from scitq.states import Halt, JobState, Outcome, Stage, TaskState, Wanted
from scitq.store import cache, listing, logs, manifests, query, tasks, workers
from scitq.task import Assignment, BatchId, ExecutionId, ExecutionRow, PendingTask, Spec, TaskId, raised_of
from scitq.verdict import End, judge
from scitq.worker import Load, WorkerId

_COLUMNS = """execution.id, execution.task, worker.name, execution.attempt, execution.assigned, execution.started, execution.ended,
  execution.outcome, execution.stage, execution.exit_code, execution.signal, execution.detail, execution.run_s, execution.cpu_s,
  execution.peak_memory, execution.read_bytes, execution.written_bytes, execution.wanted, execution.image
  from execution left join worker on worker.id = execution.worker"""


# The part of an execution that its worker was at, by what its task's state was.
STAGES = {TaskState.STAGING: Stage.STAGE_IN, TaskState.COLLECTING: Stage.COLLECT}
_SUCCEEDED, _RUN = int(Outcome.SUCCEEDED), int(Stage.RUN)
_RENTED = ",".join(str(int(state)) for state in sorted(RENTED))
# How a command that gave 0 ended well: by itself; or it did not run, because its output was there already.
_GOOD = (None, "exists")
# An execution that never ran: the program is not there, or the disk is full. Another worker may have the one or the other.
_COULD_NOT_START = ("spawn", "unstarted")
# What goes wrong while something is staged, and elsewhere may not.
WORKERS_FAULT = ("NoSpace", "EngineFailed", "NoEngine", "AgentFailed")


@dataclass(frozen=True)
class Order:
    """What the worker must be told to run an execution."""

    execution: ExecutionId
    task: TaskId
    worker: WorkerId
    spec: Spec
    context: int | None
    slots: int = 1
    gpus: tuple[str, ...] = ()


class Exit(NamedTuple):
    """How a command ended, as its agent tells it. `output` and `error` are None when the bytes are still on the worker."""

    execution: ExecutionId
    code: int | None
    signal: int | None
    why: str | None
    note: str | None
    output: bytes | None
    error: bytes | None
    output_size: int
    error_size: int
    output_cut: bool
    error_cut: bool
    collecting: bool
    run_s: float | None
    cpu_s: float | None
    peak_memory_bytes: int | None
    read_bytes: int | None = None
    written_bytes: int | None = None
    manifest: tuple[str, Sequence[Any]] | None = None  # where its output is, and its files, when they are there already
    trouble: str | None = None  # what went wrong while it was staged, by the name of its kind
    is_final: bool = False  # another try would end the same way
    has_image: bool = False  # it got as far as its container


class Ending(NamedTuple):
    """The state of a task, with the exit code and the run time of its newest attempt."""

    state: TaskState
    exit_code: int
    run_s: float | None


def begin(
    db: apsw.Connection, now_ms: int, assignments: Sequence[Assignment], *, state: TaskState = TaskState.PENDING
) -> list[Order]:
    """Write placement's decisions down: one live execution each. A task that is not pending any more is passed over.

    With `state` WAITING it is given to the worker that holds what it waits for: see `conditions`.
    """
    orders = []
    for task, worker, slots, memory, gpus in assignments:
        found = query.row(
            db,
            f"""insert into execution(task, worker, slots, memory, gpus, assigned, attempt)
            select id, ?2, ?4, ?5, ?6, ?3, 1 + (select count(*) from execution
              where task = ?1 and outcome is not {int(Outcome.RECALLED)}) from task
            where id = ?1 and state = ?7 returning id""",
            (task, worker, now_ms, slots, memory, json.dumps(gpus) if gpus else None, int(state)),
        )
        if found is None:
            continue
        spec, context, raised = query.one(
            db,
            f"""update task set state = {int(TaskState.ASSIGNED)}, execution = ?, changed = ?, reason = null, unmet = 0 where id = ?
            returning spec, context, raised""",
            (found[0], now_ms, task),
        )
        spec = listing.spec_of(spec) if raised is None else raised_of(raised).applied(listing.spec_of(spec))
        orders.append(Order(ExecutionId(found[0]), task, WorkerId(worker), spec, context, slots, gpus))
    return orders


def conditions(db: apsw.Connection, task: TaskId, worker: WorkerId) -> list[ExecutionId]:
    """The live executions of a worker that must succeed before it may begin a task: of what the task requires."""
    rows = query.rows(
        db,
        """select execution.id from requirement join execution on execution.task = requirement.parent and ended is null
        where requirement.child = ? and execution.worker = ? order by execution.id""",
        (task, worker),
    )
    return [ExecutionId(id) for (id,) in rows]


def unstarted(db: apsw.Connection, worker: WorkerId) -> list[Order]:
    """The orders of a worker that it has not been seen to start: what may have to be repeated to it."""
    rows = query.rows(
        db,
        f"""select execution.id, task.id, execution.worker, task.spec, task.context, slots, gpus, raised
        from execution join task on task.id = execution.task
        where execution.worker = ? and ended is null and task.state = {int(TaskState.ASSIGNED)} order by execution.id""",
        (worker,),
    )
    return [_order(row) for row in rows]


def with_data(db: apsw.Connection, worker: WorkerId) -> list[Order]:
    """The live orders of a worker for which something (an image, say) is to be fetched, or brought anywhere but to the side folder."""
    rows = query.rows(
        db,
        """select execution.id, task.id, execution.worker, task.spec, task.context, slots, gpus, raised
        from execution join task on task.id = execution.task where execution.worker = ? and ended is null
        and coalesce(task.spec ->> '$.input', task.spec ->> '$.resource', task.spec ->> '$.output', task.spec ->> '$.container')
        is not null""",
        (worker,),
    )
    return [_order(row) for row in rows]


def _order(row: tuple[Any, ...]) -> Order:
    execution, task, worker, text, context, slots, gpus, raised = row
    listed = tuple(json.loads(gpus or "[]"))
    spec = raised_of(raised).applied(listing.spec_of(text))
    return Order(ExecutionId(execution), TaskId(task), WorkerId(worker), spec, context, slots, listed)


def reserve(db: apsw.Connection, highest: int) -> None:
    """Give no execution a number up to this one: an agent has seen it, though this file (a restored copy, say) has not."""
    known = query.row(db, "select seq from sqlite_sequence where name = 'execution'")
    if highest <= (known[0] if known else 0):
        return
    if known is None:
        db.execute("insert into sqlite_sequence(name, seq) values ('execution', ?)", (highest,))
    else:
        db.execute("update sqlite_sequence set seq = ? where name = 'execution'", (highest,))


def outcome_of(db: apsw.Connection, execution: ExecutionId) -> Outcome | None:
    """How an execution ended; None while it is live."""
    row = query.row(db, "select outcome from execution where id = ? and outcome is not null", (execution,))
    return None if row is None else Outcome(row[0])


def ending(db: apsw.Connection, task: TaskId) -> Ending:
    """How a task stands: all that the result of a success takes, in one look.

    Raises:
        UnknownTask: no such task.
    """
    found = query.row(
        db,
        """select task.state, coalesce(exit_code, 0), run_s from task left join execution on execution.task = task.id
        where task.id = ? order by execution.id desc limit 1""",
        (task,),
    )
    if found is None:
        return Ending(listing.state_of(db, task), 0, None)
    return Ending(TaskState(found[0]), found[1], found[2])


def is_live(db: apsw.Connection, execution: ExecutionId) -> bool:
    """Whether an execution has not ended."""
    return query.row(db, "select 1 from execution where id = ? and ended is null", (execution,)) is not None


def is_of(db: apsw.Connection, execution: ExecutionId, worker: WorkerId) -> bool:
    """Whether an execution is this worker's. Another copy of the file may have given its number to another one, elsewhere."""
    return query.row(db, "select 1 from execution where id = ? and worker = ?", (execution, worker)) is not None


def live(db: apsw.Connection, worker: WorkerId) -> dict[ExecutionId, TaskState]:
    """The live executions of a worker with the states of their tasks."""
    rows = query.rows(
        db,
        "select execution.id, task.state from execution join task on task.id = execution.task where execution.worker = ? and ended is null",
        (worker,),
    )
    return {ExecutionId(id): TaskState(state) for id, state in rows}


def loads(db: apsw.Connection) -> dict[WorkerId, Load]:
    """What is occupied at each worker."""
    rows = query.rows(
        db,
        """select worker, sum(slots), sum(memory), json_group_array(gpus) filter (where gpus is not null)
        from execution indexed by execution_worker
        where ended is null and log_due = 0 and collect_due = 0 group by worker""",
    )
    return {
        WorkerId(worker): Load(slots, memory, frozenset(gpu for text in json.loads(gpus) for gpu in json.loads(text)))
        for worker, slots, memory, gpus in rows
        if worker is not None
    }


class Glance(NamedTuple):
    """What a driver must look at, told by one query; the details are read only where there are any."""

    epoch: int
    stop_wanted: bool
    is_wished: bool  # something is wanted of a live execution
    is_log_due: bool
    is_followed: bool
    is_live: bool  # some execution has not ended
    is_ready: bool  # some task could be placed
    due_ms: int | None  # when the next retry delay ends
    has_wanted: bool  # some task waits for the cache's answer
    has_unkeyed: bool  # of some success it was not looked yet what it is the answer to
    has_waiters: bool  # some task waits for an equal one
    has_twins: bool  # what a task waited for, being equal, is over
    has_jobs: bool  # some job has not ended
    watched_ms: int  # until when somebody looks at workers
    has_rentals: bool  # some machine exists at its provider, or may
    is_hiring: bool  # some recruiter may rent machines


def glance(db: apsw.Connection) -> Glance:
    """The state of affairs in a few bits."""
    return Glance(
        *query.one(
            db,
            f"""select epoch, stop_wanted,
            exists(select 1 from execution indexed by execution_wanted where ended is null and wanted <> 0),
            exists(select 1 from execution indexed by execution_due where ended is null and log_due = 1),
            exists(select 1 from follow),
            exists(select 1 from execution indexed by execution_worker where ended is null),
            exists(select 1 from counter join batch on batch.id = counter.batch
              where state = {int(TaskState.PENDING)} and n > 0 and halt = {int(Halt.GO)}),
            (select min(not_before) from task where not_before is not null),
            {cache.HAS_WANTED}, {cache.HAS_UNKEYED},
            {cache.HAS_WAITERS}, {cache.HAS_TWINS},
            exists(select 1 from job where state in ({int(JobState.PENDING)}, {int(JobState.RUNNING)})),
            coalesce((select v from meta where k = 'watched'), 0),
            exists(select 1 from rental where state in ({_RENTED})),
            exists(select 1 from recruiter where provider is not null)
            from lead""",
        )
    )


def started(db: apsw.Connection, execution: ExecutionId, at_ms: int) -> None:
    """The agent launched the command: what was to happen only before that cannot happen any more."""
    row = query.row(
        db,
        """select task.id, wanted, hold, halt from execution join task on task.id = execution.task
        join batch on batch.id = task.batch where execution.id = ? and ended is null and started is null""",
        (execution,),
    )
    if row is None:
        return
    task, wanted, hold, halt = row
    if wanted != Wanted.RUN:
        tasks.settle_edit(db, at_ms, TaskId(task), launched=True)
    if wanted == Wanted.RECALLED:  # too late to give it back; to be stopped where it is, if that is what it was for
        wanted = Wanted.SUSPENDED if hold or halt == Halt.SUSPENDED else Wanted.RUN
    db.execute(
        "update execution set started = max(?, assigned), wanted = ? where id = ?", (at_ms, int(wanted), execution)
    )
    db.execute(
        f"""update task set state = {int(TaskState.RUNNING)}, changed = ? where id = ?
        and state in ({int(TaskState.ASSIGNED)}, {int(TaskState.STAGING)})""",
        (at_ms, task),
    )


def runs_image(db: apsw.Connection, now_ms: int, execution: ExecutionId, image: str, digest: str | None) -> None:
    """Its container runs these bits. With a digest, all later tries of the task do; the bits of an image without one are on its
    worker only."""
    row = query.row(
        db,
        "update execution set image = ? where id = ? and ended is null and image is null returning task",
        (digest or image, execution),
    )
    if row is not None and digest is not None:
        raised = raised_of(query.one(db, "select raised from task where id = ?", (row[0],))[0])
        if raised.image is None:
            tasks.raise_to(db, now_ms, row[0], replace(raised, image=digest))


def staging(db: apsw.Connection, at_ms: int, execution: ExecutionId) -> None:
    """The agent fetches what the command needs."""
    db.execute(
        f"""update task set state = {int(TaskState.STAGING)}, changed = ?
        where id = (select task from execution where id = ? and ended is null) and state = {int(TaskState.ASSIGNED)}""",
        (at_ms, execution),
    )


def exited(db: apsw.Connection, now_ms: int, end: Exit, worker: WorkerId | None = None) -> bool:
    """The command ended. Ends the execution, unless its log or its output has still to come home; returns whether it ended.

    It is `worker` that says so: of an execution at another one (whose number it has from another copy of the file) it says nothing.
    An end is never recorded before every byte that it announces is here (DESIGN.md §7).
    """
    log_due = end.output is None or end.error is None
    is_over = not log_due and not end.collecting
    # Nearly every end is a plain success: it is recorded in this one statement. Whatever the clock was set to meanwhile,
    # nothing ends before it started, nor starts before it was assigned.
    success = is_over and end.code == 0 and end.why in _GOOD
    found = query.row(
        db,
        """update execution set exit_code = ?, signal = ?, why = ?, detail = ?, run_s = ?, cpu_s = ?, peak_memory = ?,
        read_bytes = ?, written_bytes = ?, log_due = ?, collect_due = ?,
        started = coalesce(started, max(assigned, ?12)), outcome = ?14, stage = ?15,
        ended = max(?13, assigned, coalesce(started, ?12)) where id = ?16 and ended is null and worker = coalesce(?17, worker)
        returning task, wanted""",
        (
            end.code, end.signal, end.why, end.note, end.run_s, end.cpu_s, end.peak_memory_bytes,
            end.read_bytes, end.written_bytes,
            log_due, end.collecting, now_ms - int(1000 * (end.run_s or 0)),
            now_ms if success else None, _SUCCEEDED if success else None, _RUN if success else None, end.execution, worker,
        ),
    )  # fmt: skip
    if found is None:
        return False
    task, wanted = found
    if end.manifest is not None:
        manifests.put(db, end.execution, *end.manifest)
    if end.output is None or end.output:
        logs.keep(db, end.execution, logs.OUT, end.output, end.output_size, end.output_cut)
    if end.error is None or end.error:
        logs.keep(db, end.execution, logs.ERR, end.error, end.error_size, end.error_cut)
    if success:
        _succeed(db, now_ms, task, wanted)
    elif is_over:
        is_workers = end.trouble in WORKERS_FAULT or (end.why in _COULD_NOT_START and not end.has_image)
        how = _outcome(end.why, end.code, end.note, Wanted(wanted))
        finish(db, now_ms, end.execution, *how, is_final=end.is_final, is_workers=is_workers)
    else:
        db.execute(f"update task set state = {int(TaskState.COLLECTING)}, changed = ? where id = ?", (now_ms, task))
    return is_over


def _succeed(db: apsw.Connection, now_ms: int, task: int, wanted: int) -> None:
    if wanted != Wanted.RUN:
        tasks.settle_edit(db, now_ms, TaskId(task), launched=True)
    db.execute(
        f"update task set state = {int(TaskState.SUCCEEDED)}, execution = null, changed = ?, reason = null where id = ?",
        (now_ms, task),
    )


def _outcome(
    why: str | None, code: int | None, note: str | None, wanted: Wanted
) -> tuple[Outcome, Stage | None, str | None]:
    """An agent's words (why a command ended, its exit code, a note) in ours: outcome, stage and detail."""
    if why == "cancel":
        # Without a wish of ours it was not this task that had to stop, but its worker.
        stopped = wanted is Wanted.STOPPED
        return (Outcome.CANCELLED, None, note) if stopped else (Outcome.LOST, Stage.RUN, "its worker was stopped")
    if why == "recall":
        return Outcome.RECALLED, None, None
    if why == "memory":
        return Outcome.OUT_OF_MEMORY, Stage.RUN, note
    if why == "timeout":
        return Outcome.TIMED_OUT, Stage.RUN, note
    if why == "unknown":
        return Outcome.LOST, Stage.RUN, note or "its exit code is not known: the keeper of its worker was killed"
    if why == "unstarted":
        return Outcome.LOST, None, note or "the worker never started it"
    if why == "stage_in":
        return Outcome.FAILED, Stage.STAGE_IN, note
    if why == "stage_timeout":
        return Outcome.TIMED_OUT, Stage.STAGE_IN, note
    if why == "collect":
        return Outcome.FAILED, Stage.COLLECT, note
    if code == 0 and why in _GOOD:
        return Outcome.SUCCEEDED, Stage.RUN, note if why else None
    return Outcome.FAILED, Stage.RUN, note


def collected(
    db: apsw.Connection,
    now_ms: int,
    execution: ExecutionId,
    problem: str | None,
    manifest: tuple[str, Sequence[Any]] | None = None,
    *,
    is_failed: bool = False,
    why: str = "collect",
) -> bool:
    """The output of an execution is (or cannot be brought) where it was asked to be; returns whether that ended it.

    `why` is "cancel" when that was stopped because the execution is to end.

    With `is_failed` the command had failed: what became of what it left is a note, and changes nothing else.
    """
    row = query.row(db, "select collect_due from execution where id = ? and ended is null", (execution,))
    if row is None or not row[0]:
        return False
    db.execute("update execution set collect_due = 0, held = null where id = ?", (execution,))
    if manifest is not None:
        manifests.put(db, execution, *manifest)
    if problem is not None and is_failed:
        manifests.note(db, now_ms, execution, f"what it left before it failed could not be kept: {problem}")
    elif problem is not None:
        db.execute("update execution set why = ?, detail = ? where id = ?", (why, problem, execution))
    return _complete(db, now_ms, execution)


def log_arrived(db: apsw.Connection, now_ms: int, execution: ExecutionId) -> bool:
    """Every byte of an execution's log is in the side folder; returns whether that ended it."""
    row = query.row(db, "select log_due from execution where id = ? and ended is null", (execution,))
    if row is None or not row[0]:
        return False
    db.execute("update execution set log_due = 0 where id = ?", (execution,))
    return _complete(db, now_ms, execution)


def _complete(db: apsw.Connection, now_ms: int, execution: ExecutionId) -> bool:
    code, why, detail, wanted, log_due, collect_due = query.one(
        db, "select exit_code, why, detail, wanted, log_due, collect_due from execution where id = ?", (execution,)
    )
    if log_due or collect_due:
        return False
    finish(db, now_ms, execution, *_outcome(why, code, detail, Wanted(wanted)))
    return True


def finish(
    db: apsw.Connection,
    now_ms: int,
    execution: ExecutionId,
    outcome: Outcome,
    stage: Stage | None,
    detail: str | None,
    *,
    is_final: bool = False,
    is_workers: bool = False,
) -> None:
    """End a live execution and its task's part in it, with every consequence: retry, release or block dependents.

    `is_final`: another try would end the same way. `is_workers`: its worker is at fault, another one may do better.
    """
    found = query.row(
        db,
        """update execution set ended = max(?, assigned, coalesce(started, 0)), outcome = ?, stage = ?, detail = ?,
        log_due = 0, collect_due = 0, held = null
        where id = ? and ended is null returning task, wanted, worker, coalesce(exit_code, 128 + signal)""",
        (now_ms, int(outcome), None if stage is None else int(stage), detail, execution),
    )
    if found is None:
        return
    task, wanted, worker, code = found
    if outcome is Outcome.SUCCEEDED:
        _succeed(db, now_ms, task, wanted)
        return
    if wanted != Wanted.RUN:
        tasks.settle_edit(db, now_ms, task, launched=not outcome.is_free and stage is not Stage.STAGE_IN)
    spec_text, tries, raised = query.one(db, "select spec, tries, raised from task where id = ?", (task,))
    lost_before = _lost_before(db, task, execution) if outcome is Outcome.LOST else 0
    spec = listing.spec_of(spec_text)
    is_raising = outcome is Outcome.OUT_OF_MEMORY and spec.retry_memory is not None
    verdict = judge(
        End(outcome, stage, code, is_final, worker if is_workers else None), spec, tries,
        stop_wanted=wanted == Wanted.STOPPED, lost_before=lost_before, raised=raised_of(raised),
        largest_memory=max((row.memory for row in workers.all_of(db)), default=0) if is_raising else 0,
    )  # fmt: skip
    if verdict.state is TaskState.PENDING:
        due = now_ms + int(verdict.delay_s * 1000) if verdict.delay_s else None
        tasks.requeue(db, now_ms, task, not_before_ms=due, tries=verdict.tries, reason=None, raised=verdict.raised)
        return
    db.execute(
        "update task set state = ?, execution = null, changed = ?, tries = ?, reason = null where id = ?",
        (int(verdict.state), now_ms, verdict.tries, task),
    )
    tasks.block_dependents(db, now_ms, task)


def _lost_before(db: apsw.Connection, task: TaskId, execution: ExecutionId) -> int:
    """How many executions of a task, right before this one, were lost in a row; no more are counted than make a difference."""
    rows = query.rows(
        db, "select outcome from execution where task = ? and id < ? order by id desc limit 12", (task, execution)
    )
    return sum(1 for _ in itertools.takewhile(lambda row: row[0] == Outcome.LOST, rows))


def wishes(db: apsw.Connection, worker: WorkerId) -> dict[ExecutionId, Wanted]:
    """What is wanted of a worker's live executions, where that is anything but to go on."""
    rows = query.rows(
        db,
        "select id, wanted from execution indexed by execution_wanted where worker = ? and ended is null and wanted <> 0",
        (worker,),
    )
    return {ExecutionId(id): Wanted(wanted) for id, wanted in rows}


def logs_due(db: apsw.Connection, worker: WorkerId) -> dict[ExecutionId, dict[int, int]]:
    """Executions whose command ended on a worker and whose log is still there: the bytes of each stream to bring home."""
    due: dict[ExecutionId, dict[int, int]] = {}
    rows = query.rows(
        db,
        """select execution.id, log.id, log.size from execution indexed by execution_due
        join log on log.id in (2 * execution.id, 2 * execution.id + 1)
        where execution.worker = ? and ended is null and log_due = 1 and content is null order by execution.id""",
        (worker,),
    )
    for execution, log, size in rows:
        due.setdefault(ExecutionId(execution), {})[log - 2 * execution] = size
    return due


def followed(db: apsw.Connection, worker: WorkerId, now_ms: int) -> list[ExecutionId]:
    """Running executions of a worker whose output somebody wants to see now."""
    rows = query.rows(
        db,
        f"""select execution.id from follow join task on task.id = follow.task join execution on execution.id = task.execution
        where follow.until >= ? and execution.worker = ? and task.state = {int(TaskState.RUNNING)}""",
        (now_ms, worker),
    )
    return [ExecutionId(id) for (id,) in rows]


def mean_run_s(db: apsw.Connection, worker: WorkerId, sample: int = 32) -> float | None:
    """The mean run time of a worker's latest executions; None when nothing has run there."""
    row = query.one(
        db,
        "select avg(run_s) from (select worker, run_s from execution order by id desc limit ?) where worker = ? and run_s is not null",
        (sample * 4, worker),
    )
    return None if row[0] is None else float(row[0])


def of_task(db: apsw.Connection, task: TaskId) -> list[ExecutionRow]:
    """Every attempt at a task, oldest first."""
    rows = query.rows(db, f"select {_COLUMNS} where execution.task = ? order by execution.id", (task,))
    return [_execution(row) for row in rows]


def newest(
    db: apsw.Connection,
    limit: int,
    *,
    tasks: Collection[int] | None = None,
    batch: str | None = None,
    outcomes: Sequence[Outcome | None] | None = None,
) -> list[ExecutionRow]:
    """The newest attempts, the newest first: of those tasks, of a batch, with one of those outcomes (None: live)."""
    sql, given = f"select {_COLUMNS}", []
    if batch is not None:
        sql += " join task on task.id = execution.task join batch on batch.id = task.batch"
    conditions: list[str] = []
    if tasks is not None:
        conditions.append("execution.task in (select value from json_each(?))")
        given.append(json.dumps([int(one) for one in tasks]))
    if batch is not None:
        conditions.append("batch.name = ?")
        given.append(batch)
    if outcomes is not None:
        # Those that have not ended have no outcome.
        conditions.append("coalesce(execution.outcome, -1) in (select value from json_each(?))")
        given.append(json.dumps([-1 if one is None else int(one) for one in outcomes]))
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return [
        _execution(row) for row in query.rows(db, f"{sql}{where} order by execution.id desc limit ?", (*given, limit))
    ]


def find(db: apsw.Connection, execution: int) -> ExecutionRow | None:
    """One attempt; None when there is none of that number."""
    row = query.row(db, f"select {_COLUMNS} where execution.id = ?", (execution,))
    return _execution(row) if row else None


def worker_of(db: apsw.Connection, execution: int) -> int | None:
    """The number of the worker of an attempt; None when it took another's result."""
    row = query.row(db, "select worker from execution where id = ?", (execution,))
    return None if row is None else row[0]


def spec_of(db: apsw.Connection, execution: ExecutionId) -> Spec | None:
    """What an execution ran, which may have been edited since; None when it is gone."""
    row = query.row(
        db,
        """select coalesce(execution.spec, task.spec) from execution join task on task.id = execution.task
        where execution.id = ?""",
        (execution,),
    )
    return None if row is None else listing.spec_of(row[0])


def held(db: apsw.Connection, worker: WorkerId) -> list[ExecutionRow]:
    """The live executions of a worker, oldest first."""
    rows = query.rows(
        db, f"select {_COLUMNS} where execution.worker = ? and ended is null order by execution.id", (worker,)
    )
    return [_execution(row) for row in rows]


def run_times(db: apsw.Connection, sample: int = 20_000) -> dict[int | None, float]:
    """The mean time that the latest successes of each batch ran; under None, of all of them."""
    rows = query.rows(
        db,
        f"""select task.batch, avg(run_s), count(*) from execution join task on task.id = execution.task
        where execution.id > (select max(id) from execution) - ? and outcome = {_SUCCEEDED} and run_s is not null
        group by task.batch""",
        (sample,),
    )
    found: dict[int | None, float] = {batch: mean for batch, mean, _ in rows}
    if rows:
        found[None] = sum(mean * count for _, mean, count in rows) / sum(count for *_, count in rows)
    return found


def holdings(db: apsw.Connection, worker: WorkerId) -> list[tuple[TaskId, int, int]]:
    """What a worker holds: task, batch, and slots that it takes or will take."""
    rows = query.rows(
        db,
        """select task.id, task.batch, slots from execution join task on task.id = execution.task
        where execution.worker = ? and ended is null and collect_due = 0""",
        (worker,),
    )
    return [(TaskId(task), batch, slots) for task, batch, slots in rows]


def holders(db: apsw.Connection, ids: Collection[int]) -> list[tuple[TaskId, str]]:
    """The tasks of these executions, as far as they live, and the names of the workers that hold them; in the tasks' order."""
    rows = query.rows(
        db,
        """select execution.task, worker.name from execution join worker on worker.id = execution.worker
        where execution.ended is null and execution.id in (select value from json_each(?)) order by execution.task""",
        (json.dumps(sorted(ids)),),
    )
    return [(TaskId(task), name) for task, name in rows]


def of_silent(db: apsw.Connection, silent: Sequence[WorkerId], limit: int) -> list[PendingTask]:
    """Tasks that some workers hold, as if they were in the queue; not those that are to end there anyway."""
    found = []
    for worker in silent:
        rows = query.rows(
            db,
            f"""select task.id, task.batch, task.priority, task.need, task.raised ->> '$.avoid'
            from execution join task on task.id = execution.task join batch on batch.id = task.batch
            where execution.worker = ? and ended is null and wanted <> {int(Wanted.STOPPED)} and hold = 0
            and halt = {int(Halt.GO)} order by task.priority desc, task.id limit ?""",
            (worker, limit),
        )
        kinds = listing.needs(db) if any(kind for *_, kind, _ in rows) else {0: (None, None)}
        found += [
            PendingTask(TaskId(id), BatchId(batch), priority, kinds[kind][0], avoid=tuple(json.loads(avoid or "[]")))
            for id, batch, priority, kind, avoid in rows
        ]
    return found


def give_up(db: apsw.Connection, now_ms: int, task: TaskId) -> None:
    """The live execution of a task is lost, for its worker has been silent for too long."""
    row = query.row(
        db,
        """select execution.id, worker.name, task.state from execution join task on task.id = execution.task
        left join worker on worker.id = execution.worker where execution.task = ? and ended is null""",
        (task,),
    )
    if row is not None:
        stage = STAGES.get(TaskState(row[2]), Stage.RUN)
        finish(db, now_ms, ExecutionId(row[0]), Outcome.LOST, stage, f"its worker {row[1]} was silent for too long")


def is_discarded(db: apsw.Connection, execution: ExecutionId) -> bool:
    """Nobody wants to know any more how an execution ended: it was lost, or this file never knew of it."""
    row = query.row(db, "select outcome from execution where id = ?", (execution,))
    return row is None or row[0] == Outcome.LOST


def latest(db: apsw.Connection, task: TaskId) -> ExecutionRow | None:
    """The newest attempt at a task, live or ended."""
    row = query.row(db, f"select {_COLUMNS} where execution.task = ? order by execution.id desc limit 1", (task,))
    return _execution(row) if row else None


def _execution(row: tuple[Any, ...]) -> ExecutionRow:
    return ExecutionRow(
        id=ExecutionId(row[0]),
        task=TaskId(row[1]),
        worker=row[2],
        attempt=row[3],
        assigned_ms=row[4],
        started_ms=row[5],
        ended_ms=row[6],
        outcome=None if row[7] is None else Outcome(row[7]),
        stage=None if row[8] is None else Stage(row[8]),
        exit_code=row[9],
        signal=row[10],
        detail=row[11],
        run_s=row[12],
        cpu_s=row[13],
        peak_memory_bytes=row[14],
        read_bytes=row[15],
        written_bytes=row[16],
        wanted=Wanted(row[17]),
        image=row[18],
    )
