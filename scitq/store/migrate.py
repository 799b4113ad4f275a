"""From one schema version to the next: forward only, in one transaction, after a backup.

Which migrations there are stands in `schema`. The caller holds the write lock of the side folder, so that two processes
that open an old file at once migrate it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from scitq._version import VERSION
from scitq.errors import NotAStateFile, StateFileDamaged, StateFileNewer
from scitq.store.snapshot import copy_into


@dataclass(frozen=True)
class Schema:
    """What a state file of this version of scitq contains, and how older ones become it.

    `migrations[n]` takes schema version n to n + 1; `PRAGMA user_version` is the version of a file. The newest migrations
    say in `min_reader` and `min_writer` which older versions of scitq may still read or write the file.
    """

    application_id: int
    migrations: Sequence[Callable[[apsw.Connection], None]]
    min_reader: int
    min_writer: int

    @property
    def version(self) -> int:
        return len(self.migrations)


@dataclass(frozen=True)
class Found:
    """What an existing file says of itself."""

    version: int
    min_reader: int
    min_writer: int
    written_by: str | None


def pragma(db: apsw.Connection, name: str) -> int:
    """The number that `PRAGMA name` answers."""
    for (value,) in db.execute(f"PRAGMA {name}"):
        return int(value)
    return 0


def is_blank(db: apsw.Connection) -> bool:
    """True for a file without content: zero bytes, or the one page that an interrupted creation leaves."""
    if pragma(db, "page_count") == 0:
        return True
    tables = sum(1 for _ in db.execute("SELECT 1 FROM sqlite_schema LIMIT 1"))
    return not tables and not pragma(db, "application_id") and not pragma(db, "user_version")


def inspect(db: apsw.Connection, path: Path, schema: Schema) -> Found:
    """Read what the file says of itself; refuse a stranger's."""
    if pragma(db, "application_id") != schema.application_id:
        raise NotAStateFile(
            f"{path} is an SQLite file, but not a scitq state file. Nothing was changed; give another name.", path=path
        )
    version = pragma(db, "user_version")
    meta = {
        str(k): v for k, v in db.execute("SELECT k, v FROM meta WHERE k IN ('min_reader','min_writer','written_by')")
    }
    return Found(
        version=version,
        min_reader=int(meta.get("min_reader", version)),
        min_writer=int(meta.get("min_writer", version)),
        written_by=str(meta["written_by"]) if "written_by" in meta else None,
    )


def newer(path: Path, found: Found, schema: Schema) -> StateFileNewer:
    """The refusal of a file that this version must not write, or not even read."""
    by = f"scitq {found.written_by} " if found.written_by else "a newer scitq "
    reads = schema.version >= found.min_reader
    return StateFileNewer(
        f"{path} was written by {by}(schema {found.version}); this is {VERSION} (schema {schema.version}). "
        + ("Reading works; to change it: pip install -U scitq" if reads else "To use it: pip install -U scitq"),
        path=path,
        found=found.version,
        needed=found.min_writer if reads else found.min_reader,
    )


def create(db: apsw.Connection, path: Path, schema: Schema) -> None:
    """Fill a blank file, in one transaction of a rollback journal: after a crash it is blank or whole."""
    # It can be set only before the first table is made, and that writes a page of its own.
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    _upgrade(db, path, schema, expect=0)


def migrate(db: apsw.Connection, path: Path, side: Path, schema: Schema, version: int) -> None:
    """Take an older file to this schema, after a backup."""
    name = f"{path.stem}-v{version}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = side / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{name}.scitq"
    n = 1
    while target.exists():  # another attempt in the same second
        n += 1
        target = folder / f"{name}-{n}.scitq"
    copy_into(db, target)
    _upgrade(db, path, schema, expect=version)


def _upgrade(db: apsw.Connection, path: Path, schema: Schema, *, expect: int) -> None:
    # Rebuilding a table drops the old one: with foreign keys on, that would delete or refuse rows. Checked as a whole below.
    db.execute("PRAGMA foreign_keys=OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        version = pragma(db, "user_version")
        if version != expect:  # only one who writes without the side lock could do that
            raise StateFileDamaged(
                f"{path}: its schema changed from {expect} to {version} while it was opened.", path=path
            )
        for step in schema.migrations[version:]:
            step(db)
        broken = db.execute("PRAGMA foreign_key_check").fetchone()
        if broken:
            raise StateFileDamaged(
                f"{path}: table {broken[0]}, row {broken[1]} points to no row of {broken[2]}; "
                "the file keeps its old schema. Run: scitq check",
                path=path,
            )
        facts = (("min_reader", schema.min_reader), ("min_writer", schema.min_writer), ("written_by", VERSION))
        for key, value in facts:
            db.execute("INSERT OR REPLACE INTO meta(k, v) VALUES (?, ?)", (key, value))
        db.execute(f"PRAGMA application_id={schema.application_id}")
        db.execute(f"PRAGMA user_version={schema.version}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("PRAGMA foreign_keys=ON")
