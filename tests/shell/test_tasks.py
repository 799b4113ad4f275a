"""`scitq task …`: what it lists, shows and changes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

import scitq
from tests.shell.conftest import Lab
from tests.shell.tmux import Terminal


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 succeeded with output, 2 'bad one' failed with it, 3 blocked by that one."""
    lab = Lab(tmp_path_factory.mktemp("ended"))
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit("printf 'out\\377no end'; echo err >&2", shell=True, name="good")
        script = "for i in $(seq 20); do echo line $i >&2; done; exit 3"
        bad = engine.submit(script, shell=True, name="bad one", batch="b", retry=1, retry_delay=0)
        engine.submit(["true"], name="after", requires=bad)
    lab.scitq("up", "--until-done", code=1)
    lab.clean_up()
    return lab.folder


@pytest.fixture
def done(lab: Lab, ended: Path) -> Lab:
    """A lab with those."""
    return lab.copy(ended)


# --- list -----------------------------------------------------------------------------------------------------------------------


def test_list_shows_the_newest_and_says_that_there_are_more(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many((["echo", str(i)] for i in range(60)), batch="many")

    ended = lab.scitq("task", "list")
    assert len(ended.stdout.splitlines()) == 51
    assert ended.stdout.splitlines()[-1].split()[:3] == [b"60", b"echo", b"59"]
    assert b"newest 50" in ended.stderr
    assert len(lab.json("task", "list", "--limit", "0")) == 60
    assert [task["id"] for task in lab.json("task", "list", "--limit", "2")] == [59, 60]


def test_list_takes_conditions(done: Lab) -> None:
    def ids(*words: str) -> list[int]:
        return [task["id"] for task in done.json("task", "list", *words)]

    assert ids("-S", "failed") == ids("--failed") == ids("-b", "b") == ids("-n", "bad*") == [2]
    assert ids("-S", "failed,blocked") == ids("-S", "failed", "-S", "blocked") == [2, 3]
    assert ids("-S", "running") == []
    assert "Did you mean running?" in done.scitq("task", "list", "-S", "runing", code=2).stderr.decode()
    assert "No batch is named" in done.scitq("task", "list", "-b", "nope").stderr.decode()


def test_failed_tasks_are_listed_with_cause_and_tries(done: Lab) -> None:
    head, line = done.out("task", "list", "--failed").splitlines()

    assert head.split() == ["id", "task", "worker", "cause", "tries", "ended"]
    assert re.fullmatch(r" ?2  bad one  local   failed \(exit 3\)  2/2 +\S.*", line)
    assert done.out("task", "list", "--failed", "-H").startswith("2  bad one")


def test_long_list_cuts_nothing(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit(["echo", "x" * 300], name="n" * 100, batch="a batch")

    line = lab.out("task", "list", "-L").splitlines()[1]

    assert "x" * 300 in line and "n" * 100 in line and "a batch" in line


@pytest.mark.promise("core 11.3")
def test_hostile_names_are_shown_not_obeyed(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit(["true"], name="a\x1b]0;owned\x07b")

    for words in (["list"], ["show", "1"], ["why", "1"]):
        assert b"\x1b" not in lab.scitq("task", *words).stdout or words == ["why", "1"]
    assert lab.json("task", "list")[0]["name"] == "a\x1b]0;owned\x07b"


def test_table_fits_the_terminal(terminal: Terminal, lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit(["echo", "word " * 60])
        engine.submit(["true"], name="漢" * 60)
    terminal.type("scitq task list")
    screen = terminal.wait_for("^ *2 ")

    lines = [line for line in screen.splitlines() if re.match(r" *[12] ", line)]
    assert len(lines) == 2 and all("…" in line and "pending" in line for line in lines)


# --- show, why, output ------------------------------------------------------------------------------------------------------------


def test_show_has_everything(done: Lab) -> None:
    text = done.out("task", "show", "bad one")
    data = done.json("task", "show", "2")

    for part in ("failed (exit 3)", "1 of 1 used", "line 20", data["folder"], "exit 3"):
        assert part in text
    assert "line 10\n" not in text
    assert [attempt["outcome"] for attempt in data["executions"]] == ["failed", "failed"]
    assert data["tail"][-1] == "line 20"
    assert done.json("task", "show", "3")["requires"] == [{"id": 2, "name": "bad one", "status": "failed"}]


def test_letters_of_the_first_scitq_name_a_task(done: Lab) -> None:
    assert done.json("task", "show", "-i", "2") == done.json("task", "show", "-n", "bad one")
    assert "which task?" in done.scitq("task", "show", code=2).stderr.decode()
    assert "no task 99" in done.scitq("task", "output", "99", code=1).stderr.decode()


def test_why_names_what_to_do(done: Lab) -> None:
    assert "scitq task relaunch 2" in done.out("task", "why", "after")
    assert len(done.json("task", "why", "1", "2", "3")) == 3


def test_output_is_exact_in_a_pipe(done: Lab) -> None:
    both = done.scitq("task", "output", "1")

    assert (both.stdout, both.stderr) == (b"out\xffno end", b"err\n")
    assert done.scitq("task", "output", "1", "-o").stdout == b"out\xffno end"
    only = done.scitq("task", "output", "1", "-e")
    assert (only.stdout, only.stderr) == (b"err\n", b"")
    assert done.json("task", "output", "1")["stdout"] == "out\ufffdno end"


def test_large_output_is_exact(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "run", "--shell", "seq 1000000")

    assert lab.scitq("task", "output", "1").stdout == b"".join(b"%d\n" % i for i in range(1, 1_000_001))


def test_output_of_an_execution(done: Lab) -> None:
    first, second = (attempt["id"] for attempt in done.json("task", "show", "2")["executions"])

    assert first != second
    assert done.scitq("task", "output", "2", "-x", str(first)).stderr.endswith(b"line 20\n")
    refused = done.scitq("task", "output", "2", "-x", "999", code=1).stderr.decode()
    assert f"{first}, {second}" in refused


def test_output_of_what_has_not_run_says_why(done: Lab) -> None:
    ended = done.scitq("task", "output", "3")

    assert ended.stdout == b"" and b"blocked" in ended.stderr


def test_output_of_a_running_task_is_what_it_has_written(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", "echo so far; sleep 60")
    assert child.stdout is not None and child.stdout.readline() == b"so far\n"

    assert lab.out("task", "output", "1") == "so far\n"
    lab.scitq("task", "cancel", "1")
    child.communicate(timeout=30)


def test_output_follows(lab: Lab) -> None:
    lab.start("-f", "lab.scitq", "run", "--shell", "echo one; while ! test -e go; do sleep 0.05; done; printf two")
    deadline = time.monotonic() + 20
    while not (lab.folder / "lab.scitq").exists() or not lab.json("task", "list"):
        assert time.monotonic() < deadline
    follower = lab.start("task", "output", "-f", "1")
    lines = lab.start("--json", "task", "output", "-f", "1")
    assert follower.stdout is not None and lines.stdout is not None
    assert follower.stdout.readline() == b"one\n"
    assert json.loads(lines.stdout.readline()) == {"stream": "stdout", "text": "one\n"}
    (lab.folder / "go").touch()

    assert follower.communicate(timeout=30)[0] == b"two"
    assert lines.communicate(timeout=30)[0] == b'{"stream": "stdout", "text": "two"}\n'


@pytest.mark.promise("core 11.3")
def test_hostile_output_is_shown_not_obeyed_on_a_terminal(terminal: Terminal, lab: Lab) -> None:
    script = r"printf '\033]0;owned\007\033[2J\033[31mred\033[0m\n10%%\r20%%\nafter\n'"
    lab.scitq("-f", "lab.scitq", "run", "--shell", script)
    terminal.type("scitq task output 1")
    screen = terminal.wait_for("^after$")

    assert r"\x1b]0;owned\x07\x1b[2Jred" in screen
    assert "10%\n20%" in screen
    assert "\x1b[31mred" in terminal.coloured()


# --- changes ----------------------------------------------------------------------------------------------------------------------


def test_relaunch_queues_again_and_frees_what_was_blocked(done: Lab) -> None:
    ended = done.scitq("task", "relaunch", "bad one")

    assert b"2 'bad one' is pending again" in ended.stdout
    assert b"Nobody drives" in ended.stderr
    assert [task["status"] for task in done.json("task", "list")] == ["succeeded", "pending", "waiting"]
    assert "scitq task" not in done.scitq("task", "relaunch", "3", code=1).stdout.decode()


def test_one_that_refuses_does_not_keep_the_others(done: Lab) -> None:
    ended = done.scitq("task", "relaunch", "3", "1", code=1)

    assert b"1 'good' is pending again" in ended.stdout
    assert b"3 'after'" in ended.stderr


def test_cancel_of_queued_and_of_ended(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["sleep", "60"], ["sleep", "60"]])

    assert lab.json("task", "cancel", "1", "2") == [{"id": 1, "status": "cancelled"}, {"id": 2, "status": "cancelled"}]
    assert "ended already: it was cancelled" in lab.scitq("task", "cancel", "1", code=1).stderr.decode()


def test_update_changes_what_will_run(done: Lab) -> None:
    what = ["-N", "better", "-c", "echo $A | tr a b", "-b", "c", "-e", "A=aaa"]
    done.scitq("task", "update", "2", *what, "--retry", "5", "--run-timeout", "9", "--priority", "-2")
    found = done.json("task", "show", "2")
    assert (found["name"], found["command"], found["shell"], found["batch"]) == (
        "better",
        "echo $A | tr a b",
        "sh",
        "c",
    )
    assert (found["retry"], found["run_timeout"], found["priority"], found["env"]) == (5, 9.0, -2, {"A": "aaa"})

    done.scitq("task", "relaunch", "2")
    done.scitq("up", "--until-done")
    assert done.out("task", "output", "2") == "bbb\n"


def test_update_changes_requirements(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["true"], ["true"], ["true"]])
    lab.scitq("task", "update", "3", "-R", "1,2")
    assert lab.json("task", "show", "3")["status"] == "waiting"
    lab.scitq("task", "update", "3", "-R", "")
    assert lab.json("task", "show", "3")["status"] == "pending"


def test_update_without_a_change_is_a_usage_error(done: Lab) -> None:
    assert b"nothing to change" in done.scitq("task", "update", "1", code=2).stderr
    assert b"not understood" in done.scitq("task", "update", "1", "--retry", "-1", code=1).stderr
