"""Outputs that stay on this machine: held for the driver until it has them, or kept for tasks here that will read them.

    kept/<execution>/ output/       the files, read-only and durable; tasks get hard links to them
                      entry.json    what they are: made before the folder gets its name; touched when it is used
                      unsent        there until the driver says that it has all of them
    kept/new-<execution>/           on its way; `output` is moved here last

Who may be killed at any instruction begins again, or finds all of it. What nobody waits for gives way when the disk is short.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from scitq.fetch.files import remove
from scitq.fetch.retry import Cancel
from scitq.fetch.uri import Address, of_path, parse
from scitq.remote.agent.cache import seal
from scitq.remote.agent.collect import empty_trash, to_trash
from scitq.remote.agent.contents import Contents
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.rooms import bytes_below, free_bytes, reserve_bytes
from scitq.remote.agent.slots import OUTPUT
from scitq.remote.agent.whole import CHUNK_BYTES, copy

Entry = dict[str, Any]
_REMEMBERED = 8
FREE_SHARE = 0.2
"""So much of a disk is not taken by outputs that are only kept for others and were not used lately."""
LATELY_S = 600.0


class Kept:
    """Those of one root folder. Thread-safe."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = os.path.join(root, "kept")
        self._lock = threading.Lock()
        self._ours = re.compile(rf"{re.escape(self.folder)}/([^/]+)/{OUTPUT}")
        self._entries: dict[str, Entry] = {}
        """Of those that were asked for lately."""

    def hold(self, key: str, cancel: Cancel, *, is_lenient: bool) -> Entry:
        """Keep the output of an ended execution until the driver has it; returns what there is of it, with sums."""
        return self._take(
            key, cancel, True, lambda place: Contents(place, self.root, key, cancel, is_lenient=is_lenient)
        )

    def keep(self, key: str, cancel: Cancel) -> None:
        """Keep an output that has been published, for tasks that will read it here; if it is still here."""
        if os.path.lexists(os.path.join(self.root, "exec", key, OUTPUT)):
            self._take(key, cancel, False, lambda place: Contents(place, self.root, key, cancel))

    def _take(self, key: str, cancel: Cancel, is_owed: bool, look: Callable[[str], Contents]) -> Entry:
        place, fresh = (os.path.join(self.folder, name) for name in (key, f"new-{key}"))
        source, output = os.path.join(self.root, "exec", key, OUTPUT), os.path.join(fresh, OUTPUT)
        if (known := self.entry(key)) is not None:
            to_trash(self.root, source)
            return known
        if os.path.lexists(source) or _read(fresh) is None or not os.path.isdir(output):
            remove(fresh)
            os.mkdir(fresh, 0o700)
            contents = look(source)
            is_plain = contents.is_plain and os.path.isdir(source)
            if not is_plain:
                _build(contents, output)
            entry = _described(source if is_plain else output, cancel if is_owed else None)
            entry["left_out"] = contents.left_out
            with open(os.path.join(fresh, "entry.json"), "w", encoding="ascii") as file:
                json.dump(entry, file)
            if is_owed:
                os.close(os.open(os.path.join(fresh, "unsent"), os.O_WRONLY | os.O_CREAT, 0o600))
            if is_plain:
                os.rename(source, output)
        os.rename(fresh, place)
        to_trash(self.root, source)
        found = self.entry(key)
        assert found is not None
        return found

    # What is there.

    def entry(self, key: str) -> Entry | None:
        """What is kept of an execution; None when nothing is."""
        with self._lock:
            if key not in self._entries:
                found = _read(os.path.join(self.folder, key))
                if found is None:
                    return None
                while len(self._entries) >= _REMEMBERED:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = found
            return self._entries[key]

    def address(self, entry: Entry) -> Address | None:
        """Where an input of another task lies here, with what is to be done with it; None when it is not here (any more)."""
        place = self.place(key_of(entry["of"])) if "of" in entry else None
        if place is None:
            return None
        below = entry.get("below") or ""
        return replace(of_path(os.path.join(place, below) if below else place), actions=parse(entry["uri"]).actions)

    def in_words(self, text: str) -> str:
        """A message, with our folders said as what they are."""
        return self._ours.sub(r"the output of execution \1", text)

    def place(self, key: str) -> str | None:
        """The folder of an output that tasks may have links to; None when there is none, or a task has changed it."""
        entry = self.entry(key)
        if entry is None:
            return None
        home = os.path.join(self.folder, key)
        with contextlib.suppress(OSError):
            os.utime(os.path.join(home, "entry.json"))  # it was used now
        if not all(self._is_same(key, entry, rel) for rel in entry["stats"]):
            self._drop(key)
            return None
        return os.path.join(home, OUTPUT)

    def file(self, key: str, rel: str) -> str | None:
        """The path of one file of it; None when there is no such file, or it is not as it came."""
        entry = self.entry(key)
        if entry is None or rel not in entry["stats"] or not self._is_same(key, entry, rel):
            return None
        return os.path.join(self.folder, key, OUTPUT, rel)

    def _is_same(self, key: str, entry: Entry, rel: str) -> bool:
        try:
            found = os.lstat(os.path.join(self.folder, key, OUTPUT, rel))
        except OSError:
            return False
        return bool([found.st_ino, found.st_size, found.st_mtime_ns] == entry["stats"][rel][:3])

    def is_ours(self, path: str) -> bool:
        """Whether that file is one of those here."""
        return path.startswith(f"{self.folder}/")

    def mend(self, path: str) -> bool:
        """A task has touched a file of ours: False when it changed, and what it belongs to is not given to others any more."""
        return self.place(path[len(self.folder) + 1 :].partition("/")[0]) is not None

    # What goes.

    def evict(self, held: Collection[str], unused_s: float = 0.0) -> bool:
        """Let the least recently used go that nobody waits for; False when there is none. `held`: what may not go."""
        ages = {key: _age(os.path.join(self.folder, key, "entry.json")) for key in self._spare(held)}
        oldest = min(ages, key=lambda key: ages[key], default=None)
        return oldest is not None and ages[oldest] <= time.time() - unused_s and self._drop(oldest)

    def leave_room(self, held: Callable[[], Collection[str] | None]) -> None:
        """What tasks are about to write is not announced, so room for that is made when an output comes here, or may go: of those
        that were not used lately, and where little is left of all."""
        disk = os.statvfs(self.root)
        most, least = FREE_SHARE * disk.f_blocks * disk.f_frsize, 4 * reserve_bytes(self.root)
        while (free := free_bytes(self.root)) < max(most, least):
            wanted = held()
            if wanted is None or not self.evict(wanted, 0.0 if free < least else LATELY_S):
                return
            empty_trash(self.root)

    def spare_bytes(self, held: Collection[str]) -> int:
        """What `evict` might free, at most."""
        return sum(bytes_below(os.path.join(self.folder, key)) for key in self._spare(held))

    def _spare(self, held: Collection[str]) -> list[str]:
        return [
            name
            for name in os.listdir(self.folder)
            if name.removeprefix("new-") not in held and not self._is_unsent(name)
        ]

    def _is_unsent(self, key: str) -> bool:
        return os.path.exists(os.path.join(self.folder, key, "unsent")) and not key.startswith("new-")

    def _drop(self, key: str) -> bool:
        """Have it no more, unless the driver still has to look at it; whoever has links keeps them."""
        with self._lock:
            self._entries.pop(key, None)
        return not self._is_unsent(key) and to_trash(self.root, os.path.join(self.folder, key))


def _build(contents: Contents, output: str) -> None:
    """The same in a new folder, with files in place of the links to them, and of files that others may write to."""
    os.mkdir(output, 0o700)
    for folder in contents.folders:
        os.mkdir(os.path.join(output, folder), 0o700)
    for each in contents.files:
        source, target = os.path.join(contents.top, each.place), os.path.join(output, each.name)
        if each.is_shared:
            copy(source, target, contents.cancel)
        else:
            os.link(source, target)


def _described(output: str, cancel: Cancel | None) -> Entry:
    """What is there, after it was made read-only and durable; with sums if `cancel` is given, which stops the reading."""
    stats = seal(output)
    files: list[list[Any]] = []
    for rel, found in sorted(stats.items()):
        files.append([rel, found[1], None if cancel is None else _sha256(os.path.join(output, rel), cancel)])
    programs = [rel for rel in stats if os.lstat(os.path.join(output, rel)).st_mode & stat.S_IXUSR]
    folders = []
    for top, _, _ in os.walk(output):
        if not os.listdir(top) and top != output:
            folders.append(os.path.relpath(top, output))
    return {"files": files, "folders": sorted(folders), "programs": sorted(programs), "stats": stats}


def _sha256(path: str, cancel: Cancel) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            cancel.check(path, "collect")
            digest.update(data)
    return digest.hexdigest()


def _read(home: str) -> Entry | None:
    try:
        with open(os.path.join(home, "entry.json"), encoding="ascii") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "stats" in found else None


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
