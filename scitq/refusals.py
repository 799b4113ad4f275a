"""What follows from a provider's refusals and failures: the same again, another offer, or nothing; and who is told of it.

Runs in the threads of `machines`. What was refused is held (`store.holds`); what may exist all the same is never given up here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq import spending
from scitq.errors import (
    AmbiguousCreate,
    MachineNameTaken,
    PermissionDenied,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    RateLimited,
)
from scitq.offers import Hold, Offer, Rental, RentalState
from scitq.states import JobState
from scitq.store import costs, holds, jobs, notices, rentals, workers
from scitq.store.connection import Store
from scitq.worker import WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# So long after a request whose answer was lost its machine is looked for; then it is asked for again. Clouds list with delay.
LOOKS_S = (5.0, 15.0, 30.0, 60.0)
# A provider that does not do what it is asked is asked again after these times.
AGAIN_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
# A machine that is not gone so long after it was to be deleted is told of; it is asked again for ever.
ALARM_S = 900.0
# What is wrong with a provider is told of when it has lasted so long.
DOWN_S = 60.0


class Refusals:
    """Those of one state file's providers. `write` runs a function in a transaction that is on the disk when it returns."""

    def __init__(
        self,
        store: Store,
        write: Callable[[Callable[[apsw.Connection], Any]], Any],
        now_ms: Callable[[], int],
        pace: float,
    ) -> None:
        self._store, self._write, self._now_ms, self._pace = store, write, now_ms, pace
        self._failures: dict[WorkerId, int] = {}
        self._down: dict[str, int] = {}
        """Since when a provider does not do what it is asked."""

    def forget(self, worker: WorkerId) -> None:
        """A machine's provider has done what it was asked."""
        self._failures.pop(worker, None)

    def told(self, worker: WorkerId, problem: ProviderError, *, is_refusal: bool) -> float:
        """A provider refused, or was not there: whether another offer is tried, or the same again, or none. `is_refusal`: it was asked
        to make a machine; from anything else nothing follows about whether there is one. Returns how long to wait."""
        db = self._store.reader()
        rental, row = rentals.of(db, worker), workers.find(db, int(worker))
        if rental is None or rental.state in (RentalState.GONE, RentalState.RUNNING):
            return 0.0
        number = self._failures[worker] = self._failures.get(worker, 0) + 1
        wait_s = AGAIN_S[min(number, len(AGAIN_S)) - 1] * self._pace
        if isinstance(problem, RateLimited):
            wait_s = max(wait_s, problem.retry_after_s * self._pace)
        self.tell_of(rental.provider, problem)
        if isinstance(problem, AmbiguousCreate):
            text = (
                f"worker {row.name}: whether {rental.provider} has made its machine is not known ({problem}). It is looked for, and "
                "asked for again only if there is none."
            )
            self._tell(f"lost-answer:{rental.code}", text, {"worker": row.name}, ("what is rented", ("cloud", "list")))
        if rental.state is RentalState.DELETING:
            self._say(worker, rentals.DESTROY, str(problem))
            self._write(
                lambda db: rentals.note(db, worker, deleting_ms=rental.data.get("deleting_ms") or self._now_ms())
            )
            self.alarm(rental, row, str(problem))
            return wait_s
        self._say(worker, rentals.DEPLOY, str(problem))
        if isinstance(problem, AmbiguousCreate):
            self._write(lambda db: rentals.note(db, worker, doubts=self._now_ms()))
            return LOOKS_S[0] * self._pace
        if isinstance(problem, MachineNameTaken):
            self._write(lambda db: rentals.note(db, worker, doubts=0))
            return wait_s if number == 1 else self._walk_on(rental, row, problem)
        is_refusal = is_refusal or rental.data.get("asked") is None
        if problem.go_on == "same-offer" or rental.state is RentalState.CREATING or not is_refusal:
            return wait_s
        return self._walk_on(rental, row, problem)

    def _walk_on(self, rental: Rental, row: WorkerRow, problem: ProviderError) -> float:
        """Try the next offer that this says nothing against; none is left: there is no machine."""
        now = self._now_ms()
        offers, at = rentals.offers_of(rental), int(rental.data.get("at") or 0)

        def write(db: apsw.Connection) -> None:
            fresh = rentals.of(db, row.id)
            if fresh is None or fresh.code != rental.code or fresh.state is not RentalState.INTENT:
                return
            held = holds.refused(db, now, problem, offers[at], offers)
            # What is dearer must not pass a limit that was kept by the first choice.
            allowed = costs.allowance(db, now, spending.rates(), without=int(row.id))
            dear = [allowed.refusal(each, fresh.batch or 0, fresh.rank or 0) for each in offers]
            number = at if isinstance(problem, MachineNameTaken) else _next(held, problem, offers, at, dear)
            if number is not None:
                rentals.take(db, row.id, number, str(problem))
                return
            text = f"{problem}{' No other offer is left to try.' if problem.go_on != 'no' else ''}"
            if (why := next((each for each in dear[at + 1 :] if each), None)) is not None:
                text += f" Of others, {why}."
            for job in jobs.of_worker(db, row.id):
                if job.kind == rentals.DEPLOY and job.state is JobState.RUNNING:
                    jobs.result(db, job.id, {"error": type(problem).__name__})
                    jobs.move(db, now, job.id, JobState.FAILED, text)
            rentals.gone(db, now, row.id, note=text)

        self._write(write)
        self._failures.pop(row.id, None)
        return 0.0

    def tell_of(self, name: str, problem: ProviderError) -> None:
        """What is wrong with a provider is said once, however many machines it concerns."""
        look = ("check it", ("provider", "check", name))
        if isinstance(problem, ProviderLogin | PermissionDenied):
            self._tell(f"provider-login:{name}", f"{name}: {problem}", {"provider": name}, look)
        elif isinstance(problem, ProviderDown):
            since = self._down.setdefault(name, self._now_ms())
            if self._now_ms() - since >= 1000 * DOWN_S * self._pace:
                self._tell(
                    f"provider-down:{name}", f"{name} does not do what it is asked: {problem}", {"provider": name}, look
                )

    def settled(self, name: str) -> None:
        """A provider does what it is asked: what was said against it holds no more."""
        self._down.pop(name, None)
        keys = (f"provider-down:{name}", f"provider-login:{name}")
        present = {each.key for each in notices.posted(self._store.reader())}
        if present.intersection(keys):
            self._write(lambda db: _settle(db, keys, name))

    def _tell(self, key: str, text: str, about: dict[str, Any], action: tuple[str, tuple[str, ...]]) -> None:
        def write(db: apsw.Connection) -> None:
            if not any(each.key == key for each in notices.posted(db)):
                notices.post(db, self._now_ms(), key, "machines", text, about=about, actions=[action])

        if not any(each.key == key for each in notices.posted(self._store.reader())):
            log.warning("%s", text)
            self._write(write)

    def alarm(self, rental: Rental, row: WorkerRow, problem: str = "") -> None:
        """Tell of a machine that was to be deleted long ago."""
        since = int(rental.data.get("deleting_ms") or self._now_ms())
        if self._now_ms() - since < 1000 * ALARM_S * self._pace:
            return
        said = f": {problem}" if problem else ""
        text = (
            f"worker {row.name} ({rental.provider} {rental.region} {rental.flavor}, {rental.cloud_id}) was to be deleted "
            f"{(self._now_ms() - since) // 60_000} min ago and is there still{said}. It costs until it is gone; it is asked again."
        )
        self._tell(
            f"not-deleted:{rental.code}",
            text,
            {"worker": row.name},
            ("look at it", ("job", "list", "--worker", row.name)),
        )

    def _say(self, worker: WorkerId, kind: str, text: str) -> None:
        def write(db: apsw.Connection) -> None:
            for job in jobs.open_ones(db):
                if job.worker == worker and job.kind == kind and job.log.splitlines()[-1:] != [text]:
                    jobs.say(db, job.id, job.step, job.progress, text.replace("\n", " "))

        self._write(write)


def _next(held: list[Hold], problem: ProviderError, offers: list[Offer], at: int, dear: list[str | None]) -> int | None:
    """The next of the offers that may be tried. `dear`: why it would cost too much, of each."""
    refused = offers[at]
    for number, each in enumerate(offers[at + 1 :], at + 1):
        is_same = each.flavor.provider == refused.flavor.provider
        if is_same and (problem.go_on == "no" or (problem.go_on == "other-region" and each.region == refused.region)):
            continue
        if dear[number] is None and not any(hold.covers(each) for hold in held):
            return number
    return None


def _settle(db: apsw.Connection, keys: tuple[str, ...], name: str) -> None:
    for key in keys:
        notices.take_back(db, key)
    holds.release(db, name)
