"""What workflows look like in a notebook: how one stands, step by step; what came of it; what a start would do. All escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scitq.cards import by_word
from scitq.markup import Markup, Part, code, joined, soft, state, table, tag
from scitq.saying import duration, several
from scitq.states import TaskState
from scitq.workflow.drawing import COUNTED

if TYPE_CHECKING:
    from scitq.workflow.overview import Overview, Step
    from scitq.workflow.plan import Plan
    from scitq.workflow.summary import Summary
    from scitq.workflow.workflow import Workflow

# So many failed tasks are named.
NAMED = 10


def of_overview(seen: Overview) -> Markup:
    """A workflow at one moment."""
    word = {"failed": "failed", "succeeded": "succeeded", "running": "running"}.get(seen.state, "")
    elapsed_s = seen.elapsed_s
    if elapsed_s is None and seen.row.started_ms is not None:  # it has ended just now
        elapsed_s = max(0, seen.now_ms - seen.row.started_ms) / 1000
    took = "" if elapsed_s is None else f" · {duration(elapsed_s)}"
    driver = "" if seen.is_settled else f" · driver: {seen.driver}" if seen.driver else " · nobody drives"
    shown = state(seen.state) if word else tag("b", seen.state)
    head = tag("div", tag("b", f"workflow {seen.name}"), " ", shown, soft(f"{took}{driver}"))
    columns = [
        (name, states) for name, states, always, _ in COUNTED if always or any(one.count(*states) for one in seen.steps)
    ]
    has_left = any(one.left_s is not None for one in seen.steps)
    rows: list[Sequence[Part]] = []
    for step in seen.steps:
        counts = [f"{n:,}" if (n := step.count(*states)) else "" for _, states in columns]
        left = [] if not has_left else ["" if step.left_s is None else duration(step.left_s)]
        halted = soft(f" ({step.row.halt.word})") if step.row.halt else None
        rows.append((joined([step.name, halted]), _done(step), by_word(step.row.counts), *counts, *left))
    names: list[Part] = ["step", "done", "", *(name for name, _ in columns), *(["left"] if has_left else [])]
    right = [1, *range(3, len(names))]
    troubles = [tag("div", text, style="color:#d8402c") for text in seen.troubles]
    return tag("div", head, table(names, rows, right) if rows else None, troubles, class_="scitq")


def _done(step: Step) -> str:
    return f"{step.count(TaskState.SUCCEEDED):,}/{step.total:,}"


def of_summary(found: Summary) -> Markup:
    """What came of a run: the steps, and what failed."""
    words = list(found.counts)
    rows: list[Sequence[Part]] = [
        (step, sum(counts.values()), *(counts.get(word) or "" for word in words))
        for step, counts in found.steps.items()
    ]
    took = "" if found.run_s is None else f", {duration(found.run_s)}"
    head = tag("div", tag("b", f"workflow {found.workflow}"), f": {several(found.total, 'task')}{took}")
    names: list[Part] = ["step", "tasks", *(state(word) for word in words)]
    failed = [tag("div", code(repr(task))) for task in found.failed[:NAMED]]
    more = len(found.failed) - len(failed)
    return tag(
        "div",
        head,
        table(names, rows, range(1, len(names))),
        failed,
        f"and {more:,} more" if more > 0 else None,
        class_="scitq",
    )


def of_plan(plan: Plan) -> Markup:
    """What a start would do."""
    rows = plan.rows()
    names = [
        "new",
        "rerun",
        "keep",
        *(name for name in ("running", "vanished", "later") if any(row[name] for row in rows)),
    ]
    cells: list[Sequence[Part]] = [(row["step"], *(row[name] or "" for name in names), row["why"]) for row in rows]
    head = tag("div", tag("b", f"plan of {plan.workflow}"))
    return tag(
        "div", head, table(["step", *names, "why"], cells, range(1, len(names) + 1)), [tag("div", note) for note in plan.notes],
        class_="scitq",
    )  # fmt: skip


def of_workflow(workflow: Workflow) -> Markup:
    """How it stands; before its start, what it has declared."""
    if workflow.is_started:
        from scitq.workflow.overview import Watch

        return of_overview(Watch(workflow.engine, workflow.name).look())
    rows: list[Sequence[Part]] = [(step.name, len(step)) for step in workflow.steps]
    head = tag("div", tag("b", f"workflow {workflow.name}"), " not started")
    return tag("div", head, table(("step", "tasks"), rows, [1]) if rows else None, class_="scitq")
