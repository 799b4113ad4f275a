"""`scitq help`: all commands in short, a command's help, what exit codes mean, and what `--json` prints, as JSON Schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import click

from scitq.errors import BadInput
from scitq.shell import cli, wrongly
from scitq.shell.answers import Text
from scitq.shell.table import COMMANDS, FETCH, Command
from scitq.shell.table.codes import EXIT_CODES, FETCH_CODES

# What there is help about beside commands.
TOPICS = {"exit-codes": "What exit codes mean."}
_ENDING = (
    "scitq help WORD… tells more of a command, as --help after it does; scitq help exit-codes what those mean; "
    "scitq help --schema WORD… what --json prints."
)


def tell(_: object, args: SimpleNamespace) -> Text:
    """Help about what the words name; without any, all commands in short."""
    words = list(args.words)
    if words[:1] == ["scitq"]:
        words = words[1:]
    if args.schema:
        return _schema(words)
    if words == ["exit-codes"]:
        return _codes(args.screen.width)
    if not words:
        return _summary(args.screen.width)
    about, text = _of_command(words)
    return Text(text, {"about": about, "text": text}, safe=True)


def _of_command(words: Sequence[str]) -> tuple[str, str]:
    """The help of a command, or of a group of them, as `--help` after it shows it."""
    root = cli.program()
    context = click.Context(root, info_name="scitq", **root.context_settings)
    rest = list(words)
    while rest:
        here = context.command
        if not isinstance(here, click.Group):
            raise BadInput(
                f"{context.command_path} has no {rest[0]}. Its help: scitq help {' '.join(words[: -len(rest)])}"
            )
        _, found, after = here.resolve_command(context, rest)  # says what is near if there is no such command
        assert found is not None
        name = rest[: len(rest) - len(after)]
        context = click.Context(found, info_name=" ".join(name), parent=context, **found.context_settings)
        rest = after
    return context.command_path.partition(" ")[2], context.get_help()


def _summary(width: int) -> Text:
    groups: dict[str, list[str]] = {}
    rows = [row for row in (*COMMANDS, *FETCH) if not row.hidden]
    for row in rows:
        head, _, verb = row.path.partition(" ")
        groups.setdefault(head, []).extend([verb] if verb else [])
    alone = [head for head, verbs in groups.items() if not verbs]
    lines = ["Commands of one word:", *_filled(alone, 2, width), "", "Of two:"]
    for head, verbs in groups.items():
        if verbs:
            first, *more = _filled(verbs, 12, width)
            lines += [f"  {head:<10}{first[12:]}", *more]
    lines += ["", *_filled(_ENDING.split(), 0, width)]
    commands = [{"command": row.path, "help": row.help.splitlines()[0]} for row in rows]
    text = "\n".join(lines)
    return Text(text, {"about": "", "text": text, "commands": commands}, safe=True)


def _codes(width: int) -> Text:
    parts = [
        "Exit codes:",
        *_pairs(EXIT_CODES, width),
        "",
        "Of scitq fetch (and scitq-fetch):",
        *_pairs(FETCH_CODES, width),
    ]
    text = "\n".join(parts)
    data = [{"code": code, "meaning": meaning} for code, meaning in EXIT_CODES]
    of_fetch = [{"code": code, "meaning": meaning} for code, meaning in FETCH_CODES]
    return Text(text, {"about": "exit-codes", "text": text, "codes": data, "fetch": of_fetch}, safe=True)


def _pairs(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    lines: list[str] = []
    for code, meaning in pairs:
        first, *more = _filled(meaning.replace("`", "").split(), 9, width)
        lines += [f"{code:>7}  {first[9:]}", *more]
    return lines


def _filled(words: Sequence[str], indent: int, width: int) -> list[str]:
    """Words in lines; none is broken."""
    margin = " " * indent
    return textwrap.wrap(
        " ".join(words),
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _schema(words: Sequence[str]) -> Text:
    """What a command prints with --json: by the command, or by the name that the documentation has for it."""
    from scitq.shell.schemas import SCHEMAS, document

    name = _schema_name(words, SCHEMAS)
    found = document(name)
    return Text(json.dumps(found, indent=2, ensure_ascii=False), found, safe=True)


def _schema_name(words: Sequence[str], known: dict[str, Any]) -> str:
    rows: list[Command] = [row for row in (*COMMANDS, *FETCH) if not row.hidden]
    path = " ".join(words)
    for row in rows:
        *group, last = row.path.split()
        if list(words) in [[*group, name] for name in (last, *row.aliases)]:
            if row.schema is None:
                raise BadInput(f"scitq {row.path} prints no JSON: it has a terminal of its own.")
            return row.schema
    if path in known:
        return path
    of_group = [row.path for row in rows if row.schema and words and row.path.split()[:-1] == list(words)]
    if of_group:
        raise BadInput(f"which command of {path}? {', '.join(of_group)}.")
    if not words:
        raise BadInput("of which command? scitq help --schema task list. Or one of these names: " + ", ".join(known))
    near = wrongly.nearest(path, [*(row.path for row in rows if row.schema), *known])
    raise BadInput(
        f"there is no command or schema {path!r}." + (f" Did you mean: scitq help --schema {near}" if near else "")
    )
