"""`scitq cost`, `scitq max-cost`: what rented machines have cost, and how much they may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq import money
from scitq.engine import Engine
from scitq.shell.answers import Column, Rows, Seconds, Text
from scitq.spending import Limited

NOTHING = "Nothing that costs anything was rented for this file."
ESTIMATE = "Worked out from prices; the bill of the provider holds."


def cost(engine: Engine, args: SimpleNamespace) -> Rows:
    """What was spent, in all or by something."""
    by = args.by or "all"
    if by == "step":
        by = "batch"
    found = engine.cost(by)
    rows: list[dict[str, Any]] = []
    per_hour = {one.currency: one for one in engine.spending()} if by == "all" else {}
    for one in found:
        row: dict[str, Any] = {
            "by": one.by, "id": one.id, "name": one.name, "currency": one.currency, "cost": one.amount, "idle": one.idle,
            "failed": one.failed, "run_s": None if one.run_s is None else Seconds(one.run_s), "state": one.state,
            "_name": one.name if one.name is not None else _NONE.get(by, ""), "_cost": money.said(one.amount, one.currency),
            "_run": Seconds(one.run_s) if one.run_s else "",
            "_idle": _some(one.idle, one.currency), "_failed": _some(one.failed, one.currency),
        }  # fmt: skip
        if by == "all":
            now = per_hour.get(one.currency)
            row["per_hour"] = now.per_hour if now else 0.0
            row["machines"] = now.machines if now else 0
            row["limit"] = now.limit if now else None
            row["_hour"] = _some(row["per_hour"], one.currency, per_hour=True)
            row["_limit"] = "" if row["limit"] is None else money.said(row["limit"], one.currency)
        rows.append(row)
    columns = [
        Column("_cost", "cost"),
        Column("_idle", "of it idle"),
        Column("_failed", "failed"),
        Column("_run", "run time"),
    ]
    if by == "all":
        columns = [
            columns[0], Column("_limit", "of"), *columns[1:], Column("machines"), Column("_hour", "an hour now"),
        ]  # fmt: skip
    elif by == "day":
        columns = [Column("_name", by), columns[0], Column("state")]
    else:
        columns = [Column("_name", args.by, gives=True), *columns, Column("state")]
    if by == "all":
        columns = [
            column for column in columns if column.key != "_limit" or any(row["limit"] is not None for row in rows)
        ]
    notes = [ESTIMATE] if rows else [NOTHING]
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header)


def of_machines(engine: Engine, args: SimpleNamespace) -> Rows:
    """What each machine cost."""
    args.by = "worker"
    return cost(engine, args)


# What a row without a name is about.
_NONE = {"batch": "(of no batch)", "workflow": "(of no workflow)", "task": "(idle, or of deleted tasks)"}


def _some(amount: float | None, currency: str, *, per_hour: bool = False) -> str:
    return money.said(amount, currency, per_hour=per_hour) if amount else ""


def limit(engine: Engine, args: SimpleNamespace) -> Rows | Text:
    """Say how much may be spent, or what is limited."""
    if args.amount is None:
        if args.batch or args.workflow:
            raise click.UsageError("how much? An amount, such as 15 or '15 EUR'; none takes the limit away.")
        return _limits(engine, args)
    amount = None if args.amount in ("none", "no") else args.amount
    engine.set_max_cost(amount, batch=args.batch, workflow=args.workflow)
    scope = "batch" if args.batch else "workflow" if args.workflow else "file"
    name = args.batch or args.workflow or ""
    what = f"{scope} {name}".strip() if name else engine.path.name
    data: dict[str, Any] = {
        "scope": scope,
        "name": name,
        "limit": None,
        "spent": None,
        "committed": None,
        "currency": "",
        "rank": None,
    }
    for one in engine.limits():
        if (one.scope, one.name) == (scope, name):
            data = row_of(one)
            rest = " No more is rented for it." if one.is_reached else ""
            return Text(
                f"{what} may cost {money.said(one.limit, one.currency).strip()}; {_told(one)} is spent.{rest}", data
            )
    return Text(f"{what} may cost what it does.", data)


def _limits(engine: Engine, args: SimpleNamespace) -> Rows:
    rows = [
        {**row_of(one), "_of": f"{one.scope} {one.name}".strip() + (f" {one.rank}" if one.rank else ""),
         "_limit": money.said(one.limit, one.currency).strip(), "_spent": _told(one),
         "_committed": money.said(one.committed, one.currency).strip()}
        for one in engine.limits()
    ]  # fmt: skip
    columns = [
        Column("_of", "of", gives=True),
        Column("_limit", "limit"),
        Column("_spent", "spent"),
        Column("_committed", "agreed to"),
    ]
    notes = [] if rows else ["There is no limit to what may be spent: scitq max-cost 15"]
    return Rows(columns, rows, notes, head=bool(rows))


def row_of(one: Limited) -> dict[str, Any]:
    """A limit as JSON has it."""
    return {
        "scope": one.scope, "name": one.name, "rank": one.rank, "limit": one.limit, "spent": one.spent, "committed": one.committed,
        "currency": one.currency,
    }  # fmt: skip


def _told(one: Limited) -> str:
    return money.said(one.spent, one.currency).strip()
