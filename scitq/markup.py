"""HTML and SVG from values: whatever is not markup already is escaped, so a hostile name stays a name.

Pure. A report is opened by people who did not choose what is in it: names, commands, output of tasks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from scitq.saying import Harmless, clean

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}m")


class Markup(str):
    """Text that is markup."""

    __slots__ = ()


Part = str | int | float | Iterable["Part"] | None


def tag(name: str, /, *parts: Part, **attributes: str | int | float | bool | None) -> Markup:
    """`<name attributes>parts</name>`. Of an attribute's name, `_` at its end goes and others become `-`; None and False leave it out."""
    head = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_attribute(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{head}>" if name in _EMPTY else f"<{name}{head}>{joined(parts)}</{name}>")


_EMPTY = frozenset({"meta", "link", "br", "hr", "col"})


def joined(parts: Iterable[Part]) -> Markup:
    """Parts one after the other; None is nothing."""
    return Markup("".join(_part(part) for part in parts))


def _part(part: Part) -> str:
    if isinstance(part, Markup):
        return part
    if part is None:
        return ""
    if isinstance(part, str):
        return escaped(part)
    if isinstance(part, int | float):
        return number(part)
    return joined(part)


def _attribute(value: str | int | float | bool) -> str:
    return escaped(value) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A number, as short as it can be: coordinates are thousands."""
    return str(value) if isinstance(value, int) else f"{value:.1f}".removesuffix(".0")


def escaped(text: str) -> str:
    """A text on one line: no markup, no control character, nothing that turns the direction of writing around."""
    return html.escape(clean(text))


def lines(text: str) -> Markup:
    """The same for a text of several lines, which it keeps."""
    return Markup("\n".join(escaped(line.expandtabs(4)) for line in text.splitlines()))


def output(tail: bytes) -> Markup:
    """What a program wrote, as text: what it meant for a terminal is shown or, of colours, left out."""
    filter = Harmless()
    return Markup(html.escape(_COLOUR.sub("", filter.feed(tail) + filter.end())))


# --- pieces of what objects show of themselves in notebooks -------------------------------------------------------------------

# Read well on light and dark paper: a notebook's theme is its reader's.
_COLOURS = {
    "succeeded": "#2e9a4f", "ready": "#2e9a4f", "failed": "#d8402c", "unreachable": "#d8402c", "blocked": "#c98a1b",
    "cancelled": "#c98a1b", "paused": "#c98a1b", "running": "#2f81f7", "collecting": "#2f81f7", "staging": "#2f81f7",
    "assigned": "#2f81f7",
}  # fmt: skip
_GREY = "#8b949e"
_LEFT, _RIGHT = "text-align:left;padding:.2em .6em", "text-align:right;padding:.2em .6em"
_MONO = "font-family:var(--jp-code-font-family,monospace)"


def colour_of(state: str) -> str:
    """The colour of a state's word."""
    return _COLOURS.get(state, _GREY)


def state(word: str) -> Markup:
    """A state's word in its colour."""
    return tag("span", word, style=f"color:{colour_of(word)};font-weight:600")


def soft(*parts: Part) -> Markup:
    """What matters less."""
    return tag("span", *parts, style="opacity:.7")


def code(text: str) -> Markup:
    """Something to type."""
    return tag("code", text)


def written(text: Markup) -> Markup:
    """What a program wrote, or a script, already made markup: several lines."""
    style = f"{_MONO};margin:.3em 0;padding:.4em .6em;background:rgba(128,128,128,.1);white-space:pre-wrap;overflow-wrap:anywhere"
    return tag("pre", text, style=style)


def refusal(sentence: str) -> Markup:
    """An error."""
    return tag("div", sentence, style="color:#d8402c;white-space:pre-wrap")


def table(head: Sequence[Part] | None, rows: Iterable[Sequence[Part]], right: Iterable[int] = ()) -> Markup:
    """A table; the columns of `right` hold numbers."""
    numbers = frozenset(right)

    def line(kind: str, cells: Sequence[Part]) -> Markup:
        return tag("tr", [tag(kind, cell, style=_RIGHT if at in numbers else _LEFT) for at, cell in enumerate(cells)])

    top = None if head is None else tag("thead", line("th", head))
    return tag("table", top, tag("tbody", [line("td", cells) for cells in rows]), class_="scitq", style="margin:.3em 0")


def bar(counts: Mapping[str, int], width: str = "14em") -> Markup:
    """Numbers by state, as lengths."""
    total = sum(counts.values()) or 1
    parts = [
        tag("span", title=f"{n:,} {word}", style=f"width:{100 * n / total:.2f}%;background:{colour_of(word)}")
        for word, n in counts.items()
        if n and word not in ("waiting", "pending")
    ]
    outer = f"display:inline-flex;vertical-align:middle;height:.6em;width:{width};background:rgba(128,128,128,.25)"
    return tag("span", parts, style=f"{outer};border-radius:.3em;overflow:hidden")
