"""`scitq task enter` in a real terminal: the shell, the question after it, and what the answers make of the state file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote.agent import machine
from tests.shell.conftest import PROGRAM, Lab
from tests.workflow.terminal import Terminal


@pytest.fixture
def failed(lab: Lab) -> Iterator[Engine]:
    """Two failed tasks of a step, and one that waits."""
    lab.scitq("-f", "lab.scitq", "launch", "false")
    for name in ("s1", "s2"):
        lab.scitq("launch", "-b", "step", "-n", name, "--shell", f"echo {name}\nexit 3")
    lab.scitq("up", "--until-done", code=1)
    lab.scitq("launch", "-b", "step", "-n", "s3", "-R", "1", "--shell", "echo s3\nexit 3")
    with Engine(lab.folder / "lab.scitq", drive=False) as engine:
        yield engine


def commands(engine: Engine) -> dict[str | None, object]:
    return {row.name: row.spec.command for row in engine.rows(batch="step")}


def enter(lab: Lab, *words: str) -> Terminal:
    environ = {**lab.environ, "PS1": "no "}
    return Terminal([*PROGRAM, "task", "enter", *words], folder=lab.folder, environ=environ, columns=140, rows=40)


def test_a_shell_where_it_ran_and_a_changed_command_is_adopted_as_one_says(lab: Lab, failed: Engine) -> None:
    before = commands(failed)
    with enter(lab, "s1") as terminal:
        terminal.wait_for(r"^Sandbox of 's1' on local, kept ")
        terminal.wait_for(r"^\[scitq task 2\] .*[#$]$")
        terminal.type("stty size; tty -s && echo a terminal; pwd; sh $COMMAND; echo code $?\r")
        terminal.wait_for(r"^40 140\na terminal\n" + str(lab.folder) + r"\ns1\ncode 3$")
        terminal.type(
            "sh -c 'echo begun > said; exec tail -f said'\r"
        )  # dash may lose a Ctrl-C on its way to the next command
        terminal.wait_for(r"^begun$")
        terminal.press("c-c")  # for what runs there, not for scitq
        terminal.wait_for(r"^begun\n(.*\n)*\[scitq task 2\] .*[#$]$")
        terminal.type("exit 6\r")
        assert terminal.wait_end() == 6
    assert commands(failed) == before
    for answer, changed in (("n", []), ("t", ["s1"])):
        with enter(lab, "s1") as terminal:
            terminal.wait_for(r"^\[scitq task 2\] .*[#$]$")
            terminal.type("sed -i 's/exit 3/exit 0/' $COMMAND; exit\r")
            terminal.wait_for(r"^-exit 3\n\+exit 0$")
            terminal.wait_for(
                r"Adopt it for \[t\]his task, the whole \[s\]tep \(1 not launched, 2 failed\), or \[n\]othing\?"
            )
            terminal.type(f"{answer}\r")
            if answer == "t":
                terminal.wait_for(r"Relaunch it now\? \[Y/n\]")
                terminal.type("n\r")
            assert terminal.wait_end() == 0
        assert [name for name in before if commands(failed)[name] != before[name]] == changed
    assert failed.task("s1").status == "failed"
    with enter(lab, "s2") as terminal:
        terminal.wait_for(r"^\[scitq task 3\] .*[#$]$")
        terminal.type("sed -i 's/exit 3/exit 0/' $COMMAND; exit\r")
        terminal.wait_for(r"\(1 not launched, 1 failed\)")
        terminal.type("s\r")
        terminal.wait_for(r"Relaunch it now\? \[Y/n\]")
        terminal.press("enter")
        terminal.wait_for("2 tasks have the new command. 1 is queued once more.")
        assert terminal.wait_end() == 0
    assert commands(failed) == {name: f"echo {name}\nexit 0" for name in ("s1", "s2", "s3")}
    assert [failed.task(name).status for name in ("s1", "s2", "s3")] == ["failed", "pending", "blocked"]


def test_from_the_command_line_a_script_is_adopted_after_a_look(lab: Lab, failed: Engine, tmp_path: Path) -> None:
    (tmp_path / "fixed").write_text("echo s1\nexit 0\n")
    asked = lab.scitq("task", "adopt", "s1", "--script", str(tmp_path / "fixed"), code=2).stderr.decode()
    assert "-exit 3\n+exit 0\n1 task would get it: 1 failed." in asked
    assert "--yes" in asked
    said = lab.out("task", "adopt", "s1", "--script", str(tmp_path / "fixed"), "--step", "--relaunch", "--yes")
    assert said == "3 tasks have the new command. 2 are queued once more.\n"
    assert set(commands(failed).values()) == {f"echo {name}\nexit 0" for name in ("s1", "s2", "s3")}
    ended = lab.scitq("task", "enter", "1", code=1).stderr.decode()
    assert "needs a terminal" in ended
    assert lab.scitq("task", "enter", "1", "--command", "echo $SCITQ_TASK; exit 4", code=4).stdout == b"1\n"


def test_a_task_runs_in_the_foreground_in_a_folder_of_its_name_and_the_file_does_not_change(lab: Lab) -> None:
    (lab.folder / "reads").write_text("ACGT\n")
    (lab.folder / "index").write_text("all\n")
    words = ["-n", "align s 07", "-i", "reads", "-r", "index", "-e", "SAMPLE=s07", "--retry", "3", "--shell"]
    lab.scitq(
        "-f", "lab.scitq", "launch", *words, "cat $INPUT/* $RESOURCE/*; echo $SAMPLE $CPU; echo x > $OUTPUT/out; exit 4"
    )
    before = lab.json("task", "show", "1")
    cpus = machine.cpus()
    ended = lab.scitq("task", "debug", "align s 07", code=4)
    assert ended.stdout.decode() == f"ACGT\nall\ns07 {cpus}\n"
    home = lab.folder / "align_s_07"
    assert sorted(path.name for path in home.iterdir()) == ["command.sh", "input", "output", "resource", "temp"]
    assert (home / "output" / "out").read_text() == "x\n"
    (home / "input" / "reads").write_text("mine\n")
    assert lab.scitq("task", "debug", "-i", "1", "--retry", code=4).stdout.startswith(b"mine\nall\n")
    (home / "resource" / "index").unlink()
    again = lab.scitq("task", "debug", "--batch", "default", "--no-resource", code=4)
    assert again.stdout.startswith(b"ACGT\ns07")
    assert lab.json("task", "show", "1") == before
    assert "no task of batch other is pending" in lab.scitq("task", "debug", "-b", "other", code=1).stderr.decode()


def test_a_script_is_debugged_though_it_says_nothing_of_that(lab: Lab) -> None:
    (lab.folder / "script.py").write_text(
        "import sys\nfrom scitq.workflow import Workflow\nwf = Workflow('qc')\n"
        "one = wf.step('a', f'echo {sys.argv[1]}', name='one')\nwf.step('b', 'echo two', name='two', required_tasks=one)\nwf.run()\n"
    )
    words = [*PROGRAM, "-f", "lab.scitq", "debug", "script.py", "word"]
    with Terminal(words, folder=lab.folder, environ=lab.environ, columns=140, rows=40) as terminal:
        terminal.wait_for(r"echo word(.|\n)*Run it")
        terminal.press("enter")
        terminal.wait_for(r"Go on")
        terminal.type("x\r")
        terminal.wait_until(lambda: [row["status"] for row in lab.json("task", "list")] == ["succeeded", "succeeded"])
        terminal.wait_end()
