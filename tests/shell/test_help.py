"""`scitq help`, and what it says of exit codes: each of them is the code of a real command here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable

import pytest

from scitq.shell import cli
from scitq.shell.schemas import DIALECT
from scitq.shell.table import COMMANDS
from scitq.shell.table.codes import EXIT_CODES, FETCH_CODES
from tests.shell.conftest import PROGRAM, Lab
from tests.shell.here import Place


def test_help_lists_all_commands_and_names_none_that_is_hidden(place: Place) -> None:
    text = place.run("scitq help").out

    for row in COMMANDS:
        head, _, verb = row.path.partition(" ")
        lines = re.findall(rf"^  {head}\b.*(?:\n {{12}}.*)*", text, re.MULTILINE) if verb else [text]
        assert row.hidden or any(re.search(rf"\b{verb or head}\b", line) for line in lines), row.path
    assert "host-side" not in text and "host-side" not in place.run("scitq --help").out
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", ["task list", "task", "task ls", "fetch copy"])
def test_help_of_a_command_is_what_it_says_of_itself(words: str, place: Place) -> None:
    said = place.run(f"scitq help {words}").out

    assert said == place.run(f"scitq {words} --help").out and said.startswith("Usage: scitq")


def test_help_of_what_is_mistyped_names_what_is_near(place: Place) -> None:
    assert "Did you mean: scitq task list" in place.run("scitq help task lst").err
    assert "scitq task list has no now" in place.run("scitq help task list now").err
    assert "Did you mean: scitq help --schema task list" in place.run("scitq help --schema task lst").err
    assert "which command of task? task list, task show" in place.run("scitq help --schema task").err


@pytest.mark.parametrize("words", ["task list", "tasks", "task ls"])
def test_schema_is_that_of_the_command_or_of_its_name(words: str, place: Place) -> None:
    found = json.loads(place.run(f"scitq help --schema {words}").out)

    assert found["$schema"] == DIALECT and found["title"] == "Tasks" and "task" in found["$defs"]


# --- exit codes -----------------------------------------------------------------------------------------------------------------


def test_exit_codes_are_told_from_one_table(place: Place) -> None:
    text = " ".join(place.run("scitq help exit-codes").out.split())

    for code, meaning in (*EXIT_CODES, *FETCH_CODES):
        assert f"{code} {meaning.replace('`', '')}" in text
    assert "  9  the connection or the server failed: try again" in place.run("scitq fetch --help").out


def _interrupted(number: int) -> Callable[[Lab], int]:
    def code(lab: Lab) -> int:
        child = lab.start("run", "--", "sh", "-c", "echo there; sleep 600")
        assert child.stdout is not None and child.stdout.readline() == b"there\n"
        child.send_signal(number)
        return child.wait(60)

    return code


def _unread(lab: Lab) -> int:
    pipe, theirs = os.pipe()
    os.close(pipe)
    ended = subprocess.run([*PROGRAM, "help"], cwd=lab.folder, env=lab.environ, stdout=theirs, timeout=60)
    os.close(theirs)
    return ended.returncode


def _code(*words: str) -> Callable[[Lab], int]:
    return lambda lab: lab.scitq(*words, code=None).returncode


def _here(*words: str) -> Callable[[Lab], int]:
    return lambda lab: cli.run(cli.program(), list(words), "scitq")


# Of 70 a mistake of ours is the only cause: tests/shell/test_shell.py makes one.
SHOWN: list[tuple[int, Callable[[Lab], int]]] = [
    (0, _here("help")),
    (1, _here("task", "show", "1")),
    (2, _here("task", "list", "--limit", "many")),
    (3, _code("up", "--until-done")),
    (130, _interrupted(signal.SIGINT)),
    (141, _unread),
    (143, _interrupted(signal.SIGTERM)),
    (7, _code("run", "--", "sh", "-c", "exit 7")),
    (128 + 9, _code("run", "--", "sh", "-c", "kill -9 $$")),
]


@pytest.mark.parametrize(("wanted", "code"), SHOWN, ids=[str(wanted) for wanted, _ in SHOWN])
def test_exit_code_is_that_of_a_command(wanted: int, code: Callable[[Lab], int], place: Place) -> None:
    if wanted == 3:
        place.run("scitq launch -n index true")
        place.run("scitq task pause index")

    assert code(place.lab) == wanted
    assert {str(number) for number, _ in SHOWN if number not in (7, 137)} | {"70", "other"} == {
        one for one, _ in EXIT_CODES
    }
