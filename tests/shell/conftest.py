"""A folder in which the real program is run as a person would run it; its agents are ended afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from tests.shell import prepared
from tests.shell.here import Place, unchanged
from tests.shell.tmux import Terminal

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-m", "scitq"]


class Lab:
    """A folder, and `scitq` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        self._started: list[subprocess.Popen[bytes]] = []

    def scitq(self, *words: str, code: int | None = 0, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; by default it must end well."""
        ended = subprocess.run(
            [*PROGRAM, *words],
            cwd=more.pop("cwd", self.folder),
            env={**self.environ, **more.pop("env", {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
            **more,
        )
        assert code is None or ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
        assert b"Traceback" not in ended.stderr, ended.stderr.decode()
        return ended

    def out(self, *words: str, code: int | None = 0) -> str:
        """What it wrote on stdout."""
        return self.scitq(*words, code=code).stdout.decode()

    def json(self, *words: str, code: int | None = 0) -> Any:
        """What it answered with --json."""
        return json.loads(self.scitq("--json", *words, code=code).stdout)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run it in the background, in a process group of its own."""
        child = subprocess.Popen(
            [*PROGRAM, *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._started.append(child)
        return child

    def copy(self, template: Path) -> Lab:
        """Begin with what another lab, cleaned up, left behind: making it once is enough for many tests."""
        shutil.copytree(template, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        return self

    def clean_up(self) -> None:
        """End what may still run."""
        for child in self._started:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.communicate()
        for side in self.folder.rglob("*.scitq.d"):
            if (side / "driver.log").exists():
                self.scitq("-f", str(side)[:-2], "down", "--cancel", code=None)
            if (side / "local").exists():
                local.stop(side / "local")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """An empty folder of one's own, which is also where the test itself is."""
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.chdir(folder)
    found = Lab(folder)
    yield found
    found.clean_up()


@pytest.fixture
def terminal(lab: Lab) -> Iterator[Terminal]:
    """A terminal of 80 columns in the lab's folder, with `scitq` on PATH."""
    programs = lab.folder.parent / "bin"
    programs.mkdir()
    scitq = programs / "scitq"
    scitq.write_text(f'#!/bin/sh\nexec {sys.executable} -m scitq "$@"\n', encoding="utf-8")
    scitq.chmod(0o755)
    environ = {**lab.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    found = Terminal(lab.folder, environ)
    yield found
    found.close()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The prepared folders, made once."""
    folder = tmp_path_factory.mktemp("prepared")
    small = prepared.small(folder / "small")
    return {"small": small, "full": prepared.full(folder / "full", small)}


@pytest.fixture
def place(
    lab: Lab,
    templates: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Place]:
    """Where lines are run in this process; empty at first."""
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    (tmp_path / "rclone.conf").write_text("[disk]\ntype = local\n", encoding="utf-8")
    monkeypatch.setenv("SCITQ_CONFIG", str(lab.folder / "config.toml"))  # there in the prepared folders
    lab.environ["SCITQ_CONFIG"] = os.environ["SCITQ_CONFIG"]
    with unchanged():
        yield Place(lab, templates, capfd)
