"""Files of the machine that looks: plain paths and file://."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime, timezone

from scitq.fetch.entry import DIR, FILE, LINK, UNKNOWN, Entry
from scitq.fetch.errors import Collision, NotFound, Unsupported
from scitq.fetch.files import is_temporary, make_folder, typed
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Identity
from scitq.fetch.uri import Address


class LocalBody:
    """An open file."""

    md5 = None

    def __init__(self, path: str, offset: int, identity: Identity | None) -> None:
        with typed(path, "get"):
            # A pipe without a writer would block for ever.
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._handle)
            what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file"
            raise Unsupported(f"{path}: {what}.", uri=path, phase="get")
        self._path = path
        self.identity = Identity(found.st_size, None, f"{found.st_mtime_ns}-{found.st_ino}")
        self.modified_s = found.st_mtime
        self.mode = stat.S_IMODE(found.st_mode) & 0o777
        self.offset = offset if identity == self.identity else 0
        os.lseek(self._handle, self.offset, os.SEEK_SET)

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes; 0 at the end."""
        with typed(self._path, "get"):
            return os.readv(self._handle, [buffer])

    def close(self) -> None:
        """Close it."""
        os.close(self._handle)


class Local:
    """This machine's files."""

    def open(
        self, address: Address, settings: Settings, offset: int = 0, identity: Identity | None = None
    ) -> LocalBody:
        """Open it for reading."""
        return LocalBody(path_of(address), offset, identity)

    def put(self, source: str, address: Address, settings: Settings) -> None:
        """Copy a file to that name."""
        from scitq.fetch.reader import Source, receive
        from scitq.fetch.uri import of_path

        path = path_of(address)
        make_folder(os.path.dirname(path) or ".", "put")
        if os.path.isdir(path):
            raise Collision(f"{path}: a folder is there, so no file was put there.", uri=path, phase="put")
        receive(Source(self, of_path(source), settings), path, settings.overwrite)

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """What is in the folder, sorted; links to folders are named and not entered, so that there is an end."""
        top = path_of(address)
        with typed(top, "list"):
            if not os.path.isdir(top):
                os.stat(top)
                raise NotFound(f"{top}: is no folder.", uri=top, phase="list")
        waiting = [""]
        while waiting:
            below = waiting.pop()
            folder = os.path.join(top, below)
            with typed(folder, "list"):
                found = sorted(os.scandir(folder), key=lambda each: each.name)
            deeper = []
            for each in found:
                if is_temporary(each.name):
                    continue
                settings.cancel.check(top, "list")
                try:
                    entry = _entry(address, each.path, below + each.name, settings, md5=md5)
                except NotFound:
                    continue  # gone since the folder was read
                yield entry
                if entry.is_dir and recursive:
                    deeper.append(entry.rel_name)
            waiting.extend(reversed(deeper))

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there."""
        path = path_of(address)
        with typed(path, "info"):
            if address.is_folder_like and not stat.S_ISDIR(os.stat(path).st_mode):
                raise NotFound(f"{path}: is no folder.", uri=path, phase="info")
            found = _entry(
                address, path, address.name or os.path.basename(os.path.abspath(path)), settings, md5=md5, top=True
            )
        return found

    def delete(self, address: Address, settings: Settings) -> None:
        """Delete a file, or an empty folder."""
        path = path_of(address)
        with typed(path, "delete"):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.rmdir(path)
            else:
                os.unlink(path)


def path_of(address: Address) -> str:
    """The path it names."""
    return address.path


def _entry(address: Address, path: str, rel_name: str, settings: Settings, *, md5: bool, top: bool = False) -> Entry:
    with typed(path, "info" if top else "list"):
        found = os.lstat(path)
        kind = found.st_mode
        if stat.S_ISLNK(kind):
            try:
                found = os.stat(path)
            except OSError:
                return Entry(_name(address, rel_name, top), rel_name, 0, *_dates(found), type=LINK)
            if stat.S_ISDIR(found.st_mode) and not top:
                return Entry(_name(address, rel_name, top), rel_name, 0, *_dates(found), type=LINK)
            kind = found.st_mode
    if stat.S_ISDIR(kind):
        rel_name += "/"
        return Entry(_name(address, rel_name, top), rel_name, 0, *_dates(found), type=DIR)
    if not stat.S_ISREG(kind):
        return Entry(_name(address, rel_name, top), rel_name, 0, *_dates(found), type=UNKNOWN)
    digest = md5_of(path, settings) if md5 else None
    return Entry(_name(address, rel_name, top), rel_name, found.st_size, *_dates(found), md5=digest, type=FILE)


def _name(address: Address, rel_name: str, top: bool) -> str:
    return address.text if top else address.join(rel_name).text


def _dates(found: os.stat_result) -> tuple[datetime, datetime]:
    return (
        datetime.fromtimestamp(found.st_ctime, timezone.utc),
        datetime.fromtimestamp(found.st_mtime, timezone.utc),
    )


def md5_of(path: str, settings: Settings) -> str:
    """The MD5 of a file, read in pieces."""
    digest = hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(1 << 20))
    with typed(path, "info"), open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            settings.cancel.check(path, "info")
            digest.update(buffer[:count])
    return digest.hexdigest()
