"""A workflow is run to its end, left, killed and run again; who else may run it meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput, WorkflowBusy, WorkflowFailed, WorkflowLeft
from scitq.states import Halt, TaskState
from scitq.store import query, workflows
from scitq.workflow import Workflow, running
from scitq.workflow.left import Left
from tests.workflow.conftest import Maker

ROUNDS = int(os.environ.get("SCITQ_ROUNDS", "0"))

# A small workflow whose tasks write down each run of theirs: argv[1] is the file, argv[2] the folder for that.
SCRIPT = """
import sys
from scitq.workflow import Workflow

with Workflow("qc", shell=True, file=sys.argv[1]) as wf:
    note = "echo {0} >> " + sys.argv[2] + "/{0}; "
    for n in range(4):
        a = wf.step("a", note.format(f"a{n}") + f"sleep 0.05; echo {n} > $OUTPUT/{n}", name=f"a{n}")
        b = wf.step("b", note.format(f"b{n}") + "sleep 0.05; cat $INPUT/* > $OUTPUT/x", input=a.output, name=f"b{n}")
        b2 = wf.step("b", note.format(f"c{n}") + "cat $INPUT/* > $OUTPUT/y", input=a.output, name=f"c{n}")
    all = wf.step("all", note.format("all") + "cat $INPUT/*/*",
                  input=[out.with_action(f"mv:{n}") for n, out in enumerate(b.gather("output"))], name="all")
if "--start" not in sys.argv:
    wf.run()
    print("result:", *all.get_output().split())
"""
RESULT = "result: 0 0 1 1 2 2 3 3"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The script as a program; what its tasks write goes to `ran`."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "ran").mkdir()
    return [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "lab.scitq"), str(tmp_path / "ran")]


def often(tmp_path: Path) -> dict[str, int]:
    """How often each task was run."""
    return {file.name: len(file.read_text().split()) for file in (tmp_path / "ran").iterdir()}


def finish(words: list[str]) -> str:
    """Run the script to its end."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_after(words: list[str], seconds: float) -> int:
    """Kill the script that long after its start, if it has not ended by then."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
    return child.wait(60)


def once(tmp_path: Path, file: Path) -> None:
    """Everything ran exactly once, and the file agrees with itself."""
    assert set(often(tmp_path).values()) == {1} and len(often(tmp_path)) == 13, often(tmp_path)
    with Engine(file, drive=False) as engine:
        assert engine.check() == []
        assert engine.counts() == {TaskState.SUCCEEDED: 13}
        assert query.one(engine._reader(), "select count(*) from execution") == (13,)


@pytest.mark.usefixtures("workers_may_linger")
@pytest.mark.parametrize("turn", range(3 + ROUNDS))
def test_a_script_killed_at_any_moment_goes_on_and_repeats_nothing(
    words: list[str], tmp_path: Path, turn: int, request: pytest.FixtureRequest
) -> None:
    import random

    chance = random.Random(turn if turn < 3 else f"{time.time_ns()}{turn}")
    moments = [chance.uniform(0.1, 2.0) for _ in range(3)]
    for moment in moments:
        kill_after(words, moment)
    assert RESULT in finish(words), moments
    once(tmp_path, tmp_path / "lab.scitq")


@pytest.mark.usefixtures("workers_may_linger")
def test_what_a_script_only_started_goes_on_with_whoever_drives(
    words: list[str], tmp_path: Path, engine: Engine
) -> None:
    finish([*words, "--start"])
    engine.drive()
    engine.wait_all(60)
    assert RESULT in finish(words)
    once(tmp_path, engine.path)


def test_two_programs_of_one_name_the_second_is_refused_or_runs_along(
    words: list[str], tmp_path: Path, make: Maker, engine: Engine
) -> None:
    wf = make()
    wf.step("gate", f"touch {tmp_path}/there; until test -e {tmp_path}/go; do sleep 0.05; done", name="gate")
    wf.start()
    busy = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert busy.returncode == 1
    assert f"workflow 'qc' is run by process {os.getpid()}" in busy.stderr and "join=True" in busy.stderr
    assert often(tmp_path) == {}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("shell=True,", "shell=True, join=True,"))
    (tmp_path / "go").touch()
    assert RESULT in finish(words)
    assert wf.run()
    assert set(often(tmp_path).values()) == {1}


def test_the_newest_of_a_process_has_it_but_not_from_one_that_runs(make: Maker, engine: Engine, tmp_path: Path) -> None:
    first, second, third = (make() for _ in range(3))
    for wf in (first, second, third):
        wf.step("gate", f"until test -e {tmp_path}/go; do sleep 0.05; done", name="gate")
    first.start()
    second.start()
    thread = threading.Thread(target=second.run)
    thread.start()
    engine._wait_for(lambda: not second._lock.is_running, 60, "the other run")
    with pytest.raises(WorkflowBusy, match="another thread of this very process"):
        third.start()
    (tmp_path / "go").touch()
    thread.join(60)
    third.start()
    assert third.run()


def test_a_plan_may_be_made_while_another_runs_it(
    words: list[str], make: Maker, engine: Engine, tmp_path: Path
) -> None:
    wf = make()
    wf.step("one", "true")
    wf.start()
    planned = subprocess.run(
        [sys.executable, "-m", "scitq", "run", "--plan", *words[1:]], capture_output=True, text=True, timeout=60
    )
    assert planned.returncode == 0 and " all     1" in planned.stdout, planned.stderr
    assert "vanished" in planned.stdout
    assert wf.run()


def test_failures_in_the_middle_in_all_samples_and_in_the_gather(make: Maker, engine: Engine, tmp_path: Path) -> None:
    def script(bad: str) -> Workflow:
        wf = make(retry=1, name=bad)
        for n in range(3):
            a = wf.step("a", "true", name=f"a{n}")
            fails = bad == "all" or (bad == "middle" and n == 1)
            b = wf.step(
                "b", f"{'false' if fails else 'true'} || test -e {tmp_path}/{bad}", requires=a, name=f"b{n}", retry=0
            )
        wf.step(
            "c",
            f"{'false' if bad == 'gather' else 'true'} || test -e {tmp_path}/{bad}",
            requires=b.gather(),
            name="c",
            retry=0,
        )
        return wf

    for bad, counts in (
        ("middle", {"succeeded": 5, "failed": 1, "blocked": 1}),
        ("all", {"succeeded": 3, "failed": 3, "blocked": 1}),
        ("gather", {"succeeded": 6, "failed": 1}),
    ):
        with pytest.raises(WorkflowFailed) as problem:
            script(bad).run()
        assert problem.value.summary.counts == counts
        (tmp_path / bad).touch()
        assert script(bad).run().counts == {"succeeded": 7}
    assert engine.check() == []


def test_blocked_tasks_do_not_keep_it_waiting_for_ever(make: Maker, engine: Engine) -> None:
    wf = make()
    other = engine.submit("false", name="other")
    wf.step("a", "true", requires=other)
    with pytest.raises(WorkflowFailed, match="1 blocked of 1 tasks"):
        wf.run()


def test_edited_while_it_runs(make: Maker, engine: Engine, tmp_path: Path) -> None:
    wf = make()
    gate = wf.step("gate", f"until test -e {tmp_path}/go; do sleep 0.05; done", name="gate")
    after = wf.step("after", "echo before", requires=gate, name="after")
    wf.start()
    after.update(command="echo edited")
    (tmp_path / "go").touch()
    assert wf.run()
    assert after.stdout() == "edited\n"


def test_it_is_paused_suspended_and_goes_on(make: Maker, engine: Engine) -> None:
    wf = make()
    wf.step("a", "true")
    wf.step("b", "true")
    wf.start()

    def halts() -> set[Halt]:
        return {step.halt for step in workflows.steps(engine._reader(), engine.workflow("qc").id)}

    wf.pause()
    assert halts() == {Halt.PAUSED}
    wf.suspend()
    assert halts() == {Halt.SUSPENDED}
    wf.unpause()
    assert halts() == {Halt.GO}
    assert wf.run()
    wf.pause(suspend=True)
    assert halts() == {Halt.SUSPENDED}


def test_whoever_leaves_is_told_how_to_come_back(make: Maker, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    wf = make()
    wf.step("a", "sleep 600", name="a")
    for left in (Left.QUIT, Left.INTERRUPTED, Left.DESTROYED):
        monkeypatch.setattr(running, "watcher", lambda left=left: lambda *_: left)
        with pytest.raises(WorkflowLeft, match=r"was deleted|To watch it: scitq workflow watch qc") as problem:
            wf.run()
        assert problem.value.parts["left"] is left
    # Its worker is there by now, so that the test does not end before it has come.
    engine._wait_for(lambda: wf["a"][0].state is not TaskState.RUNNING, 60, "the task")
    wf["a"][0].cancel()
    wf["a"][0].wait(60)


@pytest.mark.usefixtures("workers_may_linger")
def test_ctrl_c_detaches_and_tasks_go_on(words: list[str], tmp_path: Path, engine: Engine) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("sleep 0.05; echo", f"until test -e {tmp_path}/go; do sleep 0.05; done; echo"))
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    engine._wait_for(lambda: not engine.counts().get(TaskState.RUNNING), 60, "a task that runs")
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode != 0 and "workflow qc was left." in told and "Traceback" not in told, told
    (tmp_path / "go").touch()
    assert RESULT in finish(words)
    once(tmp_path, engine.path)


def test_a_summary_tells_how_it_went(make: Maker, engine: Engine) -> None:
    wf = make()
    wf.step("a", "true")
    wf.step("b", "true")
    found = wf.run()
    assert found and found.total == 2 and found.run_s is not None and found.run_s >= 0
    assert str(found).splitlines()[:3] == [
        " step  tasks  succeeded",
        " a         1          1",
        " b         1          1",
    ]
    assert wf.status().to_dict()["counts"] == {"succeeded": 2}
    assert engine.workflow("qc").ended_ms is not None


def test_results_are_brought_and_cleaned_away(make: Maker, engine: Engine, tmp_path: Path) -> None:
    wf = make(base_storage=tmp_path / "store")
    a = wf.step("a", "mkdir $OUTPUT/sub; echo 1 > $OUTPUT/sub/one; echo two; echo oh >&2", name="a/1")
    b = wf.step("b", "cat $INPUT/one > $OUTPUT/b", input=a.output / "sub", rel_output="b", name="b")
    wf.run()
    wf.download(destination="all")
    assert (tmp_path / "all" / "a" / "sub" / "one").read_text() == "1\n"
    assert (tmp_path / "all" / "b" / "b").read_text() == "1\n"
    b.download("only")
    assert (tmp_path / "only" / "b").read_text() == "1\n"
    assert wf.clean() == 2
    assert {path.name: path.read_text() for path in (tmp_path / "qc").iterdir()} == {
        "a_1_output.log": "two\n",
        "a_1_error.log": "oh\n",
    }
    assert engine.tasks() == [] and engine.check() == []
    assert (tmp_path / "store" / "b" / "b").read_text() == "1\n"


def test_a_workflow_without_steps_is_refused(still: Maker) -> None:
    with pytest.raises(BadInput, match="has no steps"):
        still().run()


def test_an_error_in_with_queues_nothing(still: Maker, idle: Engine) -> None:
    with pytest.raises(RuntimeError), still() as wf:
        wf.step("a", "true")
        raise RuntimeError("oh")
    assert idle.tasks() == []
    with still() as wf:
        wf.step("a", "true")
    assert len(idle.tasks()) == 1
