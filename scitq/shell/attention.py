"""One place to wait for whatever comes first: a change in the file, the end of a thread, Ctrl-C, a wish to stop.

Signals only count and wake: nothing is torn out of the middle of what it does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from scitq.engine import Engine
from scitq.errors import ScitqError


class Attention:
    """Waits in the main thread. `interrupts` counts Ctrl-C; `is_asked_to_end` says that SIGTERM came."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.interrupts = 0
        self.is_asked_to_end = False
        self._is_urgent = False
        self._last = 0.0
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        # Reentrant: a signal may come while this very thread holds it.
        self._gate = threading.RLock()
        self._before: dict[int, Any] = {}
        self._unsubscribe: list[Callable[[], None]] = []
        if engine is not None:
            self.watch(engine)

    def watch(self, engine: Engine) -> None:
        """Wake at each change of the file."""
        self._unsubscribe.append(engine._store.subscribe(self.wake))

    def __enter__(self) -> Attention:
        for number, does in ((signal.SIGINT, self._interrupt), (signal.SIGTERM, self._end)):
            self._before[number] = signal.signal(number, does)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, does in self._before.items():
            signal.signal(number, does)
        for unsubscribe in self._unsubscribe:
            with contextlib.suppress(ScitqError):  # the engine may be closed by now, and with it the subscription
                unsubscribe()
        with self._gate:
            for fd in (self._read, self._write):
                os.close(fd)
            self._read = self._write = -1

    def wake(self, *, urgently: bool = False) -> None:
        """End the present wait, from any thread; urgently: whatever the least time between two looks is."""
        with self._gate:
            self._is_urgent = self._is_urgent or urgently
            if self._write >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write, b"w")

    def wait(self, timeout_s: float, *, at_least_s: float = 0.0) -> None:
        """Wait until woken, or for so long. A file that changes a thousand times a second is looked at every `at_least_s`."""
        deadline, earliest = time.monotonic() + timeout_s, self._last + at_least_s
        while True:
            ready = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]
            if ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._read, 65536)
            now = time.monotonic()
            if self._is_urgent or not ready or now >= earliest:
                break
            deadline = min(deadline, earliest)
        self._is_urgent = False
        self._last = now

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1
        self.wake(urgently=True)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.is_asked_to_end = True
        self.wake(urgently=True)
