"""`scitq run` and `scitq launch`: the command line becomes a task, and the task's output and exit code become ours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shell.conftest import Lab
from tests.shell.tmux import Terminal


def test_output_is_exact_and_goes_where_it_went(lab: Lab) -> None:
    script = (
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 300); sys.stderr.buffer.write(b'\\xff\\x1b[2J no end')"
    )

    ended = lab.scitq("run", sys.executable, "-c", script)

    assert ended.stdout == bytes(range(256)) * 300
    assert ended.stderr.endswith(b"\xff\x1b[2J no end")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["--shell", "exit 3"], 3),
        (["--shell", "kill -9 $$"], 137),
        (["--shell", "kill -TERM $$"], 143),
        (["no-such-program-anywhere"], 127),
        (["--run-timeout", "0.3", "sleep", "60"], 143),
        (["--retry", "1", "--shell", "test -e seen || { touch seen; exit 9; }"], 0),
    ],
)
def test_exit_code_is_the_tasks(lab: Lab, words: list[str], code: int) -> None:
    lab.scitq("run", *words, code=code)


def test_failure_that_its_own_output_cannot_tell_is_said(lab: Lab) -> None:
    missing = lab.scitq("run", "no-such-program-anywhere", code=127).stderr.decode()
    failing = lab.scitq("run", "false", code=1).stderr.decode()

    assert "no-such-program-anywhere" in missing and "not found" in missing
    assert failing == ""


def test_command_is_split_once_or_not_at_all(lab: Lab) -> None:
    assert lab.out("run", "printf '[%s]' 'a b' c") == "[a b][c]"
    assert lab.out("run", "printf", "[%s]", "a b", "c;d") == "[a b][c;d]"
    assert lab.out("run", "--", "echo", "-n", "--json") == "--json"
    assert lab.out("run", "echo", "--name", "x") == "--name x\n"


def test_shell_may_stand_alone_or_name_one(lab: Lab) -> None:
    assert lab.out("run", "--shell", "echo one two | wc -w").strip() == "2"
    assert lab.out("run", "--shell=bash", "echo ${BASH_VERSION:+yes}") == "yes\n"
    assert lab.out("run", "--shell", "bash", "echo ${BASH_VERSION:+yes}") == "yes\n"
    assert "one quoted word" in lab.scitq("run", "--shell", "echo", "a", code=2).stderr.decode()


def test_pipe_without_a_shell_is_pointed_out(lab: Lab) -> None:
    ended = lab.scitq("run", "echo a | wc -l")

    assert ended.stdout == b"a | wc -l\n"
    assert b"--shell" in ended.stderr


def test_environment_comes_from_options_only(lab: Lab) -> None:
    words = ["run", "-e", "A=1=2", "-e", "HERE", "--shell", 'echo "$A $HERE $ELSEWHERE"']

    assert lab.scitq(*words, env={"HERE": "here", "ELSEWHERE": "no"}).stdout == b"1=2 here \n"
    assert "no such variable" in lab.scitq("run", "-e", "NOWHERE_AT_ALL", "true", code=1).stderr.decode()


def test_words_that_are_no_text_arrive_as_they_are(lab: Lab) -> None:
    words = [*map(str.encode, [sys.executable, "-m", "scitq", "run", "printf", "%s"]), b"caf\xe9 \n'\""]
    ended = subprocess.run(words, cwd=lab.folder, env=lab.environ, capture_output=True, timeout=60)

    assert ended.stdout == b"caf\xe9 \n'\""


def test_json_has_output_and_end(lab: Lab) -> None:
    found = lab.json("run", "--shell", "echo out; echo err >&2; exit 4", code=4)

    assert (found["stdout"], found["stderr"], found["exit_code"], found["status"]) == ("out\n", "err\n", 4, "failed")
    assert found["created"].endswith("Z")


def test_task_runs_where_the_command_was_typed(lab: Lab) -> None:
    (lab.folder / "below").mkdir()
    lab.scitq("-f", "lab.scitq", "launch", "true")

    assert lab.scitq("run", "pwd", cwd=lab.folder / "below").stdout.decode() == f"{lab.folder / 'below'}\n"


def test_reader_that_leaves_does_not_end_the_task(lab: Lab) -> None:
    """What is written after the reader has gone is not lost: the task goes on, and that is said."""
    script = "echo first; while ! test -e go; do sleep 0.05; done; seq 100000; touch done; sleep 60"
    pipe = f"{sys.executable} -m scitq -f lab.scitq run --shell '{script}' | {{ head -n 1; touch go; }}"

    ended = subprocess.run(["sh", "-c", pipe], cwd=lab.folder, env=lab.environ, capture_output=True, timeout=60)

    assert ended.stdout == b"first\n"
    assert b"goes on" in ended.stderr and b"Traceback" not in ended.stderr
    assert lab.json("task", "show", "1")["status"] == "running"


def test_end_of_the_driver_elsewhere_is_noticed(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", "echo begun; sleep 60")
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"

    lab.scitq("down")
    _, errors = child.communicate(timeout=30)

    assert child.returncode == 1
    assert b"goes on" in errors


def test_ending_it_leaves_the_task(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", "echo begun; sleep 60")
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"

    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=30)

    assert child.returncode == 143
    assert b"scitq up" in errors
    assert lab.json("task", "show", "1")["status"] == "running"


# --- in a terminal --------------------------------------------------------------------------------------------------------------


def test_output_without_end_of_line_is_live(terminal: Terminal) -> None:
    terminal.type("scitq -f lab.scitq run --shell 'printf half; while ! test -e go; do sleep 0.05; done; echo way'")
    terminal.wait_for("^half$")
    Path("go").touch()
    terminal.wait_for("^halfway$")


def test_ctrl_c_once_leaves_the_task_running(terminal: Terminal, lab: Lab) -> None:
    terminal.type("scitq -f lab.scitq run --shell 'printf begun; sleep 60'; echo code $?")
    terminal.wait_for("^begun$")
    terminal.press("C-c")
    screen = terminal.wait_for("^code 130$")

    assert "goes on" in screen and "scitq task output -f 1" in screen and "scitq up" in screen
    assert lab.json("task", "show", "1")["status"] == "running"


def test_ctrl_c_twice_cancels_the_task(terminal: Terminal, lab: Lab) -> None:
    terminal.type("scitq -f lab.scitq run --shell 'printf begun; sleep 60'; echo code $?")
    terminal.wait_for("^begun$")
    terminal.press("C-c")
    terminal.wait_for("Ctrl-C again")
    terminal.press("C-c")
    terminal.wait_for("^code 130$")

    assert lab.json("task", "show", "1")["status"] == "cancelled"


# --- launch ---------------------------------------------------------------------------------------------------------------------


def test_launch_prints_the_number_and_returns(lab: Lab) -> None:
    ended = lab.scitq(
        "-f", "lab.scitq", "launch", "-n", "a b", "-b", "x", "--retry", "2", "--priority", "3", "sleep", "60"
    )

    assert ended.stdout == b"1\n"
    assert b"Nobody drives lab.scitq: scitq up" in ended.stderr
    found = lab.json("task", "show", "a b")
    assert (found["status"], found["batch"], found["retry"], found["priority"]) == ("pending", "x", 2, 3)


def test_launch_requires_by_number_and_by_name(lab: Lab) -> None:
    for name in ("one", "two", "three"):
        lab.scitq("-f", "lab.scitq", "launch", "-n", name, "true")
    lab.scitq("launch", "-R", "1, two", "-R", "three", "true")
    lab.scitq("launch", "-R", "1 2", "true")

    assert [parent["id"] for parent in lab.json("task", "show", "4")["requires"]] == [1, 2, 3]
    assert [parent["id"] for parent in lab.json("task", "show", "5")["requires"]] == [1, 2]
    assert "no task is named 'four'" in lab.scitq("launch", "-R", "four", "true", code=1).stderr.decode()


def test_a_launched_task_takes_what_an_equal_one_left(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "run", "--use-cache", "echo", "fine")
    ended = lab.scitq("run", "--use-cache", "echo", "fine")

    assert ended.stdout == b"fine\n"
    assert "reused from 1 (same key)" in lab.json("task", "show", "2")["why"]
    lab.scitq("run", "--no-cache", "echo", "fine")
    assert "on local" in lab.json("task", "show", "3")["why"]


def test_containers_are_launched_with_the_letters_of_scitq_1(lab: Lab) -> None:
    """As `scitq-launch` of version 1 took them; the program of that name is `launch`."""
    image = "nvcr.io/nvidia/pytorch:23.05-py3"
    words = ["-d", image, "-O", "--gpus all", "nvidia-smi"]
    code = "import sys; from scitq.shell.cli import launch; sys.exit(launch())"
    old = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=lab.folder, env=lab.environ, capture_output=True, timeout=60
    )
    assert (old.returncode, old.stdout) == (0, b"1\n"), old.stderr
    lab.scitq("launch", *words[:4], "-O", "-v '/a b:/b'", "-u", "1000", "-g", "100", "nvidia-smi", "-L", "-O")
    lab.scitq("launch", "--container", image, "--container-options=--network none", "true")

    one, two, three = (lab.json("task", "show", str(id)) for id in (1, 2, 3))
    assert (one["container"], one["container_options"], one["command"]) == (image, ["--gpus", "all"], ["nvidia-smi"])
    assert two["container_options"] == ["--gpus", "all", "-v", "/a b:/b", "--user", "1000:100"]
    assert two["command"] == ["nvidia-smi", "-L", "-O"]
    assert (three["container"], three["container_options"]) == (image, ["--network", "none"])
    assert "options     --gpus all -v '/a b:/b'" in lab.out("task", "show", "2")


def test_another_user_without_a_container_is_sudos_affair(lab: Lab) -> None:
    def command(*words: str) -> list[str]:
        found: list[str] = lab.json("launch", "-t", *words)["command"]
        return found

    assert command("-u", "1000", "-g", "users", "id -u") == ["sudo", "-u#1000", "-gusers", "--", "id", "-u"]
    assert command("-u", "me", "--shell", "id | cat") == ["sudo", "-ume", "--", "sh", "-c", "id | cat"]
    assert b"-g needs -u" in lab.scitq("launch", "-t", "-d", "ubuntu", "-g", "100", "id", code=2).stderr
    assert b"give container= too" in lab.scitq("launch", "-O", "--gpus all", "id", code=1).stderr


def test_what_earlier_tries_changed_is_shown(lab: Lab) -> None:
    words = ["--run-timeout", "0.3", "--retry", "timed_out=1", "--retry-timeout", "2"]
    lab.scitq("run", *words, "sleep", "600", code=143)

    told = lab.out("task", "show", "1")
    assert "retry       timed_out 1; 1 used" in told and "raised      limit to 0.6 s, after it had timed out" in told
    assert lab.json("task", "show", "1")["raised"] == {"run_timeout": 0.6, "used": {"timed_out": 1}}
    assert "run_timeout" in lab.out("journal")


def test_engine_of_a_worker_s_containers_is_chosen(lab: Lab) -> None:
    lab.scitq("run", "true")
    assert "Containers are run by podman." in lab.out("worker", "update", "local", "--container-engine", "podman")
    assert lab.json("worker", "update", "local", "--container-engine", "auto")["container_engine"] == "auto"
    refused = lab.scitq("worker", "update", "local", "--container-engine", "lxc", code=2).stderr
    assert b"takes docker, podman, apptainer, singularity or auto" in refused


def test_container_is_edited_and_set_for_a_batch(lab: Lab) -> None:
    lab.scitq("batch", "set", "gpu", "-d", "debian", "-O", "--gpus 1")
    lab.scitq("launch", "-b", "gpu", "true")
    assert "container debian, container_options --gpus 1" in lab.out("batch", "list")
    found = lab.json("task", "update", "1", "-d", "ubuntu:24.04", "-O", "")
    assert (found["container"], found["container_options"], found["gpus"]) == ("ubuntu:24.04", [], None)
    assert lab.json("task", "update", "1", "-d", "")["container"] is None


def test_retries_are_limited_by_cause_and_shown(lab: Lab) -> None:
    words = ["--retry", "timed_out=2,exit:1=1,exit:137=3,any=1", "--retry-memory", "2", "--retry-timeout", "1.5"]
    limits = {"timed_out": 2, "exit": {"1": 1, "137": 3}, "any": 1}
    lab.scitq("launch", *words, "--memory", "1G", "--run-timeout", "60", "true")

    found = lab.json("task", "show", "1")
    assert (found["retry"], found["retry_memory"], found["retry_timeout"]) == (limits, 2.0, 1.5)
    told = lab.out("task", "show", "1")
    assert "retry       timed_out 2, exit 1 1, exit 137 3, any 1; 0 used" in told
    assert "2 times the memory after a try that had too little" in told
    lab.scitq("batch", "set", "qc", "--retry", "exit=2")
    assert "retry exit=2" in lab.out("batch", "list")
    assert lab.json("task", "update", "1", "--retry", "4")["retry"] == 4
    for wrong, problem in (
        ("x", b"not understood"), ("exit:1", b"not understood"), ("timed_out:1=2", b"not understood"),
        ("sometimes=2", b"no cause"), ("exit=1,exit:2=1", b"for all codes"), ("exit:0=1", b"from 1 to 255"),
    ):  # fmt: skip
        assert problem in lab.scitq("launch", "--retry", wrong, "true", code=1).stderr


def test_launch_rehearses(lab: Lab) -> None:
    found = lab.json("-f", "lab.scitq", "launch", "-t", "-n", "x", "echo a b")

    assert (found["name"], found["command"]) == ("x", "echo a b")
    assert lab.json("task", "list") == []


def test_launch_drives_when_asked(lab: Lab) -> None:
    ended = lab.scitq("-f", "lab.scitq", "launch", "--drive", "--shell", "exit 5", code=5)

    assert ended.stdout == b"1\n"
    assert json.loads(lab.scitq("--json", "task", "show", "1").stdout)["status"] == "failed"
