"""Rows of folders and files, with their MD5 where it is asked for: as the storage gives it, else by reading."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from scitq.fetch.entry import FILE, Entry
from scitq.fetch.errors import NotFound
from scitq.fetch.expand import address_of, expand
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Transport, transport_of
from scitq.fetch.tree import in_parallel
from scitq.fetch.uri import Address


def rows_of(address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
    """What is in a folder; of a file, that file; of a glob, what matches."""
    transport = transport_of(address, "list")
    if address.proto == "ftp" and md5:
        yield from _read_all(
            list(_rows(address, transport, settings, recursive=recursive, md5=False)), transport, settings
        )
    else:
        yield from _rows(address, transport, settings, recursive=recursive, md5=md5)


def _rows(address: Address, transport: Transport, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
    if address.remote:
        yield from _of_remote(address, transport, settings, recursive=recursive, md5=md5)
        return
    try:
        found = transport.info(address, settings, md5=md5)
    except NotFound:
        if not address.has_glob:
            raise
        yield from expand(address, transport, settings)
        return
    if found.is_dir:
        yield from transport.entries(address, settings, recursive=recursive, md5=md5)
    else:
        yield found


def _of_remote(
    address: Address, transport: Transport, settings: Settings, *, recursive: bool, md5: bool
) -> Iterator[Entry]:
    """A storage lists a file as a folder that holds it: one question more, only when it looks like that."""
    rows = transport.entries(address, settings, recursive=recursive, md5=md5)
    try:
        first = next(rows, None)
    except NotFound:
        if not address.has_glob:
            raise
        yield from expand(address, transport, settings)
        return
    if first is None:
        if address.has_glob:
            yield from expand(address, transport, settings)
        else:
            transport.info(address, settings)  # an empty folder is one thing, none at all another
        return
    second = next(rows, None)
    if second is None and first.type == FILE and first.rel_name == address.name:
        found = transport.info(address, settings, md5=md5)
        yield first if found.is_dir else found
        return
    yield first
    if second is not None:
        yield second
    yield from rows


def row_of(address: Address, settings: Settings, *, md5: bool = False) -> Entry:
    """What is there."""
    transport = transport_of(address, "info")
    found = transport.info(address, settings, md5=md5)
    if md5 and found.md5 is None and address.proto == "ftp" and not found.is_dir:
        return _read(found, transport, settings)
    return found


def _read_all(rows: list[Entry], transport: Transport, settings: Settings) -> list[Entry]:
    lock = threading.Lock()
    done: dict[int, Entry] = {}

    def one(index: int) -> None:
        row = rows[index] if rows[index].is_dir else _read(rows[index], transport, settings)
        with lock:
            done[index] = row

    in_parallel(range(len(rows)), one, settings)
    return [done[index] for index in range(len(rows))]


def _read(row: Entry, transport: Transport, settings: Settings) -> Entry:
    source = Source(transport, address_of(row), replace(settings, md5=True, report=None))
    with Stream(source) as raw:
        buffer = bytearray(1 << 20)
        while raw.readinto(buffer):
            pass
        return replace(row, md5=source.md5)
