"""Every storage that rclone knows, through the rclone program: argument lists only, its JSON log read, its errors typed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from scitq.fetch.entry import DIR, FILE, Entry
from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    ChecksumMismatch,
    Collision,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    RemoteUnknown,
    Throttled,
    ToolMissing,
)  # fmt: skip
from scitq.fetch.files import make_folder, neighbour, put_in_place, remove
from scitq.fetch.programs import Child, find
from scitq.fetch.progress import Meter
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Identity
from scitq.fetch.uri import Address

# The first version that writes a file under another name until it is whole.
OLDEST = (1, 63)
GET_IT = (
    "`pip install 'scitq[rclone]'` brings a current one; https://rclone.org/downloads has others. "
    f"Version {OLDEST[0]}.{OLDEST[1]} or later is needed."
)
# What the user's environment may say to rclone is honoured, but for what would take its words from us.
_NOT_OURS = ("LOG", "STATS", "PROGRESS", "QUIET", "VERBOSE", "USE_JSON_LOG", "DRY_RUN", "INTERACTIVE")

_MEANINGS: tuple[tuple[type[FetchError], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        (RemoteUnknown, r"didn't find section in config file"),
        (NoSpace, r"no space left|quota ?exceeded|insufficient storage|disk full|\b507\b"),
        (ChecksumMismatch, r"corrupted on transfer|hash(es)? differ|sizes differ"),
        (Collision, r"immutable file modified|timestamp mismatch"),
        (Throttled, r"slow ?down|\b429\b|too many requests|server ?busy|rate ?limit"),
        (
            AccessDenied,
            r"access ?denied|forbidden|\b40[13]\b|invalidaccesskeyid|signaturedoesnotmatch|authenticationfailed|"
            r"permission denied|unauthorized|expiredtoken|login incorrect|unable to authenticate|decrypt config",
        ),
        (NotFound, r"not found|nosuch(bucket|key)|no such file|\b404\b|doesn't exist|does not exist"),
        (
            Interrupted,
            r"time(d )?out|connection re(fused|set)|\bEOF\b|no such host|broken pipe|\b50[0234]\b|temporar|handshake|unreachable",
        ),
    )
)


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
        run = _Run(settings, address, "get")
        child = run.child("cat", [f"--offset={offset}"], [spell(address)], writes=True)
        return RcloneBody(child, offset, entry, lambda: run.check(child.wait()))

    def fetch(self, address: Address, path: str, settings: Settings, meter: Meter) -> None:
        """One file to `path`, with as many streams as rclone finds good; beside it first, then renamed."""
        part = neighbour(path, str(address.bare), "part", fresh=True)
        make_folder(os.path.dirname(path) or ".")
        try:
            _Run(settings, address, "get", meter).to_end("copyto", [], [spell(address), os.path.abspath(part)])
            if os.path.isdir(part) or not os.path.exists(part):
                raise NotFound(f"{address.shown}: is a folder, not a file.", uri=address.shown, phase="get")
            put_in_place(part, path, overwrite=settings.overwrite)
        finally:
            remove(part)

    def fetch_folder(self, address: Address, folder: str, settings: Settings, meter: Meter) -> None:
        """What is in it into `folder`; what is there and the same is not sent again."""
        make_folder(folder)
        _Run(settings, address, "get", meter).to_end("copy", _keep(settings), [spell(address), os.path.abspath(folder)])

    def put(self, source: str, address: Address, settings: Settings, meter: Meter | None = None) -> None:
        """One file of this machine to that name."""
        run = _Run(settings, address, "put", meter)
        run.to_end("copyto", _keep(settings), [os.path.abspath(source), spell(address)])

    def put_stream(self, stream: Stream, source: Source, address: Address, settings: Settings) -> None:
        """What comes from another storage, to that name, without landing here."""
        run = _Run(settings, address, "put")
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
        run = _Run(settings, address, "put", meter)
        flags = ["--create-empty-src-dirs", *_keep(settings)]
        run.to_end("copy", flags, [os.path.abspath(folder), spell(address)])
        if run.skipped:
            settings.warn(f"{folder}: left out, being neither files nor folders: {', '.join(sorted(run.skipped)[:5])}.")

    def copy(self, source: Address, target: Address, settings: Settings, meter: Meter, *, is_dir: bool) -> None:
        """From remote to remote: by the storage itself where it can, through this machine otherwise."""
        run = _Run(settings, target, "copy", meter)
        run.to_end("copy" if is_dir else "copyto", _keep(settings), [spell(source), spell(target)])

    def sync(
        self, source: str, target: str, uri: Address, settings: Settings, meter: Meter, *,
        include: Sequence[str] = (), delete: bool = False,
    ) -> None:  # fmt: skip
        """What differs; `source` and `target` are spelled for rclone. Deletes at the target only on request."""
        flags = [f"--include={pattern}" for pattern in include]
        _Run(settings, uri, "sync", meter).to_end("sync" if delete else "copy", flags, [source, target])

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """What is in the folder, as it comes."""
        flags = [*(["--recursive", "--fast-list"] if recursive else []), *_HASH[: 2 if md5 else 0], _SERVER_TIME]
        run = _Run(settings, address, "list")
        with run.child("lsjson", flags, [spell(address)], writes=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() in _BRACKETS:
                    continue
                yield _entry(json.loads(line.strip().rstrip(b",")), address)
            run.check(child.wait())

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there."""
        run = _Run(settings, address, "info")
        said = run.answer("lsjson", ["--stat", *_HASH[: 2 if md5 else 0], _SERVER_TIME], [spell(address)])
        found = json.loads(said or b"null")
        if not isinstance(found, dict):
            raise NotFound(f"{address.shown}: nothing is there.", uri=address.shown, phase="info")
        if address.is_folder_like and not found["IsDir"]:
            raise NotFound(f"{address.shown}: is no folder.", uri=address.shown, phase="info")
        if found["IsDir"] and not self._is_there(address, settings):
            raise NotFound(f"{address.shown}: nothing is there.", uri=address.shown, phase="info")
        return _entry(found, address, top=True)

    def _is_there(self, address: Address, settings: Settings) -> bool:
        """Whether a folder exists: where there are buckets, any name passes for one, and only what it holds is proof."""
        run = _Run(settings, address, "info")
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
            _Run(settings, address, "delete").to_end("rmdir", [], [spell(address)])
        else:
            _Run(settings, address, "delete").to_end("deletefile", [], [spell(address)])

    def delete_folder(self, address: Address, settings: Settings, include: Sequence[str] = ()) -> None:
        """Everything in a folder, or of it what matches, in one go."""
        flags = [f"--include={pattern}" for pattern in include]
        _Run(settings, address, "delete").to_end("delete" if include else "purge", flags, [spell(address)])

    def copies_itself(self, address: Address, settings: Settings) -> bool:
        """Whether this storage copies within itself without sending the bytes to us."""
        return bool(self._features(address, settings).get("Copy"))

    def _features(self, address: Address, settings: Settings) -> dict[str, Any]:
        said = _Run(settings, address, "info").answer("backend", [], ["features", f"{address.remote}:"], mark=False)
        found = json.loads(said).get("Features", {})
        return found if isinstance(found, dict) else {}


_BRACKETS = (b"[", b"]", b"[]", b"")
_HASH = ("--hash", "--hash-type=MD5")
# S3 would be asked once more for each object to learn the time that rclone noted; the server's own comes with the list.
_SERVER_TIME = "--use-server-modtime"


def spell(address: Address) -> str:
    """An address as rclone writes it."""
    return f"{address.remote}:{address.path}" if address.remote else os.path.abspath(address.path)


def remote_names(settings: Settings) -> tuple[str, ...]:
    """The remotes that are configured, in the file and in the environment."""
    said = _Run(settings, None, "info").answer("listremotes", [], [])
    return tuple(line.rstrip(":") for line in said.decode("utf-8", "replace").splitlines() if line)


def check_remote(address: Address, settings: Settings) -> None:
    """Raise RemoteUnknown unless it is configured."""
    names = remote_names(settings)
    if address.remote not in names:
        raise _unknown(address, settings, names)


def _unknown(address: Address, settings: Settings, names: Sequence[str] = ()) -> RemoteUnknown:
    there = f" There are: {', '.join(names)}." if names else ""
    return RemoteUnknown(
        f"{address.shown}: {settings.rclone_config_path()} has no remote {address.remote!r}.{there} "
        "`rclone config` makes one.", uri=address.shown, phase="parse",
    )  # fmt: skip


_checked: dict[tuple[str, int], str] = {}
_checking = threading.Lock()


def program(settings: Settings) -> str:
    """The rclone program, found and new enough."""
    path = settings.rclone_program or find("rclone", GET_IT)
    try:
        key = (path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise ToolMissing(f"{path} is not there. {GET_IT}", phase="start") from error
    with _checking:
        if key not in _checked:
            _checked[key] = _version(path)
        said = _checked[key]
    found = re.search(r"v(\d+)\.(\d+)", said)
    if found is None or (int(found.group(1)), int(found.group(2))) < OLDEST:
        raise ToolMissing(f"{path} is {said or 'no rclone'}. {GET_IT}", phase="start", program="rclone")
    return path


def _version(path: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        ended = subprocess.run(
            [path, "version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=60, env=_environment(), check=False,
        )  # fmt: skip
        return ended.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
    return ""


def _environment() -> dict[str, str]:
    taken = tuple(f"RCLONE_{name}" for name in _NOT_OURS)
    # RCLONE_CONFIG itself goes onto the command line; RCLONE_CONFIG_<REMOTE>_<KEY> defines remotes, and stays.
    return {name: value for name, value in os.environ.items() if not name.startswith(taken) and name != "RCLONE_CONFIG"}


class _Run:
    """One call of the program, and what it says while it works."""

    def __init__(self, settings: Settings, address: Address | None, phase: str, meter: Meter | None = None) -> None:
        self._settings, self._address, self._phase = settings, address, phase
        self._uri = address.shown if address else "rclone"
        self._meter = meter
        self._errors: list[str] = []
        self._stats: dict[str, Any] = {}
        self.skipped: set[str] = set()

    def child(
        self, verb: str, flags: Sequence[str], operands: Sequence[str], *,
        writes: bool, reads: bool = False, mark: bool = True,
    ) -> Child:  # fmt: skip
        """Start it. `--` stands before what the user named, so that a leading dash is no option."""
        settings = self._settings
        arguments = [
            program(settings), verb, f"--config={settings.rclone_config_path()}", "--ask-password=false",
            "--use-json-log", "--log-level=NOTICE", "--stats=1s", "--stats-log-level=NOTICE", "--retries=1",
            "--low-level-retries=3", f"--timeout={settings.stall_timeout_s:.0f}s",
            f"--contimeout={settings.connect_timeout_s:.0f}s", f"--transfers={settings.parallel}",
            *settings.rclone_options, *flags, *(["--"] if mark else []), *operands,
        ]  # fmt: skip
        return Child(
            arguments,
            settings,
            self._uri,
            self._phase,
            on_line=self._hear,
            writes=writes,
            reads=reads,
            env=_environment(),
        )

    def answer(self, verb: str, flags: Sequence[str], operands: Sequence[str], *, mark: bool = True) -> bytes:
        """All that it writes."""
        with self.child(verb, flags, operands, writes=True, mark=mark) as child:
            assert child.stdout is not None
            said = child.stdout.read()
            self.check(child.wait())
        return said

    def to_end(self, verb: str, flags: Sequence[str], operands: Sequence[str]) -> None:
        """Run it to its end, however long it takes as long as something moves."""
        with self.child(verb, flags, operands, writes=False) as child:
            pid = child.pid
            self.check(child.wait(lambda: (self._moved(), _read_bytes(pid) >> 16), self._settings.total_s(None)))
        if self._meter is not None and (done := self._stats.get("bytes")) is not None:
            self._meter.whole(int(done), int(self._stats.get("totalBytes") or done), is_done=True)

    def _moved(self) -> tuple[Any, ...]:
        names = ("bytes", "checks", "transfers", "deletes", "listed", "renames", "serverSideCopyBytes")
        return tuple(self._stats.get(name) for name in names)

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            self._errors.append(line.decode("utf-8", "replace").strip())  # before its log is set up, it says so plainly
            return
        if isinstance(stats := said.get("stats"), dict):
            self._stats = stats
            self._tell(stats)
        elif said.get("level") in ("error", "critical", "fatal", "alert", "emergency") or str(
            said.get("msg")
        ).startswith("Failed to"):
            subject = f"{said['object']}: " if said.get("object") else ""
            self._errors.append(subject + str(said.get("msg", "")).strip())
        elif "an't follow symlink" in str(said.get("msg")) or "non file/directory" in str(said.get("msg")):
            self.skipped.add(str(said.get("object")))

    def _tell(self, stats: dict[str, Any]) -> None:
        if self._meter is None:
            return
        for each in stats.get("transferring") or ():
            if "bytes" in each:
                self._meter.at(str(each.get("name")), int(each["bytes"]), int(each.get("size") or 0) or None)
        self._meter.whole(int(stats.get("bytes") or 0), int(stats.get("totalBytes") or 0) or None)

    def check(self, status: int) -> None:
        """Raise what its end means, unless it is good."""
        if status == 0 or (status == 9 and self._phase == "sync"):
            return
        uri, phase = self._uri, self._phase
        if self._settings.cancel.is_set:
            raise Cancelled(f"{uri}: cancelled.", uri=uri, phase=phase)
        said = self._errors[-1] if self._errors else f"rclone ended with {status}"
        kind = meaning(status, self._errors)
        if kind is RemoteUnknown and self._address is not None:
            raise _unknown(self._address, self._settings)
        raise kind(f"{uri}: {said[:1000]}.", uri=uri, phase=phase, status=status, said="\n".join(self._errors[-10:]))


def meaning(status: int, said: Sequence[str]) -> type[FetchError]:
    """What kind of failure it was: by what it said, else by its exit status."""
    # What stands in quotes is a name or an address, and may hold any word.
    plain = [re.sub(r'"[^"]*"', "", text) for text in said]
    for kind, words in _MEANINGS:
        if any(words.search(text) for text in plain):
            return kind
    return {3: NotFound, 4: NotFound, 5: Interrupted}.get(status, FetchError)


def _keep(settings: Settings) -> list[str]:
    return [] if settings.overwrite else ["--immutable"]


def _read_bytes(pid: int) -> int:
    """What the program has read, from disks and networks: it hashes a large file for minutes before it sends it."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        return int(file.readline().split()[1])
    return 0


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
