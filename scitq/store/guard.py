"""Refuses what would destroy a live state file: opening it in this process with anything but our own SQLite.

POSIX record locks belong to (process, inode): when any descriptor of the file is closed, SQLite's locks are gone, silently.
The next process to close the file then deletes the WAL under us, and acknowledged commits with it (reference/sqlite.md §1).
So `sqlite3.connect`, `open` and whatever is built on them are refused for live files and their -wal and -shm, by inode:
through links, relative paths and URIs. C code that opens files by itself, and ATTACH, escape; what they break is noticed at
the next transaction, because the WAL is another file then (`transaction`).

Left out on purpose: a sentinel descriptor with locks of its own. Closing it drops the locks of every other connection of
this process, and its test for lost locks answers with any process's lock, so it proves nothing when two have the file open.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from scitq.errors import LiveFileOpened

Inode = tuple[int, int]

_SUFFIXES = ("", "-wal", "-shm")
_live: dict[Inode, Path] = {}  # read by the hook without a lock: replaced, never changed
_watched: dict[int, Path] = {}  # by open store
_lock = threading.Lock()
_is_hooked = False


def watch(owner: object, path: Path) -> None:
    """From now on `path`, which `owner` has open, is opened by nobody else in this process."""
    global _is_hooked
    with _lock:
        _watched[id(owner)] = path
        _renew()
        if not _is_hooked:
            # A hook can never be removed: it is set once, and costs one comparison when no file is live.
            sys.addaudithook(_hook)
            _is_hooked = True


def unwatch(owner: object) -> None:
    """`owner` has closed its file."""
    with _lock:
        if _watched.pop(id(owner), None) is not None:
            _renew()


def forget() -> None:
    """In a forked child: the parent's files are not ours, and our closing them does not touch the parent's locks."""
    _watched.clear()
    _renew()


def is_live(path: Path) -> bool:
    """True if this process has it open: then nothing here may open or close it."""
    return _inode(path) in _live


def _renew() -> None:
    global _live
    found: dict[Inode, Path] = {}
    for path in _watched.values():
        for suffix in _SUFFIXES:
            inode = _inode(f"{path}{suffix}")
            if inode is not None:
                found[inode] = path
    _live = found


def _inode(path: str | os.PathLike[str]) -> Inode | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        if _live and not isinstance(args[0], int):
            _refuse(args[0], "open()")
    elif event == "sqlite3.connect" and _live:
        _refuse(args[0], "the standard sqlite3 module")


def _refuse(name: Any, by: str) -> None:
    try:
        text = os.fsdecode(name)
    except TypeError:
        return  # not a name; whoever is asked to open it will say so
    candidates = [text]
    if text.startswith("file:"):
        from urllib.parse import unquote  # 3 ms that only this rare case should pay

        # file:lab.scitq?mode=ro, file:///home/me/lab.scitq, file://localhost/home/me/lab.scitq
        rest = unquote(text[5:].partition("?")[0].partition("#")[0])
        candidates.append(rest.removeprefix("//localhost") if rest.startswith("//localhost/") else rest)
        candidates.append(rest.removeprefix("//"))
    for candidate in candidates:
        found = _live.get(_inode(candidate) or (-1, -1))
        if found is None and candidate.endswith(("-wal", "-shm")):  # one that came to be after the store was opened
            found = _live.get(_inode(candidate[:-4]) or (-1, -1))
        if found is not None:
            raise LiveFileOpened(
                f"{found} is open in this process; opening it here with {by} as well would destroy it. "
                "For a private copy: engine.snapshot(); to query it: engine.sql(...); for a backup: scitq backup FILE.",
                path=found,
            )
