"""Reading rows: queries whose cursor is always read to its end."""

from __future__ import annotations

from typing import Any

import apsw

Row = tuple[Any, ...]


def rows(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[Row]:
    """Every row of a query."""
    return db.execute(sql, values).fetchall()


def row(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Row | None:
    """The first row of a query, None when there is none."""
    found = db.execute(sql, values).fetchall()
    return found[0] if found else None


def one(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Row:
    """The row of a query that always has one."""
    return db.execute(sql, values).fetchall()[0]
