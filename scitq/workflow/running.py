"""A workflow run and watched to its end, in this process: on a screen, in plain lines, or as a debug dialogue."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.errors import ScitqError, UnknownWorkflow, WorkflowFailed, WorkflowLeft
from scitq.hints import command_for, driver_of
from scitq.live import kernel_shell
from scitq.saying import harmless
from scitq.store import workflows
from scitq.workflow.left import Left
from scitq.workflow.summary import Summary, failure, summary

if TYPE_CHECKING:
    from types import TracebackType

    from scitq.engine import Engine
    from scitq.workflow.workflow import Workflow

# Shows a workflow of a file, with a wish for how often, until it is left.
Watcher = Callable[["Engine", str, float | None], Left]


def run(workflow: Workflow, refresh: float | None, *, block: bool) -> Summary:
    """Start it, and watch it until nothing more happens by itself."""
    _speak_calmly()
    workflow.start()
    engine, name = workflow.engine, workflow.name
    workflow._growth.begin()
    if not block:
        if workflow.debug:  # it waits for its dialogue
            return summary(engine, name)
        from scitq.workflow import notebook

        return notebook.begun(engine, name, lambda watch: _to_end(workflow, watch, refresh, is_alone=False))
    return _to_end(workflow, None, refresh, is_alone=True)


def _to_end(workflow: Workflow, watch: Watcher | None, refresh: float | None, *, is_alone: bool) -> Summary:
    """Watch it, and see to what is to be done once it has ended. While one is alone, no other `Workflow` of that name takes over."""
    engine, name = workflow.engine, workflow.name
    workflow.is_over = True
    workflow._lock.is_running = is_alone
    left = Left.ENDED
    try:
        left = _watch(workflow, refresh, watch)
    finally:
        workflow._lock.is_running = False
        if left is not Left.ENDED:
            with contextlib.suppress(ScitqError):
                workflow._growth.end()
        workflow._lock.release()
    if left is not Left.ENDED:
        raise _left(workflow, left)
    over(engine, name)
    found = summary(engine, name)
    if not found:
        raise failure(engine, found)
    return found


def _watch(workflow: Workflow, refresh: float | None, watch: Watcher | None) -> Left:
    engine, name = workflow.engine, workflow.name
    if workflow.debug:
        from scitq.workflow import debugging

        left: Left = debugging.dialogue(workflow)
        if left is not Left.NORMAL:
            return left
        workflow.debug = False
    watch = watch or watcher()
    while True:
        try:
            left = watch(engine, name, refresh)
        except KeyboardInterrupt:  # before, or after, anybody was there who sees to it
            left = Left.INTERRUPTED
        if left is not Left.ENDED:
            return left
        # What functions declared while the last task ended, or would for it, is part of it.
        workflow._growth.end()
        called = workflow._growth.grow()
        if not called and not unsettled(engine, name):
            return Left.ENDED
        workflow._growth.begin()


def watcher() -> Watcher:
    """Who shows it: a table in a notebook, a screen where there is a terminal, else plain lines."""
    if kernel_shell() is not None:
        from scitq.workflow import notebook

        return notebook.watch
    if sys.stdin is not None and sys.stdout is not None and sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from scitq.workflow import screen

            shown: Watcher = screen.run
            return shown
    with contextlib.suppress(ImportError):
        from scitq.workflow import lines

        return lambda engine, name, refresh: lines.follow(engine, name, refresh, sys.stdout)
    return wait


def wait(engine: Engine, name: str, refresh: float | None = None) -> Left:
    """Wait without a word."""
    try:
        engine._wait_for(lambda: unsettled(engine, name), None, f"workflow {name}")
    except KeyboardInterrupt:
        return Left.INTERRUPTED
    except UnknownWorkflow:
        return Left.DESTROYED
    return Left.ENDED


def unsettled(engine: Engine, name: str) -> int:
    """How many of its tasks something may still happen to by itself."""
    db = engine._reader()
    return workflows.unsettled(db, workflows.get(db, name).id)


def over(engine: Engine, name: str) -> None:
    """Note that a run has ended."""
    now = time.time_ns() // 1_000_000
    row = workflows.get(engine._reader(), name)
    engine._write(lambda db: workflows.over(db, now, row.id))


def _left(workflow: Workflow, left: Left) -> WorkflowLeft:
    name = workflow.name
    if left is Left.DESTROYED:
        return WorkflowLeft(f"workflow {name} was deleted.", workflow=name, left=left)
    other = driver_of(workflow.engine)
    if other is not None and not workflow.engine.is_driving:  # it was there before, or was left behind
        stays: str | None = f"Its tasks go on: driver {other.describe(time.time_ns() // 1_000_000)}"
    else:
        stays = workflow.engine.remains()
    workflow.engine._told = True
    told = f"workflow {name} was left." + (f" {stays}." if stays else "")
    watch = command_for(workflow.engine, f"workflow watch {shlex.quote(name)}")
    return WorkflowLeft(f"{told} To watch it: {watch}", workflow=name, left=left)


def _speak_calmly() -> None:
    """Whoever leaves a workflow, or runs one that fails, is not shown how `run` is built."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _told


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, WorkflowLeft | WorkflowFailed):
        sys.stdout.flush()
        text = str(error)
        print(harmless(text) if sys.stderr.isatty() else text, file=sys.stderr)  # it has the last lines of what failed
    else:
        sys.__excepthook__(kind, error, trace)
