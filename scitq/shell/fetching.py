"""`scitq-fetch`: copy, sync, list, info, delete, cat. What it shows and asks; the work is `scitq.fetch`'s."""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, TypeVar

import click

from scitq.errors import BadInput, ScitqError
from scitq.fetch import errors, transfer
from scitq.fetch.entry import Entry
from scitq.fetch.errors import NotFound, Unsupported
from scitq.fetch.expand import address_of
from scitq.fetch.getting import look
from scitq.fetch.patterns import including
from scitq.fetch.progress import Progress
from scitq.fetch.reader import Source, Stream
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import Address, parse
from scitq.shell.answers import Bytes, Column, Rows, Text, several, shown, size
from scitq.shell.bars import Bars
from scitq.shell.show import Screen
from scitq.shell.stopping import Stopped, stoppable

T = TypeVar("T")
_log = logging.getLogger("scitq.fetch")
# The first that fits. The table of codes is in the help, in `table.data`.
_CODES: tuple[tuple[type[ScitqError], int], ...] = (
    (errors.NotFound, 3), (errors.AccessDenied, 4), (errors.NoSpace, 5), (errors.Collision, 6), (errors.ToolMissing, 7),
    (errors.ChecksumMismatch, 8), (errors.Interrupted, 9), (errors.TimedOut, 9), (errors.EscapesFolder, 1), (BadInput, 2),
)  # fmt: skip

Does = Callable[[object, SimpleNamespace], "Rows | Text | int | None"]


def told(does: Does) -> Does:
    """Its errors are one line and an exit code."""

    @functools.wraps(does)
    def whole(engine: object, args: SimpleNamespace) -> Rows | Text | int | None:
        screen: Screen = args.screen
        try:
            return does(engine, args)
        except ScitqError as problem:
            screen.error(str(problem))
            return next((code for kind, code in _CODES if isinstance(problem, kind)), 1)
        except Stopped as stopped:
            screen.error(str(stopped))
            return stopped.code

    return whole


def work(args: SimpleNamespace, does: Callable[[Settings], T], report: Callable[[Progress], None] | None = None,
         warn: Callable[[str], None] | None = None) -> T:  # fmt: skip
    """Do it with the settings of the command line; Ctrl-C ends it in order."""
    screen: Screen = args.screen

    def run(cancel: Cancel) -> T:
        said = warn or functools.partial(screen.say, kind="warning")
        return does(_settings(args, Settings(cancel=cancel, report=report, warn=said)))

    return stoppable(run, lambda stopped: screen.error(str(stopped)))


def _settings(args: SimpleNamespace, settings: Settings) -> Settings:
    # scitq 1 has --process before the verb.
    parallel = getattr(args, "parallel", None)
    if parallel is None:
        parallel = args.common.get("_parallel")
    if parallel is not None:
        if parallel < 1:
            raise click.UsageError("--parallel takes 1 or more.")
        settings = replace(settings, parallel=parallel)
    if (further := getattr(args, "retry", None)) is not None:
        settings = replace(settings, retry=replace(settings.retry, attempts=max(1, 1 + further)))
    if (stall_s := getattr(args, "stall_timeout", None)) is not None:
        if stall_s <= 0:
            raise click.UsageError("--stall-timeout takes more than 0 seconds.")
        settings = replace(settings, stall_timeout_s=stall_s)
    if (timeout_s := getattr(args, "timeout", None)) is not None:
        settings = replace(settings, timeout_s=timeout_s)
    return settings


# --- moving -----------------------------------------------------------------------------------------------------------------


@told
def copy(engine: object, args: SimpleNamespace) -> Text:
    """From anywhere to anywhere."""
    source, target = args.source, args.destination or "."
    return _moved(
        args, source, target,
        lambda settings: transfer.copy(source, target, settings=settings, overwrite=not args.no_overwrite),
    )  # fmt: skip


@told
def sync(engine: object, args: SimpleNamespace) -> Text | Rows | int:
    """What differs."""
    source, target = args.source, args.destination
    if args.dry_run:
        return _differences(args)
    if args.delete:
        _, extra = work(args, lambda settings: _compared(args, settings))
        if extra:
            question = f"{_total(extra)} at {parse(target).shown} are not in {parse(source).shown}. Delete them?"
            if not _agreed(args, question):
                return _left(args)
    return _moved(
        args, source, target,
        lambda settings: transfer.sync(source, target, args.include, delete=args.delete, settings=settings),
    )  # fmt: skip


def _moved(args: SimpleNamespace, source: str, target: str, does: Callable[[Settings], object]) -> Text:
    with Bars(args.screen) as bars:
        work(args, does, bars, bars.warn)
    _log.info("%s to %s: %s", parse(source).shown, parse(target).shown, bars.summary)
    data = {
        "source": parse(source).shown, "destination": parse(target).shown, "bytes": bars.done_bytes,
        "seconds": round(bars.seconds, 3),
    }  # fmt: skip
    return Text("", data, notes=[bars.summary] if args.screen.errors_are_terminal else [])


def _compared(args: SimpleNamespace, settings: Settings) -> tuple[list[Entry], list[Entry]]:
    """What would be sent, by name and size, and what the target has beyond it."""
    fits = including(args.include)

    def files(place: str) -> dict[str, Entry]:
        rows = transfer.list_content(place, settings=settings)
        return {row.rel_name: row for row in rows if not row.is_dir and fits(row.rel_name)}

    here = files(args.source)
    try:
        there = files(args.destination)
    except NotFound:
        there = {}
    wanted = [row for name, row in here.items() if name not in there or there[name].size != row.size]
    return wanted, [row for name, row in there.items() if name not in here]


def _differences(args: SimpleNamespace) -> Rows:
    wanted, extra = work(args, lambda settings: _compared(args, settings))
    rows = [{"does": "send", **_row(row)} for row in wanted]
    if args.delete:
        rows += [{"does": "delete", **_row(row)} for row in extra]
    notes = [f"To send, by name and size: {_total(wanted)}." + (f" To delete: {_total(extra)}." if args.delete else "")]
    return Rows(
        [Column("does"), Column("rel_name"), Column("_size", "size")], rows, [*notes, "Nothing was done."], plain=True
    )


@told
def delete(engine: object, args: SimpleNamespace) -> Rows | Text | int:
    """A file or a folder."""

    def asked(dry_run: bool) -> list[Entry]:
        return work(
            args,
            lambda settings: transfer.delete(
                args.uri, recursive=True, include=args.include, dry_run=dry_run, settings=settings
            ),
        )

    if args.yes and not args.dry_run:
        chosen = asked(False)
    else:
        chosen = asked(True)
        if args.dry_run:
            rows = [_row(row) for row in chosen]
            columns = [Column("name"), Column("_size", "size")]
            return Rows(columns, rows, [f"To delete: {_total(chosen)}. Nothing was done."], plain=True)
        if not chosen:
            return Text("", {"deleted": 0, "bytes": 0}, notes=["Nothing matches."])
        if not _agreed(args, f"Delete {_total(chosen)}: {parse(args.uri).shown}?"):
            return _left(args)
        chosen = asked(False)
    return Text("", {"deleted": len(chosen), "bytes": _bytes(chosen)}, notes=[f"Deleted: {_total(chosen)}."])


class Unconfirmed(BadInput):
    """There is nobody to ask."""


def _agreed(args: SimpleNamespace, question: str) -> bool:
    if args.yes:
        return True
    answer = args.screen.ask(question)
    if answer is None:
        raise Unconfirmed(f"{question} Nothing was done: there is no terminal to ask on. To do it: --yes")
    return bool(answer)


def _left(args: SimpleNamespace) -> int:
    args.screen.say("Nothing was done.")
    return 1


# --- looking ----------------------------------------------------------------------------------------------------------------


@told
def listed(engine: object, args: SimpleNamespace) -> Rows:
    """Whole addresses, folders below too."""
    return _list(args, "name", recursive=not args.not_recursive)


@told
def relative(engine: object, args: SimpleNamespace) -> Rows:
    """Relative names, folders below too."""
    return _list(args, "rel_name", recursive=not args.not_recursive)


@told
def shallow(engine: object, args: SimpleNamespace) -> Rows:
    """Whole addresses, not below."""
    return _list(args, "name", recursive=False)


@told
def shallow_relative(engine: object, args: SimpleNamespace) -> Rows:
    """Relative names, not below."""
    return _list(args, "rel_name", recursive=False)


def _list(args: SimpleNamespace, key: str, *, recursive: bool) -> Rows:
    if args.human and args.bytes:
        raise click.UsageError("--human and --bytes exclude one another.")
    found = work(args, lambda settings: transfer.list_content(args.uri, not recursive, args.md5, settings=settings))
    is_human = args.human or (args.screen.is_terminal and not args.bytes)
    dates = [Column("_created", "creation_date"), Column("_modified", "modification_date")]
    columns = [Column(f"_{key}", key), *dates, Column("_size", "size"), *([Column("_md5", "md5")] if args.md5 else [])]
    rows = [_row(row, is_human=is_human, with_md5=args.md5) for row in found]
    return Rows(columns, rows, [f"{_total(found)}."], head=not args.no_header, plain=True)


def _row(row: Entry, *, is_human: bool = False, with_md5: bool = False) -> Mapping[str, Any]:
    """What JSON has, and what the table shows: `-` for what is not known."""
    known = None if row.size is None else Bytes(row.size) if is_human else row.size
    name = address_of(row).shown if "@" in row.name else row.name  # the addresses of a listing may repeat a password
    return {
        "name": name, "rel_name": row.rel_name, "type": row.type, "size": row.size,
        "creation_date": _iso(row.creation_date), "modification_date": _iso(row.modification_date),
        **({"md5": row.md5} if with_md5 else {}),
        "_name": name, "_rel_name": row.rel_name, "_size": "-" if known is None else known,
        "_created": _date(row.creation_date), "_modified": _date(row.modification_date), "_md5": row.md5 or "-",
    }  # fmt: skip


@told
def info(engine: object, args: SimpleNamespace) -> Text:
    """One file or folder."""
    found = work(args, lambda settings: transfer.info(args.uri, args.md5, settings=settings))
    row = _row(found, with_md5=args.md5)
    data = {key: value for key, value in row.items() if not key.startswith("_")}
    exact = "-" if found.size is None else f"{found.size:,} bytes" + (f" ({size(found.size)})" * (found.size >= 1000))
    lines = {
        "name": row["name"], "type": found.type, "size": exact, "created": row["_created"], "modified": row["_modified"],
        **({"md5": found.md5 or "-"} if args.md5 else {}), **({"etag": found.etag} if found.etag else {}),
    }  # fmt: skip
    return Text("\n".join(f"{key + ':':<10} {shown(value, 0)}" for key, value in lines.items()), data)


def _total(rows: list[Entry]) -> str:
    files = [row for row in rows if not row.is_dir]
    folders = len(rows) - len(files)
    parts = [several(len(files), "file")] * bool(files or not folders) + [several(folders, "folder")] * bool(folders)
    unknown = " and more" if any(row.size is None for row in files) else ""
    return f"{' and '.join(parts)}, {size(_bytes(rows))}{unknown}"


def _bytes(rows: list[Entry]) -> int:
    return sum(row.size or 0 for row in rows if not row.is_dir)


def _iso(date: datetime | None) -> str | None:
    return None if date is None else date.isoformat()


def _date(date: datetime | None) -> str:
    return "-" if date is None else str(date.replace(microsecond=0))


# --- reading ----------------------------------------------------------------------------------------------------------------


@told
def cat(engine: object, args: SimpleNamespace) -> Text | None:
    """What the files say, one after the other."""
    screen: Screen = args.screen
    addresses = [parse(uri) for uri in args.uris]  # all of them before the first byte
    kept: list[dict[str, Any]] = []

    def does(settings: Settings) -> None:
        for address in addresses:
            pieces: list[bytes] = []
            _read(address, settings, pieces.append if screen.as_json else lambda piece: screen.piece(1, piece))
            if screen.as_json:
                whole = b"".join(pieces)
                kept.append(
                    {"name": address.shown, "size": len(whole), "text": whole.decode(errors="backslashreplace")}
                )

    work(args, does)
    if screen.as_json:
        return Text("", kept)
    screen.pieces_end()
    return None


def _read(address: Address, settings: Settings, take: Callable[[bytes], None]) -> None:
    if address.actions or address.options:
        with tempfile.TemporaryDirectory(prefix="scitq-") as folder:
            for landed in transfer.get(address, f"{folder}/", settings=settings):
                with open(landed.path, "rb") as file:
                    while piece := file.read(1 << 20):
                        settings.cancel.check(address.shown, "get")
                        take(piece)
        return
    for one in _files(address, settings):
        with _open(one, settings) as stream:
            buffer = memoryview(bytearray(1 << 20))
            while count := stream.readinto(buffer):
                take(bytes(buffer[:count]))


def _files(address: Address, settings: Settings) -> Iterator[Address]:
    found = look(address, transport_of(address), settings)
    if isinstance(found, list):
        yield from (address_of(row) for row in found if not row.is_dir)
    elif found is not None and found.is_dir:
        raise Unsupported(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
    else:
        yield address


@contextlib.contextmanager
def _open(address: Address, settings: Settings) -> Iterator[Stream]:
    with Stream(Source(transport_of(address), address, settings)) as stream:
        yield stream
