"""The state file as a sqlite-utils `Database`, for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import apsw
from sqlite_utils import Database

from scitq.store.analysis.adapter import Connection
from scitq.store.analysis.sql import kept

if TYPE_CHECKING:
    import sqlite3

    from scitq.store.connection import Store


def database(store: Store) -> Database:
    """This thread's Database over a read-only connection of its own. It ends with the store."""

    def make() -> Database:
        db = store.connect_reader()
        # sqlite-utils' own statements have texts in double quotes.
        db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
        # Plugins of sqlite-utils would get a connection that is not the standard library's.
        return Database(cast("sqlite3.Connection", Connection(db)), execute_plugins=False)

    return kept(store, "database", make)
