"""The line below the prompt: who drives, workers, counts, rate, notices; read from the file when that changes.

A thread of its own reads, at most four times a second, and as seldom as once in half a minute when nothing happens; drawing
takes what it found last, so typing never waits for the file.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from scitq.engine import Engine
from scitq.errors import ScitqError
from scitq.notices import Notice
from scitq.saying import clean, several
from scitq.shell import facts, looking
from scitq.states import TaskState, WorkerState

# Between two looks at a file that changes; and so often while nothing does: a driver may die without a word.
LEAST_S = 0.25
QUIET_S = 30.0
# While tasks end, the rate changes though nothing else does.
RATE_S = 5.0
_OUT = (WorkerState.GONE, WorkerState.DELETING, WorkerState.EVICTED, WorkerState.FAILED)


@dataclass(frozen=True)
class Seen:
    """What the line tells. `notices` are those that nobody has seen."""

    driver: str = ""
    drives_here: bool = False
    workers: int = 0
    running: int = 0
    queued: int = 0
    done: int = 0
    failed: int = 0
    blocked: int = 0
    rate: int = 0
    unread: int = 0
    notices: tuple[Notice, ...] = ()
    money: str = ""

    def fragments(self, width: int, *, plain: bool) -> list[tuple[str, str]]:
        """The line in so many columns, what matters most first: pieces with their styles."""
        dot, up = ("*", "#") if plain else ("●", "▲")
        style = (
            "good" if self.drives_here else "live" if self.driver else "warn" if self.running or self.queued else "dim"
        )
        who = "driver here" if self.drives_here else f"driver {self.driver}" if self.driver else "nobody drives"
        work = [f"{self.running:,} running", f"{self.queued:,} queued", f"{self.done:,} done"]
        parts: list[tuple[int, str, str]] = [(0, style, f"{dot} {who}")]
        parts.append((4, "", f"{up} {several(self.workers, 'worker')}"))
        parts.append((1, "", (" · " if not plain else ", ").join(work)))
        if self.failed or self.blocked:
            told = ((self.failed, "failed"), (self.blocked, "blocked"))
            parts.append((2, "bad", ", ".join(f"{count:,} {word}" for count, word in told if count)))
        if self.rate:
            parts.append((5, "", f"{self.rate:,}/min"))
        if self.money:
            parts.append((3, "", self.money))
        if self.unread:
            parts.append((3, "warn", several(self.unread, "notice")))
        kept = sorted(parts)
        while len(kept) > 1 and sum(len(text) + 3 for _, _, text in kept) > width:
            kept.pop()
        found: list[tuple[str, str]] = []
        for part in parts:
            if part in kept:
                found += [("", "   " if found else " "), (f"class:{part[1]}" if part[1] else "", part[2])]
        room = width - 1
        if sum(len(text) for _, text in found) > room:
            found = [(look, text[: max(0, room - 1)]) for look, text in found[-1:]]
        return found


def look(engine: Engine) -> Seen:
    """What is to be told now: a few look-ups."""
    counts = engine.counts()
    holder = facts.driver_of(engine)
    notices = unread(engine)
    workers = sum(row.state not in _OUT for row in engine.workers())
    driver = (
        ""
        if holder is None
        else f"{clean(holder.program or 'pid')} {holder.pid}"
        if holder.is_here
        else clean(str(holder.host))
    )
    ended = counts.get(TaskState.SUCCEEDED, 0) + counts.get(TaskState.CANCELLED, 0)
    return Seen(
        driver, engine.is_driving, workers, facts.live(counts), facts.queued(counts), ended,
        counts.get(TaskState.FAILED, 0), counts.get(TaskState.BLOCKED, 0), looking.rate(engine), len(notices), tuple(notices),
        ", ".join(str(one) for one in engine.spending()),
    )  # fmt: skip


def unread(engine: Engine) -> list[Notice]:
    """What needs a person and was not seen yet. Whether anybody drives stands in the line itself, all the time."""
    return [one for one in engine.notices() if one.is_new and one.key != "driver:none"]


class Glance:
    """The thread that looks. `seen` is what it found last; `on_look` is called with it, from that thread."""

    def __init__(self, on_look: Callable[[Seen], None]) -> None:
        self.seen: Seen | None = None
        self.looks = 0
        self._on_look = on_look
        self._engine: Engine | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._gate = threading.Condition()
        self._has_changed = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="scitq-toolbar", daemon=True)
        self._thread.start()

    def watch(self, engine: Engine | None) -> None:
        """Look at this file from now on."""
        self._let_go()
        with self._gate:
            self._engine, self.seen = engine, None
        if engine is not None:
            self._unsubscribe = engine._store.subscribe(self.changed)
        self.changed()

    def stop(self) -> None:
        """End."""
        self._let_go()
        with self._gate:
            self._is_over = True
            self._gate.notify_all()
        self._thread.join()

    def changed(self) -> None:
        """The file changed."""
        with self._gate:
            self._has_changed = True
            self._gate.notify_all()

    def _let_go(self) -> None:
        if self._unsubscribe is not None:
            with contextlib.suppress(ScitqError):  # the engine may be closed by now
                self._unsubscribe()
            self._unsubscribe = None

    def _run(self) -> None:
        while True:
            with self._gate:
                seen = self.seen
                pause = RATE_S if seen is not None and seen.rate else QUIET_S
                self._gate.wait_for(lambda: self._has_changed or self._is_over, pause)
                if self._is_over:
                    return
                self._has_changed = False
                engine = self._engine
            began = time.monotonic()
            if engine is not None:
                self._look(engine)
            with self._gate:
                left = LEAST_S - (time.monotonic() - began)
                self._gate.wait_for(lambda: self._is_over, max(0.0, left))

    def _look(self, engine: Engine) -> None:
        try:
            found = look(engine)
        except Exception:  # it is being closed, or its disk is gone: the next command says so
            return
        if engine is self._engine and found != self.seen:
            self.seen = found
            self.looks += 1
            self._on_look(found)
