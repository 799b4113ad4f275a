"""What is done about one rented machine, step by step: asked for, waited for, deleted. Each step reads the file, acts, writes.

Runs in threads of the driver's process; when which machine's turn is, is `renting`. Killed anywhere, the next driver reads the same
file and goes on: whatever may exist at a provider was in the file, on the disk, before the provider was called; and what was asked
for and not answered is looked up by its name before it is asked for again. The places where that is tried are in
`scitq.remote.providers.points`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scitq.errors import (
    AmbiguousCreate,
    MachineNotFound,
    ProviderError,
)
from scitq.offers import Offer, Rental, RentalState
from scitq.refusals import LOOKS_S, Refusals
from scitq.remote.providers import points, userdata
from scitq.remote.providers.base import Capabilities, CreateRequest, Image, Instance, Reach
from scitq.states import JobState, WorkerState
from scitq.store import catalogue, executions, holds, jobs, manifests, notices, rentals, workers
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.worker import JobRow, WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")
T = TypeVar("T")

# How often a machine that starts, or is deleted, is looked at.
POLL_S = (2.0, 2.0, 3.0, 5.0)
# How long a machine may take from being accepted to running.
STARTS_S = 600.0
METAL_STARTS_S = 2400.0
# One that a provider does not know right after it was accepted may be on its way still.
SETTLES_S = 120.0
# Asked again to delete so often, while it is there still.
DELETE_AGAIN_S = 60.0
# States of workers that were never ready.
_BEFORE = frozenset({WorkerState.WANTED, WorkerState.DEPLOYING, WorkerState.PREPARING})


class _Refused(Exception):
    """A provider was asked for a machine, and said that it makes none; or not whether it does."""

    def __init__(self, problem: ProviderError) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Machines:
    """Deals with the machines of one state file. `provider` gives a guarded provider by its name, and may raise a ProviderError;
    `now_ms` is the time. Nothing is kept here but how often something was asked in a row."""

    def __init__(
        self, store: Store, lease: Lease, provider: Callable[[str], Any], now_ms: Callable[[], int], pace: float = 1.0
    ) -> None:
        self._store, self._lease, self._provider, self._now_ms, self._pace = store, lease, provider, now_ms, pace
        self.refusals = Refusals(store, self._write, now_ms, pace)
        self._polls: dict[WorkerId, int] = {}

    def step(self, worker: WorkerId) -> float | None:
        """The next thing that is to be done about a machine. After how many seconds there is more to do; None: nothing, unless the
        file changes."""
        db = self._store.reader()
        rental, row = rentals.of(db, worker), workers.find(db, int(worker))
        if rental is None or rental.state is RentalState.GONE:
            return None
        own = [job for job in jobs.open_ones(db) if job.worker == worker]
        try:
            if rental.state is RentalState.DELETING:
                wait_s = self._delete(rental, row, _of_kind(own, rentals.DESTROY))
            elif rental.state is RentalState.RUNNING:
                return self._at_work(rental, row, _of_kind(own, rentals.DEPLOY), _of_kind(own, rentals.DESTROY))
            else:
                wait_s = self._deploy(rental, row, _of_kind(own, rentals.DEPLOY))
        except _Refused as refused:
            return self.refusals.told(worker, refused.problem, is_refusal=True)
        except ProviderError as problem:
            return self.refusals.told(worker, problem, is_refusal=False)
        self.refusals.forget(worker)
        self.refusals.settled(rental.provider)
        return None if wait_s is None else wait_s * self._pace

    # --- running ----------------------------------------------------------------------------------------------------------

    def _at_work(self, rental: Rental, row: WorkerRow, deploys: JobRow | None, job: JobRow | None) -> float | None:
        """It is a worker like others; until it is to be deleted and holds nothing more, or its time is over."""
        now = self._now_ms()
        if deploys is not None and row.state not in _BEFORE:  # that it is one was written down, and no more
            self._write(lambda db: _is_ready(db, now, row.id))
        if rental.expires_ms is not None and now >= rental.expires_ms:
            self._write(lambda db: rentals.let_go(db, now, row.id, "its time is over", force=True))
            return 0.0
        if job is not None and row.state is WorkerState.READY and not job.data.get("force"):
            # It was to go once it had finished, and was told to go on since.
            self._write(lambda db: _keep(db, now, job))
            return 0.0
        if job is not None and (job.data.get("force") or not executions.live(self._store.reader(), row.id)):
            self._write(lambda db: _give_up(db, now, row.id, str(job.data.get("why") or "")))
            return 0.0
        return None if rental.expires_ms is None else (rental.expires_ms - now) / 1000

    # --- deploying ----------------------------------------------------------------------------------------------------------

    def _deploy(self, rental: Rental, row: WorkerRow, job: JobRow | None) -> float | None:
        if job is None:  # its wish was taken back, by hand
            self._write(lambda db: _give_up(db, self._now_ms(), row.id, "nobody wants it any more"))
            return 0.0
        if job.state is JobState.PENDING:
            self._write(lambda db: _begin(db, self._now_ms(), job))
        provider = self._provider(rental.provider)
        if rental.state is RentalState.CREATING:
            return self._await(provider, rental, row, job)
        if rental.data.get("asked") is None:
            self._ask(provider, rental, row, job)
            fresh = rentals.of(self._store.reader(), row.id)
            if fresh is None or fresh.state is not RentalState.INTENT or fresh.code != rental.code:
                return 0.0
            return self._create(provider, fresh, job)
        # It may exist: this is not the first time.
        if (found := self._look_up(provider, rental)) is not None:
            self._accepted(rental, found, job, "found")
            return 0.0
        if (wait_s := self._doubt_s(rental)) is not None:
            return wait_s
        return self._create(provider, rental, job)

    def _ask(self, provider: Any, rental: Rental, row: WorkerRow, job: JobRow) -> None:
        """Write down exactly what will be asked for."""
        offer = Offer.of(rental.data["offer"])
        points.reach("image", "row")
        with points.crossing("image"):
            image: Image = provider.image(rental.region, offer.flavor, rental.data.get("image"))
        points.reach("image", "stored")
        now = self._now_ms()
        request, public = self._request(rental, row, offer, image, now)
        points.reach("create", "row")

        def write(db: apsw.Connection) -> None:
            fresh = rentals.of(db, row.id)
            if fresh is not None and fresh.state is RentalState.INTENT and fresh.code == rental.code:
                rentals.ask(db, now, row.id, asdict(replace(request, offer=None)) | {"image": asdict(image)}, public)  # type: ignore[arg-type]
                jobs.say(
                    db, job.id, "create", 0.1, f"{rental.provider} {rental.region}: {rental.flavor} {_price(offer)}"
                )

        self._write(write)

    def _request(
        self, rental: Rental, row: WorkerRow, offer: Offer, image: Image, now: int
    ) -> tuple[CreateRequest, str]:
        file_id = manifests.file_id(self._store.reader())
        project = self._store.path.stem
        _, driver = userdata.driver_key(self.ssh_folder(), f"scitq-{project}")
        private, public = userdata.make_key("scitq-boot")
        identity = {"worker": rental.code, "store": file_id, "project": project, "provider": rental.provider}
        tags = {"scitq-store": file_id, "scitq-project": project, "scitq-worker": row.name}
        request = CreateRequest(
            code=rental.code, name=rentals.machine_name(file_id, rental.code), store=file_id, project=project, offer=offer,
            image=image, user=image.user, ssh_public_key=driver, user_data=userdata.text(private, public, driver, identity),
            root_disk=offer.root_disk, max_price=rental.data.get("max_price"), created_ms=now, expires_ms=rental.expires_ms,
            tags=tags,
        )  # fmt: skip
        return request, public

    def ssh_folder(self) -> Path:
        """Where the key for this file's machines lies, and what is known of theirs."""
        return self._store.side / "ssh"

    def _create(self, provider: Any, rental: Rental, job: JobRow) -> float:
        asked = dict(rental.data["asked"])
        asked |= {"offer": Offer.of(rental.data["offer"]), "image": Image(**asked["image"])}
        asked["allow_from"] = tuple(asked.get("allow_from") or ())
        with points.crossing("create"):
            try:
                found: Instance = provider.create(CreateRequest(**asked))
            except ProviderError as problem:
                raise _Refused(problem) from problem
            except Exception as problem:  # of a plug-in: nobody knows whether it exists
                text = f"{rental.provider}: asking for a machine ended in {type(problem).__name__}: {problem}"
                raise _Refused(AmbiguousCreate(text, provider=rental.provider, region=rental.region)) from problem
        self._accepted(rental, found, job, "accepted")
        return POLL_S[0]

    def _accepted(self, rental: Rental, found: Instance, job: JobRow | None, how: str) -> None:
        points.reach("create" if how == "accepted" else "find", "stored")

        def write(db: apsw.Connection) -> None:
            fresh = rentals.of(db, rental.worker)
            if fresh is None or fresh.code != rental.code or fresh.state is RentalState.GONE:
                return  # whoever changed it did not know of this machine: it is found as a stray
            rentals.accepted(db, self._now_ms(), rental.worker, found.id, found.created_ms)
            if job is not None:
                jobs.say(db, job.id, "start", 0.3, f"{how} by {rental.provider} as {found.id}")

        self._write(write)

    def _look_up(self, provider: Any, rental: Rental) -> Instance | None:
        """The machine of this name, if its provider has one."""
        name = rentals.machine_name(manifests.file_id(self._store.reader()), rental.code)
        points.reach("find", "row")
        with points.crossing("find"):
            found: list[Instance] = provider.find(rental.region, name)
        alive = [each for each in found if each.state != "gone"]
        return alive[0] if alive else None

    def _doubt_s(self, rental: Rental) -> float | None:
        """After how long it is to be looked for once more, before it is asked for again (or is taken not to exist)."""
        since = int(rental.data.get("doubts") or rental.data.get("asked_ms") or 0)
        age_s = (self._now_ms() - since) / 1000
        later = [at for at in LOOKS_S if at * self._pace > age_s >= 0]
        return max(0.05, later[0] - age_s / self._pace) if later else None

    def _await(self, provider: Any, rental: Rental, row: WorkerRow, job: JobRow) -> float | None:
        """It was accepted: until it runs and says where it is."""
        found = self._get(provider, rental)
        age_s = (self._now_ms() - (rental.accepted_ms or rental.wanted_ms)) / 1000
        if found is None and age_s < SETTLES_S * self._pace:
            return self._poll_s(rental)
        if found is None:
            return self._failed(rental, row, "it is not there any more", is_gone=True)
        if found.state == "running" and found.reach is not None:
            self._runs(rental, row, job, found.reach, provider.caps)
            return 0.0
        if found.state in ("error", "evicted", "gone", "stopped", "deleting"):
            return self._failed(rental, row, f"it is {found.state}{': ' + found.detail if found.detail else ''}")
        is_metal = bool(rental.data["offer"]["flavor"].get("metal"))
        limit_s = (METAL_STARTS_S if is_metal else STARTS_S) * self._pace
        if age_s > limit_s:
            return self._failed(rental, row, f"it does not run {age_s / 60:.0f} min after it was accepted")
        return self._poll_s(rental)

    def _get(self, provider: Any, rental: Rental) -> Instance | None:
        points.reach("get", "row")
        with points.crossing("get"):
            found: Instance | None = provider.get(rental.region, rental.cloud_id)
        points.reach("get", "stored")
        return found

    def _poll_s(self, rental: Rental) -> float:
        number = self._polls[rental.worker] = self._polls.get(rental.worker, -1) + 1
        return POLL_S[min(number, len(POLL_S) - 1)]

    def _runs(self, rental: Rental, row: WorkerRow, job: JobRow, reach: Reach, caps: Capabilities) -> None:
        keys = reach.host_keys or ((str(rental.data["host_key"]),) if rental.data.get("host_key") else ())
        if reach.how == "ssh" and caps.creates:  # before the first connection
            name = rentals.machine_name(manifests.file_id(self._store.reader()), rental.code)
            where = reach.host if reach.port == 22 else f"[{reach.host}]:{reach.port}"
            userdata.pin(self.ssh_folder() / "known_hosts", (name, where), tuple(keys))

        def write(db: apsw.Connection) -> None:
            fresh = rentals.of(db, row.id)
            if fresh is None or fresh.state is not RentalState.CREATING:
                return
            rentals.runs(db, self._now_ms(), row.id, asdict(reach))
            if not caps.creates:  # somebody's host, which its user's own configuration leads to
                rentals.note(db, row.id, lent=True)
            end = "agent" if caps.self_destruct == "none" else "file" if reach.how == "folder" else "shutdown"
            workers.settle(db, row.id, {"end": end, **reach.settings})
            jobs.say(db, job.id, "connect", 0.6, f"runs{', at ' + reach.host if reach.host else ''}")

        self._polls.pop(row.id, None)
        self._write(write)

    def _failed(self, rental: Rental, row: WorkerRow, why: str, *, is_gone: bool = False) -> float:
        """It was accepted, and comes to nothing: it is deleted, and counted against its offer."""
        now = self._now_ms()
        log.warning("worker %s (%s %s %s): %s.", row.name, rental.provider, rental.region, rental.flavor, why)
        self._write(lambda db: failed_to_start(db, now, row.id, why))
        self._polls.pop(row.id, None)
        return 0.0

    # --- deleting -----------------------------------------------------------------------------------------------------------

    def _delete(self, rental: Rental, row: WorkerRow, job: JobRow | None) -> float | None:
        """Until its provider says that it is gone, and all that belonged to it."""
        now = self._now_ms()
        if job is None or job.state is JobState.PENDING:
            self._write(lambda db: _begin_destroy(db, now, row.id))
        if rental.cloud_id is None and rental.data.get("asked") is None:
            self._write(lambda db: rentals.gone(db, now, row.id, note="it was never asked for"))
            return None
        provider = self._provider(rental.provider)
        if rental.data.get("gone_ms") is not None:
            self._sweep(provider, rental, row)
            return None
        if rental.cloud_id is None:
            if (found := self._look_up(provider, rental)) is None:
                if (wait_s := self._doubt_s(rental)) is not None:
                    return wait_s
                self._write(lambda db: rentals.gone(db, now, row.id, note="it never came to be"))
                return None
            self._accepted(rental, found, None, "found")
            return 0.0
        there = self._get(provider, rental)
        if there is None or there.state == "gone":
            points.reach("get", "stored")
            self._write(lambda db: rentals.note(db, row.id, gone_ms=self._now_ms()))
            return 0.0
        self.refusals.alarm(rental, row)
        asked_ms = rental.data.get("delete_ms")
        if asked_ms is None or now - asked_ms >= 1000 * DELETE_AGAIN_S * self._pace or there.state == "running":
            points.reach("delete", "row")
            self._write(
                lambda db: rentals.note(db, row.id, delete_ms=now, deleting_ms=rental.data.get("deleting_ms") or now)
            )
            with points.crossing("delete"):
                try:
                    provider.delete(there)
                except MachineNotFound:
                    return 0.0
            points.reach("delete", "stored")
        return self._poll_s(rental)

    def _sweep(self, provider: Any, rental: Rental, row: WorkerRow) -> None:
        """It is gone: what belonged to it goes, too."""
        db = self._store.reader()
        file_id = manifests.file_id(db)
        keep = {each.code for each in rentals.open_ones(db) if each.worker != rental.worker}
        points.reach("sweep", "row")
        with points.crossing("sweep"):
            left = [item for item in provider.sweep(file_id, keep) if item.code == rental.code]
        points.reach("sweep", "stored")
        for item in left:
            points.reach("delete_leftover", "row")
            with points.crossing("delete_leftover"):
                provider.delete_leftover(item)
            points.reach("delete_leftover", "stored")
        userdata.unpin(self.ssh_folder() / "known_hosts", rentals.machine_name(file_id, rental.code))
        gone_ms = int(rental.data["gone_ms"])

        def write(db: apsw.Connection) -> None:
            rentals.gone(db, self._now_ms(), row.id, gone_ms)
            notices.take_back(db, f"not-deleted:{rental.code}")

        self._polls.pop(row.id, None)
        self._write(write)

    def _write(self, fn: Callable[[apsw.Connection], T]) -> T:
        """In the file and on the disk when this returns: it is about money."""

        def write(db: apsw.Connection) -> T:
            self._lease.check(db)
            return fn(db)

        points.reach(points.WRITE, "call")
        done = self._store.write(write, full=True)
        points.reach(points.WRITE, "answer")
        return done


def failed_to_start(db: apsw.Connection, now_ms: int, worker: WorkerId, why: str) -> None:
    """A machine that never became a worker: it is deleted, and counted against its offer; two in a row are not tried again soon."""
    rental, row = rentals.of(db, worker), workers.find(db, int(worker))
    if rental is None or rental.state in (RentalState.DELETING, RentalState.GONE):
        return
    for job in jobs.open_ones(db):
        if job.worker == worker and job.kind == rentals.DEPLOY and job.state is JobState.RUNNING:
            jobs.move(db, now_ms, job.id, JobState.FAILED, why)
    rentals.observe(db, now_ms, rental, failures=1)
    if rentals.has_failed(db, rental):
        catalogue.put_hold(db, holds.of_offer(Offer.of(rental.data["offer"]), now_ms, 3600, why, "boot"))
    rentals.give_up(db, now_ms, row, why)
    jobs.add(db, now_ms, rentals.DESTROY, worker, {"why": why})


def _is_ready(db: apsw.Connection, now_ms: int, worker: WorkerId) -> None:
    for job in jobs.open_ones(db):
        if job.worker == worker and job.kind == rentals.DEPLOY:
            _begin(db, now_ms, job)
            jobs.move(db, now_ms, job.id, JobState.SUCCEEDED)
    rentals.ready(db, now_ms, worker)


def _of_kind(own: list[JobRow], kind: str) -> JobRow | None:
    return next((job for job in own if job.kind == kind), None)


def _begin(db: apsw.Connection, now_ms: int, job: JobRow) -> None:
    if jobs.find(db, job.id).state is JobState.PENDING:
        jobs.move(db, now_ms, job.id, JobState.RUNNING)


def _begin_destroy(db: apsw.Connection, now_ms: int, worker: WorkerId) -> None:
    job = jobs.add(db, now_ms, rentals.DESTROY, worker)
    if jobs.find(db, job).state is JobState.PENDING:
        jobs.move(db, now_ms, job, JobState.RUNNING)


def _keep(db: apsw.Connection, now_ms: int, job: JobRow) -> None:
    is_open = jobs.find(db, job.id).state in (JobState.PENDING, JobState.RUNNING)
    if is_open and job.worker is not None and workers.find(db, int(job.worker)).state is WorkerState.READY:
        jobs.move(db, now_ms, job.id, JobState.CANCELLED, "it was told to go on")


def _give_up(db: apsw.Connection, now_ms: int, worker: WorkerId, why: str) -> None:
    rentals.give_up(db, now_ms, workers.find(db, int(worker)), why)


def _price(offer: Offer) -> str:
    return "" if offer.price is None else f"({offer.price:.4g} {offer.currency} per hour)"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
