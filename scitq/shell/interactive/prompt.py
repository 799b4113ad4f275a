"""The line that is edited, by prompt-toolkit: keys, the menu, what is printed above it while one types, and its end.

The toolbar's thread and the library's log speak while somebody types: what they say comes above the line, which stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.filters import Condition, is_done, is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style, merge_styles

from scitq import config, leaving
from scitq.errors import ScitqError
from scitq.leaving import Offer, Way
from scitq.saying import clean, harmless, several
from scitq.shell import facts
from scitq.shell.interactive import colouring
from scitq.shell.interactive.colouring import Colours
from scitq.shell.interactive.history import History
from scitq.shell.interactive.lines import missing, python_lacks
from scitq.shell.interactive.menu import Menu
from scitq.shell.interactive.session import Left, Session
from scitq.shell.interactive.toolbar import Glance, Seen
from scitq.shell.listings import Listings
from scitq.shell.show import Screen
from scitq.workflow.fullscreen import STYLE, colours

_GREETING = "Tab completes, help tells more, Ctrl-D leaves."
# No more of them at once: the rest is in scitq notices.
_NOTICES = 5
INTERRUPTED = 130


class Told(BaseException):
    """A signal asks this process to end."""


class Prompt:
    """The shell at a terminal."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._python = False
        self._code = 0
        self._modes = _modes()
        self._said: deque[tuple[str, str]] = deque(maxlen=200)
        self._shown: set[str] = set()
        self._told: list[int] = []
        self._line: PromptSession[str] | None = None
        self._is_reading = False
        self._listings = Listings(self._news)
        self._glance = Glance(self._on_look)
        session.on_change, session.may_leave, session.python_prompt = self._changed, self._may_leave, self._to_python
        session.between = Above(self._above)

    # --- its life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Read and do until the user leaves; gives the exit code."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGHUP)}
        session = self._session
        try:
            session.hear()
            if not self._open():
                return 1
            self._greet()
            while True:
                try:
                    if not self._once():
                        break
                except KeyboardInterrupt:  # between two things that hear it themselves
                    Screen().say("")
        except Told:
            facts.hush()
        finally:
            self._glance.stop()
            with contextlib.suppress(KeyboardInterrupt):
                stays = session.close()
                if stays and not self._told:
                    Screen().say(stays)
            self._put_back()
            for number, does in before.items():
                signal.signal(number, does)
        if self._told:
            os.kill(os.getpid(), self._told[0])  # the terminal is as it was: now the signal may do what it does
        return 0

    def _open(self) -> bool:
        try:
            _ = self._session.engine
        except (ScitqError, OSError) as problem:
            Screen().error(str(problem))
            return False
        return True

    def _greet(self) -> None:
        engine = self._session.engine
        if engine is None:
            Screen().say(
                f"There is no state file here: what is queued first makes one; use FILE opens another. {_GREETING}"
            )
            return
        holder = facts.driver_of(engine)
        who = f"driver: {holder.describe(facts.now_ms())}" if holder else "nobody drives"
        Screen().say(f"{engine.path.name} · {who} · {facts.counted(engine.counts())}\n{_GREETING}")

    def _once(self) -> bool:
        """One line; False at the end."""
        self._flush()
        try:
            text = self._read()
        except KeyboardInterrupt:
            return True
        except EOFError:
            if self._python:
                self._python = False
                self._changed()
                return True
            return not self._may_go()
        if self._told:
            raise Told
        if not text.strip():
            return True
        self._flush()
        try:
            if self._python:
                self._code = self._one_of_python(text)
            else:
                self._code = self._session.run(text)
        except Left:
            return False
        finally:
            self._put_back()
            if self._code == INTERRUPTED:
                Screen().say("")  # after the ^C that the terminal shows
            if self._session.path is not None and self._line is not None and self._history_of != self._session.path:
                self._line = None
        return True

    def _one_of_python(self, text: str) -> int:
        if text.strip() in ("exit", "quit", "exit()", "quit()"):
            self._python = False
            self._changed()
            return 0
        try:
            return self._session.python.run(text)
        except SystemExit:
            self._python = False
            self._changed()
            return 0

    def _read(self) -> str:
        line = self._line = self._line or self._made()
        self._is_reading = True
        try:
            with _silent():
                return line.prompt()
        finally:
            self._is_reading = False
            if self._told:
                raise Told

    def _may_go(self) -> bool:
        try:
            return self._may_leave()
        except (ScitqError, OSError) as problem:
            Screen().error(str(problem))
            return False

    def _may_leave(self) -> bool:
        """Whether the user leaves the file, after the question what becomes of the work that is driven here."""
        engine = self._session.surroundings.engine
        if engine is None or engine._closed:
            return True
        way = leaving.ask(engine, self._ask)
        if way is None:
            return True
        if way is Way.STAY:
            return False
        for said in leaving.carry_out(engine, way):
            Screen().say(said)
        return True

    def _ask(self, offer: Offer) -> str:
        """One line of an answer; Ctrl-C and Ctrl-D are to stay."""
        with contextlib.suppress(termios.error):
            termios.tcflush(0, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        sys.stderr.write(f"{harmless(offer.text)} [{'/'.join(offer.ways)}] ")
        sys.stderr.flush()
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):
            sys.stderr.write("\n")
            sys.stderr.flush()
        return answer

    def _end(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, SIGHUP: out of whatever is done, in order."""
        if self._told:
            return
        self._told.append(number)
        line = self._line
        if self._is_reading and line is not None and line.app.is_running:
            with contextlib.suppress(Exception):
                line.app.exit(exception=EOFError)
                return
        raise Told

    def _put_back(self) -> None:
        """The terminal as it was, whatever a program has left it in."""
        if self._modes is not None and _modes() != self._modes:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self._modes)

    # --- from the other threads -----------------------------------------------------------------------------------------

    def _above(self, kind: str, sentence: str) -> None:
        """Say something above the line that is edited; at once, if there is one."""
        self._said.append((kind, sentence))
        line = self._line
        loop = line.app.loop if line is not None and self._is_reading else None
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is over
                loop.call_soon_threadsafe(self._flush_above)

    def _flush_above(self) -> None:
        if not self._said or self._line is None or not self._line.app.is_running:
            return
        app = self._line.app
        if app._running_in_terminal:  # an editor has the terminal, say
            run_in_terminal(self._flush)
            return
        # Not by that otherwise: it switches the echo on for a moment, and where the terminal was just asked where its cursor is,
        # as after Ctrl-L, its answer would be seen. Lines end as well without it.
        app.renderer.erase()
        self._flush()
        app.renderer.request_absolute_cursor_position()
        app.invalidate()

    def _flush(self) -> None:
        while self._said:
            kind, sentence = self._said.popleft()
            Screen().say(sentence, kind=kind)

    def _on_look(self, seen: Seen) -> None:
        # What grows (a hundred equal failures) is said once; what comes again after it was over is said again.
        fresh = [one for one in seen.notices if one.key not in self._shown]
        self._shown = {one.key for one in seen.notices}
        for one in fresh[:_NOTICES]:
            self._above("note", f"Notice: {clean(one.text)}")
        if len(fresh) > _NOTICES:
            self._above("note", f"… and {several(len(fresh) - _NOTICES, 'more notice')}: notices")
        self._redraw()

    def _news(self) -> None:
        """A remote folder was listed: what the menu was waiting for is there."""
        line = self._line
        loop = line.app.loop if line is not None and self._is_reading else None
        if line is not None and loop is not None:
            buffer = line.default_buffer

            def complete() -> None:
                if buffer.complete_state is None or buffer.complete_state.complete_index is None:
                    buffer.start_completion(select_first=False)

            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(complete)

    def _redraw(self) -> None:
        if self._line is not None and self._is_reading:
            self._line.app.invalidate()

    def _changed(self) -> None:
        """Another file, or another engine of it."""
        self._glance.watch(self._session.surroundings.engine)
        self._line = None

    def _to_python(self) -> None:
        engine = self._session.engine
        name = "nothing" if engine is None else engine.path.name
        Screen().say(f"Python {sys.version.split()[0]}; q is {name}. Ctrl-D leads back.")
        self._python = True
        self._line = None

    # --- how it looks ---------------------------------------------------------------------------------------------------

    def _made(self) -> PromptSession[str]:
        engine = self._session.surroundings.engine
        self._history_of = self._session.path
        side = None if engine is None else engine.side
        history = InMemoryHistory() if self._python else History(side)
        look = Style.from_dict(colouring.STYLE)
        is_toolbar_wanted = config.load().get("shell.toolbar")
        return PromptSession(
            message=self._message, multiline=True, prompt_continuation=self._continuation, lexer=Colours(is_python=self._python),
            completer=Menu(self._session, self._listings, is_python=self._python), complete_in_thread=True, complete_while_typing=True,
            complete_style=CompleteStyle.COLUMN, auto_suggest=AutoSuggestFromHistory(), history=history,
            bottom_toolbar=self._toolbar if is_toolbar_wanted else None, style=merge_styles([STYLE, look]),
            include_default_pygments_style=False,
            color_depth=colours(), key_bindings=self._keys(), enable_suspend=True, enable_open_in_editor=True,
            output=create_output(sys.stdout), reserve_space_for_menu=6,
        )  # fmt: skip

    def _message(self) -> StyleAndTextTuples:
        if self._python:
            return [("class:prompt", ">>> ")]
        path = self._session.path
        name = "no file" if path is None else clean(path.name)
        room = max(6, os.get_terminal_size().columns // 2 if os.isatty(1) else 40)
        name = name if len(name) <= room else name[: room - 1] + ("…" if self._is_utf8 else "~")
        mark = "▸" if self._is_utf8 else ">"
        return [("class:name", name), ("class:prompt.bad" if self._code else "class:prompt", f" {mark} ")]

    def _continuation(self, width: int, line_number: int, wraps: int) -> StyleAndTextTuples:
        if wraps:
            return []
        mark = "... " if self._python else "… " if self._is_utf8 else ".. "
        return [("class:continuation", mark if width < len(mark) else mark.rjust(width) if not self._python else mark)]

    def _toolbar(self) -> StyleAndTextTuples:
        seen = self._glance.seen
        if seen is None:
            return [("", " ")]
        columns = self._line.app.output.get_size().columns if self._line is not None else 80
        return [*seen.fragments(columns, plain=not self._is_utf8)]

    def _lacks(self, text: str) -> bool:
        if self._python:
            return bool(python_lacks(text))
        return bool(missing(text))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        is_edited = Condition(lambda: True) & ~is_searching & ~is_done

        @keys.add("enter", filter=is_edited)
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            state = buffer.complete_state
            if state is not None and state.current_completion is not None:
                buffer.complete_state = None  # what was chosen in the menu is taken; the next Enter runs it
                return
            buffer.complete_state = None
            if self._lacks(buffer.text):
                buffer.insert_text(
                    "\n" + _indent(buffer.document.current_line_before_cursor, is_code=self._is_code(buffer.text))
                )
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=is_edited)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("tab", filter=is_edited & Condition(self._is_at_indent))
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("    ")

        return keys

    def _is_code(self, text: str) -> bool:
        return self._python or text.startswith((">", "py "))

    def _is_at_indent(self) -> bool:
        line = self._line
        if line is None:
            return False
        document = line.default_buffer.document
        is_later = document.cursor_position_row > 0 or self._python
        return self._is_code(document.text) and is_later and not document.current_line_before_cursor.strip()


def _indent(line: str, *, is_code: bool) -> str:
    """What the next line begins with: as this one, and deeper after a colon."""
    if not is_code:
        return ""
    body = line
    for prefix in ("> ", "py "):
        body = body.removeprefix(prefix)
    before = body[: len(body) - len(body.lstrip())] if body is line or not line.startswith((">", "py")) else ""
    return before + ("    " if body.rstrip().endswith(":") else "")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The terminal shows nothing by itself, also in the moments before and after a line is edited: not where its cursor is, which it
    is asked for when Ctrl-C and Ctrl-L come at once, say."""
    modes = _modes()
    if modes is None:
        yield
        return
    flags = modes[3]
    termios.tcsetattr(0, termios.TCSANOW, [*modes[:3], flags & ~termios.ECHO, *modes[4:]])
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, modes)


def _modes() -> list[Any] | None:
    try:
        return termios.tcgetattr(0)
    except termios.error:
        return None


class Above(Screen):
    """A screen whose sentences come above the line that is edited."""

    def __init__(self, above: Callable[[str, str], None]) -> None:
        super().__init__()
        self._above = above

    def say(self, sentence: str, *, kind: str = "note") -> None:
        self._above(kind, sentence)
