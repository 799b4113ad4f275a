"""The debug dialogue in a real terminal and in a pipe: what is said, and what it makes of the state file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.states import TaskState
from scitq.store import debugging, workflows
from tests.workflow.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
WAIT_S = 60.0
HEAD = """
from scitq.workflow import Workflow
wf = Workflow("qc", debug=True, shell=True, retry=2, file="lab.scitq")
"""
CHAIN = """
first = wf.step("first", "echo out-1; echo err-1 >&2; echo data > $OUTPUT/a", name="one")
other = wf.step("first", "echo out-2", name="two")
after = wf.step("after", "cat $INPUT/a", name="three", input=first.output)
print(wf.run())
"""


@pytest.fixture
def folder(tmp_path: Path, workers_may_linger: None) -> Path:
    """Where scripts run."""
    return tmp_path


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}


def debug(folder: Path, text: str, columns: int, rows: int, **more: str) -> Terminal:
    """A script in a terminal."""
    (folder / "script.py").write_text(HEAD + text)
    words = [sys.executable, "script.py"]
    return Terminal(words, folder=folder, environ={**environ(), **more}, columns=columns, rows=rows)


@pytest.fixture
def file(folder: Path) -> Iterator[Engine]:
    """The state file, only to be looked at."""
    with Engine(folder / "lab.scitq", drive=False) as engine:
        yield engine


def states(engine: Engine) -> dict[str | None, str]:
    return {row.name: row.state.word for row in engine.rows()}


def tries(engine: Engine, name: str) -> int:
    return len(engine.task(name).executions)


def test_one_at_a_time_and_what_the_last_success_made_possible_comes_first(folder: Path, file: Engine) -> None:
    with debug(folder, CHAIN, columns=100, rows=60) as terminal:
        terminal.wait_for(r"Task 1 'one' of qc.first")
        terminal.wait_for(r"Run it\? \[Y\]es, \[n\] another, \[q\]uit, \[x\] normal mode:")
        assert states(file) == {"one": "debug", "two": "debug", "three": "debug"}
        terminal.press("enter")
        terminal.wait_for(r"Go on\? \[C\]ontinue, \[r\]un it again, \[q\]uit, \[x\] normal mode:")
        assert states(file) == {"one": "succeeded", "two": "debug", "three": "debug"}
        assert b"\x1b[34mout-1" in terminal.written
        assert b"\x1b[31merr-1" in terminal.written
        assert file.task("one").row().spec.retry == 0
        assert file.task("two").row().spec.retry == 2
        terminal.type("r\r")
        terminal.wait_until(lambda: tries(file, "one") == 2 and states(file)["one"] == "succeeded")
        terminal.wait_for(lambda lines: "\n".join(lines).count("Go on?") == 2)
        terminal.type("c\r")
        terminal.wait_for(r"Task 3 'three' of qc.after(.|\n)*Run it")
        terminal.press("enter")
        terminal.wait_until(lambda: states(file) == {"one": "succeeded", "two": "debug", "three": "succeeded"})
        terminal.wait_for(lambda lines: "\n".join(lines).count("Go on?") == 3)
        terminal.press("enter")
        terminal.wait_for(r"Task 2 'two' of qc.first(.|\n)*Run it")
        terminal.type("y\r")
        terminal.wait_for(lambda lines: "\n".join(lines).count("Go on?") == 4)
        terminal.press("enter")
        terminal.wait_for("Nothing is left to run.")
        assert terminal.wait_end() == 0
    assert set(states(file).values()) == {"succeeded"}


FAILING = """
bad = wf.step("first", "echo no; exit 3", name="bad")
wf.step("after", "echo fine", name="after", required_tasks=bad)
wf.step("first", "exit 4", name="worse")
wf.run()
"""


def test_what_fails_is_run_again_edited_or_skipped(folder: Path, file: Engine) -> None:
    with debug(folder, FAILING, columns=100, rows=70) as terminal:
        asked = 0

        def answer(text: str) -> None:
            nonlocal asked
            asked += 1
            terminal.wait_for(lambda lines: "\n".join(lines).count("again? [Y]es") == asked)
            terminal.type(text)

        terminal.wait_for("Run it")
        terminal.press("enter")
        answer("\r")
        terminal.wait_until(lambda: tries(file, "bad") == 2 and states(file)["bad"] == "failed")
        answer("e\r")
        terminal.wait_for("Enter ends, Ctrl-C leaves it as it was")
        terminal.wait_for(r"> echo no; exit 3")
        terminal.press("backspace")
        terminal.type("0\r")
        terminal.wait_until(lambda: states(file)["bad"] == "succeeded")
        assert file.task("bad").row().spec.command == "echo no; exit 0"
        assert tries(file, "bad") == 3
        terminal.wait_for("Go on")
        terminal.press("enter")
        terminal.wait_for(r"Task 2 'after'(.|\n)*Run it")
        terminal.type("n\r")
        terminal.wait_for(r"1  2  after  echo fine")
        terminal.wait_for(r"2  3  worse  exit 4")
        terminal.wait_for("Which one")
        terminal.type("2\r")
        answer("s\r")
        assert states(file) == {"bad": "succeeded", "after": "debug", "worse": "failed"}
        terminal.wait_for(r"Task 2 'after'(.|\n)*Which one(.|\n)*Task 2 'after'(.|\n)*Run it")
        terminal.type("q\r")
        terminal.wait_for("1 task waits for the next session")
        assert terminal.wait_end() == 1
    assert states(file) == {"bad": "succeeded", "after": "debug", "worse": "failed"}

    with debug(folder, FAILING, columns=100, rows=70) as terminal:  # nor is it asked about in the next session
        terminal.wait_for(r"Task 2 'after'(.|\n)*Run it")
        assert states(file) == {"bad": "succeeded", "after": "debug", "worse": "failed"}
        terminal.type("n\r")
        terminal.wait_for(r"2  3  worse  exit 4  \(failed, skipped\)")
        terminal.wait_for("Which one")
        terminal.type("2\r")  # but it may be wanted
        terminal.wait_for(r"again\? \[Y\]es")
        assert tries(file, "worse") == 2 and not debugging.is_skipped(file._reader(), file.task("worse").id)
        terminal.type("q\r")
        assert terminal.wait_end() == 1


LONG = """
one = wf.step("first", "touch in; until [ -e go ]; do sleep 0.1; done", name="one")
wf.step("after", "echo fine", name="two", required_tasks=one)
wf.step("after", "exit 7", name="three", required_tasks=one)
wf.run()
"""


def test_ctrl_c_and_kill_9_leave_what_runs_running_and_the_next_session_goes_on(folder: Path, file: Engine) -> None:
    with debug(folder, LONG, columns=100, rows=40) as terminal:
        terminal.wait_for("Run it")
        terminal.press("enter")
        terminal.wait_until(lambda: states(file)["one"] == "running")
        terminal.press("c-c")
        terminal.wait_for(r"Task 1 goes on, nothing else is launched. \[C\] go on, \[k\] cancel it, \[q\]uit")
        terminal.press("enter")
        terminal.signal(signal.SIGKILL)
        terminal.wait_end()
    assert states(file) == {"one": "running", "two": "debug", "three": "debug"}
    with debug(folder, LONG, columns=100, rows=40) as terminal:
        terminal.wait_for("has been launched already")
        (folder / "go").touch()
        terminal.wait_for("Go on")
        assert (tries(file, "one"), states(file)["one"]) == (1, "succeeded")
        terminal.press("c-c")
        terminal.wait_for("Nothing is launched.")
        terminal.press("enter")
        terminal.wait_for(r"Task 2 'two'(.|\n)*Run it")
        terminal.type("x\r")
        terminal.wait_for("Normal mode: 2 tasks go on without questions")
        terminal.wait_until(lambda: states(file) == {"one": "succeeded", "two": "succeeded", "three": "failed"})
        terminal.wait_end()
    assert tries(file, "three") == 3  # with the retries that it was declared with


ODD = """
wf.step("first", "printf 'evil\\\\033]0;title\\\\007\\\\n'; touch in; sleep 600", name="\\x1b[2Jñandú 漢字")
wf.step("first", "true", name="gone")
wf.run()
"""


def test_ctrl_c_can_cancel_names_are_harmless_and_nothing_is_coloured_where_that_is_not_wanted(
    folder: Path, file: Engine
) -> None:
    with debug(folder, ODD, columns=100, rows=40, NO_COLOR="1") as terminal:
        terminal.wait_for(r"Task 1 '\\x1b\[2Jñandú 漢字?.*' of qc.first(.|\n)*Run it")
        terminal.press("enter")
        terminal.wait_for(r"evil\\x1b\]0;title")
        terminal.press("c-c")
        terminal.wait_for("nothing else is launched")
        terminal.press("enter")
        terminal.wait_for(lambda lines: "\n".join(lines).count("is running on local") == 2)
        terminal.press("c-c")
        terminal.wait_for(lambda lines: "\n".join(lines).count("nothing else is launched") == 2)
        assert terminal.written.count(b"evil\\x1b]0;title") == 1  # what was shown is not shown again
        terminal.type("k\r")
        terminal.wait_until(lambda: file.task(1).status == "cancelled")
        terminal.wait_for("Run it again")
        file.task("gone").cancel()
        file.task("gone").delete()
        terminal.type("s\r")
        terminal.wait_for("Nothing is left to run")
        terminal.wait_end()
    assert b"\x1b[34m" not in terminal.written and b"title\x07" not in terminal.written
    assert file.task(1).status == "cancelled"


MANY = """
for n in range(45):
    wf.step("many", f"echo {n}", name=f"n{n}")
wf.run()
"""


def test_in_a_pipe_answers_are_lines_and_nothing_commands_a_terminal(folder: Path, file: Engine) -> None:
    (folder / "script.py").write_text(HEAD + MANY)
    answers = "n\nm\nm\nbogus\n43\nr\nc\nn\n1\n"
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environ(),
        input=answers.encode(),
        capture_output=True,
        timeout=90,
    )
    said = ended.stdout.decode()
    assert ended.returncode == 1, ended.stderr
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    assert "\x1b" not in said
    assert "  20  20  n19  echo 19\n" in said
    assert "  41  41  n40  echo 40\n" in said
    assert "'bogus' is none of" in said
    assert "[1] or another number, [m]ore (of 45), [q]uit, [x] normal mode: " in said
    assert "There is nobody to answer. 43 tasks wait for the next session: run the script again." in said
    assert {name for name, state in states(file).items() if state == "succeeded"} == {"n42", "n0"}
    assert tries(file, "n42") == 2


def test_a_dead_end_is_said(folder: Path, file: Engine) -> None:
    (folder / "script.py").write_text(HEAD + FAILING)
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environ(),
        input=b"y\ns\ny\ns\n",
        capture_output=True,
        timeout=90,
    )
    said = ended.stdout.decode()
    assert ended.returncode == 1, ended.stderr
    assert (
        "Dead end: 1 task remains, but what it requires has not succeeded (1 'bad' failed, 3 'worse' failed)." in said
    )
    assert states(file) == {"bad": "failed", "after": "debug", "worse": "failed"}


def test_what_waits_for_a_session_is_released_as_it_stands(file: Engine) -> None:
    from tests.workflow.declared import declare

    made = declare(file, "qc", {"a": ["true", "false"], "b": ["true"]})
    good, bad = made["a"]
    child = file.submit("true", batch="qc.b", requires=[bad])
    [lone] = made["b"]
    waits = file.submit("true", batch="qc.b", requires=[good])
    number = workflows.get(file._reader(), "qc").id

    def hold(db: object) -> None:
        from scitq.store import tasks

        for task in (child, lone, waits):
            tasks.hold_for_debug(db, 1, task.id)  # type: ignore[arg-type]
        tasks.cancel(db, 1, bad.id)  # type: ignore[arg-type]

    file._write(hold)
    assert lone.pause() == "debug"
    assert debugging.left(file._reader(), number) == 3
    assert debugging.offer(file._reader(), number) == ([lone.id], [bad.id], [])
    assert file._write(lambda db: debugging.release(db, 2, number)) == 3
    assert [task.state for task in (child, lone, waits)] == [TaskState.BLOCKED, TaskState.PENDING, TaskState.WAITING]
    assert "cancelled" in (child.row().reason or "")
    assert file.check() == []
