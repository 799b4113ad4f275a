"""Who drives the state file: a `flock` that the kernel releases with the process, and a number that fences off the frozen.

The lock decides. The number (`lead.epoch`) grows at each change of driver and is compared inside every transaction of the
driver: one that was suspended, lost its lock file or was replaced by hand finds its number stale and writes nothing more.
A process that stands still keeps its lock. On a person's word (`take_over`) another one then puts a lock file of its own in
place of that one, in the transaction that raises the number.
The other columns of `lead` tell people who drives, and notice a second machine, whose kernel knows nothing of our lock.
Of two copies of a file neither lock nor number says anything: `copies`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from scitq.errors import NoDriver, StaleDriver, StateFileError
from scitq.store import copies
from scitq.store.copies import Copy, Rival
from scitq.store.here import boot_id, machine_id, process_start
from scitq.store.locks import FileLock, holder_of, is_stopped

if TYPE_CHECKING:
    from scitq.store.connection import Store

log = logging.getLogger("scitq")

SEEN_EVERY_S = 60.0  # the driver says no more often than this that it is there
FRESH_S = 180.0  # another machine that said so since then is believed


@dataclass(frozen=True)
class Holder:
    """The driver, by what it wrote when it took the lease."""

    epoch: int
    pid: int | None
    host: str | None
    machine: str | None
    boot: str | None
    started: int | None
    program: str | None
    seen: int | None  # milliseconds since 1970
    alive: bool  # somebody on this machine holds the lock
    is_here: bool  # on this machine
    is_me: bool  # this process
    is_stopped: bool  # on this machine, by a signal or a debugger

    def stands_still(self, now_ms: int) -> bool:
        """It is on this machine and keeps the lock, but does nothing: stopped, or silent for three times as long as it may."""
        is_silent = self.seen is not None and now_ms - self.seen > 1000 * FRESH_S
        return self.alive and not self.is_me and (self.is_stopped or is_silent)

    def way_out(self) -> str:
        """What to do about a driver that stands still; the command for the last follows."""
        if self.is_stopped:
            return f"Let it go on (kill -CONT {self.pid}), end it (kill -9 {self.pid}), or drive in its place"
        return f"End it (kill -9 {self.pid}) or drive in its place"

    def describe(self, now_ms: int) -> str:
        """`python (pid 4121, this machine)`."""
        if self.is_here:
            still = ""
            if self.is_stopped:
                still = ", stopped"
            elif self.seen is not None and self.stands_still(now_ms):
                still = f", silent for {(now_ms - self.seen) // 1000} s"
            return f"{self.program or 'python'} (pid {self.pid}, this machine{still})"
        ago = f", seen {max(0, now_ms - self.seen) // 1000} s ago" if self.seen is not None else ""
        return f"{self.program or 'python'} (pid {self.pid} on {self.host or 'another machine'}{ago})"


class Lease:
    """The right to drive `store`'s file. One per process that might drive."""

    def __init__(self, store: Store) -> None:
        self.epoch: int | None = None
        self.copy: Copy | None = None  # known while this process drives
        self.knows: dict[str, int] = {}  # the copies that it descends from (see `copies`)
        self.has_unmet = False  # there may be workers that it has to meet first
        self._has_word = False  # somebody has said that this copy is to be driven in place of others
        self._accepted: set[str] = set()  # those in whose place it does, by that word
        self._store = store
        self._path = store.side / "driver.lock"
        self._lock: FileLock | None = None
        self._seen_at = 0.0

    def try_acquire(self, *, take_over: bool = False) -> bool:
        """Become the driver, if nobody is; True if this process is the driver now.

        Raises NoDriver if another machine drives, which no lock of this one can tell, or if another copy of the file does;
        `take_over` is the user's word that it does not, or is not to. It is also what it takes to replace a driver of this
        machine that stands still.
        """
        if self.epoch is not None:
            return True
        if not take_over:
            self._refuse_second_machine()
            self._refuse_second_copy()
        if self.copy is None:
            self.copy = copies.own(self._store.path, self._store.side)
        self._has_word = take_over
        lock = self._fresh_lock()
        # Someone who asks who drives holds the lock for an instant (see `is_held`): not a reason to give up.
        for wait_s in (0.001, 0.004, None):
            if lock.try_acquire():
                break
            if wait_s is None or lock.holder() is not None:
                return take_over and self._take_over(lock)
            time.sleep(wait_s)
        try:
            self.epoch = self._store.write(lambda conn: self._enter(conn, lock), full=True)
        except BaseException:
            lock.release()
            raise
        self._begin()
        return self.epoch is not None

    def _take_over(self, held: FileLock) -> bool:
        """Replace a driver of this machine that stands still (or got no further than its lock); False if it does not."""
        reader = self._store.reader()
        epoch, holder, locker = _epoch(reader), Lease.holder(reader), held.holder()
        if held.is_replaced():
            return False  # after the number was read: whose lock this was is not whom that number names
        stands_still = holder is not None and holder.stands_still(_now_ms())
        if not stands_still and (locker is None or not is_stopped(locker)):
            return False
        lock = self._store.hold(FileLock(self._path.with_name(f"driver.lock.{os.getpid()}.{id(self)}")))
        own = lock.path
        lock.acquire()

        def enter(conn: apsw.Connection) -> int | None:
            # In the transaction, where no other process can be: who got the old lock meanwhile sees in its own one that it
            # was replaced; and of two that take over at once the second finds the first.
            if _epoch(conn) != epoch:
                return None
            with contextlib.suppress(FileNotFoundError):  # this function ran before
                own.rename(self._path)
            lock.path = self._path
            return self._enter(conn, lock)

        try:
            self.epoch = self._store.write(enter, full=True)
        finally:
            if self.epoch is None:
                own.unlink(missing_ok=True)
                self._store.drop(lock)
        if self.epoch is None:
            return False
        if self._lock is not None:
            self._store.drop(self._lock)
        self._lock = lock
        self._begin()
        log.warning(
            "%s: this process drives in place of %s, which stands still. Should it go on, it finds that out and writes "
            "nothing more.", self._store.path.name, "a process" if holder is None else holder.describe(_now_ms())
        )  # fmt: skip
        return True

    def _begin(self) -> None:
        self._seen_at = time.monotonic()
        self.knows = copies.lineage(self._store.reader())
        self.has_unmet = bool(copies.unmet(self._store.reader()))
        self._accepted.clear()

    def check(self, conn: apsw.Connection) -> None:
        """First statement of each of the driver's transactions: raises StaleDriver if this process drives no more."""
        epoch = _epoch(conn)
        if self.epoch is None or epoch != self.epoch:
            raise StaleDriver(
                f"another driver has taken over {self._store.path.name}; this one writes nothing more.",
                mine=self.epoch,
                now=epoch,
            )
        if self._lock is None or self._lock.is_replaced():
            raise StaleDriver(
                f"{self._path} was deleted or replaced, so this process may not be the only driver; it stops."
            )
        if time.monotonic() - self._seen_at >= SEEN_EVERY_S:
            self._say_here(conn)

    def say_here(self, conn: apsw.Connection) -> None:
        """Say so now; this writes, so it shows whether that is possible."""
        self.check(conn)
        self._say_here(conn)

    def _say_here(self, conn: apsw.Connection) -> None:
        conn.execute("UPDATE lead SET seen = ?", (_now_ms(),))
        self._seen_at = time.monotonic()

    def beat(self) -> None:
        """Say that we are still here, if that is due; for a driver that has had nothing to write."""
        if self.epoch is not None and time.monotonic() - self._seen_at >= SEEN_EVERY_S:
            self._store.write(self.check)

    def outbid(self, epoch: int) -> None:
        """Go on under a number above `epoch`, which a worker's agent has seen: an older copy of the file was put in its place,
        or this one was taken from where it was driven before."""
        mine = self.epoch
        if mine is None or epoch < mine:
            return

        def write(conn: apsw.Connection) -> None:
            self.check(conn)
            conn.execute("UPDATE lead SET epoch = ?", (epoch + 1,))
            self._say_copy(conn, epoch + 1)

        self._store.write(write)
        self.epoch = epoch + 1

    def may_replace(self, rival: Rival) -> bool:
        """Whether this copy may drive in place of another one that has driven: because it descends from it, all that it did
        included; or by somebody's word, which counts once for each."""
        is_own = self.copy is not None and rival.id == self.copy.id
        if is_own or self.knows.get(rival.id, -1) >= rival.epoch:
            return True
        if not self._has_word or rival.id in self._accepted:
            return False

        def write(conn: apsw.Connection) -> None:
            self.check(conn)
            copies.drives(conn, rival.id, rival.epoch)
            copies.meet_all(conn)

        self._store.write(write)
        self.has_unmet = True
        self._accepted.add(rival.id)
        self.knows[rival.id] = rival.epoch
        return True

    def give_way(self, rival: Rival, worker: str) -> StaleDriver:
        """Another copy drives: write it down, so that no process drives this one before somebody says so. What to raise."""

        def write(conn: apsw.Connection) -> None:
            self.check(conn)
            copies.give_way(conn, rival)

        self._store.write(write)
        return StaleDriver(
            f"worker {worker} is driven from another copy of {self._store.path.name} now ({rival.place}). This copy starts nothing "
            "more; to drive from here in its place: scitq up --take-over",
            copy=rival.place,
        )

    def release(self) -> None:
        """Stop driving; other processes that have the file open hear of it at once."""
        lock, self._lock = self._lock, None
        epoch, self.epoch = self.epoch, None
        if lock is None:
            return
        try:
            if epoch is not None:
                self._store.write(lambda conn: _leave(conn, epoch))
        except StateFileError:
            pass  # closed, full or gone: the kernel's lock is what counts
        finally:
            self._store.drop(lock)
            # After the lock is free: those who were woken by the commit came too early.
            self._store.ring()

    @staticmethod
    def holder(conn: apsw.Connection) -> Holder | None:
        """Who drives, or drove last; None if the last one left properly or there never was one."""
        [row] = conn.execute("SELECT epoch, pid, host, machine, boot, started, program, seen FROM lead")
        epoch, pid, host, machine, boot, started, program, seen = row
        if pid is None:
            return None
        here = _is_here(machine, boot)
        alive = here and is_held(Path(conn.filename + ".d", "driver.lock"))
        me = here and pid == os.getpid() and started == process_start(os.getpid())
        stopped = alive and is_stopped(pid)
        return Holder(epoch, pid, host, machine, boot, started, program, seen, alive, here, me, stopped)

    def _fresh_lock(self) -> FileLock:
        if self._lock is not None and self._lock.is_replaced():
            self._store.drop(self._lock)
            self._lock = None
        if self._lock is None:
            self._lock = self._store.hold(FileLock(self._path))
        return self._lock

    def _refuse_second_machine(self) -> None:
        holder = Lease.holder(self._store.reader())
        if holder is None or holder.is_here or holder.seen is None:
            return
        ago_s = (_now_ms() - holder.seen) / 1000
        if ago_s < FRESH_S:
            raise NoDriver(
                f"{self._store.path.name} is driven by another machine ({holder.host}, seen {max(0, ago_s):.0f} s ago). "
                "This process only adds and watches; take over with scitq up --take-over",
                host=holder.host,
                pid=holder.pid,
            )

    def _refuse_second_copy(self) -> None:
        rival = copies.superseded(self._store.reader())
        if rival is not None:
            raise NoDriver(
                f"another copy of {self._store.path.name} is driven in its place ({rival.place}). This process only adds and "
                "watches; to drive from here instead: scitq up --take-over",
                copy=rival.place,
            )

    def _say_copy(self, conn: apsw.Connection, epoch: int) -> None:
        assert self.copy is not None
        copies.drives(conn, self.copy.id, epoch)
        if self._has_word:
            copies.claim(conn)

    def _enter(self, conn: apsw.Connection, lock: FileLock) -> int | None:
        """Write down that this process drives, if its lock is (still) the one that counts; the new number."""
        if lock.is_replaced():
            lock.release()
            return None
        conn.execute(
            "UPDATE lead SET epoch = epoch + 1, pid = ?, host = ?, machine = ?, boot = ?, started = ?, program = ?, seen = ?",
            (
                os.getpid(),
                socket.gethostname(),
                machine_id(),
                boot_id(),
                process_start(os.getpid()),
                _program(),
                _now_ms(),
            ),
        )
        assert self.copy is not None
        copies.arrive(conn, self.copy.id)
        self._say_copy(conn, epoch := _epoch(conn))
        return epoch


def is_held(path: Path) -> bool:
    """True if a process holds the lock `path`. Where the system does not tell, the lock is tried and let go at once."""
    if holder_of(path) is not None:
        return True
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_here(machine: str | None, boot: str | None) -> bool:
    # Containers of one kernel have machine ids of their own, but see our flock: the boot id is theirs and ours.
    return machine == machine_id() or (bool(boot) and boot == boot_id())


def _epoch(conn: apsw.Connection) -> int:
    [(epoch,)] = conn.execute("SELECT epoch FROM lead")
    return int(epoch)


def _leave(conn: apsw.Connection, epoch: int) -> None:
    conn.execute("UPDATE lead SET pid = NULL, seen = NULL WHERE epoch = ?", (epoch,))


def _program() -> str:
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return name if name and name not in ("-c", "-m", "__main__.py") else "python"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
