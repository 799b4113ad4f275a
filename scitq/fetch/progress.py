"""How a transfer tells how far it is: a function that is called with a Progress. Nothing here prints."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one file is, or with `file=""` the whole transfer."""

    file: str
    done_bytes: int
    total_bytes: int | None
    is_done: bool = False


Report = Callable[[Progress], None]
"""Called from the threads that transfer, one call at a time; what it raises ends the transfer."""


class Meter:
    """Adds up what the files of one transfer have, and reports both. Thread-safe."""

    def __init__(
        self,
        report: Report | None,
        total_bytes: int | None = None,
        step_bytes: int = 256 * 1024,
        *,
        is_single: bool = False,
    ) -> None:
        """`is_single`: one file is all, so that what is told of it later is the total."""
        self._is_single = is_single
        self._report = report
        self._total_bytes = total_bytes
        self._step_bytes = step_bytes
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}
        self._said: dict[str, int] = {}
        self._ended_bytes = 0

    def at(self, file: str, done_bytes: int, total_bytes: int | None, *, is_done: bool = False) -> None:
        """One file is so far now; a step too small to be seen is not reported."""
        if self._report is None:
            return
        with self._lock:
            self._files[file] = done_bytes
            if not is_done and 0 <= done_bytes - self._said.get(file, -self._step_bytes) < self._step_bytes:
                return
            self._said[file] = done_bytes
            if self._is_single and self._total_bytes is None:
                self._total_bytes = total_bytes
            if is_done:
                self._ended_bytes += self._files.pop(file)
                self._said.pop(file)
            self._report(Progress(file, done_bytes, total_bytes, is_done))
            self._report(Progress("", self._ended_bytes + sum(self._files.values()), self._total_bytes))

    def part(self, file: str, done_bytes: int, total_bytes: int | None, *, is_done: bool = False) -> None:
        """One file of a transfer whose sum comes by `whole`."""
        if self._report is not None:
            with self._lock:
                self._report(Progress(file, done_bytes, total_bytes, is_done))

    def inside(self, file: str) -> Report | None:
        """For the transfer of one file that is part of this one; its end is for the caller to tell."""
        if self._report is None:
            return None

        def hear(progress: Progress) -> None:
            if progress.file and not progress.is_done:
                self.at(file, progress.done_bytes, progress.total_bytes)

        return hear

    def whole(self, done_bytes: int, total_bytes: int | None, *, is_done: bool = False) -> None:
        """The whole transfer, where the program that does it adds up itself."""
        if self._report is not None:
            with self._lock:
                self._report(Progress("", done_bytes, total_bytes, is_done))
