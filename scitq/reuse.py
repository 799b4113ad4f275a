"""Taking an earlier result: is it still what its list says, and how does it get to where it is wanted now.

Nothing moves when it lies there already. Within this machine files get a second name, within one storage the storage copies,
and only what is small is carried from one to another through this machine. Called in threads.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping

from scitq.digest import MD5, TIME, Fingerprint
from scitq.errors import ScitqError
from scitq.fetch.errors import NotFound, of_os_error
from scitq.fetch.local import md5_of
from scitq.fetch.settings import Settings
from scitq.fetch.uri import of_path, parse
from scitq.identities import Found
from scitq.store.cache import Entry
from scitq.store.manifests import Left, Manifest
from scitq.task import Spec, TaskId

# What is changed so shortly after it was collected may have been collected so: clocks of file systems are coarse.
COARSE_S = 1.0
# Clocks of storages are not ours.
CLOCKS_DIFFER_S = 60.0
# A file that somebody else has given another name, or other rights, is read again up to this size.
READ_BYTES = 64 << 20


class Altered(ScitqError):
    """A result is not what it was: the message says which file."""


class NotUsable(ScitqError):
    """A result is all right, but cannot be taken where it is wanted: the message says why."""


def is_here(entry: Entry) -> bool:
    """Whether a result can be looked at without asking anybody."""
    return entry.manifest is None or _is_local(entry.manifest.address)


def _is_local(address: str) -> bool:
    return address.startswith("/") or parse(address).is_local


def path_of(address: str) -> str:
    """The folder of an address of this machine; plain paths in the state file are literal."""
    return address if address.startswith("/") else parse(address).path


# --- is it still what it was ------------------------------------------------------------------------------------------------


def verify(entry: Entry, found: Mapping[str, Found], settings: Settings) -> None:
    """Raise Altered unless all files of a result are there as they were. `found` is what was seen elsewhere, by address.

    Raises:
        Altered: one is gone, or another.
        FetchError: its storage could not be asked.
    """
    if entry.manifest is None or not entry.manifest.files:
        return
    address = entry.manifest.address
    if _is_local(address):
        for file in entry.manifest.files:
            _verify_here(os.path.join(path_of(address), file.name), file, entry.ended_ms / 1000, settings)
        return
    there = found[address]
    if isinstance(there, NotFound):
        raise Altered(f"{address} is gone")
    if not isinstance(there, Fingerprint):
        raise there
    _verify_there(entry.manifest, there, entry.ended_ms / 1000, settings)


def _verify_here(path: str, file: Left, ended_s: float, settings: Settings) -> None:
    try:
        seen = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Altered(f"{path} is gone") from None
    except OSError as error:
        raise of_os_error(error, path, "list") from error
    if seen.st_size != file.size:
        raise Altered(f"{path} has {seen.st_size:,} bytes, not {file.size:,}")
    latest = ended_s + COARSE_S
    is_written = seen.st_mtime > latest
    # Written to since, or something else was put in its place with an old time: only its bytes tell.
    if not is_written and (seen.st_ctime <= latest or seen.st_size > READ_BYTES):
        return
    if file.md5 is None:
        if is_written:
            raise Altered(f"{path} was changed since")
        return
    if md5_of(path, settings) != file.md5:
        raise Altered(f"{path} was changed since: its MD5 is another")


def _verify_there(manifest: Manifest, there: Fingerprint, ended_s: float, settings: Settings) -> None:
    from datetime import datetime

    from scitq.remote.agent.stores import store_of

    store = store_of(parse(manifest.address), settings, "")
    files = {file.name: file for file in there.files}
    for left in manifest.files:
        seen = files.get(store.listed(left.name))
        where = f"{manifest.address}/{left.name}"
        if seen is None:
            raise Altered(f"{where} is gone")
        if seen.size is not None and seen.size != left.size:
            raise Altered(f"{where} has {seen.size:,} bytes, not {left.size:,}")
        kind, _, value = seen.mark.partition(":")
        if kind == MD5 and left.md5 is not None and value != left.md5:
            raise Altered(f"{where} was changed since: its MD5 is another")
        if kind == TIME and left.md5 is None and datetime.fromisoformat(value).timestamp() > ended_s + CLOCKS_DIFFER_S:
            raise Altered(f"{where} was changed since")


# --- to where it is wanted --------------------------------------------------------------------------------------------------


def is_in_place(entry: Entry, spec: Spec) -> bool:
    """Whether a result lies where it is wanted."""
    if entry.manifest is None or not entry.manifest.files:
        return spec.output is None
    return spec.output is not None and _same(entry.manifest.address, spec.output)


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    return _is_local(one) and _is_local(other) and os.path.realpath(path_of(one)) == os.path.realpath(path_of(other))


def bring(entry: Entry, task: TaskId, spec: Spec, outputs: str, settings: Settings) -> str | None:
    """Bring a result that was found whole to where a task's output goes; returns the address, None for no files.

    Raises:
        NotUsable: that cannot be; the task is to run.
        FetchError, OSError: it failed.
    """
    manifest = entry.manifest
    if is_in_place(entry, spec):
        return None if manifest is None else manifest.address
    if spec.output is None and manifest is not None and _is_local(manifest.address):
        return _link(manifest, f"{outputs}/{task}", settings)
    raise NotUsable(f"the result of {entry.task} lies elsewhere")


def _link(manifest: Manifest, folder: str, settings: Settings) -> str:
    """The same files under a second name, in a folder that appears whole."""
    source = path_of(manifest.address)
    if os.path.realpath(source) == os.path.realpath(folder):
        return folder
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    fresh = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}-", dir=os.path.dirname(folder))
    try:
        for file in manifest.files:
            settings.cancel.check(folder, "copy")
            target = os.path.join(fresh, file.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _link_or_copy(os.path.join(source, file.name), target)
        os.chmod(fresh, 0o755 & os.stat(source).st_mode | 0o700)
        old = f"{fresh}.old"
        if os.path.lexists(folder):  # of an earlier life of the task
            os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


__all__ = ["Altered", "NotUsable", "bring", "is_here", "is_in_place", "of_path", "path_of", "verify"]
