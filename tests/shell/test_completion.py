"""Completion in the real shells, by the scripts that `scitq completion` prints; and what these are given."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

import scitq
from scitq.shell import completion
from tests.shell.conftest import ROOT, Lab
from tests.shell.tmux import Terminal

# The shells, each begun without anybody's own settings, and the line that has it complete.
SHELLS = {
    "bash": ("bash --norc --noprofile", 'eval "$(scitq completion bash)"'),
    "bash with bash-completion": (
        "bash --norc --noprofile",
        '. /usr/share/bash-completion/bash_completion; eval "$(scitq completion bash)"',
    ),
    "zsh": ("zsh -f", 'unsetopt prompt_sp; eval "$(scitq completion zsh)"'),
    "fish": ("fish -C \"set fish_greeting; function fish_prompt; echo -n '\\$ '; end\"",
             "scitq completion fish > ~/.config/fish/conf.d/scitq.fish; source ~/.config/fish/conf.d/scitq.fish"),
}  # fmt: skip


@dataclass
class Line:
    """A shell at its prompt."""

    terminal: Terminal

    def becomes(self, typed: str, wanted: str) -> None:
        """What was typed becomes that when Tab is pressed; the line is empty afterwards."""
        self.terminal.keys(typed)
        self.terminal.wait_for(rf"^\$ {_literal(typed)}")
        self.terminal.press("Tab")
        self.terminal.wait_for(rf"^\$ {_literal(wanted)}\s*$")
        self.empty()

    def lists(self, typed: str, *wanted: str) -> None:
        """What was typed has these candidates, shown at the second Tab at the latest. Nothing is typed after this."""
        self.terminal.keys(typed)
        self.terminal.wait_for(rf"^\$ {_literal(typed)}")
        self.terminal.press("Tab")
        self.terminal.press("Tab")
        for one in wanted:
            self.terminal.wait_for(rf"^(?!\$).*{_literal(one)}")

    def empty(self) -> None:
        """An empty line, on an empty screen."""
        self.terminal.press("C-u")
        self.terminal.keys(" clear")
        self.terminal.press("Enter")
        self.terminal.wait_for(r"\A\s*\$\s*\Z")


def _literal(text: str) -> str:
    return re.escape(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file, and the programs, in a home of its own."""
    home = tmp_path_factory.mktemp("home")
    (home / ".config" / "fish" / "conf.d").mkdir(parents=True)
    with scitq.open(home / "lab.scitq", drive=False) as q:
        q.submit("true", name="align s01", batch="qc.fastp")
        q.submit("true", name="ünïque", batch="o'neil")
    (home / "reads").mkdir()
    (home / "reads" / "my reads.fq").touch()
    (home / "bin").mkdir()
    calls = {f"scitq-{one}": f"-c 'from scitq.shell.cli import {one}; {one}()'" for one in ("launch", "fetch")}
    for name, call in {"scitq": "-m scitq", "scitq-manage": "-m scitq", **calls}.items():
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call} "$@"\n')
        program.chmod(0o755)
    return home


@pytest.fixture(params=SHELLS)
def line(request: pytest.FixtureRequest, folder: Path) -> Iterator[Line]:
    begin, load = SHELLS[request.param]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
               "TERM": "xterm-256color", "SHELL": "/bin/sh", "XDG_CONFIG_HOME": str(folder / ".config")}  # fmt: skip
    terminal = Terminal(folder, environ, columns=100)
    terminal.type(f"clear; exec {begin}")
    terminal.wait_for(r"^\$ ?$")
    terminal.type(f"{load}; echo lo''aded")
    terminal.wait_for("^loaded")
    found = Line(terminal)
    found.empty()
    yield found
    terminal.close()


@pytest.mark.servers
def test_words_are_completed_in_the_real_shells(line: Line) -> None:
    line.becomes("scitq task li", "scitq task list")
    line.becomes("scitq task list --fai", "scitq task list --failed")
    line.becomes("scitq task list -b qc", "scitq task list -b qc.fastp")
    line.becomes("scitq task list -S failed,canc", "scitq task list -S failed,cancelled")
    line.becomes("scitq task show 'ali", "scitq task show 'align s01'")
    line.becomes("scitq launch -i reads/", "scitq launch -i reads/my\\ reads.fq")
    line.becomes("scitq-launch --nam", "scitq-launch --name")
    line.becomes("scitq-fetch rli", "scitq-fetch rlist")
    line.becomes("scitq-manage worker upd", "scitq-manage worker update")
    line.lists("scitq task re", "relaunch", "resume")


# --- what the scripts are given -------------------------------------------------------------------------------------------------

BREAKS = " \t\n\"'@><=;|&(:"


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("scitq sta", ["status "]),
        ("scitq task list --batch=qc", ["qc.fastp "]),  # readline's word begins after the =
        ("scitq task list -b o", ["o\\'neil "]),
        ("scitq task list -b \"o", ["o'neil"]),
        ("scitq task show ali", ["align\\ s01 "]),
        ("scitq task show align\\ s", ["align\\ s01 "]),
        ("scitq task show 'align s", ["align s01"]),
        ("scitq launch -i task://2", ["//2 "]),
        ("scitq launch -i re", ["reads/"]),
        ("scitq fetch copy ~/re", ["~/reads/"]),
        ("scitq -f nowhere.scitq task show ali", []),
        ("scitq help tas", ["task "]),
        ("scitq help task lis", ["list "]),
        ("scitq completion z", ["zsh "]),
        ("scitq host", []),
    ],
)  # fmt: skip
def test_bash_is_given_what_replaces_its_last_word(
    typed: str, given: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))

    assert list(completion.of_bash((), typed, BREAKS)) == given


def ask(folder: Path, typed: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    """What a script of bash asks."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "_SCITQ_COMPLETING": "bash", "_SCITQ_LINE": typed}
    return subprocess.run(
        [sys.executable, *more, "-m", "scitq"], cwd=folder, env=environ, capture_output=True, timeout=60
    )


def test_neither_click_nor_the_engine_is_loaded_for_it(folder: Path) -> None:
    ended = ask(folder, "scitq task show al", "-X", "importtime")

    assert ended.stdout == b"align\\ s01 \n"
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in ended.stderr.splitlines()}
    assert "apsw" in loaded and not loaded & {
        "click",
        "scitq.engine",
        "scitq.submitter",
        "rich",
        "prompt_toolkit",
        "asyncio",
    }


def test_nobody_waits_for_a_file_that_is_locked_and_none_is_made(lab: Lab, folder: Path) -> None:
    for line in ("scitq task show al", "scitq task list -b "):
        ended = ask(lab.folder, line)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert os.listdir(lab.folder) == []
    shutil.copy(folder / "lab.scitq", lab.folder)

    assert ask(lab.folder, "scitq task show al").stdout == b"align\\ s01 \n"
    assert os.listdir(lab.folder) == ["lab.scitq"]

    db = apsw.Connection(str(lab.folder / "lab.scitq"))
    db.execute("pragma locking_mode=exclusive; begin exclusive; update task set priority = 1").fetchall()
    ended = ask(lab.folder, "scitq task show al")
    db.close()

    assert (ended.stdout, ended.stderr) == (b"", b"")
    (lab.folder / "lab.scitq").write_bytes(b"no database at all" * 1000)
    assert ask(lab.folder, "scitq task show al").stderr == b""
