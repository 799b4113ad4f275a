"""What a command returns: `Rows` for a table or `Text`, and the kinds of values that know how they are shown.

Values are plain; printed as text they become `4 min ago`, `31.2 GB`; printed as JSON they become ISO 8601, bytes, seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from scitq.saying import age as age
from scitq.saying import clean as clean
from scitq.saying import duration as duration
from scitq.saying import several as several
from scitq.saying import size as size


class When(int):
    """A moment, in milliseconds since 1970."""


class Seconds(float):
    """A length of time."""


class Bytes(int):
    """A size."""


@dataclass(frozen=True)
class Column:
    """A column of a table: which field, under which heading. Where the terminal is narrow, those of the lowest `worth` (0 to 99;
    where it is not said, the last ones) are left out, and those that give are cut: others never are."""

    key: str
    heading: str | None = None
    gives: bool = False
    worth: int | None = None
    # So much of what gives is shown as long as there is something cheap to leave out.
    good: int = 24


@dataclass(frozen=True)
class Rows:
    """A table. Rows may have fields without a column: JSON has them all, but those named `_…`. `notes` go to stderr."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    head: bool = True
    cut: bool = True
    code: int = 0
    # Aligned text on a terminal too: what is read by programs, or has too many rows to be laid out.
    plain: bool = False


@dataclass(frozen=True)
class Text:
    """Text for people, and the same as data for JSON."""

    text: str
    data: Any
    notes: Sequence[str] = ()
    code: int = 0
    # On a terminal its lines are broken between words: sentences and lists of them, nothing that is copied as it stands.
    folds: bool = False
    # The text is ours and was made safe part by part (else control characters in it are shown rather than obeyed).
    safe: bool = field(default=False)


def bare(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, When):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(key): bare(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [bare(one) for one in value]
    if isinstance(value, str):
        # Names of files need not be UTF-8: what JSON cannot carry is shown as its escape.
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Seconds):
        return round(float(value), 6)
    return value


def iso(at_ms: int) -> str:
    """`2026-11-23T05:07:24.123Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(value: Any, now_ms: int) -> str:
    """The value as people read it."""
    if value is None:
        return ""
    if isinstance(value, When):
        return age((now_ms - value) / 1000)
    if isinstance(value, Seconds):
        return duration(value)
    if isinstance(value, Bytes):
        return size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(shown(one, now_ms) for one in value)
    return clean(str(value))
