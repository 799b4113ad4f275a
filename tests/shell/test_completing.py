"""What may stand next on a command line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.shell.completing import candidates, files, is_known
from scitq.shell.listings import Listings
from scitq.store import names


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("lab") / "lab.scitq", drive=False) as engine:
        for number in range(12):
            engine.submit("true", name=f"align s{number:02}", batch="qc.fastp")
        engine.submit_many([{"command": "true", "name": "same"}] * 500)
        engine.submit("true", name="it's", batch="o'neil", container="ubuntu:24.04")
        engine.submit("true", name="evil\x1b[2Jname")
        yield engine


def texts(engine: Engine | None, *words: str) -> list[str]:
    return [one.text for one in candidates(engine, words[:-1], words[-1])]


def test_commands_and_their_verbs_come_with_what_they_do() -> None:
    assert "task" in texts(None, "") and "status" in texts(None, "") and "host-side" not in texts(None, "")
    assert texts(None, "sta") == ["status"]
    assert {"list", "relaunch", "update"} <= set(texts(None, "task", ""))
    assert all(one.help for one in candidates(None, [], ""))
    assert texts(None, "tusk", "li") == []
    assert is_known(["task", "list"]) and is_known(["task"]) is None and is_known(["task", "lost"]) is False


def test_options_come_after_a_dash_and_once_unless_they_repeat() -> None:
    assert "--batch" in texts(None, "task", "list", "--b")
    assert "--failed" in texts(None, "task", "list", "--json", "--")
    assert "--failed" not in texts(None, "task", "list", "--failed", "--")
    assert "--env" in texts(None, "launch", "-e", "A=1", "--")
    assert texts(None, "launch", "--", "ls", "--b") == []
    assert texts(None, "launch", "echo", "--ba") == []
    assert "--json" in texts(None, "status", "--")


def test_values_are_those_of_the_file(lab: Engine) -> None:
    assert texts(lab, "task", "list", "-b", "qc") == ["qc.fastp"]
    assert texts(lab, "task", "list", "--batch=o") == ["--batch=o'neil"]
    assert texts(lab, "task", "show", "align s0")[:2] == ["align s00", "align s01"]
    assert texts(lab, "task", "show", "sam") == ["same"]
    assert texts(lab, "task", "show", "51")[:3] == ["51", "514", "513"]
    assert texts(lab, "task", "show", "")[0] == "514"
    assert texts(lab, "task", "list", "-S", "failed,can") == ["failed,cancelled"]
    assert "on" in texts(lab, "worker", "update", "--limits", "")
    assert texts(lab, "launch", "-d", "ubu") == ["ubuntu:24.04"]
    assert texts(lab, "launch", "-i", "task://51")[0] == "task://51"
    assert texts(lab, "launch", "-i", "a.gz|gu") == ["a.gz|gunzip"]


def test_names_with_control_characters_are_not_offered(lab: Engine) -> None:
    assert texts(lab, "task", "show", "evil") == []
    assert not any("\x1b" in one.help + one.text for one in candidates(lab, ["task", "show"], ""))


def test_conditions_and_queries_have_columns_words_and_values(lab: Engine) -> None:
    def of(text: str) -> list[str]:
        return texts(lab, "task", "relaunch", "--where", text)

    assert "batch" in of("ba") and of("batch = 'qc") == ["batch = 'qc.fastp'"]
    assert of("batch='o") == ["batch='o''neil'"]
    assert of("state in ('failed', 'ca") == ["state in ('failed', 'cancelled'"]
    assert "cause='timed_out'" in of("cause='")
    assert "state='failed' and cause" in of("state='failed' and ca")
    assert "peak_memory" in [one.shown for one in candidates(lab, ["sql"], "select name, pe")]
    assert "executions" in [one.shown for one in candidates(lab, ["sql"], "select * from ex")]
    assert "executions.run_s" in [one.text.split()[-1] for one in candidates(lab, ["sql"], "select executions.run")]
    assert "SELECT" in "".join(texts(lab, "sql", "SEL")).upper()


def test_files_keep_their_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reads").mkdir()
    (tmp_path / "reads.fq").write_text("")
    (tmp_path / ".hidden").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert [one.text for one in files("re")] == ["reads/", "reads.fq"]
    assert [one.text for one in files("~/re")] == ["~/reads/", "~/reads.fq"]
    assert [one.text for one in files(".h")] == [".hidden"]
    assert texts(None, "report", "qc", "--crate", "re") == ["reads/"]


def test_what_is_far_is_asked_for_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    may_answer, came = threading.Event(), threading.Event()

    def listed(folder: str) -> list[str]:
        asked.append(folder)
        assert may_answer.wait(60)
        return ["raw/", "reads.fq.gz"]

    monkeypatch.setattr("scitq.shell.listings._names", listed)
    listings = Listings(came.set)

    first = candidates(None, ["launch", "-i"], "s3://lab/r", listings=listings)
    again = candidates(None, ["launch", "-i"], "s3://lab/re", listings=listings)
    may_answer.set()

    assert first == again == []
    assert came.wait(60) and asked == ["s3://lab/"]
    assert [one.text for one in candidates(None, ["launch", "-i"], "s3://lab/re", listings=listings)] == [
        "s3://lab/reads.fq.gz"
    ]
    assert asked == ["s3://lab/"]


def test_no_look_up_reads_all_tasks(lab: Engine) -> None:
    db = lab._reader()
    plans: list[str] = []

    def plan(cursor: object, sql: str, values: object) -> bool:
        if not sql.startswith("explain"):
            plans.extend(f"{sql}: {row[3]}" for row in db.execute(f"explain query plan {sql}", values or ()))  # type: ignore[arg-type]
        return True

    db.exec_trace = plan
    try:
        assert len(names.tasks_named(db, "", 100)) == 15
        names.tasks_numbered(db, "5", 50)
        names.executions_numbered(db, "", 50)
        names.batches(db, "q", 50)
        names.workers(db, "q", 50)
        names.workflows(db, "q", 50)
    finally:
        db.exec_trace = None

    assert len(plans) > 10
    scans = [plan for plan in plans if ": SCAN" in plan or "TEMP B-TREE" in plan]
    assert scans == []
