"""The screen of `top` in a terminal. What it shows is in `showing`, read by `machines`; what any full-screen view needs is in
`workflow.fullscreen`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from scitq.engine import Engine
from scitq.handle import Task
from scitq.shell.live.machines import Eyes, Machine, Request, Running, Seen
from scitq.shell.live.showing import Showing
from scitq.states import WorkerState
from scitq.store import listing
from scitq.task import TaskId
from scitq.workflow.cells import Line
from scitq.workflow.fullscreen import Fullscreen
from scitq.workflow.keys import answer
from scitq.workflow.left import Left
from scitq.workflow.reading import Reader
from scitq.workflow.showing import Question, marks_for

# Times go on, and machines are measured, so often.
CLOCK_S = 1.0


def run(engine: Engine) -> Left:
    """Show workers and what they run until the user leaves."""
    eyes = Eyes(engine)
    showing = Showing(eyes(Request()), engine.path.name, marks_for(sys.stdout.encoding))
    return Top(engine, eyes, showing).run()


class Top(Fullscreen):
    """One showing of it."""

    def __init__(self, engine: Engine, eyes: Eyes, showing: Showing) -> None:
        super().__init__()
        self.showing = showing
        self._engine = engine
        self._reader: Reader[Request, Seen] = Reader(
            engine, eyes, Request(), None, is_live=lambda _: True, clock_s=CLOCK_S,
            on_look=lambda seen: self.soon(lambda: self._looked(seen)),
            on_problem=lambda problem: self.soon(lambda: self.fail(problem)),
        )  # fmt: skip
        self._asked_for: Request = Request()

    # --- its life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to read."""
        self._reader.start()
        self.read()

    def end(self) -> None:
        """No more of it."""
        self._reader.stop()

    def drawn(self, seconds: float) -> None:
        """Whoever reads makes way for drawing."""
        self._reader.drawing_s = seconds
        if self.showing.on_screen != self._asked_for.shown:
            self._ask(at_once=False)

    def read(self) -> None:
        """Read what is shown now anew."""
        self._ask(at_once=True)
        self.redraw()

    def _ask(self, *, at_once: bool) -> None:
        self._asked_for = self.showing.request()
        self._reader.ask(self._asked_for, at_once=at_once)

    def _looked(self, seen: Seen) -> None:
        self.showing.looked(seen)
        self.redraw()

    def frame(self, cells: int, rows: int) -> list[Line]:
        """What `showing` says."""
        return self.showing.frame(cells, rows)

    def say(self, text: str, style: str = "") -> None:
        """A sentence below, until the next key."""
        self.showing.said = (style, text) if text else None
        self.redraw()

    # --- keys -----------------------------------------------------------------------------------------------------------

    def bindings(self) -> KeyBindings:
        """What keys do."""
        keys, showing = KeyBindings(), self.showing
        is_asked = Condition(lambda: showing.question is not None)
        is_typing = Condition(lambda: showing.typing is not None)
        is_free = ~is_asked & ~is_typing

        def bind(*names: str, does: Callable[[KeyPressEvent], object], when: Any = is_free, eager: bool = True) -> None:
            def pressed(event: KeyPressEvent) -> None:
                self.key(lambda: does(event))

            for name in names:
                keys.add(name, filter=when, eager=eager)(pressed)

        def act(does: Callable[[], object]) -> Callable[[KeyPressEvent], object]:
            def acted(event: KeyPressEvent) -> None:
                showing.said = None
                if does() is True:
                    self.read()

            return acted

        for name, does in {
            "up": lambda: showing.move(-1), "down": lambda: showing.move(1),
            "pageup": lambda: showing.move(-showing.page_rows), "pagedown": lambda: showing.move(showing.page_rows),
            "home": lambda: showing.jump(to_end=False), "end": lambda: showing.jump(to_end=True),
            "enter": showing.enter, "escape": showing.back, "s": showing.resort, "R": lambda: True,
            "?": lambda: setattr(showing, "is_help", True), "c": lambda: setattr(showing, "is_whole", not showing.is_whole),
            "/": lambda: setattr(showing, "typing", showing.filter), "k": self.cancel, "p": self.pause,
            "+": lambda: self.concur(1), "=": lambda: self.concur(1), "-": lambda: self.concur(-1),
            "q": lambda: self.leave(Left.QUIT), "Q": lambda: self.leave(Left.QUIT),
        }.items():  # fmt: skip
            bind(name, does=act(does))
        bind("c-c", when=Condition(lambda: True), does=lambda event: self.leave(Left.QUIT))
        bind("<any>", when=is_asked, does=lambda event: answer(self, event), eager=False)
        bind("enter", "escape", when=is_asked, does=lambda event: answer(self, event))
        bind("<any>", when=is_typing, does=self._typed, eager=False)
        bind("backspace", "c-h", when=is_typing, does=lambda event: self._type((showing.typing or "")[:-1]))
        bind("enter", when=is_typing, does=lambda event: setattr(showing, "typing", None))
        bind("escape", when=is_typing, does=lambda event: self._type(None))
        return keys

    def _typed(self, event: KeyPressEvent) -> None:
        if event.data.isprintable():  # no arrow
            self._type((self.showing.typing or "") + event.data)

    def _type(self, text: str | None) -> None:
        """Filter as it is typed; None: no more."""
        self.showing.typing, self.showing.filter = text, text or ""

    # --- what keys do ---------------------------------------------------------------------------------------------------

    def _task(self) -> tuple[TaskId, str] | None:
        """The task that a key is about, and what it is called."""
        found = self.showing.selected
        id = self.showing.task or (found.task if isinstance(found, Running) else None)
        return None if id is None else (id, listing.get(self._engine._reader(), id).label)

    def cancel(self) -> None:
        """Cancel the task, after a question."""
        task = self._task()
        if task is None:
            self.say("Select a task to cancel it.")
            return
        id, label = task
        if listing.state_of(self._engine._reader(), id).is_final:
            self.say(f"Task {label} has ended already.")
            return

        def deed() -> str:
            word = Task(self._engine, id).cancel()
            return f"Task {label} is {word if word == 'cancelled' else 'asked to stop'}."

        self.showing.question = Question(f"Cancel task {label}? [y/N]", {"y": lambda: self.do(deed)})

    def pause(self) -> None:
        """Pause what is selected, or let it go on."""
        found = self.showing.selected
        if self.showing.task is None and isinstance(found, Machine):
            self.do(lambda: self._pause_worker(found))
            return
        task = self._task()
        if task is None:
            return
        id, label = task
        is_stopped = any(row.task == id and row.is_stopped for row in self.showing.seen.running)

        def deed() -> str:
            handle = Task(self._engine, id)
            if is_stopped or handle.status == "paused":
                handle.resume()
                return f"Task {label} goes on."
            word = handle.pause()
            if handle.state.is_final:
                return f"Task {label} has ended already."
            return f"Task {label} is {word if word == 'paused' else 'asked to stop where it is'}. p: on again"

        self.do(deed)

    def _pause_worker(self, found: Machine) -> str:
        row = self._engine.worker(found.id)
        if row.state in (WorkerState.PAUSED, WorkerState.DRAINING):
            self._engine.worker_resume(found.id)
            return f"{row.name} goes on."
        self._engine.worker_pause(found.id)
        return f"{row.name} launches nothing more; what runs goes on. p: on again"

    def concur(self, by: int) -> None:
        """Have the worker run one more or one less at once."""
        found = self.showing.machine
        if found is None:
            self.say("Select a worker first.")
            return

        def deed() -> str:
            row = self._engine.worker(found.id)
            wanted = max(0, row.concurrency + by)
            if wanted != row.concurrency:
                self._engine.update_worker(found.id, concurrency=wanted)
            return f"{row.name} runs {wanted} at once."

        self.do(deed)
