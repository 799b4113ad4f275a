"""What an engine, a task, or many of them look like in a notebook. Reads a bounded part of the file; everything in it is escaped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scitq import money
from scitq.hints import ORDER, command_for, counted, driver_of, quoted
from scitq.markup import Markup, Part, bar, code, joined, lines, output, soft, state, table, tag, written
from scitq.saying import age, clean, duration, several, size, without_place
from scitq.states import LIVE, TaskState
from scitq.store import glances, listing, summary
from scitq.task import ExecutionRow, TaskId, TaskRow

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.handle import Result, Task
    from scitq.spending import Cost
    from scitq.worker import JobRow

# So many rows from the begin and the end of a list; so many batches, lines of a script, characters of output.
ENDS = 10
BATCHES = 12
NOTICES = 5
SCRIPT_LINES = 20
TAIL_LINES = 10
RESULT_BYTES = 4000
RUNNING = 12
# Of rows of other kinds.
ROWS = 50
_HEAD = ("id", "task", "batch", "state", "worker", "time", "")
# States are counted for lists of up to so many tasks.
COUNTED = 200_000


def of_engine(engine: Engine) -> Markup:
    """The file at this moment: who drives, what runs, what needs somebody, the batches."""
    counts, holder, now = engine.counts(), driver_of(engine), now_ms()
    driver = f"driver: {holder.describe(now)}" if holder else "nobody drives"
    head = [
        tag("b", engine.path.name),
        f" · {driver} · {several(len(engine.workers()), 'worker')} · {counted(counts)} ",
        by_word(counts),
    ]
    open_ones = sum(n for one, n in counts.items() if not one.is_settled)
    hint = tag("div", "To go on: ", code(command_for(engine, "up"))) if holder is None and open_ones else None
    return tag("div", tag("div", head), hint, _notices(engine), _batches(engine), class_="scitq")


def _notices(engine: Engine) -> list[Markup]:
    """What needs a person, with what to type about it."""
    found = engine.notices()
    more = len(found) - NOTICES
    return [
        *(tag("div", tag("b", "● " if one.is_new else "○ "), one.text, [[" ", _command(engine, act.words)] for act in one.actions])
          for one in found[:NOTICES]),
        *([tag("div", f"and {several(more, 'more notice')}: ", _command(engine, ("notices",)))] if more > 0 else []),
    ]  # fmt: skip


def _command(engine: Engine, words: Sequence[str]) -> Markup:
    return code("%" + command_for(engine, " ".join(map(quoted, words))))


def _batches(engine: Engine) -> Markup | None:
    found = engine.batches()
    if len(found) < 2:
        return None
    newest = list(found.items())[-BATCHES:]
    rows: list[Sequence[Part]] = [(name, by_word(counts), counted(counts)) for name, counts in newest]
    more = len(found) - len(newest)
    return joined(
        [
            table(("batch", "", "tasks"), rows),
            soft(f"and {several(more, 'older batch', 'older batches')}") if more else None,
        ]
    )


def of_queue(engine: Engine) -> Markup:
    """The same with what runs now, for somebody who goes on looking."""
    running = engine.rows(status=(TaskState.RUNNING, TaskState.COLLECTING, TaskState.STAGING), limit=RUNNING)
    last = glances.attempts(engine._reader(), [row.id for row in running])
    now = now_ms()
    cells = [_line(row, last.get(row.id), now) for row in running]
    return joined([of_engine(engine), table(_HEAD, cells, right=(0, 5)) if cells else None])


def by_word(counts: Mapping[TaskState, int], width: str = "14em") -> Markup:
    """A bar of tasks by state, what is done first."""
    done = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.BLOCKED, TaskState.CANCELLED)
    order = (*done, *(one for one in ORDER if one not in done))
    return bar({one.word: counts[one] for one in order if counts.get(one)}, width)


def of_task(task: Task) -> Markup:
    """A task: how it stands and why, its tries, what it wrote last."""
    row, attempts = task.row(), task.executions
    head = tag(
        "div",
        tag("b", f"task {row.id}"),
        f" {row.name} " if row.name else " ",
        state(row.state.word),
        soft(f" · {row.batch}"),
    )
    tail = [line for line in task.tail(TAIL_LINES) if line.strip()]
    return tag(
        "div", head, tag("div", task.why()), _script(row), _tries(attempts),
        [soft("its last lines"), written(output("\n".join(map(without_place, tail)).encode(errors="replace")))] if tail else None,
        class_="scitq",
    )  # fmt: skip


def _script(row: TaskRow) -> Markup:
    text = row.spec.line() if row.spec.shell is None or not isinstance(row.spec.command, str) else row.spec.command
    whole = text.strip("\n").split("\n")
    more = [f"… {several(len(whole) - SCRIPT_LINES, 'more line')}"] if len(whole) > SCRIPT_LINES else []
    return written(lines("\n".join([*whole[:SCRIPT_LINES], *more])))


def _tries(attempts: Sequence[ExecutionRow]) -> Markup | None:
    if not attempts:
        return None
    now = now_ms()
    rows: list[Sequence[Part]] = []
    for one in attempts[-ENDS:]:
        began = age((now - (one.started_ms or one.assigned_ms)) / 1000)
        memory = None if one.peak_memory_bytes is None else size(one.peak_memory_bytes)
        took = _ran(one.run_s, one.started_ms, one.ended_ms, now)
        rows.append((one.attempt, one.worker, began, took, memory, one.cause or "", one.detail))
    has_detail = any(one.detail for one in attempts)
    head = ("try", "worker", "started", "time", "memory", "ended", *(("",) if has_detail else ()))
    return table(head, [row if has_detail else row[:-1] for row in rows], right=(0, 3, 4))


def _ran(run_s: float | None, started_ms: int | None, ended_ms: int | None, now: int) -> str:
    if run_s is not None:
        return duration(run_s)
    return "" if started_ms is None or ended_ms is not None else duration(max(0, now - started_ms) / 1000)


def of_tasks(engine: Engine, ids: Sequence[int]) -> Markup:
    """Many tasks: counts by state, the first and the last of them."""
    db = engine._reader()
    counts = summary.states_of(db, ids) if len(ids) <= COUNTED else {}
    head = tag("div", tag("b", several(len(ids), "task")), f" of {engine.path.name}", f" · {counted(counts)} " if counts else " ",
               by_word(counts) if counts else None)  # fmt: skip
    shown = list(ids) if len(ids) <= 2 * ENDS else [*ids[:ENDS], *ids[-ENDS:]]
    rows = {row.id: row for row in listing.select(db, ids=shown)} if shown else {}
    last = glances.attempts(db, shown)
    now = now_ms()
    cells: list[tuple[Part, ...]] = []
    for at, id in enumerate(shown):
        if len(ids) > 2 * ENDS and at == ENDS:
            cells.append((soft("…"), soft(f"{len(ids) - 2 * ENDS:,} more"), "", "", "", "", ""))
        row = rows.get(TaskId(id))
        cells.append((id, soft("deleted"), "", "", "", "", "") if row is None else _line(row, last.get(row.id), now))
    if not cells:
        return tag("div", head, class_="scitq")
    return tag("div", head, table(_HEAD, cells, right=(0, 5)), class_="scitq")


def _line(row: TaskRow, last: glances.Attempt | None, now: int) -> tuple[Part, ...]:
    name = row.name or row.spec.line()
    is_live = last is not None and (row.state in LIVE or last.ended_ms is not None)
    why = row.reason or (last.cause if last is not None and row.state is TaskState.FAILED else None)
    return (
        int(row.id), _clip(name), row.batch, state(row.state.word), last.worker if last is not None and is_live else None,
        _ran(last.run_s, last.started_ms, last.ended_ms, now) if last is not None and is_live else "", _clip(why or ""),
    )  # fmt: skip


def of_result(result: Result) -> Markup:
    """What a task gave: the begin of its output."""
    row = result.task.row()
    took = "" if result.run_s is None else f" in {duration(result.run_s)}"
    parts: list[Part] = [tag("div", tag("b", f"task {row.label}"), f": exit {result.exit_code}{took}")]
    for name, data in (("", result.stdout_bytes), ("standard error", result.stderr_bytes)):
        if data:
            more = soft(f"and {size(len(data) - RESULT_BYTES)} more") if len(data) > RESULT_BYTES else None
            parts += [soft(name) if name else None, written(output(data[:RESULT_BYTES])), more]
    return tag("div", parts, class_="scitq")


def of_costs(rows: Sequence[Cost]) -> Markup:
    """What was spent, on what."""
    if not rows:
        return tag("div", soft("Nothing that costs anything was ever rented."), class_="scitq")
    head = (rows[0].by, "cost", "of that idle", "of that in vain", "")
    told = [
        (one.name or ("" if one.by == "all" else "(none)"), money.said(one.amount, one.currency),
         None if one.idle is None else money.said(one.idle, one.currency),
         None if one.failed is None else money.said(one.failed, one.currency), "goes on" if one.state == "running" else None)
        for one in rows[:ROWS]
    ]  # fmt: skip
    return tag("div", table(head, told, (1, 2, 3)), _more(rows), class_="scitq")


def of_jobs(rows: Sequence[JobRow]) -> Markup:
    """Long operations."""
    if not rows:
        return tag("div", soft("No job yet."), class_="scitq")
    now = now_ms()
    told = [
        (int(one.id), one.kind, one.worker_name, state(one.state.word), None if one.progress is None else f"{one.progress:.0%}",
         one.step, age((now - (one.started_ms or one.created_ms)) / 1000), _clip(one.note or ""))
        for one in rows[:ROWS]
    ]  # fmt: skip
    return tag(
        "div",
        table(("job", "what", "worker", "state", "", "step", "begun", ""), told, (0, 4)),
        _more(rows),
        class_="scitq",
    )


def _more(rows: Sequence[object]) -> Markup | None:
    return tag("div", soft(f"and {len(rows) - ROWS} more")) if len(rows) > ROWS else None


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _clip(text: str, width: int = 80) -> str:
    shown = clean(text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
