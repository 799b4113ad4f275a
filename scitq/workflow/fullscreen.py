"""A view that fills a terminal: drawn anew when something changes, left by a key, with the terminal put back however it ends.

What it shows and what keys do is said by whoever builds on it: `screen` for a workflow, `shell.top` for workers and what they run.
One thread draws and hears keys, one reads the file (`reading`), one does what was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import DynamicContainer, FormattedTextControl, Layout, Window
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.styles import Style

from scitq.errors import ScitqError
from scitq.workflow.aside import Aside
from scitq.workflow.cells import Line
from scitq.workflow.left import Left

STYLE = Style.from_dict(
    {
        "title": "reverse bold", "heading": "bold", "name": "bold", "dim": "ansibrightblack", "live": "ansicyan", "good": "ansigreen",
        "bad": "ansired bold", "warn": "ansiyellow", "error": "ansired", "bar": "ansigreen", "selected": "reverse", "changed": "reverse",
        "question": "bold", "keys": "ansibrightblack",
    }
)  # fmt: skip
# Terminals that have no colours, whatever else they may do.
COLOURLESS = ("vt52", "vt100", "vt102", "vt220", "vt320", "xterm-mono")


class Fullscreen(ABC):
    """One showing of something. `is_busy` while something that was asked for is being done."""

    def __init__(self) -> None:
        self.last_key = time.monotonic()
        self.is_busy = False
        self._is_off = False
        self._is_interrupted = False
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="scitq-hands")
        self.main = Window(
            FormattedTextControl(self._fragments, focusable=True, show_cursor=False), always_hide_cursor=True
        )
        self._application: Application[Left] | None = None

    # --- what is shown, said by who builds on it --------------------------------------------------------------------------

    @abstractmethod
    def frame(self, cells: int, rows: int) -> list[Line]:
        """The whole screen: just so many rows, none wider than that."""

    @abstractmethod
    def bindings(self) -> KeyBindings:
        """What keys do."""

    @abstractmethod
    def say(self, text: str, style: str = "") -> None:
        """A sentence below, until the next key."""

    @abstractmethod
    def read(self) -> None:
        """Read what is shown now anew."""

    @abstractmethod
    def begin(self) -> None:
        """It is on the screen from now on."""

    @abstractmethod
    def end(self) -> None:
        """It is not any more."""

    @abstractmethod
    def drawn(self, seconds: float) -> None:
        """A drawing took so long."""

    def container(self) -> Any:
        """What fills the screen now."""
        return self.main

    # --- its life -------------------------------------------------------------------------------------------------------

    def run(self) -> Left:
        """Show it. What is printed meanwhile comes after."""
        self._application = application = self._made()
        with Aside(self._on_line), self._put_back_when_told_to_end() as told:
            try:
                left = application.run(
                    pre_run=self._begin, set_exception_handler=False, handle_sigint=False, in_thread=_has_loop()
                )
            except (EOFError, KeyboardInterrupt):
                left = Left.INTERRUPTED
            finally:
                self._is_off = True
                self.end()
                self._hands.shutdown(cancel_futures=True)
        if told:
            # The terminal is as it was: now the signal may do what it does.
            os.kill(os.getpid(), told[0])
        return left

    def _made(self) -> Application[Left]:
        application: Application[Left] = Application(
            layout=Layout(DynamicContainer(self.container), focused_element=self.main), key_bindings=self.bindings(),
            style=STYLE, full_screen=True, output=create_output(sys.stdout), color_depth=colours(), mouse_support=False,
            # Polling for a new size is for those whom no signal reaches.
            terminal_size_polling_interval=None if threading.current_thread() is threading.main_thread() else 0.5,
        )  # fmt: skip
        application.ttimeoutlen = 0.05
        return application

    @property
    def is_off(self) -> bool:
        """Nobody looks at it any more."""
        return self._is_off

    def leave(self, left: Left) -> None:
        """End the showing."""
        with contextlib.suppress(Exception):  # it may be ending already
            self.application.exit(result=left)

    def fail(self, problem: BaseException) -> None:
        """End it by an error, which comes out of `run`."""
        with contextlib.suppress(Exception):
            self.application.exit(exception=problem)

    @property
    def application(self) -> Application[Left]:
        """Who draws and hears keys, once it runs."""
        assert self._application is not None
        return self._application

    def _begin(self) -> None:
        self.begin()
        if self._is_interrupted:
            self.soon(lambda: self.leave(Left.INTERRUPTED))

    @contextlib.contextmanager
    def _put_back_when_told_to_end(self) -> Iterator[list[int]]:
        """SIGTERM and SIGHUP end the showing first; they do what they do once the terminal is as it was before."""
        told: list[int] = []
        if threading.current_thread() is not threading.main_thread():
            yield told
            return

        def end(number: int, frame: FrameType | None) -> None:
            told.append(number)
            interrupt(number, frame)

        def interrupt(number: int, frame: FrameType | None) -> None:
            self._is_interrupted = True  # which is looked at when it has not begun yet
            self.soon(lambda: self.leave(Left.INTERRUPTED))

        wanted = {signal.SIGINT: interrupt, signal.SIGTERM: end, signal.SIGHUP: end}
        before: dict[int, Any] = {number: signal.signal(number, does) for number, does in wanted.items()}
        try:
            yield told
        finally:
            for number, does in before.items():
                signal.signal(number, does)

    # --- from the other threads -----------------------------------------------------------------------------------------

    def soon(self, does: Callable[[], None]) -> None:
        """Have the thread that draws do it."""
        loop = None if self._application is None else self._application.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is over
                loop.call_soon_threadsafe(self.guarded, does)

    def soon_say(self, text: str) -> None:
        """A sentence from the thread that does things."""
        self.soon(lambda: self.say(text))

    def guarded(self, does: Callable[[], object]) -> None:
        """Do it. What cannot be done is said; a mistake of ours ends the showing, and comes out of `run`."""
        try:
            does()
        except ScitqError as problem:  # what it was about is gone, say
            self.say(str(problem), "bad")
        except Exception as problem:
            self.fail(problem)

    def _on_line(self, line: str) -> None:
        self.soon(lambda: self.say(line, "warn"))

    # --- for what keys do -----------------------------------------------------------------------------------------------

    def do(self, deed: Callable[[], str], then: Callable[[], None] | None = None) -> None:
        """Do something that may take its time, say what came of it, and read anew."""

        def done(text: str, style: str) -> None:
            self.is_busy = False
            self.say(text, style)
            if not style and then is not None:
                then()
            self.read()

        def work() -> None:
            try:
                said, style = deed(), ""
            except ScitqError as problem:
                said, style = str(problem), "bad"
            except BaseException as problem:
                self.soon(lambda problem=problem: self.fail(problem))  # type: ignore[misc]
                return
            self.soon(lambda: done(said, style))

        self.is_busy = True
        self._hands.submit(work)

    def key(self, does: Callable[[], object]) -> None:
        """A key was pressed, which does this."""
        self.last_key = time.monotonic()
        self.guarded(does)
        self.application.invalidate()

    def redraw(self) -> None:
        """What is shown has changed."""
        if self._application is not None:
            self._application.invalidate()

    # --- drawing --------------------------------------------------------------------------------------------------------

    def _fragments(self) -> StyleAndTextTuples:
        began = time.thread_time()
        size = self.application.output.get_size()
        try:
            lines = self.frame(size.columns, size.rows)
        except Exception as problem:
            self.fail(problem)
            return []
        found = _joined(lines)
        # Laying it out in the terminal takes about four times as long as this.
        self.drawn(5 * (time.thread_time() - began))
        return found


def _joined(lines: list[Line]) -> StyleAndTextTuples:
    found: StyleAndTextTuples = []
    for number, line in enumerate(lines):
        if number:
            found.append(("", "\n"))
        found += [(f"class:{style}" if style else "", text) for style, text in line]
    return found


def colours() -> ColorDepth | None:
    """None: as the terminal says."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in COLOURLESS:
        return ColorDepth.DEPTH_1_BIT
    return None


def _has_loop() -> bool:
    """Whether this thread runs coroutines already: a screen then needs another one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
