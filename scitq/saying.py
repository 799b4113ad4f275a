"""How figures and texts are put for people: lengths of time, ages, sizes, and text that cannot command a terminal.

Pure; for whatever shows something: the command line, screens, reports.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

# Colours and weights (SGR) are obeyed: they change how text looks, never what is on the screen or in its title or clipboard.
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}m")
_BEGUN = re.compile(r"\x1b(\[[0-9;:]{0,60})?$")
_PARTS = re.compile(r"(\x1b\[[0-9;:]{0,60}m|\r*\n|\t|\r)")
_SLOT = re.compile(r"(?<!\S)\S+/slot/[0-9]+/(command: ?)?")


def duration(seconds: float) -> str:
    """`24 ms`, `0.2 s`, `48 s`, `6 min`, `3 h 12`, `2 d 4 h`."""
    if 0 < seconds < 0.095:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def age(seconds: float) -> str:
    """`now`, `5 s ago`, `4 min ago`, `2 h ago`, `3 d ago`."""
    if seconds < 1:
        return "now" if seconds > -60 else "in " + duration(-seconds)
    for limit, unit, word in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{seconds / 86400:.0f} d ago"


def size(count: int) -> str:
    """`812 B`, `31.2 GB`: powers of ten, as disks and clouds count."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{count} B" if unit == "B" else f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def without_place(line: str) -> str:
    """What a shell wrote, without the place of its script on the worker, which tells nobody anything."""
    return _SLOT.sub("", line)


def clean(text: str) -> str:
    """Text on one line that cannot command the terminal: control characters, and those that turn the direction of
    writing around, are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escaped(char) for char in text)


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in "\u200d\u200c"


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or char.encode("unicode_escape", "surrogatepass").decode()


def several(count: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `12 tasks`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


class Harmless:
    """Turns pieces of output into text to print: control characters are shown as escapes, except tab, end of line, colours.

    A carriage return, which would let later text hide earlier, begins a new line. Bytes that are not UTF-8 show as `\\xff`.
    Without `colours` these are left out.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._obeys = colours
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
            self._coloured = self._obeys
            return part if self._obeys else ""
        if part == "\t":
            return part
        if part.endswith(("\n", "\r")):
            return "\n"
        return clean(part)


def harmless(text: str) -> str:
    """A whole text made harmless."""
    filter = Harmless()
    return filter.feed(text.encode(errors="surrogateescape")) + filter.end()
