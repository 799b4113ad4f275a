"""`scitq config show|get|set|unset|edit|path|check`: the user's settings."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from scitq import config, configfile
from scitq.errors import BadInput
from scitq.shell.answers import Column, Rows, Text
from scitq.shell.show import Screen

_EDITORS = ("nano", "vim", "vi")
_TEMPLATE = """\
# Settings of scitq, for all your state files. What there is, and what each may be: scitq config show
# No secrets: those of storages, registries and clouds have files of their own.
"""


def show(_: None, args: SimpleNamespace) -> Rows:
    """Every setting, and who says so."""
    found = config.load()
    rows = [{**row, "_value": _shown(row["value"])} for row in config.rows(found)]
    columns = [
        Column("key"),
        Column("_value", "value", gives=True),
        Column("source", "from", gives=True, good=12),
        Column("help", gives=True, worth=40, good=16),
    ]
    there = "" if found.path.exists() else " (there is none yet)"
    return Rows(
        columns, rows, [*found.problems, f"The file is {found.path}{there}. Environment variables win over it."]
    )


def get(_: None, args: SimpleNamespace) -> Text:
    """One value."""
    one = config.setting(args.key)
    value = config.load().values[one.key]
    text = " ".join(map(shlex.quote, value.value)) if one.kind == "words" else _shown(value.value)
    return Text(text, {"key": one.key, "value": value.value, "source": value.source})


def set_value(_: None, args: SimpleNamespace) -> Text:
    """Write one value into the file; everything else in it stays as it is."""
    one = config.setting(args.key)
    if one.kind != "words" and len(args.words) != 1:
        raise BadInput(f"{one.key} is one value ({one.allowed}), not {len(args.words)}.")
    value: Any = one.checked(list(args.words)) if one.kind == "words" else one.parsed(args.words[0])
    stored = args.words[0] if one.kind == "size" else value
    path = config.path()
    configfile.write(path, configfile.changed(_text(), one.key, stored))
    return _done(one.key, f"{one.key} is {_shown(value)} from now on ({path}).")


def unset(_: None, args: SimpleNamespace) -> Text:
    """Take one value out of the file."""
    one = config.setting(args.key)
    before = _text()
    after = configfile.changed(before, one.key, None)
    if before != after:
        configfile.write(config.path(), after)
    return _done(one.key, f"{one.key} is {_shown(config.load().get(one.key))} again.")


def _done(key: str, text: str) -> Text:
    value = config.load().values[key]
    notes = (
        [f"But {value.source} says {_shown(value.value)}, and wins."] if value.source not in ("file", "default") else []
    )
    return Text(text, {"key": key, "value": value.value, "source": value.source, "path": str(config.path())}, notes)


def edit(_: None, args: SimpleNamespace) -> Text | int:
    """Open the file in an editor, and look at it afterwards."""
    screen: Screen = args.screen
    path = config.path()
    if screen.as_json or not (sys.stdin.isatty() and screen.is_terminal):
        raise BadInput(f"there is no terminal for an editor. The file is {path}; or: scitq config set KEY VALUE")
    chosen = shlex.split(config.load().get("editor")) or [name for name in _EDITORS if shutil.which(name)][:1]
    if not chosen:
        raise BadInput(f"no editor is here ({', '.join(_EDITORS)}): name one in $EDITOR, or edit {path} otherwise.")
    if not path.exists():
        configfile.write(path, _TEMPLATE)
    try:
        code = subprocess.run([*chosen, str(path)], check=False).returncode
    except OSError as error:
        raise BadInput(f"the editor {chosen[0]!r} cannot be started: {error.strerror}.") from error
    if code:
        screen.say(f"{chosen[0]} ended with {code}.")
        return 1
    return check(_, args)


def path(_: None, args: SimpleNamespace) -> Text:
    """Where the file is, or would be."""
    found = config.path()
    return Text(str(found), {"path": str(found), "exists": found.exists()})


def check(_: None, args: SimpleNamespace) -> Text:
    """What of it makes no sense. Exit code 1 if anything."""
    found = config.load()
    data = {"path": str(found.path), "exists": found.path.exists(), "problems": list(found.problems)}
    if found.problems:
        return Text("\n".join(found.problems), data, code=1)
    said = (
        f"{found.path} is in order." if found.path.exists() else f"There is no {found.path}: everything is as it comes."
    )
    return Text(said, data)


def _text() -> str:
    try:
        return config.path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return _TEMPLATE
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{config.path()} cannot be read: {error}.") from error


def _shown(value: Any) -> str:
    return configfile.shown(value) if not isinstance(value, str) or not value else value
