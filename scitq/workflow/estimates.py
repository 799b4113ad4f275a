"""What running tasks on rented machines would take and cost: a few ways of doing it, each with its interval. Pure.

A way is an offer and a number of machines. Tasks are taken to be dealt out evenly, and to last as long as tasks of their step have
lasted: the interval is that of the middle four fifths of them. What is paid is worked out as the bill will be (`scitq.money`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scitq import money
from scitq.money import UNIT
from scitq.ranking import Ranked
from scitq.saying import duration, several

# So many of the best offers are looked at, and so many machines at most.
OFFERS, MACHINES = 20, 100
TIMES, DASH = "\u00d7", "\u2013"


class Lasting(NamedTuple):
    """How long tasks of a step have lasted, in seconds: the middle four fifths of so many that succeeded."""

    low_s: float
    high_s: float
    known: int


class Way(NamedTuple):
    """One way of running a step. Times in seconds (None: not known), amounts in units of `currency`, for all machines together."""

    called: str
    machines: int
    flavor: str
    provider: str
    region: str
    market: str
    slots: int
    per_hour: float
    currency: str
    low_s: float | None = None
    high_s: float | None = None
    low_cost: float | None = None
    high_cost: float | None = None

    def cells(self) -> list[str]:
        """As a line of a table."""
        market = " (spot)" if self.market == "spot" else ""
        per_hour = money.said(self.per_hour, self.currency, per_hour=True)
        cells = [self.called, f"{self.machines} {TIMES} {self.flavor}{market}", self.region, per_hour]
        if (
            self.low_s is not None
            and self.high_s is not None
            and self.low_cost is not None
            and self.high_cost is not None
        ):
            cells += [
                _between(duration(self.low_s), duration(self.high_s)),
                between(self.low_cost, self.high_cost, self.currency),
            ]
        return cells


@dataclass(frozen=True)
class Offered:
    """What could be rented for the tasks of a step that are to run. `why`: what is not known, or why there is nothing."""

    step: str
    tasks: int
    lasting: Lasting | None
    ways: tuple[Way, ...] = ()
    why: str = ""

    def lines(self) -> list[str]:
        """As text."""
        history = "no task of it has succeeded yet, so how long they take is not known"
        if self.lasting is not None:
            each = _between(duration(self.lasting.low_s), duration(self.lasting.high_s))
            history = f"history: {each} each"
        head = f" offers for {several(self.tasks, f'{self.step} task')} ({history})"
        rows = [way.cells() for way in self.ways]
        size = max((len(row) for row in rows), default=0)
        widths = [max((len(row[n]) for row in rows if n < len(row)), default=0) for n in range(size)]
        lines = [
            "   " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
            for row in rows
        ]
        return [head, *lines, *([f"   {self.why}"] if self.why else [])]

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        lasting = None if self.lasting is None else self.lasting._asdict()
        return {
            "step": self.step, "tasks": self.tasks, "lasting": lasting, "ways": [way._asdict() for way in self.ways], "why": self.why,
        }  # fmt: skip


def offered(
    step: str, tasks: int, lasting: Lasting | None, ranked: Sequence[Ranked], *, most: int | None = None, why: str = ""
) -> Offered:
    """The cheapest, the fastest and a balanced way of running tasks. `most`: so many machines may be rented at once."""
    priced = [one for one in ranked if one.offer.price is not None][:OFFERS]
    if tasks <= 0 or not priced:
        return Offered(step, tasks, lasting, why=why or "nothing that has a price is offered for it")
    # What is in another currency is not compared: the first one's counts.
    priced = [one for one in priced if one.offer.currency == priced[0].offer.currency]
    limit = min(most or MACHINES, MACHINES)
    if lasting is None:
        return Offered(step, tasks, None, (_way("an hour", priced[0], 1, tasks, None),), why)
    ways = []
    for one in priced:
        there = limit if one.available is None else min(limit, one.available)
        for machines in _numbers(min(there, -(-tasks // one.slots))):
            ways.append(_way("", one, machines, tasks, lasting))
    if not ways:
        return Offered(step, tasks, lasting, why=why or "none of what is offered for it can be had now")
    cheapest = min(ways, key=lambda way: (_cost(way), _time(way)))
    fastest = min(ways, key=lambda way: (_time(way), _cost(way)))
    balanced = min(ways, key=lambda way: (_time(way) * max(_cost(way), 1e-9), _time(way)))
    called = {cheapest: "cheapest"}
    called.setdefault(fastest, "fastest")
    called.setdefault(balanced, "balanced")
    named = [way._replace(called=word) for way, word in called.items()]
    return Offered(step, tasks, lasting, tuple(sorted(named, key=lambda way: (_cost(way), -_time(way)))), why)


def _numbers(most: int) -> list[int]:
    """Numbers of machines worth looking at: each up to ten, then steps of a tenth."""
    found, number = [], 1
    while number < most:
        found.append(number)
        number = max(number + 1, number * 11 // 10)
    return [*found, most] if most >= 1 else found


def _way(called: str, one: Ranked, machines: int, tasks: int, lasting: Lasting | None) -> Way:
    offer = one.offer
    assert offer.price is not None
    way = Way(
        called, machines, offer.flavor.name, offer.flavor.provider, offer.region, offer.market, one.slots, machines * offer.price,
        offer.currency,
    )  # fmt: skip
    if lasting is None:
        return way
    turns = -(-tasks // (machines * one.slots))
    low_s, high_s = (one.boot_s + turns * each for each in (lasting.low_s, lasting.high_s))
    costs = [
        money.cost(offer.price, 0, round(1000 * each), offer.billed_s, offer.minimum_s) or 0 for each in (low_s, high_s)
    ]
    return way._replace(
        low_s=low_s, high_s=high_s, low_cost=machines * costs[0] / UNIT, high_cost=machines * costs[1] / UNIT
    )


def _time(way: Way) -> float:
    return ((way.low_s or 0.0) + (way.high_s or 0.0)) / 2


def _cost(way: Way) -> float:
    return ((way.low_cost or 0.0) + (way.high_cost or 0.0)) / 2


def total(found: Sequence[Offered]) -> list[str]:
    """What all steps together cost, the cheapest and the fastest way, by currency; nothing for one step."""
    if len([one for one in found if one.ways]) < 2 or any(one.lasting is None for one in found):
        return []
    lines = []
    for called, number in (("cheapest", 0), ("fastest", -1)):
        sums: dict[str, list[float]] = {}
        for one in found:
            if one.ways:
                way = one.ways[number]
                low, high = sums.setdefault(way.currency, [0.0, 0.0])
                sums[way.currency] = [low + (way.low_cost or 0), high + (way.high_cost or 0)]
        lines.append(
            f"   {called}  " + " and ".join(between(low, high, currency) for currency, (low, high) in sums.items())
        )
    return [" all steps", *lines]


def between(low: float, high: float, currency: str) -> str:
    """Two amounts as an interval."""
    return _between(money.said(low, currency), money.said(high, currency))


def _between(low: str, high: str) -> str:
    """Two texts as an interval; what ends both alike is said once."""
    if low == high:
        return low
    (first, _, unit), (last, _, other) = low.rpartition(" "), high.rpartition(" ")
    is_short = unit == other and first and last and " " not in first + last
    return f"{first}{DASH}{last} {unit}" if is_short else f"{low} {DASH} {high}"


def lasting(durations: Sequence[float]) -> Lasting | None:
    """The middle four fifths of some durations; None without any."""
    if not durations:
        return None
    ordered = sorted(durations)
    last = len(ordered) - 1
    return Lasting(ordered[round(0.1 * last)], ordered[round(0.9 * last)], len(ordered))
