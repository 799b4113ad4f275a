"""(q) What the screen of a workflow costs while many tasks run, and how soon it answers a key."""

from __future__ import annotations

import fcntl
import json
import os
import select
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from benchmarks import agents, machine
from benchmarks.contest import Contestant, Outcome, run
from benchmarks.contestants import NOOP
from benchmarks.report import Section, at_most

STEPS = 20
KEYS = {"down": b"\x1b[B", "end": b"\x1b[F", "home": b"\x1b[H", "enter": b"\r", "escape": b"\x1b"}
# Into a step of many tasks, about there, into a task, and out again.
TOUR = ("down", "enter", "down", "end", "enter", "escape", "home", "down", "escape")


class _Window:
    """`scitq workflow watch` in a pseudo-terminal; what it draws is counted and thrown away."""

    def __init__(self, columns: int = 120, rows: int = 40) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        words = [sys.executable, "-m", "scitq", "-f", "lab.scitq", "workflow", "watch", "big"]
        environ = {**os.environ, "TERM": "xterm-256color"}
        self.program = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self._drawn = threading.Condition()
        self.bytes = 0
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 1 << 16)
            except OSError:
                return
            if not piece:
                return
            with self._drawn:
                self.bytes += len(piece)
                self._drawn.notify_all()

    def answer_s(self, key: str) -> float:
        """How long until something is drawn after a key."""
        with self._drawn:
            before, began = self.bytes, time.perf_counter()
            os.write(self._ours, KEYS[key])
            assert self._drawn.wait_for(lambda: self.bytes > before, 30), key
            return time.perf_counter() - began

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        select.select([], [], [], 0)
        os.close(self._ours)


def watch(size: int) -> Outcome:
    """A workflow of so many tasks through simulated agents, watched."""
    from scitq.states import TaskState
    from scitq.store import workflows
    from scitq.workflow.looking import page
    from scitq.workflow.overview import Watch

    with agents.simulated() as engine:
        now = time.time_ns() // 1_000_000

        def declare(db: object) -> None:
            workflow = workflows.put(db, now, "big", {}, None)  # type: ignore[arg-type]
            workflows.begun(db, now, workflow)  # type: ignore[arg-type]
            for number in range(STEPS):
                workflows.put_step(db, workflow, "big", f"step{number}", number)  # type: ignore[arg-type]

        engine._write(declare)
        for number in range(STEPS):
            engine.pause_batch(f"big.step{number}")
            engine.submit_many((NOOP for _ in range(size // STEPS)), batch=f"big.step{number}")
        window = _Window()
        try:
            while window.bytes < 1000:
                time.sleep(0.1)
            time.sleep(1)
            idle_cpu, began = machine.fine_cpu_s(window.program.pid), time.perf_counter()
            time.sleep(10)
            idle = (machine.fine_cpu_s(window.program.pid) - idle_cpu) / (time.perf_counter() - began)
            for number in range(STEPS):
                engine.go_batch(f"big.step{number}")
            while not any(state.is_live for state in engine.counts()):
                time.sleep(0.01)
            cpu, began, done = machine.fine_cpu_s(window.program.pid), time.perf_counter(), _done(engine)
            looks, pages, watching = [], [], Watch(engine, "big")
            while time.perf_counter() - began < 20 and engine.counts("big.step19").get(TaskState.PENDING):
                at = time.perf_counter()
                watching.look()
                looks.append(time.perf_counter() - at)
                at = time.perf_counter()
                page(engine, "big.step10", None, "", -1)
                pages.append(time.perf_counter() - at)
                time.sleep(0.5)
            seconds, ended = time.perf_counter() - began, _done(engine) - done
            share = (machine.fine_cpu_s(window.program.pid) - cpu) / seconds
            answers = [window.answer_s(key) for _ in range(3) for key in TOUR]
            memory = machine.memory_mb(window.program.pid)
        finally:
            window.close()
            engine.cancel_all(120)
    return {
        "share": share, "idle": idle, "rate": ended / seconds, "look_ms": 1000 * statistics.median(looks),
        "page_ms": 1000 * statistics.median(pages), "answer_ms": 1000 * statistics.median(answers),
        "slowest_ms": 1000 * max(answers), "memory_mb": memory,
    }  # fmt: skip


def _done(engine: object) -> int:
    return sum(n for state, n in engine.counts().items() if state.is_final)  # type: ignore[attr-defined]


def screen(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(q)"""
    size = 10_000 if quick else 100_000
    found = run(Contestant("screen", (sys.executable, "-m", "benchmarks.screens")), size, folder)
    section = Section(
        "q", f"The screen of a workflow of {size:,} tasks in {STEPS} steps, 120 x 40, while they run", ("", "")
    )
    section.findings = [
        at_most("its process", 100 * found["share"], 3, " % of a core", 2),
        at_most("its process while nothing changes", 100 * found["idle"], 0.5, " % of a core", 2),
        at_most("from a key to what it draws, median", found["answer_ms"], 100, " ms", 0),
        at_most("the slowest", found["slowest_ms"], 100, " ms", 0),
    ]
    section.notes.append(
        f"Meanwhile {found['rate']:,.0f} tasks a second ended. Reading the steps takes {found['look_ms']:.1f} ms, the last tasks "
        f"of a step {found['page_ms']:.1f} ms, in the driver's own process. The screen's process has {found['memory_mb']:.0f} MiB."
    )
    return section


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]))))
