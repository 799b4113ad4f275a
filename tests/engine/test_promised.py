"""What was promised after looking at those who went before, where no other test shows it (tests/test_promises.py lists all)."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from scitq.engine import Engine
from scitq.states import Outcome, Stage, TaskState
from scitq.tails import Tails
from scitq.task import Spec
from tests.engine.conftest import Opener, sound

WAIT_S = 60
# They differ from try to try, and should.
OWN = {"SCITQ_EXECUTION", "INPUT", "OUTPUT", "TEMP", "RESOURCE", "_", "PWD", "OLDPWD"}


def until(condition: Any, what: str) -> None:
    """Wait for something that no event announces to a test."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S} s"
        time.sleep(0.005)


@pytest.mark.promise("lessons 3.5.5")
def test_a_retry_inherits_every_field(engine: Engine, tmp_path: Path) -> None:
    """Every field that a specification has, by reflection: a new one fails here until it is asked for, too."""
    asked: dict[str, Any] = {
        "command": "env > env.$SCITQ_EXECUTION; pwd > pwd.$SCITQ_EXECUTION; [ -e tried ] || { touch tried; exit 1; }",
        "shell": "sh", "env": {"A": "b"}, "retry": 1, "retry_delay": 0.01, "run_timeout": 60.0, "tags": {"sample": "s07"},
        "cpus": 1.0, "memory": 1 << 28, "gpus": 1, "python": "3.12", "input": [str(tmp_path / "in")],
        "resource": [f"{tmp_path / 'in'}|mv:ref"], "output": str(tmp_path / "out"), "overwrite": True, "keep_failed": False,
        "skip_if_exists": True, "stage_in_timeout": 60.0, "retry_memory": 2.0, "retry_timeout": 1.5,
        "use_cache": True,
    }  # fmt: skip
    elsewhere = {"container", "container_options"}  # tests/engine/test_containers.py: they take a container engine
    (tmp_path / "in").write_text("data\n")
    defaults = Spec("")
    fields = {field.name for field in dataclasses.fields(Spec)} - elsewhere
    assert {name for name in fields if asked[name] != getattr(defaults, name)} == {*asked}
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", cpus=4, memory="4G", gpus=["7"])
    (task,) = engine.submit_many([asked])
    task.result(WAIT_S)
    first, second = task.executions
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.SUCCEEDED)
    assert {name: value for name, value in dataclasses.asdict(task.row().spec).items() if name in fields} == asked

    def seen(execution: int) -> dict[str, str]:
        lines = (tmp_path / f"env.{execution}").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines) if name not in OWN}

    assert seen(first.id) == seen(second.id)
    assert seen(second.id).items() >= {"A": "b", "CUDA_VISIBLE_DEVICES": "7", "CPU": "1"}.items()
    assert (tmp_path / f"pwd.{first.id}").read_text() == (tmp_path / f"pwd.{second.id}").read_text()


@pytest.mark.promise("lessons 3.5.7")
def test_a_cancel_at_each_stage_has_one_outcome(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued, given to a worker, running, and while its log comes home, which is held up."""
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=1, prefetch=1)
    may_come = threading.Event()
    bring = Tails._bring

    def held_up(*given: Any) -> None:
        may_come.wait(WAIT_S)
        bring(*given)

    monkeypatch.setattr(Tails, "_bring", held_up)
    running = engine.submit("touch began; sleep 300", shell=True, retry=2)
    assigned, pending = engine.submit("touch never"), engine.submit("touch never")
    until(lambda: running.state is TaskState.RUNNING and assigned.state is TaskState.ASSIGNED, "both on the worker")
    for task in (pending, assigned, running):
        task.cancel()
        assert task.wait(WAIT_S) is TaskState.CANCELLED
    collecting = engine.submit("seq 1 9000", retry=2)
    until(lambda: collecting.state is TaskState.COLLECTING, "the end of the command")
    collecting.cancel()
    may_come.set()
    assert collecting.wait(WAIT_S) is TaskState.SUCCEEDED  # it had ended well before
    assert [[attempt.outcome for attempt in task.executions] for task in (pending, assigned, running, collecting)] == [
        [], [Outcome.CANCELLED], [Outcome.CANCELLED], [Outcome.SUCCEEDED],
    ]  # fmt: skip
    assert (tmp_path / "began").exists() and not (tmp_path / "never").exists()
    sound(engine)


@pytest.mark.promise("lessons 3.5.7")
def test_a_cancel_at_any_moment_has_one_outcome(engine: Engine, tmp_path: Path) -> None:
    """Delays are injected between submission and cancel: before, at and after each step of tasks that last 20 ms."""
    script = "echo $SCITQ_EXECUTION >> began.$SCITQ_TASK; sleep 0.02; echo done > $OUTPUT/done; echo out"
    tasks = []
    for n in range(24):
        tasks.append(engine.submit(script, shell=True))
        time.sleep(0.004 * (n % 12))
        tasks[-1].cancel()
    engine.wait_all(WAIT_S)
    for task in tasks:
        outcomes = [attempt.outcome for attempt in task.executions]
        assert outcomes == ([Outcome.SUCCEEDED] if task.state is TaskState.SUCCEEDED else outcomes[:1])
        assert task.state is TaskState.SUCCEEDED or outcomes in ([], [Outcome.CANCELLED])
        assert (task.output / "done").exists() == (task.state is TaskState.SUCCEEDED)
        began = tmp_path / f"began.{task.id}"
        assert (began.read_text().split() if began.exists() else []) in ([], [str(a.id) for a in task.executions])
    sound(engine)


@pytest.mark.promise("core 11.9")
def test_output_that_cannot_be_delivered_is_no_success(engine: Engine) -> None:
    (engine.side / "outputs").write_text("in the way")
    task = engine.submit("echo precious > $OUTPUT/file", shell=True, retry=1, retry_delay=0.01)
    assert task.wait(WAIT_S) is TaskState.FAILED
    assert [(a.outcome, a.stage, a.exit_code) for a in task.executions] == [(Outcome.FAILED, Stage.COLLECT, 0)] * 2
    assert "outputs" in task.why()
    (engine.side / "outputs").unlink()
    task.relaunch().result(WAIT_S)
    assert (task.output / "file").read_text() == "precious\n"


# What grows with the number of tasks; and the indexes that hold only what is live or due.
LARGE = "task|execution|requirement|journal|log|p|c|r"
SMALL_INDEX = "execution_worker|execution_live|execution_wanted|execution_due|execution_unkeyed|task_later|task_raised"

# Plans name what is read only when a reference was broken before in the same transaction; and what ends at a limit. A migration
# reads what it changes.
NEVER_READ_WHOLE = (
    r"^insert into (context|batch|worker)\(|order by id desc limit|^update execution set key = '' where outcome"
)


@pytest.fixture
def statements() -> Iterator[dict[str, Any]]:
    """Every statement that this process runs on new connections, with what was bound to it last."""
    found: dict[str, Any] = {}

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        found[sql] = bindings
        return True

    def hook(db: apsw.Connection) -> None:
        db.exec_trace = trace

    apsw.connection_hooks.append(hook)
    yield found
    apsw.connection_hooks.remove(hook)


@pytest.mark.promise("core 11.17")
def test_nothing_that_a_driver_does_reads_a_whole_table(statements: dict[str, Any], open_engine: Opener) -> None:
    """The plan of every statement of a busy driver; a table that is searched through an index is not read whole."""
    engine = open_engine()
    bad = engine.submit("exit 3", shell=True, retry=1, retry_delay=0.01)
    engine.submit("true", requires=[bad, engine.submit("seq 1 9000", cpus=1)], batch="other")
    sleeper = engine.submit("sleep 300", run_timeout=200)
    until(lambda: sleeper.state is TaskState.RUNNING, "running")
    sleeper.cancel()
    engine.wait_all(WAIT_S)
    bad.relaunch()
    engine.submit("true", requires=sleeper).cancel()
    engine.wait_all(WAIT_S)
    engine.close()
    ran = {sql: bound for sql, bound in statements.items() if re.match(r"\s*(select|with|insert|update|delete)", sql)}
    assert len(ran) > 20
    db = open_engine(drive=False)._reader()
    readers = []
    for sql, bound in ran.items():
        plan = [str(row[3]) for row in db.execute(f"explain query plan {sql}", bound)]
        whole = [line for line in plan if re.match(rf"SCAN ({LARGE})\b(?!.* ({SMALL_INDEX})\b)", line)]
        readers += [f"{line}: {sql}" for line in whole if not re.search(NEVER_READ_WHOLE, sql)]
    assert not readers, "\n".join(readers)
