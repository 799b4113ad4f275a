"""`scitq recruiter …`: who serves a batch, how much of each worker, and how many of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq import hiring, recruiting
from scitq.engine import Engine
from scitq.shell import facts
from scitq.shell.answers import Column, Rows, Text
from scitq.staffing import MOST_RENTED
from scitq.states import WorkerState
from scitq.store import executions
from scitq.worker import Load, Recruiter

_NUMBERS = ("concurrency", "prefetch", "tasks_per_worker", "minimum_tasks", "maximum_workers", "rounds")
_AMOUNTS = ("max_price", "patience", "idle_timeout")


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The recruiters, by batch and rank."""
    rows = [_facts(one) for one in engine.recruiters(args.batch or args.by_batch)]
    shown = tuple(key for key in _facts(Recruiter(0, 1)) if key not in ("batch", "rank", "waits"))
    always = ("flavor", "concurrency", "maximum_workers")
    keys = [key for key in shown if args.long or key in always or any(row[key] is not None for row in rows)]
    columns = [Column("batch", gives=True), Column("rank"), *(Column(key, key.replace("_", " ")) for key in keys)]
    notes = [] if rows else ["No recruiters: every batch is served by all workers that have no batch of their own."]
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header)


def create(engine: Engine, args: SimpleNamespace) -> Text:
    """Give a batch a recruiter."""
    return _told(engine, engine.recruiter_create(_batch(args), args.rank, **_given(args)))


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """One recruiter, and what its batch waits for."""
    one = engine.recruiter(_batch(args), args.rank)
    waits = hiring.waits(engine._reader(), facts.now_ms(), one.batch) if one.provider is not None else None
    found = {**_facts(one), "waits": None if waits is None else waits[0]}
    width = max(map(len, found))
    lines = [f"{key.replace('_', ' '):{width}}  {value}" for key, value in found.items() if value is not None]
    return Text("\n".join(lines), found)


def update(engine: Engine, args: SimpleNamespace) -> Text:
    """Change what was given of one."""
    given = _given(args)
    if not given:
        raise click.UsageError("nothing to change: give at least one option; auto takes one back.")
    return _told(engine, engine.recruiter_update(_batch(args), args.rank, **given))


def delete(engine: Engine, args: SimpleNamespace) -> Text:
    """Take a recruiter away. Nothing that runs is touched."""
    batch = _batch(args)
    engine.recruiter_delete(batch, args.rank)
    left = len(engine.recruiters(batch))
    rest = f"{left} left" if left else "every worker without a batch of its own serves it now"
    return Text(f"Recruiter {args.rank} of {batch} is gone: {rest}.", {"batch": batch, "rank": args.rank, "left": left})


def match(engine: Engine, args: SimpleNamespace) -> Rows:
    """Which workers a recruiter's flavor suits, and why the others are not used."""
    rule = engine.recruiter(_batch(args), args.rank)
    loads, rows = executions.loads(engine._reader()), []
    for worker in engine.workers():
        load = loads.get(worker.id, Load())
        rows.append({
            "worker": worker.name, "state": worker.state.word, "flavor": recruiting.flavor(worker), "batch": worker.batch,
            "free": max(0, worker.concurrency - load.slots), "slots": worker.concurrency, "why": _why_not(rule, worker),
        })  # fmt: skip
    for row in rows:
        row["matches"] = row["why"] is None
    columns = [
        Column("worker"),
        Column("matches"),
        Column("state"),
        Column("flavor", gives=True, worth=20, good=12),
        Column("batch", gives=True, worth=15, good=12),
        Column("free", worth=40),
        Column("slots", worth=30),
    ]
    if any(row["why"] for row in rows):
        columns.append(Column("why", "why not", gives=True, good=16))
    return Rows(columns, rows, [] if rows else ["There is no worker yet."], head=bool(rows) and not args.no_header)


def _why_not(rule: Recruiter, worker: Any) -> str | None:
    if (said := recruiting.misfit(rule, worker)) is not None:
        return said
    if worker.state is not WorkerState.READY:
        return f"it is {worker.state.word}"
    if worker.batch not in (None, rule.batch_name) and worker.settings.get("keep_batch"):
        return f"it keeps its batch {worker.batch}"
    return None


def _batch(args: SimpleNamespace) -> str:
    batch = args.batch or args.by_batch
    if batch is None:
        raise click.UsageError("which batch? scitq batch list shows their names.")
    return str(batch)


def _given(args: SimpleNamespace) -> dict[str, Any]:
    """The fields that were given; `auto` takes one back (of a flavor it is any worker)."""
    given: dict[str, Any] = {
        name: value or None for name in ("provider", "region") if (value := getattr(args, name)) is not None
    }
    for name in ("market", "max_cost"):
        if (value := getattr(args, name)) is not None:
            given[name] = None if value == "auto" else value
    for name in _AMOUNTS:
        if (value := getattr(args, name)) is not None:
            given[name] = None if value == "auto" else _amount(name, value)
    if args.flavor is not None:
        given["flavor"] = args.flavor or None
    for name in _NUMBERS:
        text = getattr(args, name)
        if text is None:
            continue
        if text != "auto" and not text.isdecimal():
            raise click.UsageError(f"--{name.replace('_', '-')} takes a number or auto, not {text!r}.")
        given[name] = None if text == "auto" else int(text)
    return given


def _amount(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--{name.replace('_', '-')} takes a number or auto, not {text!r}.") from None


def _told(engine: Engine, one: Recruiter) -> Text:
    matching = engine.recruiter_match(one.batch_name, one.rank)
    names = ", ".join(row.name for row in matching[:5]) + (" …" if len(matching) > 5 else "")
    parts = [
        f"workers of flavor {one.flavor} ({names or 'none yet'})"
        if one.flavor
        else f"any worker ({names or 'none yet'})"
    ]
    if one.concurrency is not None:
        parts.append(f"{one.concurrency} at once on each")
    if one.maximum_workers is not None:
        parts.append(f"{one.maximum_workers} workers at most")
    notes = []
    if one.provider is not None:
        where = "any provider" if one.provider == "auto" else one.provider
        most = MOST_RENTED if one.maximum_workers is None else one.maximum_workers
        price = "" if one.max_price is None else f" for {one.max_price:g} an hour each at most"
        cost = "" if one.max_cost is None else f", {one.max_cost} in all"
        notes.append(f"Rents up to {most} machines of {where}{price}{cost}: they cost money (scitq cost).")
    if facts.queued(engine.counts(one.batch_name)):
        notes += facts.nobody_drives(engine)
    return Text(f"{one.batch_name} is served by {', '.join(parts)}.", _facts(one), notes)


def _facts(one: Recruiter) -> dict[str, Any]:
    return {
        "batch": one.batch_name, "rank": one.rank, "tasks_per_worker": one.tasks_per_worker, "flavor": one.flavor,
        "provider": one.provider, "region": one.region, "concurrency": one.concurrency, "prefetch": one.prefetch,
        "minimum_tasks": one.minimum_tasks, "maximum_workers": one.maximum_workers, "rounds": one.settings.get("rounds"),
        "market": one.market, "max_price": one.max_price, "max_cost": one.max_cost, "patience": one.settings.get("patience"),
        "idle_timeout": one.idle_timeout,
    }  # fmt: skip
