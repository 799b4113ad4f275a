"""Listings that FTP servers print for eyes, read: the way of Unix and the way of DOS. Pure."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, timedelta, timezone

from scitq.fetch.entry import DIR, FILE, LINK

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UNIX = re.compile(
    r"([-dlbcps])[-rwxsStTl.+]{9,10}\s+\d+\s+\S+\s+(?:\S+\s+)?(\d+)\s+([A-Za-z]{3})\s+(\d{1,2})\s+(\d{1,2}:\d\d|\d{4})\s(.+)\Z"
)
_DOS = re.compile(r"(\d\d)-(\d\d)-(\d{2,4})\s+(\d\d):(\d\d)([AP]M)?\s+(<DIR>|\d+)\s+(.+)\Z")


def parse_line(line: str, now: datetime) -> tuple[str, tuple[str, int | None, datetime | None]] | None:
    """One line of a listing for eyes: the name, and its kind, size and time; None if it is none."""
    if found := _UNIX.match(line.rstrip("\r\n")):
        kind, size, month, day, clock, name = found.groups()
        if kind == "l":
            name = name.partition(" -> ")[0]
        if name in (".", ".."):
            return None
        kinds = {"-": FILE, "d": DIR}
        return name, (kinds.get(kind, LINK), int(size) if kind == "-" else None, _printed_time(month, day, clock, now))
    if found := _DOS.match(line.rstrip("\r\n")):
        month, day, year, hour, minute, half, size, name = found.groups()
        whole_year = int(year) + (0 if len(year) == 4 else 2000 if int(year) < 70 else 1900)
        whole_hour = int(hour) % 12 + (12 if half == "PM" else 0) if half else int(hour)
        try:
            when = datetime(whole_year, int(month), int(day), whole_hour, int(minute), tzinfo=timezone.utc)
        except ValueError:
            when = None
        return name, (DIR if size == "<DIR>" else FILE, None if size == "<DIR>" else int(size), when)
    return None


def _printed_time(month: str, day: str, clock: str, now: datetime) -> datetime | None:
    """A clock instead of a year means: within the last year."""
    try:
        number = _MONTHS.index(month.lower()) + 1
        if ":" not in clock:
            return datetime(int(clock), number, int(day), tzinfo=timezone.utc)
        hour, minute = map(int, clock.split(":"))
        for year in (now.year, now.year - 1):
            with contextlib.suppress(ValueError):  # the 29th of February
                when = datetime(year, number, int(day), hour, minute, tzinfo=timezone.utc)
                if when <= now + timedelta(days=1):
                    return when
    except ValueError:
        pass
    return None
