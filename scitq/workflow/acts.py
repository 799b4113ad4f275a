"""What the keys of the screen do about a workflow, a step or a task: each asks first where something would be lost.

What is done is in `deeds` and `handle`; this says it, asks, and has it done by the thread for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from scitq import leaving
from scitq.adopting import is_call
from scitq.engine import Engine
from scitq.handle import Task
from scitq.saying import several
from scitq.states import FINAL, LIVE, Halt, TaskState
from scitq.store import listing, workflows
from scitq.task import TaskId
from scitq.workflow import deeds
from scitq.workflow.left import Left
from scitq.workflow.looking import command_text
from scitq.workflow.overview import QUEUED, Step
from scitq.workflow.rewording import Rewording
from scitq.workflow.showing import View

if TYPE_CHECKING:
    from scitq.store.workflows import StepRow
    from scitq.workflow.showing import Showing

OPEN = frozenset(TaskState) - FINAL
_WRITTEN = {
    Halt.PAUSED: "paused: nothing more is launched",
    Halt.SUSPENDED: "suspended: what runs is stopped where it is",
}


class Host(Protocol):
    """The screen, as far as acts need it."""

    showing: Showing

    @property
    def is_off(self) -> bool: ...
    def say(self, text: str, style: str = "") -> None: ...
    def soon_say(self, text: str) -> None: ...
    def soon(self, does: Callable[[], None]) -> None: ...
    def ask(
        self, text: str, answers: dict[str, Callable[[], None]], otherwise: Callable[[], None] | None = None
    ) -> None: ...
    def do(self, deed: Callable[[], str], then: Callable[[], None] | None = None) -> None: ...
    def read(self) -> None: ...
    def edit(self, text: str, head: str) -> None: ...
    def leave(self, left: Left) -> None: ...


class Acts:
    """One for each screen."""

    def __init__(self, engine: Engine, name: str, host: Host) -> None:
        self._engine = engine
        self._name = name
        self._host = host
        self._edit: deeds.Edit | None = None
        self._is_of_step = False

    def keys(self) -> dict[str, Callable[[], None]]:
        """What each letter does."""
        return {
            "R": self.refresh, "P": lambda: self.halt(Halt.PAUSED), "S": lambda: self.halt(Halt.SUSPENDED),
            "U": lambda: self.halt(Halt.GO), "D": self.destroy, "Q": self.quit, "q": self.quit, "e": self.edit,
            "r": self.relaunch, "k": self.cancel,
        }  # fmt: skip

    def _steps(self) -> list[StepRow]:
        """The steps as they are in the file now: what the screen shows may be a moment old."""
        db = self._engine._reader()
        return workflows.steps(db, workflows.get(db, self._name).id)

    def _count(self, step: Step, *states: TaskState) -> int:
        counts = listing.counts(self._engine._reader(), step.row.batch)
        return sum(counts.get(state, 0) for state in states)

    # --- the workflow ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read all anew."""
        self._host.read()

    def quit(self) -> None:
        """Leave; what there is to do goes on, if somebody drives it: else a driver can be left behind."""
        if (offer := leaving.of(self._engine, undriven=True)) is not None:
            self._host.ask(offer.text, {letter: lambda way=way: self._leave(way) for letter, way in offer.ways.items()})  # type: ignore[misc]
            return
        steps = self._steps()
        live, queued = _total(steps, LIVE), _total(steps, QUEUED)
        if not live and not queued:
            self._host.leave(Left.QUIT)
            return
        parts = [f"{live:,} at workers" if live else "", f"{queued:,} queued" if queued else ""]
        them = " and ".join(part for part in parts if part)
        self._host.ask(f"Leave? The tasks go on ({them}). [y/N]", {"y": lambda: self._host.leave(Left.QUIT)})

    def _leave(self, way: leaving.Way) -> None:
        if way is leaving.Way.STAY:
            self._host.say("Nothing was done.")
            return

        def deed() -> str:
            said = leaving.carry_out(self._engine, way)
            self._host.soon(lambda: self._host.leave(Left.QUIT))
            return " ".join(said)

        self._host.do(deed)

    def halt(self, wanted: Halt) -> None:
        """Pause, suspend or release all of it."""

        def deed() -> str:
            steps = self._steps()
            if wanted is Halt.GO and not any(step.halt for step in steps):
                paused = _total(steps, (TaskState.PAUSED,))
                one_by_one = f" {several(paused, 'task')} paused one by one: scitq task resume" if paused else ""
                return f"Nothing of {self._name} is halted.{one_by_one}"
            count = deeds.halt(self._engine, self._name, wanted)
            if wanted is Halt.GO:
                return f"{self._name} goes on." + (f" {several(count, 'stopped task')} too." if count else "")
            back = f"; {several(count, 'execution')} called back or stopped" if count else ""
            return f"{self._name} is {_WRITTEN[wanted]}{back}. U: on again"

        self._host.do(deed)

    def destroy(self) -> None:
        """Delete it, after a question that says what that is."""
        steps = self._steps()
        live, total = _total(steps, LIVE), _total(steps, TaskState)
        stopped = f" {several(live, 'task')} at workers {'is' if live == 1 else 'are'} stopped first." if live else ""
        text = (
            f"Delete workflow {self._name}: {several(len(steps), 'step')} and {several(total, 'task')}, with their history "
            f"and logs?{stopped} What they delivered stays. [y/N]"
        )

        def deed() -> str:
            count = deeds.destroy(self._engine, self._name, said=self._host.soon_say, is_off=lambda: self._host.is_off)
            is_gone = count is not None
            if is_gone:
                self._host.soon(lambda: self._host.leave(Left.DESTROYED))
            return "Deleted." if is_gone else ""

        def begin() -> None:
            self._host.say(f"{self._name} is being deleted…")
            self._host.do(deed)

        self._host.ask(text, {"y": begin})

    # --- a step, or a task ----------------------------------------------------------------------------------------------

    def relaunch(self) -> None:
        """The task that is looked at, or what failed or was cancelled of the step."""
        step, task = self._aim()
        if task is not None:
            state, label = self._state(task)
            if state is TaskState.SUCCEEDED:
                self._host.ask(f"Task {label} has succeeded. Run it again? [y/N]", {"y": lambda: self._relaunch(task)})
            else:
                self._relaunch(task)
        elif step is not None:
            count = self._count(step, *deeds.AGAIN)
            if not count:
                self._host.say(f"Nothing of {step.name} failed or was cancelled.")
                return

            def deed() -> str:
                done = deeds.step_tasks(self._engine, step.row.batch, deeds.AGAIN).relaunch()
                return f"{several(done, 'task')} of {step.name} {'is' if done == 1 else 'are'} queued again."

            text = f"Relaunch {several(count, 'task')} of {step.name} that failed or {'was' if count == 1 else 'were'} cancelled? [y/N]"
            self._host.ask(text, {"y": lambda: self._host.do(deed)})

    def _relaunch(self, task: TaskId) -> None:
        def deed() -> str:
            row = Task(self._engine, task).relaunch().row()
            return f"Task {row.label} is {row.state.word} again."

        self._host.do(deed)

    def cancel(self) -> None:
        """The task that is looked at, or all of the step that has not ended."""
        step, task = self._aim()
        if task is not None:
            state, label = self._state(task)
            if state.is_final:
                self._host.say(f"Task {label} has ended already: {state.word}.")
                return

            def cancel_one() -> str:
                word = Task(self._engine, task).cancel()
                return f"Task {label} is {word if word == TaskState.CANCELLED.word else 'asked to stop'}."

            stops = " It is stopped where it runs." if state in LIVE else ""
            self._host.ask(f"Cancel task {label}?{stops} [y/N]", {"y": lambda: self._host.do(cancel_one)})
        elif step is not None:
            live, queued = self._count(step, *LIVE), self._count(step, *QUEUED, TaskState.BLOCKED)
            if not live + queued:
                self._host.say(f"All of {step.name} has ended already.")
                return

            def cancel_all() -> str:
                done = deeds.step_tasks(self._engine, step.row.batch, OPEN).cancel()
                return f"{several(done, 'task')} of {step.name} cancelled, or asked to stop."

            text = (
                f"Cancel {several(live + queued, 'task')} of {step.name}: {live:,} at workers, {queued:,} queued? [y/N]"
            )
            self._host.ask(text, {"y": lambda: self._host.do(cancel_all)})

    def _aim(self) -> tuple[Step | None, TaskId | None]:
        """The step or the task that a key is about."""
        showing = self._host.showing
        if showing.view is View.TASK:
            return showing.step, showing.task
        if showing.view is View.TASKS:
            return (showing.step, showing.selected.id) if showing.selected is not None else (None, None)
        return (showing.step, None) if showing.view is View.STEPS else (None, None)

    def _state(self, task: TaskId) -> tuple[TaskState, str]:
        row = listing.get(self._engine._reader(), task)
        return row.state, row.label

    # --- editing --------------------------------------------------------------------------------------------------------

    def edit(self) -> None:
        """Open the editor on the task's command, or on that of the step's first task that is not launched."""
        step, task = self._aim()
        if step is None:
            return
        self._is_of_step = task is None
        if task is None:
            first = next(deeds.unlaunched(self._engine, step.row.batch), None)
            if first is None:
                self._host.say(f"All of {step.name} is launched already: select a task to edit it.")
                return
            task = first.id
        row = listing.get(self._engine._reader(), task)
        if row.state.is_live and row.state not in deeds.UNLAUNCHED:
            self._host.say(
                f"Task {row.label} is launched already: cancel it first (k), or edit it once it has ended.", "warn"
            )
            return
        if is_call(row):
            self._host.say(f"Task {row.label} calls a Python function: change it in your program, and run that again.")
            return
        text = command_text(row)
        self._edit = deeds.Edit(task, row.batch, Rewording(text, text))
        self._host.edit(text, f" command of {row.label} ")

    def edited(self, text: str) -> None:
        """The editor is left: show what would change, and for which tasks it is to."""
        edit, showing = self._edit, self._host.showing
        if edit is None:
            return
        edit.change = Rewording(edit.change.before, text)
        if text == edit.change.before:
            self._close("Nothing was changed.")
            return
        showing.over(View.DIFFERENCE)
        showing.difference = edit.change.difference()
        if self._is_of_step:
            self._look_at_all()
            return
        step = showing.step
        others = self._count(step, *deeds.UNLAUNCHED) if step is not None else 0
        rest = f", [a]ll not launched of {step.name} ({others:,})" if step is not None and others > 1 else ""
        answers: dict[str, Callable[[], None]] = {"t": self._edit_one, "b": self._again}
        if rest:
            answers["a"] = self._look_at_all
        self._host.ask(
            f"Change [t]his task{rest}, [b]ack to the editor, or nothing? ",
            answers,
            lambda: self._close("Nothing was changed."),
        )

    def leave_editor(self, text: str) -> None:
        """Out of the editor; what was typed is not lost without a question."""
        if self._edit is None or text == self._edit.change.before:
            self._close("Nothing was changed.")
            return
        showing = self._host.showing
        showing.over(View.DIFFERENCE)
        self._edit.change = Rewording(self._edit.change.before, text)
        showing.difference = self._edit.change.difference()
        self._host.ask("Throw this change away? [y/N]", {"y": lambda: self._close("Nothing was changed.")}, self._again)

    def _again(self) -> None:
        assert self._edit is not None
        self._host.edit(self._edit.change.after, f" command of task {self._edit.task} ")

    def _close(self, said: str) -> None:
        self._edit = None
        self._host.showing.back()
        self._host.say(said)
        self._host.read()

    def _edit_one(self) -> None:
        edit = self._edit
        assert edit is not None
        self._close("")
        self._host.do(lambda: deeds.edit_one(self._engine, edit.task, edit.change.after))

    def _look_at_all(self) -> None:
        """Find what the same change makes of all the others, and show that before anything is done."""
        edit, host = self._edit, self._host
        assert edit is not None

        def look() -> str:
            deeds.look_for(self._engine, edit, is_off=lambda: host.is_off)
            host.soon(ask)
            return ""

        def ask() -> None:
            if self._edit is not edit or host.showing.view is not View.DIFFERENCE:
                return
            host.showing.said = None
            host.showing.difference = list(edit.preview())
            if not edit.fits:
                host.ask(
                    "The change fits no task that is not launched. Any key.",
                    {},
                    lambda: self._close("Nothing was changed."),
                )
                return
            differ = ""
            if edit.differ:
                differ = f" {several(edit.differ, 'other')} {'differs' if edit.differ == 1 else 'differ'} there: left as before."
            text = f"Change {several(len(edit.fits), 'task')} not launched yet?{differ} [y/N/b: back to the editor]"
            host.ask(text, {"y": do, "b": self._again}, lambda: self._close("Nothing was changed."))

        def do() -> None:
            self._close("")
            host.do(deed)

        def deed() -> str:
            done, late = deeds.edit_all(self._engine, edit)
            rest = f" {several(late, 'task')} had been launched or changed meanwhile." if late else ""
            return f"{several(done, 'task')} changed.{rest}"

        host.say("Looking at what it makes of the others…")
        host.do(look)


def _total(steps: Sequence[StepRow], states: Iterable[TaskState]) -> int:
    return sum(step.counts.get(state, 0) for state in states for step in steps)
