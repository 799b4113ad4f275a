"""`Task`: the live handle on one task that users hold, and `Result`, what a success gives.

A handle keeps only the task's number: every answer is read from the state file at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput, ScitqError, TaskBlocked, TaskCancelled, TaskFailed
from scitq.pictured import Pictured
from scitq.states import TaskState
from scitq.store import executions, listing, logs, manifests, tasks
from scitq.task import ExecutionRow, TaskId, TaskRow

if TYPE_CHECKING:
    from scitq.adopting import Adoption
    from scitq.engine import Engine
    from scitq.markup import Markup
    from scitq.outputs import TaskOutput
    from scitq.store.executions import Ending
    from scitq.store.manifests import Left

# A follower asks for this long, and asks again before it is over: one that dies is forgotten.
FOLLOW_S = 30.0
TAIL_LINES = 10
TAIL_BYTES = 8192


@dataclass(frozen=True)
class Result(Pictured):
    """What a task that succeeded gave. Text is UTF-8, with � for bytes that are not; the `_bytes` are exact."""

    task: Task
    exit_code: int
    run_s: float | None

    @property
    def stdout(self) -> str:
        """What it wrote on standard output."""
        return self.task.stdout()

    @property
    def stderr(self) -> str:
        """What it wrote on standard error."""
        return self.task.stderr()

    @property
    def stdout_bytes(self) -> bytes:
        """What it wrote on standard output, to the byte."""
        return self.task.output_bytes(logs.OUT)

    @property
    def stderr_bytes(self) -> bytes:
        """What it wrote on standard error, to the byte."""
        return self.task.output_bytes(logs.ERR)

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_result(self)


class Task(Pictured):
    """A task in a state file. Cheap to hold, safe to share between threads."""

    def __init__(self, engine: Engine, id: TaskId) -> None:
        self._engine = engine
        self.id = id

    def __repr__(self) -> str:
        try:
            row = self.row()
        except ScitqError as problem:  # it was deleted, or its file is closed
            return f"<Task {self.id}: {problem}>"
        return f"<Task {row.label} {row.state.word}>"

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_task(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other.id == self.id and other._engine.path == self._engine.path

    def __hash__(self) -> int:
        return hash((self.id, self._engine.path))

    def __await__(self) -> Generator[Any, None, Result]:
        """`await task` gives its result, or raises as `result()` does."""
        return self._arrive().__await__()

    async def _arrive(self) -> Result:
        import asyncio  # 20 ms that only those who await should pay

        await asyncio.wrap_future(self._engine._arrival(self.id))
        return self._verdict()

    # --- what it is -----------------------------------------------------------------------------------------------------

    def row(self) -> TaskRow:
        """Everything the state file says of the task now.

        Raises:
            UnknownTask: it was deleted.
        """
        return listing.get(self._engine._reader(), self.id)

    @property
    def status(self) -> str:
        """The state's word: `pending`, `running`, `succeeded`…"""
        return self.state.word

    @property
    def state(self) -> TaskState:
        """The state."""
        return listing.state_of(self._engine._reader(), self.id)

    @property
    def name(self) -> str | None:
        """The name given at submission."""
        return self.row().name

    @property
    def executions(self) -> list[ExecutionRow]:
        """Every attempt, oldest first."""
        return executions.of_task(self._engine._reader(), self.id)

    @property
    def output(self) -> TaskOutput:
        """Where what the task leaves in `$OUTPUT` is (or will be): an address that knows its task.

        As another task's input it implies that this one is required. When it is a path of this machine, it is a path object too.
        """
        from scitq.outputs import output_of

        return output_of(self)

    def files(self) -> list[Left]:
        """What its newest success left below `output`: name, size, and MD5 where it is known."""
        found = manifests.of_task(self._engine._reader(), self.id)
        return [] if found is None else found.files

    def why(self) -> str:
        """What the task is waiting for, or how it ended, in a sentence."""
        from scitq.why import why

        return why(self._engine, self.id)

    # --- waiting --------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> TaskState:
        """Wait until nothing more will happen to the task by itself; returns its state.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        self._engine._wait_for(lambda: not self.state.is_settled, timeout, f"task {self.id}")
        return self.state

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the task and return what it gave.

        Raises:
            TaskFailed: it ended badly; the message has its command, exit code and last ten lines.
            TaskCancelled: it was cancelled.
            TaskBlocked: a prerequisite ended badly.
            TimeoutError: not within `timeout` seconds.
        """
        found: Ending | None = None

        def is_open() -> bool:
            nonlocal found
            found = executions.ending(self._engine._reader(), self.id)
            return not found.state.is_settled

        self._engine._wait_for(is_open, timeout, f"task {self.id}")
        return self._verdict(found)

    def _verdict(self, found: Ending | None = None) -> Result:
        """The result, or the error that says what became of the task; `found` is what was seen of it just now."""
        state, code, run_s = found or executions.ending(self._engine._reader(), self.id)
        if state is TaskState.SUCCEEDED:
            return Result(self, code, run_s)
        row = self.row()
        last = executions.latest(self._engine._reader(), self.id)
        if row.state is TaskState.CANCELLED:
            raise TaskCancelled(f"task {row.label} was cancelled.", task=self.id)
        if row.state is TaskState.BLOCKED:
            raise TaskBlocked(f"task {row.label} cannot run: {row.reason}. Relaunch that one.", task=self.id)
        if row.state is not TaskState.FAILED:  # relaunched since the wait, or it succeeded after a first look
            return self.result()
        cause = (last.cause if last else None) or "failed"
        tail = self.tail()
        detail = f": {last.detail}" if last and last.detail else ""
        shown = "".join(f"\n  {line}" for line in tail)
        raise TaskFailed(
            f"task {row.label} {cause}{detail}\n  command: {_clip(row.spec.line())}{shown}",
            task=self.id, name=row.name, command=row.spec.command, cause=cause,
            exit_code=last.exit_code if last else None, signal=last.signal if last else None, tail=tail,
        )  # fmt: skip

    # --- output ---------------------------------------------------------------------------------------------------------

    def stdout(self, offset: int = 0) -> str:
        """What the latest execution wrote on standard output (so far), from byte `offset`."""
        return self.output_bytes(logs.OUT, offset).decode(errors="replace")

    def stderr(self, offset: int = 0) -> str:
        """What the latest execution wrote on standard error (so far), from byte `offset`."""
        return self.output_bytes(logs.ERR, offset).decode(errors="replace")

    def output_bytes(self, stream: int = logs.OUT, offset: int = 0, *, execution: int | None = None) -> bytes:
        """The exact bytes of a stream (0 stdout, 1 stderr) of an execution, by default the latest.

        While it runs, what is here is returned; it comes within moments of being asked for.
        """
        if execution is None:
            last = executions.latest(self._engine._reader(), self.id)
            if last is None:
                return b""
            execution = last.id
            if last.ended_ms is None:
                self._ask_to_follow()
        return self._engine._log_bytes(execution, stream, offset)

    def tail(self, count: int = TAIL_LINES) -> list[str]:
        """The last lines of standard error, or of standard output when that is empty."""
        last = executions.latest(self._engine._reader(), self.id)
        if last is None:
            return []
        for stream in (logs.ERR, logs.OUT):
            text = self._engine._log_tail(last.id, stream, TAIL_BYTES)
            if text:
                return text.decode(errors="replace").splitlines()[-count:]
        return []

    def follow(self, *, errors: bool = False) -> Iterator[str]:
        """The lines of standard output (or of standard error) as they are written, until the task is settled.

        Lines keep no end of line; bytes that are not UTF-8 become �. A retry's lines follow those of the try before.
        """
        wanted = logs.ERR if errors else logs.OUT
        rest = b""
        for stream, piece in self.pieces():
            if stream == wanted:
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace").removesuffix("\r")
        if rest:
            yield rest.decode(errors="replace")

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Output as it comes, as (stream, bytes), until the task is settled. Every byte of every try comes once."""
        engine = self._engine
        engine._drive()
        engine._begin_to_wait()
        asked = 0.0
        current: int | None = None
        offsets = [0, 0]
        done: set[int] = set()
        while True:
            seen = engine._changes.count
            state = self.state
            for attempt in self.executions:
                if attempt.id in done:
                    continue
                if attempt.id != current:
                    current, offsets = attempt.id, [0, 0]
                for stream in (logs.OUT, logs.ERR):
                    while piece := engine._log_bytes(attempt.id, stream, offsets[stream], limit=1 << 20):
                        offsets[stream] += len(piece)
                        yield stream, piece
                if attempt.ended_ms is not None:
                    done.add(attempt.id)
            if state.is_settled:
                return
            if state in (TaskState.RUNNING, TaskState.COLLECTING) and time.monotonic() >= asked:
                self._ask_to_follow()
                asked = time.monotonic() + FOLLOW_S / 2
            engine._changes.wait(seen, 1.0 if state.is_live else None)

    def _ask_to_follow(self) -> None:
        until = int((time.time() + FOLLOW_S) * 1000)
        self._engine._write_if_possible(lambda db: tasks.follow(db, self.id, until))

    # --- doing something about it ---------------------------------------------------------------------------------------

    def cancel(self) -> str:
        """Stop the task: at once when it has not been given to a worker, else TERM, grace, KILL to all its processes.

        Returns the state's word; a running task is `cancelled` once its worker has said so (`wait()` waits for it).
        """
        now = _now_ms()
        state = self._engine._write(lambda db: tasks.cancel(db, now, self.id))
        if state.is_live:
            self._engine._drive()
        return state.word

    def pause(self) -> str:
        """Keep the task from being launched; if it runs already, stop it where it is (SIGSTOP). Returns the state's word."""
        now = _now_ms()
        state = self._engine._write(lambda db: tasks.pause(db, now, self.id))
        return state.word

    def resume(self) -> str:
        """Let the task go on. Returns the state's word."""
        now = _now_ms()
        state = self._engine._write(lambda db: tasks.resume(db, now, self.id))
        self._engine._drive()
        return state.word

    def delete(self, *, keep_cache: bool = False) -> None:
        """Remove the task and its history from the file. What it delivered to its output stays; with `keep_cache` others may
        still take its result.

        Raises:
            IllegalMove: it is on a worker, or another task needs it.
        """
        self._engine._delete([self.id], keep_cache=keep_cache)

    def relaunch(self) -> Task:
        """Queue the task once more, though it has ended; what it blocked goes on.

        Raises:
            IllegalMove: it has not ended.
        """
        now = _now_ms()
        self._engine._write(lambda db: tasks.relaunch(db, now, self.id))
        self._engine._drive()
        return self

    def update(self, *, timeout: float | None = 30.0, **changes: Any) -> Task:
        """Edit the task: the arguments of `Engine.submit`. What runs next runs as edited.

        A task that a worker holds, but has not launched, is asked back first: this waits for the worker's word.

        Raises:
            IllegalMove: it is already launched; nothing was changed.
            BadInput: an argument makes no sense.
            TimeoutError: the worker has not answered in time; the edit is made, or dropped, when it does.
        """
        self._engine._update(self.id, changes, timeout)
        return self

    # --- trying it by hand ----------------------------------------------------------------------------------------------

    def enter(self, command: str | None = None) -> int:
        """A shell in what the newest try left: its folder, environment, container; its command is there as `command.sh`.

        Needs a terminal; with `command`, one command is run there instead. Returns the exit code. When `command.sh` was
        changed, the shell's end is followed by the question whether it is to be adopted.

        Raises:
            BadInput: it left nothing, or that is not kept any more; or there is no terminal.
            HostUnreachable: its worker's host cannot be reached.
        """
        from scitq.visiting import visit

        return visit(self._engine, self.id, command)

    def adopt(self, text: str | None = None, *, step: bool = False, relaunch: bool = False) -> Adoption:
        """Make an edited script the task's command: `text`, or what `command.sh` in its kept folder says now.

        With `step`, the edit is carried over to every task of its batch that is not launched or has failed; one whose command
        differs just where it was edited stays as it is. With `relaunch` those that have ended run again. What comes back says
        of whom there was what.

        Raises:
            BadInput: there is no such folder any more, or the task calls a Python function.
            IllegalMove: it is launched already.
        """
        from scitq import adopting

        if text is None:
            from scitq.entering import sandbox_of

            with sandbox_of(self._engine, self.id) as sandbox:
                text = sandbox.script()
            if text is None:
                raise BadInput(f"nobody has entered task {self.row().label} yet, or its folder is not kept any more.")
        return adopting.carry_out(
            self._engine, adopting.plan(self._engine, self.id, text, step=step), relaunch=relaunch
        )


def _clip(text: str, width: int = 200) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
