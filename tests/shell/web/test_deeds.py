"""The table of deeds: each does what the command line that it shows does, and says beforehand what that is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput, UnknownBatch, UnknownTask, UnknownWorkflow
from scitq.shell import cli
from scitq.shell.table import COMMANDS
from scitq.shell.web import deeds
from scitq.states import Halt, TaskState
from scitq.store import batches
from tests.workflow.history import Made, history


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    """A file that nobody drives."""
    with Engine(state_file, drive=False) as found:
        yield found


def test_each_deed_names_a_command_that_there_is() -> None:
    known = {tuple(command.path.split()) for command in COMMANDS}

    assert {deed.words[:2] for deed in deeds.DEEDS.values()} <= known
    assert {deed.noun for deed in deeds.DEEDS.values()} >= {"task", "batch", "workflow"}
    assert all(deed.needs_confirmation for deed in deeds.DEEDS.values() if deed.destroys)


def test_deeds_of_tasks_change_the_file_and_say_it(engine: Engine) -> None:
    first, second = (engine.submit(["true", str(n)], name=f"s{n}", batch="qc").id for n in (1, 2))
    cancel, relaunch = deeds.deed_of("task", "cancel"), deeds.deed_of("task", "relaunch")

    found = cancel.preview(engine, [first, second])
    assert (found.able, found.total, len(found.tasks)) == (2, 2, 2) and cancel.asks(found)
    assert found.text == "2 tasks: 2 pending. All are cancelled."
    assert cancel.act(engine, [str(first), second]) == 2 and cancel.told(2) == "2 tasks cancelled."
    assert engine.task(first).state is TaskState.CANCELLED
    assert relaunch.act(engine, [first]) == 1 and engine.task(first).state is TaskState.PENDING
    assert not relaunch.asks(relaunch.preview(engine, [second]))
    assert deeds.deed_of("task", "pause").act(engine, [first, second]) == 1
    assert deeds.deed_of("task", "resume").act(engine, [first]) == 1
    assert deeds.deed_of("task", "delete").act(engine, [first, second]) == 2 and not engine.counts()
    with pytest.raises(UnknownTask):
        cancel.preview(engine, [first])


def test_the_equal_command_line_does_the_same(engine: Engine) -> None:
    task = engine.submit("true", name="a; rm -rf 'b'", batch="b $(c)")
    for deed, targets in ((deeds.deed_of("task", "cancel"), [task.id]), (deeds.deed_of("batch", "delete"), ["b $(c)"])):
        words = shlex.split(deed.line(engine, targets))
        assert words[0] == "scitq"
        assert cli.run(cli.program(), [*words[1:], *(["--yes"] if deed.destroys else [])], "scitq") == 0
    assert engine.batches() == {} and "b $(c)" not in batches.all_of(engine._reader())


def test_deeds_of_batches_and_of_workflows(engine: Engine) -> None:
    engine.submit("true", batch="b")
    history(engine, "qc", {"fetch": Made(2), "align": Made(2, ["fetch"], state=TaskState.PENDING)})

    for name, halt in (("pause", Halt.PAUSED), ("suspend", Halt.SUSPENDED), ("go", Halt.GO)):
        deed = deeds.deed_of("batch", name)
        assert deed.preview(engine, ["b"]).able == 1 and deed.act(engine, ["b"]) == 1
        assert batches.all_of(engine._reader())["b"][0] is halt
    assert deeds.deed_of("batch", "cancel").act(engine, ["b"]) == 1
    assert deeds.deed_of("batch", "delete").preview(engine, ["b"]).total == 1
    assert deeds.deed_of("batch", "delete").act(engine, ["b"]) == 1 and "b" not in engine.batches()

    for name, halt in (("pause", Halt.PAUSED), ("suspend", Halt.SUSPENDED), ("unpause", Halt.GO)):
        assert deeds.deed_of("workflow", name).act(engine, ["qc"]) == 1
        assert batches.all_of(engine._reader())["qc.align"][0] is halt
    delete = deeds.deed_of("workflow", "delete")
    assert "2 steps and 4 tasks are deleted" in delete.preview(engine, ["qc"]).text
    assert delete.act(engine, ["qc"]) == 1 and not engine.workflows() and not engine.counts()


def test_what_cannot_be_done_is_told(engine: Engine) -> None:
    with pytest.raises(BadInput, match="'explode' cannot be done to a task"):
        deeds.deed_of("task", "explode")
    with pytest.raises(UnknownBatch):
        deeds.deed_of("batch", "pause").act(engine, ["none"])
    with pytest.raises(UnknownWorkflow):
        deeds.deed_of("workflow", "delete").preview(engine, ["none"])


def test_a_task_is_offered_what_fits_its_state(engine: Engine) -> None:
    task = engine.submit("true")

    def names() -> set[str]:
        return {deed.name for deed in deeds.fit(task.row(), is_held=False)}

    assert names() == {"cancel", "pause", "delete"}
    task.pause()
    assert names() == {"cancel", "resume", "delete"}
    task.cancel()
    assert names() == {"relaunch", "delete"}
