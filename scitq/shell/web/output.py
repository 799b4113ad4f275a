"""What tasks write, as pages show it: pieces that end with a line, colours as classes of ours, everything else harmless.

Offsets are in bytes of the stream; a page begins with its end, and asks for what is before that, or after.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from scitq.engine import Engine
from scitq.markup import Markup
from scitq.saying import Harmless
from scitq.store import logs
from scitq.task import ExecutionId
from scitq.workflow.looking import size_of

# So much is shown at first, and more at each time that it is asked for.
PIECE_BYTES = 64 << 10
STREAMS = {"stdout": logs.OUT, "stderr": logs.ERR}

_COLOUR = re.compile(r"\x1b\[([0-9;:]{0,60})m")
# A part of output: the classes of its look (`fg1 bold`), and its text.
Part = tuple[str, str]


@dataclass(frozen=True)
class Piece:
    """Bytes of a stream from one place to another; `size` is how many there are at all."""

    start: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """Where what follows begins."""
        return self.start + len(self.data)


def last(engine: Engine, execution: ExecutionId, stream: int) -> Piece:
    """The end of what there is."""
    return before(engine, execution, stream, size_of(engine, execution, stream))


def before(engine: Engine, execution: ExecutionId, stream: int, end: int) -> Piece:
    """What comes before a place: whole lines, if they are not longer than a piece."""
    size = size_of(engine, execution, stream)
    end = min(end, size)
    start = max(0, end - PIECE_BYTES)
    data = engine._log_bytes(execution, stream, start, end - start)
    if start:
        cut = data.find(b"\n") + 1
        if not 0 < cut < len(data):  # one long line; at least no character is cut in two
            cut = next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)
        start, data = start + cut, data[cut:]
    return Piece(start, data, max(size, start + len(data)))


def after(engine: Engine, execution: ExecutionId, stream: int, start: int) -> Piece:
    """What has come since a place, a piece of it."""
    data = engine._log_bytes(execution, stream, start, PIECE_BYTES)
    return Piece(start, data, max(size_of(engine, execution, stream), start + len(data)))


class Look:
    """Turns bytes into parts with the looks that the program asked for, of those that terminals have had for ever."""

    def __init__(self) -> None:
        self._filter = Harmless()
        self._styles: set[str] = set()
        self._ink: str | None = None
        self._paper: str | None = None

    def feed(self, data: bytes, *, is_all: bool = False) -> list[Part]:
        """What of it can be shown now; a sequence that is not complete waits for what follows, unless that was all."""
        text = self._filter.feed(data)
        if is_all:
            text += self._filter.end()
        found: list[Part] = []
        at = 0
        for sign in _COLOUR.finditer(text):
            self._add(found, text[at : sign.start()])
            self._obey(sign.group(1))
            at = sign.end()
        self._add(found, text[at:])
        return found

    def _add(self, found: list[Part], text: str) -> None:
        if not text:
            return
        look = " ".join(sorted({*self._styles, self._ink or "", self._paper or ""} - {""}))
        if found and found[-1][0] == look:
            found[-1] = (look, found[-1][1] + text)
        else:
            found.append((look, text))

    def _obey(self, sequence: str) -> None:
        codes = [int(code) if code.isdecimal() and len(code) < 6 else 0 for code in re.split("[;:]", sequence)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self._styles, self._ink, self._paper = set(), None, None
            elif code in _STYLES:
                self._styles.add(_STYLES[code])
            elif code in _ENDS:
                self._styles -= _ENDS[code]
            elif code in (38, 48):
                colour = _mixed(codes)
                self._set(code == 38, colour)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self._set(True, code - 30 if code < 40 else code - 82)
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self._set(False, code - 40 if code < 50 else code - 92)
            elif code in (39, 49):
                self._set(code == 39, None)

    def _set(self, is_ink: bool, colour: int | None) -> None:
        if is_ink:
            self._ink = None if colour is None else f"fg{colour}"
        else:
            self._paper = None if colour is None else f"bg{colour}"


_STYLES = {1: "bold", 2: "dim", 3: "italic", 4: "under", 7: "inverse", 9: "struck"}
_ENDS = {22: {"bold", "dim"}, 23: {"italic"}, 24: {"under"}, 27: {"inverse"}, 29: {"struck"}}
_PALETTE = (
    (0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170),
    (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255), (255, 85, 255), (85, 255, 255), (255, 255, 255),
)  # fmt: skip


def _mixed(codes: list[int]) -> int | None:
    """The colour of ours that is nearest to one of 256, or of red, green and blue; takes its numbers away."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        number = codes.pop(0) & 255
        if number < 16:
            return number
        if number >= 232:
            grey = 8 + 10 * (number - 232)
            return _nearest((grey, grey, grey))
        cube = number - 16
        red, green, blue = (0 if not part else 55 + 40 * part for part in (cube // 36, cube // 6 % 6, cube % 6))
        return _nearest((red, green, blue))
    if kind == 2 and len(codes) >= 3:
        mixed = (codes.pop(0), codes.pop(0), codes.pop(0))
        return _nearest(mixed)
    return None


def _nearest(colour: tuple[int, int, int]) -> int:
    def distance(number: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(colour, _PALETTE[number], strict=True))

    return min(range(16), key=distance)


def markup(parts: list[Part]) -> Markup:
    """Parts as HTML."""
    return Markup(
        "".join(
            f'<span class="{look}">{html.escape(text)}</span>' if look else html.escape(text) for look, text in parts
        )
    )


def shown(data: bytes) -> Markup:
    """A whole piece as HTML."""
    return markup(Look().feed(data, is_all=True))
