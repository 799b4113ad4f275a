"""What `top` shows at this moment: what is selected, how it is sorted and filtered; drawn as lines into any size.

Pure, and knows no terminal: `screen` turns keys into calls of these methods, and draws what `frame` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scitq.saying import clean, duration, several, size
from scitq.shell import facts
from scitq.shell.live.machines import Machine, Request, Running, Seen
from scitq.states import TaskState, WorkerState
from scitq.task import ExecutionId, TaskId
from scitq.workflow import drawing
from scitq.workflow.cells import Column, Line, around, cut_line, table, wrapped
from scitq.workflow.drawing import STYLES, Marks
from scitq.workflow.showing import Question

HELP = """\
Enter      of a task: its live output; of a worker: what it holds only
Esc        back; out of the filter
Up Down    select; PgUp PgDn by pages, Home End first and last
k          cancel the task; asks
p          pause the task or the worker, or let it go on
+ -        more or fewer tasks at once on the worker
s          sort tasks by another column
/          only what has that in its name, number, batch or worker
c          the whole command, while its output is shown
R          read all anew
q          quit; what runs goes on""".splitlines()
# How tasks are sorted, and by what.
SORTS: tuple[tuple[str, Callable[[Running], Any]], ...] = (
    ("time", lambda row: (row.since_ms is None, row.since_ms or 0)),
    ("CPU", lambda row: -(row.cpu or 0.0)),
    ("memory", lambda row: -(row.memory or 0)),
    ("worker", lambda row: row.worker),
    ("batch", lambda row: row.batch),
    ("id", lambda row: row.task),
)
# Those that run come before those that wait at their worker.
_ORDER = {TaskState.RUNNING: 0, TaskState.COLLECTING: 1, TaskState.STAGING: 2}
_LATE = 3
_WORKER_STYLES = {
    WorkerState.READY: "good", WorkerState.UNREACHABLE: "bad", WorkerState.FAILED: "bad", WorkerState.PAUSED: "warn",
    WorkerState.DRAINING: "warn",
}  # fmt: skip
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
TREND_CELLS = 10
# What was measured longer ago says nothing of now.
STALE_MS = 90_000
# The part of the screen that workers have at least, if there are so many.
WORKERS_SHARE = 0.4


@dataclass(frozen=True)
class Key:
    """What is selected: a worker, or an execution."""

    is_worker: bool
    id: int


class Showing:
    """The state of the screen. Touched by one thread."""

    def __init__(self, seen: Seen, name: str, marks: Marks) -> None:
        self.seen = seen
        self.marks = marks
        self.question: Question | None = None
        self.typing: str | None = None
        self.said: tuple[str, str] | None = None
        self.filter = ""
        self.sort = 0
        self.task: TaskId | None = None
        self.is_help = self.is_whole = False
        self.scroll = 0
        self._name = name
        self._key: Key | None = None
        self._place = 0
        self._serial = 0
        self._body_rows = 20
        # The executions whose rows were drawn last.
        self.on_screen: tuple[ExecutionId, ...] = ()

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def machines(self) -> list[Machine]:
        """The workers that the filter leaves; all of them where it is about tasks."""
        every = self.seen.machines
        return [row for row in every if self._fits(row.name, row.batch or "")] or list(every)

    @property
    def running(self) -> list[Running]:
        """The tasks that the filter leaves, sorted."""
        by = SORTS[self.sort][1]
        rows = [row for row in self.seen.running if self._fits(row.name, row.batch, row.worker, str(row.task))]
        return sorted(rows, key=lambda row: (_ORDER.get(row.state, _LATE), by(row), row.task))

    def _fits(self, *words: str) -> bool:
        text = self.filter.lower()
        return not text or any(text in word.lower() for word in words)

    @property
    def keys(self) -> list[Key]:
        """All that can be selected, from top to bottom."""
        rows = [Key(True, row.id) for row in self.machines]
        return [*rows, *(Key(False, int(row.execution)) for row in self.running)]

    @property
    def selected(self) -> Machine | Running | None:
        """What is selected. What has gone leaves its place to the next one."""
        keys = self.keys
        if self._key not in keys:
            self._place = max(0, min(self._place, len(keys) - 1))
            self._key = keys[self._place] if keys else None
        elif self._key is not None:
            self._place = keys.index(self._key)
        key = self._key
        if key is None:
            return None
        if key.is_worker:
            return next(row for row in self.seen.machines if row.id == key.id)
        return next(row for row in self.seen.running if row.execution == key.id)

    @property
    def machine(self) -> Machine | None:
        """The worker that is selected, or that of the selected task."""
        found = self.selected
        if isinstance(found, Running):
            return next((row for row in self.seen.machines if row.name == found.worker), None)
        return found

    def request(self) -> Request:
        """What is to be read."""
        self._serial += 1
        return Request(self._serial, self.on_screen, self.task)

    def looked(self, seen: Seen) -> None:
        """Take in what was read."""
        is_old = seen.serial != self._serial
        if self.task is not None and seen.detail is None and not is_old:
            self.said = ("warn", f"Task {self.task} was deleted.")
            self.task = None
        if self.task is not None and seen.detail is None and self.seen.detail is not None:
            seen = replace(seen, detail=self.seen.detail)  # read before it was asked for
        self.seen = seen

    # --- moving -------------------------------------------------------------------------------------------------------

    def move(self, rows: int) -> None:
        """Up or down."""
        if self.is_help:
            self.scroll = max(0, self.scroll + rows)
        elif self.task is not None:
            self.scroll = max(0, self.scroll - rows)
        elif self.selected is not None:
            keys = self.keys
            self._place = max(0, min(self._place + rows, len(keys) - 1))
            self._key = keys[self._place]

    def jump(self, *, to_end: bool) -> None:
        """To the first or the last."""
        if self.task is not None and not self.is_help:
            self.scroll = 0 if to_end else 1 << 30
        else:
            self.move(1 << 30 if to_end else -(1 << 30))

    @property
    def page_rows(self) -> int:
        """How far PgUp and PgDn go."""
        return max(1, self._body_rows - 3)

    def enter(self) -> bool:
        """Into what is selected; whether something must be read for it."""
        found = self.selected
        if self.task is not None or self.is_help or found is None:
            return False
        if isinstance(found, Machine):
            self.filter = found.name
            return False
        self.task, self.scroll, self.is_whole = found.task, 0, False
        return True

    def back(self) -> bool:
        """Out of it again; whether something must be read for it."""
        if self.is_help:
            self.is_help, self.scroll = False, 0
        elif self.task is not None:
            self.task, self.scroll = None, 0
            return True
        else:
            self.filter = ""
        return False

    def resort(self) -> None:
        """Sort tasks by the next column."""
        self.sort = (self.sort + 1) % len(SORTS)
        self.said = ("", f"Sorted by {SORTS[self.sort][0]}.")

    # --- drawing ------------------------------------------------------------------------------------------------------

    def frame(self, cells: int, rows: int) -> list[Line]:
        """The whole screen: just so many rows, none wider than that."""
        bottom = self._bottom(cells, rows)
        head = [self._head(cells)] if rows - len(bottom) >= 2 else []
        room = max(0, rows - len(head) - len(bottom))
        self._body_rows = room
        body = self._body(cells, room)[:room]
        body += [[] for _ in range(room - len(body))]
        return [cut_line(line, cells, mark=self.marks.more) for line in [*head, *body, *bottom][:rows]]

    def _head(self, cells: int) -> Line:
        line: Line = [("title", f" {clean(self._name)} "), ("", " "), ("", facts.counted(self.seen.counts))]
        who = ("bad", "nobody drives it: scitq up") if self.seen.driver is None else ("dim", clean(self.seen.driver))
        return cut_line([*line, ("", f" {self.marks.dot} "), who], cells, mark=self.marks.more)

    def _bottom(self, cells: int, rows: int) -> list[Line]:
        if self.question is not None:
            return [[("question", line)] for line in wrapped(clean(self.question.text), cells)][: max(1, rows - 1)]
        if self.typing is not None:
            return [cut_line([("question", "/"), ("", clean(self.typing)), ("selected", " ")], cells)]
        lines: list[Line] = []
        if self.said is not None:
            style, text = self.said
            lines += [[(style, line)] for line in wrapped(clean(text), cells)[: max(1, rows // 3)]]
        keys = "q quit  ? help  Enter output  k cancel  p pause  + - concurrency  s sort  / filter"
        if self.task is not None:
            keys = f"Esc back  ? help  {self.marks.up} output  c command  k cancel  p pause"
        line: Line = [("keys", keys)]
        return [*lines, cut_line(line, cells, mark=self.marks.more)] if rows >= 4 + len(lines) else lines or [line]

    def _body(self, cells: int, rows: int) -> list[Line]:
        if self.is_help:
            lines: list[Line] = [[("", part)] for line in HELP for part in wrapped(line, cells)]
            self.scroll = max(0, min(self.scroll, len(lines) - rows))
            return lines[self.scroll : self.scroll + rows]
        if self.task is not None:
            lines, self.scroll = drawing.task(
                self.seen.detail, cells, rows, self.marks, scroll=self.scroll, whole=self.is_whole
            )
            return lines
        return self._lists(cells, rows)

    def _lists(self, cells: int, rows: int) -> list[Line]:
        selected = self.selected
        machines, running = self.machines, self.running
        is_worker = isinstance(selected, Machine)
        at = self._place if is_worker else self._place - len(machines)
        # Workers have the room that tasks leave, and a share of it at least.
        room = max(2, int(rows * WORKERS_SHARE), rows - len(running) - 2)
        top = machine_lines(machines, self.seen.now_ms, cells, self.marks)
        if not machines:
            top = [[("dim", "No worker yet: this machine becomes one when somebody drives.")]]
        lines = around(top[:1], top[1:], at if is_worker else -1, min(room, len(top)), cells)
        left = rows - len(lines)
        if left < 2:
            self.on_screen = ()
            return lines
        lines.append(drawing.rule(self._rule(len(running)), cells, self.marks))
        left -= 1
        first = 0 if is_worker else max(0, min(at - left // 2, len(running) - (left - 1)))
        shown = running[first : first + max(1, left - 1)]
        self.on_screen = tuple(row.execution for row in shown)
        if not running:
            return [*lines, [("dim", "No task runs." if not self.filter else "None is like that.")]]
        below = running_lines(shown, self.seen.now_ms, cells, self.marks, has_worker=len(self.seen.machines) > 1)
        return [*lines, *around(below[:1], below[1:], -1 if is_worker else at - first, left, cells)]

    def _rule(self, count: int) -> str:
        text = f"{several(count, 'task')} at workers, by {SORTS[self.sort][0]}"
        return f"{text}, with {clean(self.filter)}" if self.filter else text


def machine_lines(rows: Sequence[Machine], now_ms: int, cells: int, marks: Marks) -> list[Line]:
    """The workers, the heading first."""
    fresh = [row if row.at_ms is not None and now_ms - row.at_ms < STALE_MS else None for row in rows]
    measured: list[tuple[str, Callable[[Machine], str], int]] = [
        ("CPU", lambda row: "" if row.cpu is None else f"{row.cpu:.0%}", 70),
        ("memory", lambda row: _of(row.memory, row.memory_free), 60),
        ("load", lambda row: "" if row.load is None else f"{row.load:.2f}", 40),
        ("disk free", lambda row: "" if row.disk_free is None else size(row.disk_free), 30),
        ("in/s", lambda row: _rate(row.net_in), 25),
        ("out/s", lambda row: _rate(row.net_out), 24),
    ]
    columns = [
        Column("worker", [("name", clean(row.name)) for row in rows], 100, right=False, least=6, good=20),
        Column("state", [(_WORKER_STYLES.get(row.state, ""), row.state.word) for row in rows], 90, right=False),
        Column("batch", [("", clean(row.batch or "")) for row in rows], 10, right=False, least=6),
        Column("busy", [("", f"{row.runs}/{row.concurrency}") for row in rows], 95),
        Column("prefetch", [("dim", "auto" if row.prefetch is None else str(row.prefetch)) for row in rows], 20),
    ]
    for heading, text, worth in measured[:1]:
        columns.append(Column(heading, [("", "" if row is None else text(row)) for row in fresh], worth))
    columns.append(Column("trend", [("bar", trend(row.trend, marks)) for row in rows], 15, right=False))
    for heading, text, worth in measured[1:]:
        columns.append(Column(heading, [("", "" if row is None else text(row)) for row in fresh], worth))
    columns.append(Column("region", [("dim", clean(row.region)) for row in rows], 28, right=False))
    columns.append(Column("price, cost", [("", clean(row.cost)) for row in rows], 35))
    columns.append(Column("", [("warn", clean(row.note or "")) for row in rows], 22, right=False, least=10))
    return table([one for one in columns if any(text for _, text in one.cells)], cells, mark=marks.more)


def running_lines(
    rows: Sequence[Running], now_ms: int, cells: int, marks: Marks, *, has_worker: bool = True
) -> list[Line]:
    """Tasks at workers, the heading first."""
    columns = [
        Column("id", [("dim", str(row.task)) for row in rows], 90),
        Column("task", [("name", clean(row.name)) for row in rows], 100, right=False, least=8, good=20),
        Column("batch", [("", clean(row.batch)) for row in rows], 25, right=False, least=6),
        Column("worker", [("", clean(row.worker)) for row in rows], 40 if has_worker else 5, right=False, least=6),
        Column("state", [(STYLES.get(row.state, ""), row.word) for row in rows], 80, right=False),
        Column("time", [("", "" if row.since_ms is None else duration(max(0, now_ms - row.since_ms) // 1000)) for row in rows], 70),
        Column("CPU", [("", "" if row.cpu is None else f"{row.cpu:.0%}") for row in rows], 60),
        Column("memory", [("", "" if row.memory is None else size(row.memory)) for row in rows], 55),
        Column("last line", [("dim", clean(row.last)) for row in rows], 30, right=False, least=12),
    ]  # fmt: skip
    kept = [one for one in columns if one.heading in ("id", "task", "state") or any(text for _, text in one.cells)]
    return table(kept, cells, mark=marks.more)


def trend(shares: Sequence[float], marks: Marks) -> str:
    """How busy the CPUs were, a bar for each sample, the newest last."""
    bars = BARS if marks.more == "…" else PLAIN_BARS
    return "".join(bars[max(0, min(len(bars) - 1, int(share * len(bars))))] for share in shares[-TREND_CELLS:])


def _of(total: int | None, free: int | None) -> str:
    if total is None or free is None:
        return ""
    return f"{size(total - free)}/{size(total)}"


def _rate(bytes_s: float | None) -> str:
    return "" if bytes_s is None else size(int(bytes_s))
