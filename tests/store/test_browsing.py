"""Pages of tasks in every order: all of them, each once, as sorting the whole list would have them; and through indexes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.states import Outcome, Stage, TaskState
from scitq.store import browsing, executions, glances, listing, query, tasks, workers
from scitq.store.browsing import Filter, Mark, Order
from scitq.task import Assignment, TaskId, TaskRow
from scitq.worker import LOCAL, WorkerId

NOW = 1_800_000_000_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A hundred and thirty tasks in every kind of state, of four batches, run by three workers, some twice."""
    with Engine(tmp_path_factory.mktemp("browsing") / "lab.scitq", drive=False) as found:
        _fill(found)
        yield found


def _fill(engine: Engine) -> None:
    draw = random.Random(7)
    names = ["b", "a", "a", None, "ñandú", "z*", "Z", "\U0010ffff"]
    for batch in ("qc", "align", "qc", "Último"):
        engine.submit_many(
            [{"command": f"run {n} --x", "name": draw.choice(names), "priority": draw.randrange(3)} for n in range(30)], batch=batch
        )  # fmt: skip
    engine.submit_many([{"command": "true", "requires": [1], "name": "waits"} for _ in range(10)], batch="late")

    def work(db: apsw.Connection) -> None:
        ids = [workers.ensure(db, NOW, name, LOCAL, 2) for name in ("w2", "w1", "w10")]
        for id in range(2, 121):
            for _ in range(draw.choice((0, 1, 1, 2))):
                _try(db, draw, id, draw.choice(ids))
                if listing.state_of(db, TaskId(id)) is not TaskState.PENDING:
                    break

    engine._write(work)
    for id in range(60, 70):
        engine.task(id).cancel()
    for id in range(70, 80):
        engine.task(id).pause()


def _try(db: apsw.Connection, draw: random.Random, task: int, worker: WorkerId) -> None:
    """Give a task to a worker; it ends in one way or another, or goes on."""
    [order] = executions.begin(db, NOW, [Assignment(TaskId(task), worker)])
    ends = draw.choice((Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST, None))
    if ends is not None:
        executions.finish(db, NOW + task, order.execution, ends, Stage.RUN, None)


def read(engine: Engine, wanted: Filter, order: Order, descending: bool, limit: int = 7) -> list[int]:
    """Every page, one after the other."""
    found: list[int] = []
    mark: Mark | None = None
    for _ in range(200):
        page = browsing.page(engine._reader(), wanted, order, mark, descending=descending, limit=limit)
        found += page.ids
        mark = page.rest or page.last
        if mark is None:
            return found
    raise AssertionError("the pages have no end")


def expected(engine: Engine, fits: Callable[[TaskRow], bool], order: Order, descending: bool) -> list[int]:
    """The same, sorted as a whole."""
    rows = [row for row in engine.rows() if fits(row)]
    last = glances.attempts(engine._reader(), [row.id for row in rows])
    keys: dict[Order, Callable[[TaskRow], tuple[object, ...] | None]] = {
        Order.ID: lambda row: (row.id,),
        Order.BATCH: lambda row: (row.batch, row.id),
        Order.STATE: lambda row: (int(row.state), row.id),
        Order.NAME: lambda row: None if row.name is None else (row.name, row.id),
        Order.TIME: lambda row: None if row.id not in last else (last[row.id].id,),
        Order.WORKER: lambda row: None if row.id not in last else (last[row.id].worker or "", last[row.id].id),
    }
    key = keys[order]
    main = sorted((row for row in rows if key(row) is not None), key=lambda row: key(row) or (), reverse=descending)
    rest = sorted((row for row in rows if key(row) is None), key=lambda row: row.id, reverse=descending)
    return [int(row.id) for row in (*main, *rest)]


FILTERS: dict[str, tuple[Filter, Callable[[TaskRow], bool]]] = {
    "all": (Filter(), lambda row: True),
    "failed": (Filter(states=frozenset({TaskState.FAILED})), lambda row: row.state is TaskState.FAILED),
    "queued of qc": (
        Filter(states=frozenset({TaskState.PENDING, TaskState.PAUSED}), batch="qc"),
        lambda row: row.batch == "qc" and row.state in (TaskState.PENDING, TaskState.PAUSED),
    ),
    "a batch": (Filter(batch="Último"), lambda row: row.batch == "Último"),
    "no batch": (Filter(batch="?"), lambda row: False),
    "a word": (Filter(text="RUN 1"), lambda row: "run 1" in row.spec.command),
    "a number": (Filter(text="44"), lambda row: row.id == 44),
    "a pattern": (Filter(text="[a-b]*"), lambda row: (row.name or "")[:1] in ("a", "b")),
    "a condition": (
        Filter(where="priority = 2 and batch <> 'qc'"),
        lambda row: row.priority == 2 and row.batch != "qc",
    ),
}


@pytest.mark.parametrize("few", [browsing.FEW, 0], ids=["sorted", "walked"])
@pytest.mark.parametrize("order", Order)
def test_pages_make_the_whole_list(engine: Engine, order: Order, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "FEW", few)
    monkeypatch.setattr(browsing, "CHUNK", 13)
    monkeypatch.setattr(browsing, "WINDOW", 11)
    for what, (wanted, fits) in FILTERS.items():
        for descending in (False, True):
            assert read(engine, wanted, order, descending) == expected(engine, fits, order, descending), (
                what,
                descending,
            )


def _is_one_of(ids: frozenset[TaskId], row: TaskRow) -> bool:
    return row.id in ids


@pytest.mark.parametrize("order", Order)
def test_pages_of_a_worker(engine: Engine, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "WINDOW", 11)
    last = glances.attempts(engine._reader(), range(1, 131))
    for name in ("w1", "w10", "nobody"):
        own = frozenset(id for id, attempt in last.items() if attempt.worker == name)
        found = read(engine, Filter(worker=name), order, True)
        assert found == expected(engine, partial(_is_one_of, own), order, True)


@pytest.mark.parametrize("order", Order)
def test_a_page_before_another_ends_where_that_begins(engine: Engine, order: Order) -> None:
    for descending in (False, True):
        for wanted in (Filter(), Filter(batch="qc")):
            whole = read(engine, wanted, order, descending)
            first = browsing.page(engine._reader(), wanted, order, descending=descending, limit=20)
            then = browsing.page(engine._reader(), wanted, order, first.last, descending=descending, limit=20)

            back = browsing.page(
                engine._reader(), wanted, order, then.first, descending=descending, backwards=True, limit=5
            )
            start = browsing.page(
                engine._reader(), wanted, order, first.first, descending=descending, backwards=True, limit=5
            )

            assert back.ids[::-1] == whole[15:20]
            assert start.ids == []


@pytest.mark.parametrize("order", Order)
def test_a_search_that_finds_little_gives_what_it_has_and_can_go_on(
    engine: Engine, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "CHUNK", 10)
    monkeypatch.setattr(browsing, "WINDOW", 10)
    monkeypatch.setattr(browsing, "LOOKED", 1)
    for wanted, fits in FILTERS.values():
        page = browsing.page(engine._reader(), wanted, order, limit=50)
        assert page.looked <= max(10, browsing.FEW if wanted.states or wanted.batch else 0) + 1
        assert read(engine, wanted, order, True, 50) == expected(engine, fits, order, True)


def test_a_page_stays_where_it_is_while_tasks_come_and_go(engine: Engine) -> None:
    first = browsing.page(engine._reader(), Filter(), Order.ID, descending=True, limit=10)
    new = engine.submit("true")

    then = browsing.page(engine._reader(), Filter(), Order.ID, first.last, descending=True, limit=10)
    new.delete()

    assert then.ids == list(range(first.ids[-1] - 1, first.ids[-1] - 11, -1))


def test_all_that_a_filter_shows(engine: Engine) -> None:
    for wanted, fits in FILTERS.values():
        assert browsing.every(engine._reader(), wanted) == expected(engine, fits, Order.ID, False)


def test_a_condition_can_only_read(engine: Engine) -> None:
    for condition in ("1) or (1", "id = 1; delete from task", "exists (select writefile('x', 'y'))", "nothing = 1"):
        with pytest.raises(BadInput):
            browsing.page(engine._reader(), Filter(where=condition), Order.ID)


def test_no_page_sorts_or_reads_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause of pages that take as long for a million tasks: each statement walks an index from where it begins."""
    with Engine(tmp_path / "lab.scitq", drive=False) as engine:
        engine.submit_many(({"command": "true", "name": f"n{n}"} for n in range(3000)), batch="one")
        engine.submit_many(({"command": "true"} for _ in range(3000)), batch="two")
        monkeypatch.setattr(browsing, "FEW", 0)
        db, asked = engine._reader(), set[str]()

        def note(_: object, sql: str, values: object) -> bool:
            asked.add(sql)
            return True

        for order in Order:
            for wanted in (
                Filter(),
                Filter(batch="one"),
                Filter(states=frozenset({TaskState.PENDING})),
                Filter(worker="w"),
            ):
                db.set_exec_trace(note)
                browsing.page(db, wanted, order, limit=50)
                db.set_exec_trace(None)

        queries = [sql for sql in sorted(asked) if sql.lstrip().startswith("select")]
        assert len(queries) > 5
        for sql in queries:
            plan = [str(row[3]) for row in query.rows(db, f"explain query plan {sql}", (0,) * sql.count("?"))]
            # Batches, workers and counters are few; so are tasks that wait before another try, and what runs.
            of_all = [
                line
                for line in plan
                if line.startswith("SCAN") and line.split()[1] in ("task", "execution", "one", "later")
            ]
            assert all(re.search(r"USING (COVERING )?INDEX (task_|execution_worker)", line) for line in of_all), (
                sql,
                plan,
            )
            is_small = any(
                few in sql for few in ("from batch", "from worker", "from counter", "task_later", "execution_worker")
            )
            assert is_small or not any("ORDER BY" in line for line in plan), (sql, plan)


def test_batches_have_times_and_workers_outcomes(engine: Engine) -> None:
    from scitq.store import summary

    db = engine._reader()
    by_worker = summary.outcomes(db)

    [(ended,)] = query.rows(db, "select count(*) from execution where outcome is not null")
    assert sum(sum(ends.values()) for ends in by_worker.values()) == ended
    engine._write(lambda db: db.execute("update execution set run_s = id where outcome is not null"))
    times = summary.times(db, 1 << 40)
    [(count, mean, least, most)] = query.rows(
        db,
        """select count(*), avg(execution.id), min(execution.id), max(execution.id) from execution
        join task on task.id = execution.task join batch on batch.id = task.batch where batch.name = 'qc' and outcome = 0""",
    )
    assert times["qc"][Outcome.SUCCEEDED] == summary.Times(count, mean, least, most)
    assert tasks.last_id(db) >= 130
