"""What an engine tells of money, and is told: costs, limits, and what screens, notices and reports say of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import BadInput, UnknownBatch, UnknownWorkflow
from scitq.money import HOUR_MS
from scitq.shell.interactive.toolbar import look
from scitq.store import costs
from scitq.workflow.overview import Watch
from scitq.workflow.reportgather import gather
from tests.store.renting import end, gone, rent, start, task


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    with Engine(state_file, drive=False) as engine:
        yield engine


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def spend(engine: Engine, *, live: bool = False) -> None:
    """Two hours of a machine at 1.50 EUR that batch qc.fastp rented, one of them idle; with `live` one more that runs still."""
    begun = now_ms() - 5 * HOUR_MS

    def write(db: apsw.Connection) -> None:
        db.execute("insert into workflow(name, created) values ('qc', 0) on conflict do nothing")
        worker = rent(db, "ovh-1", 1.5, at=begun, accepted=begun, batch="qc.fastp", concurrency=1)
        db.execute("update batch set workflow = 1, step = 'fastp', position = 0 where name = 'qc.fastp'")
        end(db, start(db, task(db, "qc.fastp"), worker, begun), begun + HOUR_MS)
        gone(db, worker, begun + 2 * HOUR_MS)
        if live:
            rent(db, "ovh-2", 1.0, at=begun, accepted=begun, batch="qc.fastp", billed_s=3600 * 8, market="spot")

    engine._write(write)


def test_a_file_that_rents_nothing_has_no_costs(engine: Engine) -> None:
    assert engine.cost() == [] and engine.spending() == [] and engine.limits() == []
    with pytest.raises(BadInput, match="not by 'colour'"):
        engine.cost(by="colour")


def test_costs_are_told_by_what_one_asks(engine: Engine) -> None:
    spend(engine)
    (whole,) = engine.cost()
    assert (whole.amount, whole.idle, whole.failed, whole.currency, whole.state) == (3.0, 1.5, 0.0, "EUR", "final")
    (step,) = engine.cost(by="batch")
    assert str(step) == "qc.fastp: 3.00 €" and step.run_s == 3600
    assert [one.name for one in engine.cost(by="workflow")] == ["qc"]
    (row,) = engine.sql("select name, amount, idle, state from costs where scope = 'workflow'")
    assert dict(row) == {"name": "qc", "amount": 3.0, "idle": 1.5, "state": "final"}
    (ran,) = engine.sql("select cost, currency from executions")
    assert dict(ran) == {"cost": 1.5, "currency": "EUR"}
    assert engine.check() == []


def test_a_limit_stays_in_the_file_until_another_is_set(state_file: Path) -> None:
    with scitq.open(state_file, drive=False, max_cost="15 EUR") as engine:
        assert str(engine.max_cost()) == "15 €"
    with scitq.open(state_file, drive=False) as engine:
        assert str(engine.max_cost()) == "15 €"
        engine.set_max_cost(7.5)
        assert str(engine.max_cost()) == "7.5"
        engine.set_max_cost(None)
        assert engine.max_cost() is None and engine.limits() == []
        with pytest.raises(UnknownBatch):
            engine.set_max_cost(1, batch="nowhere")
        with pytest.raises(UnknownWorkflow):
            engine.max_cost(workflow="nowhere")
        with pytest.raises(BadInput, match="give one of them"):
            engine.set_max_cost(1, batch="a", workflow="b")
    with pytest.raises(BadInput, match="max_cost must be an amount"):
        scitq.open(state_file.with_name("new.scitq"), max_cost="much")
    assert not state_file.with_name("new.scitq").exists()


def test_limits_tell_how_far_they_are_used_up_and_who_looks_is_told(engine: Engine) -> None:
    spend(engine, live=True)
    engine.set_max_cost(12)
    engine.set_max_cost("11 EUR", workflow="qc")
    engine.set_max_cost(100, batch="qc.fastp")
    limits = {one.scope: one for one in engine.limits()}
    assert limits["file"].spent == limits["workflow"].spent == limits["batch"].spent == pytest.approx(11.0)
    assert [one.is_reached for one in limits.values()] == [False, True, False]
    texts = {one.key: one.text for one in engine.notices() if one.kind == "money"}
    assert texts["money:file:"] == "11.00 of 12.00 EUR spent (92 %)"
    assert texts["money:workflow:qc"] == "workflow qc: 11.00 of 11.00 EUR spent (all): no more machines are rented"
    assert len(texts) == 2
    (spend_now,) = engine.spending()
    assert str(spend_now) == "1.00 €/h · 11.00 € of 12 €"
    line = look(engine)
    assert "1.00 €/h · 11.00 € of 12 €" in [text for _, text in line.fragments(200, plain=False)]
    assert not any("€" in text for _, text in line.fragments(40, plain=False))


def test_what_cannot_be_compared_with_a_limit_is_told(engine: Engine) -> None:
    spend(engine)
    engine.set_max_cost("15 USD")
    assert [one.text for one in engine.notices() if one.kind == "money"] == [
        "what was spent in EUR cannot be compared with the limit of 15.00 USD: say what it is worth (money.rates of scitq config)"
    ]


def test_a_machine_that_becomes_dearer_is_one_notice_and_another_when_it_does_so_again(engine: Engine) -> None:
    spend(engine, live=True)
    told = []
    for price in (2.0, 3.0):
        engine._write(lambda db, price=price: costs.reprice(db, now_ms(), 2, price))  # type: ignore[misc]
        told += [one for one in engine.notices() if one.kind == "price"]
        engine.notices_seen()
    assert [one.text for one in told] == [f"ovh-2 costs {now} EUR an hour now: 1 when it was rented" for now in (2, 3)]
    assert all(one.is_new for one in told)
    engine._write(lambda db: costs.reprice(db, now_ms(), 2, 0.5))
    assert not [one for one in engine.notices() if one.kind == "price"]


def test_workflow_screen_and_report_tell_what_was_spent(engine: Engine) -> None:
    spend(engine)
    assert [step.cost for step in Watch(engine, "qc").look().steps] == ["3.00 €"]
    assert gather(engine, "qc", now_ms()).cost == (
        "3.00 € (of it 1.50 € idle) for rented machines: worked out from their prices."
    )


def test_a_workflow_limits_itself_and_its_steps_and_what_is_changed_by_hand_stays(engine: Engine) -> None:
    from scitq.workflow import Workflow

    def declare(limit: float | str | None, step: float | None = None) -> None:
        flow = Workflow("flow", engine=engine, max_cost=limit)
        flow.step("one", "true", max_cost=step)
        flow.start()

    declare("15 EUR", 3)
    assert str(engine.max_cost(workflow="flow")) == "15 €" and str(engine.max_cost(batch="flow.one")) == "3"
    engine.set_max_cost(20, workflow="flow")
    engine.set_max_cost(None, batch="flow.one")
    declare("15 EUR", 3)
    assert str(engine.max_cost(workflow="flow")) == "20" and engine.max_cost(batch="flow.one") is None
    declare("16 EUR", 4)
    assert str(engine.max_cost(workflow="flow")) == "16 €" and str(engine.max_cost(batch="flow.one")) == "4"
    with pytest.raises(BadInput, match="max_cost must be an amount"):
        declare(-1)
