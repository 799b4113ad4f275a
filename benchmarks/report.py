"""What a benchmark found, and how it is printed and written down."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Finding:
    """One number against the bar that was set for it; `holds` None where no bar was set."""

    what: str
    value: str
    bar: str = ""
    holds: bool | None = None

    def line(self) -> str:
        sign = {True: "holds", False: "**falls short**", None: ""}[self.holds]
        return " ".join(
            part for part in (f"{self.what}: {self.value}", f"(bar {self.bar})" if self.bar else "", sign) if part
        )


@dataclass
class Section:
    """The outcome of one benchmark."""

    letter: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]] = ()
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """As Markdown, which reads well on a terminal too."""
        parts = [f"## ({self.letter}) {self.title}", ""]
        if self.rows:
            parts += [_row(self.header), _row("---" for _ in self.header), *(_row(row) for row in self.rows), ""]
        parts += [f"* {finding.line()}" for finding in self.findings]
        parts += [""] * bool(self.findings)
        for note in self.notes:
            parts += [note, ""]
        return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def at_least(what: str, value: float, bar: float, unit: str = "", digits: int = 2) -> Finding:
    """A number that should not be below its bar."""
    return Finding(what, f"{value:,.{digits}f}{unit}", f"≥ {bar:,g}{unit}", value >= bar)


def at_most(what: str, value: float, bar: float, unit: str = "", digits: int = 2) -> Finding:
    """A number that should not be above its bar."""
    return Finding(what, f"{value:,.{digits}f}{unit}", f"≤ {bar:,g}{unit}", value <= bar)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the smallest and largest where there are several."""
    text = f"{statistics.median(values):,.{digits}f}"
    return text if len(values) < 2 else f"{text} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
