"""Questions to whoever is at the terminal, or at the other end of a pipe: a letter, a number, an edited text; and what is told.

prompt-toolkit reads where there is a terminal, and is loaded by the first question there. In a pipe an answer is a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Mapping
from typing import Any, TextIO

from scitq.saying import Harmless, clean
from scitq.store import logs

_STREAMS = {logs.OUT: "\x1b[34m", logs.ERR: "\x1b[31m"}
_WARNING, _PLAIN = "\x1b[31m", "\x1b[0m"
END = "."
"""In a pipe, the line that ends an edited text."""


class Finished(Exception):
    """Nobody is there any more to answer."""


class Asker:
    """A conversation."""

    def __init__(self, source: TextIO | None = None, sink: TextIO | None = None) -> None:
        self._source: TextIO = source or sys.stdin
        self._sink: TextIO = sink or sys.stdout
        self.is_terminal = self._source.isatty() and self._sink.isatty()
        self._has_colour = self.is_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._session: Any = None
        self._filters: dict[int, Harmless] = {}
        self._is_within_line = False

    # --- telling ----------------------------------------------------------------------------------------------------------

    def say(self, text: str, *, is_warning: bool = False) -> None:
        """A line, or several; nothing in it commands the terminal."""
        shown = "\n".join(clean(line) for line in text.split("\n"))
        if is_warning and self._has_colour:
            shown = f"{_WARNING}{shown}{_PLAIN}"
        self._write(f"{self._break()}{shown}\n")

    def piece(self, stream: int, data: bytes) -> None:
        """What a task wrote, in the colour of its stream."""
        text = self._filters.setdefault(stream, Harmless()).feed(data)
        if not text:
            return
        self._is_within_line = not text.endswith("\n")
        self._write(f"{_STREAMS[stream]}{text}{_PLAIN}" if self._has_colour else text)

    def pieces_end(self) -> None:
        """The task writes no more: what was held back of an unfinished sequence, and the end of its line."""
        rest = "".join(each.end() for each in self._filters.values())
        self._filters.clear()
        self._write(rest + self._break())

    def _break(self) -> str:
        is_within, self._is_within_line = self._is_within_line, False
        return "\n" if is_within else ""

    def _write(self, text: str) -> None:
        if text:
            self._sink.write(
                text.encode(self._sink.encoding or "utf-8", "backslashreplace").decode(self._sink.encoding or "utf-8")
            )
            self._sink.flush()

    # --- asking -----------------------------------------------------------------------------------------------------------

    def choose(self, question: str, choices: Mapping[str, str], *, numbers: int = 0) -> str:
        """One of the letters of `choices` (what each means); Enter is the first. A number up to `numbers` is an answer too.

        Raises:
            Finished: there is no answer, and will be none.
            KeyboardInterrupt: Ctrl-C.
        """
        first = next(iter(choices))
        shown = ", ".join(_choice(letter, meaning, is_first=letter == first) for letter, meaning in choices.items())
        while True:
            answer = self._line(f"{question} {shown}: ").strip()
            if not answer:
                return first
            if answer.isdecimal() and 0 < int(answer) <= numbers:
                return answer
            letter = answer[0].lower()
            if letter in choices and (len(answer) == 1 or answer.lower() in _words(letter, choices[letter])):
                return letter
            self.say(
                f"{answer!r} is none of {', '.join(choices)}" + (f", or a number up to {numbers}." if numbers else ".")
            )

    def edit(self, text: str) -> str | None:
        """The text as somebody has edited it; None when it is to stay as it was."""
        if not self.is_terminal:
            self.say(f"The new command, line by line; a line with {END} alone ends it.")
            lines: list[str] = []
            with contextlib.suppress(Finished):
                while (line := self._line("")) != END:
                    lines.append(line)
            return "\n".join(lines) or None
        is_long = "\n" in text
        self.say("Edit the command: Esc then Enter ends, Ctrl-C leaves it as it was." if is_long
                 else "Edit the command: Enter ends, Ctrl-C leaves it as it was.")  # fmt: skip
        try:
            edited: str = self._prompt("> ", default=text.rstrip("\n"), multiline=is_long)
        except (KeyboardInterrupt, Finished):
            return None
        return edited if edited.strip() and edited != text.rstrip("\n") else None

    def _line(self, question: str) -> str:
        self._write(self._break())
        if self.is_terminal:
            return self._prompt(question)
        self._write(question)
        line = self._source.readline()
        if not line:
            if question:
                self._write("\n")
            raise Finished
        if question:
            self._write("\n")  # the answer is on no screen
        return line.removesuffix("\n")

    def _prompt(self, question: str, **more: Any) -> str:
        if self._session is None:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.output import create_output

            output: Any = create_output(self._sink)
            if hasattr(output, "enable_cpr"):
                output.enable_cpr = False  # a terminal that does not say where its cursor is would be complained about
            self._session = PromptSession(output=output)
        with contextlib.suppress(termios.error, OSError):
            termios.tcflush(self._source, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        try:
            found: str = self._session.prompt(question, **{"default": "", "multiline": False, **more})
        except EOFError:
            raise Finished from None
        return found


def _choice(letter: str, meaning: str, *, is_first: bool) -> str:
    """`[Y]es`, `[n] another`."""
    shown = letter.upper() if is_first else letter
    return f"[{shown}]{meaning[1:]}" if meaning.startswith(letter) else f"[{shown}] {meaning}"


def _words(letter: str, meaning: str) -> tuple[str, ...]:
    return (
        ("yes",) if letter == "y" else (meaning.lower(), meaning.split()[0].lower(), "no" if letter == "n" else letter)
    )
