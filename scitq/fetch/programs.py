"""Running rclone, aria2c and zstd: argument lists, a process group of their own, ended with everything they started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from scitq.fetch.errors import Cancelled, Stalled, TimedOut, ToolMissing
from scitq.fetch.retry import Watch
from scitq.fetch.settings import Settings

GRACE_S = 3.0  # between asking a child to end and ending it


def find(name: str, hint: str, uri: str = "") -> str:
    """Where the program is: on PATH, or beside this Python, where pip puts it even if PATH does not say so."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = shutil.which(name) or (beside if os.access(beside, os.X_OK) else None)
    if found is None:
        raise ToolMissing(f"The program {name} is not installed. {hint}", uri=uri, phase="start", program=name)
    return found


class Child:
    """A running program. Leaving the `with` block ends it, however it is left.

    What it says on its error channel (with `joined`, on both) goes to `on_line`, and the end of it is kept for errors.
    """

    def __init__(
        self, arguments: Sequence[str], settings: Settings, uri: str, phase: str, *,
        on_line: Callable[[bytes], None] | None = None, writes: bool = False, reads: bool = False,
        env: Mapping[str, str] | None = None, joined: bool = False,
    ) -> None:  # fmt: skip
        self._settings, self.uri, self.phase = settings, uri, phase
        settings.cancel.check(uri, phase)
        given = subprocess.PIPE if reads else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                list(arguments), stdin=given, stdout=subprocess.PIPE if writes or joined else subprocess.DEVNULL,
                stderr=subprocess.STDOUT if joined else subprocess.PIPE, start_new_session=True,
                env=None if env is None else dict(env),
            )  # fmt: skip
        except OSError as error:
            raise ToolMissing(f"{arguments[0]} cannot be started: {error.strerror}.", uri=uri, phase=phase) from error
        self.stdin, self.stdout = self._process.stdin, None if joined else self._process.stdout
        heard = self._process.stdout if joined else self._process.stderr
        assert heard is not None
        self._heard = heard
        self.tail: list[bytes] = []
        self._on_line = on_line
        self._failed: BaseException | None = None
        self._reaping = threading.Lock()
        self._is_ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True, name="scitq-child")
        self._listener.start()
        self._waking = settings.cancel.waking(lambda: self._signal(signal.SIGTERM))
        self._waking.__enter__()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Its number; it leads a group of its own."""
        return self._process.pid

    def _listen(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self._heard:
                self.tail.append(line)
                del self.tail[:-200]
                if self._on_line is not None and self._failed is None:
                    try:
                        self._on_line(line)
                    except BaseException as error:  # of the one who watches: it ends the transfer
                        self._failed = error
                        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        with self._reaping:
            # Before it is reaped its number is nobody else's, even if it ended.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _reap(self) -> int:
        while True:
            with self._reaping:
                status = self._process.poll()
            if status is not None:
                return status
            time.sleep(0.01)  # it has closed its error channel, so it is about to end

    def wait(self, alive: Callable[[], object] | None = None, total_s: float | None = None) -> int:
        """Its exit status. Ended when what `alive` returns does not change for too long, or the whole takes too long."""
        watch = Watch(self._settings.stall_timeout_s if alive else float("inf"), total_s)
        before: object = None
        while self._listener.is_alive():
            self._listener.join(1.0)
            if alive is not None and (now := alive()) != before:
                before = now
                watch.moved()
            if self._settings.cancel.is_set or self._failed is not None:
                break
            if watch.left_s() <= 0:
                kind = TimedOut if watch.is_late else Stalled
                self.end()
                raise kind(watch.verdict(self.uri), uri=self.uri, phase=self.phase)
        if self._settings.cancel.is_set or self._failed is not None:
            self.end()
        status = self._reap()
        if self._failed is not None:
            raise self._failed
        if self._settings.cancel.is_set:
            raise Cancelled(f"{self.uri}: cancelled.", uri=self.uri, phase=self.phase)
        return status

    def end(self, *, at_once: bool = False) -> None:
        """End it and all that it started; nothing if it ended. `at_once`: before it can see its input end."""
        if self._is_ended:
            return
        self._is_ended = True
        self._waking.__exit__(None, None, None)
        if at_once:
            self._signal(signal.SIGKILL)
            self._listener.join()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._signal(signal.SIGTERM)
        self._listener.join(GRACE_S)
        self._signal(signal.SIGKILL)  # what does not listen, and what it left behind
        self._listener.join()
        self._reap()
        self._heard.close()

    @property
    def said(self) -> str:
        """The last ten lines of what it said."""
        return b"".join(self.tail[-10:]).decode("utf-8", "replace").strip()
