"""What is said to an agent, and what it says: orders as JSON lines, journal lines as values.

The agent's own side of the same words is `remote.agent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scitq.errors import BadAnswer


class Line(NamedTuple):
    """One journal line of an agent: its kind and its fields."""

    kind: str
    fields: dict[str, Any]


# Lines that are the keeper's own affair: not worth the reading.
_ITS_OWN = (b'{"k":"pid"', b'{"k":"slots"', b'{"k":"end"', b'{"k": "drop"')


def lines(body: bytes) -> list[Line]:
    """The journal lines in an answer to `GET /events` that say something to the engine.

    Raises:
        BadAnswer: a line is not what an agent writes.
    """
    ours = [raw for raw in body.splitlines() if not raw.startswith(_ITS_OWN)]
    try:
        # One call for all: an array of them. That a line holds one value, not several, is seen by their number.
        found = [Line(fields["k"], fields) for fields in json.loads(b"[" + b",".join(ours) + b"]")]
        if len(found) == len(ours):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    wrong = next((raw for raw in ours if not _is_line(raw)), body)
    raise BadAnswer(f"a line of an agent's journal makes no sense: {wrong[:80]!r}")


def _is_line(raw: bytes) -> bool:
    try:
        return "k" in json.loads(raw)
    except (ValueError, TypeError):
        return False


_encode = json.JSONEncoder(separators=(",", ":")).encode


def to_bytes(commands: Iterable[Mapping[str, Any]]) -> bytes:
    """Commands as newline-delimited JSON. Bytes of a command that are not UTF-8 survive as escaped surrogates."""
    return b"".join([_encode(command).encode() + b"\n" for command in commands])
