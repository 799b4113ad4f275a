"""The driver: the one process that, at this moment, turns what the state file says into work done.

One thread, one loop: take what agents report and store it with its consequences, let `placement` decide, write the decisions,
and do what the file then says ought to be done. Everything but connections is read back from the file, so a driver may die at
any instruction and the next one goes on. Who may drive is decided by `store.lease`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq import network
from scitq.acting import KEPT, Acting
from scitq.announcing import Announcing
from scitq.awake import Awake
from scitq.caching import Caching
from scitq.catalogue import Catalogue
from scitq.connections import Connections
from scitq.contact import Contact, Plan, checked_held, checked_stats
from scitq.deciding import Deciding, Polled
from scitq.errors import (
    BadAnswer,
    Closed,
    ForkedProcess,
    ScitqError,
    StaleDriver,
    StateFileBusy,
    StateFileFull,
    WorkerError,
)
from scitq.events import EventKind
from scitq.hiring import Hiring
from scitq.news import SHOWN_AFTER_S
from scitq.ordering import Orders
from scitq.remote.link import Answer, Stream
from scitq.remote.route import Route
from scitq.renting import Renting
from scitq.routes import route_to
from scitq.store import executions, journal, keep, logs, tasks, workers
from scitq.store.connection import Store
from scitq.store.copies import Rival
from scitq.store.executions import Glance
from scitq.store.lease import Lease
from scitq.tending import Tending
from scitq.worker import LOCAL, WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# How often a process that may drive looks whether the driver has died (a driver that ends says so at once).
CANDIDATE_S = 1.0
# And how often whether it stands still.
LOOK_AT_HOLDER_S = 5.0
# How long a driver waits when the file cannot be written, before it tries again.
OBSTACLE_S = 10.0
# How often an idle driver says that it is there.
BEAT_S = 60.0
# After so long without work the file is looked after: its daily backup, its free pages.
IDLE_S = 5.0


class Driver:
    """Drives a state file from a background thread, when and as long as this process holds the lease.

    `on_end` is called when driving has ended for good: with None after `stop`, else with the reason. `on_output` is called
    when output of a running task has come.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_end: Callable[[ScitqError | None], None] | None = None,
        on_output: Callable[[], None] | None = None,
        linger_s: float = 60.0,
        take_over: bool = False,
    ) -> None:
        self._store = store
        self._lease = Lease(store)
        self._orders = Orders(str(store.side / "outputs"))
        self._on_end = on_end
        self._linger_s = linger_s
        self._take_over = take_over
        self._contacts: dict[WorkerId, Contact] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._stop = threading.Event()
        self._awake = Awake()
        self._deciding = Deciding(self._lease, self._orders, self._contacts, self._awake)
        self._network = network.listen()
        # Of the process that drives while this one stands by: when to look at it again, and the number of one told of.
        self._look_after = 0.0
        self._told_of: int | None = None
        self._wake_gate = threading.Lock()
        self._over = False
        self._busy_at = time.monotonic()
        self._ahead_s = time.time() - self._busy_at
        self.driving = threading.Event()
        self.ended = threading.Event()
        self._connections = Connections(
            store, self._lease, self._selector,
            later=self._later, opened=lambda contact: self._acting.opened(contact), is_over=lambda: self._over,
            failed=lambda *problem: self._tending.failed(*problem),
        )  # fmt: skip
        self._renting = Renting(store, self._lease, self._stop, self.wake)
        self._catalogue = Catalogue(store)
        self._hiring = Hiring(store, self._lease, self._catalogue, self._deciding.change_batch, self.wake)
        self._tending = Tending(
            store, self._lease, later=self._later, say=self._connections.say, is_over=lambda: self._over,
            rented=self._renting.failed,
        )  # fmt: skip
        self._acting = Acting(
            store, self._lease, self._stop, self._deciding, self._orders, self._connections, self._contacts,
            self._awake, self._tending,
            route=self._route, later=self._later, wake=self.wake, is_over=lambda: self._over, on_output=on_output,
        )  # fmt: skip
        self._caching = Caching(store, self._lease, self._stop, self.wake)
        self._announcing = Announcing(store, self._lease, self.wake)
        self._thread = threading.Thread(target=self._main, name="scitq-driver", daemon=True)

    def start(self) -> None:
        """Begin to drive, or to stand by until the present driver ends."""
        self._thread.start()

    def take_over(self) -> None:
        """Drive though another machine seems to, or a driver of this one that stands still keeps the lock."""
        self._take_over = True
        self.wake()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop dispatching and give the lease back. What workers hold goes on."""
        self._stop.set()
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def hold(self) -> None:
        """Launch nothing more; ends and wishes are still dealt with."""
        self._deciding.is_holding = True

    def has_met(self) -> bool:
        """Whether every worker elsewhere has been heard, or could not be reached; asked from any thread."""
        if not self.driving.is_set():
            return False
        known = [row for row in list(self._deciding.known.values()) if row.kind != LOCAL and row.state in KEPT]
        contacts = {worker: self._contacts.get(worker) for worker in [row.id for row in known]}
        return bool(self._deciding.known) and all(
            contact is not None and (contact.synced or contact.trouble is not None) for contact in contacts.values()
        )

    def _changed(self) -> None:
        """The file changed. The driver's own commits tell it nothing new."""
        if threading.get_ident() != self._thread.ident:
            self.wake()

    def wake(self) -> None:
        """Look at the file again."""
        with self._wake_gate, contextlib.suppress(OSError):
            if self._wake_w >= 0:
                os.write(self._wake_w, b"w")

    # --- life -----------------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        reason: ScitqError | None = None
        unsubscribe: Callable[[], None] | None = None
        try:
            self._selector.register(self._wake_r, selectors.EVENT_READ, None)
            if self._network is not None:
                self._selector.register(self._network, selectors.EVENT_READ, None)
            unsubscribe = self._store.subscribe(self._changed)
            while not self._stop.is_set() and not self._lease.try_acquire(take_over=self._take_over):
                self._store.listen_closely()
                self._look_at_holder()
                self._wait(CANDIDATE_S)
            if not self._stop.is_set():
                self._drive()
        except (Closed, ForkedProcess):
            pass
        except ScitqError as problem:
            reason = problem
            log.warning("this process stopped driving %s: %s", self._store.path.name, problem)
        except Exception as problem:
            reason = ScitqError(f"the driver of {self._store.path.name} failed: {type(problem).__name__}: {problem}")
            log.exception("the driver of %s failed", self._store.path.name)
        finally:
            self.driving.clear()
            if unsubscribe is not None:
                unsubscribe()
            self._over = True
            self._drain()
            for contact in self._contacts.values():
                self._connections.hang_up(contact)
            with contextlib.suppress(ScitqError):
                self._lease.release()
            self._caching.end()
            self._catalogue.close()
            self._connections.join()
            for contact in self._contacts.values():
                contact.route.close()
            self._selector.close()
            if self._network is not None:
                self._network.close()
            with self._wake_gate:
                os.close(self._wake_r)
                os.close(self._wake_w)
                self._wake_w = -1
            self.ended.set()
            if self._on_end is not None:
                self._on_end(reason)

    def _look_at_holder(self) -> None:
        """Say once of a driver that stands still that this one waits for it, and what to do."""
        now = time.monotonic()
        if now < self._look_after:
            return
        self._look_after = now + LOOK_AT_HOLDER_S
        holder, now_ms = Lease.holder(self._store.reader()), _now_ms()
        if holder is None or not holder.stands_still(now_ms):
            self._told_of = None
        elif holder.epoch != self._told_of:
            self._told_of = holder.epoch
            log.warning(
                "%s is driven by %s, which does nothing, so nothing happens. %s: scitq up --take-over",
                self._store.path.name, holder.describe(now_ms), holder.way_out(),
            )  # fmt: skip

    def _drive(self) -> None:
        self._store.write(self._open_for_business)
        for part in logs.parts(self._store.side):  # of drivers before this one, which begin anew
            part.unlink(missing_ok=True)
        self.driving.set()
        timeout: float | None = 0.0
        obstacle: ScitqError | None = None
        while not self._stop.is_set():
            try:
                polled = self._wait(timeout)
                if obstacle is not None:
                    self._store.write(self._lease.say_here)
                    log.warning("%s can be written again; it goes on.", self._store.path.name)
                    obstacle = None
                if not self._stop.is_set():
                    timeout = self._round(polled)
            except (StateFileFull, StateFileBusy) as problem:
                # Nothing is lost: agents keep what was not acknowledged. Look again when there may be room, or the lock.
                if type(problem) is not type(obstacle):
                    log.warning("%s The driver waits for that, and goes on by itself.", problem)
                obstacle = problem
                for contact in self._contacts.values():
                    self._connections.hang_up(contact)
                timeout = OBSTACLE_S
        with contextlib.suppress(StateFileFull, StateFileBusy):
            self._renting.finish()
            self._announcing.finish()

    def _open_for_business(self, db: apsw.Connection) -> None:
        self._lease.check(db)
        db.execute("update lead set stop_wanted = 0")
        now = _now_ms()
        tasks.clock_was_set_back(db, now)
        self._tending.begin_anew(db)
        workers.ensure(
            db,
            now,
            LOCAL,
            LOCAL,
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        )
        journal.note(db, now, EventKind.DRIVER, pid=os.getpid(), epoch=self._lease.epoch)

    def _look(self) -> Glance:
        """What there is to do, who drives, and whether he is asked to stop."""
        found = executions.glance(self._store.reader())
        if found.epoch != self._lease.epoch:
            raise StaleDriver(f"another driver has taken over {self._store.path.name}; this one writes nothing more.")
        if found.stop_wanted:
            self._stop.set()
        return found

    def _wait(self, timeout_s: float | None) -> Polled:
        """Wait for something to do, and read what came from agents; returns the answers to polls for events."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._selector.select(left_s)
            polled: Polled = []
            is_news = not ready
            for key, mask in ready:
                if key.fileobj is self._network:
                    network.drain(self._network)
                    self._try_again()
                    continue
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_r, 4096)
                    is_news = True
                    continue
                contact, stream = key.data
                if stream.fileno() >= 0:  # else hung up earlier in this very loop
                    is_news |= self._serve(contact, stream, mask, polled)
            self._drain()
            if is_news or polled:
                return polled

    def _try_again(self) -> None:
        """The network came back, or this machine woke up: who could not be reached may be there now."""
        self._renting.look_again()
        for contact in self._contacts.values():
            if contact.is_far and not contact.connected and not contact.connecting:
                contact.next_try, contact.failures = 0.0, min(contact.failures, 1)
                self.wake()

    def _serve(self, contact: Contact, stream: Stream, mask: int, polled: Polled) -> bool:
        """Write and read one stream; False when there was nothing but confirmations that orders have arrived."""
        waiting, measured = contact.held is None, contact.stats
        try:
            if mask & selectors.EVENT_WRITE and stream.flush():
                self._selector.modify(stream, selectors.EVENT_READ, (contact, stream))
            if mask & selectors.EVENT_READ:
                for answer in stream.read():
                    self._take(contact, stream, answer, polled)
        except WorkerError as problem:
            self._connections.lose(contact, problem)
            return True
        return (waiting and contact.held is not None) or contact.stats is not measured

    def _drain(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._inbox.popleft()()

    def _take(self, contact: Contact, stream: Stream, answer: Answer, polled: Polled) -> None:
        if answer.status == 409:
            rival, mine = Rival.of(answer.json()), self._lease.copy
            if rival is not None and mine is not None and rival.id != mine.id:
                raise self._connections.displaced(contact, rival)
            raise StaleDriver(f"the agent of worker {contact.worker} is driven by a newer driver; this one stops.")
        if answer.status != 200:
            raise BadAnswer(f"the agent answered {answer.status}: {answer.body[:200]!r}.", worker=contact.worker)
        contact.heard_at = self._awake.seconds
        if stream is contact.events:
            polled.append((contact, answer))
            return
        asked = contact.asked.popleft()
        if asked == "held":
            contact.told_held(checked_held(answer))
        elif asked == "stats":
            contact.stats = checked_stats(answer)

    # --- one round ------------------------------------------------------------------------------------------------------

    def _round(self, polled: Polled) -> float:
        """Store what came, decide, write, act. Returns how long there is nothing to do unless something happens."""
        polled = [(contact, answer) for contact, answer in polled if contact.connected]
        if self._awake.tick():
            self._try_again()
        reader = self._store.reader()
        if self._clock_was_set_back():
            self._store.write(self._mend_delays)
        is_fresh = False
        if not polled:
            seen = self._look()
            if not (has_decisions := self._deciding.has_decisions(seen)):
                self._deciding.known, is_fresh = {row.id: row for row in workers.all_of(reader)}, True
                has_decisions = self._deciding.has_room(reader, seen)
        if polled or has_decisions:
            # The transaction may run twice (see store.writer), so it changes nothing but the file and its own plan.
            try:
                plans, is_fresh = self._store.write(lambda db: self._transact(db, polled), quiet=True)
            except BadAnswer as problem:
                # One agent makes no sense: nothing of this round was stored, the others' news are asked for again.
                for contact, _ in polled:
                    if contact.worker == problem.parts.get("worker"):
                        self._connections.lose(contact, problem)
                    else:
                        self._connections.poll(contact)
                return 0.0
            # Orders first: those who wait here are woken, and ask for the interpreter, once the agents have work. That tasks
            # were only assigned is no news to anybody.
            has_news = any(plan.has_news for plan in plans.values())
            has_orders = any(plan.commands for plan in plans.values())
            if has_news and not has_orders:
                self._store.tell()
            for plan in plans.values():
                self._acting.follow_plan(plan, self._deciding.known.get(plan.worker))
            if has_news and has_orders:
                self._store.tell()
            for contact, _ in polled:
                contact.failures = 0
            seen = self._look()
            if not is_fresh:
                self._deciding.known = {row.id: row for row in workers.all_of(reader)}
        now = time.monotonic()
        if not self._stop.is_set():
            for row in self._deciding.known.values():
                self._acting.act(reader, row, now, seen)
            self._acting.part(self._deciding.known.keys())
            self._acting.note_silence()
            if seen.has_jobs:
                self._acting.see_to_journey()
            self._caching.see_to(seen, now)
            self._announcing.see_to(now)
            self._hiring.see_to(reader, seen, now)
            self._renting.see_to(reader, seen)
        return self._idle_time(now, seen)

    def _clock_was_set_back(self) -> bool:
        """Since the last round, and by more than it drifts."""
        ahead_s = time.time() - time.monotonic()
        before_s, self._ahead_s = self._ahead_s, ahead_s
        return ahead_s < before_s - 1.0

    def _mend_delays(self, db: apsw.Connection) -> None:
        self._lease.check(db)
        tasks.clock_was_set_back(db, _now_ms())

    def _transact(self, db: apsw.Connection, polled: Polled) -> tuple[dict[WorkerId, Plan], bool]:
        return self._deciding.transact(db, polled)

    def _route(self, row: WorkerRow) -> Route:
        return route_to(row, self._store, self._linger_s, functools.partial(self._tending.step, row.id))

    def _later(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        self.wake()
        if self._over:  # the loop is over: what was opened meanwhile is closed here
            self._drain()

    def _end_follows(self, db: apsw.Connection) -> None:
        self._lease.check(db)
        tasks.end_follows(db, _now_ms())

    # --- time -----------------------------------------------------------------------------------------------------------

    def _idle_time(self, now: float, seen: Glance) -> float:
        waits: list[float] = []
        self._lease.beat()
        waits.append(BEAT_S)
        if (again_s := self._caching.wait_s(seen, now)) is not None:
            waits.append(again_s)
        if (look_s := self._announcing.wait_s(now)) is not None:
            waits.append(look_s)
        if (hire_s := self._hiring.wait_s(now)) is not None:
            waits.append(hire_s)
        if (turn_s := self._renting.wait_s()) is not None:
            waits.append(turn_s)
        if (due_s := self._acting.wait_s(now, seen)) is not None:
            waits.append(due_s)
        if seen.is_live or seen.is_ready:
            self._busy_at = now
        elif now - self._busy_at < IDLE_S:
            waits.append(IDLE_S - (now - self._busy_at))
        else:
            if seen.is_followed:
                self._store.write(self._end_follows)
            waits.append(keep.when_idle(self._store, time.time()))
        if seen.due_ms is not None:
            waits.append(max(0.0, (seen.due_ms - _now_ms()) / 1000))
        for contact in self._contacts.values():
            if not contact.connected and not contact.connecting and contact.next_try > now:
                waits.append(contact.next_try - now)
            if contact.tail_after > now:
                waits.append(contact.tail_after - now)
            for begun in (contact.starts, contact.stagings):
                if begun:
                    waits.append(max(0.0, min(begun.values()) + SHOWN_AFTER_S - now))
        return min(waits) + 0.001


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
