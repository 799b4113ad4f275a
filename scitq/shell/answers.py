"""What a command returns: `Rows` for a table or `Text`, and the kinds of values that know how they are shown.

Values are plain; printed as text they become `4 min ago`, `31.2 GB`; printed as JSON they become ISO 8601, bytes, seconds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


class When(int):
    """A moment, in milliseconds since 1970."""


class Seconds(float):
    """A length of time."""


class Bytes(int):
    """A size."""


@dataclass(frozen=True)
class Column:
    """A column of a table: which field, under which heading. `gives` columns are cut first when the terminal is narrow."""

    key: str
    heading: str | None = None
    gives: bool = False


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


def duration(seconds: float) -> str:
    """`24 ms`, `0.2 s`, `48 s`, `6 min`, `3 h 12`, `2 d 4 h`."""
    if 0 < seconds < 0.095:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def age(seconds: float) -> str:
    """`now`, `5 s ago`, `4 min ago`, `2 h ago`, `3 d ago`."""
    if seconds < 1:
        return "now" if seconds > -60 else "in " + duration(-seconds)
    for limit, unit, word in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{seconds / 86400:.0f} d ago"


def size(count: int) -> str:
    """`812 B`, `31.2 GB`: powers of ten, as disks and clouds count."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{count} B" if unit == "B" else f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def clean(text: str) -> str:
    """Text on one line that cannot command the terminal: control characters, and those that turn the direction of
    writing around, are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escaped(char) for char in text)


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in "\u200d\u200c"


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or char.encode("unicode_escape", "surrogatepass").decode()


def several(count: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `12 tasks`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
