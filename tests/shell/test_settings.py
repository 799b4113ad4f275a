"""`scitq config`: one file, changed from the command line or in an editor; what is wrong in it is said and does no harm."""

from __future__ import annotations

import stat
from pathlib import Path

import pexpect
import pytest

from tests.shell.conftest import PROGRAM, Lab
from tests.workflow.terminal import Terminal


@pytest.fixture
def file(lab: Lab) -> Path:
    lab.environ["SCITQ_CONFIG"] = str(lab.folder / "my" / "config.toml")
    return lab.folder / "my" / "config.toml"


def test_a_setting_is_written_read_and_taken_back(lab: Lab, file: Path) -> None:
    assert lab.json("config", "path") == {"path": str(file), "exists": False}
    assert "hooks.timeout is 90.0 from now on" in lab.out("config", "set", "hooks.timeout", "90")
    lab.out("config", "set", "hooks.batch_end", "mail", "-s", "it has ended", "--", "me@x")
    lab.out("config", "set", "send_limit", "50G")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lab.out("config", "get", "hooks.batch_end") == "mail -s 'it has ended' -- me@x\n"
    assert lab.json("config", "get", "send_limit") == {"key": "send_limit", "value": 50_000_000_000, "source": "file"}
    shown = {row["key"]: row for row in lab.json("config", "show")}
    assert shown["hooks.timeout"]["value"] == 90 and shown["colour"]["source"] == "default"
    assert "is 10000000000 again" in lab.out("config", "unset", "send_limit")
    assert "send_limit" not in file.read_text() and "No secrets" in file.read_text()
    assert "is in order" in lab.out("config", "check")


def test_what_cannot_be_is_refused_and_nothing_is_written(lab: Lab, file: Path) -> None:
    for words, said in (
        (("config", "set", "colur", "never"), "did you mean 'colour'?"),
        (("config", "set", "colour", "red"), 'must be one of "auto", "always", "never"'),
        (("config", "set", "colour", "auto", "never"), "colour is one value"),
        (("config", "set", "s3.password", "hunter2"), "secrets do not belong into this file"),
        (("config", "get", "colur"), "did you mean 'colour'?"),
    ):
        refused = lab.scitq(*words, code=1).stderr.decode()
        assert said in refused and "hunter2" not in refused
    assert not file.exists()


def test_a_mistake_in_the_file_is_said_by_every_command_and_stops_none(lab: Lab, file: Path) -> None:
    file.parent.mkdir()
    file.write_text('pager = "cat"\ncolur = "never"\nfile = "default.scitq"\n')

    assert f"{file}:2: there is no key 'colur'" in lab.out("config", "check", code=1)
    launched = lab.scitq("launch", "true")
    assert (
        f"{file}:2: there is no key 'colur'; did you mean 'colour'? (Not used. scitq config edit)"
        in launched.stderr.decode()
    )
    assert (lab.folder / "default.scitq").exists()  # what is right counts


def edit(lab: Lab) -> tuple[int | None, str]:
    """`scitq config edit` on a terminal: its exit code, and what was on the screen."""
    child = pexpect.spawn(
        PROGRAM[0], [*PROGRAM[1:], "config", "edit"], cwd=str(lab.folder), env=lab.environ, encoding="utf-8", timeout=60,
        dimensions=(24, 200),
    )  # fmt: skip
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before


def test_the_editor_opens_it_and_what_was_written_is_looked_at(lab: Lab, file: Path) -> None:
    editor = lab.folder / "my editor"
    editor.write_text('#!/bin/sh\ntest -t 0 && echo "colour = 3" >> "$2"\n')
    editor.chmod(0o700)
    lab.environ["EDITOR"] = f"'{editor}' -w"

    code, said = edit(lab)
    assert (code, "config.toml:3: colour must be one of" in said) == (1, True), said
    lab.environ["EDITOR"] = "/nonexistent/editor"
    code, said = edit(lab)
    assert (code, "'/nonexistent/editor' cannot be started" in said) == (1, True), said
    lab.environ["EDITOR"] = "false"
    assert "false ended with 1" in edit(lab)[1]
    assert b"there is no terminal for an editor" in lab.scitq("config", "edit", code=1).stderr


def test_who_wins_is_told(lab: Lab, file: Path) -> None:
    lab.environ["SCITQ_COLOUR"] = "always"

    said = lab.scitq("config", "set", "colour", "never").stderr.decode()

    assert "But SCITQ_COLOUR says always, and wins." in said


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_the_line_below_the_shell_is_a_setting(lab: Lab, file: Path, wanted: str) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")
    lab.environ["SCITQ_SHELL_TOOLBAR"] = wanted
    with Terminal(PROGRAM, folder=lab.folder, environ=lab.environ) as terminal:
        terminal.wait_for("▸")
        if wanted == "true":
            terminal.wait_for(lambda lines: "1 queued" in lines[-1])
        terminal.type("status")
        terminal.press("enter")
        lines = terminal.wait_for(r"lab\.scitq · nobody drives · .*1 pending")
        assert ("1 queued" in lines[-1]) is (wanted == "true")
        terminal.press("c-d")
        terminal.wait_end()


def test_what_is_longer_than_the_screen_goes_through_the_pager(lab: Lab, file: Path) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")
    pager = lab.folder / "a pager"
    pager.write_text("#!/bin/sh\necho paged with $1 $LESS\nexec cat\n")
    pager.chmod(0o700)
    lab.environ["SCITQ_PAGER"] = f"'{pager}' -x"
    plain = {name: value for name, value in lab.environ.items() if name not in ("LESS", "LINES", "COLUMNS")}

    def shown(*words: str, pager: str | None = None) -> str:
        environ = plain if pager is None else {**plain, "SCITQ_PAGER": pager}
        with Terminal([*PROGRAM, *words], folder=lab.folder, environ=environ, rows=10, columns=120) as terminal:
            terminal.wait_end()
            terminal.lines()
            return terminal.written.decode()

    assert "paged with -x FRX" in shown("config", "show") and "hooks.timeout" in shown("config", "show")
    assert "paged" not in shown("status") + shown("config", "show", "--json") + shown("config", "show", "--no-pager")
    broken = shown("config", "show", pager="/nonexistent/less")
    assert "the pager '/nonexistent/less' cannot be started" in broken and "hooks.timeout" in broken
    assert "hooks.timeout" not in shown("config", "show", pager="true")  # whoever has seen enough
    assert "paged" not in lab.out("config", "show")
