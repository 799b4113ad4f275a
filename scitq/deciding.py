"""One transaction of the driver: news stored with their consequences, what agents hold compared with the file, tasks placed.

It may run twice (see `store.writer`), so it changes nothing but the file and its own plans; what is said to agents afterwards
stands in those. When there is one, and what follows from it, is `driver`; which task goes where is `placement`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scitq import journey, recruiting, staffing, tending
from scitq.awake import Awake
from scitq.contact import FACTS, Contact, Plan, news_first, pace_s
from scitq.events import EventKind
from scitq.news import SHOWN_AFTER_S, apply, show_running
from scitq.ordering import Orders
from scitq.placement import Service, choosy, could_ever, free, place, total
from scitq.remote.link import Answer
from scitq.roster import Demand, Move, Staff
from scitq.states import RECALLABLE, Outcome, Stage, WorkerState
from scitq.store import cache, copies, demand, executions, jobs, journal, listing, recruiters, tasks, workers
from scitq.store import held as outputs
from scitq.store.executions import Glance
from scitq.store.lease import Lease
from scitq.task import ExecutionId, Need
from scitq.worker import DECLARED_LOST, Load, WorkerId, WorkerRow
from scitq.workersettings import MARGIN_S, lost_after_s

if TYPE_CHECKING:
    import apsw

# What agents answered to polls for events.
Polled = list[tuple[Contact, Answer]]


# States of workers that will run nothing any more, unless somebody does something about them.
NEVER = frozenset({WorkerState.EVICTED, WorkerState.DELETING, WorkerState.GONE, WorkerState.FAILED})


class Deciding:
    """What one driver decides. `contacts` are its own; `known` is what it last read of workers."""

    def __init__(self, lease: Lease, orders: Orders, contacts: Mapping[WorkerId, Contact], awake: Awake) -> None:
        self._lease, self._orders, self._contacts, self._awake = lease, orders, contacts, awake
        self.known: dict[WorkerId, WorkerRow] = {}
        # Nothing more is launched: this process is about to leave.
        self.is_holding = False
        # Some job was open when it was last looked. A hint.
        self._has_jobs = False
        self._explained: tuple[Any, ...] = ()
        # The last transaction may have left tasks over that could run now, for want of room. A hint.
        self._is_full = False

    def has_decisions(self, seen: Glance) -> bool:
        """Whether there is something to write down, as far as it can be said without looking at the workers."""
        self._has_jobs = seen.has_jobs
        shown = time.monotonic() - SHOWN_AFTER_S
        for contact in self._contacts.values():
            if contact.held is not None and not news_first(contact):
                return True
            if any(at <= shown for at in contact.starts.values()) or (
                contact.stagings and any(at <= shown for at in contact.stagings.values())
            ):
                return True
        if seen.due_ms is not None and seen.due_ms <= _now_ms():
            return True
        # Most often there is room. After tasks were left over it is looked at first: a transaction costs more than that.
        return seen.is_ready and not self.is_holding and not self._is_full

    def has_room(self, db: apsw.Connection, seen: Glance) -> bool:
        """Whether some task could be placed."""
        if seen.has_jobs and jobs.wanted(db, "handoff") is not None:
            return True
        if self.is_holding or not (seen.is_ready or (seen.is_live and self._overdue())):
            return False
        means = {c.worker: pace_s(c, c.mean_run_s) for c in self._contacts.values() if c.synced}
        return bool(free(self.known, executions.loads(db), means, self._services(db, self.known)))

    def transact(self, db: apsw.Connection, polled: Polled) -> tuple[dict[WorkerId, Plan], bool]:
        """Store news, and place what can be placed; returns the plans, and whether there was anything that could be."""
        self._lease.check(db)
        now = _now_ms()
        plans = {contact.worker: Plan(contact) for contact in self._contacts.values() if contact.connected}
        for contact, answer in polled:
            apply(db, now, plans[contact.worker], answer)
        for plan in plans.values():
            show_running(db, now, plan)
        if self._lease.has_unmet:
            self._lease.has_unmet = bool(copies.unmet(db))
        for plan in plans.values():
            if plan.held is not None and not news_first(plan):
                self._reconcile(db, now, plan)
        tasks.release_due(db, now)
        if self._lease.has_unmet and self._is_to_meet(db):
            self._is_full = False
            return plans, False
        if self._has_jobs and (job := jobs.wanted(db, "handoff")) is not None:
            known = self.known = {row.id: row for row in workers.all_of(db)}
            journey.prepare(db, now, job, plans, known, self._orders)
        overdue = [] if self.is_holding else self._overdue()
        if not listing.has_pending(db) and not overdue:
            self._is_full = False
            return plans, False
        # Read here, not before: somebody may just have said that a worker is to run less.
        known = self.known = {row.id: row for row in workers.all_of(db)}
        self._explain_needs(db, known)
        synced = {worker: plan for worker, plan in plans.items() if plan.synced and not self.is_holding}
        means = {worker: pace_s(plan.contact, plan.mean_run_s) for worker, plan in synced.items()}
        self._give(db, now, plans, means, overdue)
        while self._recycle(db, now, means):
            self._give(db, now, plans, means, overdue)
        return plans, True

    def _give(
        self,
        db: apsw.Connection,
        now: int,
        plans: Mapping[WorkerId, Plan],
        means: Mapping[WorkerId, float | None],
        overdue: Sequence[WorkerId],
    ) -> None:
        """Give tasks that can run to the workers that have room for them."""
        known = self.known
        services = self._services(db, known, every=bool(overdue))
        capacities = free(known, executions.loads(db), means, services)
        room = sum(each.slots + each.queue + max(0, each.ahead - each.over) for each in capacities.values())
        self._is_full = not room
        if not room:
            return
        # With several workers more are read than fit, so that tasks bound to a full batch do not hide those behind them.
        limit = room + 1000 if len(known) > 1 else room
        waiting, doubles = cache.without_known(db, listing.pending(db, limit))
        while waiting is None:  # some were taken out: others may go in their place
            waiting, doubles = cache.without_known(db, listing.pending(db, limit))
        late = executions.of_silent(db, overdue, limit)
        if late:
            waiting = sorted([*waiting, *late], key=lambda task: (-task.priority, task.id))
        chosen = place(choosy(waiting, known, services), capacities, services)
        if late:  # they were their workers' own until this very moment
            for id in {task.id for task in late} & {each.task for each in chosen}:
                executions.give_up(db, now, id)
        orders = executions.begin(db, now, chosen)
        self._is_full = len(orders) < len(waiting) or len(waiting) + len(doubles) >= room
        for order in orders:
            plans[order.worker].commands.append(self._orders.order(db, order, known.get(order.worker)))
        for task in doubles:
            cache.turn_away(db, task.id)

    def _services(
        self, db: apsw.Connection, known: Mapping[WorkerId, WorkerRow], *, every: bool = False
    ) -> dict[int, Service]:
        """Who serves the batches that have recruiters and something pending (or all that have recruiters)."""
        rules = recruiters.all_of(db) if every else recruiters.wanted(db)
        if not rules:
            return {}
        return recruiting.services(rules, known.values(), recruiters.held(db, {rule.batch for rule in rules}))

    def _recycle(self, db: apsw.Connection, now: int, means: Mapping[WorkerId, float | None]) -> bool:
        """Let workers that have something to spare, and whose batch has nothing pending, change to one that wants them."""
        bound = [row for row in self.known.values() if row.batch_id is not None and row.id in means]
        if not bound:
            return False
        homes = {row.id: row.settings["home"]["batch"] for row in bound if row.settings.get("home")}
        rules = recruiters.wanted(db)
        if not rules and not homes:
            return False
        loads = executions.loads(db)
        # Those without a batch of their own count as well, though they cannot change it.
        staff = [
            Staff(row, row.concurrency - loads.get(row.id, Load()).slots if row.id in means else 0, homes.get(row.id))
            for row in self.known.values()
        ]
        concerned = {rule.batch for rule in rules} | {row.batch_id for row in bound if row.batch_id is not None}
        pending = recruiters.pending(db, concerned | set(homes.values()))
        held = recruiters.held(db, {rule.batch for rule in rules})
        services = recruiting.services(rules, self.known.values(), held)
        wanting = [one for one in demand.wanting(db) if one.batch in services]
        work = demand.ready(db, wanting)
        demands = [
            Demand(one.batch, [rule for rule in rules if rule.batch == one.batch], services[one.batch], work[one.batch])
            for one in wanting
        ]
        moves = staffing.recycle(demands, staff, pending)
        for move in moves:
            self.change_batch(db, now, move)
        return bool(moves)

    def change_batch(self, db: apsw.Connection, now: int, move: Move) -> None:
        """A worker changes to another batch: what it holds takes as large a share of it as before."""
        row = self.known[move.worker]
        names = recruiters.names(db, [move.batch, row.batch_id or 0])
        home: dict[str, Any] | None = row.settings.get("home")
        slots, ahead = row.concurrency, row.prefetch
        if move.recruiter is None:
            if home is not None:
                slots, ahead = home["concurrency"], home["prefetch"]
            home = None
        else:
            home = home or {"batch": row.batch_id, "concurrency": slots, "prefetch": ahead}
            home = None if home["batch"] == move.batch else home
            slots = max(slots, move.recruiter.concurrency or 0)
        recruiters.reweigh(db, row.id, row.concurrency, slots)
        workers.serve(db, row.id, move.batch)
        workers.update(db, row.id, concurrency=slots, prefetch=ahead, auto_prefetch=ahead is None)
        workers.settle(db, row.id, {"home": home})
        told = {"from": names.get(row.batch_id or 0), "to": names.get(move.batch), "rank": move.rank}
        journal.note(db, now, EventKind.NOTE, worker=int(row.id), recycled=told)
        self.known[row.id] = workers.find(db, int(row.id))

    def _is_to_meet(self, db: apsw.Connection) -> bool:
        """Whether a worker may hold tasks by the word of another copy of the file: it was not met yet, and not silent for long."""
        known = {row.id for row in workers.all_of(db)}
        for worker in copies.unmet(db):
            contact = self._contacts.get(worker)
            if worker in known and (contact is None or self.overdue_in_s(contact) != 0.0):
                return True
        return False

    def _overdue(self) -> list[WorkerId]:
        """Workers that have been silent for so long that what they hold may be given to others: see `workersettings`."""
        return [contact.worker for contact in self._contacts.values() if self.overdue_in_s(contact) == 0.0]

    def overdue_in_s(self, contact: Contact) -> float | None:
        """How long a worker may go on being silent; None for one that is not."""
        if not contact.is_far or contact.connected:  # one that is back is listened to first
            return None
        # Its lease may have been a long one, for a journey; then by the clock, too: nobody was awake while it lasted.
        left_s = contact.lease_s + MARGIN_S - contact.silent_s(self._awake.seconds)
        if contact.lease_ends_ms is not None:
            own_s = contact.lost_after_s + MARGIN_S - contact.silent_s(self._awake.seconds)
            left_s = max(own_s, contact.lease_ends_ms / 1000 + MARGIN_S - time.time())
        row = self.known.get(contact.worker)
        if left_s <= 0 and not contact.was_tried and (row is None or row.state not in NEVER):
            return None  # this process may have stood still for some seconds: it listens first
        return max(0.0, left_s)

    def _explain_needs(self, db: apsw.Connection, known: dict[WorkerId, WorkerRow]) -> None:
        """Say of requests that no worker could ever meet, even with nothing else to do, that this is so."""
        known = {worker: row for worker, row in known.items() if row.state not in NEVER}
        if any(not row.facts for row in known.values()):
            return  # not all have been asked yet what they are
        totals = (listing.newest_need(db), *((row.name, row.concurrency, row.facts) for row in known.values()))
        if totals == self._explained:
            return
        self._explained = totals
        for kind, (need, note) in listing.needs(db).items():
            if need is None:
                continue
            if any(could_ever(need, total(row)) for row in known.values()):
                found = None
            else:
                found = f"no worker has {need.describe()}: {', '.join(_has(row) for row in known.values()) or 'there is none'}"
            if found != note:
                tasks.note_need(db, kind, found)

    def _reconcile(self, db: apsw.Connection, now: int, plan: Plan) -> None:
        """Compare what the agent holds with what the file says it should hold: repeat orders that never arrived, and call
        lost what was running and is not there any more."""
        assert plan.held is not None
        facts: dict[str, Any] = {key: plan.held[key] for key in FACTS if key in plan.held}
        held = {int(id): str(doing) for id, doing in plan.held["held"].items()}
        executions.reserve(db, max(plan.held.get("highest", 0), *held, 0))
        plan.held = None
        plan.synced = plan.has_news = True
        waiting = {order.execution: order for order in executions.unstarted(db, plan.worker)}
        due = executions.logs_due(db, plan.worker)
        coming = outputs.ids(db, plan.worker)
        for execution, state in executions.live(db, plan.worker).items():
            if execution in held or execution in due or execution in coming:
                doing = held.get(execution)
                if doing == "running" and state in RECALLABLE:
                    executions.started(db, execution, now)
                elif doing == "staging":
                    executions.staging(db, now, execution)
                continue
            if execution in waiting:
                plan.commands.append(self._orders.order(db, waiting[execution], self.known.get(plan.worker)))
            else:
                stage = executions.STAGES.get(state, Stage.RUN)
                executions.finish(db, now, execution, Outcome.LOST, stage, "its worker does not know of it any more")
        # What it holds and is not its own any more, since it was silent for too long, say, is to end there without a trace.
        executions.reserve(db, max(held, default=0))
        live = executions.live(db, plan.worker)
        plan.commands += [{"cancel": execution} for execution in held if ExecutionId(execution) not in live]
        if self._lease.has_unmet:
            copies.met(db, plan.worker)
        row = workers.find(db, int(plan.worker))
        if row.state in (WorkerState.PREPARING, WorkerState.UNREACHABLE):
            workers.move(db, now, plan.worker, WorkerState.READY)
        elif row.note == DECLARED_LOST:
            workers.move(db, now, plan.worker, row.state)
        if any(row.facts.get(key) != value for key, value in facts.items()):
            workers.describe(db, plan.worker, facts)
        if row.settings.get("slots_as_cpus") and facts.get("cpus"):
            workers.update(db, plan.worker, concurrency=max(1, int(facts["cpus"])))
            workers.settle(db, plan.worker, {"slots_as_cpus": None})
        if plan.contact.is_far:
            self._lease_out(db, now, plan, row)
        tending.done(db, now, plan.worker)

    def _lease_out(self, db: apsw.Connection, now: int, plan: Plan, row: WorkerRow) -> None:
        """Tell a worker that what it holds is its own, for a while. Its silence begins anew, in the file before it hears so."""
        wanted_s = lost_after_s(row.settings)
        plan.commands.append(plan.contact.lease(wanted_s))
        # Until it has heard of a shorter one, the one it has may be longer.
        plan.lease_s = max(wanted_s, float(row.link.get("lease", 0)))
        found = getattr(plan.contact.route, "link", {"how": plan.contact.route.how})
        workers.silent(db, plan.worker, 0)
        workers.linked(db, plan.worker, {**row.link, **found, "lease": plan.lease_s, "lease_ends": None})


def _has(row: WorkerRow) -> str:
    return f"{row.name} has {Need(row.cpus, row.memory, len(row.gpus), row.python).describe()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
