"""Workflows that grow while they run: `step.each(function)`, called for each task of the step once that has succeeded.

Nothing of it needs to be remembered: when the script runs again, the functions are called again for tasks that have succeeded, and
what they declare is found again by its names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.errors import Closed
from scitq.store import workflows
from scitq.waiting import SLOW_LOOK_S
from scitq.workflow.step import StepTask

if TYPE_CHECKING:
    from scitq.workflow.workflow import Workflow


class Growth:
    """The functions of one workflow, and for which tasks they have been called."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._functions: dict[str, list[Callable[..., object]]] = {}
        self._done: dict[str, set[tuple[int, int]]] = {}  # by step: (task, which function)
        self._gate = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, step: str, function: Callable[..., object]) -> None:
        """Have it called for the tasks of that step."""
        with self._gate:
            self._functions.setdefault(step, []).append(function)

    def grow(self) -> int:
        """Call what is due; returns how many calls those were. What each declares is in the file when the next one is made."""
        count = 0
        with self._gate:
            for step in list(self._functions):
                for task in self._won(step):
                    for n, function in enumerate(self._functions[step]):
                        done = self._done.setdefault(step, set())
                        if (int(task.id), n) in done:
                            continue
                        self._workflow._expand(task, function)
                        done.add((int(task.id), n))
                        count += 1
        return count

    def _won(self, step: str) -> list[StepTask]:
        """The tasks of a step that have succeeded, in the order of their declaration."""
        workflow = self._workflow
        won = workflows.won(workflow.engine._reader(), f"{workflow.name}.{step}")
        declared = list(workflow._declared_of(step))
        return [StepTask(workflow, one) for one in declared if one.id in won]

    # --- beside whoever watches -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Call what becomes due from a thread, until `end`."""
        if self._functions and self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="scitq-grow", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Call nothing more; waits for a function that is at work.

        Raises what a function raised.
        """
        self._stop.set()
        if self._thread is not None:
            self._workflow.engine._changes.announce()
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem

    def _run(self) -> None:
        engine = self._workflow.engine
        while not self._stop.is_set() and not engine._closed:
            seen = engine._changes.count
            try:
                self.grow()
            except Closed:
                return
            except BaseException as problem:
                self.problem = problem
                return
            engine._changes.wait(seen, SLOW_LOOK_S)
