"""What `Workflow` and `step` take, and what they make of it; nothing runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import BadInput, UnknownTask
from scitq.path import URI
from scitq.states import TaskState
from scitq.store import listing, query
from scitq.workflow import Workflow, remote, shell_code
from tests.workflow.conftest import Maker


def spec(engine: Engine, name: str) -> dict[str, Any]:
    """What the file holds of a task."""
    found: dict[str, Any] = json.loads(query.one(engine._reader(), "select spec from task where name = ?", (name,))[0])
    return found


def parents(engine: Engine, name: str) -> list[str]:
    """The names of what a task requires."""
    return [
        row.name or ""
        for row in sorted(listing.parents(engine._reader(), engine.task(name).id), key=lambda row: row.id)
    ]


def test_declaring_writes_nothing(still: Maker, idle: Engine) -> None:
    wf = still()
    task = wf.step("a", "true")
    assert idle.tasks() == [] and idle.workflows() == []
    assert (task.name, task.batch, task.command, task.status, task.is_started) == (
        "a #1",
        "qc.a",
        "true",
        "declared",
        False,
    )
    assert repr(task) == "<StepTask a/a #1 not started>"
    with pytest.raises(BadInput, match=r"'a #1' is declared, but not queued yet: qc.start\(\)"):
        task.result()
    wf.start()
    assert task.status == "pending" and task.task == idle.task(task.id) and wf.previous_step == task
    assert idle.workflow("qc").started_ms is not None


def test_a_step_inherits_and_none_is_none(still: Maker, idle: Engine) -> None:
    wf = still(retry=2, container="ubuntu:24.04", container_options="--network none", run_timeout=60, download_timeout=7,
               tags={"a": "b"}, priority=3, use_cache=True)  # fmt: skip
    wf.step("a", "true", name="inherits")
    wf.step("a", "true", name="has none", retry=None, container=None, container_options=None, run_timeout=None,
            download_timeout=None, tags=None, priority=None, use_cache=None, shell=None)  # fmt: skip
    wf.step(
        "a", "true", name="its own", retry={"timed_out": 1}, shell="bash", stage_in_timeout=9, container="debian:12"
    )
    wf.start()
    assert spec(idle, "inherits") == {
        "command": "true", "shell": "sh", "retry": 2, "run_timeout": 60.0, "stage_in_timeout": 7.0, "tags": {"a": "b"},
        "container": "ubuntu:24.04", "container_options": ["--network", "none"], "use_cache": True,
    }  # fmt: skip
    assert spec(idle, "has none") == {"command": "true"}
    own = spec(idle, "its own")
    assert (own["shell"], own["retry"], own["stage_in_timeout"], own["container"]) == (
        "bash",
        {"timed_out": 1},
        9.0,
        "debian:12",
    )
    assert [row.priority for row in idle.rows()] == [3, 0, 3]


def test_names_are_given_by_batch_and_are_unique_there(still: Maker, idle: Engine) -> None:
    wf = still()
    names = [wf.step(step, "true").name for step in "aab"]
    assert names == ["a #1", "a #2", "b #1"]
    wf.step("a", "true", name="x")
    wf.step("b", "true", name="x")
    with pytest.raises(BadInput, match="step 'a' of qc has a task named 'x' already"):
        wf.step("a", "true", name="x")
    wf.step("a", "true", name="a #6")
    assert wf.step("a", "true").name == "a #5" and wf.step("a", "true").name == "a #7"
    with pytest.raises(BadInput, match="2 steps have a task named 'x'"):
        wf.step("c", "true", requires="x")


def test_inputs_of_every_kind(still: Maker, idle: Engine, tmp_path: Path) -> None:
    for name in ("one", "two", "with space"):
        (tmp_path / name).touch()
    wf = still(base_storage=tmp_path)
    made = wf.step("make", "true", name="make")
    wf.step("a", "true", name="words", input=f"{tmp_path}/one {tmp_path}/two|gunzip")
    wf.step("a", "true", name="a name with spaces", input=str(tmp_path / "with space"))
    wf.step(
        "a",
        "true",
        name="many",
        input=[tmp_path / "one", str(tmp_path / "with space"), URI(tmp_path / "two"), made, made.output / "x"],
    )
    wf.step(
        "a",
        "true",
        name="relative",
        rel_input="one two",
        rel_output="out/x/",
        resource=URI(tmp_path / "one").with_action("untar"),
    )
    wf.step("a", "true", name="relative list", rel_input=["with space", "one|mv:x"])
    wf.step("a", "true", name="tasks", input=made, resource=wf["make"])
    wf.step("a", "true", name="text of an output", input=f"{made.output}sub")
    wf.start()
    number = made.id
    assert spec(idle, "words")["input"] == [f"{tmp_path}/one", f"{tmp_path}/two|gunzip"]
    assert spec(idle, "a name with spaces")["input"] == [f"{tmp_path}/with space"]
    assert spec(idle, "many")["input"] == [
        f"{tmp_path}/one", f"{tmp_path}/with space", f"{tmp_path}/two", f"task://{number}", f"task://{number}/x",
    ]  # fmt: skip
    assert spec(idle, "relative")["input"] == [f"{tmp_path}/one", f"{tmp_path}/two"]
    assert spec(idle, "relative")["output"] == f"{tmp_path}/out/x" and spec(idle, "relative")["resource"] == [
        f"{tmp_path}/one|untar"
    ]
    assert spec(idle, "relative list")["input"] == [f"{tmp_path}/with space", f"{tmp_path}/one|mv:x"]
    assert spec(idle, "tasks")["input"] == [f"task://{number}"] == spec(idle, "tasks")["resource"]
    assert spec(idle, "text of an output")["input"] == [f"task://{number}/sub"]
    for name in ("many", "tasks", "text of an output"):
        assert parents(idle, name) == ["make"]


def test_requirements_of_every_kind(still: Maker, idle: Engine) -> None:
    plain = idle.submit("true", name="plain")
    wf = still()
    a, b = (wf.step("a", "true", name=name) for name in "ab")
    wf.step("c", "true", name="all", required_tasks=[a, b.task_id, plain, plain.id, "plain", [a]], requires="b")
    wf.step("c", "true", name="step", required_tasks=wf["a"])
    wf.step("c", "true", name="named", required_tasks="plain")
    wf.start()
    assert parents(idle, "all") == ["plain", "a", "b"]
    assert parents(idle, "step") == ["a", "b"]
    assert parents(idle, "named") == ["plain"]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"output": ["x", "y"]}, "exactly one output folder"),
    ({"output": "x", "rel_output": "y"}, "output= and rel_output= both"),
    ({"rel_output": "../x"}, "no path below base_storage"),
    ({"rel_input": "nothing-there"}, "there is nothing of that name"),
    ({"input": ""}, "an address is empty"),
    ({"input": 3}, "must be addresses"),
    ({"input": "x|frobnicate"}, "no action 'frobnicate'"),
    ({"command": ""}, "the command is empty"),
    ({"command": print}, "write @remote before it"),
    ({"args": {"a": 1}}, "other commands take none"),
    ({"concurrency": -1}, "concurrency must be a whole number"),
    ({"tasks_per_worker": 0}, "must be 1 or more"),
    ({"flavor": ""}, "flavor"),
    ({"flavor": "auto:cpu>>8"}, "cpu>>8|\\^"),
    ({"rounds": 0}, "rounds must be 1 or more"),
    ({"retry": "often"}, "retry must be a whole number"),
    ({"required_tasks": True}, "must be tasks"),
    ({"name": "two\nlines"}, "must be a line of text"),
    ({"batch": ""}, "batch must be a line of text"),
    ({"shell": 3}, "shell must be True"),
    ({"container_options": "--x"}, "give container= too"),
]


@pytest.mark.parametrize(("given", "told"), MISTAKES, ids=[told for _, told in MISTAKES])
def test_a_mistake_is_told_and_nothing_is_declared(
    still: Maker, idle: Engine, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    wf = still(base_storage=tmp_path)
    arguments = {"batch": "a", "command": "true", **given}
    with pytest.raises(BadInput, match=told):
        wf.step(**arguments)
    assert wf.tasks == [] and wf.steps == []


def test_mistakes_of_a_workflow(still: Maker, idle: Engine) -> None:
    for given, told in (
        ({"name": ""}, "name must be a line of text"),
        ({"name": "x" * 300}, "200 characters"),
        ({"file": "x.scitq"}, "give one of them"),
        ({"retry": -1}, "retry must be a whole number"),
        ({"max_workflow_workers": "many"}, "max_workflow_workers must be"),
    ):
        with pytest.raises(BadInput, match=told):
            still(**given)
    with pytest.raises(BadInput, match="server= takes"):
        Workflow("x", server=3)
    with pytest.raises(BadInput, match="rel_output= begins at the workflow's base_storage"):
        still().step("a", "true", rel_output="x")
    with pytest.raises(KeyError, match="has no step 'b'"):
        still()["b"]
    with pytest.raises(UnknownTask):
        still().step("a", "true", requires="nobody")
    other = still("other").step("a", "true")
    with pytest.raises(BadInput, match="not queued yet"):
        still().step("a", "true", requires=other)
    with pytest.raises(BadInput, match="not queued yet"):
        still().step("a", "true", input=other.output)


def test_whose_state_file_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with scitq.open("here.scitq", drive=False) as engine:
        assert Workflow("x", server=engine).engine is engine
        assert Workflow("x", engine=engine).engine is engine
    # An address of version 1: the file that scitq.open() finds, said once.
    found = [Workflow("x", None, "127.0.0.1:5000").engine, Workflow("y", server="127.0.0.1:5000").engine]
    assert {engine.path for engine in found} == {tmp_path / "here.scitq"} and found[0] is found[1]
    assert sum("There is no server" in record.message for record in caplog.records) == 1
    assert Workflow("x", file="there.scitq").engine.path == tmp_path / "there.scitq"
    for engine in {*found, Workflow("x", file="there.scitq").engine}:
        engine.close()


def test_recruiters_are_written_down(still: Maker, idle: Engine) -> None:
    def script(**more: Any) -> None:
        wf = still(
            provider="ovh",
            region="GRA11",
            flavor="auto:cpu>=8",
            max_step_workers=3,
            max_workflow_workers=4,
            prefetch=1,
            **more,
        )
        wf.step("a", "true", concurrency=4, rounds=2)
        wf.step("b", "true", concurrency=2)
        wf.step("c", "true", provider=None, flavor="local", concurrency=1, tasks_per_worker=9, maximum_workers=None)
        wf.step("a", "true", concurrency=99)
        wf.start()

    def rows() -> list[tuple[Any, ...]]:
        return query.rows(
            idle._reader(), "select step, rank, tasks_per_worker, flavor, provider, region, concurrency, prefetch, maximum_workers "
            "from recruiter join batch on batch.id = batch order by step, rank"
        )  # fmt: skip

    script()
    cpu = "auto:cpu>=8"
    wanted = [
        ("a", 1, 8, cpu, "ovh", "GRA11", 4, 1, 3),
        ("b", 1, 2, cpu, "ovh", "GRA11", 2, 1, 3),
        ("c", 1, 9, "local", None, None, 1, 1, None),
    ]
    assert rows() == wanted
    # What is changed by hand stays, as long as the script says the same.
    idle._write(lambda db: db.execute("update recruiter set concurrency = 7"))
    script()
    assert {row[6] for row in rows()} == {7}
    plain = still("plain")
    plain.step("a", "true")
    plain.start()
    assert len(rows()) == 3


def test_debug_keeps_every_task_for_the_dialogue_and_lets_go_of_them_without(still: Maker, idle: Engine) -> None:
    def script(**more: Any) -> None:
        wf = still(**more)
        a = wf.step("a", "true", name="a")
        wf.step("b", "true", name="b", requires=a)
        wf.start()

    script(debug=True)
    assert idle.counts() == {TaskState.DEBUG: 2}
    script(debug=True)
    assert idle.counts() == {TaskState.DEBUG: 2}
    script()
    assert idle.counts() == {TaskState.PENDING: 1, TaskState.WAITING: 1}
    script(debug=True)
    assert idle.counts() == {TaskState.DEBUG: 2} and idle.check() == []


def test_scripts_ship_whatever_quotes_and_length_they_have(make: Maker, engine: Engine) -> None:
    wf = make()
    wf.step("a", shell_code("""
        x='it''s'; echo "$x \\"quoted\\" $0" | sed 's/ [^ ]*$//'
          echo "  indented"
    """), name="quotes")  # fmt: skip
    wf.step("a", shell_code("echo ${BASH_VERSION:+bash}", "bash"), name="bash")
    wf.step("a", shell_code(f"#!{sys.executable}\nimport sys\nprint('python', len(sys.argv))\n"), name="shebang")
    wf.step("a", shell_code(": " + "x" * 300_000 + "\necho long"), name="long")
    assert wf.run()
    assert [task.stdout() for task in wf["a"]] == ['its "quoted"\n  indented\n', "bash\n", "python 1\n", "long\n"]
    with pytest.raises(BadInput, match="the command is empty"):
        shell_code("  \n ")


FACTOR = 2


@remote
def scaled(number: int, *, by: int = 3) -> int:
    """What is returned is printed."""
    with open(os.path.join(os.environ["OUTPUT"], "left"), "w") as file:
        file.write(os.path.basename(os.environ["OUTPUT"]))
    return number * by * FACTOR


def test_functions_ship_and_their_value_is_printed(make: Maker, engine: Engine) -> None:
    def script(by: int) -> Workflow:
        wf = make()
        wf.step("a", scaled, args={"number": 7, "by": by}, name="scaled")
        return wf

    wf = script(5)
    assert wf.run()
    assert wf["a"][0].stdout() == "70\n" and [left.name for left in wf["a"][0].files()] == ["left"]
    with pytest.raises(KeyError, match="OUTPUT"):  # by itself it is the function
        scaled(7)
    assert not script(5).plan().has_changes
    assert [item.reason for item in script(6).plan().items] == ["command and resource changed"]


FUNCTION = """
{blank}
import os
from scitq.workflow import Workflow, remote
HELP = "{word}"
def helper():
    return HELP
@remote
def told(n=1):
    return helper() * n
wf = Workflow("qc", file="lab.scitq")
wf.step("a", told, args={{"n": 2}}, name="told")
print(*(item.action.value for item in wf.plan().items))
wf.run()
print(wf["a"][0].stdout(), end="")
"""


@pytest.mark.usefixtures("workers_may_linger")
def test_a_function_is_told_by_what_it_does_not_by_where_it_stands(tmp_path: Path) -> None:
    def run(**parts: str) -> str:
        (tmp_path / "script.py").write_text(FUNCTION.format(**parts))
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run(blank="", word="x")
    assert first.startswith("new\n") and first.endswith("xx\n")
    assert run(blank="# a line more\n\n", word="x").startswith("keep\n")
    changed = run(blank="", word="y")
    assert changed.startswith("rerun\n") and changed.endswith("yy\n")
