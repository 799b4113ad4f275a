"""`scitq config rclone`: the remotes that addresses name. What may be secret is never shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq.fetch import configuration
from scitq.fetch.settings import Settings
from scitq.shell.answers import Column, Rows, Text, several
from scitq.shell.editing import Unconfirmed
from scitq.shell.show import Screen


def rclone(_: None, args: SimpleNamespace) -> Rows | Text:
    """Show, check or extend the user's rclone configuration."""
    asked = [key for key in ("show", "check", "install") if getattr(args, key)]
    if len(asked) > 1:
        raise click.UsageError("one of --show, --check and --install at a time.")
    if args.install:
        return _install(args)
    return _check() if args.check else _show()


def _show() -> Rows:
    settings = Settings()
    found = configuration.sections(configuration.names(settings), settings)
    rows = [
        {
            "remote": name, "type": section.get("type"), "settings": configuration.masked(section),
            "_settings": " ".join(f"{key}={value}" for key, value in configuration.masked(section).items() if key != "type"),
        }
        for name, section in sorted(found.items())
    ]  # fmt: skip
    notes = [f"From {settings.rclone_config_path()}; *** stands for what may be secret."]
    if not rows:
        notes = [f"{settings.rclone_config_path()} has no remotes. `rclone config` makes one."]
    return Rows(
        [Column("remote"), Column("type"), Column("_settings", "settings", gives=True)], rows, notes, head=bool(rows)
    )


def _check() -> Rows:
    found = configuration.check_each()
    rows: list[dict[str, Any]] = [
        {
            "remote": name, "ok": problem is None, "error": None if problem is None else type(problem).__name__,
            "note": None if problem is None else str(problem), "_answer": "can be listed" if problem is None else str(problem),
        }
        for name, problem in sorted(found.items())
    ]  # fmt: skip
    bad = sum(not row["ok"] for row in rows)
    notes = [] if rows else [f"{Settings().rclone_config_path()} has no remotes. `rclone config` makes one."]
    return Rows(
        [Column("remote"), Column("_answer", "answer", gives=True)], rows, notes, head=bool(rows), code=1 if bad else 0
    )


def _install(args: SimpleNamespace) -> Text:
    screen: Screen = args.screen
    merge = configuration.compare(args.install)
    data = {"file": merge.source, "into": merge.target, "new": merge.new, "changed": merge.changed, "same": merge.same}
    if not merge.new and not merge.changed:
        return Text(f"{merge.target} has all of it already: {', '.join(merge.same)}.", {**data, "done": False})
    parts = [
        f"{word}: {', '.join(names)}"
        for word, names in (("new", merge.new), ("replaced", merge.changed), ("the same already", merge.same))
        if names
    ]
    screen.say(f"Into {merge.target}: {'; '.join(parts)}. The file of before is kept beside it.")
    count = len(merge.new) + len(merge.changed)
    if not args.yes:
        question = f"Write {several(count, 'remote')}?"
        answer = screen.ask(question)
        if answer is None:
            raise Unconfirmed(f"{question} Nothing was done: there is no terminal to ask on. To do it: --yes")
        if not answer:
            return Text("", {**data, "done": False}, ["Nothing was done."], code=1)
    backup = configuration.install(args.install)
    kept = f" The old one is {backup}." if backup else ""
    text = f"{several(count, 'remote')} written to {merge.target}.{kept}"
    return Text(text, {**data, "done": True, "backup": backup})
