"""The engine's methods about rented machines: deployed, listed, looked after; and the jobs that are tried again or taken back.

Everything here writes a wish into the file and returns. Whoever drives sees to it: `renting`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from scitq import money, spending, submission
from scitq.errors import BadInput, IllegalMove
from scitq.offers import Offer, Rental, RentalState
from scitq.states import JobState, WorkerState
from scitq.store import costs, jobs, manifests, rentals, tasks, workers
from scitq.store.rentals import Stray
from scitq.waiting import Changes, wait_for
from scitq.worker import JobId, JobRow, WorkerId, WorkerRow
from scitq.workersettings import checked, worker_name

if TYPE_CHECKING:
    import apsw

    from scitq.clouds import Machine
    from scitq.engine import Engine
    from scitq.store.catalogue import Read
    from scitq.store.connection import Store

T = TypeVar("T")
# So long it is waited for what providers sell, if that was not asked for too long.
PATIENCE_S = 30.0


class Renters:
    """What an `Engine` can do about rented machines. A part of that class, not one of its own."""

    if TYPE_CHECKING:
        _changes: Changes
        _store: Store

        def _reader(self) -> apsw.Connection: ...
        def _write(self, fn: Callable[[apsw.Connection], T]) -> T: ...
        def _drive(self, *, take_over: bool = False) -> None: ...
        def flavor_refresh(
            self, provider: str | None = None, *, timeout: float = 60.0, only_old: bool = False
        ) -> list[Read]: ...
        def flavor_reads(self, provider: str | None = None) -> list[Read]: ...

    def worker_deploy(
        self,
        flavor: str | None = None,
        *,
        number: int = 1,
        provider: str | None = None,
        region: str | None = None,
        market: str | None = None,
        max_price: float | None = None,
        concurrency: int | None = None,
        prefetch: int | str | None = None,
        batch: str | None = None,
        name: str | None = None,
        expires: float | None = None,
        **settings: Any,
    ) -> list[WorkerRow]:
        """Rent machines and make them workers: `number` of what fits best (see `flavors`), each the cheapest that can be had.

        They are written down when this returns; whoever drives then asks the provider, and prepares them (`worker_ready` waits for
        that). `flavor` is a name or a protofilter (`"auto:cpu>=8:ram>=32"`). `name` is theirs (`name-1` and so on for several).
        `expires`: after so many seconds a machine ends, whatever it does. `settings` are those of `worker_add`; `orphan_after`:
        a machine ends by itself when no driver was heard for so many seconds (2700) and it has nothing to do.

        Raises:
            BadInput: nothing that is sold fits, or an argument makes no sense. Nothing was rented.
            NameTaken: there is a worker of that name.
        """
        wanted = {
            "provider": provider,
            "region": region,
            "market": market,
            "max_price": max_price,
            "concurrency": concurrency,
        }
        offers = self.offers_for(flavor, **wanted)
        return self.worker_rent(
            offers, number=number, name=name, concurrency=concurrency, prefetch=prefetch, batch=batch, max_price=max_price,
            expires=expires, **settings,
        )  # fmt: skip

    def offers_for(self, flavor: str | None = None, **wanted: Any) -> list[Offer]:
        """What `worker_deploy` would try to rent, in that order; the arguments are its own. Providers that were not asked for too
        long are asked.

        Raises:
            BadInput: nothing that is sold fits; the text says why not.
        """
        self.flavor_refresh(only_old=True, timeout=PATIENCE_S)
        found = cast("Engine", self).flavors(flavor, **wanted)
        if found.ranked:
            return [one.offer for one in found.ranked[: rentals.MOST_OFFERS]]
        if not found.excluded:
            told = [f"{one.provider}: {one.problem}" for one in self.flavor_reads() if one.problem]
            why = "; ".join(told) or "no provider is configured, or none sells anything: scitq provider list"
            raise BadInput(f"there is nothing to rent: {why}.")
        nearest = "; ".join(f"{each.offer.flavor.name} ({each.offer.flavor.provider} {each.offer.region}): {each.reason}"
                            for each in found.excluded[:3])  # fmt: skip
        more = f", and {len(found.excluded) - 3} more" if len(found.excluded) > 3 else ""
        raise BadInput(f"nothing that is sold fits. {nearest}{more}. All of it: scitq flavor list --excluded")

    def worker_rent(
        self,
        offers: Sequence[Offer],
        *,
        number: int = 1,
        name: str | None = None,
        concurrency: int | None = None,
        prefetch: int | str | None = None,
        batch: str | None = None,
        max_price: float | None = None,
        expires: float | None = None,
        **settings: Any,
    ) -> list[WorkerRow]:
        """Rent machines by these offers: the first that its provider does not refuse, for each. See `worker_deploy`.

        Raises:
            BadInput: there is no offer, or an argument makes no sense.
            NameTaken: there is a worker of that name.
            MoneyLimitReached: one of them could pass a limit of what may be spent; none was rented.
        """
        if not offers:
            raise BadInput("there is no offer to rent by.")
        count = submission.whole("number", number)
        own = None if name is None else worker_name(name)
        slots = None if concurrency is None else submission.whole("concurrency", concurrency)
        ahead = None if prefetch in (None, "auto") else submission.whole("prefetch", prefetch)
        given = {key: checked(key, value) for key, value in settings.items() if value is not None and value != "auto"}
        now = _now_ms()
        expires_ms = None if expires is None else now + int(1000 * _seconds("expires", expires))

        def write(db: apsw.Connection) -> list[WorkerId]:
            serves = None if batch is None else tasks.batch_id(db, submission.name_of("batch", batch))
            allowed = costs.allowance(db, now, spending.rates())
            for _ in range(count):
                spending.must_be_allowed(allowed, offers[0], serves)
                allowed = allowed.rented(offers[0], serves or 0)
            return [
                rentals.rent(
                    db, now, offers[0], others=offers[1:], concurrency=slots, prefetch=ahead, batch=serves, settings=given,
                    name=own if own is None or count == 1 else f"{own}-{each + 1}", max_price=max_price, expires_ms=expires_ms,
                    why="asked for by hand",
                )
                for each in range(count)
            ]  # fmt: skip

        made = self._write(write)
        self._drive()
        return [workers.find(self._reader(), int(worker)) for worker in made]

    def rentals(self, *, every: bool = False) -> list[Rental]:
        """The machines that exist at their providers, or may; or every one that there ever was."""
        return rentals.all_of(self._reader()) if every else rentals.open_ones(self._reader())

    def rented(self) -> str | None:
        """What is paid for at this moment, in a sentence; None for nothing."""
        found = rentals.open_ones(self._reader())
        if not found:
            return None
        sums: dict[str, float] = {}
        for one in found:
            if one.price:
                sums[one.currency] = sums.get(one.currency, 0.0) + one.price
        costs = ", ".join(money.said(amount, currency, per_hour=True) for currency, amount in sorted(sums.items()))
        count = "1 machine is" if len(found) == 1 else f"{len(found)} machines are"
        return f"{count} rented{', for ' + costs if costs else ''}."

    def strays(self, *, every: bool = False) -> list[Stray]:
        """Machines of this file that it did not know, as providers showed them: those that are there still, or all there ever were."""
        return rentals.strays(self._reader(), every=every)

    def cloud_list(self, *, every: bool = False) -> list[Machine]:
        """The machines of this file that exist at their providers, or may, as it knows them. `every`: the providers that are
        configured are asked, and whatever of scitq they have is listed, of whichever file.

        Raises:
            ProviderError: with `every`, one cannot be asked.
        """
        from scitq import clouds

        return clouds.machines(self._store, every=every)

    def cloud_reap(self, timeout: float | None = 600.0, *, store: str | None = None) -> JobRow:
        """Look at every provider that is configured, in all its regions: machines of this file that it does not know are deleted, and
        what was to be deleted is. Waits until that was done. `store`: the id of another file (see `cloud_list`), which is no more:
        every machine of that file is deleted.

        Raises:
            BadInput: that is no id, or this file's own.
            TimeoutError: not within `timeout` seconds; it goes on.
        """
        other = {} if store is None else {"store": _foreign(self._reader(), store)}
        job = self._write(lambda db: jobs.add(db, _now_ms(), rentals.REAP, None, other))
        self._drive()

        def is_open() -> int:
            return jobs.find(self._reader(), job).state in (JobState.PENDING, JobState.RUNNING)

        wait_for(cast("Engine", self), is_open, timeout, "the look at the providers")
        return jobs.find(self._reader(), job)

    # --- jobs -----------------------------------------------------------------------------------------------------------

    def job_retry(self, job: int) -> JobRow:
        """Try again what failed: with the same wishes.

        Raises:
            UnknownJob: there is none of that number.
            IllegalMove: it has not failed.
        """

        def write(db: apsw.Connection) -> JobId:
            row = jobs.find(db, job)
            if row.state is not JobState.FAILED:
                raise IllegalMove(
                    f"job {job} ({row.kind}) is {row.state.word}: only what failed is tried again.", job=job
                )
            return _again(db, _now_ms(), row)

        fresh = self._write(write)
        self._drive()
        return jobs.find(self._reader(), fresh)

    def job_cancel(self, job: int) -> JobRow:
        """Take back a long operation that has not ended: a machine that was being deployed is deleted.

        Raises:
            UnknownJob: there is none of that number.
            IllegalMove: it has ended, or cannot be taken back.
        """

        def write(db: apsw.Connection) -> None:
            row = jobs.find(db, job)
            if row.state not in (JobState.PENDING, JobState.RUNNING):
                raise IllegalMove(f"job {job} ({row.kind}) has ended: it is {row.state.word}.", job=job)
            _take_back(db, _now_ms(), row)

        self._write(write)
        self._drive()
        return jobs.find(self._reader(), job)


def _again(db: apsw.Connection, now_ms: int, row: JobRow) -> JobId:
    rental = None if row.worker is None else rentals.of(db, row.worker)
    if rental is None or row.kind != rentals.DEPLOY:
        jobs.move(db, now_ms, row.id, JobState.PENDING, "tried again")
        if row.worker is not None and row.kind == "prepare":
            worker = workers.find(db, int(row.worker))
            if worker.state is WorkerState.FAILED:
                workers.move(db, now_ms, worker.id, WorkerState.PREPARING)
        return row.id
    if rental.state is not RentalState.GONE:
        raise IllegalMove(
            f"the machine of job {row.id} is being deleted still: try again in a moment.", job=int(row.id)
        )
    old = workers.find(db, int(rental.worker))
    name = old.name.rpartition(" #")[0] or old.name
    first, *others = rentals.offers_of(rental)
    spending.must_be_allowed(costs.allowance(db, now_ms, spending.rates()), first, rental.batch, rental.rank)
    fresh = rentals.rent(
        db, now_ms, first, others=others, name=name, batch=rental.batch, rank=rental.rank,
        concurrency=None if rental.data.get("slots_as_cpus") else old.concurrency,
        prefetch=old.prefetch, max_price=rental.data.get("max_price"), why=str(rental.data.get("why") or ""),
    )  # fmt: skip
    return next(job.id for job in jobs.of_worker(db, fresh) if job.kind == rentals.DEPLOY)


def _take_back(db: apsw.Connection, now_ms: int, row: JobRow) -> None:
    if row.kind == rentals.DEPLOY and row.worker is not None:
        jobs.move(db, now_ms, row.id, JobState.CANCELLED, "taken back by hand")
        rentals.let_go(db, now_ms, row.worker, "its deployment was taken back", force=True)
        return
    if row.kind == rentals.DESTROY and row.worker is not None:
        rental = rentals.of(db, row.worker)
        if rental is None or rental.state is not RentalState.RUNNING:
            raise IllegalMove(
                f"job {row.id}: the machine is being deleted, which cannot be taken back.", job=int(row.id)
            )
        if workers.find(db, int(row.worker)).state is WorkerState.DRAINING:
            workers.move(db, now_ms, row.worker, WorkerState.READY, None)
    elif row.state is JobState.RUNNING and row.kind not in rentals.KINDS:
        raise IllegalMove(f"job {row.id} ({row.kind}) is under way, and cannot be taken back.", job=int(row.id))
    jobs.move(db, now_ms, row.id, JobState.CANCELLED, "taken back by hand")


def _foreign(db: apsw.Connection, store: str) -> str:
    if not re.fullmatch(r"[0-9a-z]{4,40}", store) or store == manifests.file_id(db):
        raise BadInput(
            f"{store!r} is no id of another state file: scitq cloud list --all shows those that have machines."
        )
    return store


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise BadInput(f"{name} must be a number of seconds above 0, not {value!r}.")
    return float(value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
