"""What `top` shows, as read from the file at one moment: workers with how busy they are, and what they hold.

Costs a few look-ups, whose number does not depend on how many tasks there are or have ended. How it is drawn is in `showing`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scitq.engine import Engine
from scitq.errors import UnknownTask
from scitq.handle import FOLLOW_S
from scitq.hints import driver_of
from scitq.saying import Harmless
from scitq.shell.rented import Rented, rented
from scitq.states import TaskState, Wanted, WorkerState
from scitq.store import executions, glances, listing, logs, tasks, workers
from scitq.store.workers import Sample
from scitq.task import ExecutionId, TaskId
from scitq.worker import Load, WorkerRow
from scitq.workflow.looking import Detail, Follower

if TYPE_CHECKING:
    import apsw

# So many of what workers hold are shown at most; the last lines of so many are asked for at once.
MOST = 2000
FOLLOWED = 16
LINE_BYTES = 2048
LINE_CHARACTERS = 300
# A trend is so many samples long, and is read so often.
TREND = 20
TREND_EVERY_S = 15.0
# How long the driver is told, each time, that somebody looks on.
WATCH_S = 10.0


@dataclass(frozen=True)
class Machine:
    """A worker: it `runs` so many tasks, and `holds` those and what waits there. What is measured is None where it was not, or is
    not any more; rates are bytes a second."""

    id: int
    name: str
    state: WorkerState
    batch: str | None
    runs: int
    holds: int
    concurrency: int
    prefetch: int | None
    note: str | None
    cpu: float | None = None
    load: float | None = None
    memory: int | None = None
    memory_free: int | None = None
    disk: int | None = None
    disk_free: int | None = None
    net_in: float | None = None
    net_out: float | None = None
    at_ms: int | None = None
    # Of one that is rented: where, and its price and cost until now.
    region: str = ""
    cost: str = ""
    # Shares of its CPUs that were busy, oldest first.
    trend: tuple[float, ...] = ()


@dataclass(frozen=True)
class Running:
    """An execution at a worker. `cpu` is how many CPUs it keeps busy; `last` is the last line that it wrote."""

    execution: ExecutionId
    task: TaskId
    name: str
    batch: str
    worker: str
    state: TaskState
    is_stopped: bool
    since_ms: int | None
    cpu_s: float | None = None
    cpu: float | None = None
    memory: int | None = None
    last: str = ""

    @property
    def word(self) -> str:
        """The word for how it stands."""
        return "stopped" if self.is_stopped else self.state.word


@dataclass(frozen=True)
class Request:
    """What is wanted: everything; of these executions, which are on the screen, what they wrote last; of one task, all."""

    serial: int = 0
    shown: tuple[ExecutionId, ...] = ()
    task: TaskId | None = None


@dataclass(frozen=True)
class Seen:
    """The file at one moment. `driver` describes who drives; None: nobody does."""

    now_ms: int
    driver: str | None
    counts: Mapping[TaskState, int]
    machines: tuple[Machine, ...] = ()
    running: tuple[Running, ...] = ()
    serial: int = 0
    detail: Detail | None = None


@dataclass
class _Memory:
    """What was measured of a worker at the look before, for rates; and those rates."""

    stats: Mapping[str, Any] = field(default_factory=dict)
    net_in: float | None = None
    net_out: float | None = None
    cpus: dict[str, float] = field(default_factory=dict)

    def learn(self, stats: Mapping[str, Any]) -> None:
        """What has come and gone, and what tasks have taken, since the measurement before."""
        before, self.stats = self.stats, stats
        if not before or not stats or stats["at"] == before["at"]:
            return
        seconds = (stats["at"] - before["at"]) / 1000
        self.net_in, self.net_out = (rate(before.get(key), stats.get(key), seconds) for key in ("net_in", "net_out"))
        then, now = before.get("tasks", {}), stats.get("tasks", {})
        taken = {id: rate(then[id][0], used[0], seconds) for id, used in now.items() if id in then}
        self.cpus = {id: share for id, share in taken.items() if share is not None}


def rate(before: float | None, now: float | None, seconds: float) -> float | None:
    """How fast a figure has grown; None where that cannot be told: one that fell was begun anew."""
    if before is None or now is None or seconds <= 0 or now < before:
        return None
    return (now - before) / seconds


class Eyes:
    """Looks at the file again and again, and remembers what rates are made of. Used by one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[int, _Memory] = {}
        self._trends: dict[int, list[Sample]] = {}
        self._trends_at = self._watched_at = self._followed_at = float("-inf")
        self._follower: Follower | None = None

    def __call__(self, request: Request) -> Seen:
        """What there is to see now."""
        self._ask_for_news(request)
        db = self._engine._reader()
        now_ms = time.time_ns() // 1_000_000
        holder = driver_of(self._engine)
        rows = self._engine.workers()
        self._learn(rows)
        loads = executions.loads(db)
        paid = rented(self._engine)
        shown, held = set(request.shown), glances.held(db, MOST)
        runs = Counter(one.worker for one in held if one.state is TaskState.RUNNING)
        return Seen(
            now_ms, None if holder is None else holder.describe(now_ms), self._engine.counts(),
            tuple(self._machine(row, loads.get(row.id, Load()), runs[int(row.id)], paid.get(int(row.id))) for row in rows),
            tuple(self._running(one, is_shown=one.execution in shown) for one in held),
            request.serial, self._detail(request.task),
        )  # fmt: skip

    def _ask_for_news(self, request: Request) -> None:
        """Have whoever drives measure workers often, and bring home what the tasks that are looked at write."""
        now = time.monotonic()
        if now >= self._watched_at + WATCH_S / 2:
            self._watched_at = now
            self._engine.watch_workers(WATCH_S)
        if request.shown and now >= self._followed_at + FOLLOW_S / 2:
            self._followed_at = now
            until_ms = int((time.time() + FOLLOW_S) * 1000)
            wanted = [one.task for one in glances.held(self._engine._reader(), MOST)
                      if one.execution in request.shown[:FOLLOWED] and one.state is TaskState.RUNNING]  # fmt: skip

            def ask(db: apsw.Connection) -> None:
                for task in wanted:
                    tasks.follow(db, task, until_ms)

            if wanted:
                self._engine._write_if_possible(ask)

    def _learn(self, rows: list[WorkerRow]) -> None:
        for row in rows:
            self._known.setdefault(int(row.id), _Memory()).learn(row.stats)
        now = time.monotonic()
        if now >= self._trends_at + TREND_EVERY_S:
            self._trends_at = now
            db = self._engine._reader()
            self._trends = {int(row.id): workers.samples(db, row.id)[-TREND:] for row in rows}

    def _machine(self, row: WorkerRow, load: Load, runs: int, paid: Rented | None) -> Machine:
        stats, known = row.stats, self._known[int(row.id)]
        samples = self._trends.get(int(row.id), [])
        net_in, net_out = known.net_in, known.net_out
        if net_in is None and len(samples) > 1:  # looked at once only: as of the last half minute
            before, after = samples[-2:]
            seconds = (after.at_ms - before.at_ms) / 1000
            net_in, net_out = rate(before.net_in, after.net_in, seconds), rate(before.net_out, after.net_out, seconds)
        return Machine(
            int(row.id), row.name, row.state, row.batch, runs, load.slots, row.concurrency, row.prefetch, row.note,
            stats.get("cpu"), stats.get("load"), stats.get("memory"), stats.get("memory_free"), stats.get("disk"),
            stats.get("disk_free"), net_in, net_out, stats.get("at"),
            "" if paid is None else paid.rental.region, "" if paid is None else f"{paid.price} {paid.spent}",
            tuple(one.cpu for one in samples if one.cpu is not None),
        )  # fmt: skip

    def _running(self, one: glances.Held, *, is_shown: bool) -> Running:
        known = self._known.get(one.worker or 0, _Memory())
        cpu_s, memory = known.stats.get("tasks", {}).get(str(one.execution), (None, None))
        name = one.name or listing.spec_of(one.spec or "{}").line()
        is_running = one.state in (TaskState.RUNNING, TaskState.COLLECTING)
        last = last_line(self._engine, one.execution) if is_shown and is_running else ""
        return Running(
            one.execution, one.task, name, one.batch, one.worker_name or "", one.state,
            one.wanted is Wanted.SUSPENDED and is_running, one.started_ms if is_running else one.assigned_ms,
            cpu_s, known.cpus.get(str(one.execution)), memory, last,
        )  # fmt: skip

    def _detail(self, task: TaskId | None) -> Detail | None:
        if task is None:
            self._follower = None
            return None
        if self._follower is None or self._follower.id != task:
            self._follower = Follower(self._engine, task)
        try:
            return self._follower.look()
        except UnknownTask:
            return None


def last_line(engine: Engine, execution: ExecutionId) -> str:
    """The last line of what a running execution has written, as far as it has come home, on the stream that it wrote to last."""
    paths = [path for stream in (logs.OUT, logs.ERR) for path in logs.parts(engine.side, execution, stream)[-1:]]
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - LINE_BYTES))
                found.append((path.stat().st_mtime_ns, file.read()))
        except FileNotFoundError:  # it has ended meanwhile
            continue
    for _, data in sorted(found, reverse=True):
        # A carriage return begins a line: of a progress bar, what it drew last is what would be seen.
        plain = Harmless(colours=False)
        for line in reversed((plain.feed(data) + plain.end()).split("\n")):
            if text := line.expandtabs().strip():
                return text[:LINE_CHARACTERS]
    return ""
