"""What tells whether an input changed since a script was last run: cheap to look at, for ten thousands of addresses.

A mark is text: `size 1250 1700000000000000000` (bytes, and when it was changed in ns) for a plain file, `files N HASH` for a folder or
pattern, `md5 …` and the like for storages; empty when nothing is there; None when nobody looked or could look.
"""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

from scitq.digest import MD5, Fingerprint
from scitq.fetch.errors import NotFound
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.uri import parse

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.workflow.declare import Declared

# Storages have so long to answer, all together.
PATIENCE_S = 15.0
# So many files of a folder are looked at; of larger ones only those.
FILES = 20_000
_GLOB = re.compile(r"[*?\[]")


class Marks:
    """What was found at addresses, each looked at once."""

    def __init__(self, engine: Engine, *, patience_s: float | None = None) -> None:
        self._engine = engine
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._found: dict[str, str | None] = {}
        self.unseen: set[str] = set()
        """Addresses of storages that could not be looked at."""

    def look(self, wanted: Iterable[Declared]) -> None:
        """Look at what these tasks read."""
        far: list[str] = []
        for one in wanted:
            for text in one.sources:
                if text in self._found:
                    continue
                self._found[text] = None
                if text.startswith("task://"):
                    continue
                if "://" not in text and "|" not in text and not _GLOB.search(text):
                    self._found[text] = _local(text)
                    continue
                address = parse(text)
                if address.is_local:
                    self._found[text] = _local(address.path)
                elif not address.is_run:
                    far.append(text)
        if far:
            self._look_far(far)

    def of(self, one: Declared) -> list[str | None] | None:
        """The marks of what a task reads, in order; None for a task that reads nothing but what others leave."""
        marks = [self._found.get(text) for text in one.sources]
        return marks if any(mark is not None for mark in marks) else None

    def _look_far(self, texts: list[str]) -> None:
        from scitq import identities

        cancel = Cancel()
        timer = threading.Timer(self._patience_s, cancel.set)
        timer.daemon = True
        timer.start()
        try:
            looked = identities.look(
                self._engine._reader(),
                texts,
                f"{self._engine.side}/outputs",
                Settings(cancel=cancel, connect_timeout_s=5.0),
            )
        finally:
            timer.cancel()
        for text in texts:
            found = looked.found.get(text)
            if isinstance(found, Fingerprint):
                self._found[text] = _told(found)
            elif isinstance(found, NotFound):
                self._found[text] = ""
            else:
                self.unseen.add(text)

    def notes(self) -> list[str]:
        """What could not be looked at, in a sentence."""
        if not self.unseen:
            return []
        shown = ", ".join(parse(text).shown for text in sorted(self.unseen)[:3])
        more = f" and {len(self.unseen) - 3} more" if len(self.unseen) > 3 else ""
        return [f"Not looked at, so taken to be as they were: {shown}{more} (no answer)."]


def _told(found: Fingerprint) -> str:
    if len(found.files) == 1:
        kind, _, value = found.files[0].mark.partition(":")
        return f"{kind} {value}" if kind == MD5 else f"{kind} {value} {found.files[0].size}"
    return f"files {found.digest}"


def _local(path: str) -> str:
    """The mark of what is on this machine."""
    try:
        if _GLOB.search(path) and not os.path.lexists(path):
            return _hashed((name, os.stat(name)) for name in sorted(glob.glob(path, recursive=True)))
        found = os.stat(path)
        if not os.path.isdir(path):
            return f"size {found.st_size} {found.st_mtime_ns}"
        return _hashed(_below(path))
    except OSError:
        return ""


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    count = 0
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(here, name)
            try:
                yield os.path.relpath(path, folder), os.stat(path)
            except OSError:
                continue
            count += 1
            if count == FILES:
                return


def _hashed(files: Iterable[tuple[str, os.stat_result]]) -> str:
    digest = blake2b(digest_size=9)
    count = 0
    for name, found in files:
        count += 1
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return f"files {digest.hexdigest()}" if count else ""
