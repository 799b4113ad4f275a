"""What was mistyped: a sentence with the nearest right word. Hidden commands and options are no hint, and nothing is run here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import click

from scitq.shell.table import COMMANDS, FETCH, Command, Option


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """The known word that was meant, perhaps: one that begins so, or looks like it."""
    words = list(known)
    begun = [one for one in words if word and one.startswith(word)]
    return begun[0] if len(begun) == 1 else next(iter(difflib.get_close_matches(word, words, 1, likeness)), None)


def command(name: str, group: str, known: Mapping[str, click.Command]) -> str:
    """There is no command of that name in a group (`scitq task`), which has these."""
    shown = [one for one, what in known.items() if not what.hidden]
    rows = [row for row in (*COMMANDS, *FETCH) if not row.hidden]
    elsewhere = [row.path for row in rows if name in (row.path.split()[-1], *row.aliases)]
    near = nearest(name, shown)
    if near is not None and near.startswith(name):
        hint = f"Did you mean: {group} {near}"
    elif elsewhere:
        hint = f"Did you mean: scitq {elsewhere[0]}"
    else:
        hint = f"There are: {', '.join(shown)}." if near is None else f"Did you mean: {group} {near}"
    return f"there is no command {name!r}. {hint}"


def option(name: str, what: click.Command | None) -> str:
    """A command has no such option."""
    options = [one for one in (what.params if what is not None else ()) if isinstance(one, click.Option)]
    shown = [flag[2:] for one in options if not one.hidden for flag in one.opts if flag.startswith("--")]
    near = nearest(name[2:], [*shown, "help"], 0.6) if name.startswith("--") else None
    return f"there is no option {name}." + (f" Did you mean --{near}?" if near else "")


def value(row: Command, given: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of an option that has only certain ones; None: nothing."""
    for one in row.parameters:
        if not isinstance(one, Option) or one.kind != "text" or (known := words_of(one)) is None or not given[one.name]:
            continue
        values = given[one.name] if one.many else [given[one.name]]
        for word in (word.strip() for each in values for word in (each.split(",") if one.many else [each])):
            if (word.lower() if one.many else word) not in known:
                near = nearest(word.lower(), known)
                hint = f" Did you mean {near}?" if near else ""
                return f"{one.flags[-1]} takes {', '.join(known[:-1])} or {known[-1]}, not {word!r}.{hint}"
    return None


def words_of(one: Option) -> list[str] | None:
    """All the values that an option may have, where they are certain words."""
    if one.takes == "state":
        from scitq.states import TaskState

        return [state.word for state in TaskState]
    return one.takes.removeprefix("words:").split(",") if (one.takes or "").startswith("words:") else None  # type: ignore[union-attr]
