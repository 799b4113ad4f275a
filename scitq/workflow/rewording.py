"""One edit of a command, made to others that are like it: what was changed in one is changed in them, what tells them apart stays.

Pure. How an edit is carried over is `adopting.merged`; here: to which commands it is at all.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher, unified_diff

from scitq.adopting import merged

_WORDS = re.compile(r"\w+|[^\w\s]")
# Beyond so many words only what is equal but for the change is edited: comparing takes the square of them.
MOST_WORDS = 4000
# Texts that share a smaller part of their words are about something else.
LIKE = 0.5


class Rewording:
    """The change from one text to another."""

    def __init__(self, before: str, after: str) -> None:
        self.before = before
        self.after = after
        self._words = _WORDS.findall(before)

    def made_to(self, text: str) -> str | None:
        """Another text with the same change made; None where it does not fit."""
        if text == self.before:
            return self.after
        words = _WORDS.findall(text)
        if max(len(words), len(self._words)) > MOST_WORDS:
            return None
        if SequenceMatcher(None, self._words, words, autojunk=False).ratio() < LIKE:
            return None
        return merged(self.before, self.after, text)

    def difference(self, text: str | None = None) -> list[str]:
        """What it does to a text (by default its own), as `diff -u` says it, without the names of files."""
        before = self.before if text is None else text
        after = self.made_to(before)
        if after is None:
            return []
        return list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2))[2:]
