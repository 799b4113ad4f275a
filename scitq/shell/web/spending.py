"""What the machines of a file did for whom, added up in a thread of its own: a page never waits for millions of executions.

The last sum is kept; it is added up anew when the file has changed, and not at once when that took long.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

from scitq.engine import Engine
from scitq.errors import ScitqError
from scitq.shell.facts import now_ms
from scitq.store import journal, spent
from scitq.store.spent import Machine, Spent

# So many executions are added up at a time.
STRETCH = 50_000
# For so long a page waits for the sum, before it says how far it is.
PATIENCE_S = 0.8
# What took a second to add up is good for so many, whatever has changed.
AGE_BY_COST = 30.0


@dataclass
class Line:
    """What one batch, workflow or worker comes to. Seconds; `machine_s` counts a machine with all of its slots."""

    name: str
    executions: int = 0
    machine_s: float = 0.0
    bad_s: float = 0.0
    run_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def bad_share(self) -> float | None:
        """The share of it that went to what did not succeed."""
        return self.bad_s / self.machine_s if self.machine_s else None

    @property
    def cpus(self) -> float | None:
        """How many CPUs were busy, on average."""
        return self.cpu_s / self.run_s if self.run_s and self.cpu_s else None

    def add(self, one: Spent, concurrency: int) -> None:
        """Some more of it."""
        self.executions += one.executions
        self.machine_s += one.slot_s / max(1, concurrency)
        self.bad_s += one.bad_slot_s / max(1, concurrency)
        self.run_s += one.run_s
        self.cpu_s += one.cpu_s


@dataclass
class OfMachine(Line):
    """What a worker did, of the time for which it was there."""

    kind: str = ""
    concurrency: int = 1
    there_s: float = 0.0

    @property
    def idle_share(self) -> float | None:
        """The share of that time in which it had nothing to do."""
        return None if not self.there_s else min(1.0, max(0.0, 1 - self.machine_s / self.there_s))


@dataclass
class Bill:
    """All of it, at one moment."""

    at_ms: int
    batches: list[Line] = field(default_factory=list)
    workflows: list[Line] = field(default_factory=list)
    machines: list[OfMachine] = field(default_factory=list)
    total: Line = field(default_factory=lambda: Line("all"))
    idle_s: float = 0.0


class Adding:
    """The sum of a file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._gate = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._version, self._at, self._cost = -1, 0.0, 0.0
        self.bill: Bill | None = None
        self.share = 0.0

    def look(self, patience_s: float = PATIENCE_S) -> tuple[Bill | None, float | None]:
        """The newest sum there is; and, if another one is being made, how much of that is done."""
        engine = self._engine()
        assert engine is not None
        with self._gate:
            is_running = self._thread is not None and self._thread.is_alive()
            is_good = self.bill is not None and (
                self._version == journal.last(engine._reader())
                or time.monotonic() - self._at < AGE_BY_COST * self._cost
            )
            if not is_running and not is_good:
                self.share = 0.0
                self._done.clear()
                self._thread = threading.Thread(target=self._run, name="scitq-sums", daemon=True)
                self._thread.start()
                is_running = True
        if is_running and self._done.wait(patience_s):
            is_running = False
        return self.bill, self.share if is_running else None

    def _run(self) -> None:
        try:
            engine = self._engine()
            if engine is None:
                return
            begun, db, now = time.monotonic(), engine._reader(), now_ms()
            version, last = journal.last(db), spent.newest(db)
            found: dict[tuple[int, int | None], list[Spent]] = {}
            for start in range(0, last, STRETCH):
                for one in spent.between(db, start, min(start + STRETCH, last), now):
                    found.setdefault((one.batch, one.worker), []).append(one)
                self.share = (start + STRETCH) / last
                if engine._closed:
                    return
            parts = [one for some in found.values() for one in some]
            bill = made(parts, spent.machines(db), spent.batch_names(db), now)
            with self._gate:
                self.bill, self._version, self._at = bill, version, time.monotonic()
                self._cost = self._at - begun
        except ScitqError:  # the file was closed
            return
        finally:
            self._done.set()


def made(
    parts: Iterable[Spent], machines: Iterable[Machine], names: dict[int, tuple[str, str | None]], now: int
) -> Bill:
    """The bill. Pure."""
    known = {one.id: one for one in machines}
    bill = Bill(now)
    batches: dict[str, Line] = {}
    flows: dict[str, Line] = {}
    used: dict[int, OfMachine] = {}
    ends: dict[int, int] = {}
    for one in parts:
        name, flow = names.get(one.batch, (f"batch {one.batch}", None))
        machine = None if one.worker is None else known.get(one.worker)
        slots = 1 if machine is None else machine.concurrency
        lines = [batches.setdefault(name, Line(name)), bill.total]
        if flow is not None:
            lines.append(flows.setdefault(flow, Line(flow)))
        if machine is not None:
            lines.append(used.setdefault(machine.id, OfMachine(machine.name, kind=machine.kind, concurrency=slots)))
            ends[machine.id] = max(ends.get(machine.id, 0), one.last_ms)
        for line in lines:
            line.add(one, slots)
    for id, line in used.items():
        machine = known[id]
        last = max(ends[id], machine.seen_ms or 0)
        line.there_s = max(0, last - machine.created_ms) / 1000
        bill.idle_s += max(0.0, line.there_s - line.machine_s)
    bill.batches = sorted(batches.values(), key=lambda line: -line.machine_s)
    bill.workflows = sorted(flows.values(), key=lambda line: -line.machine_s)
    bill.machines = sorted(used.values(), key=lambda line: -line.machine_s)
    return bill


_all: weakref.WeakKeyDictionary[Engine, Adding] = weakref.WeakKeyDictionary()
_gate = threading.Lock()


def adding(engine: Engine) -> Adding:
    """The one sum of a file."""
    with _gate:
        if engine not in _all:
            _all[engine] = Adding(engine)
        return _all[engine]
