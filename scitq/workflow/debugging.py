"""The debug dialogue: a workflow one task at a time, on its real workers, with somebody who says what is next.

Its tasks wait in state `debug`. Everything that is decided is in the file at once, so whoever is killed here, or leaves, goes on by
running the script again: what is done stays done. What may be launched is asked of `store.debugging`; talking is `asking`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.adopting import script_of
from scitq.errors import BadInput, Closed, IllegalMove, NoDriver, UnknownTask
from scitq.handle import FOLLOW_S, Task
from scitq.live import kernel_shell
from scitq.states import TaskState
from scitq.store import debugging, executions, listing, logs, workflows
from scitq.task import TaskId, TaskRow
from scitq.workflow.asking import Asker, Finished
from scitq.workflow.left import Left

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.workflow.workflow import Workflow

PAGE = 20
COMMAND_CHARACTERS = 60
LOOK_S = 1.0
PIECE_BYTES = 1 << 20
_QUIT = {"q": "quit", "x": "normal mode"}


def dialogue(workflow: Workflow) -> Left:
    """Lead somebody through a workflow that was declared for debugging. NORMAL: the rest is to run as usual."""
    asker = None
    if kernel_shell() is not None:
        from scitq.workflow import notebook

        asker = notebook.asker()
    return Session(workflow.engine, workflow.name, asker, workflow._growth.grow).run()


class Session:
    """One dialogue about one workflow of a file."""

    def __init__(
        self, engine: Engine, name: str, asker: Asker | None = None, grow: Callable[[], object] = lambda: None
    ) -> None:
        self.engine, self.name = engine, name
        self.talk = asker or Asker()
        self._grow = grow

    def run(self) -> Left:
        """Until nothing is left that could be launched, or the user leaves."""
        self.engine._drive()
        self.engine._begin_to_wait()
        try:
            while True:
                try:
                    left = self._step()
                except KeyboardInterrupt:
                    self.talk.pieces_end()
                    left = self._interrupted()
                if left is not None:
                    return left
        except Finished:
            return self._leave("There is nobody to answer.")

    # --- which one --------------------------------------------------------------------------------------------------------

    def _step(self) -> Left | None:
        """One task, or the end."""
        db = self.engine._reader()
        if (running := debugging.launched(db, self._number)) is not None:
            self.talk.say(f"{listing.get(db, running).label} has been launched already.")
            last = executions.latest(db, running)
            return self._accompany(running, 0 if last is None or last.ended_ms is None else last.id)
        self._grow()
        chosen = self._choose()
        return chosen if isinstance(chosen, Left) else self._try(chosen)

    @property
    def _number(self) -> workflows.WorkflowId:
        return workflows.get(self.engine._reader(), self.name).id

    def _offers(self) -> list[TaskId]:
        """What may be launched now, the best first: what the last success made possible, the others, what ended badly."""
        db = self.engine._reader()
        found = debugging.offer(db, self._number)
        best = debugging.unlocked(db, self._number)
        ready = found.ready if best is None else [best, *(id for id in found.ready if id != best)]
        return [*ready, *found.ended]

    def _choose(self) -> TaskId | Left:
        offers = self._offers()
        if not offers:
            return self._nothing_left()
        proposed = offers[0]
        self._show(proposed)
        row = listing.get(self.engine._reader(), proposed)
        question = "Run it?" if row.state is TaskState.DEBUG else f"It {self._how_it_ended(proposed)}. Run it again?"
        answer = self.talk.choose(question, {"y": "yes", "n": "another", **_QUIT})
        if answer == "y":
            return proposed
        return self._pick() if answer == "n" else self._leaving(answer)

    def _pick(self) -> TaskId | Left:
        """From a list, twenty at a time."""
        at = 0
        while True:
            offers = [*self._offers(), *debugging.offer(self.engine._reader(), self._number).skipped]
            if not offers:
                return self._nothing_left()
            at = at if at < len(offers) else 0
            page = offers[at : at + PAGE]
            rows = {row.id: row for row in listing.select(self.engine._reader(), ids=page)}
            for number, id in enumerate(page, at + 1):
                self.talk.say(f"{number:>4}  {_short(rows[id])}")
            has_more = at + PAGE < len(offers)
            rest = {"m": f"more (of {len(offers)})"} if has_more or at else {}
            answer = self.talk.choose(
                "Which one?", {str(at + 1): "or another number", **rest, **_QUIT}, numbers=len(offers)
            )
            if answer.isdecimal():
                return offers[int(answer) - 1]
            if answer != "m":
                return self._leaving(answer)
            at = at + PAGE if has_more else 0

    def _show(self, id: TaskId) -> None:
        """What it is."""
        row = listing.get(self.engine._reader(), id)
        spec = row.spec
        lines = [f"Task {row.id}" + (f" '{row.name}'" if row.name else "") + f" of {row.batch}"]
        command = script_of(spec).rstrip("\n").split("\n") if spec.shell else [spec.line()]
        lines += [f"  command    {command[0]}", *(f"             {line}" for line in command[1:])]
        for what, texts in (
            ("container", [spec.container] if spec.container else []),
            ("resource", spec.resource),
            ("input", spec.input),
        ):
            if texts:
                lines.append(f"  {what:<10} {', '.join(_masked(text) for text in texts)}")
        self.talk.say("\n".join(lines))

    def _nothing_left(self) -> Left:
        left = debugging.left(self.engine._reader(), self._number)
        if not left:
            self.talk.say("Nothing is left to run.")
            return Left.ENDED
        bad = debugging.offer(self.engine._reader(), self._number).skipped
        rows = listing.select(self.engine._reader(), ids=bad[:5])
        which = ", ".join(f"{row.label} {row.state.word}" for row in rows) + (" …" if len(bad) > 5 else "")
        tasks = "1 task remains, but what it requires" if left == 1 else f"{left} tasks remain, but what they require"
        self.talk.say(f"Dead end: {tasks} has not succeeded{f' ({which})' if which else ''}.", is_warning=True)
        return Left.ENDED

    # --- one task ---------------------------------------------------------------------------------------------------------

    def _try(self, id: TaskId) -> Left | None:
        """Launch it, and stay with it."""
        now = time.time_ns() // 1_000_000
        last = executions.latest(self.engine._reader(), id)
        try:
            self.engine._write(lambda db: debugging.launch(db, now, id))
        except IllegalMove:
            pass  # somebody else has launched it
        except UnknownTask:
            self.talk.say(f"Task {id} was deleted.")
            return None
        self.engine._drive()
        return self._accompany(id, 0 if last is None else last.id)

    def _accompany(self, id: TaskId, after: int) -> Left | None:
        """Until it has ended; then what becomes of it."""
        output = _Output(self.engine, id, self.talk, after)
        while True:
            try:
                return self._after(id, self._watch(id, output))
            except UnknownTask:
                self.talk.say(f"Task {id} was deleted.")
                return None
            except KeyboardInterrupt:
                self.talk.pieces_end()
                if listing.state_of(self.engine._reader(), id).is_settled:
                    return self._interrupted()
                if (left := self._interrupted(id)) is not None:
                    return left

    def _watch(self, id: TaskId, follows: _Output) -> TaskState:
        """Say what happens to it, and show what it writes, until nothing more does."""
        engine, task = self.engine, Task(self.engine, id)
        said, asked = "", 0.0
        while True:
            seen = engine._changes.count
            row = listing.get(engine._reader(), id)
            if row.state is TaskState.RUNNING and time.monotonic() >= asked:
                task._ask_to_follow()
                asked = time.monotonic() + FOLLOW_S / 2
            if row.state.is_settled:
                follows.show()
                self.talk.pieces_end()
                self.talk.say(f"  {row.state.word}: {task.why()}")
                return row.state
            text = _sentence(row, task.why())
            if text != said:
                said = text
                self.talk.say(f"  {text}", is_warning=row.state is TaskState.PENDING and "no worker" in text)
            follows.show()
            if engine._closed:
                raise Closed(f"{engine.path.name} was closed.")
            if engine._driver_problem is not None and engine.driver() is None:
                raise NoDriver(
                    f"nobody drives {engine.path.name} any more: {engine._driver_problem}"
                ) from engine._driver_problem
            engine._changes.wait(seen, LOOK_S)

    def _after(self, id: TaskId, state: TaskState) -> Left | None:
        """It has ended."""
        if state is TaskState.SUCCEEDED:
            answer = self.talk.choose("Go on?", {"c": "continue", "r": "run it again", **_QUIT})
            return None if answer == "c" else self._try(id) if answer == "r" else self._leaving(answer)
        choices = {"y": "yes", "n": "another first", "e": "edit the command and run it", "s": "skip it", **_QUIT}
        answer = self.talk.choose("Run it again?", choices)
        if answer == "y":
            return self._try(id)
        if answer == "e":
            return self._try(id) if self._edit(id) else self._after(id, state)
        if answer == "s":
            self.engine._write(lambda db: debugging.skip(db, id))
            return None
        if answer == "n":
            chosen = self._pick()
            return chosen if isinstance(chosen, Left) else self._try(chosen)
        return self._leaving(answer)

    def _edit(self, id: TaskId) -> bool:
        """Have its command edited; whether it was."""
        row = listing.get(self.engine._reader(), id)
        text = row.spec.command if isinstance(row.spec.command, str) else script_of(row.spec)
        edited = self.talk.edit(text)
        if edited is None:
            return False
        try:
            Task(self.engine, id).update(command=edited)
        except (BadInput, IllegalMove) as problem:
            self.talk.say(str(problem), is_warning=True)
            return False
        return True

    def _how_it_ended(self, id: TaskId) -> str:
        last = executions.latest(self.engine._reader(), id)
        return (last.cause if last is not None else None) or "was cancelled"

    # --- leaving ----------------------------------------------------------------------------------------------------------

    def _interrupted(self, running: TaskId | None = None) -> Left | None:
        """Ctrl-C: nothing more is launched before somebody says so."""
        choices = {"c": "go on", **({"k": "cancel it"} if running is not None else {}), **_QUIT}
        what = f"Task {running} goes on, nothing else is launched." if running is not None else "Nothing is launched."
        try:
            answer = self.talk.choose(what, choices)
        except KeyboardInterrupt:
            answer = "q"
        if answer == "k" and running is not None:
            Task(self.engine, running).cancel()
        return self._leaving(answer) if answer in _QUIT else None

    def _leaving(self, answer: str) -> Left:
        if answer != "x":
            return self._leave("")
        now, number = time.time_ns() // 1_000_000, self._number
        count = self.engine._write(lambda db: debugging.release(db, now, number))
        self.engine._drive()
        self.talk.say(f"Normal mode: {count} {'task goes' if count == 1 else 'tasks go'} on without questions.")
        return Left.NORMAL

    def _leave(self, why: str) -> Left:
        left = debugging.left(self.engine._reader(), self._number)
        waits = (
            f" {left} {'task waits' if left == 1 else 'tasks wait'} for the next session: run the script again."
            if left
            else ""
        )
        self.talk.say(f"{why or 'You left.'}{waits}")
        return Left.QUIT


class _Output:
    """What the newest execution of a task writes, by position; nothing of those up to the number `after`."""

    def __init__(self, engine: Engine, task: TaskId, talk: Asker, after: int) -> None:
        self._engine, self._task, self._talk = engine, task, talk
        self._current: int | None = None
        self._offsets = [0, 0]
        self._after = after

    def show(self) -> None:
        """What is new."""
        last = executions.latest(self._engine._reader(), self._task)
        if last is None or last.id <= self._after:
            return
        if last.id != self._current:
            if self._current is not None:
                self._talk.pieces_end()
            self._current, self._offsets = last.id, [0, 0]
        for stream in (logs.OUT, logs.ERR):
            while piece := self._engine._log_bytes(last.id, stream, self._offsets[stream], limit=PIECE_BYTES):
                self._offsets[stream] += len(piece)
                self._talk.piece(stream, piece)


def _sentence(row: TaskRow, why: str) -> str:
    """What is said of a task on its way: of its time, nothing, since that is another one at each look."""
    told = why.removeprefix(f"{row.label} ")
    if row.state is TaskState.RUNNING and " for " in told:
        told = told.rpartition(" for ")[0].replace("has been running", "is running")
    return told


def _short(row: TaskRow) -> str:
    """A line of the list."""
    command = row.spec.line()
    clipped = command if len(command) <= COMMAND_CHARACTERS else command[: COMMAND_CHARACTERS - 1] + "…"
    skipped = ", skipped" if row.reason == debugging.SKIPPED else ""
    state = "" if row.state is TaskState.DEBUG else f"  ({row.state.word}{skipped})"
    return f"{row.id}  {row.name or ''}  {clipped}{state}"


def _masked(text: str) -> str:
    """An address without the password that a URL may hold."""
    from scitq.fetch.uri import masked

    return masked(text) if "://" in text else text
