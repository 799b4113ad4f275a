"""The screen of `scitq watch` in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from scitq.engine import Engine
from scitq.saying import clean
from scitq.shell.live.shots import Camera, News, Shot, drawn, news
from scitq.workflow.cells import Line, cut_line, wrapped
from scitq.workflow.drawing import Marks
from scitq.workflow.fullscreen import Fullscreen
from scitq.workflow.left import Left
from scitq.workflow.reading import QUIET_S, Reader
from scitq.workflow.showing import marks_for


def run(engine: Engine, camera: Camera, line: str, every_s: float) -> int:
    """Show it until the user leaves."""
    Watching(engine, camera, line, every_s, marks_for(sys.stdout.encoding)).run()
    return 0


class Watching(Fullscreen):
    """One showing of a command's answers."""

    def __init__(self, engine: Engine, camera: Camera, line: str, every_s: float, marks: Marks) -> None:
        super().__init__()
        self._title = f"every {every_s:g} s: {line}"
        self._file = engine.path.name
        self._marks = marks
        self._shot: Shot | None = None
        self._new = News()
        self._at = time.time()
        self._said: tuple[str, str] | None = None
        self._top = 0
        self._room = 20
        self._reader: Reader[None, Shot] = Reader(
            engine, lambda _: camera.take(), None, None, is_live=lambda _: False, clock_s=QUIET_S, least_s=every_s,
            on_look=lambda shot: self.soon(lambda: self._looked(shot)),
            on_problem=lambda problem: self.soon(lambda: self.fail(problem)),
        )  # fmt: skip

    def begin(self) -> None:
        """Begin to look."""
        self._reader.start()

    def end(self) -> None:
        """No more of it."""
        self._reader.stop()

    def drawn(self, seconds: float) -> None:
        """Whoever reads makes way for drawing."""
        self._reader.drawing_s = seconds

    def read(self) -> None:
        """Look at once."""
        self._reader.ask(None)

    def say(self, text: str, style: str = "") -> None:
        """A sentence below."""
        self._said = (style, text) if text else None
        self.redraw()

    def _looked(self, shot: Shot) -> None:
        if shot != self._shot:  # what was new stays marked until there is something newer
            self._new = news(self._shot, shot)
        self._shot, self._at = shot, time.time()
        self.redraw()

    def bindings(self) -> KeyBindings:
        """What keys do."""
        keys = KeyBindings()

        def bind(*names: str, does: Callable[[], object]) -> None:
            def pressed(event: KeyPressEvent) -> None:
                self.key(does)

            for name in names:
                keys.add(name, eager=True)(pressed)

        bind("q", "Q", "c-c", "escape", does=lambda: self.leave(Left.QUIT))
        bind("R", "space", does=self.read)
        for name, rows in {"up": -1, "down": 1}.items():
            bind(name, does=lambda rows=rows: self._scroll(rows))  # type: ignore[misc]
        bind("pageup", does=lambda: self._scroll(1 - self._room))
        bind("pagedown", does=lambda: self._scroll(self._room - 1))
        bind("home", does=lambda: self._scroll(-(1 << 30)))
        bind("end", does=lambda: self._scroll(1 << 30))
        return keys

    def _scroll(self, rows: int) -> None:
        self._said = None
        self._top = max(0, self._top + rows)

    def frame(self, cells: int, rows: int) -> list[Line]:
        """The whole screen: just so many rows, none wider than that."""
        when = datetime.fromtimestamp(self._at).strftime("%H:%M:%S")
        head: Line = [("title", f" {clean(self._title)} "), ("dim", f" {clean(self._file)} {self._marks.dot} {when}")]
        shot = self._shot
        below: list[Line] = []
        if self._said is not None:
            below = [[(self._said[0], line)] for line in wrapped(clean(self._said[1]), cells)]
        elif shot is not None:
            style = "bad" if shot.code and shot.answer is None else "dim"
            below = [[(style, line)] for note in shot.notes for line in wrapped(note, cells)]
        below = below[: max(0, rows // 3)]
        lines = [] if shot is None else drawn(shot, self._new, cells, self._marks)
        room = self._room = max(1, rows - 1 - len(below) - (rows > 4))
        self._top = max(0, min(self._top, len(lines) - room))
        has_head = (
            shot is not None
            and shot.answer is not None
            and bool(lines)
            and lines[0][:1]
            and lines[0][0][0] == "heading"
        )
        body = lines[self._top : self._top + room]
        if has_head and self._top and body:  # the headings stay
            body[0] = lines[0]
        body += [[] for _ in range(room - len(body))]
        more = len(lines) - self._top - room
        keys = f"q quit  {self._marks.up} scroll" + (f"  {more:,} lines below" if more > 0 else "")
        bottom: list[Line] = [[("keys", keys)]] if rows > 4 else []
        return [cut_line(line, cells, mark=self._marks.more) for line in [head, *body, *below, *bottom][:rows]]
