"""Who rents machines: one module per provider, all with the protocol of `base`. Loaded when they are used.

A provider never touches the state file, never asks anybody, never logs a secret: the engine passes it what is known, and stores
what it answers. `load` finds one by its kind among the entry points of group `scitq.providers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from scitq import config
from scitq.errors import BadRequest, ScitqError
from scitq.remote.providers.base import Context, Problem, Provider
from scitq.remote.providers.declared import with_settings

GROUP = "scitq.providers"
# Those that come with scitq; they are entry points too, and stand here for a copy that was not installed.
BUILT_IN: Mapping[str, str] = {
    "azure": "scitq.remote.providers.azure:factory",
    "fake": "scitq.remote.providers.fake:factory",
    "local": "scitq.remote.providers.local:factory",
    "ssh": "scitq.remote.providers.ssh:factory",
}
Factory = Callable[[str, Mapping[str, Any], Context], Provider]


def configured() -> dict[str, dict[str, Any]]:
    """The providers of the user's settings: the tables `[providers.NAME]`, by name."""
    return {name: dict(table) for name, table in config.load().providers.items()}


def context(side: Path, name: str, settings: Mapping[str, Any]) -> Context:
    """What a provider is given for a state file, whose side folder this is."""
    return Context(str(side / "clouds" / name), settings)


def kinds() -> list[str]:
    """The kinds that can be had: those that come with scitq, and those of plug-ins that are installed."""
    return sorted({*BUILT_IN, *_plugged()})


def load(name: str, settings: Mapping[str, Any], context: Context) -> Provider:
    """The provider of that name.

    Raises:
        BadRequest: there is none of its kind, or it cannot be loaded; the text says why.
        ProviderError: it does not want to be.
    """
    kind = str(settings.get("kind", ""))
    place = _plugged().get(kind) if kind not in BUILT_IN else BUILT_IN[kind]
    if place is None:
        raise BadRequest(
            f"provider {name}: there is no kind {kind!r} (there are: {', '.join(kinds())}). Is its plug-in installed?",
            provider=name,
        )
    try:
        module, _, attribute = place.partition(":")
        factory: Factory = getattr(import_module(module), attribute)
        found = factory(name, settings, context)
    except ScitqError:
        raise
    except Exception as problem:  # a plug-in may fail in any way
        raise BadRequest(
            f"provider {name}: its kind {kind} cannot be loaded: {type(problem).__name__}: {problem}. Is {place} what it should be?",
            provider=name,
        ) from problem
    if not isinstance(found, Provider):
        raise BadRequest(
            f"provider {name}: what {place} makes is no provider: see scitq.remote.providers.base.", provider=name
        )
    return with_settings(found, settings)


def check(name: str, settings: Mapping[str, Any], context: Context) -> list[Problem]:
    """What is wrong with a provider: its configuration, its plug-in, its credentials. Never raises."""
    try:
        provider = load(name, settings, context)
    except Exception as problem:
        return [Problem("error", str(problem))]
    try:
        return provider.check()
    except Exception as problem:  # it should not; a plug-in's fault is told, not thrown
        return [Problem("error", f"provider {name}: its check itself fails: {type(problem).__name__}: {problem}")]
    finally:
        provider.close()


def _plugged() -> dict[str, str]:
    """Kinds by entry points: where their factories are."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}
