"""A private copy of the state file, which any tool may open: pandas, R, DuckDB, the standard library."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.store import snapshot

if TYPE_CHECKING:
    from scitq.store.connection import Store


class Snapshot(sqlite3.Connection):
    """The state file as it was at one moment: an ordinary `sqlite3.Connection` to a copy, which is `path`.

    The copy is yours: what you change in it changes nothing else. It is deleted when this is closed or thrown away, at the
    latest when the process ends.

        pandas.read_sql("select * from tasks", engine.snapshot())
        duckdb.sql(f"attach '{snapshot.path}' as lab (type sqlite)")
    """

    path: Path

    def __init__(self, path: Path, **more: Any) -> None:
        super().__init__(path, **more)
        self.path = path
        # In a folder of its own, with what SQLite may put beside it.
        self._remove = weakref.finalize(self, shutil.rmtree, path.parent, ignore_errors=True)

    def close(self) -> None:
        """Close, and delete the copy."""
        super().close()
        self._remove()


def take(store: Store) -> Snapshot:
    """Copy the state file as it is now, in the folder for temporary files, while work goes on."""
    folder = Path(tempfile.mkdtemp(prefix="scitq-"))
    try:
        # Any thread may use it, one at a time: notebooks and data frames do.
        return Snapshot(snapshot.backup(store, folder / store.path.name), check_same_thread=False)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
