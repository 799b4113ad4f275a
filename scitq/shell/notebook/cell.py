"""A cell as the screen of a command: tables as HTML and text, what tasks write made harmless, questions asked in the cell."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import Any

from scitq.markup import Markup, joined, soft, state, table, tag
from scitq.saying import Harmless, harmless
from scitq.shell.answers import Rows, bare
from scitq.shell.show import STYLES, Screen, cells_of, plain_table

# More rows than this are no table to look at.
ROWS = 500


class Cell(Screen):
    """What a command shows in a notebook. `data` is what it answered with --json; `problems` the sentences of its errors."""

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__(as_json=as_json)
        self.is_terminal = False
        self.errors_are_terminal = True  # a person reads them
        self.has_colour = False
        self.data: list[Any] = []
        self.problems: list[str] = []
        self._harmless: dict[int, Harmless] = {}

    @property
    def width(self) -> int:
        """As wide as one likes."""
        return 160

    # --- answers ----------------------------------------------------------------------------------------------------------

    def json(self, data: Any) -> None:
        """Data for whoever gave the command: the value of the line."""
        self.data.append(bare(data))

    def out(self, line: str, fd: int = 1) -> None:
        """One line."""
        self._write(fd, harmless(line) + "\n")

    def table(self, answer: Rows, fd: int = 1) -> None:
        """A table."""
        if not answer.rows and not answer.head:
            return
        texts, right = cells_of(answer.columns, answer.rows)
        head = [column.heading if column.heading is not None else column.key for column in answer.columns]
        text = "\n".join(plain_table(head if answer.head else None, texts, right))
        if answer.plain or len(texts) > ROWS:
            self._write(fd, text + "\n")
            return
        shown = [[state(cell) if cell in STYLES else cell for cell in row] for row in texts]
        _display(
            text, table(head if answer.head else None, shown, [at for at, is_right in enumerate(right) if is_right])
        )

    # --- what is not the result -------------------------------------------------------------------------------------------

    def say(self, sentence: str, *, kind: str = "note") -> None:
        """A sentence beside the answer."""
        if kind == "error":
            self.problems.append(sentence)
        elif sentence:
            lines = sentence.split("\n")
            _display(
                harmless(sentence),
                tag("div", joined([[soft(line), tag("br")] for line in lines[:-1]]), soft(lines[-1])),
            )

    def ask(self, question: str) -> bool | None:
        """A question, asked in the cell. None: the notebook is executed by a program."""
        if self.as_json:
            return None
        with contextlib.suppress(EOFError, RuntimeError):
            return input(f"{harmless(question)} [y/N] ").strip().lower() in ("y", "yes")
        return None

    def status_line(self, text: str) -> None:
        """There is no line that is written over."""

    def clear_line(self) -> None:
        """There is none."""

    # --- what tasks write -------------------------------------------------------------------------------------------------

    def exact(self, fd: int, piece: bytes) -> None:
        """The same as `piece`: a notebook is a screen."""
        self.piece(fd, piece)

    def piece(self, fd: int, piece: bytes) -> None:
        """Bytes of a task's output, made harmless; colours stay."""
        self._write(fd, self._harmless.setdefault(fd, Harmless()).feed(piece))

    def pieces_end(self) -> None:
        """What was held back of an unfinished sequence."""
        for fd, filter in self._harmless.items():
            self._write(fd, filter.end())
        self._harmless.clear()

    def _write(self, fd: int, text: str) -> None:
        if text:
            stream = sys.stderr if fd == 2 else sys.stdout
            stream.write(text.encode(errors="backslashreplace").decode())
            stream.flush()


def _display(text: str, html: Markup) -> None:
    module: Any = import_module("IPython.display")
    module.display({"text/plain": text, "text/html": str(html)}, raw=True)
