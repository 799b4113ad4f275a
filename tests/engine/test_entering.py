"""Stepping into what a task left, and adopting what was tried there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scitq import adopting
from scitq.engine import Engine
from scitq.errors import BadInput, IllegalMove
from scitq.states import JobState, TaskState
from scitq.store import executions
from tests.engine.test_engine import WAIT_S, until

ROOT = Path(__file__).parent.parent.parent


def ended(engine: Engine, command: Any, **more: Any) -> Any:
    task = engine.submit(command, **more)
    task.wait(WAIT_S)
    return task


def entered(task: Any, command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What one command says there."""
    capfd.readouterr()
    code = task.enter(command)
    said = capfd.readouterr()
    assert not said.err.startswith("the folder"), said.err
    print(said.err)
    return code, said.out


def test_what_a_failed_task_had_is_there_again(
    engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reads.fq").write_text("ACGT\n")
    (tmp_path / "index").write_text("all of it\n")
    task = ended(
        engine, "cat $INPUT/reads.fq; echo half > $OUTPUT/part; echo tmp > $TEMP/t; exit 3", shell=True, input="reads.fq",
        resource="index", env={"SAMPLE": "s07"}, cpus=2, memory="1G",
    )  # fmt: skip
    assert task.status == "failed"
    said = "cat $INPUT/reads.fq $RESOURCE/index $TEMP/t; echo $SAMPLE $CPU $MEMORY $SCITQ_TASK; pwd; exit 5"
    code, out = entered(task, said, capfd)
    assert code == 5
    assert out == f"ACGT\nall of it\ntmp\ns07 2 1000000000 {task.id}\n{tmp_path}\n"
    code, out = entered(task, "sh $COMMAND", capfd)
    assert (code, out) == (3, "ACGT\n")


def test_one_that_left_nothing_is_entered_as_empty_as_it_was(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    task = ended(engine, "exit 1", shell=True)
    code, out = entered(task, "ls $INPUT $OUTPUT $TEMP; ls $(dirname $COMMAND)", capfd)
    assert code == 0
    assert out.splitlines()[-1] == "command.sh"


@pytest.mark.sampled
def test_a_shell_needs_a_terminal_and_something_to_enter(engine: Engine, tmp_path: Path) -> None:
    task = ended(engine, "exit 1", shell=True)
    with pytest.raises(BadInput, match=r"needs a terminal.*--command"):
        task.enter()
    (tmp_path / "data").write_text("x")
    swept = ended(engine, "exit 1", shell=True, input="data")
    job = engine.worker_clean("local")
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    until(lambda: not _is_kept(swept), "the end of its folder")
    assert _is_refused(swept)
    for other, why in (
        (ended(engine, "true"), "not kept any more"),
        (ended(engine, "true", input="data", container="no/such:thing"), "never started"),
    ):
        with pytest.raises(BadInput, match=why):
            other.enter("true")
    waiting = engine.submit("true", requires=task)
    with pytest.raises(BadInput, match="left nothing to enter yet: it is blocked"):
        waiting.enter("true")


def _is_kept(task: Any) -> bool:
    """Looks only: who enters a folder keeps it from being swept, and who asks for that twice a second might just be in it."""
    home = task._engine.side / "local" / "exec" / str(task.executions[-1].id)
    return any((home / name).exists() for name in ("input", "resource", "temp", "work"))


def _is_refused(task: Any) -> bool:
    try:
        task.enter("true")
    except BadInput as problem:
        assert "not kept any more" in str(problem)
        return True
    return False


def test_a_folder_that_somebody_is_in_is_not_swept_away(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious\n")
    task = ended(engine, "exit 1", shell=True, input="data")
    other = ended(engine, "exit 1", shell=True, input="data")
    script = f"touch {tmp_path}/in; until [ -e {tmp_path}/go ]; do sleep 0.05; done; cat $INPUT/data > {tmp_path}/out"
    words = [sys.executable, "-m", "scitq", "-f", str(engine.path), "task", "enter", str(task.id), "--command", script]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        try:
            until((tmp_path / "in").exists, "the visitor")
            job = engine.worker_clean("local")
            until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
            until(lambda: not _is_kept(other), "the end of the other one's folder")
            assert _is_refused(other)
        finally:
            (tmp_path / "go").touch()  # the child waits for it, and this block for the child
        assert child.wait(WAIT_S) == 0
    assert (tmp_path / "out").read_text() == "precious\n"


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "wanted"),
    [
        ("align -t 8 s07.fq", "align -t 4 s07.fq", "align -t 8 s08.fq", "align -t 4 s08.fq"),
        ("a\nb\nc\n", "a\nB\nc\n", "a\nb\nc\nd\n", "a\nB\nc\nd\n"),
        ("x s07", "x s07 | sort", "x s08", "x s08 | sort"),
        ("x s07", "x -q s07", "x s08", "x -q s08"),
        ("one s07", "one s99", "one s08", None),
        ("same", "other", "same", "other"),
        ("a b", "a c", "a c", "a c"),
        ("a b", "", "z b", None),
    ],
)
def test_an_edit_is_carried_over_unless_the_other_differs_there(
    base: str, mine: str, theirs: str, wanted: str | None
) -> None:
    assert adopting.merged(base, mine, theirs) == wanted


def test_a_tried_command_becomes_that_of_the_task_and_of_its_whole_step(engine: Engine) -> None:
    first = ended(engine, "eixt 0 # s1", shell=True, batch="step")
    second = ended(engine, "eixt 0 # s2", shell=True, batch="step")
    odd = ended(engine, "exxt 0 # s3", shell=True, batch="step")
    good = ended(engine, "exit 0 # s4", shell=True, batch="step")
    gate = engine.submit("false")
    queued = engine.submit("eixt 0 # s5", shell=True, batch="step", requires=gate)
    assert first.enter("sed -i s/eixt/exit/ $(dirname $COMMAND)/command.sh") == 0
    done = first.adopt()
    assert (done.done, done.failed, first.status) == (1, [first.id], "failed")
    assert first.row().spec.command == "exit 0 # s1"
    assert second.row().spec.command == "eixt 0 # s2"
    done = second.adopt("exit 0 # s2", step=True, relaunch=True)
    assert (set(done.unlaunched), set(done.failed), done.unlike) == ({queued.id}, {second.id}, [odd.id])
    assert done.describe() == "1 not launched, 1 failed, 1 differ where it was edited and stay"
    assert second.wait(WAIT_S) is TaskState.SUCCEEDED
    assert queued.row().spec.command == "exit 0 # s5"
    assert odd.row().spec.command == "exxt 0 # s3"
    assert good.row().spec.command == "exit 0 # s4"
    assert [entry.spec.command for entry in _ran(engine, second)] == ["eixt 0 # s2", "exit 0 # s2"]


def _ran(engine: Engine, task: Any) -> list[Any]:
    found = [executions.spec_of(engine._reader(), each.id) for each in task.executions]
    return [SimpleNamespace(spec=spec) for spec in found]


def test_a_command_without_a_shell_is_adopted_as_what_was_tried_a_script(engine: Engine) -> None:
    task = ended(engine, ["sh", "-c", "exit 4"])
    assert task.enter("cat $COMMAND | grep -Fx \"sh -c 'exit 4'\"") == 0
    task.adopt("echo $SCITQ_TASK; exit 0\n", relaunch=True)
    assert task.result(WAIT_S).stdout == f"{task.id}\n"
    assert task.row().spec.shell == "sh"
    with pytest.raises(BadInput, match="is empty"):
        task.adopt(" \n")
    running = engine.submit("sleep 60")
    until(lambda: running.state is TaskState.RUNNING, "it runs")
    with pytest.raises(IllegalMove, match="already launched"):
        running.adopt("true")
    running.cancel()
    running.wait(WAIT_S)
