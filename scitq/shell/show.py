"""Printing: results to stdout, everything else to stderr; tables that fit the terminal, plain text in pipes, JSON on request.

Nothing here knows a command, and nothing heavy is loaded for a table.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scitq import config
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, bare, shown
from scitq.shell.terminal import Harmless, harmless

STYLES = {
    "succeeded": "green", "ready": "green", "failed": "red", "unreachable": "red", "blocked": "yellow", "cancelled": "yellow",
    "running": "cyan", "collecting": "cyan", "waiting": "dim",
}  # fmt: skip
_NARROWEST = 8
# Columns that do not say what they are worth are worth so much at least: those on the left more.
LEAST_WORTH = 46
_CODES = {"heading": "1", "green": "32", "red": "31", "yellow": "33", "cyan": "36", "dim": "2"}


class Screen:
    """Where a command's answer goes. One for each run of the program."""

    # The lines of an answer, while it is seen whether they are more than the screen holds.
    _held: list[str] | None = None
    # Whether the pager of the settings is wanted, if there is one.
    has_pager = True

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_terminal = _is_terminal(1)
        self.errors_are_terminal = _is_terminal(2)
        self.has_colour = config.has_colour()
        self._filters: dict[int, Harmless] = {}
        self._line = ""

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        import shutil  # with all it knows of archives

        return max(40, shutil.get_terminal_size((80, 24)).columns)

    # --- answers ----------------------------------------------------------------------------------------------------------

    def answer(self, answer: Rows | Text | int | None) -> int:
        """Print what a command returned; gives the exit code."""
        if not isinstance(answer, Rows | Text):
            return answer or 0
        pager = _pager() if self.has_pager and self.is_terminal and not self.as_json else []
        self._held = [] if pager else None
        try:
            self._rows(answer) if isinstance(answer, Rows) else self._text(answer)
        finally:
            held, self._held = self._held, None
        if held:
            self._paged(pager, held)
        if not self.as_json:
            for note in answer.notes:
                self.say(note)
        return answer.code

    def json(self, data: Any) -> None:
        """One JSON value on one line of stdout."""
        self.out(json.dumps(bare(data), ensure_ascii=False, allow_nan=False))

    def out(self, line: str, fd: int = 1) -> None:
        """One line of stdout."""
        if self._held is not None and fd == 1:
            self._held += line.split("\n")
            return
        write(fd, (line + "\n").encode(errors="backslashreplace"))

    def _paged(self, pager: list[str], lines: list[str]) -> None:
        from scitq.shell import paging

        if paging.is_long(lines):
            if (problem := paging.show(pager, lines)) is None:
                return
            self.say(problem)
        for line in lines:
            self.out(line)

    def _rows(self, answer: Rows) -> None:
        if self.as_json:
            self.json([visible(row) for row in answer.rows])
        else:
            self.table(answer)

    def table(self, answer: Rows, fd: int = 1) -> None:
        """A table: on stdout where it is the result, on stderr (2) beside a question."""
        if not answer.rows and not answer.head:
            return
        cells, right = cells_of(answer.columns, answer.rows)
        head = [(column.heading if column.heading is not None else column.key) for column in answer.columns]
        if not answer.plain and (self.is_terminal if fd == 1 else self.errors_are_terminal):
            self._fitted(answer, head, cells, right, fd)
        else:
            for line in plain_table(head if answer.head else None, cells, right):
                self.out(line, fd)

    def _fitted(self, answer: Rows, head: list[str], rows: list[list[str]], right: list[bool], fd: int) -> None:
        """As wide as the terminal at most, unless nothing is to be cut; with colours."""
        from scitq.workflow import cells

        columns = [
            cells.Column(
                name if answer.head else "",
                [(STYLES.get(row[place], ""), row[place]) for row in rows],
                one.worth if one.worth is not None else max(LEAST_WORTH, 99 - place),
                right=right[place],
                least=_NARROWEST if one.gives else None,
                good=one.good,
            )
            for place, (one, name) in enumerate(zip(answer.columns, head, strict=True))
        ]
        room = self.width if answer.cut else cells.total(columns)
        left_out = len(columns) - len(cells.fitting(columns, room))
        lines = cells.table(columns, room)
        for number, line in enumerate(lines if answer.head else lines[1:]):
            shown = self._coloured(line)
            if number == 0 and answer.head and left_out and cells.width("".join(text for _, text in line)) + 3 <= room:
                shown += "  …"
            self.out(shown, fd)

    def _coloured(self, line: Sequence[tuple[str, str]]) -> str:
        """A line without blanks at its end."""
        parts = list(line)
        while parts and not parts[-1][1].strip():
            parts.pop()
        if parts:
            parts[-1] = (parts[-1][0], parts[-1][1].rstrip())
        if not self.has_colour:
            return "".join(text for _, text in parts)
        return "".join(f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style else text for style, text in parts)

    def _text(self, answer: Text) -> None:
        if self.as_json:
            self.json(answer.data)
        elif answer.text:
            text = harmless(answer.text) if self.is_terminal and not answer.safe else answer.text
            self.out(self.folded(text) if answer.folds else text)

    def folded(self, text: str, *, is_terminal: bool | None = None) -> str:
        """On a terminal: with lines that are broken between words."""
        if not (self.is_terminal if is_terminal is None else is_terminal):
            return text
        from scitq.shell.folding import folded

        return folded(text, self.width)

    # --- what is not the result -------------------------------------------------------------------------------------------

    def say(self, sentence: str, *, kind: str = "note") -> None:
        """A sentence on stderr."""
        if self.as_json:
            write(2, (json.dumps({kind: sentence}, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
            return
        self.clear_line()
        text = harmless(sentence) if self.errors_are_terminal else sentence
        text = self.folded(text, is_terminal=self.errors_are_terminal)
        if kind == "error" and self.errors_are_terminal and self.has_colour:
            text = f"\x1b[31m{text}\x1b[0m"
        write(2, (text + "\n").encode(errors="backslashreplace"))

    def error(self, sentence: str) -> None:
        """The sentence of an error: red on a terminal."""
        self.say(sentence, kind="error")

    def ask(self, question: str) -> bool | None:
        """A question to be answered with y; anything else is no. None: there is no terminal to ask on."""
        if self.as_json or not (self.errors_are_terminal and _is_terminal(0)):
            return None
        self.clear_line()
        with contextlib.suppress(termios.error):
            termios.tcflush(0, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        asked = self.folded(f"{harmless(question)} [y/N]", is_terminal=True)
        write(2, f"{asked} ".encode(errors="backslashreplace"))
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            self.say("")
        return answer.strip().lower() in ("y", "yes")

    def status_line(self, text: str) -> None:
        """One line at the bottom of a terminal that is written over by the next; nothing elsewhere."""
        if not self.errors_are_terminal or self.as_json or text == self._line or os.environ.get("TERM") == "dumb":
            return
        self._line = text
        room = self.width - 1
        write(2, ("\r\x1b[K" + (text if len(text) <= room else text[: room - 1] + "…")).encode())

    def clear_line(self) -> None:
        """Take the status line away."""
        if self._line:
            self._line = ""
            write(2, b"\r\x1b[K")

    # --- what tasks write -------------------------------------------------------------------------------------------------

    def exact(self, fd: int, piece: bytes) -> None:
        """Bytes as they are."""
        write(fd, piece)

    def piece(self, fd: int, piece: bytes) -> None:
        """Bytes of a task's output: as they are into a pipe or file, made harmless for a terminal."""
        if not _is_terminal(fd):
            write(fd, piece)
            return
        filter = self._filters.setdefault(fd, Harmless())
        write(fd, filter.feed(piece).encode(errors="backslashreplace"))

    def pieces_end(self) -> None:
        """What was held back of an unfinished sequence."""
        for fd, filter in self._filters.items():
            write(fd, filter.end().encode(errors="backslashreplace"))
        self._filters.clear()


@contextlib.contextmanager
def result_apart(screen: Screen) -> Iterator[None]:
    """Where the result is to be JSON, what a program or a script here writes goes to stderr with all else."""
    if not screen.as_json:
        yield
        return
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(ours, 1)
        os.close(ours)


def visible(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what only tables show (`_name`)."""
    return {key: value for key, value in row.items() if not key.startswith("_")}


class Log(logging.Handler):
    """Shows the library's log on the screen."""

    # What fills the terminal holds its records back meanwhile (`workflow.aside`).
    is_on_terminal = True

    def __init__(self, screen: Screen, *, with_time: bool) -> None:
        super().__init__()
        self._screen = screen
        form = "%(asctime)s %(levelname)s %(message)s" if with_time else "%(message)s"
        self.setFormatter(logging.Formatter(form))

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one sentence."""
        try:
            self._screen.say(self.format(record), kind=record.levelname.lower())
        except OSError:
            self.handleError(record)


def _pager() -> list[str]:
    """The program through which long answers go; empty: none is wanted."""
    if not config.load().get("pager"):
        return []
    from scitq.shell import paging

    return paging.chosen()


def write(fd: int, data: bytes) -> None:
    """All the bytes, at once, past every buffer: a reader sees them now, and nothing is left to flush at exit."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # the terminal was set not to block by somebody else
            time.sleep(0.005)


def cells_of(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[bool]]:
    now_ms = time.time_ns() // 1_000_000
    cells = [[shown(row.get(column.key), now_ms) for column in columns] for row in rows]
    right = [any(_is_number(row.get(column.key)) for row in rows) for column in columns]
    return cells, right


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or isinstance(value, Seconds | Bytes)


def plain_table(head: list[str] | None, cells: list[list[str]], right: list[bool]) -> list[str]:
    lines = [head, *cells] if head is not None else cells
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def emergency(sentence: str) -> None:
    """A sentence on stderr when even the screen does not work."""
    try:
        write(2, (sentence + "\n").encode(errors="backslashreplace"))
    except OSError:
        sys.exit(1)
