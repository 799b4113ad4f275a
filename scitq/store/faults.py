"""Which of our errors an SQLite error is, in words that say what to do.

Errors that a caller's own SQL causes (constraints, illegal moves, syntax) are not translated: they are that caller's business.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import apsw

from scitq.errors import (
    LiveFileOpened,
    StateFileBusy,
    StateFileDamaged,
    StateFileError,
    StateFileFull,
    StateFileMoved,
    StateFileReadOnly,
)
from scitq.store.locks import is_stopped

WAL_MB = 8  # what a WAL grows to before it is copied into the file and begun anew (transaction.CHECKPOINT_PAGES, twice)

# The base code of an extended code is its last byte.
_FULL = {apsw.SQLITE_FULL}
# A quota (EDQUOT) or a size limit (EFBIG) is no ENOSPC, so SQLite calls it an I/O error of the write.
_FULL_EXTENDED = {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_TRUNCATE}
_DAMAGED = {apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB, apsw.SQLITE_PROTOCOL}


def explain(error: BaseException, path: Path) -> BaseException:
    """The error to raise in place of `error`: ours when the file is the cause, else `error` itself."""
    if not isinstance(error, apsw.Error):
        return error
    code = getattr(error, "extendedresult", 0)
    base = code & 0xFF
    if base in _FULL or code in _FULL_EXTENDED:
        return full(path)
    if base in _DAMAGED:
        return StateFileDamaged(
            f"{path} is damaged ({error}). Stop what uses it, keep a copy, and run: scitq check. "
            f"Backups are in {path}.d/backups.",
            path=path,
        )
    if code == apsw.SQLITE_READONLY_DBMOVED:
        return moved(path)
    if base in (apsw.SQLITE_READONLY, apsw.SQLITE_PERM):
        return StateFileReadOnly(
            f"{path} cannot be written: check the rights of the file and of its folder.", path=path
        )
    if base == apsw.SQLITE_BUSY:
        return busy(path, None)
    if base in (apsw.SQLITE_IOERR, apsw.SQLITE_CANTOPEN):
        return StateFileError(
            f"{path}: the system refused to read or write it ({error}). Is its disk still there?", path=path
        )
    return error


def full(path: Path) -> StateFileFull:
    """Disk, quota or size limit: all the same to the user."""
    free, needed = _room(path)
    return StateFileFull(
        f"{path}: no space left to write (disk, quota or size limit). Nothing was changed. {free} MB are free on its disk; "
        f"about {needed} MB are needed. Free some space, then go on.",
        path=path,
        needed_mb=needed,
    )


def _room(path: Path) -> tuple[str, int]:
    """What is free where the file is, and what lets work go on: room for a whole WAL, and for copying it into the file."""
    try:
        found = os.statvfs(path.parent)
        wal = os.path.getsize(f"{path}-wal")
    except OSError:
        return "?", 2 * WAL_MB
    return f"{found.f_bavail * found.f_frsize / 1e6:.1f}", WAL_MB + max(WAL_MB, math.ceil(wal / 1e6))


def moved(path: Path) -> StateFileMoved:
    """The file is no longer the one that was opened."""
    return StateFileMoved(
        f"{path} was deleted, moved or replaced while it was open; nothing more is written. "
        "Put it back or open the new one.",
        path=path,
    )


def lock_lost(path: Path) -> LiveFileOpened:
    """The WAL was deleted under us: something in this process closed the file, and with that dropped our locks."""
    return LiveFileOpened(
        f"{path}: something in this process opened and closed it without scitq (another SQLite, a copy), so its locks were "
        "lost. Nothing is lost so far, and nothing more is written: close it, or end this process, and open it again. "
        "For a private copy use engine.snapshot(); for a backup: scitq backup FILE.",
        path=path,
    )


def busy(path: Path, pid: int | None) -> StateFileBusy:
    """Somebody else holds the write lock."""
    if pid is not None and is_stopped(pid):
        return StateFileBusy(
            f"{path}: process {pid} was stopped in the middle of writing. Nothing was changed; let it go on "
            f"(kill -CONT {pid}) or end it (kill -9 {pid}, which loses nothing that was confirmed), then try again.",
            path=path,
            pid=pid,
        )
    who = f"process {pid}" if pid else "another process"
    return StateFileBusy(
        f"{path}: {who} has been writing for too long. Nothing was changed; try again, or see what that process does.",
        path=path,
        pid=pid,
    )
