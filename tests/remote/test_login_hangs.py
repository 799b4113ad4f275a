"""A host that is reached, and where nothing moves any more, is given up with a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from scitq.errors import MoveFailed
from scitq.remote import login
from scitq.remote.login import Login

# What ssh would be told stands behind its options: the command is the last word, the host the one before.
PROGRAM = """#!/bin/sh
for word; do command=$word; done
case $command in
  hang) exec sleep 600 ;;
  stream) printf 'scitq-stream\\nbegun'; exec sleep 600 ;;
  slow) printf 'scitq-stream\\n'; for n in 1 2 3 4 5 6 7 8; do printf $n; sleep 0.1; done ;;
esac
exit 0
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """A host on which nothing ends."""
    program = tmp_path / "ssh"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    monkeypatch.setenv("SCITQ_SSH", str(program))
    monkeypatch.setattr(login, "SILENCE_S", 0.5)
    return Login("atlas")


def _read(host: Login) -> None:
    with host.reading("stream", b"") as stream:
        assert stream.read(5) == b"begun"
        stream.read()


def _write(host: Login) -> None:
    def give(sink: IO[bytes]) -> None:
        for _ in range(1000):  # more than a pipe holds
            sink.write(bytes(1 << 16))

    host.write("hang", give)


@pytest.mark.parametrize("does", [lambda host: host.run("hang"), _read, _write], ids=["command", "reading", "writing"])
def test_what_hangs_is_given_up(host: Login, does: Callable[[Login], None]) -> None:
    with host, pytest.raises(MoveFailed, match=r"atlas: nothing has come back for .*though it can be reached"):
        does(host)


def test_what_is_slow_is_waited_for(host: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "SILENCE_S", 60.0)
    with host:
        with host.reading("slow", b"") as stream:
            assert os.fsencode("12345678") == stream.read()
        assert host.run("fine")[0] == 0
