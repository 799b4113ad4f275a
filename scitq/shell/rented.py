"""What of the workers is rented: where, at what price, and what each has cost until now; for pages and screens that show workers."""

from __future__ import annotations

from dataclasses import dataclass

from scitq import money
from scitq.engine import Engine
from scitq.offers import Rental
from scitq.shell import facts
from scitq.store import costs


@dataclass(frozen=True)
class Rented:
    """A worker's machine. `cost` (billionths) is what it is billed for if it is gone now; None: its price is not known."""

    rental: Rental
    cost: int | None

    @property
    def price(self) -> str:
        """`0.20 €/h`."""
        return money.said(self.rental.price, self.rental.currency, per_hour=True)

    @property
    def spent(self) -> str:
        """`0.05 €`."""
        return money.said(self.cost, self.rental.currency)


def rented(engine: Engine) -> dict[int, Rented]:
    """By worker. What has ended takes no time to read."""
    open_ones = engine.rentals()
    if not open_ones:
        return {}
    now = facts.now_ms()
    spent = {life.worker: life.cost(now) for life in costs.lives(engine._reader(), now, shared=False)}
    return {int(one.worker): Rented(one, spent.get(int(one.worker))) for one in open_ones}
