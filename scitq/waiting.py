"""How threads and coroutines of this process learn that something in the file changed."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

from scitq.errors import Closed, ScitqError, UnknownTask
from scitq.store import journal, listing
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.engine import Engine

# How often somebody who waits looks at the file though nothing was announced.
SLOW_LOOK_S = 30.0


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
