"""The engine's methods about money: what was spent, on what, and how much more may be. Amounts are worked out in `money`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from scitq import config, money
from scitq.catalogue import rates_of
from scitq.errors import BadInput, MoneyLimitReached
from scitq.events import EventKind
from scitq.money import UNIT, Account, Allowance, Limit, Rates, Scope
from scitq.offers import Offer
from scitq.pictured import Listed
from scitq.store import batches, costs, journal, workflows

if TYPE_CHECKING:
    import apsw

    from scitq.markup import Markup

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What something has cost, in units of `currency`. None: some price is not known.

    `by` is the kind, `name` which one (None: what belongs to none of them). Of `amount`, `idle` was for time in which a machine had
    nothing to do, which counts for the batch that rented it, and `failed` for executions that did not succeed; both are None by
    day. `run_s` is how long its executions ran in all. `state` is `running` while a machine runs, so that it grows; else `final`.
    """

    by: str
    name: str | None
    currency: str
    amount: float | None
    idle: float | None
    failed: float | None
    run_s: float | None
    state: str
    id: int | None = None

    def __str__(self) -> str:
        return f"{self.name or '(none)'}: {money.said(self.amount, self.currency)}"


class Costs(Listed[Cost]):
    """What was spent, row by row."""

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_costs(self)


@dataclass(frozen=True)
class Spend:
    """What has been spent in one currency, and goes on being spent. `limit`: how much the file may cost in it."""

    currency: str
    amount: float
    per_hour: float
    machines: int
    limit: float | None = None

    def __str__(self) -> str:
        told = [money.said(self.amount, self.currency)]
        if self.limit is not None:
            told[0] += f" of {Limit(money.nanos(self.limit), self.currency)}"
        if self.per_hour:
            told.insert(0, money.said(self.per_hour, self.currency, per_hour=True))
        return " · ".join(told)


@dataclass(frozen=True)
class Limited:
    """A limit, and how far it is used up, in units of `currency`. `committed` is what will be spent if all is let go now; in
    `strange` currencies something is spent that cannot be compared with it."""

    scope: str
    name: str
    limit: float
    spent: float
    committed: float
    currency: str
    rank: int | None = None
    strange: tuple[str, ...] = ()

    @property
    def is_reached(self) -> bool:
        """Whether no more may be spent."""
        return self.committed >= self.limit


class Spending:
    """What an `Engine` can tell and be told about money. A part of that class, not one of its own."""

    if TYPE_CHECKING:

        def _reader(self) -> apsw.Connection: ...
        def _write(self, fn: Callable[[apsw.Connection], T]) -> T: ...
        def _drive(self, *, take_over: bool = False) -> None: ...

    def cost(self, by: str = "all") -> Costs:
        """What was spent on machines: in all (for each currency), or by `worker`, `batch`, `workflow`, `task`, `flavor`, `region`,
        `provider`, `day`; the most first. Empty: nothing that costs anything was ever rented.

        Machines that run count with what they are billed for until now. These are estimates from prices; the provider's bill holds.

        Raises:
            BadInput: `by` is none of these.
        """
        return Costs(_cost(one) for one in costs.by(self._reader(), by, _now_ms()))

    def max_cost(self, *, batch: str | None = None, workflow: str | None = None) -> Limit | None:
        """How much the file, a batch or a workflow may cost; None: there is no limit.

        Raises:
            UnknownBatch, UnknownWorkflow: there is none of that name.
        """
        db = self._reader()
        return costs.limit(db, _scope(db, batch, workflow))

    def set_max_cost(
        self, amount: float | str | Limit | None, *, batch: str | None = None, workflow: str | None = None
    ) -> None:
        """Limit what the file, a batch or a workflow may cost: 15, `"15 EUR"`; None takes the limit away.

        No machine is rented for it that could pass the limit; once it is reached, those that run are let go when their tasks are
        done. An amount without a currency is one of the currency in which its machines are paid.

        Raises:
            BadInput: it is no amount.
            UnknownBatch, UnknownWorkflow: there is none of that name.
        """
        limit = money.limit_of(amount)

        def write(db: apsw.Connection) -> None:
            scope = _scope(db, batch, workflow)
            costs.set_limit(db, scope, limit)
            said: dict[str, Any] = {"scope": scope.kind, "name": batch or workflow}
            journal.note(db, _now_ms(), EventKind.NOTE, max_cost=None if limit is None else str(limit), of=said)

        self._write(write)
        self._drive()

    def limits(self) -> list[Limited]:
        """What is limited: how much it may cost, how much of that is spent, and what is agreed to with it."""
        allowed = self.allowance()
        return [_limited(account, allowed) for account in allowed.accounts]

    def spending(self) -> list[Spend]:
        """For each currency: what was spent until now, what the machines that run cost an hour, and how many there are."""
        db, now = self._reader(), _now_ms()
        found = costs.totals(db, now)
        most = costs.limit(db, Scope("file")) if found else None
        # As limits are reckoned: see `money.Account`.
        of = "" if most is None else most.currency or min(one.currency for one in found)
        return [
            Spend(
                one.currency, one.amount / UNIT, one.per_hour / UNIT, one.machines,
                most.amount / UNIT if most is not None and one.currency == of else None,
            )
            for one in found
        ]  # fmt: skip

    def allowance(self) -> Allowance:
        """How much more may be spent, by all limits that there are."""
        return costs.allowance(self._reader(), _now_ms(), rates())


def _scope(db: apsw.Connection, batch: str | None, workflow: str | None) -> Scope:
    if batch is not None and workflow is not None:
        raise BadInput("a limit is of a batch or of a workflow: give one of them.")
    if batch is not None:
        return Scope("batch", batches.known(db, batch))
    if workflow is not None:
        return Scope("workflow", workflows.get(db, workflow).id)
    return Scope("file")


def told(found: Iterable[Cost]) -> str:
    """Amounts side by side: `0.77 €, 1.20 $`."""
    return ", ".join(money.said(one.amount, one.currency) for one in found)


def rates() -> Rates:
    """What currencies are worth, as the user's settings say."""
    settings = config.load()
    if not (reference := settings.get("money.currency")):
        return {}
    return {**rates_of(settings.get("money.rates")), reference.upper(): 1.0}


def must_be_allowed(allowed: Allowance, offer: Offer, batch: int | None, rank: int | None = None) -> None:
    """Raises a MoneyLimitReached if a machine must not be rented for a batch (None: for any) or recruiter."""
    if (why := allowed.refusal(offer, batch or 0, rank or 0)) is not None:
        raise MoneyLimitReached(f"{why}. Nothing was rented; scitq max-cost sets another limit.")


def _limited(account: Account, allowed: Allowance) -> Limited:
    committed = account.reckoned(allowed.now_ms, allowed.rates)
    spent = account.reckoned(allowed.now_ms, allowed.rates, committed=False)
    return Limited(
        account.scope.kind, account.name, account.limit.amount / UNIT, spent.amount / UNIT, committed.amount / UNIT,
        account.limit.currency or committed.currency, account.scope.rank or None, committed.strange,
    )  # fmt: skip


def _cost(one: costs.Cost) -> Cost:
    amount, idle, failed = (None if value is None else value / UNIT for value in (one.amount, one.idle, one.failed))
    run_s = None if one.run_ms is None else one.run_ms / 1000
    state = "running" if one.is_running else "final"
    return Cost(one.scope, one.name, one.currency, amount, idle, failed, run_s, state, one.id)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
