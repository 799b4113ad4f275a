"""Printing: results to stdout, everything else to stderr; tables that fit the terminal, plain text in pipes, JSON on request.

Nothing here knows a command. rich is loaded only for a table on a terminal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, bare, shown
from scitq.shell.terminal import Harmless, harmless

_STYLES = {
    "succeeded": "green", "ready": "green", "failed": "red", "unreachable": "red", "blocked": "yellow", "cancelled": "yellow",
    "running": "cyan", "collecting": "cyan", "waiting": "dim",
}  # fmt: skip
_NARROWEST = 8
# Blanks at the end of a line, before or after the end of its style.
_BLANK_END = re.compile(r" +(\x1b\[0m)? *$")


class Screen:
    """Where a command's answer goes. One for each run of the program."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_terminal = _is_terminal(1)
        self.errors_are_terminal = _is_terminal(2)
        self.has_colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
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
        if isinstance(answer, Rows):
            self._rows(answer)
        elif isinstance(answer, Text):
            self._text(answer)
        else:
            return answer or 0
        if not self.as_json:
            for note in answer.notes:
                self.say(note)
        return answer.code

    def json(self, data: Any) -> None:
        """One JSON value on one line of stdout."""
        self.out(json.dumps(bare(data), ensure_ascii=False, allow_nan=False))

    def out(self, line: str, fd: int = 1) -> None:
        """One line of stdout."""
        write(fd, (line + "\n").encode(errors="backslashreplace"))

    def _rows(self, answer: Rows) -> None:
        if self.as_json:
            self.json([visible(row) for row in answer.rows])
        else:
            self.table(answer)

    def table(self, answer: Rows, fd: int = 1) -> None:
        """A table: on stdout where it is the result, on stderr (2) beside a question."""
        if not answer.rows and not answer.head:
            return
        cells, right = _cells(answer.columns, answer.rows)
        head = [(column.heading if column.heading is not None else column.key) for column in answer.columns]
        if not answer.plain and (self.is_terminal if fd == 1 else self.errors_are_terminal):
            self._rich_table(answer, head, cells, right, fd)
        else:
            for line in _plain_table(head if answer.head else None, cells, right):
                self.out(line, fd)

    def _rich_table(self, answer: Rows, head: list[str], cells: list[list[str]], right: list[bool], fd: int) -> None:
        from rich.cells import cell_len, set_cell_size
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text as Styled

        widths = [max(map(cell_len, column)) for column in zip(*([head] if answer.head else []), *cells, strict=True)]
        if answer.cut:
            widths = fit(widths, [column.gives for column in answer.columns], self.width - 2 * (len(widths) - 1))
        table = Table(box=None, show_header=answer.head, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name, width, is_right in zip(head, widths, right, strict=True):
            table.add_column(
                Styled(name), width=width, no_wrap=True, overflow="ellipsis", justify="right" if is_right else "left"
            )
        for row in cells:
            styled = []
            for cell, width in zip(row, widths, strict=True):
                text = cell if cell_len(cell) <= width else set_cell_size(cell, max(1, width) - 1).rstrip() + "…"
                styled.append(Styled(text, style=_STYLES.get(cell, "")))
            table.add_row(*styled)
        # Wider than needed: the widths are decided above, and some versions of rich count the padding at the edge too.
        total = sum(widths) + 4 * len(widths)
        console = Console(width=total, highlight=False, no_color=not self.has_colour)
        with console.capture() as capture:
            console.print(table)
        for line in capture.get().splitlines():
            self.out(_BLANK_END.sub(r"\1", line), fd)

    def _text(self, answer: Text) -> None:
        if self.as_json:
            self.json(answer.data)
        elif answer.text:
            self.out(harmless(answer.text) if self.is_terminal and not answer.safe else answer.text)

    # --- what is not the result -------------------------------------------------------------------------------------------

    def say(self, sentence: str, *, kind: str = "note") -> None:
        """A sentence on stderr."""
        if self.as_json:
            write(2, (json.dumps({kind: sentence}, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
            return
        self.clear_line()
        text = harmless(sentence) if self.errors_are_terminal else sentence
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
        write(2, f"{harmless(question)} [y/N] ".encode(errors="backslashreplace"))
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            self.say("")
        return answer.strip().lower() in ("y", "yes")

    def status_line(self, text: str) -> None:
        """One line at the bottom of a terminal that is written over by the next; nothing elsewhere."""
        if not self.errors_are_terminal or self.as_json or text == self._line:
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


def visible(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what only tables show (`_name`)."""
    return {key: value for key, value in row.items() if not key.startswith("_")}


class Log(logging.Handler):
    """Shows the library's log on the screen."""

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


def write(fd: int, data: bytes) -> None:
    """All the bytes, at once, past every buffer: a reader sees them now, and nothing is left to flush at exit."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # the terminal was set not to block by somebody else
            time.sleep(0.005)


def fit(widths: Sequence[int], gives: Sequence[bool], room: int) -> list[int]:
    """Widths that fit: the widest of the columns that give is made narrower, step by step; then, if need be, any."""
    found = list(widths)
    for may_give in (list(gives), [True] * len(found)):
        while sum(found) > room:
            wide = [i for i, may in enumerate(may_give) if may and found[i] > _NARROWEST]
            if not wide:
                break
            widest = max(wide, key=lambda i: found[i])
            found[widest] -= 1
    return found


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[bool]]:
    now_ms = time.time_ns() // 1_000_000
    cells = [[shown(row.get(column.key), now_ms) for column in columns] for row in rows]
    right = [any(_is_number(row.get(column.key)) for row in rows) for column in columns]
    return cells, right


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or isinstance(value, Seconds | Bytes)


def _plain_table(head: list[str] | None, cells: list[list[str]], right: list[bool]) -> list[str]:
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
