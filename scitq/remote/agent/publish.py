"""Bringing an output folder to the address that was asked for, complete or not at all; blocking, done in a thread.

    look      is the target empty, or the same task's? Anybody else's files are not touched unless `overwrite`
    claim     a manifest that says whose it is becoming (not where the whole folder is put in place in one step)
    send      every file, whole or not at all under its name; what did not arrive is sent again
    verify    sizes, and MD5 where the storage tells it
    complete  what the task left there before and does not now is deleted, then the manifest says: complete

Killed anywhere, it is begun again and finds its own claim. A folder of this machine takes one step where it can: `whole`.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scitq.fetch.entry import Entry
from scitq.fetch.errors import (
    BadURI,
    ChecksumMismatch,
    Collision,
    Interrupted,
    NotFound,
    Throttled,
)
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Address, of_path, parse
from scitq.remote.agent import manifest
from scitq.remote.agent.collect import remove
from scitq.remote.agent.contents import Contents, Found
from scitq.remote.agent.manifest import NAME, Manifest, Row
from scitq.remote.agent.slots import OUTPUT
from scitq.remote.agent.stores import HereStore, Store, store_of
from scitq.remote.agent.whole import CannotReplace, md5_of, put_whole

# Where rclone cannot write under a hidden name it appends this, and leaves it when it is killed.
_PARTIAL = re.compile(r"(.+)\.[0-9a-z]{8}\.partial\Z", re.DOTALL)


@dataclass(frozen=True)
class Brought:
    """What arrived, and a word on what was left out."""

    files: list[Row]
    left_out: list[str]


@dataclass(frozen=True)
class _Seen:
    """What stands at a target."""

    manifest: Manifest | None
    is_taken: bool
    """Whether any file is there."""


def bring(root: str, owed: dict[str, Any], key: str, settings: Settings) -> Brought:
    """Bring the output of an ended execution to where its order says: the words of `owed` are those of its exit line."""
    is_lenient = bool(owed.get("failed"))
    if "output" not in owed:
        return Brought(*put_whole(root, key, owed["deliver"], settings.cancel, is_lenient=is_lenient))
    target = target_of(owed["output"])
    if target.is_local:
        return _bring_here(root, owed, key, target, settings, is_lenient=is_lenient)
    work = os.path.join(root, "exec", key, "sending")
    remove(work)  # of an earlier attempt that was killed
    os.mkdir(work, 0o700)
    try:
        return _send_all(root, owed, key, store_of(target, settings, work), settings)
    finally:
        remove(work)


def target_of(text: str) -> Address:
    """The folder that is meant; BadURI when it can be none."""
    address = parse(text)
    if address.actions:
        raise BadURI(f"{address.shown}: actions belong to inputs; an output takes none.", uri=address.shown)
    if address.is_local and not address.path.startswith("/"):
        raise BadURI(f"{address.shown}: the path of an output is absolute on the worker.", uri=address.shown)
    return of_path(os.path.realpath(address.path)) if address.is_local else address


def check_target(goes: dict[str, Any], execution: Any, settings: Settings) -> None:
    """Raise Collision when the output's place holds somebody else's files: before anything runs, and again at the end."""
    target = target_of(goes["output"])
    store = store_of(target, settings, "")
    _refuse_others(store, _look(store), goes)


def find_complete(goes: dict[str, Any], settings: Settings) -> list[Row] | None:
    """The files of a complete output that is there already, whoever brought it; None when it is not, or not whole."""
    store = store_of(target_of(goes["output"]), settings, "")
    found = _look(store).manifest
    if found is None or not found.is_complete:
        return None
    rows = store.rows()
    whole = all(_has_size(rows.get(_listed(store, name)), size) for name, size, _ in found.files)
    return found.files if whole else None


def _listed(store: Store, name: str) -> str:
    try:
        return store.listed(name)
    except BadURI:
        return name


def _has_size(row: Entry | None, size: int) -> bool:
    return row is not None and row.size in (None, size)


def _look(store: Store) -> _Seen:
    top = store.top()
    names = {row.rel_name for row in top}
    found = None
    if NAME in names:
        found = manifest.parse(store.read())
        if found is None:
            return _Seen(None, True)
    is_taken = any(not row.is_dir for row in top if row.rel_name != NAME)
    return _Seen(found, is_taken or (len(names) > (NAME in names) and bool(store.rows())))


def _refuse_others(store: Store, seen: _Seen, goes: dict[str, Any]) -> None:
    found = seen.manifest
    if goes.get("overwrite") or (found is None and not seen.is_taken):
        return
    if found is None:
        whose = "it holds files that no task of this state file has put there"
    elif found.is_of(goes.get("owner")):
        return
    else:
        whose = f"{_owner(found.owner, goes.get('owner'))} is there"
    raise Collision(
        f"{store.shown}: {whose}; nothing was changed. Choose another output, or overwrite=True.",
        uri=store.shown, phase="collect",
    )  # fmt: skip


def _owner(theirs: str | None, ours: str | None) -> str:
    """Whose output it is, in words: owners are written FILE:TASK."""
    file, _, task = (theirs or "").partition(":")
    if not task:
        return "the output of an unknown task"
    return f"the output of task {task}" + ("" if file == (ours or "").partition(":")[0] else " of another state file")


# To a folder of this machine.


def _bring_here(
    root: str, owed: dict[str, Any], key: str, target: Address, settings: Settings, *, is_lenient: bool
) -> Brought:
    store = HereStore(target.path, settings)
    seen = _look(store)
    if (done := _done_before(seen, owed)) is not None:
        return Brought(done, [])
    _refuse_others(store, seen, owed)
    owner = owed.get("owner")

    def is_replaceable(folder: str) -> bool:
        """Whether all that is there is what the same task has put there."""
        there = HereStore(folder, settings)
        found = _look(there)
        if found.manifest is None:
            return not found.is_taken and not os.listdir(folder)
        return found.manifest.is_of(owner) and there.rows().keys() <= found.manifest.names

    def complete(files: list[Row]) -> bytes:
        return Manifest(owner, owed["id"], True, files).text()

    try:
        if not os.path.lexists(target.path) or (os.path.isdir(target.path) and is_replaceable(target.path)):
            files, left_out = put_whole(
                root,
                key,
                target.path,
                settings.cancel,
                manifest=complete,
                may_replace=is_replaceable,
                is_lenient=is_lenient,
            )
            return Brought(files, left_out)
    except CannotReplace:
        pass  # files in it may be another matter
    if os.path.lexists(target.path) and not os.path.isdir(target.path):
        raise Collision(f"{store.shown}: a file is there, where a folder is wanted.", uri=store.shown, phase="collect")
    return _send_all(root, owed, key, store, settings)


def _done_before(seen: _Seen, owed: dict[str, Any]) -> list[Row] | None:
    """The files, if this very execution was completed, and only nobody was told."""
    found = seen.manifest
    if found is None or not found.is_of(owed.get("owner")) or found.execution != owed["id"]:
        return None
    return found.files if found.is_complete else None


# File by file.


def _send_all(root: str, owed: dict[str, Any], key: str, store: Store, settings: Settings) -> Brought:
    source = os.path.join(root, "exec", key, OUTPUT)
    owner, is_lenient = owed.get("owner"), bool(owed.get("failed"))
    contents = Contents(source, root, key, settings.cancel, is_lenient=is_lenient)
    files, left_out = _nameable(contents, store, is_lenient=is_lenient)
    seen = _look(store)
    if (done := _done_before(seen, owed)) is not None:
        return Brought(done, left_out)
    _refuse_others(store, seen, owed)
    before = store.rows(md5=True) if seen.is_taken else {}
    old = seen.manifest.names if seen.manifest is not None and seen.manifest.is_of(owner) else set()
    names = {each.name for each in files}
    stale = sorted(old - names)
    claim = Manifest(owner, owed["id"], False, [(each.name, each.size, None) for each in files], stale)
    store.write(claim.text())
    md5s: dict[str, str] = {}
    is_resumed = seen.manifest is not None and seen.manifest.is_of(owner) and seen.manifest.execution == owed["id"]
    pending = [each for each in files if not (is_resumed and _is_same(each, before, store, source, settings.cancel))]
    rows = _send(store, source, pending, before, md5s, settings) if pending else before
    arrived: list[Row] = []
    for each in files:
        md5 = rows[store.listed(each.name)].md5 or md5s.get(each.name)
        arrived.append((each.name, each.size, md5 or md5_of(os.path.join(source, each.place), settings.cancel)))
    settings.cancel.check(store.shown, "collect")
    _check_claim(store, claim)
    listed = {store.listed(each.name) for each in files}
    gone = [name for name in map(store.listed, stale) if name in rows and name not in listed]
    gone += [name for name in rows if (part := _PARTIAL.match(name)) and part.group(1) in listed and name not in listed]
    if gone:
        store.delete(gone)
    store.write(Manifest(owner, owed["id"], True, arrived).text())
    return Brought(arrived, left_out)


def claim(store: Store, owed: dict[str, Any], files: Sequence[Row]) -> bool:
    """Claim a place for files that come from elsewhere than a task's folder; False when they are there already, by the same claim.

    Raises:
        Collision: somebody else's files are there.
    """
    seen = _look(store)
    if _done_before(seen, owed) is not None:
        return False
    _refuse_others(store, seen, owed)
    old = seen.manifest.names if seen.manifest is not None and seen.manifest.is_of(owed.get("owner")) else set()
    stale = sorted(old - {name for name, _, _ in files})
    plain: list[Row] = [(name, size, None) for name, size, _ in files]
    store.write(Manifest(owed.get("owner"), owed["id"], False, plain, stale).text())
    return True


def complete(store: Store, owed: dict[str, Any], files: Sequence[Row], rows: dict[str, Entry]) -> None:
    """Say that what was claimed has arrived, and delete what its owner had there before. `rows` are what is there now.

    Raises:
        Collision: another task has claimed the place meanwhile.
    """
    mine = Manifest(owed.get("owner"), owed["id"], False)
    _check_claim(store, mine)
    found = manifest.parse(store.read())
    listed = {store.listed(name) for name, _, _ in files}
    stale = [] if found is None else [name for name in map(store.listed, found.stale) if name in rows]
    if gone := [name for name in stale if name not in listed]:
        store.delete(gone)
    store.write(replace(mine, is_complete=True, files=list(files)).text())


def _nameable(contents: Contents, store: Store, *, is_lenient: bool) -> tuple[list[Found], list[str]]:
    """The files whose names the store can hold. Two that it would call the same are refused as well."""
    files: list[Found] = []
    left_out = list(contents.left_out)
    for each in contents.files:
        try:
            store.listed(each.name)
        except BadURI as error:
            if not is_lenient:
                raise
            left_out.append(error.message)
        else:
            files.append(each)
    return files, left_out


def _is_same(each: Found, rows: dict[str, Entry], store: Store, source: str, cancel: Cancel) -> bool:
    """Whether exactly this file is there, as far as the storage can prove it."""
    row = rows.get(store.listed(each.name))
    if row is None or row.size != each.size or not row.md5:
        return False
    return row.md5 == md5_of(os.path.join(source, each.place), cancel)


def _send(
    store: Store,
    source: str,
    pending: Sequence[Found],
    before: dict[str, Entry],
    md5s: dict[str, str],
    settings: Settings,
) -> dict[str, Entry]:
    """Until all have arrived, or it failed too often without getting on. Returns the last listing."""
    failures = 0
    while True:
        error: Interrupted | None = None
        try:
            md5s.update(store.send(source, pending))
        except Interrupted as problem:
            if getattr(problem, "is_exhausted", False):
                raise
            error = problem
        rows = store.rows(md5=True)
        missing = []
        for each in pending:
            row = rows.get(store.listed(each.name))
            has_arrived = (
                row is not None and row.size in (None, each.size) and row.md5 in (None, md5s.get(each.name, row.md5))
            )
            if has_arrived and error is not None:
                assert row is not None
                has_arrived = _is_new(row, before) or _is_same(each, rows, store, source, settings.cancel)
            if not has_arrived:
                missing.append(each)
        if not missing:
            return rows
        if error is None:
            names = ", ".join(each.name for each in missing[:3])
            error = ChecksumMismatch(f"{store.shown}: what arrived is not what was sent: {names}.", uri=store.shown)
        failures = 1 if len(missing) < len(pending) else failures + 1
        if failures >= settings.retry.attempts:
            raise error
        pending = missing
        asked_s = error.retry_after_s if isinstance(error, Throttled) else None
        wait_s = settings.retry.wait_s(failures, asked_s, random.random())
        settings.warn(f"{error} Trying again in {wait_s:.0f} s.")
        settings.cancel.wait(wait_s)
        settings.cancel.check(store.shown, "collect")


def _is_new(row: Entry, before: dict[str, Entry]) -> bool:
    """Whether it came in this attempt: it was not there, or looks different. Then it is whole, since it has its name."""
    old = before.get(row.rel_name)
    return old is None or (old.size, old.modification_date) != (row.size, row.modification_date)


def _check_claim(store: Store, claim: Manifest) -> None:
    try:
        found = manifest.parse(store.read())
    except NotFound:
        found = None
    if found is None or (found.owner, found.execution, found.is_complete) != (claim.owner, claim.execution, False):
        raise Collision(
            f"{store.shown}: another task has claimed this place meanwhile; choose another output.",
            uri=store.shown, phase="collect",
        )  # fmt: skip
