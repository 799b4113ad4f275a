"""A copy of the live file: `VACUUM INTO`, never `cp`, which silently misses what is still in the WAL."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from scitq.errors import BadInput
from scitq.store.faults import explain

if TYPE_CHECKING:
    from scitq.store.connection import Store


def backup(store: Store, target: Path) -> Path:
    """Write a whole, consistent copy of the state file to `target`, which must not exist. Writers go on meanwhile."""
    target = Path(os.path.abspath(target))
    if target.is_dir():
        raise BadInput(f"{target} is a folder; give the name of a file for the backup.", path=target)
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} does not exist; make that folder first.", path=target)
    db = store.connect_to_copy()
    try:
        return copy_into(db, target)
    except apsw.Error as error:
        raise explain(error, target) from error
    finally:
        db.close(True)


def copy_into(db: apsw.Connection, target: Path) -> Path:
    """Copy to a temporary neighbour, then give it its name: `target` is absent or whole, at any instant."""
    if os.path.lexists(target):
        raise BadInput(f"{target} exists already; give another name.", path=target)
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    try:
        # An empty file is what VACUUM INTO accepts: made by us it has our mode, whatever the umask says.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db.execute("VACUUM INTO ?", (str(part),))
        _sync(part)
        _give_name(part, target)
    except FileExistsError:
        raise BadInput(f"{target} exists already; give another name.", path=target) from None
    finally:
        part.unlink(missing_ok=True)
        part.with_name(part.name + "-journal").unlink(missing_ok=True)  # SQLite's, when the disk was full
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        _sync(target.parent)
    return target


def _give_name(part: Path, target: Path) -> None:
    """As rename, but refuse a target that appeared meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without links, such as a USB stick's
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        os.rename(part, target)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
