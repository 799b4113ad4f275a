"""What is said to an agent, and what it says: orders as JSON lines, journal lines as values.

The agent's own side of the same words is `remote.agent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scitq.errors import BadAnswer


@dataclass(frozen=True)
class Line:
    """One journal line of an agent: its kind and its fields."""

    kind: str
    fields: Mapping[str, Any]


def lines(body: bytes) -> Iterator[Line]:
    """The journal lines in an answer to `GET /events`.

    Raises:
        BadAnswer: a line is not what an agent writes.
    """
    for raw in body.splitlines():
        try:
            fields = json.loads(raw)
            yield Line(fields["k"], fields)
        except (ValueError, KeyError, TypeError):
            raise BadAnswer(f"a line of an agent's journal makes no sense: {raw[:80]!r}") from None


def to_bytes(commands: Iterable[Mapping[str, Any]]) -> bytes:
    """Commands as newline-delimited JSON. Bytes of a command that are not UTF-8 survive as escaped surrogates."""
    return b"".join(json.dumps(command, separators=(",", ":")).encode() + b"\n" for command in commands)
