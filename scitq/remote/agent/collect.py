"""Bringing an output folder to where it was asked for, and emptying the trash. Blocking work, done in threads.

A delivery may be killed at any instruction and is then begun again: the destination is either the whole old or the
whole new folder. What tells them apart is the identity (device and inode) of the new folder, written down before it is
moved.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable

from scitq.remote.agent.slots import FOLDERS, OUTPUT

THREADS = 4


class CannotDeliver(Exception):
    """The folder cannot be put there; the text says why and what to do."""


def deliver(root: str, key: str, destination: str) -> None:
    """Put `exec/<key>/output` at `destination`, in place of what an earlier execution left there."""
    home = os.path.join(root, "exec", key)
    source = os.path.join(home, OUTPUT)
    record = os.path.join(home, "delivery")
    destination = os.path.normpath(destination)
    parent, name = os.path.split(destination)
    if not name:
        raise CannotDeliver(f"{destination}: an output cannot take the place of the root folder")
    # In the same folder, so that the last step is one rename. The key makes it ours alone.
    fresh = os.path.join(parent, f".scitq-{key}.new")
    aside = os.path.join(parent, f".scitq-{key}.old")
    known = _read(record)
    if known is None or _identity(destination) != known:
        os.makedirs(parent, exist_ok=True)
        if os.path.lexists(source) and (known is None or _identity(fresh) != known):
            _remove(fresh)
            _bring(source, fresh, record)
        elif known is None or _identity(fresh) != known:
            raise CannotDeliver(f"{source}: the output is gone")
        _put(fresh, aside, destination)
    _remove(fresh)
    _remove(aside)
    to_trash(root, source)  # it was copied


def _bring(source: str, fresh: str, record: str) -> None:
    """Make the neighbour `fresh` from `source`, after writing down which folder it is."""
    _write(record, _identity(source))
    try:
        os.rename(source, fresh)
    except OSError as error:
        if error.errno != 18:  # EXDEV: another file system
            raise
    else:
        return
    import shutil  # here and below: it is slow to load, and most agents never deliver anything

    shutil.copytree(source, fresh, symlinks=True, copy_function=_copy)
    for folder, _, _ in os.walk(fresh, topdown=False):
        _sync(folder)
    _write(record, _identity(fresh))


def _put(fresh: str, aside: str, destination: str) -> None:
    """The one step that changes what stands at the destination."""
    if os.path.lexists(destination):
        if _exchange(fresh, destination):
            return
        _remove(aside)
        os.rename(destination, aside)
    os.rename(fresh, destination)


def _exchange(one: str, other: str) -> bool:
    """Swap two names in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _copy(source: str, target: str) -> str:
    mode = os.lstat(source).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return target  # a pipe, socket or device is no result, and reading it might never end
    import shutil

    shutil.copy2(source, target, follow_symlinks=False)
    if stat.S_ISREG(mode):
        _sync(target)
    return target


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _identity(path: str) -> list[int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return [found.st_dev, found.st_ino]


def _read(record: str) -> list[int] | None:
    try:
        with open(record, encoding="ascii") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, list) else None


def _write(record: str, identity: list[int] | None) -> None:
    with open(record + ".new", "w", encoding="ascii") as file:
        json.dump(identity, file)
    os.rename(record + ".new", record)


def _remove(path: str) -> None:
    """Delete a file or a whole folder, also one whose user took away the right to enter it."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(found.st_mode):
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    import shutil

    for folder, folders, _ in os.walk(path):
        for each in [".", *folders]:
            inner = os.path.join(folder, each)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def tidy(root: str, key: str, is_inline: bool) -> None:
    """After a success: keep the streams and the output of `exec/<key>`, or nothing when neither is needed."""
    home = os.path.join(root, "exec", key)
    output = os.path.join(home, OUTPUT)
    with contextlib.suppress(OSError):
        os.rmdir(output)
    if is_inline and not os.path.lexists(output):
        to_trash(root, home)
    else:
        for name in (*FOLDERS, "delivery", "command"):
            if name != OUTPUT:
                to_trash(root, os.path.join(home, name))
    empty_trash(root)


def to_trash(root: str, path: str) -> bool:
    """Move something out of sight in one step; False when it is not there."""
    try:
        os.rename(path, os.path.join(root, "trash", os.urandom(8).hex()))
    except OSError:
        return False
    return True


def empty_trash(root: str) -> None:
    """Delete what was moved to the trash. Whatever resists stays for the next time."""
    trash = os.path.join(root, "trash")
    with contextlib.suppress(OSError):
        for name in os.listdir(trash):
            _remove(os.path.join(trash, name))


class Pool:
    """A few threads for blocking work, made when first needed. `done` is called in the thread that did the work."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self.open = 0
        """Jobs not yet finished; counted by the loop's thread only, see `Agent`."""

    def do(self, job: Callable[[], None]) -> None:
        """Run `job` some time soon."""
        self._jobs.put(job)
        if self._threads < min(THREADS, self.open + 1):
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"agent-{self._threads}").start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
