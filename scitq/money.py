"""What machines cost, what has been agreed to by renting them, and how much more may be.

Pure: rows go in, amounts come out; who reads and writes them is `store.costs`, who acts on them is `recruiting`.

An amount is a whole number of billionths of a unit of its currency ("nanos"). It is rounded once, to the nearest, when the share
of an execution or the life of a machine is worked out; from there on amounts are only added and subtracted, so parts sum to the
whole exactly. Amounts of different currencies are never added: they are kept side by side, or converted by rates of the user's.
Prices are per hour, times in milliseconds since 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from scitq.errors import BadInput
from scitq.offers import Offer

UNIT = 1_000_000_000
HOUR_MS = 3_600_000
# Until a machine that is let go is gone, it is paid for: so much is set aside for each that runs.
LETTING_GO_S = 300
# A machine that is rented lives at least so long: it has to start, and to be of some use.
LEAST_S = 600
# Farther than this nobody looks ahead.
AHEAD_MS = 30 * 86_400_000
SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}
_CAP = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*(?:([A-Za-z]{3})|([€$£]))?\s*")

Rates = Mapping[str, float]
"""What one unit of a currency is worth, in units of any one that they all are compared with."""


# --- amounts --------------------------------------------------------------------------------------------------------------------


def nanos(value: float) -> int:
    """An amount in units of its currency as one in billionths."""
    return round(value * UNIT)


def said(amount: int | float | None, currency: str, *, per_hour: bool = False) -> str:
    """`0.77 €`; a float is in units, a whole number in billionths. What is less than a cent, but something, keeps two figures."""
    unit = SYMBOLS.get(currency, currency)
    hour = "/h" if per_hour else ""
    if amount is None:
        return "not known"
    value = amount / UNIT if isinstance(amount, int) else amount
    if value and abs(value) < 0.01:
        return f"{value:.2g} {unit}{hour}" if abs(value) >= 0.0001 else f"< 0.0001 {unit}{hour}"
    return f"{value:.2f} {unit}{hour}"


def converted(amount: int, source: str, target: str, rates: Rates) -> int | None:
    """An amount in another currency; None without a rate."""
    if source == target:
        return amount
    if rates.get(source, 0) > 0 and rates.get(target, 0) > 0:
        return round(amount * rates[source] / rates[target])
    return None


class Limit(NamedTuple):
    """How much something may cost. Without a currency: of whichever one it is."""

    amount: int
    currency: str = ""

    def __str__(self) -> str:
        value = f"{self.amount / UNIT:.10g}"
        return f"{value} {SYMBOLS.get(self.currency, self.currency)}".strip()


def limit_of(value: Any, name: str = "max_cost") -> Limit | None:
    """What somebody gave as the most that something may cost: 15, `"15 EUR"`, `"15 €"`; None is no limit.

    Raises:
        BadInput: it is none.
    """
    if value is None or isinstance(value, Limit):
        return value
    problem = f'{name} must be an amount, such as 15 or "15 EUR", not {value!r}.'
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or not 0 <= value <= 1e9:
            raise BadInput(problem)
        return Limit(nanos(value))
    match = _CAP.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1].replace(",", ".")) > 1e9:
        raise BadInput(problem)
    symbol = next((code for code, sign in SYMBOLS.items() if sign == match[3]), "")
    return Limit(nanos(float(match[1].replace(",", "."))), (match[2] or symbol).upper())


# --- machines -------------------------------------------------------------------------------------------------------------------


def billed_ms(accepted_ms: int, until_ms: int, billed_s: int, minimum_s: int) -> int:
    """For how long a life is paid: in whole pieces, of which one is begun as soon as the machine is there."""
    piece = 1000 * max(1, billed_s)
    return max(1000 * minimum_s, piece * max(1, -(-(until_ms - accepted_ms) // piece)))


def cost(
    price: float | None, accepted_ms: int | None, until_ms: int, billed_s: int = 1, minimum_s: int = 0
) -> int | None:
    """What a machine costs that was accepted at one time and is (or would be) gone at another; None: its price is not known."""
    return Life(((0, price),) if price is not None else (), "", accepted_ms, billed_s, minimum_s).cost(until_ms)


@dataclass(frozen=True)
class Life:
    """A machine that is paid for. `tariff`: its prices, each with the time from which on it holds, oldest first; empty: not known.

    `batch`, `rank`: which recruiter rented it (0: none, it was asked for by hand). `shares`: by batch, what the executions that it ran,
    ended or not, have had of its cost.
    """

    tariff: tuple[tuple[int, float], ...]
    currency: str
    accepted_ms: int | None
    billed_s: int = 1
    minimum_s: int = 0
    ended_ms: int | None = None
    batch: int = 0
    rank: int = 0
    worker: int = 0
    shares: Mapping[int, int] = field(default_factory=dict)

    @property
    def price(self) -> float | None:
        """What it costs an hour now."""
        return self.tariff[-1][1] if self.tariff else None

    def accrued(self, since_ms: int, until_ms: int) -> float:
        """What the time between two moments costs, in billionths that are not rounded."""
        total = 0.0
        for number, (start, price) in enumerate(self.tariff):
            end = self.tariff[number + 1][0] if number + 1 < len(self.tariff) else until_ms
            total += price * max(0, min(end, until_ms) - max(start, since_ms))
        return total * (UNIT / HOUR_MS)

    def cost(self, at_ms: int) -> int | None:
        """What it has cost if it is gone at a time: whole pieces, and at least its minimum. Never less than its shares."""
        if self.accepted_ms is None:
            return sum(self.shares.values())
        if not self.tariff:
            return None
        end = at_ms if self.ended_ms is None else min(at_ms, self.ended_ms)
        end = self.accepted_ms + billed_ms(self.accepted_ms, end, self.billed_s, self.minimum_s)
        return max(round(self.accrued(self.accepted_ms, end)), sum(self.shares.values()))

    def committed(self, at_ms: int) -> int:
        """What it will have cost if it is let go at a time. One that was asked for and not accepted yet counts as if it was."""
        if self.ended_ms is not None:
            return self.cost(at_ms) or 0
        if self.accepted_ms is None:
            return replace(self, accepted_ms=at_ms).cost(at_ms + 1000 * LEAST_S) or 0
        return self.cost(at_ms + 1000 * LETTING_GO_S) or 0


def commitment(offer: Offer) -> int | None:
    """What is agreed to, at least, by renting a machine; None: its price is not known."""
    return cost(offer.price, 0, 1000 * LEAST_S, offer.billed_s, offer.minimum_s)


def share(
    life: Life, started_ms: int | None, ended_ms: int, slots: int, concurrency: int, run_s: float | None = None
) -> int:
    """What an execution costs: the time for which it ran on the machine, by the part of the machine's slots that it had."""
    if started_ms is None or life.accepted_ms is None:
        return 0
    end = ended_ms if run_s is None else min(ended_ms, started_ms + round(1000 * run_s))
    if life.ended_ms is not None:
        end = min(end, life.ended_ms)
    part = min(1.0, slots / max(1, concurrency))
    return max(0, round(part * life.accrued(max(started_ms, life.accepted_ms), end)))


# --- limits ---------------------------------------------------------------------------------------------------------------------


class Scope(NamedTuple):
    """What a limit is about: the whole file, a workflow, a batch, or a recruiter (`id` is its batch)."""

    kind: str  # "file", "workflow", "batch", "recruiter"
    id: int = 0
    rank: int = 0


@dataclass(frozen=True)
class Account:
    """A limit with what counts for it. `batches` None: all. `settled`: by currency, what is spent and grows no more."""

    scope: Scope
    name: str
    limit: Limit
    settled: Mapping[str, int] = field(default_factory=dict)
    batches: frozenset[int] | None = None
    lives: tuple[Life, ...] = ()

    def concerns(self, batch: int, rank: int) -> bool:
        """Whether a machine that a recruiter rents counts for it."""
        if self.scope.kind == "recruiter":
            return (self.scope.id, self.scope.rank) == (batch, rank)
        return self.batches is None or batch in self.batches

    def spent(self, at_ms: int, *, committed: bool = True) -> dict[str, int]:
        """By currency, what there is until a time; or, if everything was let go then, what there will be."""
        found = dict(self.settled)
        for life in self.lives:
            whole = life.committed(at_ms) if committed else life.cost(at_ms) or 0
            if self.scope.kind in ("file", "recruiter"):
                mine = whole
            else:
                mine = sum(amount for batch, amount in life.shares.items() if self.concerns(batch, 0))
                if self.concerns(life.batch, life.rank):
                    mine += max(0, whole - sum(life.shares.values()))
            if mine or life.currency not in found:
                found[life.currency] = found.get(life.currency, 0) + mine
        return found

    def reckoned(
        self, at_ms: int, rates: Rates, *, also: tuple[str, int] | None = None, committed: bool = True
    ) -> Reckoned:
        """What there is in the currency of the limit. `also`: something more that it is asked of."""
        spent = self.spent(at_ms, committed=committed)
        if also is not None:
            spent[also[0]] = spent.get(also[0], 0) + also[1]
        currency = self.limit.currency or min((each for each, amount in spent.items() if amount), default="")
        if not currency and also is not None:
            currency = also[0]
        total, strange = 0, []
        for each, amount in spent.items():
            mine = converted(amount, each, currency or each, rates)
            if mine is None and amount:
                strange.append(each)
            total += mine or 0
        return Reckoned(total, currency, tuple(sorted(strange)))

    @property
    def called(self) -> str:
        """What it is a limit of, in words."""
        if self.scope.kind == "file":
            return "the file"
        rank = f" {self.scope.rank}" if self.scope.kind == "recruiter" else ""
        return f"{self.scope.kind} {self.name}{rank}"


class Reckoned(NamedTuple):
    """An amount in the currency of a limit; `strange` are currencies that cannot be compared with it."""

    amount: int
    currency: str
    strange: tuple[str, ...] = ()


@dataclass(frozen=True)
class Allowance:
    """How much more may be spent at one moment. Without accounts there is no limit."""

    now_ms: int
    accounts: tuple[Account, ...] = ()
    rates: Rates = field(default_factory=dict)

    def refusal(self, offer: Offer, batch: int = 0, rank: int = 0) -> str | None:
        """Why a machine must not be rented for a recruiter (of no batch: by hand), in a sentence; None: it may."""
        more = commitment(offer)
        for account in self.accounts:
            if not account.concerns(batch, rank):
                continue
            limit = account.limit
            if more is None:
                return f"the price of {offer.flavor.name} is not known, and {account.called} may cost {limit} at most"
            is_priced = more > 0
            found = account.reckoned(self.now_ms, self.rates, also=(offer.currency, more))
            if found.strange and is_priced:
                return (
                    f"{account.called} may cost {_told(limit, found.currency)} at most, and {_and(found.strange)} cannot be compared "
                    f"with {found.currency or 'it'} without a rate (money.rates of scitq config)"
                )
            if is_priced and found.amount > limit.amount:
                spent = account.reckoned(self.now_ms, self.rates, committed=False)
                return (
                    f"the money limit of {account.called} is reached: {said(spent.amount, found.currency)} of "
                    f"{_told(limit, found.currency)} spent, and one more {offer.flavor.name} is at least {said(more, offer.currency)}"
                )
        return None

    def rented(self, offer: Offer, batch: int = 0, rank: int = 0) -> Allowance:
        """What is left after one more machine has been asked for."""
        tariff = () if offer.price is None else ((0, offer.price),)
        life = Life(tariff, offer.currency, None, offer.billed_s, offer.minimum_s, batch=batch, rank=rank)
        accounts = tuple(
            replace(account, lives=(*account.lives, life)) if account.concerns(batch, rank) else account
            for account in self.accounts
        )
        return replace(self, accounts=accounts)

    def left(self, batch: int = 0, rank: int = 0) -> Limit | None:
        """The least that is left of what concerns a recruiter, with its currency; None: there is no limit."""
        found = []
        for account in self.accounts:
            if account.concerns(batch, rank):
                spent = account.reckoned(self.now_ms, self.rates)
                found.append(Limit(0 if spent.strange else max(0, account.limit.amount - spent.amount), spent.currency))
        return min(found, default=None)

    def reached(self, batch: int = 0, rank: int = 0, *, at_ms: int | None = None) -> str | None:
        """Why machines (that cost something) of a recruiter are to be let go now: what is spent, with what letting go of them all
        takes, is all that may be."""
        for account in self.accounts:
            if account.concerns(batch, rank) and self._is_reached(account, self.now_ms if at_ms is None else at_ms):
                spent = account.reckoned(self.now_ms, self.rates, committed=False)
                return (
                    f"the money limit of {account.called} is reached: {said(spent.amount, spent.currency)} of "
                    f"{_told(account.limit, spent.currency)} spent"
                )
        return None

    def due_ms(self) -> int | None:
        """When to look again, for the next limit may be reached then as things go on now: never later than that, and the nearer the
        closer to it. None: no limit will, as far as one looks ahead."""
        found = []
        for account in self.accounts:
            if not any(life.ended_ms is None and life.price for life in account.lives):
                continue
            if self._is_reached(account, self.now_ms) or not self._is_reached(account, self.now_ms + AHEAD_MS):
                continue
            low, high = 0, 1000
            while not self._is_reached(account, self.now_ms + high):
                low, high = high, 4 * high
            # Far away a rough answer will do, and each look at many machines costs something.
            enough = max(1000, high // 64)
            while high - low > enough:
                middle = (low + high) // 2
                low, high = (low, middle) if self._is_reached(account, self.now_ms + middle) else (middle, high)
            found.append(self.now_ms + (high if enough == 1000 else low))
        return min(found, default=None)

    def _is_reached(self, account: Account, at_ms: int) -> bool:
        # What cannot be compared was there before the limit was set: it is told, and nothing is ended for it.
        is_alive = any(life.ended_ms is None and life.price for life in account.lives)
        return is_alive and account.reckoned(at_ms, self.rates).amount >= account.limit.amount


def _told(limit: Limit, currency: str) -> str:
    return str(limit if limit.currency else Limit(limit.amount, currency))


def _and(words: Iterable[str]) -> str:
    return " and ".join(words)
