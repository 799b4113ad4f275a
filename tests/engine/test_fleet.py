"""Workers elsewhere as records: added, prepared, used, held back, given up, deleted. (How SSH reaches them: tests/hosts.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scitq.contact import Contact
from scitq.engine import Engine
from scitq.errors import BadInput, IllegalMove, NameTaken, WorkerFailed
from scitq.states import JobState, TaskState, WorkerState
from scitq.store import executions
from tests.engine.conftest import Opener, sound
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.remote.test_polite import NOT_NOW, NOW


def add(engine: Engine, *names: str, concurrency: int = 2, **settings: object) -> None:
    """Workers that are ready, and nobody else: the local one is paused."""
    for name in names:
        engine.worker_add(name, concurrency=concurrency, **settings)  # type: ignore[arg-type]
    for name in names:
        engine.worker_ready(name, WAIT_S)
    engine.worker_pause("local")


def contact(engine: Engine, name: str) -> Contact:
    assert engine._driver is not None
    return next(each for each in engine._driver._contacts.values() if each.name == name)


def test_a_host_that_is_added_is_prepared_step_by_step_and_runs_tasks(engine: Engine, world: World) -> None:
    row = engine.worker_add("me@atlas:2222")
    assert (row.name, row.address, row.kind, row.state) == ("atlas", "me@atlas:2222", "ssh", WorkerState.PREPARING)
    row = engine.worker_ready("atlas", WAIT_S)
    assert row.state is WorkerState.READY
    assert row.concurrency == row.cpus > 0
    assert row.link["how"] == "socket"
    [job] = engine.jobs("atlas")
    assert (job.kind, job.state, job.tries) == ("prepare", JobState.SUCCEEDED, 1)
    assert [line.partition(" (")[0] for line in job.log.splitlines()] == ["connect", "agent started"]
    engine.worker_pause("local")
    task = engine.submit("pwd; echo $SCITQ_TASK", shell=True)
    where, number = task.result(WAIT_S).stdout.split()
    assert number == str(task.id)
    assert Path(where).is_relative_to(world.host("me@atlas:2222").folder), "it runs there, not where it was submitted"
    assert task.executions[-1].worker == "atlas"
    sound(engine)


def test_arguments_of_a_worker_are_checked(engine: Engine) -> None:
    for host, more, message in (
        ("", {}, "not a host"),
        ("-oProxyCommand=x", {}, "not a host"),
        ("a b", {}, "not a host"),
        ("local", {}, "own worker"),
        ("h", {"name": "../up"}, "letters"),
        ("h", {"concurrency": -1}, "whole number"),
        ("h", {"lost_after": 0}, "seconds"),
        ("h", {"hours": "22-7"}, "22:00-07:00"),
        ("h", {"nice": 40}, "0 to 19"),
        ("h", {"colour": "red"}, "lost_after"),
    ):
        with pytest.raises(BadInput, match=message):
            engine.worker_add(host, **more)
    assert [row.name for row in engine.workers()] in ([], ["local"])


def test_a_host_that_refuses_fails_at_once_and_is_tried_again_when_asked(engine: Engine, world: World) -> None:
    world.host("atlas").refusal = "atlas has no Python 3.10."
    engine.worker_add("atlas", concurrency=1)
    with pytest.raises(WorkerFailed, match="no Python"):
        engine.worker_ready("atlas", WAIT_S)
    assert engine.jobs("atlas")[0].data["error"] == "WorkerFailed"
    with pytest.raises(NameTaken):
        engine.worker_add("atlas")
    with pytest.raises(IllegalMove, match="failed: atlas has no Python"):
        engine.worker_drain("atlas")
    world.host("atlas").refusal = None
    engine.worker_restart("atlas")
    assert engine.worker_ready("atlas", WAIT_S).state is WorkerState.READY


def test_a_host_that_nobody_reaches_is_given_up_after_some_tries(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.connections.RECONNECT_S", (0.0, 0.01))
    world.host("atlas").cut()
    engine.worker_add("atlas")
    with pytest.raises(WorkerFailed, match="no route to host"):
        engine.worker_ready("atlas", WAIT_S)
    assert world.host("atlas").logins == 4


def test_tasks_go_to_all_workers_and_a_batch_of_its_own_to_one(engine: Engine, world: World) -> None:
    engine.worker_add("special", concurrency=2, batch="align")
    add(engine, "plain")
    engine.worker_ready("special", WAIT_S)  # else the others may have done all before it is there
    tasks = [engine.submit("sleep 0.05", batch=batch, name=batch) for batch in ("align", "other") * 6]
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    ran = {(task.row().name, task.executions[-1].worker) for task in tasks}
    assert ("other", "special") not in ran
    assert ("align", "special") in ran


def test_why_says_that_no_worker_serves_its_batch(engine: Engine, world: World) -> None:
    engine.worker_add("special", concurrency=1, batch="align")
    engine.worker_ready("special", WAIT_S)
    engine.worker_pause("local")
    task = engine.submit("true", batch="other")
    assert "no worker that is ready serves its batch other: special serves batch align only" in task.why()
    engine.update_worker("special", batch="")
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED


def test_a_worker_that_failed_keeps_nobody_from_hearing_that_a_request_is_too_large(
    engine: Engine, world: World
) -> None:
    world.host("atlas").refusal = "no."
    engine.worker_add("atlas")
    engine.submit("true").wait(WAIT_S)
    until(lambda: engine.worker("atlas").state is WorkerState.FAILED, "it is given up")
    task = engine.submit("true", cpus=10_000)
    until(lambda: "no worker has 10000 CPUs" in task.why(), "the reason")


def test_a_worker_starts_nothing_outside_of_its_hours_and_says_so(engine: Engine, world: World) -> None:
    add(engine, "atlas", concurrency=1, hours=NOT_NOW)
    task = engine.submit("echo late")
    until(lambda: "It starts nothing now: it is outside of its hours" in task.why(), "the reason is told")
    assert task.state is TaskState.ASSIGNED
    [row] = [each for each in engine.workers() if each.name == "atlas"]
    assert row.stats["polite"].endswith(NOT_NOW)
    assert row.stats["uptime"] > 0
    assert row.stats.keys() >= {"net_in", "net_out", "disks"}
    engine.update_worker("atlas", hours=NOW)
    assert task.result(WAIT_S).stdout == "late\n"


def test_a_paused_worker_launches_nothing_and_a_drained_one_gets_nothing(engine: Engine, world: World) -> None:
    add(engine, "atlas", concurrency=1)
    engine.update_worker("atlas", prefetch=1)
    gate = world.host("atlas").folder / "gate"
    running = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True)
    waiting = engine.submit("echo waited")
    until(lambda: running.state is TaskState.RUNNING and waiting.state is TaskState.ASSIGNED, "both are there")
    engine.worker_pause("atlas")
    known = contact(engine, "atlas")
    until(lambda: known.slots_sent == 0 and not known.asked, "the agent knows")
    gate.touch()
    assert running.wait(WAIT_S) is TaskState.SUCCEEDED
    assert waiting.state is TaskState.ASSIGNED
    engine.worker_drain("atlas")
    late = engine.submit("echo late")
    assert waiting.wait(WAIT_S) is TaskState.SUCCEEDED
    assert late.state is TaskState.PENDING
    assert "atlas is draining" in late.why()
    engine.worker_resume("atlas")
    assert late.result(WAIT_S).stdout == "late\n"


def test_more_slots_are_used_at_once(engine: Engine, world: World) -> None:
    add(engine, "atlas", concurrency=1)
    tasks = [engine.submit("sleep 60") for _ in range(3)]
    until(lambda: sum(task.state is TaskState.RUNNING for task in tasks) == 1, "one runs")
    engine.update_worker("atlas", concurrency=3)
    until(lambda: sum(task.state is TaskState.RUNNING for task in tasks) == 3, "all run")
    engine.cancel_all()


def test_a_restarted_agent_is_another_process_and_its_tasks_go_on(engine: Engine, world: World) -> None:
    add(engine, "atlas")
    gate = world.host("atlas").folder / "gate"
    task = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done; echo through", shell=True)
    until(lambda: task.state is TaskState.RUNNING, "it runs")
    before = world.host("atlas").logins
    job = engine.worker_restart("atlas")
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    assert world.host("atlas").logins > before
    gate.touch()
    assert task.result(WAIT_S).stdout == "through\n"
    assert len(task.executions) == 1


def test_a_deleted_worker_leaves_nothing_and_its_tasks_run_elsewhere(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas", "boreas", concurrency=1)
    gate = tmp_path / "gate"
    tasks = [engine.submit(f"[ -e {gate} ] || sleep 600", shell=True) for _ in range(2)]
    until(lambda: all(task.state is TaskState.RUNNING for task in tasks), "both run")
    with pytest.raises(IllegalMove, match=r"holds 1 tasks.*drain"):
        engine.worker_delete("atlas")
    gate.touch()
    job = engine.worker_delete("atlas", force=True)
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    assert not world.host("atlas").folder.exists()
    assert {row.name for row in engine.workers()} == {"local", "boreas"}
    [freed] = [task for task in tasks if task.executions[0].worker == "atlas"]
    engine.update_worker("boreas", concurrency=2)
    assert freed.wait(WAIT_S) is TaskState.SUCCEEDED
    assert freed.executions[-1].worker == "boreas"
    engine.cancel_all()
    add(engine, "atlas")  # the name is free again
    with pytest.raises(IllegalMove, match="own"):
        engine.worker_delete("local")
    sound(engine)


def test_a_worker_that_cannot_be_reached_is_deleted_by_ones_word_only(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.tending.TRIES", 1)
    add(engine, "atlas")
    world.host("atlas").cut()
    job = engine.worker_delete("atlas")
    until(lambda: engine.job(job.id).state is JobState.FAILED, "the job")
    assert "--force" in (engine.worker("atlas").note or "")
    job = engine.worker_delete("atlas", force=True)
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    assert "atlas" not in [row.name for row in engine.workers()]


def test_what_is_not_its_own_any_more_is_ended_at_a_worker_without_a_trace(engine: Engine, world: World) -> None:
    add(engine, "atlas", concurrency=1)
    mark = world.host("atlas").folder / "pid"
    task = engine.submit(f"echo $$ > {mark}; sleep 600", shell=True)
    until(lambda: mark.exists() and bool(mark.read_text().strip()), "it runs")
    pid, execution = int(mark.read_text()), task.executions[-1].id
    until(lambda: task.state is TaskState.RUNNING, "the word of it")
    engine.worker_pause("atlas")
    assert engine.worker_lost("atlas") == 1
    assert task.state is TaskState.PENDING
    until(lambda: not alive(pid), "its end")
    until(lambda: not (world.host("atlas").folder / "exec" / str(execution)).exists(), "its folder is gone")
    until(lambda: engine.worker("atlas").note is None, "it was heard")
    assert engine.worker("atlas").state is WorkerState.PAUSED
    assert task.executions[0].outcome is not None
    assert "declared lost" in (task.executions[0].detail or "")
    engine.cancel_all()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_a_job_of_a_driver_that_died_is_begun_again(open_engine: Opener, world: World) -> None:
    first = open_engine(drive=False)
    first.worker_add("atlas", concurrency=1)
    [job] = first.jobs("atlas")
    first._write(lambda db: db.execute("update job set state = 1, started = 1, tries = 1 where id = ?", (job.id,)))
    second = open_engine()
    second.drive()
    assert second.worker_ready("atlas", WAIT_S).state is WorkerState.READY
    assert second.job(job.id).tries == 2


def test_workers_say_how_busy_they_are_while_somebody_looks(engine: Engine, world: World) -> None:
    add(engine, "atlas")
    assert not engine.worker("atlas").stats
    engine.watch_workers(WAIT_S)
    until(lambda: bool(engine.worker("atlas").stats), "the first word")
    first = engine.worker("atlas").stats["at"]
    until(lambda: engine.worker("atlas").stats["at"] > first, "another one")
    assert engine.worker("atlas").stats["memory_free"] > 0


def test_workers_are_kept_connected_while_there_is_nothing_to_do(engine: Engine, world: World) -> None:
    add(engine, "atlas")
    until(lambda: contact(engine, "atlas").synced, "atlas is there")
    world.host("atlas").cut()
    until(lambda: engine.worker("atlas").state is WorkerState.UNREACHABLE, "it is missed")
    world.host("atlas").mend()
    until(lambda: engine.worker("atlas").state is WorkerState.READY, "it is there again")
    assert not executions.live(engine._reader(), engine.worker("atlas").id)
