"""What tasks write, made harmless for a terminal: a stream filter, since a sequence may be cut anywhere between two pieces."""

from __future__ import annotations

import codecs
import re

from scitq.shell.answers import clean

# Colours and weights (SGR) are obeyed: they change how text looks, never what is on the screen or in its title or clipboard.
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}m")
_BEGUN = re.compile(r"\x1b(\[[0-9;:]{0,60})?$")
_PARTS = re.compile(r"(\x1b\[[0-9;:]{0,60}m|\r*\n|\t|\r)")


class Harmless:
    """Turns pieces of output into text to print: control characters are shown as escapes, except tab, end of line, colours.

    A carriage return, which would let later text hide earlier, begins a new line. Bytes that are not UTF-8 show as `\\xff`.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._held = ""
        self._coloured = False

    def feed(self, piece: bytes) -> str:
        """What of it can be printed now; a sequence that is not complete waits for the next piece."""
        text = self._held + self._decode(piece)
        begun = _BEGUN.search(text)
        if begun is None and text.endswith("\r"):
            begun = re.search(r"\r+$", text)
        cut = begun.start() if begun else len(text)
        self._held = text[cut:]
        return self._shown(text[:cut])

    def end(self) -> str:
        """The rest, and an end to colours that were left on."""
        text = self._shown(self._held + self._decode(b"", True))
        self._held = ""
        return text + ("\x1b[0m" if self._coloured else "")

    def _shown(self, text: str) -> str:
        if not text or text.isprintable():
            return text
        return "".join(self._part(part) for part in _PARTS.split(text))

    def _part(self, part: str) -> str:
        if _COLOUR.fullmatch(part):
            self._coloured = True
            return part
        if part == "\t":
            return part
        if part.endswith(("\n", "\r")):
            return "\n"
        return clean(part)


def harmless(text: str) -> str:
    """A whole text made harmless."""
    filter = Harmless()
    return filter.feed(text.encode(errors="surrogateescape")) + filter.end()
