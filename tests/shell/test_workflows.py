"""`scitq run SCRIPT.py` and `scitq workflow …`."""

from __future__ import annotations

import re

import pytest

import scitq
from tests.shell.conftest import Lab

SCRIPT = """
import sys
from scitq.workflow import Workflow

print("words:", *sys.argv[1:], flush=True)
wf = Workflow("qc", shell=True)
for name in sys.argv[1:] or ["a", "b"]:
    made = wf.step("make", f"echo {name} > $OUTPUT/{name}", name=name)
wf.step("all", "cat $INPUT/*", input=made.gather("output"), name="all")
wf.start()
print("started", flush=True)
"""


@pytest.fixture
def script(lab: Lab) -> Lab:
    """A folder with a script that declares a workflow, and starts it."""
    (lab.folder / "qc.py").write_text(SCRIPT)
    return lab


def test_a_script_is_run_with_its_words_and_its_workflow_to_the_end(script: Lab) -> None:
    ended = script.scitq("-f", "lab.scitq", "run", "qc.py", "x", "--plan")
    assert ended.stdout.decode().splitlines()[:2] == ["words: x --plan", "started"]
    with scitq.open(script.folder / "lab.scitq", drive=False) as engine:
        assert {task.name: task.status for task in engine.tasks()} == {
            "x": "succeeded",
            "--plan": "succeeded",
            "all": "succeeded",
        }
        assert str(engine.workflow("qc").script).endswith("/qc.py")
    again = script.json("-f", "lab.scitq", "workflow", "list")
    assert [(row["workflow"], row["state"], row["tasks"], row["done"]) for row in again] == [("qc", "done", 3, 3)]
    shown = script.json("workflow", "show", "qc")
    assert shown["ok"] and shown["steps"] == {"make": {"succeeded": 2}, "all": {"succeeded": 1}}
    assert script.json("workflow", "list") == again


def test_a_plan_is_shown_and_nothing_is_made(script: Lab) -> None:
    said = script.out("run", "--plan", "qc.py", "a")
    assert said == "words: a\n step  new  rerun  keep  why\n make    1      -     -\n all     1      -     -\n"
    assert script.json("workflow", "list") == []
    script.scitq("run", "qc.py", "a")
    told = script.scitq("workflow", "plan", "--json", "qc.py", "b", code=0).stdout.decode()
    assert '"vanished": 1' in told and '"not in the script any more"' in told
    script.scitq("run", "--prune", "qc.py", "b")
    assert {row["name"] for row in script.json("task", "list")} == {"b", "all"}


def test_what_fails_is_named_and_is_the_exit_code(script: Lab) -> None:
    (script.folder / "bad.py").write_text(SCRIPT.replace("cat $INPUT/*", "echo oh >&2; exit 3"))
    ended = script.scitq("run", "bad.py", "a", code=1)
    assert b"1 failed of 2 tasks" in ended.stderr and b"'all' (all): failed (exit 3): oh" in ended.stderr
    assert script.json("workflow", "list")[0]["state"] == "failed"
    assert "Failed: 2 'all'" in script.out("workflow", "show", "qc")
    # Mended, it goes on.
    script.scitq("run", "qc.py", "a")
    assert script.json("workflow", "list")[0]["state"] == "done"


def test_mistakes_in_a_script_are_told_where_they_are(script: Lab) -> None:
    (script.folder / "wrong.py").write_text("from scitq.workflow import Workflow\n\nWorkflow('x').step('a', '')\n")
    assert b"wrong.py, line 3: the command is empty" in script.scitq("run", "wrong.py", code=1).stderr
    (script.folder / "wrong.py").write_text("import sys\nsys.exit('enough')\n")
    assert script.scitq("run", "wrong.py", code=1).stderr.endswith(b"enough\n")
    assert b"no such script" in script.scitq("workflow", "run", "nope.py", code=1).stderr
    (script.folder / "wrong.py").write_text("print('hello')\n")
    assert b"declares no workflow" in script.scitq("run", "--plan", "wrong.py").stderr


def test_a_python_file_may_still_be_a_command(lab: Lab) -> None:
    (lab.folder / "tool.py").write_text("#!/bin/sh\necho tool\n")
    (lab.folder / "tool.py").chmod(0o755)
    assert lab.out("run", "--", "./tool.py") == "tool\n"
    assert lab.out("run", "--retry", "1", "./tool.py") == "tool\n"


def test_workflows_are_paused_and_go_on_and_are_deleted(script: Lab) -> None:
    # Nobody drives: no worker is begun that would outlive the test.
    idle = 'import os, scitq; wf = Workflow("qc", shell=True, engine=scitq.open("lab.scitq", drive=False))'
    late = SCRIPT.replace('wf = Workflow("qc", shell=True)', idle).replace("wf.start()", "wf.start(); os._exit(0)")
    (script.folder / "late.py").write_text(late)
    with scitq.open(script.folder / "lab.scitq", drive=False) as engine:
        engine.submit("true", batch="other")
        engine.pause_batch("other")
    script.scitq("run", "late.py", "a")
    assert script.out("workflow", "pause", "qc") == "qc is paused.\n"
    assert script.json("workflow", "list")[0]["state"] == "paused"
    assert script.out("workflow", "pause", "--suspend", "qc") == "qc is suspended.\n"
    assert script.json("workflow", "unpause", "qc")[0]["state"] == "go"
    assert b"no workflow is named 'nope'" in script.scitq("workflow", "pause", "qc", "nope", code=1).stderr
    refused = script.scitq("workflow", "delete", "qc", code=2).stderr
    assert (
        b"2 tasks of qc: 1 pending, 1 waiting. All are deleted" in refused
        and b"there is no terminal to ask on" in refused
    )
    assert len(re.findall(rb"^ *[23]  ", refused, re.MULTILINE)) == 2, "both are shown"
    assert script.out("workflow", "delete", "-y", "qc") == "qc was deleted: 2 tasks.\n"
    assert script.json("workflow", "list") == []
    with scitq.open(script.folder / "lab.scitq", drive=False) as engine:
        assert set(engine.batches()) == {"other"} and engine.check() == []
