"""What a task is waiting for, or how it ended, in one sentence: said by the same facts that decide."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scitq import because
from scitq.placement import has_choice
from scitq.states import Halt, TaskState, Wanted, WorkerState
from scitq.store import batches, executions, listing, manifests
from scitq.task import BatchId, ExecutionRow, PendingTask, TaskId, TaskRow
from scitq.worker import WorkerRow

if TYPE_CHECKING:
    from scitq.engine import Engine


# With less on its disk, a worker is said to be out of space.
FULL_BYTES = 1_000_000


def why(engine: Engine, task: TaskId) -> str:
    """The sentence.

    Raises:
        UnknownTask: no such task.
    """
    row = listing.get(engine._reader(), task)
    if row.state is TaskState.WAITING:
        return f"{row.label} is waiting: {_prerequisites(engine, task)}"
    if row.state is TaskState.BLOCKED:
        root = _root(engine, row)
        hint = f" Relaunch that one: scitq task relaunch {root}" if root else ""
        return f"{row.label} is blocked: {_prerequisites(engine, task)} {row.reason}.{hint}"
    if row.state is TaskState.PENDING:
        return f"{row.label} is pending: {_queue(engine, row)}"
    if row.state is TaskState.PAUSED:
        return f"{row.label} is paused: scitq task resume {task}"
    if row.state is TaskState.DEBUG:
        return f"{row.label} waits for its debug session."
    return _execution(engine, row)


def _prerequisites(engine: Engine, task: TaskId) -> str:
    counts = listing.parent_counts(engine._reader(), task)
    total, done = sum(counts.values()), counts.get(TaskState.SUCCEEDED, 0)
    said = f"{done} of its {total} {'prerequisite is' if total == 1 else 'prerequisites are'} done;"
    if any(state.is_settled and state is not TaskState.SUCCEEDED for state in counts):
        return said
    parent = next((p for p in listing.parents(engine._reader(), task, 1) if p.state is not TaskState.SUCCEEDED), None)
    return f"{said} {parent.label} is {parent.state.word}." if parent else said


def _root(engine: Engine, row: TaskRow) -> TaskId | None:
    """The task at the bottom of a blocked one's trouble."""
    for _ in range(1000):
        bad = next(
            (
                p
                for p in listing.parents(engine._reader(), row.id)
                if p.state.is_settled and p.state is not TaskState.SUCCEEDED
            ),
            None,
        )
        if bad is None:
            return None
        if bad.state is not TaskState.BLOCKED:
            return bad.id
        row = bad
    return None


def _queue(engine: Engine, row: TaskRow) -> str:
    db = engine._reader()
    now = time.time_ns() // 1_000_000
    if row.not_before_ms is not None and row.not_before_ms > now:
        last = executions.latest(db, row.id)
        cause = (last.cause if last else None) or "failed"
        wait_s = (row.not_before_ms - now) / 1000
        of = f" of {row.spec.retry}" if isinstance(row.spec.retry, int) else ""
        return f"its last try {cause}; retry {row.tries}{of} in {wait_s:.0f} s{_with_more(row)}."
    halt = batches.all_of(db)[row.batch][0]
    if halt is not Halt.GO:
        return f"batch {row.batch} is {halt.word}. Let it go on: scitq batch go {row.batch}"
    holder = engine.driver()
    if holder is None:
        return f"nobody drives {engine.path.name}. Start a driver: scitq up"
    if holder.stands_still(now):
        return f"{holder.describe(now)} drives {engine.path.name} but does nothing. {holder.way_out()}: scitq up --take-over"
    if (waits := because.waits(db, row.id)) is not None:
        return waits
    need, problem = listing.need_of(db, row.id)
    if problem is not None:
        if need is not None and need.python is not None and not need.occupies:
            return (
                f"{problem}. Call it from a Python that a worker has, add a worker with that one, or use container= with "
                "an image that has it."
            )
        return (
            f"{problem}. Ask for less: scitq task update {row.id} --cpus/--memory/--gpus, or add a worker that has it."
        )
    known = engine.workers()
    ready = [worker for worker in known if worker.state is WorkerState.READY]
    if not ready:
        notes = "; ".join(
            f"{worker.name} is {worker.state.word}" + (f" ({worker.note})" if worker.note else "") for worker in known
        )
        return f"no worker is ready: {notes or 'there is none'}."
    slots = sum(worker.concurrency for worker in ready)
    names = ", ".join(worker.name for worker in ready)
    if slots == 0:
        return f"the concurrency of {names} is 0. Raise it: scitq worker update {ready[0].name} --concurrency N"
    if others := _others(row, ready):
        return f"it waits for a place on {others}: {_avoided(row, known)} could not run it."
    if need is not None and need.occupies:
        return f"it waits until {need.describe()} are free on {names}."
    ahead = listing.ahead_of(db, row)
    before = "it is next" if ahead == 0 else f"{ahead} {'task is' if ahead == 1 else 'tasks are'} ahead of it"
    return f"{before}; {names} {'runs' if len(ready) == 1 else 'run'} {slots} at once."


def _with_more(row: TaskRow) -> str:
    """What the next try gets more of than was asked for."""
    parts = []
    if row.raised.memory is not None:
        parts.append(f"{row.raised.memory / 1e9:.3g} GB of memory")
    if row.raised.run_timeout is not None:
        parts.append(f"{row.raised.run_timeout:g} s to run")
    if row.raised.stage_in_timeout is not None:
        parts.append(f"{row.raised.stage_in_timeout:g} s for its data")
    return f", with {' and '.join(parts)}" if parts else ""


def _others(row: TaskRow, ready: Sequence[WorkerRow]) -> str:
    """The workers that are left for a task that avoids some; empty for one that avoids none, or has no choice."""
    task = PendingTask(row.id, BatchId(0), 0, row.raised.applied(row.spec).need, row.raised.avoid)
    if not row.raised.avoid or not has_choice(task, ready):
        return ""
    return ", ".join(worker.name for worker in ready if worker.id not in row.raised.avoid)


def _avoided(row: TaskRow, known: Sequence[WorkerRow]) -> str:
    return ", ".join(worker.name for worker in known if worker.id in row.raised.avoid) or "those before"


def _full_disk(engine: Engine) -> str:
    """The local worker cannot write down what happens, so it tells nobody either: whoever asks looks."""
    folder = engine.side / "local"
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    free = found.f_bavail * found.f_frsize
    if free >= FULL_BYTES:
        return ""
    return (
        f" But the disk of {folder} is full ({free / 1e6:.1f} MB are free, {FULL_BYTES / 1e6:.0f} MB are needed at least): "
        "free some space, and the worker goes on by itself."
    )


def _way_on(engine: Engine, row: TaskRow) -> str:
    if batches.all_of(engine._reader())[row.batch][0] is Halt.SUSPENDED:
        return f"scitq batch go {row.batch}"
    return f"scitq task resume {row.id}"


def _progress(engine: Engine, last: ExecutionRow) -> str:
    """How much of an execution's data is there, as its worker last said."""
    for worker in engine.workers():
        done, total = (
            worker.stats.get("staging", {}).get(str(last.id), (None, None))
            if worker.name == last.worker
            else (None, None)
        )
        if done is not None:
            ago_s = max(0, time.time_ns() // 1_000_000 - int(worker.stats["at"])) / 1000
            of = f" of {total / 1e6:,.1f}" if total else ""
            return f" ({done / 1e6:,.1f}{of} MB {ago_s:.0f} s ago)"
    return ""


def _lately(engine: Engine, last: ExecutionRow) -> str:
    return "".join(f" Lately: {note}" for note in manifests.notes(engine._reader(), last.id)[-1:])


def _execution(engine: Engine, row: TaskRow) -> str:
    last = executions.latest(engine._reader(), row.id)
    if last is None:
        return f"{row.label} is {row.state.word}" + (f": {row.reason}." if row.reason else ".")
    now = time.time_ns() // 1_000_000
    stopping = " It was asked to stop." if last.stop_wanted and row.state.is_live else ""
    stopping += _full_disk(engine) if row.state.is_live else ""
    if row.state is TaskState.ASSIGNED:
        return f"{row.label} is assigned: {last.worker} holds it and starts it when a slot is free.{stopping}"
    if row.state is TaskState.RUNNING:
        since_s = max(0, now - (last.started_ms or now)) / 1000
        if last.wanted is Wanted.SUSPENDED:
            return (
                f"{row.label} stands still on {last.worker} where it was stopped. Let it go on: {_way_on(engine, row)}"
            )
        return f"{row.label} has been running on {last.worker} for {since_s:.0f} s.{stopping}"
    if row.state is TaskState.STAGING:
        said = f"{row.label} is staging: {last.worker} fetches what it needs{_progress(engine, last)}.{stopping}"
        return said + _lately(engine, last)
    if row.state.is_live:
        return (
            f"{row.label} is {row.state.word}: its command has ended, its log and output are being brought home from "
            f"{last.worker}.{stopping}"
        )
    if row.state is TaskState.SUCCEEDED and (reused := because.reused(engine._reader(), last)) is not None:
        return f"{row.label} succeeded: {reused}."
    ran = because.ran(engine._reader(), row, last) if row.spec.use_cache else None
    told = "" if ran is None else f" It ran because {ran.sentence.removesuffix('.')}."
    if row.state is TaskState.SUCCEEDED and last.detail:
        return f"{row.label} succeeded: {last.detail}.{told}"
    if row.state is TaskState.SUCCEEDED:
        return f"{row.label} succeeded" + (
            f" in {last.run_s:.1f} s on {last.worker}.{told}" if last.run_s is not None else f".{told}"
        )
    if row.state is TaskState.CANCELLED:
        return f"{row.label} was cancelled. Relaunch it: scitq task relaunch {row.id}"
    detail = f": {last.detail.removesuffix('.')}" if last.detail else ""
    tries = f" after {last.attempt} tries" if last.attempt > 1 else ""
    return (
        f"{row.label} {last.cause}{tries}{detail}. See scitq task output {row.id}; again: scitq task relaunch {row.id}"
    )
