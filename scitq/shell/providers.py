"""`scitq provider …`: who rents machines, as your settings say it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq import config, configfile, providing
from scitq.saying import clean, several
from scitq.shell.answers import Column, Rows, Text


def listed(_: None, args: SimpleNamespace) -> Rows:
    """The providers of the settings."""
    rows = [_facts(one) for one in providing.provider_list()]
    for row in rows:
        row["_said"] = ", ".join(f"{key} = {_shown(value)}" for key, value in row["settings"].items())
    notes = (
        []
        if rows
        else [f"No providers. Kinds: {', '.join(providing.provider_kinds())}. scitq provider add NAME --kind KIND"]
    )
    return Rows(
        [Column("provider"), Column("kind"), Column("_said", "settings", gives=True)], rows, notes, head=bool(rows)
    )


def check(_: None, args: SimpleNamespace) -> Text:
    """How they stand. Exit code 1 if one cannot be rented from."""
    found = providing.provider_check(*args.names or ())
    rows: list[dict[str, Any]] = []
    for one in found:
        about = {"provider": one.name, "kind": one.kind, "regions": list(one.regions)}
        for problem in one.problems:
            rows.append({**about, "status": problem.severity, "text": problem.what, "todo": problem.fix or None})
        if not one.problems:
            said = f"in order; {several(len(one.regions), 'region')}: {', '.join(one.regions)}"
            rows.append({**about, "status": "ok", "text": said, "todo": None})
    width = max((len(one.name) for one in found), default=0)
    lines = []
    for row in rows:
        lines.append(f"{row['status']:7}  {row['provider']:{width}}  {clean(row['text'])}")
        if row["todo"]:
            lines.append(f"{'':7}  {'':{width}}  -> {clean(row['todo'])}")
    notes = [*config.load().problems] + ([] if rows else ["No providers. scitq provider add NAME --kind KIND"])
    return Text("\n".join(lines), rows, notes, code=0 if all(one.is_sound for one in found) else 1, safe=True)


def add(_: None, args: SimpleNamespace) -> Text:
    """Write one into the settings."""
    if not args.kind:
        raise click.UsageError(f"--kind is needed: {', '.join(providing.provider_kinds())}.")
    settings = providing.parsed(args.kind, args.settings or ())
    made = providing.provider_add(args.name, args.kind, hosts=tuple(args.host or ()), **settings)
    notes = [f"Whether it can be rented from: scitq provider check {made.name}"]
    return Text(f"Provider {made.name} is in {config.path()}.", _facts(made), notes)


def remove(_: None, args: SimpleNamespace) -> Text:
    """Take one out of the settings."""
    there = {one.name: one for one in providing.provider_list()}
    providing.provider_remove(args.name)
    one = there.get(args.name)
    data = _facts(one) if one is not None else {"provider": args.name, "kind": "", "settings": {}}
    return Text(f"Provider {args.name} is not in {config.path()} any more.", data)


def _facts(one: providing.Configured) -> dict[str, Any]:
    return {
        "provider": one.name, "kind": one.kind, "settings": {key: value for key, value in one.settings.items() if key != "kind"},
    }  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    return configfile.shown(value)
