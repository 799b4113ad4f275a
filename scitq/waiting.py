"""Waiting for tasks: how threads and coroutines of this process learn that something in the file changed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from scitq.errors import Closed, NoDriver, ScitqError, TaskFailed, UnknownTask
from scitq.selection import chunks
from scitq.states import TaskState
from scitq.store import journal, listing
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.handle import Task

# How often somebody who waits looks at the file though nothing was announced.
SLOW_LOOK_S = 30.0
# Who waits for many tasks looks again after so long for each of them, at the most after this.
LOOK_PER_TASK_S = 20e-6
LOOK_S = 0.05


class Changes:
    """Tells waiting threads that something in the file changed: a counter that grows, and a condition to wait on."""

    def __init__(self) -> None:
        self.count = 0
        self._condition = threading.Condition()

    def announce(self) -> None:
        """Something changed (or everything is over)."""
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float | None) -> bool:
        """Wait until the counter is past `seen`; False when time ran out."""
        with self._condition:
            return self._condition.wait_for(lambda: self.count > seen, timeout_s)


class Arrivals:
    """Resolves futures as tasks settle, from one thread that reads the journal: for any number of `await`s."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._changes = engine._changes
        self._expected: dict[TaskId, list[Future[None]]] = {}
        self._gate = threading.Lock()
        self._seen = journal.last(engine._reader())
        threading.Thread(target=self._run, name="scitq-await", daemon=True).start()

    def expect(self, task: TaskId) -> Future[None]:
        """A future that is done when the task is settled."""
        future: Future[None] = Future()
        with self._gate:
            self._expected.setdefault(task, []).append(future)
        engine = self._engine()
        if engine is not None:
            engine._begin_to_wait()
        if engine is not None and listing.state_of(engine._reader(), task).is_settled:
            self._arrived(task)
        return future

    def _arrived(self, task: TaskId) -> None:
        with self._gate:
            futures = self._expected.pop(task, [])
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _run(self) -> None:
        while (engine := self._engine()) is not None and not engine._closed:
            count = self._changes.count
            try:
                before = self._seen
                self._seen, moves = journal.settled_since(engine._reader(), before)
                if journal.has_deletion(engine._reader(), before, self._seen):
                    self._miss(engine)
            except ScitqError:
                break
            for task, state in moves:
                if state.is_settled and task in self._expected:
                    self._arrived(TaskId(task))
            del engine
            if not moves:
                self._changes.wait(count, SLOW_LOOK_S)
        self._give_up()

    def _miss(self, engine: Engine) -> None:
        """Tasks were deleted: who waits for one of them is told."""
        for task in list(self._expected):
            try:
                listing.state_of(engine._reader(), task)
            except UnknownTask as problem:
                with self._gate:
                    futures = self._expected.pop(task, [])
                for future in futures:
                    if future.set_running_or_notify_cancel():
                        future.set_exception(problem)

    def _give_up(self) -> None:
        """The engine was closed: nobody is left waiting."""
        with self._gate:
            futures = [future for waiting in self._expected.values() for future in waiting]
            self._expected.clear()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(Closed("the state file was closed while a task was awaited."))


def wait_for(engine: Engine, missing: Callable[[], int], timeout: float | None, what: str) -> None:
    """Wait until `missing` counts nothing. While it counts many, not every change is worth a look."""
    deadline = None if timeout is None else time.monotonic() + timeout
    engine._begin_to_wait()
    while True:
        count = engine._changes.count
        if not (left := missing()):
            return
        engine._drive()
        if left > 1:
            time.sleep(min(LOOK_S, left * LOOK_PER_TASK_S))
        _pause(engine, count, deadline, what)


def _pause(engine: Engine, count: int, deadline: float | None, what: str) -> None:
    if engine._closed:
        raise Closed(f"{engine.path.name} was closed while waiting for {what}.")
    if engine._driver_problem is not None and (
        (holder := engine.driver()) is None or (holder.is_here and not holder.alive)
    ):
        raise NoDriver(
            f"nobody drives {engine.path.name} any more: {engine._driver_problem}"
        ) from engine._driver_problem
    left = SLOW_LOOK_S if deadline is None else min(SLOW_LOOK_S, deadline - time.monotonic())
    if left <= 0:
        raise TimeoutError(f"{what}: not settled in time.")
    engine._changes.wait(count, left)


def as_completed(engine: Engine, handles: Iterable[Task], timeout: float | None = None) -> Iterator[Task]:
    """The tasks, each as soon as it has ended or is blocked.

    Raises:
        TimeoutError: not all within `timeout` seconds.
        UnknownTask: one was deleted.
    """
    engine._drive()
    engine._begin_to_wait()
    left = {task.id: task for task in handles}
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = journal.last(engine._reader())
    for id in _settled_of(engine, left):
        yield left.pop(id)
    while left:
        count, before = engine._changes.count, seen
        seen, moves = journal.settled_since(engine._reader(), seen)
        if journal.has_deletion(engine._reader(), before, seen):
            _settled_of(engine, left)
        for moved, state in moves:
            id = TaskId(moved)
            if state.is_settled and id in left and listing.state_of(engine._reader(), id).is_settled:
                yield left.pop(id)
        if not left or moves:
            continue
        _pause(engine, count, deadline, f"{len(left)} tasks")


def _settled_of(engine: Engine, ids: Iterable[TaskId]) -> list[TaskId]:
    """Those of the tasks to which nothing more will happen.

    Raises:
        UnknownTask: one was deleted.
    """
    states = {
        row.id: row.state for page in chunks(list(ids), 1000) for row in listing.select(engine._reader(), ids=page)
    }
    for id in ids:
        if id not in states:
            listing.get(engine._reader(), id)
    return [id for id, state in states.items() if state.is_settled]


def join(engine: Engine, handles: Iterable[Task], retry: int = 1, check: bool = False) -> dict[str, int]:
    """Wait for tasks, relaunching each failed one up to `retry` times; returns how many ended in each state.

    Raises:
        TaskFailed: with `check=True`, if any finally failed.
    """
    wanted = list(handles)
    left = dict.fromkeys((task.id for task in wanted), retry)
    is_over = False
    while not is_over:
        is_over = True
        # All of them each time: one that was blocked goes on when what it needs is queued once more.
        for task in as_completed(engine, wanted):
            if task.state is TaskState.FAILED and left[task.id] > 0:
                left[task.id] -= 1
                task.relaunch()
                is_over = False
    ends: dict[str, int] = {}
    worst: Task | None = None
    for task in wanted:
        ends[task.status] = ends.get(task.status, 0) + 1
        worst = task if task.state is not TaskState.SUCCEEDED else worst
    if check and worst is not None:
        failed = {state: n for state, n in ends.items() if state != TaskState.SUCCEEDED.word}
        told = ", ".join(f"{n} {state}" for state, n in failed.items())
        raise TaskFailed(f"{told} of {len(wanted)} tasks, among them {worst.row().label}: {worst.why()}", task=worst.id)
    return ends
