"""What agents say of staging and of outputs, stored: the driver's half, without an agent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from scitq.contact import Contact, Plan
from scitq.engine import Engine
from scitq.errors import BadAnswer
from scitq.handle import Task
from scitq.news import SHOWN_AFTER_S, apply, show_running
from scitq.remote.link import Answer
from scitq.remote.route import LocalRoute
from scitq.states import TaskState
from scitq.store import executions, listing, manifests, query, workers
from scitq.task import Assignment, ExecutionId, TaskId
from scitq.worker import LOCAL, WorkerId

EXIT: dict[str, Any] = {
    "k": "exit", "code": 0, "sig": None, "why": None, "o": "", "e": "", "on": 0, "en": 0, "kept": False, "collect": False,
    "at": 1.0, "run": 0.5,
}  # fmt: skip


class Told:
    """An engine that nobody drives, and the lines of an agent that is not there."""

    def __init__(self, path: Path) -> None:
        self.engine = Engine(path, drive=False)
        self.engine._write(lambda db: workers.ensure(db, 1, LOCAL, LOCAL, 2))
        self.contact = Contact(WorkerId(1), LocalRoute(path.parent, 60))

    def begin(self, **given: Any) -> tuple[Task, int]:
        task = self.engine.submit("true", **given)
        return task, self.again(task)

    def again(self, task: Task) -> int:
        orders = self.engine._write(lambda db: executions.begin(db, now(), [Assignment(TaskId(task.id), WorkerId(1))]))
        return int(orders[0].execution)

    def say(self, *lines: dict[str, Any]) -> Plan:
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        headers = {"scitq-journal": "j", "scitq-from": str(self.contact.acked)}

        def write(db: apsw.Connection) -> Plan:
            plan = Plan(self.contact)
            apply(db, now(), plan, Answer(200, headers, body))
            show_running(db, now(), plan)
            return plan

        plan = self.engine._write(write)
        self.contact.journal, self.contact.acked = plan.journal, plan.acked
        self.contact.starts, self.contact.stagings = plan.starts, plan.stagings
        return plan

    def show(self) -> None:
        """What was seen to begin a moment ago is written down."""
        for begun in (self.contact.starts, self.contact.stagings):
            for id in begun:
                begun[id] -= SHOWN_AFTER_S
        self.say()

    def manifest(self, execution: int) -> manifests.Manifest | None:
        return manifests.of_execution(self.engine._reader(), ExecutionId(execution))


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def told(state_file: Path) -> Iterator[Told]:
    found = Told(state_file)
    yield found
    assert found.engine.check() == []
    found.engine.close()


def test_what_stages_for_moments_is_never_shown_and_what_takes_longer_is(told: Told) -> None:
    quick, one = told.begin()
    slow, two = told.begin()
    told.say({"k": "stage", "id": one, "at": 1}, {"k": "stage", "id": two, "at": 1}, {"k": "start", "id": one})
    assert (quick.state, slow.state) == (TaskState.ASSIGNED, TaskState.ASSIGNED)
    told.show()
    assert (quick.state, slow.state) == (TaskState.RUNNING, TaskState.STAGING)
    told.say({"k": "start", "id": two})
    told.show()
    assert slow.state is TaskState.RUNNING
    told.say({**EXIT, "id": one}, {**EXIT, "id": two})
    assert (quick.state, slow.state) == (TaskState.SUCCEEDED, TaskState.SUCCEEDED)
    assert not told.contact.stagings


@pytest.mark.parametrize(
    ("why", "cause"), [("stage_in", "failed (stage in)"), ("stage_timeout", "timed out (stage in)")]
)
def test_data_that_cannot_be_had_uses_up_a_retry_and_says_why(told: Told, why: str, cause: str) -> None:
    task, first = told.begin(retry=1, retry_delay=0)
    note = "https://host/x: 404, not found."
    told.say({"k": "stage", "id": first, "at": 1})
    told.show()
    told.say({**EXIT, "id": first, "code": None, "why": why, "note": note, "error": "NotFound"})
    assert (task.state, task.row().tries) == (TaskState.PENDING, 1)
    told.say({**EXIT, "id": told.again(task), "code": None, "why": why, "note": note})
    assert task.state is TaskState.FAILED
    last = task.executions[-1]
    assert (last.cause, last.detail, last.exit_code) == (cause, note, None)
    assert note in task.why()


def test_an_output_that_is_there_already_is_a_success_with_its_manifest(told: Told) -> None:
    task, id = told.begin()
    told.say({**EXIT, "id": id, "why": "exists", "to": "s3://b/out", "files": [["a", 3, None]]})
    assert task.state is TaskState.SUCCEEDED
    assert told.manifest(id) == (id, "s3://b/out", [("a", 3, None)])
    assert "there already" in task.why()


def test_the_manifest_is_stored_with_the_end_and_names_may_be_any_bytes(told: Told) -> None:
    task, id = told.begin()
    files = [["sub/a b.txt", 5, "0cc175b9c0f1b6a831c399e269772661"], ["caf\udce9", 0, None]]
    told.say({**EXIT, "id": id, "collect": True})
    assert task.state is TaskState.COLLECTING
    told.say({"k": "collected", "id": id, "ok": True, "to": "/data/caf\udce9/out", "files": files})
    assert task.status == "succeeded"
    found = told.manifest(id)
    assert found is not None
    assert (found.address, found.size) == ("/data/caf\udce9/out", 5)
    assert [list(file) for file in found.files] == files


def test_what_a_failed_execution_left_changes_nothing_about_its_end(told: Told) -> None:
    kept, one = told.begin()
    lost, two = told.begin()
    for id in (one, two):
        told.say({**EXIT, "id": id, "code": 3, "collect": True, "failed": True})
    told.say(
        {
            "k": "collected",
            "id": one,
            "ok": True,
            "failed": True,
            "to": "s3://b/o.failed/1",
            "files": [["log", 1, None]],
        },
        {"k": "collected", "id": two, "ok": False, "failed": True, "error": "AccessDenied", "note": "s3 says no"},
    )
    assert [task.executions[-1].cause for task in (kept, lost)] == ["failed (exit 3)"] * 2
    assert told.manifest(one) == (one, "s3://b/o.failed/1", [("log", 1, None)])
    assert "s3 says no" in manifests.notes(told.engine._reader(), ExecutionId(two))[0]


def test_an_output_that_cannot_be_delivered_fails_the_execution(told: Told) -> None:
    task, id = told.begin()
    told.say({**EXIT, "id": id, "collect": True})
    told.say({"k": "collected", "id": id, "ok": False, "error": "AccessDenied", "note": "s3://b/out: access denied."})
    last = task.executions[-1]
    assert (last.cause, last.detail) == ("failed (collect)", "s3://b/out: access denied.")


def test_a_note_reaches_the_journal_and_the_execution(told: Told) -> None:
    _, id = told.begin()
    told.say({"k": "note", "id": id, "text": "the resource ref was changed by this task: \udcff"})
    assert manifests.notes(told.engine._reader(), ExecutionId(id)) == [
        "the resource ref was changed by this task: \\udcff"
    ]
    assert any("was changed" in str(event.data.get("text")) for event in told.engine.journal())


def test_an_edit_of_what_is_staged_is_made_when_it_comes_back_or_could_not_be_staged(told: Told) -> None:
    for end in ({"why": "recall"}, {"why": "stage_in", "note": "not there"}):
        task, id = told.begin(retry=1, retry_delay=0)
        told.say({"k": "stage", "id": id, "at": 1})
        told.show()
        with pytest.raises(TimeoutError):
            task.update(command="echo edited", timeout=0)
        told.say({**EXIT, "id": id, "code": None, **end})
        assert task.state is TaskState.PENDING
        assert listing.get(told.engine._reader(), task.id).spec.command == "echo edited"


def test_lines_about_data_that_make_no_sense_are_refused(told: Told) -> None:
    _, id = told.begin()
    for line in (
        {"k": "stage", "id": []},
        {"k": "note", "id": id},
        {**EXIT, "id": id, "why": "exists", "to": "s3://b/o", "files": [["a"]]},
        {**EXIT, "id": id, "why": "exists", "to": "s3://b/o", "files": 5},
    ):
        with pytest.raises(BadAnswer):
            told.say(line)


def test_what_goes_with_a_task_when_it_is_deleted(told: Told) -> None:
    task, id = told.begin()
    told.say(
        {"k": "note", "id": id, "text": "mind this"},
        {**EXIT, "id": id, "why": "exists", "to": "s3://b/o", "files": []},
    )
    task.delete()
    assert query.one(told.engine._reader(), "select (select count(*) from manifest) + (select count(*) from note)") == (
        0,
    )
