"""An engine with a real agent, ended when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import ScitqError
from scitq.remote import local
from tests.engine.far import World

Opener = Callable[..., Engine]


@pytest.fixture
def open_engine(state_file: Path) -> Iterator[Opener]:
    """Opens this test's state file (or another one), as often as wanted; agents are stopped at the end."""
    opened: list[Engine] = []

    def opener(path: Path = state_file, *, drive: bool = True) -> Engine:
        opened.append(Engine(path, drive=drive))
        return opened[-1]

    yield opener
    for engine in opened:
        engine.close()
    for side in {engine.side for engine in opened} | {state_file.with_name(state_file.name + ".d")}:
        if (side / "local").is_dir():
            local.stop(side / "local")


@pytest.fixture
def engine(open_engine: Opener) -> Engine:
    """This test's state file, open and driven here."""
    return open_engine()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Hosts far away, which a test makes by naming them; their agents are stopped at the end."""
    found = World(tmp_path / "world")
    monkeypatch.setattr("scitq.routes.ssh_route", found.route)
    yield found
    found.end()


def sound(engine: Engine) -> None:
    """The file agrees with itself."""
    assert engine.check() == []


__all__ = ["Opener", "ScitqError", "sound"]
