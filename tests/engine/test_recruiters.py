"""Batches with recruiters on real workers: who serves them, how much of each, and workers that change from one to another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput, UnknownBatch, UnknownRecruiter
from scitq.events import EventKind
from scitq.handle import Task
from scitq.states import TaskState
from scitq.store import executions
from scitq.worker import Recruiter
from tests.engine.conftest import Opener, sound
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import add

ROOT = Path(__file__).parents[2]


def held(engine: Engine, tasks: list[Task], gate: Path, count: int) -> dict[str, int]:
    """How many of the tasks run at each worker, once that many run and no more can."""
    until(lambda: sum(task.state is TaskState.RUNNING for task in tasks) == count, f"{count} run")
    found: dict[str, int] = {}
    for task in tasks:
        if task.state is TaskState.RUNNING:
            worker = task.executions[-1].worker
            assert worker is not None
            found[worker] = found.get(worker, 0) + 1
    return found


def gated(engine: Engine, gate: Path, count: int, batch: str) -> list[Task]:
    command = f"echo $CPU; until [ -e {gate} ]; do sleep 0.02; done"
    return list(engine.submit_many([command] * count, shell=True, batch=batch))


def all_done(tasks: list[Task], gate: Path) -> None:
    gate.touch()
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.SUCCEEDED


# --- rows -------------------------------------------------------------------------------------------------------------------------


def test_recruiters_are_made_changed_and_taken_away(engine: Engine) -> None:
    made = engine.recruiter_create("a", flavor="auto:cpu>=1", concurrency=2, maximum_workers=3)
    assert made == Recruiter(1, 1, None, "auto:cpu>=1", None, None, 2, None, None, 3, {}, "a")
    engine.recruiter_create("a", 2, tasks_per_worker=4, minimum_tasks=9)
    changed = engine.recruiter_update("a", concurrency=None, prefetch=1)
    assert (changed.concurrency, changed.prefetch, changed.flavor) == (None, 1, "auto:cpu>=1")
    assert engine.recruiter_create("a", flavor="local").concurrency is None, "made anew, not changed"
    assert [(one.batch_name, one.rank, one.flavor) for one in engine.recruiters()] == [
        ("a", 1, "local"),
        ("a", 2, None),
    ]
    engine.recruiter_delete("a", 1)
    assert [one.rank for one in engine.recruiters("a")] == [2]
    for call, kind in (
        (lambda: engine.recruiter_update("b"), UnknownBatch),
        (lambda: engine.recruiter_update("a", 1), UnknownRecruiter),
        (lambda: engine.recruiter_delete("a", 1), UnknownRecruiter),
        (lambda: engine.recruiter_match("a", 1), UnknownRecruiter),
        (lambda: engine.recruiter_create("a", 0), BadInput),
        (lambda: engine.recruiter_create("c", flavor="auto:cpu=1"), BadInput),
    ):
        with pytest.raises(kind):
            call()
    assert "c" not in engine.batches()
    told = [event.data for event in engine.journal(limit=1000) if "recruiter" in event.data]
    assert told[0] == {
        "batch": "a", "recruiter": 1, "given": {"flavor": "auto:cpu>=1", "concurrency": 2, "maximum_workers": 3},
    }  # fmt: skip
    assert told[-1] == {"batch": "a", "recruiter": 1, "given": None}
    engine.delete_batch("a")
    assert engine.recruiters() == []
    sound(engine)


# --- shares -----------------------------------------------------------------------------------------------------------------------


def test_batches_of_different_weight_share_a_worker_and_cpu_says_what_each_has(engine: Engine, tmp_path: Path) -> None:
    until(lambda: bool(engine.submit("true").wait(WAIT_S)), "the worker is there")
    engine.update_worker("local", concurrency=8, cpus=8, prefetch=0)
    engine.recruiter_create("heavy", concurrency=2)
    engine.recruiter_create("light", concurrency=8)
    engine.recruiter_create("odd", concurrency=3)
    heavy = gated(engine, tmp_path / "gate", 1, "heavy")
    light = gated(engine, tmp_path / "gate", 9, "light")
    held(engine, heavy, tmp_path, 1)
    assert held(engine, light, tmp_path, 4) == {"local": 4}
    assert "at once" in light[-1].why()
    all_done(heavy + light, tmp_path / "gate")
    assert {task.stdout() for task in heavy} == {"4\n"}
    assert {task.stdout() for task in light} == {"1\n"}
    odd = gated(engine, tmp_path / "other", 5, "odd")
    assert held(engine, odd, tmp_path, 3) == {"local": 3}
    all_done(odd, tmp_path / "other")
    assert {task.stdout() for task in odd} == {"2\n"}
    sound(engine)


def test_concurrency_and_prefetch_of_a_recruiter_change_what_is_given_at_once(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true").wait(WAIT_S)
    engine.update_worker("local", concurrency=4, prefetch=0)
    engine.recruiter_create("b", concurrency=1, prefetch=0)
    tasks = gated(engine, tmp_path / "gate", 6, "b")
    held(engine, tasks, tmp_path, 1)
    engine.recruiter_update("b", prefetch=1)
    until(lambda: sum(task.state is TaskState.ASSIGNED for task in tasks) == 1, "one is held ready")
    engine.recruiter_update("b", concurrency=4)
    (tmp_path / "gate").touch()
    assert tasks[0].wait(WAIT_S) is TaskState.SUCCEEDED
    all_done(tasks, tmp_path / "gate")


def test_only_workers_of_its_flavor_serve_a_batch_and_why_says_who_is_missing(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas")
    engine.worker_resume("local")
    engine.recruiter_create("b", flavor="gpu-box")
    task = engine.submit("true", batch="b")
    free = engine.submit("true", batch="other")
    assert free.wait(WAIT_S) is TaskState.SUCCEEDED
    assert task.state is TaskState.PENDING
    said = task.why()
    assert "no worker is of flavor gpu-box" in said
    assert "atlas is of flavor local; local is of flavor local" in said
    assert "scitq worker add HOST --flavor gpu-box" in said
    assert engine.recruiter_match("b") == []
    engine.update_worker("atlas", flavor="gpu-box")
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    assert task.executions[-1].worker == "atlas"
    assert [row.name for row in engine.recruiter_match("b")] == ["atlas"]
    engine.recruiter_create("c", flavor="auto:cpu>=10000:ram>=1M")
    late = engine.submit("true", batch="c")
    assert "does not meet cpu>=10000 (it has " in late.why()
    engine.recruiter_update("c", flavor="auto")
    assert late.wait(WAIT_S) is TaskState.SUCCEEDED


def test_no_more_workers_serve_a_batch_at_once_than_its_recruiter_allows(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas", "boreas", "circe", concurrency=2, prefetch=0)
    engine.recruiter_create("b", maximum_workers=2)
    tasks = gated(engine, tmp_path / "gate", 7, "b")
    assert sorted(held(engine, tasks, tmp_path, 4).values()) == [2, 2]
    assert any("it is next" in task.why() or "ahead" in task.why() for task in tasks if task.state is TaskState.PENDING)
    engine.recruiter_update("b", maximum_workers=None)
    assert sorted(held(engine, tasks, tmp_path, 6).values()) == [2, 2, 2]
    all_done(tasks, tmp_path / "gate")
    engine.recruiter_update("b", maximum_workers=0)
    late = engine.submit("true", batch="b")
    assert "its recruiter allows no worker" in late.why()
    sound(engine)


# --- recycling --------------------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_partly_idle_changes_its_batch_and_goes_home_when_there_is_work_again(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas", concurrency=2, prefetch=0, batch="first")
    long = gated(engine, tmp_path / "gate", 1, "first")
    held(engine, long, tmp_path, 1)
    engine.recruiter_create("second", concurrency=4, tasks_per_worker=10)
    tasks = [engine.submit("echo $CPU", shell=True, batch="second") for _ in range(3)]
    row = engine.worker("atlas")
    until(lambda: engine.worker("atlas").batch == "second", "it was taken over")
    row = engine.worker("atlas")
    assert row.concurrency == 4
    assert executions.loads(engine._reader())[row.id].slots >= 2, "what it ran before still takes half of it"
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    [told] = [event.data for event in engine.journal(limit=1000) if "recycled" in event.data]
    assert told["recycled"] == {"from": "first", "to": "second", "rank": 1}
    back = engine.submit("true", batch="first")
    assert back.wait(WAIT_S) is TaskState.SUCCEEDED
    row = engine.worker("atlas")
    assert (row.batch, row.concurrency, row.prefetch) == ("first", 2, 0)
    assert "home" not in row.settings
    all_done(long, tmp_path / "gate")
    sound(engine)


def test_a_worker_keeps_its_batch_if_it_is_to_or_while_that_has_work(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    engine.worker_add("boreas", concurrency=1, prefetch=0, batch="first", keep_batch=True)
    add(engine, "atlas", concurrency=1, prefetch=0, batch="first")
    engine.worker_ready("boreas", WAIT_S)
    busy = gated(engine, tmp_path / "gate", 3, "first")
    held(engine, busy, tmp_path, 2)
    engine.recruiter_create("second", tasks_per_worker=1)
    waiting = engine.submit("true", batch="second")
    free = engine.submit("true", batch="first", priority=9)  # a round of the driver later
    assert "no worker that is ready serves its batch second" in waiting.why()
    all_done([*busy, free], tmp_path / "gate")
    assert waiting.wait(WAIT_S) is TaskState.SUCCEEDED
    assert waiting.executions[-1].worker == "atlas"
    assert engine.worker("boreas").batch == "first"


def test_a_deleted_batch_sends_workers_home(engine: Engine, world: World) -> None:
    add(engine, "atlas", concurrency=1, batch="first")
    engine.recruiter_create("second", concurrency=3)
    assert engine.submit("true", batch="second").wait(WAIT_S) is TaskState.SUCCEEDED
    assert engine.worker("atlas").batch == "second"
    engine.delete_batch("second")
    row = engine.worker("atlas")
    assert (row.batch, row.concurrency, "home" in row.settings) == ("first", 1, False)
    engine.set_batch("first")
    engine.delete_batch("first")
    assert engine.worker("atlas").batch is None


_DRIVER = """
import sys, signal
from pathlib import Path
from scitq.engine import Engine
from scitq import deciding
from tests.engine.far import World

world = World(Path(sys.argv[2]))
import scitq.routes
scitq.routes.ssh_route = world.route
whole = deciding.Deciding.change_batch

def change(self, db, now, move):
    if sys.argv[3] == "before":
        print("there", flush=True); signal.pause()
    whole(self, db, now, move)
    print("there", flush=True); signal.pause()

deciding.Deciding.change_batch = change
engine = Engine(Path(sys.argv[1]))
engine.drive()
signal.pause()
"""


@pytest.mark.promise("core 11.10")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_driver_killed_while_it_changes_a_workers_batch_leaves_it_to_the_next_which_decides_the_same(
    open_engine: Opener, state_file: Path, world: World, tmp_path: Path, moment: str
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=1, prefetch=0, batch="first")
    engine.close()
    watcher = open_engine(drive=False)
    watcher.recruiter_create("second", tasks_per_worker=1)
    task = watcher.submit("echo $SCITQ_TASK", shell=True, batch="second")
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(state_file), str(tmp_path / "world"), moment],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    assert driver.stdout.readline() == "there\n"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert watcher.worker("atlas").batch == "first", "nothing is half done"
    engine = open_engine()
    engine.drive()
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    assert engine.worker("atlas").batch == "second"
    told = [event for event in engine.journal(limit=1000) if event.kind is EventKind.NOTE and "recycled" in event.data]
    assert len(told) == 1
    assert len(task.executions) == 1
    sound(engine)
    driving = engine._driver
    assert driving is not None  # an agent that is only just starting would be left behind
    until(
        lambda: any(each.name == "local" and each.synced for each in list(driving._contacts.values())), "local is met"
    )
