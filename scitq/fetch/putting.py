"""Sending files and folders of this machine, and passing data from one storage to another."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol, cast

from scitq.fetch.entry import Entry
from scitq.fetch.errors import Collision, NotFound, Unsupported
from scitq.fetch.expand import address_of
from scitq.fetch.files import is_temporary, typed
from scitq.fetch.getting import summed, tried
from scitq.fetch.progress import Meter
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Transport, transport_of, unsupported
from scitq.fetch.tree import files_below, in_parallel
from scitq.fetch.uri import Address


class _TakesStreams(Protocol):
    def put_stream(self, stream: Stream, source: Source, address: Address, settings: Settings) -> None: ...


def send(source: str, target: Address, settings: Settings) -> None:
    """A file or folder of this machine to that address."""
    with typed(source, "put"):
        kind = os.stat(source).st_mode
    transport = transport_of(target, "put")
    if stat.S_ISDIR(kind):
        _send_folder(source, target, transport, settings)
        return
    if not stat.S_ISREG(kind):
        raise Unsupported(f"{source}: neither a file nor a folder.", uri=source, phase="put")
    if source.endswith("/"):
        raise NotFound(f"{source}: is no folder.", uri=source, phase="put")
    if target.is_folder_like:
        target = target.join(os.path.basename(source))
    _send_file(source, target, transport, settings, Meter(settings.report, os.path.getsize(source)))


def _send_file(
    source: str, target: Address, transport: Transport, settings: Settings, meter: Meter, label: str = ""
) -> None:
    size = os.path.getsize(source)
    if not settings.overwrite:
        _refuse_taken(target, transport, settings)
    if target.remote:
        from scitq.fetch.rclone import Rclone

        tried(lambda: Rclone().put(source, target, settings, meter), settings)
    else:
        inner = replace(settings, report=meter.inside(label or os.path.basename(source)))
        tried(lambda: transport.put(source, target, inner), settings)
    meter.at(label or os.path.basename(source), size, size, is_done=True)


def _refuse_taken(target: Address, transport: Transport, settings: Settings) -> None:
    try:
        tried(lambda: transport.info(target, settings), settings)
    except NotFound:
        return
    raise Collision(f"{target.shown}: it exists, and is not overwritten.", uri=target.shown, phase="put")


def _send_folder(source: str, target: Address, transport: Transport, settings: Settings) -> None:
    if target.remote:
        from scitq.fetch.rclone import Rclone

        tried(lambda: Rclone().put_folder(source, target, settings, Meter(settings.report)), settings)
        return
    if target.proto in ("http", "https"):
        raise unsupported(target, "put files")
    paths: Iterable[str] = _walk(source, settings)
    total_bytes = None
    if settings.report is not None:
        paths = list(paths)
        total_bytes = sum(map(os.path.getsize, paths))
    meter = Meter(settings.report, total_bytes)

    def one(path: str) -> None:
        rel_name = os.path.relpath(path, source)
        _send_file(path, target.join(rel_name), transport, settings, meter, rel_name)

    in_parallel(paths, one, settings)


def _walk(folder: str, settings: Settings) -> Iterator[str]:
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(top, name)
            if is_temporary(name):
                continue
            if os.path.isfile(path):
                yield path
            else:
                settings.warn(f"{path}: left out, being neither a file nor a folder.")


def stream_over(source: Address, target: Address, settings: Settings) -> None:
    """From one storage to another: by the storage itself where it can, else through this machine, with a warning."""
    transport = transport_of(source)
    found = None
    if source.proto not in ("http", "https"):
        found = tried(lambda: transport.info(source, settings), settings)
    is_dir = found is not None and found.is_dir
    if not is_dir and target.is_folder_like:
        target = target.join(source.name)
    meter = Meter(settings.report, found.size if found and not is_dir else None, is_single=not is_dir)
    if source.remote and target.remote:
        from scitq.fetch.rclone import Rclone

        rclone = Rclone()
        if not settings.overwrite and not is_dir:
            _refuse_taken(target, rclone, settings)
        if source.remote != target.remote or not rclone.copies_itself(source, settings):
            _warn(source, target, found, settings)
        tried(lambda: rclone.copy(source, target, settings, meter, is_dir=is_dir), settings)
        if not is_dir:
            size = found.size or 0 if found else 0
            meter.at(source.name, size, size, is_done=True)
        return
    _warn(source, target, found, settings)
    takes = transport_of(target, "put")
    if not hasattr(takes, "put_stream"):
        raise unsupported(target, "put files")
    if not is_dir:
        _pass(source, target, transport, takes, settings, meter)
        return

    meter, rows = summed(files_below(source, transport, settings, lambda row: None), settings)

    def one(row: Entry) -> None:
        _pass(address_of(row), target.join(row.rel_name), transport, takes, settings, meter, row.rel_name)

    in_parallel(rows, one, settings)


def _pass(
    source: Address, target: Address, transport: Transport, takes: Transport, settings: Settings, meter: Meter,
    label: str = "",
) -> None:  # fmt: skip
    def attempt() -> None:
        reading = Source(transport, source, settings, meter, label)
        with Stream(reading) as stream:
            cast("_TakesStreams", takes).put_stream(stream, reading, target, settings)
        reading.done()

    if not settings.overwrite:
        _refuse_taken(target, takes, settings)
    tried(attempt, replace(settings))


def _warn(source: Address, target: Address, found: Entry | None, settings: Settings) -> None:
    size = f"{found.size:,} bytes" if found is not None and found.size and not found.is_dir else "all of it"
    settings.warn(
        f"{source.shown} to {target.shown}: no storage copies between these two, so {size} pass through here."
    )
