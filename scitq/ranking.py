"""Which offers would do, best first, and why the others would not.

Pure: takes offers and what is known of providers, returns a ranking. Preferred regions come first, then what costs least for an
hour of one slot: with the time until the machine works, the time that is billed after its work, and what evictions cost. Prices of
unknown height come last. Prices in currencies between which no rate is configured are not compared: they are ranked apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from scitq.appraising import MACHINES, WORK_S, Key, Left, boot_of, dearer, draws, eviction_of, slots_of, takes
from scitq.errors import BadInput
from scitq.offers import MARKETS, Flavor, Hold, Observed, Offer
from scitq.pictured import Pictured
from scitq.protofilter import (
    AUTO,
    MAX_EVICTION,
    Filter,
    is_like,
    is_protofilter,
    machine_of,
    named,
    parse,
    reason,
    unmet,
    with_implied,
)
from scitq.saying import duration, several, size
from scitq.task import Need

if TYPE_CHECKING:
    from scitq.markup import Markup

# Sizes of disks are billed by the month.
HOURS_A_MONTH = 730
# Filters that depend on more than the flavor.
_OF_OFFERS = frozenset({"region", "zone", "market", "cost", "price", "eviction"})
# How far an offer comes that does not do.
_PLACE, _FLAVOR, _IMPLICIT, _MARKET, _OFFER, _RARELY, _NOW = range(7)


@dataclass(frozen=True)
class Wish:
    """What is looked for. `flavor` is a name (may have %) or a protofilter; None and `auto` are any, of providers and regions too.

    `market` None: as is configured for the provider, unless the protofilter says it. `concurrency`: tasks at once on one machine; None:
    one for each CPU. `needs`: what tasks ask for; a machine on which none of them fits does not do.
    """

    flavor: str | None = None
    provider: str | None = None
    region: str | None = None
    market: str | None = None
    max_price: float | None = None
    max_eviction: float = MAX_EVICTION
    concurrency: int | None = None
    needs: Sequence[Need | None] = ()


@dataclass(frozen=True)
class Volume:
    """Disks that a provider lets one choose: up to `most` bytes, at `price` for a GB (10^9 bytes) and month."""

    most: int
    price: float


@dataclass(frozen=True)
class Known:
    """What is known beside the offers. `providers` are those that can be used (None: all).

    By provider: `markets` (spot, ondemand, or any), `preferred` (patterns of regions, the best first), `volumes`. `left` is by provider,
    region and family (see `left_of`). `rates` says what one unit of other currencies is worth in `currency`.
    """

    holds: Sequence[Hold] = ()
    left: Mapping[tuple[str, str, str], Left] = field(default_factory=dict)
    history: Mapping[Key, Observed] = field(default_factory=dict)
    markets: Mapping[str, str] = field(default_factory=dict)
    preferred: Mapping[str, Sequence[str]] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    currency: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    providers: Collection[str] | None = None
    work_s: float = WORK_S


class Ranked(NamedTuple):
    """An offer that would do. `offer` may have a larger disk, and price, than the one that was looked at.

    `cost` is what an hour of one slot is expected to cost, in `currency`; None: its price is not known. `eviction` (per cent per hour)
    and `boot_s` are what is expected.
    """

    offer: Offer
    cost: float | None
    currency: str
    slots: int
    eviction: float
    boot_s: float
    is_preferred: bool = True
    order: int = 0
    """Its region's place among those that are preferred."""
    available: int | None = None
    """How many more could be had now, by stock and by quotas; None: not known."""

    @property
    def why(self) -> str:
        """How it comes to its place, in a sentence."""
        offer = self.offer
        if self.cost is None or offer.price is None:
            return "its price is not known"
        parts = [
            f"{offer.price:.4g} {offer.currency} an hour for {self.slots} {'slot' if self.slots == 1 else 'slots'}"
        ]
        if offer.root_disk:
            parts[0] += f" with a disk of {size(offer.root_disk)}"
        parts.append(f"works after {duration(self.boot_s)}")
        if self.eviction:
            parts.append(f"evicted {self.eviction:.2g} % an hour")
        if not self.is_preferred:
            parts.append("not in a preferred region")
        return ", ".join(parts)


class Excluded(NamedTuple):
    """An offer that would not do, and why. `far`: how much of what was asked it met before; larger is nearer."""

    offer: Offer
    reason: str
    far: int = 0


class _Miss(NamedTuple):
    reason: str
    far: int


# So many offers are shown in a notebook.
_SHOWN = 20


@dataclass(frozen=True)
class Ranking(Pictured):
    """Offers that would do, best first; those that would not, those that nearly would first. `notes`: what to know of the order."""

    ranked: Sequence[Ranked] = ()
    excluded: Sequence[Excluded] = ()
    notes: Sequence[str] = ()

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.ranked)

    def __len__(self) -> int:
        return len(self.ranked)

    def _words(self) -> str:
        return f"<{several(len(self.ranked), 'offer')} that would do, {len(self.excluded)} that would not>"

    def _picture(self) -> Markup:
        from scitq.markup import soft, table, tag

        head = (
            "flavor",
            "provider",
            "region",
            "market",
            "CPUs",
            "memory",
            "disk",
            "GPU",
            "an hour",
            "a slot's hour",
            "evicted",
            "free",
        )
        rows = [
            (
                one.offer.flavor.name, one.offer.flavor.provider, one.offer.region, one.offer.market, one.offer.flavor.cpu,
                size(one.offer.flavor.ram), size(one.offer.disk) if one.offer.disk else None,
                None if one.offer.flavor.gpu is None else f"{one.offer.flavor.gpu.count:g} {one.offer.flavor.gpu.model}",
                "not known" if one.offer.price is None else f"{one.offer.price:.4g} {one.offer.currency}",
                None if one.cost is None else f"{one.cost:.4f} {one.currency}",
                f"{one.eviction:.2g} %/h" if one.eviction else None, one.available,
            )
            for one in self.ranked[:_SHOWN]
        ]  # fmt: skip
        more = len(self.ranked) - len(rows)
        parts = [several(len(self.ranked), "offer"), f" that would do, {len(self.excluded)} that would not"]
        notes = [*([f"and {more} more"] if more > 0 else []), *self.notes]
        told = [tag("div", soft(note)) for note in notes]
        return tag(
            "div", tag("div", parts), table(head, rows, (4, 5, 6, 8, 9, 10, 11)) if rows else None, told, class_="scitq"
        )


def rank(offers: Iterable[Offer], wish: Wish, known: Known, now_ms: int) -> Ranking:
    """Put offers into order.

    Raises:
        BadInput: the wish makes no sense; a BadProtofilter says where.
    """
    choice = _Choice(wish, known, now_ms)
    ranked: list[Ranked] = []
    missed: list[tuple[Offer, _Miss]] = []
    of = choice.of
    for offer in offers:
        found = of(offer)
        if isinstance(found, _Miss):
            missed.append((offer, found))
        else:
            ranked.append(found)
    ranked.sort(key=lambda one: _place(one, known.currency))
    return Ranking(ranked, _Missed(missed), _notes(wish, known, ranked, choice))


class _Missed(Sequence[Excluded]):
    """What would not do. Put into order when somebody looks at it: nearly always there are thousands, and nobody does."""

    def __init__(self, missed: list[tuple[Offer, _Miss]]) -> None:
        self._missed = missed
        self._told: list[Excluded] | None = None

    def __len__(self) -> int:
        return len(self._missed)

    @overload
    def __getitem__(self, at: int) -> Excluded: ...
    @overload
    def __getitem__(self, at: slice) -> list[Excluded]: ...
    def __getitem__(self, at: int | slice) -> Excluded | list[Excluded]:
        if self._told is None:
            ordered = sorted(self._missed, key=lambda one: -one[1].far)
            self._told = [Excluded(offer, *miss) for offer, miss in ordered]
        return self._told[at]


def _place(one: Ranked, currency: str | None) -> tuple[Any, ...]:
    """What offers are sorted by. No two offers have the same: the last four are the key."""
    offer = one.offer
    return (
        one.cost is None, one.currency != currency, one.currency, one.order, one.cost or 0.0, offer.root_disk > 0,
        -(one.available or 0), -offer.score, offer.flavor.name, offer.region, offer.market, offer.flavor.provider,
    )  # fmt: skip


def _notes(wish: Wish, known: Known, ranked: Sequence[Ranked], choice: _Choice) -> list[str]:
    currencies = sorted({one.currency for one in ranked if one.cost is not None})
    if len(currencies) < 2:
        return []
    listed = " and ".join(currencies)
    is_first = known.currency in currencies
    first = known.currency if is_first else currencies[0]
    todo = "money.rates does not say what others are worth" if is_first else "say money.currency and money.rates"
    notes = [f"Prices in {listed} are not compared, those in {first} come first: {todo}."]
    if wish.max_price is not None or choice.asks_price:
        notes.append(f"A price that was asked for is taken as one in each of {listed}.")
    return notes


class _Choice:
    """One look at many offers. What depends on the flavor or the region alone is found out once for each."""

    def __init__(self, wish: Wish, known: Known, now_ms: int) -> None:
        self._wish, self._known, self._now_ms = wish, known, now_ms
        filters: tuple[Filter, ...] = ()
        self._name = None
        if wish.flavor is not None and is_protofilter(wish.flavor):
            filters = parse(wish.flavor)
        elif wish.flavor is not None:
            self._name = wish.flavor
        if self._name is None or "%" in self._name:
            may_have_gpu = any(need is not None and need.gpus for need in wish.needs)
            filters = with_implied(filters, max_eviction=wish.max_eviction, may_have_gpu=may_have_gpu)
        if self._name is not None:  # who names some wants what they are
            filters = tuple(one for one in filters if one.item == "eviction")
        if wish.market not in (None, "any", *MARKETS):
            raise BadInput(f"market is {' or '.join(MARKETS)}, not {wish.market!r}.")
        self._any_market = wish.market == "any" or (
            wish.market is None and any(one.item == "market" for one in filters)
        )
        self.asks_price = any(one.item in ("price", "cost") for one in filters)
        self._of_flavors = [one for one in filters if one.item not in _OF_OFFERS]
        # Each with what it looks at, and what it said of that.
        self._of_offers: list[tuple[Filter, Callable[[Offer], Any], dict[Any, _Miss | None]]] = [
            (one, _get(one.item), {}) for one in filters if one.item in _OF_OFFERS
        ]
        self._left: dict[tuple[str, str], dict[str, Left]] = {}
        for (provider, region, family), left in known.left.items():
            self._left.setdefault((provider, region), {})[family] = left
        self._flavors: dict[int, _Fit] = {}
        self._places: dict[tuple[str, str], _Place] = {}

    def of(self, offer: Offer) -> Ranked | _Miss:
        """The place of an offer, or why it has none."""
        flavor = offer.flavor
        fit = self._flavors.get(id(flavor))
        if fit is None:
            fit = self._flavors[id(flavor)] = self._fit(flavor)
        place = self._places.get((flavor.provider, offer.region))
        if place is None:
            place = self._places[flavor.provider, offer.region] = self._place(flavor.provider, offer.region)
        if (miss := place.miss or fit.miss or place.markets.get(offer.market)) is not None:
            return miss
        for one, get, seen in self._of_offers:
            value = get(offer)
            if value not in seen:
                said = reason(one, machine_of(offer))
                seen[value] = None if said is None else _Miss(said, _RARELY if one.is_implied else _OFFER)
            if (miss := seen[value]) is not None:
                return miss
        if fit.root_disk:
            offer = self._with_disk(offer, fit.root_disk)
        said = self._dear(offer) or self._gone(offer, place)
        available = offer.available
        if said is None and place.left:
            said, available = self._short(offer, place.left)
        return self._ranked(offer, fit.slots, place, available) if said is None else _Miss(said, _NOW)

    # --- once for many ----------------------------------------------------------------------------------------------------

    def _fit(self, flavor: Flavor) -> _Fit:
        """What a flavor alone says."""
        if self._name is not None and not named(flavor.name, self._name):
            return _Fit(flavor, _Miss(f"its flavor is {flavor.name}, not {self._name}", _PLACE))
        machine = machine_of(Offer(flavor, ""))
        missing, root_disk = unmet(self._of_flavors, machine), 0
        volume = self._known.volumes.get(flavor.provider)
        if volume is not None and missing and all(one.item == "disk" for one in missing):
            wanted = max(_at_least(one) for one in missing)
            if 0 < wanted <= volume.most and not unmet(self._of_flavors, replace(machine, disk=wanted)):
                missing, root_disk = [], wanted
        if missing:
            far = _IMPLICIT if missing[0].is_implied else _FLAVOR
            return _Fit(flavor, _Miss(str(reason(missing[0], machine)), far))
        slots = slots_of(flavor, self._wish.concurrency, self._wish.needs)
        if slots == 0:
            asked = " or ".join(sorted({need.describe() for need in self._wish.needs if need is not None}))
            said = f"no task fits on it: they ask for {asked}, and it has {_has(flavor)}"
            return _Fit(flavor, _Miss(said, _IMPLICIT))
        return _Fit(flavor, None, slots, root_disk)

    def _place(self, provider: str, region: str) -> _Place:
        """What the provider and the region alone say."""
        wish, known, miss = self._wish, self._known, None
        for what, has, wanted in (("region", region, wish.region), ("provider", provider, wish.provider)):
            if wanted not in (None, AUTO) and not named(has, str(wanted)):
                miss = _Miss(f"its {what} is {has}, not {wanted}", _PLACE)
        if miss is None and known.providers is not None and provider not in known.providers:
            miss = _Miss(f"{provider} is not in your settings (any more)", _PLACE)
        market = "any" if self._any_market else wish.market or known.markets.get(provider, "ondemand")
        asked = "was asked for" if wish.market else f"is configured for {provider}"
        markets: dict[str, _Miss] = {
            one: _Miss(f"its market is {one}, and {market} {asked}", _MARKET) for one in MARKETS if market not in ("any", one)
        }  # fmt: skip
        patterns = known.preferred.get(provider, ())
        order = next((number for number, pattern in enumerate(patterns) if is_like(region, pattern)), len(patterns))
        holds = [
            hold for hold in known.holds
            if hold.provider == provider and hold.region in (None, region) and hold.until_ms > self._now_ms
        ]  # fmt: skip
        left = {**self._left.get((provider, ""), {}), **self._left.get((provider, region), {})}
        return _Place(miss, markets, order, order < max(1, len(patterns)), holds, left)

    # --- what is not to be had --------------------------------------------------------------------------------------------

    def _dear(self, offer: Offer) -> str | None:
        if self._wish.max_price is None:
            return None
        if offer.price is None:
            return "its price is not known, and there is a limit"
        limit, price, currency = self._wish.max_price, *self._worth(offer.price, offer.currency)
        return f"its price is {price:.4g} {currency} an hour, more than {limit:g}" if price > limit else None

    def _gone(self, offer: Offer, place: _Place) -> str | None:
        if offer.available == 0:
            return offer.reason or "none is available now"
        for hold in place.holds:
            if hold.covers(offer):
                return f"not tried for {duration((hold.until_ms - self._now_ms) / 1000)} more: {hold.reason}"
        return None

    def _short(self, offer: Offer, left: Mapping[str, Left]) -> tuple[str | None, int | None]:
        """Which quota forbids it, and how many can be had."""
        counts = [] if offer.available is None else [offer.available]
        for provider, _, family in draws(offer):
            if (quota := left.get(family)) is None or (amount := takes(offer.flavor, quota.unit)) <= 0:
                continue
            counts.append(int(quota.amount // amount))
            if quota.amount >= amount:
                continue
            if family == MACHINES:
                return f"max_machines of {provider} is reached", 0
            had = max(0.0, quota.amount)
            said = f"{had:g} left, {amount:g} needed"
            if quota.unit == "bytes":
                said = f"{size(int(had))} left, {size(int(amount))} needed"
            return f"quota of {family} in {offer.region}: {said}", 0
        return None, min(counts, default=None)

    # --- what it costs ----------------------------------------------------------------------------------------------------

    def _with_disk(self, offer: Offer, root_disk: int) -> Offer:
        volume = self._known.volumes[offer.flavor.provider]
        more = (root_disk - offer.flavor.root_disk) / 1e9 * volume.price / HOURS_A_MONTH
        return replace(offer, root_disk=root_disk, price=None if offer.price is None else offer.price + more)

    def _worth(self, amount: float, currency: str) -> tuple[float, str]:
        """An amount in the currency of reference, if there is a way to it."""
        rate = self._known.rates.get(currency)
        if self._known.currency is None or rate is None or currency == self._known.currency:
            return amount, currency
        return amount * rate, self._known.currency

    def _ranked(self, offer: Offer, slots: int, place: _Place, available: int | None) -> Ranked:
        seen = self._known.history.get(offer.key, _NOTHING) if self._known.history else _NOTHING
        boot_s, eviction = boot_of(seen), eviction_of(offer, seen)
        cost, currency = None, offer.currency
        if offer.price is not None:
            price, currency = self._worth(offer.price, offer.currency)
            cost = price * dearer(offer, boot_s, eviction, self._known.work_s) / slots
        return Ranked(offer, cost, currency, slots, eviction, boot_s, place.is_preferred, place.order, available)


class _Fit(NamedTuple):
    """What is known of a flavor: why it does not do, or its slots and the disk that it needs to be given (0: its own does)."""

    flavor: Flavor  # kept, so that its id stays its own
    miss: _Miss | None
    slots: int = 0
    root_disk: int = 0


class _Place(NamedTuple):
    """What is known of a region: why it does not do, or which markets do not; its order, what is held, what is left of quotas."""

    miss: _Miss | None
    markets: Mapping[str, _Miss]
    order: int
    is_preferred: bool
    holds: Sequence[Hold]
    left: Mapping[str, Left]


_NOTHING = Observed()


# --- words ------------------------------------------------------------------------------------------------------------------------


def _has(flavor: Flavor) -> str:
    parts = [f"{flavor.cpu} CPUs", size(flavor.ram)]
    if flavor.gpu is not None:
        parts.append(f"{flavor.gpu.count:g} {flavor.gpu.model}")
    return ", ".join(parts)


def _at_least(one: Filter) -> int:
    """The least that meets a filter of an amount; 0: no more of it would."""
    if isinstance(one.value, str) or one.comparator not in (">=", ">", "=="):
        return 0
    return int(one.value) + (10**9 if one.comparator == ">" else 0)


def _get(item: str) -> Callable[[Offer], Any]:
    """What a filter that is not about flavors looks at."""
    name = {"zone": "zones", "cost": "price"}.get(item, item)
    return lambda offer: getattr(offer, name)
