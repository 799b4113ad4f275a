"""One place to wait for whatever comes first: a change in the file, the end of a thread, Ctrl-C, a wish to stop.

Signals only count and wake: nothing is torn out of the middle of what it does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from scitq.engine import Engine


class Attention:
    """Waits in the main thread. `interrupts` counts Ctrl-C; `is_asked_to_end` says that SIGTERM came."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.interrupts = 0
        self.is_asked_to_end = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before: dict[int, Any] = {}
        self._unsubscribe: Callable[[], None] | None = None
        if engine is not None:
            self.watch(engine)

    def watch(self, engine: Engine) -> None:
        """Wake at each change of the file."""
        self._unsubscribe = engine._store.subscribe(self.wake)

    def __enter__(self) -> Attention:
        for number, does in ((signal.SIGINT, self._interrupt), (signal.SIGTERM, self._end)):
            self._before[number] = signal.signal(number, does)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, does in self._before.items():
            signal.signal(number, does)
        if self._unsubscribe is not None:
            with contextlib.suppress(Exception):  # the engine may be closed by now, and with it the subscription
                self._unsubscribe()

    def wake(self) -> None:
        """End the present wait, from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"w")

    def wait(self, timeout_s: float | None) -> None:
        """Wait until woken, or for so long."""
        if select.select([self._read], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1
        self.wake()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.is_asked_to_end = True
        self.wake()
