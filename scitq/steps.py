"""The steps of a promotion or its undoing, as a job of the file: said where somebody watches, and written down.

Nobody else does this job: it belongs to the command that the user gave. While the file is sealed only its mover writes to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from scitq.errors import MoveFailed
from scitq.states import JobState
from scitq.store import jobs
from scitq.store.connection import Store
from scitq.store.moved import MOVES

if TYPE_CHECKING:
    import apsw


class Steps:
    """For the length of a `with`: `done` says of each step that it is done. `is_written`: it has a job in the file."""

    def __init__(
        self, store: Store, kind: str, host: str, say: Callable[[str], None], *, is_written: bool = True
    ) -> None:
        self._store, self._kind, self._host, self._say = store, kind, host, say
        self._is_written = is_written
        self._lines: list[tuple[str, str]] = []
        self._since = time.monotonic()

    def __enter__(self) -> Steps:
        if self._is_written:
            self._store.write(self._begin)
        return self

    def done(self, name: str, text: str) -> None:
        """A step is done."""
        line = f"{text} ({time.monotonic() - self._since:.1f} s)"
        self._since = time.monotonic()
        self._say(f"  {line}")
        self._lines.append((name, line))
        if self._is_written:
            self._store.write(self._note([(name, line)]))

    def write_down(self) -> None:
        """The file can be written from now on: what was done until now is in it, too."""
        self._store.write(self._begin)
        self._store.write(self._note(self._lines))
        self._is_written = True

    def _note(self, lines: list[tuple[str, str]]) -> Callable[[apsw.Connection], None]:
        def write(db: apsw.Connection) -> None:
            for job in jobs.open_ones(db):
                if job.kind == self._kind:
                    for name, line in lines:
                        jobs.say(db, job.id, name, None, line)

        return write

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._is_written and (error is None or isinstance(error, MoveFailed)):
            self._store.write(lambda db: end(db, self._kind, None if error is None else str(error)))

    def _begin(self, db: apsw.Connection) -> None:
        forsake(db)
        job = jobs.add(db, _now_ms(), self._kind, None, {"host": self._host, "pid": os.getpid()})
        jobs.move(db, _now_ms(), job, JobState.RUNNING)


def end(db: apsw.Connection, kind: str, problem: str | None = None) -> None:
    """It has ended: well, if there is no problem."""
    for job in jobs.open_ones(db):
        if job.kind == kind:
            jobs.move(db, _now_ms(), job.id, JobState.SUCCEEDED if problem is None else JobState.FAILED, problem)


def forsake(db: apsw.Connection, *, is_sure: bool = True) -> None:
    """What an earlier command was at, and did not end: it was killed; which is looked at if it is not sure."""
    for job in jobs.open_ones(db):
        if job.kind in MOVES and (is_sure or not _lives(job.data.get("pid"))):
            jobs.move(db, _now_ms(), job.id, JobState.FAILED, "the command that did it was ended; the next one goes on")


def _lives(pid: object) -> bool:
    try:
        os.kill(pid if isinstance(pid, int) and pid > 0 else os.getpid(), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
