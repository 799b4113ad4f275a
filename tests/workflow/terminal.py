"""A real pseudo-terminal to test in: a program in it, what it draws put together by a terminal of ours (pyte), keys sent to it.

Waits for what ought to appear, with a deadline; never just sleeps. `pexpect` reads; the child is started by `subprocess`, since
a `forkpty` of a process with threads, as a test with an engine is, may leave the child waiting for ever.
"""

from __future__ import annotations

import codecs
import copy
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pexpect
import pyte
from pexpect.fdpexpect import fdspawn

DEADLINE_S = 60.0
# What the keys of an xterm send.
KEYS = {
    "enter": "\r", "esc": "\x1b", "tab": "\t", "backspace": "\x7f", "space": " ", "up": "\x1b[A", "down": "\x1b[B",
    "right": "\x1b[C", "left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F", "pageup": "\x1b[5~", "pagedown": "\x1b[6~",
    "delete": "\x1b[3~", "f2": "\x1bOQ", **{f"c-{letter}": chr(ord(letter) - 96) for letter in "abcdefghijklmnopqrstuvwxyz"},
}  # fmt: skip
# Opened by the child itself, as the leader of its session, so that it becomes its controlling terminal: Ctrl-C arrives.
_ON_TERMINAL = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'


class Terminal:
    """A program in a pseudo-terminal of a given size. A context manager: at its end the program is killed, if it still runs.

    `ended` is the program's exit code once `wait_end` has seen it; `written` all bytes it wrote.
    """

    def __init__(
        self, words: Sequence[str | os.PathLike[str]], *, folder: Path | None = None, environ: Mapping[str, str] | None = None,
        columns: int = 80, rows: int = 24, term: str = "xterm-256color",
    ) -> None:  # fmt: skip
        sizes = ("COLUMNS", "LINES", "NO_COLOR")  # somebody's own must not hide the terminal's
        given = {name: value for name, value in os.environ.items() if name not in sizes}
        given |= {"TERM": term, "LC_ALL": "C.UTF-8", **(environ or {})}
        self._screen = _Screen(columns, rows, self._reply)
        self._stream = pyte.Stream(self._screen)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.written = b""
        self.ended: int | None = None
        self._ours, theirs = os.openpty()
        try:
            self._set_size(columns, rows)
            self._program = subprocess.Popen(
                ["/bin/sh", "-c", _ON_TERMINAL, "sh", os.ttyname(theirs), *[os.fspath(word) for word in words]],
                cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True,
            )  # fmt: skip
            self.modes = termios.tcgetattr(theirs)
            self._theirs = theirs  # kept: the terminal outlives the program, so that what it left can be looked at
        except BaseException:
            os.close(self._ours)
            os.close(theirs)
            raise
        self._reader = fdspawn(self._ours, timeout=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._program.pid

    # --- what is on the screen ----------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """The lines on the screen, without blanks at their ends, after what the program has written by now."""
        for _ in range(64):  # one that never stops writing is looked at all the same
            if not self._read(0.0):
                break
        return [line.rstrip() for line in self._screen.display]

    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines())

    def styles(self, line: int) -> list[Any]:
        """The characters of a line with their colours and weights, as pyte has them."""
        self._read(0.0)
        row = self._screen.buffer[line]
        return [row[column] for column in range(self._screen.columns)]

    @property
    def is_raw(self) -> bool:
        """Whether the program has the terminal in raw mode now, so that typed letters are not shown."""
        return not termios.tcgetattr(self._theirs)[3] & (termios.ICANON | termios.ECHO)

    @property
    def is_on_other_screen(self) -> bool:
        """Whether the program has switched to the alternate screen."""
        return self.written.rfind(b"\x1b[?1049h") > self.written.rfind(b"\x1b[?1049l")

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_for(self, what: str | Callable[[list[str]], object], deadline_s: float = DEADLINE_S) -> list[str]:
        """Wait until a pattern is on the screen (^ and $ match at lines), or a function of the lines is true; gives the lines."""
        until = time.monotonic() + deadline_s
        while True:
            lines = self.lines()
            if re.search(what, "\n".join(lines), re.MULTILINE) if isinstance(what, str) else what(lines):
                return lines
            told = what if isinstance(what, str) else getattr(what, "__name__", "it")
            is_over = self._program.poll() is not None  # before the last look at what it wrote
            came = self._read(0.0 if is_over else 0.1)
            assert came or not is_over, f"{told!r} does not come, the program has ended:\n{self.text()}"
            assert time.monotonic() < until, f"{told!r} does not come. The screen:\n{self.text()}"

    def wait_until(self, holds: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Wait until something holds outside (in the state file), while the program goes on drawing."""
        until = time.monotonic() + deadline_s
        while not holds():
            screen = self.text()
            assert time.monotonic() < until, f"it does not come. The screen:\n{screen}"
            self._read(0.05)

    def wait_end(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait until the program has ended; gives its exit code (negative: the signal that ended it)."""
        until = time.monotonic() + deadline_s
        while self._program.poll() is None:
            assert time.monotonic() < until, f"it does not end. The screen:\n{self.text()}"
            self._read(0.05)
        while self._read(0.0):
            pass
        self.ended = self._program.returncode
        return self.ended

    # --- what a person does -------------------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Press keys: names as in `KEYS`, or a character each."""
        for key in keys:
            self._reply(KEYS.get(key, key))

    def type(self, text: str) -> None:
        """Type a text; no Enter after it."""
        self._reply(text)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the program hears of it."""
        self._read(0.0)
        self._screen.resize(rows, columns)
        self._set_size(columns, rows)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        os.kill(self._program.pid, number)

    def close(self) -> None:
        """End the program, and the terminal."""
        if self._program.poll() is None:
            # Its session is its own: what it started in the terminal ends with it.
            os.killpg(self._program.pid, signal.SIGKILL)
            self._program.wait()
        for fd in (self._ours, self._theirs):
            if fd >= 0:
                os.close(fd)
        self._ours = self._theirs = -1

    def _reply(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, timeout_s: float) -> bool:
        """Take in what the program has written; whether that was anything."""
        try:
            piece = self._reader.read_nonblocking(65536, timeout_s)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self.written += piece
        self._stream.feed(self._decode(piece))
        return True


class _Screen(pyte.Screen):  # type: ignore[misc, unused-ignore]
    """A screen that answers the program that asks where its cursor is, and that has an alternate one beside it (as xterm)."""

    def __init__(self, columns: int, rows: int, reply: Callable[[str], None]) -> None:
        self._answer = reply
        self._kept: Any = None
        super().__init__(columns, rows)

    def write_process_input(self, data: str) -> None:
        self._answer(data)

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if 1049 in modes and kwargs.get("private") and self._kept is None:
            self._kept = copy.deepcopy(self.buffer), self.cursor.x, self.cursor.y
            self.erase_in_display(2)
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        if 1049 in modes and kwargs.get("private") and self._kept is not None:
            self.buffer, x, y = self._kept
            self._kept = None
            self.cursor.x, self.cursor.y = min(x, self.columns - 1), min(y, self.lines - 1)
        super().reset_mode(*modes, **kwargs)
