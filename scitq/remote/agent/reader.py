"""Reading what the keeper writes: segments of the journal by offset, streams of executions. Nothing is written here."""

from __future__ import annotations

import json
import os
from typing import Any

from scitq.remote.agent.journal import path_of

AT_ONCE = 4 << 20


class JournalReader:
    """The retained segments, the one in use kept open."""

    def __init__(self, root: str) -> None:
        self.folder = os.path.join(root, "journal")
        self.id = ""
        self.segments: list[int] = [0]
        self._open: tuple[str, int, int] | None = None

    def adopt(self, identity: str, segments: list[int]) -> None:
        """The journal as the keeper described it."""
        self.id, self.segments = identity, segments

    def _file(self, base: int) -> int:
        if self._open is not None and self._open[:2] == (self.id, base):
            return self._open[2]
        if self._open is not None:
            os.close(self._open[2])
            self._open = None
        file = os.open(path_of(self.folder, base), os.O_RDONLY)
        self._open = (self.id, base, file)
        return file

    def look_again(self) -> None:
        """A segment is gone, and the keeper's word of it is still on its way."""
        bases = sorted(int(name[:-4]) for name in os.listdir(self.folder) if name.endswith(".log"))
        self.segments = bases or self.segments

    def begin(self, journal: str, offset: int, end: int) -> int:
        """Where a reader who asks for `offset` of `journal` is to go on: there, or at the beginning of what there is."""
        if journal != self.id or not self.segments[0] <= offset <= end:
            return self.segments[0]
        if offset == end or offset in self.segments:
            return offset
        base = max(base for base in self.segments if base <= offset)
        if os.pread(self._file(base), 1, offset - base - 1) != b"\n":
            return self.segments[0]
        return offset

    def read(self, offset: int, end: int) -> bytes:
        """Whole lines from `offset`, at most up to `end`, at most to the end of a segment."""
        base = max(base for base in self.segments if base <= offset)
        later = [other for other in self.segments if other > base]
        limit = min([end, *later]) - offset
        size = AT_ONCE
        while True:
            data = os.pread(self._file(base), min(limit, size), offset - base)
            whole = data.rfind(b"\n") + 1
            if whole or len(data) < size:
                return data[:whole]
            size *= 4  # one line longer than that

    def line(self, offset: int) -> dict[str, Any] | None:
        """The one line that begins at `offset`; None when it is deleted."""
        try:
            return self._line(offset)
        except FileNotFoundError:
            self.look_again()
            return None

    def _line(self, offset: int) -> dict[str, Any] | None:
        base = max((base for base in self.segments if base <= offset), default=None)
        if base is None:
            return None
        size = 4096
        while True:
            data = os.pread(self._file(base), size, offset - base)
            text, newline, _ = data.partition(b"\n")
            if newline:
                value = json.loads(text)
                return value if isinstance(value, dict) else None
            if len(data) < size:
                return None
            size *= 8


def read_stream(path: str, offset: int, most: int, limit: int | None) -> tuple[bytes, int] | None:
    """(bytes from `offset`, size of the stream) of a file; None when it is not there. `limit` is where it ends."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        size = os.fstat(file).st_size
        if limit is not None:
            size = min(size, limit)
        return os.pread(file, max(0, min(most, size - offset)), offset) if offset < size else b"", size
    finally:
        os.close(file)
