"""ftp: files read with REST, written under another name first, folders listed by MLSD or by what LIST prints."""

from __future__ import annotations

import contextlib
import ftplib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import unquote

from scitq.fetch.entry import DIR, FILE, LINK, Entry
from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    Collision,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    Stalled,
    Unsupported,
)
from scitq.fetch.files import is_temporary, neighbour
from scitq.fetch.ftplines import parse_line
from scitq.fetch.http import connect
from scitq.fetch.progress import Meter
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Identity
from scitq.fetch.uri import Address

T = TypeVar("T")
CHUNK_BYTES = 1 << 18


class FtpBody:
    """A file that is being sent."""

    md5 = None
    mode = None

    def __init__(self, session: _Session, offset: int, entry: Entry) -> None:
        self._session, self.offset = session, offset
        self.identity = _identity(entry)
        self.modified_s = entry.modification_date.timestamp() if entry.modification_date else None
        with session.typed():
            session.ftp.voidcmd("TYPE I")
            self._wire: socket.socket | None = session.ftp.transfercmd(
                f"RETR {session.path}", rest=offset if offset else None
            )

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes; 0 at the end, once the server has said that it is the end."""
        session = self._session
        if self._wire is None:
            return 0
        with session.typed(), session.settings.cancel.waking(lambda: _shut(self._wire)):
            self._wire.settimeout(session.settings.stall_timeout_s)
            count = self._wire.recv_into(buffer)
            if not count:
                self._wire.close()
                self._wire = None
                session.settings.cancel.check(session.address.shown, "get")
                session.ftp.voidresp()
        return count

    def close(self) -> None:
        """Let go, also in the middle: the connection is not used again."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._session.close()


class Ftp:
    """ftp, as anonymous or as the user in the address."""

    def open(self, address: Address, settings: Settings, offset: int = 0, identity: Identity | None = None) -> FtpBody:
        """Read one file, from `offset` on if size and time are still the same."""
        session = _Session(address, settings, "get")
        try:
            entry = session.look()
            if entry.is_dir:
                raise Unsupported(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
            same = identity is not None and identity == _identity(entry)
            return FtpBody(session, offset if same else 0, entry)
        except BaseException:
            session.close()
            raise

    def put(self, source: str, address: Address, settings: Settings) -> None:
        """One file to that name, under a hidden one until it is whole."""
        try:
            with open(source, "rb", buffering=0) as file:
                self._store(file.readinto, os.path.getsize(source), address, settings)
        except FileNotFoundError as error:
            raise NotFound(f"{source}: no such file.", uri=source, phase="put") from error

    def put_stream(self, stream: Stream, source: Source, address: Address, settings: Settings) -> None:
        """The same from another storage."""
        self._store(stream.readinto, None, address, settings, source)

    def _store(
        self,
        readinto: Callable[[Any], int | None],
        size: int | None,
        address: Address,
        settings: Settings,
        source: Source | None = None,
    ) -> None:
        with contextlib.closing(_Session(address, settings, "put")) as session:
            folder, _, name = session.path.rpartition("/")
            if not name:
                raise Collision(f"{address.shown}: names a folder, not a file.", uri=address.shown, phase="put")
            session.make_folders(folder)
            fresh = neighbour(session.path, "put", "part", fresh=True)
            buffer = memoryview(bytearray(CHUNK_BYTES))
            sent, begun = 0, False
            # What is passed on is counted where it is read.
            meter = Meter(settings.report if source is None else None)
            with session.typed():
                session.ftp.voidcmd("TYPE I")
                try:
                    wire = session.ftp.transfercmd(f"STOR {fresh}")
                    begun = True
                    with wire, settings.cancel.waking(lambda: _shut(wire)):
                        while count := readinto(buffer):
                            wire.settimeout(settings.stall_timeout_s)
                            wire.sendall(buffer[:count])
                            sent += count
                            meter.at(name, sent, size)
                    settings.cancel.check(address.shown, "put")
                    session.ftp.voidresp()
                    expected = source.position if source is not None else size
                    found = session.size(fresh)
                    if found is not None and (sent != expected or found != sent):
                        raise Interrupted(
                            f"{address.shown}: {found:,} of {expected:,} bytes arrived.", uri=address.shown, phase="put"
                        )
                    session.ftp.rename(fresh, session.path)
                except BaseException:
                    if begun:
                        session.try_to_delete(fresh)
                    raise

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """What is in the folder, sorted."""
        with contextlib.closing(_Session(address, settings, "list")) as session:
            if not session.look().is_dir:
                raise NotFound(f"{address.shown}: is no folder.", uri=address.shown, phase="list")
            waiting = [""]
            while waiting:
                below = waiting.pop()
                deeper = []
                for entry in sorted(session.rows(below), key=lambda row: row.rel_name):
                    settings.cancel.check(address.shown, "list")
                    yield entry
                    if entry.is_dir and recursive:
                        deeper.append(entry.rel_name)
                waiting.extend(reversed(deeper))

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there."""
        with contextlib.closing(_Session(address, settings, "info")) as session:
            return session.look()

    def delete(self, address: Address, settings: Settings) -> None:
        """Delete one file, or one empty folder."""
        with contextlib.closing(_Session(address, settings, "delete")) as session, session.typed():
            if address.is_folder_like:
                session.ftp.rmd(session.path.rstrip("/"))
            else:
                session.ftp.delete(session.path)


class _Session:
    """One connection, logged in."""

    def __init__(self, address: Address, settings: Settings, phase: str) -> None:
        self.address, self.settings, self.phase = address, settings, phase
        place, _, path = address.path.partition("/")
        login, _, host = place.rpartition("@")
        user, _, password = login.partition(":")
        self.path = "/" + unquote(path, errors="surrogateescape")
        name, _, port = host.partition(":") if not host.startswith("[") else (host.strip("[]"), "", "")
        self.ftp = ftplib.FTP()
        self.ftp.encoding = "utf-8"
        self._leave = contextlib.ExitStack()
        try:
            with self.typed():
                # ftplib's own connecting cannot be stopped.
                wire = connect((name, int(port or 21)), settings.connect_timeout_s, settings)
                self._leave.enter_context(settings.cancel.waking(lambda: _shut(wire)))
                wire.settimeout(min(settings.stall_timeout_s, 60.0))
                ftp = self.ftp
                ftp.host, ftp.sock, ftp.af, ftp.timeout = name, wire, wire.family, settings.connect_timeout_s
                ftp.file = wire.makefile("r", encoding=ftp.encoding, errors="surrogateescape")
                ftp.welcome = ftp.getresp()
                ftp.login(unquote(user) or "anonymous", unquote(password) or ("" if user else "anonymous@"))
                with contextlib.suppress(ftplib.error_perm):
                    ftp.sendcmd("OPTS UTF8 ON")
                ftp.voidcmd("TYPE I")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._leave.close()
        with contextlib.suppress(OSError):
            self.ftp.close()

    def look(self) -> Entry:
        """What is at the address: a file has a size, a folder can be entered."""
        path = self.path.rstrip("/") or "/"
        address = self.address
        with self.typed():
            if not address.is_folder_like and path != "/" and (size := self.size(path)) is not None:
                when = self._time(path)
                return Entry(address.text, address.name, size, when, when)
            try:
                self.ftp.cwd(path)
            except ftplib.error_perm as error:
                row = self._listed(path)
                if row is None:
                    raise NotFound(f"{address.shown}: {error}.", uri=address.shown, phase=self.phase) from error
                return row
        return Entry(address.text.rstrip("/") + "/", address.name + "/", 0, type=DIR)

    def _listed(self, path: str) -> Entry | None:
        """A server without SIZE still names the file in the listing of its folder."""
        folder, _, name = path.rpartition("/")
        with contextlib.suppress(ftplib.error_perm):
            for found, facts in self._facts(folder or "/"):
                if found == name and facts[0] == FILE:
                    return Entry(self.address.text, name, facts[1], facts[2], facts[2])
        return None

    def size(self, path: str) -> int | None:
        """Of a file; None of what is none, or where the server does not say."""
        try:
            return self.ftp.size(path)
        except ftplib.error_perm:
            return None

    def _time(self, path: str) -> datetime | None:
        try:
            return _compact(self.ftp.sendcmd(f"MDTM {path}").split()[-1])
        except ftplib.error_perm:
            return None

    def rows(self, below: str) -> Iterator[Entry]:
        """One folder."""
        path = (self.path.rstrip("/") + "/" + below).rstrip("/") or "/"
        with self.typed():
            found = list(self._facts(path))
        for name, (kind, size, when) in found:
            if is_temporary(name):
                continue
            if "/" in name:
                raise FetchError(
                    f"{self.address.shown}: the server lists {name!r}.", uri=self.address.shown, phase="list"
                )
            rel_name = below + name + ("/" if kind == DIR else "")
            yield Entry(self.address.join(rel_name).text, rel_name, size if kind == FILE else 0, when, when, type=kind)

    def _facts(self, path: str) -> Iterator[tuple[str, tuple[str, int | None, datetime | None]]]:
        try:
            rows = list(self.ftp.mlsd(path, ["type", "size", "modify"]))
        except ftplib.error_perm as error:
            if error.args and str(error.args[0])[:3] not in ("500", "501", "502", "504"):
                raise
            yield from self._printed(path)
            return
        for name, facts in rows:
            kind = facts.get("type", "").lower()
            if kind not in ("cdir", "pdir") and name not in (".", ".."):
                size = int(facts["size"]) if facts.get("size", "").isdigit() else None
                yield (
                    name,
                    (
                        {"file": FILE, "dir": DIR}.get(kind, LINK),
                        size,
                        _compact(facts["modify"]) if "modify" in facts else None,
                    ),
                )

    def _printed(self, path: str) -> Iterator[tuple[str, tuple[str, int | None, datetime | None]]]:
        """What LIST prints is for eyes; two ways of printing it are common."""
        lines: list[str] = []
        self.ftp.cwd(path)  # an argument of LIST with a space or a dash is taken for options
        self.ftp.retrlines("LIST", lines.append)
        for line in lines:
            if row := parse_line(line, datetime.now(timezone.utc)):
                yield row

    def make_folders(self, path: str) -> None:
        """That folder and those above it."""
        with self.typed():
            parts = [part for part in path.split("/") if part]
            for depth in range(1, len(parts) + 1):
                with contextlib.suppress(ftplib.error_perm):  # it is there, or what follows fails and says why
                    self.ftp.mkd("/" + "/".join(parts[:depth]))

    def try_to_delete(self, path: str) -> None:
        """Clear away what is not finished, as far as the connection still works; no listing of ours shows it."""
        with contextlib.suppress(ftplib.Error, OSError, EOFError, FetchError):
            if not self.settings.cancel.is_set:
                self.ftp.sock.settimeout(10.0)  # type: ignore[union-attr]
                with contextlib.suppress(ftplib.Error):
                    self.ftp.voidresp()
                self.ftp.delete(path)

    @contextlib.contextmanager
    def typed(self) -> Iterator[None]:
        """The protocol's and the wire's errors in here are ours."""
        shown, phase = self.address.shown, self.phase
        try:
            yield
        except FetchError:
            raise
        except (ftplib.Error, OSError, EOFError, ValueError, AttributeError) as error:
            if self.settings.cancel.is_set:
                raise Cancelled(f"{shown}: cancelled.", uri=shown, phase=phase) from error
            if isinstance(error, TimeoutError):
                raise Stalled(f"{shown}: the server was silent for too long.", uri=shown, phase=phase) from error
            if isinstance(error, (ftplib.Error, OSError, EOFError)):
                kind = _meaning(error)
                raise kind(f"{shown}: {str(error) or 'the connection ended'}.", uri=shown, phase=phase) from error
            raise


def _meaning(error: BaseException) -> type[FetchError]:
    text = str(error).lower()
    if not isinstance(error, ftplib.Error):
        return Interrupted
    code = text[:3]
    if code in ("552", "452") or "no space" in text or "quota" in text:
        return NoSpace
    if isinstance(error, ftplib.error_temp):
        return Interrupted
    if code in ("530", "532") or "denied" in text or "permission" in text or "not enough privileges" in text:
        return AccessDenied
    if code == "550":
        return NotFound
    return FetchError


def _shut(wire: socket.socket | None) -> None:
    if wire is not None:
        wire.shutdown(socket.SHUT_RDWR)


def _identity(entry: Entry) -> Identity:
    date = entry.modification_date
    return Identity(entry.size, None, date.isoformat() if date else None)


def _compact(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
