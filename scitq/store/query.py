"""Reading rows: queries whose cursor is always read to its end. One that another thread's `close` cuts short raises `Closed`."""

from __future__ import annotations

import json
from typing import Any

import apsw

from scitq.errors import Closed

Row = tuple[Any, ...]

# JSON without blanks, by an encoder that is made once.
compact = json.JSONEncoder(separators=(",", ":")).encode
# The same for a text alone: what a bulk of commands costs is mostly the way to this function.
quoted = json.encoder.encode_basestring_ascii


def rows(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[Row]:
    """Every row of a query."""
    try:
        return db.execute(sql, values).fetchall()
    except (apsw.InterruptError, apsw.ConnectionClosedError):
        raise Closed("the state file was closed by another thread while this one read it.") from None


def row(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Row | None:
    """The first row of a query, None when there is none."""
    found = rows(db, sql, values)
    return found[0] if found else None


def one(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Row:
    """The row of a query that always has one."""
    return rows(db, sql, values)[0]
