"""What version 1's workflows did that these must not, and what other systems learnt: a test for each line."""

from __future__ import annotations

from pathlib import Path

import pytest

import scitq
from scitq.workflow import Workflow, WorkflowFailed, shell_code

pytestmark = pytest.mark.usefixtures("workers_may_linger")


@pytest.mark.promise("lessons 3.5.8")
def test_what_depends_on_a_step_of_three_waits_for_three_and_a_named_part_has_its_files_only(state_file: Path) -> None:
    with scitq.open(state_file) as engine:
        wf = Workflow("gathered", engine=engine, shell=True)
        script = "mkdir $OUTPUT/log $OUTPUT/table; echo {n} > $OUTPUT/log/l{n}; echo {n} > $OUTPUT/table/t{n}"
        parts = [wf.step("part", script.format(n=n)) for n in (1, 2, 3)]
        # Of whichever task of the step it is asked, and before any of them has run.
        table = wf.step("all", "cd $INPUT && find . -type f | sort", input=parts[0].gather("output/table"))
        kept = wf.step("kept", "cd $INPUT && find . -type f | sort", input=parts[1].gather("output/log|mv:logs"))
        wf.step("after", "true", required_tasks=parts[2].gather("step"))
        wf.run()
        needs = engine.sql(
            "select t.batch, count(*) n from requirement r join tasks t on t.id = r.child group by 1 order by 1"
        )
        assert [(row["batch"], row["n"]) for row in needs] == [
            (f"gathered.{name}", 3) for name in ("after", "all", "kept")
        ]
        assert table.stdout() == "./t1\n./t2\n./t3\n"
        assert kept.stdout() == "./logs/l1\n./logs/l2\n./logs/l3\n"


@pytest.mark.promise("core 11.8")
def test_a_workflow_with_a_failure_ends_and_goes_on_once_it_is_mended(state_file: Path, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    with scitq.open(state_file) as engine:
        wf = Workflow("failing", engine=engine, shell=True)
        good = wf.step("first", "echo fine", name="good")
        bad = wf.step("first", f"test -e {mended}", name="bad")
        last = wf.step("last", "echo done", name="last", required_tasks=[good, bad])
        with pytest.raises(WorkflowFailed, match="bad") as failure:
            wf.run()
        assert [task.name for task in failure.value.parts["tasks"]] == ["bad"]
        assert (good.status, bad.status, last.status) == ("succeeded", "failed", "blocked")
        assert "bad" in last.why()

        mended.touch()
        bad.relaunch()
        wf.run()
        assert (bad.status, last.status, len(good.executions)) == ("succeeded", "succeeded", 1)


@pytest.mark.promise("core 11.13")
def test_names_with_spaces_and_quotes_of_all_kinds_arrive_in_steps_as_they_are(
    state_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "a b;'c\".txt"
    data.write_text("text\n")
    said = """it's "so" $(echo x) `y` \\n"""
    with scitq.open(state_file) as engine:
        wf = Workflow("quoted", engine=engine)
        one = wf.step(
            "one", f"cat $INPUT/*; printf '%s' '{said.replace(chr(39), chr(39) * 2)}'", shell=True, input=str(data)
        )
        two = wf.step("two", shell_code(f"cat <<'END'\n{said}\nEND\n"))
        three = wf.step("three", ["printf", "%s", said])
        wf.run()
        assert one.stdout() == "text\n" + said.replace("'", "")
        assert two.stdout() == said + "\n"
        assert three.stdout() == said


def test_options_for_containers_of_a_workflow_are_for_its_steps_that_run_in_one(state_file: Path) -> None:
    with scitq.open(state_file, drive=False) as engine:
        wf = Workflow("mixed", engine=engine, container="tools:1", container_options="--network none")
        inside, outside = wf.step("inside", "true"), wf.step("outside", "true", container=None)
        wf.start()
        assert [tuple(task.row().spec.container_options) for task in (inside, outside)] == [("--network", "none"), ()]


@pytest.mark.promise("core 11.3")
def test_what_failed_tasks_said_is_told_in_short_and_does_nothing_to_a_screen(state_file: Path) -> None:
    with scitq.open(state_file) as engine:
        wf = Workflow("loud", engine=engine, shell=True)
        wf.step("read", "cat < $INPUT_OF_NOBODY/absent", name="absent")
        wf.step("shout", "printf '\\033]0;owned\\007\\033[2Jgone' >&2; exit 3", name="shout")
        with pytest.raises(WorkflowFailed) as failure:
            wf.run()
    told = str(failure.value)
    assert "'shout' (shout): failed (exit 3): " in told and "gone" in told and "\033" not in told and "\007" not in told
    assert "slot/" not in told
    assert f"scitq -f {state_file} task show" in told or "scitq task show" in told
