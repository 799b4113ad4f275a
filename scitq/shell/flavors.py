"""`scitq flavor …`: what could be rented, best first; why the rest is not; when it was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.offers import Offer
from scitq.protofilter import MAX_EVICTION, machine_of, told
from scitq.ranking import Excluded, Ranked, Ranking
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, When, age, clean, several, shown
from scitq.store import catalogue

# So long a list waits for providers that were not asked for too long, before it is made from what the file has.
PATIENCE_S = 10.0


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """What could be rented, best first."""
    notes = _fresh(engine)
    found = engine.flavors(
        _filters(args), provider=args.provider, region=args.region, market=args.market, max_price=args.max_price,
        max_eviction=MAX_EVICTION if args.max_eviction is None else args.max_eviction, concurrency=args.concurrency,
    )  # fmt: skip
    limit = args.limit or None
    rows = [_row(one, number) for number, one in enumerate(found.ranked[:limit], 1)]
    with_excluded = args.excluded or not rows
    if with_excluded:
        rows += [_out(one) for one in found.excluded[:limit]]
    notes += [*found.notes, *_told(found, args.limit, with_excluded)]
    return Rows(
        _columns(rows, args.long, with_excluded), rows, notes, head=bool(rows) and not args.no_header, cut=not args.long
    )


def _columns(rows: Sequence[Mapping[str, Any]], is_long: bool, with_excluded: bool) -> list[Column]:
    """What tells rows apart, in as little room as it takes."""
    columns = [Column("flavor")]
    if is_long or len({row["provider"] for row in rows}) > 1:
        columns.append(Column("provider"))
    columns += [Column("region"), Column("cpu"), Column("ram"), Column("disk")]
    if any(row["gpu"] for row in rows):
        columns.append(Column("_gpu", "gpu"))
    if is_long or len({row["market"] for row in rows}) > 1:
        columns.append(Column("market"))
    if is_long:
        columns += [Column("tags"), Column("arch"), Column("slots"), Column("boot")]
    columns.append(Column("_price", "price/h"))
    if with_excluded and not is_long:
        return [*columns, Column("_said", "slot/h, or why not")]
    columns.append(Column("_cost", "slot/h"))
    if is_long or any(row["eviction"] for row in rows):
        columns.append(Column("_eviction", "evicted"))
    if any(row["available"] is not None for row in rows):
        columns.append(Column("available", "free"))
    return [*columns, Column("excluded", "why not")] if with_excluded else columns


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """A flavor, and where it is sold.

    Raises:
        BadInput: nobody sells one of that name.
    """
    notes = _fresh(engine)
    found = engine.flavors(args.flavor, provider=args.provider, market="any")
    out = [
        one
        for one in found.excluded
        if one.offer.flavor.name == args.flavor and args.provider in (None, one.offer.flavor.provider)
    ]
    if not found.ranked and not out:
        raise BadInput(f"nobody sells a flavor {args.flavor!r}. What is sold: scitq flavor list --limit 0")
    offers = [*(one.offer for one in found.ranked), *(one.offer for one in out)]
    rows = [*(_row(one, number) for number, one in enumerate(found.ranked, 1)), *(_out(one) for one in out)]
    lines = []
    for provider in sorted({one.flavor.provider for one in offers}):
        own = next(one for one in offers if one.flavor.provider == provider)
        lines.append(f"{args.flavor} of {provider}: {_has(own)}")
    now = facts.now_ms()
    cells = [["provider", "region", "market", "price/h", "slot/h", "evicted", "free", ""]]
    cells += [
        [row["provider"], row["region"], row["market"], row["_price"], row["_cost"] or "", row["_eviction"],
         shown(row["available"], now), row["excluded"] or ""]
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[n]) for line in cells) for n in range(len(cells[0]))]
    lines += [
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells),
    ]
    data = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    return Text("\n".join(map(clean, lines)), data, [*notes, *found.notes], safe=True)


def refresh(engine: Engine, args: SimpleNamespace) -> Rows:
    """Ask now."""
    if not engine.catalogue.configured():
        raise click.UsageError("no provider is configured: scitq provider add")
    reads = engine.flavor_refresh(args.provider)
    rows = []
    for one in reads:
        rows.append({
            "provider": one.provider, "what": one.what, "region": one.region or None, "state": "read" if one.has_answered else "failed",
            "read": None if one.fetched_ms is None else When(one.fetched_ms), "problem": one.problem,
            "offers": len(catalogue.offers(engine._reader(), one.provider)) if one.what == "offers" else None,
        })  # fmt: skip
    columns = [Column("provider"), Column("what"), Column("region"), Column("state"), Column("offers"), Column("read")]
    if any(row["problem"] for row in rows):
        columns.append(Column("problem", gives=True))
    failed = [row for row in rows if row["state"] == "failed"]
    shown_rows = [row for row in rows if row["what"] == "offers" or row["problem"]]
    return Rows(columns, shown_rows, code=1 if failed else 0)


# --- asking -------------------------------------------------------------------------------------------------------------------


def _filters(args: SimpleNamespace) -> str | None:
    """What was asked for, with the letters of scitq 1."""
    if args.filters and args.protofilters:
        raise click.UsageError("--protofilters is FILTERS: give one of them.")
    text: str | None = args.filters or args.protofilters
    least = [
        f"{item}>={value:g}" for item in ("cpu", "ram", "disk") if (value := getattr(args, f"min_{item}")) is not None
    ]
    if not least:
        return text
    return ":".join([*([text] if text and text != "auto" else []), *least])


def _fresh(engine: Engine) -> list[str]:
    """Ask whoever was not asked for too long; what is to be said of how old what is shown is."""
    if not engine.catalogue.configured():
        return ["No provider is configured: nothing can be rented. scitq provider add"]
    if not engine._store.read_only:
        engine.flavor_refresh(only_old=True, timeout=PATIENCE_S)
    now, notes = facts.now_ms(), []
    for read in engine.flavor_reads():
        if read.problem is not None:
            old = (
                "nothing of it is known"
                if read.fetched_ms is None
                else f"what it sold {age((now - read.fetched_ms) / 1000)}"
            )
            notes.append(f"{read.provider}: {read.problem} ({old})")
    return notes


def _told(found: Ranking, limit: int, with_excluded: bool) -> list[str]:
    """What is not in the table."""
    notes = []
    if limit and len(found.ranked) > limit:
        notes.append(f"{len(found.ranked) - limit} more would do: --limit 0")
    left = len(found.excluded) - (limit if limit else len(found.excluded))
    if with_excluded and left > 0:
        notes.append(f"{several(left, 'more offer')} would not do: --limit 0")
    if not with_excluded and found.excluded:
        notes.append(f"{several(len(found.excluded), 'offer')} would not do: --excluded")
    if not found.ranked and found.excluded:
        most = Counter(one.reason for one in found.excluded).most_common(3)
        notes.append("Nothing would do. Mostly: " + "; ".join(f"{reason} ({count})" for reason, count in most))
    return notes


# --- telling ------------------------------------------------------------------------------------------------------------------


def _row(one: Ranked, place: int) -> dict[str, Any]:
    cost = None if one.cost is None else round(one.cost, 6)
    return {
        **_facts(one.offer), "available": one.available, "place": place, "slots": one.slots, "cost": cost,
        "cost_currency": one.currency, "boot": Seconds(one.boot_s),
        "expected_eviction": round(one.eviction, 4), "why": one.why, "excluded": None,
        "_cost": None if cost is None else f"{cost:.4f} {one.currency}", "_said": _said(one),
    }  # fmt: skip


def _out(one: Excluded) -> dict[str, Any]:
    return {
        **_facts(one.offer), "place": None, "slots": None, "cost": None, "cost_currency": None, "boot": None, "expected_eviction": None,
        "why": None, "excluded": one.reason, "_cost": None, "_said": one.reason,
    }  # fmt: skip


def _said(one: Ranked) -> str:
    parts = [] if one.cost is None else [f"{one.cost:.4f} {one.currency}"]
    parts += [] if one.available is None else [f"{one.available} free"]
    return ", ".join(parts)


def _facts(offer: Offer) -> dict[str, Any]:
    flavor, gpu = offer.flavor, offer.flavor.gpu
    return {
        "flavor": flavor.name, "provider": flavor.provider, "region": offer.region, "zones": list(offer.zones), "market": offer.market,
        "cpu": flavor.cpu, "ram": Bytes(flavor.ram), "disk": Bytes(offer.disk), "gpu": None if gpu is None else gpu.model,
        "gpus": 0 if gpu is None else gpu.count, "gpumem": None if gpu is None else Bytes(gpu.memory), "tags": flavor.tags,
        "arch": flavor.arch, "price": offer.price, "currency": offer.currency, "eviction": offer.eviction, "available": offer.available,
        "_gpu": None if gpu is None else f"{gpu.count:g} {gpu.model}",
        "_price": "not known" if offer.price is None else f"{offer.price:.4g} {offer.currency}", "_eviction": f"{offer.eviction:g} %/h",
    }  # fmt: skip


def _has(offer: Offer) -> str:
    machine, flavor = machine_of(offer), offer.flavor
    parts = [several(flavor.cpu, "CPU"), f"{told('ram', machine)} of memory", f"{told('disk', machine)} of disk"]
    if flavor.gpu is not None:
        parts.append(f"{flavor.gpu.count:g} {flavor.gpu.model} with {told('gpumem', machine)} each")
    parts.append(flavor.arch)
    if flavor.metal:
        parts.append("bare metal")
    if flavor.local_kind == "nvme":
        parts.append("NVMe")
    return ", ".join(parts)
