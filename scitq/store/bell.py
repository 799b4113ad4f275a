"""The doorbell: how a commit in one process is heard at once in the others.

After a commit the writer writes eight bytes to `bell` in the side folder; the other processes watch that file. Watching the
WAL itself would be unsound: its event comes at the write, before the commit can be seen (reference/sqlite.md §4.6).
A slow look at SQLite's own `data_version` catches what no bell announces: a foreign program's commit, or a process killed
between its commit and its ring. Where files cannot be watched, that look is quick instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from scitq.store.locks import fcntl

log = logging.getLogger("scitq.store")

LOOK_S = 2.0  # between two looks, when the bell can be watched
OWN_S = 0.0005  # our own rings wake us too: not at each of a quick run of commits
QUICK_LOOK_S = 0.02  # when it cannot: right after something happened,
SLOW_LOOK_S = 0.5  # and when nothing has happened for a while
FIRST_LOOK_S = 5.0  # how long who begins to listen waits for the first look at most
WATCH_AFTER_S = 0.5  # a process that drives, and has lived for so long, watches the bell; before, it looks

_RING = struct.Struct("=II")  # who rings, how many times
# A listener's mark: a shared lock on one byte behind the ring, owned by its open file (struct flock of 64-bit Linux).
_HAS_MARKS = hasattr(fcntl, "F_OFD_GETLK") and sys.platform == "linux" and sys.maxsize > 1 << 32
_MARK = struct.Struct("hhqqi4x")
_MARK_AT = 64


class Bell:
    """Rings for the processes that have the same state file open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = int.from_bytes(os.urandom(4), "little")  # not the pid: containers repeat those
        self._count = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._fd, 0o600)

    def attend(self) -> None:
        """Let the others know that somebody listens here. The kernel takes the mark away with the process."""
        if _HAS_MARKS:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _MARK.pack(fcntl.F_RDLCK, os.SEEK_SET, _MARK_AT, 1, 0))

    def is_attended(self) -> bool:
        """Whether somebody else may be listening. A ring costs a switch to our own listener as well, an unheard one for
        nothing; this look costs a system call. Who begins to listen after it sees the commit by himself."""
        if not _HAS_MARKS:
            return True
        try:
            told = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _MARK.pack(fcntl.F_WRLCK, os.SEEK_SET, _MARK_AT, 1, 0))
        except (OSError, ValueError):  # it was closed meanwhile, for one
            return True
        return bool(_MARK.unpack(told)[0] != fcntl.F_UNLCK)

    def ring(self) -> None:
        if not self.is_attended():
            return
        self._count = (self._count + 1) & 0xFFFFFFFF
        try:
            os.pwrite(self._fd, _RING.pack(self.name, self._count), 0)
        except OSError as error:  # a full disk, or closed: the others will look by themselves
            log.debug("%s: not rung: %s", self.path, error)

    def was_mine(self) -> bool:
        """True if the last ring was ours.

        Skipping it loses nothing, though it may have covered another's: after each of our rings our subscribers are told
        anyway, and they then see that other commit too, which came before its own ring.
        """
        try:
            data = os.pread(self._fd, _RING.size, 0)
        except OSError:
            return False
        return len(data) == _RING.size and _RING.unpack(data)[0] == self.name

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)


kqueue: Any = select  # whose kqueue part the type checker knows only on the systems that have it


class Ear(Protocol):
    """Waits for a ring."""

    is_deaf: bool  # it cannot hear rings; somebody must look

    def wait(self, timeout_s: float) -> bool:
        """True if the bell rang, False after the timeout or a nudge."""

    def nudge(self) -> None:
        """End a wait, from another thread."""

    def close(self) -> None: ...


class DeafEar:
    """Hears no bell, only nudges: for systems and moments without file watching."""

    is_deaf = True

    def __init__(self) -> None:
        self._out, self._in = os.pipe()  # close-on-exec and not inheritable, as all of Python's
        os.set_blocking(self._in, False)

    def wait(self, timeout_s: float) -> bool:
        select.select([self._out], [], [], timeout_s)
        return False

    def nudge(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._in, b"!")

    def close(self) -> None:
        for fd in (self._out, self._in):
            with contextlib.suppress(OSError):
                os.close(fd)


class InotifyEar(DeafEar):
    """Linux. Through ctypes: the standard library has no inotify, and a dependency for two calls is too much."""

    is_deaf = False

    _MODIFY, _GONE, _IGNORED = 0x2, 0x400 | 0x800, 0x8000

    def __init__(self, path: Path) -> None:
        import ctypes  # 3 ms, only for those who subscribe

        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(fd, os.fsencode(path), self._MODIFY | self._GONE) < 0:
            code = ctypes.get_errno()
            os.close(fd)
            raise OSError(code, f"inotify_add_watch {path}")
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._out, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        ready = self._poll.poll(timeout_s * 1000)
        if not any(fd == self._fd for fd, _ in ready):
            return False
        events = os.read(self._fd, 4096)
        at = 0
        while at < len(events):
            _, mask, _, length = struct.unpack_from("iIII", events, at)
            at += 16 + length
            if mask & (self._GONE | self._IGNORED):
                self.is_deaf = True  # somebody removed the side folder
        return True

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            os.close(self._fd)


class KqueueEar(DeafEar):
    """macOS and the BSDs."""

    is_deaf = False

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__()
        self._queue = kqueue.kqueue()
        watched = kqueue.kevent(
            self._fd,
            filter=kqueue.KQ_FILTER_VNODE,
            flags=kqueue.KQ_EV_ADD | kqueue.KQ_EV_CLEAR,
            fflags=kqueue.KQ_NOTE_WRITE | kqueue.KQ_NOTE_DELETE | kqueue.KQ_NOTE_RENAME,
        )
        nudges = kqueue.kevent(self._out, filter=kqueue.KQ_FILTER_READ, flags=kqueue.KQ_EV_ADD)
        self._queue.control([watched, nudges], 0)

    def wait(self, timeout_s: float) -> bool:
        rang = False
        for event in self._queue.control(None, 4, timeout_s):
            if event.ident == self._fd:
                rang = True
                if event.fflags & (kqueue.KQ_NOTE_DELETE | kqueue.KQ_NOTE_RENAME):
                    self.is_deaf = True
        return rang

    def close(self) -> None:
        super().close()
        self._queue.close()
        with contextlib.suppress(OSError):
            os.close(self._fd)


def listen_to(path: Path) -> Ear:
    """The best ear that this system has."""
    try:
        return KqueueEar(path) if hasattr(kqueue, "kqueue") else InotifyEar(path)
    except (OSError, AttributeError, ImportError) as error:  # no such call, no right, or too many watches already
        log.info("%s: cannot be watched (%s); looking instead", path, error)
        return DeafEar()


class Listener:
    """A daemon thread that calls `heard` after other processes' commits.

    It begins to watch the bell after `watch_after_s`, or when told to; until then it looks often. Ending a watch takes the kernel
    6 to 13 ms, even at the end of a process, which one that lives for a tenth of a second should not have to wait for.
    """

    def __init__(
        self,
        bell: Bell | None,
        data_version: Callable[[], int],
        heard: Callable[[], None],
        watch_after_s: float = 0.0,
    ) -> None:
        self._bell = bell
        self._data_version = data_version
        self._heard = heard
        self._stop = threading.Event()
        self._has_begun = threading.Event()
        self._watch_at: float | None = None  # until it is watched
        self._gate = threading.Lock()  # of the ear
        self._ear: Ear = DeafEar()
        if bell is not None:
            self._watch_at = time.monotonic() + watch_after_s
            if not watch_after_s:
                self._watch()
        self._thread = threading.Thread(target=self._listen, name="scitq-bell", daemon=True)
        self._thread.start()

    def await_first_look(self) -> None:
        """Who cannot hear rings compares: what is committed from now on must come after the first look."""
        if self._ear.is_deaf:
            self._has_begun.wait(FIRST_LOOK_S)

    def watch_now(self) -> None:
        """Others' commits are waited for: hear them at once from now on."""
        with self._gate:
            if self._watch_at is not None:
                self._watch_at = 0.0
                self._ear.nudge()

    def close(self) -> None:
        with self._gate:
            self._stop.set()
            self._ear.nudge()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._ear.close()

    def abandon(self) -> None:
        """In a forked child: the thread is not here, and the watch is the parent's."""
        self._ear.close()

    def _watch(self) -> None:
        """From here on rings are heard, if this system can do that."""
        assert self._bell is not None
        ear = listen_to(self._bell.path)
        with self._gate:
            old, self._ear, self._watch_at = self._ear, ear, None
            if self._stop.is_set():  # said to the ear before
                ear.nudge()
        old.close()
        self._bell.attend()  # before the next look, which then sees what was not rung for

    def _listen(self) -> None:
        seen = self._look(None)
        self._has_begun.set()
        pause_s = QUICK_LOOK_S if self._watch_at is not None else LOOK_S
        while not self._stop.is_set():
            pause_s = min(pause_s * 1.5, SLOW_LOOK_S) if self._ear.is_deaf else LOOK_S
            watch_at = self._watch_at
            if watch_at is not None and time.monotonic() >= watch_at:
                self._watch()
                rang = False  # a look, at once
            else:
                rang = self._ear.wait(pause_s)
            if self._stop.is_set():
                return
            if rang and self._bell is not None and self._bell.was_mine():
                time.sleep(OWN_S)
                continue
            version = None if rang else self._look(seen)
            if rang or version != seen:
                seen = seen if rang else version
                pause_s = QUICK_LOOK_S
                self._heard()

    def _look(self, seen: int | None) -> int | None:
        try:
            return self._data_version()
        except Exception as error:  # the file is gone or unreadable: whoever uses it next will say so better
            log.debug("cannot look for commits: %s", error)
            return seen
