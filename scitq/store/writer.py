"""The one thread of this process that writes the state file.

Callers hand it functions; it takes all that have queued up, runs them in one transaction and wakes their callers after the
commit (group commit without a timed window: what arrives during one commit shares the next). It holds the write lock of the
side folder around each transaction, which keeps foreign lock losses harmless and other processes' turns fair.

A function given to it
* runs inside BEGIN IMMEDIATE and must not end the transaction itself;
* must have read its cursors to the end, or closed them: an open one would pin the WAL (it is noticed and the connection renewed);
* may run twice: when SQLite takes back a whole group (disk full), the innocent ones are run again, each alone.
  So it has no effects but those on its connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from scitq.errors import BadInput, Closed
from scitq.store.faults import busy, explain, moved
from scitq.store.locks import FileLock

T = TypeVar("T")
log = logging.getLogger("scitq.store")

GROUP_SIZE = 1000  # a group ends after so many functions,
GROUP_S = 0.020  # or so long, so that other processes get their turn
BUSY_S = 10.0  # how long a caller waits for another process's write lock
IDLE_S = 30.0  # quiet for so long: the WAL is folded into the file
CHECKPOINT_PAGES = 1000


class Job:
    """A function to run, and what became of it."""

    __slots__ = ("claimed", "error", "full", "future", "run", "value")

    def __init__(self, run: Callable[[apsw.Connection], Any], full: bool) -> None:
        self.run = run
        self.full = full
        self.future: Future[Any] = Future()
        self.claimed = False
        self.value: Any = None
        self.error: BaseException | None = None

    def claim(self) -> bool:
        """From here on its caller cannot call it off; False if that happened already."""
        self.claimed = self.claimed or self.future.set_running_or_notify_cancel()
        return self.claimed

    def resolve(self) -> None:
        """Wake the caller."""
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)
            self.error = None  # the error's traceback holds this very frame


class Writer:
    """Runs functions on the state file, one group after the other."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        db: apsw.Connection,
        path: Path,
        lock: FileLock,
        *,
        check: Callable[[apsw.Connection], None],
        ring: Callable[[], None],
        committed: Callable[[], None],
        quiet: threading.Lock,
    ) -> None:
        self.path = path
        self._connect = connect
        self._db = db
        self._lock = lock
        self._check = check  # inside each transaction: raises if this process may not write (any more)
        self._ring = ring  # after each commit that changed something: tell the other processes
        self._committed = committed  # then, when the callers know: tell the subscribers of this one
        self._is_full = False
        self._quiet = quiet  # held while a transaction is open, so that a fork waits for its end
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._gate = threading.Lock()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ident: int | None = None
        self._blocked_since: float | None = None
        self._wal_pages = 0
        self._changed = False
        self._checkpoint_at = CHECKPOINT_PAGES
        self._identity = self._stat()
        self._adopt(db)

    # What callers use

    def post(self, run: Callable[[apsw.Connection], T], *, full: bool = False) -> Future[T]:
        """Queue `run`; the future is resolved after its commit."""
        job = Job(run, full)
        with self._gate:
            if self._closing:
                raise Closed(f"{self.path} was closed.", path=self.path)
            if self._thread is None:
                self._start()
            self._queue.put(job)
        return job.future

    def write(self, run: Callable[[apsw.Connection], T], *, full: bool = False) -> T:
        """Run `run` on the writer thread and return what it returned, after its commit."""
        if threading.get_ident() == self._ident:
            raise BadInput("store.write() inside the writer thread would wait for itself; use the connection given, or post().")
        future = self.post(run, full=full)
        while True:
            try:
                return future.result(BUSY_S)
            except TimeoutError:
                if future.done():  # its own TimeoutError
                    raise
            since = self._blocked_since
            # Only the wait for another process is limited; our own long transactions are not.
            if since is not None and time.monotonic() - since >= BUSY_S and future.cancel():
                raise busy(self.path, self._lock.holder())

    def close(self, timeout_s: float) -> bool:
        """Write what was queued, end the thread, close the connection; False if another process kept us from it."""
        with self._gate:
            if self._closing:
                return True
            self._closing = True
            if self._thread is not None:
                self._queue.put(None)
        if self._thread is None:
            self._close_connection()
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The thread

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="scitq-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._ident = threading.get_ident()
        stopping = False
        while True:
            if not self._waiting:
                if stopping:
                    break
                job = self._next()
                if job is None:
                    break
                self._waiting.append(job)
            stopping = self._drain() or stopping
            self._turn()
        self._close_connection()

    def _next(self) -> Job | None:
        """The next job; while there is none for long, fold the WAL into the file once."""
        if self._wal_pages:
            try:
                return self._queue.get(timeout=IDLE_S)
            except Empty:
                self._truncate()
        return self._queue.get()

    def _drain(self) -> bool:
        """Move what is queued to `_waiting`; True if the end was among it."""
        with contextlib.suppress(Empty):
            while len(self._waiting) < GROUP_SIZE:
                job = self._queue.get_nowait()
                if job is None:
                    return True
                self._waiting.append(job)
        return False

    def _turn(self) -> None:
        """One group: lock, transaction, unlock, wake the callers, ring the bell."""
        self._blocked_since = time.monotonic()
        self._lock.acquire()
        self._blocked_since = None
        self._changed = False
        settled: list[Job] = []
        try:
            with self._quiet:
                settled = self._group()
        finally:
            self._lock.release()
            changed = self._changed
            if changed:
                self._ring()
            for job in settled:
                job.resolve()
        if changed:
            self._committed()
            if self._wal_pages >= self._checkpoint_at:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _group(self) -> list[Job]:
        """Run waiting jobs, usually in one transaction. Returned ones are committed or have left no trace."""
        jobs: list[Job] = []
        while self._waiting and len(jobs) < GROUP_SIZE:
            job = self._waiting.popleft()
            if job.claim():
                jobs.append(job)
        if not jobs:
            return []
        try:
            settled, again, later = self._transact(jobs)
            self._waiting.extendleft(reversed(later))
            for job in again:
                settled += self._transact([job])[0]
        except BaseException as error:  # not a job's error: ours. Nobody may be left waiting for ever
            log.exception("%s: the writer failed", self.path)
            self._undo()
            settled = [job for job in jobs if job not in self._waiting]
            for job in settled:
                job.error = job.error or error
        return settled

    def _transact(self, jobs: list[Job]) -> tuple[list[Job], list[Job], list[Job]]:
        """One transaction. Returns the settled jobs, those to run again alone, those left for the next group."""
        db = self._db
        try:
            self._begin(full=any(job.full for job in jobs))
        except BaseException as error:
            self._undo()
            for job in jobs:
                job.error = self._explain(error)
            return jobs, [], []
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
                    # SQLite took everything back by itself (disk full, I/O error, RAISE(ROLLBACK)), or there is nothing else.
                    self._undo()
                    return _split(jobs)
                db.execute("ROLLBACK TO job")
                db.execute("RELEASE job")
            if time.monotonic() > ends:
                break
        settled, later = jobs[:reached], jobs[reached:]
        try:
            db.execute("COMMIT")
        except BaseException as error:
            self._undo()
            ran = [job for job in settled if job.error is None]
            if len(ran) == 1:
                ran[0].error = self._explain(error)
            return (*_split(settled)[:2], later)
        self._relax()
        if db.txn_state() != apsw.SQLITE_TXN_NONE:
            self._renew(settled)
        return settled, [], later

    def _begin(self, *, full: bool) -> None:
        if self._stat() != self._identity:
            raise moved(self.path)
        if full:  # SQLite refuses to change it inside a transaction
            self._db.execute("PRAGMA synchronous=FULL")
            self._is_full = True
        self._db.execute("BEGIN IMMEDIATE")
        self._check(self._db)

    def _undo(self) -> None:
        """Back to no transaction. After a full disk SQLite is there already, and a ROLLBACK would be an error."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._changed = False
        self._relax()

    def _relax(self) -> None:
        if self._is_full:
            self._is_full = False
            self._db.execute("PRAGMA synchronous=NORMAL")

    def _renew(self, jobs: list[Job]) -> None:
        """A job left a cursor open. It would keep its view of the file, and the next transaction would fail on that."""
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
        self._changed = True
        if pages < self._wal_pages:  # the WAL began anew
            self._checkpoint_at = CHECKPOINT_PAGES
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self, mode: int) -> None:
        """Copy the WAL into the file as far as readers allow; when they do not, wait for as many pages again."""
        try:
            total, done = self._db.wal_checkpoint(mode=mode)
        except apsw.Error as error:
            log.warning("%s: the WAL cannot be copied into the file: %s", self.path, self._explain(error))
            total, done = self._wal_pages, 0
        self._checkpoint_at = CHECKPOINT_PAGES + (total if done < total else 0)

    def _truncate(self) -> None:
        """Fold the WAL into the file, if nobody else writes now."""
        self._wal_pages = 0
        if not self._lock.try_acquire():
            return
        try:
            self._db.set_busy_timeout(100)
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._db.set_busy_timeout(int(BUSY_S * 1000))
        finally:
            self._lock.release()

    def _close_connection(self) -> None:
        """Leave one tidy file behind if we are the last user; otherwise just go."""
        db = self._db
        try:
            if self._stat() == self._identity and self._lock.try_acquire():
                try:
                    db.set_busy_timeout(100)
                    db.execute("PRAGMA optimize")
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    # The last one to close removes -wal and -shm: SQLite knows whether we are.
                    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
                    db.set_wal_hook(None)
                    db.close(True)
                finally:
                    self._lock.release()
        except apsw.Error as error:
            log.debug("%s: not folded at close: %s", self.path, error)
        with contextlib.suppress(apsw.Error):
            db.set_wal_hook(None)
            db.close(True)

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _explain(self, error: BaseException) -> BaseException:
        better = explain(error, self.path)
        if better is not error:
            better.__cause__ = error
        return better


def _split(jobs: list[Job]) -> tuple[list[Job], list[Job], list[Job]]:
    """After the loss of a transaction: those that failed, those that did not and run again, none left over."""
    return [job for job in jobs if job.error is not None], [job for job in jobs if job.error is None], []
