"""What the commands of a step have in common: one pattern that says of ten thousand commands what each of them is like.

Pure, and its memory does not grow with the number of commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A command of another build (another number of words and signs) begins another pattern; a step has so many at most.
PATTERNS = 8
# What stands for the words that differ, and for the task's own name.
DIFFERS, NAME = "{…}", "{name}"
_TOKENS = re.compile(r"\w+|\s+|[^\w\s]")
_PLACES = re.compile(rf"{re.escape(DIFFERS)}(?:[-./:_]?{re.escape(DIFFERS)})+")


class Pattern:
    """Commands of one build, as they were met. `count` of them; `first` is one of them as it is."""

    def __init__(self, first: str, tokens: list[str]) -> None:
        self.first = first
        self.count = 1
        self._tokens: list[str | None] = list(tokens)

    @property
    def width(self) -> int:
        """How many words and signs they have."""
        return len(self._tokens)

    def distance(self, tokens: list[str]) -> int:
        """How many more words would differ with this one."""
        differing = [
            (old, new) for old, new in zip(self._tokens, tokens, strict=True) if old is not None and old != new
        ]
        return sum(_is_word(old) or _is_word(new) for old, new in differing)

    def take(self, tokens: list[str]) -> None:
        """One more."""
        self.count += 1
        if self._tokens != tokens:
            self._tokens = [old if old == new else None for old, new in zip(self._tokens, tokens, strict=True)]

    @property
    def is_exact(self) -> bool:
        """All of them are the same, to the letter."""
        return None not in self._tokens and NAME not in self._tokens

    @property
    def text(self) -> str:
        """The command, with what differs marked."""
        text = "".join(DIFFERS if token is None else token for token in self._tokens)
        return _PLACES.sub(DIFFERS, text)


class Patterns:
    """The commands of one step."""

    def __init__(self) -> None:
        self._known: list[Pattern] = []
        self.others = 0

    def add(self, command: str, name: str | None) -> None:
        """One command; of the task of that name."""
        tokens = list(_tokens(command, name))
        same = [one for one in self._known if one.width == len(tokens)]
        nearest = min(same, key=lambda one: one.distance(tokens), default=None)
        # Two commands that share less than half of their words say nothing about each other.
        if nearest is not None and nearest.distance(tokens) * 2 <= sum(map(_is_word, tokens)):
            nearest.take(tokens)
        elif len(self._known) < PATTERNS:
            self._known.append(Pattern(command, tokens))
        else:
            self.others += 1

    @property
    def known(self) -> list[Pattern]:
        """The patterns, the commonest first."""
        return sorted(self._known, key=lambda one: -one.count)


def _is_word(token: str) -> bool:
    return token[0].isalnum() or token[0] == "_" or token == NAME


def _tokens(command: str, name: str | None) -> Iterator[str]:
    begin = 0
    # The name as a whole word only: task `a1` says nothing about `data10`.
    if name and len(name) > 1:
        at = command.find(name)
        while at >= 0:
            end = at + len(name)
            if not (_continues(command[at - 1 : at]) or _continues(command[end : end + 1])):
                yield from _TOKENS.findall(command[begin:at])
                yield NAME
                begin = end
            at = command.find(name, end)
    yield from _TOKENS.findall(command[begin:])


def _continues(char: str) -> bool:
    return char.isalnum() or char == "_"
