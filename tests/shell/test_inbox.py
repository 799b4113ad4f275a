"""`scitq notices`, and the end of a batch on a terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from scitq import hooks
from scitq.shell.inbox import _typed
from tests.shell.conftest import PROGRAM, Lab
from tests.workflow.terminal import Terminal


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("osc9", b"\x1b]9;batch q;c has ended, not all well: 1 failed, in "),
        ("off", b""),
    ],
)
def test_the_terminal_of_who_drives_is_told_of_an_end(lab: Lab, how: str, said: bytes) -> None:
    environ = {**lab.environ, "SCITQ_NOTIFICATIONS_TERMINAL": how, "SCITQ_NOTIFICATIONS_MIN_DURATION": "0"}
    words = [*PROGRAM, "run", "-b", "q;c", "false"]
    with Terminal(words, folder=lab.folder, environ=environ) as terminal:
        assert terminal.wait_end() == 1
        terminal.lines()
        assert terminal.written.count(b"\x1b]") == (1 if how.startswith("osc") else 0)
        assert said in terminal.written and (b"\a" in terminal.written) is (how != "off")


def test_notices_are_shown_with_what_to_do_and_put_aside(lab: Lab) -> None:
    lab.scitq("launch", "true")
    lab.scitq("up", "--until-done")
    assert lab.out("notices") == "Nothing needs you.\n"
    lab.scitq("run", "-b", "it's", "false", code=1)

    key = "failed:it's:failed (exit 1)"
    told = lab.out("notices").splitlines()
    assert told[0].startswith(f'"{key}" · new · ')  # as one can type it
    assert told[1].startswith("  task 2 ") and told[1].endswith("failed (exit 1)")
    assert told[2:] == ["  look at it   scitq task show 2", "  relaunch it  scitq task relaunch 2"]
    [data] = lab.json("notices")
    assert (data["key"], data["new"], data["about"]["batch"]) == (key, True, "it's")
    assert data["actions"][0] == {"label": "look at it", "words": ["task", "show", "2"]}

    with Terminal([*PROGRAM, "status"], folder=lab.folder, environ=lab.environ) as terminal:
        assert terminal.wait_end() == 0  # a person has seen it
        assert "1 notice: task 2" in terminal.text()
    assert lab.json("notices")[0]["new"] is False
    assert f"{key} is put aside until it changes." in lab.out("notices", "--dismiss", key)
    assert lab.json("notices") == [] and lab.json("status")["notices"] == []
    assert lab.json("notices", "--all")[0]["dismissed"] is True
    assert b"there is no notice 'nothing'" in lab.scitq("notices", "--dismiss", "nothing", code=1).stderr
    assert b"one at a time" in lab.scitq("notices", "--all", "--dismiss", key, code=2).stderr


@pytest.mark.parametrize(
    "word", ["plain", "two words", "state='failed' and batch='qc'", "it's $HOME", "a'b\"c", "x`id`'", "'\\", "a'!1", ""]
)
def test_commands_that_are_proposed_can_be_typed(word: str) -> None:
    assert shlex.split(_typed(word)) == [word]
    assert (
        subprocess.run(["sh", "-c", f"printf %s {_typed(word)}"], capture_output=True, check=True).stdout.decode()
        == word
    )
    assert _typed("batch='qc'") == "\"batch='qc'\""


@pytest.mark.parametrize(
    ("how", "said"), [("osc777", b"\x1b]777;notify;a,b;c\a"), ("bell", b"\a"), ("off", b""), ("x", b"")]
)
def test_what_a_terminal_is_told(how: str, said: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = os.open
    (tmp_path / "tty").touch()
    monkeypatch.setattr("scitq.hooks.os.open", lambda path, flags: opened(tmp_path / "tty", flags))

    hooks.terminal(how, "a;b", "c")

    assert (tmp_path / "tty").read_bytes() == said
