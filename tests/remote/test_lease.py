"""Who may publish, and until when: leases, and the ends of executions that the driver has given up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.fetch.errors import Cancelled
from scitq.fetch.retry import Cancel
from scitq.remote import local
from scitq.remote.agent import lease, processes
from scitq.remote.agent.lease import Lease
from scitq.remote.agent.manifest import NAME
from scitq.remote.agent.recovery import Facts
from tests.remote.client import Driver


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that counts from boot, to be set."""
    now = [1000.0]
    monkeypatch.setattr(processes, "boot_time", lambda: now[0])
    return now


def test_who_was_never_leased_is_free_and_who_was_is_so_while_it_lasts(tmp_path: Path, clock: list[float]) -> None:
    free = Lease(str(tmp_path))
    assert [free.allows, free.left_s] == [True, None]

    free.take({"lease": 60, "at": 990})
    assert free.allows and free.left_s == 50
    assert Lease(str(tmp_path)).left_s == 50
    clock[0] += 50  # awake or not: this clock goes on
    assert not free.allows and free.left_s == 0
    assert not Lease(str(tmp_path)).allows

    free.take({"lease": 60})
    assert free.left_s == Lease(str(tmp_path)).left_s == 60
    free.take({"lease": 0})
    assert not free.allows and not Lease(str(tmp_path)).allows


def test_an_order_that_was_long_on_its_way_gives_no_more_than_was_meant(tmp_path: Path, clock: list[float]) -> None:
    late = Lease(str(tmp_path))
    late.take({"lease": 60, "at": 900})
    assert not late.allows
    late.take({"lease": 60, "at": 5000})  # nobody can know what our clock will say
    assert late.left_s == 60


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "another", "until": 1e9}', '{"until": 1e9}'])
def test_after_another_boot_or_with_a_damaged_file_the_lease_has_ended(
    tmp_path: Path, clock: list[float], text: str
) -> None:
    (tmp_path / "lease").write_text(text)
    found = Lease(str(tmp_path))
    assert found.is_ruled and not found.allows and found.left_s == 0
    found.take({"lease": 5})
    assert Lease(str(tmp_path)).left_s == 5


def test_a_first_lease_that_cannot_be_stored_is_none_and_a_later_one_is(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    found = Lease(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            found.take({"lease": 60})
    assert found.allows and not found.is_ruled
    found.take({"lease": 60})
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        found.take({"lease": 90})
    assert found.left_s == 90 and Lease(str(tmp_path)).left_s == 60


@pytest.mark.parametrize("said", [{"lease": -1}, {"lease": True}, {"lease": "60"}, {"lease": float("nan")},
                                  {"lease": float("inf")}, {"lease": 60, "at": None}])  # fmt: skip
def test_a_lease_without_sense_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(lease.BadLease, match="must be a number of seconds"):
        lease.checked(said)


def test_what_ends_by_itself_stays_ended_and_wakes_who_waits() -> None:
    over: list[bool] = []
    woken = threading.Event()
    cancel = Cancel(lambda: bool(over))
    with cancel.waking(woken.set):
        cancel.check()
        assert not woken.is_set()
        over.append(True)
        with pytest.raises(Cancelled):
            cancel.check()
        over.clear()
        assert cancel.is_set and woken.is_set() and cancel.wait(0)


# An agent.


def leased(driver: Driver, seconds: float) -> None:
    driver.say({"lease": seconds, "at": driver.held()["clock"]})


def publish(number: int, place: Path, text: str = "echo x > $OUTPUT/x", **more: Any) -> dict[str, Any]:
    return {"order": number, "script": text, "output": str(place), "owner": f"file:{number}", "overwrite": True, **more}


def test_held_tells_the_clock_and_what_is_left_of_the_lease(driver: Driver) -> None:
    before = driver.held()
    assert before["leased"] is None and before["clock"] <= processes.boot_time()
    driver.say({"lease": 1000, "at": before["clock"]})
    after = driver.held()
    assert after["leased"] == pytest.approx(before["clock"] + 1000 - after["clock"], abs=0.5)
    reply = driver.ask("POST", "/commands", b'{"order": 1, "argv": ["true"]}\n{"lease": "x"}\n')
    assert reply.status == 400 and "line 2: lease must be" in reply.json()["error"] and not driver.held()["held"]


def test_an_output_waits_for_the_lease_and_what_stays_here_does_not(driver: Driver, tmp_path: Path) -> None:
    leased(driver, 0)
    driver.say(publish(1, tmp_path / "one"), publish(2, tmp_path / "two", "echo x > $OUTPUT/x; exit 1",
                                                     failed=str(tmp_path / "two.failed")))  # fmt: skip
    assert driver.exit_of(1)["collect"] and driver.exit_of(2)["collect"]
    driver.script(3, "echo y > $OUTPUT/y", deliver=str(tmp_path / "three"))
    assert driver.seen("collected", 3)["ok"]
    assert driver.held()["held"] == {"1": "collecting", "2": "collecting"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["three", "worker"]

    leased(driver, 100)
    assert driver.seen("collected", 1)["ok"] and driver.seen("collected", 2)["ok"]
    assert (tmp_path / "one" / NAME).exists() and (tmp_path / "two.failed" / "x").exists()


def test_a_killed_agent_is_followed_by_one_that_waits_as_well(driver: Driver, root: Path, tmp_path: Path) -> None:
    leased(driver, 0)
    driver.say(publish(1, tmp_path / "one"))
    driver.exit_of(1)
    os.kill(driver.ask("GET", "/ping").json()["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(root, linger=60)
    held = driver.held()
    assert (held["leased"], held["held"]) == (0, {"1": "collecting"})
    driver.script(2, "echo y > $OUTPUT/y", deliver=str(tmp_path / "two"))
    driver.seen("collected", 2)
    assert not (tmp_path / "one").exists()
    leased(driver, 100)
    assert driver.seen("collected", 1)["ok"]


@pytest.fixture
def large(root: Path, tmp_path: Path) -> Iterator[Path]:
    """The file that makes publishing it take a minute at least: until it is made small."""
    yield root / "exec" / "1" / "output" / "large"


LARGE = "truncate -s 200G $OUTPUT/large"


def reads(driver: Driver, path: Path) -> bool:
    """Whether the agent has that file open."""
    fds = Path(f"/proc/{driver.held()['pid']}/fd")
    for each in fds.iterdir():
        try:
            if os.readlink(each) == str(path):
                return True
        except OSError:
            continue
    return False


def test_at_the_end_of_the_lease_it_is_broken_off_and_the_next_one_lets_it_begin_again(
    driver: Driver, tmp_path: Path, large: Path
) -> None:
    leased(driver, 1000)
    driver.say(publish(1, tmp_path / "one", LARGE))
    driver.until(lambda: reads(driver, large))
    leased(driver, 0.05)
    driver.until(lambda: not reads(driver, large))
    assert driver.held()["held"] == {"1": "collecting"} and driver.held()["leased"] == 0
    assert not any(line["k"] == "collected" for line in driver.lines) and not (tmp_path / "one").exists()

    with large.open("wb") as file:
        file.write(b"small")
    leased(driver, 1000)
    said = driver.seen("collected", 1)
    assert said["ok"] and (tmp_path / "one" / "large").read_bytes() == b"small"
    assert [line["id"] for line in driver.lines if line["k"] == "collected"] == [1]


# What is not live any more ends, wherever it is, and leaves nothing.


@pytest.mark.parametrize("stage", ["queued", "staging", "running", "waiting", "travelling", "failed", "over"])
@pytest.mark.parametrize("killed", ["nobody", "both"])
def test_what_is_not_live_any_more_ends_at_every_stage_and_publishes_nothing(
    driver: Driver, root: Path, tmp_path: Path, large: Path, stage: str, killed: str
) -> None:
    place, gate = tmp_path / "place", tmp_path / "gate"
    leased(driver, 1000 if stage == "travelling" else 0)
    text = f"echo $$; echo x > $OUTPUT/x; while [ ! -e {gate} ]; do sleep 0.02; done"
    if stage in ("waiting", "failed", "over"):
        gate.touch()
    more: dict[str, Any] = {"failed": f"{place}.failed/1", "grace": 0}
    if stage == "queued":
        driver.say({"slots": 0})
    if stage == "staging":
        more |= {"input": [f"{tmp_path}/fifo|gunzip"]}
        os.mkfifo(tmp_path / "fifo")
    end = {"travelling": LARGE, "failed": f"{text}; exit 1"}.get(stage, text)
    driver.say(publish(1, place, end, **more))
    if stage == "running":
        driver.wait_for(1, b"\n")
    elif stage == "travelling":
        driver.until(lambda: reads(driver, large))
    elif stage in ("waiting", "failed"):
        assert driver.exit_of(1)["collect"]
    elif stage == "over":
        driver.exit_of(1)
        driver.say({"cancel": 1})
        driver.seen("collected", 1)
    wanted = {
        "over": {},
        "failed": {"1": "collecting"},
        "waiting": {"1": "collecting"},
        "travelling": {"1": "collecting"},
    }
    assert driver.held()["held"] == wanted.get(stage, {"1": stage})

    driver.say({"cancel": 1}, {"forget": [1]}, {"lease": 1000})
    if killed != "nobody":
        held = driver.held()
        for pid in (held["pid"], held["keeper"]):
            os.kill(pid, signal.SIGKILL)
        driver.close()
        local.ensure(root, linger=60)

    def is_over() -> bool:
        return driver.held()["held"] == {} and not (root / "exec" / "1").exists()

    driver.until(is_over)
    assert not place.exists() and not Path(f"{place}.failed").exists()
    driver.say({"slots": 1})
    assert driver.run(2, "true")["code"] == 0


def test_a_keeper_that_is_killed_remembers_what_nobody_wants_to_see() -> None:
    facts = Facts(1)
    facts.read(0, {"k": "drop", "id": "1"})
    facts.read(9, {"k": "carry", "running": [], "owed": [], "slots": 1, "acked": 0, "unwanted": ["2"]})
    assert facts.unwanted == {"1", "2"}
