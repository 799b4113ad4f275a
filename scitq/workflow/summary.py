"""What came of a run: `Summary`, and the error that names what failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scitq.errors import WorkflowFailed
from scitq.handle import Task
from scitq.hints import command_for
from scitq.pictured import Pictured
from scitq.saying import clean, without_place
from scitq.states import BAD, TaskState
from scitq.store import listing, workflows
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.markup import Markup

# So many failed tasks are named in a message, and listed at all.
NAMED = 5
LISTED_AT_MOST = 1000
# So much is shown of what a failed task said last.
SAID_AT_MOST = 120
_ORDER = (
    TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED, TaskState.RUNNING, TaskState.STAGING,
    TaskState.COLLECTING, TaskState.ASSIGNED, TaskState.PENDING, TaskState.WAITING, TaskState.PAUSED, TaskState.DEBUG,
)  # fmt: skip


@dataclass(frozen=True)
class Summary(Pictured):
    """How a workflow stands: true when all of its tasks have succeeded. As text it is a table."""

    workflow: str
    steps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By step, how many tasks are in each state."""
    failed: list[Task] = field(default_factory=list)
    """Tasks that failed or were cancelled (not what those block)."""
    run_s: float | None = None
    """From the start of the run to now, or to its end."""

    def __bool__(self) -> bool:
        return all(set(counts) <= {TaskState.SUCCEEDED.word} for counts in self.steps.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks are in each state, all in all."""
        found: dict[str, int] = {}
        for counts in self.steps.values():
            for word, n in counts.items():
                found[word] = found.get(word, 0) + n
        return found

    @property
    def total(self) -> int:
        """How many tasks there are."""
        return sum(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "workflow": self.workflow, "ok": bool(self), "run_s": self.run_s, "counts": self.counts,
            "steps": {step: dict(counts) for step, counts in self.steps.items()}, "failed": [task.id for task in self.failed],
        }  # fmt: skip

    def _picture(self) -> Markup:
        from scitq.workflow import pictures

        return pictures.of_summary(self)

    def _words(self) -> str:
        return str(self)

    def __str__(self) -> str:
        words = [state.word for state in _ORDER if self.counts.get(state.word)]
        cells = [["step", "tasks", *words]]
        for step, counts in self.steps.items():
            cells.append([step, str(sum(counts.values())), *(str(counts.get(word) or "-") for word in words)])
        widths = [max(len(row[n]) for row in cells) for n in range(len(words) + 2)]
        lines = [
            " "
            + "  ".join([row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in range(1, len(widths)))]).rstrip()
            for row in cells
        ]
        took = "" if self.run_s is None else f", {_time(self.run_s)}"
        return "\n".join([*lines, f"{self.total} task{'' if self.total == 1 else 's'}{took}."])


def summary(engine: Engine, name: str) -> Summary:
    """How a workflow stands now.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    db = engine._reader()
    row = workflows.get(db, name)
    steps = workflows.steps(db, row.id)
    counts = {step.step: {state.word: n for state, n in sorted(step.counts.items())} for step in steps}
    failed: list[Task] = []
    for step in steps:
        wanted = [state for state in (TaskState.FAILED, TaskState.CANCELLED) if step.counts.get(state)]
        if wanted and len(failed) < LISTED_AT_MOST:
            rows = listing.select(db, states=wanted, batch=step.batch, limit=LISTED_AT_MOST - len(failed))
            failed += [Task(engine, found.id) for found in rows]
    now = time.time_ns() // 1_000_000
    run_s = None if row.started_ms is None else max(0.0, ((row.ended_ms or now) - row.started_ms) / 1000)
    return Summary(name, counts, failed, run_s)


def failure(engine: Engine, found: Summary) -> WorkflowFailed:
    """The error of a run in which tasks ended badly; it names them and says how to go on."""
    counts = {word: n for word, n in found.counts.items() if word in {state.word for state in BAD}}
    told = ", ".join(f"{n} {word}" for word, n in counts.items())
    db = engine._reader()
    rows = listing.select(db, ids=[task.id for task in found.failed[:NAMED]])
    causes = {row.id: _cause(engine, row.id) for row in rows}
    lines = [f"\n  {row.label} ({row.batch.partition('.')[2]}): {causes[row.id]}" for row in rows]
    more = len(found.failed) - len(rows)
    if more > 0:
        lines.append(f"\n  and {more}{' or' if len(found.failed) == LISTED_AT_MOST else ''} more")
    first = f" {rows[0].id}" if len(rows) == 1 else " ID"
    return WorkflowFailed(
        f"workflow {found.workflow}: {told} of {found.total} tasks.{''.join(lines)}\n"
        f"Look: {command_for(engine, f'task show{first}')}. Run the script again for what did not succeed.",
        workflow=found.workflow, summary=found, tasks=found.failed,
    )  # fmt: skip


def _cause(engine: Engine, task: TaskId) -> str:
    handle = Task(engine, task)
    attempts = handle.executions
    cause = attempts[-1].cause if attempts else None
    said = "".join(clean(without_place(line)).strip() for line in handle.tail(1))
    shown = f"{said[: SAID_AT_MOST - 1]}…" if len(said) > SAID_AT_MOST else said
    return (cause or handle.state.word) + (f": {shown}" if shown else "")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, _ = divmod(int(seconds), 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d}"
