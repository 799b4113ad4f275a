"""Resources on this machine: each brought once, kept, hard-linked read-only into the tasks that want it.

    cache/<name>.<version>/ entry.json   what it is: address, identity, every file with inode, size and time
                            data/        what the address gave, with its actions done
    cache/new-<name>/                    on its way; it becomes a version by one rename

The name is made of the address text, with options and actions. Whether the source is still the same is asked once for
all executions that were ordered before the question: by its ETag or MD5, else size and time, of a folder by those of
all that is in it. A source that tells nothing of that kind is brought anew for executions that are ordered after it came.

When another version has come, or a task has changed a file, the old one is deleted here: who has links keeps it. Which
versions are in use is not written down anywhere: a file with more links than it came with is in use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scitq.fetch.entry import Entry
from scitq.fetch.errors import FetchError, Interrupted, NotFound, Unsupported
from scitq.fetch.expand import address_of, expand
from scitq.fetch.files import remove
from scitq.fetch.getting import tried
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import Address
from scitq.remote.agent.collect import to_trash
from scitq.remote.agent.rooms import bytes_below

if TYPE_CHECKING:
    from scitq.remote.agent.staging import Job

Stat = list[int]
"""Of a file: inode, size, time of the last change in ns."""


class Coming(Exception):
    """Another execution is bringing that resource: `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Changed(Exception):
    """A file is not as it came: `path`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass
class Version:
    """One whole resource, as it came."""

    id: str
    name: str
    shown: str
    identity: str | None
    files: dict[str, list[int]]
    """By relative name: inode, size, time, links."""
    at: float
    known_s: float = float("-inf")
    """Monotonic: up to when it was certainly what the source has."""


@dataclass
class Download:
    """A resource on its way."""

    cancel: Cancel = field(default_factory=Cancel)
    wanted: set[str] = field(default_factory=set)
    """Executions that want it; without any it ends."""


class Cache:
    """The resources of one root folder. Thread-safe."""

    def __init__(
        self, root: str, fetch: Callable[[Address, str, Settings, Job], None],
        woken: Callable[[str, FetchError | None], None], wanted: Iterable[str],
    ) -> None:  # fmt: skip
        self.root = root
        self.woken = woken
        """Called by the thread that tried when a resource has come, or cannot be had."""
        self.folder = os.path.join(root, "cache")
        self.fetch = fetch
        self.lock = threading.Lock()
        self.versions: dict[str, Version] = {}
        self.coming: dict[str, Download] = {}
        self._free_hashes: dict[str, bool] = {}
        self._load({name_of(text) for text in wanted})

    def _load(self, wanted: set[str]) -> None:
        """What earlier agents left: whole versions stay, of the rest what is wanted now."""
        for name in os.listdir(self.folder):
            if name.startswith("new-"):
                if name[4:] not in wanted:
                    self._discard(name)
                continue
            version = _read(self.folder, name)
            other = self.versions.get(version.name) if version else None
            if version is None or (other is not None and other.at > version.at):
                self._discard(name)
                continue
            if other is not None:
                self._discard(other.id)
            self.versions[version.name] = version

    def _discard(self, identity: str) -> None:
        to_trash(self.root, os.path.join(self.folder, identity))

    # Getting.

    def link(self, address: Address, folder: str, job: Job, settings: Settings, used: Callable[[str], None]) -> None:
        """Have links in `folder` to what the address stands for; `used` is told the version before the first is made."""
        while True:
            version = self._want(address, job, settings)
            settings.cancel.check(address.shown, "get")
            used(version.id)
            try:
                self._link(version, folder, settings)
            except Changed as change:
                self.drop(version)
                settings.warn(f"{version.shown}: {change.path} was changed in the cache. It is fetched anew.")
            except FileNotFoundError:
                self.drop(version)  # another version has come meanwhile, or it had to go
            else:
                return
            remove(folder)
            os.makedirs(folder, mode=0o700)

    def _want(self, address: Address, job: Job, settings: Settings) -> Version:
        """A version that is what the source has. Coming: somebody is looking already."""
        name = name_of(str(address))
        with self.lock:
            if download := self.coming.get(name):
                download.wanted.add(job.key)
                raise Coming(name)
            version = self.versions.get(name)
            if version is not None and version.known_s >= job.at:
                return version
            download = self.coming[name] = Download(wanted={job.key})
        failure: FetchError | None = None
        try:
            settings.cancel.check(address.shown, "get")
            return self._bring(name, address, version, job, replace(settings, cancel=download.cancel))
        except FetchError as error:
            failure = None if download.cancel.is_set or settings.cancel.is_set else error
            raise
        finally:
            with self.lock:
                del self.coming[name]
            self.woken(name, failure)

    def leave(self, key: str) -> None:
        """An execution wants nothing any more; what nobody else wants ends."""
        with self.lock:
            for download in self.coming.values():
                if key in download.wanted:
                    download.wanted.discard(key)
                    if not download.wanted:
                        download.cancel.set()

    def _bring(self, name: str, address: Address, old: Version | None, job: Job, settings: Settings) -> Version:
        began = time.monotonic()
        identity = self.identity(address, settings)
        if old is not None and identity is not None and identity == old.identity and os.path.isdir(self._data(old.id)):
            old.known_s = began
            return old
        place = os.path.join(self.folder, f"new-{name}")
        data = os.path.join(place, "data")
        os.makedirs(data, mode=0o700, exist_ok=True)
        try:
            self.fetch(address, data, settings, job)
        except BaseException as error:
            # What has come over a line that broke may be of use to the next who wants it; if nobody does, it goes.
            if settings.cancel.is_set or not isinstance(error, Interrupted):
                remove(place)
            raise
        version = Version(f"{name}.{secrets.token_hex(4)}", name, address.shown, identity, {}, time.time(), began)
        version.files.update(seal(data))
        with open(os.path.join(place, "entry.json"), "w", encoding="ascii") as file:
            facts = {"name": name, "shown": version.shown, "identity": identity, "at": version.at}
            json.dump({**facts, "files": version.files}, file)
        os.rename(place, os.path.join(self.folder, version.id))
        with self.lock:
            old = self.versions.get(name)
            self.versions[name] = version
        if old is not None:
            self._discard(old.id)
        return version

    def _data(self, identity: str) -> str:
        return os.path.join(self.folder, identity, "data")

    def _link(self, version: Version, folder: str, settings: Settings) -> None:
        data = self._data(version.id)
        os.utime(os.path.join(self.folder, version.id, "entry.json"))  # it was used now
        for path, rel in _walk(data):
            target = os.path.join(folder, rel)
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(target, 0o700)
            elif stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(path), target)
            else:
                if version.files.get(rel, [])[:3] != _stat(found):
                    raise Changed(rel)
                settings.cancel.check(version.shown, "get")
                try:
                    os.link(path, target)
                except OSError as error:
                    if error.errno == errno.EMLINK:  # no more links to that one: the next has it anew
                        raise Changed(rel) from error
                    raise

    # Looking.

    def identity(self, address: Address, settings: Settings) -> str | None:
        """What tells this version of the source from others; None where nothing does."""
        transport = transport_of(address)
        bare = address.bare
        md5 = bare.remote is not None and self._hashes_for_free(bare, settings)
        try:
            rows = [tried(lambda: transport.info(bare, settings, md5=md5), settings)]
        except NotFound:
            if not address.has_glob:
                raise
            rows = tried(lambda: expand(bare, transport, settings), settings)
        except Unsupported:
            return None
        marks: list[Any] = []
        for row in rows:
            if row.is_dir:
                inside = address_of(row) if address.has_glob else bare
                marks += tried(lambda: self._below(row, inside, settings, md5), settings)  # noqa: B023 called at once
            else:
                marks.append(_mark(row))
        if any(mark is None for mark in marks):
            return None
        return hashlib.sha256(json.dumps(sorted(marks)).encode("ascii")).hexdigest()

    @staticmethod
    def _below(row: Entry, folder: Address, settings: Settings, md5: bool) -> list[Any]:
        rows = transport_of(folder).entries(folder, settings, recursive=True, md5=md5)
        return [["", row.name, 0, ""], *(_mark(each) for each in rows if not each.is_dir)]

    def _hashes_for_free(self, address: Address, settings: Settings) -> bool:
        assert address.remote is not None
        if address.remote not in self._free_hashes:
            from scitq.fetch.rclone import Rclone

            self._free_hashes[address.remote] = Rclone().hashes_for_free(address, settings)
        return self._free_hashes[address.remote]

    # Looking after what is there.

    def changed(self, identity: str) -> tuple[Version, str] | None:
        """The version of that id and the first of its files that is not as it came; None if all are, or it is gone."""
        with self.lock:
            version = next((each for each in self.versions.values() if each.id == identity), None)
        for rel, known in version.files.items() if version is not None else ():
            path = os.path.join(self._data(identity), rel)
            try:
                is_same = _stat(os.lstat(path)) == known[:3]
            except OSError:
                is_same = not os.path.isdir(self._data(identity))  # it went as a whole: that was us
            if not is_same and version is not None:
                return version, rel
        return None

    def drop(self, version: Version) -> None:
        """Have it no more; whoever has links keeps them."""
        with self.lock:
            if self.versions.get(version.name) is version:
                del self.versions[version.name]
        self._discard(version.id)

    def evict(self) -> bool:
        """Let the least recently used version go that nobody has links to; False when there is none."""
        for version in sorted(self.versions.values(), key=self._used):
            if not self._is_linked(version):
                self.drop(version)
                return True
        for name in os.listdir(self.folder):
            with self.lock:
                if name.startswith("new-") and name[4:] not in self.coming:
                    self._discard(name)
                    return True
        return False

    def spare_bytes(self) -> int:
        """What `evict` might free, at most."""
        with self.lock:
            used = {version.id for version in self.versions.values() if self._is_linked(version)}
            used |= {f"new-{name}" for name in self.coming}
        return sum(bytes_below(os.path.join(self.folder, name)) for name in os.listdir(self.folder) if name not in used)

    def _used(self, version: Version) -> float:
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(self.folder, version.id, "entry.json")).st_mtime
        return 0.0

    def _is_linked(self, version: Version) -> bool:
        for rel, known in version.files.items():
            with contextlib.suppress(OSError):
                if os.lstat(os.path.join(self._data(version.id), rel)).st_nlink > known[3]:
                    return True
        return False


def name_of(text: str) -> str:
    """What an address is called in the cache."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _mark(row: Entry) -> list[Any] | None:
    """What tells this file from another of its name."""
    if row.etag or row.md5:
        return [row.rel_name, row.name, row.size, row.etag or row.md5]
    if row.modification_date is None or row.size is None:
        return None
    return [row.rel_name, row.name, row.size, row.modification_date.isoformat()]


def _stat(found: os.stat_result) -> Stat:
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _walk(top: str) -> Iterator[tuple[str, str]]:
    """(path, relative name) of all that is below, folders before what is in them."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        for entry in sorted(os.scandir(os.path.join(top, below)), key=lambda each: each.name):
            yield entry.path, below + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{below}{entry.name}/")


def seal(data: str) -> dict[str, list[int]]:
    """Make all that came read-only and durable, and say what it is."""
    found = {}
    for path, _ in list(_walk(data)):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            os.chmod(path, 0o444 | (mode & 0o111))
    rows = [(path, rel, os.lstat(path)) for path, rel in _walk(data)]
    for path, rel, each in rows:
        if stat.S_ISREG(each.st_mode):
            if len(rows) <= 100:
                _sync(path)
            found[rel] = [*_stat(each), each.st_nlink]
    if len(rows) > 100:
        os.sync()  # once for all: a power cut must not leave files of zeros that pass for whole
    return found


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(folder: str, identity: str) -> Version | None:
    try:
        with open(os.path.join(folder, identity, "entry.json"), encoding="ascii") as file:
            said = json.load(file)
        return Version(identity, said["name"], said["shown"], said["identity"], said["files"], said["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
