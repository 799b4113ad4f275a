"""The writing connection: runs jobs in transactions and keeps the WAL short.

Which thread does this, and when, is in `writer`; one at a time, under its turn lock and the write lock of the side folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from scitq.store.faults import explain, lock_lost, moved

log = logging.getLogger("scitq.store")

GROUP_S = 0.020  # a group ends after so long, so that other processes get their turn
CHECKPOINT_PAGES = (
    1000  # the WAL is copied into the file when it is so long; a small disk must have room for twice that
)


class Job:
    """A function to run on the writing connection, and what became of it."""

    __slots__ = ("_claim", "done", "error", "full", "future", "is_claimed", "run", "value")

    def __init__(self, run: Callable[[apsw.Connection], Any], full: bool) -> None:
        self.run = run
        self.full = full
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_claimed = False
        # How its caller learns of the end: a Future (post), or a lock that is released (write: ten times cheaper).
        self.future: Future[Any] | None = None
        self.done: Any = None
        self._claim: Any = None

    def await_by_lock(self) -> None:
        self._claim = threading.Lock()
        self.done = threading.Lock()
        self.done.acquire()

    def call_off(self) -> bool:
        """Forget it, if it has not begun."""
        return bool(self._claim.acquire(blocking=False))

    def claim(self) -> bool:
        """From here on its caller cannot call it off; False if that happened already."""
        if not self.is_claimed:
            if self.future is not None:
                self.is_claimed = self.future.set_running_or_notify_cancel()
            else:
                self.is_claimed = self._claim is None or self._claim.acquire(blocking=False)
        return self.is_claimed

    def resolve(self) -> None:
        """Wake the caller."""
        if self.done is not None:
            self.done.release()
        elif self.future is not None:
            if self.error is None:
                self.future.set_result(self.value)
            else:
                self.future.set_exception(self.error)


class Run(NamedTuple):
    """What one transaction did with the jobs it was given."""

    settled: list[Job]  # committed, or failed without a trace
    again: list[Job]  # innocent, but taken back together with a failing one: each is to be run alone
    later: list[Job]  # not reached in time


class Transactions:
    """Transactions on the writing connection."""

    def __init__(
        self,
        path: Path,
        db: apsw.Connection,
        connect: Callable[[], apsw.Connection],
        check: Callable[[apsw.Connection], None],
    ) -> None:
        self.path = path
        self.wal_pages = 0
        self.has_changed = False  # something was committed since the others were told
        self._connect = connect
        self._check = check  # inside each transaction: raises if this process may not write (any more)
        self._is_full = False
        self._checkpoint_at = CHECKPOINT_PAGES
        self._wal = f"{path}-wal"
        self._identity = _inode(path)
        self._wal_identity = _inode(self._wal)
        self._adopt(db)

    def run(self, jobs: list[Job]) -> Run:
        """One transaction for the jobs, a savepoint for each."""
        done = self._run(jobs)
        if self._db.txn_state() != apsw.SQLITE_TXN_NONE:
            self._free(done.settled)
        return done

    def _run(self, jobs: list[Job]) -> Run:
        db = self._db
        try:
            self._begin(full=any(job.full for job in jobs))
        except BaseException as error:
            self.undo()
            for job in jobs:
                job.error = self._explain(error)
            return Run(jobs, [], [])
        grouped = len(jobs) > 1  # alone, a job needs no savepoint: it is the transaction
        ends = time.monotonic() + GROUP_S
        reached = 0
        for job in jobs:
            reached += 1
            try:
                if grouped:
                    db.execute("SAVEPOINT job")
                job.value = job.run(db)
                if grouped:
                    db.execute("RELEASE job")
            except BaseException as error:
                job.error = self._explain(error)
                job.value = None
                if not grouped or not db.in_transaction:
                    # Nothing else to save; or SQLite took everything back itself (disk full, I/O error, RAISE(ROLLBACK)).
                    self.undo()
                    return _split(jobs, [])
                db.execute("ROLLBACK TO job")
                db.execute("RELEASE job")
            if time.monotonic() > ends:
                break
        settled, later = jobs[:reached], jobs[reached:]
        try:
            db.execute("COMMIT")
        except BaseException as error:
            self.undo()
            ran = [job for job in settled if job.error is None]
            if len(ran) == 1:
                ran[0].error = self._explain(error)
            return _split(settled, later)
        if self._is_full:
            self._relax()
        return Run(settled, [], later)

    def undo(self) -> None:
        """Back to no transaction. After a full disk SQLite is there already, and a ROLLBACK would be an error."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._relax()

    @property
    def connection(self) -> apsw.Connection:
        return self._db

    @property
    def wants_checkpoint(self) -> bool:
        return self.wal_pages >= self._checkpoint_at

    @property
    def is_checkpoint_overdue(self) -> bool:
        """The thread that should do it does not get its turn: whoever has the turn must."""
        return self.wal_pages >= 2 * self._checkpoint_at

    def checkpoint(self) -> None:
        """Copy the WAL into the file as far as readers allow; when they do not, wait for as many pages again."""
        try:
            total, done = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            log.warning("%s: the WAL was not copied into the file: %s", self.path, self._explain(error))
            total, done = self.wal_pages, 0
        self._checkpoint_at = CHECKPOINT_PAGES + (total if done < total else 0)

    def fold(self) -> None:
        """Copy the whole WAL into the file and empty it, unless somebody is in the way."""
        self.wal_pages = 0
        try:
            self._db.set_busy_timeout(100)
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            log.debug("%s: the WAL was not folded: %s", self.path, error)
        finally:
            self._db.set_busy_timeout(10_000)

    def close(self, *, tidy: bool) -> None:
        """Let go of the file; `tidy` leaves one file behind if we are its last user (SQLite knows whether we are)."""
        db = self._db
        db.set_wal_hook(None)
        if tidy and _inode(self.path) == self._identity and _inode(self._wal) == self._wal_identity:
            with contextlib.suppress(apsw.Error):
                # No PRAGMA optimize: statistics of a file that is still small make its next user read whole tables, for as
                # long as that one has it open and however large it becomes. Indexes are chosen without them.
                db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        with contextlib.suppress(apsw.Error):
            db.close(True)

    def _begin(self, *, full: bool) -> None:
        if _inode(self.path) != self._identity:
            raise moved(self.path)
        if _inode(self._wal) != self._wal_identity:
            raise lock_lost(self.path)
        if full:  # SQLite refuses to change it inside a transaction
            self._is_full = True
            self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("BEGIN IMMEDIATE")
        self._check(self._db)

    def _relax(self) -> None:
        if self._is_full:
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._is_full = False

    def _free(self, jobs: list[Job]) -> None:
        """A cursor was left open. It would keep its view of the file, and the next transaction would fail on that."""
        for job in jobs:
            error = job.error
            while error is not None:  # an error holds the variables of the function that raised it
                traceback.clear_frames(error.__traceback__)
                error = error.__cause__
        if self._db.txn_state() == apsw.SQLITE_TXN_NONE:
            return
        names = sorted({getattr(job.run, "__qualname__", repr(job.run)) for job in jobs})
        log.error("%s: a cursor was left open by one of %s; the connection is renewed", self.path, ", ".join(names))
        self._db.close(True)
        self._adopt(self._connect())

    def _adopt(self, db: apsw.Connection) -> None:
        self._db = db
        # Replaces the automatic checkpoint, which would run inside COMMIT, while callers wait and the lock is held.
        db.set_wal_hook(self._on_commit)

    def _on_commit(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        """SQLite calls this after a commit that changed something."""
        self.has_changed = True
        if pages < self.wal_pages:  # the WAL began anew
            self._checkpoint_at = CHECKPOINT_PAGES
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def _explain(self, error: BaseException) -> BaseException:
        better = explain(error, self.path)
        if better is not error:
            better.__cause__ = error
        return better


def _inode(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _split(jobs: list[Job], later: list[Job]) -> Run:
    """After the loss of a transaction: those that failed are settled, the others run again."""
    return Run([j for j in jobs if j.error is not None], [j for j in jobs if j.error is None], later)
