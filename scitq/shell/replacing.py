"""`scitq task update --replace OLD NEW`: the same edit in the commands of many tasks, shown as a diff before it is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq import adopting
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.selection import Selection, reworded
from scitq.shell.answers import Text, clean, several
from scitq.shell.editing import EDIT, many
from scitq.shell.show import Screen
from scitq.shell.tasks import some_of
from scitq.store import listing
from scitq.task import TaskRow

# Of so many tasks the difference is shown, and of each so many lines.
SHOWN = 3
LINES = 12


def replace(engine: Engine, args: SimpleNamespace, changes: dict[str, Any]) -> Text:
    """Put NEW in the place of OLD in commands; tasks in whose command it is not stay as they are."""
    old, new = args.replace
    if not old:
        raise click.UsageError("--replace OLD NEW: OLD is empty.")
    if "command" in changes:
        raise click.UsageError("either --command or --replace.")
    if args.where is not None and (args.ids or args.by_id or args.by_name):
        raise click.UsageError("either tasks by number or name, or --where.")
    named = args.where is None
    chosen = Selection(engine, [task.id for task in some_of(engine, args)]) if named else engine.where(args.where)
    holding = chosen.holding(old)
    if not holding.ids:
        meant = several(len(chosen), "task")
        raise BadInput(
            f"{old!r} is in no command of {meant}: nothing was changed."
            if chosen.ids
            else "no task meets that condition."
        )
    _show(engine, args.screen, holding, old, new)
    if changes or old != new:
        engine._edit_of(
            holding[0].row(), {**changes, "command": reworded(holding[0].row(), old, new)}
        )  # what is wrong is told now
    asked = SimpleNamespace(**{**vars(args), "yes": args.yes or named})
    return many(
        engine, asked, holding, EDIT, lambda them: them.update(replace=(old, new), **changes), {"command": new, **changes}, is_shown=True
    )  # fmt: skip


def _show(engine: Engine, screen: Screen, holding: Selection, old: str, new: str) -> None:
    if screen.as_json:
        return
    for row in listing.select(engine._reader(), ids=holding.ids[:SHOWN]):
        lines = adopting.diff(_text(row), _text(row, reworded(row, old, new)))
        screen.say(clean(row.label))
        for line in lines[:LINES]:
            screen.say(clean(f"  {line}"))
        if len(lines) > LINES:
            screen.say(f"  … and {len(lines) - LINES} lines more")
    if len(holding) > SHOWN:
        screen.say(f"… and {len(holding) - SHOWN:,} tasks more")


def _text(row: TaskRow, command: str | list[str] | None = None) -> str:
    """A command as a script: words as one line."""
    import shlex

    command = row.spec.command if command is None else command
    return command if isinstance(command, str) else shlex.join(command)
