"""Whose turn it is among rented machines and their providers: the driver's part, which only starts threads.

What is done about one machine is `machines`, the comparison of file and provider `reaping`. Nothing here outlives the driver: what
there is to do is read from the file, and times of waiting begin anew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scitq.errors import BadRequest, Closed, ProviderError, ScitqError, StaleDriver
from scitq.machines import Machines, failed_to_start
from scitq.offers import RentalState
from scitq.reaping import Reaping
from scitq.states import JobState, WorkerState
from scitq.store import jobs, rentals, workers
from scitq.store.connection import Store
from scitq.store.executions import Glance
from scitq.store.lease import Lease
from scitq.worker import JobId, WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# So many calls of providers at once.
LANES = 16
# How often providers of whom something is rented are asked what they have.
LOOK_S = 300.0
# And for so long after the last of them has gone.
AFTER_S = 1500.0
# Machines that have gone since so long ago are looked for at a start.
BEFORE_MS = 86_400_000
# A machine that runs may take so long until its sshd lets us in; and so long it may show another key than the one it was given.
OPENS_S = 600.0
METAL_OPENS_S = 2400.0
WRONG_KEY_S = 90.0
# How long a driver that ends looks at providers, unless it just did.
LATELY_S = 30.0
LEAVE_S = 10.0
# For tests: how fast waits go by, against what is said here.
PACE = "SCITQ_RENTING_PACE"


@dataclass
class Turn:
    """One machine, or one provider: when there is something to do about it, and whether that is being done."""

    due: float = 0.0
    is_busy: bool = False
    mark: tuple[Any, ...] = ()
    is_stale: bool = False
    """What it is about was changed since the last step began, which may not have seen that."""
    failures: int = 0


class Renting:
    """One driver's rented machines. All methods are called by its thread, or say otherwise. `clock` counts seconds."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        stop: threading.Event,
        wake: Callable[[], None],
        *,
        load: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store, self._lease, self._stop, self._wake, self._clock = store, lease, stop, wake, clock
        self._load, self._now_ms = load or self._configured, now_ms
        self._pace = float(os.environ.get(PACE) or 1.0)
        self._providers: dict[str, Any] = {}
        self._gate = threading.Lock()
        self.machines = Machines(store, lease, self.provider, now_ms, self._pace)
        self.reaping = Reaping(store, lease, self.provider, now_ms, self._pace)
        self._turns: dict[WorkerId, Turn] = {}
        self._looks: dict[str, Turn] = {}
        # When providers were looked at, if nothing has changed since.
        self._looked: dict[str, float] = {}
        self._threads: list[threading.Thread] = []
        self._is_first = True
        self._reap: JobId | None = None
        self._left: set[str] = set()
        """Of a job `reap`: the providers that were not looked at yet."""
        self._found: dict[str, Any] = {}
        self._other: str | None = None
        """Whose machines it is about, if not this file's."""

    # --- providers (any thread) -------------------------------------------------------------------------------------------

    def provider(self, name: str) -> Any:
        """A provider, to be called inside of crossings only.

        Raises:
            ProviderError: it is not configured (any more), or cannot be used.
        """
        with self._gate:
            if name not in self._providers:
                from scitq.remote.providers.points import guard

                self._providers[name] = guard(self._load(name))
            return self._providers[name]

    def _configured(self, name: str) -> Any:
        from scitq.remote import providers

        settings = providers.configured()
        if name not in settings:
            raise BadRequest(
                f"there is no provider {name!r} in the configuration any more. Put it back: scitq provider add {name}",
                provider=name,
            )
        return providers.load(name, settings[name], providers.context(self._store.side, name, settings[name]))

    def forget_providers(self) -> None:
        """The configuration may have changed."""
        with self._gate:
            self._providers.clear()

    # --- turns ------------------------------------------------------------------------------------------------------------

    def see_to(self, db: apsw.Connection, seen: Glance) -> None:
        """Begin what there is to do, unless it is being done."""
        if self._is_first:
            self._is_first = False
            for name in rentals.providers(db, self._now_ms() - BEFORE_MS):
                self._looks[name] = Turn()
        if seen.has_jobs:
            self._see_to_reap(db)
        if not (seen.has_rentals or self._looks):
            return
        now = self._clock()
        self._see_to_machines(db, now)
        self._see_to_looks(db, now)

    def _see_to_machines(self, db: apsw.Connection, now: float) -> None:
        present = rentals.open_ones(db)
        rows = {row.id: row for row in workers.all_of(db)}
        own = {(job.worker, job.kind): job.id for job in jobs.open_ones(db) if job.kind in rentals.KINDS}
        held = {worker for worker in rows if (worker, rentals.DESTROY) in own and _holds(db, worker)}
        for worker in self._turns.keys() - {rental.worker for rental in present}:
            if not self._turns[worker].is_busy:
                del self._turns[worker]
        for rental in present:
            turn = self._turns.setdefault(rental.worker, Turn())
            row = rows.get(rental.worker)
            is_away = row is not None and row.state is WorkerState.UNREACHABLE
            mark = (
                rental.state, own.get((rental.worker, rentals.DEPLOY)), own.get((rental.worker, rentals.DESTROY)),
                rental.worker in held, row is not None and row.state is WorkerState.DRAINING, is_away,
            )  # fmt: skip
            if is_away and turn.mark[-1:] == (False,):
                self._looks.setdefault(rental.provider, Turn()).due = 0.0  # is it there at all?
            if mark != turn.mark:  # somebody has changed what is wanted of it, while it waited for something else
                turn.mark, turn.is_stale = mark, True
                self._looked.clear()
            if not turn.is_busy and (turn.is_stale or now >= turn.due):
                self._begin(turn, lambda worker=rental.worker: self.machines.step(worker))  # type: ignore[misc]
        for name in {rental.provider for rental in present}:
            self._looks.setdefault(name, Turn(now + LOOK_S * self._pace))

    def _see_to_looks(self, db: apsw.Connection, now: float) -> None:
        for name, turn in list(self._looks.items()):
            if turn.is_busy or now < turn.due:
                continue
            self._begin(turn, lambda name=name: self._look(name))  # type: ignore[misc]

    def _begin(self, turn: Turn, work: Callable[[], float | None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= LANES or self._stop.is_set():
            turn.due, turn.is_stale = self._clock() + 0.05, False  # a thread that ends wakes us
            return
        turn.is_busy, turn.is_stale = True, False
        thread = threading.Thread(target=self._work, args=(turn, work), name="scitq-rent", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, turn: Turn, work: Callable[[], float | None]) -> None:
        """In a thread."""
        wait_s: float | None = 5.0
        try:
            wait_s = work()
            turn.failures = 0
        except (Closed, StaleDriver):
            return
        except ScitqError as problem:
            turn.failures += 1
            wait_s = min(300.0, 2.0**turn.failures) * self._pace
            log.warning("%s", problem)
        except Exception:
            turn.failures += 1
            wait_s = min(300.0, 2.0**turn.failures) * self._pace
            if not self._stop.is_set() and not self._store.closed:
                log.exception("a rented machine could not be dealt with; it is tried again")
        finally:
            turn.due = float("inf") if wait_s is None else self._clock() + wait_s
            turn.is_busy = False
            self._wake()

    def wait_s(self) -> float | None:
        """After how long it wants to be asked again, though nothing happens."""
        turns = [*self._turns.values(), *self._looks.values()]
        waits = [0.0 if turn.is_stale else turn.due for turn in turns if not turn.is_busy]
        waits = [due for due in waits if due != float("inf")]
        return max(0.0, min(waits) - self._clock()) if waits else None

    def look_again(self) -> None:
        """This machine slept, or the network came back: what was awaited may have come about."""
        for turn in (*self._turns.values(), *self._looks.values()):
            if turn.due != float("inf"):
                turn.due = 0.0
        self._wake()

    # --- looking at providers -----------------------------------------------------------------------------------------------

    def _look(self, name: str) -> float | None:
        """In a thread: compare one provider with the file."""
        try:
            store = self._other if name in self._left else None
            found = self.reaping.look(name) if store is None else self.reaping.clear(name, store)
            self.machines.refusals.settled(name)
            self._looked[name] = self._clock()
        except ProviderError as problem:
            self._looked_at(name, {"problem": str(problem)})
            self.machines.refusals.tell_of(name, problem)
            raise
        self._looked_at(name, found)
        db = self._store.reader()
        # What was asked for and given up may turn up for a while.
        since = self._now_ms() - int(1000 * AFTER_S * self._pace)
        return LOOK_S * self._pace if name in rentals.providers(db, since) else None

    def _see_to_reap(self, db: apsw.Connection) -> None:
        """Somebody wants to know what there is, at whatever is configured."""
        job = next((job for job in jobs.open_ones(db) if job.kind == rentals.REAP), None)
        if job is None or self._reap == job.id:
            return
        from scitq.remote import providers

        self.forget_providers()
        names = {*providers.configured(), *rentals.providers(db)}
        self._reap, self._left, self._found = job.id, set(names), {}
        self._other = job.data.get("store")

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            if jobs.find(db, job.id).state is JobState.PENDING:
                jobs.move(db, self._now_ms(), job.id, JobState.RUNNING)
            if not names:
                jobs.move(db, self._now_ms(), job.id, JobState.SUCCEEDED, "no provider is configured")

        self._store.write(write)
        for name in names:
            self._looks.setdefault(name, Turn()).due = 0.0

    def _looked_at(self, name: str, found: dict[str, Any]) -> None:
        """In a thread."""
        with self._gate:
            job = self._reap
            if job is None or name not in self._left:
                return
            self._left.discard(name)
            self._found[name] = found
            is_over, result = not self._left, dict(self._found)

        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            if jobs.find(db, job).state is not JobState.RUNNING:
                return
            problems = [f"{each}: {said['problem']}" for each, said in result.items() if "problem" in said]
            jobs.say(db, job, name, None, f"{name}: {found.get('problem') or _told(found)}")
            jobs.result(db, job, {"providers": result})
            if is_over:
                state = JobState.FAILED if problems else JobState.SUCCEEDED
                jobs.move(db, self._now_ms(), job, state, "; ".join(problems) or None)

        self._store.write(write)

    # --- beginning and ending ---------------------------------------------------------------------------------------------

    def failed(
        self, db: apsw.Connection, row: WorkerRow, problem: ScitqError, is_wrong: bool, is_lasting: bool
    ) -> bool:
        """The agent of a machine that runs could not be reached, in the transaction that says so; whether it is given up.
        `is_wrong`: it shows another key than its own. `is_lasting`: trying again will not help."""
        rental = rentals.of(db, row.id)
        if rental is None or rental.state is not RentalState.RUNNING or row.state is not WorkerState.PREPARING:
            return False
        age_s = (self._now_ms() - (rental.running_ms or 0)) / 1000
        limit_s = METAL_OPENS_S if rental.data["offer"]["flavor"].get("metal") else OPENS_S
        limit_s = WRONG_KEY_S if is_wrong or is_lasting else limit_s
        if age_s < limit_s * self._pace:
            return False
        failed_to_start(db, self._now_ms(), row.id, f"it runs, but is no worker: {problem}")
        return True

    def finish(self) -> None:
        """This driver is to leave: what was begun is waited for, not for ever, and providers are looked at once more."""
        deadline = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._store.closed or self._is_first or not self._looks:
            return
        for name in list(self._looks):
            if self._clock() - self._looked.get(name, float("-inf")) < LATELY_S:
                continue
            thread = threading.Thread(target=self._last_look, args=(name,), name="scitq-rent", daemon=True)
            thread.start()
            thread.join(max(0.0, deadline - time.monotonic()))

    def _last_look(self, name: str) -> None:
        try:
            self.reaping.look(name)
        except ScitqError as problem:
            log.debug("%s was not looked at: %s", name, problem)
        except Exception:
            log.debug("%s was not looked at", name, exc_info=True)


def _holds(db: apsw.Connection, worker: WorkerId) -> bool:
    from scitq.store import executions

    return bool(executions.live(db, worker))


def _told(found: dict[str, Any]) -> str:
    parts = [f"{found['machines']} there"]
    parts += [
        f"{len(found[what])} {what}: {', '.join(found[what])}" for what in ("deleted", "lost", "waiting") if found[what]
    ]
    return "; ".join(parts)
