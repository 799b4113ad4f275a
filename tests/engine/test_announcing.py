"""Ends of batches and workflows are told once, by whoever drives, though drivers die; a program of the user's never harms them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scitq import announcing, hooks
from scitq.engine import Engine
from scitq.store import ends, query
from scitq.workflow import Workflow
from tests.engine.conftest import Opener

WAIT_S = 60
KEYS = ("event", "file", "batch", "workflow", "step", "tasks", "seconds")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the program of the settings wrote down: a line of JSON for each end."""
    told = tmp_path / "told"
    told.touch()
    program = tmp_path / "a program"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "given = json.load(sys.stdin)\n"
        "given['variables'] = {k: v for k, v in os.environ.items() if k.startswith('SCITQ_')}\n"
        "given['words'], given['folder'] = sys.argv[1:], os.getcwd()\n"
        f"fd = os.open({str(told)!r}, os.O_WRONLY | os.O_APPEND)\n"
        "os.write(fd, (json.dumps(given) + '\\n').encode())\n"
    )
    program.chmod(0o700)
    settle(tmp_path, monkeypatch, [str(program), "a b", "$HOME;"])
    return told


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], more: str = "") -> None:
    (folder / "config.toml").write_text(
        f"[hooks]\nbatch_end = {json.dumps(words)}\nworkflow_end = {json.dumps(words)}\n{more}\n[notifications]\nmin_duration = 0\n"
    )
    monkeypatch.setenv("SCITQ_CONFIG", str(folder / "config.toml"))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told_of(hook: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in hook.read_text().splitlines()]


def began(engine: Engine, batch: str) -> tuple[int | None, int | None]:
    began, told = query.one(engine._reader(), "select began, told from batch where name = ?", (batch,))
    return began, told


def work(engine: Engine, batch: str, gate: Path, count: int = 1) -> None:
    """Tasks that the driver has seen, and that go on when the gate is there."""
    for _ in range(count):
        engine.submit(f"while ! [ -e {gate} ]; do sleep 0.01; done", shell=True, batch=batch)
    until(lambda: began(engine, batch)[0] is not None)


def test_an_end_is_told_with_all_there_is_to_say_and_told_again_when_it_ends_again(
    engine: Engine, hook: Path, tmp_path: Path
) -> None:
    work(engine, "it's; <b>", tmp_path / "one", 2)
    assert not told_of(hook)
    (tmp_path / "one").touch()
    until(lambda: told_of(hook))

    [end] = told_of(hook)
    assert (end["event"], end["batch"], end["workflow"], end["tasks"]) == ("batch_end", "it's; <b>", None, 2)
    assert end["counts"] == {"succeeded": 2, "failed": 0, "cancelled": 0, "blocked": 0}
    assert end["seconds"] >= 0 and end["words"] == ["a b", "$HOME;"]
    assert end["file"] == end["variables"]["SCITQ_FILE"] == str(engine.path)
    assert end["variables"]["SCITQ_BATCH"] == "it's; <b>" and end["variables"]["SCITQ_SUCCEEDED"] == "2"
    assert os.path.samefile(end["folder"], engine.path.parent)
    until(lambda: began(engine, "it's; <b>")[1] is not None)
    assert began(engine, "it's; <b>")[0] is None

    work(engine, "it's; <b>", tmp_path / "two")
    (tmp_path / "two").touch()
    until(lambda: len(told_of(hook)) == 2)
    assert told_of(hook)[1]["tasks"] == 3
    engine.close()
    assert len(told_of(hook)) == 2


def test_what_is_over_soon_is_not_told(open_engine: Opener, hook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCITQ_NOTIFICATIONS_MIN_DURATION", "3600")
    engine = open_engine()
    engine.submit("true", batch="short").wait(WAIT_S)
    engine._write(lambda db: ends.begin(db, time.time_ns() // 1_000_000 - 1000, "batch", 1))
    engine.submit("true", batch="other").wait(WAIT_S)
    until(lambda: began(engine, "short") == (None, None))
    engine.close()

    assert not told_of(hook)


def test_who_leaves_tells_what_has_ended_until_then(open_engine: Opener, hook: Path, tmp_path: Path) -> None:
    engine = open_engine()
    work(engine, "qc", tmp_path / "gate")
    (tmp_path / "gate").touch()
    engine.wait_all(WAIT_S)
    engine.close()

    assert [end["batch"] for end in told_of(hook)] == ["qc"]
    with open_engine() as again:
        assert began(again, "qc")[0] is None


def test_an_end_that_came_while_nobody_drove_is_told_by_the_next_one_and_once(
    open_engine: Opener, hook: Path, tmp_path: Path
) -> None:
    code = """
import sys, time
from scitq.engine import Engine
from scitq.store import query
engine = Engine(__import__("pathlib").Path(sys.argv[1]))
engine.submit(f"while ! [ -e {sys.argv[2]} ]; do sleep 0.01; done", shell=True, batch="qc")
while query.one(engine._reader(), "select began from batch")[0] is None: time.sleep(0.01)
print("begun", flush=True)
time.sleep(600)
"""
    path, gate = tmp_path / "lab.scitq", tmp_path / "gate"
    words = [sys.executable, "-c", code, str(path), str(gate)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        assert child.stdout is not None and child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGKILL)
    gate.touch()
    engine = open_engine()
    engine.drive()
    until(lambda: told_of(hook))
    until(lambda: began(engine, "qc")[1] is not None)
    engine.close()
    with open_engine() as again:
        again.submit("true", batch="another").wait(WAIT_S)

    assert [end["batch"] for end in told_of(hook) if end["batch"] == "qc"] == ["qc"]


def test_a_driver_that_dies_while_it_tells_leaves_it_to_the_next(open_engine: Opener, hook: Path) -> None:
    """At least once: it is written down after it was told."""
    engine = open_engine()
    engine.submit("true", batch="qc").wait(WAIT_S)
    engine.close()
    before = len(told_of(hook))
    with open_engine(drive=False) as other:  # as a driver leaves it that dies between the two
        other._write(lambda db: ends.begin(db, 5, "batch", 1))
    with open_engine() as again:
        again.drive()
        until(lambda: len(told_of(hook)) == before + 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/nonexistent/program"], "cannot be started: No such file or directory"),
        (["sh", "-c", "echo first >&2; printf 'no \\033[31mroute\\n' >&2; exit 3"], "ended with 3: no \\x1b[31mroute"),
        (["sh", "-c", "kill -9 $$"], "was ended by signal 9"),
        (["sh", "-c", "sleep 600 & sleep 600"], "did not end within 0.5 s, and was ended"),
        (["sh", "-c", "exec >&- 2>&-; cat > /dev/null"], None),
    ],
)
def test_how_a_program_ended_is_said(tmp_path: Path, words: list[str], says: str | None) -> None:
    wait_s = 0.5 if says and "within" in says else WAIT_S

    assert hooks.run(words, {"counts": {}, **dict.fromkeys(KEYS)}, tmp_path, wait_s, lambda: float("inf")) == says


def test_a_program_that_fails_is_a_notice_and_no_harm(
    open_engine: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(tmp_path, monkeypatch, ["sh", "-c", "echo 'no route' >&2; exit 3"])
    engine = open_engine()
    work(engine, "qc", tmp_path / "gate")
    (tmp_path / "gate").touch()
    until(engine.notices)

    [found] = engine.notices()
    assert (found.kind, found.text) == ("hook", "hooks.batch_end, at the end of batch qc: it ended with 3: no route")
    assert engine.submit("echo on", batch="other").result(WAIT_S).stdout == "on\n"
    settle(tmp_path, monkeypatch, ["true"])
    work(engine, "qc", tmp_path / "later")
    (tmp_path / "later").touch()
    until(lambda: not engine.notices())  # it works now


def test_a_program_that_takes_long_keeps_nobody_from_leaving(
    open_engine: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "LEAVE_S", 0.2)
    lasts, done = tmp_path / "lasts", tmp_path / "done"
    script = f"echo $$ > {done}.part && mv {done}.part {done}; while ! [ -e {lasts} ]; do sleep 0.01; done; echo over > {done}"
    settle(tmp_path, monkeypatch, ["sh", "-c", script])
    engine = open_engine()
    work(engine, "qc", tmp_path / "gate")
    (tmp_path / "gate").touch()
    until(done.exists)
    engine.close()

    assert done.read_text() != "over\n"  # it goes on by itself
    lasts.touch()
    until(lambda: done.read_text() == "over\n")
    assert hooks._left.pop().wait(WAIT_S) == 0
    with open_engine(drive=False) as again:
        assert began(again, "qc")[1] is not None


def test_the_end_of_a_workflow_is_told_beside_those_of_its_steps(engine: Engine, hook: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    workflow = Workflow("flow", engine=engine)
    workflow.step("one", f"while ! [ -e {gate} ]; do sleep 0.01; done", shell=True, name="a")
    workflow.start()
    until(lambda: query.one(engine._reader(), "select began from workflow")[0] is not None)
    engine._write(lambda db: db.execute("update workflow set ended = started"))  # whoever declared it is done with that
    gate.touch()
    until(lambda: len(told_of(hook)) == 2)
    engine.close()

    told = {end["event"]: end for end in told_of(hook)}
    assert (told["batch_end"]["batch"], told["batch_end"]["workflow"], told["batch_end"]["step"]) == (
        "flow.one",
        "flow",
        "one",
    )
    assert (told["workflow_end"]["batch"], told["workflow_end"]["workflow"]) == (None, "flow")
    assert told["workflow_end"]["variables"]["SCITQ_WORKFLOW"] == "flow"


def test_a_workflow_whose_script_runs_is_over_when_nothing_more_comes(
    open_engine: Opener, hook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(drive=False)
    engine._write(lambda db: db.execute("insert into workflow(name, created, started, began) values ('flow', 1, 1, 1)"))
    found = ends.bouts(engine._reader())
    assert [(one.what, one.is_open, one.is_run) for one in found] == [("workflow", False, True)]
    monkeypatch.setattr(announcing, "GROWS_S", 0.3)
    with open_engine() as other:
        other.drive()
        until(lambda: [end["workflow"] for end in told_of(hook)] == ["flow"])


def test_the_desktop_is_told_in_words_that_are_no_markup(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, program = tmp_path / "shown", tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shown}.part && mv {shown}.part {shown}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SCITQ_NOTIFICATIONS_DESKTOP", "true")
    monkeypatch.setenv("SCITQ_NOTIFICATIONS_MIN_DURATION", "0")
    work(engine, "<b>\x1b[31mqc</b>", tmp_path / "gate")
    engine.submit("exit 3", shell=True, batch="<b>\x1b[31mqc</b>")
    (tmp_path / "gate").touch()
    until(shown.exists)

    words = shown.read_text().splitlines()
    assert words[:3] == ["--app-name=scitq", "--", "batch <b>\\x1b[31mqc</b> has ended, not all well"]
    assert words[3].startswith("1 succeeded, 1 failed, in ")
    until(lambda: began(engine, "<b>\x1b[31mqc</b>")[1] is not None)
    assert not [one for one in engine.notices() if one.kind == "hook"]

    program.write_text("#!/bin/sh\necho 'no bus' >&2; exit 1\n")
    work(engine, "second", tmp_path / "later")
    (tmp_path / "later").touch()
    until(lambda: [one for one in engine.notices() if one.kind == "hook"])
    [found] = [one for one in engine.notices() if one.kind == "hook"]
    assert found.text == "notifications.desktop, at the end of batch second: notify-send ended with 1: no bus"


def test_a_desktop_without_its_program_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert hooks.desktop("title", "text") == "notify-send is not here (Debian: apt install libnotify-bin)"
    monkeypatch.setattr("scitq.hooks.sys.platform", "darwin")
    assert hooks.desktop("title", "text") == "osascript is not here"
