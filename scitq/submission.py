"""The arguments of a submission, checked: what comes out is what the state file holds. Nothing here touches a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scitq.container import check_image, check_options
from scitq.errors import BadInput

# What `Engine.set_batch` may set.
BATCH_SETTINGS = (
    "shell", "retry", "retry_delay", "run_timeout", "priority", "env", "tags", "cpus", "memory", "gpus", "input", "resource",
    "overwrite", "keep_failed", "skip_if_exists", "stage_in_timeout", "container", "container_options", "retry_memory",
    "retry_timeout", "use_cache",
)  # fmt: skip
# What an edit takes away by saying None.
CLEARED_BY_NONE = ("run_timeout", "output", "stage_in_timeout", "container", "retry_memory", "retry_timeout")
# What `retry=` may limit.
CAUSES = ("exit", "timed_out", "out_of_memory", "stage_in", "collect", "any")
NO_MEMORY = "retry_memory= multiplies memory=, which is not given: say what the first try may use."
NO_CONTAINER = "container_options= are for a container: give container= too."
# Version 1's names, and ours.
V1_NAMES = {"download_timeout": "stage_in_timeout", "required_tasks": "requires"}


def conditions(given: Mapping[str, Any]) -> dict[str, Any]:
    """The spec's fields beyond the command, checked. None means: not given.

    Raises:
        BadInput: an argument is unknown, or makes no sense.
    """
    fields: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _CHECKS:
            raise BadInput(f"a task has no argument {key!r}.")
        elif value is not None:
            fields[key] = _CHECKS[key](key, value)
    return fields


def whole(name: str, value: Any) -> int:
    """A whole number of 0 or more, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise BadInput(f"{name} must be a whole number of 0 or more, not {value!r}.")
    return value


def _retry(name: str, value: Any) -> int | dict[str, Any]:
    """A number of further tries, or such numbers by cause. Codes become texts, as the file will have them."""
    if not isinstance(value, Mapping):
        return whole(name, value)
    found: dict[str, Any] = {}
    for cause, limit in value.items():
        if cause not in CAUSES:
            raise BadInput(f"{name}: {cause!r} is no cause of a failure (there are {', '.join(CAUSES)}).")
        if cause == "exit" and isinstance(limit, Mapping):
            found[cause] = {str(_code(name, code)): whole(f"{name} after exit {code}", n) for code, n in limit.items()}
        elif cause == "exit" and isinstance(limit, list | tuple | set | frozenset | range):
            found[cause] = [_code(name, code) for code in limit]
        else:
            found[cause] = whole(f"{name} after {cause}", limit)
    return found or 0


def _code(name: str, code: Any) -> int:
    code = int(code) if isinstance(code, str) and code.isdecimal() else code
    if isinstance(code, bool) or not isinstance(code, int) or not 1 <= code <= 255:
        raise BadInput(f"{name}: an exit code of a failure is a number from 1 to 255, not {code!r}.")
    return code


def _factor(name: str, value: Any) -> float:
    """By how much something grows from try to try."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 1000:
        raise BadInput(f"{name} must be a factor above 1, such as 2.0, not {value!r}.")
    return float(value)


def priority_of(value: Any) -> int:
    """A priority, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 31:
        raise BadInput(f"priority must be a whole number, not {value!r}.")
    return value


def name_of(what: str, value: Any) -> str:
    """A name, checked: one line of valid Unicode."""
    if not isinstance(value, str) or not value.strip() or "\0" in value or "\n" in value:
        raise BadInput(f"{what} must be a line of text, not {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} {value!r} is not valid Unicode.") from None
    return value


def _seconds(name: str, value: Any) -> float:
    """A wait; 0 is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise BadInput(f"{name} must be a number of seconds of 0 or more, not {value!r}.")
    return float(value)


def _limit(name: str, value: Any) -> float:
    """A limit of time; 0 would let nothing run."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e10:
        raise BadInput(f"{name} must be a number of seconds above 0, not {value!r}.")
    return float(value)


def _environment(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{name} must be a mapping of names to values, not {type(value).__name__}.")
    env = {}
    for key, text in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise BadInput(f"{name}: {key!r} cannot be the name of a variable.")
        text = str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text
        text = os.fspath(text) if isinstance(text, os.PathLike) else text
        if not isinstance(text, str) or "\0" in text:
            raise BadInput(f"{name}: the value of {key} must be text without NUL bytes.")
        env[key] = text
    return env


def _tags(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): str(text) for key, text in value.items()}
    if isinstance(value, str):
        return {value: ""}
    if not isinstance(value, Iterable):
        raise BadInput(f"{name} must be a mapping or a list of words, not {type(value).__name__}.")
    return {str(key): "" for key in value}


def _cpus(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise BadInput(f"{name} must be a number (0: nothing in particular), not {value!r}.")
    return float(value)


def _python(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]+\.[0-9]+", value):
        raise BadInput(f"{name} must be a minor version such as '3.12', not {value!r}.")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be True or False, not {value!r}.")
    return value


def _gpus(name: str, value: Any) -> int:
    return whole(name, value)


_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def memory_bytes(name: str, value: Any) -> int:
    """An amount of memory: a number of bytes (0: nothing in particular), or text such as `16G`, `500 MB`, `2GiB`."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", value.lower())
        if match and match[2] in _UNITS:
            value = int(float(match[1]) * _UNITS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 60:
        raise BadInput(f"{name} must be a number of bytes, or an amount such as '16G', not {value!r}.")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "retry": _retry,
    "retry_memory": _factor,
    "retry_timeout": _factor,
    "retry_delay": _seconds,
    "run_timeout": _limit,
    "env": _environment,
    "tags": _tags,
    "cpus": _cpus,
    "memory": memory_bytes,
    "gpus": _gpus,
    "python": _python,
    "overwrite": _flag,
    "keep_failed": _flag,
    "skip_if_exists": _flag,
    "stage_in_timeout": _limit,
    "container": check_image,
    "container_options": check_options,
    "use_cache": _flag,
}
