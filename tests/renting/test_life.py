"""A rented machine's life: wanted, deployed, a worker like others, deleted; at its provider exactly as in the file."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import HostUnreachable
from scitq.offers import RentalState
from scitq.remote.providers.base import CreateRequest, Instance
from scitq.remote.providers.fake import Fake
from scitq.renting import LANES
from scitq.states import JobState, WorkerState
from tests.renting.conftest import Opener
from tests.renting.dream import Dream, rental_of, state_of, until


def test_a_machine_is_rented_works_and_is_deleted(dream: Dream, open_engine: Opener) -> None:
    engine = open_engine()

    [row] = engine.worker_rent(dream.offers("north/std-2"))
    assert engine.submit("echo here", batch=None).result(timeout=60).stdout == "here\n"
    ready = engine.worker_ready(row.name, timeout=60)
    rental = rental_of(engine, row.id)

    assert (ready.state, ready.concurrency, ready.settings["flavor"]) == (WorkerState.READY, 2, "std-2")
    assert rental.state is RentalState.RUNNING and "asked" not in rental.data
    [machine] = dream.cloud.machines()
    assert (machine.code, machine.id) == (rental.code, rental.cloud_id)
    [deploy] = engine.jobs(row.name)
    assert (deploy.kind, deploy.state) == ("deploy", JobState.SUCCEEDED)

    engine.worker_delete(row.name)
    until(lambda: state_of(engine, row.id) is RentalState.GONE)

    assert dream.cloud.machines() == []
    [bill] = dream.cloud.ledger()
    assert bill.ended_ms is not None and engine.check() == []
    (spent,) = engine.cost("worker")
    assert (spent.name, spent.currency, spent.state) == (row.name, bill.currency, "final")
    assert spent.amount is not None
    assert bill.amount <= spent.amount + 2 * bill.price / 3600, (
        "it is paid for until the provider has said that it is gone"
    )


def test_a_machine_that_is_to_go_finishes_first_and_stays_if_it_is_told_to_go_on(
    dream: Dream, open_engine: Opener, tmp_path: Path
) -> None:
    engine = open_engine()
    [row] = engine.worker_rent(dream.offers("north/std-2"), batch="qc")
    engine.worker_ready(row.name, timeout=60)
    engine.worker_pause("local")
    gate = tmp_path / "gate"
    task = engine.submit(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo done", shell=True, batch="qc")
    until(lambda: engine.held_by(row.name))

    job = engine.worker_delete(row.name)
    assert engine.worker(row.name).state is WorkerState.DRAINING
    engine.worker_resume(row.name)
    until(lambda: engine.job(job.id).state is JobState.CANCELLED)
    assert state_of(engine, row.id) is RentalState.RUNNING

    engine.worker_delete(row.name)
    gate.touch()
    assert task.result(timeout=60).stdout == "done\n"
    until(lambda: state_of(engine, row.id) is RentalState.GONE)
    assert dream.cloud.machines() == []


@pytest.fixture
def no_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines are as good as unreachable: their agents are not what a test is about."""

    def refuse(*_: object) -> Any:
        raise HostUnreachable("nobody is there", host="nowhere")

    monkeypatch.setattr("scitq.routes._rented_route", refuse)


def test_many_machines_are_dealt_with_side_by_side_but_not_too_many(
    dream: Dream, open_engine: Opener, no_agents: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, inside, most = threading.Lock(), [0], [0]
    create = Fake.create

    def counted(self: Fake, request: CreateRequest) -> Instance:
        with gate:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        try:
            return create(self, request)
        finally:
            with gate:
                inside[0] -= 1

    monkeypatch.setattr(Fake, "create", counted)
    engine = open_engine()

    rows = engine.worker_rent(dream.offers("north/std-2"), number=LANES + 4, name="w")
    until(lambda: all(one.state is RentalState.RUNNING for one in engine.rentals()))

    assert 1 < most[0] <= LANES and len(dream.cloud.machines()) == LANES + 4
    for row in rows:
        engine.worker_delete(row.name, force=True)
    until(lambda: not engine.rentals())
    assert dream.cloud.machines() == [] and engine.check() == []


@pytest.mark.parametrize("moment", ["before", "asked", "boots"])
def test_a_deployment_is_taken_back_at_any_moment(
    dream: Dream, open_engine: Opener, no_agents: None, moment: str
) -> None:
    if moment == "asked":
        dream.cloud.fail("create", "slow", value=0.5)
    dream.cloud.fail("create", "boot", value=3600)
    engine = open_engine(drive=moment != "before")
    [row] = engine.worker_rent(dream.offers("north/std-2"))
    [job] = engine.jobs(row.name)
    if moment == "asked":
        until(lambda: dream.cloud.calls().get("create"))
    elif moment == "boots":
        until(lambda: state_of(engine, row.id) is RentalState.CREATING)

    assert engine.job_cancel(job.id).state is JobState.CANCELLED

    if moment == "before":
        open_engine().drive()
    until(lambda: state_of(engine, row.id) is RentalState.GONE)
    assert dream.cloud.machines() == []
    assert [bill.ended_ms is not None for bill in dream.cloud.ledger()] == ([] if moment == "before" else [True])


def test_who_leaves_says_what_goes_on_costing_and_who_wakes_looks_again(
    dream: Dream, open_engine: Opener, no_agents: None, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine()
    [row] = engine.worker_rent(dream.offers("north/std-2"), name="w")
    until(lambda: state_of(engine, row.id) is RentalState.RUNNING)
    seen = dream.cloud.calls().get("instances", 0)
    driver = engine._driver
    assert driver is not None
    driver._later(driver._try_again)  # as when the machine woke up
    until(lambda: dream.cloud.calls().get("instances", 0) > seen)

    engine.close()

    assert "1 machine is rented, for 0.10 €/h" in caplog.text
    dream.cloud.vanish(str(dream.cloud.machines()[0].id))
    later = open_engine()
    later.drive()  # the next one finds out at once
    until(lambda: not later.rentals())
    assert later.rented() is None
