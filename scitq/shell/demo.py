"""`scitq demo`: the pipeline of `scitq.demo` on this machine, its progress as a live table, its result as biologists read it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from scitq.demo import run as pipeline
from scitq.engine import Engine
from scitq.errors import BadInput, TaskError
from scitq.handle import Task
from scitq.shell import facts
from scitq.shell.answers import Text, duration, several, size
from scitq.shell.attention import Attention
from scitq.shell.driving import SECOND_CHANCE_S, cancel_everything
from scitq.shell.show import Screen
from scitq.states import TaskState, WorkerState
from scitq.store import executions, listing
from scitq.task import TaskRow
from scitq.worker import WorkerRow

if TYPE_CHECKING:
    from rich.table import Table

READY_S = 20.0
BAR = 12


def demo(_: None, args: SimpleNamespace) -> Text | int:
    """Queue the pipeline, drive it, show it, print its table."""
    screen: Screen = args.screen
    folder = Path(args.dir or ".")
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder. Make it first: mkdir -p {folder}")
    path, results = folder / "demo.scitq", folder / "demo-results"
    is_new = not path.exists()
    if args.keep:
        results = _free_name(results)
    had_results = results.exists()
    if had_results:
        _clear(results)
    with Engine(path) as engine, Attention(engine) as attention:
        started = time.monotonic()
        handles = pipeline.submit(engine, results)
        worker = _ready_worker(engine, attention)
        screen.say(_opening(engine, worker, is_new=is_new, had_results=had_results, results=results))
        code = _watch(engine, screen, attention, handles)
        if code is not None:
            return code
        took_s = time.monotonic() - started
        _raise_if_failed(handles)
        facts.hush()
        data = {
            "file": str(engine.path), "results": str(results.resolve()), "tasks": len(handles), "seconds": round(took_s, 3),
            "samples": pipeline.summary(results),
        }  # fmt: skip
        return Text(pipeline.table(results) + "\n", data, [_closing(engine, results, len(handles), took_s)])


def _free_name(results: Path) -> Path:
    number, path = 2, results
    while path.exists():
        path = results.with_name(f"{results.name}-{number}")
        number += 1
    return path


def _clear(results: Path) -> None:
    """Take away what an earlier demo made, and nothing else that somebody may have put there."""
    for step in ("trim", "place", "kmer", "report"):
        shutil.rmtree(results / step, ignore_errors=True)


def _ready_worker(engine: Engine, attention: Attention) -> WorkerRow | None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and not attention.interrupts:
        for worker in engine.workers():
            if worker.state is WorkerState.READY and worker.facts:
                return worker
        attention.wait(0.1)
    return None


def _opening(engine: Engine, worker: WorkerRow | None, *, is_new: bool, had_results: bool, results: Path) -> str:
    name = engine.path.name
    done = f"{name} created." if is_new else f"{name} is there from before: its tasks stay."
    if had_results:
        done += f" The results in {_near(results)}/ are made afresh."
    if worker is None:
        return f"{done} The local worker is not ready yet."
    about = [several(worker.concurrency, "slot")]
    if worker.facts.get("memory"):
        about.append(size(worker.facts["memory"]))
    if worker.facts.get("python"):
        about.append(f"Python {worker.facts['python']}")
    return f"{done} Local worker: {', '.join(about)}."


def _closing(engine: Engine, results: Path, count: int, took_s: float) -> str:
    listing = facts.command_for(engine, "task list")
    return (
        f"{several(count, 'task')}, {duration(took_s)}. Everything is in {facts.short_path(engine)}; outputs in {_near(results)}/. "
        f"Next: {listing} · examples/01_hello.py"
    )


def _near(path: Path) -> str:
    return os.path.relpath(path)


def _raise_if_failed(handles: list[Task]) -> None:
    bad = [task for task in handles if task.state is TaskState.FAILED] or [
        task for task in handles if task.state is not TaskState.SUCCEEDED
    ]
    if bad:
        bad[0].result()
        raise TaskError(f"the demo did not end well: {bad[0].why()}")


# --- progress -----------------------------------------------------------------------------------------------------------------------


class Step:
    """One line of the progress table."""

    def __init__(
        self, name: str, rows: list[TaskRow], now_ms: int, started_ms: int | None, ended_ms: int | None
    ) -> None:
        self.name = name
        self.total = len(rows)
        self.done = sum(row.state is TaskState.SUCCEEDED for row in rows)
        self.failed = sum(row.state in (TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED) for row in rows)
        self.running = sum(row.state in (TaskState.RUNNING, TaskState.COLLECTING) for row in rows)
        is_over = self.done + self.failed == self.total
        end_ms = ended_ms if is_over and ended_ms is not None else now_ms
        self.time_s = None if started_ms is None else max(0, end_ms - started_ms) // 1000

    @property
    def cells(self) -> tuple[str, ...]:
        """The line's text."""
        time = "" if self.time_s is None else f"{self.time_s} s"
        return (self.name, str(self.total), str(self.done), str(self.running), str(self.failed), time)


def _watch(engine: Engine, screen: Screen, attention: Attention, handles: list[Task]) -> int | None:
    """Show progress until all is over; an exit code when left by Ctrl-C."""
    ids = [task.id for task in handles]
    show, end = _live_table(screen)
    deadline: float | None = None
    try:
        while True:
            steps = _steps(engine, ids)
            show(steps)
            if all(step.done + step.failed == step.total for step in steps):
                return None
            if attention.interrupts and deadline is None:
                deadline = time.monotonic() + SECOND_CHANCE_S
                end()
                show, end = (lambda _: None), (lambda: None)
                screen.say(
                    f"\nStopped: {facts.goes_on(engine.counts())}. To go on: {facts.command_for(engine, 'up')}. "
                    f"Ctrl-C again within {SECOND_CHANCE_S:.0f} s cancels all of it."
                )
            if attention.interrupts > 1:
                cancel_everything(engine, screen, attention)
                return 130
            if attention.is_asked_to_end or (deadline is not None and time.monotonic() >= deadline):
                facts.hush()
                return 143 if attention.is_asked_to_end else 130
            attention.wait(0.5, at_least_s=0.1)
    finally:
        end()


def _steps(engine: Engine, ids: list[Any]) -> list[Step]:
    db, now = engine._reader(), facts.now_ms()
    by_batch: dict[str, list[TaskRow]] = {}
    for row in listing.select(db, ids=ids, limit=len(ids)):
        by_batch.setdefault(row.batch, []).append(row)
    found = []
    for name, rows in by_batch.items():
        last = [executions.latest(db, row.id) for row in rows]
        starts = [one.started_ms for one in last if one is not None and one.started_ms is not None]
        ends = [one.ended_ms for one in last if one is not None and one.ended_ms is not None]
        found.append(Step(name, rows, now, min(starts, default=None), max(ends, default=None)))
    return found


_HEAD = ("step", "tasks", "done", "running", "failed", "time")


def _live_table(screen: Screen) -> tuple[Callable[[list[Step]], None], Callable[[], None]]:
    """How progress is shown, and how showing it ends: redrawn in place on a terminal, else a line when a step is done."""
    if screen.as_json:
        return (lambda steps: None), (lambda: None)
    if not screen.errors_are_terminal:
        return _plain_progress(screen)
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, no_color=not screen.has_colour)
    live = Live(console=console, auto_refresh=False)
    shown: list[Any] = []

    def show(steps: list[Step]) -> None:
        key = [step.cells for step in steps]
        if key != shown:
            shown[:] = key
            if not live.is_started:
                console.print()
                live.start()
            live.update(_drawn(steps), refresh=True)

    def end() -> None:
        if live.is_started:
            live.stop()
            console.print()

    return show, end


def _plain_progress(screen: Screen) -> tuple[Callable[[list[Step]], None], Callable[[], None]]:
    told: set[str] = set()

    def show(steps: list[Step]) -> None:
        for step in steps:
            if step.done + step.failed == step.total and step.name not in told:
                told.add(step.name)
                bad = f", {step.failed} failed" if step.failed else ""
                screen.say(f"{step.name:<8}{step.done} of {step.total} done{bad}, {step.time_s or 0} s")

    return show, lambda: None


def _drawn(steps: list[Step]) -> Table:
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 1))
    for name in _HEAD:
        table.add_column(name, justify="left" if name == "step" else "right", min_width=5, no_wrap=True)
    table.add_column("", no_wrap=True)
    for step in steps:
        full = BAR * step.done // step.total
        is_over = step.done == step.total
        bar = Styled("━" * full, style="green" if is_over else "cyan").append("━" * (BAR - full), style="bright_black")
        name, total, done, running, failed, time = step.cells
        table.add_row(
            name,
            total,
            done,
            Styled(running, style="cyan" if step.running else ""),
            Styled(failed, style="bold red" if step.failed else ""),
            time,
            bar,
        )
    return table
