"""The make-believe cloud as its makers see it: what it sells, what goes wrong, what time it is there, and its books.

Renting from it is `renting`. Any number of processes may do either at the same time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scitq.errors import BadRequest
from scitq.offers import Market, Unit
from scitq.remote.providers.fake import catalogue, faults, weather
from scitq.remote.providers.fake.world import Change, Keeper, Limit, Machine, Sale, Thing, World


@dataclass(frozen=True)
class Bill:
    """What one machine that was ever accepted costs, so far or in all. `request`: the number of the create that it came of."""

    machine: str
    name: str
    code: str
    store: str
    request: int
    accepted_ms: int
    ended_ms: int | None
    seconds: int
    """That are billed."""
    price: float
    amount: float
    currency: str


class Cloud:
    """The cloud that is kept in a folder; made when there is none."""

    def __init__(self, folder: str | Path, **born: Any) -> None:
        """`born`: fields of `World`, for one that is new; `bare`: it sells nothing until it is told."""
        self.folder = Path(folder).absolute()
        is_bare = born.pop("bare", False)
        self._keeper = Keeper(self.folder, lambda: World(**born) if is_bare else catalogue.born(**born))

    @contextlib.contextmanager
    def open(self) -> Iterator[World]:
        """All there is, as it is now, for oneself alone; what is changed is kept."""
        with self._keeper.open() as world:
            weather.settle(world)
            try:
                yield world
            finally:
                weather.settle(world)
                weather.look(world, self.folder)
                self._keeper.save(world)  # first it is so, then it is done: a kill in between leaves it to the next one
                if weather.is_done(world, self.folder):
                    self._keeper.save(world)

    def stamp(self) -> tuple[int, int] | None:
        """Changes when anything of it does."""
        return self._keeper.stamp()

    # --- time -------------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Its clock."""
        with self.open() as world:
            return world.now_ms()

    def advance(self, seconds: float) -> int:
        """Move its clock; what comes due is done. Agents do not notice. Gives the new time."""
        with self.open() as world:
            world.offset_ms += int(seconds * 1000)
            return world.now_ms()

    def at(self, seconds: float, do: str, **arguments: Any) -> None:
        """Have a change made so many seconds from now: `price`, `stock`, `quota` or `fault`, with what those methods take."""
        with self.open() as world:
            if do not in ("price", "stock", "quota", "fault"):
                raise BadRequest(f"there is no change {do!r}.")
            world.changes.append(Change(world.now_ms() + int(seconds * 1000), do, arguments))

    # --- what is sold -----------------------------------------------------------------------------------------------------

    def sell(
        self,
        region: str,
        flavor: str,
        price: float | None,
        *,
        market: Market = "ondemand",
        cpu: int | None = None,
        ram: int | None = None,
        **more: Any,
    ) -> None:
        """Sell a flavor, which is made when `cpu` and `ram` (bytes) are given. `more`: fields of `Sale`, and of the flavor."""
        sale = {key: more.pop(key) for key in ("currency", "billed_s", "minimum_s", "eviction", "stock") if key in more}
        with self.open() as world:
            if cpu is not None and ram is not None:
                world.flavors[flavor] = catalogue.flavor(cpu, ram, **more)
            if flavor not in world.flavors:
                raise BadRequest(f"there is no flavor {flavor!r}: say its cpu and ram.")
            if region not in world.regions:
                world.regions.append(region)
            one = Sale(region, flavor, market, price, **sale)
            world.sales = [old for old in world.sales if old.key != one.key] + [one]

    def price(self, price: float | None = None, **about: Any) -> int:
        """Change prices: to this, or by `factor`; of a `region`, `flavor`, `market`, or of all. Gives how many."""
        return self._change("price", **about, **({} if "factor" in about else {"price": price}))

    def stock(self, stock: int | None, **about: Any) -> int:
        """How many more there are; None: as many as anybody wants."""
        return self._change("stock", stock=stock, **about)

    def quota(self, family: str, *, region: str | None = None, unit: Unit = "vcpu", **values: float) -> int:
        """Change a quota: its `limit`, or what `others` use of it; made where there is none."""
        with self.open() as world:
            for each in [region] if region is not None else world.regions:
                if not any((one.region, one.family) == (each, family) for one in world.limits):
                    world.limits.append(Limit(each, family, unit, 0.0))
            return weather.change(world, "quota", {"region": region, "family": family, **values})

    def _change(self, do: str, **arguments: Any) -> int:
        with self.open() as world:
            return weather.change(world, do, arguments)

    # --- what goes wrong --------------------------------------------------------------------------------------------------

    def fail(self, call: str, fault: str, *, for_s: float | None = None, **how: Any) -> None:
        """Let a call go wrong (see `faults`): once, or `times` (-1: always), after `skip` that go well, for `for_s` seconds;
        only of a `region`, `flavor`, `market`, `name`. `value`: how long, how many."""
        faults.check(call, fault)
        with self.open() as world:
            until = None if for_s is None else world.now_ms() + int(for_s * 1000)
            if until is not None:
                how.setdefault("times", -1)
            weather.change(world, "fault", {"call": call, "fault": fault, "until_ms": until, **how})

    def heal(self) -> None:
        """Let everything go well again."""
        with self.open() as world:
            world.script.clear()

    def evict(self, machine: str, *, notice_s: float | None = None, stays: bool = True) -> None:
        """Take a machine back (its id, code or name), after it was told so; None: as long before as is the cloud's habit."""
        with self.open() as world:
            one, now = _one(world, machine), world.now_ms()
            one.notice_ms, one.stays = now, stays
            one.evict_ms = now + (world.notice_ms if notice_s is None else int(notice_s * 1000))

    def vanish(self, machine: str) -> None:
        """Let a machine be gone, without a word."""
        with self.open() as world:
            _one(world, machine).vanish_ms = world.now_ms()

    # --- the books --------------------------------------------------------------------------------------------------------

    def machines(self, *, all: bool = False) -> list[Machine]:
        """The machines that there are, of whomever; `all`: and those that there were."""
        with self.open() as world:
            return [*world.machines.values()] if all else world.alive()

    def things(self) -> list[Thing]:
        """What was left behind."""
        with self.open() as world:
            return [*world.things.values()]

    def calls(self) -> dict[str, int]:
        """How often what was called."""
        with self.open() as world:
            return dict(world.calls)

    def ledger(self) -> list[Bill]:
        """The bill of each machine that was ever accepted."""
        with self.open() as world:
            return [_bill(one, world.now_ms()) for one in world.machines.values()]

    def billed(self) -> dict[str, float]:
        """The sum of all bills, by currency."""
        found: dict[str, float] = {}
        for bill in self.ledger():
            found[bill.currency] = found.get(bill.currency, 0.0) + bill.amount
        return found


def _one(world: World, machine: str) -> Machine:
    found = [one for one in world.alive() if machine in (one.id, one.code, one.name)]
    if not found:
        raise BadRequest(f"there is no machine {machine!r}.")
    return found[0]


def _bill(one: Machine, now: int) -> Bill:
    life_s = max(0.0, ((one.ended_ms or now) - one.accepted_ms) / 1000)
    seconds = max(one.minimum_s, math.ceil(life_s / one.billed_s) * one.billed_s)
    price = one.price or 0.0
    return Bill(
        one.id, one.name, one.code, one.store, one.request, one.accepted_ms, one.ended_ms, seconds, price, price * seconds / 3600,
        one.currency,
    )  # fmt: skip
