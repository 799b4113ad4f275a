"""What each command prints with --json, as JSON Schema (2020-12): by name in SCHEMAS, which rows of the table refer to.

Fields are never taken away or given another meaning within a major version; new ones may come. What is printed line by line
(`--follow`) is described by the schema of one line.
"""

from __future__ import annotations

import json
import re
from typing import Any

from scitq.shell.schemas.answers import SCHEMAS as SCHEMAS
from scitq.shell.schemas.kinds import DEFINITIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def document(name: str) -> dict[str, Any]:
    """A schema that stands alone: with the definitions that it uses."""
    title, schema = SCHEMAS[name]
    used: dict[str, Any] = {}
    open_ones = _named(schema)
    while open_ones:
        one = open_ones.pop()
        if one not in used:
            used[one] = DEFINITIONS[one]
            open_ones |= _named(DEFINITIONS[one])
    defs = {"$defs": {one: used[one] for one in DEFINITIONS if one in used}} if used else {}
    return {"$schema": DIALECT, "title": title, **schema, **defs}


def _named(schema: dict[str, Any]) -> set[str]:
    return set(re.findall(r'"#/\$defs/([a-z-]+)"', json.dumps(schema)))
