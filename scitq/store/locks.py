"""Locks on side files: `flock`, because it survives what POSIX record locks do not.

A record lock is lost when *any* descriptor of the file is closed in the process; a `flock` belongs to its descriptor.
The files are never deleted: a lock on a deleted file excludes nobody. (One is replaced, by `lease`, when somebody takes over
from a driver that stands still: then a number in the file excludes.)
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from scitq.errors import NotSupported

try:
    import fcntl
except ModuleNotFoundError:
    raise NotSupported(
        f"scitq runs on Linux and macOS, not on {sys.platform}; on Windows use it inside WSL 2."
    ) from None

__all__ = ["FileLock", "fcntl", "holder_of", "is_stopped"]


class FileLock:
    """An exclusive lock on `path`; released by the kernel when the process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self.fd, 0o600)

    def acquire(self) -> None:
        """Wait in the kernel's queue: fair, where polling starves somebody for half a second."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def acquire_within(self, limit_s: float) -> bool:
        """Wait, but not for ever: for those who cannot be told apart from a hanging program while they wait."""
        ends = time.monotonic() + limit_s
        while not self.try_acquire():
            if time.monotonic() >= ends:
                return False
            time.sleep(0.005)
        return True

    def try_acquire(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def is_replaced(self) -> bool:
        """True if the path names another file by now: then this lock excludes nobody."""
        try:
            there = os.stat(self.path)
        except OSError:
            return True
        mine = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Close, which releases unless a forked child shares the descriptor (so children close theirs)."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)

    def holder(self) -> int | None:
        """The process that holds the lock, where the system tells (Linux)."""
        return holder_of(self.path)


def holder_of(path: Path) -> int | None:
    """The process that holds a `flock` on `path`, or None if nobody does or the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        found = os.stat(path)
        with open("/proc/locks", encoding="ascii") as table:
            lines = table.readlines()
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        # 12: FLOCK  ADVISORY  WRITE 4121 fe:00:1835011 0 EOF      (a waiter has "->" as its second word)
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5] == place and int(words[4]) > 0:
            return int(words[4])
    return None


def is_stopped(pid: int) -> bool:
    """Whether the process stands still: SIGSTOP, Ctrl-Z or a debugger holds it. False where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[:1]
    except OSError:
        return False
    return state in (["T"], ["t"])
