"""Files of the submitting machine on this one, by content: `POST /blobs` says what is here, `PUT /blobs/<sha256>` brings more.

    blobs/<sha256>.part     on its way: as many bytes as came; the next piece begins there, also for another agent
    blobs/<sha256>-<time>   whole, verified, read-only; its time of change is in its name, so that a change shows

What files are wanted, and as which names, is `parcels`. Pieces are written in threads, one at a time.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent.http import BadRequest

if TYPE_CHECKING:
    from hashlib import _Hash

NAME = re.compile(r"[0-9a-f]{64}\Z")
CHUNK_BYTES = 1 << 20
LARGEST_PIECE = 64 << 20
"""Of a piece that comes deflated: more is not made of it, whatever it says."""


class Damaged(Exception):
    """All bytes have come, and they are others than their name says."""


class Blobs:
    """The files of one root folder. `changed` is called with a name that is here now, or is no more. What takes its time is done
    by one thread at once, under `lock`; looking takes none."""

    def __init__(self, root: str, changed: Callable[[str, bool], None], lock: threading.RLock) -> None:
        self.folder = os.path.join(root, "blobs")
        self.changed = changed
        self.whole: dict[str, int] = {}
        """Those that are all here, with their times of change in ns."""
        self.parts: dict[str, int] = {}
        """Bytes that are here of others."""
        self._digests: dict[str, tuple[_Hash, int]] = {}
        """Of those that are coming, and up to which byte."""
        self._coming = ""
        """The one that a piece is just being added to."""
        self._lock = lock
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for name in os.listdir(self.folder):
            sha, _, mtime = name.partition("-")
            if NAME.match(sha) and mtime.isdigit():
                self.whole[sha] = int(mtime)
            elif name.endswith(".part") and NAME.match(name[:-5]):
                self.parts[name[:-5]] = os.path.getsize(os.path.join(self.folder, name))

    def here(self, sha: str) -> int:
        """Bytes of it that are here; -1 when all are."""
        return -1 if sha in self.whole else self.parts.get(sha, 0)

    def put(self, sha: str, start: int, size: int, mtime_ns: int, data: bytes, room: Callable[[int], None]) -> int:
        """Add a piece, if it begins where the last one ended; says what is here now, as `here` does.

        `room` is asked for so many bytes before they are written.

        Raises:
            Damaged: it is whole, and something else than it should be. Nothing of it is kept.
            OSError, FetchError: there is no room.
        """
        with self._lock:
            if sha in self.whole:
                return -1
            path = os.path.join(self.folder, f"{sha}.part")
            handle = _open(path)
            try:
                here = os.fstat(handle).st_size
                if here > size:
                    here = self._cut(sha, handle, 0)
                if here != start:
                    return here
                if start + len(data) > size:
                    raise BadRequest(400, f"{sha}: more bytes than the {size} that it should have")
                is_known = sha in self._digests and self._digests[sha][1] == here
                self._coming = sha
                try:
                    room(len(data) if is_known else size - here)
                except Exception:
                    if not here:
                        os.unlink(path)
                    raise
                digest = self._digests[sha][0] if is_known else _digest_of(handle)
                self._write(sha, handle, data, here)
                digest.update(data)
                here += len(data)
                self._digests[sha] = digest, here
                if here < size:
                    return here
                del self._digests[sha]
                if digest.hexdigest() != sha:
                    os.unlink(path)
                    self.parts.pop(sha, None)
                    raise Damaged(sha)
                self._seal(sha, handle, path, mtime_ns)
            finally:
                self._coming = ""
                os.close(handle)
        self.changed(sha, True)
        return -1

    def _write(self, sha: str, handle: int, data: bytes, here: int) -> None:
        try:
            view, at = memoryview(data), here
            while view:
                count = os.pwrite(handle, view, at)
                view, at = view[count:], at + count
        except OSError:
            self._cut(sha, handle, here)
            raise
        self.parts[sha] = at

    def _cut(self, sha: str, handle: int, size: int) -> int:
        os.ftruncate(handle, size)
        self._digests.pop(sha, None)
        self.parts[sha] = size
        return size

    def _seal(self, sha: str, handle: int, path: str, mtime_ns: int) -> None:
        """It is whole. Killed before the last step, it is a part of which nothing is missing."""
        os.fchmod(handle, 0o444)
        os.utime(path, ns=(time.time_ns(), mtime_ns))
        os.fsync(handle)
        kept_ns = os.fstat(handle).st_mtime_ns  # as exact as this file system is
        os.rename(path, self._path(sha, kept_ns))
        self.parts.pop(sha, None)
        self.whole[sha] = kept_ns

    def _path(self, sha: str, mtime_ns: int) -> str:
        return os.path.join(self.folder, f"{sha}-{mtime_ns}")

    def path(self, sha: str) -> str | None:
        """The file, after a look whether it is as it came; None when it is not here (any more)."""
        mtime_ns = self.whole.get(sha)
        if mtime_ns is None:
            return None
        path = self._path(sha, mtime_ns)
        try:
            if os.stat(path).st_mtime_ns == mtime_ns:
                return path
            with open(path, "rb", buffering=0) as file:
                if _digest_of(file.fileno()).hexdigest() == sha:  # only touched
                    os.utime(path, ns=(time.time_ns(), mtime_ns))
                    return path
        except OSError:
            pass  # somebody deleted it, or may not read it any more: it is as good as gone
        self.drop(sha)
        return None

    def drop(self, sha: str) -> bool:
        """Have it no more, nor any part of it; whoever has links keeps them. False: room is being made for this very one."""
        with self._lock:
            if sha == self._coming:
                return False
            mtime_ns = self.whole.pop(sha, None)
            self.parts.pop(sha, None)
            self._digests.pop(sha, None)
            path = os.path.join(self.folder, f"{sha}.part") if mtime_ns is None else self._path(sha, mtime_ns)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.changed(sha, False)
        return True


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:  # an agent was killed when it was about to give it its name
        os.chmod(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _digest_of(handle: int) -> _Hash:
    """Of all that is in an open file."""
    import hashlib  # it loads a large library, which an agent that is sent nothing need not have

    digest = hashlib.sha256()
    at = 0
    while data := os.pread(handle, CHUNK_BYTES, at):
        digest.update(data)
        at += len(data)
    return digest


def inflated(body: bytes, encoding: str | None) -> bytes:
    """The bytes of a piece, however they travelled."""
    if encoding in (None, "", "identity"):
        return body
    if encoding != "deflate":
        raise BadRequest(415, f"Content-Encoding {encoding}: only deflate is understood")
    import zlib

    stream = zlib.decompressobj()
    try:
        data = stream.decompress(body, LARGEST_PIECE)
    except zlib.error as error:
        raise BadRequest(400, f"the piece cannot be inflated: {error}") from None
    if not stream.eof:
        raise BadRequest(413, f"a piece of more than {LARGEST_PIECE} bytes, or cut short")
    return data


def wanted_of(said: Any) -> list[str]:
    """The names that a `POST /blobs` asks about."""
    names = said.get("want") if isinstance(said, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and NAME.match(name) for name in names):
        raise BadRequest(400, "want needs a list of SHA-256 sums, in 64 hexadecimal digits each")
    return names
