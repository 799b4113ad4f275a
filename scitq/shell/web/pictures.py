"""Graphs and timelines for pages: drawn as reports draw them, from no more of the file than they need, and kept for a while.

Of few tasks each is a box; of many each step, or each batch, is one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from scitq._version import VERSION
from scitq.engine import Engine
from scitq.markup import Markup
from scitq.shell.facts import now_ms
from scitq.shell.web.page import address
from scitq.states import TaskState
from scitq.store import batches, glances, journal, listing, query, reporting, workflows
from scitq.task import TaskRow
from scitq.workflow import reportgather, reportgraph, reporttimeline
from scitq.workflow.reportfacts import Facts, Step, TaskLine

# Up to so many tasks, with so many requirements, are drawn one by one.
TASKS_DRAWN, EDGES_DRAWN = 200, 1200
# Of more tasks a timeline, or a graph of steps, is drawn when somebody asks for it.
TIMELINE_OF, GRAPH_OF = 3000, 50_000
# What took a second to make is shown for so many seconds, whatever has changed.
AGE_BY_COST = 20.0
KEPT = 24


class Kept:
    """What was made of a file: good until that changes, and longer if it was dear. One at a time is made."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._found: dict[Any, tuple[int, float, float, Any]] = {}

    def get(self, engine: Engine, key: Any, make: Callable[[], Any]) -> Any:
        """It, made if need be."""
        with self._gate:
            version, now = journal.last(engine._reader()), time.monotonic()
            if key in self._found:
                of, at, cost, value = self._found[key]
                if of == version or now - at < AGE_BY_COST * cost:
                    return value
            value = make()
            done = time.monotonic()
            self._found[key] = (version, done, done - now, value)
            while len(self._found) > KEPT:
                del self._found[next(iter(self._found))]
            return value


_kept: weakref.WeakKeyDictionary[Engine, Kept] = weakref.WeakKeyDictionary()


def kept(engine: Engine) -> Kept:
    """What is kept of a file."""
    return _kept.setdefault(engine, Kept())


# --- of a workflow ----------------------------------------------------------------------------------------------------------------


def of_workflow(engine: Engine, name: str) -> Markup | None:
    """The graph of a workflow.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    return kept(engine).get(engine, ("graph", name), lambda: _of_workflow(engine, name))  # type: ignore[no-any-return]


def _of_workflow(engine: Engine, name: str) -> Markup | None:
    db = engine._reader()
    row = workflows.get(db, name)
    steps = workflows.steps(db, row.id)
    if sum(sum(step.counts.values()) for step in steps) <= TASKS_DRAWN:
        facts = reportgather.gather(engine, name, now_ms())
        if reportgraph.draws_tasks(facts, TASKS_DRAWN, EDGES_DRAWN):
            return reportgraph.of_tasks(facts, _to_task)
    facts = _empty(engine, name)
    facts.steps = [Step(one.id, one.step, one.batch, one.position, Counter(one.counts)) for one in steps]
    facts.links = reporting.links(db, [step.id for step in steps])
    names = {step.id: step.batch for step in steps}
    return reportgraph.of_steps(facts, lambda id: address("/tasks", batch=names[id]))  # type: ignore[index]


def timeline(engine: Engine, name: str) -> Markup | None:
    """Who worked when for a workflow."""
    facts = kept(engine).get(engine, ("facts", name), lambda: reportgather.gather(engine, name, now_ms()))
    return reporttimeline.timeline(facts)


def steps_in_order(engine: Engine, name: str) -> list[tuple[str, int]]:
    """The steps with their colours, for the legend."""
    steps = workflows.steps(engine._reader(), workflows.get(engine._reader(), name).id)
    return [(step.step, at % reportgraph.COLOURS) for at, step in enumerate(steps)]


# --- of a batch -------------------------------------------------------------------------------------------------------------------


def of_batch(engine: Engine, name: str) -> Markup | None:
    """What the tasks of a batch require; of many tasks, the batches that it is connected with.

    Raises:
        UnknownBatch: there is none of that name.
    """
    batches.known(engine._reader(), name)
    return kept(engine).get(engine, ("batch", name), lambda: _of_batch(engine, name))  # type: ignore[no-any-return]


def _of_batch(engine: Engine, name: str) -> Markup | None:
    db = engine._reader()
    batch = batches.known(db, name)
    rows = listing.select(db, batch=name, limit=TASKS_DRAWN + 1)
    facts = _empty(engine, name)
    if 0 < len(rows) <= TASKS_DRAWN:
        facts.steps = [Step(int(batch), name, name, 0)]
        facts.tasks = _lines(engine, rows, int(batch))
        facts.parents = reporting.parents(db, [int(batch)])
        if reportgraph.draws_tasks(facts, TASKS_DRAWN, EDGES_DRAWN):
            return reportgraph.of_tasks(facts, _to_task)
    near = [int(batch), *_neighbours(engine, int(batch))]
    names: dict[int, str] = dict(
        query.rows(db, f"select id, name from batch where id in {listing.LISTED}", (query.compact(near),))
    )
    counts = engine.batches()
    facts.steps = [
        Step(id, names[id], names[id], at, Counter(counts.get(names[id], {})))
        for at, id in enumerate(near)
        if id in names
    ]
    facts.links = [link for link in reporting.links(db, near) if int(batch) in link[:2]]
    return reportgraph.of_steps(facts, lambda id: address("/graph", batch=names[id]))


def _neighbours(engine: Engine, batch: int) -> list[int]:
    """The other batches whose tasks it requires, or that require its tasks."""
    rows = query.rows(
        engine._reader(),
        """select distinct parent.batch from task child join requirement on child = child.id join task parent on parent.id = parent
        where child.batch = ?1 and parent.batch <> ?1 union
        select distinct child.batch from task parent join requirement on parent = parent.id join task child on child.id = child
        where parent.batch = ?1 and child.batch <> ?1""",
        (batch,),
    )
    return sorted(id for (id,) in rows)


def _lines(engine: Engine, rows: Sequence[TaskRow], batch: int) -> list[TaskLine]:
    attempts = glances.attempts(engine._reader(), [row.id for row in rows])
    found = []
    for row in rows:
        last = attempts.get(row.id)
        cause = row.reason or (last.cause if last is not None and row.state is TaskState.FAILED else None)
        name, worker, run_s = row.name or row.spec.line(), last.worker if last else None, last.run_s if last else None
        found.append(
            TaskLine(int(row.id), name, batch, row.state, False, worker, 0, None, run_s, None, None, cause, "")
        )
    return found


def _to_task(id: int) -> str:
    return f"/task/{id}"


def _empty(engine: Engine, name: str) -> Facts:
    return Facts(name, engine.path.name, VERSION, now_ms(), 0, None, None, {})
