"""What people ask of the file: SQL, conditions on tasks, sqlite-utils, private copies, exports. All of it only reads."""

from __future__ import annotations

import csv
import gc
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scitq
from scitq.engine import Engine
from scitq.errors import BadInput, Closed, LiveFileOpened
from scitq.store import analysis, query
from tests.store.small import run_child


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    """Five tasks in batch x, one in y that requires one of them."""
    with scitq.open(state_file, drive=False) as opened:
        many = opened.submit_many([["echo", str(n)] for n in range(5)], batch="x")
        opened.submit("echo 'it''s'", shell=True, name="last", batch="y", requires=many[0])
        yield opened


# The columns that people's queries may rely on: none is ever renamed or removed.
COLUMNS = {
    "tasks": """id name batch state priority tries unmet_requirements command reason created changed cause exit_code worker
        run_s shell tags retry run_timeout cpus memory gpus""",
    "executions": """id task name attempt worker outcome exit_code signal detail assigned started ended run_s cpu_s
        peak_memory batch command read_bytes written_bytes""",
    "workers": "id name kind state concurrency prefetch note seen load cpu_use memory_free disk_free measured",
    "workflows": "id name created declared started ended script steps tasks succeeded failed live",
}


def test_the_views_keep_their_columns(engine: Engine) -> None:
    assert set(analysis.VIEWS) == set(COLUMNS)
    for view, columns in COLUMNS.items():
        found = analysis.columns_of(engine._reader(), view)
        assert [name for name in found if name in columns.split()] == columns.split()
        assert engine.sql(f"select * from {view}").columns == tuple(found)


def test_rows_are_mappings_and_know_their_columns(engine: Engine) -> None:
    rows = engine.sql("select batch, count(*) as n from tasks where state = ? group by batch", ["pending"])

    assert rows == [{"batch": "x", "n": 5}]
    assert rows.columns == ("batch", "n")
    assert repr(rows) == "<1 row: batch, n>"
    assert json.loads(json.dumps(rows)) == rows
    assert engine.sql("select id from tasks where 0").columns == ("id",)


def test_columns_of_one_name_are_told_apart(engine: Engine) -> None:
    assert engine.sql("select 1 as a, 2 as a, 3 as a_2, 4 as a") == [{"a": 1, "a_2": 2, "a_2_2": 3, "a_3": 4}]


@pytest.mark.parametrize(
    "query", ["select 1;", "values (1) -- one", "with a as (select 1) select * from a", "/* a */ select 1"]
)
def test_whatever_only_reads_is_answered(engine: Engine, query: str) -> None:
    assert [list(row.values()) for row in engine.sql(query)] == [[1]]


def test_parameters_by_place_and_by_name(engine: Engine) -> None:
    assert engine.sql("select ? + ? as sum", (1, 2)) == [{"sum": 3}]
    assert engine.sql("select :a as a", {"a": "x"}) == [{"a": "x"}]


@pytest.mark.parametrize(
    "query",
    [
        "delete from task",
        "update task set priority = 9",
        "insert into batch(name) values ('z') returning id",
        "pragma journal_mode = delete",
        "pragma query_only = off",
        "select * from pragma_table_info('task')",
        "attach 'other.db' as other",
        "vacuum into 'copy.db'",
        "create temp table t(a)",
        "begin",
        "commit",
        "analyze",
        "reindex",
        "drop view tasks",
        "select 1; delete from task",
        "select 1; select 2",
        "select load_extension('x.so')",
    ],
)
def test_whatever_does_more_is_refused(engine: Engine, query: str, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))

    with pytest.raises(BadInput, match=r"only SELECT|not authorized"):
        engine.sql(query)

    assert engine.counts() == {1: 5, 0: 1}
    assert sorted(os.listdir(tmp_path)) == before
    assert engine.sql("select 1 as a") == [{"a": 1}]


@pytest.mark.parametrize(
    ("query", "params", "sentence"),
    [
        ("select * form tasks", (), r'near "form": syntax error \(character 10, from here: form tasks\)'),
        ("select 'é', colour from tasks", (), r"no such column: colour \(character 13, from here: colour from tasks\)"),
        ("select * from task_list", (), r"no such table: task_list.*tasks, executions, workers, workflows, journal"),
        ("select * from tasks where", (), "incomplete input"),
        ("", (), "no statement"),
        ("-- nothing", (), "no statement"),
        ("select 1 \0", (), "NUL"),
        ("select '\ud800'", (), "not valid text"),
        ("select cast(x'ff' as text)", (), "hex"),
        ("select ?", (), "parameters do not fit"),
        ("select :a", {"b": 1}, "no parameter 'a'"),
        ("select ?", (object(),), "cannot be used"),
        ("select ?", (1 << 70,), "cannot be used"),
    ],
)
def test_a_mistake_is_one_sentence_that_shows_where(engine: Engine, query: str, params: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as raised:
        engine.sql(query, params)

    assert "\n" not in str(raised.value)


def test_a_query_that_never_ends_is_stopped(engine: Engine) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"

    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s"):
        engine.sql(endless, timeout=0.2)
    with pytest.raises(TimeoutError):
        analysis.select_ids(engine._reader(), f"id in ({endless})", timeout_s=0.2)

    assert engine.sql("select 1 as a", timeout=0.2) == [{"a": 1}]
    engine.submit("true")


def test_queries_of_several_threads_do_not_meet(engine: Engine) -> None:
    found: list[int] = []

    def ask() -> None:
        for _ in range(50):
            found.append(len(engine.sql("select * from tasks")) + len(list(engine.db["tasks"].rows)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [12] * 200


def test_a_closed_file_answers_nothing(engine: Engine) -> None:
    engine.sql("select 1")
    db = engine.db
    engine.close()

    for ask in (lambda: engine.sql("select 1"), lambda: engine.db, engine.snapshot, lambda: engine.export("a.csv")):
        with pytest.raises(Closed):
            ask()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        list(db.query("select 1"))


def test_a_forked_child_is_refused(state_file: Path) -> None:
    code = """
import scitq
engine = scitq.open(PATH, drive=False)
db = engine.db
engine.sql("select 1")
pid = os.fork()
if not pid:
    for ask in (lambda: engine.sql("select 1"), lambda: engine.db, lambda: list(db.query("select 1"))):
        try: ask()
        except Exception as error: say(type(error).__name__)
    os._exit(0)
os.waitpid(pid, 0)
say(list(engine.sql("select 1 as a")))
"""
    assert run_child(code, state_file) == ["ForkedProcess", "ForkedProcess", "ProgrammingError", "[{'a': 1}]"]


# --- conditions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("batch = 'x'", [1, 2, 3, 4, 5]),
        ("batch='x' and id > 3", [4, 5]),
        ("state = 'waiting'", [6]),
        ("name like 'l%' or id = 2", [2, 6]),
        ("id in (select task from executions)", []),
        ("length('(;--/*') = 6 and [id] = 1", [1]),
        ("'it''s' = \"batch\" or `id` = 3", [3]),
        ("id = -(-1)", [1]),
        ("(id = 1)", [1]),
        ("command like '%2%'", [3]),
        ("not id", []),
    ],
)
def test_a_condition_selects_tasks(engine: Engine, where: str, ids: list[int]) -> None:
    assert analysis.select_ids(engine._reader(), where) == ids


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("colour = 'red'", r"no such column: colour \(character 1,.*Columns: id, name, batch, state"),
        ('batch = "red"', r"no such column.*single quotes"),
        ("id = = 1", r'near "=": syntax error \(character 6'),
        ("", "empty"),
        (" \n", "empty"),
        ("1) or (1", "closes nothing"),
        ("1) union select id from executions where (1", "closes nothing"),
        ("(1", "never closed"),
        ("'", "never closed"),
        ('1 or "', "never closed"),
        ("[a", "never closed"),
        ("1; delete from task", "no place"),
        ("1 --", "no comments"),
        ("1) /*", "closes nothing|no comments"),
        ("1 /* ) */", "no comments"),
        ("?", "no place"),
        (":a", "no place"),
        ("$a(()", "no place"),
        ("1\0) --", "no place"),
        ("select 1", "not a query"),
        ("VALUES(1)", "not a query"),
        ("with a as (select 1) select 1", "not a query"),
        ("1, 2", "row value misused"),
        ("1 order by id", "syntax error"),
        ("1 limit 1", "syntax error"),
        ("count(*) > 1", "misuse of aggregate"),
        ("id in (delete from task returning id)", "syntax error"),
        ("load_extension('a')", "not authorized"),
        ("id in (select 1 from pragma_user_version)", "not authorized|prohibited"),
        ("'\ud800' = name", "."),
    ],
)
def test_what_is_no_condition_is_refused(engine: Engine, where: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        analysis.select_ids(engine._reader(), where)
    assert engine.counts() == {1: 5, 0: 1}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [*"();'\"`[]$?:@#,*=- \n\0", "--", "/*", "*/", "id", "1", "or", "union select 99", "limit 0", "from task", "select",
             "delete from task", "x'", "||", "order by id", "group by", "$a(", "batch", "not"]
        ),
        max_size=12,
    )
)  # fmt: skip
@pytest.mark.promise("core 11.3")
def test_no_condition_gets_out_of_its_parentheses(engine: Engine, words: list[str]) -> None:
    """Whatever is accepted is one expression: it gives the tasks for which SQLite, asked of each, finds it true."""
    db = engine._reader()
    where = "".join(words)
    for text in (where, " ".join(words)):
        try:
            found = analysis.select_ids(db, text)
        except BadInput:
            continue
        judged = query.rows(db, f"select id, case when (\n{text}\n) then 1 else 0 end from tasks order by id")
        assert found == [id for id, is_true in judged if is_true]
    assert engine.counts() == {1: 5, 0: 1}


def test_a_condition_leaves_the_connection_as_it_was(engine: Engine) -> None:
    def inside(db: apsw.Connection) -> list[int]:
        db.execute("update task set priority = 3 where id = 2")
        ids = analysis.select_ids(db, "priority = 3")
        with pytest.raises(BadInput):
            analysis.select_ids(db, "nonsense")
        db.execute("update task set priority = 4 where id = 3")
        return ids

    assert engine._write(inside) == [2]
    assert analysis.select_ids(engine._reader(), "priority > 2") == [2, 3]


# --- sqlite-utils -------------------------------------------------------------------------------------------------------------


def test_db_is_a_sqlite_utils_database(engine: Engine) -> None:
    db = engine.db

    assert {"tasks", "executions", "workers"} <= set(db.view_names())
    assert list(db["tasks"].rows_where("batch = :b", {"b": "y"}, select="id, name")) == [{"id": 6, "name": "last"}]
    assert list(db.query("select count(*) as n from tasks where batch = ?", ["x"])) == [{"n": 5}]
    assert db["task"].count == 6
    assert engine.db is db
    engine.submit("true")
    assert db["task"].count == 7


def test_db_cannot_write(engine: Engine) -> None:
    table = engine.db.table
    for write in (
        lambda: table("task").insert({"id": 99}),
        lambda: table("mine").insert({"id": 99}),
        lambda: table("task").delete_where("id = 1"),
        lambda: engine.db.execute("drop view tasks"),
    ):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            write()

    assert engine.counts() == {1: 5, 0: 1}
    assert not engine.db.conn.in_transaction
    engine.submit("true")


def test_a_row_that_is_read_first_does_not_hold_the_file(engine: Engine) -> None:
    assert next(iter(engine.db.query("select id from tasks limit 1"))) == {"id": 1}
    connection: Any = engine.db.conn

    gc.collect()

    assert connection.db.txn_state() == apsw.SQLITE_TXN_NONE


def test_the_standard_library_never_gets_the_live_file(engine: Engine) -> None:
    with pytest.raises(LiveFileOpened, match="snapshot"):
        sqlite3.connect(engine.path)


# --- copies -------------------------------------------------------------------------------------------------------------------


def test_a_backup_is_made_while_the_engine_works(engine: Engine, tmp_path: Path) -> None:
    copy = engine.backup(tmp_path / "copy.scitq")
    engine.submit("true")

    with scitq.open(copy, drive=False) as opened:
        assert opened.counts() == {1: 5, 0: 1}
        assert opened.check() == []


def test_a_snapshot_is_a_connection_of_the_standard_library(engine: Engine) -> None:
    with closing(engine.snapshot()) as copy:
        engine.submit("true")
        assert copy.execute("select count(*) from tasks").fetchall() == [(6,)]
        copy.execute("create table notes(a)")
        with closing(sqlite3.connect(copy.path)) as another:  # or DuckDB, R, ...
            assert another.execute("select count(*) from task").fetchall() == [(6,)]
        folder = copy.path.parent
        assert folder.stat().st_mode & 0o777 == 0o700

    assert not folder.exists()
    assert engine.check() == []


@pytest.mark.filterwarnings("ignore:unclosed database")
def test_a_snapshot_that_is_thrown_away_leaves_nothing(engine: Engine) -> None:
    path = engine.snapshot().path

    gc.collect()

    assert not path.parent.exists()


def test_export_to_csv(engine: Engine, tmp_path: Path) -> None:
    assert engine.export(tmp_path / "t.csv") == {"tasks": 6}

    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert (rows[5]["command"], rows[5]["state"]) == ("echo 'it''s'", "waiting")
    assert (tmp_path / "t.csv").stat().st_mode & 0o777 == 0o600


def test_export_to_json(engine: Engine, tmp_path: Path) -> None:
    assert engine.export(tmp_path / "j.json", "journal")["journal"] == engine.journal()[-1].id
    assert engine.export(tmp_path / "e.json", "executions") == {"executions": 0}

    entries = json.loads((tmp_path / "j.json").read_text())
    assert [entry["kind"] for entry in entries][:2] == ["submitted", "submitted"]
    assert json.loads((tmp_path / "e.json").read_text()) == []


def test_export_to_sqlite_holds_plain_tables(engine: Engine, tmp_path: Path) -> None:
    counts = engine.export(tmp_path / "all.sqlite")
    assert engine.export(tmp_path / "one.sqlite", "tasks") == {"tasks": 6}

    assert list(counts) == ["tasks", "executions", "workers", "journal"]
    with closing(sqlite3.connect(tmp_path / "all.sqlite")) as db:
        assert db.execute("select type, name from sqlite_schema order by rowid").fetchall() == [
            ("table", name) for name in counts
        ]
        assert db.execute("select id, batch from tasks where name = 'last'").fetchall() == [(6, "y")]


def test_export_writes_over_nothing(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("precious")

    for target, table, sentence in (
        ("there.csv", None, "exists already"),
        ("a.xls", None, "suffix"),
        ("lab.scitq", None, "suffix"),
        ("a.csv", "meta", "no table 'meta'"),
        ("none/a.csv", None, "does not exist"),
    ):
        with pytest.raises(BadInput, match=sentence):
            engine.export(tmp_path / target, table)
    assert (tmp_path / "there.csv").read_text() == "precious"
    assert [name for name in os.listdir(tmp_path) if "part" in name] == []
