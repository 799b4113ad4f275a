"""Two copies of one state file: the one that is driven elsewhere takes the workers over, and neither takes them back by itself.

Their worker is one and the same: the agent of the first copy, which the others find through a link.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from scitq.engine import Engine
from scitq.errors import NoDriver, ScitqError, StaleDriver
from scitq.shell.looking import status
from scitq.shell.show import Screen
from scitq.states import TaskState
from tests.engine.conftest import Opener, sound
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import contact

WAITS = "echo begun; until [ -e go ]; do sleep 0.05; done; echo $SCITQ_TASK was {}"


def copy_of(engine: Engine, folder: str) -> Path:
    """A copy of its file elsewhere, which has the same worker."""
    target = engine.path.parent / folder / engine.path.name
    target.parent.mkdir()
    engine.backup(target)
    side = target.with_name(target.name + ".d")
    side.mkdir(mode=0o700)
    (engine.side / "local").mkdir(parents=True, exist_ok=True)
    (side / "local").symlink_to(engine.side / "local")
    return target


def problem_of(engine: Engine) -> ScitqError:
    """Why an engine drives no more."""
    until(lambda: engine._driver_problem is not None, "the end of the driver")
    assert engine._driver_problem is not None
    return engine._driver_problem


def drives(engine: Engine) -> None:
    """Wait until it does."""
    until(lambda: engine.is_driving, "the driver")


def running(engine: Engine, text: str = "one") -> int:
    """A task that runs until there is a file `go`."""
    task = engine.submit(WAITS.format(text), shell=True)
    until(lambda: task.state is TaskState.RUNNING, "the start")
    return int(task.id)


def test_a_copy_that_is_driven_elsewhere_goes_on_with_what_runs_and_the_first_one_stops(
    open_engine: Opener, tmp_path: Path
) -> None:
    first = open_engine()
    task = running(first)
    second = open_engine(copy_of(first, "elsewhere"))
    second.drive()
    drives(second)
    problem = problem_of(first)
    assert isinstance(problem, StaleDriver)
    assert f"driven from another copy of lab.scitq now ({second_place(second)})" in str(problem)
    assert "scitq up --take-over" in str(problem)
    (tmp_path / "go").touch()
    assert second.task(task).result(WAIT_S).stdout == f"begun\n{task} was one\n"
    assert [each.attempt for each in second.task(task).executions] == [1]
    assert second.submit("echo more").result(WAIT_S).stdout == "more\n"
    sound(second)
    sound(first)


def second_place(engine: Engine) -> str:
    assert engine._driver is not None and engine._driver._lease.copy is not None
    return engine._driver._lease.copy.place


def test_two_copies_do_not_take_turns_without_a_word_and_do_with_one(
    open_engine: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    first = open_engine()
    first.submit("true").result(WAIT_S)
    second = open_engine(copy_of(first, "elsewhere"))
    for name in ("one", "two"):
        assert second.submit(f"echo {name}").result(WAIT_S).stdout == f"{name}\n"
    first.submit("true")
    assert isinstance(problem_of(first), StaleDriver)
    for _ in range(3):  # each would get a higher number
        again = open_engine(first.path)
        again.drive()
        assert isinstance(problem_of(again), NoDriver) and "take-over" in str(problem_of(again))
    said = status(again, SimpleNamespace(screen=Screen())).text.splitlines()
    assert "another copy is driven in its place" in said[1] and said[-1].endswith("up --take-over")
    assert second.submit("echo three").result(WAIT_S).stdout == "three\n" and second.is_driving
    back = open_engine(first.path)
    back.drive(take_over=True)
    assert back.submit("echo four").result(WAIT_S).stdout == "four\n"
    second.submit("echo five")
    assert isinstance(problem_of(second), StaleDriver)
    # The word was for that one time.
    assert back._driver is not None and back.is_driving
    again = open_engine(second.path)
    again.drive(take_over=True)
    assert again.wait_all(WAIT_S) == {TaskState.SUCCEEDED: 5}
    back.submit("true")
    assert isinstance(problem_of(back), StaleDriver)


def test_a_driver_that_had_no_time_to_hear_of_it_finds_out_when_it_comes_again(
    open_engine: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    first = open_engine()
    first.submit("true").result(WAIT_S)
    target = copy_of(first, "elsewhere")
    first.close()
    for _ in range(3):  # its number grows meanwhile, and says nothing to the agent
        engine = open_engine()
        engine.drive()
        drives(engine)
        engine.close()
    second = open_engine(target)
    second.submit("echo second").result(WAIT_S)
    second.close()
    late = open_engine()
    task = late.submit("echo late")
    assert isinstance(problem_of(late), StaleDriver)
    assert task.state is TaskState.PENDING
    later = open_engine()
    later.drive()
    assert isinstance(problem_of(later), NoDriver)
    last = open_engine()
    last.drive(take_over=True)
    assert last.task(task.id).result(WAIT_S).stdout == "late\n"


def test_a_copy_that_is_older_than_what_the_worker_knows_asks_first(open_engine: Opener) -> None:
    first = open_engine()
    first.submit("true").result(WAIT_S)
    target = copy_of(first, "elsewhere")
    first.close()
    first = open_engine()
    first.submit("true").result(WAIT_S)
    first.close()
    second = open_engine(target)
    task = second.submit("echo second")
    assert isinstance(problem_of(second), StaleDriver)
    second = open_engine(target)
    second.drive(take_over=True)
    assert second.task(task.id).result(WAIT_S).stdout == "second\n"


def test_a_file_that_was_moved_goes_on_without_a_word(open_engine: Opener, tmp_path: Path) -> None:
    first = open_engine()
    task = running(first)
    first.close()
    (tmp_path / "elsewhere").mkdir()
    moved = first.path.rename(tmp_path / "elsewhere" / first.path.name)
    first.side.rename(moved.with_name(moved.name + ".d"))
    first.side.mkdir()
    (first.side / "local").symlink_to(moved.with_name(moved.name + ".d") / "local")
    second = open_engine(moved)
    (tmp_path / "go").touch()
    second.drive()
    assert second.task(task).result(WAIT_S).stdout == f"begun\n{task} was one\n"
    sound(second)


def test_executions_that_two_copies_gave_the_same_number_are_not_taken_for_one_another(
    open_engine: Opener, tmp_path: Path
) -> None:
    """The first copy's were queued, ran and ended at the worker after the second was taken from it."""
    first = open_engine()
    first.submit("true").result(WAIT_S)
    first.update_worker("local", concurrency=2, prefetch=8)
    target = copy_of(first, "elsewhere")
    first.submit("echo of the first").result(WAIT_S)
    running(first)
    for _ in range(5):
        first.submit(WAITS.format("of the first"), shell=True)
    until(lambda: first.counts().get(TaskState.PENDING, 0) == 0, "all of them at the worker")
    second = open_engine(target)
    tasks = [second.submit(f"echo {number} of the second") for number in range(8)]
    (tmp_path / "go").touch()
    assert [task.result(WAIT_S).stdout for task in tasks] == [f"{number} of the second\n" for number in range(8)]
    known = {int(each.id) for row in first.rows() for each in first.task(row.id).executions}
    shared = {int(each.id) for each in second.task(1).executions}
    assert {int(each.id) for task in tasks for each in task.executions} & known <= shared
    sound(second)


def test_a_copy_gives_out_nothing_before_it_has_met_the_workers_that_the_other_may_have_given_it_to(
    open_engine: Opener, world: World, tmp_path: Path
) -> None:
    first = open_engine()
    first.drive()
    until(lambda: bool(first.workers()), "the local worker")
    first.worker_pause("local")
    for name in ("near", "far"):
        first.worker_add(name, concurrency=1)
        first.worker_ready(name, WAIT_S)
    target = tmp_path / "copy.scitq"
    for name in ("near", "far"):
        first.worker_pause(name)
    task = first.submit(f"echo x >> {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.05; done", shell=True)
    first.backup(target)
    first.worker_resume("far")
    until(lambda: (tmp_path / "begun").exists(), "the start at the far worker")
    world.host("far").cut()
    second = open_engine(target)
    for name in ("near", "far", "local"):
        second.worker_resume(name)
    second.drive()
    until(lambda: "may have given it to far" in second.task(task.id).why(), "the reason")
    until(lambda: contact(second, "near").synced, "the near worker")
    assert isinstance(problem_of(first), StaleDriver)
    assert second.task(task.id).state is TaskState.PENDING
    (tmp_path / "go").touch()
    world.host("far").mend()
    second.task(task.id).result(WAIT_S)
    assert len(second.task(task.id).executions) == 1
    sound(second)


def test_a_worker_that_is_called_lost_is_not_waited_for(open_engine: Opener, world: World, tmp_path: Path) -> None:
    first = open_engine()
    first.drive()
    first.worker_add("far", concurrency=1)
    first.worker_ready("far", WAIT_S)
    target = tmp_path / "copy.scitq"
    first.backup(target)
    first.close()
    world.host("far").cut()
    second = open_engine(target)
    task = second.submit("echo here")
    until(lambda: "may have given it to far" in task.why(), "the reason")
    second.worker_lost("far")
    assert task.result(WAIT_S).stdout == "here\n"
