"""Opens a state file: what it must be, how it is opened, who writes and who reads.

`Store` is the whole of the machinery that the table modules and the engine see. Writing is in `writer`; what the tables are
is in `schema`; this module knows of neither.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import apsw

from scitq.errors import Closed, NotAStateFile, StateFileError, StateFileReadOnly
from scitq.store import migrate
from scitq.store.faults import explain
from scitq.store.locks import FileLock
from scitq.store.migrate import Found, Schema
from scitq.store.transaction import Transactions
from scitq.store.writer import BUSY_S, Writer

T = TypeVar("T")

# Before 3.51.3 two connections that write and checkpoint at the same instant can lose pages.
if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < (3, 51, 3):
    raise ImportError(
        f"scitq needs SQLite 3.51.3 or later; apsw brings {apsw.sqlite_lib_version()}. pip install -U apsw"
    )


def connect(path: Path, *, read_only: bool) -> apsw.Connection:
    """A connection by our recipe (reference/sqlite.md §0)."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(int(BUSY_S * 1000))
    # Double quotes are names only; no SQL of a stranger's schema runs with our rights; the file's own pages are not for UPDATE.
    db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    db.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # A connection that a forked child inherits and drops must not believe that it is the last user and delete the WAL.
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    # temp_store: triggers use small temporary tables; in files' pagers they cost ten times more (reference/sqlite.md §4.8).
    for _ in db.execute(
        "PRAGMA foreign_keys=ON; PRAGMA recursive_triggers=ON; PRAGMA temp_store=MEMORY; PRAGMA synchronous=NORMAL;"
        + ("PRAGMA query_only=ON; PRAGMA cache_size=-2000" if read_only else "PRAGMA cache_size=-8000")
    ):
        pass
    return db


class Store:
    """An open state file. Safe to use from any thread; not from a forked child.

    Writes go through `write` and `post`, reads through `reader()`.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        """Use `Store.open`."""
        self.path = path
        self.side = path.with_name(path.name + ".d")
        self.schema = schema
        self.version = schema.version
        self.read_only = False
        self.closed = False
        self._refusal: StateFileError | None = None  # why this store does not write
        self._writer: Writer | None = None
        self._local = threading.local()
        self._readers: list[weakref.ref[apsw.Connection]] = []
        self._readers_lock = threading.Lock()
        self._subscribers: list[Callable[[], None]] = []
        self._lock: FileLock | None = None

    @classmethod
    def open(cls, path: str | Path, schema: Schema, *, create: bool = True, read_only: bool = False) -> Store:
        """Open the state file `path`; make it if it is absent or empty, bring it up to date if it is old.

        A file that a newer scitq wrote and allows this one to read opens with `read_only` set to True, and refuses writes.
        """
        store = cls(Path(os.path.realpath(Path(path).expanduser())), schema)
        try:
            store._open(create=create, read_only=read_only)
        except apsw.Error as error:
            store.close()
            raise explain(error, store.path) from error
        except BaseException:
            store.close()
            raise
        return store

    def write(self, fn: Callable[[apsw.Connection], T], *, full: bool = False) -> T:
        """Run `fn` on the writer thread, inside a transaction; return what it returned after the commit, or raise what it raised.

        `full=True` makes the commit survive a power cut (synchronous=FULL). See `writer` for what `fn` may do.
        """
        return self._the_writer().write(fn, full=full)

    def post(self, fn: Callable[[apsw.Connection], T], *, full: bool = False) -> Future[T]:
        """As `write`, without waiting for the commit."""
        return self._the_writer().post(fn, full=full)

    def reader(self) -> apsw.Connection:
        """This thread's read-only connection. Read cursors to the end: an open one keeps the WAL from shrinking."""
        db: apsw.Connection | None = getattr(self._local, "db", None)
        if db is not None:
            return db
        self._refuse_if_dead()
        with self._readers_lock:
            db = connect(self.path, read_only=True)
            # Only the thread owns it: when the thread ends, so does the connection.
            self._readers = [ref for ref in self._readers if ref() is not None]
            self._readers.append(weakref.ref(db))
            self._local.db = db
        return db

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after commits: ours (on the writer thread, when their callers know) and other processes'.

        Several commits may make one call. It must be quick and must not call `write`. Returns the function that ends it.
        """
        self._refuse_if_dead()
        self._subscribers = [*self._subscribers, callback]

        def unsubscribe() -> None:
            self._subscribers = [known for known in self._subscribers if known is not callback]

        return unsubscribe

    def close(self) -> None:
        """Write what is queued, then let go of the file. Harmless when repeated."""
        if self.closed:
            return
        self.closed = True
        self._subscribers = []
        with self._readers_lock:
            readers = [db for ref in self._readers if (db := ref()) is not None]
            self._readers = []
        self._local = threading.local()
        for db in readers:
            _close_reader(db)
        if self._writer is not None:
            self._writer.close(BUSY_S)
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Opening

    def _open(self, *, create: bool, read_only: bool) -> None:
        path = self.path
        if path.is_dir():
            raise NotAStateFile(
                f"{path} is a folder; give the name of a file in it, such as {path / 'lab.scitq'}.", path=path
            )
        if not path.parent.is_dir():
            raise NotAStateFile(
                f"{path.parent} does not exist, so {path.name} cannot be made there. Make that folder first.", path=path
            )
        blank = not path.exists() or path.stat().st_size == 0
        if blank and (read_only or not create):
            raise NotAStateFile(f"There is no state file {path}.", path=path)
        if read_only:
            self._open_read_only()
        else:
            self._open_to_write(blank)

    def _open_read_only(self) -> None:
        db = connect(self.path, read_only=True)
        found = migrate.inspect(db, self.path, self.schema)
        if found.version > self.schema.version and self.schema.version < found.min_reader:
            db.close()
            raise migrate.newer(self.path, found, self.schema)
        self.version = found.version
        self.read_only = True
        self._refusal = StateFileReadOnly(f"{self.path} was opened for reading only.", path=self.path)
        self._local.db = db
        self._readers.append(weakref.ref(db))

    def _open_to_write(self, blank: bool) -> None:
        self._lock = self._make_side()
        self._lock.acquire()
        try:
            if blank:
                _make_blank(self.path)
            db = connect(self.path, read_only=False)
            if migrate.is_blank(db):
                migrate.create(db, self.path, self.schema)
            found = migrate.inspect(db, self.path, self.schema)
            if found.version < self.schema.version:
                migrate.migrate(db, self.path, self.side, self.schema, found.version)
            db.pragma("journal_mode", "wal")
        finally:
            self._lock.release()
        if found.version > self.schema.version and self.schema.version < found.min_writer:
            db.close()
            self._open_older(found)
            return
        self.version = max(found.version, self.schema.version)
        transactions = Transactions(self.path, db, lambda: connect(self.path, read_only=False), self._check)
        self._writer = Writer(self.path, transactions, self._lock, ring=lambda: None, tell=self._tell)

    def _open_older(self, found: Found) -> None:
        """The file is newer than this scitq: read it if it allows that."""
        refusal = migrate.newer(self.path, found, self.schema)
        if self.schema.version < found.min_reader:
            raise refusal
        self.version = found.version
        self.read_only = True
        self._refusal = refusal

    def _make_side(self) -> FileLock:
        self.side.mkdir(mode=0o700, exist_ok=True)
        return FileLock(self.side / "write.lock")

    # In use

    def _the_writer(self) -> Writer:
        self._refuse_if_dead()
        if self._writer is None:
            assert self._refusal is not None
            raise self._refusal
        return self._writer

    def _refuse_if_dead(self) -> None:
        if self.closed:
            raise Closed(f"{self.path} was closed.", path=self.path)

    def _check(self, db: apsw.Connection) -> None:
        """Inside each write transaction: another process may have migrated the file under us."""
        version = migrate.pragma(db, "user_version")
        if version == self.version:
            return
        found = migrate.inspect(db, self.path, self.schema)
        if self.schema.version < found.min_writer:
            raise migrate.newer(self.path, found, self.schema)
        self.version = found.version

    def _tell(self) -> None:
        for callback in self._subscribers:
            callback()


def _make_blank(path: Path) -> None:
    """An empty file of mode 0600, whatever the umask; SQLite gives -wal and -shm the mode of the main file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size == 0:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _close_reader(db: apsw.Connection) -> None:
    # Another thread may be inside a query: end that first.
    with contextlib.suppress(apsw.Error):
        db.interrupt()
    with contextlib.suppress(apsw.Error):
        db.close(True)
