"""What is asked of who leaves work that this process drives, and what the answers do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scitq import leaving
from scitq.engine import Engine
from scitq.errors import DriverError
from scitq.hints import driver_of
from scitq.leaving import Way
from scitq.states import TaskState
from tests.containers import wait_until

S = TaskState


def test_there_is_nothing_to_ask_when_nothing_is_left() -> None:
    assert leaving.offer({S.SUCCEEDED: 3, S.BLOCKED: 1}, "lab.scitq", has_elsewhere=True) is None


def test_the_question_says_what_is_left_and_what_each_letter_does() -> None:
    found = leaving.offer({S.RUNNING: 2, S.PENDING: 1200, S.WAITING: 1}, "lab.scitq", has_elsewhere=True)
    assert found is not None and set(found.ways) == set("kdsc")
    assert found.text.startswith(
        "Leave lab.scitq, with 2 tasks at workers and 1,201 queued? [k]eep working: workers elsewhere"
    )
    assert (
        "[d]etach: a driver stays behind, and all goes on; [s]top: what runs goes on, the rest waits for scitq up"
        in found.text
    )
    assert [found.way(said) for said in ("K", "detach\n", "s", "", "?")] == [
        Way.KEEP,
        Way.DETACH,
        Way.STOP,
        Way.STAY,
        Way.STAY,
    ]


def test_without_workers_elsewhere_nobody_is_offered_work_for_a_while() -> None:
    found = leaving.offer({S.PENDING: 1}, "a\x1b[2Jb", has_elsewhere=False)
    assert found is not None and set(found.ways) == set("dsc") and found.way("k") is Way.STAY
    assert "1 task queued" in found.text and "\x1b" not in found.text


def test_who_does_not_drive_is_not_asked_unless_nobody_does(open_engine: Callable[..., Engine]) -> None:
    idle = open_engine(drive=False)
    idle.submit("true")
    assert leaving.ask(idle, lambda offer: pytest.fail(offer.text)) is None
    assert leaving.of(idle, undriven=True) is not None


def test_a_driver_that_is_left_behind_goes_on_with_all(
    engine: Engine, open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = engine.submit(f"while [ ! -e {go} ]; do sleep 0.05; done", shell=True)
    wait_until(lambda: first.status == "running", "the first task runs")
    then = engine.submit("true", requires=first)
    way = leaving.ask(engine, lambda offer: "d")
    assert way is Way.DETACH
    [said] = leaving.carry_out(engine, way)
    try:
        holder = driver_of(engine)
        assert holder is not None and not holder.is_me and f"pid {holder.pid}." in said and not engine.is_driving
        go.touch()
        other = open_engine(engine.path, drive=False)
        assert other.task(then.id).wait(60) is TaskState.SUCCEEDED
        assert leaving.of(engine) is None
    finally:
        if (holder := driver_of(engine)) is not None and holder.pid not in (None, os.getpid()):
            os.kill(int(holder.pid or 0), signal.SIGTERM)
            wait_until(lambda: driver_of(engine) is None, "it lets go")


def test_one_that_cannot_begin_leaves_this_process_driving(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.submit("true").wait(60)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DriverError, match="ended at once"):
        leaving.carry_out(engine, Way.DETACH)
    assert engine.submit("true").wait(60) is TaskState.SUCCEEDED
    wait_until(lambda: engine.is_driving, "it drives again")
