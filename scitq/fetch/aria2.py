"""The option @aria2: a download by the aria2c program, over several connections at once, resumed when broken."""

from __future__ import annotations

import contextlib
import json
import os

from scitq.fetch.errors import (
    AccessDenied,
    BadURI,
    ChecksumMismatch,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    Unsupported,
)
from scitq.fetch.files import check_space, neighbour, put_in_place, sync_folder
from scitq.fetch.http import _encoded
from scitq.fetch.local import md5_of
from scitq.fetch.programs import Child, find
from scitq.fetch.progress import Meter
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import Address

GET_IT = "Install it with your system's packages (apt install aria2), or leave @aria2 out."
# Its exit statuses, from its manual page; 1, unknown, is what it says of a connection that ends.
_MEANINGS: dict[int, type[FetchError]] = {
    1: Interrupted, 2: Interrupted, 3: NotFound, 4: NotFound, 5: Interrupted, 6: Interrupted, 7: Interrupted, 8: Interrupted,
    9: NoSpace, 19: Interrupted, 21: Interrupted, 24: AccessDenied, 29: Interrupted, 32: ChecksumMismatch,
}  # fmt: skip


def fetch(address: Address, path: str, settings: Settings, meter: Meter) -> None:
    """One file to `path`: beside it first, then renamed."""
    program = find("aria2c", GET_IT, address.shown)
    entry = transport_of(address).info(address, settings)
    if entry.is_dir:
        raise Unsupported(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
    part = neighbour(path, str(address.bare), "part")
    folder, name = os.path.split(part)
    date = entry.modification_date
    version: list[object] = [entry.size, entry.etag, date.isoformat() if date else None]
    _forget_other_versions(part, version)
    check_space(folder or ".", (entry.size or 0) - _allocated(part), settings.reserve_bytes, address.shown)
    url = f"{address.proto}://{_encoded(address.path)}"
    if "\n" in url or "\t" in url:
        raise BadURI(f"{address.shown}: holds a line break.", uri=address.shown, phase="get")
    count = settings.aria2_connections
    arguments = [
        program, "--no-conf", f"--dir={os.path.abspath(folder or '.')}", "--input-file=-",
        f"--max-connection-per-server={count}", f"--split={count}", "--min-split-size=1M", "--continue=true",
        "--allow-overwrite=true", "--auto-file-renaming=false", "--file-allocation=none", "--remote-time=true",
        "--max-tries=1", f"--timeout={max(1, min(600, int(settings.stall_timeout_s)))}",
        f"--connect-timeout={max(1, min(600, int(settings.connect_timeout_s)))}", "--summary-interval=0",
        "--console-log-level=error", "--download-result=hide", "--quiet=false", "--enable-color=false",
        "--user-agent=scitq", "--follow-torrent=false", "--follow-metalink=false",
    ]  # fmt: skip

    def alive() -> object:
        done = _allocated(part)
        meter.at(address.name, min(done, entry.size or done), entry.size)
        return done

    # The address comes through its standard input: it may hold a password, and a command line is everybody's.
    with Child(arguments, settings, address.shown, "get", reads=True, joined=True) as child:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"{url}\n  out={name}\n".encode())
            child.stdin.close()
        status = child.wait(alive, settings.total_s(entry.size))
    if status:
        raise _error(status, child.said, address)
    size = os.path.getsize(part)
    if entry.size is not None and size != entry.size:
        _forget(part)
        raise Interrupted(f"{address.shown}: {size:,} of {entry.size:,} bytes came.", uri=address.shown, phase="get")
    if entry.md5 and (found := md5_of(part, settings)) != entry.md5:
        _forget(part)
        raise ChecksumMismatch(
            f"{address.shown}: what arrived has the MD5 {found}, the source says {entry.md5}.",
            uri=address.shown,
            phase="get",
        )
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    put_in_place(part, path, overwrite=settings.overwrite)
    _forget(part)
    sync_folder(folder or ".")
    meter.at(address.name, size, size, is_done=True)


def _error(status: int, said: str, address: Address) -> FetchError:
    kind = _MEANINGS.get(status, FetchError)
    if status == 22:  # a bad answer: which one, it only says
        kind = AccessDenied if any(code in said for code in ("status=401", "status=403")) else Interrupted
    return kind(f"{address.shown}: aria2c ended with {status}: {said}", uri=address.shown, phase="get", status=status)


def _allocated(part: str) -> int:
    """What has come: the file has holes where nothing came yet."""
    try:
        return os.stat(part).st_blocks * 512
    except OSError:
        return 0


def _forget_other_versions(part: str, version: list[object]) -> None:
    """aria2c goes on with whatever file is there; it must be a part of this version."""
    state = part[: -len("part")] + "state"
    try:
        with open(state, encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        known = None
    if known != version or not (version[1] or version[2]):
        _forget(part)
        with open(state, "w", encoding="utf-8") as file:
            json.dump(version, file)


def _forget(part: str) -> None:
    for name in (part, f"{part}.aria2", part[: -len("part")] + "state"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
