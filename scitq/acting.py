"""What the file says ought to be done about workers: connected, told, asked, their logs brought home.

Everything here runs on the driver's thread, outside of any transaction, and does no harm a second time. What is decided is
`deciding`; the streams themselves are `connections`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from scitq import journey
from scitq.awake import Awake
from scitq.connections import Connections
from scitq.contact import Contact, Plan, wish
from scitq.deciding import Deciding
from scitq.errors import LinkBroken
from scitq.ordering import Orders
from scitq.registries import Registries
from scitq.remote.route import Route
from scitq.states import RECALLABLE, JobState, WorkerState
from scitq.storages import Storages
from scitq.store import executions, held, jobs, listing, logs, manifests, workers
from scitq.store.connection import Store
from scitq.store.executions import Glance
from scitq.store.lease import Lease
from scitq.tails import Tails
from scitq.task import ExecutionId
from scitq.tending import Tending
from scitq.worker import DECLARED_LOST, LOCAL, RENTED_KIND, JobRow, WorkerId, WorkerRow
from scitq.workersettings import lost_after_s, polite, rented

if TYPE_CHECKING:
    import apsw

    from scitq.homecoming import Homecoming
    from scitq.parcels import Parcels

# How often at most a worker with work is asked how busy its machine is. No timer: only when there is something to do anyway.
STATS_S = 30.0
# And while somebody looks at workers.
WATCHED_S = 1.0


# A lease is renewed so often before it would end.
LEASES = 3
# How often it is looked whether workers have confirmed what they were given for a journey.
CONFIRM_S = 0.1
# After so long without a word an agent is asked whether it is there, and given so long to answer.
QUIET_S = 60.0
ANSWER_S = 30.0
# How often the silence of workers is written down.
NOTED_EVERY_S = 60.0
# States of workers elsewhere in which they are kept connected.
KEPT = frozenset(
    {WorkerState.PREPARING, WorkerState.READY, WorkerState.UNREACHABLE, WorkerState.DRAINING, WorkerState.PAUSED}
)


class Acting:
    """Acts for one driver. `route` says how a worker is reached; `later`, `wake`, `is_over` and `on_output` are as in `tails`."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        stop: threading.Event,
        deciding: Deciding,
        orders: Orders,
        connections: Connections,
        contacts: dict[WorkerId, Contact],
        awake: Awake,
        tending: Tending,
        *,
        route: Callable[[WorkerRow], Route],
        later: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
        is_over: Callable[[], bool],
        on_output: Callable[[], None] | None,
    ) -> None:
        self._store, self._lease, self._deciding, self._orders = store, lease, deciding, orders
        self._awake, self._tending, self._noted_at = awake, tending, 0.0
        self._is_leaving = False  # what was handed over for a journey is not confirmed yet
        self._connections, self._contacts, self._route, self._is_over = connections, contacts, route, is_over
        self._tails = Tails(store, lease, stop, later=later, wake=wake, is_over=is_over, on_output=on_output)
        self._storages = Storages(later=later, say=connections.say, tell=self._tell_of_storages)
        self._registries = Registries(later=later, say=connections.say, note=self._note)
        self._stop, self._later = stop, later
        self._parcels: Parcels | None = None
        self._wake = wake
        self._homecoming: Homecoming | None = None
        """What is sent to workers elsewhere, once there is one."""

    def act(self, db: apsw.Connection, row: WorkerRow, now: float, seen: Glance) -> None:
        contact = self._contacts.get(row.id)
        if contact is None:
            contact = self._meet(db, row)
        contact.name = row.name
        own = [job for job in jobs.open_ones(db) if job.worker == row.id] if seen.has_jobs else []
        if not contact.connected:
            if not contact.connecting and now >= contact.next_try and self._is_needed(db, row, seen, own):
                if any(job.kind == "prepare" and not job.tries for job in own):
                    contact.route.close()  # what was set of it may have changed
                    contact.route = self._route(row)
                self._connections.begin(contact)
            if own:
                self._tending.see_to(contact, row, own)
            return
        commands = self._slots(contact, row)
        if contact.is_far and contact.synced:
            commands += self._courtesy(contact, row) + self._last_will(contact, row) + self._lease_again(contact, row)
        if contact.is_far and not self._is_alive(contact):
            return
        for execution, wanted in executions.wishes(db, row.id).items() if seen.is_wished else ():
            if contact.told.get(execution) is not wanted:
                contact.told[execution] = wanted
                commands.append(wish(execution, wanted))
        if contact.forget:
            commands.append({"forget": contact.forget})
            contact.forget = []
        if contact.forget_logs:
            commands.append({"forget": contact.forget_logs, "keep_work": True})
            contact.forget_logs = []
        self._connections.say(contact, commands)
        if own:
            self._tending.see_to(contact, row, own)
        if contact.synced and (row.state is WorkerState.UNREACHABLE or row.note == DECLARED_LOST):
            contact.synced = False  # declared lost while it was there: what it holds is looked at again
        if not contact.synced and contact.held is None and "held" not in contact.asked:
            self._connections.ask(contact, "held")
        if contact.stats is not None:
            self._measured(contact, contact.stats)
        elif contact.synced and "stats" not in contact.asked and self._is_measured(contact, now, seen):
            contact.stats_asked = now
            self._connections.ask(contact, "stats")
        if now < contact.tail_after:
            return
        if row.kind != LOCAL:
            self._see_home(db, contact, seen)
        for execution, due in executions.logs_due(db, row.id).items() if seen.is_log_due else ():
            away = [stream for stream, size in due.items() if not self._tails.arrived(execution, stream, size)]
            for stream in away:
                self._tails.fetch(contact, execution, stream)
            if not away:
                self._tails.complete(contact, execution)
        for execution in executions.followed(db, row.id, _now_ms()) if seen.is_followed else ():
            for stream in (logs.OUT, logs.ERR):
                self._tails.fetch(contact, execution, stream)

    def _meet(self, db: apsw.Connection, row: WorkerRow) -> Contact:
        """A worker that this driver has had no contact with. It has been silent for as long as the file says, at least."""
        contact = Contact(row.id, self._route(row), row.name, mean_run_s=executions.mean_run_s(db, row.id))
        contact.is_far = row.kind != LOCAL
        contact.lost_after_s = lost_after_s(row.settings)
        contact.lease_s = max(contact.lost_after_s, float(row.link.get("lease") or 0))
        contact.lease_ends_ms = row.link.get("lease_ends")
        contact.leased_at, contact.silent_before_s = self._awake.seconds, row.silent_ms / 1000
        self._contacts[row.id] = contact
        return contact

    def part(self, known: Collection[WorkerId]) -> None:
        """Let go of workers that have gone."""
        for worker in [worker for worker in self._contacts if worker not in known]:
            contact = self._contacts[worker]
            if not contact.connecting:  # else when that is over
                del self._contacts[worker]
                self._connections.hang_up(contact)
                contact.route.close()

    def _is_needed(self, db: apsw.Connection, row: WorkerRow, seen: Glance, own: list[JobRow]) -> bool:
        """Whether to connect to a worker. One elsewhere is always kept connected, this machine's own only for something."""
        if row.kind != LOCAL:
            return row.state in KEPT
        if any(job.kind != "delete" for job in own):
            return True
        return bool((seen.is_live and executions.live(db, row.id)) or (seen.is_ready and listing.pending(db, 1)))

    def _courtesy(self, contact: Contact, row: WorkerRow) -> list[dict[str, Any]]:
        """How polite it is to be to its other users, if it has to be told."""
        wanted = polite(row.settings)
        if contact.polite == wanted:
            return []
        had, contact.polite = contact.polite, wanted
        return [{"polite": wanted}] if wanted or had is not None else []

    def _last_will(self, contact: Contact, row: WorkerRow) -> list[dict[str, Any]]:
        """When a rented machine is to end by itself. Nobody else's host hears of such a thing."""
        if row.kind != RENTED_KIND or contact.rented == (wanted := rented(row.settings)):
            return []
        contact.rented = wanted
        return [{"rented": wanted}]

    def _lease_again(self, contact: Contact, row: WorkerRow) -> list[dict[str, Any]]:
        """Tell it in time that its work is its own still, for as long as its user wants that now."""
        wanted_s = lost_after_s(row.settings)
        contact.lost_after_s = wanted_s
        if contact.lease_ends_ms is not None and contact.lease_ends_ms > _now_ms():
            return []  # it has a long one
        is_due = self._awake.seconds - contact.leased_at >= wanted_s / LEASES
        if not is_due and contact.lease_sent_s == wanted_s:
            return []
        if contact.lease_s != wanted_s and (
            contact.lease_s < wanted_s or (contact.lease_sent_s == wanted_s and not contact.asked)
        ):
            # A longer one is in the file before it hears of it; a shorter one once it has.
            self._link(contact, {"lease": wanted_s})
            contact.lease_s = wanted_s
        contact.leased(self._awake.seconds, contact.lease_s)
        contact.lease_sent_s = wanted_s
        return [contact.lease(wanted_s)]

    def _is_measured(self, contact: Contact, now: float, seen: Glance) -> bool:
        """Whether it is time to ask how busy a worker is: often while somebody looks, now and then while it has work."""
        if seen.watched_ms > _now_ms():
            return now >= contact.stats_asked + WATCHED_S
        return seen.is_live and now >= contact.stats_asked + STATS_S

    def _is_alive(self, contact: Contact) -> bool:
        """Whether an agent still answers: a link may be whole, and the agent at its end stand still."""
        quiet_s = self._awake.seconds - contact.heard_at
        if quiet_s >= QUIET_S and not contact.asked:
            self._connections.ask(contact, "ping")
        elif quiet_s >= QUIET_S + ANSWER_S:
            self._connections.lose(contact, LinkBroken(f"its agent has not answered for {quiet_s:.0f} s."))
            return False
        return contact.connected

    def _link(self, contact: Contact, known: dict[str, Any]) -> None:
        """Write down something of the way to a worker."""

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            workers.linked(db, contact.worker, {**workers.find(db, int(contact.worker)).link, **known})

        self._store.write(write, quiet=True)

    def see_to_journey(self) -> None:
        """What was handed over for a journey has arrived: everybody has confirmed what was said, and has the files that are to be
        sent ahead, or the time for that is over."""
        running = [job for job in jobs.open_ones(self._store.reader()) if job.kind == "handoff"]
        self._is_leaving = any(job.state is JobState.RUNNING for job in running)
        if not self._is_leaving or any(
            each.connected and each.asked for each in self._contacts.values() if each.is_far
        ):
            return
        unsent = set() if self._parcels is None else self._parcels.unsent()
        if not all(journey.is_over(job, _now_ms(), unsent) for job in running if job.state is JobState.RUNNING):
            return
        self._is_leaving = False

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            for job in jobs.open_ones(db):
                if job.kind == "handoff" and job.state is JobState.RUNNING:
                    journey.finish(db, _now_ms(), job, unsent)

        self._store.write(write)

    def note_silence(self) -> None:
        """Keep in the file for how long workers have been silent: the next driver goes on from there."""
        silent = {
            contact.worker: int(1000 * contact.silent_s(self._awake.seconds))
            for contact in self._contacts.values()
            if contact.is_far and not contact.synced
        }
        if not silent or self._awake.seconds - self._noted_at < NOTED_EVERY_S:
            return
        self._noted_at = self._awake.seconds

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            for worker, silent_ms in silent.items():
                workers.silent(db, worker, silent_ms)

        self._store.write(write, quiet=True)

    def wait_s(self, now: float, seen: Glance) -> float | None:
        """When there is something to do about workers, though nothing happens; None: nothing."""
        waits = []
        if seen.watched_ms > _now_ms():
            asked = [each for each in self._contacts.values() if each.synced and "stats" not in each.asked]
            waits += [each.stats_asked + WATCHED_S - now for each in asked]
        if self._is_leaving:  # confirmations wake nobody
            waits.append(CONFIRM_S)
        for contact in self._contacts.values():
            if contact.is_far and contact.connected:
                beat_s = contact.heard_at + QUIET_S + (ANSWER_S if contact.asked else 0.0)
                waits.append(beat_s - self._awake.seconds)
                ends_ms = contact.lease_ends_ms or 0
                if contact.synced and ends_ms > _now_ms():
                    waits.append(ends_ms / 1000 - time.time())
                elif contact.synced:
                    waits.append(contact.leased_at + contact.lost_after_s / LEASES - self._awake.seconds)
            elif (left_s := self._deciding.overdue_in_s(contact)) is not None and left_s > 0:
                waits.append(left_s)
        return max(0.0, min(waits)) if waits else None

    def _see_home(self, db: apsw.Connection, contact: Contact, seen: Glance) -> None:
        """What a worker elsewhere holds of outputs that belong here is brought."""
        if self._homecoming is None and held.ids(db, contact.worker):
            from scitq.homecoming import Homecoming

            self._homecoming = Homecoming(
                self._store, self._lease, self._stop, later=self._later, wake=self._wake, is_over=self._is_over
            )
        if self._homecoming is not None:
            wishes = executions.wishes(db, contact.worker) if seen.is_wished else {}
            self._homecoming.see_to(db, contact, wishes)

    def opened(self, contact: Contact) -> None:
        """What waits for its data there, or is to be brought home, goes on once the agent has what it takes."""
        contact.heard_at = self._awake.seconds
        reader = self._store.reader()
        known = self._deciding.known.get(contact.worker)
        orders = [self._orders.order(reader, order, known) for order in executions.with_data(reader, contact.worker)]
        self._see_to_secrets(contact, orders)
        states = executions.live(reader, contact.worker)
        self._see_to_parcels(contact, [order for order in orders if states.get(order["order"]) in RECALLABLE])

    def _see_to_secrets(self, contact: Contact, orders: list[dict[str, Any]]) -> None:
        """Give an agent what these orders take beside their own words: secrets, which are written down nowhere."""
        remotes = {name for command in orders for name in command.get("remotes", ())}
        if remotes:
            self._storages.want(contact, remotes)
        if any("image" in command for command in orders):
            self._registries.want(contact, orders)

    def _see_to_parcels(self, contact: Contact, orders: list[dict[str, Any]]) -> None:
        """Have what these orders read of this machine sent to an agent that cannot see it."""
        row = self._deciding.known.get(contact.worker)
        orders = [
            order for order in orders if "check" in order or any(isinstance(each, dict) for each in entries_of(order))
        ]
        if orders:
            if self._parcels is None:
                from scitq.parcels import Parcels  # and all that looks at data: for workers elsewhere only

                self._parcels = Parcels(
                    self._store.side, self._lease, self._stop, later=self._later, note=self._note,
                    is_live=lambda execution: executions.is_live(self._store.reader(), ExecutionId(execution)),
                )  # fmt: skip
            self._parcels.want(contact, orders, row)

    def _slots(self, contact: Contact, row: WorkerRow | None) -> list[dict[str, Any]]:
        """How many executions the agent may run at once, if it has to be told: before any order that counts on it."""
        if row is None or contact.slots_sent == row.slots:
            return []
        contact.slots_sent = row.slots
        return [{"slots": row.slots}]

    def _note(self, waiting: set[int], text: str) -> None:
        """Say of executions what they wait for."""
        if self._is_over():
            return

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            for execution in waiting:
                if executions.is_live(db, ExecutionId(execution)):
                    manifests.note(db, _now_ms(), ExecutionId(execution), text)

        self._store.write(write)

    def _measured(self, contact: Contact, stats: dict[str, Any]) -> None:
        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            workers.measure(db, contact.worker, stats)

        contact.stats = None
        if self._parcels is not None:
            stats = stats | self._parcels.progress(contact.worker)
        self._store.write(write, quiet=True)

    def _tell_of_storages(self, contact: Contact, names: set[str], text: str) -> None:
        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            for order in executions.with_data(db, contact.worker):
                waits = names & set(
                    self._orders.order(db, order, self._deciding.known.get(order.worker)).get("remotes", ())
                )
                if waits and manifests.notes(db, order.execution)[-1:] != [text]:  # said every few seconds, noted once
                    manifests.note(db, _now_ms(), order.execution, text)

        self._store.write(write, quiet=True)

    def follow_plan(self, plan: Plan, row: WorkerRow | None) -> None:
        """The transaction is in the file: what it decided becomes the present, and is said to the agent."""
        contact = plan.contact
        contact.journal, contact.acked, contact.mean_run_s = plan.journal, plan.acked, plan.mean_run_s
        contact.held, contact.synced, contact.starts = plan.held, plan.synced, plan.starts
        contact.stagings = plan.stagings
        if not plan.is_told:
            contact.told.clear()
        contact.forget += plan.forget
        contact.forget_logs += plan.forget_logs
        contact.fetches = contact.fetches or any("input" in each or "resource" in each for each in plan.commands)
        self._see_to_secrets(contact, plan.commands)
        self._see_to_parcels(contact, plan.commands)
        # Before its first orders: what is launched at once would be launched without it.
        courtesy = self._courtesy(contact, row) if row is not None and contact.is_far and contact.synced else []
        self._connections.say(contact, [*self._slots(contact, row), *courtesy, *plan.commands])
        if plan.journey is not None:
            contact.leased(self._awake.seconds, plan.journey[0])
            contact.lease_ends_ms = plan.journey[1]
        elif plan.lease_s is not None:
            contact.leased(self._awake.seconds, plan.lease_s)
            if row is not None:
                contact.lost_after_s = contact.lease_sent_s = lost_after_s(row.settings)
        self._connections.poll(contact)


def entries_of(order: dict[str, Any]) -> Iterator[Any]:
    """Inputs and resources."""
    yield from order.get("input", ())
    yield from order.get("resource", ())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
