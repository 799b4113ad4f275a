"""Whether what a command printed is what its schema says: nothing missing, and nothing that is not described."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema

from scitq.shell.schemas import document
from scitq.shell.table import COMMANDS, FETCH

_ROWS = {row.path: row for row in (*COMMANDS, *FETCH)}


def conforms(path: str, found: Any) -> None:
    """The answer of a command is what its schema says."""
    schema = _ROWS[path].schema
    assert schema is not None, f"{path} has no schema"
    of_kind(schema, found)


def of_kind(name: str, found: Any) -> None:
    """A value is what a schema says."""
    problem = jsonschema.exceptions.best_match(_validator(name).iter_errors(found))
    if problem is not None:
        place = "/".join(map(str, problem.absolute_path))
        raise AssertionError(f"{name}: {problem.message[:600]} at {place!r} of {json.dumps(found)[:600]}")


def values(out: str) -> list[Any]:
    """The JSON values of an output: one, or one on each line."""
    try:
        return [json.loads(out)]
    except ValueError:
        return [json.loads(line) for line in out.splitlines()]


@functools.cache
def _validator(name: str) -> Any:
    schema = document(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema), format_checker=jsonschema.FormatChecker())


def _closed(schema: Any) -> Any:
    """The same, without room for fields that it does not describe."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
