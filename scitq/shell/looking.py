"""`status`, `journal`, `check`, `backup`: what the file says."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.events import Event, EventKind
from scitq.shell import facts, inbox
from scitq.shell.answers import Bytes, Column, Rows, Text, When, clean, several, size
from scitq.shell.attention import Attention
from scitq.shell.show import Screen, visible
from scitq.states import JobState, WorkerState
from scitq.store import journal as entries
from scitq.store import listing

# Among so many of the newest journal entries the ends of the last minute are counted.
RATE_SAMPLE = 2000


# --- status ---------------------------------------------------------------------------------------------------------------------


def status(engine: Engine, args: SimpleNamespace) -> Text:
    """Who drives, what runs, what needs you."""
    counts, workers, holder = engine.counts(), engine.workers(), facts.driver_of(engine)
    now = facts.now_ms()
    driver = f"driver: {holder.describe(now)}" if holder else "nobody drives"
    parts = [engine.path.name, driver, several(len(workers), "worker"), facts.counted(counts)]
    per_minute = rate(engine)
    if per_minute:
        parts.append(f"{per_minute:,}/min")
    spent = engine.spending()
    parts += [str(one) for one in spent]
    notices = engine.notices()
    lines = [" · ".join(parts), *inbox.lines(engine, notices, args.screen)]
    if holder is None and (facts.live(counts) or facts.queued(counts)):
        is_superseded = any(notice.kind == "copy" for notice in notices)
        lines.append(f"To go on: {facts.command_for(engine, 'up --take-over' if is_superseded else 'up')}")
    data = {
        "file": str(engine.path), "counts": facts.count_words(counts), "ended_last_minute": per_minute,
        "driver": None if holder is None else {
            "pid": holder.pid, "host": holder.host, "program": holder.program, "is_here": holder.is_here,
            "seen": None if holder.seen is None else When(holder.seen),
        },
        "spent": [
            {"currency": one.currency, "cost": one.amount, "per_hour": one.per_hour, "machines": one.machines, "limit": one.limit}
            for one in spent
        ],
        "workers": [{"name": row.name, "state": row.state.word, "concurrency": row.concurrency} for row in workers],
        "notices": [inbox.data_of(notice) for notice in notices],
    }  # fmt: skip
    return Text("\n".join(lines), data, folds=True)


def rate(engine: Engine) -> int:
    """How many tasks have ended in the last minute."""
    events = engine.journal(limit=RATE_SAMPLE)
    since = facts.now_ms() - 60_000
    recent = [event for event in events if event.at_ms >= since]
    ends = sum(event.dst is not None and event.dst.is_final for event in recent)
    if len(recent) == RATE_SAMPLE:  # the minute has more than were looked at
        span_ms = max(1, recent[-1].at_ms - recent[0].at_ms)
        ends = ends * 60_000 // span_ms
    return ends


# --- journal ----------------------------------------------------------------------------------------------------------------------


def journal(engine: Engine, args: SimpleNamespace) -> Rows | int:
    """What happened."""
    screen: Screen = args.screen
    limit = args.lines if args.lines is not None else 20 if args.since is None else 1000
    events = engine.journal(since=args.since, limit=limit) if limit else []
    columns = [Column("id"), Column("_time", "time"), Column("what", gives=True)]
    if not args.follow:
        notes = (
            [f"More after {events[-1].id}: --since {events[-1].id}"]
            if args.since is not None and len(events) == limit
            else []
        )
        return Rows(columns, [_entry(engine, event) for event in events], notes)
    seen = events[-1].id if events else args.since if args.since is not None else entries.last(engine._reader())
    with Attention(engine) as attention:
        while True:
            for event in events:
                row = _entry(engine, event)
                if screen.as_json:
                    screen.json(visible(row))
                else:
                    screen.out(f"{row['id']:>7}  {row['_time']}  {row['what']}")
            if attention.interrupts or attention.is_asked_to_end:
                return 130
            events = engine.journal(since=seen)
            if events:
                seen = events[-1].id
            else:
                attention.wait(30)


def _entry(engine: Engine, event: Event) -> dict[str, Any]:
    at = datetime.fromtimestamp(event.at_ms / 1000)
    form = "%H:%M:%S" if at.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S"
    return {
        "id": event.id,
        "at": When(event.at_ms),
        "_time": at.strftime(form),
        "kind": event.kind.word,
        "task": event.task,
        "execution": event.execution,
        "worker": event.worker,
        "from": None if event.src is None else event.src.word,
        "to": None if event.dst is None else event.dst.word,
        "data": event.data,
        "what": clean(_what(engine, event)),
    }


def _what(engine: Engine, event: Event) -> str:
    about = f"task {_label(engine, event.task)}" if event.task is not None else ""
    match event.kind:
        case EventKind.TASK_STATE:
            return f"{about}: {event.src.word if event.src else '?'} → {event.dst.word if event.dst else '?'}"
        case EventKind.SUBMITTED:
            count = event.data.get("count", 1)
            return (
                f"{about} submitted" if count == 1 else f"{count:,} tasks submitted, from {event.data.get('first')} on"
            )
        case EventKind.UPDATED:
            return f"{about} edited: {', '.join(event.data.get('fields', []))}"
        case EventKind.RELAUNCHED:
            return f"{about} relaunched"
        case EventKind.CANCEL_ASKED:
            return f"{about}: cancel asked for"
        case EventKind.DRIVER:
            return f"driven by pid {event.data.get('pid', '?')}"
        case EventKind.WORKER if {"from", "to"} <= event.data.keys():
            note = f": {event.data['note']}" if event.data.get("note") else ""
            return f"worker {_worker(engine, event.worker)}: {_worker_state(event, 'from')} → {_worker_state(event, 'to')}{note}"
        case EventKind.JOB if {"job", "kind", "from", "to"} <= event.data.keys():
            note = f": {event.data['note']}" if event.data.get("note") else ""
            on = "" if event.worker is None else f" of worker {_worker(engine, event.worker)}"
            return f"job {event.data['job']} ({event.data['kind']}{on}): {_job_state(event, 'from')} → {_job_state(event, 'to')}{note}"
        case EventKind.NOTE if isinstance(moved := event.data.get("recycled"), dict):
            return f"worker {_worker(engine, event.worker)} changes from batch {moved.get('from')} to {moved.get('to')}"
    rest = f" {json.dumps(event.data, ensure_ascii=False)}" if event.data else ""
    worker = f" {event.worker}" if event.worker is not None else ""
    return f"{event.kind.word}{worker} {about}{rest}".strip()


def _worker(engine: Engine, worker: int | None) -> str:
    return next((row.name for row in engine.workers() if int(row.id) == worker), str(worker))


def _worker_state(event: Event, end: str) -> str:
    try:
        return WorkerState(event.data[end]).word
    except ValueError:
        return "new" if event.data[end] is None else str(event.data[end])


def _job_state(event: Event, end: str) -> str:
    try:
        return JobState(event.data[end]).word
    except ValueError:
        return str(event.data[end])


def _label(engine: Engine, task: int) -> str:
    found = listing.select(engine._reader(), ids=[task], limit=1)
    return found[0].label if found else str(task)


# --- the file itself ----------------------------------------------------------------------------------------------------------------


def check(engine: Engine, args: SimpleNamespace) -> Text:
    """Is the file sound?"""
    started = time.monotonic()
    problems: list[str] = engine.check()
    data = {"file": str(engine.path), "problems": problems, "seconds": round(time.monotonic() - started, 3)}
    if not problems:
        return Text(
            f"{engine.path.name} is sound: {several(sum(engine.counts().values()), 'task')}, {size(engine.path.stat().st_size)}.",
            data,
        )
    kinds = Counter(problems)
    lines = [f"{problem}" for problem in kinds]
    return Text(
        "\n".join(lines),
        data,
        [f"{several(len(problems), 'problem')} in {engine.path.name}. Copies from before: {engine.side / 'backups'}"],
        code=1,
    )


def backup(engine: Engine, args: SimpleNamespace) -> Text:
    """Copy the file."""
    path = engine.backup(args.target)
    count = path.stat().st_size
    return Text(f"{path} ({size(count)})", {"path": str(path), "size": Bytes(count)})
