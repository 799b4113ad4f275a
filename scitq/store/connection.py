"""Opens a state file: what it must be, how it is opened, who writes and who reads.

`Store` is the whole of the machinery that the table modules and the engine see. Writing is in `writer`; what the tables are
is in `schema`; this module knows of neither.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import apsw

from scitq.errors import BadInput, Closed, NotAStateFile, ScitqError, StateFileError, StateFileReadOnly
from scitq.store import folders, forks, guard, migrate, moved
from scitq.store.bell import Bell, Listener
from scitq.store.faults import busy, explain, full
from scitq.store.locks import FileLock
from scitq.store.migrate import Schema
from scitq.store.transaction import Transactions
from scitq.store.writer import BUSY_S, Writer

T = TypeVar("T")
OPEN_S = 30.0  # how long opening waits for another process's transaction, or for its migration

log = logging.getLogger("scitq.store")

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
        "PRAGMA fullfsync=ON;"  # macOS: a plain fsync leaves the data in the disk's cache
        + ("PRAGMA query_only=ON; PRAGMA cache_size=-2000" if read_only else "PRAGMA cache_size=-8000")
    ):
        pass
    return db


class Store:
    """An open state file. Safe to use from any thread; in a forked child, open it again.

    Writes go through `write` and `post`, reads through `reader()`.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        """Use `Store.open`."""
        self.path = path
        self.side = path.with_name(path.name + ".d")
        self.schema = schema
        self.version = schema.version
        self.read_only = False
        self.is_mover = False  # it takes the file elsewhere, or back: what keeps others from writing is its own doing
        self.closed = False
        self._is_forked = False
        self._refusal: StateFileError | None = None  # why this store does not write
        self._writer: Writer | None = None
        self._lock: FileLock | None = None
        self._held: list[FileLock] = []
        self._bell: Bell | None = None
        self._listener: Listener | None = None
        self._guarding = threading.Lock()  # of what follows
        self._local = threading.local()
        self._readers: list[weakref.ref[apsw.Connection]] = []
        self._subscribers: tuple[Callable[[], None], ...] = ()

    @classmethod
    def open(cls, path: str | Path, schema: Schema, *, create: bool = True, read_only: bool = False) -> Store:
        """Open the state file `path`; make it if it is absent or empty, bring it up to date if it is old.

        A file that a newer scitq wrote, and allows this one to read, opens with `read_only` True and refuses writes.
        """
        if "\0" in str(path):
            raise BadInput("A file name cannot contain a NUL byte.")
        store = cls(Path(os.path.realpath(Path(path).expanduser())), schema)
        try:
            store._open(create=create, read_only=read_only)
        except apsw.Error as error:
            store.close()
            raise _unopened(store.path, error) from error
        except OSError as error:
            store.close()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(store.path) from error
            raise StateFileReadOnly(f"{store.path} cannot be opened: {error}", path=store.path) from error
        except BaseException:
            store.close()
            raise
        return store

    def write(self, fn: Callable[[apsw.Connection], T], *, full: bool = False, quiet: bool = False) -> T:
        """Run `fn` inside a write transaction; return what it returned after the commit, or raise what it raised.

        `full=True` makes the commit survive a power cut (synchronous=FULL). See `writer` for what `fn` may do.
        """
        return self._the_writer().write(fn, full=full, quiet=quiet)

    def tell(self) -> None:
        """Make good what a quiet write left out: ring for the other processes, and call the subscribers."""
        self._the_writer().tell()

    def tell_what_is_due(self) -> None:
        """Have everybody told now of what this process has committed; after a run of commits that may be 10 ms away."""
        if self._writer is not None and not self._is_forked and not self.closed:
            self._writer.tell_what_is_due()

    def post(self, fn: Callable[[apsw.Connection], T], *, full: bool = False) -> Future[T]:
        """As `write`, on the writer thread and without waiting for the commit."""
        return self._the_writer().post(fn, full=full)

    def reader(self) -> apsw.Connection:
        """This thread's read-only connection. Read cursors to the end: an open one keeps the WAL from shrinking."""
        self._refuse_if_dead()
        db: apsw.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = self.connect_reader()
        return db

    def replace_by(self, source: Path) -> None:
        """Take the whole content of another file of this schema, in one transaction: killed before its end, nothing has changed."""
        assert self._lock is not None
        if not self._lock.acquire_within(OPEN_S):
            raise busy(self.path, self._lock.holder())
        try:
            theirs = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
            mine = connect(self.path, read_only=False)
            try:
                mine.pragma("synchronous", "FULL")
                with mine.backup("main", theirs, "main") as copying:
                    while not copying.done:
                        copying.step(-1)
            finally:
                mine.close(True)
                theirs.close(True)
        except apsw.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._lock.release()
        self.ring()

    def connect_reader(self) -> apsw.Connection:
        """Another read-only connection, for one thread. It ends when nobody refers to it any more, or with the store."""
        self._refuse_if_dead()
        db = connect(self.path, read_only=True)
        with self._guarding:
            self._readers = [ref for ref in self._readers if ref() is not None]
            self._readers.append(weakref.ref(db))
        return db

    def connect_to_copy(self) -> apsw.Connection:
        """A connection of one's own for VACUUM INTO, which `query_only` forbids though it only reads; close it afterwards."""
        db = self.connect_reader()
        db.pragma("query_only", False)
        return db

    def subscribe(self, callback: Callable[[], None], *, watch_after_s: float = 0.0) -> Callable[[], None]:
        """Call `callback` after commits: ours (on the writer thread) and other processes' (on the bell's).

        Several commits may make one call. It must be quick, and must not call `write`. Returns what ends it. Other processes'
        are heard of at once after `watch_after_s` (of the first subscriber), or `listen_closely`; before, within a tenth of a second.
        """
        self._refuse_if_dead()
        with self._guarding:
            self._subscribers = (*self._subscribers, callback)
            if self._listener is None:
                self._listener = Listener(self._bell, self._data_version, self._tell, watch_after_s)
            listener = self._listener
        listener.await_first_look()

        def unsubscribe() -> None:
            with self._guarding:
                self._subscribers = tuple(known for known in self._subscribers if known is not callback)

        return unsubscribe

    def listen_closely(self) -> None:
        """What is waited for is another process's doing."""
        listener = self._listener
        if listener is not None and not self.closed:
            listener.watch_now()

    def ring(self) -> None:
        """Wake the other processes, when something besides the file's content has changed."""
        if self._bell is not None and not self.closed:
            self._bell.ring()

    def hold(self, lock: FileLock) -> FileLock:
        """Close `lock` with the store, and in a forked child."""
        self._held.append(lock)
        return lock

    def drop(self, lock: FileLock) -> None:
        """Close a lock that `hold` was given."""
        if lock in self._held:
            self._held.remove(lock)
        lock.close()

    def close(self) -> None:
        """Write what is queued, then let go of the file. Harmless when repeated, or in a forked child."""
        with self._guarding:
            if self.closed:
                return
            self.closed = True
            listener, self._listener = self._listener, None
        if self._is_forked:
            return
        if listener is not None:
            listener.close()
        # First the queue: what is posted was promised.
        is_free = self._writer is None or self._writer.finish(BUSY_S)
        for db in self._connections():
            _close_reader(db)
        self._local = threading.local()
        if self._writer is not None and is_free:
            self._writer.close()
        if not is_free:
            log.error("%s: another process keeps its write lock; what was queued is not written", self.path)
        for lock in self._held:
            lock.close()
        if self._bell is not None:
            self._bell.close()
        guard.unwatch(self)
        forks.unwatch(self)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Opening

    def _open(self, *, create: bool, read_only: bool) -> None:
        path = self.path
        if path.is_dir():
            raise NotAStateFile(f"{path} is a folder; name a file in it, such as {path / 'lab.scitq'}.", path=path)
        if path.exists() and not path.is_file():
            raise NotAStateFile(f"{path} is no ordinary file, so it cannot be a state file.", path=path)
        if not path.parent.is_dir():
            raise NotAStateFile(f"There is no folder {path.parent} for {path.name}. Make that folder first.", path=path)
        if (read_only or not create) and _is_empty(path):
            raise NotAStateFile(f"There is no state file {path}.", path=path)
        folders.refuse_unsafe(path)
        forks.let_go_of_inherited(path)
        if read_only:
            self._open_to_read()
        else:
            self._open_to_write()
        guard.watch(self, path)
        forks.watch(self)

    def _open_to_read(self) -> None:
        self._begin_reading()
        if migrate.is_blank(self.reader()):
            raise NotAStateFile(
                f"{self.path} is empty: no state file yet. Open it for writing to make it one.", path=self.path
            )
        found = migrate.inspect(self.reader(), self.path, self.schema)
        if self.schema.version < found.min_reader:
            raise migrate.newer(self.path, found, self.schema)
        if found.version < self.schema.version:
            raise StateFileReadOnly(
                f"{self.path} is of an older scitq (schema {found.version}, this is {self.schema.version}); "
                "open it once for writing, which brings it up to date.",
                path=self.path,
            )
        self.version = found.version
        self._refusal = StateFileReadOnly(f"{self.path} was opened for reading only.", path=self.path)

    def _begin_reading(self) -> None:
        self.read_only = True
        bell = self.side / "bell"
        with contextlib.suppress(OSError):  # another user's: commits are not heard of then
            if bell.exists():
                self._bell = Bell(bell)

    def _open_to_write(self) -> None:
        path = self.path
        self.side.mkdir(mode=0o700, exist_ok=True)
        self._lock = self.hold(FileLock(self.side / "write.lock"))
        self._bell = Bell(self.side / "bell")
        if not self._lock.acquire_within(OPEN_S):
            raise busy(path, self._lock.holder())
        try:
            if _is_empty(path):
                _make_blank(path)
            db = connect(path, read_only=False)
            if db.readonly("main"):
                raise StateFileReadOnly(f"{path} may not be written by this user: check its mode and owner.", path=path)
            if migrate.is_blank(db):
                _set_aside(self.side)
                migrate.create(db, path, self.schema)
            found = migrate.inspect(db, path, self.schema)
            if self.schema.version < found.min_writer:
                self._refusal = migrate.newer(path, found, self.schema)
                if self.schema.version < found.min_reader:
                    raise self._refusal
                self.version = found.version
                self.read_only = True
                db.close()
                return
            if found.version < self.schema.version:
                migrate.migrate(db, path, self.side, self.schema, found.version)
            self.version = max(found.version, self.schema.version)
            if db.pragma("journal_mode", "wal") != "wal":
                raise StateFileError(f"{path}: SQLite cannot use a write-ahead log here, which scitq needs.", path=path)
            migrate.inspect(db, path, self.schema)  # a first read makes -wal and -shm
        finally:
            self._lock.release()
        transactions = Transactions(path, db, lambda: connect(path, read_only=False), self._check)
        self._writer = Writer(path, transactions, self._lock, ring=self._bell.ring, tell=self._tell)
        self._writer.start()

    # In use

    def _the_writer(self) -> Writer:
        self._refuse_if_dead()
        if self._writer is None:
            assert self._refusal is not None
            raise self._refusal
        return self._writer

    def _refuse_if_dead(self) -> None:
        if self._is_forked:
            raise forks.refusal(self.path)
        if self.closed:
            raise Closed(f"{self.path} was closed.", path=self.path)

    def _check(self, db: apsw.Connection) -> None:
        """Inside each write transaction: another process may have migrated the file under us, or moved it elsewhere."""
        if not self.is_mover and (there := moved.found(db)) is not None:
            raise there.refusal(self.path.name)
        version = migrate.pragma(db, "user_version")
        if version == self.version:
            return
        found = migrate.inspect(db, self.path, self.schema)
        if self.schema.version < found.min_writer:
            raise migrate.newer(self.path, found, self.schema)
        self.version = found.version

    def _data_version(self) -> int:
        return migrate.pragma(self.reader(), "data_version")

    def _tell(self) -> None:
        for callback in self._subscribers:
            try:
                callback()
            except Exception:  # one subscriber's mistake is neither the writer's nor the others'
                log.exception("%s: a subscriber failed", self.path)

    def _connections(self) -> list[apsw.Connection]:
        return [db for ref in self._readers if (db := ref()) is not None]

    # At a fork (see `forks`)

    def before_fork(self) -> bool:
        return self._writer is None or self._writer.pause(1.0)

    def after_fork(self) -> None:
        if self._writer is not None:
            self._writer.resume()

    def after_fork_in_child(self) -> list[apsw.Connection]:
        self._is_forked = True
        self._guarding = threading.Lock()  # another thread may have held it
        self._subscribers = ()
        for lock in self._held:
            lock.close()
        if self._listener is not None:
            self._listener.abandon()
        if self._bell is not None:
            self._bell.close()
        return self._connections() + ([] if self._writer is None else [self._writer.connection])


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _set_aside(side: Path) -> None:
    """A new file begins with new numbers: what a deleted one left in the side folder (logs, outputs, its worker) is not its
    own, and would be taken for it. It is kept under another name."""
    left = [side / name for name in ("local", "logs", "outputs", "calls") if (side / name).exists()]
    if left:
        old = side / time.strftime("before-%Y%m%d-%H%M%S")
        old.mkdir(mode=0o700, exist_ok=True)
        for folder in left:
            folder.rename(old / folder.name)
        log.warning("What a deleted state file left in %s is now in %s.", side, old.name)


def _make_blank(path: Path) -> None:
    """An empty file of mode 0600, whatever the umask; SQLite gives -wal and -shm the mode of the main file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _unopened(path: Path, error: apsw.Error) -> BaseException:
    """Why SQLite would not open it, as far as can be seen."""
    if isinstance(error, apsw.NotADBError):
        return NotAStateFile(f"{path} is no SQLite file, so no state file. Nothing was changed.", path=path)
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError):
        if not os.access(path, os.R_OK):
            return StateFileReadOnly(f"{path} may not be read by this user: check its mode and owner.", path=path)
        return StateFileReadOnly(
            f"{path}: SQLite must make {path.name}-wal and {path.name}-shm beside it, even to read, and this user may not "
            f"write in {path.parent}. Copy the file to a folder of your own, or let its owner open it meanwhile.",
            path=path,
        )
    return explain(error, path)


def _close_reader(db: apsw.Connection) -> None:
    with contextlib.suppress(apsw.Error):
        db.interrupt()  # another thread may be inside a query
    with contextlib.suppress(apsw.Error):
        db.close(True)


@atexit.register
def _close_all() -> None:
    """What was posted is written, though nobody waits for it."""
    for store in forks.every():
        try:
            store.close()
        except (ScitqError, apsw.Error, OSError) as error:
            log.warning("%s: not closed properly: %s", store.path, error)
