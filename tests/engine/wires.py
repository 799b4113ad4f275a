"""Workers that are treated as far away, though they are other agents of this machine: what passes to them is counted and cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.driver import Driver
from scitq.engine import Engine
from scitq.errors import LinkBroken
from scitq.remote import local
from scitq.remote.agent import address
from scitq.remote.link import Stream
from scitq.remote.route import LocalRoute, Route
from scitq.store import workers
from scitq.worker import SSH, WorkerRow
from tests.engine.test_engine import until


class Wire:
    """The way to a worker that is treated as far away, though it is another agent of this machine. It counts what passes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.route = LocalRoute(root, 60)
        self.sent: list[tuple[str, int]] = []
        self.before: Callable[[str, str], None] = lambda method, target: None
        """Called with what is about to be asked; may raise."""

        self.is_over = False
        self.gate = threading.Lock()

    def ensure(self) -> None:
        with self.gate:  # who drives still when the test ends would start it again
            if self.is_over:
                cut()
            self.route.ensure()

    def end(self) -> None:
        with self.gate:
            self.is_over = True
            if self.root.is_dir():
                local.stop(self.root)

    @property
    def how(self) -> str:
        return self.route.how

    def rclone(self, here: str) -> str:
        return here

    def remove(self) -> None:
        self.route.remove()

    def stream(self) -> Stream:
        return Counted(self)

    def close(self) -> None:
        self.route.close()

    @property
    def pieces(self) -> list[tuple[str, int]]:
        """Target and length of each piece that was sent."""
        return [(target, size) for target, size in self.sent if target.startswith("/blobs/")]


def cut() -> None:
    """What it looks like when the wire is cut."""
    raise LinkBroken("the wire was cut.")


class Counted(Stream):
    """Notes what is asked."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(address.connect(str(wire.root), "agent.sock"))
        self.wire = wire

    def queue(self, method: str, target: str, body: bytes = b"", headers: str = "") -> None:
        self.wire.before(method, target)
        self.wire.sent.append((target, len(body)))
        super().queue(method, target, body, headers)


Far = Callable[..., Wire]


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    """Adds workers that are treated as far away; their agents are stopped at the end."""
    wires: dict[str, Wire] = {}

    def route(self: Driver, row: WorkerRow) -> Route:
        return wires[row.name] if row.kind == SSH else LocalRoute(self._store.side / "local", 60)

    monkeypatch.setattr(Driver, "_route", route)

    def add(engine: Engine, name: str = "far", concurrency: int = 2, **settings: Any) -> Wire:
        wires[name] = Wire(tmp_path / f"host-{name}" / "root")
        wires[name].root.parent.mkdir()

        def write(db: Any) -> None:
            workers.add(db, time.time_ns() // 10**6, name, SSH, name, concurrency=concurrency, settings=settings)
            db.execute("update worker set concurrency = 0 where kind = 'local'")

        until(lambda: engine._store.reader().execute("select 1 from worker").fetchone() is not None, "a local worker")
        engine._store.write(write)
        return wires[name]

    yield add
    for wire in wires.values():
        wire.end()
