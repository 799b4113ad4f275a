"""An engine with a real agent, ended when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import ScitqError
from scitq.remote import local

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


def sound(engine: Engine) -> None:
    """The file agrees with itself."""
    assert engine.check() == []


__all__ = ["Opener", "ScitqError", "sound"]
