"""Bringing what an address stands for to this machine: a file, a folder, what a glob matches; then its actions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import IO, TypeVar, cast

from scitq.fetch import actions
from scitq.fetch.entry import Entry
from scitq.fetch.errors import BadURI, Collision, NotFound
from scitq.fetch.expand import address_of, expand
from scitq.fetch.files import check_space, make_folder, put_in_place, remove
from scitq.fetch.progress import Meter
from scitq.fetch.reader import Source, Stream, StreamBroken, receive
from scitq.fetch.retry import retrying
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Transport, transport_of
from scitq.fetch.tree import files_below, in_parallel, safe_path
from scitq.fetch.uri import Address

T = TypeVar("T")


@dataclass(frozen=True)
class Landed:
    """A file that arrived. `md5` if it was asked for or known."""

    path: str
    size: int
    md5: str | None = None


def fetch(address: Address, destination: str, settings: Settings) -> list[Landed]:
    """All that the address stands for, in or at `destination`."""
    transport = transport_of(address)
    if (path := _unasked(address, destination, settings)) is not None:
        return _at_once(address, destination, path, settings)
    found = look(address, transport, settings)
    if address.actions:
        return _with_actions(address, transport, found, destination, settings)
    return _plainly(address, transport, found, destination, settings)


def _unasked(address: Address, destination: str, settings: Settings) -> str | None:
    """Where a storage's file would land that may be fetched without asking whether it is one: its size changes nothing.

    The question takes as long as the start of a program, and that is as long as a small file takes.
    """
    is_plain = not address.actions and not address.has_glob and not address.is_folder_like
    is_free = settings.overwrite and not settings.md5 and not settings.reserve_bytes and settings.timeout_s is None
    if not (address.remote and address.name and is_plain and is_free):
        return None
    if not (destination.endswith("/") or os.path.isdir(destination)):
        return None  # a file would get another name
    path = safe_path(destination, address.name, address.shown)
    return None if os.path.lexists(path) else path


def _at_once(address: Address, folder: str, path: str, settings: Settings) -> list[Landed]:
    from scitq.fetch.rclone import Rclone

    meter = Meter(settings.report, is_single=True)
    tried(lambda: Rclone().fetch_into(address, folder, settings, meter), settings)
    if not os.path.isfile(path):
        return []
    size = os.path.getsize(path)
    meter.part(address.name, size, size, is_done=True)
    return [Landed(path, size)]


def look(address: Address, transport: Transport, settings: Settings) -> list[Entry] | Entry | None:
    """What is there: one entry, several for a glob, None where only opening it can tell."""
    if address.proto in ("http", "https"):
        return None  # a file, or nothing; asking first would cost a request
    try:
        if address.remote and not address.actions and not address.has_glob:
            from scitq.fetch.rclone import Rclone

            return tried(lambda: Rclone().guess(address, settings), settings)
        return tried(lambda: transport.info(address.bare, settings), settings)
    except NotFound:
        if not address.has_glob:
            raise
    return tried(lambda: expand(address.bare, transport, settings), settings)


def tried(action: Callable[[], T], settings: Settings) -> T:
    """With the usual retries."""
    return retrying(
        action, settings.retry, settings.cancel,
        on_wait=lambda error, wait_s: settings.warn(f"{error} Trying again in {wait_s:.0f} s."),
    )  # fmt: skip


def _plainly(
    address: Address, transport: Transport, found: list[Entry] | Entry | None, destination: str, settings: Settings
) -> list[Landed]:
    if isinstance(found, list):
        return _several(found, transport, destination, settings)
    if found is not None and found.is_dir:
        return _folder(address.bare, transport, destination, settings)
    if destination.endswith("/") or os.path.isdir(destination):
        if not address.name:
            raise BadURI(
                f"{address.shown}: it has no file name; name the file to write.", uri=address.shown, phase="get"
            )
        destination = safe_path(destination, address.name, address.shown)
    total_bytes = found.size if found else None
    return [
        _file(
            address.bare, transport, found, destination, settings, Meter(settings.report, total_bytes, is_single=True)
        )
    ]


def _file(
    address: Address, transport: Transport, found: Entry | None, path: str, settings: Settings, meter: Meter,
    label: str = "",
) -> Landed:  # fmt: skip
    make_folder(os.path.dirname(path) or ".")
    if not settings.overwrite and os.path.lexists(path):
        raise Collision(f"{path}: it exists, and is not overwritten.", uri=path, phase="get")
    if address.is_local and os.path.exists(path) and os.path.samefile(address.path, path):
        raise Collision(f"{path}: source and destination are the same file.", uri=path, phase="get")
    known = found.md5 if found else None
    if "aria2" in address.options:
        from scitq.fetch import aria2

        tried(lambda: aria2.fetch(address, path, settings, meter), settings)
    elif address.remote and not (settings.md5 and known is None):
        from scitq.fetch.rclone import Rclone

        size = found.size if found else None
        check_space(os.path.dirname(path) or ".", size, settings.reserve_bytes, address.shown)
        label = label or address.name
        tried(lambda: Rclone().fetch(address, path, settings, meter, size, label), settings)
        size = os.stat(path).st_size
        meter.at(label, size, size, is_done=True)
    else:
        known = receive(Source(transport, address, settings, meter, label), path, settings.overwrite)
    return Landed(path, os.stat(path).st_size, known)


def _folder(address: Address, transport: Transport, folder: str, settings: Settings) -> list[Landed]:
    """Its contents, merged with what is there; its own name is not made again."""
    make_folder(folder)
    if address.remote:
        from scitq.fetch.rclone import Rclone

        tried(lambda: Rclone().fetch_folder(address, folder, settings, Meter(settings.report)), settings)
        return []
    landed = []

    def one(row: Entry) -> None:
        path = safe_path(folder, row.rel_name, address.shown)
        landed.append(_file(address_of(row), transport, row, path, settings, meter, row.rel_name))

    def made(row: Entry) -> None:
        make_folder(safe_path(folder, row.rel_name, address.shown))

    meter, rows = summed(files_below(address, transport, settings, made), settings)
    in_parallel(rows, one, settings)
    return sorted(landed, key=lambda each: each.path)


def summed(rows: Iterable[Entry], settings: Settings) -> tuple[Meter, Iterable[Entry]]:
    """A meter for them that knows the whole, if anybody looks: else a listing of millions is not held in memory."""
    if settings.report is None:
        return Meter(None), rows
    rows = list(rows)
    return Meter(settings.report, sum(row.size or 0 for row in rows)), rows


def _several(rows: list[Entry], transport: Transport, folder: str, settings: Settings) -> list[Landed]:
    """What a glob matched: files by their names, folders under theirs."""
    taken: dict[str, str] = {}
    for row in rows:
        name = address_of(row).name
        if name in taken:
            raise Collision(
                f"{taken[name]} and {row.name} would both become {name}. Fetch them into different folders (|mv:...).",
                uri=row.name, phase="get",
            )  # fmt: skip
        taken[name] = row.name
    make_folder(folder)
    landed: list[Landed] = []
    files = [row for row in rows if not row.is_dir]
    meter = Meter(settings.report, sum(row.size or 0 for row in files))

    def one(row: Entry) -> None:
        address = address_of(row)
        landed.append(_file(address, transport, row, safe_path(folder, address.name, address.shown), settings, meter))

    in_parallel(files, one, settings)
    for row in rows:
        if row.is_dir:
            address = address_of(row)
            landed += _folder(address, transport, safe_path(folder, address.name, address.shown), settings)
    return sorted(landed, key=lambda each: each.path)


def _with_actions(
    address: Address, transport: Transport, found: list[Entry] | Entry | None, destination: str, settings: Settings
) -> list[Landed]:
    """Everything in a hidden folder first; in place only when all of it succeeded, and over nothing that is there."""
    single = not isinstance(found, list) and not (found is not None and found.is_dir)
    as_file = (
        single
        and all(action.name == "gunzip" for action in address.actions)
        and not destination.endswith("/")
        and not os.path.isdir(destination)
    )
    folder = (os.path.dirname(destination) or ".") if as_file else destination
    with actions.workshop(folder, str(address)) as work:
        _fill(address, transport, found, work, settings, single=single)
        if as_file:
            (name,) = os.listdir(work)
            put_in_place(os.path.join(work, name), destination, overwrite=False)
            places = [destination]
        else:
            places = actions.settle(work, folder)
    return [Landed(path, os.lstat(path).st_size) for place in places for path in _files_in(place)]


def _fill(
    address: Address,
    transport: Transport,
    found: list[Entry] | Entry | None,
    work: str,
    settings: Settings,
    *,
    single: bool,
) -> None:
    first, *rest = address.actions
    name = address.name or "data"
    if single and first.name in actions.STREAMED and "aria2" not in address.options:
        size = found.size if isinstance(found, Entry) else None
        source = Source(transport, address.bare, settings, Meter(settings.report, size, is_single=True))
        try:
            with Stream(source) as raw:
                actions.stream(first, cast("IO[bytes]", raw), name, work, settings)
                while raw.read(1 << 20):  # what follows the archive belongs to the checksum
                    pass
            source.done()
        except StreamBroken as error:
            # Read from the beginning once more, this time into a file, which can be resumed and checked before use.
            settings.warn(f"{error} Starting over.")
            remove(work)
            os.mkdir(work, 0o700)
        else:
            actions.apply(rest, work, settings)
            return
    inner = replace(settings, overwrite=False)
    _plainly(address.bare, transport, found, os.path.join(work, name) if single else work, inner)
    actions.apply(address.actions, work, settings)


def _files_in(place: str) -> list[str]:
    if os.path.islink(place) or not os.path.isdir(place):
        return [place]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names)
