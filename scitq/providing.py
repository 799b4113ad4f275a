"""The providers of the user's settings, from Python: listed, checked, added, taken out. `scitq provider` is made of this.

No state file is involved: providers are the user's, as credentials are. What they rent is `renters`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scitq import config, configfile, configproviders
from scitq.errors import BadInput
from scitq.remote import providers
from scitq.remote.providers.base import Context, Problem

AT_ONCE = 8


@dataclass(frozen=True)
class Configured:
    """A provider of the settings. `settings`: what they say of it, `kind` included."""

    name: str
    kind: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Checked:
    """How a provider stands. `problems` is empty when all is well."""

    name: str
    kind: str
    problems: tuple[Problem, ...] = ()
    regions: tuple[str, ...] = field(default_factory=tuple)

    @property
    def is_sound(self) -> bool:
        """Whether it can be rented from."""
        return not any(one.severity == "error" for one in self.problems)


def provider_list() -> list[Configured]:
    """The providers that the settings have, by name."""
    return [Configured(name, str(table["kind"]), table) for name, table in sorted(providers.configured().items())]


def provider_kinds() -> list[str]:
    """The kinds that there can be: those that come with scitq, and those of plug-ins that are installed."""
    return providers.kinds()


def provider_check(*names: str) -> list[Checked]:
    """Ask providers (all of them, if none is named) whether they can be rented from: settings, plug-in, credentials, rights.

    Raises:
        BadInput: there is none of that name.
    """
    known = {one.name: one for one in provider_list()}
    for name in names:
        if name not in known:
            raise BadInput(_unknown(name, known))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_checked, [known[name] for name in dict.fromkeys(names)] if names else known.values()))


def provider_add(name: str, kind: str, *, hosts: Sequence[str] = (), **settings: Any) -> Configured:
    """Write a provider into the settings: the table `[providers.NAME]`. Credentials do not belong there.

    `hosts`: of kind ssh, as `ssh` takes them. Tables are mappings: `prices={"std-2": 0.1}`.

    Raises:
        BadInput: there is one of that name, or something makes no sense. Nothing was written then.
    """
    if configproviders.NAME.fullmatch(name) is None:
        raise BadInput(f"{name!r} cannot be a provider's name: letters, digits, - and _, a letter first, 40 at most.")
    text = _text()
    if name in configfile.tables(text, configproviders.TABLE):
        raise BadInput(f"there is a provider {name} already: scitq provider remove {name}, or scitq config edit")
    table = {"kind": kind, **settings}
    if hosts:
        table["hosts"] = [_host(one) for one in hosts]
    there = providers.kinds()
    if kind not in there:
        raise BadInput(
            f"there is no kind {kind!r} of providers; there are: {', '.join(there)}. Is its plug-in installed?"
        )
    after = configfile.appended(text, f"{configproviders.TABLE}.{name}", table)
    _, found, problems = config.read(after, config.path())
    before = config.read(text, config.path())[2]
    if fresh := [problem for problem in problems if problem not in before]:
        raise BadInput("; ".join(problem.partition(": ")[2] for problem in fresh) + " Nothing was written.")
    configfile.write(config.path(), after)
    return Configured(name, kind, found[name])


def provider_remove(name: str) -> None:
    """Take a provider out of the settings. What was rented from it stays rented, and can be deleted only while it is there.

    Raises:
        BadInput: there is none of that name.
    """
    text = _text()
    there = configfile.tables(text, configproviders.TABLE)
    if name not in there:
        raise BadInput(_unknown(name, there))
    configfile.write(config.path(), configfile.without(text, f"{configproviders.TABLE}.{name}"))


def parsed(kind: str, words: Sequence[str]) -> dict[str, Any]:
    """Settings from words: `key=value`, `prices.FLAVOR=0.1`.

    Raises:
        BadInput: one makes no sense.
    """
    known = {one.key: one for one in (*configproviders.COMMON, *configproviders.KINDS.get(kind, ()))}
    found: dict[str, Any] = {}
    for word in words:
        key, is_said, value = word.partition("=")
        table, _, name = key.partition(".")
        if not is_said or not key:
            raise BadInput(f"{word!r} is no setting: write KEY=VALUE.")
        if config.SECRET.search(key):
            raise BadInput(f"{key!r}: {config.ELSEWHERE}.")
        if table in configproviders.NUMBERS and name:
            try:
                found.setdefault(table, {})[name] = float(value)
            except ValueError:
                raise BadInput(f"{key} must be a number, not {value!r}.") from None
        elif key in known:
            found[key] = known[key].parsed(value)
        elif kind in configproviders.KINDS:
            raise BadInput(f"there is no {key!r} for a provider of kind {kind}; there are: {', '.join(sorted(known))}.")
        else:
            found[key] = value
    return found


def _host(address: str) -> dict[str, Any]:
    from scitq.remote.sshconfig import split

    user, host, port = split(address)
    return {"host": host} | ({"user": user} if user else {}) | ({"port": port} if port else {})


def _checked(one: Configured) -> Checked:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scitq" / "providers" / one.name
    context = Context(str(base), one.settings)
    problems = providers.check(one.name, one.settings, context)
    regions: tuple[str, ...] = ()
    if not any(problem.severity == "error" for problem in problems):
        provider = providers.load(one.name, one.settings, context)
        try:
            regions = tuple(provider.regions())
        except Exception as problem:  # what its check did not see
            problems = [*problems, Problem("error", str(problem))]
        finally:
            provider.close()
    return Checked(one.name, one.kind, tuple(problems), regions)


def _unknown(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    there = f"there are: {', '.join(sorted(known))}." if known else "there is none; scitq provider add"
    return f"there is no provider {name!r}; {there}"


def _text() -> str:
    try:
        return config.path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{config.path()} cannot be read: {error}.") from error
