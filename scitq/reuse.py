"""Taking an earlier result: is it still what its list says, and how does it get to where it is wanted now.

Nothing moves when it lies there already. Within this machine files get a second name, within one storage the storage copies,
and only what is small is carried from one to another through this machine. Called in threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from scitq.digest import MD5, TIME, Fingerprint
from scitq.errors import ScitqError
from scitq.fetch.errors import ChecksumMismatch, Collision, NotFound, of_os_error
from scitq.fetch.local import md5_of
from scitq.fetch.rclone import Rclone
from scitq.fetch.settings import Settings
from scitq.fetch.transfer import copy
from scitq.fetch.uri import parse
from scitq.identities import Found
from scitq.remote.agent import publish
from scitq.remote.agent.collect import remove
from scitq.remote.agent.stores import RcloneStore, store_of
from scitq.store.cache import Entry
from scitq.store.manifests import Left, Manifest
from scitq.submission import memory_bytes
from scitq.task import Spec, TaskId

# What is changed so shortly after it was collected may have been collected so: clocks of file systems are coarse.
COARSE_S = 1.0
# Clocks of storages are not ours.
CLOCKS_DIFFER_S = 60.0
# A file that somebody else has given another name, or other rights, is read again up to this size.
READ_BYTES = 64 << 20
# More than this does not pass through this machine from one place to another.
CARRIED_BYTES = 1_000_000_000


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


@dataclass(frozen=True)
class Goal:
    """Where a result is wanted: a task's output, on behalf of which the files will lie there."""

    task: TaskId
    spec: Spec
    side: Path
    owner: str

    @property
    def folder(self) -> str:
        """The place of an output without an address."""
        return str(self.side / "outputs" / str(self.task))

    @property
    def root(self) -> str:
        """Where files that pass through here stand meanwhile."""
        return str(self.side / "reuse")


def bring(entry: Entry, goal: Goal, settings: Settings) -> str | None:
    """Bring a result that was found whole to where it is wanted; returns the address, None for no files.

    Raises:
        NotUsable: that cannot be; the task is to run.
        FetchError, OSError: it failed.
    """
    manifest, output = entry.manifest, goal.spec.output
    if is_in_place(entry, goal.spec):
        return None if manifest is None else manifest.address
    if manifest is None:
        manifest = Manifest(entry.execution, goal.folder, [])
    if output is None and _is_local(manifest.address):
        return _link(manifest, goal.folder, settings) if manifest.files else None
    owed = {
        "id": f"reused {entry.execution}", "output": output, "owner": goal.owner, "overwrite": goal.spec.overwrite,
    }  # fmt: skip
    remove(goal.root + f"/exec/{goal.task}")  # of an attempt that was killed
    os.makedirs(f"{goal.root}/exec/{goal.task}", mode=0o700)
    try:
        if output is not None and _is_same_storage(manifest.address, output, settings):
            _copy_there(manifest, owed, f"{goal.root}/exec/{goal.task}", settings)
            return output
        if not (_is_local(manifest.address) and (output is None or _is_local(output))):
            _check_size(entry, manifest)
        _stage(manifest, f"{goal.root}/exec/{goal.task}/output", settings)
        if output is None:
            owed = {"deliver": goal.folder}
        publish.bring(goal.root, owed, str(goal.task), settings)
        return goal.folder if output is None else output
    except Collision as problem:
        raise NotUsable(str(problem)) from problem
    finally:
        remove(f"{goal.root}/exec/{goal.task}")


def _is_same_storage(one: str, other: str, settings: Settings) -> bool:
    """Whether both lie in one storage that copies by itself."""
    if _is_local(one) or _is_local(other):
        return False
    source, target = parse(one), parse(other)
    return source.remote is not None and source.remote == target.remote and Rclone().copies_itself(source, settings)


def _check_size(entry: Entry, manifest: Manifest) -> None:
    limit = carried_bytes()
    if manifest.size > limit:
        raise NotUsable(
            f"it lies in {manifest.address}, from where {manifest.size:,} bytes would have to pass through this machine "
            f"(the limit is {limit:,}: SCITQ_CACHE_CARRY)"
        )


def carried_bytes() -> int:
    """How much of a result may pass through this machine."""
    text = os.environ.get("SCITQ_CACHE_CARRY")
    return CARRIED_BYTES if not text else memory_bytes("SCITQ_CACHE_CARRY", int(text) if text.isdecimal() else text)


def _copy_there(manifest: Manifest, owed: dict[str, Any], work: str, settings: Settings) -> None:
    """Have the storage copy exactly these files, with a claim before and the list after, as executions do."""
    source, target = parse(manifest.address), parse(owed["output"])
    store = store_of(target, settings, work)
    assert isinstance(store, RcloneStore)
    files: list[tuple[str, int, str | None]] = [(file.name, file.size, file.md5) for file in manifest.files]
    if not publish.claim(store, owed, files):
        return
    names = [store.listed(name) for name, _, _ in files]
    if names:
        store.copy_from(source, names)
    rows = store.rows(md5=True)
    for (name, size, md5), listed in zip(files, names, strict=True):
        row = rows.get(listed)
        if row is None or row.size not in (None, size) or (row.md5 and md5 and row.md5 != md5):
            raise ChecksumMismatch(f"{store.shown}: what arrived is not what was copied: {name}.", uri=store.shown)
    publish.complete(store, owed, files, rows)


def _stage(manifest: Manifest, folder: str, settings: Settings) -> None:
    """The files of a result in a folder of ours; those of this machine under a second name."""
    os.makedirs(folder, mode=0o700)
    if _is_local(manifest.address):
        for file in manifest.files:
            target = os.path.join(folder, file.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _link_or_copy(os.path.join(path_of(manifest.address), file.name), target)
        return
    address = parse(manifest.address)
    names = [file.name for file in manifest.files]
    if not names:
        return
    copy(address, f"{folder}/", file_list=names, settings=replace(settings, parallel=4))
    for file in manifest.files:
        path = os.path.join(folder, file.name)
        if os.path.getsize(path) != file.size or (file.md5 is not None and md5_of(path, settings) != file.md5):
            raise ChecksumMismatch(f"{address.shown}/{file.name}: what arrived is not what its task left.")


def _link(manifest: Manifest, folder: str, settings: Settings) -> str:
    """The same files under a second name, in a folder that appears whole."""
    source = path_of(manifest.address)
    if os.path.realpath(source) == os.path.realpath(folder):
        return folder
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    fresh = os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}.reuse")
    remove(fresh)  # of an attempt that was killed
    os.mkdir(fresh, 0o700)
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
