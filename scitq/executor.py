"""`Executor`: Python functions as tasks, behind the interface of `concurrent.futures`.

A call is a task that runs `runner`; what it must be given and leaves behind is `calls`. Nothing here runs a function.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

from scitq import submission
from scitq.calls import PYTHON, CallFiles, files_of, name_of, packed, raised_by, result_of
from scitq.errors import BadInput, Closed, NoDriver, ScitqError, TaskError, TaskFailed
from scitq.handle import Task
from scitq.states import UNPLACED, TaskState
from scitq.store import listing, tasks
from scitq.task import TaskId

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine

T = TypeVar("T")

# `map` makes about so many chunks a slot: enough to keep slots equally busy, few enough that starting Pythons is cheap.
CHUNKS_PER_SLOT = 32
CHUNKS_LIMIT = 4096
# How often it is looked whether the engine is still open; results themselves are announced.
SLOW_LOOK_S = 5.0
CANCEL_BULK = 1000


class CallFuture(futures.Future[T]):
    """The future of one call; `task` is the task that makes it."""

    def __init__(self, executor: Executor, task: Task) -> None:
        super().__init__()
        self._executor = executor
        self.task = task

    def cancel(self, running: bool = False) -> bool:
        """Cancel the call unless a worker has it already; returns whether it is (or was) cancelled.

        With `running=True` a call that a worker has is stopped too: True then says that this was asked for, and the future
        is cancelled once the worker has stopped it (or has its result, when it ended before).
        """
        if self.done():
            return self.cancelled()
        return self._executor._cancel([self], running=running) == 1

    def running(self) -> bool:
        """A worker has the call, and it has not ended."""
        return not self.done() and self.task.state.is_live

    def _withdraw(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()  # tells those in `futures.wait`


class Executor(futures.Executor):
    """Runs Python functions as tasks of an engine. Made by `Engine.executor`; a context manager.

    Functions and arguments travel by cloudpickle, so functions of a script or notebook work; modules they import must be there
    on the worker. Results are unpickled here: a worker is trusted as much as this machine. A call is an ordinary task, with
    its options and its output (`future.task`); it goes on, and its result stays, when this process ends (see `attach`).

    A call needs a worker with this very minor version of Python, or, with `container=`, an image with such a `python3`, where
    the functions' modules are found as that Python finds them.
    """

    def __init__(self, engine: Engine, **options: Any) -> None:
        for name in ("command", "shell"):
            if name in options:
                raise BadInput(f"an executor runs Python functions: it takes no {name}=.")
        self._engine = engine
        self._name = options.pop("name", None)
        if self._name is not None:
            self._name = submission.name_of("name", self._name)
        tags = submission.conditions({"tags": options.pop("tags", None)}).get("tags", {})
        self._options = {**options, "shell": False, "tags": {**tags, "python": PYTHON}, "python": PYTHON}
        # Wrong options show now, not at the first call.
        prepared = listing.spec_of(engine._submitter.prepare({"command": ["-"], **self._options}).spec)
        if prepared.container is not None:
            # The Python that counts is its image's. Its batch's container is written down, for calls are made for it.
            self._options |= {"container": prepared.container, "python": None}
        elif not sys.executable:
            raise BadInput(
                "this Python does not know its own program (sys.executable is empty): it cannot be run again."
            )
        self._input = prepared.input
        self._files = CallFiles(engine.side, in_container=prepared.container is not None)
        self._gate = threading.Lock()
        self._open: dict[TaskId, CallFuture[Any]] = {}
        self._needs: dict[TaskId, Sequence[str]] = {}
        self._settled: queue.SimpleQueue[TaskId] = queue.SimpleQueue()
        self._has_thread = False
        self._is_shut = False

    # --- calling --------------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> CallFuture[T]:
        """Queue a call of `fn`; it is in the file when this returns.

        Raises:
            RuntimeError: the executor was shut down.
            PicklingError, TypeError: the function or an argument cannot travel.
        """
        return self._submit(self._files.function(fn), (args, kwargs), name_of(fn))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn` for the items (of several iterables in step), in order; queued at once, in chunks.

        A chunk is one task. Without `chunksize` small inputs get a task an item, large ones about 32 tasks a run slot.
        A call that raises ends its chunk; the iterator raises that when it gets there, and cancels the rest.

        Raises:
            TimeoutError: an item was not there `timeout` seconds after the call of `map`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        calls: Iterable[tuple[Any, ...]] = zip(*iterables, strict=False)
        if chunksize is None:
            calls = list(calls)
            chunksize = self._chunk_size(len(calls))
        elif submission.whole("chunksize", chunksize) == 0:
            raise BadInput("chunksize must be 1 or more.")
        function, name = self._files.function(fn), name_of(fn)
        left: list[CallFuture[list[T]]] = []
        first = 0
        source = iter(calls)
        try:
            while chunk := list(itertools.islice(source, chunksize)):
                last = first + len(chunk) - 1
                label = f"{name} {first}" if first == last else f"{name} {first}-{last}"
                left.append(self._submit(function, chunk, label))
                first = last + 1
        except BaseException:
            self._cancel(left)
            raise
        left.reverse()  # taken from the end, so that results are let go of as they are handed out
        return self._results(left, deadline)

    def _results(self, left: list[CallFuture[list[T]]], deadline: float | None) -> Iterator[T]:
        try:
            while left:
                patience = None if deadline is None else max(0.0, deadline - time.monotonic())
                found = left[-1].result(patience)
                left.pop()
                found.reverse()
                while found:
                    yield found.pop()
        finally:
            with contextlib.suppress(Closed):
                self._cancel(left)

    def _chunk_size(self, count: int) -> int:
        slots = sum(worker.concurrency for worker in self._engine.workers()) or os.cpu_count() or 1
        chunks = max(min(CHUNKS_PER_SLOT * slots, CHUNKS_LIMIT), 4 * slots)
        return max(1, -(-count // chunks))

    def attach(self, task: Task | int | str) -> CallFuture[Any]:
        """The future of a call that was submitted before, perhaps by a process that has ended.

        Raises:
            UnknownTask: no such task.
            BadInput: the task is no call of a Python function.
        """
        handle = task if isinstance(task, Task) else self._engine.task(task)
        files_of(handle.row().spec.command)
        return self._expect(CallFuture(self, handle), None)

    def _submit(self, function: bytes, arguments: Any, name: str) -> CallFuture[Any]:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        kept: list[str] = []
        try:
            for data in (function, packed(arguments)):
                kept.append(self._files.keep(data))
            given = {**self._options, **self._files.task(kept), "name": self._name or name}
            if "input" in given:
                given["input"] = [*self._input, *given["input"]]
            task = Task(self._engine, self._engine._submitter.one(given))
            self._engine._drive()
        except BaseException:
            self._files.release(kept)
            raise
        return self._expect(CallFuture(self, task), kept)

    # --- ends -----------------------------------------------------------------------------------------------------------

    def _expect(self, future: CallFuture[Any], files: Sequence[str] | None) -> CallFuture[Any]:
        id = future.task.id
        with self._gate:
            known = self._open.setdefault(id, future)
            if known is not future:  # attached twice
                return known
            if files is not None:
                self._needs[id] = files
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._collect, name="scitq-executor", daemon=True).start()
        self._engine._arrival(id).add_done_callback(lambda _: self._settled.put(id))
        return future

    def _collect(self) -> None:
        """In a thread of its own, as long as a future is open: unpack what has settled."""
        while True:
            try:
                id = self._settled.get(timeout=SLOW_LOOK_S)
            except queue.Empty:
                self._look_after()
            else:
                future = self._open.get(id)
                if future is not None:
                    self._settle(id, future)
                    del future  # a result must not live until the next one
            with self._gate:
                if not self._open:
                    self._has_thread = False
                    return

    def _settle(self, id: TaskId, future: CallFuture[Any]) -> None:
        try:
            state = future.task.state
            if not state.is_settled:  # relaunched between its end and now
                self._engine._arrival(id).add_done_callback(lambda _: self._settled.put(id))
                return
            outcome = None if state is TaskState.CANCELLED else self._outcome(future.task, state)
        except Exception as problem:  # whatever an object says to being unpacked
            outcome = problem, None
        self._end(id, future, outcome)

    def _end(self, id: TaskId, future: CallFuture[Any], outcome: tuple[BaseException | None, Any] | None) -> bool:
        """Give a future its end, once: an exception or a value, or None for cancelled."""
        with self._gate:
            if self._open.pop(id, None) is None:
                return False
            files = self._needs.pop(id, None)
        if files is not None and (outcome is None or outcome[0] is None):
            self._files.release(files)  # one that failed may be relaunched
        if outcome is None:
            future._withdraw()
        elif outcome[0] is not None:
            future.set_exception(outcome[0])
        else:
            future.set_result(outcome[1])
        return True

    def _outcome(self, task: Task, state: TaskState) -> tuple[BaseException | None, Any]:
        if state is TaskState.SUCCEEDED:
            return None, result_of(task)
        try:
            task._verdict()
        except TaskFailed as problem:
            return raised_by(task) or problem, None
        except TaskError as problem:
            return problem, None
        return None, result_of(task)  # relaunched meanwhile, and well this time

    def _look_after(self) -> None:
        """Nothing came for a while: see whether anything can still come."""
        engine = self._engine
        problem: ScitqError | None = None
        if engine._closed:
            problem = Closed(f"{engine.path.name} was closed before the call ended; its task goes on: see attach().")
        elif engine._driver_problem is not None:
            with contextlib.suppress(ScitqError):
                if engine.driver() is None:
                    problem = NoDriver(f"nobody drives {engine.path.name} any more: {engine._driver_problem}")
        if problem is not None:
            for id, future in list(self._open.items()):
                with self._gate:
                    self._needs.pop(id, None)  # its task may still run
                self._end(id, future, (problem, None))

    def _cancel(self, found: Sequence[CallFuture[Any]], *, running: bool = False) -> int:
        """Cancel calls that no worker has, and with `running` the others too; returns how many."""

        def cancel(db: apsw.Connection, part: Sequence[CallFuture[Any]]) -> tuple[list[CallFuture[Any]], int]:
            withdrawn, asked = [], 0
            now = time.time_ns() // 1_000_000
            for future in part:
                state = listing.state_of(db, future.task.id)
                if state in UNPLACED:
                    tasks.cancel(db, now, future.task.id)
                    withdrawn.append(future)
                elif running and state.is_live:
                    tasks.cancel(db, now, future.task.id)
                    asked += 1
            return withdrawn, asked

        count = 0
        open_ones = [future for future in found if not future.done()]
        for start in range(0, len(open_ones), CANCEL_BULK):
            part = open_ones[start : start + CANCEL_BULK]
            withdrawn, asked = self._engine._write(lambda db, part=part: cancel(db, part))  # type: ignore[misc]
            count += asked + len(withdrawn)
            for future in withdrawn:
                self._end(future.task.id, future, None)
            futures.wait(withdrawn)  # the collecting thread may have been first, and be about to say so
        if count:
            self._engine._drive()
        return count

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all have ended; with `cancel_futures`, cancel what no worker has."""
        self._is_shut = True
        open_ones = list(self._open.values())
        if cancel_futures:
            self._cancel(open_ones)
        if wait:
            futures.wait(open_ones)
