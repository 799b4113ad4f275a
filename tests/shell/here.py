"""Command lines run in this process, in copies of prepared folders: many times cheaper than in a process of their own."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import shlex
import shutil
import signal
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scitq.shell import cli
from scitq.shell.table import LAUNCH, Command

if TYPE_CHECKING:
    from tests.shell.conftest import Lab

# Those that drive, or wait until nothing is left: nobody could reach the workers of the full folder.
DRIVING = {"run", "launch", "up", "down", "workflow run", "workflow plan", "workflow watch", "worker restart", "worker clean",
           "cache forget"}  # fmt: skip
# What must be done first, so that the example is to the point.
BEFORE = {
    "up": ["scitq task cancel index"],  # which is paused, so that not everything could be done
    "cache forget": ["scitq task cancel index", "scitq up --until-done"],
}
# Scripts leave threads of theirs to the end of the process.
APART = {"run", "workflow run", "workflow plan"}


@dataclass
class Answer:
    """What a command line did."""

    code: int
    out: str
    err: str


class Place:
    """A folder in which lines are run: an empty one, or a copy of a prepared one."""

    def __init__(self, lab: Lab, templates: dict[str, Path], capture: pytest.CaptureFixture[str]) -> None:
        self.lab = lab
        self._templates, self._capture = templates, capture
        self._is_apart = False

    def fresh(self, row: Command) -> Place:
        """As it was, and ready for the command."""
        self.copy("small" if row.path in DRIVING else "full")
        self._is_apart = row.path in APART
        for line in BEFORE.get(row.path, []):
            self.run(line)
        return self

    def copy(self, name: str) -> Place:
        """A copy of a prepared folder, in the place of what is there."""
        self.lab.clean_up()
        for path in self.lab.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.lab.copy(self._templates[name])
        return self

    def run(self, line: str, *more: str) -> Answer:
        """Run a command line to its end."""
        program, *words = shlex.split(line)
        if self._is_apart:
            ended = self.lab.scitq(*more, *words, code=None)
            return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        root = cli.command(LAUNCH, is_alone=True) if program == "scitq-launch" else cli.program()
        self._capture.readouterr()
        code = cli.run(root, [*more, *words], program)
        out, err = self._capture.readouterr()
        return Answer(code, out, err)


def on_terminal(line: str, columns: int) -> str:
    """What a command line writes on a terminal so wide, run in this process."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    found: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # it is closed at the other end
            while piece := os.read(ours, 1 << 16):
                found.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    kept = {fd: os.dup(fd) for fd in (1, 2)}
    for fd in kept:
        os.dup2(theirs, fd)
    os.close(theirs)
    try:
        cli.run(cli.program(), shlex.split(line)[1:], "scitq")
    finally:
        for fd, before in kept.items():
            os.dup2(before, fd)
            os.close(before)
        reader.join()
        os.close(ours)
    return b"".join(found).decode().replace("\r\n", "\n")


@contextmanager
def unchanged() -> Iterator[None]:
    """What a command changes in this process is put back; signals it puts back itself."""
    logger = logging.getLogger("scitq")
    before = list(logger.handlers), logger.level, logger.propagate
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    assert {one: signal.getsignal(one) for one in handlers} == handlers
    gc.unfreeze()
