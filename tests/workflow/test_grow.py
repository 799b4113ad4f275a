"""Workflows that grow while they run, and after it; eager ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput, BatchGathered
from scitq.states import TaskState
from scitq.workflow import Workflow
from scitq.workflow.step import StepTask
from tests.workflow.conftest import Maker
from tests.workflow.test_reconcile import counted, runs

SPLIT = "for n in $(seq {count}); do echo {name} $n > $OUTPUT/{name}$n.txt; done"


def split(wf: Workflow, **samples: int) -> StepTask:
    """A step whose tasks leave so many files each."""
    for name, count in samples.items():
        task = wf.step("split", SPLIT.format(name=name, count=count), name=name)
    return task


def test_a_loop_over_outputs_waits_for_the_step_and_adds_to_what_runs(make: Maker, engine: Engine) -> None:
    def script() -> Workflow:
        wf = make()
        split(wf, a=2, b=1)
        for part in wf["split"].outputs(60):
            wf.step("count", "cat $INPUT/* | wc -w", input=part, name=part.name)
        return wf

    wf = script()
    assert wf.run()
    assert sorted(task.name for task in wf["count"]) == ["a1.txt", "a2.txt", "b1.txt"]
    assert [task.stdout().strip() for task in wf["count"]] == ["2", "2", "2"]
    again = script()
    assert again.run()
    assert set(runs(engine).values()) == {1}
    # What is declared only later is not taken for vanished.
    early = make()
    split(early, a=2, b=1)
    assert counted(early.plan())["count"] == {"later": 3}


def test_each_expands_when_the_producer_ends_and_not_again(make: Maker, engine: Engine) -> None:
    called: list[str] = []

    def script(**samples: int) -> Workflow:
        wf = make()
        split(wf, **samples)

        @wf["split"].each
        def expand(task: StepTask, files: list[Any]) -> None:
            called.append(task.name)
            for file in files:
                wf.step("count", "cat $INPUT/*", input=file)

        return wf

    wf = script(a=2, b=3)
    assert wf.run()
    assert sorted(called) == ["a", "b"]
    assert sorted(task.name for task in wf["count"]) == ["a", "a #2", "b", "b #2", "b #3"]
    assert {task.name: task.stdout() for task in wf["count"]}["b #3"] == "b 3\n"
    called.clear()
    again = script(a=2, b=3, c=1)
    assert counted(again.plan()) == {"split": {"keep": 2, "new": 1}, "count": {"later": 5}}
    assert again.run()
    assert sorted(called) == ["a", "b", "c"]
    assert set(runs(engine).values()) == {1}
    assert len(engine.tasks(batch="qc.count")) == 6


def test_each_of_each(make: Maker, engine: Engine) -> None:
    wf = make()
    split(wf, a=2)
    wf["split"].each(lambda task, files: [wf.step("again", SPLIT.format(name="x", count=n + 1), name=file.name)
                                          for n, file in enumerate(files)])  # fmt: skip
    wf.step("again", "true", name="first")
    wf["again"].each(lambda task, files: [wf.step("last", "cat $INPUT/*", input=file) for file in files])
    assert wf.run()
    assert sorted(task.name for task in wf["last"]) == ["a1.txt", "a2.txt", "a2.txt #2"]


def test_an_error_in_each_is_raised_by_run_and_nothing_of_it_is_queued(make: Maker, engine: Engine) -> None:
    wf = make()
    split(wf, a=1)

    @wf["split"].each
    def expand(task: StepTask, files: list[Any]) -> None:
        wf.step("count", "true")
        raise RuntimeError("oh")

    with pytest.raises(RuntimeError, match="oh"):
        wf.run()
    assert engine.tasks(batch="qc.count") == []
    assert len(wf["count"]) == 0


def test_a_producer_that_fails_is_not_expanded_until_it_succeeds(make: Maker, engine: Engine, tmp_path: Path) -> None:
    def script() -> Workflow:
        wf = make()
        wf.step("split", f"test -e {tmp_path}/fixed && echo 1 > $OUTPUT/1", name="one")
        wf["split"].each(lambda task, files: wf.step("count", "cat $INPUT/*", input=files))
        return wf

    from scitq.errors import WorkflowFailed

    with pytest.raises(WorkflowFailed):
        script().run()
    assert engine.tasks(batch="qc.count") == []
    (tmp_path / "fixed").touch()
    assert script().run()
    assert len(engine.tasks(batch="qc.count")) == 1


def test_after_the_start_a_step_is_queued_at_once(make: Maker, engine: Engine) -> None:
    wf = make()
    one = wf.step("one", "echo one")
    wf.start()
    two = wf.step("two", "echo two", requires=one)
    assert two.result(60).stdout == "two\n"
    assert wf.run()


def test_eager_queues_each_task_as_it_is_declared(make: Maker, engine: Engine) -> None:
    def script(count: int) -> Workflow:
        wf = make(eager=True)
        for n in range(count):
            assert wf.step("say", f"echo {n}", name=str(n)).is_started
        return wf

    wf = script(2)
    assert wf["say"][0].result(60).stdout == "0\n"
    assert wf.run()
    assert script(3).run()
    assert runs(engine) == {"0": 1, "1": 1, "2": 1}


def test_a_gathered_step_is_closed(still: Maker) -> None:
    wf = still()
    first = wf.step("one", "true")
    first.gather("output")
    with pytest.raises(BatchGathered, match="was gathered"):
        wf.step("one", "true")
    with pytest.raises(BadInput, match="'outputs' is neither"):
        first.gather("outputs")


def test_gathering_gives_the_same_whichever_task_is_asked(still: Maker, idle: Engine) -> None:
    wf = still()
    handles = [wf.step("one", f"echo {n}", name=str(n)) for n in range(3)]
    gathered = [task.gather("output/sub|mv:x") for task in handles]
    steps = [wf.step(f"all {n}", "true", input=each) for n, each in enumerate(gathered[:1])]
    steps += [wf.step("others", "true", requires=task.gather(), name=task.name) for task in handles]
    wf.start()
    assert idle.task(steps[0].id).row().spec.input == [f"task://{task.id}/sub|mv:x" for task in handles]
    assert {idle.task(step.id).row().unmet for step in steps} == {3}
    assert list(handles[1].gather("step")) == handles
    assert len(handles[0].gather() + handles[1].gather("output")) == 6


SCRIPT = """
import sys
from scitq.workflow import Workflow
wf = Workflow("qc", shell=True, file=sys.argv[1])
for name in "abc":
    wf.step("split", f"echo {name} >> {sys.argv[2]}; for n in 1 2; do echo $n > $OUTPUT/$n; done", name=name)
@wf["split"].each
def expand(task, files):
    for file in files:
        wf.step("count", f"echo {task.name}{file.name} >> {sys.argv[2]}; cat $INPUT/*", input=file)
        if len(sys.argv) > 3 and file.name == "2" and task.name == sys.argv[3]:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
wf.run()
print("done")
"""


@pytest.mark.usefixtures("workers_may_linger")
@pytest.mark.parametrize("killed_in", ["a", "b", "c"])
def test_a_script_killed_in_the_middle_of_expanding_goes_on(tmp_path: Path, killed_in: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    log = tmp_path / "log"
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "lab.scitq"), str(log)]
    killed = subprocess.run([*words, killed_in], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
    lines = log.read_text().split()
    assert sorted(lines) == sorted(["a", "b", "c", *(f"{name}{n}" for name in "abc" for n in (1, 2))])


def test_steps_may_be_declared_from_several_threads(still: Maker, idle: Engine) -> None:
    wf = still()

    def declare(name: str) -> None:
        for _ in range(50):
            wf.step("one", f"echo {name}")

    threads = [threading.Thread(target=declare, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wf.start()
    assert len({task.name for task in wf["one"]}) == 200
    assert idle.counts() == {TaskState.PENDING: 200}
