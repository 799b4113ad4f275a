"""The root folder of an agent: its fixed places, its locks, its bounded log of diagnostics."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time

from scitq.remote.agent import VERSION

FOLDERS = ("journal", "slot", "exec", "trash", "stage", "cache", "blobs", "parcels", "kept")
LOG_LIMIT = 1 << 20


def make(root: str) -> None:
    """The root folder and its fixed subfolders, private to the user."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    os.chmod(root, 0o700)
    for name in FOLDERS:
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)
    identity(root)


def identity(root: str) -> str:
    """Eight hexadecimal digits that are this folder's alone: its containers carry them in their names."""
    path = os.path.join(root, "identity")
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        if len(found := file.read().strip()) == 8:
            return found
    fresh = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"  # threads of one process may be at it together
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(os.urandom(4).hex())
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)  # whole at once; another process may have been faster
    os.unlink(fresh)
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def lock(root: str, name: str) -> int | None:
    """Take `root/name` for life; None when another process has it. The file itself is never deleted."""
    held = os.open(os.path.join(root, name), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    text = json.dumps({"pid": os.getpid(), "at": time.time(), "version": VERSION}) + "\n"
    os.ftruncate(held, 0)
    os.pwrite(held, text.encode(), 0)
    return held


def is_still(root: str, name: str, held: int) -> bool:
    """Whether the lock that is held lies there: not so when the folder was deleted, and perhaps made anew by others."""
    try:
        there, ours = os.stat(os.path.join(root, name)), os.fstat(held)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def is_locked(root: str, name: str) -> bool:
    """Whether some process holds the lock now."""
    try:
        probe = os.open(os.path.join(root, name), os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(probe)


def say(root: str, role: str, text: str) -> None:
    """Append to `agent.log`; the log is turned over at 1 MB and one old one is kept. Never raises."""
    path = os.path.join(root, "agent.log")
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {role} {os.getpid()}: {text}\n"
    try:
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.fstat(log).st_size > LOG_LIMIT:
                os.rename(path, path + ".1")
            os.write(log, line.encode("utf-8", "backslashreplace"))
        finally:
            os.close(log)
    except OSError:
        return  # a full or vanished disk: there is no better place to tell it
