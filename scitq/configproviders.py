"""The tables `[providers.NAME]` of the settings: who rents machines. What each may say, and with which line it is told of.

What kinds of plug-ins understand is theirs to check; that no secret stands there is checked for all.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scitq.config import ELSEWHERE, SECRET, Setting
from scitq.configfile import Statement
from scitq.errors import BadInput

TABLE = "providers"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
# Of every provider.
COMMON: tuple[Setting, ...] = (
    Setting("kind", "text", "", "Who it is: fake, local, ssh, or what a plug-in adds."),
    Setting("market", "text", "", "What is rented where nothing else is said.", choices=("ondemand", "spot")),
    Setting("regions", "words", [], "Only these of its regions are used."),
    Setting("preferred_regions", "words", [], "Regions that come first, the best first; % stands for any letters."),
    Setting("max_machines", "whole", None, "Never more machines at once than so many.", least=0),
    Setting("image", "text", "", "What machines without a GPU start from, in the provider's own words."),
    Setting("gpu_image", "text", "", "What machines with a GPU start from."),
    Setting("currency", "text", "EUR", "Of the prices that are declared here."),
    Setting(
        "largest_disk",
        "size",
        None,
        'Disks up to this size are asked for where a flavor has less than is needed, such as "2T".',
    ),
    Setting("disk_price", "number", 0, "What a GB of them costs a month.", least=0),
)
# Tables of numbers below it: what is meant by their keys.
NUMBERS: Mapping[str, str] = {
    "prices": "prices an hour on demand that the provider does not tell, by FLAVOR or REGION/FLAVOR",
    "spot_prices": "the same on the spot market",
    "quotas": "limits that the provider does not tell, by FAMILY or REGION/FAMILY",
}
FAULT: tuple[Setting, ...] = (
    Setting("call", "text", "", "The call that goes wrong; * for any."),
    Setting("fault", "text", "", "How."),
    Setting("times", "whole", 1, "How often; -1: always.", least=-1),
    Setting("skip", "whole", 0, "After so many that go well.", least=0),
    Setting("for_s", "number", None, "For so many seconds.", least=0),
    Setting("value", "number", None, "How long, how many.", least=0),
    *(Setting(key, "text", "", "Only then.") for key in ("region", "flavor", "market", "name")),
)
HOST: tuple[Setting, ...] = (
    Setting("host", "text", "", "A name of the SSH configuration, or an address."),
    Setting("user", "text", "", "Who logs in."),
    Setting("port", "whole", None, "Its port.", least=1, most=65535),
    Setting("slots", "whole", 1, "How many may use it at once.", least=1, most=100),
    Setting("cost", "number", 0, "What an hour of it is reckoned at.", least=0),
    Setting("tags", "text", "", "Letters: G (GPU), M (bare metal), N (NVMe)."),
    Setting("hours", "text", "", "When it launches tasks, by its own clock: 22:00-07:00."),
    Setting("nice", "whole", None, "How far its tasks stand back.", least=0, most=19),
    Setting("yield_to_users", "flag", False, "Whether it launches nothing while somebody is logged in."),
)
# Of the kinds that come with scitq; lists of tables have the settings of one.
KINDS: Mapping[str, tuple[Setting, ...]] = {
    "fake": (
        Setting("folder", "text", "", "Where it is kept; else beside the state file."),
        Setting("machines", "text", "local", "What its machines are.", choices=("local", "hosts")),
        Setting("boot_s", "number", 0, "How long machines take to boot.", least=0),
        Setting("delete_s", "number", 0, "How long machines take to go.", least=0),
        Setting("notice_s", "number", 120, "How long before they are taken back machines are told.", least=0),
        Setting("tags", "flag", True, "Whether machines have tags."),
        Setting("bare", "flag", False, "Whether it sells nothing until it is told."),
    ),
    "azure": (
        Setting("subscription", "text", "", "Its id; else AZURE_SUBSCRIPTION_ID, or the one that `az login` chose."),
        Setting("resource_group", "text", "", "The resource group to use; else scitq makes one per state file."),
        Setting(
            "identity",
            "text",
            "user",
            "Who asks: a managed identity is looked for on machines of Azure only.",
            choices=("user", "managed"),
        ),
        Setting("endpoint", "text", "", "Where Azure's management is, where it is not the public one."),
        Setting("price_list", "text", "", "Where the list of prices is."),
    ),
    "local": (
        Setting("machines", "whole", 1, "How many workers it lends.", least=1, most=100),
        Setting("flavor", "text", "local", "What its flavor is called."),
        Setting("cost", "number", 0, "What an hour of one is reckoned at.", least=0),
    ),
    "ssh": (Setting("region", "text", "local", "What its region is called."),),
}
LISTS: Mapping[str, Mapping[str, tuple[tuple[Setting, ...], tuple[str, ...]]]] = {
    "fake": {"script": (FAULT, ("call", "fault"))},
    "ssh": {"hosts": (HOST, ("host",))},
}


@dataclass
class _Table:
    """One provider's table as it is being read."""

    name: str
    lines: Mapping[str, int]
    where: Path
    problems: list[str] = field(default_factory=list)

    def say(self, key: str, problem: object) -> None:
        """Note a problem with the line of a key, or of what is above it."""
        path = f"{TABLE}.{self.name}.{key}" if key else f"{TABLE}.{self.name}"
        while path not in self.lines and "." in path:
            path = path.rpartition(".")[0]
        self.problems.append(f"{self.where}:{self.lines.get(path, 1)}: {problem}")


def read(text: str, parts: Sequence[Statement], where: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The tables of a file that is TOML, those that make sense; and what is wrong. Of one that has no sound kind nothing is used."""
    tables = tomllib.loads(text).get(TABLE, {})
    lines = _lines(parts)
    if not isinstance(tables, dict):
        return {}, [f"{where}:{lines.get(TABLE, 1)}: {TABLE} must be tables: [{TABLE}.NAME]."]
    found, problems = {}, []
    for name, table in tables.items():
        one = _Table(name, lines, where)
        if (sound := _read(one, table)) is not None:
            found[name] = sound
        problems += one.problems
    return found, problems


def _read(one: _Table, table: Any) -> dict[str, Any] | None:
    if not isinstance(table, dict):
        one.say("", f"{TABLE}.{one.name} must be a table: [{TABLE}.{one.name}].")
        return None
    if NAME.fullmatch(one.name) is None:
        one.say("", f"{one.name!r} cannot be a provider's name: letters, digits, - and _, a letter first, 40 at most.")
        return None
    secrets = [key for key in _keys(table) if SECRET.search(key.rpartition(".")[2])]
    for key in secrets:
        one.say(key, f"{key!r}: {ELSEWHERE}.")
    kind = table.get("kind")
    if not isinstance(kind, str) or not kind:
        one.say("kind", f'{TABLE}.{one.name} needs a kind, such as kind = "ssh".')
        return None
    if secrets:
        return None
    known = {each.key: each for each in (*COMMON, *KINDS.get(kind, ()))}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in NUMBERS:
            found[key] = dict(_numbers(one, key, value))
        elif key in LISTS.get(kind, {}):
            settings, needed = LISTS[kind][key]
            found[key] = list(_rows(one, key, value, settings, needed))
        elif key in known:
            found |= _checked(one, key, known[key], value)
        elif kind in KINDS:
            allowed = sorted({*known, *NUMBERS, *LISTS.get(kind, {})})
            one.say(key, f"there is no {key!r} for a provider of kind {kind}; there are: {', '.join(allowed)}.")
        else:
            found[key] = value
    return found


def _checked(one: _Table, key: str, setting: Setting, value: Any) -> dict[str, Any]:
    try:
        return {setting.key: replace(setting, key=f"{TABLE}.{one.name}.{key}").checked(value)}
    except BadInput as problem:
        one.say(key, problem)
        return {}


def _numbers(one: _Table, key: str, value: Any) -> Iterator[tuple[str, float]]:
    if not isinstance(value, dict):
        one.say(key, f"{TABLE}.{one.name}.{key} must be a table of {NUMBERS[key]}.")
        return
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
            one.say(f"{key}.{name}", f"{TABLE}.{one.name}.{key}.{name} must be a number of at least 0.")
        else:
            yield name, number


def _rows(
    one: _Table, key: str, value: Any, settings: tuple[Setting, ...], needed: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    known = {each.key: each for each in settings}
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        one.say(key, f"{TABLE}.{one.name}.{key} must be tables: [[{TABLE}.{one.name}.{key}]].")
        return
    for row in value:
        found: dict[str, Any] = {}
        for name, each in row.items():
            if name in known:
                found |= _checked(one, f"{key}.{name}", known[name], each)
            else:
                one.say(f"{key}.{name}", f"there is no {name!r} in {key}; there are: {', '.join(known)}.")
        if missing := [name for name in needed if not found.get(name)]:
            one.say(key, f"each of {TABLE}.{one.name}.{key} needs {' and '.join(missing)}.")
        else:
            yield found


def _keys(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every key, however deep."""
    for key, value in table.items():
        yield f"{above}{key}"
        for row in value if isinstance(value, list) else [value]:
            if isinstance(row, dict):
                yield from _keys(row, f"{above}{key}.")


def _lines(parts: Sequence[Statement]) -> dict[str, int]:
    """Where what is said first."""
    found: dict[str, int] = {}
    for part in parts:
        for path in [*([part.table] if part.table is not None else []), *(name for name, _ in part.values)]:
            while path:
                found.setdefault(path, part.line)
                path = path.rpartition(".")[0]
    return found
