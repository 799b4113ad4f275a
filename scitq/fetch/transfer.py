"""Moving data and looking at it, from and to any address. Synchronous; every function may be called from any thread.

Each takes `settings`, or `cancel` and `progress` for what is most often wanted; version 1's keyword names are accepted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scitq.fetch.entry import Entry
from scitq.fetch.errors import AccessDenied, BadURI, Collision, NotFound
from scitq.fetch.expand import address_of
from scitq.fetch.getting import Landed, fetch, look, tried
from scitq.fetch.listing import row_of, rows_of
from scitq.fetch.patterns import including
from scitq.fetch.progress import Report
from scitq.fetch.putting import send, stream_over
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.syncing import synchronise
from scitq.fetch.transport import transport_of
from scitq.fetch.tree import in_parallel
from scitq.fetch.uri import Address, TextOrPath, parse, refuse_runs


def get(
    uri: TextOrPath | Address, destination: TextOrPath = ".", parallel: int | None = None, show_progress: bool = False, *,
    settings: Settings | None = None, cancel: Cancel | None = None, progress: Report | None = None, overwrite: bool = True,
) -> list[Landed]:  # fmt: skip
    """Bring it here: into `destination` if that is a folder or ends in a slash, else under that name.

    A folder's contents are merged into the destination. Actions run on what arrived, and overwrite nothing.
    """
    used = _settings(settings, cancel, progress, parallel, overwrite=overwrite)
    return fetch(parse(uri), _here(destination), used)


def put(
    source: TextOrPath, uri: TextOrPath | Address, parallel: int | None = None, show_progress: bool = False, *,
    settings: Settings | None = None, cancel: Cancel | None = None, progress: Report | None = None, overwrite: bool = True,
) -> None:  # fmt: skip
    """Send a file or a folder of this machine there: under that name, or into it if it ends in a slash."""
    used = _settings(settings, cancel, progress, parallel, overwrite=overwrite)
    send(_here(source), _target(uri), used)


def copy(
    source_uri: TextOrPath | Address, destination_uri: TextOrPath | Address, show_progress: bool = False,
    file_list: Sequence[str] | None = None, *, settings: Settings | None = None, cancel: Cancel | None = None,
    progress: Report | None = None, overwrite: bool = True,
) -> None:  # fmt: skip
    """From anywhere to anywhere. Between two remotes the storage does it itself where it can; else it passes through here.

    `file_list`: only those of the source folder.
    """
    used = _settings(settings, cancel, progress, None, overwrite=overwrite)
    source, target = parse(source_uri), _target(destination_uri)
    if file_list is not None:
        synchronise(source, target, used, only=list(file_list))
    elif target.is_local:
        fetch(source, target.path, used)
    elif source.is_local and not source.actions:
        found = look(source, transport_of(source), used)
        if isinstance(found, list):
            into = target if target.is_folder_like else replace(target, path=f"{target.path}/")
            for row in found:
                send(address_of(row).path, into, used)
        else:
            send(source.path, target, used)
    elif source.actions or source.has_glob:
        with tempfile.TemporaryDirectory(prefix="scitq-") as folder:
            landed = fetch(source, f"{folder}/", used)
            single = len(landed) == 1 and os.path.dirname(landed[0].path.rstrip("/")) == folder
            send(landed[0].path if single else folder, target, used)
    else:
        stream_over(source, target, used)


def sync(
    uri1: TextOrPath | Address, uri2: TextOrPath | Address, include: Sequence[str] = (), process: int | None = None,
    show_progress: bool = False, *, delete: bool = False, settings: Settings | None = None, cancel: Cancel | None = None,
    progress: Report | None = None,
) -> None:  # fmt: skip
    """Make the second folder hold what the first does: only what differs travels. Deletes nothing unless `delete`."""
    used = _settings(settings, cancel, progress, process)
    synchronise(parse(uri1), _target(uri2), used, include=tuple(include), delete=delete)


def list_content(
    uri: TextOrPath | Address, no_rec: bool = False, md5: bool = False, *, settings: Settings | None = None,
    cancel: Cancel | None = None,
) -> list[Entry]:  # fmt: skip
    """What is in a folder and, unless `no_rec`, in those below it; of a file, the file. Actions are ignored."""
    used = _settings(settings, cancel, None, None)
    return tried(lambda: list(rows_of(parse(uri).bare, used, recursive=not no_rec, md5=md5)), used)


def info(
    uri: TextOrPath | Address, md5: bool = False, *, settings: Settings | None = None, cancel: Cancel | None = None
) -> Entry:
    """What is there; NotFound when nothing is."""
    used = _settings(settings, cancel, None, None)
    return tried(lambda: row_of(parse(uri).bare, used, md5=md5), used)


def delete(
    uri: TextOrPath | Address, *, recursive: bool = False, include: Sequence[str] = (), dry_run: bool = False,
    settings: Settings | None = None, cancel: Cancel | None = None,
) -> list[Entry]:  # fmt: skip
    """Delete a file, or with `recursive` a folder (of it the files that match `include`). Returns what it deleted.

    With `dry_run` it returns what it would delete, and calls nothing that could.
    """
    used = _settings(settings, cancel, None, None)
    address = _target(uri)
    transport = transport_of(address, "delete")
    found = info(address, settings=used)
    if not found.is_dir:
        chosen = [found] if including(include)(found.rel_name) else []
        if chosen and not dry_run:
            tried(lambda: transport.delete(address, used), used)
        return chosen
    if not (address.path.strip("/") if address.is_local else address.segments):
        raise AccessDenied(
            f"{address.shown}: everything there is; that is not deleted.", uri=address.shown, phase="delete"
        )
    rows = list_content(address, settings=used)
    if rows and not recursive:
        raise Collision(
            f"{address.shown}: a folder with {len(rows)} entries; deleting it needs recursive=True.",
            uri=address.shown, phase="delete",
        )  # fmt: skip
    fits = including(include)
    files = [row for row in rows if not row.is_dir and fits(row.rel_name)]
    folders = [] if include else [*sorted((row for row in rows if row.is_dir), key=_depth, reverse=True), found]
    if dry_run:
        return [*files, *folders]
    if address.remote:
        from scitq.fetch.rclone import Rclone

        tried(lambda: Rclone().delete_folder(address, used, include), used)
    else:

        def one(row: Entry) -> None:
            try:
                tried(lambda: transport.delete(address_of(row), used), used)
            except NotFound:
                return  # somebody was faster

        in_parallel(files, one, used)
        for row in folders:
            one(row)
    return [*files, *folders]


def recursive_delete(uri: TextOrPath | Address, include: Sequence[str] = (), dryrun: bool = False, **more: Any) -> None:
    """Version 1's name for `delete(..., recursive=True)`; its `dryrun` deletes nothing."""
    delete(uri, recursive=True, include=include, dry_run=dryrun, **more)


def check_uri(uri: TextOrPath | Address, *, settings: Settings | None = None) -> str:
    """The protocol, once the address is found well formed and its remote configured. Looks at no data."""
    address = parse(uri)
    refuse_runs(address, "parse")
    if address.remote:
        from scitq.fetch.rclone import check_remote

        check_remote(address, settings or Settings())
    return address.proto or "file"


def _settings(
    settings: Settings | None,
    cancel: Cancel | None,
    progress: Report | None,
    parallel: int | None,
    overwrite: bool = True,
) -> Settings:
    used = settings or Settings()
    changes: dict[str, Any] = {}
    if cancel is not None:
        changes["cancel"] = cancel
    if progress is not None:
        changes["report"] = progress
    if parallel:
        changes["parallel"] = parallel
    if not overwrite:
        changes["overwrite"] = False
    return replace(used, **changes) if changes else used


def _here(place: TextOrPath) -> str:
    """A path of this machine, however it is written; the slash at its end is kept, it says something."""
    address = parse(place)
    if not address.is_local:
        raise BadURI(f"{address.shown}: a path of this machine is wanted here.", uri=address.shown, phase="parse")
    _no_actions(address)
    return address.path


def _target(uri: TextOrPath | Address) -> Address:
    address = parse(uri)
    _no_actions(address)
    return address


def _no_actions(address: Address) -> None:
    if address.actions:
        raise BadURI(
            f"{address.shown}: actions belong to a source; a bar that belongs to the name is written twice.",
            uri=address.shown, phase="parse",
        )  # fmt: skip


def _depth(row: Entry) -> int:
    return row.rel_name.count("/")
