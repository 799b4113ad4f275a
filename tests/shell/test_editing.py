"""`scitq task pause|resume|delete|update …` and `--where`: what is shown, what is asked, what is done."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

import scitq
from scitq.engine import Engine
from scitq.handle import Task
from scitq.states import TaskState
from tests.shell.conftest import Lab
from tests.shell.tmux import Terminal


@pytest.fixture
def queued(lab: Lab) -> Lab:
    """Twelve tasks of batch a, named a1…a12, and one of batch b; nobody drives."""
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        for number in range(1, 13):
            engine.submit(["sleep", "60"], batch="a", name=f"a{number}")
        engine.submit(["true"], batch="b", name="b1")
    return lab


def states(lab: Lab) -> list[str]:
    return [task["status"] for task in lab.json("task", "list", "--limit", "0")]


def wait_until(engine: Engine, task: Task, state: TaskState) -> None:
    deadline = time.monotonic() + 30
    while task.state is not state:
        assert time.monotonic() < deadline, task.why()
        engine._changes.wait(engine._changes.count, 0.1)


# --- by number or name ------------------------------------------------------------------------------------------------------------


def test_queued_task_is_paused_and_goes_on(queued: Lab) -> None:
    assert queued.out("task", "pause", "a1", "2") == "1 'a1' is paused\n2 'a2' is paused\n"
    assert states(queued)[:3] == ["paused", "paused", "pending"]
    assert queued.out("task", "resume", "-n", "a1") == "1 'a1' is pending again\n"

    refused = queued.scitq("task", "resume", "3", "2", code=1)
    assert b"3 'a3' is not paused: it is pending" in refused.stderr and b"2 'a2' is pending again" in refused.stdout
    queued.scitq("task", "cancel", "4")
    assert b"has ended already: it was cancelled" in queued.scitq("task", "pause", "4", code=1).stderr


def test_running_task_is_stopped_where_it_is_and_goes_on(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", "echo up; while ! test -e go; do sleep 0.05; done; echo on")
    assert child.stdout is not None and child.stdout.readline() == b"up\n"

    assert "is asked to stop where it is" in lab.out("task", "pause", "1")
    assert "stopped where it is" in lab.out("task", "list")
    (lab.folder / "go").touch()
    assert lab.out("task", "resume", "1").endswith("goes on\n")
    assert child.communicate(timeout=30)[0] == b"on\n"
    assert child.returncode == 0


def test_deleting_asks_and_without_a_terminal_wants_a_yes(queued: Lab) -> None:
    refused = queued.scitq("task", "delete", "1", "a2", code=2)

    assert refused.stdout == b""
    assert b"2 tasks: 2 pending. All are deleted with all history" in refused.stderr
    assert re.search(rb"^ *2 +a2 ", refused.stderr, re.MULTILINE)
    assert b"there is no terminal to ask on. To do it: --yes" in refused.stderr
    assert json.loads(queued.scitq("--json", "task", "delete", "1", code=2).stderr)["error"].startswith(
        "Delete 1 task?"
    )
    assert len(states(queued)) == 13

    assert queued.out("task", "delete", "1", "a2", "--yes") == "2 tasks deleted.\n"
    assert len(states(queued)) == 11
    assert b"no task 1" in queued.scitq("task", "show", "1", code=1).stderr


def test_what_is_on_a_worker_is_not_deleted(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", "echo up; sleep 60")
    assert child.stdout is not None and child.stdout.readline() == b"up\n"

    refused = lab.scitq("task", "delete", "1", "--yes", code=1)

    assert b"on a worker: nothing was deleted. Cancel" in refused.stderr
    assert states(lab) == ["running"]
    lab.scitq("task", "cancel", "1")
    child.communicate(timeout=30)
    lab.scitq("task", "delete", "1", "--yes")
    assert states(lab) == []


def test_what_another_task_waits_for_is_not_deleted(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit(["true"], requires=engine.submit(["true"]))

    assert b"2 'true' requires 1 'true'" in lab.scitq("task", "delete", "1", "--yes", code=1).stderr
    assert lab.out("task", "delete", "1", "2", "--yes") == "2 tasks deleted.\n"


# --- by a condition ---------------------------------------------------------------------------------------------------------------


def test_list_takes_a_condition(queued: Lab) -> None:
    def ids(*words: str) -> list[int]:
        return [task["id"] for task in queued.json("task", "list", *words)]

    assert ids("--where", "batch = 'a' and id > 10") == [11, 12]
    assert ids("--where", "id > 10", "-b", "b") == ids("--where", "id > 10", "-S", "pending", "--limit", "1") == [13]
    assert ids("--where", "id > 10", "-S", "failed") == []
    assert b"no such column: colour" in queued.scitq("task", "list", "--where", "colour = 1", code=1).stderr
    assert b"Did you mean" in queued.scitq("task", "list", "--where", "id > 1", "-S", "runing", code=2).stderr


def test_many_are_shown_before_anything_is_done(queued: Lab) -> None:
    refused = queued.scitq("task", "cancel", "--where", "batch = 'a'", code=2)

    shown = refused.stderr.decode()
    assert shown.startswith("12 tasks: 12 pending. All are cancelled.\n")
    assert "\n10  a10 " in shown and "a11" not in shown and "… and 2 more" in shown
    assert states(queued) == ["pending"] * 13


def test_many_are_done_with_a_yes(queued: Lab) -> None:
    assert queued.json("task", "pause", "-y", "--where", "batch = 'a'") == {"matched": 12, "done": 12}
    assert states(queued) == ["paused"] * 12 + ["pending"]
    queued.scitq("task", "resume", "-y", "--where", "id <= 6")
    said = queued.scitq("task", "cancel", "-y", "--where", "id <= 3")
    assert said.stdout == b"3 tasks cancelled.\n"
    said = queued.scitq("task", "relaunch", "-y", "--where", "id <= 5")
    assert (
        b"5 tasks: 2 pending, 3 cancelled. 3 are queued once more, and what was blocked by that goes on; 2 are left"
        in said.stderr
    )
    assert said.stdout == b"3 tasks queued once more. 2 left as before.\n"
    assert b"Nobody drives" in said.stderr
    assert queued.out("task", "delete", "-y", "--where", "state = 'paused'") == "6 tasks deleted.\n"
    assert states(queued) == ["pending"] * 7


def test_nothing_to_do_is_said_and_nobody_is_asked(queued: Lab) -> None:
    nothing = queued.scitq("task", "relaunch", "--where", "id > 99")
    none_able = queued.scitq("task", "relaunch", "--where", "id < 3")

    assert nothing.stderr == b"No task meets that condition.\n"
    assert none_able.stderr == b"Nothing to relaunch: 2 pending.\n"
    assert (nothing.stdout, none_able.stdout) == (b"", b"")


def test_condition_and_numbers_do_not_mix(queued: Lab) -> None:
    for verb in ("relaunch", "cancel", "pause", "resume", "delete"):
        assert b"either tasks" in queued.scitq("task", verb, "1", "--yes", "--where", "id = 1", code=2).stderr
    assert b"either tasks" in queued.scitq("task", "update", "1", "--priority", "1", "--where", "id=1", code=2).stderr


def test_many_are_edited(queued: Lab) -> None:
    words = ["task", "update", "--where", "batch = 'a'", "--memory", "2G", "--cpus", "1.5", "-c", "echo 'a b'"]
    shown = queued.scitq(*words, code=2).stderr
    assert b"All are edited (command, cpus, memory)." in shown
    assert queued.out(*words, "--yes") == "12 tasks edited.\n"

    found = queued.json("task", "show", "a7")
    assert (found["memory"], found["cpus"], found["gpus"], found["command"]) == (2_000_000_000, 1.5, None, "echo 'a b'")
    assert re.search(r"^asks for +1.5 CPUs, 2 GB$", queued.out("task", "show", "7"), re.MULTILINE)


def test_request_is_taken_back_with_zero(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "--cpus", "2", "--memory", "1G", "true")

    lab.scitq("task", "update", "1", "--cpus", "0", "--memory", "0")

    assert "asks for" not in lab.out("task", "show", "1")


def test_wrong_edit_is_told_before_anybody_is_asked(queued: Lab) -> None:
    refused = queued.scitq("task", "update", "--where", "id > 1", "--memory", "lots", code=1)

    assert b"memory must be" in refused.stderr and b"12 tasks" not in refused.stderr


def test_edit_of_what_a_worker_holds_says_when_it_is_made(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq") as engine:
        first = engine.submit(["sleep", "60"])
        wait_until(engine, first, TaskState.RUNNING)
        slots = engine.update_worker("local", prefetch=4).concurrency
        for more in engine.submit_many([["sleep", "60"]] * (slots - 1)):
            wait_until(engine, more, TaskState.RUNNING)
        held = engine.submit(["false"])
        wait_until(engine, held, TaskState.ASSIGNED)
        id = str(held.id)
    said = lab.scitq("task", "update", id, "-c", "true", code=1)
    assert b"'false' is held by a worker, and nobody drives the file to ask it" in said.stdout

    driver = lab.start("up")
    deadline = time.monotonic() + 30
    while lab.json("task", "show", id)["command"] != ["true"]:
        assert time.monotonic() < deadline
    lab.scitq("task", "cancel", "1")
    lab.scitq("task", "output", "-f", id)
    assert lab.json("task", "show", id)["status"] == "succeeded"
    lab.scitq("task", "cancel", "--yes", "--where", "state = 'running'")
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=30)


# --- on a terminal ----------------------------------------------------------------------------------------------------------------


def test_terminal_is_asked(queued: Lab, terminal: Terminal) -> None:
    terminal.type("scitq task cancel --where \"batch='a'\"")
    screen = terminal.wait_for(r"Cancel 12 tasks\? \[y/N\]")
    assert "12 tasks: 12 pending" in screen and "… and 2 more" in screen
    terminal.type("")
    terminal.wait_for("^Nothing was done")
    assert states(queued) == ["pending"] * 13

    terminal.type("clear; sleep 1; scitq task delete b1")
    terminal.type("y")  # before the question: no answer to it, or the answer to nothing
    terminal.wait_for(r"Delete 1 task\? \[y/N\]")
    assert len(states(queued)) == 13
    terminal.type("y")
    terminal.wait_for("^1 task deleted")
    assert len(states(queued)) == 12


def test_interrupt_at_the_question_does_nothing(queued: Lab, terminal: Terminal) -> None:
    terminal.type("scitq task delete 1; echo code $?")
    terminal.wait_for(r"Delete 1 task\? \[y/N\]")
    terminal.press("C-c")
    terminal.wait_for("^code 130")
    assert len(states(queued)) == 13


# --- requests ---------------------------------------------------------------------------------------------------------------------


def test_requests_are_given_at_submission(lab: Lab, tmp_path: Path) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "--cpus", "0.5", "--memory", "100M", "--gpus", "0", "true")
    lab.scitq("run", "--memory", "10M", "--", "true")
    said = lab.out("launch", "-t", "--cpus", "2", "true")

    assert "cpus        2.0" in said
    first, second = lab.json("task", "list")
    assert (first["cpus"], first["memory"]) == (0.5, 100_000_000)
    [worker] = lab.json("worker", "list")
    assert lab.json("task", "show", "2")["limits_reason"] == worker["limits_reason"]
    lab.scitq("worker", "update", "local", "--limits", "off")
    assert re.search(r"^not held to +all of it on local: switched off$", lab.out("task", "show", "2"), re.MULTILINE)
    assert second["memory"] == 10_000_000 and second["peak_memory"] and second["cpu_s"] is not None
    assert b"memory must be" in lab.scitq("launch", "--memory", "much", "true", code=1).stderr


# --- the same edit in many commands -------------------------------------------------------------------------------------------


def commands(lab: Lab) -> list[list[str]]:
    return [task["command"] for task in lab.json("task", "list", "--limit", "0")]


def test_words_are_replaced_in_the_commands_of_many_after_a_look_at_the_difference(queued: Lab) -> None:
    words = ("task", "update", "--where", "state = 'pending'", "--replace", "60", "-90")

    refused = queued.scitq(*words, code=2).stderr.decode()
    assert (
        "-sleep 60\n  +sleep -90" in refused and "… and 9 tasks more" in refused and "no terminal to ask on" in refused
    )
    assert "12 tasks: 12 pending. All are edited (command)." in refused
    assert ["sleep", "-90"] not in commands(queued)

    assert queued.out(*words, "--yes") == "12 tasks edited.\n"
    assert commands(queued) == [["sleep", "-90"]] * 12 + [["true"]]
    assert "'60' is in no command of 13 tasks" in queued.scitq(*words, "--yes", code=1).stderr.decode()
    assert queued.json("task", "update", "1", "b1", "--replace", "e", "é") == {"matched": 2, "done": 2}
    assert [commands(queued)[0], commands(queued)[-1]] == [["sléép", "-90"], ["trué"]]


def test_edit_that_is_interrupted_is_whole_for_each_thousand(lab: Lab) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["echo", "a"]] * 2500)
        chosen, looks = engine.where("1"), iter([False, False, True])
        chosen.is_stopped = lambda: next(looks)

        assert chosen.update(replace=("a", "b")) == 2000
        assert len(engine.where("1").holding("a")) == 500
