"""What a user may set of a worker elsewhere, checked. Pure. What an agent makes of it is the agent's affair."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from scitq.errors import BadInput
from scitq.submission import memory_bytes, name_of

# How long a worker may be silent before its tasks may be given to others, if nothing else was said.
LOST_AFTER_S = 3600.0
# Beyond the end of a lease, before anybody else may get its tasks: what was on its way when the link broke has arrived or died.
MARGIN_S = 60.0
# A rented machine ends itself when nobody has asked for it for so long and it has nothing to do, if nothing else was said.
ORPHAN_S = 2700.0
LEAST_ORPHAN_S = 300.0
# Names of workers are names of folders on their hosts.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def worker_name(value: Any) -> str:
    """A worker's name, checked."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadInput(
            f"a worker's name has letters, digits, '_', '-' and '.', up to 100 of them, not {value!r}. Give one with --name."
        )
    return value


def hours_of(value: Any) -> float:
    """A length of a journey, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 24 * 365:
        raise BadInput(f"hours must be a number above 0, not {value!r}.")
    return float(value)


def send_of(value: Any) -> float:
    """For how long files are sent before a journey, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise BadInput(f"send must be a number of seconds, not {value!r}.")
    return float(value)


def lost_after_s(settings: Mapping[str, Any]) -> float:
    """How long a worker with these settings may be silent."""
    return float(settings.get("lost_after", LOST_AFTER_S))


def _duration(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e9:
        raise BadInput(f"{name} must be a number of seconds from 1 on, not {value!r}.")
    return float(value)


def _orphan(name: str, value: Any) -> float:
    # A driver that has nothing to say is silent for a minute or two.
    if (seconds := _duration(name, value)) < LEAST_ORPHAN_S:
        raise BadInput(f"{name} must be a number of seconds from {LEAST_ORPHAN_S:g} on, not {value!r}.")
    return seconds


def _nice(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 19:
        raise BadInput(f"{name} must be a whole number from 0 to 19, not {value!r}.")
    return value


def _hours(name: str, value: Any) -> str:
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)", str(value).strip())
    if match is None:
        raise BadInput(f"{name} must be from when to when, such as 22:00-07:00, not {value!r}.")
    first, first_min, last, last_min = match.groups()
    if (int(first), first_min) == (int(last), last_min):
        raise BadInput(f"{name}: {value} is no time at all; leave it out for all day.")
    return f"{int(first):02}:{first_min}-{int(last):02}:{last_min}"


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be True or False, not {value!r}.")
    return value


def _flavor(name: str, value: Any) -> str:
    flavor = name_of(name, value)
    if flavor.startswith("auto"):
        raise BadInput(f"{name} is a name of your own for such machines; {value!r} is how one is looked for.")
    return flavor


def _path(name: str, value: Any) -> str:
    text = name_of(name, value)
    if not text.startswith(("/", "~/")):
        raise BadInput(f"{name} must be an absolute path on the worker, or one from ~/ on, not {value!r}.")
    return text


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "lost_after": _duration,
    "folder": _path,
    "python": _path,
    "nice": _nice,
    "hours": _hours,
    "yield_to_users": _truth,
    "suspend": _truth,
    "send_limit": memory_bytes,
    "flavor": _flavor,
    "keep_batch": _truth,
    "orphan_after": _orphan,
}
SETTINGS = tuple(_CHECKS)


def checked(name: str, value: Any) -> Any:
    """A setting's value, checked.

    Raises:
        BadInput: there is no such setting, or that is no value for it.
    """
    if name not in _CHECKS:
        raise BadInput(f"{name!r} is nothing that can be set of a worker (there are {', '.join(SETTINGS)}).")
    return _CHECKS[name](name, value)


def polite(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent is told of courtesy, in its words; empty for none."""
    words = {"nice": "nice", "hours": "hours", "yield_to_users": "yield", "suspend": "suspend"}
    return {theirs: settings[ours] for ours, theirs in words.items() if ours in settings}


def rented(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent of a rented machine is told of its end, in its words."""
    found: dict[str, Any] = {
        "orphan_after": float(settings.get("orphan_after", ORPHAN_S)),
        "end": settings.get("end", "agent"),
    }
    if settings.get("expires_ms"):
        found["expires"] = settings["expires_ms"] / 1000
    return found
