"""Tries after failures as the user has them: limited by cause, with more of what was too little, elsewhere if it was the worker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scitq import why
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.states import Outcome, TaskState, WorkerState
from scitq.store import executions, listing, query, workers
from scitq.store.executions import Exit
from scitq.task import Assignment, Need, Raised, TaskId
from scitq.worker import WorkerId
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S
from tests.engine.test_resources import HOG, local


@pytest.fixture
def still(open_engine: Opener) -> Engine:
    """A file that nobody drives, with two workers: 1 has 8 GB, 2 has 3."""
    engine = open_engine(drive=False)

    def add(db: Any) -> None:
        for name, memory in (("one", 8_000_000_000), ("two", 3_000_000_000)):
            id = workers.ensure(db, 0, name, "local", 2)
            workers.describe(db, id, {"cpus": 2, "memory": memory})
            workers.move(db, 0, id, WorkerState.READY)

    engine._write(add)
    return engine


def ended(engine: Engine, task: int, worker: int = 1, at: int = 1, **how: Any) -> executions.Order:
    """One try of a task, from its order to its end; what was ordered."""
    engine._write(lambda db: query.rows(db, "update task set not_before = null where id = ? returning id", (task,)))
    (order,) = engine._write(lambda db: executions.begin(db, at, [Assignment(TaskId(task), worker)]))
    fields: dict[str, Any] = {
        "code": None, "signal": None, "why": None, "note": None, "output": b"", "error": b"", "output_size": 0,
        "error_size": 0, "output_cut": False, "error_cut": False, "collecting": False, "run_s": 1.0, "cpu_s": None,
        "peak_memory_bytes": None,
    }  # fmt: skip
    end = Exit(execution=order.execution, **{**fields, **how})
    assert engine._write(lambda db: executions.exited(db, at + 1, end))
    return order


def test_retries_by_cause_are_counted_in_the_file(still: Engine) -> None:
    task = still.submit("true", retry={"timed_out": 2, "exit": [1, 137]})
    for how in ({"why": "timeout", "signal": 15}, {"code": 1}, {"why": "timeout", "signal": 15}, {"signal": 9}):
        ended(still, task.id, **how)
        assert task.state is TaskState.PENDING
    ended(still, task.id, code=1)

    assert task.state is TaskState.FAILED and task.row().tries == 4
    assert task.row().raised.used == {"timed_out": 2, "exit 1": 1, "exit 137": 1}
    task.relaunch()
    assert task.row().raised == Raised() and task.row().tries == 0  # with all its retries
    sound(still)


def test_memory_is_raised_up_to_the_largest_worker_and_the_room_is_kept_for_it(still: Engine) -> None:
    task = still.submit("true", memory="3G", retry=3, retry_memory=2.0)
    wanted = [ended(still, task.id, why="memory", signal=9).spec.memory for _ in range(3)]

    assert wanted == [3_000_000_000, 6_000_000_000, 8_000_000_000]
    assert listing.need_of(still._reader(), task.id)[0] == Need(memory=8_000_000_000)
    assert task.row().spec.memory == 3_000_000_000
    notes = [event.data for event in still.journal() if event.data and "raised" in event.data]
    assert [note["raised"] for note in notes] == [{"memory": 6_000_000_000}, {"memory": 8_000_000_000}]
    task.update(memory="1G")
    assert listing.need_of(still._reader(), task.id)[0] == Need(memory=1_000_000_000)
    assert task.row().raised == Raised()
    sound(still)


def test_a_relaunched_task_asks_for_what_it_asked_at_first(still: Engine) -> None:
    task = still.submit("true", memory="1G", retry=1, retry_memory=2.0)
    ended(still, task.id, why="memory", signal=9)
    ended(still, task.id, why="memory", signal=9)
    assert task.state is TaskState.FAILED and task.row().raised.memory == 2_000_000_000
    task.relaunch()
    assert listing.need_of(still._reader(), task.id)[0] == Need(memory=1_000_000_000)


@pytest.mark.parametrize("trouble", sorted(executions.WORKERS_FAULT))
def test_what_a_worker_could_not_do_is_tried_elsewhere(still: Engine, trouble: str) -> None:
    task = still.submit("true", retry=2)
    ended(still, task.id, worker=1, why="stage_in", trouble=trouble, note="no")

    assert task.row().raised.avoid == (1,)
    assert [each.avoid for each in listing.pending(still._reader(), 9)] == []  # it waits for its turn to be tried again
    still._write(lambda db: query.rows(db, "update task set not_before = null returning id"))
    assert [each.avoid for each in listing.pending(still._reader(), 9)] == [(1,)]


@pytest.mark.parametrize("how", [{"why": "unstarted"}, {"why": "spawn", "code": 127}])
def test_so_is_what_could_not_be_started(still: Engine, how: dict[str, Any]) -> None:
    task = still.submit("true", retry=1)
    ended(still, task.id, worker=2, **how)
    assert (task.state, task.row().raised.avoid) == (TaskState.PENDING, (2,))


def test_what_the_task_itself_did_excludes_nobody(still: Engine) -> None:
    task = still.submit("true", retry=9)
    ended(still, task.id, code=3)
    ended(still, task.id, why="stage_in", trouble="NotFound")
    ended(still, task.id, why="cancel", signal=15)  # its worker was stopped
    assert task.state is TaskState.PENDING and task.row().raised == Raised()


def test_an_image_that_is_nowhere_is_looked_for_once(still: Engine) -> None:
    task = still.submit("true", retry=9, container="nobody/has:this")
    ended(still, task.id, why="stage_in", trouble="NotFound", note="there is no image nobody/has:this", is_final=True)
    assert task.state is TaskState.FAILED and task.row().tries == 0
    assert "there is no image nobody/has:this" in task.why()


def test_a_raised_limit_of_time_is_ordered(still: Engine) -> None:
    task = still.submit("true", retry={"timed_out": 2}, run_timeout=10, retry_timeout=1.5)
    assert [ended(still, task.id, why="timeout", signal=15).spec.run_timeout for _ in range(3)] == [10, 15, 22.5]
    assert task.state is TaskState.FAILED


def test_an_order_that_is_repeated_asks_for_the_same(still: Engine) -> None:
    """A driver that dies between an order and its arrival is followed by one that repeats it."""
    task = still.submit("true", memory="1G", retry=1, retry_memory=2.0)
    ended(still, task.id, why="memory", signal=9)
    still._write(lambda db: query.rows(db, "update task set not_before = null returning id"))
    (order,) = still._write(lambda db: executions.begin(db, 9, [Assignment(task.id, 1)]))
    assert executions.unstarted(still._reader(), WorkerId(1)) == [order]
    assert order.spec.memory == 2_000_000_000


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"retry": {"timeout": 1}}, "'timeout' is no cause"),
        ({"retry": {"exit": [0]}}, "from 1 to 255"),
        ({"retry": {"exit": {"x": 1}}}, "from 1 to 255"),
        ({"retry": {"exit": {1: -1}}}, "after exit 1 must be a whole number"),
        ({"retry": {"timed_out": "2"}}, "after timed_out must be a whole number"),
        ({"retry": "2"}, "whole number"),
        ({"retry_memory": 1.0}, "above 1"),
        ({"retry_memory": 2.0}, "multiplies memory=, which is not given"),
        ({"retry_timeout": "2"}, "above 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(still: Engine, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        still.submit("true", **given)


def test_a_batch_has_limits_by_cause_for_its_tasks(still: Engine) -> None:
    still.set_batch("qc", retry={"exit": {137: 2}}, retry_memory=1.5)
    task = still.submit("true", batch="qc")
    assert (task.row().spec.retry, task.row().spec.retry_memory) == ({"exit": {"137": 2}}, 1.5)
    assert still.submit("true", batch="qc", retry=1).row().spec.retry == 1
    task.update(retry={"any": 1}, retry_memory=None)
    assert (task.row().spec.retry, task.row().spec.retry_memory) == ({"any": 1}, None)


# --- with a real agent ------------------------------------------------------------------------------------------------------


def test_a_task_that_ran_out_of_memory_succeeds_with_more(engine: Engine) -> None:
    task = engine.submit(HOG, memory="100M", retry={"out_of_memory": 1}, retry_delay=0.01, retry_memory=8.0)
    task.result(WAIT_S)
    row = local(engine)
    if "memory" in row.limits:
        print("limited by control groups")
        assert [each.outcome for each in task.executions] == [Outcome.OUT_OF_MEMORY, Outcome.SUCCEEDED]
        assert task.row().raised.memory == min(800_000_000, row.memory)
    else:
        print(f"not limited here: {row.limits_reason}")
        assert len(task.executions) == 1
    sound(engine)


def test_a_task_that_took_too_long_succeeds_with_more_time(engine: Engine, tmp_path: Path) -> None:
    script = "test -e been-here || { touch been-here; sleep 600; }"
    task = engine.submit(
        script, shell=True, run_timeout=0.5, retry={"timed_out": 1}, retry_delay=0.01, retry_timeout=500.0
    )
    task.result(WAIT_S)
    assert [each.outcome for each in task.executions] == [Outcome.TIMED_OUT, Outcome.SUCCEEDED]
    assert task.row().raised.run_timeout == 250.0
    sound(engine)


def test_a_program_that_only_worker_lacks_is_tried_again_there(engine: Engine, tmp_path: Path) -> None:
    """It is the only worker, so it is not excluded."""
    task = engine.submit([str(tmp_path / "none")], retry=1, retry_delay=0.01)
    task.wait(WAIT_S)
    assert len(task.executions) == 2 and task.state is TaskState.FAILED
    assert len(task.row().raised.avoid) == 1


def test_why_says_what_the_next_try_gets_more_of(engine: Engine) -> None:
    task = engine.submit("sleep 600", run_timeout=0.3, retry={"timed_out": 1}, retry_delay=300.0, retry_timeout=2.0)
    engine._wait_for(lambda: 0 if task.state is TaskState.PENDING and task.row().tries else 1, WAIT_S, "its first try")
    assert re.search(r"its last try timed out \(run\); retry 1 in \d+ s, with 0\.6 s to run\.$", task.why())
    task.cancel()


def test_why_names_the_workers_that_are_left(still: Engine) -> None:
    task = still.submit("true", memory="2G", retry=2)
    ended(still, task.id, worker=1, why="stage_in", trouble="NoSpace")
    assert why._others(task.row(), still.workers()) == "two"
    assert why._avoided(task.row(), still.workers()) == "one"
    task.update(memory="4G")  # which only the first one has
    assert why._others(task.row(), still.workers()) == ""
