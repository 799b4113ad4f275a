"""Small trends as pictures: one line in a table's cell. Pure: figures in, SVG out; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from scitq.markup import Markup, tag

WIDTH, HEIGHT = 100.0, 24.0
# A pause that is so many times as long as the usual one is a gap in the line.
GAP = 6


def spark(points: Sequence[tuple[int, float | None]], label: str, *, top: float | None = None) -> Markup | None:
    """A line through (milliseconds, figure); `top` is what reaches the upper edge, else the largest figure. None: too few."""
    known = [(at, value) for at, value in points if value is not None]
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    first, last = known[0][0], known[-1][0]
    highest = top if top is not None else max(value for _, value in known)
    usual = sorted(b[0] - a[0] for a, b in pairwise(known))[len(known) // 2 - 1]
    words, before = [], None
    for at, value in known:
        x = WIDTH * (at - first) / (last - first)
        y = HEIGHT - 1 - (HEIGHT - 2) * (min(1.0, max(0.0, value / highest)) if highest > 0 else 0.0)
        is_gap = before is None or at - before > GAP * max(1, usual)
        words.append(f"{'M' if is_gap else 'L'}{x:.1f} {y:.1f}")
        before = at
    return tag(
        "svg", tag("title", label), tag("path", d="".join(words)), class_="spark", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none", role="img", aria_label=label,
    )  # fmt: skip


def rates(points: Sequence[tuple[int, int | None]]) -> list[tuple[int, float | None]]:
    """How fast a count grew between one look and the next, a second; nothing where it began anew."""
    found: list[tuple[int, float | None]] = []
    for (at, count), (later, more) in pairwise(points):
        grew = (
            None
            if count is None or more is None or more < count or later <= at
            else 1000 * (more - count) / (later - at)
        )
        found.append((later, grew))
    return found
