"""A thread that reads from the file what a view wants to show: at once when it wants something else, and when the file changes.

However fast the file changes, reading and drawing take a small share of a processor; when nothing changes, nothing is read but
now and then, for the sake of clocks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from scitq.engine import Engine
from scitq.errors import ScitqError

# Between two looks at a file that changes: so long at least, and so many times what a look and a drawing take.
LEAST_S = 0.25
SHARE = 50
# A clock goes on though nothing changes.
CLOCK_S = 5.0
# What does nothing is looked at for the driver's sake: a driver that dies rings no bell.
QUIET_S = 15.0

Asked = TypeVar("Asked")
Seen = TypeVar("Seen")


class Reader(Generic[Asked, Seen]):
    """Reads in a thread of its own: `look` at what was asked for last; `on_look` and `on_problem` are called there too. `is_live`
    says of what was seen whether its clocks go on; `refresh_s` is the user's wish for how often that is looked at."""

    def __init__(
        self,
        engine: Engine,
        look: Callable[[Asked], Seen],
        request: Asked,
        refresh_s: float | None,
        *,
        is_live: Callable[[Seen], bool],
        on_look: Callable[[Seen], None],
        on_problem: Callable[[BaseException], None],
        clock_s: float = CLOCK_S,
        least_s: float = LEAST_S,
    ) -> None:
        self._engine = engine
        self._look = look
        self._request = request
        self._refresh_s = refresh_s
        self._is_live = is_live
        self._on_look = on_look
        self._on_problem = on_problem
        self._clock_s = clock_s
        self._least_s = least_s
        self._is_urgent = True
        self._has_changed = False
        self._is_over = False
        self._gate = threading.Condition()
        self._unsubscribe: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="scitq-screen", daemon=True)
        self.drawing_s = 0.0
        self.looks = 0

    def start(self) -> None:
        """Begin."""
        self._unsubscribe = self._engine._store.subscribe(self._changed)
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being read has been."""
        with self._gate:
            self._is_over = True
            self._gate.notify_all()
        if self._unsubscribe is not None:
            with contextlib.suppress(ScitqError):  # the engine may be closed by now
                self._unsubscribe()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def ask(self, request: Asked, *, at_once: bool = True) -> None:
        """Read that, at once or when there is a reason to."""
        with self._gate:
            self._request = request
            self._is_urgent = self._is_urgent or at_once
            self._gate.notify_all()

    def _changed(self) -> None:
        if not self._has_changed:
            with self._gate:
                self._has_changed = True
                self._gate.notify_all()

    def _run(self) -> None:
        next_s, clock_s = 0.0, self._clock_s
        try:
            while self._wait(next_s, clock_s):
                began = time.thread_time()
                seen = self._look(self._request)
                cost_s = time.thread_time() - began + self.drawing_s
                self.looks += 1
                self._on_look(seen)
                next_s = time.monotonic() + max(self._least_s, SHARE * cost_s)
                clock_s = self._refresh_s or (self._clock_s if self._is_live(seen) else QUIET_S)
        except BaseException as problem:
            self._on_problem(problem)

    def _wait(self, next_s: float, clock_s: float) -> bool:
        """Wait until there is a reason to read; False when it is over."""
        until = time.monotonic() + clock_s
        with self._gate:
            while not self._is_over and not self._is_urgent:
                now = time.monotonic()
                due = next_s if self._has_changed else until
                if now >= due:
                    break
                self._gate.wait(due - now)
            self._is_urgent = self._has_changed = False
            return not self._is_over
