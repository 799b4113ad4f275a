"""Cancel, timeout and cap: how an execution is ended before its own end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from scitq.remote import local
from scitq.remote.agent.processes import facts
from tests.remote.client import Driver

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def started(driver: Driver, execution: int, text: str = "echo") -> int:
    """Wait until a running execution has written something; return its pid."""
    while not driver.ask("GET", f"/output/{execution}/out?wait=10").body.startswith(text.encode()):
        pass
    pid: int = driver.seen("pid", execution)["pid"]
    return pid


def test_a_timeout_ends_the_whole_group(driver: Driver, tmp_path: Path) -> None:
    line = driver.script(1, f"sleep 60 & echo $! > {tmp_path}/child; sleep 60", timeout=0.8)
    assert (line["why"], line["code"], line["sig"]) == ("timeout", None, signal.SIGTERM)
    assert 0.8 <= line["run"] < 30
    child = int((tmp_path / "child").read_text())
    driver.until(lambda: facts(child) is None)


def test_who_ignores_term_is_killed_after_the_grace(driver: Driver) -> None:
    line = driver.script(1, STUBBORN, timeout=0.8, grace=0.3)
    assert (line["why"], line["sig"]) == ("timeout", signal.SIGKILL)
    assert line["run"] >= 0.5 and line["o"] == "ready\n"


def test_who_uses_the_grace_to_tidy_up_is_heard(driver: Driver) -> None:
    line = driver.script(1, "trap 'echo tidy; exit 5' TERM; echo ready; while :; do sleep 0.02; done", timeout=1.0)
    assert (line["why"], line["code"], line["o"]) == ("timeout", 5, "ready\ntidy\n")


def test_a_stopped_task_can_be_ended(driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "script": "echo ready; kill -STOP $$; sleep 60"})
    started(driver, 1, "ready")
    driver.say({"cancel": 1})
    assert driver.exit_of(1)["sig"] == signal.SIGTERM


def test_a_running_execution_is_cancelled(driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "script": "echo ready; sleep 60"})
    started(driver, 1, "ready")
    driver.say({"cancel": 1}, {"cancel": 1})
    line = driver.exit_of(1)
    assert (line["why"], line["sig"], line["o"]) == ("cancel", signal.SIGTERM, "ready\n")


def test_a_second_cancel_may_shorten_the_grace(driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "script": STUBBORN})
    started(driver, 1, "ready")
    driver.say({"cancel": 1, "grace": 3600})
    driver.say({"cancel": 1, "grace": 0})
    assert driver.exit_of(1)["sig"] == signal.SIGKILL


def test_a_queued_execution_is_cancelled_and_never_runs(driver: Driver) -> None:
    driver.say({"slots": 0}, {"order": 1, "task": 1, "argv": ["true"]}, {"cancel": 1}, {"slots": 1})
    line = driver.exit_of(1)
    assert (line["why"], line["code"], line["sig"], line["run"]) == ("cancel", None, None, 0.0)
    driver.run(2, "true")
    assert not [line for line in driver.lines if line["k"] == "start" and line["id"] == 1]


@pytest.mark.promise("core 11.7")
def test_an_unknown_execution_is_cancelled_before_its_order_comes(driver: Driver) -> None:
    driver.say({"cancel": 1})
    assert driver.exit_of(1)["why"] == "cancel"
    driver.say({"order": 1, "task": 1, "argv": ["true"]})
    driver.run(2, "true")
    assert not [line for line in driver.lines if line["k"] == "start" and line["id"] == 1]


def test_an_ended_execution_cannot_be_cancelled(driver: Driver) -> None:
    driver.run(1, "true")
    driver.say({"cancel": 1})
    driver.run(2, "true")
    assert [line["why"] for line in driver.lines if line["k"] == "exit"] == [None, None]


def test_a_signal_reaches_the_group(driver: Driver) -> None:
    driver.say(
        {"order": 1, "task": 1, "script": "trap 'echo usr; exit 9' USR1; echo ready; while :; do sleep 0.02; done"}
    )
    started(driver, 1, "ready")
    driver.say({"signal": 1, "number": int(signal.SIGUSR1)})
    assert (driver.exit_of(1)["code"], driver.exits["1"]["o"]) == (9, "ready\nusr\n")


def test_output_beyond_the_cap_is_cut_and_the_cut_is_announced(driver: Driver) -> None:
    line = driver.script(1, "head -c 50000 /dev/zero; echo small >&2", cap=20000)
    assert (line["on"], line.get("ocut"), line["en"], line.get("ecut")) == (20000, True, 6, None)
    assert driver.output(1) == bytes(20000)
    line = driver.script(2, "head -c 50000 /dev/zero >&2", cap=100)
    assert (line["en"], line["ecut"], line["e"]) == (100, True, "\0" * 100)


def test_a_running_stream_is_kept_near_its_cap(driver: Driver, root: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = f"head -c 3000000 /dev/zero; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    driver.say({"order": 1, "task": 1, "script": text, "cap": 1000})
    slot = driver.seen("start", 1)["slot"]
    driver.until(lambda: (root / "slot" / str(slot) / "out").stat().st_size == 1000)
    gate.touch()
    line = driver.exit_of(1)
    assert (line["on"], line["ocut"]) == (1000, True)


def test_children_left_behind_are_ended_but_the_slot_is_free_at_once(driver: Driver, tmp_path: Path) -> None:
    driver.say({"slots": 1})
    text = f"(trap '' TERM; echo in > {tmp_path}/in; sleep 60; sleep 60) & while [ ! -e {tmp_path}/in ]; do :; done; echo $!"
    line = driver.script(1, text, grace=1)
    assert line["code"] == 0 and line["left"]
    child = int(driver.output(1))
    driver.run(2, "true")
    driver.until(lambda: facts(child) is None)


def test_stopping_waits_only_as_long_as_anything_is_left(driver: Driver, root: Path) -> None:
    driver.script(1, "sleep 0.3 & exit 0", grace=3600)
    driver.say({"order": 2, "task": 2, "script": "echo ready; while :; do sleep 0.02; done", "grace": 3600})
    started(driver, 2, "ready")
    driver.close()
    local.stop(root)  # raises after 30 s
