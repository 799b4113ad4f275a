"""Stopping and trying again: `Cancel`, which wins over every wait, and `retrying`, which repeats what may succeed yet."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from scitq.fetch.errors import Cancelled, Interrupted, Throttled

T = TypeVar("T")
# So much more after a failure, and it counts as a first failure again: a long download over a bad line ends some day.
ADVANCE_BYTES = 1024 * 1024


class Cancel:
    """A request to stop: asked for by one thread, obeyed by those that transfer, within a moment.

    `is_over`, if given, is asked whenever somebody looks: what it has once said stays said.
    """

    def __init__(self, is_over: Callable[[], bool] | None = None) -> None:
        self._is_over = is_over
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wakers: dict[int, Callable[[], None]] = {}
        self._next = 0

    def set(self) -> None:
        """Stop everything that listens, now."""
        with self._lock:
            self._event.set()
            wakers = list(self._wakers.values())
        for waker in wakers:
            with contextlib.suppress(OSError):
                waker()

    @property
    def is_set(self) -> bool:
        """Whether somebody asked."""
        if self._is_over is not None and not self._event.is_set() and self._is_over():
            self.set()
        return self._event.is_set()

    def check(self, uri: str = "", phase: str = "") -> None:
        """Raise Cancelled if somebody asked."""
        if self.is_set:
            raise Cancelled(f"{uri}: cancelled." if uri else "Cancelled.", uri=uri, phase=phase)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until somebody asks: True then."""
        return self._event.wait(seconds) or self.is_set

    @contextlib.contextmanager
    def waking(self, waker: Callable[[], None]) -> Iterator[None]:
        """While in here, `waker` is called when somebody asks: it ends what blocks (a socket, a child)."""
        with self._lock:
            self._next += 1
            key = self._next
            self._wakers[key] = waker
        try:
            if self.is_set:
                with contextlib.suppress(OSError):
                    waker()
            yield
        finally:
            with self._lock:
                del self._wakers[key]


@dataclass(frozen=True)
class Policy:
    """How often and how long. The waits double, and vary by half so that a thousand tasks do not come back at once."""

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def wait_s(self, failures: int, asked_s: float | None = None, chance: float = 1.0) -> float:
        """The wait after so many failures in a row; `chance` in 0..1; what a server asked for is the least."""
        grown = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 30))
        varied = grown * (0.5 + 0.5 * chance)
        # A server may ask for an hour; whoever asks for more than ten minutes is not waited for that long.
        return max(varied, min(asked_s or 0.0, 600.0))


def retrying(
    action: Callable[[], T],
    policy: Policy,
    cancel: Cancel,
    *,
    advanced: Callable[[], int] | None = None,
    on_wait: Callable[[Interrupted, float], None] | None = None,
) -> T:
    """Do it until it succeeds, fails for good, or failed too often. `advanced` tells how far it is, in bytes."""
    failures, best = 0, advanced() if advanced else 0
    while True:
        cancel.check()
        try:
            return action()
        except Interrupted as error:
            if cancel.is_set:
                raise Cancelled(f"{error.uri}: cancelled.", uri=error.uri, phase=error.phase) from error
            now = advanced() if advanced else 0
            if now >= best + ADVANCE_BYTES:
                failures = 0
            best = max(best, now)
            failures += 1
            if failures >= policy.attempts or getattr(error, "is_exhausted", False):
                error.is_exhausted = True  # whoever called this in a loop of its own need not begin again
                raise
            asked_s = error.retry_after_s if isinstance(error, Throttled) else None
            wait_s = policy.wait_s(failures, asked_s, random.random())
            if on_wait is not None:
                on_wait(error, wait_s)
            if cancel.wait(wait_s):
                raise Cancelled(f"{error.uri}: cancelled.", uri=error.uri, phase=error.phase) from error


class Watch:
    """Notices that nothing moves, or that the whole takes too long. Reads a monotonic clock, given for tests."""

    def __init__(
        self, stall_s: float, total_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._began = self._moved = clock()
        self._total_s = total_s

    def moved(self) -> None:
        """Something came."""
        self._moved = self._clock()

    def left_s(self) -> float:
        """How long it may stand still from now on; zero or less: no longer."""
        now = self._clock()
        left = self._moved + self._stall_s - now
        return left if self._total_s is None else min(left, self._began + self._total_s - now)

    @property
    def is_late(self) -> bool:
        """Whether the whole has taken too long."""
        return self._total_s is not None and self._clock() - self._began >= self._total_s

    def verdict(self, subject: str) -> str:
        """The sentence for an error."""
        if self.is_late:
            return f"{subject}: took longer than the {self._total_s:.0f} s it may."
        return f"{subject}: not a byte for {self._stall_s:g} s."
