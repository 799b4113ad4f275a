"""The screens of a workflow as lines of text with styles: its steps, the tasks of a step, one task.

Pure: draws what `overview` and `looking` have read into so many columns and rows. Nothing a task is called or writes can do more
than be shown: see `saying.clean`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scitq.saying import clean, duration, several
from scitq.states import BAD, LIVE, TaskState
from scitq.workflow.cells import Column, Line, Piece, cut, cut_line, fitting, pad, table, total, width, wrapped
from scitq.workflow.overview import QUEUED, Overview, Step

if TYPE_CHECKING:
    from scitq.workflow.looking import Detail, TaskLine

_S = TaskState
STYLES = {
    **dict.fromkeys((_S.RUNNING, _S.COLLECTING, _S.STAGING, _S.ASSIGNED), "live"),
    **dict.fromkeys((_S.FAILED, _S.BLOCKED), "bad"),
    _S.CANCELLED: "warn",
    _S.PAUSED: "warn",
    _S.SUCCEEDED: "good",
}
# The tabs over a list of tasks: a word, and the states that it stands for.
TABS: tuple[tuple[str, frozenset[TaskState] | None], ...] = (
    ("all", None), ("running", LIVE), ("queued", frozenset(QUEUED)), ("failed", frozenset({_S.FAILED})),
    ("blocked", frozenset({_S.BLOCKED})), ("cancelled", frozenset({_S.CANCELLED})), ("succeeded", frozenset({_S.SUCCEEDED})),
)  # fmt: skip
# What a step's line counts: the heading, the states, whether it is there without any, what it is worth on a narrow screen.
COUNTED: tuple[tuple[str, tuple[TaskState, ...], bool, int], ...] = (
    ("waiting", (_S.WAITING,), True, 5), ("pending", (_S.PENDING,), True, 6), ("paused", (_S.PAUSED,), False, 7),
    ("debug", (_S.DEBUG,), False, 7), ("staging", (_S.ASSIGNED, _S.STAGING), False, 4),
    ("running", (_S.RUNNING, _S.COLLECTING), True, 12), ("failed", (_S.FAILED,), False, 46), ("blocked", (_S.BLOCKED,), False, 9),
    ("cancelled", (_S.CANCELLED,), False, 8),
)  # fmt: skip
BAR = 24
LEAST_BAR = 8


@dataclass(frozen=True)
class Marks:
    """Characters that not every terminal has."""

    full: str = "━"
    rest: str = "─"
    more: str = "…"
    dot: str = "·"
    up: str = "↑↓"
    sides: str = "←→"


PLAIN = Marks("#", "-", "~", "|", "Up/Down", "Left/Right")


def header(seen: Overview, cells: int, marks: Marks) -> Line:
    """The line on top: name, state, for how long, who drives."""
    style = {"failed": "bad", "succeeded": "good", "paused": "warn", "suspended": "warn"}.get(seen.state, "live")
    line: Line = [("title", f" {clean(seen.name)} "), ("", " "), (style, seen.state)]
    if (elapsed_s := seen.elapsed_s) is not None:
        line.append(("", f" {marks.dot} {_clock(elapsed_s)}"))
    line.append(("", f" {marks.dot} "))
    if seen.driver is None and not seen.is_settled:
        line.append(("bad", "nobody drives it: scitq up"))
    elif seen.driver is None:
        line.append(("dim", "nobody drives"))
    elif seen.stands_still:
        line.append(("bad", f"stands still: {clean(seen.driver)}"))
    else:
        line.append(("dim", f"driver: {clean(seen.driver)}"))
    return cut_line(line, cells, mark=marks.more)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 99.5 else duration(seconds)


def steps(seen: Overview, cells: int, marks: Marks, shown: Sequence[str] = ()) -> list[Line]:
    """The table of the steps, its heading first. Columns in `shown` stay though nothing is in them any more."""
    least = _columns(seen, marks, shown, LEAST_BAR)
    kept = fitting(least, cells)
    left_over = cells - total(kept)
    if left_over > 0 and len(kept) > 2:
        kept = fitting(_columns(seen, marks, shown, min(BAR, LEAST_BAR + left_over)), cells)
    return table(kept, cells, mark=marks.more)


def occupied(seen: Overview) -> set[str]:
    """The headings under which something stands."""
    found = {heading for heading, states, _, _ in COUNTED if any(step.count(*states) for step in seen.steps)}
    more = {"workers": "workers", "rate": "rate", "left": "left_s", "cost": "cost"}
    return found | {word for word, name in more.items() if any(getattr(step, name) for step in seen.steps)}


def _columns(seen: Overview, marks: Marks, shown: Sequence[str], size: int) -> list[Column]:
    rows, has = seen.steps, occupied(seen) | set(shown)
    columns = [
        Column("step", [("name", _step_name(step)) for step in rows], 100, right=False, least=6, good=24),
        Column("done", [("", f"{step.count(_S.SUCCEEDED):,}/{step.total:,}") for step in rows], 50),
        Column("", [("bar", bar(step, size, marks)) for step in rows], 11, right=False),
    ]
    for heading, states, always, worth in COUNTED:
        if always or heading in has:
            columns.append(Column(heading, [_number(step.count(*states), states[0]) for step in rows], worth))
    further = (
        ("workers", [str(step.workers or "") for step in rows], 3),
        ("rate", [_rate(step.rate) for step in rows], 2),
        ("left", ["" if step.left_s is None else duration(step.left_s) for step in rows], 10),
        ("cost", [step.cost or "" for step in rows], 12),
    )
    columns += [Column(word, [("", text) for text in texts], worth) for word, texts, worth in further if word in has]
    return columns


def _step_name(step: Step) -> str:
    halted = f" ({step.row.halt.word})" if step.row.halt else ""
    return clean(step.name) + halted


def _number(count: int, state: TaskState) -> Piece:
    return STYLES.get(state, "") if count else "", f"{count:,}" if count else ""


def _rate(rate: float | None) -> str:
    if rate is None:
        return ""
    for per, word in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if rate * per >= 1 or word == "h":
            return f"{rate * per:,.0f}/{word}" if rate * per >= 9.5 or word == "h" else f"{rate * per:.1f}/{word}"
    return ""


def bar(step: Step, size: int, marks: Marks) -> str:
    """How much of a step has ended; never quite full before all of it has. What is blocked never began."""
    if not step.total:
        return marks.rest * size
    full = (step.settled - step.count(_S.BLOCKED)) * size // step.total
    return marks.full * full + marks.rest * (size - full)


def tabs(step: Step, chosen: int, text: str, cells: int, marks: Marks) -> Line:
    """The line over a list of tasks: which states there are, which are shown, and what they are filtered by."""
    line: Line = [("", " ")]
    for place, (word, states) in enumerate(TABS):
        count = step.total if states is None else step.count(*states)
        if count or place in (0, chosen):
            line.append(("selected" if place == chosen else "dim", f" {word} {count:,} "))
    if text:
        line.append(("warn", f"  /{clean(text)}"))
    return cut_line(line, cells, mark=marks.more)


def task_list(rows: Sequence[TaskLine], now_ms: int, cells: int, marks: Marks) -> list[Line]:
    """A page of tasks, the heading first."""
    return table(
        [
            Column("id", [("dim", str(row.id)) for row in rows], 90),
            Column("name", [("name", clean(row.name)) for row in rows], 100, right=False, least=8),
            Column("state", [(STYLES.get(row.state, ""), row.word) for row in rows], 80, right=False),
            Column("time", [("", _time(row, now_ms)) for row in rows], 50),
            Column("worker", [("dim", clean(row.worker or "")) for row in rows], 30, right=False),
            Column("", [("dim", clean(row.note)) for row in rows], 20, right=False, least=8),
        ],
        cells,
        mark=marks.more,
    )


def _time(row: TaskLine, now_ms: int) -> str:
    if row.run_s is not None:
        return duration(row.run_s)
    if row.started_ms is not None and row.state.is_live:
        return duration(max(0, now_ms - row.started_ms) // 1000)
    return ""


def task(
    seen: Detail | None, cells: int, rows: int, marks: Marks, *, scroll: int, whole: bool
) -> tuple[list[Line], int]:
    """One task: what there is to say of it, and below what it writes, so many lines before the end; and how many these are when
    there are not that many. With `whole`, all of the first."""
    if seen is None:
        return [], scroll
    head = task_head(seen, cells, max(3, rows // 2), marks, whole=whole)
    if whole:
        return head[:rows] if len(head) <= rows else [*head[: rows - 1], [("dim", marks.more)]], 0
    written = output(seen.output, cells, marks)
    head = head[: max(1, rows - 2)] if rows > 3 else head[:1]
    room = max(1, rows - len(head) - 1)
    scroll = max(0, min(scroll, len(written) - room))
    last = len(written) - scroll
    word = f"output, {scroll:,} lines before its end" if scroll else "output" if written else "it has written nothing"
    return [*head, rule(word, cells, marks), *written[max(0, last - room) : last]], scroll


def task_head(seen: Detail, cells: int, rows: int, marks: Marks, *, whole: bool) -> list[Line]:
    """What there is to say of a task above what it writes: in so many rows, unless the `whole` is wanted."""
    lines = _folded(STYLES.get(seen.state, "") or "name", seen.why, cells)
    script = seen.command.splitlines() or [""]
    command = [_labelled("command" if n == 0 else "", text, cells) for n, text in enumerate(script)]
    if seen.edit_waits:
        command.append([("warn", "an edit waits for the worker to give it back")])
    history = _history(seen, cells, marks)
    room = rows - len(lines) - len(history)
    if not whole and len(command) > max(1, room):
        kept = max(1, room - 1)
        more = len(command) - kept
        command = [*command[:kept], [("dim", f"          {marks.more} {several(more, 'more line')}: c shows them")]]
    return [cut_line(line, cells, mark=marks.more) for line in [*lines, *command, *history]]


def _history(seen: Detail, cells: int, marks: Marks) -> list[Line]:
    if not seen.attempts:
        return []
    rows = seen.attempts
    columns = [
        Column("try", [("", str(one.number)) for one in rows], 60),
        Column("worker", [("", clean(one.worker)) for one in rows], 50, right=False),
        Column("started", [("", one.started) for one in rows], 20, right=False),
        Column("time", [("", one.time) for one in rows], 40),
        Column("memory", [("", one.memory) for one in rows], 10),
        Column("ended", [(one.style, clean(one.how)) for one in rows], 90, right=False, least=8),
    ]
    return table(columns, cells, mark=marks.more)


def _labelled(label: str, text: str, cells: int) -> Line:
    if cells < 40:  # no room for labels
        return [("", clean(text))]
    return [("dim", pad(label, 10)), ("", clean(text))]


def _folded(style: str, text: str, cells: int) -> list[Line]:
    return [[(style, line)] for line in wrapped(clean(text), cells)]


def output(lines: Sequence[tuple[int, str]], cells: int, marks: Marks) -> list[Line]:
    """What a task wrote, standard error apart."""
    return [[("error" if stream else "", cut(text, cells, mark=marks.more))] for stream, text in lines]


def difference(lines: Sequence[str], cells: int, marks: Marks) -> list[Line]:
    """A difference as `diff -u` says it."""
    styles = {"+": "good", "-": "bad", "@": "dim"}
    return [[(styles.get(line[:1], ""), cut(clean(line), cells, mark=marks.more))] for line in lines]


def rule(text: str, cells: int, marks: Marks) -> Line:
    """A line across, with a word in it."""
    head = f"{marks.rest * 2} {text} "
    return [("dim", cut(head + marks.rest * max(0, cells - width(head)), cells, mark=marks.more))]


def plain(lines: Sequence[Line]) -> list[str]:
    """Lines without their styles."""
    return ["".join(text for _, text in line).rstrip() for line in lines]


def final(seen: Overview, cells: int, marks: Marks, *, failures: bool = True) -> list[str]:
    """What is left on the normal screen: every step once more, and how it all stands."""
    bad = [state for state in (*sorted(BAD), _S.PAUSED) if seen.counts.get(state)]
    said = [f"{seen.counts.get(_S.SUCCEEDED, 0):,} of {several(seen.total, 'task')} succeeded"]
    said += [f"{seen.counts[state]:,} {state.word}" for state in bad]
    took = f" {marks.dot} {duration(seen.elapsed_s)}" if seen.elapsed_s is not None else ""
    head = f"{clean(seen.name)}: {', '.join(said)}{took}"
    return [head, *(plain(steps(seen, cells, marks)) if seen.steps else []), *(seen.troubles if failures else ())]
