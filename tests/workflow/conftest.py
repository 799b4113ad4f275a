"""Workflows in this test's state file, with a real agent, ended when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.workflow import Workflow, mode

Maker = Callable[..., Workflow]


@pytest.fixture
def open_engine(state_file: Path) -> Iterator[Callable[..., Engine]]:
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
def engine(open_engine: Callable[..., Engine]) -> Engine:
    """This test's state file, open and driven here."""
    return open_engine()


@pytest.fixture
def idle(open_engine: Callable[..., Engine]) -> Engine:
    """This test's state file, which nobody drives: nothing moves by itself."""
    return open_engine(drive=False)


@pytest.fixture
def make(engine: Engine) -> Iterator[Maker]:
    """Makes workflows of this test's file, as a new run of their script would."""
    yield from _make(engine)


@pytest.fixture
def still(idle: Engine) -> Iterator[Maker]:
    """The same, of a file that nobody drives."""
    yield from _make(idle)


def _make(engine: Engine) -> Iterator[Maker]:
    made: list[Workflow] = []

    def maker(name: str = "qc", **options: Any) -> Workflow:
        made.append(Workflow(name, engine=engine, **{"shell": True, **options}))
        return made[-1]

    yield maker
    for workflow in made:
        workflow.quit()
    mode.current.made.clear()
