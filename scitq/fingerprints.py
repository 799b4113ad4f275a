"""What a path of this machine holds, by content: every file below it with its SHA-256, for workers that cannot see it.

A file is read again only when it has changed: sums are kept by path, size, time of change and inode, those of large files also
in the side folder, where losing them costs time and nothing else. Sending what is missing on a worker is `parcels`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scitq.fetch.errors import Cancelled, FetchError, Interrupted, Unsupported, of_os_error
from scitq.fetch.expand import address_of, expand
from scitq.fetch.files import is_temporary
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import Address, parse
from scitq.remote.agent.manifest import NAME as MANIFEST

CHUNK_BYTES = 1 << 20
# Sums of files from this size on are written down: to read smaller ones again takes less time than to look them up.
KEPT_BYTES = 1 << 20
# Most sums in memory; then they are forgotten, and those of large files read again from the side folder.
MOST = 200_000
# A file that changed so shortly before it was read may change again without its time showing it.
FRESH_NS = 2_000_000_000
# How often a file that changes while it is read is read again.
TRIES = 3
_GLOB = re.compile(r"[*?\[]")

Mark = tuple[int, int, int]
"""Size, time of change in ns, inode."""


class SourceChanged(Interrupted):
    """A file is not what it was a moment ago."""


@dataclass(frozen=True)
class File:
    """One file of this machine, as it was when its sum was made."""

    path: str
    mark: Mark


@dataclass
class Look:
    """What an address holds: the words of `remote.agent.parcels`, and where the bytes are."""

    uri: str
    base: str
    """The folder that the names of files go on from."""
    tail: str
    """How the address goes on from there."""
    rows: list[list[Any]] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    """By sum."""
    left_out: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What tells this list of files from others."""
        return hashlib.sha256(json.dumps(self.rows, separators=(",", ":")).encode("ascii")).hexdigest()


class Fingerprints:
    """The sums of one state file. Thread-safe; two that want the same file wait for one that reads it."""

    def __init__(self, side: Path) -> None:
        self._path = side / "fingerprints"
        self._known: dict[str, tuple[Mark, str]] = {}
        self._is_loaded = False
        self._lock = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}

    def forget(self, path: str) -> None:
        """It turned out to hold something else."""
        with self._lock:
            self._known.pop(path, None)

    def sum_of(self, path: str, is_over: Callable[[], bool]) -> tuple[str, Mark, int]:
        """The SHA-256 of a file, its mark and its mode.

        Raises:
            FetchError: it cannot be read, or does not stop changing.
        """
        with self._lock:
            self._load()
            gate = self._reading.setdefault(path, threading.Lock())
        try:
            with gate:
                return self._sum(path, is_over)
        except OSError as error:
            raise of_os_error(error, path, "get") from error
        finally:
            with self._lock:
                if not gate.locked():
                    self._reading.pop(path, None)

    def _sum(self, path: str, is_over: Callable[[], bool]) -> tuple[str, Mark, int]:
        for _ in range(TRIES):
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                if not stat.S_ISREG(before.st_mode):
                    raise Unsupported(f"{path}: is neither a file nor a folder.", uri=path, phase="get")
                mark = mark_of(before)
                known = self._known.get(path)
                if known is not None and known[0] == mark:
                    return known[1], mark, before.st_mode
                digest, now_ns = hashlib.sha256(), time.time_ns()
                while data := file.read(CHUNK_BYTES):
                    if is_over():
                        raise Cancelled(f"{path}: cancelled.", uri=path, phase="get")
                    digest.update(data)
                if mark_of(os.fstat(file.fileno())) != mark:
                    continue
            if now_ns - mark[1] > FRESH_NS:
                self._keep(path, mark, digest.hexdigest())
            return digest.hexdigest(), mark, before.st_mode
        raise SourceChanged(f"{path}: is being written while it is to be sent to a worker.", uri=path, phase="get")

    def _keep(self, path: str, mark: Mark, sha: str) -> None:
        with self._lock:
            if len(self._known) >= MOST:
                self._known.clear()
                self._is_loaded = False
                self._load()
            self._known[path] = mark, sha
            if mark[0] >= KEPT_BYTES:
                try:
                    with open(self._path, "a", encoding="ascii") as file:
                        file.write(f"{json.dumps([path, *mark, sha])}\n")
                except OSError:
                    return  # then it is read again some day

    def _load(self) -> None:
        """Read what was written down, and write it anew where most of it is of the past."""
        if self._is_loaded:
            return
        self._is_loaded = True
        lines = 0
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                for line in file:
                    lines += 1
                    try:
                        path, size, mtime_ns, inode, sha = json.loads(line)
                    except (ValueError, TypeError):
                        continue  # cut short
                    self._known[path] = (size, mtime_ns, inode), sha
            if lines > 1000 + 2 * len(self._known):
                fresh = self._path.with_suffix(f".{os.getpid()}")
                fresh.write_text(
                    "".join(f"{json.dumps([path, *mark, sha])}\n" for path, (mark, sha) in self._known.items())
                )
                fresh.replace(self._path)
        except OSError:
            return


def mark_of(found: os.stat_result) -> Mark:
    """What tells a file from what it was before."""
    return found.st_size, found.st_mtime_ns, found.st_ino


def look(uri: str, sums: Fingerprints, is_over: Callable[[], bool]) -> Look:
    """All that an address of this machine stands for now.

    Raises:
        FetchError: there is nothing, or it cannot be read.
    """
    address = parse(uri).bare
    path = _plain(address)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if not address.has_glob:
            raise of_os_error(error, address.path, "get") from error
        return _several(address, sums, is_over)
    base, name = os.path.split(path)
    found = Look(str(address), base.rstrip("/"), f"{name}/" if address.is_folder_like else name)
    if is_folder:
        if not name:
            raise Unsupported("/: all there is cannot be sent to a worker.", uri="/", phase="get")
        _Walk(found, sums, is_over).folder(path, name)
    elif address.is_folder_like:
        raise Unsupported(f"{address.path}: is no folder.", uri=address.path, phase="get")
    else:
        _Walk(found, sums, is_over).file(path, name)
    return found


def _plain(address: Address) -> str:
    """The path without what does not matter; what `..` leads out of may be a link."""
    path = address.path.rstrip("/") or "/"
    if ".." in path.split("/"):
        return os.path.realpath(path)
    return os.path.normpath(path).replace("//", "/")


def _several(address: Address, sums: Fingerprints, is_over: Callable[[], bool]) -> Look:
    rows = expand(address, transport_of(address), Settings())
    parts = [part for part in address.path.split("/") if part]
    first = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    base = "/" + "/".join(parts[:first])
    found = Look(str(address), base.rstrip("/"), "/".join(parts[first:]))
    walk = _Walk(found, sums, is_over)
    for row in rows:
        path = address_of(row).path.rstrip("/")
        name = os.path.relpath(path, base)
        if "**" in address.path and os.path.isdir(path):
            found.left_out.append(f"{path}: left out, being a link to a folder.")
        elif os.path.isdir(path):
            walk.folder(path, name)
        elif os.path.basename(path) != MANIFEST:
            walk.file(path, name)
    return found


class _Walk:
    """Fills a look with files and folders, by the same rules as links to them are made (`remote.agent.links`)."""

    def __init__(self, found: Look, sums: Fingerprints, is_over: Callable[[], bool]) -> None:
        self._found, self._sums, self._is_over = found, sums, is_over

    def file(self, path: str, name: str) -> None:
        sha, mark, mode = self._sums.sum_of(path, self._is_over)
        may_run = ["x"] if mode & 0o111 else []
        self._found.rows.append([name, mark[0], sha, *may_run])
        self._found.files.setdefault(sha, File(path, mark))

    def folder(self, path: str, name: str, above: frozenset[str] = frozenset()) -> None:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise of_os_error(error, path, "get") from error
        here = os.path.realpath(path)
        count = len(self._found.rows)
        for entry in entries:
            below = f"{name}/{entry.name}"
            if entry.name == MANIFEST or is_temporary(entry.name):
                continue
            if entry.is_dir():
                # A link to a folder would lead nowhere on another machine: what is in it goes along.
                if entry.is_symlink() and os.path.realpath(entry.path) in above | {here}:
                    self._found.left_out.append(f"{entry.path}: left out, being a link to a folder that it is in.")
                else:
                    self.folder(entry.path, below, above | {here})
            elif entry.is_file():
                self.file(entry.path, below)
            else:
                self._found.left_out.append(
                    f"{entry.path}: left out, being neither a file nor a folder, or a link to nothing."
                )
        if len(self._found.rows) == count:
            self._found.rows.append([f"{name}/", 0, ""])


def kind_of(error: FetchError) -> dict[str, str]:
    """Why something cannot be had, in the words of `remote.agent.parcels`."""
    return {"error": type(error).__name__, "note": error.message}
