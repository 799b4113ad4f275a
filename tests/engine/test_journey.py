"""Before a journey workers are given what they can do in the time, and what follows from it; on the return all of it is there."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from scitq import sending
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.remote.link import Stream
from scitq.states import TaskState
from scitq.store import executions
from tests.engine.conftest import Opener, sound
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import add


def test_workers_work_on_alone_through_what_follows_from_their_own_work(
    open_engine: Opener, world: World, tmp_path: Path
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=2)
    gate = tmp_path / "gate"
    first = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done; echo first", shell=True, name="first")
    more = [engine.submit("echo more", name=f"more{n}") for n in range(20)]
    second = engine.submit("echo second", requires=[first, more[0]], name="second")
    third = engine.submit("echo third", requires=second, name="third")
    until(lambda: first.state is TaskState.RUNNING, "it runs")
    told = engine.handoff(hours=8, timeout=WAIT_S)
    assert told["workers"][0]["worker"] == "atlas"
    assert (told["workers"][0]["after"], told["left"], told["tied"]) == (2, 0, 0)
    assert "atlas holds it and starts it after" in second.why()
    assert lease_s(world) > 8 * 3600
    driver = engine._driver
    assert driver is not None
    # It does not turn round and round until that has ended.
    until(lambda: (driver._acting.wait_s(time.monotonic(), executions.glance(engine._reader())) or 0) > 0.5, "a rest")
    engine.close()
    gate.touch()
    until(lambda: held(world) == {}, "all is done there, with nobody driving")
    again = open_engine()
    again.drive()
    for task in (first, *more, second, third):
        assert again.task(int(task.id)).wait(WAIT_S) is TaskState.SUCCEEDED
        assert [one.worker for one in again.task(int(task.id)).executions] == ["atlas"]
    until(lambda: lease_s(world) <= 3600, "an ordinary lease again")
    sound(again)


def held(world: World) -> dict[str, str]:
    stream = Stream.to_socket(world.host("atlas").folder)
    try:
        found: dict[str, str] = stream.ask("GET", "/held").json()["held"]
        return found
    finally:
        stream.close()


def lease_s(world: World) -> float:
    stream = Stream.to_socket(world.host("atlas").folder)
    try:
        return float(stream.ask("GET", "/held").json()["leased"] or 0)
    finally:
        stream.close()


def test_when_a_condition_fails_what_waits_for_it_comes_back(engine: Engine, world: World, tmp_path: Path) -> None:
    add(engine, "atlas", concurrency=1)
    gate = tmp_path / "gate"
    first = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done; exit 3", shell=True)
    second = engine.submit("echo second", requires=first)
    third = engine.submit("echo third", requires=second)
    until(lambda: first.state is TaskState.RUNNING, "it runs")
    engine.handoff(timeout=WAIT_S)
    assert (second.state, third.state) == (TaskState.ASSIGNED, TaskState.ASSIGNED)
    gate.touch()
    assert first.wait(WAIT_S) is TaskState.FAILED
    until(lambda: second.state is TaskState.BLOCKED and third.state is TaskState.BLOCKED, "they wait again")
    sound(engine)
    engine.task(int(first.id)).update(command="true", shell=False)
    first.relaunch()
    assert third.wait(WAIT_S) is TaskState.SUCCEEDED
    sound(engine)


def test_what_reads_files_of_this_machine_gets_them_before_the_journey(
    open_engine: Opener, world: World, tmp_path: Path
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=1)
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    gate = tmp_path / "gate"
    engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True)
    until(lambda: engine.counts().get(TaskState.RUNNING) == 1, "one runs")
    engine.update_worker("atlas", prefetch=0)
    tied = engine.submit("cat $INPUT/*", shell=True, input=tmp_path / "file")
    looked = engine.submit(
        "cp $INPUT/file $OUTPUT/", shell=True, input=tmp_path / "file", output=tmp_path / "there/out"
    )
    free = engine.submit("echo free")
    told = engine.handoff(timeout=WAIT_S)
    assert (told["tied"], told["gpus"], told["left"], told["workers"][0]["tasks"]) == (0, 0, 0, 4)
    assert {task.state for task in (tied, looked, free)} <= {TaskState.ASSIGNED, TaskState.STAGING}
    engine.close()
    (tmp_path / "file").write_text("not this any more")
    gate.touch()
    until(lambda: not set(held(world).values()) & {"queued", "staging", "running"}, "all ran there")
    again = open_engine()
    again.drive()
    assert again.task(int(tied.id)).result(WAIT_S).stdout == "x"
    again.task(int(looked.id)).result(WAIT_S)
    assert (tmp_path / "there" / "out" / "file").read_text() == "x"
    sound(again)


def test_what_could_not_be_sent_in_time_is_named_and_so_is_what_wants_a_gpu(
    engine: Engine, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(engine, "atlas", concurrency=2)
    engine.update_worker("atlas", gpus=1)
    gate = tmp_path / "gate"
    engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True)
    engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True, gpus=1)
    until(lambda: engine.counts().get(TaskState.RUNNING) == 2, "two run, one of them on the GPU")
    engine.update_worker("atlas", prefetch=0)
    (tmp_path / "file").write_text("x")
    is_slow = threading.Event()
    monkeypatch.setattr(sending.Line, "file", lambda *_: is_slow.wait(WAIT_S))
    tied = engine.submit("cat $INPUT/*", shell=True, input=tmp_path / "file", name="large")
    wanting = engine.submit("echo $CUDA_VISIBLE_DEVICES", shell=True, gpus=1, name="train")
    told = engine.handoff(timeout=WAIT_S, send=0.2)
    assert (told["tied"], told["gpus"], told["left"], told["workers"][0]["tasks"]) == (1, 1, 0, 2)
    assert told["names"] == {"tied": [f"{tied.id} 'large'"], "gpus": [f"{wanting.id} 'train'"]}
    monkeypatch.undo()
    is_slow.set()
    world.host("atlas").cut()  # what was not sent is sent over the next connection
    world.host("atlas").mend()
    gate.touch()
    assert tied.result(WAIT_S).stdout == "x"
    assert wanting.result(WAIT_S).stdout == "0\n"
    sound(engine)


def test_hours_are_checked(engine: Engine) -> None:
    for hours in (0, -1, True, "8"):
        with pytest.raises(BadInput, match="hours"):
            engine.handoff(hours=hours)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="send must be"):
        engine.handoff(send=-1)


def test_what_one_leaves_is_read_by_the_next_while_nobody_drives(
    open_engine: Opener, world: World, tmp_path: Path
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=2)
    gate = tmp_path / "gate"
    first = engine.submit(
        f"until [ -e {gate} ]; do sleep 0.02; done; mkdir $OUTPUT/sub; echo one > $OUTPUT/sub/a; echo two > $OUTPUT/b",
        shell=True,
    )
    nothing = engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True)
    second = engine.submit(
        "cat $INPUT/sub/a $INPUT/b > $OUTPUT/both; ls $INPUT", shell=True, input=[first.output, nothing.output]
    )
    third = engine.submit("cat $INPUT/both", shell=True, input=second.output)
    part = engine.submit("cat $INPUT/*", shell=True, input=f"task://{first.id}/sub/a")
    until(lambda: first.state is nothing.state is TaskState.RUNNING, "both run")
    assert engine.handoff(timeout=WAIT_S)["workers"][0]["after"] == 3
    engine.close()
    gate.touch()
    until(
        lambda: not set(held(world).values()) & {"queued", "staging", "running"}, "all ran there, with nobody driving"
    )
    again = open_engine()
    again.drive()
    assert again.task(int(third.id)).result(WAIT_S).stdout == "one\ntwo\n"
    assert again.task(int(part.id)).result(WAIT_S).stdout == "one\n"
    assert again.task(int(second.id)).result(WAIT_S).stdout == "b\nsub\n"
    assert (again.side / "outputs" / str(first.id) / "sub" / "a").read_text() == "one\n"
    assert all(len(task.executions) == 1 for task in again.tasks())
    sound(again)


def test_recruiters_hold_on_a_journey_too(engine: Engine, world: World, tmp_path: Path) -> None:
    add(engine, "atlas", "boreas", concurrency=4)
    engine.update_worker("atlas", flavor="big")
    engine.recruiter_create("b", flavor="big", concurrency=1)
    engine.recruiter_create("none", concurrency=0)
    gate = tmp_path / "gate"
    tasks = [engine.submit(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True, batch="b") for _ in range(4)]
    kept = engine.submit("true", batch="none")
    told = engine.handoff(hours=8, timeout=WAIT_S)
    assert {each["worker"]: each["tasks"] for each in told["workers"]} == {"atlas": 4, "boreas": 0}
    until(lambda: sum(task.state is TaskState.RUNNING for task in tasks) == 1, "one at a time")
    assert kept.state is TaskState.PENDING
    gate.touch()
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    sound(engine)
