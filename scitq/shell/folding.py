"""Lines that are longer than the terminal, broken between words. A command in them stays in one line where it can be: it is there
to be copied. One that is too long goes on after a backslash, as shells take it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scitq.workflow.cells import width

# A command of ours, up to the end of the sentence or line; what is quoted in it stays together.
_COMMAND = re.compile(r"""scitq(?:-[a-z]+)?(?: (?:"[^"]*"|'[^']*'|[^\s"'·]+?(?=[.,;:]?(?:\s|$))))+""")
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|\S)+""")
_TOGETHER = re.compile(r"(?:\d[\d,.]* )?\S+(?: ·)?")
_REST = re.compile(r"\S*(?: ·)?")
# What stands in columns, or under a heading, goes on below its own beginning.
_BEGINNING = re.compile(r"\s*(?:\S+(?: \S+)*? {2,}){1,2}(?=\S)|\d+ [a-z]+: |\s+(?=\S)")
_LAST_HANG = 30


def folded(text: str, room: int) -> str:
    """The text with no line longer than that, unless it is a word that is."""
    return "\n".join(part for line in text.split("\n") for part in _folded(line, room))


def _folded(line: str, room: int) -> Iterator[str]:
    if width(line) <= room:
        yield line
        return
    begun = _BEGINNING.match(line)
    now = "" if begun is None or begun.end() > room else begun.group()
    hang = len(now) if 0 < len(now) <= min(_LAST_HANG, room // 2) else 2
    is_begun = False
    for unit in _units(line[len(now) :]):
        if is_begun and width(now) + 1 + width(unit) > room:
            yield now
            now, is_begun = " " * hang, False
        if width(now) + width(unit) > room and _COMMAND.fullmatch(unit):
            first, *more = _continued(unit, room - width(now))
            for part in more:
                yield now + first
                now = " " * (hang if hang + width(part) <= room else 0)
                first = part
            unit = first
        now += f" {unit}" if is_begun else unit
        is_begun = True
    yield now


def _units(text: str) -> Iterator[str]:
    """Words, and what belongs together: whole commands, a number and what it counts, a dot and what stands before it."""
    at = 0
    for found in _COMMAND.finditer(text):
        yield from _TOGETHER.findall(text[at : found.start()])
        rest = _REST.match(text, found.end())
        end = found.end() if rest is None else rest.end()
        yield text[found.start() : end]  # with the dot behind it
        at = end
    yield from _TOGETHER.findall(text[at:])


def _continued(command: str, room: int) -> list[str]:
    """A command in lines that a shell puts together again."""
    lines, now = [], ""
    for word in _WORD.findall(command):
        if now and width(now) + 1 + width(word) > room - 2:
            lines.append(f"{now} \\")
            now = f"    {word}"
        else:
            now = f"{now} {word}" if now else word
    return [*lines, now]
