"""Processes that stand still for longer than any timeout, and clocks that do not agree.

A driver is stopped (SIGSTOP) while its clocks and its worker's run differently; or another one takes over meanwhile; or the
clock of the whole machine is set while work goes on. Nothing is lost, nothing runs twice, and who was replaced writes nothing
more and says so.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import LIVE, Outcome, TaskState
from scitq.store.locks import holder_of, is_stopped
from tests.crash import scenario
from tests.crash.clocks import Clocks
from tests.crash.conftest import SCENARIO, problems, reset, rounds
from tests.engine.test_engine import until

WAIT_S = 120
HOURS_2 = 7200.0
DAY = 86_400.0

Process = subprocess.Popen[bytes]
Start = Callable[..., Process]


@pytest.fixture
def start(state_file: Path) -> Iterator[Start]:
    """Starts a module as a process with the given clocks; what is left of it is ended with the test."""
    started: list[Process] = []

    def begin(clocks: Clocks, *words: str) -> Process:
        with open("said", "wb") as sink:
            process = subprocess.Popen(
                [*clocks.command(), "-m", *words],
                env={**os.environ, "PYTHONPATH": str(SCENARIO.parents[2]), "SCITQ_WAIT": "1e6"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sink,
            )  # fmt: skip
        Path("said").rename(f"said.{process.pid}")
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    root = state_file.with_name(state_file.name + ".d") / "local"
    if root.is_dir():
        local.stop(root)


def said(process: Process) -> bytes:
    """What it wrote on stderr so far."""
    return Path(f"said.{process.pid}").read_bytes()


def freeze(process: Process, side: Path) -> bool:
    """Stop it, but not inside a transaction, where it would keep everybody from writing; False if it has ended."""
    while process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: is_stopped(process.pid) or process.poll() is not None, "the stop")
        if process.poll() is not None:
            return False
        if holder_of(side / "write.lock") != process.pid:
            return True
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.001)
    return False


def test_a_driver_frozen_while_another_takes_over_stops_writing_and_says_so(
    start: Start, state_file: Path, dice: random.Random
) -> None:
    tries = 0
    for number in range(rounds(2, 0.3)):
        while not replace_while_frozen(start, state_file, dice):
            tries += 1
            assert tries < 100 + 2 * number, "it is never frozen in the middle of its work"
            reset(state_file)
        assert problems(state_file) == [], f"round {number}"
        reset(state_file)
    print(f"{number + 1} drivers replaced")


def replace_while_frozen(start: Start, state_file: Path, dice: random.Random) -> bool:
    """One round; False if the first driver was done before it could be stopped."""
    clocks = Clocks(state_file.with_name("clocks"))
    with Engine(state_file, drive=False):
        pass
    old = start(clocks, "tests.crash.scenario", str(state_file))
    until(lambda: old.poll() is not None or _epoch(state_file) == 1, "the first driver")
    time.sleep(dice.uniform(0.0, 0.6))
    if not freeze(old, state_file.with_name("lab.scitq.d")):
        return False
    clocks.jump(wall_s=DAY, monotonic_s=dice.choice([0.0, DAY]))
    with Engine(state_file, linger_s=20) as new:
        if len(rows := new.rows()) == scenario.STEPS and all(row.state.is_settled for row in rows):
            os.kill(old.pid, signal.SIGCONT)
            old.wait(WAIT_S)
            return False
        new.drive()
        until(lambda: new._driver is not None and new._driver._told_of == 1, "the word on the frozen driver")
        assert not new.is_driving
        new.drive(take_over=True)
        until(lambda: new.is_driving, "the second driver")
        new.wait_all(WAIT_S)  # what was submitted so far
        # Something that the frozen one has to wait for when it goes on, so that it would be the driver of it.
        new.submit("while ! [ -e go ]; do sleep 0.02; done", shell=True)
        os.kill(old.pid, signal.SIGCONT)
        # It finds out before it may end …
        until(lambda: old.poll() is not None or b"\n" in said(old), "its word")
        assert b"another driver has taken over lab.scitq; this one writes nothing more" in said(old), said(old).decode()
        Path("go").touch()
        # … submits the rest, and waits for it like anybody else.
        assert old.wait(WAIT_S) == 0, said(old).decode()
        assert new.is_driving and _epoch(state_file) == 2
    return True


def _epoch(state_file: Path) -> int:
    with Engine(state_file, drive=False) as engine:
        return _lead(engine)


def _lead(engine: Engine) -> int:
    [row] = engine.sql("select epoch from lead")
    return int(row["epoch"])


QUICK = 12
AHEAD = 6


def orders(engine: Engine) -> list[int]:
    """Two tasks that run until `go` is there, and more that wait behind them; all kinds of output. The last fails once."""
    gated = "echo $SCITQ_TASK >> ran; echo before; while ! [ -e go ]; do sleep 0.05; done; "
    ids = [int(engine.submit(gated + script, shell=True).id) for script in ("echo after", "echo kept > $OUTPUT/file")]
    for n in range(QUICK):
        script, _ = scenario.step(n % 4)
        ids.append(int(engine.submit(script, shell=True).id))
    retried = "echo $SCITQ_TASK >> ran; [ -e tried ] || { touch tried; exit 3; }; echo again"
    ids.append(int(engine.submit(retried, shell=True, retry=1, retry_delay=1.0).id))
    return ids


def give(engine: Engine) -> list[int]:
    """Submit them when the worker will take two to run and AHEAD to wait, and no more."""
    until(lambda: bool(engine.workers()), "the worker")
    engine.update_worker("local", concurrency=2, prefetch=AHEAD)
    ids = orders(engine)
    until(lambda: set(ran()) >= set(ids[:2]), "the gated tasks")
    until(lambda: sum(engine.counts().get(state, 0) for state in LIVE) == 2 + AHEAD, "those that wait at the worker")
    return ids


def expected(n: int) -> bytes:
    """What the n-th of the orders writes."""
    if n < 2:
        return (b"before\nafter\n", b"before\n")[n]
    return scenario.expected((n - 2) % 4) if n < 2 + QUICK else b"again\n"


def ran() -> Counter[int]:
    """How often each task really ran."""
    return Counter(map(int, Path("ran").read_text().split())) if Path("ran").exists() else Counter()


def unsound(engine: Engine, ids: list[int]) -> list[str]:
    """What is not as it would be had nobody stood still and no clock been touched."""
    found = list(engine.check())
    for n, id in enumerate(ids):
        task = engine.task(id)
        outcomes = Counter(attempt.outcome for attempt in task.executions)
        tries = 2 if n == len(ids) - 1 else 1
        if task.state is not TaskState.SUCCEEDED or outcomes[Outcome.SUCCEEDED] != 1 or outcomes.total() != tries:
            found.append(f"task {id} is {task.state.word} after {outcomes}")
        if ran()[id] != tries:
            found.append(f"task {id} ran {ran()[id]} times")
        if task.output_bytes(0) != expected(n):
            found.append(f"task {id}: the stored output is not what was written")
        for one in task.executions:
            if one.started_ms is None or one.ended_ms is None or not one.assigned_ms <= one.started_ms <= one.ended_ms:
                found.append(f"task {id}: assigned {one.assigned_ms}, started {one.started_ms}, ended {one.ended_ms}")
            if one.run_s is None or not 0 <= one.run_s < 3 * DAY:
                found.append(f"task {id} ran for {one.run_s} s")
    return found


# How far driver and worker find themselves from where they were, in seconds of wall and of monotonic clock.
JUMPS = {
    "a laptop slept, its worker did not": ((HOURS_2, 0.0), (HOURS_2, HOURS_2)),
    "only the worker's clocks went on": ((0.0, 0.0), (HOURS_2, HOURS_2)),
    "only the driver's clocks went on": ((HOURS_2, HOURS_2), (0.0, 0.0)),
    "the driver's clock is behind when it wakes": ((-HOURS_2, 0.0), (HOURS_2, HOURS_2)),
}


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
@pytest.mark.promise("lessons 3.5.1")
def test_a_driver_suspended_for_two_hours_with_orders_out_reruns_and_loses_nothing(
    start: Start, state_file: Path, dice: random.Random, jumps: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    for number in range(rounds(1, 0.15)):
        assert suspend_for_two_hours(start, state_file, dice, jumps) == [], f"round {number}"
        reset(state_file)


def suspend_for_two_hours(
    start: Start, state_file: Path, dice: random.Random, jumps: tuple[tuple[float, float], tuple[float, float]]
) -> list[str]:
    """One round; what was not in order."""
    mine, theirs = Clocks(state_file.with_name("driver-clocks")), Clocks(state_file.with_name("agent-clocks"))
    with Engine(state_file, drive=False) as engine:
        local.ensure(engine.side / "local", linger=1e6, command=theirs.command())
        driver = start(mine, "scitq", "--file", str(state_file), "up")
        ids = give(engine)
        time.sleep(dice.uniform(0.0, 0.3))
        assert freeze(driver, engine.side)
        for clocks, (wall_s, monotonic_s) in ((mine, jumps[0]), (theirs, jumps[1])):
            clocks.jump(wall_s=wall_s, monotonic_s=monotonic_s)
        Path("go").touch()
        # The worker goes on with what it was given beforehand, while nobody listens.
        until(lambda: set(ran()) >= set(ids[: 2 + AHEAD]), "what the worker holds")
        assert is_stopped(driver.pid) and not set(ran()) & set(ids[2 + AHEAD :])
        os.kill(driver.pid, signal.SIGCONT)
        engine.wait_all(WAIT_S)
        stop(driver)
        return unsound(engine, ids)


def stop(driver: Process) -> None:
    """End `scitq up` as a person does; it must not have met anything unforeseen."""
    driver.send_signal(signal.SIGINT)
    assert driver.wait(WAIT_S) == 130 and b"Traceback" not in said(driver), said(driver).decode()


@pytest.mark.parametrize("jump_s", [DAY, -DAY], ids=["a day forward", "a day back"])
def test_a_machine_whose_clock_is_set_while_it_works_loses_nothing_and_waits_for_nothing(
    start: Start, state_file: Path, dice: random.Random, jump_s: float
) -> None:
    """The wall clock of driver, agent and keeper; the monotonic one goes on as ever, so no time limit strikes."""
    for number in range(rounds(1, 0.15)):
        assert set_the_clock(start, state_file, dice, jump_s) == [], f"round {number}"
        reset(state_file)


def set_the_clock(start: Start, state_file: Path, dice: random.Random, jump_s: float) -> list[str]:
    """One round; what was not in order."""
    clocks = Clocks(state_file.with_name("clocks"))
    with Engine(state_file, drive=False) as engine:
        local.ensure(engine.side / "local", linger=1e6, command=clocks.command())
        driver = start(clocks, "scitq", "--file", str(state_file), "up")
        ids = give(engine)
        limited = engine.submit("sleep 300", shell=True, run_timeout=1.5)
        Path("go").touch()
        until(lambda: Path("tried").exists(), "the task that will be retried")
        time.sleep(dice.uniform(0.0, 0.5))
        clocks.jump(wall_s=jump_s)
        engine.wait_all(WAIT_S)
        last = limited.executions[-1]
        assert last.outcome is Outcome.TIMED_OUT and last.run_s is not None and 1.0 < last.run_s < 60.0
        holder = engine.driver()
        assert holder is not None and holder.pid == driver.pid and _lead(engine) == 1
        stop(driver)
        return unsound(engine, ids)
