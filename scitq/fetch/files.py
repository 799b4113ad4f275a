"""Files on this machine, whole or not at all: temporary neighbours, resume files, free space, joining folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Any

from scitq.fetch.errors import Collision, NoSpace, of_os_error

_OURS = re.compile(r"\.scitq-[0-9a-f]{16}(\.[0-9a-f]{8})?\.(part|state|work)(\..*)?\Z")
_RCLONES = re.compile(r".+\.scitq-[0-9a-f]{8}\Z", re.DOTALL)  # named by us, with rclone's mark before it


def is_temporary(name: str) -> bool:
    """Whether it is one of ours: unfinished, and in no listing."""
    return ".scitq-" in name and (_OURS.match(name) or _RCLONES.match(name)) is not None


def neighbour(path: str, source: str, kind: str, *, fresh: bool = False) -> str:
    """A name beside `path` for what will be there: the same for the same source, unless `fresh`. Short for any name."""
    folder, name = os.path.split(path)
    digest = hashlib.sha256(f"{name}\0{source}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(folder, f".scitq-{digest}{'.' + secrets.token_hex(4) if fresh else ''}.{kind}")


@contextlib.contextmanager
def typed(path: str, phase: str) -> Iterator[None]:
    """The operating system's errors in here are ours."""
    try:
        yield
    except OSError as error:
        raise of_os_error(error, path, phase) from error


def make_folder(path: str, phase: str = "get") -> None:
    """Make it and those above it."""
    with typed(path, phase):
        os.makedirs(path, exist_ok=True)


def check_space(folder: str, wanted_bytes: int | None, reserve_bytes: int = 0, uri: str = "") -> None:
    """Refuse before the first byte what cannot fit."""
    with typed(folder, "get"):
        found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if wanted_bytes is not None and free < wanted_bytes + reserve_bytes:
        kept = f" ({reserve_bytes:,} are to stay free)" if reserve_bytes else ""
        raise NoSpace(
            f"{uri or folder}: {wanted_bytes:,} bytes do not fit on the disk of {folder}, which has {free:,} free{kept}.",
            uri=uri or folder, phase="get", wanted_bytes=wanted_bytes, free_bytes=free,
        )  # fmt: skip


def put_in_place(temporary: str, path: str, *, overwrite: bool) -> None:
    """The one step that makes a finished file visible. Without `overwrite`, whoever was first wins, without a gap."""
    try:
        if overwrite:
            if os.path.isdir(path) and not os.path.islink(path):
                raise Collision(f"{path}: a folder is there, so no file was put there.", uri=path, phase="get")
            os.rename(temporary, path)
        else:
            _rename_to_free(temporary, path)
    except OSError as error:
        raise of_os_error(error, path, "get") from error
    sync_folder(os.path.dirname(path) or ".")


def _rename_to_free(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise Collision(f"{path}: it exists, and is not overwritten.", uri=path, phase="get") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        # A file system without hard links: the look and the step are two, which is the best there is.
        if os.path.lexists(path):
            raise Collision(f"{path}: it exists, and is not overwritten.", uri=path, phase="get") from None
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable, where the file system lets us."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: str) -> None:
    """Delete a file or a whole folder of ours, whatever it is, without following links."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _make_enterable(path)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _make_enterable(path: str) -> None:
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)


class Part:
    """A file that is being received: a hidden neighbour, and beside it what version of the source it holds.

    Locked while in use: a second process that wants the same gets a neighbour of its own instead, and no resume.
    """

    def __init__(self, path: str, source: str) -> None:
        self.target = path
        self.path = neighbour(path, source, "part")
        with typed(path, "get"):
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            if not self._is_ours():
                os.close(self._handle)
                self.path = neighbour(path, source, "part", fresh=True)
                self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._state = self.path[: -len("part")] + "state"

    def _is_ours(self) -> bool:
        """Locked, and still under its name: the one who had it may have moved it in place meanwhile."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._handle), os.lstat(self.path))
        except OSError:
            return False

    def resumable(self) -> tuple[int, dict[str, Any]]:
        """How much is here and of what; nothing if that was not written down."""
        try:
            with open(self._state, encoding="utf-8") as file:
                state = json.load(file)
        except (OSError, ValueError):
            return 0, {}
        return (os.fstat(self._handle).st_size, state) if isinstance(state, dict) else (0, {})

    def begin(self, state: dict[str, Any]) -> None:
        """Empty it, and write down what it will hold (before the first byte of it)."""
        with typed(self.target, "get"):
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            fresh = f"{self._state}.new"
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump(state, file)
            os.rename(fresh, self._state)

    def digest(self, size: int, into: Callable[[bytes], Any]) -> None:
        """Read what an earlier process left, once, and go on behind it."""
        with typed(self.target, "get"):
            os.lseek(self._handle, 0, os.SEEK_SET)
            left = size
            while left and (data := os.read(self._handle, min(left, 1 << 20))):
                into(data)
                left -= len(data)

    def go_to(self, offset: int) -> None:
        """Go on from there; what is behind it is dropped."""
        with typed(self.target, "get"):
            os.ftruncate(self._handle, offset)
            os.lseek(self._handle, offset, os.SEEK_SET)

    def write(self, data: memoryview) -> None:
        """Append."""
        with typed(self.target, "get"):
            while data:
                data = data[os.write(self._handle, data) :]

    def finish(self, *, overwrite: bool, modified_s: float | None = None, mode: int | None = None) -> None:
        """Durable, then in place."""
        with typed(self.target, "get"):
            if mode is not None:
                os.fchmod(self._handle, mode)
            if modified_s is not None:
                os.utime(self._handle, (modified_s, modified_s))
            os.fsync(self._handle)
        put_in_place(self.path, self.target, overwrite=overwrite)
        self._forget_state()

    def close(self, *, keep: bool) -> None:
        """Let go; what is worth resuming stays under its hidden name."""
        with contextlib.suppress(OSError):
            if not keep or not self.resumable()[0]:
                if os.path.samestat(os.fstat(self._handle), os.lstat(self.path)):
                    os.unlink(self.path)
                self._forget_state()
        os.close(self._handle)

    def _forget_state(self) -> None:
        for name in (self._state, f"{self._state}.new"):
            with contextlib.suppress(OSError):
                os.unlink(name)
