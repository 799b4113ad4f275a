"""What the program knows of itself, as Markdown for the pages: commands, exit codes, settings, environment, files, errors.

The manual page is made of the same rows by `make_man`. Nothing of scitq is run for it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scitq import config, configproviders, errors
from scitq.shell import schemas
from scitq.shell.schemas.kinds import DEFINITIONS
from scitq.shell.table import COMMANDS, FETCH, Argument, Command, Option
from scitq.shell.table.codes import EXIT_CODES, FETCH_CODES

ENVIRONMENT = (
    ("SCITQ_FILE", "the state file, where no `-f` is given"),
    ("SCITQ_CONFIG", "the file of your settings, instead of `~/.config/scitq/config.toml`"),
    ("SCITQ_SSH", "the ssh program and its options, for `promote`, `worker shell`, `task enter`: `ssh -F my_config`"),
    ("SCITQ_CACHE_CARRY", "how much of a cached result may be copied through this machine: `10G` (1 GB if not set)"),
    ("SCITQ_INSECURE_REGISTRIES", "registries of images without TLS: `host:port,…`"),
    ("SCITQ_CONTAINER_ENGINE", "on a worker: which program runs containers there, `docker`, `podman`, `apptainer` or `singularity`"),
    ("NO_COLOR", "set to anything: no colours"),
    ("XDG_CONFIG_HOME", "where your configuration is; `~/.config` if not set"),
    ("XDG_CACHE_HOME", "where what can be made again is kept; `~/.cache` if not set"),
)  # fmt: skip
FILES = (
    ("lab.scitq", "the state file: the whole queue. `lab.scitq-wal` and `lab.scitq-shm` belong to it while it is open"),
    ("lab.scitq.d/", "beside it: outputs without an address, long logs, backups, the local worker"),
    ("~/.config/scitq/config.toml", "your settings: `scitq config`"),
    ("~/.config/scitq/known_hosts", "keys of hosts that you accepted"),
    ("~/.config/rclone/rclone.conf", "rclone's: the remotes that addresses name; read, never changed unasked"),
    ("~/.ssh/config", "ssh's: hosts and how to reach them; read, never changed"),
    ("~/.cache/scitq/", "what can be made again"),
    ("~/.scitq/", "on a worker: its agent, its data, and what it keeps; gone after `scitq worker delete`"),
)  # fmt: skip

_BLOCK = re.compile(r"\n\s*\n")


def visible() -> list[Command]:
    """The rows that people see, in the table's order."""
    return [row for row in (*COMMANDS, *FETCH) if not row.hidden]


def noun(row: Command) -> str:
    """The first of two words; '' for a command of one word."""
    return row.path.split()[0] if " " in row.path else ""


def insert(what: str) -> str:
    """What `<!-- scitq: WHAT -->` stands for.

    Raises:
        ValueError: there is no such thing.
    """
    if what.startswith("commands "):
        return "\n".join(_commands(what.split()[1:]))
    if what not in _INSERTS:
        raise ValueError(
            f"<!-- scitq: {what} -->: there is no such table (there are {', '.join(_INSERTS)}, commands NOUN…)."
        )
    return _INSERTS[what]()


# --- text --------------------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """A sentence of the program as Markdown shows it: nothing in it is markup but `code`."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if number % 2 else re.sub(r"([\\*_\[\]<>|#$~{}])", r"\\\1", piece) for number, piece in enumerate(pieces)
    )


def paragraphs(text: str) -> list[tuple[str, str]]:
    """A help text: ('text', sentence) for what may be wrapped, ('block', lines) for what stands as it is."""
    found = []
    for part in _BLOCK.split(inspect.cleandoc(text)):
        if part.startswith("\b"):
            found.append(("block", part[1:].strip("\n")))
        elif part.strip():
            found.append(("text", " ".join(part.split())))
    return found


def usage(row: Command) -> str:
    """`scitq task show [OPTIONS] ID`."""
    words = ["scitq", row.path, "[OPTIONS]"]
    for one in row.parameters:
        if isinstance(one, Argument):
            name = (one.metavar or one.name.upper()).strip("[]")
            words.append(name if one.required else f"[{name}]")
    return " ".join(words)


def options(row: Command) -> list[tuple[str, str]]:
    """Its own options as they are typed, each with its help."""
    return [(typed(one), one.help) for one in row.parameters if isinstance(one, Option) and not one.hidden]


def typed(one: Option) -> str:
    """`-b, --batch BATCH`."""
    value = "" if one.kind == "flag" else one.metavar or one.name.upper()
    flags = ", ".join(one.flags)
    if not value:
        return flags
    return f"{flags}{value}" if value.startswith("[=") else f"{flags} {value}"


def default(one: Option) -> str:
    """What it is if it is not given, where that is a number or word of its own."""
    return "" if one.kind == "flag" or one.default in (None, ()) else str(one.default)


def fence(text: str, language: str = "console") -> list[str]:
    """A block of code."""
    return [f"```{language}", text, "```", ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; cells are Markdown."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return [*lines, *(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |" for row in rows), ""]


def code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text.replace('|', chr(92) + '|')}`"


# --- commands ----------------------------------------------------------------------------------------------------------------

# The nouns that have a page of their own.
PAGES = {
    "task": "task", "execution": "task", "worker": "worker", "job": "worker", "batch": "batch", "recruiter": "batch",
    "workflow": "workflow", "cache": "cache", "fetch": "fetch", "flavor": "flavor", "provider": "provider",
}  # fmt: skip


def label(row: Command) -> str:
    """What a page links to it by."""
    return "cmd-" + row.path.replace(" ", "-")


def _commands(nouns: Sequence[str]) -> Iterator[str]:
    rows = visible()
    wanted = [row for row in rows if (noun(row) in nouns if nouns != ["*"] else noun(row) not in PAGES)]
    for row in wanted:
        yield from _command(row)


def _command(row: Command) -> Iterator[str]:
    yield from (f"({label(row)})=", "", f"## `scitq {row.path}`", "")
    for kind, text in paragraphs(row.help):
        yield from fence(text, "text") if kind == "block" else (plain(text), "")
    yield from fence(usage(row), "text")
    if row.aliases:
        also = ", ".join(f"`scitq {' '.join([*row.path.split()[:-1], alias])}`" for alias in row.aliases)
        yield from (f"Also: {also}.", "")
    own = [one for one in row.parameters if isinstance(one, Option) and not one.hidden]
    if own:
        yield from table(
            ("option", ""),
            (
                (code(typed(one)), plain(one.help) + (f" Default: {default(one)}." if default(one) else ""))
                for one in own
            ),
        )
    if row.examples:
        yield from fence("\n".join(f"$ {example}" for example in row.examples))
    if row.schema:
        yield from (f"With `--json`: [`{row.schema}`](#schema-{row.schema}).", "")


def _command_list() -> str:
    rows = (
        (f"[`scitq {row.path}`](#{label(row)})", plain(paragraphs(row.help)[0][1] if row.help else ""))
        for row in visible()
    )
    return "\n".join(table(("command", ""), rows))


def _pairs(pairs: Sequence[tuple[str, str]], head: str = "") -> str:
    return "\n".join(table((head, ""), ((code(name), text.replace("|", r"\|")) for name, text in pairs)))


def _exit_codes() -> str:
    of_fetch = _pairs([(code, plain(meaning)) for code, meaning in FETCH_CODES], "code")
    return "\n".join(
        [
            _pairs(EXIT_CODES, "code").replace("`other`", "other"),
            "Those of `scitq fetch` and `scitq-fetch` tell more:",
            "",
            of_fetch,
        ]
    )


def _error_tree() -> str:
    tree = inspect.cleandoc((errors.__doc__ or "").split("\n\n")[1])
    return "\n".join(fence(tree, "text"))


def _config() -> str:
    rows = (
        (
            code(one.key), f"{plain(one.help)} Its value: {plain(one.allowed)}; {_if_unset(one)}",
            f"`{one.environment}`" if one.environment else "",
        )
        for one in config.SETTINGS
    )  # fmt: skip
    return "\n".join(table(("setting", "", "variable"), rows))


def _providers() -> str:
    """What tables of providers may say: those of every kind first."""
    kinds = [("any", configproviders.COMMON), *configproviders.KINDS.items()]
    rows = [
        (kind, code(one.key), f"{plain(one.help)} Its value: {plain(one.allowed)}; {_if_unset(one)}")
        for kind, settings in kinds
        for one in settings
    ]
    rows += [("any", code(key), f"A table: {plain(help)}.") for key, help in configproviders.NUMBERS.items()]
    for kind, lists in configproviders.LISTS.items():
        for key, (settings, needed) in lists.items():
            each = ", ".join(f"{code(one.key)} ({plain(one.help.rstrip('.').lower())})" for one in settings)
            rows.append((kind, code(key), f"A list of tables: {each}. Needed: {', '.join(map(code, needed))}."))
    return "\n".join(table(("kind", "setting", ""), rows))


def _if_unset(one: config.Setting) -> str:
    shown = (
        {True: "true", False: "false"}.get(one.default, one.default) if isinstance(one.default, bool) else one.default
    )
    others = " or ".join(f"`{name}`" for name in one.otherwise)
    return (
        f"else {others} says."
        if others
        else "empty if not set."
        if shown in ("", [], None)
        else f"`{shown}` if not set."
    )


def environment() -> list[tuple[str, str]]:
    """What scitq heeds: variables of its own, and those that win over a setting."""
    known = [name for name, _ in ENVIRONMENT]
    settings = [(one.environment, f"wins over the setting `{one.key}`") for one in config.SETTINGS
                if one.environment and one.environment not in known]  # fmt: skip
    return [*ENVIRONMENT, *settings]


def _schemas() -> str:
    """Each answer with its commands, then the definitions that several share."""
    lines: list[str] = []
    for name, (title, schema) in schemas.SCHEMAS.items():
        by = ", ".join(f"[`scitq {row.path}`](#{label(row)})" for row in visible() if row.schema == name)
        lines += [
            f"(schema-{name})=",
            "",
            f"## `{name}`",
            "",
            f"{plain(title)}{f': {by}' if by else ''}.",
            "",
            *_json(schema),
        ]
    lines += ["## Shared definitions", "", "What `#/$defs/…` names.", ""]
    for name, schema in DEFINITIONS.items():
        lines += [f"### `{name}`", "", *_json(schema)]
    return "\n".join(lines)


def _json(schema: dict[str, Any]) -> list[str]:
    """A schema, a field a line."""
    fields = schema.get("properties")
    if not fields:
        return fence(json.dumps(schema, ensure_ascii=False), "json")
    told = {key: value for key, value in schema.items() if key != "properties"}
    each = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    return fence(f'{json.dumps(told, ensure_ascii=False)[:-1]}, "properties": {{\n{each}\n}}}}', "json")


def _examples() -> str:
    """examples/README.md below its title, for a page in docs/howto."""
    text = (Path(__file__).parent.parent / "examples" / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?=\w)", "](../../examples/", text.partition("\n")[2].strip()) + "\n"


_INSERTS: dict[str, Callable[[], str]] = {
    "command list": _command_list,
    "exit codes": _exit_codes,
    "error tree": _error_tree,
    "config": _config,
    "providers": _providers,
    "schemas": _schemas,
    "examples": _examples,
    "environment": lambda: _pairs(environment(), "variable"),
    "files": lambda: _pairs(FILES, "file"),
}


# --- docstrings --------------------------------------------------------------------------------------------------------------


def docstring_as_rst(lines: Sequence[str]) -> list[str]:
    """A docstring of ours as reStructuredText: indented paragraphs are examples, `Raises:` is a list of errors."""
    found: list[str] = []
    raises = False
    previous = ""
    for line in lines:
        if line == "Raises:":
            raises = True
        elif raises and line.strip():
            error, colon, why = line.strip().partition(": ")
            is_new = bool(colon) and re.fullmatch(r"[A-Z]\w+(?:, [A-Z]\w+)*", error) is not None
            found.append(f":raises {error}: {_rst(why)}" if is_new else f"    {_rst(line.strip())}")
        else:
            raises = raises and not line.strip()
            if line.startswith("    ") and not previous.strip():
                found += ["::", ""] if not (found and _in_block(found)) else []
                found.append(line)
            else:
                found.append(line if line.startswith("    ") else _rst(line))
        previous = line
    return found


def _in_block(found: Sequence[str]) -> bool:
    """Whether the last line that is not empty belongs to an example."""
    last = next((line for line in reversed(found) if line.strip()), "")
    return last.startswith("    ") and not last.strip().startswith(":")


def _rst(text: str) -> str:
    """Markup of reStructuredText in plain text, taken literally; `code` stays."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        _literal(piece) if number % 2 else re.sub(r"([*|\\])|(?<=\w)_(?!\w)", r"\\\g<0>", piece)
        for number, piece in enumerate(pieces)
    )


def _literal(piece: str) -> str:
    return f"`{piece}`"
