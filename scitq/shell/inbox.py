"""`scitq notices`, and what `scitq status` says of them: what needs a person, and the commands that would help."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.noticing import Notice
from scitq.shell import facts
from scitq.shell.answers import Text, When, age, clean, several
from scitq.shell.show import Screen

SHOWN = 5
# The first line of `status` and its last say that already.
_SAID = "driver:none"


def notices(engine: Engine, args: SimpleNamespace) -> Text:
    """Show them, or put some aside."""
    screen: Screen = args.screen
    if args.dismiss and args.all:
        raise click.UsageError("--all and --dismiss are two things: one at a time.")
    if args.dismiss:
        aside = [engine.dismiss(key) for key in args.dismiss]
        said = [f"{clean(one.key)} is put aside until it changes." for one in aside]
        return Text("\n".join(said), [data_of(one) for one in aside])
    found = engine.notices(dismissed=args.all)
    if screen.is_terminal and not screen.as_json:
        engine.notices_seen([one for one in found if not one.is_dismissed])
    if not found:
        return Text("Nothing needs you.", [])
    again = facts.command_for(engine, "notices --dismiss KEY")
    return Text(
        "\n\n".join(_whole(engine, one) for one in found), [data_of(one) for one in found], [f"To put one aside until it changes: {again}"],
        folds=True, safe=True,
    )  # fmt: skip


def _whole(engine: Engine, notice: Notice) -> str:
    """A notice with all that could be done about it."""
    head = [clean(_typed(notice.key))]  # as --dismiss takes it
    if notice.is_dismissed:
        head.append("put aside")
    elif notice.is_new:
        head.append("new")
    if notice.since_ms is not None:
        head.append(age((facts.now_ms() - notice.since_ms) / 1000))
    lines = [" · ".join(head), f"  {clean(notice.text)}"]
    width = max((len(action.label) for action in notice.actions), default=0)
    lines += [f"  {action.label:{width}}  {clean(command_of(engine, action.words))}" for action in notice.actions]
    return "\n".join(lines)


def command_of(engine: Engine, words: Sequence[str]) -> str:
    """The command line of an action, as one would type it here."""
    return facts.command_for(engine, " ".join(map(_typed, words)))


def _typed(word: str) -> str:
    """A word for a shell; a condition with quotes in it as a person would type it."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def lines(engine: Engine, found: Sequence[Notice], screen: Screen) -> list[str]:
    """What `status` says of them."""
    said = [one for one in found if one.key != _SAID]
    head = f"{several(len(said), 'notice')}: "
    text = []
    for number, notice in enumerate(said[:SHOWN]):
        todo = f" {command_of(engine, notice.actions[0].words)}" if notice.actions else ""
        text.append((head if number == 0 else " " * len(head)) + f"{notice.text.rstrip('.')}.{todo}")
    if len(said) > SHOWN:
        text.append(f"… and {len(said) - SHOWN} more: {facts.command_for(engine, 'notices')}")
    if screen.is_terminal and not screen.as_json and said:
        engine.notices_seen(said[:SHOWN])
    return text


def data_of(notice: Notice) -> dict[str, Any]:
    """A notice for JSON."""
    return {
        "key": notice.key, "kind": notice.kind, "text": notice.text, "new": notice.is_new, "dismissed": notice.is_dismissed,
        "since": None if notice.since_ms is None else When(notice.since_ms), "about": dict(notice.about),
        "actions": [{"label": action.label, "words": list(action.words)} for action in notice.actions],
    }  # fmt: skip
