"""Leaving the shell with work queued and a worker elsewhere: it may be given all of it, and works on alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from scitq.shell.interactive.prompt import Prompt
from scitq.shell.interactive.session import Session
from scitq.states import TaskState
from tests.engine.conftest import Opener, open_engine, sound, world
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import add
from tests.engine.test_journey import held

__all__ = ["open_engine", "world"]


def test_who_chooses_to_keep_working_leaves_when_workers_elsewhere_have_it(
    open_engine: Opener,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=1)
    gate = tmp_path / "gate"
    first = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True, name="first")
    then = [engine.submit("true", requires=first) for _ in range(3)]
    until(lambda: first.state is TaskState.RUNNING, "it runs")
    session = Session(engine.path, is_interactive=True)
    session.surroundings.engine = engine
    monkeypatch.setattr("sys.stdin", io.StringIO("k\n"))

    assert Prompt(session)._may_leave()

    told = capfd.readouterr().err
    assert "with 1 task at workers and 3 queued? [k]eep working" in told and "[k/d/s/c]" in told
    assert (
        "atlas has" in told and "(4 tasks, 3 of them after others it also holds)" in told and "You can leave." in told
    )
    assert not engine.is_driving and len(held(world)) == 4
    gate.touch()
    until(lambda: held(world) == {}, "all is done there, with nobody driving")
    engine.drive()
    assert [task.wait(WAIT_S) for task in (first, *then)] == [TaskState.SUCCEEDED] * 4
    sound(engine)
