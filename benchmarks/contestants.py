"""Our own part in contests, and that of the system's tools: `python -m benchmarks.contestants FUNCTION SIZE`.

Each function runs in the current (fresh) folder and returns what it measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.contest import Outcome

if TYPE_CHECKING:
    from scitq.engine import Engine

NOOP = ["sh", "-c", ":"]
SLOTS = 2


class Stopwatch:
    """Wall clock and CPU of everything that carries our mark, between two moments."""

    def __init__(self) -> None:
        self.cpu, self.wall = machine.tree_cpu_s(), time.perf_counter()

    def outcome(self, tasks: int, **more: float) -> Outcome:
        seconds = time.perf_counter() - self.wall
        cpu_ms = 1000 * (machine.tree_cpu_s() - self.cpu) / tasks
        return {"seconds": seconds, "rate": tasks / seconds, "cpu_ms": cpu_ms, **more}


@contextmanager
def warm_engine(slots: int = SLOTS) -> Iterator[Engine]:
    """An engine whose worker is there and has run something; both are ended afterwards."""
    from scitq.engine import Engine
    from scitq.remote import local

    path = Path("lab.scitq").absolute()
    with Engine(path) as engine:
        for task in [engine.submit(NOOP) for _ in range(20)]:
            task.result(60)
        engine.update_worker("local", concurrency=slots)
        yield engine
    local.stop(path.with_name(path.name + ".d") / "local")


def noop(size: int) -> Outcome:
    """No-ops, submitted at once; until every end is in the file and this process knows."""
    with warm_engine() as engine:
        watch = Stopwatch()
        engine.submit_many(NOOP for _ in range(size))
        counts = engine.wait_all()
        outcome = watch.outcome(size)
        outcome["peak_mb"] = sum(machine.memory_mb(pid, "VmHWM") for pid in machine.marked())
    assert {state.word: n for state, n in counts.items()} == {"succeeded": size + 20}, counts
    return outcome


def chains(size: int) -> Outcome:
    """`size` chains of four, and a task that needs the ends of all."""
    with warm_engine() as engine:
        watch = Stopwatch()
        level = engine.submit_many(NOOP for _ in range(size))
        for _ in range(3):
            level = engine.submit_many({"command": NOOP, "requires": task} for task in level)
        engine.submit(NOOP, requires=level).result()
        return watch.outcome(4 * size + 1)


def latency(size: int) -> Outcome:
    """One at a time, 20 ms apart: milliseconds from submit to result, in the process that drives."""
    with warm_engine() as engine:

        def once() -> None:
            engine.submit(["echo", "x"]).result(60)

        return paced(once, size)


def spawn_latency(size: int) -> Outcome:
    """The same for a bare process whose output is read."""
    return paced(lambda: subprocess.run(["echo", "x"], capture_output=True, check=True), size)


def paced(once, size: int) -> Outcome:  # type: ignore[no-untyped-def]
    """Call it `size` times with pauses; median and 95th percentile in milliseconds."""
    from benchmarks.report import percentile

    taken = []
    for _ in range(size + 3):
        time.sleep(0.02)
        begin = time.perf_counter()
        once()
        taken.append(1000 * (time.perf_counter() - begin))
    del taken[:3]
    return {"median_ms": percentile(taken, 0.5), "p95_ms": percentile(taken, 0.95)}


def xargs(size: int) -> Outcome:
    """`xargs -P2`, nothing kept."""
    watch = Stopwatch()
    _pipe_numbers(size, ["xargs", f"-P{SLOTS}", "-n1", "sh", "-c", ":"])
    return watch.outcome(size)


def xargs_files(size: int) -> Outcome:
    """`xargs -P2`, each command's output kept in a file."""
    os.mkdir("out")
    watch = Stopwatch()
    _pipe_numbers(size, ["xargs", f"-P{SLOTS}", "-n1", "sh", "-c", 'exec >"out/$0" 2>&1; :'])
    outcome = watch.outcome(size)
    assert len(os.listdir("out")) == size
    return outcome


def _pipe_numbers(size: int, command: list[str]) -> None:
    numbers = "\n".join(map(str, range(size)))
    subprocess.run(command, input=numbers, text=True, check=True)


def make(size: int) -> Outcome:
    """`make -j2` of the same chains, nothing recorded. (`true`: make sees through `sh -c :` and starts nothing.)"""
    return _make(size, "\t@sh -c true\n")


def make_files(size: int) -> Outcome:
    """`make -j2` of the same chains, the output of each in a file."""
    os.mkdir("out")
    return _make(size, "\t@sh -c true >out/$@ 2>&1\n")


def _make(size: int, recipe: str) -> Outcome:
    lines = [f"all: {' '.join(f't4_{n}' for n in range(size))}\n{recipe}.PHONY: all\n"]
    for n in range(size):
        lines.append(f".PHONY: {' '.join(f't{step}_{n}' for step in (1, 2, 3, 4))}\nt1_{n}:\n{recipe}")
        lines += [f"t{step}_{n}: t{step - 1}_{n}\n{recipe}" for step in (2, 3, 4)]
    Path("Makefile").write_text("".join(lines))
    watch = Stopwatch()
    subprocess.run(["make", "-s", f"-j{SLOTS}", "all"], check=True)
    return watch.outcome(4 * size + 1)


def functions_map(size: int) -> Outcome:
    """`executor.map` of a trivial function."""
    from scitq.executor import Executor

    with warm_engine() as engine:
        watch = Stopwatch()
        with Executor(engine) as pool:
            total = sum(pool.map(abs, range(size)))
        outcome = watch.outcome(size, chunks=sum(engine.counts().values()) - 20)
        outcome["peak_mb"] = machine.memory_mb(os.getpid(), "VmHWM")
    assert total == size * (size - 1) // 2
    return outcome


def functions_each(size: int) -> Outcome:
    """`executor.submit` of a trivial function, a task each."""
    from scitq.executor import Executor

    with warm_engine() as engine:
        watch = Stopwatch()
        with Executor(engine) as pool:
            found = [pool.submit(abs, n) for n in range(size)]
        outcome = watch.outcome(size)
    assert [future.result() for future in found] == list(range(size))
    return outcome


def pool_map(size: int) -> Outcome:
    """The standard library's process pool, chunked alike; it keeps nothing."""
    from concurrent.futures import ProcessPoolExecutor

    watch = Stopwatch()
    with ProcessPoolExecutor(SLOTS) as pool:
        total = sum(pool.map(abs, range(size), chunksize=max(1, size // 64)))
    assert total == size * (size - 1) // 2
    return watch.outcome(size)


def python_each(size: int) -> Outcome:
    """A bare Python process for each, two at a time: what a call in a process of its own must cost."""
    watch = Stopwatch()
    _pipe_numbers(size, ["xargs", f"-P{SLOTS}", "-n1", sys.executable, "-c", "pass"])
    return watch.outcome(size)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]))))
