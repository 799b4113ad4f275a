"""The full-screen view of a workflow in a terminal: `run`. What it shows is in `showing`; what keys do about tasks is in `acts`;
what any full-screen view needs is in `fullscreen`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import Dimension, FormattedTextControl, HSplit, Window
from prompt_toolkit.layout.controls import BufferControl

from scitq.engine import Engine
from scitq.errors import UnknownWorkflow
from scitq.workflow import drawing
from scitq.workflow.acts import Acts
from scitq.workflow.cells import Line
from scitq.workflow.fullscreen import Fullscreen
from scitq.workflow.keys import bindings
from scitq.workflow.left import Left
from scitq.workflow.overview import Watch
from scitq.workflow.reader import Look, Looked, Request
from scitq.workflow.reading import Reader
from scitq.workflow.showing import Question, Showing, View, marks_for

# How long somebody who looks at a task when all has ended is left alone after the last key.
PATIENCE_S = 30.0
DUMB = ("", "dumb", "unknown")


def run(engine: Engine, name: str, refresh: float | None = None, *, stays: bool = False) -> Left:
    """Show a workflow until nothing more happens in it by itself, or the user leaves. With `stays`, also when all is over
    already. On a terminal that can only print, lines are printed instead.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    if os.environ.get("TERM", "") in DUMB:
        from scitq.workflow import lines

        return lines.follow(engine, name, refresh, sys.stdout)
    watch = Watch(engine, name)
    seen = watch.look()
    tells = stays  # whoever runs it is told what failed by the error of that
    if not (seen.is_settled and stays):
        stays = False
        if seen.is_settled:
            _leave_table(watch, sys.stdout.encoding, failures=tells)
            return Left.ENDED
    engine._drive()
    left = Screen(engine, watch, Showing(seen, marks_for(sys.stdout.encoding)), refresh, stays=stays).run()
    if left is Left.ENDED:
        _leave_table(watch, sys.stdout.encoding, failures=tells)
    return left


def _leave_table(watch: Watch, encoding: str | None, *, failures: bool) -> None:
    """What stays on the normal screen."""
    cells = shutil.get_terminal_size().columns
    with contextlib.suppress(UnknownWorkflow):
        print("\n".join(drawing.final(watch.look(), cells, marks_for(encoding), failures=failures)), flush=True)


class Screen(Fullscreen):
    """One showing of a workflow."""

    def __init__(self, engine: Engine, watch: Watch, showing: Showing, refresh: float | None, *, stays: bool) -> None:
        super().__init__()
        self.showing = showing
        self._stays = stays
        self._reader: Reader[Request, Looked] = Reader(
            engine, Look(engine, watch), Request(), refresh,
            is_live=lambda looked: bool(looked.overview.live), on_look=self._on_look, on_problem=self._on_problem,
        )  # fmt: skip
        self.acts = Acts(engine, showing.seen.name, self)
        self._head = ""
        self._buffer = Buffer(multiline=True)
        self._field = Window(BufferControl(self._buffer), wrap_lines=True)
        head = Window(FormattedTextControl(self._editor_head), height=Dimension(min=0, max=2), wrap_lines=True)
        self._editor = HSplit([head, self._field])

    # --- its life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to read."""
        self._reader.start()
        self._reader.ask(self.showing.request())

    def end(self) -> None:
        """No more of it."""
        self._reader.stop()

    def drawn(self, seconds: float) -> None:
        """Whoever reads makes way for drawing."""
        self._reader.drawing_s = seconds

    def _on_look(self, found: Looked) -> None:
        self.soon(lambda: self._looked(found))

    def _on_problem(self, problem: BaseException) -> None:
        if isinstance(problem, UnknownWorkflow):
            self.soon(lambda: self.leave(Left.DESTROYED))
        else:
            self.soon(lambda: self.fail(problem))

    def _looked(self, found: Looked) -> None:
        self.showing.looked(found)
        if self.showing.wants_more:
            self.showing.wants_more = False
            self.read()
        self._end_if_all_has()
        self.redraw()

    def _end_if_all_has(self) -> None:
        showing = self.showing
        showing.is_closing = showing.seen.is_settled and not self._stays
        if not showing.is_closing or self.is_busy or not showing.is_fresh:
            return
        is_looking = showing.view is not View.STEPS or showing.question is not None
        left_s = self.last_key + PATIENCE_S - time.monotonic() if is_looking else 0.0
        if left_s <= 0:
            self.leave(Left.ENDED)
        elif self.application.loop is not None:
            self.application.loop.call_later(left_s + 0.1, self.guarded, self._end_if_all_has)

    # --- for what keys do -----------------------------------------------------------------------------------------------

    def bindings(self) -> KeyBindings:
        """The keys of a workflow's screen."""
        return bindings(self)

    def say(self, text: str, style: str = "") -> None:
        """A sentence below, until the next key."""
        self.showing.said = (style, text)
        self.redraw()

    def ask(
        self, text: str, answers: dict[str, Callable[[], None]], otherwise: Callable[[], None] | None = None
    ) -> None:
        """A question below; any key but those of the answers means no."""
        self.showing.question = Question(text, answers, otherwise)

    def read(self) -> None:
        """Read what is shown now anew."""
        self._reader.ask(self.showing.request())
        self.redraw()

    def edit(self, text: str, head: str) -> None:
        """Open the editor on a text."""
        self._head = head
        self._buffer.reset()
        self._buffer.text = text
        self._buffer.cursor_position = 0
        self.showing.over(View.EDITOR)
        self.application.layout.focus(self._field)

    def key(self, does: Callable[[], object]) -> None:
        """A key was pressed, which does this."""
        super().key(does)
        if self.showing.view is not View.EDITOR and self.application.layout.has_focus(self._field):
            self.application.layout.focus(self.main)

    @property
    def edited(self) -> str:
        """What stands in the editor."""
        return self._buffer.text

    # --- drawing --------------------------------------------------------------------------------------------------------

    def container(self) -> Any:
        """The editor, or all else."""
        return self._editor if self.showing.view is View.EDITOR else self.main

    def frame(self, cells: int, rows: int) -> list[Line]:
        """What `showing` says."""
        return self.showing.frame(cells, rows)

    def _editor_head(self) -> StyleAndTextTuples:
        return [("class:title", self._head), ("class:keys", "  Ctrl-S: see the change   Esc: leave")]
