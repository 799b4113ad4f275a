"""Batches that get their machines by themselves, from a make-believe cloud whose machines are real agents, and lose them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq import hiring
from scitq.engine import Engine
from scitq.offers import RentalState
from scitq.states import Outcome, TaskState
from tests.renting.conftest import Opener
from tests.renting.dream import Dream, until

WAIT_S = 90.0


def rented(engine: Engine) -> list[tuple[str, str, RentalState]]:
    return [
        (one.region, one.flavor, one.state) for one in sorted(engine.rentals(every=True), key=lambda one: one.worker)
    ]


def test_a_batch_rents_what_it_needs_shares_it_with_the_next_and_gives_it_back(
    dream: Dream, open_engine: Opener, tmp_path: Path
) -> None:
    engine = open_engine()
    engine.recruiter_create("a", provider="dream", flavor="std-2", concurrency=2, idle_timeout=1)
    tasks = list(engine.submit_many(["echo $SCITQ_WORKER"] * 4, shell=True, batch="a"))
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.SUCCEEDED, task.why()
    names = {task.executions[-1].worker for task in tasks}
    assert "local" not in names and 1 <= len(names) <= 2
    until(lambda: all(state is RentalState.GONE for *_, state in rented(engine)), lambda: rented(engine))
    assert {one[:2] for one in rented(engine)} == {("north", "std-2")} and len(rented(engine)) <= 2
    assert dream.cloud.machines() == []
    assert engine.check() == []


def test_why_says_what_keeps_machines_from_being_rented_and_a_notice_does_after_a_while(
    dream: Dream, open_engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiring, "SHORT_S", 0.2)
    engine = open_engine()
    engine.recruiter_create("a", provider="dream", flavor="auto:cpu>=900")
    task = engine.submit("true", batch="a")
    until(lambda: "std-2 in north: cpu>=900 is not met: it has 2" in task.why(), task.why)
    assert "no machine can be rented for it" in task.why()
    until(lambda: [one.key for one in engine.notices()] == ["short:a"], engine.notices)
    assert "1 task of a wait for machines: no offer meets auto:cpu>=900 now" in engine.notices()[0].text
    engine.recruiter_create("a", provider="nobody", flavor="std-2")
    until(lambda: "nobody cannot be asked" in task.why(), task.why)
    engine.recruiter_create("a", provider="dream", flavor="std-2", maximum_workers=0)
    until(lambda: "its recruiter rents 0 at most" in task.why(), task.why)
    engine.recruiter_create("a", provider="dream", flavor="std-2", patience=5000)
    until(lambda: "its recruiter is patient" in task.why(), task.why)
    until(lambda: not engine.notices(), engine.notices)
    engine.recruiter_update("a", patience=None, idle_timeout=0.5)
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    until(lambda: all(state is RentalState.GONE for *_, state in rented(engine)), lambda: rented(engine))
    assert engine.check() == []


def test_what_a_provider_takes_back_is_replaced_elsewhere_and_its_task_pays_nothing(
    dream: Dream, open_engine: Opener, tmp_path: Path
) -> None:
    engine = open_engine()
    engine.recruiter_create("a", provider="dream", flavor="std-2", concurrency=1, maximum_workers=1, idle_timeout=1)
    mark = tmp_path / "began"
    task = engine.submit(f"test -e {mark} || {{ touch {mark}; sleep 600; }}", shell=True, batch="a")
    until(mark.exists, task.why)
    dream.cloud.evict(dream.cloud.machines()[0].id, notice_s=0)
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED, task.why()
    assert [one.outcome for one in task.executions] == [Outcome.EVICTED, Outcome.SUCCEEDED]
    assert [one[0] for one in rented(engine)] == ["north", "south"]
    until(lambda: all(state is RentalState.GONE for *_, state in rented(engine)), lambda: rented(engine))
