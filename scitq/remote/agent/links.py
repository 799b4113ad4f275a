"""Plain paths of this machine as inputs: linked, never copied. Folders are made again, with links in them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator

from scitq.fetch.entry import Entry
from scitq.fetch.errors import AccessDenied, Collision, Unsupported, of_os_error
from scitq.fetch.expand import address_of, expand
from scitq.fetch.files import is_temporary
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import Address
from scitq.remote.agent import manifest

_CANNOT = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def can_be_linked(address: Address) -> bool:
    """Whether it is a plain path, and nothing is done with it but giving it a folder."""
    return address.is_local and all(action.name == "mv" for action in address.actions)


def bring_links(address: Address, folder: str, settings: Settings) -> list[str]:
    """Links in `folder` to what the path stands for: a file, what is in a folder, or what a glob matches.

    Returns the files that are linked.
    """
    linked: list[str] = []
    for action in reversed(address.actions):
        folder = os.path.join(folder, action.argument)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = address.path
    try:
        found = os.stat(path)
    except OSError as error:
        if not address.has_glob:
            raise of_os_error(error, path, "get") from error
        rows = expand(address.bare, transport_of(address), settings)
        _several(rows, folder, settings, linked)
        return linked
    if stat.S_ISDIR(found.st_mode):
        _folder(path, folder, settings, linked)
    else:
        linked.append(_file(path, os.path.join(folder, os.path.basename(path.rstrip("/")))))
    return linked


def _several(rows: list[Entry], folder: str, settings: Settings, linked: list[str]) -> None:
    taken: dict[str, str] = {}
    for row in rows:
        path, name = address_of(row).path.rstrip("/"), address_of(row).name
        if name in taken:
            raise Collision(
                f"{taken[name]} and {path} would both become {name}. Give one of them a folder of its own with |mv:.",
                uri=path, phase="get",
            )  # fmt: skip
        taken[name] = path
        if row.is_dir:
            os.mkdir(os.path.join(folder, name), 0o700)
            _folder(path, os.path.join(folder, name), settings, linked)
        elif name != manifest.NAME:
            linked.append(_file(path, os.path.join(folder, name)))


def _folder(source: str, folder: str, settings: Settings, linked: list[str]) -> None:
    """What is in it. Links to folders stay links, so that there is an end; what is no file is left out with a word."""
    settings.cancel.check(source, "get")
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError as error:
        raise of_os_error(error, source, "get") from error
    for entry in entries:
        target = os.path.join(folder, entry.name)
        if entry.name == manifest.NAME or is_temporary(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(target, 0o700)
            _folder(entry.path, target, settings, linked)
        elif entry.is_file():
            linked.append(_file(entry.path, target))
        elif entry.is_dir():
            os.symlink(os.path.realpath(entry.path), target)
        else:
            settings.warn(f"{entry.path}: left out, being neither a file nor a folder, or a link to nothing.")


def _file(source: str, target: str) -> str:
    """A hard link where the system lets us, else a symbolic one; both to the file itself, not to a link to it."""
    real = os.path.realpath(source)
    try:
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise Unsupported(f"{source}: is neither a file nor a folder.", uri=source, phase="get")
        if not os.access(real, os.R_OK):
            raise AccessDenied(f"{source}: may not be read.", uri=source, phase="get")
        try:
            os.link(real, target)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            os.symlink(real, target)
    except OSError as error:
        raise of_os_error(error, source, "get") from error
    return real


def remember(address: Address, paths: list[str], record: str) -> None:
    """Write down how these files are now."""
    line = json.dumps({"shown": address.shown, "files": {path: _state(path) for path in paths}})
    with open(record, "a", encoding="ascii") as file:
        file.write(f"\n{line}\n")  # a line before it may have been cut short


def changed_in_place(record: str) -> Iterator[tuple[str, str]]:
    """Of each address that was remembered, the first file that is the same one, and other than it was."""
    latest: dict[str, dict[str, list[int] | None]] = {}  # an agent that was killed while it linked left a line, too
    with contextlib.suppress(OSError), open(record, encoding="ascii") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # cut short when it was killed
                said = json.loads(line)
                latest[said["shown"]] = said["files"]
    for shown, files in latest.items():
        for path, before in files.items():
            now = _state(path)
            if before and now and now[0] == before[0] and now != before:
                yield shown, path
                break


def _state(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]
