"""The arguments of a submission, checked: what comes out is what the state file holds. Nothing here touches a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from scitq.errors import BadInput, NotSupported

_NOT_YET = {
    "input": "stage 3 (data)", "resource": "stage 3 (data)", "output": "stage 3 (data)", "stage_in_timeout": "stage 3 (data)",
    "container": "stage 4 (containers)", "container_options": "stage 4 (containers)", "use_cache": "stage 4 (cache)",
    "cpus": "stage 2 (resources)", "memory": "stage 2 (resources)", "gpus": "stage 2 (resources)",
}  # fmt: skip


def conditions(given: dict[str, Any]) -> dict[str, Any]:
    """The spec's fields beyond the command, checked; unknown arguments are refused."""
    fields: dict[str, Any] = {}
    for key, value in given.items():
        if key == "retry":
            if whole("retry", value):
                fields["retry"] = int(value)
            elif value == 0:
                fields["retry"] = 0
        elif key == "retry_delay":
            fields["retry_delay"] = _seconds(key, value, zero=True)
        elif key == "run_timeout":
            fields["run_timeout"] = None if value is None else _seconds(key, value, zero=False)
        elif key == "env":
            fields["env"] = {} if value is None else _environment(value)
        elif key == "tags":
            fields["tags"] = {} if value is None else _tags(value)
        elif key in _NOT_YET:
            if value is not None and value is not False and value not in ((), [], "", {}):
                raise NotSupported(
                    f"{key}= is not there yet: it comes with {_NOT_YET[key]}. Nothing was queued.", argument=key
                )
        else:
            raise BadInput(f"submit has no argument {key!r}.")
    return fields


def whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise BadInput(f"{name} must be a whole number of 0 or more, not {value!r}.")
    return value


def _seconds(name: str, value: Any, *, zero: bool) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (0 <= value < 1e10)
        or (value == 0 and not zero)
    ):
        raise BadInput(f"{name} must be a number of seconds {'of 0 or more' if zero else 'above 0'}, not {value!r}.")
    return float(value)


def name_of(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value or "\n" in value:
        raise BadInput(f"{what} must be a line of text, not {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} {value!r} is not valid Unicode.") from None
    return value


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadInput(f"env must be a mapping of names to values, not {type(value).__name__}.")
    env = {}
    for key, text in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise BadInput(f"env: {key!r} cannot be the name of a variable.")
        text = str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text
        text = os.fspath(text) if isinstance(text, os.PathLike) else text
        if not isinstance(text, str) or "\0" in text:
            raise BadInput(f"env: the value of {key} must be text without NUL bytes.")
        env[key] = text
    return env


def _tags(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): str(text) for key, text in value.items()}
    if isinstance(value, str):
        return {value: ""}
    return {str(key): "" for key in value}


def priority_of(value: Any) -> int:
    """A priority, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 31:
        raise BadInput(f"priority must be a whole number, not {value!r}.")
    return value
