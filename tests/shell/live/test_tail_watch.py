"""`scitq tail` and `scitq watch`: several tasks at once, and answers that are given anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click
import pytest

import scitq
from scitq.engine import Engine
from scitq.remote import local
from scitq.shell.answers import Column, Rows, Text
from scitq.shell.live.shots import Camera, News, Shot, drawn, news, only_reads
from scitq.states import TaskState
from scitq.workflow.cells import width
from scitq.workflow.drawing import Marks
from tests.containers import wait_until
from tests.workflow.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent.parent
S = TaskState
COLUMNS = [Column("id"), Column("name", gives=True), Column("state")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A driven file with tasks that write, and go on when they are told to."""
    folder = tmp_path_factory.mktemp("tail")
    script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done; "
    script += f"printf '\\033[2Jwipe\\n'; while [ ! -e {folder}/go ]; do sleep 0.05; done; echo last; printf 'no end'"
    with scitq.open(folder / "lab.scitq") as engine:
        engine.drive()
        wait_until(engine.workers, "this machine is a worker")
        engine.update_worker("local", concurrency=2)
        for name in ("a", "much longer name than a column should be \x1b[31m"):
            engine.submit(script, shell=True, name=name, batch="qc")
        wait_until(lambda: engine.counts("qc").get(S.RUNNING) == 2, "both run")
        yield engine
        (folder / "go").touch()
        engine.cancel_all()
    local.stop(engine.side / "local")


def program(engine: Engine, *words: str) -> list[str]:
    return [sys.executable, "-m", "scitq", "-f", str(engine.path), *words]


def said(engine: Engine, *words: str, code: int = 0) -> tuple[str, str]:
    ended = subprocess.run(program(engine, *words), capture_output=True, timeout=90, stdin=subprocess.DEVNULL)
    assert ended.returncode == code, ended.stderr.decode()
    return ended.stdout.decode(), ended.stderr.decode()


def lines_until(stream: IO[str], what: str) -> list[str]:
    """The lines up to one that holds that."""
    found = []
    for line in stream:
        found.append(line.rstrip("\n"))
        if what in line:
            return found
    raise AssertionError(f"{what!r} does not come: {found}")


# --- tail -----------------------------------------------------------------------------------------------------------------------


def test_the_last_lines_of_several_tasks_stand_behind_their_names(lab: Engine) -> None:
    text, _ = said(lab, "tail", "1", "2", "--lines", "2")
    name = "2 much longer name than…"
    assert text.splitlines() == [
        f"{'1 a':<24} | out 5", f"{'1 a':<24} | \x1b[2Jwipe", f"{'1 a':<24} ! err 4", f"{'1 a':<24} ! err 5",
        f"{name} | out 5", f"{name} | \x1b[2Jwipe", f"{name} ! err 4", f"{name} ! err 5",
    ]  # fmt: skip
    text, _ = said(lab, "--json", "tail", "-b", "qc", "--lines", "1")
    assert json.loads(text.splitlines()[0]) == {
        "task": 1, "execution": 1, "stream": "stdout", "text": "\x1b[2Jwipe",
    }  # fmt: skip


def test_what_cannot_be_tailed_is_said(lab: Engine) -> None:
    assert "which tasks?" in said(lab, "tail", code=2)[1]
    assert "no batch is named 'none'" in said(lab, "tail", "-b", "none", code=1)[1]
    assert "No such tasks." in said(lab, "tail", "--where", "batch = 'none'")[1]


def test_on_a_terminal_what_tasks_write_is_harmless_and_coloured(lab: Engine) -> None:
    with Terminal(program(lab, "tail", "1", "-l", "1"), environ={"PYTHONPATH": str(ROOT)}) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.lines()[:2] == [r"1 a | \x1b[2Jwipe", "1 a ! err 5"]
    assert b"\x1b[33m1 a\x1b[0m" in terminal.written and b"\x1b[31m!" in terminal.written


def test_it_follows_until_all_are_over_and_new_tasks_of_the_batch_join(tmp_path: Path) -> None:
    go, more = tmp_path / "go", tmp_path / "more"
    with scitq.open(tmp_path / "lab.scitq") as engine:
        engine.submit(
            f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; printf 'the end'",
            shell=True,
            name="one",
            batch="qc",
        )
        following = subprocess.Popen(
            program(engine, "tail", "-f", "-b", "qc"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert following.stdout is not None
        try:
            assert lines_until(following.stdout, "begun") == ["1 one | begun"]
            engine.submit(
                f"while [ ! -e {more} ]; do sleep 0.05; done; echo joined; exit 3",
                shell=True,
                name="two",
                batch="qc",
                retry=1,
            )
            engine.submit("echo alone", shell=True, name="other", batch="other")
            go.touch()
            assert lines_until(following.stdout, "the end") == ["1 one | the end"]
            more.touch()
            out, err = following.communicate(timeout=90)
            assert out.splitlines() == ["2 two | joined"] * 2 and following.returncode == 0, err
        finally:
            following.kill()
            following.communicate()
    local.stop(engine.side / "local")


# --- watch: what is new ---------------------------------------------------------------------------------------------------------


def table(*rows: tuple[Any, ...]) -> Shot:
    return Shot(Rows(COLUMNS, [dict(zip(("id", "name", "state"), row, strict=True)) for row in rows]))


def test_changed_cells_are_told_by_their_row_not_by_their_place() -> None:
    before = table((1, "a", "running"), (2, "b", "pending"))
    after = table((2, "b", "running"), (3, "c", "pending"))
    assert news(None, after) == News()
    assert news(before, after).cells == {(0, "state"), (1, "id"), (1, "name"), (1, "state")}
    assert news(before, before) == News()


def test_changed_words_are_marked_and_blanks_stay() -> None:
    before, after = Shot(Text("3 running,  1 done", {})), Shot(Text("2 running,  2 done", {}))
    new = news(before, after)
    [line] = drawn(after, new, 80, Marks(), 0)
    assert line == [
        ("changed", "2"),
        ("", " "),
        ("", "running,"),
        ("", "  "),
        ("changed", "2"),
        ("", " "),
        ("", "done"),
    ]


@pytest.mark.parametrize("cells", [5, 20, 80])
def test_tables_fit_and_are_harmless(cells: int) -> None:
    shot = table((1, "a\x1b[2J\u202e" * 9, "漢字" * 20))
    for line in drawn(shot, news(table(), shot), cells, Marks(), 0):
        text = "".join(piece for _, piece in line)
        assert width(text) <= cells and "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize(
    ("line", "why"),
    [("launch true", "launch changes something"), ("task cancel 1", "task cancel changes something"), ("nonsense", "no command 'nonsense'"),
     ("task output -f 1", "--follow shows what is new by itself"), ("workflow watch", "takes the terminal"),
     ("watch status", "takes the terminal"), ("task", "is no command that answers")],
)  # fmt: skip
def test_only_what_looks_is_repeated(line: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        only_reads(line.split())


def test_every_command_that_only_looks_can_be_repeated(lab: Engine) -> None:
    assert [only_reads(line.split()).path for line in ("status", "task list -l 3", "worker list", "top")]
    for line, what in (("task list", "a"), ("status", "running"), ("task output 1", "out 5"), ("batch list", "qc")):
        shot = Camera(lab, line.split()).take()
        text = "\n".join("".join(piece for _, piece in row) for row in drawn(shot, News(), 100, Marks()))
        assert what in text and shot.code == 0, text
    gone = Camera(lab, ["task", "show", "999"]).take()
    assert gone.code == 1 and "999" in gone.notes[0]


# --- watch: the real thing ------------------------------------------------------------------------------------------------------


def test_on_a_terminal_what_is_new_is_marked(lab: Engine) -> None:
    with Terminal(program(lab, "watch", "-n", "0.1", "task", "list"), environ={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.wait_for(r"^ every 0.1 s: task list")
        terminal.wait_for(r"^ *1 +a .*running")
        held = lab.submit("true", name="held", batch="watched")
        terminal.wait_for(r"held")

        def is_marked(lines: list[str]) -> bool:
            place = next((n for n, line in enumerate(lines) if "held" in line), None)
            return place is not None and any(char.reverse for char in terminal.styles(place))

        terminal.wait_for(is_marked)
        terminal.press("down", "pageup", "q")
        assert terminal.wait_end() == 0
        assert not terminal.is_raw and not terminal.is_on_other_screen
    held.cancel()


def test_in_a_pipe_it_is_printed_again_when_it_changes(lab: Engine) -> None:
    watching = subprocess.Popen(
        program(lab, "watch", "-n", "0.1", "task", "list", "-b", "piped"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    as_json = subprocess.Popen(
        program(lab, "--json", "watch", "-n", "0.1", "batch", "list"), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert watching.stdout is not None and as_json.stdout is not None
    try:
        assert isinstance(json.loads(as_json.stdout.readline()), list)
        task = lab.submit("true", name="first", batch="piped")
        lines_until(watching.stdout, "first")
        lab.submit("true", name="second", batch="piped").cancel()
        assert "" in lines_until(watching.stdout, "second")
        lines_until(as_json.stdout, '"piped"')
        os.killpg(watching.pid, signal.SIGINT)
        assert watching.wait(60) == 130
        task.cancel()
    finally:
        for child in (watching, as_json):
            child.kill()
            child.communicate()
