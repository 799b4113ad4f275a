"""What an engine says of what needs a person: found in the file, remembered when it was seen or put aside."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import pytest

from scitq import notices
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.states import TaskState, WorkerState
from scitq.store import notices as rows
from scitq.store import workers
from scitq.worker import WorkerId
from tests.engine.conftest import Opener

WAIT_S = 60


@pytest.fixture
def quiet(open_engine: Opener) -> Engine:
    """An engine that does not drive."""
    return open_engine(drive=False)


def keys(engine: Engine, **more: Any) -> list[str]:
    return [notice.key for notice in engine.notices(**more)]


def fail(engine: Engine, count: int, batch: str = "qc") -> None:
    """Tasks that failed, without having run."""
    made = engine.submit_many([["false"]] * count, batch=batch)
    ids = [int(task.id) for task in made]
    engine._write(lambda db: db.executemany("update task set state = 7 where id = ?", [(id,) for id in ids]))


def test_three_equal_failures_show_the_last_line_of_the_error(engine: Engine) -> None:
    command = "echo begin >&2; printf 'ValueError: \\033[31mno reads\\n\\n' >&2; exit 3"
    many = [engine.submit(command, shell=True, batch="qc", name=f"s{n}") for n in range(3)]
    for task in many:
        task.wait(WAIT_S)

    [found] = engine.notices()

    assert found.kind == "failures"
    label = many[2].row().label
    assert found.text == f"task {label} failed (exit 3) (3 equal failures): ValueError: \\x1b[31mno reads"
    assert found.about["error"] == "ValueError: \\x1b[31mno reads"
    assert found.since_ms is not None and found.since_ms <= time.time() * 1000


def test_what_was_seen_is_new_again_when_it_changes(quiet: Engine) -> None:
    fail(quiet, 2)
    quiet.set_batch("held", retry=1)
    quiet.pause_batch("held")
    quiet.submit("true", batch="held")
    assert [one.is_new for one in quiet.notices()] == [True, True, True]

    quiet.notices_seen([one for one in quiet.notices() if one.kind == "halted"])
    assert [one.key for one in quiet.notices() if not one.is_new] == ["halted:held"]
    quiet.notices_seen()
    assert not any(one.is_new for one in quiet.notices())

    quiet.pause_batch("held", suspend=True)
    assert [one.key for one in quiet.notices() if one.is_new] == ["halted:held"]
    quiet.go_batch("held")
    assert "halted:held" not in keys(quiet)
    quiet.notices_seen()  # what was seen of it is forgotten now
    quiet.pause_batch("held", suspend=True)
    assert [one.key for one in quiet.notices() if one.is_new] == ["halted:held"]


def test_what_was_put_aside_comes_back_when_it_changes(quiet: Engine) -> None:
    fail(quiet, 3)
    [key] = keys(quiet)

    put = quiet.dismiss(key)

    assert put.is_dismissed and not put.is_new
    assert keys(quiet) == [] and keys(quiet, dismissed=True) == [key]
    quiet.notices_seen()
    assert keys(quiet) == []
    with pytest.raises(BadInput, match=r"no notice 'nonsense' \(there are: failed:qc"):
        quiet.dismiss("nonsense")
    for task in quiet.tasks(status="failed")[:2]:  # otherwise than before
        quiet._write(lambda db, id=int(task.id): timed_out(db, id))  # type: ignore[misc]
        [other] = quiet.notices()
        assert (other.key, other.is_new) == ("failed:qc:timed out (run)", True)
        quiet.dismiss(other.key)
        assert keys(quiet) == []


def timed_out(db: Any, task: int) -> None:
    db.execute(
        "insert into execution(task, attempt, assigned, ended, outcome, stage) values (?, 1, 1, 1, 2, 1)", (task,)
    )


def test_what_somebody_wrote_down_stays_until_it_is_taken_back(quiet: Engine) -> None:
    def post(text: str) -> None:
        quiet._write(
            lambda db: rows.post(db, 5, "hook", "hook", text, about={"batch": "qc"}, actions=[("why", ("doctor",))])
        )

    post("it failed")
    [found] = quiet.notices()
    assert (found.text, found.actions, found.about) == (
        "it failed",
        (notices.Action("why", ("doctor",)),),
        {"batch": "qc"},
    )
    quiet.dismiss("hook")
    assert keys(quiet) == []
    post("it failed")  # again
    assert keys(quiet) == ["hook"]
    quiet.notices_seen()
    quiet._write(lambda db: rows.take_back(db, "hook"))
    assert keys(quiet) == []


def test_the_disk_of_the_file_and_those_of_workers_are_watched(quiet: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns() // 1_000_000
    quiet._write(lambda db: workers.add(db, now, "atlas", "ssh", "me@atlas"))
    quiet._write(lambda db: workers.measure(db, WorkerId(1), {"at": now, "disk": 10**12, "disk_free": 10**9}))
    assert keys(quiet) == ["disk:worker:atlas"]
    block = os.statvfs_result((4096, 4096, 1 << 30, 1000, 1000, 0, 0, 0, 0, 255))

    monkeypatch.setattr("scitq.notices.os.statvfs", lambda folder: block)

    assert keys(quiet) == ["disk:file", "disk:worker:atlas"]


def test_a_host_key_is_told_from_the_job_that_failed_for_it(quiet: Engine) -> None:
    quiet.worker_add("me@atlas", name="atlas")
    quiet._write(lambda db: db.execute('update job set data = \'{"error":"HostKeyUnknown"}\''))
    quiet._write(lambda db: workers.move(db, 5, WorkerId(1), WorkerState.FAILED, "nobody knows its key"))

    [found] = quiet.notices()

    assert (found.kind, found.actions[0].words) == ("host-key", ("worker", "trust", "me@atlas"))


def test_it_reads_no_more_when_there_is_more(quiet: Engine) -> None:
    statements: Counter[str] = Counter()

    def trace(cursor: Any, sql: str, bindings: Any) -> bool:
        statements[sql] += 1
        return True

    def asked() -> Counter[str]:
        statements.clear()
        db = quiet._reader()
        db.exec_trace = trace
        try:
            assert quiet.notices()
        finally:
            db.exec_trace = None
        return Counter(statements)

    fail(quiet, 2 * rows.FAILED_SAMPLE)
    few = asked()
    fail(quiet, 4 * rows.FAILED_SAMPLE)
    many = asked()

    assert many == few
    assert sum(few.values()) <= 25
    assert next(one for one in quiet.notices() if one.kind == "failures").about["equal"] == rows.FAILED_SAMPLE
    for sql in few:
        if not sql.lower().lstrip().startswith(("select", "with")):
            continue
        plan = [str(row[3]) for row in quiet._reader().execute(f"explain query plan {sql}", _nothing(sql))]
        scanned = [
            step for step in plan if step.startswith(("SCAN task", "SCAN execution", "SCAN journal", "SCAN note"))
        ]
        assert not [step for step in scanned if "INDEX" not in step], (sql, plan)


def _nothing(sql: str) -> Any:
    """As many values as a statement takes."""
    import re

    named = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    return [None] * (max(named) if named else sql.count("?"))


def test_a_file_that_may_only_be_read_is_told_of_too(quiet: Engine) -> None:
    fail(quiet, 1)
    assert TaskState.FAILED in quiet.counts()
    quiet._store.read_only = True
    try:
        quiet.notices_seen()
        assert [one.is_new for one in quiet.notices()] == [True]
    finally:
        quiet._store.read_only = False
