"""A workflow is deleted whole, or nothing is done: by the command line, the web page and the screen with the same deed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scitq.engine import Engine
from scitq.errors import IllegalMove, NoDriver, UnknownWorkflow
from scitq.states import Halt, TaskState
from scitq.store import batches
from scitq.workflow import deeds
from tests.workflow.declared import declare

WAIT_S = 60


def _halts(engine: Engine) -> set[Halt]:
    return {halt for halt, _ in batches.all_of(engine._reader()).values()}


def test_what_others_need_is_not_touched(idle: Engine) -> None:
    with idle as engine:
        declare(engine, "qc", {"one": ["true", "false"], "two": ["true"]})
        dependent = engine.submit("true", batch="other", requires=engine.task("one #1"))

        with pytest.raises(IllegalMove, match="of batch other needs a task of qc: nothing was deleted"):
            deeds.destroy(engine, "qc")

        assert {row.state for row in engine.rows()} == {TaskState.PENDING, TaskState.WAITING} and _halts(engine) == {
            Halt.GO
        }
        dependent.cancel()
        assert deeds.destroy(engine, "qc") == 3
        assert [row.id for row in engine.rows()] == [dependent.id] and engine.check() == []
        with pytest.raises(UnknownWorkflow):
            deeds.destroy(engine, "qc")


def test_who_only_waited_for_a_success_does_not_hold_it(open_engine: Callable[..., Engine]) -> None:
    with open_engine() as engine:
        declare(engine, "qc", {"one": ["true"]})
        engine.task("one #1").result(WAIT_S)
        engine.set_batch("other", priority=1)
        engine.pause_batch("other")
        reader = engine.submit("true", batch="other", input=[engine.task("one #1").output])
        waits = engine.submit("true", batch="other", requires=engine.task("one #1"))
        with pytest.raises(IllegalMove, match=f"task {reader.id} of batch other needs"):  # what it left
            deeds.destroy(engine, "qc")
        reader.delete()

        assert deeds.destroy(engine, "qc") == 1
        assert waits.state is TaskState.PENDING and engine.check() == []


def test_what_nobody_can_stop_is_not_touched(open_engine: Callable[..., Engine]) -> None:
    with open_engine() as engine:
        declare(engine, "qc", {"one": [{"command": "sleep 600"}], "two": ["true"]})
        engine._wait_for(lambda: int(engine.task("one #1").state is not TaskState.RUNNING), WAIT_S, "its start")
    with open_engine(drive=False) as engine:
        with pytest.raises(NoDriver, match=r"nobody drives .* to stop what runs there. Nothing was deleted"):
            deeds.destroy(engine, "qc")
        assert engine.task("one #1").state is TaskState.RUNNING and _halts(engine) == {Halt.GO}
    with open_engine() as engine:
        said: list[str] = []
        assert deeds.destroy(engine, "qc", said=said.append, timeout_s=WAIT_S) == 2
        assert set(said) <= {"1 task is being stopped…"}
        assert engine.rows() == [] and engine.check() == []
