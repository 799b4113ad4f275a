"""`sql`, `export`, `purge`, `check --repair`."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from pathlib import Path

import pytest

import scitq
from tests.shell.conftest import Lab


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks that succeeded, one that failed, one queued."""
    lab = Lab(tmp_path_factory.mktemp("ended"))
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["true"]] * 2, batch="align")
        engine.submit(["false"], name="bad")
    lab.scitq("up", "--until-done", code=1)
    lab.scitq("launch", "true")
    lab.clean_up()
    return lab.folder


@pytest.fixture
def busy(lab: Lab, ended: Path) -> Lab:
    return lab.copy(ended)


QUERY = "select batch, state, count(*) as n from tasks group by 1, 2 order by 1, 2"


def test_sql_prints_a_table(busy: Lab) -> None:
    assert busy.out("sql", QUERY).splitlines() == [
        "batch    state      n",
        "align    succeeded  2",
        "default  failed     1",
        "default  pending    1",
    ]
    assert busy.out("sql", "-H", "select id from tasks").split() == ["1", "2", "3", "4"]
    assert busy.out("sql", "select id, name from tasks where 0") == "id  name\n"


def test_sql_prints_json_and_csv(busy: Lab) -> None:
    assert busy.json("sql", QUERY)[0] == {"batch": "align", "state": "succeeded", "n": 2}
    assert busy.json("sql", "select x'00ff41' as b, 9e999 as big, null as void") == [
        {"b": "\0\\xffA", "big": "inf", "void": None}
    ]
    rows = list(csv.reader(io.StringIO(busy.out("sql", "--csv", "select 'a,\"b' as x, 1.5 as y, null as z"))))
    assert rows == [["x", "y", "z"], ['a,"b', "1.5", ""]]
    assert busy.out("sql", "--csv", "-H", "select 1, 2") == "1,2\n"


def test_sql_says_mistakes_in_a_sentence(busy: Lab) -> None:
    for query, sentence in (
        ("select * form tasks", 'SQL: near "form": syntax error (character 10, from here: form tasks).'),
        ("delete from task", "only SELECT is possible here"),
        ("select 1; drop table task", "one statement at a time"),
        ("", "there is no statement"),
        (os.fsdecode(b"select '\xff'"), "not valid text"),
    ):
        said = busy.scitq("sql", query, code=1)
        assert said.stdout == b""
        assert sentence in said.stderr.decode()
        assert len(said.stderr.splitlines()) == 1
    assert "4 tasks" in busy.out("check")


def test_sql_is_stopped_after_its_time(busy: Lab) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"

    said = busy.scitq("--json", "sql", "--timeout", "0.1", endless, code=1)

    assert json.loads(said.stderr)["error"].startswith("the query took longer than 0.1 s")
    assert b"--timeout" in said.stderr


def test_sql_on_a_terminal_obeys_nothing(busy: Lab) -> None:
    found = busy.json("sql", "select char(27) || '[2J' as x")

    assert found == [{"x": "\x1b[2J"}]
    assert "\x1b" not in busy.out("sql", "select char(27) || '[2J' as x")


def test_export_by_suffix(busy: Lab) -> None:
    assert "tasks.csv: 4 tasks" in busy.out("export", "tasks.csv")
    found = busy.json("export", "all.sqlite")
    busy.scitq("export", "e.json", "--table", "executions")

    assert found["rows"]["tasks"] == 4 and found["rows"]["executions"] == 3
    assert found["size"] == (busy.folder / "all.sqlite").stat().st_size
    assert len(json.loads((busy.folder / "e.json").read_text())) == 3
    db = sqlite3.connect(busy.folder / "all.sqlite")
    assert db.execute("select count(*) from journal").fetchone()[0] == found["rows"]["journal"]
    db.close()
    assert b"exists already" in busy.scitq("export", "tasks.csv", code=1).stderr
    assert b"suffix" in busy.scitq("export", "tasks.xlsx", code=1).stderr


def test_purge_says_first_and_does_when_told(busy: Lab) -> None:
    said = busy.scitq("purge", "--older-than", "0")
    assert b"Would delete 3 tasks with 3 executions" in said.stdout
    assert b"Nothing was deleted" in said.stderr
    assert len(busy.json("task", "list")) == 4
    assert busy.json("purge", "--older-than", "0", "--keep-failed")["tasks"] == 2

    done = busy.scitq("purge", "--older-than", "0", "--keep-failed", "--yes")

    assert b"Deleting 2 tasks" in done.stderr and b"Deleted 2 tasks" in done.stdout
    assert sorted(row["state"] for row in busy.json("sql", "select state from tasks")) == ["failed", "pending"]
    assert "is older than 30 days" in busy.out("purge", "--older-than", "30", "--yes")
    assert b"--older-than 30" in busy.scitq("purge", code=1).stderr
    assert "sound" in busy.out("check")


def test_repair_puts_a_damaged_file_into_a_new_one(busy: Lab) -> None:
    path = busy.folder / "lab.scitq"
    db = sqlite3.connect(path)
    page = db.execute("select rootpage from sqlite_schema where name = 'execution'").fetchone()[0]
    db.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xaa" * 4096
    path.write_bytes(data)

    said = busy.scitq("check", code=1)
    found = busy.json("check", "--repair", "new.scitq")

    assert b"malformed" in said.stdout + said.stderr or b"SQLite" in said.stdout
    assert b"check --repair NEW.scitq" in said.stderr
    assert (found["source"], found["rows"]["task"], found["problems"]) == ("rows", 4, [])
    assert path.read_bytes() == data
    assert "is sound" in busy.out("-f", "new.scitq", "check")
    assert len(busy.json("-f", "new.scitq", "task", "list")) == 4
    assert b"exists already" in busy.scitq("-f", "lab.scitq", "check", "--repair", "new.scitq", code=1).stderr


def test_repair_of_a_file_that_does_not_open(busy: Lab) -> None:
    (busy.folder / "lab.scitq.d" / "backups").mkdir(exist_ok=True)
    busy.scitq("backup", "lab.scitq.d/backups/mine.scitq")
    (busy.folder / "lab.scitq").write_bytes(b"\xaa" * 200_000)

    busy.scitq("check", code=1)
    said = busy.scitq("check", "--repair", "new.scitq")

    assert b"this is the backup mine.scitq" in said.stdout
    assert len(busy.json("-f", "new.scitq", "task", "list")) == 4


def test_repair_with_nothing_left_says_so(lab: Lab) -> None:
    (lab.folder / "lab.scitq").write_bytes(b"\xaa" * 200_000)

    said = lab.scitq("check", "--repair", "new.scitq", code=1)

    assert b"no sound backup" in said.stderr
    assert os.listdir(lab.folder) == ["lab.scitq"]
