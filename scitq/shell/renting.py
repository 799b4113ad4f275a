"""`worker deploy`, `cloud list`, `cloud reap`, `job retry` and `job cancel`: rented machines, and what is done about them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from scitq import money
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.offers import Offer
from scitq.shell import facts
from scitq.shell.answers import Column, Rows, Seconds, Text, When, clean, duration, several
from scitq.shell.fleet import _confirmed, _job, _prefetch, _told, _watch, _without_driving
from scitq.states import JobState
from scitq.store import rentals
from scitq.worker import JobRow, WorkerRow


def deploy(engine: Engine, args: SimpleNamespace) -> Text:
    """Rent machines, after a look at what they cost; and show how that goes."""
    wanted = {
        "provider": _any(args.provider), "region": _any(args.region), "market": args.market, "max_price": args.max_price,
        "concurrency": args.concurrency,
    }  # fmt: skip
    offers = engine.offers_for(args.flavor, **wanted)
    if args.number < 1:
        raise BadInput(f"--number must be 1 or more, not {args.number}.")
    if not _confirmed(args, price_of(offers, args.number), f"Rent {several(args.number, 'machine')}?"):
        return Text("", {"done": False}, ["Nothing was rented."], code=1)
    given = {
        "number": args.number, "name": args.name, "concurrency": args.concurrency, "prefetch": _prefetch(args.prefetch),
        "batch": args.batch, "max_price": args.max_price, "expires": None if args.expires is None else 3600 * args.expires,
        "orphan_after": args.orphan_after,
    }  # fmt: skip
    if args.no_wait:
        with _without_driving(engine, args) as fresh:
            rows = fresh.worker_rent(offers, **given)
            said = f"{', '.join(row.name for row in rows)}: to be deployed."
            return Text(said, [_told(row) for row in rows], facts.nobody_drives(fresh))
    facts.hush()
    rows = engine.worker_rent(offers, **given)
    jobs = [_deployed(engine, args, row, is_alone=len(rows) == 1) for row in rows]
    code = int(any(job.state is not JobState.SUCCEEDED for job in jobs))
    return Text("", [_told(engine.worker(int(row.id))) for row in rows], [] if code else _running(engine), code=code)


def _deployed(engine: Engine, args: SimpleNamespace, row: WorkerRow, *, is_alone: bool) -> JobRow:
    """Watch a machine being deployed."""
    job = next(job for job in engine.jobs(int(row.id)) if job.kind == rentals.DEPLOY)
    job = _watch(engine, args.screen, job, None if is_alone else row.name)
    took = (
        ""
        if job.started_ms is None or job.ended_ms is None
        else f" in {duration((job.ended_ms - job.started_ms) / 1000)}"
    )
    is_ready = job.state is JobState.SUCCEEDED
    args.screen.say(f"{clean(row.name)}: {'ready' + took if is_ready else clean(job.note or job.state.word)}")
    return job


def price_of(offers: list[Offer], number: int) -> str:
    """`2 x std-8 (dream north, ondemand): 0.40 € an hour each, 0.80 € in all`."""
    first = offers[0]
    what = (
        f"{number} x {clean(first.flavor.name)} ({clean(first.flavor.provider)} {clean(first.region)}, {first.market})"
    )
    if first.price is None:
        said = f"{what}: its price is not known."
    else:
        each = money.said(first.price, first.currency, per_hour=True)
        whole = f", {money.said(number * first.price, first.currency, per_hour=True)} in all" if number > 1 else ""
        said = f"{what}: {each}{' each' if number > 1 else ''}{whole}, until deleted."
    others = len({one.key for one in offers[1:]})
    return said + (f" If that cannot be had, the next best of {several(others, 'other offer')}." if others else "")


def _running(engine: Engine) -> list[str]:
    """What goes on costing, after this."""
    said = engine.rented()
    return [] if said is None else [f"{said} To end one: scitq worker delete NAME"]


def _any(word: str | None) -> str | None:
    return None if word in (None, "", "auto") else word


# --- clouds ---------------------------------------------------------------------------------------------------------------------


def clouds(engine: Engine, args: SimpleNamespace) -> Rows:
    """What is rented."""
    found = engine.cloud_list(every=args.all)
    rows: list[dict[str, Any]] = []
    for one in found:
        age = one.age_s
        rows.append(
            {
                "provider": one.provider, "region": one.region, "id": one.id, "name": one.name, "worker": one.worker, "state": one.state,
                "flavor": one.flavor, "market": one.market, "price": one.price, "currency": one.currency or None,
                "_price": "" if one.price is None else money.said(one.price, one.currency, per_hour=True),
                "age": None if age is None else Seconds(age), "expires": None if one.expires_ms is None else When(one.expires_ms),
                "file": one.store, "project": one.project, "known": one.is_known, "detail": one.detail or None,
            }
        )  # fmt: skip
    columns = [Column("worker"), Column("state"), Column("provider"), Column("region"), Column("flavor"), Column("_price", "price/h"),
               Column("age"), Column("id")]  # fmt: skip
    if args.all:
        columns += [Column("project"), Column("file")]
    columns.append(Column("detail", gives=True))
    notes = [] if rows else [_nothing(engine, args.all)]
    strangers = sorted({str(row["file"]) for row in rows if row["file"] and row["file"] not in _own(engine)})
    if strangers:
        notes.append(f"Of other state files: {', '.join(strangers)}. If one is no more: scitq cloud reap --store ID")
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header)


def _own(engine: Engine) -> set[str]:
    from scitq.store import manifests

    return {manifests.file_id(engine._reader())}


def _nothing(engine: Engine, every: bool) -> str:
    """`Nothing is rented. The last machine, ovh-k3f, was gone at 11:03.`"""
    if every:
        return "The providers have no machine of scitq's."
    last = max(
        (one for one in engine.rentals(every=True) if one.accepted_ms), key=lambda one: one.ended_ms or 0, default=None
    )
    if last is None or last.ended_ms is None:
        return "Nothing is rented."
    row = engine.worker(int(last.worker))
    at = time.strftime("%H:%M", time.localtime(last.ended_ms / 1000))
    return f"Nothing is rented. The last machine, {clean(row.name.partition(' #')[0])}, was gone at {at}."


def reap(engine: Engine, args: SimpleNamespace) -> Text:
    """Compare providers with the file, and delete what nobody knows."""
    if args.store is not None:
        found = [one for one in engine.cloud_list(every=True) if one.store == args.store]
        what = f"{several(len(found), 'machine')} of the state file {clean(args.store)}"
        names = ", ".join(clean(one.name) for one in found[:5])
        if not _confirmed(
            args, f"{what} {'is' if len(found) == 1 else 'are'} deleted: {names or 'there is none'}.", "Delete?"
        ):
            return Text("", {"done": False}, ["Nothing was done."], code=1)
    facts.hush()
    job = engine.cloud_reap(store=args.store)
    told = job.data.get("providers", {})
    lines = [f"{clean(line)}" for line in job.log.splitlines()] or [clean(job.note or "")]
    return Text(
        "\n".join(lines), {"providers": told, "note": job.note}, code=int(job.state is JobState.FAILED), safe=True
    )


# --- jobs -------------------------------------------------------------------------------------------------------------------------


def retry(engine: Engine, args: SimpleNamespace) -> Text:
    """Try again what failed, and watch it."""
    if args.no_wait:
        with _without_driving(engine, args) as fresh:
            job = fresh.job_retry(number(args.job))
            return Text(f"Job {job.id}: {job.kind} {job.worker_name}.", _job(job), facts.nobody_drives(fresh))
    job = _watch(engine, args.screen, engine.job_retry(number(args.job)), None)
    is_done = job.state is JobState.SUCCEEDED
    said = f"Job {job.id}: {job.kind} {job.worker_name} {job.state.word}{': ' + job.note if job.note else ''}."
    return Text(said, _job(job), code=int(not is_done))


def cancel(engine: Engine, args: SimpleNamespace) -> Text:
    """Take back what has not ended."""
    job = engine.job_cancel(number(args.job))
    return Text(f"Job {job.id} ({job.kind} {job.worker_name or ''}) is {job.state.word}.", _job(job))


def number(text: str) -> int:
    """A job's.

    Raises:
        BadInput: it is none.
    """
    if not text.isdecimal():
        raise BadInput(f"a job has a number, not {text!r}. scitq job list shows them.")
    return int(text)
