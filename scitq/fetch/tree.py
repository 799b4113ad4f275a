"""Many files: a bounded pool that stops at the first failure, and folders moved file by file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from scitq.fetch.entry import FILE, Entry
from scitq.fetch.errors import EscapesFolder
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Transport
from scitq.fetch.uri import Address

T = TypeVar("T")


def in_parallel(items: Iterable[T], action: Callable[[T], None], settings: Settings) -> None:
    """The action on each, so many at once as may be; after a failure none is begun, and the failure is raised."""
    failed = threading.Event()

    def one(item: T) -> None:
        if failed.is_set():
            return
        try:
            settings.cancel.check()
            action(item)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(max(1, settings.parallel), thread_name_prefix="scitq-fetch") as pool:
        pending: set[Future[None]] = set()
        error: BaseException | None = None
        try:
            for item in _until(items, failed):
                pending.add(pool.submit(one, item))
                if len(pending) >= 4 * settings.parallel:  # a listing of millions is not held in memory
                    later = _collect(pending, FIRST_COMPLETED)
                    error = error or later
            while pending:
                later = _collect(pending, FIRST_COMPLETED)
                error = error or later
        except BaseException as stopped:
            failed.set()
            if not isinstance(stopped, Exception):
                settings.cancel.set()  # Ctrl-C: what is on its way would otherwise be waited for
            raise
    if error is not None:
        raise error


def _until(items: Iterable[T], failed: threading.Event) -> Iterator[T]:
    for item in items:
        if failed.is_set():
            return
        yield item


def _collect(pending: set[Future[None]], when: str) -> BaseException | None:
    done, _ = wait(pending, return_when=when)
    pending -= done
    return next((error for each in done if (error := each.exception()) is not None), None)


def safe_path(folder: str, rel_name: str, uri: str) -> str:
    """The path in `folder` for a name that a server gave."""
    parts = [part for part in rel_name.split("/") if part]
    if not parts or any(part in (".", "..") or "\0" in part for part in parts) or rel_name.startswith("/"):
        raise EscapesFolder(f"{uri}: the name {rel_name!r} leads out of the folder.", uri=uri, phase="get")
    return os.path.join(folder, *parts)


def files_below(
    address: Address, transport: Transport, settings: Settings, on_folder: Callable[[Entry], None]
) -> Iterator[Entry]:
    """The files of a folder and of those in it; folders go to `on_folder`, anything else is named in a warning."""
    for row in transport.entries(address, settings, recursive=True, md5=False):
        if row.is_dir:
            on_folder(row)
        elif row.type == FILE:
            yield row
        else:
            settings.warn(f"{row.name}: left out, being neither a file nor a folder ({row.type}).")
