"""One writer per process: who runs the next transaction, and what its callers wait for.

A caller that finds nobody writing or waiting runs its own function at once. Otherwise it queues up, and the writer thread takes all
that queued while the last commit ran (group commit without a timed window). Handing every function to the thread would be
simpler, but two thread switches cost 70 µs where the whole transaction takes 30.

Around each transaction the write lock of the side folder is held: it keeps foreign lock losses harmless and gives other
processes fair turns. Waiting for it is the thread's business alone.

A function given to the writer
* runs inside BEGIN IMMEDIATE and must not end the transaction itself;
* must have read its cursors to the end, or closed them: an open one would pin the WAL (noticed; the connection is renewed);
* may run twice: when SQLite takes back a whole group (disk full), the innocent ones are run again, each alone.
  So it has no effects but those on its connection;
* may run on any thread, one at a time.

Subscribers are served by the caller that committed, or, in a run of commits, by the thread less often.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import apsw

from scitq.errors import BadInput, Closed
from scitq.store.faults import busy
from scitq.store.locks import FileLock
from scitq.store.transaction import Job, Transactions

T = TypeVar("T")
log = logging.getLogger("scitq.store")

GROUP_SIZE = 1000  # at most so many functions in a transaction
BUSY_S = 10.0  # how long a caller waits for another process's write lock
TELL_S = 0.002  # in a run of commits, subscribers and bell are served at most this often: each costs thread switches
# After a run the thread does it, so long after the last time (or who begins to wait: `tell_what_is_due`). The callers come first:
# a thread that wakes up amid their run takes the interpreter from them, which costs 50 µs each time.
TELL_LATE_S = 0.010
IDLE_S = 30.0  # quiet for so long: the WAL is folded into the file


class Writer:
    """Runs functions in transactions, one transaction at a time."""

    def __init__(
        self,
        path: Path,
        transactions: Transactions,
        lock: FileLock,
        *,
        ring: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        self.path = path
        self.turn = threading.Lock()  # held by whoever is in a transaction; a fork waits for it
        self._transactions = transactions
        self._lock = lock
        self._ring = ring  # tells the other processes of a commit
        self._tell = tell  # tells the subscribers of this one
        self._jobs: deque[Job] = deque()
        self._is_to_tell = False
        self._told_at = 0.0
        self._telling: set[int] = set()  # callers' threads that serve the subscribers now
        self._has_chores = False
        self._was_interrupted = False
        self._closing = False
        # Several callers met in the last group: one that finds a gap now would get a commit of its own, where the group
        # shares one (16 callers: 40 k/s instead of 20 k/s).
        self._is_crowded = False
        self._inside: int | None = None  # the thread that runs a function now
        # The thread sleeps on the queue; who gives it work puts a token if it is not awake. `_awake` is cleared before
        # the last look at the work, and work is added before the look at `_awake`: one of the two sees the other.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="scitq-writer", daemon=True)
        self._blocked_since: float | None = None

    def start(self) -> None:
        """Start the thread. Not at the first write: Ctrl-C in the middle of that would leave a thread that nobody knows."""
        self._thread.start()

    # For callers

    def write(self, run: Callable[[apsw.Connection], T], *, full: bool = False, quiet: bool = False) -> T:
        """Run `run` and return what it returned, after the commit. `quiet`: the caller will say `tell` when it suits him."""
        me = threading.get_ident()
        if me in (self._inside, self._thread.ident) or me in self._telling:
            raise BadInput(
                "store.write() would wait for itself here: use the connection given, or store.post() in a subscriber."
            )
        job = Job(run, full)
        try:
            if self._is_crowded or self._jobs or self.turn.locked() or not self._run_here(job, me, quiet):
                job.await_by_lock()
                self._enqueue(job)
                self._await(job)
        except KeyboardInterrupt:  # at any instruction
            self._was_interrupted = self._has_chores = True
            self._wake()
            raise
        if job.error is not None:
            raise job.error
        value: T = job.value
        return value

    def post(self, run: Callable[[apsw.Connection], T], *, full: bool = False) -> Future[T]:
        """Queue `run`; the future is resolved after its commit."""
        job = Job(run, full)
        future: Future[T] = Future()
        job.future = future
        self._enqueue(job)
        return future

    def finish(self, timeout_s: float) -> bool:
        """Write what is queued, take no more, end the thread; False if another process kept us from it."""
        with self._gate:
            self._closing = True
        if self._thread.ident == threading.get_ident():  # a subscriber closes the store
            while self._jobs:
                self._turn()
        else:
            self._wake()
            while self._thread.is_alive():
                self._thread.join(min(1.0, timeout_s))
                since = self._blocked_since
                if since is not None and time.monotonic() - since >= timeout_s:
                    return False
        return True

    def close(self) -> None:
        """Close the connection, after `finish`."""
        with self.turn:
            tidy = self._lock.try_acquire()
            try:
                self._transactions.close(tidy=tidy)
            finally:
                if tidy:
                    self._lock.release()

    # At a fork

    @property
    def connection(self) -> apsw.Connection:
        return self._transactions.connection

    def pause(self, timeout_s: float) -> bool:
        """Let no transaction begin, once the present one has ended; False if it does not end."""
        return self._inside != threading.get_ident() and self.turn.acquire(timeout=timeout_s)

    def resume(self) -> None:
        self.turn.release()

    def tell(self) -> None:
        """Ring, and serve the subscribers, here and now: waking the thread for it would cost two switches."""
        me = threading.get_ident()
        self._is_to_tell = False  # first: what is committed from here on is told by itself
        self._told_at = time.monotonic()
        self._ring()
        self._telling.add(me)
        try:
            self._tell()
        finally:
            self._telling.discard(me)

    def tell_what_is_due(self) -> None:
        """Do now what is left to the thread after a run of commits."""
        if self._is_to_tell:
            try:
                self.tell()
            except KeyboardInterrupt:  # somewhere in between: once more, then
                self._is_to_tell = self._has_chores = True
                self._wake()
                raise

    def _run_here(self, job: Job, me: int, quiet: bool) -> bool:
        """Run the job on the caller's thread; False, and nothing done, if another process is writing.

        Ctrl-C may strike at any instruction here. `with` on a lock is safe from that; what else may be left over (a
        transaction, the file lock) the thread clears away: see `_chores`.
        """
        with self.turn:
            try:
                if self._closing or not self._lock.try_acquire():
                    return False
                self._inside = me
                self._transactions.run([job])
            finally:
                self._inside = None
                self._lock.release()
            if self._transactions.is_checkpoint_overdue:
                self._transactions.checkpoint()
            # Still in turn: nobody else can have set it.
            changed, self._transactions.has_changed = self._transactions.has_changed, False
        if changed:
            if not quiet:
                self._is_to_tell = True
                if time.monotonic() - self._told_at >= TELL_S:  # in a run of commits the thread does it
                    self.tell()
            if (self._is_to_tell or self._transactions.wants_checkpoint) and not self._has_chores:
                self._has_chores = True
                self._wake()
        return True

    def _enqueue(self, job: Job) -> None:
        with self._gate:  # after the thread has seen `_closing`, nobody would run it
            if self._closing:
                raise Closed(f"{self.path} was closed.", path=self.path)
            self._jobs.append(job)
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._tokens.put(None)

    def _await(self, job: Job) -> None:
        while not job.done.acquire(True, BUSY_S):
            since = self._blocked_since
            # Only the wait for another process is limited; our own long transactions are not.
            if since is not None and time.monotonic() - since >= BUSY_S and job.call_off():
                raise busy(self.path, self._lock.holder())

    # The thread

    def _work(self) -> None:
        while True:
            if self._has_chores:
                self._pause_between_chores()
                self._has_chores = False
                self._chores()
            if self._jobs:
                self._turn()
            elif not self._has_chores:
                if self._closing:
                    return
                self._sleep()

    def _sleep(self) -> None:
        self._awake = False
        if not self._jobs and not self._has_chores and not self._closing:
            try:
                self._tokens.get(timeout=IDLE_S if self._transactions.wal_pages else None)
            except Empty:
                self._fold()
        self._awake = True

    def _pause_between_chores(self) -> None:
        while (left_s := self._told_at + TELL_LATE_S - time.monotonic()) > 0 and not self._is_pressed():
            self._awake = False
            if not self._is_pressed():
                with contextlib.suppress(Empty):
                    self._tokens.get(timeout=left_s)
            self._awake = True

    def _is_pressed(self) -> bool:
        """Whether something waits that is worth taking the interpreter from callers."""
        return bool(self._jobs) or self._closing or self._was_interrupted or self._transactions.wants_checkpoint

    def _turn(self) -> None:
        """One group: lock, transaction, unlock, wake the callers, tell the others."""
        settled: list[Job] = []
        with self.turn:
            self._blocked_since = time.monotonic()
            self._lock.acquire()
            self._blocked_since = None
            self._inside = threading.get_ident()
            try:
                settled = self._group()
            finally:
                self._inside = None
                self._lock.release()
                changed, self._transactions.has_changed = self._transactions.has_changed, False
        for job in settled:
            job.resolve()
        self._after(changed)

    def _group(self) -> list[Job]:
        """Run what is queued, usually in one transaction. Jobs returned are committed or have left no trace."""
        jobs: list[Job] = []
        while self._jobs and len(jobs) < GROUP_SIZE:
            job = self._jobs.popleft()
            if job.claim():
                jobs.append(job)
        self._is_crowded = len(jobs) > 1
        if not jobs:
            return []
        try:
            settled, again, later = self._transactions.run(jobs)
            self._jobs.extendleft(reversed(later))
            for job in again:
                settled += self._transactions.run([job]).settled
        except BaseException as error:  # not a job's error but ours: still, nobody may be left waiting
            log.exception("%s: the writer failed", self.path)
            settled = [job for job in jobs if job not in self._jobs]
            for job in settled:
                job.error = job.error or error
        return settled

    def _after(self, changed: bool) -> None:
        if changed:
            self._ring()
            self._tell()
            self._told_at = time.monotonic()
        if self._transactions.wants_checkpoint and not self._closing:
            with self.turn:
                self._transactions.checkpoint()

    def _chores(self) -> None:
        """What callers that ran their own function leave to the thread; also the remains of an interrupted one."""
        if self._was_interrupted:
            self._was_interrupted = False
            with self.turn:
                self._inside = None
                self._transactions.undo()
                self._lock.release()
            self._is_to_tell = True
        told, self._is_to_tell = self._is_to_tell, False
        self._after(told)

    def _fold(self) -> None:
        with self.turn:
            if self._lock.try_acquire():
                try:
                    self._transactions.fold()
                finally:
                    self._lock.release()
