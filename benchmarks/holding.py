"""(c) Submitting a million tasks, (d) what questions cost when a million are pending and a million have ended.

Each part runs in a process of its own (`python -m benchmarks.holding PART SIZE`), so that its memory is its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.contest import Contestant, Outcome, run
from benchmarks.contestants import NOOP
from benchmarks.report import Section, at_least, at_most, percentile

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine

SMALL = 10_000
CLAIM = 32


def bulk(size: int) -> Outcome:
    """`submit_many` of that many, and 5,000 single submissions; nobody drives."""
    from scitq.engine import Engine

    path = Path("lab.scitq")
    before = machine.memory_mb(_pid())
    with Engine(path, drive=False) as engine:
        begin = time.perf_counter()
        engine.submit_many(NOOP for _ in range(size))
        seconds = time.perf_counter() - begin
        peak = machine.memory_mb(_pid(), "VmHWM")
    on_disk = sum(file.stat().st_size for file in Path().glob("lab.scitq*") if file.is_file())
    with Engine(Path("single.scitq"), drive=False) as engine:
        begin = time.perf_counter()
        for _ in range(5000):
            engine.submit(NOOP)
        single = 5000 / (time.perf_counter() - begin)
    return {"seconds": seconds, "peak_mb": peak, "before_mb": before, "bytes": on_disk / size, "single": single}


def questions(size: int) -> Outcome:
    """What it costs to ask, with that many pending and as many ended; milliseconds, medians."""
    from scitq.engine import Engine
    from scitq.task import TaskId

    with Engine(Path("lab.scitq"), drive=False) as engine:
        _end_all(engine, engine.submit_many((NOOP for _ in range(size)), batch="old"), size)
        engine.submit_many((NOOP for _ in range(size)), batch="new")
        engine.submit(NOOP, name="the one")
        middle = TaskId(size // 2)
        return {
            "claim": _ms(lambda: _claim(engine)) / CLAIM,
            "counts": _ms(engine.counts),
            "batches": _ms(engine.batches),
            "newest 50": _ms(lambda: engine.rows(limit=50, newest_first=True)),
            "50 pending": _ms(lambda: engine.rows(status="pending", limit=50)),
            "50 succeeded": _ms(lambda: engine.rows(status="succeeded", limit=50)),
            "50 of a batch": _ms(lambda: engine.rows(batch="new", limit=50)),
            "one by number": _ms(lambda: engine.task(int(middle)).row()),
            "one by name": _ms(lambda: engine.task("the one").row()),
            "why": _ms(engine.task(2 * size).why),
        }


def _end_all(engine: Engine, ended: object, size: int) -> None:
    """Let the first `size` tasks have run, by SQL under all triggers: running a million takes a quarter of an hour."""
    from scitq.states import Outcome as End
    from scitq.states import Stage, TaskState

    def write(db: apsw.Connection, first: int) -> None:
        columns = "task, worker, attempt, assigned, started, ended, outcome, stage, exit_code, run_s, cpu_s"
        values = f"id, null, 1, created, created, created + 5, {int(End.SUCCEEDED)}, {int(Stage.RUN)}, 0, 0.001, 0.001"
        part = f"id > {first} and id <= {first + 10_000} and id <= {size}"
        db.execute(f"insert into execution({columns}) select {values} from task where {part}")
        db.execute(f"update task set state = {int(TaskState.SUCCEEDED)} where {part}")

    for first in range(0, size, 10_000):
        engine._write(lambda db, first=first: write(db, first))  # type: ignore[misc]


def _claim(engine: Engine) -> None:
    """What the driver does to hand out tasks, for 32 of them."""
    from scitq.placement import place
    from scitq.store import executions, listing
    from scitq.worker import Capacity, WorkerId

    def write(db: apsw.Connection) -> int:
        found = place(listing.pending(db, CLAIM), {WorkerId(1): Capacity(slots=2, queue=CLAIM - 2, concurrency=2)})
        return len(executions.begin(db, int(time.time() * 1000), found))

    if not engine.workers():
        from scitq.store import workers

        engine._write(lambda db: workers.ensure(db, 1, "local", "local", 2))
    assert engine._write(write) == CLAIM


def _ms(ask: Callable[[], object]) -> float:
    ask()
    taken = []
    for _ in range(25):
        begin = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - begin))
    return percentile(taken, 0.5)


def _pid() -> int:
    import os

    return os.getpid()


def _part(name: str) -> Contestant:
    return Contestant(name, (sys.executable, "-m", "benchmarks.holding", name))


def submission(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(c)"""
    size = 50_000 if quick else 1_000_000
    found = run(_part("bulk"), size, folder)
    section = Section("c", f"submit_many of {size:,} tasks, durable", ("", ""))
    scale = size / 1_000_000
    section.findings = [
        at_most("time", found["seconds"], 8 * scale, " s"),
        at_most("peak memory of the process", found["peak_mb"], 80, " MiB", 0),
        at_most("on disk a pending task", found["bytes"], 350, " bytes", 0),
        at_least("submissions one by one", found["single"], 10_000, "/s", 0),
    ]
    section.notes.append(
        f"That is {size / found['seconds']:,.0f} tasks/s; before it the process held {found['before_mb']:.0f} MiB."
    )
    return section


def asking(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(d)"""
    size = 50_000 if quick else 1_000_000
    small, large = run(_part("questions"), SMALL, folder), run(_part("questions"), size, folder)
    rows = [(what, f"{small[what]:.3f}", f"{large[what]:.3f}", f"{large[what] / small[what]:.2f}") for what in small]
    section = Section(
        "d", "Milliseconds of an answer, with as many pending as ended", ("", f"{SMALL:,}", f"{size:,}", "times"), rows
    )
    # Three levels of a B-tree where there were two: up to twice a few microseconds is flat.
    for what in small:
        section.findings.append(at_most(f"{what}, {size:,} / {SMALL:,}", large[what] / small[what], 2, " times"))
    section.notes.append("`claim` is the whole transaction of handing out 32 tasks, a task.")
    return section


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]))))
