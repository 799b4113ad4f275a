"""The driver: the one process that, at this moment, turns what the state file says into work done.

One thread, one loop: take what agents report and store it with its consequences, let `placement` decide, write the decisions,
and do what the file then says ought to be done. Everything but connections is read back from the file, so a driver may die at
any instruction and the next one goes on. Who may drive is decided by `store.lease`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.caching import Caching
from scitq.contact import FACTS, Contact, Plan, checked_held, checked_stats, news_first, pace_s, wish
from scitq.errors import (
    BadAnswer,
    Closed,
    ForkedProcess,
    LinkBroken,
    ScitqError,
    StaleDriver,
    StateFileBusy,
    StateFileFull,
    WorkerError,
)
from scitq.events import EventKind
from scitq.news import SHOWN_AFTER_S, apply, show_running
from scitq.placement import choosy, could_ever, free, place, total
from scitq.registries import Registries
from scitq.registries import keys as registry_of
from scitq.remote import local
from scitq.remote.link import Answer, Stream
from scitq.remote.orders import to_bytes
from scitq.states import RECALLABLE, Outcome, Stage, TaskState, WorkerState
from scitq.storages import Storages
from scitq.store import cache, executions, journal, keep, listing, logs, manifests, query, tasks, workers
from scitq.store.connection import Store
from scitq.store.executions import Glance, Order
from scitq.store.lease import Lease
from scitq.tails import Tails
from scitq.task import ExecutionId, Need
from scitq.worker import LOCAL, WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# How long an agent holds a poll with nothing to tell. Only a fallback: a broken connection shows at once.
POLL_S = 600
# How often a process that may drive looks whether the driver has died (a driver that ends says so at once).
CANDIDATE_S = 1.0
# And how often whether it stands still.
LOOK_AT_HOLDER_S = 5.0
# How long a driver that ends waits for a connection that is being made.
CONNECT_S = 5.0
RECONNECT_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# How long a driver waits when the file cannot be written, before it tries again.
OBSTACLE_S = 10.0
# How often an idle driver says that it is there.
BEAT_S = 60.0
# After so long without work the file is looked after: its daily backup, its free pages.
IDLE_S = 5.0
# How often at most a worker with work is asked how busy its machine is. No timer: only when there is something to do anyway.
STATS_S = 30.0
# The part of an execution that its worker was at, by what its task's state was.
_STAGES = {TaskState.STAGING: Stage.STAGE_IN, TaskState.COLLECTING: Stage.COLLECT}


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
        self._outputs = str(store.side / "outputs")
        self._file_id: str | None = None
        self._on_end = on_end
        self._linger_s = linger_s
        self._take_over = take_over
        self._contacts: dict[WorkerId, Contact] = {}
        self._contexts: dict[int, dict[str, Any]] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._stop = threading.Event()
        self._known: dict[WorkerId, WorkerRow] = {}
        self._explained: tuple[Any, ...] = ()
        # The last transaction may have left tasks over that could run now, for want of room. A hint.
        self._is_full = False
        # Of the process that drives while this one stands by: when to look at it again, and the number of one told of.
        self._look_after = 0.0
        self._told_of: int | None = None
        self._wake_gate = threading.Lock()
        self._holding = False
        self._over = False
        self._busy_at = time.monotonic()
        self._ahead_s = time.time() - self._busy_at
        self.driving = threading.Event()
        self.ended = threading.Event()
        self._connecting: list[threading.Thread] = []
        self._tails = Tails(
            store, self._lease, self._stop,
            later=self._later, wake=self.wake, is_over=lambda: self._over, on_output=on_output,
        )  # fmt: skip
        self._caching = Caching(store, self._lease, self._stop, self.wake)
        self._storages = Storages(later=self._later, say=self._say, tell=self._tell_of_storages)
        self._registries = Registries(later=self._later, say=self._say, note=self._note)
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
        self._holding = True

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
                self._hang_up(contact)
            with contextlib.suppress(ScitqError):
                self._lease.release()
            self._caching.end()
            for thread in self._connecting:  # an agent that is being started is not left to appear later
                thread.join(CONNECT_S)
            self._selector.close()
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
                    self._hang_up(contact)
                timeout = OBSTACLE_S

    def _open_for_business(self, db: apsw.Connection) -> None:
        self._lease.check(db)
        db.execute("update lead set stop_wanted = 0")
        now = _now_ms()
        tasks.clock_was_set_back(db, now)
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

    def _wait(self, timeout_s: float | None) -> list[tuple[Contact, Answer]]:
        """Wait for something to do, and read what came from agents; returns the answers to polls for events."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._selector.select(left_s)
            polled: list[tuple[Contact, Answer]] = []
            is_news = not ready
            for key, mask in ready:
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

    def _serve(self, contact: Contact, stream: Stream, mask: int, polled: list[tuple[Contact, Answer]]) -> bool:
        """Write and read one stream; False when there was nothing but confirmations that orders have arrived."""
        waiting, measured = contact.held is None, contact.stats
        try:
            if mask & selectors.EVENT_WRITE and stream.flush():
                self._selector.modify(stream, selectors.EVENT_READ, (contact, stream))
            if mask & selectors.EVENT_READ:
                for answer in stream.read():
                    self._take(contact, stream, answer, polled)
        except WorkerError as problem:
            self._lose(contact, problem)
            return True
        return (waiting and contact.held is not None) or contact.stats is not measured

    def _drain(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._inbox.popleft()()

    def _take(self, contact: Contact, stream: Stream, answer: Answer, polled: list[tuple[Contact, Answer]]) -> None:
        if answer.status == 409:
            raise StaleDriver(f"the agent of worker {contact.worker} is driven by a newer driver; this one stops.")
        if answer.status != 200:
            raise BadAnswer(f"the agent answered {answer.status}: {answer.body[:200]!r}.", worker=contact.worker)
        if stream is contact.events:
            polled.append((contact, answer))
            return
        asked = contact.asked.popleft()
        if asked == "held":
            contact.held = checked_held(answer)
        elif asked == "stats":
            contact.stats = checked_stats(answer)

    # --- one round ------------------------------------------------------------------------------------------------------

    def _round(self, polled: list[tuple[Contact, Answer]]) -> float:
        """Store what came, decide, write, act. Returns how long there is nothing to do unless something happens."""
        polled = [(contact, answer) for contact, answer in polled if contact.connected]
        reader = self._store.reader()
        if self._clock_was_set_back():
            self._store.write(self._mend_delays)
        is_fresh = False
        if not polled:
            seen = self._look()
            if not (has_decisions := self._has_decisions(seen)):
                self._known, is_fresh = {row.id: row for row in workers.all_of(reader)}, True
                has_decisions = self._has_room(reader, seen)
        if polled or has_decisions:
            # The transaction may run twice (see store.writer), so it changes nothing but the file and its own plan.
            try:
                plans, is_fresh = self._store.write(lambda db: self._transact(db, polled), quiet=True)
            except BadAnswer as problem:
                # One agent makes no sense: nothing of this round was stored, the others' news are asked for again.
                for contact, _ in polled:
                    if contact.worker == problem.parts.get("worker"):
                        self._lose(contact, problem)
                    else:
                        self._poll(contact)
                return 0.0
            # Orders first: those who wait here are woken, and ask for the interpreter, once the agents have work. That tasks
            # were only assigned is no news to anybody.
            has_news = any(plan.has_news for plan in plans.values())
            has_orders = any(plan.commands for plan in plans.values())
            if has_news and not has_orders:
                self._store.tell()
            for plan in plans.values():
                self._follow_plan(plan, self._known.get(plan.worker))
            if has_news and has_orders:
                self._store.tell()
            for contact, _ in polled:
                contact.failures = 0
            seen = self._look()
            if not is_fresh:
                self._known = {row.id: row for row in workers.all_of(reader)}
        now = time.monotonic()
        if not self._stop.is_set():
            for row in self._known.values():
                self._act(reader, row, now, seen)
            self._caching.see_to(seen, now)
        return self._idle_time(now, seen)

    def _clock_was_set_back(self) -> bool:
        """Since the last round, and by more than it drifts."""
        ahead_s = time.time() - time.monotonic()
        before_s, self._ahead_s = self._ahead_s, ahead_s
        return ahead_s < before_s - 1.0

    def _mend_delays(self, db: apsw.Connection) -> None:
        self._lease.check(db)
        tasks.clock_was_set_back(db, _now_ms())

    def _has_decisions(self, seen: Glance) -> bool:
        """Whether there is something to write down, as far as it can be said without looking at the workers."""
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
        return seen.is_ready and not self._holding and not self._is_full

    def _has_room(self, db: apsw.Connection, seen: Glance) -> bool:
        """Whether some task could be placed."""
        if not seen.is_ready or self._holding:
            return False
        means = {c.worker: pace_s(c, c.mean_run_s) for c in self._contacts.values() if c.synced}
        return bool(free(self._known, executions.loads(db), means))

    def _transact(self, db: apsw.Connection, polled: list[tuple[Contact, Answer]]) -> tuple[dict[WorkerId, Plan], bool]:
        """Store news, and place what can be placed; returns the plans, and whether there was anything that could be."""
        self._lease.check(db)
        now = _now_ms()
        plans = {contact.worker: Plan(contact) for contact in self._contacts.values() if contact.connected}
        for contact, answer in polled:
            apply(db, now, plans[contact.worker], answer)
        for plan in plans.values():
            show_running(db, now, plan)
        for plan in plans.values():
            if plan.held is not None and not news_first(plan):
                self._reconcile(db, now, plan)
        tasks.release_due(db, now)
        if not listing.has_pending(db):
            self._is_full = False
            return plans, False
        # Read here, not before: somebody may just have said that a worker is to run less.
        known = self._known = {row.id: row for row in workers.all_of(db)}
        self._explain_needs(db, known)
        synced = {worker: plan for worker, plan in plans.items() if plan.synced and not self._holding}
        means = {worker: pace_s(plan.contact, plan.mean_run_s) for worker, plan in synced.items()}
        capacities = free(known, executions.loads(db), means)
        room = sum(capacity.slots + capacity.queue for capacity in capacities.values())
        self._is_full = not room
        if room:
            # With several workers more are read than fit, so that tasks bound to a full batch do not hide those behind them.
            limit = room + 1000 if len(known) > 1 else room
            waiting, doubles = cache.without_known(db, listing.pending(db, limit))
            while waiting is None:  # some were taken out: others may go in their place
                waiting, doubles = cache.without_known(db, listing.pending(db, limit))
            orders = executions.begin(db, now, place(choosy(waiting, known), capacities))
            self._is_full = len(orders) < len(waiting) or len(waiting) + len(doubles) >= room
            for order in orders:
                plans[order.worker].commands.append(self._order(db, order))
            for task in doubles:
                cache.turn_away(db, task.id)
        return plans, True

    def _explain_needs(self, db: apsw.Connection, known: dict[WorkerId, WorkerRow]) -> None:
        """Say of requests that no worker could ever meet, even with nothing else to do, that this is so."""
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

    def _follow_plan(self, plan: Plan, row: WorkerRow | None) -> None:
        """The transaction is in the file: what it decided becomes the present, and is said to the agent."""
        contact = plan.contact
        contact.journal, contact.acked, contact.mean_run_s = plan.journal, plan.acked, plan.mean_run_s
        contact.held, contact.synced, contact.starts = plan.held, plan.synced, plan.starts
        contact.stagings = plan.stagings
        if not plan.is_told:
            contact.told.clear()
        contact.forget += plan.forget
        contact.forget_logs += plan.forget_logs
        remotes = {name for command in plan.commands for name in command.get("remotes", ())}
        contact.fetches = contact.fetches or any("input" in each or "resource" in each for each in plan.commands)
        if remotes:
            self._storages.want(contact, remotes)
        if any("image" in command for command in plan.commands):
            self._registries.want(contact, plan.commands)
        self._say(contact, [*self._slots(contact, row), *plan.commands])
        self._poll(contact)

    def _reconcile(self, db: apsw.Connection, now: int, plan: Plan) -> None:
        """Compare what the agent holds with what the file says it should hold: repeat orders that never arrived, and call
        lost what was running and is not there any more."""
        assert plan.held is not None
        facts: dict[str, Any] = {key: plan.held[key] for key in FACTS if key in plan.held}
        held = {int(id): str(doing) for id, doing in plan.held["held"].items()}
        plan.held = None
        plan.synced = plan.has_news = True
        waiting = {order.execution: order for order in executions.unstarted(db, plan.worker)}
        due = executions.logs_due(db, plan.worker)
        for execution, state in executions.live(db, plan.worker).items():
            if execution in held or execution in due:
                doing = held.get(execution)
                if doing == "running" and state in RECALLABLE:
                    executions.started(db, execution, now)
                elif doing == "staging":
                    executions.staging(db, now, execution)
                continue
            if execution in waiting:
                plan.commands.append(self._order(db, waiting[execution]))
            else:
                stage = _STAGES.get(state, Stage.RUN)
                executions.finish(db, now, execution, Outcome.LOST, stage, "its worker does not know of it any more")
        row = workers.find(db, int(plan.worker))
        if row.state in (WorkerState.PREPARING, WorkerState.UNREACHABLE):
            workers.move(db, now, plan.worker, WorkerState.READY)
        if any(row.facts.get(key) != value for key, value in facts.items()):
            workers.describe(db, plan.worker, facts)

    def _order(self, db: apsw.Connection, order: Order) -> dict[str, Any]:
        spec = order.spec
        command: dict[str, Any] = {"order": order.execution, "task": order.task}
        if spec.shell is not None:
            command["script"], command["shell"] = spec.command, spec.shell
        else:
            command["argv"] = spec.argv()
        row = self._known.get(order.worker)
        if row is not None and row.output_cap is not None:
            command["cap"] = row.output_cap
        if spec.env:
            command["env"] = dict(spec.env)
        if order.slots > 1:
            command["slots"] = order.slots
        if spec.cpus is not None:
            command["cpu"] = max(1, int(spec.cpus))
        if spec.memory is not None:
            command["memory"] = spec.memory
        if (spec.memory or spec.cpus) and (row is None or row.limits_wanted):
            command["limit"] = {name: value for name, value in (("memory", spec.memory), ("cpus", spec.cpus)) if value}
        if order.gpus:
            command["gpus"] = list(order.gpus)
        if spec.container is not None:
            command["image"] = spec.container
            command.update(registry_of(spec.container))
            if spec.container_options:
                command["options"] = list(spec.container_options)
            if row is not None and row.container_engine is not None:
                command["engine"] = row.container_engine
        if spec.run_timeout is not None:
            command["timeout"] = spec.run_timeout
        if spec.has_data:
            from scitq.data import keys

            if self._file_id is None:
                self._file_id = manifests.file_id(db)
            command.update(keys(db, order, self._outputs, self._file_id))
        else:
            command["deliver"] = f"{self._outputs}/{order.task}"
            if spec.keep_failed:
                command["failed"] = f"{self._outputs}/{order.task}.failed/{order.execution}"
        if order.context is not None and spec.container is None:  # its own folder and PATH are the image's
            if order.context not in self._contexts:
                text = query.one(db, "select data from context where id = ?", (order.context,))[0]
                self._contexts[order.context] = _context(text)
            command.update(self._contexts[order.context])
        return command

    # --- effects: what the file says ought to be done -----------------------------------------------------------------

    def _act(self, db: apsw.Connection, row: WorkerRow, now: float, seen: Glance) -> None:
        contact = self._contacts.get(row.id)
        if contact is None:
            contact = Contact(row.id, self._store.side / "local", mean_run_s=executions.mean_run_s(db, row.id))
            self._contacts[row.id] = contact
        if not contact.connected:
            if (
                not contact.connecting
                and now >= contact.next_try
                and ((seen.is_live and executions.live(db, row.id)) or (seen.is_ready and listing.pending(db, 1)))
            ):
                contact.connecting = True
                thread = threading.Thread(target=self._connect, args=(contact,), name="scitq-connect", daemon=True)
                self._connecting = [old for old in self._connecting if old.is_alive()] + [thread]
                thread.start()
            return
        commands = self._slots(contact, row)
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
        self._say(contact, commands)
        if not contact.synced and contact.held is None and "held" not in contact.asked:
            self._ask(contact, "held")
        if contact.stats is not None:
            self._measured(contact, contact.stats)
        elif seen.is_live and now >= contact.stats_after and contact.synced:
            contact.stats_after = now + STATS_S
            self._ask(contact, "stats")
        if now < contact.tail_after:
            return
        for execution, due in executions.logs_due(db, row.id).items() if seen.is_log_due else ():
            away = [stream for stream, size in due.items() if not self._tails.arrived(execution, stream, size)]
            for stream in away:
                self._tails.fetch(contact, execution, stream)
            if not away:
                self._tails.complete(contact, execution)
        for execution in executions.followed(db, row.id, _now_ms()) if seen.is_followed else ():
            for stream in (logs.OUT, logs.ERR):
                self._tails.fetch(contact, execution, stream)

    def _slots(self, contact: Contact, row: WorkerRow | None) -> list[dict[str, Any]]:
        """How many executions the agent may run at once, if it has to be told: before any order that counts on it."""
        if row is None or contact.slots_sent == row.concurrency:
            return []
        contact.slots_sent = row.concurrency
        return [{"slots": row.concurrency}]

    def _connect(self, contact: Contact) -> None:
        """In a thread of its own: start the agent where it does not run, and open both streams."""
        if self._stop.is_set():
            return
        streams: list[Stream] = []
        try:
            local.ensure(contact.root, linger=self._linger_s)
            streams.append(Stream.to_socket(contact.root))
            held = checked_held(streams[0].ask("GET", "/held"))
            streams.append(Stream.to_socket(contact.root))
        except ScitqError as problem:
            found = problem
            for stream in streams:
                stream.close()
            self._later(lambda: self._failed_to_connect(contact, found))
        else:
            commands, events = streams
            self._later(lambda: self._connected(contact, commands, events, held))

    def _connected(self, contact: Contact, commands: Stream, events: Stream, held: dict[str, Any]) -> None:
        if self._over:
            commands.close()
            events.close()
            return
        contact.connecting = False
        self._outbid(held.get("epoch"))
        contact.commands, contact.events, contact.held = commands, events, held
        row = workers.find(self._store.reader(), int(contact.worker))
        contact.journal, contact.acked = row.journal, row.acked
        contact.asked.clear()
        self._selector.register(commands, selectors.EVENT_READ, (contact, commands))
        self._selector.register(events, selectors.EVENT_READ, (contact, events))
        self._say(contact, [{"slots": row.concurrency}])
        contact.slots_sent = row.concurrency
        # What waits for its data there, or is to be brought home, goes on once the agent has what it takes.
        reader = self._store.reader()
        orders = [self._order(reader, order) for order in executions.with_data(reader, contact.worker)]
        remotes = {name for command in orders for name in command.get("remotes", ())}
        if remotes:
            self._storages.want(contact, remotes)
        if any("image" in command for command in orders):
            self._registries.want(contact, orders)
        self._poll(contact)

    def _outbid(self, epoch: object) -> None:
        """An agent knows a later driver than this file does: the file is an older copy that was put back. Whoever holds its
        lock is its driver all the same, and goes on under a number that the agent believes."""
        mine = self._lease.epoch
        if not isinstance(epoch, int) or mine is None or epoch <= mine:
            return

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            db.execute("update lead set epoch = ?", (epoch + 1,))

        self._store.write(write)
        self._lease.epoch = epoch + 1

    def _failed_to_connect(self, contact: Contact, problem: ScitqError) -> None:
        if self._over:
            return
        contact.connecting = False
        wait_s = RECONNECT_S[min(contact.failures + 1, len(RECONNECT_S) - 1)]
        contact.failures += 1
        contact.next_try = time.monotonic() + wait_s

        self._call_unreachable(contact, problem)
        log.warning("worker %s: %s Next try in %g s.", contact.worker, problem, wait_s)

    def _call_unreachable(self, contact: Contact, problem: ScitqError) -> None:
        """Write down why a worker cannot be used, for `why` and the tables."""

        def tell(db: apsw.Connection) -> None:
            self._lease.check(db)
            row = workers.find(db, int(contact.worker))
            if row.note != str(problem) or row.state is WorkerState.READY:
                state = (
                    WorkerState.UNREACHABLE if row.state in (WorkerState.READY, WorkerState.PREPARING) else row.state
                )
                workers.move(db, _now_ms(), contact.worker, state, str(problem))

        self._store.write(tell)

    def _lose(self, contact: Contact, problem: WorkerError) -> None:
        log.debug("worker %s: %s", contact.worker, problem)
        if isinstance(problem, BadAnswer):
            log.warning("worker %s: %s Connecting anew.", contact.worker, problem)
            contact.failures += 1
            self._call_unreachable(contact, problem)
        contact.next_try = time.monotonic() + RECONNECT_S[min(contact.failures, len(RECONNECT_S) - 1)]
        self._hang_up(contact)

    def _hang_up(self, contact: Contact) -> None:
        for stream in (contact.events, contact.commands):
            if stream is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(stream)
                stream.close()
        contact.events = contact.commands = contact.held = None
        contact.starts.clear()
        contact.stagings.clear()
        contact.synced = False
        contact.slots_sent = None
        contact.told.clear()
        contact.remotes.clear()
        contact.registries.clear()
        contact.fetches = False
        contact.asked.clear()
        contact.stats_after = 0.0

    def _say(self, contact: Contact, commands: list[dict[str, Any]]) -> None:
        if not commands or contact.commands is None:
            return
        contact.commands.queue("POST", "/commands", to_bytes(commands), f"Scitq-Epoch: {self._lease.epoch}\r\n")
        contact.asked.append("commands")
        self._send(contact, contact.commands)

    def _ask(self, contact: Contact, what: str) -> None:
        if contact.commands is not None:
            contact.commands.queue("GET", f"/{what}")
            contact.asked.append(what)
            self._send(contact, contact.commands)

    def _note(self, waiting: set[int], text: str) -> None:
        """Say of executions what they wait for."""
        if self._over:
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
        self._store.write(write, quiet=True)

    def _poll(self, contact: Contact) -> None:
        if contact.events is not None and contact.events.waiting == 0:
            contact.events.queue("GET", f"/events?journal={contact.journal or ''}&from={contact.acked}&wait={POLL_S}")
            self._send(contact, contact.events)

    def _send(self, contact: Contact, stream: Stream) -> None:
        try:
            if not stream.flush():
                self._selector.modify(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, (contact, stream))
        except LinkBroken as problem:
            self._lose(contact, problem)

    def _tell_of_storages(self, contact: Contact, names: set[str], text: str) -> None:
        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            for order in executions.with_data(db, contact.worker):
                waits = names & set(self._order(db, order).get("remotes", ()))
                if waits and manifests.notes(db, order.execution)[-1:] != [text]:  # said every few seconds, noted once
                    manifests.note(db, _now_ms(), order.execution, text)

        self._store.write(write, quiet=True)

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


def _has(row: WorkerRow) -> str:
    return f"{row.name} has {Need(row.cpus, row.memory, len(row.gpus), row.python).describe()}"


def _context(text: str) -> dict[str, Any]:
    import json

    data = json.loads(text)
    return {"base": data.get("env", {}), "cwd": data["cwd"]}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
