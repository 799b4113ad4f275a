"""What providers have compared with what the file says: machines adopted, called lost, or deleted because nobody knows them.

`judge` is pure: it takes what a provider listed and the rows, and returns verdicts. `Reaping` acts on them, in threads of the driver's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from scitq.errors import MachineNotFound
from scitq.offers import Offer, Rental, RentalState
from scitq.remote.providers import points
from scitq.remote.providers.base import Instance, Leftover
from scitq.states import Outcome, WorkerState
from scitq.store import catalogue, holds, jobs, manifests, rentals, workers
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.store.rentals import Stray
from scitq.worker import WorkerId

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")
T = TypeVar("T")

# A machine of ours that the file does not know is deleted once it is so old: until then its row may be on its way.
STRAY_MS = 600_000
# What a provider does not list may still be on its way into its lists.
SETTLES_MS = 120_000
# Where a machine was taken back, none of its kind is rented for so long.
EVICTED_S = 900.0


@dataclass(frozen=True)
class Verdict:
    """What is to be done: `adopt` (it is a rental's, whose id is not known yet), `look` (nobody lists it), `ended` (it is of no use any
    more: evicted, stopped, failed), `again` (a rental that had gone is there), `stray` (nobody's)."""

    what: Literal["adopt", "look", "ended", "again", "stray"]
    instance: Instance | None = None
    rental: Rental | None = None


def judge(instances: Iterable[Instance], known: Mapping[str, Rental], store: str, settled_ms: int) -> list[Verdict]:
    """Compare. `known`: the rentals of this provider by code. A machine that was accepted before `settled_ms` and is not listed is not
    just on its way into the list."""
    found: list[Verdict] = []
    listed: set[str] = set()
    for each in instances:
        if each.store != store or each.state == "gone":
            continue
        rental = known.get(each.code or "")
        is_same = rental is not None and rental.cloud_id in (None, each.id) and rental.region == each.region
        if rental is None or not is_same:
            found.append(Verdict("stray", each, rental))
            continue
        listed.add(rental.code)
        if rental.state is RentalState.GONE:
            if each.state != "deleting":
                found.append(Verdict("again", each, rental))
        elif rental.cloud_id is None:
            found.append(Verdict("adopt", each, rental))
        elif rental.state is RentalState.RUNNING and each.state in ("error", "evicted", "stopped", "deleting"):
            found.append(Verdict("ended", each, rental))
    for rental in known.values():
        since = rental.accepted_ms
        is_settled = since is not None and since < settled_ms
        if rental.state is RentalState.RUNNING and rental.code not in listed and is_settled:
            found.append(Verdict("look", None, rental))
    return found


class Reaping:
    """Looks after one state file's machines at its providers. `provider` and `now_ms` are as in `machines`."""

    def __init__(
        self, store: Store, lease: Lease, provider: Callable[[str], Any], now_ms: Callable[[], int], pace: float = 1.0
    ) -> None:
        self._store, self._lease, self._provider, self._now_ms, self._pace = store, lease, provider, now_ms, pace

    def look(self, name: str) -> dict[str, Any]:
        """Compare one provider with the file, in all its regions, and act; returns what was done, for a job's result.

        Raises:
            ProviderError: it does not answer; nothing was concluded from that.
        """
        provider, db = self._provider(name), self._store.reader()
        file_id = manifests.file_id(db)
        began = self._now_ms()
        points.reach("instances", "row")
        with points.crossing("instances"):
            instances: list[Instance] = provider.instances()
        points.reach("instances", "stored")
        # Read after the list was made: what has been written down since is not called unknown.
        known = {
            code: rental for code, rental in rentals.codes(self._store.reader()).items() if rental.provider == name
        }
        done: dict[str, Any] = {"machines": 0, "deleted": [], "lost": [], "waiting": []}
        done["machines"] = sum(each.store == file_id and each.state != "gone" for each in instances)
        for verdict in judge(instances, known, file_id, began - int(SETTLES_MS * self._pace)):
            self._act(provider, verdict, done)
        listed = {(each.region, each.id) for each in instances if each.state != "gone"}
        for stray in rentals.strays(self._store.reader()):
            if stray.provider == name and (stray.region, stray.id) not in listed:
                self._stray_gone(provider, stray)
        self._sweep(provider, file_id, done)
        return done

    def clear(self, name: str, store: str) -> dict[str, Any]:
        """Delete every machine of another state file, by its user's word that nobody needs them.

        Raises:
            ProviderError: a provider does not do that now.
        """
        provider = self._provider(name)
        points.reach("instances", "row")
        with points.crossing("instances"):
            instances: list[Instance] = provider.instances()
        points.reach("instances", "stored")
        done: dict[str, Any] = {"machines": 0, "deleted": [], "lost": [], "waiting": []}
        for each in instances:
            if each.store != store or each.state == "gone":
                continue
            points.reach("delete", "row")
            with points.crossing("delete"), contextlib.suppress(MachineNotFound):
                provider.delete(each)
            points.reach("delete", "stored")
            done["deleted"].append(each.name)
        points.reach("sweep", "row")
        with points.crossing("sweep"):
            left: list[Leftover] = provider.sweep(
                store, {each.code for each in instances if each.store == store and each.code}
            )
        points.reach("sweep", "stored")
        for item in left:
            points.reach("delete_leftover", "row")
            with points.crossing("delete_leftover"):
                provider.delete_leftover(item)
            points.reach("delete_leftover", "stored")
            done["deleted"].append(f"{item.kind} {item.name}")
        return done

    def _act(self, provider: Any, verdict: Verdict, done: dict[str, Any]) -> None:
        instance, rental = verdict.instance, verdict.rental
        now = self._now_ms()
        if verdict.what == "stray" and instance is not None:
            self._stray(provider, instance, rental, done)
        elif verdict.what == "adopt" and instance is not None and rental is not None:
            self._write(lambda db: _adopt(db, now, rental, instance))
        elif verdict.what == "again" and instance is not None and rental is not None:
            self._write(lambda db: _again(db, now, rental, instance))
            done["deleted"].append(instance.name)
        elif verdict.what == "ended" and instance is not None and rental is not None:
            self._write(lambda db: _ended(db, now, rental, instance.state, instance.detail))
            done["lost"].append(instance.name)
        elif verdict.what == "look" and rental is not None:
            points.reach("get", "row")
            with points.crossing("get"):
                found: Instance | None = provider.get(rental.region, rental.cloud_id)
            points.reach("get", "stored")
            if found is None or found.state == "gone":
                self._write(lambda db: _lost(db, now, rental))
                done["lost"].append(rental.code)

    # --- what nobody knows ----------------------------------------------------------------------------------------------------

    def _stray(self, provider: Any, instance: Instance, rental: Rental | None, done: dict[str, Any]) -> None:
        """A machine of this file's that belongs to nobody here: deleted, once it is certain that nobody is about to write it down."""
        now = self._now_ms()
        stray: Stray = self._write(
            lambda db: rentals.stray_seen(
                db,
                now,
                instance.provider,
                instance.region,
                instance.id,
                instance.name,
                instance.code or "",
                instance.created_ms,
            )
        )
        # Its age by the provider's clock may be wrong: it was seen no earlier than it was made.
        since = min(stray.seen_ms, stray.created_ms or stray.seen_ms)
        is_double = rental is not None and rental.cloud_id is not None  # its row is known: it is one too many
        if not is_double and now - since < STRAY_MS * self._pace:
            done["waiting"].append(instance.name)
            return
        points.reach("delete", "row")
        self._write(lambda db: rentals.stray_asked(db, now, stray))
        log.warning(
            "%s: the machine %s belongs to nobody in %s: it is deleted.",
            stray.provider,
            stray.name,
            self._store.path.name,
        )
        with points.crossing("delete"), contextlib.suppress(MachineNotFound):
            provider.delete(instance)
        points.reach("delete", "stored")
        done["deleted"].append(instance.name)

    def _stray_gone(self, provider: Any, stray: Stray) -> None:
        points.reach("get", "row")
        with points.crossing("get"):
            found: Instance | None = provider.get(stray.region, stray.id)
        points.reach("get", "stored")
        if found is None or found.state == "gone":
            self._write(lambda db: rentals.stray_gone(db, self._now_ms(), stray))

    def _sweep(self, provider: Any, file_id: str, done: dict[str, Any]) -> None:
        """Things without a machine. Those of machines that are being deleted are theirs."""
        db = self._store.reader()
        keep = {rental.code for rental in rentals.open_ones(db)} | {stray.code for stray in rentals.strays(db)}
        points.reach("sweep", "row")
        with points.crossing("sweep"):
            left: list[Leftover] = provider.sweep(file_id, keep)
        points.reach("sweep", "stored")
        now = self._now_ms()
        for item in left:
            age_ms = None if item.created_ms is None else now - item.created_ms
            if item.code in keep or (age_ms is not None and age_ms < STRAY_MS * self._pace):
                continue
            points.reach("delete_leftover", "row")
            with points.crossing("delete_leftover"):
                provider.delete_leftover(item)
            points.reach("delete_leftover", "stored")
            done["deleted"].append(f"{item.kind} {item.name}")

    def _write(self, fn: Callable[[apsw.Connection], T]) -> T:
        def write(db: apsw.Connection) -> T:
            self._lease.check(db)
            return fn(db)

        points.reach(points.WRITE, "call")
        done = self._store.write(write, full=True)
        points.reach(points.WRITE, "answer")
        return done


def _adopt(db: apsw.Connection, now_ms: int, rental: Rental, instance: Instance) -> None:
    fresh = rentals.of(db, rental.worker)
    if (
        fresh is not None
        and fresh.code == rental.code
        and fresh.cloud_id is None
        and fresh.state is not RentalState.GONE
    ):
        rentals.accepted(db, now_ms, rental.worker, instance.id, instance.created_ms)


def _again(db: apsw.Connection, now_ms: int, rental: Rental, instance: Instance) -> None:
    """It had gone, or had never come to be: it is deleted, and what it costs is this rental's."""
    fresh = rentals.of(db, rental.worker)
    if fresh is not None and fresh.state is RentalState.GONE:
        rentals.found_again(db, rental.worker)
        if fresh.cloud_id is None:
            rentals.accepted(db, now_ms, rental.worker, instance.id, instance.created_ms)


def _is_as_it_was(db: apsw.Connection, rental: Rental) -> bool:
    fresh = rentals.of(db, rental.worker)
    return fresh is not None and fresh.state is rental.state and fresh.cloud_id == rental.cloud_id


def _ended(db: apsw.Connection, now_ms: int, rental: Rental, state: str, detail: str) -> None:
    """It exists still, and is of no use: what it held goes to others at once, and it is deleted."""
    if not _is_as_it_was(db, rental):
        return
    row = workers.find(db, int(rental.worker))
    said = f"{rental.provider} says that it is {state}{': ' + detail if detail else ''}"
    evict(db, now_ms, rental.worker, said) if state == "evicted" else rentals.tell(db, rental.worker, said)
    rentals.give_up(db, now_ms, row if state != "evicted" else workers.find(db, int(row.id)), said)
    jobs.add(db, now_ms, rentals.DESTROY, rental.worker, {"why": said})


def evict(db: apsw.Connection, now_ms: int, worker: WorkerId, said: str) -> None:
    """Its provider takes it back: what it held goes to others, at no cost to their tries; and that is remembered of its offer."""
    row, rental = workers.find(db, int(worker)), rentals.of(db, worker)
    assert rental is not None
    if row.state in (WorkerState.EVICTED, WorkerState.DELETING, WorkerState.GONE):
        return
    rentals.observe(db, now_ms, rental, evictions=1)
    catalogue.put_hold(db, holds.of_offer(Offer.of(rental.data["offer"]), now_ms, EVICTED_S, said, "evicted"))
    rentals.tell(db, worker, said)
    workers.move(db, now_ms, worker, WorkerState.EVICTED, said)
    rentals.free_tasks(db, now_ms, row, Outcome.EVICTED, said)


def _lost(db: apsw.Connection, now_ms: int, rental: Rental) -> None:
    """Its provider has none any more: nobody of ours deleted it."""
    if not _is_as_it_was(db, rental):
        return
    row = workers.find(db, int(rental.worker))
    said = f"{rental.provider} has it no more"
    if row.state is not WorkerState.EVICTED:
        rentals.free_tasks(db, now_ms, row, Outcome.LOST, f"its worker {row.name} is lost: {said}")
    rentals.observe(db, now_ms, rental, failures=0 if rental.data.get("ready_ms") else 1)
    rentals.gone(db, now_ms, rental.worker, note=said)
