"""What is sold, as recruiters see it: ranked for each of them, and asked for anew where it is too old to rent by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq import spending
from scitq.appraising import Left, boot_of, left_of
from scitq.catalogue import OFFERS, QUOTAS, STOCK_S
from scitq.catalogue import known as about
from scitq.money import Rates
from scitq.ranking import Ranking, Wish, rank
from scitq.roster import ASKING, Demand
from scitq.store import catalogue as rows
from scitq.worker import Recruiter

if TYPE_CHECKING:
    import apsw

    from scitq.catalogue import Catalogue

# Quotas are asked for in the regions of so many of the best offers.
ASKED = 8


class Market:
    """Ranks offers for recruiters, and remembers that while nothing changes."""

    def __init__(self) -> None:
        self._version: tuple[Any, ...] = ()
        self._rankings: dict[tuple[Any, ...], Ranking] = {}
        self._asking: set[tuple[int, int]] = set()
        """Recruiters for which something was too old at the last look that could ask."""

    def seen(self, db: apsw.Connection, now_ms: int, asks: Catalogue | None) -> Callable[[Demand, Recruiter], Ranking]:
        """What ranks for one look at the file. With `asks`, what is too old is asked for; nothing is offered until it is there."""
        if asks is not None:
            self._asking.clear()
        return lambda demand, rule: self._ranking(db, now_ms, demand, rule, asks)

    def _ranking(
        self, db: apsw.Connection, now_ms: int, demand: Demand, rule: Recruiter, asks: Catalogue | None
    ) -> Ranking:
        if (demand.batch, rule.rank) in self._asking:
            return Ranking(notes=[ASKING])
        names = sorted(configured()) if rule.provider == "auto" else [str(rule.provider)]
        reads = [rows.read(db, name, OFFERS) for name in names]
        found = self._ranked(db, now_ms, demand, rule)
        if asks is not None:
            places = {(one.offer.flavor.provider, one.offer.region) for one in found.ranked[:ASKED]}
            reads += [rows.read(db, provider, QUOTAS, region) for provider, region in sorted(places)]
            fresh = [
                asks.want(read, now_ms, STOCK_S) for read in reads
            ]  # all of them, not only up to the first that is not
            if not all(fresh):
                self._asking.add((demand.batch, rule.rank))
                return Ranking(notes=[ASKING])
        if not found.ranked and not found.excluded:
            said = [f"{read.provider} cannot be asked: {read.problem}" for read in reads if read.problem]
            new = [f"{read.provider} has not told yet what it sells" for read in reads if read.fetched_ms is None]
            return Ranking(notes=said or new)
        return found

    def _ranked(self, db: apsw.Connection, now_ms: int, demand: Demand, rule: Recruiter) -> Ranking:
        known = about(db, now_ms, configured())
        version = (
            rows.version(db), tuple(known.holds), tuple(sorted(known.left.items())), repr(known.markets), repr(known.preferred),
            repr(known.volumes), known.currency, repr(known.rates),
        )  # fmt: skip
        if version != self._version:
            self._version, self._rankings = version, {}
        needs = tuple(work.need for work in demand.work)
        key = (rule.flavor, rule.provider, rule.region, rule.market, rule.max_price, rule.concurrency, needs)
        if key not in self._rankings:
            wish = Wish(
                rule.flavor, rule.provider, rule.region, rule.market, rule.max_price, concurrency=rule.concurrency, needs=needs
            )  # fmt: skip
            self._rankings[key] = rank(
                rows.offers(db, None if rule.provider == "auto" else rule.provider), wish, known, now_ms
            )
        return self._rankings[key]


def left(db: apsw.Connection) -> dict[tuple[str, str, str], Left]:
    """What is left of quotas, as they were last told, less what this file has rented since."""
    return left_of(rows.quotas(db), rows.rented(db))


def boots(db: apsw.Connection, now_ms: int) -> dict[tuple[str, str, str, str], float]:
    """How long machines of offers that were rented before need until they work."""
    return {key: boot_of(seen) for key, seen in rows.history(db, now_ms=now_ms).items()}


def rates() -> Rates:
    """What other currencies are worth, as the user's settings say."""
    return spending.rates()


def configured() -> dict[str, dict[str, Any]]:
    """The providers of the user's settings."""
    from scitq.remote import providers

    return providers.configured()
