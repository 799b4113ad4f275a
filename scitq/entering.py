"""Stepping into what an execution left: a shell in its kept folder, where it ran, with its environment; its command as command.sh.

The folder is at the worker, whose machine does the rest (`remote.agent.sandbox`): here it is found, asked for, and entered by the
terminal that this process has. What becomes of a changed command.sh is `adopting`; whoever asks about it is `visiting`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scitq.adopting import script_of
from scitq.errors import BadInput, HostUnreachable, MoveFailed, UnknownWorker
from scitq.remote.agent import sandbox
from scitq.remote.agent.__main__ import FLAGS
from scitq.states import Outcome, Stage
from scitq.store import executions, listing, query, workers
from scitq.task import ExecutionRow, TaskId, TaskRow
from scitq.worker import LOCAL, SSH, WorkerRow

if TYPE_CHECKING:
    from scitq.engine import Engine


class Place(Protocol):
    """The machine where a folder is."""

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of `sandbox` to a question."""

    def enter(self, key: str, *, has_terminal: bool) -> int:
        """Run what was made ready with our own streams; gives its exit code."""


class Here:
    """This machine."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answered in this process."""
        return sandbox.answer(self._folder, question)

    def enter(self, key: str, *, has_terminal: bool) -> int:
        """A child process, which becomes the shell."""
        from scitq.remote.bundle import bundle

        program = [sys.executable, *FLAGS, str(bundle()[0]), "enter", "--root", self._folder, "--execution", key]
        return alone(lambda: subprocess.call(program))


class There:
    """Another host, by the user's own ssh."""

    def __init__(self, row: WorkerRow, login: Any) -> None:
        known = row.link.get("probe") or {}
        self._words = [str(known["python"]), *FLAGS, str(known["program"])]
        self._root = str(row.link["root"])
        self._login = login
        self._name = row.name

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Asked over one connection for all, and answered by the agent's program."""
        command = shlex.join([*self._words, "sandbox", "--root", self._root])
        try:
            found: dict[str, Any] = self._login.answers(command, json.dumps(question).encode() + b"\n")[0]
        except MoveFailed as problem:
            raise HostUnreachable(f"worker {self._name}: {problem}", host=self._name) from problem
        return found

    def enter(self, key: str, *, has_terminal: bool) -> int:
        """With a terminal there, if there is one here."""
        command = shlex.join([*self._words, "enter", "--root", self._root, "--execution", key])
        return alone(lambda: self._login.interact(command, has_terminal=has_terminal))


def alone(run: Callable[[], int]) -> int:
    """Let a program have the terminal: Ctrl-C is for it alone, and we are in the foreground again when it has ended."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: None) if is_main else None
    try:
        return run()
    finally:
        if is_main:
            output = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a shell that was killed has not given it back
            with suppress(OSError):
                os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, output)
            signal.signal(signal.SIGINT, before)


class Ready(NamedTuple):
    """A folder that can be entered. `start`: where one is then, None in a container, which has a place of its own for it."""

    folder: str
    work: str
    start: str | None
    is_fresh: bool
    image: str | None


class Sandbox:
    """What one execution left."""

    def __init__(self, engine: Engine, row: TaskRow, last: ExecutionRow, worker: WorkerRow, place: Place) -> None:
        self.engine, self.row, self.last, self.worker = engine, row, last, worker
        self._place = place

    def open(self, run: str | None = None) -> Ready:
        """Make it ready: for a shell, or for one command.

        Raises:
            BadInput: it is not kept any more.
        """
        told = self._ask(_question(self.engine, self.row, self.last, self.worker, run))
        image = told.get("image")
        name = None if image is None else str(self.last.image or image.get("digest") or image.get("id"))
        return Ready(told["folder"], told["work"], told.get("start"), bool(told["is_fresh"]), name)

    def enter(self, *, has_terminal: bool) -> int:
        """Be in it, until its end; gives the exit code."""
        return self._place.enter(str(self.last.id), has_terminal=has_terminal)

    def script(self) -> str | None:
        """What command.sh says now; None when there is none."""
        found: str | None = self._ask({"script": int(self.last.id)})["script"]
        return found

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        told = self._place.ask(question)
        if told.get("ok"):
            return told
        why = str(told.get("error") or "no word why")
        raise BadInput(
            f"task {self.row.label} cannot be entered on {self.worker.name}: {why}. To have it again: "
            f"scitq task relaunch {self.row.id}"
        )


@contextmanager
def sandbox_of(engine: Engine, task: TaskId) -> Iterator[Sandbox]:
    """What the newest ended execution of a task left, where it is.

    Raises:
        BadInput: there is none, or it is out of reach; a sentence says why.
        HostUnreachable: its host cannot be reached.
    """
    db = engine._reader()
    row = listing.get(db, task)
    ended = [
        each
        for each in executions.of_task(db, task)
        if each.ended_ms is not None and each.outcome is not Outcome.RECALLED
    ]
    if not ended:
        live = f"it is {row.state.word}" if not row.state.is_live else "its first try has not ended"
        raise BadInput(f"task {row.label} has left nothing to enter yet: {live}.")
    last = ended[-1]
    if last.worker is None or last.outcome in (Outcome.LOST, Outcome.EVICTED):
        gone = "its result was taken from the cache" if last.worker is None else f"its last try was {last.cause}"
        raise BadInput(f"task {row.label} left no folder: {gone}.")
    if last.stage is Stage.STAGE_IN:
        raise BadInput(
            f"task {row.label} left no folder: its command was never started ({last.cause}). See scitq task why {row.id}"
        )
    try:
        worker = workers.find(db, last.worker)
    except UnknownWorker:
        raise BadInput(f"the folder of task {row.label} is gone with its worker {last.worker}.") from None
    if worker.kind == LOCAL:
        yield Sandbox(engine, row, last, worker, Here(os.path.realpath(engine.side / "local")))
        return
    if worker.kind != SSH or worker.address is None:
        raise BadInput(f"worker {worker.name} is not reached by SSH.")
    if not (worker.link.get("root") and (worker.link.get("probe") or {}).get("program")):
        raise BadInput(f"worker {worker.name} has never been reached: there is nothing to enter.")
    from scitq.remote.login import Login, way

    host, options = way(worker.address)
    with Login(host, options) as login:
        yield Sandbox(engine, row, last, worker, There(worker, login))


def _question(engine: Engine, row: TaskRow, last: ExecutionRow, worker: WorkerRow, run: str | None) -> dict[str, Any]:
    """What the worker's machine needs to know: what its order said."""
    db = engine._reader()
    # Its conditions as they were for that execution; the command as it is now.
    spec = row.raised.applied(executions.spec_of(db, last.id) or row.spec)
    gpus, context = query.one(
        db,
        """select execution.gpus, (select data from context where context.id = task.context) from execution
        join task on task.id = execution.task where execution.id = ?""",
        (last.id,),
    )
    asked: dict[str, Any] = {
        "open": int(last.id), "task": int(row.id), "command": script_of(row.spec), "run": run, "env": dict(spec.env),
        "is_contained": spec.container is not None,
        # One that had nothing and left nothing has no folder; of one that was swept away something else was known.
        "may_make": last.outcome is not Outcome.SUCCEEDED and not spec.input and not spec.resource and spec.container is None,
        "concurrency": worker.concurrency, "cpu": None if spec.cpus is None else max(1, int(spec.cpus)), "memory": spec.memory,
        "cpus": spec.cpus, "gpus": json.loads(gpus or "[]"), "options": list(spec.container_options),
    }  # fmt: skip
    if context is not None and spec.container is None and worker.kind == LOCAL:
        from scitq.ordering import Orders

        asked |= Orders(str(engine.side / "outputs")).circumstances(context)
    return asked
