"""Text by the cells it takes on a terminal: cut, padded, wrapped; and tables that leave out columns before they overflow.

Pure. A piece is (style, text), a line is a list of pieces; styles are names that `screen` gives colours to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Piece = tuple[str, str]
Line = list[Piece]

GAP = 2
# Columns worth so much are there before a name is shown whole.
DEAR = 45


# Letters and signs of Europe, dashes, quotes, arrows: a cell each.
_SINGLE = re.compile(r"[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2190-\u21ff]*")


def width(text: str) -> int:
    """How many cells a text takes."""
    if text.isascii() or _SINGLE.fullmatch(text):
        return len(text)
    from prompt_toolkit.utils import get_cwidth  # loads all of it; tables of plain commands seldom need it

    return get_cwidth(text)


def cut(text: str, cells: int, *, mark: str = "…") -> str:
    """The text in no more cells than that; with a mark where something was cut."""
    if width(text) <= cells:
        return text
    room, kept = cells - width(mark), []
    if room < 0:
        return ""
    for char in text:
        room -= width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + mark


def pad(text: str, cells: int, *, right: bool = False, mark: str = "…") -> str:
    """The text in just so many cells."""
    shown = cut(text, cells, mark=mark)
    blank = " " * (cells - width(shown))
    return blank + shown if right else shown + blank


def cut_line(line: Iterable[Piece], cells: int, *, mark: str = "…") -> Line:
    """A line in no more cells than that."""
    found: Line = []
    for style, text in line:
        taken = width(text)
        if taken > cells:
            found.append((style, cut(text, cells, mark=mark)))
            break
        found.append((style, text))
        cells -= taken
    return found


def wrapped(text: str, cells: int) -> list[str]:
    """The text in lines of so many cells, broken between words where that is possible."""
    lines, now = [], ""
    for word in text.split(" "):
        joined = f"{now} {word}" if now else word
        if width(joined) <= cells:
            now = joined
            continue
        if now:
            lines.append(now)
        while width(word) > cells:
            piece = cut(word, cells, mark="")
            if not piece:  # not even one character has room
                word = ""
                break
            lines.append(piece)
            word = word[len(piece) :]
        now = word
    return [*lines, now]


@dataclass(frozen=True)
class Column:
    """A column: its cells, one for each row. Those of the lowest `worth` are left out first; `least`: it may be cut to that, but
    not below `good` as long as there is a column to leave out that is worth less than `DEAR`."""

    heading: str
    cells: Sequence[Piece]
    worth: int
    right: bool = True
    least: int | None = None
    good: int | None = None

    @property
    def wanted(self) -> int:
        """How many cells it would like to have."""
        return max([width(self.heading), *(width(text) for _, text in self.cells)])


def fitting(columns: Sequence[Column], cells: int, *, gap: int = GAP) -> list[Column]:
    """Those of the columns for which there is room."""
    kept = list(columns)
    while len(kept) > 1:
        cheap = [column for column in kept if column.worth < DEAR]
        if (_least(kept, gap) if not cheap else _comfort(kept, gap)) <= cells:
            break
        kept.remove(min(cheap or kept, key=lambda column: column.worth))
    return kept


def table(columns: Sequence[Column], cells: int, *, gap: int = GAP, mark: str = "…") -> list[Line]:
    """The heading and the rows, in no more cells than that."""
    kept = fitting(columns, cells, gap=gap)
    widths = _widths(kept, cells, gap)
    space = " " * gap
    rows = len(kept[0].cells) if kept else 0
    lines: list[Line] = []
    for number in range(-1, rows):
        line: Line = []
        for column, taken in zip(kept, widths, strict=True):
            style, text = ("heading", column.heading) if number < 0 else column.cells[number]
            if line:
                line.append(("", space))
            line.append((style, pad(text, taken, right=column.right, mark=mark)))
        lines.append(line)
    return lines


def around(head: list[Line], lines: list[Line], at: int, rows: int, cells: int) -> list[Line]:
    """Rows under their heading, moved so that the selected one is seen, which is marked."""
    if rows <= len(head):
        head = []
    room = max(1, rows - len(head))
    first = max(0, min(at - room // 2, len(lines) - room))
    found = lines[first : first + room]
    if 0 <= at - first < len(found):
        found[at - first] = [("selected", pad("".join(text for _, text in found[at - first]), cells))]
    return [*head, *found]


def total(columns: Sequence[Column], *, gap: int = GAP) -> int:
    """How many cells they would like to have."""
    return sum(column.wanted for column in columns) + gap * (len(columns) - 1)


def _least(columns: Sequence[Column], gap: int) -> int:
    sizes = (column.wanted if column.least is None else min(column.least, column.wanted) for column in columns)
    return sum(sizes) + gap * (len(columns) - 1)


def _comfort(columns: Sequence[Column], gap: int) -> int:
    sizes = (
        min(column.wanted, column.good or column.least) if column.least is not None else column.wanted
        for column in columns
    )
    return sum(sizes) + gap * (len(columns) - 1)


def _widths(columns: Sequence[Column], cells: int, gap: int) -> list[int]:
    """What each gets: all it wants, but those that may be cut share what is left."""
    widths = [column.wanted for column in columns]
    over = sum(widths) + gap * (len(columns) - 1) - cells
    for place in sorted(range(len(columns)), key=lambda at: -widths[at]):
        if over > 0 and (least := columns[place].least) is not None:
            less = min(over, max(0, widths[place] - least))
            widths[place] -= less
            over -= less
    if over > 0 and len(columns) == 1:
        widths[0] = max(1, cells)
    return widths
