"""Files on their way to an agent, in pieces: several at once over one stream, deflated where that pays, and how far that is.

Which files, and why, is `parcels`; what the agent does with them `remote.agent.blobs`.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scitq.errors import BadAnswer
from scitq.fetch.errors import Cancelled
from scitq.fingerprints import File, SourceChanged, mark_of
from scitq.remote.link import Answer, Stream

PIECE_BYTES = 4 << 20
# So much may be on its way before an answer has come: a long line is kept busy, and no agent has to hold much.
WINDOW_BYTES = 16 << 20
WINDOW_PIECES = 256
# An agent that goes on with a large part of another one reads all of that first.
ANSWER_S = 900.0
# A piece is deflated if a sample of it shrinks below this, and the line is no faster than a processor deflates.
SHRINKS = 0.9
SAMPLE_BYTES = 32 << 10
FAST_BYTES_S = 60e6
# From then on it is said how long it will take, if it takes so long.
SAY_AFTER_S, SAY_FROM_S = 3.0, 20.0
# How often it is looked whether somebody still wants what is being sent.
LOOK_S = 1.0


@dataclass
class Progress:
    """How far a sender is with what it is sending now."""

    total: int = 0
    done: int = 0
    wire: int = 0
    """Bytes that really travelled: less, where they were deflated."""
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Bytes a second of the files."""
        return self.done / max(1e-3, time.monotonic() - self.began)

    @property
    def wire_rate(self) -> float:
        return self.wire / max(1e-3, time.monotonic() - self.began)

    @property
    def left_s(self) -> float | None:
        """Seconds that it will take yet; None when nothing can be said."""
        return (self.total - self.done) / self.rate if self.done else None

    def told(self) -> dict[str, Any]:
        """For a worker's statistics."""
        left_s = self.left_s
        rest = {} if left_s is None else {"left_s": round(left_s, 1)}
        return {"bytes": self.done, "total": self.total, "rate": int(self.rate), **rest}


class Line:
    """Pieces on their way over one stream, and what the agent answers to them, in order."""

    def __init__(
        self, stream: Stream, progress: Progress, estimate: Callable[[], None], has_ended: Callable[[], bool]
    ) -> None:
        self._stream, self._progress, self._estimate, self._has_ended = stream, progress, estimate, has_ended
        self._open: deque[tuple[str, str, int, int, int]] = deque()
        """Of each piece that was not answered yet: sum, path, where the file will be at after it, bytes, bytes that travel."""
        self._bytes = 0
        self._has_said = False
        self._refused: set[str] = set()

    def file(self, sha: str, file: File, start: int, is_wanted: Callable[[], bool]) -> None:
        """Send a file from there on, as long as somebody wants it; SourceChanged when it is not what was announced."""
        size = file.mark[0]
        looked_at = time.monotonic()
        try:
            handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _changed(file) from error
        with open(handle, "rb", buffering=0):
            here = start
            while True:
                if self._has_ended():
                    raise Cancelled(f"{file.path}: cancelled.", uri=file.path, phase="get")
                if time.monotonic() - looked_at > LOOK_S:
                    looked_at = time.monotonic()
                    if not is_wanted():
                        return
                data = self._read(handle, file, here, min(PIECE_BYTES, size - here))
                body, headers = self._packed(data)
                target = f"/blobs/{sha}?from={here}&size={size}&mtime={max(0, file.mark[1])}"
                here += len(data)
                self._stream.queue("PUT", target, body, headers)
                self._open.append((sha, file.path, -1 if here == size else here, len(data), len(body)))
                self._bytes += len(body)
                self._stream.flush()
                while self._bytes > WINDOW_BYTES or len(self._open) > WINDOW_PIECES:
                    self._take()
                if here >= size or sha in self._refused:
                    return

    def _read(self, handle: int, file: File, start: int, count: int) -> bytes:
        try:
            data = os.pread(handle, count, start)
            if len(data) == count and mark_of(os.fstat(handle)) == file.mark:
                return data
        except OSError as error:
            raise _changed(file) from error
        raise _changed(file)

    def _packed(self, data: bytes) -> tuple[bytes, str]:
        if self._progress.wire > 2 * PIECE_BYTES and self._progress.wire_rate > FAST_BYTES_S:
            return data, ""
        if not shrinks(data):
            return data, ""
        return zlib.compress(data, 1), "Content-Encoding: deflate\r\n"

    def drain(self) -> None:
        """Wait for all answers."""
        while self._open:
            self._take()

    def abandon(self) -> None:
        """Read what is still to be answered, so that the stream can be used for something else."""
        while self._open:
            self._open.popleft()
            self._stream.receive(timeout_s=ANSWER_S)

    def _take(self) -> None:
        answer = self._stream.receive(timeout_s=ANSWER_S)
        sha, path, expected, count, wire = self._open.popleft()
        self._bytes -= wire
        if answer.status == 422:  # all came, and it is another file than was announced
            raise SourceChanged(f"{path}: changed while it was sent to a worker.", uri=path, phase="get")
        if answer.status == 507:
            self._refused.add(sha)  # the agent has told those who wait for it
            return
        if sha in self._refused:
            return
        here = good(answer).json().get("here")
        # More than that may be there: what was on its way when a stream broke. Less: it had to go. Then it is asked again.
        if here != -1 and (expected == -1 or not isinstance(here, int) or here < expected):
            raise BadAnswer(f"the agent has {here} bytes of {path}, where {expected} were expected.")
        progress = self._progress
        progress.done += count
        progress.wire += wire
        if not self._has_said and time.monotonic() - progress.began > SAY_AFTER_S:
            self._has_said = True
            self._estimate()


def shrinks(data: bytes) -> bool:
    """Whether deflating is worth it, judged by a sample from three places."""
    if len(data) < 512:
        return False
    sample = data
    if len(data) > 3 * SAMPLE_BYTES:
        middle = len(data) // 2
        sample = data[:SAMPLE_BYTES] + data[middle : middle + SAMPLE_BYTES] + data[-SAMPLE_BYTES:]
    return len(zlib.compress(sample, 1)) < SHRINKS * len(sample)


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _changed(file: File) -> SourceChanged:
    return SourceChanged(f"{file.path}: changed while it was sent to a worker.", uri=file.path, phase="get")


def good(answer: Answer) -> Answer:
    """An answer that is one."""
    if answer.status != 200:
        raise BadAnswer(f"the agent answered {answer.status}: {answer.body[:200]!r}.")
    return answer
