"""Every row of the command table has help, answers with JSON, and is found by whoever mistypes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scitq
from scitq.shell.commands import COMMANDS, Argument, Command
from tests.shell.conftest import Lab

# What to call each command with, so that it works on a file with tasks; {folder} is the lab's.
WORDS: dict[str, list[str]] = {
    "run": ["true"],
    "launch": ["true"],
    "up": ["--until-done"],
    "down": [],
    "status": [],
    "task list": [],
    "task show": ["1"],
    "task output": ["1"],
    "task why": ["1", "named"],
    "task stats": [],
    "task relaunch": ["1"],
    "task cancel": ["3"],
    "task pause": ["3"],
    "task resume": ["3"],
    "task delete": ["2", "--yes"],
    "task update": ["1", "-N", "renamed"],
    "cache list": [],
    "cache explain": ["1"],
    "cache forget": ["--all", "--yes"],
    "worker list": [],
    "worker show": ["local"],
    "worker update": ["local", "-C", "2"],
    "batch list": [],
    "batch pause": ["other"],
    "batch stop": ["-n", "other"],
    "batch suspend": ["other"],
    "batch go": ["other"],
    "batch cancel": ["default", "--yes"],
    "batch delete": ["other", "--yes"],
    "batch set": ["other", "--retry", "2"],
    "journal": [],
    "sql": ["select * from sqlite_schema"],
    "export": ["{folder}/tasks.csv"],
    "purge": ["--older-than", "0"],
    "check": [],
    "config rclone": [],
    "backup": ["{folder}/copy.scitq.bak"],
    "demo": [],
}
# These cannot work on a file without tasks and workers: they say so.
NEEDS_SOMETHING = {
    "cache explain",
    "cache forget",
    "task show",
    "task output",
    "task why",
    "task relaunch",
    "task cancel",
    "task pause",
    "task resume",
    "task delete",
    "task update",
    "worker show",
    "worker update",
    "batch pause",
    "batch stop",
    "batch suspend",
    "batch go",
    "batch cancel",
    "batch delete",
}
ROWS = [row for row in COMMANDS if row.path != "demo"]  # the demo makes its own file: test_demo


def test_every_row_is_tested_here() -> None:
    assert set(WORDS) == {row.path for row in COMMANDS}


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.path)
def test_row_is_complete(row: Command) -> None:
    assert callable(row.function())
    assert row.help.strip().endswith(".")
    names = [one.name for one in row.parameters]
    assert len(names) == len(set(names))
    for one in row.parameters:
        assert isinstance(one, Argument) or one.help


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.path)
def test_help_comes_at_once(row: Command, lab: Lab) -> None:
    text = lab.out(*row.path.split(), "--help")

    assert text.startswith(f"Usage: scitq {row.path}")
    assert "--json" in text
    assert os.listdir(lab.folder) == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_json_on_an_empty_file(row: Command, lab: Lab) -> None:
    scitq.open(lab.folder / "lab.scitq", drive=False).close()
    words = [word.format(folder=lab.folder) for word in WORDS[row.path]]

    if row.path in NEEDS_SOMETHING:
        ended = lab.scitq("--json", *row.path.split(), *words, code=1)
        assert ended.stdout == b""
        assert json.loads(ended.stderr)["error"].startswith("no ")
    else:
        lab.json(*row.path.split(), *words)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ended tasks, one of them failed, and one that nobody has started."""
    lab = Lab(tmp_path_factory.mktemp("filled"))
    lab.scitq("-f", "lab.scitq", "launch", "--shell", "echo out; echo err >&2")
    lab.scitq("launch", "-n", "named", "-b", "other", "false")
    lab.scitq("up", "--until-done", code=1)
    lab.scitq("launch", "-R", "1", "sleep", "60")
    lab.clean_up()
    return lab.folder


# Up and run stay; remotes are not in the file (test_data.py has some); results are known after a moment (test_caching.py).
APART = ("up", "run", "config rclone", "cache list", "cache forget")


@pytest.mark.parametrize("row", [row for row in ROWS if row.path not in APART], ids=lambda row: row.path)
def test_json_on_a_file_with_tasks(row: Command, lab: Lab, filled: Path) -> None:
    lab.copy(filled)
    if row.path == "task resume":
        lab.scitq("task", "pause", "3")
    words = [word.format(folder=lab.folder) for word in WORDS[row.path]]

    found = lab.json(*row.path.split(), *words)

    assert isinstance(found, dict | list)
    assert found


def test_help_is_quick(lab: Lab) -> None:
    """The budget is 150 ms, measured elsewhere; here: neither the engine nor rich is loaded for it."""
    code = "import sys; from scitq.shell import cli; cli.program(); print({'apsw', 'rich', 'scitq.engine'} & set(sys.modules))"

    ended = subprocess.run([sys.executable, "-c", code], env=lab.environ, capture_output=True, text=True, timeout=30)
    started = time.monotonic()
    lab.scitq("--help")

    assert ended.stdout.strip() == "set()", ended.stderr
    print(f"scitq --help: {time.monotonic() - started:.3f} s")


def test_mistyped_command_names_the_nearest(lab: Lab) -> None:
    for words, hint in (
        (["stauts"], "scitq status"),
        (["task", "lst"], "scitq task list"),
        (["relaunch", "3"], "scitq task relaunch"),
    ):
        ended = lab.scitq(*words, code=2)
        assert f"Did you mean: {hint}" in ended.stderr.decode()
        assert ended.stdout == b""


def test_usage_error_is_json_when_asked_for(lab: Lab) -> None:
    ended = lab.scitq("--json", "task", "list", "--limit", "many", code=2)

    assert "not a valid" in json.loads(ended.stderr)["error"]


def test_global_options_stand_before_or_after(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")

    before = lab.out("-f", "lab.scitq", "--json", "task", "list")
    between = lab.out("task", "--json", "list", "--file", "lab.scitq")
    after = lab.out("task", "list", "--json", "-f", "lab.scitq")

    assert json.loads(before)[0]["id"] == json.loads(between)[0]["id"] == json.loads(after)[0]["id"] == 1


def test_version(lab: Lab) -> None:
    from scitq._version import VERSION

    assert lab.out("--version") == f"scitq {VERSION}\n"
    assert lab.json("--version") == {"version": VERSION}


def test_completion_is_clicks_own(lab: Lab) -> None:
    script = lab.scitq(env={"_SCITQ_COMPLETE": "bash_source"}).stdout.decode()
    words = lab.scitq(
        env={"_SCITQ_COMPLETE": "bash_complete", "COMP_WORDS": "scitq task re", "COMP_CWORD": "2"}
    ).stdout.decode()

    assert "_SCITQ_COMPLETE=bash_complete" in script
    assert "relaunch" in words


def test_launch_has_a_program_of_its_own(lab: Lab) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from scitq.shell.cli import launch; launch()", "-f", "lab.scitq", "-n", "x", "--", "echo", "-n", "hi"],
        cwd=lab.folder, env=lab.environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ended.stdout == "1\n"
    assert lab.json("task", "show", "x")["command"] == ["echo", "-n", "hi"]


def test_looking_makes_no_file(lab: Lab) -> None:
    for words in (["status"], ["task", "list"], ["-f", "none.scitq", "journal"]):
        ended = lab.scitq(*words, code=1)
        assert b"no" in ended.stderr and b"launch" in ended.stderr
    assert os.listdir(lab.folder) == []


def test_file_is_found_from_below_and_by_the_environment(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")
    below = lab.folder / "a" / "b"
    below.mkdir(parents=True)

    assert json.loads(lab.scitq("task", "list", "--json", cwd=below).stdout)[0]["id"] == 1
    elsewhere = lab.scitq("task", "list", "--json", cwd="/", env={"SCITQ_FILE": str(lab.folder / "lab.scitq")})
    assert json.loads(elsewhere.stdout)[0]["id"] == 1


@pytest.mark.promise("core 11.18")
def test_first_task_makes_the_file_and_says_so(lab: Lab) -> None:
    ended = lab.scitq("launch", "true")

    assert b"scitq.scitq" in ended.stderr
    assert (lab.folder / "scitq.scitq").exists()


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be one" * 100, b"SQLite format 3\0" + bytes(5000)]
)
def test_foreign_file_is_one_sentence(lab: Lab, content: bytes) -> None:
    path = lab.folder / "foreign.scitq"
    path.write_bytes(content)

    ended = lab.scitq("-f", str(path), "status", code=1)

    assert "foreign.scitq" in ended.stderr.decode()
    assert path.read_bytes() == content


def test_a_reader_that_has_seen_enough_is_no_error(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")
    pipe = f"{sys.executable} -m scitq journal -f | true; {sys.executable} -m scitq task list | true"

    ended = subprocess.run(
        ["sh", "-c", pipe], cwd=lab.folder, env=lab.environ, capture_output=True, timeout=60, start_new_session=True
    )

    assert ended.stderr == b""
