"""The user's settings: one TOML file, and environment variables that win over it. One table says what there is: SETTINGS.

The table is what the file is checked by, what `scitq config show` prints, and what the documentation is made from. No secret
belongs here, and none is accepted. Changing the file is `configfile`; the tables of providers are `configproviders`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scitq.errors import BadInput

Kind = Literal["text", "whole", "number", "flag", "words", "size"]
# What a key must not be named after: those have places of their own.
SECRET = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|credential|api_?key|access_?key|private_?key|secret_?key|consumer_?key|account_?key)s?$"
)
ELSEWHERE = (
    "secrets do not belong into this file: those of storages stand in rclone's configuration (scitq config rclone), of registries "
    "in docker's (docker login), of hosts in ~/.ssh, of clouds in their own files"
)
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_WHAT = {
    "text": "a text in quotes", "whole": "a whole number", "number": "a number", "flag": "true or false",
    "words": 'a list of texts, such as ["program", "argument"]', "size": 'a size, such as "10G"',
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One thing that can be set. `environment`: the variable that wins over the file; `otherwise`: those of other programs, which
    are looked at when neither says anything."""

    key: str
    kind: Kind
    default: Any
    help: str
    environment: str | None = None
    otherwise: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def allowed(self) -> str:
        """What its value may be, in words."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        said = _WHAT[self.kind]
        if self.most is not None:
            return f"{said} from {self.least or 0:g} to {self.most:g}"
        return said if self.least is None else f"{said} of at least {self.least:g}"

    def checked(self, value: Any) -> Any:
        """A value as it is used.

        Raises:
            BadInput: it cannot be one; the text says what may.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {
            "text": isinstance(value, str), "whole": is_number and isinstance(value, int), "number": is_number,
            "flag": isinstance(value, bool), "size": (is_number and isinstance(value, int)) or isinstance(value, str),
            "words": isinstance(value, list) and all(isinstance(word, str) and "\0" not in word for word in value),
        }  # fmt: skip
        if fits[self.kind] and self.kind == "size":
            count = _bytes(value)
            fits["size"], value = count is not None, value if count is None else count
        if fits[self.kind] and self.kind == "words":
            fits["words"] = not value or bool(value[0])
        if fits[self.kind] and self.choices:
            fits[self.kind] = value in self.choices
        if fits[self.kind] and self.kind in ("whole", "number", "size"):
            fits[self.kind] = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        if not fits[self.kind]:
            raise BadInput(f"{self.key} must be {self.allowed}, not {_said(value)}.")
        return value

    def parsed(self, text: str) -> Any:
        """A value from the text of a command line or an environment variable, checked."""
        value: Any = text
        if self.kind == "flag":
            low = text.strip().lower()
            value = True if low in _TRUE else False if low in _FALSE else text
        elif self.kind in ("whole", "number"):
            try:
                value = int(text) if self.kind == "whole" else float(text)
            except ValueError:
                value = text
        elif self.kind == "words":
            import shlex

            try:
                value = shlex.split(text)
            except ValueError as problem:
                raise BadInput(f"{self.key} must be {self.allowed}, not {_said(text)}: {problem}.") from None
        return self.checked(value)


SETTINGS: tuple[Setting, ...] = (
    Setting("file", "text", "", "The state file where none is in the folder or above it; else scitq.scitq is made there.",
            "SCITQ_FILE"),
    Setting("colour", "text", "auto", "Colours: on a terminal that has them, always, or never.", "SCITQ_COLOUR",
            choices=("auto", "always", "never")),
    Setting("pager", "text", "", "What shows answers that are longer than the screen, such as \"less\"; empty: nothing.", "SCITQ_PAGER"),
    Setting("editor", "text", "", "What edits this file (scitq config edit); empty: nano, vim or vi, the first that is there.",
            "SCITQ_EDITOR", ("VISUAL", "EDITOR")),
    Setting("send_limit", "size", 10_000_000_000, "From how much on it is warned of that files of this machine are sent to a worker "
            "(a worker may have one of its own).", "SCITQ_SEND_LIMIT"),
    Setting("money.currency", "text", "", "The currency in which prices are compared, such as \"EUR\"; empty: unlike ones never are.",
            "SCITQ_MONEY_CURRENCY"),
    Setting("money.rates", "words", [], "What one unit of other currencies is worth in it, such as [\"USD=0.92\", \"CHF=1.05\"]."),
    Setting("shell.toolbar", "flag", True, "The line at the bottom of the interactive shell.", "SCITQ_SHELL_TOOLBAR"),
    Setting("web.port", "whole", 0, "The port of scitq web, where none is given; 0: any that is free.", "SCITQ_WEB_PORT", least=0,
            most=65535),
    Setting("notifications.desktop", "flag", False, "Tell the desktop when a batch or a workflow has ended.",
            "SCITQ_NOTIFICATIONS_DESKTOP"),
    Setting("notifications.terminal", "text", "off", "Tell the terminal of whoever drives, by an escape sequence that it may know.",
            "SCITQ_NOTIFICATIONS_TERMINAL", choices=("off", "bell", "osc9", "osc777")),
    Setting("notifications.min_duration", "number", 60, "Only of what has taken so many seconds; hooks too.",
            "SCITQ_NOTIFICATIONS_MIN_DURATION", least=0),
    Setting("hooks.batch_end", "words", [], "The program, and its arguments, that is run when a batch has ended. No shell is involved."),
    Setting("hooks.workflow_end", "words", [], "The same when a workflow has ended."),
    Setting("hooks.timeout", "number", 60, "After so many seconds such a program is ended.", least=1, most=600),
)  # fmt: skip
BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
GROUPS = frozenset(setting.key.partition(".")[0] for setting in SETTINGS if "." in setting.key)


@dataclass(frozen=True)
class Value:
    """What a setting is, and who says so: `default`, `file`, or the name of an environment variable."""

    setting: Setting
    value: Any
    source: str


@dataclass(frozen=True)
class Config:
    """The settings as they are now. `problems`: what of the file (or the environment) makes no sense, and is not used."""

    path: Path
    values: Mapping[str, Value] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Who rents machines, by name: the tables [providers.NAME]."""

    def get(self, key: str) -> Any:
        """The value of a setting."""
        return self.values[key].value


def path() -> Path:
    """Where the file is, or would be."""
    if named := os.environ.get("SCITQ_CONFIG"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(base) if base and os.path.isabs(base) else Path.home() / ".config"
    return folder / "scitq" / "config.toml"


def has_colour() -> bool:
    """Whether answers may have colours: not with NO_COLOR, whatever the settings say; else as they say, or as the terminal can."""
    if os.environ.get("NO_COLOR"):
        return False
    wanted = load().get("colour")
    return wanted == "always" or (wanted == "auto" and os.environ.get("TERM") != "dumb")


def setting(key: str) -> Setting:
    """The setting of that key.

    Raises:
        BadInput: there is none; the nearest one is named.
    """
    if key not in BY_KEY:
        raise BadInput(_unknown(key))
    return BY_KEY[key]


def load() -> Config:
    """The settings of the file and the environment. What makes no sense is left out, and said in `problems`; never raises."""
    where = path()
    problems: list[str] = []
    told: dict[str, Any] = {}
    providers: dict[str, dict[str, Any]] = {}
    try:
        text: str | None = where.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as error:
        text = None
        problems.append(f"{where}: {getattr(error, 'strerror', None) or error}. It is not used.")
    if text is not None:
        told, providers, found = read(text, where)
        problems += found
    values = {}
    for one in SETTINGS:
        values[one.key] = _value(one, told, problems)
    return Config(where, values, tuple(problems), providers)


def _value(one: Setting, told: Mapping[str, Any], problems: list[str]) -> Value:
    asked = [] if one.environment is None else [one.environment]
    if one.key not in told:
        asked += one.otherwise
    for name in asked:
        word = os.environ.get(name, "")
        if not word:  # as good as not set
            continue
        try:
            return Value(one, one.parsed(word), name)
        except BadInput as problem:
            problems.append(f"environment variable {name}: {problem}")
    return Value(one, told.get(one.key, one.default), "file" if one.key in told else "default")


def read(text: str, where: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """What the text of a file says that makes sense, the providers of it, and what is wrong with the rest, with its line."""
    from scitq import configproviders
    from scitq.configfile import statements

    told: dict[str, Any] = {}
    problems: list[str] = []
    try:
        parts = statements(text)
    except BadInput as problem:
        return {}, {}, [f"{where}:{problem.parts.get('line', 1)}: {problem}"]
    providers, found = configproviders.read(text, parts, where)
    problems += found
    for part in parts:
        if _is_of_providers(part.table or ""):
            continue
        for key, value in part.values:
            if _is_of_providers(key):
                continue
            try:
                told[key] = setting(key).checked(value)
            except BadInput as problem:
                problems.append(f"{where}:{part.line}: {problem}")
        is_named = any(name.startswith(f"{part.table}.") for each in parts for name, _ in each.values)
        if part.table is not None and part.table not in GROUPS and not is_named:  # else each of its keys is told of
            problems.append(f"{where}:{part.line}: {_unknown(part.table, is_table=True)}")
    return told, providers, problems


def _is_of_providers(path: str) -> bool:
    return path.partition(".")[0] == "providers"


def _unknown(key: str, *, is_table: bool = False) -> str:
    if SECRET.search(key):
        return f"{key!r}: {ELSEWHERE}."
    import difflib  # only for who mistypes

    names = sorted(GROUPS) if is_table else [*BY_KEY]
    near = difflib.get_close_matches(key, names, 1, 0.6) or [
        name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    what = f"table [{key}]" if is_table else f"key {key!r}"
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}."
    return f"there is no {what}; {hint}"


def _bytes(value: int | str) -> int | None:
    if isinstance(value, int):
        return value if value >= 0 else None
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?\s*", value.lower())
    return None if found is None else int(float(found[1]) * _SIZES[found[2]])


def _said(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def rows(config: Config) -> Iterator[dict[str, Any]]:
    """Every setting, as tables and documents show it."""
    for value in config.values.values():
        one = value.setting
        yield {
            "key": one.key, "value": value.value, "source": value.source, "default": one.default, "allowed": one.allowed,
            "environment": [*([one.environment] if one.environment else ()), *one.otherwise], "help": one.help,
        }  # fmt: skip
