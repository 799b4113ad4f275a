"""What goes wrong with providers: each told once, and dealt with as it must be. The clock of these tests is moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.offers import Rental, RentalState
from scitq.remote.providers.points import guard
from scitq.renting import Renting
from scitq.states import JobState, WorkerState
from scitq.store import catalogue, executions, jobs, notices, rentals, workers
from scitq.store.lease import Lease
from tests.renting.conftest import Opener
from tests.renting.dream import Dream


class Hours:
    """A state file whose rented machines are seen to by hand: no threads, no driver, no time but what is said here."""

    def __init__(self, engine: Engine, dream: Dream) -> None:
        self.engine, self.dream = engine, dream
        self.store = engine._store
        lease = Lease(self.store)
        assert lease.try_acquire()
        self.lease = lease
        self.at_s = 1_000_000.0
        self.base_ms = dream.cloud.now_ms()
        self.sold = {f"{one.region}/{one.flavor.name}": one for one in dream.provider.offers()}
        self.renting = Renting(
            self.store, lease, threading.Event(), lambda: None, load=lambda _: dream.provider,
            clock=lambda: self.at_s, now_ms=lambda: self.base_ms + int(1000 * (self.at_s - 1_000_000.0)),
        )  # fmt: skip
        vars(self.renting)["_begin"] = self._at_once

    def _at_once(self, turn: Any, work: Callable[[], float | None]) -> None:
        turn.is_busy, turn.is_stale = True, False
        self.renting._work(turn, work)

    def goes_by(self, seconds: float, step_s: float = 5.0) -> None:
        """So much time, in which what is due is done."""
        end = self.at_s + seconds
        while True:
            for _ in range(20):
                db = self.store.reader()
                self.renting.see_to(db, executions.glance(db))
                if (self.renting.wait_s() or 1.0) > 0.01:
                    break
            if self.at_s >= end:
                return
            self.at_s = min(end, self.at_s + min(step_s, max(0.05, self.renting.wait_s() or step_s)))
            behind_s = self.renting._now_ms() / 1000 - self.dream.cloud.now_ms() / 1000
            if behind_s > 0:
                self.dream.cloud.advance(behind_s)

    def rent(self, *offers: str, name: str = "w") -> int:
        """A wish."""
        first, *others = [self.sold[key] for key in offers]
        now = self.renting._now_ms()
        return int(self.engine._write(lambda db: rentals.rent(db, now, first, others=others, name=name)))

    def of(self, worker: int) -> Rental:
        """Its row."""
        found = rentals.of(self.store.reader(), worker)
        assert found is not None
        return found

    def told(self) -> list[str]:
        """The keys of what was told, without what changes."""
        return [one.key.partition(":")[0] for one in notices.posted(self.store.reader())]

    def jobs(self, worker: int) -> dict[str, JobState]:
        """How far they are."""
        return {
            job.kind: job.state
            for job in jobs.of_worker(self.store.reader(), workers.find(self.store.reader(), worker).id)
        }

    def calls(self, name: str) -> int:
        """How often a provider was asked for something."""
        return self.dream.cloud.calls().get(name, 0)


@pytest.fixture
def hours(dream: Dream, open_engine: Opener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hours]:
    """One, at its own pace."""
    monkeypatch.delenv("SCITQ_RENTING_PACE")
    found = Hours(open_engine(drive=False), dream)
    yield found
    found.lease.release()


def test_a_lost_answer_is_looked_for_before_anything_is_asked_again(hours: Hours) -> None:
    hours.dream.cloud.fail("create", "lost")
    hours.dream.cloud.fail("create", "hidden", value=8)  # and no list shows it at first
    worker = hours.rent("north/std-2")
    hours.goes_by(2)
    assert hours.told() == ["lost-answer"] and hours.of(worker).state is RentalState.INTENT

    hours.goes_by(30)

    assert hours.of(worker).state is RentalState.RUNNING and hours.told() == []
    assert hours.calls("create") == 1 and hours.calls("find") >= 2
    [machine] = hours.dream.cloud.machines()
    assert (machine.id, machine.accepted_ms) == (hours.of(worker).cloud_id, hours.of(worker).accepted_ms)


def test_what_was_never_asked_is_asked_again_only_after_a_minute_of_looking(hours: Hours) -> None:
    hours.dream.cloud.fail("create", "lost-asking")
    worker = hours.rent("north/std-2")

    hours.goes_by(58)
    assert hours.calls("create") == 1 and hours.calls("find") >= 3
    hours.goes_by(30)

    assert hours.of(worker).state is RentalState.RUNNING and hours.calls("create") == 2
    assert len(hours.dream.cloud.ledger()) == 1 and hours.told() == []


def test_of_two_machines_of_one_request_one_is_deleted_when_it_is_seen(hours: Hours) -> None:
    hours.dream.cloud.fail("create", "duplicate")
    worker = hours.rent("north/std-2")

    hours.goes_by(650)

    [machine] = hours.dream.cloud.machines()
    assert machine.id == hours.of(worker).cloud_id
    [stray] = rentals.strays(hours.store.reader(), every=True)
    assert stray.id != machine.id and stray.gone_ms is not None


def test_a_provider_that_is_down_for_an_hour_is_told_of_once_and_nothing_is_given_up(hours: Hours) -> None:
    kept, doomed = hours.rent("north/std-2", name="kept"), hours.rent("north/std-2", name="doomed")
    hours.goes_by(10)
    hours.dream.cloud.fail("*", "down", for_s=3600)
    wanted = hours.rent("north/std-2", name="wanted")
    hours.engine._write(
        lambda db: rentals.let_go(db, hours.renting._now_ms(), workers.find(db, doomed).id, "not needed", force=True)
    )

    hours.goes_by(3500, step_s=30)

    assert sorted(hours.told()) == ["not-deleted", "provider-down"]
    assert hours.of(kept).state is RentalState.RUNNING
    assert hours.of(doomed).state is RentalState.DELETING and hours.of(wanted).state is RentalState.INTENT
    assert hours.jobs(wanted)["deploy"] is JobState.RUNNING
    asked = sum(hours.dream.cloud.calls().values())
    assert asked < 120  # each later than the one before

    hours.goes_by(700, step_s=30)
    assert [hours.of(one).state for one in (kept, doomed, wanted)] == [
        RentalState.RUNNING,
        RentalState.GONE,
        RentalState.RUNNING,
    ]
    assert hours.told() == []


def test_credentials_that_are_over_stop_what_is_wanted_and_never_what_is_to_be_deleted(hours: Hours) -> None:
    doomed = hours.rent("north/std-2", name="doomed")
    hours.goes_by(10)
    hours.dream.cloud.fail("*", "login", times=-1)
    first, second = hours.rent("north/std-2", "south/std-2", name="a"), hours.rent("south/std-2", name="b")
    hours.engine._write(
        lambda db: rentals.let_go(db, hours.renting._now_ms(), workers.find(db, doomed).id, "not needed", force=True)
    )

    hours.goes_by(120)

    assert hours.told() == ["provider-login"]
    for one in (first, second):
        assert (hours.of(one).state, hours.jobs(one)["deploy"]) == (RentalState.GONE, JobState.FAILED)
    assert [hold.provider for hold in catalogue.holds(hours.store.reader(), hours.renting._now_ms())] == ["dream"]
    assert hours.of(doomed).state is RentalState.DELETING

    hours.dream.cloud.heal()
    hours.goes_by(400)
    assert hours.of(doomed).state is RentalState.GONE and hours.told() == []
    assert catalogue.holds(hours.store.reader(), hours.renting._now_ms()) == []


def test_a_refusal_moves_on_to_the_next_offer_in_the_same_job_and_is_remembered(hours: Hours) -> None:
    hours.dream.cloud.stock(0, region="north")
    worker = hours.rent("north/std-2", "north/std-4", "south/std-2")
    hours.goes_by(30)

    assert (hours.of(worker).state, hours.of(worker).region) == (RentalState.RUNNING, "south")
    assert hours.jobs(worker) == {"deploy": JobState.RUNNING}
    row = workers.find(hours.store.reader(), worker)
    assert (row.settings["region"], row.settings["price"], row.state) == ("south", 0.12, WorkerState.PREPARING)
    held = catalogue.holds(hours.store.reader(), hours.renting._now_ms())
    assert {(one.region, one.flavor) for one in held} == {("north", "std-2"), ("north", "std-4")}

    hours.dream.cloud.stock(0)
    none = hours.rent("south/std-2", name="none")
    hours.goes_by(5)
    assert (hours.of(none).state, hours.jobs(none)["deploy"]) == (RentalState.GONE, JobState.FAILED)
    assert "No other offer" in str(workers.find(hours.store.reader(), none).note)


def test_two_machines_that_never_work_hold_their_offer_and_are_deleted(hours: Hours) -> None:
    hours.dream.cloud.fail("create", "error", times=2)
    first = hours.rent("north/std-2", name="a")
    hours.goes_by(60)
    assert hours.of(first).state is RentalState.GONE
    assert catalogue.holds(hours.store.reader(), hours.renting._now_ms()) == []

    second = hours.rent("north/std-2", name="b")
    hours.goes_by(60)

    assert hours.of(second).state is RentalState.GONE and hours.dream.cloud.machines() == []
    assert [one.flavor for one in catalogue.holds(hours.store.reader(), hours.renting._now_ms())] == ["std-2"]
    seen = catalogue.history(hours.store.reader())
    assert seen["dream", "north", "std-2", "ondemand"].failures == 2


def test_a_machine_that_vanished_frees_its_tasks_and_one_of_nobody_is_deleted_after_ten_minutes(hours: Hours) -> None:
    worker = hours.rent("north/std-2")
    hours.goes_by(200)
    hours.dream.cloud.vanish(str(hours.of(worker).cloud_id))
    hours.goes_by(320)
    assert hours.of(worker).state is RentalState.GONE
    assert "has it no more" in str(workers.find(hours.store.reader(), worker).note)

    other = hours.rent("north/std-4", name="other")
    hours.goes_by(10)
    with hours.dream.cloud.open() as world:  # as if a row had been lost
        machine = world.machines[str(hours.of(other).cloud_id)]
        name = machine.name.replace(machine.code, "zzzzzzzz")
        world.machines["m-x"] = type(machine)(**{**vars(machine), "id": "m-x", "code": "zzzzzzzz", "name": name})
    hours.goes_by(500)
    assert len(hours.dream.cloud.machines()) == 2  # it might be somebody's who writes it down in this moment
    hours.goes_by(500)
    assert [one.id for one in hours.dream.cloud.machines()] == [hours.of(other).cloud_id]


def test_a_provider_is_called_inside_of_the_listed_places_only(dream: Dream) -> None:
    guarded = guard(dream.provider)
    assert guarded.offers() and guarded.name == "dream"
    with pytest.raises(AssertionError, match="outside of its crossing"):
        guarded.instances()
    with pytest.raises(AttributeError, match="is no call of providers"):
        guarded.cloud  # noqa: B018
    for path in sorted((Path(__file__).parents[2] / "scitq").glob("*.py")):  # nobody takes a provider apart
        assert "._provider._provider" not in path.read_text()


def test_a_provider_whose_clock_is_wrong_is_not_believed_about_time(hours: Hours) -> None:
    hours.dream.cloud.advance(86_400)
    worker = hours.rent("north/std-2")
    hours.goes_by(400)

    rental = hours.of(worker)
    assert rental.state is RentalState.RUNNING and rental.accepted_ms is not None
    assert rental.wanted_ms <= rental.accepted_ms <= hours.renting._now_ms()
