"""What people ask of a state file with tools of their own: SQL (`sql`), sqlite-utils (`database`), files (`export`, `copy`).

Everything here reads. sqlite-utils and the standard library's sqlite3 are imported in this package only: the one runs over our
own connection (`adapter`), the other opens nothing but private copies (`copy`).
"""

from __future__ import annotations

from scitq.store.analysis.sql import LIMIT_S, VIEWS, Rows, columns_of, select_ids, sql

__all__ = ["LIMIT_S", "VIEWS", "Rows", "columns_of", "select_ids", "sql"]
