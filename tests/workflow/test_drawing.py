"""What the screen of a workflow draws, without a terminal: it fits any size, whatever things are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.saying import clean
from scitq.states import Halt, TaskState
from scitq.store.workflows import StepRow, WorkflowId, WorkflowRow
from scitq.task import BatchId, TaskId
from scitq.workflow import drawing
from scitq.workflow.cells import cut, pad, width, wrapped
from scitq.workflow.drawing import PLAIN, Marks
from scitq.workflow.looking import AttemptLine, Detail, Page, TaskLine
from scitq.workflow.overview import Overview, Step, _Pace
from scitq.workflow.reader import Looked
from scitq.workflow.showing import Question, Showing, View

_S = TaskState
NAMES = st.text(max_size=30) | st.sampled_from(
    ["fastp", "漢字" * 9, "a\x1b[31m\u202eb", "\u0301e\u0301", "🧬" * 20, ""]
)


def _overview(steps: list[Step], *, started: int | None = 1_000, ended: int | None = None) -> Overview:
    counts: dict[TaskState, int] = {}
    for step in steps:
        for state, n in step.row.counts.items():
            counts[state] = counts.get(state, 0) + n
    row = WorkflowRow(WorkflowId(1), "qc", 0, 0, started, ended, {}, None)
    return Overview(row, tuple(steps), "python (pid 1, this machine)", False, 61_000, counts)


def _step(name: str, number: int = 1, halt: Halt = Halt.GO, **counts: int) -> Step:
    states = {TaskState[word.upper()]: n for word, n in counts.items()}
    return Step(StepRow(BatchId(number), f"qc.{name}", name, number, halt, states))


@given(
    names=st.lists(NAMES, max_size=5), cells=st.integers(1, 200), rows=st.integers(1, 60), big=st.integers(0, 10**7),
    view=st.sampled_from(View), question=st.none() | NAMES, plain=st.booleans(), moves=st.integers(-5, 5),
)  # fmt: skip
def test_a_frame_is_just_as_large_as_the_screen(
    names: list[str], cells: int, rows: int, big: int, view: View, question: str | None, plain: bool, moves: int
) -> None:
    steps = [_step(name, n, succeeded=big, running=n, failed=n, blocked=3, paused=2) for n, name in enumerate(names, 1)]
    marks = PLAIN if plain else Marks()
    seen = replace(
        _overview(steps), troubles=tuple(clean(name) for name in names[:3])
    )  # as `overview.failure` gives them
    showing = Showing(seen, marks)
    if names and view in (View.TASKS, View.TASK):
        showing.enter()
        lines = [
            TaskLine(TaskId(n + 1), name, _S.FAILED, "failed", name, 1, None, name) for n, name in enumerate(names)
        ]
        showing.looked(Looked(showing.request().serial, seen, page=Page(tuple(lines), False, False)))
        if view is View.TASK:
            showing.enter()
            attempts = (AttemptLine(1, names[0], "12:00:00", "3 s", "1 MB", names[0], "bad"),)
            output = tuple((n % 2, clean(name)) for n, name in enumerate(names))  # as a stream gives them
            detail = Detail(TaskId(1), "qc.x", "1", _S.FAILED, names[0], "\n".join(names), attempts, output, True)
            showing.looked(Looked(showing.request().serial, seen, detail=detail))
    elif view in (View.HELP, View.DIFFERENCE):
        showing.over(view)
        showing.difference = names
    showing.move(moves)
    showing.jump(to_end=moves > 0)
    if question is not None:
        showing.question = Question(question, {})
    frame = showing.frame(cells, rows)
    assert len(frame) == rows
    for line in frame:
        text = "".join(text for _, text in line)
        assert width(text) <= cells, text
        assert "\x1b" not in text and "\u202e" not in text and "\n" not in text


@given(text=st.text(max_size=40), cells=st.integers(0, 30))
def test_text_is_cut_and_padded_to_cells(text: str, cells: int) -> None:
    assert width(cut(text, cells)) <= cells or cells == 0
    if cells:
        assert width(pad(text, cells)) == cells
        assert all(width(line) <= max(2, cells) for line in wrapped(text, cells))


def test_columns_leave_before_names_are_cut_and_the_counts_stay_longest() -> None:
    seen = _overview([_step("host removal", succeeded=3, running=2, pending=4, failed=1, waiting=1)])
    wide, middle, narrow = (drawing.plain(drawing.steps(seen, cells, Marks())) for cells in (120, 60, 22))
    assert wide[0].split() == ["step", "done", "waiting", "pending", "running", "failed"]
    assert middle[1].startswith("host removal") and "waiting" not in middle[0]
    assert narrow[0].split() == ["step", "done", "failed"] and "3/11" in narrow[1]


def test_a_column_for_cost_is_there_when_there_is_any() -> None:
    free = _step("free", succeeded=1)
    assert "cost" not in drawing.plain(drawing.steps(_overview([free]), 120, Marks()))[0]
    dear = replace(_step("dear", 2, succeeded=1), cost="0.77 €")
    lines = drawing.plain(drawing.steps(_overview([free, dear]), 120, Marks()))
    assert lines[0].endswith("cost") and lines[2].endswith("0.77 €") and not lines[1].endswith("€")


def test_a_bar_is_full_only_when_all_is_done() -> None:
    assert drawing.bar(_step("x", succeeded=999, pending=1), 10, PLAIN) == "#########-"
    assert drawing.bar(_step("x", succeeded=999, failed=1), 10, PLAIN) == "##########"
    assert drawing.bar(_step("x"), 4, PLAIN) == drawing.bar(_step("x", blocked=3), 4, PLAIN) == "----"


@pytest.mark.parametrize(
    ("counts", "halt", "state"),
    [
        ({}, Halt.GO, "no tasks"), ({"succeeded": 2}, Halt.GO, "succeeded"), ({"succeeded": 2, "blocked": 1}, Halt.GO, "failed"),
        ({"running": 1, "pending": 1}, Halt.GO, "running"), ({"pending": 1}, Halt.GO, "queued"), ({"waiting": 1}, Halt.GO, "waiting"),
        ({"pending": 1}, Halt.PAUSED, "paused"), ({"running": 1}, Halt.SUSPENDED, "suspended"),
        ({"succeeded": 1}, Halt.PAUSED, "succeeded"), ({"debug": 1}, Halt.GO, "waiting"),
    ],
)  # fmt: skip
def test_a_word_says_how_it_stands(counts: dict[str, int], halt: Halt, state: str) -> None:
    assert _overview([_step("x", halt=halt, **counts)]).state == state


def test_the_time_it_took_stands_still_once_it_has_ended() -> None:
    step = _step("x", succeeded=1)
    assert _overview([step], ended=31_000).elapsed_s == 30
    assert _overview([step]).elapsed_s is None  # nobody noted when
    assert _overview([_step("x", running=1)]).elapsed_s == 60


def test_a_rate_is_that_of_late_and_begins_with_what_was_before() -> None:
    pace = _Pace(100.0, 50, 10.0, 20)  # 20 in the last 10 s
    assert pace.seen(100.0, 50) == 2.0
    for second in range(1, 61):
        rate = pace.seen(100.0 + second, 50 + 10 * second)
    assert rate == pytest.approx(10, rel=0.05)
    assert pace.seen(161.0, 0) is None  # all were relaunched
    slow = _Pace(0.0, 0, 0.0, 0)
    assert slow.seen(3600.0, 1) == pytest.approx(1 / 3600)


def test_a_key_that_comes_before_the_next_tasks_are_read_is_not_lost() -> None:
    def page(first: int, last: int) -> Page:
        lines = [TaskLine(TaskId(n), f"t{n}", _S.PENDING, "pending", None, None, None, "") for n in range(first, last)]
        return Page(tuple(lines), first > 1, last < 1000)

    seen = _overview([_step("x", pending=1000)])
    showing = Showing(seen, Marks())
    showing.enter()
    showing.looked(Looked(showing.request().serial, seen, page=page(1, 101)))
    for _ in range(4):
        showing.move(40)
    assert showing.selected is not None and showing.selected.id == 100
    showing.looked(Looked(showing.request().serial, seen, page=page(50, 250)))
    assert showing.selected.id == 161
    showing.move(-150)
    showing.looked(Looked(showing.request().serial, seen, page=page(1, 150)))
    assert showing.selected.id == 11
