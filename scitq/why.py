"""What a task is waiting for, or how it ended, in one sentence: said by the same facts that decide."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scitq import because, hiring, recruiting
from scitq.placement import Service, admits, could_ever, has_choice, total
from scitq.states import Halt, TaskState, Wanted, WorkerState
from scitq.store import batches, copies, executions, listing, manifests, recruiters
from scitq.task import BatchId, ExecutionRow, Need, PendingTask, TaskId, TaskRow
from scitq.worker import Recruiter, WorkerRow

if TYPE_CHECKING:
    import apsw

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
    if unmet := [worker.name for worker in engine.workers() if worker.id in copies.unmet(db)]:
        return (
            f"another copy of {engine.path.name} may have given it to {' or '.join(unmet)}, which was not met yet. If it never will "
            f"be: scitq worker lost {unmet[0]}"
        )
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
    rules = recruiters.of_task(db, row.id)
    rents = hiring.waits(db, now, rules[0].batch) if any(rule.provider is not None for rule in rules) else None
    if rents is not None and rents[1]:
        return rents[0]
    if not ready:
        notes = "; ".join(
            f"{worker.name} is {worker.state.word}" + (f" ({worker.note})" if worker.note else "") for worker in known
        )
        return f"no worker is ready: {notes or 'there is none'}."
    service = serving_of(db, known, rules)
    serving = [
        worker for worker in ready
        if (worker.batch in (None, row.batch) if service is None else worker.id in service.terms)
    ]  # fmt: skip
    if not serving and rents is not None:
        return rents[0]
    if not serving and rules:
        return _nobody_suits(row.batch, rules, ready)
    if not serving:
        others = ", ".join(f"{worker.name} serves batch {worker.batch} only" for worker in ready)
        return f"no worker that is ready serves its batch {row.batch}: {others}."
    ready = serving
    slots = sum(worker.concurrency for worker in ready)
    names = ", ".join(worker.name for worker in ready)
    if slots == 0:
        return f"the concurrency of {names} is 0. Raise it: scitq worker update {ready[0].name} --concurrency N"
    if service is not None and (limited := _limited(row.batch, rules, service, ready, need)):
        return limited
    if others := _others(row, ready, service):
        return f"it waits for a place on {others}: {_avoided(row, known)} could not run it."
    if need is not None and need.occupies:
        return f"it waits until {need.describe()} are free on {names}."
    ahead = listing.ahead_of(db, row)
    before = "it is next" if ahead == 0 else f"{ahead} {'task is' if ahead == 1 else 'tasks are'} ahead of it"
    return f"{before}; {names} {'runs' if len(ready) == 1 else 'run'} {slots} at once."


def serving_of(db: apsw.Connection, known: Sequence[WorkerRow], rules: Sequence[Recruiter]) -> Service | None:
    """Who serves the batch of these recruiters; None when there are none."""
    if not rules:
        return None
    held = recruiters.held(db, [rules[0].batch])
    return recruiting.services(rules, known, held)[rules[0].batch]


def _nobody_suits(batch: str, rules: Sequence[Recruiter], ready: Sequence[WorkerRow]) -> str:
    """That the recruiters of a batch look for others than those that there are, and what to do."""
    bound = [worker for worker in ready if worker.batch not in (None, batch)]
    free = [worker for worker in ready if worker not in bound]
    asked = [rule.flavor for rule in rules if rule.flavor is not None]
    said = [text for worker in free if (text := recruiting.misfit(rules[0], worker)) is not None]
    said += [f"{worker.name} serves batch {worker.batch}" for worker in bound]
    if not asked:
        return f"no worker that is ready serves its batch {batch}: {'; '.join(said)}."
    flavor = asked[0]
    way = f"--flavor {flavor}" if not flavor.startswith("auto") else "(one that meets it)"
    return (
        f"no worker is of flavor {' or '.join(asked)}, which its batch {batch} wants: {'; '.join(said)}. Add one: scitq worker add "
        f"HOST {way}, or want another: scitq recruiter update {batch} --flavor FLAVOR"
    )


def _limited(
    batch: str, rules: Sequence[Recruiter], service: Service, ready: Sequence[WorkerRow], need: Need | None
) -> str:
    """That a recruiter's limits keep a task waiting, if they do."""
    able = [worker for worker in ready if service.terms[worker.id].most != 0]
    if not able:
        return f"the concurrency of its recruiter is 0. Raise it: scitq recruiter update {batch} --concurrency N"
    if need is not None and not any(could_ever(need, total(worker)) for worker in able):
        return f"none of the workers that serve its batch {batch} has {need.describe()}: {', '.join(worker.name for worker in able)}."
    there = [worker for worker in able if worker.id in service.serving]
    present = [service.terms[worker].ranks for worker in service.serving]
    if any(
        worker.id in service.serving or admits(service.limits, present, service.terms[worker.id].ranks)
        for worker in able
    ):
        busy = sum(service.held.get(worker.id, 0) for worker in there)
        if len(there) < len(able) or not any(rule.concurrency for rule in rules):
            return ""
        each = ", ".join(worker.name for worker in there)
        return f"{busy} of its batch {batch} are at {each}, of which its recruiter has a share ({rules[0].concurrency} at once)."
    allowed = (
        "no worker"
        if not service.limits or not any(service.limits)
        else f"{sum(limit or 0 for limit in service.limits)} at once"
    )
    return f"its recruiter allows {allowed} for its batch {batch}. Allow more: scitq recruiter update {batch} --maximum-workers N"


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


def _others(row: TaskRow, ready: Sequence[WorkerRow], service: Service | None = None) -> str:
    """The workers that are left for a task that avoids some; empty for one that avoids none, or has no choice."""
    task = PendingTask(row.id, BatchId(0), 0, row.raised.applied(row.spec).need, row.raised.avoid)
    if not row.raised.avoid or not has_choice(task, ready, service):
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


def _when(engine: Engine, row: TaskRow) -> str:
    """When a worker that holds a task starts it: some wait for others there."""
    awaited = [
        parent for parent in listing.parents(engine._reader(), row.id) if parent.state is not TaskState.SUCCEEDED
    ]
    if not awaited:
        return "when a slot is free"
    if len(awaited) == 1:
        return f"after {awaited[0].label} has succeeded there"
    return f"after {awaited[0].label} and {len(awaited) - 1} more have succeeded there"


def _courtesy(engine: Engine, last: ExecutionRow) -> str:
    """Why a worker starts nothing, though it could, as it last said."""
    said = [row.stats["polite"] for row in engine.workers() if row.name == last.worker and row.stats.get("polite")]
    return "".join(f" It starts nothing now: {each}." for each in said)


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
        said = f"{row.label} is assigned: {last.worker} holds it and starts it {_when(engine, row)}.{stopping}"
        return said + _courtesy(engine, last)
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
