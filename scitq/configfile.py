"""The user's TOML file, statement by statement: which line says what, and how one value is changed so that all else stays as it is.

Comments, order and blank lines stay. Whatever is written is read again first: a change that would not come out as it was meant
is refused. What the settings are is `config`.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scitq.errors import BadInput

_AT = re.compile(r"\(at line (\d+), column (\d+)\)|\(at end of document\)")
_BY_HAND = "Change it by hand: scitq config edit"


@dataclass
class Statement:
    """A table's head, or a value with its key: lines `line` to `end` (from 1 on, both included)."""

    line: int
    end: int
    table: str | None = None
    values: list[tuple[str, Any]] = field(default_factory=list)


def statements(text: str) -> list[Statement]:
    """The statements of a file.

    Raises:
        BadInput: it is not TOML; `line` says where.
    """
    _parsed(text)
    lines = text.splitlines()
    found: list[Statement] = []
    prefix: tuple[str, ...] = ()
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if not line or line.startswith("#"):
            at += 1
            continue
        end = at + 1
        while (data := _try("\n".join(lines[at:end]))) is None and end < len(
            lines
        ):  # a list or a text of several lines
            end += 1
        data = data or {}
        if line.startswith("["):
            prefix = _path(data)
            found.append(Statement(at + 1, end, table=".".join(prefix)))
        else:
            values = [(".".join((*prefix, *keys)), value) for keys, value in _leaves(data)]
            found.append(Statement(at + 1, end, values=values))
        at = end
    return found


def changed(text: str, key: str, value: Any) -> str:
    """The text with a key at this value; None: without the key.

    Raises:
        BadInput: it cannot be done without touching anything else.
    """
    parts = statements(text)
    lines = text.splitlines()
    there = [part for part in parts if any(name == key for name, _ in part.values)]
    if there and len(there[-1].values) > 1:  # an inline table with others in it
        raise BadInput(f"line {there[-1].line} says more than {key}. {_BY_HAND}")
    if there:
        part = there[-1]
        old = lines[part.line - 1 : part.end]
        lines[part.line - 1 : part.end] = [] if value is None else [_rewritten(old, value)]
    elif value is not None:
        _insert(lines, parts, key, value)
    new = "\n".join(lines) + "\n" if lines else ""
    wanted = {name: told for part in parts for name, told in part.values}
    wanted.pop(key, None)
    if value is not None:
        wanted[key] = value
    try:
        is_right = {name: told for part in statements(new) for name, told in part.values} == wanted
    except BadInput:
        is_right = False
    if not is_right:
        raise BadInput(f"{key} cannot be changed without changing something else. {_BY_HAND}")
    return new


def tables(text: str, table: str) -> list[str]:
    """The names of the tables below one, as they stand there.

    Raises:
        BadInput: it is not TOML.
    """
    found = _parsed(text).get(table, {})
    return list(found) if isinstance(found, dict) else []


def appended(text: str, table: str, values: Mapping[str, Any]) -> str:
    """The text with a table at its end: values, then tables of it, then lists of tables.

    Raises:
        BadInput: that makes no file.
    """
    plain = {key: value for key, value in values.items() if not _is_table(value)}
    lines = [f"[{table}]", *(f"{_key(key)} = {shown(value)}" for key, value in plain.items())]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{table}.{_key(key)}]", *(f"{_key(name)} = {shown(one)}" for name, one in value.items())]
        elif key not in plain:
            for row in value:
                lines += [
                    "",
                    f"[[{table}.{_key(key)}]]",
                    *(f"{_key(name)} = {shown(one)}" for name, one in row.items()),
                ]
    before = text.rstrip("\n")
    new = "\n".join([*([before, ""] if before else []), *lines]) + "\n"
    _parsed(new)
    return new


def without(text: str, table: str) -> str:
    """The text without a table, those below it, and the comments right above them.

    Raises:
        BadInput: it cannot be done without touching anything else.
    """
    parts, lines = statements(text), text.splitlines()
    gone: set[int] = set()
    for part in parts:
        paths = [part.table] if part.table is not None else [name for name, _ in part.values]
        within = [path == table or path.startswith(f"{table}.") for path in paths]
        if any(within) and not all(within):  # an inline table with others in it
            raise BadInput(f"line {part.line} says more than [{table}]. {_BY_HAND}")
        if any(within):
            first = part.line
            while part.table is not None and first > 1 and lines[first - 2].lstrip().startswith("#"):
                first -= 1
            gone |= set(range(first, part.end + 1))
    kept = [line for number, line in enumerate(lines, 1) if number not in gone]
    new = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")
    new = new + "\n" if new else ""
    wanted = [part.values for part in parts if not any(name.startswith(f"{table}.") for name, _ in part.values)]
    if [part.values for part in statements(new) if part.values] != [values for values in wanted if values]:
        raise BadInput(f"[{table}] cannot be taken out without changing something else. {_BY_HAND}")
    return new


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else shown(name)


def write(path: Path, text: str) -> None:
    """Replace the file, all at once. It is its user's alone."""
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{real.name}-", dir=real.parent)  # mode 0600
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, real)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.") from error


def shown(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(shown(one) for one in value) + "]"
    return '"' + "".join(_escaped(letter) for letter in str(value)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def _rewritten(old: list[str], value: Any) -> str:
    """A statement with another value: its key as it was written, and the comment behind it."""
    comment = ""
    last = old[-1]
    for at, letter in enumerate(last):
        if letter == "#" and _try("\n".join([*old[:-1], last[:at]])) is not None:
            comment = "  " + last[at:]
            break
    return f"{old[0][: _equals(old[0])]}= {shown(value)}{comment}"


def _equals(head: str) -> int:
    """Where the key ends: at the first sign that makes a statement of what is before it."""
    return next(at for at, letter in enumerate(head) if letter == "=" and _try(head[: at + 1] + " 0") is not None)


def _insert(lines: list[str], parts: list[Statement], key: str, value: Any) -> None:
    """A new line at the end of its table, which is made if there is none."""
    *table, name = key.split(".")
    said = f"{name} = {shown(value)}"
    heads = [number for number, part in enumerate(parts) if part.table is not None]
    if not table:
        before = parts[: heads[0]] if heads else parts
        if before:
            lines.insert(before[-1].end, said)
        elif heads:  # above the comments that belong to the first table
            first = parts[heads[0]].line - 1
            while first > 0 and lines[first - 1].strip():
                first -= 1
            lines[first:first] = [said, ""]
        else:
            lines.append(said)
        return
    own = [number for number in heads if parts[number].table == ".".join(table)]
    if not own:
        if lines and lines[-1].strip():
            lines.append("")
        lines += [f"[{'.'.join(table)}]", said]
        return
    later = [number for number in heads if number > own[-1]]
    last = parts[(later[0] if later else len(parts)) - 1]
    lines.insert(last.end, said)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines()) or 1
        said = _AT.sub("", str(error)).strip()
        column = f" (column {found[2]})" if found and found[2] else ""
        raise BadInput(f"this is not TOML{column}: {said}.", line=line) from error


def _try(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _path(data: dict[str, Any]) -> tuple[str, ...]:
    """The names of a table from what its head alone makes."""
    names = []
    while data:
        name, inner = next(iter(data.items()))
        names.append(name)
        data = inner[0] if isinstance(inner, list) else inner
    return tuple(names)


def _leaves(data: dict[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in data.items():
        if isinstance(value, dict) and value:
            found += [((name, *keys), leaf) for keys, leaf in _leaves(value)]
        else:
            found.append(((name,), value))
    return found
