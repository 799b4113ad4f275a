"""What recruiters see of a file: the work there is and will be soon, read without a look at what has ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from scitq import hiring
from scitq.engine import Engine
from scitq.market import Market
from scitq.roster import BOOT_S, World
from scitq.states import Outcome, Stage
from scitq.store import demand, executions, workers
from scitq.task import Assignment, ExecutionId, TaskId


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Engine]:
    """An engine that drives nothing, with one worker."""
    engine = Engine(tmp_path / "lab.scitq", drive=False)
    engine._write(lambda db: workers.add(db, 1, "atlas", "ssh", "me@atlas", concurrency=8))
    yield engine
    engine.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def begin(engine: Engine, *tasks: TaskId, ago_s: float = 0) -> list[ExecutionId]:
    """Tasks run on the worker since then."""
    at = now_ms() - int(1000 * ago_s)
    worker = engine.worker("atlas").id
    rows = [Assignment(task, worker, 1) for task in tasks]
    orders = engine._write(lambda db: executions.begin(db, at, rows))
    for order in orders:
        engine._write(lambda db, order=order: executions.started(db, order.execution, at))  # type: ignore[misc]
    return [order.execution for order in orders]


def succeed(engine: Engine, count: int, batch: str, run_s: float) -> None:
    """So many tasks of a batch have run for so long."""
    for task in [handle.id for handle in engine.submit_many(["true"] * count, batch=batch)]:
        (execution,) = begin(engine, task)

        def end(db: apsw.Connection, execution: ExecutionId = execution) -> None:
            executions.finish(db, now_ms(), execution, Outcome.SUCCEEDED, Stage.RUN, None)
            db.execute("update execution set run_s = ? where id = ?", (run_s, execution))

        engine._write(end)


def seen(engine: Engine) -> dict[str, list[tuple[int, list[float]]]]:
    """By batch and kind of request: what is ready, and in about how many seconds more will be."""
    db = engine._reader()
    found = demand.wanting(db)
    work = demand.work(db, now_ms(), found)
    return {
        one.name: [(each.ready, sorted(round(in_s, -1) for in_s, _ in each.soon)) for each in work[one.batch]]
        for one in found
    }


def test_what_waits_only_for_what_runs_will_be_there_soon(quiet: Engine) -> None:
    quiet.recruiter_create("b", provider="p")
    succeed(quiet, 2, "a", 1000.0)
    first, second, third = (handle.id for handle in quiet.submit_many(["true"] * 3, batch="a"))
    quiet.submit("true", batch="b", requires=[first, second])
    quiet.submit("true", batch="b", requires=[first, third])
    quiet.submit("true", batch="b", memory="1G")
    assert seen(quiet) == {"b": [(1, [])]}
    begin(quiet, first, ago_s=900)
    begin(quiet, second, ago_s=100)
    assert seen(quiet) == {"b": [(0, [900.0]), (1, [])]}, (
        "as soon as the last of them has ended, as such tasks usually do"
    )
    quiet.pause_batch("b")
    assert seen(quiet) == {}


def test_of_what_nobody_knows_how_long_it_takes_nothing_is_rented_but_what_is_there_is_kept(quiet: Engine) -> None:
    quiet.recruiter_create("b", provider="p")
    parent = quiet.submit("true", batch="a").id
    quiet.submit("true", batch="b", requires=[parent])
    begin(quiet, parent, ago_s=10)
    assert seen(quiet) == {"b": [(0, [round(BOOT_S + 1, -1)])]}
    world = hiring.world(quiet._reader(), now_ms(), Market().seen(quiet._reader(), now_ms(), None))
    assert [in_s > BOOT_S for one in world.demands for work in one.work for in_s, _ in work.soon] == [True]


def test_tasks_that_the_cache_may_answer_are_not_worth_a_machine_yet(quiet: Engine) -> None:
    quiet.recruiter_create("b", provider="p")
    quiet.submit("true", batch="b", use_cache=True)
    assert seen(quiet) == {"b": []}


def test_many_tasks_of_a_kind_are_told_without_counting_each(quiet: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "COUNTED", 3)
    quiet.recruiter_create("b", provider="p")
    list(quiet.submit_many(["true"] * 20, batch="b"))
    list(quiet.submit_many(["true"] * 2, batch="b", memory="1G"))
    assert seen(quiet) == {"b": [(20, []), (2, [])]}


def looked(engine: Engine) -> tuple[World, Counter[str]]:
    """A look at the world, and the statements that it took."""
    statements: Counter[str] = Counter()

    def trace(cursor: Any, sql: str, bindings: Any) -> bool:
        statements[sql] += 1
        return True

    db = engine._reader()
    db.exec_trace = trace
    try:
        world = hiring.world(db, now_ms(), Market().seen(db, now_ms(), None))
    finally:
        db.exec_trace = None
    return world, statements


def test_a_look_reads_no_more_when_more_has_ended(quiet: Engine) -> None:
    quiet.recruiter_create("b", provider="p", patience=1)
    parent = quiet.submit("true", batch="a").id
    quiet.submit("true", batch="b", requires=[parent])
    quiet.submit("true", batch="b")
    begin(quiet, parent)
    succeed(quiet, 3, "a", 1.0)
    succeed(quiet, 3, "b", 1.0)
    world, few = looked(quiet)
    assert [one.name for one in world.demands] == ["b"]
    succeed(quiet, 40, "a", 1.0)
    succeed(quiet, 40, "b", 1.0)
    assert looked(quiet)[1] == few
    for sql in few:
        if not sql.lower().lstrip().startswith(("select", "with")):
            continue
        plan = [str(row[3]) for row in quiet._reader().execute(f"explain query plan {sql}", _nothing(sql))]
        scanned = [
            step
            for step in plan
            if step.startswith(("SCAN task", "SCAN execution", "SCAN journal", "SCAN requirement"))
        ]
        assert not [step for step in scanned if "INDEX" not in step], (sql, plan)


def _nothing(sql: str) -> list[None]:
    """As many values as a statement takes."""
    import re

    named = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    return [None] * (max(named) if named else sql.count("?"))


def test_without_recruiters_that_rent_nothing_is_looked_at(quiet: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet.recruiter_create("b", flavor="local")
    quiet.submit("true", batch="b")
    found = executions.glance(quiet._reader())
    assert not found.is_hiring and not found.has_rentals
    monkeypatch.setattr(hiring, "world", None)  # nobody asks for it
    hirer = hiring.Hiring(quiet._store, None, None, None, None)  # type: ignore[arg-type]
    hirer.see_to(quiet._reader(), found, 0.0)
    assert hirer.wait_s(0.0) is None
    quiet.recruiter_update("b", provider="p")
    assert executions.glance(quiet._reader()).is_hiring
