"""A workflow as reports read it: all of one moment, every task and execution once, row by row however many there are.

Only reads. What follows from the rows (sums, pictures, documents) is `workflow.reportfacts` and its neighbours.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import apsw

from scitq.digest import File
from scitq.errors import Closed
from scitq.events import EventKind
from scitq.states import TaskState
from scitq.store import query
from scitq.store.listing import LISTED

# A task that another took the place of is a member without a name: its results are only kept for the cache.
_CURRENT = f"""task.batch in {LISTED}
  and not exists(select 1 from member where member.task = task.id and member.name is null)"""
_STEPS = f"""(select task.id from task where {_CURRENT})"""


class Row(NamedTuple):
    """A task with one of its executions (all None for a task without any). Times are milliseconds since 1970.

    `spec` is what the task asks now, `ran` what this execution was given, if that was something else since. `files` and `parts`
    are the manifest's and the recipe's JSON.
    """

    task: int
    name: str | None
    batch: int
    state: int
    tries: int
    reason: str | None
    spec: str
    raised: str | None
    execution: int | None
    worker: int | None
    attempt: int | None
    assigned: int | None
    started: int | None
    ended: int | None
    outcome: int | None
    stage: int | None
    exit_code: int | None
    signal: int | None
    detail: str | None
    run_s: float | None
    cpu_s: float | None
    peak_memory: int | None
    read_bytes: int | None
    written_bytes: int | None
    image: str | None
    cached_from: int | None
    ran: str | None
    address: str | None
    files: str | None
    parts: str | None


class Extent(NamedTuple):
    """How much there is to tell."""

    tasks: int
    executions: int


@contextmanager
def moment(db: apsw.Connection) -> Iterator[None]:
    """Everything that is read within is of one moment, whoever writes meanwhile."""
    db.execute("begin")
    try:
        yield
    finally:
        if not db.get_autocommit():
            db.execute("rollback")


def extent(db: apsw.Connection, batches: Sequence[int]) -> Extent:
    """How many tasks and executions these batches have."""
    (tasks,) = query.one(db, f"select count(*) from task where {_CURRENT}", (_listed(batches),))
    (executions,) = query.one(db, f"select count(*) from execution where task in {_STEPS}", (_listed(batches),))
    return Extent(tasks, executions)


def each(db: apsw.Connection, batches: Sequence[int]) -> Iterator[Row]:
    """Every task of these batches with every execution of it, by task and execution. To be read to its end."""
    rows = _rows(
        db,
        f"""select task.id, task.name, task.batch, task.state, task.tries, task.reason, task.spec, task.raised,
        execution.id, execution.worker, attempt, assigned, started, ended, outcome, stage, exit_code, signal, detail, run_s, cpu_s,
        peak_memory, read_bytes, written_bytes, image, cached_from, execution.spec, manifest.address, manifest.files, recipe.parts
        from task left join execution on execution.task = task.id left join manifest on manifest.execution = execution.id
        left join recipe on recipe.execution = execution.id where {_CURRENT} order by task.id, execution.id""",
        (_listed(batches),),
    )
    return (Row(*row) for row in rows)


def active(db: apsw.Connection, batches: Sequence[int], now_ms: int) -> Iterator[tuple[int, int]]:
    """From when to when each execution was with its worker, by when that began; those that took an earlier result were with none."""
    return _rows(
        db,
        f"""select assigned, coalesce(ended, ?) from execution
        where task in {_STEPS} and worker is not null order by assigned""",
        (now_ms, _listed(batches)),
    )


class Moves:
    """When executions began to stage in and to collect, as the journal tells it; None where that was too short to be shown."""

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._staging = array("q", bytes(8 * max(0, high - low + 1)))
        self._collecting = array("q", bytes(8 * max(0, high - low + 1)))

    def _note(self, execution: int, state: int, at: int) -> None:
        if 0 <= execution - self._low < len(self._staging):
            kept = self._staging if state == TaskState.STAGING else self._collecting
            kept[execution - self._low] = at

    def staging(self, execution: int) -> int | None:
        """When it began to stage in."""
        return self._staging[execution - self._low] or None

    def collecting(self, execution: int) -> int | None:
        """When it began to collect."""
        return self._collecting[execution - self._low] or None


def moves(db: apsw.Connection, batches: Sequence[int]) -> Moves:
    """Those of the executions of these batches."""
    low, high = query.one(
        db,
        f"select coalesce(min(id), 0), coalesce(max(id), -1) from execution where task in {_STEPS}",
        (_listed(batches),),
    )
    found = Moves(low, high)
    for execution, state, at in _rows(
        db,
        f"""select execution, dst, at from journal where kind = {int(EventKind.TASK_STATE)}
        and dst in ({int(TaskState.STAGING)}, {int(TaskState.COLLECTING)}) and execution between ? and ?""",
        (low, high),
    ):
        found._note(execution, state, at)
    return found


def links(db: apsw.Connection, batches: Sequence[int]) -> list[tuple[int | None, int, int]]:
    """How many prerequisites lead from one batch to another: (from, to, how many); from None: tasks of elsewhere."""
    listed = _listed(batches)
    return query.rows(
        db,
        f"""select iif(parent.batch in {LISTED}, parent.batch, null) as source, child.batch, count(*) from task child
        join requirement on requirement.child = child.id join task parent on parent.id = requirement.parent
        where child.batch in {LISTED}
        and not exists(select 1 from member where member.task = child.id and member.name is null)
        group by source, child.batch order by source, child.batch""",
        (listed, listed),
    )


def parents(db: apsw.Connection, batches: Sequence[int]) -> list[tuple[int, int]]:
    """Every prerequisite of every task of these batches, as (prerequisite, task)."""
    return query.rows(
        db,
        f"""select parent, child from requirement where child in {_STEPS} order by child, parent""",
        (_listed(batches),),
    )


def files_behind(db: apsw.Connection, digest: str) -> list[File] | None:
    """The files that an input was, when it was read; None when that is not known any more."""
    row = query.row(db, "select files from fingerprint where digest = ?", (digest,))
    return None if row is None else [File(*file) for file in json.loads(row[0])]


class Machine(NamedTuple):
    """A worker that ran something, whether it is still there or not. `facts`: what its agent said of it, and what the user did."""

    id: int
    name: str
    kind: str
    concurrency: int
    facts: dict[str, Any]


def machines(db: apsw.Connection, batches: Sequence[int]) -> list[Machine]:
    """The workers that had executions of these batches."""
    rows = query.rows(
        db,
        f"""select id, name, kind, concurrency, facts, declared from worker
        where id in (select distinct worker from execution where task in {_STEPS}) order by id""",
        (_listed(batches),),
    )
    return [
        Machine(id, name, kind, concurrency, {**json.loads(facts), **json.loads(declared)})
        for id, name, kind, concurrency, facts, declared in rows
    ]


def source_of(db: apsw.Connection, execution: int) -> tuple[int, int | None, int | None] | None:
    """Of an execution whose result another took: its task, when it started, when it ended; None when it is gone."""
    row = query.row(db, "select task, started, ended from execution where id = ?", (execution,))
    return None if row is None else (row[0], row[1], row[2])


def _listed(batches: Sequence[int]) -> str:
    return json.dumps([int(batch) for batch in batches])


def _rows(db: apsw.Connection, sql: str, values: tuple[Any, ...]) -> Iterator[Any]:
    try:
        yield from db.execute(sql, values)
    except (apsw.InterruptError, apsw.ConnectionClosedError):
        raise Closed("the state file was closed by another thread while this one read it.") from None
