"""A workflow followed in plain lines, as a log file gets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import scitq
from scitq.engine import Engine
from scitq.remote import local
from scitq.states import Halt, TaskState
from scitq.workflow.deeds import halt
from tests.workflow.declared import declare

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 60.0


class Followed:
    """`scitq workflow watch` with its output in a file."""

    all: ClassVar[list[Followed]] = []

    def __init__(self, path: Path, *words: str) -> None:
        self._to = path.with_suffix(f".{len(list(path.parent.iterdir()))}.txt")
        with self._to.open("wb") as out:
            self.program = subprocess.Popen(
                [sys.executable, "-m", "scitq", "-f", str(path), "workflow", "watch", "qc", *words],
                cwd=path.parent, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

        self.all.append(self)

    def wait_for(self, pattern: str) -> list[str]:
        """Wait until a line is like that; gives all of them."""
        return self._until(lambda text: re.search(pattern, text, re.MULTILINE), pattern)

    def wait_end(self) -> list[str]:
        """Wait until it has ended."""
        self.program.wait(DEADLINE_S)
        return self._to.read_text().splitlines()

    def _until(self, holds: Callable[[str], object], what: str) -> list[str]:
        until = time.monotonic() + DEADLINE_S
        while not holds(text := self._to.read_text()):
            assert time.monotonic() < until, f"{what!r} does not come:\n{text}"
            assert self.program.poll() is None or holds(self._to.read_text()), f"{what!r} did not come:\n{text}"
            time.sleep(0.02)
        return text.splitlines()


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    """Whoever still follows when a test has failed is ended."""
    yield
    for one in Followed.all:
        one.program.kill()
        one.program.wait()
    Followed.all.clear()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Engine]:
    """A state file that this process drives."""
    engine = scitq.open(tmp_path / "lab.scitq")
    yield engine
    engine.close()
    if (engine.side / "local").is_dir():
        local.stop(engine.side / "local")


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Engine]:
    """A state file that nobody drives."""
    engine = scitq.open(tmp_path / "lab.scitq", drive=False)
    yield engine
    engine.close()


def test_starts_failures_and_ends_are_told_a_line_each(driver: Engine, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.05; done"
    tasks = declare(
        driver,
        "qc",
        {"first": [{"command": f"{wait}; echo oh >&2; exit 4", "shell": True}, {"command": wait, "shell": True}]},
    )
    declare(driver, "qc", {"then": [{"command": "true", "requires": tasks["first"][0]}]})
    followed = Followed(driver.path)
    followed.wait_for(r"^qc: \d tasks? in \d steps?")
    go.touch()
    lines = followed.wait_end()
    assert followed.program.returncode == 0
    text = "\n".join(lines)
    assert re.search(r"^qc: task \d+ 'first #1' failed \(exit 4\): oh$", text, re.MULTILINE), text
    assert re.search(r"^qc: first has ended: 1 succeeded, 1 failed$", text, re.MULTILINE), text
    assert re.fullmatch(r"qc: has ended.*: 1 succeeded, 1 failed, 1 blocked", lines[-1]), text
    assert "\x1b" not in text and "\r" not in text


def test_progress_comes_at_most_as_often_as_is_wanted(driver: Engine, tmp_path: Path) -> None:
    go = tmp_path / "go"
    quick = [{"command": "true"} for _ in range(20)]
    declare(driver, "qc", {"steps": [*quick, {"command": f"while [ ! -e {go} ]; do sleep 0.05; done", "shell": True}]})
    often, seldom = Followed(driver.path, "--refresh", "0.1"), Followed(driver.path, "--refresh", "3600")
    seldom.wait_for("in 1 step")
    try:
        until = time.monotonic() + DEADLINE_S
        while driver.counts("qc.steps").get(TaskState.SUCCEEDED, 0) < 20:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        go.touch()
    assert "of 21 done" not in "\n".join(seldom.wait_end())
    often.wait_end()


def test_a_halt_and_a_file_that_nobody_drives_are_told(idle: Engine) -> None:
    declare(idle, "qc", {"steps": ["true"] * 3})
    followed = Followed(idle.path)
    followed.wait_for(r"^qc: nobody drives lab\.scitq: scitq up$")
    halt(idle, "qc", Halt.PAUSED)
    followed.wait_for(r"^qc: is paused$")
    halt(idle, "qc", Halt.GO)
    followed.wait_for(r"^qc: goes on$")
    idle.cancel_all()
    assert followed.wait_end()[-1].startswith("qc: has ended")


def test_an_interrupt_leaves_the_tasks_and_says_how_to_come_back(idle: Engine) -> None:
    declare(idle, "qc", {"steps": ["true"] * 3})
    followed = Followed(idle.path)
    followed.wait_for("nobody drives")
    followed.program.send_signal(signal.SIGINT)
    lines = followed.wait_end()
    assert followed.program.returncode == 130
    assert "qc: 3 tasks go on. To come back: scitq workflow watch qc" in lines


def test_with_json_each_line_is_an_object(idle: Engine) -> None:
    declare(idle, "qc", {"steps": ["true"] * 3})
    idle.cancel_all()
    (line,) = [json.loads(line) for line in Followed(idle.path, "--json").wait_end() if "has ended" in line]
    assert line == {"workflow": "qc", "text": line["text"], "state": "failed", "counts": {"cancelled": 3}}


def test_hostile_names_are_shown_harmless(idle: Engine) -> None:
    declare(idle, "qc", {"st\x1b[31mep": [{"command": "true", "name": "x\x1b[2J"}]})
    followed = Followed(idle.path)
    followed.wait_for("in 1 step")
    idle.cancel_all()
    text = "\n".join(followed.wait_end())
    assert "qc: st\\x1b[31mep has ended: 1 cancelled" in text and "\x1b" not in text


def test_a_workflow_that_is_not_there_is_a_sentence(idle: Engine) -> None:
    followed = Followed(idle.path)
    assert followed.wait_end() == ["no workflow is named 'qc' (known: none)."] and followed.program.returncode == 1
