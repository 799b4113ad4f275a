"""`scitq top`: workers and what they run, live on a terminal; one table elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, When
from scitq.shell.live.machines import MOST, Eyes, Machine, Request, Running
from scitq.shell.show import Screen, visible
from scitq.shell.workers import look
from scitq.states import TaskState

DUMB = ("", "dumb", "unknown")
# How long `--once` waits for the last lines of what runs.
LINES_S = 1.5


def top(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Show it until the user leaves; or once."""
    screen: Screen = args.screen
    is_full = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in DUMB
    if args.once or screen.as_json or not is_full:
        return _once(engine, screen)
    from scitq.shell.live import screen as full

    facts.hush()
    full.run(engine)
    return 0


def _once(engine: Engine, screen: Screen) -> Text | int:
    """Workers, and below them what they hold."""
    look(engine)
    eyes = Eyes(engine)
    seen = eyes(Request())
    shown = tuple(row.execution for row in seen.running[:16])
    running = [row for row in seen.running if row.execution in shown and row.state is TaskState.RUNNING]
    if running and seen.driver is not None:  # what they write is on its way
        deadline = time.monotonic() + LINES_S
        while time.monotonic() < deadline:
            count = engine._changes.count
            seen = eyes(Request(shown=shown))
            if all(row.last for row in seen.running if row.execution in shown and row.state is TaskState.RUNNING):
                break
            engine._changes.wait(count, 0.3)
    if screen.as_json:
        data = {"workers": [visible(_worker(row)) for row in seen.machines], "tasks": [visible(_task(row)) for row in seen.running],
                "counts": facts.count_words(seen.counts), "driver": seen.driver}  # fmt: skip
        return Text("", data)
    screen.out(screen.folded(f"{engine.path.name}: {facts.counted(seen.counts)}"))
    workers = [_worker(row) for row in seen.machines]
    columns = [
        Column("name"), Column("state"), Column("_busy", "busy"), Column("prefetch"), Column("_cpu", "CPU"),
        Column("memory_used", "memory"), Column("_load", "load"), Column("disk_free", "disk free"),
        Column("in_s", "in/s"), Column("out_s", "out/s"),
    ]  # fmt: skip
    if workers:
        screen.out("")
        screen.table(Rows(_filled(columns, workers), workers))
    tasks = [_task(row) for row in seen.running]
    columns = [
        Column("id"), Column("name", "task", gives=True), Column("batch", gives=True), Column("worker"), Column("state"),
        Column("time"), Column("_cpu", "CPU"), Column("memory"), Column("last_line", "last line", gives=True),
    ]  # fmt: skip
    screen.out("")
    if tasks:
        screen.table(Rows(_filled(columns, tasks), tasks))
    else:
        screen.out("No task runs.")
    if len(tasks) == MOST:
        screen.say(f"These are {MOST:,}; there are more.")
    if facts.queued(seen.counts):
        for note in facts.nobody_drives(engine):
            screen.say(note)
    return 0


def _filled(columns: list[Column], rows: list[dict[str, Any]]) -> list[Column]:
    return [one for one in columns if any(row[one.key] not in (None, "") for row in rows)]


def _worker(row: Machine) -> dict[str, Any]:
    used = None if row.memory is None or row.memory_free is None else row.memory - row.memory_free
    net_in, net_out = (None if rate is None else Bytes(rate) for rate in (row.net_in, row.net_out))
    return {
        "name": row.name, "state": row.state.word, "batch": row.batch, "runs": row.runs, "holds": row.holds, "concurrency": row.concurrency,
        "prefetch": "auto" if row.prefetch is None else row.prefetch, "cpu": row.cpu, "load": row.load,
        "memory": _bytes(row.memory), "memory_used": _bytes(used), "disk": _bytes(row.disk), "disk_free": _bytes(row.disk_free),
        "in_s": net_in, "out_s": net_out, "measured": None if row.at_ms is None else When(row.at_ms), "trend": list(row.trend),
        "note": row.note,
        "_busy": f"{row.runs}/{row.concurrency}", "_cpu": "" if row.cpu is None else f"{row.cpu:.0%}",
        "_load": "" if row.load is None else f"{row.load:.2f}",
    }  # fmt: skip


def _task(row: Running) -> dict[str, Any]:
    time_s = None if row.since_ms is None else Seconds(max(0, facts.now_ms() - row.since_ms) / 1000)
    cpu_s = None if row.cpu_s is None else Seconds(row.cpu_s)
    return {
        "id": int(row.task), "execution": int(row.execution), "name": row.name, "batch": row.batch, "worker": row.worker,
        "state": row.word, "time": time_s, "cpu": row.cpu, "cpu_s": cpu_s, "memory": _bytes(row.memory), "last_line": row.last,
        "_cpu": "" if row.cpu is None else f"{row.cpu:.0%}",
    }  # fmt: skip


def _bytes(value: int | None) -> Bytes | None:
    return None if value is None else Bytes(value)
