"""Agent and keeper may be killed at any time: tasks go on, and what nobody saw is said to be unknown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent import processes
from tests.remote.client import Driver

GATED = (
    "echo $SCITQ_EXECUTION >> {0}/ran; echo before; while [ ! -e {0}/gate ]; do sleep 0.02; done; echo after; exit 4"
)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def kill(driver: Driver, who: str) -> None:
    """kill -9, then have somebody answer again."""
    held = driver.held()
    pids = {"agent": ["pid"], "keeper": ["keeper"], "both": ["pid", "keeper"]}[who]
    for name in pids:
        os.kill(held[name], signal.SIGKILL)
    for name in pids:
        wait_gone(held[name])
    if who != "keeper":
        driver.close()
        local.ensure(driver.root)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while processes.facts(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def begin(driver: Driver, tmp_path: Path, execution: int = 1, **more: Any) -> int:
    driver.say({"order": execution, "task": 1, "script": GATED.format(tmp_path), **more})
    while driver.ask("GET", f"/output/{execution}/out?wait=10").body != b"before\n":
        pass
    pid: int = driver.seen("pid", execution)["pid"]
    return pid


def segment(root: Path) -> Path:
    return sorted((root / "journal").glob("*.log"))[-1]


def test_a_killed_agent_is_not_noticed_by_tasks(driver: Driver, tmp_path: Path, gate: Path) -> None:
    begin(driver, tmp_path)
    kill(driver, "agent")
    assert driver.held()["held"] == {"1": "running"}
    gate.touch()
    line = driver.exit_of(1)
    assert (line["code"], line["why"], line["o"]) == (4, None, "before\nafter\n")
    assert (tmp_path / "ran").read_text() == "1\n"


@pytest.mark.promise("lessons 3.5.3")
def test_exits_while_no_agent_runs_are_reported_later(driver: Driver, tmp_path: Path, gate: Path) -> None:
    begin(driver, tmp_path)
    os.kill(driver.held()["pid"], signal.SIGKILL)
    gate.touch()
    deadline = time.monotonic() + 30
    while b'"k":"exit"' not in segment(driver.root).read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.close()
    local.ensure(driver.root)
    assert driver.exit_of(1)["code"] == 4


@pytest.mark.parametrize("who", ["keeper", "both"])
def test_a_task_that_outlives_its_keeper_is_adopted(driver: Driver, tmp_path: Path, gate: Path, who: str) -> None:
    begin(driver, tmp_path)
    kill(driver, who)
    driver.until(lambda: driver.held()["held"] == {"1": "running"})
    driver.say({"order": 1, "task": 1, "script": GATED.format(tmp_path)}, {"slots": 1}, {"order": 2, "argv": ["true"]})
    assert driver.held()["held"] == {"1": "running", "2": "queued"}, "its slot stays taken"
    gate.touch()
    line = driver.exit_of(1)
    assert (line["code"], line["sig"], line["why"], line["o"]) == (None, None, "unknown", "before\nafter\n")
    assert driver.exit_of(2)["code"] == 0
    assert (tmp_path / "ran").read_text() == "1\n"


def test_a_task_that_ended_with_nobody_watching_is_unknown(driver: Driver, tmp_path: Path, gate: Path) -> None:
    pid = begin(driver, tmp_path)
    held = driver.held()
    os.kill(held["pid"], signal.SIGKILL)
    os.kill(held["keeper"], signal.SIGKILL)
    wait_gone(held["keeper"])
    gate.touch()
    wait_gone(pid)
    driver.close()
    local.ensure(driver.root)
    line = driver.exit_of(1)
    assert (line["why"], line["o"]) == ("unknown", "before\nafter\n")


def test_queued_orders_go_on_after_the_death_of_both(driver: Driver, tmp_path: Path, gate: Path) -> None:
    driver.say({"slots": 1})
    begin(driver, tmp_path)
    driver.say(*({"order": n, "task": n, "argv": ["echo", str(n)]} for n in range(2, 6)))
    driver.say({"cancel": 3})
    held = driver.held()
    os.kill(held["pid"], signal.SIGKILL)
    os.kill(held["keeper"], signal.SIGKILL)
    driver.close()
    local.ensure(driver.root)
    gate.touch()
    assert [driver.exit_of(n)["why"] for n in range(1, 6)] == ["unknown", None, "cancel", None, None]
    assert [driver.output(n) for n in (2, 4, 5)] == [b"2\n", b"4\n", b"5\n"]


def test_timeout_and_cancel_work_on_adopted_tasks(driver: Driver, tmp_path: Path) -> None:
    begin(driver, tmp_path, timeout=1.0)
    begin(driver, tmp_path, 2)
    kill(driver, "keeper")
    line = driver.exit_of(1)
    assert line["why"] == "unknown" and line["run"] >= 1.0
    driver.say({"cancel": 2})
    assert driver.exit_of(2)["why"] == "unknown"


def test_an_end_begun_by_one_keeper_is_finished_by_the_next(driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "script": "trap '' TERM; echo before; while :; do sleep 0.05; done"})
    while driver.ask("GET", "/output/1/out?wait=10").body != b"before\n":
        pass
    driver.say({"cancel": 1, "grace": 0.5})
    kill(driver, "keeper")
    assert driver.exit_of(1)["why"] == "unknown"
    assert driver.held()["held"] == {}


def test_leftovers_are_killed_by_the_next_keeper(driver: Driver, tmp_path: Path) -> None:
    text = (
        f"(trap '' TERM; touch {tmp_path}/in; sleep 60; sleep 60) & while [ ! -e {tmp_path}/in ]; do :; done; echo $!"
    )
    driver.script(1, text, grace=1)
    child = int(driver.output(1))
    kill(driver, "keeper")
    driver.run(2, "true")
    driver.until(lambda: processes.facts(child) is None)


def test_a_task_whose_pid_was_not_written_down_is_found(driver: Driver, tmp_path: Path, gate: Path) -> None:
    begin(driver, tmp_path)
    both_die_and(driver, lambda text: b"".join(x for x in text.splitlines(True) if b'"pid","id"' not in x))
    driver.close()
    local.ensure(driver.root)
    driver.until(lambda: driver.held()["held"] == {"1": "running"})
    gate.touch()
    assert driver.exit_of(1)["o"] == "before\nafter\n"


def both_die_and(driver: Driver, change: Any) -> None:
    """Kill agent and keeper, then change the text of the journal's last segment."""
    held = driver.held()
    for name in ("pid", "keeper"):
        os.kill(held[name], signal.SIGKILL)
    for name in ("pid", "keeper"):
        wait_gone(held[name])
    path = segment(driver.root)
    path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen]:
    """A process that is none of ours, leader of its own session."""
    env = {"PATH": "/usr/bin:/bin", "SCITQ_EXECUTION": "9", "SCITQ_JOURNAL": "another"}
    with subprocess.Popen(["sleep", "60"], start_new_session=True, env=env) as process:
        yield process
        assert process.poll() is None, "a stranger was ended"
        process.kill()


@pytest.mark.parametrize("since", ["then", "now"])
def test_a_recycled_pid_is_never_taken_for_the_task(driver: Driver, stranger: subprocess.Popen, since: str) -> None:
    driver.script(1, "echo first")
    found = processes.facts(stranger.pid)
    assert found is not None
    begun = found.started if since == "now" else found.started - 3600

    def fake(text: bytes) -> bytes:
        start = {"k": "start", "id": 9, "slot": 0, "at": 0, "b": begun, "m": 0, "timeout": 0.1, "grace": 0}
        pid = {"k": "pid", "id": 9, "pid": stranger.pid, "b": begun}
        return text + b"".join(json.dumps(line).encode() + b"\n" for line in (start, pid))

    both_die_and(driver, fake)
    driver.close()
    local.ensure(driver.root)
    assert driver.exit_of(9)["why"] == "unknown"
    driver.run(10, "true")


@pytest.mark.parametrize(
    "torn", [b'{"k":"exit","id":1,"co', b'{"k":"exit","id":1}\n{"k', b"\0\0\0\0", b"garbage\n", b"\n"]
)
def test_a_torn_last_line_is_cut_off(driver: Driver, torn: bytes) -> None:
    driver.run(1, "echo", "one")
    both_die_and(driver, lambda text: text + torn.replace(b'"id":1}', b'"id":1,"slot'))
    driver.close()
    local.ensure(driver.root)
    driver.run(2, "echo", "two")
    for line in segment(driver.root).read_bytes().splitlines():
        json.loads(line)
    assert [driver.output(n) for n in (1, 2)] == [b"one\n", b"two\n"]


def test_a_start_whose_line_was_torn_away_runs_from_the_stored_order(driver: Driver, tmp_path: Path) -> None:
    driver.say({"slots": 0}, {"order": 1, "task": 1, "script": f"echo ran >> {tmp_path}/ran"})
    both_die_and(driver, lambda text: text + b'{"k":"start","id":1,"slo')
    driver.close()
    local.ensure(driver.root)
    driver.say({"slots": 1})
    assert driver.exit_of(1)["code"] == 0
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_after_a_reboot_a_new_journal_tells_everything_again(driver: Driver, tmp_path: Path) -> None:
    driver.run(1, "echo", "one")
    driver.script(2, "echo x > $OUTPUT/f; head -c 20000 /dev/zero; exit 1")
    begin(driver, tmp_path, 3)
    driver.say({"order": 4, "task": 4, "script": "sleep 60"})
    driver.seen("start", 4)
    driver.say({"slots": 1}, {"order": 5, "task": 5, "argv": ["echo", "five"]})
    boot = processes.boot_id().encode()
    before = driver.journal

    both_die_and(driver, lambda text: text.replace(boot, b"0" * len(boot)))
    for group in {each.group for n in ("3", "4") for each in processes.with_execution(n, before).values()}:
        os.killpg(group, signal.SIGKILL)
    driver.close()
    driver.exits.clear()
    driver.lines.clear()
    local.ensure(driver.root)
    assert driver.exit_of(5)["o"] == "five\n", "an order that had not started goes on"
    assert driver.journal != before
    assert [driver.exits[str(n)]["why"] for n in (1, 2, 3, 4)] == [None, None, "unknown", "unknown"]
    assert [driver.output(n) for n in (1, 3)] == [b"one\n", b"before\n"]
    assert driver.output(2) == bytes(20000)
    assert driver.lines[0]["gen"] == 1


def test_without_a_journal_stored_orders_are_not_run(driver: Driver, tmp_path: Path) -> None:
    driver.run(1, "sh", "-c", f"echo ran >> {tmp_path}/ran")
    held = driver.held()
    for name in ("pid", "keeper"):
        os.kill(held[name], signal.SIGKILL)
        wait_gone(held[name])
    segment(driver.root).unlink()
    driver.close()
    local.ensure(driver.root)
    driver.run(2, "true")
    assert (tmp_path / "ran").read_text() == "ran\n"


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_keeper_whose_agent_was_killed_before_it_was_ready_does_not_wait_for_another(
    tmp_path: Path, is_awaited: bool
) -> None:
    listening, ready = os.pipe()
    if not is_awaited:
        os.close(listening)
    command = [sys.executable, "-m", "scitq.remote.agent", "keeper", "--root", str(tmp_path / "root")]
    with subprocess.Popen([*command, "--ready-fd", str(ready)], pass_fds=[ready]) as keeper:
        os.close(ready)
        if is_awaited:
            assert os.read(listening, 1) == b""  # it is ready
            os.close(listening)
            local.stop(tmp_path / "root")
        assert keeper.wait(30) == 0
