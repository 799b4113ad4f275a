"""Work that Ctrl-C, SIGTERM and a closed terminal end in order: what transfers is told, cleans up, and only then we go.

The work is done by a thread of its own. The main thread waits for it and for signals: a handler that ran in the middle of a
transfer could wait for a lock which that very transfer holds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from scitq.fetch.retry import Cancel

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A program that does not listen is killed after 3 s. Only a name server or a disk that hangs can keep us longer.
PATIENCE_S = 8.0


class Stopped(Exception):
    """A signal ended it. `code` is the exit code for that."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Interrupted by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}.")
        self.code = 128 + number


def stoppable(work: Callable[[Cancel], T], leave: Callable[[Stopped], None]) -> T:
    """What the work gives. A signal sets its Cancel, and Stopped is raised once the work has ended.

    A second signal, or work that does not end, calls `leave` (to say so), and the process ends as it is.
    """
    cancel = Cancel()
    events: queue.SimpleQueue[int] = queue.SimpleQueue()  # the one queue that a signal handler may put into
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = work(cancel)
        except BaseException as error:
            outcome["error"] = error
        finally:
            events.put(0)

    def heard(number: int, frame: object) -> None:
        events.put(number)

    with contextlib.ExitStack() as before:
        for each in SIGNALS:
            if (handler := signal.getsignal(each)) is not signal.SIG_IGN:  # nohup
                before.callback(signal.signal, each, handler)
                signal.signal(each, heard)
        threading.Thread(target=run, daemon=True, name="scitq-fetch").start()
        stopped: Stopped | None = None
        while True:
            number: int
            try:
                number = events.get(timeout=None if stopped is None else PATIENCE_S)
            except queue.Empty:
                number = signal.SIGTERM
            if not number:
                break
            if stopped is not None:
                leave(stopped)
                os._exit(stopped.code)
            stopped = Stopped(number)
            cancel.set()
    if "result" in outcome:
        result: T = outcome["result"]
        return result
    error: BaseException = outcome["error"]
    if stopped is not None:
        raise stopped from error
    raise error
