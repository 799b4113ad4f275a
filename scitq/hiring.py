"""What a driver does about machines to rent: it reads what the rule looks at, asks it, and writes down what it says.

The rule is `staffing`. It is asked when something has happened, but not twice within a moment, and when the rule said; with
nothing rented and no recruiter that rents, not at all. A machine that is wanted is a row before anybody hears of it (`renting`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from scitq import market, staffing
from scitq.market import Market
from scitq.offers import Rental
from scitq.ranking import Ranking
from scitq.recruiting import services
from scitq.roster import (
    BOOT_S,
    Action,
    Decision,
    Demand,
    Deploy,
    Destroy,
    Drain,
    Idle,
    Move,
    Resume,
    Short,
    Staff,
    World,
)  # fmt: skip
from scitq.states import WorkerState
from scitq.store import costs, demand, executions, notices, recruiters, rentals, workers
from scitq.worker import DECLARED_LOST, Load, Recruiter, WorkerId, WorkerRow
from scitq.workersettings import MARGIN_S, lost_after_s

if TYPE_CHECKING:
    import apsw

    from scitq.catalogue import Catalogue
    from scitq.store.connection import Store
    from scitq.store.executions import Glance
    from scitq.store.lease import Lease

# It is looked at most so often.
GAP_S = 0.5
# While something is short, stock and quotas are asked for so often.
AGAIN_S = 120.0
# What is short for so long needs a person.
SHORT_S = 30.0
_COMING = (WorkerState.WANTED, WorkerState.DEPLOYING, WorkerState.PREPARING)
# Settings of a worker that are kept here: since when it has had nothing to do, and that it was told to go by this rule.
IDLE, OURS = "idle", "drained_by_recruiter"


class Hiring:
    """Rents and lets go for one driver. `move` writes down that a worker changes to another batch."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        catalogue: Catalogue,
        move: Callable[[apsw.Connection, int, Move], None],
        wake: Callable[[], None],
    ) -> None:
        self._store, self._lease, self._catalogue, self._move, self._wake = store, lease, catalogue, move, wake
        self._next = 0.0
        self._due_ms: int | None = None
        self._is_late = False  # something has happened too early to be looked at
        self._market = Market()
        # Of batches that are short: since when (of the monotonic clock), and what was posted.
        self._short: dict[int, float] = {}
        self._posted: dict[str, str] | None = None

    def see_to(self, db: apsw.Connection, seen: Glance, now: float) -> None:
        """Look at all of it, if it is time. On the driver's thread, outside of any transaction."""
        if not (seen.is_hiring or seen.has_rentals):
            self._due_ms, self._is_late = None, False
            if self._short or self._posted:
                self._tell([], now)
            return
        if now < self._next:
            self._is_late = True
            return
        self._next, self._is_late = now + GAP_S, False
        at = _now_ms()
        with db:  # one view of the file
            asked = staffing.decide(world(db, at, self._market.seen(db, at, self._catalogue)))
        shorts = [action for action in asked.actions if isinstance(action, Short)]
        if len(shorts) < len(asked.actions):
            is_dear = any(isinstance(action, Deploy | Destroy) for action in asked.actions)
            self._store.write(self._decide, full=is_dear)
            self._wake()
        self._due_ms = asked.due_ms
        if any(short.kind == "offers" for short in shorts):
            again_ms = at + int(1000 * AGAIN_S)
            self._due_ms = again_ms if self._due_ms is None else min(self._due_ms, again_ms)
        self._tell(shorts, now)

    def wait_s(self, now: float) -> float | None:
        """When to look again if nothing happens."""
        waits = [self._next - now] if self._is_late else []
        if self._due_ms is not None:
            waits.append(max(self._next - now, (self._due_ms - _now_ms()) / 1000))
        waits += [max(0.0, since + SHORT_S - now) for since in self._short.values() if since + SHORT_S > now]
        return max(0.0, min(waits)) if waits else None

    def _decide(self, db: apsw.Connection) -> None:
        """In a transaction: look again, and write down what is to be done."""
        self._lease.check(db)
        now = _now_ms()
        for action in staffing.decide(world(db, now, self._market.seen(db, now, None))).actions:
            if isinstance(action, Move):
                self._move(db, now, action)
            else:
                write(db, now, action)

    def _tell(self, shorts: list[Short], now: float) -> None:
        """Say once of what is short for a while that it is, and take that back when it is over."""
        unmet = {short.batch: short for short in shorts if short.kind == "offers"}
        self._short = {batch: self._short.get(batch, now) for batch in unmet}
        reader = self._store.reader()
        if self._posted is None:
            self._posted = {one.key: one.text for one in notices.posted(reader) if one.key.startswith("short:")}
        names = recruiters.names(reader, list(unmet))
        wanted: dict[str, tuple[str, str, Short]] = {}
        for batch, short in unmet.items():
            if now - self._short[batch] >= SHORT_S and batch in names:
                name = names[batch]
                tasks = "1 task" if short.tasks == 1 else f"{short.tasks} tasks"
                wanted[f"short:{name}"] = (name, f"{tasks} of {name} wait for machines: {short.why}", short)
        old = self._posted
        if {key: _kept(text) for key, text in old.items()} == {
            key: _kept(text) for key, (_, text, _) in wanted.items()
        }:
            return

        def say(db: apsw.Connection) -> None:
            self._lease.check(db)
            for key in old.keys() - wanted.keys():
                notices.take_back(db, key)
            for key, (name, text, short) in wanted.items():
                if _kept(old.get(key, "")) != _kept(text):
                    look = ("look at it", ("recruiter", "list", name))
                    notices.post(
                        db, _now_ms(), key, "short", text, about={"batch": name, "rank": short.rank}, actions=[look]
                    )

        self._store.write(say)
        self._posted = {key: text for key, (_, text, _) in wanted.items()}


def _kept(text: str) -> str:
    """What of a shortage makes it another one: not how many tasks wait."""
    return text.partition(" of ")[2]


# --- reading ----------------------------------------------------------------------------------------------------------------------


def world(db: apsw.Connection, now_ms: int, offers: Callable[[Demand, Recruiter], Ranking]) -> World:
    """All that the rule looks at. Run it where one view of the file is kept."""
    rows = workers.all_of(db)
    rented = {rental.worker: rental for rental in rentals.open_ones(db)}
    rules: dict[int, list[Recruiter]] = {}
    for rule in recruiters.all_of(db):
        rules.setdefault(rule.batch, []).append(rule)
    wanting = [one for one in demand.wanting(db) if one.batch in rules]
    held = recruiters.held(db, [one.batch for one in wanting])
    serving = services([rule for one in wanting for rule in rules[one.batch]], rows, held)
    work = demand.work(db, now_ms, wanting)
    demands = [
        Demand(
            one.batch, rules[one.batch], serving[one.batch], work[one.batch], one.name, one.workflow,
            _waited_s(db, now_ms, one.batch, rules[one.batch]), demand.usual_s(db, one.batch) if one.pending else None,
        )
        for one in wanting
    ]  # fmt: skip
    own = {row.batch_id for row in rows} | {rental.batch for rental in rented.values()} | {one.batch for one in wanting}
    batches = [batch for batch in own if batch is not None]
    workflow_of = demand.workflow_of(db, batches)
    return World(
        now_ms, demands, _staff(db, now_ms, rows, rented), recruiters.pending(db, batches), offers, market.left(db),
        costs.allowance(db, now_ms, market.rates()), demand.workflow_limits(db, set(workflow_of.values())), workflow_of,
        demand.found(db),
    )  # fmt: skip


def _waited_s(db: apsw.Connection, now_ms: int, batch: int, rules: list[Recruiter]) -> float:
    if not any(rule.patience_s for rule in rules) or (since := demand.first_ms(db, batch)) is None:
        return float("inf")
    return max(0, now_ms - since) / 1000


def _staff(db: apsw.Connection, now_ms: int, rows: list[WorkerRow], rented: Mapping[WorkerId, Rental]) -> list[Staff]:
    loads, counts, boots = executions.loads(db), demand.executions(db), market.boots(db, now_ms)
    found = []
    for row in rows:
        rental = rented.get(row.id)
        home = row.settings.get("home")
        idle: Mapping[str, Any] = row.settings.get(IDLE) or {}
        found.append(
            Staff(
                row, row.concurrency - loads.get(row.id, Load()).slots, None if home is None else home["batch"],
                counts.get(int(row.id), 0), rental,
                # It has not told of anything since.
                idle["at"] if idle and idle["acked"] == row.acked else None,
                BOOT_S if rental is None else boots.get(_key(rental), BOOT_S),
                bool(row.settings.get(OURS)), is_lost(row),
            )
        )  # fmt: skip
    return found


def _key(rental: Rental) -> tuple[str, str, str, str]:
    return (rental.provider, rental.region, rental.flavor, rental.market)


def is_lost(row: WorkerRow) -> bool:
    """Whether what a worker holds is not its own any more, as far as the file tells."""
    if row.note == DECLARED_LOST:
        return True
    return row.state is WorkerState.UNREACHABLE and row.silent_ms / 1000 > lost_after_s(row.settings) + MARGIN_S


# --- writing ----------------------------------------------------------------------------------------------------------------------


def write(db: apsw.Connection, now_ms: int, action: Action) -> None:
    """Write down what is to be done about one machine."""
    if isinstance(action, Deploy):
        rule = action.recruiter
        settings = {} if rule.idle_timeout is None else {"idle_timeout": rule.idle_timeout}
        rentals.rent(
            db, now_ms, action.offer, others=action.others, concurrency=rule.concurrency, prefetch=rule.prefetch, batch=rule.batch,
            rank=rule.rank, max_price=rule.max_price, settings=settings, why=f"recruiter {rule.rank} of {rule.batch_name}",
        )  # fmt: skip
    elif isinstance(action, Destroy):
        rentals.let_go(db, now_ms, action.worker, action.why)
    elif isinstance(action, Drain):
        workers.move(db, now_ms, action.worker, WorkerState.DRAINING, action.why)
        workers.settle(db, action.worker, {OURS: True})
    elif isinstance(action, Resume):
        workers.move(db, now_ms, action.worker, WorkerState.READY)
        workers.settle(db, action.worker, {OURS: None, IDLE: None})
    elif isinstance(action, Idle):
        row = workers.find(db, int(action.worker))
        mark = None if action.since_ms is None else {"at": action.since_ms, "acked": row.acked}
        workers.settle(db, action.worker, {IDLE: mark})


def decided(db: apsw.Connection, now_ms: int) -> Decision:
    """What would be decided now, for somebody who only looks."""
    return staffing.decide(world(db, now_ms, Market().seen(db, now_ms, None)))


def waits(db: apsw.Connection, now_ms: int, batch: int) -> tuple[str, bool] | None:
    """What the tasks of a batch wait for of machines to be rented, in words, and whether that is worth telling though some worker
    serves them; None: nothing."""
    coming = [
        (rental, row) for rental in rentals.open_ones(db)
        if (row := workers.find(db, int(rental.worker))).batch_id == batch and row.state in _COMING
    ]  # fmt: skip
    if coming:
        kinds: dict[tuple[str, str, str], list[str]] = {}
        for rental, row in coming:
            kinds.setdefault((rental.flavor, rental.region, row.state.word), []).append(rental.detail)
        parts = []
        for (flavor, region, state), details in kinds.items():
            detail = next((f": {text}" for text in details if text), "")
            count = "a machine" if len(details) == 1 else f"{len(details)} machines"
            parts.append(f"{count} of flavor {flavor} in {region} ({state}{detail})")
        return f"it waits for {' and '.join(parts)}.", True
    for action in decided(db, now_ms).actions:
        if isinstance(action, Short) and action.batch == batch:
            if action.kind == "offers":
                return f"no machine can be rented for it: {action.why}.", True
            return f"it waits for a worker: {action.why}.", False
        if isinstance(action, Deploy) and action.batch == batch:
            return (
                f"a machine is about to be rented for it ({action.offer.flavor.name} in {action.offer.region}).",
                False,
            )
    return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
