"""Putting a whole folder where it was asked for on this machine, in one step: there is the old one or the new one.

It may be killed at any instruction and is then begun again. What tells the old from the new is the identity (device and
inode) of the new folder, written down before it is moved, with the list of its files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scitq.fetch.errors import AccessDenied, Collision, FetchError, Unsupported, of_os_error
from scitq.fetch.files import check_space, sync_folder
from scitq.fetch.retry import Cancel
from scitq.remote.agent.collect import remove, to_trash
from scitq.remote.agent.contents import Contents, printable
from scitq.remote.agent.manifest import NAME, Row
from scitq.remote.agent.slots import OUTPUT

CHUNK_BYTES = 1 << 20
# The place itself cannot be exchanged, though files in it may be written: another's parent folder, a mount point.
_FIXED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)


class CannotReplace(AccessDenied):
    """The folder there cannot be put in place of another as a whole; nothing was changed."""


@dataclass
class _Record:
    """What was written down of a folder that is on its way: which one it is, and its files."""

    identity: list[int] | None
    files: list[Row]


def put_whole(
    root: str, key: str, destination: str, cancel: Cancel, *, manifest: Callable[[list[Row]], bytes] | None = None,
    may_replace: Callable[[str], bool] = lambda folder: True, is_lenient: bool = False,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Put `exec/<key>/output` at `destination`; returns its files and what was left out of them.

    `may_replace` looks at the folder that was there, once it is out of the way; False: it is put back.
    """
    home = os.path.join(root, "exec", key)
    source, record = os.path.join(home, OUTPUT), os.path.join(home, "delivery")
    destination = os.path.normpath(destination)
    parent, name = os.path.split(destination)
    if not name:
        raise Unsupported(f"{destination}: an output cannot take the place of the root folder.", phase="collect")
    # In the same folder, so that the last step is one rename; no listing of ours shows these names, and they are ours
    # alone: executions of other state files may have the same number.
    mark = hashlib.sha256(f"{root}\0{key}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    fresh, aside = os.path.join(parent, f".scitq-{mark}.work"), os.path.join(parent, f".scitq-{mark}.00000000.work")
    left_out: list[str] = []
    known = _read(record)
    with _explained(destination):
        if known is None or _identity(destination) != known.identity:
            if known is None or _identity(fresh) != known.identity:
                if manifest is not None and known is None and not (os.path.lexists(source) or os.path.lexists(fresh)):
                    os.mkdir(source, 0o700)  # the task deleted it: it left nothing
                elif not os.path.lexists(source):
                    raise FetchError(f"{source}: the output is gone.", phase="collect")
                remove(fresh)
                contents = Contents(source, root, key, cancel, is_lenient=is_lenient)
                left_out = contents.left_out
                os.makedirs(parent, exist_ok=True)
                known = _bring(contents, fresh, record, destination)
            try:
                if manifest is not None:
                    _dress(fresh, parent, manifest(known.files))
                cancel.check(destination, "collect")
                _put(fresh, aside, destination, may_replace)
            except Exception:
                _take_back(fresh, source)
                raise
            sync_folder(parent)
    remove(fresh)
    remove(aside)
    to_trash(root, source)  # it was copied
    return known.files, left_out


@contextlib.contextmanager
def _explained(destination: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FIXED:
            raise CannotReplace(f"{destination}: {error.strerror}.", uri=destination, phase="collect") from error
        where = str(error.filename or destination)
        raise of_os_error(error, printable(where), "collect") from error


def _bring(contents: Contents, fresh: str, record: str, destination: str) -> _Record:
    """Make the neighbour `fresh` from the output, after writing down which folder it is."""
    is_near = _reaches(os.path.dirname(record), fresh)
    if is_near and contents.is_plain:
        known = _Record(_identity(contents.top), digests(contents))
        _write(record, known)
        os.rename(contents.top, fresh)
        return known
    if not is_near:
        check_space(os.path.dirname(fresh), contents.size, uri=destination)
    try:
        files = _build(contents, fresh, may_link=is_near)
        known = _Record(_identity(fresh), files)
        _write(record, known)
    except Exception:
        remove(fresh)
        raise
    return known


def _reaches(home: str, fresh: str) -> bool:
    """Whether a rename leads from here to there. Only trying tells: a bound folder looks like the same file system."""
    probe = os.path.join(home, "probe")
    os.makedirs(probe, mode=0o700, exist_ok=True)
    try:
        os.rename(probe, fresh)
    except OSError as error:
        os.rmdir(probe)
        if error.errno != errno.EXDEV:
            raise
        return False
    os.rmdir(fresh)
    return True


def _build(contents: Contents, fresh: str, *, may_link: bool) -> list[Row]:
    """The same in a new folder, with files in place of the links to them, and of files that others may write to."""
    os.mkdir(fresh, 0o700)
    for folder in contents.folders:
        os.mkdir(os.path.join(fresh, folder), 0o700)
    files: list[Row] = []
    for each in contents.files:
        source, target = os.path.join(contents.top, each.place), os.path.join(fresh, each.name)
        bring = link if may_link and not each.is_shared else copy
        md5 = bring(source, target, contents.cancel)
        files.append((each.name, each.size, md5))
    for folder, place in reversed(contents.folders.items()):
        shutil.copystat(os.path.join(contents.top, place), os.path.join(fresh, folder))
        sync_folder(os.path.join(fresh, folder))
    sync_folder(fresh)
    return files


def digests(contents: Contents) -> list[Row]:
    """The files with their MD5, each read once."""
    top, cancel = contents.top, contents.cancel
    return [(each.name, each.size, md5_of(os.path.join(top, each.place), cancel)) for each in contents.files]


def md5_of(path: str, cancel: Cancel) -> str:
    """The MD5 of a file, read in pieces."""
    return _read_through(path, cancel, lambda data: None)


def link(source: str, target: str, cancel: Cancel) -> str:
    """The same file under another name, where that can be; else a copy. Returns the MD5."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return copy(source, target, cancel)
    return md5_of(target, cancel)


def copy(source: str, target: str, cancel: Cancel) -> str:
    """A new file with the same bytes, mode and times, safe on disk. Returns the MD5 of what was written."""
    with open(target, "xb", buffering=0) as file:

        def write(data: memoryview) -> None:
            while data:
                data = data[file.write(data) :]

        md5 = _read_through(source, cancel, write)
        os.fsync(file.fileno())
    shutil.copystat(source, target)
    return md5


def _read_through(path: str, cancel: Cancel, use: Callable[[memoryview], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            cancel.check(path, "collect")
            digest.update(buffer[:count])
            use(buffer[:count])
    return digest.hexdigest()


def _dress(fresh: str, parent: str, text: bytes) -> None:
    """The manifest goes in, and who may read the folder that all this lands in may read this too."""
    rights = os.stat(parent).st_mode
    path = os.path.join(fresh, NAME)
    with open(f"{path}.new", "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    for folder, _, names in os.walk(fresh):
        share(folder, rights)
        for name in names:
            share(os.path.join(folder, name), rights)


def share(path: str, rights: int) -> None:
    """Tasks write for their user's eyes only; here others get what they have on the folder around it."""
    mode = os.lstat(path).st_mode
    wanted = mode | (rights & (0o055 if mode & 0o100 else 0o044))
    if wanted != mode and not stat.S_ISLNK(mode):
        with contextlib.suppress(PermissionError):  # a container's root wrote it
            os.chmod(path, stat.S_IMODE(wanted))


def _put(fresh: str, aside: str, destination: str, may_replace: Callable[[str], bool]) -> None:
    """The one step that changes what stands at the destination."""
    try:
        os.rename(fresh, destination)  # nothing there, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
    else:
        return
    if exchange(fresh, destination):
        if may_replace(fresh):
            return
        exchange(fresh, destination)
        raise _taken(destination)
    if not may_replace(destination):
        raise _taken(destination)
    remove(aside)
    os.rename(destination, aside)
    try:
        os.rename(fresh, destination)
    except OSError:
        os.rename(aside, destination)
        raise


def _taken(destination: str) -> Collision:
    return Collision(
        f"{destination}: somebody else has put files there meanwhile. Choose another output, or overwrite=True.",
        uri=destination, phase="collect",
    )  # fmt: skip


def _take_back(fresh: str, source: str) -> None:
    """What cannot be put there must not lie about beside it."""
    if os.path.lexists(source):
        remove(fresh)
        return
    for name in (NAME, f"{NAME}.new"):
        remove(os.path.join(fresh, name))
    with contextlib.suppress(OSError):
        os.rename(fresh, source)


def exchange(one: str, other: str) -> bool:
    """Swap two names in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    number = ctypes.get_errno()
    if number in _FIXED:
        raise OSError(number, os.strerror(number), other)
    return False  # this file system does not know how


def _identity(path: str) -> list[int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return [found.st_dev, found.st_ino]


def _read(record: str) -> _Record | None:
    try:
        with open(record, encoding="ascii") as file:
            said: Any = json.load(file)
        return _Record(list(said["identity"]), [(str(name), int(size), md5) for name, size, md5 in said["files"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(record: str, known: _Record) -> None:
    with open(record + ".new", "w", encoding="ascii") as file:
        json.dump({"identity": known.identity, "files": known.files}, file)
    os.rename(record + ".new", record)
