"""A workflow followed where there is no screen: one plain line for each change that matters, without any escape codes."""

from __future__ import annotations

import json
import threading
import time
from typing import TextIO

from scitq.engine import Engine
from scitq.errors import UnknownTask, UnknownWorkflow
from scitq.handle import Task
from scitq.hints import command_for
from scitq.saying import clean, duration, several
from scitq.states import BAD, Halt, TaskState
from scitq.store import glances, journal
from scitq.task import TaskId
from scitq.workflow.left import Left
from scitq.workflow.overview import Overview, Step, Watch, failure

# How often progress is told, and how often a file that changes is looked at.
PROGRESS_S = 10.0
LOOK_S = 0.2
SLOW_LOOK_S = 30.0
# Of failures that come all at once so many are told one by one.
TOLD = 10


def follow(engine: Engine, name: str, refresh: float | None, out: TextIO, *, as_json: bool = False) -> Left:
    """Tell what happens to a workflow until nothing more does by itself. `refresh`: seconds between two lines on progress.
    With `as_json` each line is an object for programs.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    watch = Watch(engine, name)
    seen = watch.look()
    engine._drive()
    engine._begin_to_wait()
    teller = _Teller(engine, out, refresh if refresh is not None else PROGRESS_S, as_json)
    changed = threading.Event()
    unsubscribe = engine._store.subscribe(changed.set)
    try:
        teller.begin(seen)
        while not seen.is_settled:
            changed.wait(min(SLOW_LOOK_S, teller.patience_s))
            changed.clear()
            seen = watch.look()
            teller.tell(seen)
            if not seen.is_settled:
                time.sleep(LOOK_S)  # a file that changes a thousand times a second is not looked at as often
        teller.end(seen)
        return Left.ENDED
    except KeyboardInterrupt:
        return Left.INTERRUPTED
    except UnknownWorkflow:
        return Left.DESTROYED
    finally:
        unsubscribe()


class _Teller:
    """Remembers what was told, and tells what is new."""

    def __init__(self, engine: Engine, out: TextIO, every_s: float, as_json: bool) -> None:
        self._engine = engine
        self._as_json = as_json
        self._out = out
        self._every_s = every_s
        self._before: dict[int, Step] = {}
        self._told: dict[int, int] = {}
        self._halt = Halt.GO
        self._is_driven = True
        self._journal = 0
        self._next = 0.0

    @property
    def patience_s(self) -> float:
        """Until progress is due again."""
        return max(0.05, self._next - time.monotonic())

    def begin(self, seen: Overview) -> None:
        """The first line."""
        self._journal = journal.last(self._engine._reader())
        done = seen.counts.get(TaskState.SUCCEEDED, 0)
        had = f", {done:,} of them done" if done else ""
        self._say(seen, f"{several(seen.total, 'task')} in {several(len(seen.steps), 'step')}{had}")
        self._before = {int(step.row.id): step for step in seen.steps}
        self._told = {id: step.settled for id, step in self._before.items()}
        self._next = time.monotonic() + self._every_s
        self._circumstances(seen)

    def tell(self, seen: Overview) -> None:
        """What has changed since."""
        self._failures(seen)
        for step in seen.steps:
            before = self._before.get(int(step.row.id))
            began = step.total - step.count(TaskState.WAITING, TaskState.PENDING, TaskState.PAUSED, TaskState.DEBUG)
            had_begun = 0
            if before is not None:
                queued = before.count(TaskState.WAITING, TaskState.PENDING, TaskState.PAUSED, TaskState.DEBUG)
                had_begun = before.total - queued
            if began and not had_begun:
                self._say(seen, f"{clean(step.name)} has started ({several(step.total, 'task')})")
            if step.total and step.settled == step.total and (before is None or before.settled < before.total):
                self._say(seen, f"{clean(step.name)} has ended: {_ends(step)}")
                self._told[int(step.row.id)] = step.settled
            self._before[int(step.row.id)] = step
        if time.monotonic() >= self._next:
            self._progress(seen)
            self._next = time.monotonic() + self._every_s
        self._circumstances(seen)

    def end(self, seen: Overview) -> None:
        """The last line."""
        took = "" if seen.elapsed_s is None else f" after {duration(seen.elapsed_s)}"
        if seen.elapsed_s is None and seen.row.started_ms is not None:
            took = f" after {duration(max(0, seen.now_ms - seen.row.started_ms) / 1000)}"
        ends = ", ".join(f"{seen.counts[state]:,} {state.word}" for state in _ORDER if seen.counts.get(state))
        self._say(seen, f"has ended{took}: {ends or 'no tasks'}")

    def _progress(self, seen: Overview) -> None:
        for step in seen.steps:
            id = int(step.row.id)
            if step.settled in (self._told.get(id, 0), step.total):
                continue
            self._told[id] = step.settled
            running = step.count(TaskState.RUNNING, TaskState.COLLECTING)
            parts = [f"{step.settled:,} of {step.total:,} done", f"{running:,} running" if running else ""]
            bad = step.count(*BAD)
            parts += [
                f"{bad:,} failed" if bad else "",
                "" if step.left_s is None else f"about {duration(step.left_s)} left",
            ]
            self._say(seen, f"{clean(step.name)}: {', '.join(part for part in parts if part)}")

    def _failures(self, seen: Overview) -> None:
        db = self._engine._reader()
        steps = {step.row.id: step for step in seen.steps}
        found: list[TaskId] = []
        while True:
            last, some = glances.failures(db, seen.row.id, self._journal)
            found += [task for task, batch in some if batch in steps]
            if last == self._journal:
                break
            self._journal = last
        for task in found[:TOLD]:
            self._failure(seen, task)
        if len(found) > TOLD:
            again = command_for(self._engine, "task list --failed")
            self._say(seen, f"{len(found) - TOLD:,} more tasks have failed: {again}")

    def _failure(self, seen: Overview, task: TaskId) -> None:
        try:
            row = Task(self._engine, task).row()
        except UnknownTask:
            return
        self._say(seen, f"task {failure(self._engine, row)}")

    def _circumstances(self, seen: Overview) -> None:
        if seen.halt is not self._halt:
            self._halt = seen.halt
            self._say(seen, "goes on" if self._halt is Halt.GO else f"is {self._halt.word}")
        is_driven = seen.driver is not None or seen.is_settled or self._engine.is_driving
        if is_driven != self._is_driven and (is_driven or not self._engine._has_driver()):
            self._is_driven = is_driven
            if is_driven:
                self._say(seen, f"is driven by {clean(seen.driver or 'this process')}")
            else:
                self._say(seen, f"nobody drives {clean(self._engine.path.name)}: {command_for(self._engine, 'up')}")

    def _say(self, seen: Overview, text: str) -> None:
        if self._as_json:
            counts = {state.word: n for state, n in seen.counts.items() if n}
            self._out.write(
                json.dumps({"workflow": seen.name, "text": text, "state": seen.state, "counts": counts}) + "\n"
            )
        else:
            self._out.write(f"{clean(seen.name)}: {text}\n")
        self._out.flush()


_ORDER = (
    TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED, TaskState.PAUSED, TaskState.DEBUG,
)  # fmt: skip


def _ends(step: Step) -> str:
    return ", ".join(f"{step.count(state):,} {state.word}" for state in _ORDER if step.count(state))
