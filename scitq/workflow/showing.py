"""What a screen shows at this moment: which view, what is selected in it, a question that waits; drawn as lines into any size.

Knows no terminal: `screen` turns keys into calls of these methods, and draws what `frame` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from scitq.saying import clean
from scitq.task import TaskId
from scitq.workflow import drawing
from scitq.workflow.cells import Line, around, cut, cut_line, wrapped
from scitq.workflow.drawing import PLAIN, TABS, Marks
from scitq.workflow.looking import Detail, Page, TaskLine
from scitq.workflow.overview import Overview, Step
from scitq.workflow.reader import Looked, Request

# Near the end of the tasks that were read, the next ones are.
NEAR = 30
HELP = """\
Enter      look into the selected step or task
Esc        back
Up Down    select; PgUp PgDn by pages, Home End first and last
Left Right which states a list of tasks shows
/          filter tasks by a part of their name, command, or number
e          edit a command, of one task or of all not launched
r          relaunch: the task, or all of the step that failed
k          cancel: the task, or all of the step; asks
c          the whole command
R          read all anew
P          pause: nothing more is launched
S          suspend: what runs is stopped where it is, too
U          unpause: all goes on
D          destroy: delete the workflow; asks
Q          quit; tasks go on
Ctrl-C     leave at once; tasks go on""".splitlines()


class View(Enum):
    """What fills the screen."""

    STEPS = "steps"
    TASKS = "tasks"
    TASK = "task"
    HELP = "help"
    DIFFERENCE = "difference"
    EDITOR = "editor"


@dataclass(frozen=True)
class Question:
    """Something asked below, and what is done for a key; any other key does `otherwise`."""

    text: str
    answers: dict[str, Callable[[], None]]
    otherwise: Callable[[], None] | None = None


class Showing:
    """The state of the screen. Touched by one thread."""

    def __init__(self, seen: Overview, marks: Marks) -> None:
        self.seen = seen
        self.marks = marks
        self.view = View.STEPS
        self.question: Question | None = None
        self.typing: str | None = None  # the filter, while it is being typed
        self.said: tuple[str, str] | None = None  # style, text
        self.difference: Sequence[str] = ()
        self.step_at = 0
        self.batch: str | None = None
        self.tab = 0
        self.filter = ""
        self.page: Page | None = None
        self.at = 0
        self.task: TaskId | None = None
        self.detail: Detail | None = None
        self.is_whole = False
        self.scroll = 0
        self.is_closing = False
        self.is_fresh = True  # it shows what was asked for last
        self._anchor: int | None = None
        self._owed = 0
        self.wants_more = False  # what keys asked for goes beyond what was read
        self._serial = 0
        self._occupied: set[str] = set()
        self._body_rows = 20
        self._back = View.STEPS

    # --- what is selected -----------------------------------------------------------------------------------------------

    @property
    def step(self) -> Step | None:
        """The step that is selected, or looked into."""
        if self.batch is not None:
            return next((step for step in self.seen.steps if step.row.batch == self.batch), None)
        return self.seen.steps[self.step_at] if self.step_at < len(self.seen.steps) else None

    @property
    def selected(self) -> TaskLine | None:
        """The task that is selected in the list."""
        rows = self.page.rows if self.page is not None else ()
        return rows[self.at] if 0 <= self.at < len(rows) else None

    def request(self) -> Request:
        """What is to be read for this view."""
        self._serial += 1
        self.is_fresh = False
        if self.task is not None:
            return Request(self._serial, task=self.task)
        if self.batch is not None:
            return Request(self._serial, self.batch, TABS[self.tab][1], self.filter, self._anchor)
        return Request(self._serial)

    def looked(self, found: Looked) -> None:
        """Take in what was read, unless something else is wanted by now."""
        self.seen = found.overview
        self._occupied |= drawing.occupied(found.overview)
        self.step_at = max(0, min(self.step_at, len(self.seen.steps) - 1))
        self.is_fresh = found.serial == self._serial
        if not self.is_fresh:
            return
        if found.page is not None:
            self._take(found.page)
        if self.task is not None:
            if found.detail is None and self.view in (View.TASK, View.TASKS):
                self.said = ("warn", f"Task {self.task} was deleted.")
                self.back()
            self.detail = found.detail

    def _take(self, page: Page) -> None:
        before, fresh = self.selected, self.page is None
        self.page = page
        if fresh or before is None:
            self._owed = 0
            self.at = len(page.rows) - 1 if self._anchor == -1 else 0
        else:
            # It may have left the list: the next one takes its place.
            places = [place for place, row in enumerate(page.rows) if row.id >= before.id]
            self.at = places[0] if places else max(0, len(page.rows) - 1)
            owed, self._owed = self._owed, 0
            wanted, self.at = self.at + owed, max(0, min(self.at + owed, len(page.rows) - 1))
            if owed and self.selected is not None:
                self._anchor = int(self.selected.id)
            if wanted != self.at and (page.more_after if owed > 0 else page.more_before):
                self._owed, self.wants_more = wanted - self.at, True

    # --- moving ---------------------------------------------------------------------------------------------------------

    def move(self, rows: int) -> bool:
        """Up or down; returns whether more must be read for it."""
        if self.view in (View.HELP, View.DIFFERENCE):
            self.scroll = max(0, self.scroll + rows)
        elif self.view is View.TASK:
            self.scroll = max(0, self.scroll - rows)  # counted from the newest line
        elif self.view is View.STEPS:
            self.step_at = max(0, min(self.step_at + rows, len(self.seen.steps) - 1))
        elif self.page is not None:
            wanted, last = self.at + rows, len(self.page.rows) - 1
            self.at = max(0, min(wanted, last))
            if (wanted > last and self.page.more_after) or (wanted < 0 and self.page.more_before):
                self._owed += wanted - self.at  # once more is read
            near_begin = self.page.more_before and self.at < NEAR
            near_end = self.page.more_after and self.at >= len(self.page.rows) - NEAR
            if self.selected is not None:
                self._anchor = int(self.selected.id)
            return near_begin or near_end
        return False

    def jump(self, *, to_end: bool) -> bool:
        """To the first or the last; returns whether more must be read for it."""
        if self.view is View.TASK:
            self.scroll = 0 if to_end else 1 << 30
        elif self.view is View.TASKS:
            if self.page is not None and not (self.page.more_after if to_end else self.page.more_before):
                return self.move(len(self.page.rows) if to_end else -len(self.page.rows))
            self.page, self._anchor = None, -1 if to_end else None
            return True
        else:
            self.move(1 << 30 if to_end else -(1 << 30))
        return False

    @property
    def page_rows(self) -> int:
        """How far PgUp and PgDn go."""
        return max(1, self._body_rows - 3)

    def enter(self) -> bool:
        """Into what is selected; returns whether something must be read for it."""
        if self.view is View.STEPS and (step := self.step) is not None:
            self.view, self.batch = View.TASKS, step.row.batch
            self.tab, self.filter = 0, ""
            self.page, self._anchor = None, None
            return True
        if self.view is View.TASKS and (row := self.selected) is not None:
            self.view, self.task, self.detail = View.TASK, row.id, None
            self.scroll, self.is_whole = 0, False
            return True
        return False

    def back(self) -> bool:
        """Out of it again; returns whether something must be read for it."""
        if self.view in (View.HELP, View.DIFFERENCE, View.EDITOR):
            self.view, self.scroll = self._back, 0
        elif self.view is View.TASK:
            self.view, self.task, self.detail = View.TASKS, None, None
        elif self.view is View.TASKS and self.filter:
            self.filter, self.page = "", None
        elif self.view is View.TASKS:
            self.view, self.batch, self.page = View.STEPS, None, None
        return True

    def over(self, view: View) -> None:
        """Show something over the present view, to come back to it."""
        if self.view not in (View.HELP, View.DIFFERENCE, View.EDITOR):
            self._back = self.view
        self.view, self.scroll = view, 0

    def turn(self, by: int) -> bool:
        """To the next tab that has tasks."""
        step = self.step
        if self.view is not View.TASKS or step is None:
            return False
        for _ in TABS:
            self.tab = (self.tab + by) % len(TABS)
            states = TABS[self.tab][1]
            if states is None or step.count(*states):
                break
        self.page, self._anchor = None, None
        return True

    def look_for(self, text: str) -> bool:
        """Show only tasks with that in their name."""
        self.filter, self.page, self._anchor = text, None, None
        return True

    # --- drawing --------------------------------------------------------------------------------------------------------

    def frame(self, cells: int, rows: int) -> list[Line]:
        """The whole screen: just so many rows, none wider than that."""
        bottom = self._bottom(cells, rows)
        head = [drawing.header(self.seen, cells, self.marks)] if rows - len(bottom) >= 2 else []
        room = max(0, rows - len(head) - len(bottom))
        self._body_rows = room
        body = self._body(cells, room)[:room]
        body += [[] for _ in range(room - len(body))]
        return [cut_line(line, cells, mark=self.marks.more) for line in [*head, *body, *bottom][:rows]]

    def _bottom(self, cells: int, rows: int) -> list[Line]:
        if self.question is not None:
            return [[("question", line)] for line in wrapped(clean(self.question.text), cells)][: max(1, rows - 1)]
        if self.typing is not None:
            return [cut_line([("question", "/"), ("", clean(self.typing)), ("selected", " ")], cells)]
        lines: list[Line] = []
        if self.said is not None:
            style, text = self.said
            lines += [[(style, line)] for line in wrapped(clean(text), cells)[: max(1, rows // 3)]]
        elif self.is_closing:
            lines.append(cut_line([("warn", "All has ended: this closes by itself in a moment.")], cells))
        return [*lines, self._keys(cells)] if rows >= 4 + len(lines) else lines or [self._keys(cells)]

    def _keys(self, cells: int) -> Line:
        up, sides = self.marks.up, self.marks.sides
        keys = {
            View.STEPS: f"Q quit  ? help  Enter tasks  {up} step  P pause  S suspend  U unpause  D destroy  e edit  r relaunch  k cancel",
            View.TASKS: f"Esc back  ? help  Enter task  {sides} states  / filter  e edit  r relaunch  k cancel",
            View.TASK: f"Esc back  ? help  {up} output  c command  e edit  r relaunch  k cancel",
        }.get(self.view, "Esc back")
        return cut_line([("keys", keys)], cells, mark=self.marks.more)

    def _body(self, cells: int, rows: int) -> list[Line]:
        if self.view is View.HELP:
            return self._scrolled([[("", part)] for line in HELP for part in wrapped(line, cells)], cells, rows)
        if self.view is View.DIFFERENCE:
            return self._scrolled(drawing.difference(self.difference, cells, self.marks), cells, rows)
        if self.view is View.STEPS:
            if not self.seen.steps:
                return [[("dim", "No steps yet.")]]
            lines = drawing.steps(self.seen, cells, self.marks, sorted(self._occupied))
            told = [("bad", cut(text, cells, mark=self.marks.more)) for text in self.seen.troubles]
            rest = [[], *([piece] for piece in told)] if told and len(lines) + len(told) < rows else []
            return [*around(lines[:1], lines[1:], self.step_at, rows - len(rest), cells), *rest]
        if self.view is View.TASKS:
            return self._tasks(cells, rows)
        return self._task(cells, rows)

    def _scrolled(self, lines: list[Line], cells: int, rows: int) -> list[Line]:
        self.scroll = max(0, min(self.scroll, len(lines) - rows))
        return [cut_line(line, cells, mark=self.marks.more) for line in lines[self.scroll : self.scroll + rows]]

    def _tasks(self, cells: int, rows: int) -> list[Line]:
        step = self.step
        if step is None:
            return [[("warn", "The step is gone.")]]
        name: Line = [("name", clean(step.name))]
        head = [cut_line([*name, *drawing.tabs(step, self.tab, self.filter, cells, self.marks)], cells)]
        if self.page is None:
            return head
        if not self.page.rows:
            return [*head, [("dim", "No task is like that." if self.filter else "None.")]]
        # Only what may be seen is laid out, so that a column is as wide as what stands in it.
        first = max(0, min(self.at - rows // 2, len(self.page.rows) - (rows - 2)))
        lines = drawing.task_list(self.page.rows[first : first + max(1, rows - 2)], self.seen.now_ms, cells, self.marks)
        return around([*head, lines[0]], lines[1:], self.at - first, rows, cells)

    def _task(self, cells: int, rows: int) -> list[Line]:
        lines, self.scroll = drawing.task(self.detail, cells, rows, self.marks, scroll=self.scroll, whole=self.is_whole)
        return lines


def marks_for(encoding: str | None) -> Marks:
    """Characters that such an encoding has."""
    return Marks() if (encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32") else PLAIN
