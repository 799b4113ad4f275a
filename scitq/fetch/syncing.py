"""Making one folder hold what another does: only what differs travels, and nothing is deleted unless asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from scitq.fetch.entry import FILE, Entry
from scitq.fetch.errors import NotFound
from scitq.fetch.expand import address_of
from scitq.fetch.getting import fetch, tried
from scitq.fetch.patterns import including
from scitq.fetch.progress import Meter
from scitq.fetch.putting import send, stream_over
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.tree import in_parallel, safe_path
from scitq.fetch.uri import Address

CLOCKS_DIFFER = timedelta(seconds=2)  # FAT and FTP know no better


def synchronise(
    source: Address, target: Address, settings: Settings, *,
    include: Sequence[str] = (), delete: bool = False, only: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """What differs, of all or of what is included; `only`: of those names, each of which must be there."""
    storages = {source.proto, target.proto} - {"", "file"}
    if only is None and storages and (source.remote or source.is_local) and (target.remote or target.is_local):
        from scitq.fetch.rclone import Rclone, spell

        if source.is_local and not os.path.isdir(source.path):
            raise NotFound(f"{source.path}: no folder to sync from.", uri=source.path, phase="sync")
        tried(
            lambda: Rclone().sync(
                spell(source), spell(target), source if source.remote else target, settings, Meter(settings.report),
                include=include, delete=delete,
            ),
            settings,
        )  # fmt: skip
        return
    fits = including(include)
    here = {row.rel_name: row for row in _files(source, settings, fits)}
    if only is not None:
        absent = sorted(set(only) - set(here))
        if absent:
            raise NotFound(f"{source.shown}: not there: {', '.join(absent[:5])}.", uri=source.shown, phase="copy")
        here = {name: here[name] for name in only}
    try:
        there = {row.rel_name: row for row in _files(target, settings, fits)}
    except NotFound:
        there = {}
    wanted = [row for name, row in sorted(here.items()) if name not in there or not _is_same(row, there[name], target)]

    meter = Meter(settings.report, sum(row.size or 0 for row in wanted))

    def one(row: Entry) -> None:
        inner = replace(settings, report=meter.inside(row.rel_name))
        if target.is_local:
            fetch(address_of(row), safe_path(target.path, row.rel_name, source.shown), inner)
        elif source.is_local:
            send(address_of(row).path, target.join(row.rel_name), inner)
        else:
            stream_over(address_of(row), target.join(row.rel_name), inner)
        meter.at(row.rel_name, row.size or 0, row.size, is_done=True)

    in_parallel(wanted, one, settings)
    if delete and only is None:
        transport = transport_of(target, "delete")
        for name in sorted(set(there) - set(here)):
            tried(lambda name=name: transport.delete(address_of(there[name]), settings), settings)  # type: ignore[misc]


def _files(address: Address, settings: Settings, fits: object) -> list[Entry]:
    assert callable(fits)
    transport = transport_of(address, "list")
    rows = tried(lambda: list(transport.entries(address, settings, recursive=True, md5=False)), settings)
    return [row for row in rows if row.type == FILE and fits(row.rel_name)]


def _is_same(row: Entry, other: Entry, target: Address) -> bool:
    if row.size is None or row.size != other.size:
        return False
    if row.md5 and other.md5:
        return row.md5 == other.md5
    if row.modification_date is None or other.modification_date is None:
        return True
    apart = other.modification_date - row.modification_date
    # Here the source's time is kept; a server keeps the time of arrival.
    return abs(apart) <= CLOCKS_DIFFER if target.is_local else apart >= -CLOCKS_DIFFER
