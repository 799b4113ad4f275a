"""What a command answers when it is run once more in this process, what of that is new, and how it is drawn.

Running it is `Camera`; the rest is pure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from scitq.engine import Engine
from scitq.saying import clean, harmless
from scitq.shell import cli
from scitq.shell.answers import Rows, Text, shown
from scitq.shell.show import LEAST_WORTH, Screen
from scitq.shell.surroundings import Surroundings
from scitq.shell.table import COMMANDS, Option
from scitq.workflow.cells import Column, Line, table
from scitq.workflow.drawing import Marks

if TYPE_CHECKING:
    from scitq.shell.table import Command

# How columns are left out when there is no room for all: the last first.


@dataclass(frozen=True)
class Shot:
    """What a command answered: a table, a text, lines that it wrote as it went; what it said besides."""

    answer: Rows | Text | None = None
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    code: int = 0

    @property
    def told(self) -> list[str]:
        """Lines of text that are no table."""
        text = self.answer.text if isinstance(self.answer, Text) else ""
        return [*(harmless(text).splitlines() if text else []), *self.lines]


class _Taking(Screen):
    """Keeps what a command would print."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self.is_terminal = self.errors_are_terminal = False
        self.found: Rows | Text | None = None
        self.kept: list[str] = []
        self.said: list[str] = []

    def answer(self, answer: Rows | Text | int | None) -> int:
        if isinstance(answer, Rows | Text):
            self.found = answer
            self.said += answer.notes
            return answer.code
        return answer or 0

    def out(self, line: str, fd: int = 1) -> None:
        self.kept += line.split("\n")

    def say(self, sentence: str, *, kind: str = "note") -> None:
        self.said.append(sentence)

    def ask(self, question: str) -> bool | None:
        return None

    def status_line(self, text: str) -> None:
        pass

    def exact(self, fd: int, piece: bytes) -> None:
        self.kept += harmless(piece.decode(errors="backslashreplace")).splitlines()

    def piece(self, fd: int, piece: bytes) -> None:
        self.exact(fd, piece)


class Camera:
    """Runs one command line again and again, in this process, on the file that is open here."""

    def __init__(self, engine: Engine, words: Sequence[str], *, as_json: bool = False) -> None:
        self._engine = engine
        self._words = [*(["--json"] if as_json else []), *words]
        self._root = cli.program()

    def take(self) -> Shot:
        """What it answers now."""
        screens: list[_Taking] = []

        def screen(as_json: bool) -> _Taking:
            screens.append(_Taking(as_json=as_json))
            return screens[-1]

        surroundings = Surroundings(self._engine, screen)
        code = cli.run(self._root, list(self._words), "scitq", surroundings=surroundings)
        last = screens[-1] if screens else _Taking(as_json=False)
        notes = tuple(clean(line) for one in screens for text in one.said for line in text.splitlines())
        return Shot(last.found, tuple(last.kept), notes, code)


def only_reads(words: Sequence[str]) -> Command:
    """The command that these words are, if it may be repeated.

    Raises:
        UsageError: there is no such command, or it does more than read, or it does not return.
    """
    place: click.Command = cli.program()
    context = click.Context(place, info_name="scitq")
    path, rest = [], list(words)
    while isinstance(place, click.Group) and rest:
        name, found, rest = place.resolve_command(context, rest)
        assert name is not None and found is not None  # else it has failed
        place, context = found, click.Context(found, info_name=name, parent=context)
        path.append(found.name or name)
    row = next((row for row in COMMANDS if row.path == " ".join(path)), None)
    if row is None:
        raise click.UsageError(f"scitq {' '.join(words)} is no command that answers; scitq {' '.join(words)} --help")
    if not row.reads or (row.terminal and row.path != "top"):
        what = "takes the terminal for itself" if row.terminal else "changes something"
        raise click.UsageError(f"scitq watch repeats what only looks; scitq {row.path} {what}.")
    follows = [one for one in row.parameters if isinstance(one, Option) and "--follow" in one.flags]
    if any(word in one.flags for one in follows for word in rest):
        raise click.UsageError(f"scitq {row.path} --follow shows what is new by itself; leave out one of the two.")
    return row


# --- what is new --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class News:
    """What differs from the shot before: cells by row and column, words by line and place."""

    cells: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    words: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def news(before: Shot | None, after: Shot) -> News:
    """What is new. Rows are known again by their first column, lines by their place; nothing is new at the first look."""
    if before is None:
        return News()
    cells: set[tuple[int, str]] = set()
    if isinstance(after.answer, Rows):
        old = _by_name(before.answer) if isinstance(before.answer, Rows) else {}
        names = _names(after.answer)
        for place, (name, row) in enumerate(zip(names, after.answer.rows, strict=True)):
            was = old.get(name)
            cells |= {
                (place, one.key) for one in after.answer.columns if was is None or was.get(one.key) != row.get(one.key)
            }
    words: set[tuple[int, int]] = set()
    then = before.told
    for number, line in enumerate(after.told):
        was_words = then[number].split() if number < len(then) else []
        now_words = line.split()
        aligned = len(was_words) == len(now_words)
        words |= {
            (number, place)
            for place, word in enumerate(now_words)
            if (was_words[place] != word if aligned else word not in was_words)
        }
    return News(frozenset(cells), frozenset(words))


def _names(answer: Rows) -> list[tuple[str, int]]:
    """What each row is known by: its first column, and which of those that have the same it is."""
    counts: dict[str, int] = {}
    found = []
    for row in answer.rows:
        name = str(row.get(answer.columns[0].key))
        counts[name] = counts.get(name, 0) + 1
        found.append((name, counts[name]))
    return found


def _by_name(answer: Rows) -> dict[tuple[str, int], Mapping[str, Any]]:
    return dict(zip(_names(answer), answer.rows, strict=True))


# --- drawn --------------------------------------------------------------------------------------------------------------------


def drawn(shot: Shot, new: News, cells: int, marks: Marks, now_ms: int | None = None) -> list[Line]:
    """The shot in lines no wider than that, what is new marked."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    lines: list[Line] = []
    if isinstance(shot.answer, Rows) and shot.answer.rows:
        columns = []
        for place, one in enumerate(shot.answer.columns):
            texts = [shown(row.get(one.key), now_ms) for row in shot.answer.rows]
            marked = [("changed" if (n, one.key) in new.cells else "", text) for n, text in enumerate(texts)]
            is_right = all(_is_number(row.get(one.key)) for row in shot.answer.rows)
            heading = one.heading if one.heading is not None else one.key
            worth = one.worth if one.worth is not None else max(LEAST_WORTH, 99 - place)
            columns.append(
                Column(heading, marked, worth, right=is_right, least=8 if one.gives else None, good=one.good)
            )
        lines += table(columns, cells, mark=marks.more)
    for number, text in enumerate(shot.told):
        lines.append(_marked(text.expandtabs(), number, new))
    return lines


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _marked(text: str, number: int, new: News) -> Line:
    """A line of text with the new words marked, blanks as they were."""
    line: Line = []
    place, rest = -1, clean(text)
    while rest:
        blank = rest[: len(rest) - len(rest.lstrip())]
        rest = rest[len(blank) :]
        if blank:
            line.append(("", blank))
        if rest:
            word = rest.split(maxsplit=1)[0]
            place += 1
            line.append(("changed" if (number, place) in new.words else "", word))
            rest = rest[len(word) :]
    return line
