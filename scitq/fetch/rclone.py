"""Every storage that rclone knows, through the rclone program: argument lists only, its JSON log read, its errors typed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from scitq.fetch.entry import DIR, FILE, Entry
from scitq.fetch.errors import FetchError, Interrupted, NotFound
from scitq.fetch.files import make_folder, neighbour, put_in_place, remove
from scitq.fetch.programs import Child
from scitq.fetch.progress import Meter
from scitq.fetch.rclonerun import Run, names_parts, unknown
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Identity
from scitq.fetch.uri import Address, parse


class RcloneBody:
    """`rclone cat`, for what is used while it comes."""

    mode = None

    def __init__(self, child: Child, offset: int, entry: Entry, stop: Callable[[], None]) -> None:
        self._child, self.offset, self._stop = child, offset, stop
        self.identity = _identity(entry)
        self.md5 = entry.md5
        self.modified_s = entry.modification_date.timestamp() if entry.modification_date else None

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes; 0 at the end."""
        assert self._child.stdout is not None
        data = os.read(self._child.stdout.fileno(), len(buffer))
        if not data:
            self._stop()
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """End it, also in the middle."""
        self._child.end()


class Rclone:
    """Whatever the user's configuration has."""

    def open(
        self, address: Address, settings: Settings, offset: int = 0, identity: Identity | None = None
    ) -> RcloneBody:
        """Read one file, from `offset` on if it is still the same."""
        entry = self.info(address, settings, md5=True)
        if entry.is_dir:
            raise NotFound(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
        if identity is None or identity != _identity(entry):
            offset = 0
        run = Run(settings, address, "get")
        child = run.child("cat", [f"--offset={offset}"], [spell(address)], writes=True)
        return RcloneBody(child, offset, entry, lambda: run.check(child.wait()))

    def fetch(
        self, address: Address, path: str, settings: Settings, meter: Meter, size: int | None = None, label: str = ""
    ) -> None:
        """One file to `path`, with as many streams as rclone finds good; beside it first, then renamed."""
        part = neighbour(path, str(address.bare), "part", fresh=True)
        make_folder(os.path.dirname(path) or ".")
        try:
            run = Run(settings, address, "get", meter, label or address.name)
            run.to_end("copyto", [], [spell(address), os.path.abspath(part)], size)
            if os.path.isdir(part) or not os.path.exists(part):
                raise NotFound(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
            put_in_place(part, path, overwrite=settings.overwrite)
        finally:
            remove(part)

    def fetch_into(self, address: Address, folder: str, settings: Settings, meter: Meter) -> None:
        """A file, or what is in a folder, into `folder`, without a question before which of them it is.

        Nothing of its name may be there: a file of that size could be taken for it.
        """
        is_new = not os.path.isdir(folder)
        try:
            self.fetch_folder(address, folder, settings, meter)
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            raise

    def fetch_folder(self, address: Address, folder: str, settings: Settings, meter: Meter) -> None:
        """What is in it into `folder`; what is there and the same is not sent again."""
        make_folder(folder)
        with own_parts(folder, settings) as flags:
            run = self._folder(address, "get", flags, [spell(address), os.path.abspath(folder)], settings, meter)
        if not run.has_moved:
            self.info(address, settings)  # an empty folder is one thing, none at all another

    def put(self, source: str, address: Address, settings: Settings, meter: Meter | None = None) -> None:
        """One file of this machine to that name."""
        run = Run(settings, address, "put", meter, os.path.basename(source))
        run.to_end("copyto", _anew(settings), [os.path.abspath(source), spell(address)], os.path.getsize(source))

    def put_stream(self, stream: Stream, source: Source, address: Address, settings: Settings) -> None:
        """What comes from another storage, to that name, without landing here."""
        run = Run(settings, address, "put")
        hint = [] if source.identity.size is None else [f"--size={source.identity.size}"]
        with run.child("rcat", hint, [spell(address)], writes=False, reads=True) as child:
            assert child.stdin is not None
            try:
                buffer = memoryview(bytearray(1 << 20))
                while count := stream.readinto(buffer):
                    child.stdin.write(buffer[:count])
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended, and says why
            except BaseException:
                child.end(at_once=True)  # its input ending would be the end of the file, and be published
                raise
            run.check(child.wait())
        found = self.info(address, settings)
        if found.size is not None and found.size != source.position:
            raise Interrupted(
                f"{address.shown}: {found.size:,} of {source.position:,} bytes arrived.", uri=address.shown, phase="put"
            )

    def put_folder(self, folder: str, address: Address, settings: Settings, meter: Meter) -> None:
        """What is in the folder to that one."""
        flags, operands = ["--create-empty-src-dirs"], [os.path.abspath(folder), spell(address)]
        run = self._folder(address, "put", flags, operands, settings, meter)
        if run.skipped:
            settings.warn(f"{folder}: left out, being neither files nor folders: {', '.join(sorted(run.skipped)[:5])}.")

    def copy(self, source: Address, target: Address, settings: Settings, meter: Meter, *, is_dir: bool) -> None:
        """From remote to remote: by the storage itself where it can, through this machine otherwise."""
        operands = [spell(source), spell(target)]
        if is_dir:
            self._folder(target, "copy", [], operands, settings, meter, source)
        else:
            Run(settings, target, "copy", meter, source.name).to_end("copyto", _anew(settings), operands)

    def _folder(
        self, address: Address, phase: str, flags: Sequence[str], operands: Sequence[str], settings: Settings, meter: Meter,
        other: Address | None = None,
    ) -> Run:  # fmt: skip
        """All that is in a folder into another. What is there and the same is left as it is.

        Where a storage keeps no times, rclone takes whatever has the same size for the same. Only if there was anything
        to compare does that matter, and is asked.
        """
        run = Run(settings, address, phase, meter)
        run.to_end("copy", [*_keep(settings), *flags], operands)
        if run.has_compared and settings.overwrite:
            exactly = [self._exactly(each, settings) for each in (address, other) if each is not None]
            if "--ignore-times" in exactly or "--checksum" in exactly:
                chosen = "--ignore-times" if "--ignore-times" in exactly else "--checksum"
                run = Run(settings, address, phase, meter)
                run.to_end("copy", [chosen, *flags], operands)
        return run

    def _exactly(self, address: Address, settings: Settings) -> str:
        """The option with which nothing at that storage passes for the same that is not; empty if none is needed."""
        facts = self._facts(address, settings)
        if int(facts.get("Precision") or 0) < NO_TIMES_NS:
            return ""
        return "--checksum" if "md5" in (facts.get("Hashes") or ()) else "--ignore-times"

    def sync(
        self, source: str, target: str, uri: Address, settings: Settings, meter: Meter, *,
        include: Sequence[str] = (), delete: bool = False,
    ) -> None:  # fmt: skip
        """What differs; `source` and `target` are spelled for rclone. Deletes at the target only on request."""
        flags = [f"--include={pattern}" for pattern in include]
        run = Run(settings, uri, "sync", meter)
        run.to_end("sync" if delete else "copy", flags, [source, target])
        if run.has_compared and self._exactly(uri, settings) == "--ignore-times":
            settings.warn(
                f"{uri.remote} keeps neither times nor checksums: files of the same size were taken for the same. To send all: "
                "scitq-fetch copy."
            )

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """What is in the folder, as it comes."""
        flags = [*(["--recursive", "--fast-list"] if recursive else []), *_SERVER_TIME]
        if md5:
            rows = list(self.entries(address, settings, recursive=recursive, md5=False))
            yield from self._with_md5(rows, address, settings, recursive=recursive)
            return
        run = Run(settings, address, "list")
        with run.child("lsjson", flags, [spell(address)], writes=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() in _BRACKETS:
                    continue
                yield _entry(json.loads(line.strip().rstrip(b",")), address)
            run.check(child.wait())

    def at_once(self, address: Address, settings: Settings, below: Sequence[str] = (), *, md5: bool) -> Iterator[Entry]:
        """Every file in the folder, of it only what has these names or lies in these folders, in a single listing."""
        hashes = _HASH if md5 else ()
        flags = ["--recursive", "--files-only", *([] if below else ["--fast-list"]), *hashes, *_SERVER_TIME]
        for name in below:
            literal = _SPECIAL.sub(r"\\\g<0>", name)
            flags += [f"--include=/{literal}", f"--include=/{literal}/**"]
        run = Run(settings, address, "list")
        with run.child("lsjson", flags, [spell(address)], writes=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() not in _BRACKETS:
                    yield _entry(json.loads(line.strip().rstrip(b",")), address)
            run.check(child.wait())

    def _with_md5(self, rows: list[Entry], address: Address, settings: Settings, *, recursive: bool) -> Iterator[Entry]:
        """Where the MD5 is no part of the listing (large objects in S3) there is a question for each file: many at once."""
        flags = (
            ["--fast-list", f"--checkers={QUESTIONS}"] if recursive else ["--max-depth=1", f"--checkers={QUESTIONS}"]
        )
        run = Run(settings, address, "list")
        sums: dict[str, str] = {}
        if any(not row.is_dir for row in rows):
            with run.child("hashsum", flags, ["MD5", spell(address)], writes=True) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    digest, _, name = line.decode("utf-8", "replace").rstrip("\n").partition("  ")
                    if _MD5.match(digest):
                        sums[name] = digest
                status = child.wait()
            try:
                run.check(status)
            except NotFound:
                pass  # what was deleted since it was listed
            except FetchError as error:
                if "hash type not supported" not in str(error.parts.get("said")):
                    raise
        for row in rows:
            if "\n" in row.rel_name:
                yield row if row.is_dir else replace(row, md5=self.info(parse(row.name), settings, md5=True).md5)
            else:
                yield replace(row, md5=sums.get(row.rel_name))

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there."""
        found = self.guess(address, settings, md5=md5)
        if found.is_dir and not self._is_there(address, settings):
            raise NotFound(f"{address.shown}: nothing is there.", uri=address.shown, phase="info")
        return found

    def guess(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there, for half the price: a folder may turn out not to exist."""
        run = Run(settings, address, "info")
        said = run.answer("lsjson", ["--stat", *_HASH[: 2 if md5 else 0], *_SERVER_TIME], [spell(address)])
        found = json.loads(said or b"null")
        if not isinstance(found, dict):
            raise NotFound(f"{address.shown}: nothing is there.", uri=address.shown, phase="info")
        if address.is_folder_like and not found["IsDir"]:
            raise NotFound(f"{address.shown}: is no folder.", uri=address.shown, phase="info")
        return _entry(found, address, top=True)

    def _is_there(self, address: Address, settings: Settings) -> bool:
        """Whether a folder exists: where there are buckets, any name passes for one, and only what it holds is proof."""
        run = Run(settings, address, "info")
        flags = ["--max-depth=1", "--no-modtime", "--no-mimetype"]
        with run.child("lsjson", flags, [spell(address)], writes=True) as child:
            assert child.stdout is not None
            if any(line.strip() not in _BRACKETS for line in child.stdout):
                return True
            run.check(child.wait())
        return len(address.segments) < 2 or not self._features(address, settings).get("BucketBased")

    def delete(self, address: Address, settings: Settings) -> None:
        """Delete one file, or one empty folder."""
        if address.is_folder_like:
            Run(settings, address, "delete").to_end("rmdir", [], [spell(address)])
        else:
            Run(settings, address, "delete").to_end("deletefile", [], [spell(address)])

    def delete_folder(self, address: Address, settings: Settings, include: Sequence[str] = ()) -> None:
        """Everything in a folder, or of it what matches, in one go."""
        flags = [f"--include={pattern}" for pattern in include]
        Run(settings, address, "delete").to_end("delete" if include else "purge", flags, [spell(address)])

    def copies_itself(self, address: Address, settings: Settings) -> bool:
        """Whether this storage copies within itself without sending the bytes to us."""
        return bool(self._features(address, settings).get("Copy"))

    def hashes_for_free(self, address: Address, settings: Settings) -> bool:
        """Whether this storage knows the hashes of its files, rather than reading each to compute it."""
        return not self._features(address, settings).get("SlowHash", True)

    def _features(self, address: Address, settings: Settings) -> dict[str, Any]:
        found = self._facts(address, settings).get("Features", {})
        return found if isinstance(found, dict) else {}

    def _facts(self, address: Address, settings: Settings) -> dict[str, Any]:
        said = Run(settings, address, "info").answer("backend", [], ["features", f"{address.remote}:"], mark=False)
        found = json.loads(said)
        return found if isinstance(found, dict) else {}


QUESTIONS = 16  # at once
NO_TIMES_NS = 365 * 24 * 3600 * 10**9  # storages without times are said to keep them to the century
_SPECIAL = re.compile(r"[\\*?\[\]{}]")
_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_BRACKETS = (b"[", b"]", b"[]", b"")
_HASH = ("--hash", "--hash-type=MD5")
# S3 would be asked once more for each object to learn the time that rclone noted, and its kind; what comes with the list
# is enough.
_SERVER_TIME = ("--use-server-modtime", "--no-mimetype")


def spell(address: Address) -> str:
    """An address as rclone writes it."""
    return f"{address.remote}:{address.path}" if address.remote else os.path.abspath(address.path)


@contextlib.contextmanager
def own_parts(folder: str, settings: Settings) -> Iterator[list[str]]:
    """Options with which files that are not whole have names of this call alone, and are gone if it fails.

    rclone's own names are the same for two that fetch one file into one folder at once: the slower would write into what
    the faster has just put in place.
    """
    if not names_parts(settings):
        yield []
        return
    suffix = f".scitq-{secrets.token_hex(4)}"  # rclone takes 16 characters
    try:
        yield [f"--partial-suffix={suffix}"]
    except BaseException:
        for top, _, names in os.walk(folder):
            for name in names:
                if name.endswith(suffix):
                    remove(os.path.join(top, name))
        raise


def remote_names(settings: Settings) -> tuple[str, ...]:
    """The remotes that are configured, in the file and in the environment."""
    said = Run(settings, None, "info").answer("listremotes", [], [])
    return tuple(line.rstrip(":") for line in said.decode("utf-8", "replace").splitlines() if line)


def check_remote(address: Address, settings: Settings) -> None:
    """Raise RemoteUnknown unless it is configured."""
    names = remote_names(settings)
    if address.remote not in names:
        raise unknown(address, settings, names)


def _keep(settings: Settings) -> list[str]:
    return [] if settings.overwrite else ["--immutable"]


def _anew(settings: Settings) -> list[str]:
    """Of one file: it is sent whatever is there. A storage without times would be taken to have it already, by its size."""
    return ["--ignore-times"] if settings.overwrite else ["--immutable"]


def _identity(entry: Entry) -> Identity:
    date = entry.modification_date
    return Identity(entry.size, entry.md5, date.isoformat() if date else None)


def _entry(row: dict[str, Any], folder: Address, *, top: bool = False) -> Entry:
    is_dir = bool(row["IsDir"])
    rel_name = (folder.name if top else str(row["Path"])) + ("/" if is_dir else "")
    name = folder.text if top else folder.join(rel_name).text
    if top and is_dir and not name.endswith("/"):
        name += "/"
    size = int(row.get("Size", -1))
    date = _date(str(row.get("ModTime", "")))
    md5 = (row.get("Hashes") or {}).get("md5") or None
    return Entry(
        name, rel_name, 0 if is_dir else (size if size >= 0 else None), date, date, md5, DIR if is_dir else FILE
    )


def _date(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds, which Python 3.10 does not read."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z", text)
    if found is None:
        return None
    fraction = (found.group(2) or ".0")[:7].ljust(7, "0")
    zone = "+00:00" if found.group(3) == "Z" else found.group(3)
    return datetime.fromisoformat(found.group(1) + fraction + zone).astimezone(timezone.utc)
