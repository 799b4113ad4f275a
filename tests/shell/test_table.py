"""Every row of the command table has help, answers with JSON, and is found by whoever mistypes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

import scitq
from scitq.shell.table import COMMANDS, Argument, Command
from scitq.shell.table.rows import TAKES
from tests.shell.conftest import Lab
from tests.shell.here import Place
from tests.shell.schemas import conforms, values

# Looked at where there is nothing: those that neither make a file nor drive it, nor stay.
LOOKING = [
    row for row in COMMANDS if row.file == "there" and not row.drives and not row.terminal and row.path != "promote"
]


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.path)
def test_row_is_complete(row: Command) -> None:
    assert callable(row.function())
    assert row.help.strip().endswith(".")
    names = [one.name for one in row.parameters]
    assert len(names) == len(set(names))
    for one in row.parameters:
        assert isinstance(one, Argument) or one.help
        assert one.takes in (None, *TAKES) or str(one.takes).startswith("words:")


def test_no_two_commands_answer_to_one_name() -> None:
    names = [
        " ".join([*row.path.split()[:-1], one]) for row in COMMANDS for one in (row.path.split()[-1], *row.aliases)
    ]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.path)
def test_help_comes_at_once(row: Command, place: Place) -> None:
    found = place.run(f"scitq {row.path} --help")

    assert found.code == 0 and found.out.startswith(f"Usage: scitq {row.path}")
    assert "--json" in found.out
    assert all(line in found.out for line in row.examples), "an example is folded"
    assert os.listdir(place.lab.folder) == []


@pytest.mark.parametrize("row", LOOKING, ids=lambda row: row.path)
def test_json_on_an_empty_file(row: Command, place: Place) -> None:
    scitq.open(place.lab.folder / "lab.scitq", drive=False).close()
    for line in row.examples:
        found = place.run(line, "--json")
        if found.code:
            assert found.out == ""
            assert json.loads(found.err)["error"]
        else:
            for value in values(found.out):
                conforms(row.path, value)


def test_help_is_quick(lab: Lab) -> None:
    """The budget is 150 ms, measured elsewhere; here: neither the engine nor rich is loaded for it."""
    code = "import sys; from scitq.shell import cli; cli.program(); print({'apsw', 'rich', 'scitq.engine'} & set(sys.modules))"

    ended = subprocess.run([sys.executable, "-c", code], env=lab.environ, capture_output=True, text=True, timeout=30)
    started = time.monotonic()
    lab.scitq("--help")

    assert ended.stdout.strip() == "set()", ended.stderr
    print(f"scitq --help: {time.monotonic() - started:.3f} s")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("stauts", "there is no command 'stauts'. Did you mean: scitq status"),
        ("tsak list", "Did you mean: scitq task"),
        ("task lst", "Did you mean: scitq task list"),
        ("task rela 3", "Did you mean: scitq task relaunch"),
        ("relaunch 3", "Did you mean: scitq task relaunch"),
        ("task li --json", "Did you mean: scitq task list"),
        ("task list --batc qc", "there is no option --batc. Did you mean --batch?"),
        ("launch --retries 2 true", "there is no option --retries. Did you mean --retry?"),
        ("launch --servr x true", "there is no option --servr.\n"),  # --server is hidden
        ("task list -q", "there is no option -q.\n"),
        ("--jsn task list", "there is no option --jsn. Did you mean --json?"),
        ("task list -S faild", "--status takes waiting, pending, "),
        ("task list -S succeeded,faild", "or debug, not 'faild'. Did you mean failed?"),
        ("worker update local --limits onn", "--limits takes on or off, not 'onn'. Did you mean on?"),
        ("execution list -S tmed_out", "Did you mean timed_out?"),
        ("export x.csv --table task", "Did you mean tasks?"),
        ("hst-sid", "There are: run, launch, "),
    ],
)
def test_what_is_mistyped_is_answered_with_the_nearest(line: str, hint: str, place: Place) -> None:
    scitq.open(place.lab.folder / "lab.scitq", drive=False).close()

    found = place.run(f"scitq {line}")

    text = hint if "--json" not in line else json.dumps(hint)[1:-1]
    assert found.code == 2 and found.out == "" and text in found.err
    assert "host-side" not in found.err and "--server" not in found.err


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
