"""The journal: append-only lines of JSON in segments. Its byte offset is the sequence number of all events.

Written by the keeper only, one `write` a round; read by the agent with `pread`. It is never synced here: it survives
the death of any process, and a power cut makes a new journal (see `Journal.open`).

A segment is `journal/<base, 20 digits>.log`; the number of a byte is base + position. Its first line names the
journal, so that no reader can take the bytes of one for those of another. Lines, by their `k`:

    journal    id, base, gen, boot: the head of a segment
    carry      running, owed, slots, acked: what is live when a segment begins; highest: the highest number that an
               execution ever had here
    keeper     pid, at: a keeper started
    start      id, slot, at, b (seconds since boot), m (monotonic), what ends it, box (the folders of its control
               group, if it is limited), image (engine, id, digest, of a container): written before the spawn
    stage      id, at: its data is being brought here
    pid        id, pid, b: the spawn is done; the pid is also its session and group
    end        id, why, grace: a timeout or cancel is under way; after the exit: of bringing its output home
    exit       id, code, sig, why, note, o, e (bytes as latin-1, null when long), on, en (sizes), ocut, ecut, left,
               box, kept (it left a folder), collect, deliver or output, owner,
               overwrite, remotes, failed, home (where its output is being brought, see `orders`), at, run, u, s, rss, read,
               written (see `lines.usage_of`; not of containers), image, error (of a container that the engine could
               not run)
    collected  id, ok, note: its output is where it was asked for, or cannot be (error: the kind); to, files (name, size,
               MD5 of each), failed: what a failed execution left; or held: files (name, size, SHA-256), folders (that
               are empty) and programs (names of files that may be run) wait here for the driver
    drop       id: once it is over, nobody wants to see what it left
    note       id, text: what its user must hear
    slots      n
    bad        line, note: a command that was refused
    acked      to: noted when keeper and agent end in peace

`why` is null for an end of its own, else timeout, cancel, memory (a process of it was killed for want of memory), spawn
(it could not be started), stage_in and stage_timeout (its data could not be brought, see `error` and `note`), exists
(its outputs are there already: `to`, `files`), unstarted (accepted and given back: it never ran and may be ordered again under a new id) or
unknown (the keeper was killed meanwhile).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

SEGMENT_BYTES = 4 << 20


def path_of(folder: str, base: int) -> str:
    """Where the segment that begins at `base` lies."""
    return os.path.join(folder, f"{base:020d}.log")


def lines_of(path: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(start, end, object) of each valid line of a segment; what is torn or damaged is passed over."""
    with open(path, "rb") as file:
        position = 0
        for line in file:
            start, position = position, position + len(line)
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield start, position, value


class Journal:
    """The segments of the current journal, the last one open for appending."""

    def __init__(self, folder: str, identity: str, generation: int, boot: str) -> None:
        self.folder = folder
        self.id = identity
        self.generation = generation
        self.boot = boot
        self.segments: list[int] = []
        self.file = -1
        self.end = 0
        """Offset after the last line that is in the file."""
        self.tail = 0
        """Offset after the last line added, written or not."""
        self._waiting: list[str] = []
        self._torn = 0
        """Bytes of an incomplete line at the end of the file, when the disk is full."""

    @classmethod
    def open(cls, folder: str, boot: str) -> tuple[Journal | None, list[tuple[int, dict[str, Any]]]]:
        """The journal of an earlier keeper and its lines as (offset, object), cut back to its last complete line.

        Two generations lie side by side only when a keeper died between making a new journal and deleting the old.
        """
        heads: list[tuple[int, int, dict[str, Any]]] = []
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            head = next(lines_of(path), None) if name.endswith(".log") and name[:-4].isdigit() else None
            if head is None or head[2].get("k") != "journal" or head[0] != 0:
                os.unlink(path)  # a segment whose first write did not happen, or a temporary file
            else:
                heads.append((int(head[2].get("gen", 0)), int(name[:-4]), head[2]))
        if not heads:
            return None, []
        heads.sort(key=lambda head: head[:2])
        generation = heads[-1][0]
        journal = cls(folder, heads[-1][2]["id"], generation, heads[-1][2].get("boot", ""))
        lines: list[tuple[int, dict[str, Any]]] = []
        for gen, base, _head in heads:
            if gen != generation:
                os.unlink(path_of(folder, base))
                continue
            journal.segments.append(base)
            end = 0
            for start, end, value in lines_of(path_of(folder, base)):  # noqa: B007 the last end is what counts
                lines.append((base + start, value))
            journal.end = journal.tail = base + end
        journal.file = os.open(path_of(folder, journal.segments[-1]), os.O_RDWR | os.O_APPEND)
        size = journal.end - journal.segments[-1]
        if os.fstat(journal.file).st_size != size:
            os.ftruncate(journal.file, size)
        return journal, lines

    @classmethod
    def create(cls, folder: str, generation: int, boot: str, lines: list[str]) -> Journal:
        """A new journal that begins with `lines`; it takes the place of an older one in one rename."""
        journal = cls(folder, os.urandom(8).hex(), generation, boot)
        text = "".join([journal.header(0), *lines]).encode("ascii")
        fresh = os.path.join(folder, "new")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        if os.write(file, text) != len(text):
            raise OSError(28, "the disk is full")
        os.fsync(file)  # before the rename, once per boot: the only sync there is
        os.rename(fresh, path_of(folder, 0))
        for name in os.listdir(folder):
            if name != os.path.basename(path_of(folder, 0)):
                os.unlink(os.path.join(folder, name))
        journal.segments, journal.file = [0], file
        journal.end = journal.tail = len(text)
        return journal

    def header(self, base: int) -> str:
        """The first line of a segment."""
        return (
            json.dumps({"k": "journal", "id": self.id, "base": base, "gen": self.generation, "boot": self.boot}) + "\n"
        )

    def add(self, line: str) -> int:
        """Add one line (ASCII, without its end); return the offset at which it will stand."""
        at = self.tail
        self._waiting.append(line + "\n")
        self.tail = at + len(line) + 1
        return at

    def flush(self) -> bool:
        """Write what was added. False when the disk is full: it stays added, and is tried again at the next call."""
        if not self._waiting:
            return True
        text = "".join(self._waiting)
        try:
            written = os.write(self.file, text.encode("ascii"))
        except OSError:
            written = 0
        self._torn += written
        self._waiting = [] if written == len(text) else [text[written:]]
        if self._waiting:
            return False
        self.end, self._torn = self.end + self._torn, 0
        return True

    @property
    def is_long(self) -> bool:
        """Whether the open segment is due to be sealed."""
        return self.end - self.segments[-1] >= SEGMENT_BYTES

    def seal(self, carried: list[str]) -> bool:
        """Begin a new segment with `carried` lines: what is live and would be lost with the old one. False: disk full.

        Killed before the write, the new segment has no head and the next keeper deletes it.
        """
        base = self.end
        text = "".join([self.header(base), *carried]).encode("ascii")
        path = path_of(self.folder, base)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError:
            return False
        try:
            whole = os.write(file, text) == len(text)
        except OSError:
            whole = False
        if not whole:
            os.close(file)
            os.unlink(path)
            return False
        os.close(self.file)
        self.file = file
        self.segments.append(base)
        self.end = self.tail = base + len(text)
        return True

    def drop_before(self, base: int) -> None:
        """Delete the segments that end at or before `base`."""
        while len(self.segments) > 1 and self.segments[1] <= base:
            os.unlink(path_of(self.folder, self.segments[0]))
            del self.segments[0]
