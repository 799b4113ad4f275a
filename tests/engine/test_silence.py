"""Workers that fall silent: their work stays their own for a while of awake time, then somebody else's, and never both's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scitq import deciding
from scitq.awake import GAP_S, Awake
from scitq.engine import Engine
from scitq.fetch import rclonerun
from scitq.fetch.settings import Settings
from scitq.path import URI
from scitq.remote.agent.manifest import NAME, parse
from scitq.remote.link import Stream
from scitq.states import Outcome, TaskState, WorkerState
from tests.engine.conftest import Opener, sound
from tests.engine.far import FarRoute, World
from tests.engine.test_data import s3, s3_port
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import add, alive, contact

__all__ = ["s3", "s3_port"]

# It says where it runs, and goes on when the gate is open.
WORK = "echo $$ > {folder}/pid.$SCITQ_EXECUTION; until [ -e {folder}/gate ]; do sleep 0.02; done; echo $SCITQ_EXECUTION"


@pytest.fixture(autouse=True)
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is on its way for a minute."""
    monkeypatch.setattr(deciding, "MARGIN_S", 0.1)


@pytest.mark.promise("core 11.5")
def test_a_silent_workers_task_goes_to_another_and_what_comes_late_is_ended_there(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas", concurrency=1, lost_after=1)
    task = engine.submit(WORK.format(folder=tmp_path), shell=True)
    until(lambda: task.state is TaskState.RUNNING, "it runs")
    first = task.executions[0].id
    pid = int((tmp_path / f"pid.{first}").read_text())
    world.host("atlas").cut()
    add(engine, "boreas", concurrency=1)
    until(lambda: len(task.executions) == 2 and task.state is TaskState.RUNNING, "the other one has it")
    lost, now = task.executions
    assert (lost.outcome, lost.worker, now.worker) == (Outcome.LOST, "atlas", "boreas")
    assert "silent for too long" in (lost.detail or "")
    assert alive(pid)
    world.host("atlas").mend()
    until(lambda: not alive(pid), "its end")
    until(lambda: not (world.host("atlas").folder / "exec" / str(first)).exists(), "its folder is gone")
    (tmp_path / "gate").touch()
    assert task.result(WAIT_S).stdout == f"{now.id}\n"
    assert len(task.executions) == 2
    sound(engine)


@pytest.mark.servers
def test_who_comes_back_in_the_middle_of_collecting_leaves_the_output_to_whoever_has_it_now(
    engine: Engine, world: World, s3: URI, tmp_path: Path
) -> None:
    held = tmp_path / "held"  # stands still where files are sent, after the place was claimed, until it is ended
    held.write_text(
        f"""#!/bin/sh
case "$1" in copy) touch {tmp_path}/begun; sleep 600;; esac
exec {rclonerun.program(Settings())} "$@"
"""
    )
    held.chmod(0o755)
    world.host("atlas").program = str(held)
    add(engine, "atlas", concurrency=1, lost_after=2)
    made = 'echo "$SCITQ_EXECUTION" > $OUTPUT/who; seq 1000 > $OUTPUT/numbers'
    task = engine.submit(made, shell=True, output=f"{s3}/out")
    until(lambda: (tmp_path / "begun").exists(), "atlas sends")
    world.host("atlas").cut()
    add(engine, "boreas", concurrency=1)
    until(
        lambda: (len(task.executions) == 2 and task.state is TaskState.COLLECTING) or task.state.is_final,
        "boreas has it",
    )
    world.host("atlas").mend()
    assert task.wait(60) is TaskState.SUCCEEDED
    first, second = task.executions
    assert (first.outcome, first.worker, second.worker) == (Outcome.LOST, "atlas", "boreas")
    until(lambda: not (world.host("atlas").folder / "exec" / str(first.id)).exists(), "atlas gives it up")
    rows = {row.rel_name: row.uri.read_text() for row in (s3 / "out").list() if row.type == "file"}
    assert sorted(rows) == [NAME, "numbers", "who"]
    assert rows["who"] == f"{second.id}\n"
    manifest = parse(rows[NAME].encode())
    assert manifest is not None
    assert (manifest.is_complete, manifest.execution, manifest.names) == (True, second.id, {"numbers", "who"})
    sound(engine)


def test_a_result_that_comes_late_counts_while_nobody_else_has_the_task(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    add(engine, "atlas", concurrency=1, lost_after=1)
    task = engine.submit(WORK.format(folder=tmp_path), shell=True)
    until(lambda: task.state is TaskState.RUNNING, "it runs")
    world.host("atlas").cut()
    known = contact(engine, "atlas")
    assert engine._driver is not None
    until(lambda: engine._driver._deciding.overdue_in_s(known) == 0.0, "it has been silent for too long")  # type: ignore[union-attr]
    assert task.state is TaskState.RUNNING
    assert engine.worker("atlas").state is WorkerState.UNREACHABLE
    (tmp_path / "gate").touch()
    world.host("atlas").mend()
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    assert len(task.executions) == 1
    sound(engine)


def test_a_task_that_was_cancelled_is_not_given_to_another_worker(engine: Engine, world: World, tmp_path: Path) -> None:
    add(engine, "atlas", "boreas", concurrency=1, lost_after=1)
    task = engine.submit(WORK.format(folder=tmp_path), shell=True)
    until(lambda: task.state is TaskState.RUNNING, "it runs")
    where = str(task.executions[0].worker)
    world.host(where).cut()
    task.cancel()
    known = contact(engine, where)
    until(lambda: engine._driver._deciding.overdue_in_s(known) == 0.0, "it has been silent for too long")  # type: ignore[union-attr]
    other = engine.submit("echo other")
    assert other.result(WAIT_S).stdout == "other\n"
    assert len(task.executions) == 1
    world.host(where).mend()
    assert task.wait(WAIT_S) is TaskState.CANCELLED


def test_a_lease_is_renewed_while_there_is_contact_and_changes_with_its_users_wish(
    engine: Engine, world: World
) -> None:
    add(engine, "atlas", lost_after=1)
    known = contact(engine, "atlas")
    begun = known.leased_at
    until(lambda: known.leased_at > begun + 2, "renewals")
    until(lambda: leased_s(world) > 0, "the agent's word")
    engine.update_worker("atlas", lost_after=500)
    until(lambda: leased_s(world) > 100, "the longer one")
    assert engine.worker("atlas").link["lease"] == 500
    engine.update_worker("atlas", lost_after=2)
    until(lambda: leased_s(world) <= 2, "the shorter one")
    until(lambda: engine.worker("atlas").link["lease"] == 2, "it is believed")


def leased_s(world: World) -> float:
    stream = Stream.to_socket(world.host("atlas").folder)
    try:
        return float(stream.ask("GET", "/held").json()["leased"] or 0)
    finally:
        stream.close()


def test_an_agent_that_stands_still_is_noticed_though_the_link_is_whole(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.acting.QUIET_S", 0.2)
    monkeypatch.setattr("scitq.acting.ANSWER_S", 0.2)
    monkeypatch.setattr("scitq.remote.agent.starting.DEADLINE_S", 0.5)
    add(engine, "atlas")
    known = contact(engine, "atlas")
    stream = Stream.to_socket(world.host("atlas").folder)
    pid = int(stream.ask("GET", "/ping").json()["pid"])
    stream.close()
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: not known.connected, "it is missed")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: engine.worker("atlas").state is WorkerState.READY and known.synced, "it is there again")


def test_how_long_a_worker_has_been_silent_outlives_the_driver_and_its_return_ends_it(
    open_engine: Opener, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.acting.NOTED_EVERY_S", 0.05)
    monkeypatch.setattr("scitq.connections.RECONNECT_S", (0.0, 0.05))
    first = open_engine()
    add(first, "atlas")
    world.host("atlas").cut()
    until(lambda: first.worker("atlas").silent_ms > 100, "the note")
    first.close()
    second = open_engine(drive=False)
    silent_ms = second.worker("atlas").silent_ms
    third = open_engine()
    third.drive()
    until(lambda: second.worker("atlas").silent_ms > silent_ms, "it goes on")
    world.host("atlas").mend()
    until(lambda: second.worker("atlas").silent_ms == 0, "it is heard")


def test_when_the_network_is_back_nobody_waits_for_the_next_try(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(engine, "atlas")
    monkeypatch.setattr("scitq.connections.RECONNECT_S", (0.0, 1000.0))
    world.host("atlas").cut()
    until(lambda: engine.worker("atlas").state is WorkerState.UNREACHABLE, "it is missed")
    world.host("atlas").mend()
    driver = engine._driver
    assert driver is not None
    driver._later(driver._try_again)
    until(lambda: engine.worker("atlas").state is WorkerState.READY, "it is there again")


def test_whatever_goes_wrong_while_a_worker_is_connected_it_is_tried_again(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [OSError(5, "Input/output error"), ZeroDivisionError("a bug")]
    ensure = FarRoute.ensure

    def fail(route: FarRoute) -> None:
        if wrong:
            raise wrong.pop()
        ensure(route)

    monkeypatch.setattr(FarRoute, "ensure", fail)
    monkeypatch.setattr("scitq.connections.RECONNECT_S", (0.0, 0.01))
    add(engine, "atlas")
    until(lambda: engine.worker("atlas").state is WorkerState.READY, "the third try")
    assert not wrong and "ZeroDivisionError: a bug" in caplog.text and "Input/output error" in caplog.text


def test_who_was_not_tried_to_be_reached_is_not_judged(engine: Engine, world: World) -> None:
    """A process that stood still for some seconds has heard nobody, which says nothing about the others."""
    add(engine, "atlas", concurrency=1, lost_after=1)
    known, driver = contact(engine, "atlas"), engine._driver
    assert driver is not None
    world.host("atlas").cut()
    until(lambda: driver._deciding.overdue_in_s(known) == 0.0, "it was tried, in vain")
    known.was_tried = False
    assert driver._deciding.overdue_in_s(known) is None
    world.host("atlas").mend()
    until(lambda: engine.worker("atlas").state is WorkerState.READY, "it is there again")


def test_time_in_which_nobody_listened_does_not_count() -> None:
    monotonic, boot = [100.0], [500.0]
    awake = Awake(lambda: monotonic[0], lambda: boot[0])

    def pass_s(seconds: float, asleep_s: float = 0.0) -> bool:
        monotonic[0] += seconds
        boot[0] += seconds + asleep_s
        return awake.tick()

    assert not pass_s(60)
    assert awake.seconds == 60
    assert pass_s(GAP_S + 600), "stopped for ten minutes"
    assert awake.seconds == 60
    assert pass_s(5, asleep_s=8 * 3600), "the lid was closed"
    assert awake.seconds == 65
    assert not pass_s(1)
