"""The owner of a worker comes first: hours, logins, and how far tasks stand back."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent import machine, polite
from scitq.remote.agent.orders import BadOrder
from tests.remote.client import Driver


def hours(first: int, last: int) -> str:
    """From so many hours from now to so many."""
    now = time.localtime().tm_hour
    return f"{(now + first) % 24:02d}:00-{(now + last) % 24:02d}:00"


NOW, NOT_NOW = hours(-1, 3), hours(4, 6)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "21:59", "12:00"]),
     ("09:30-10:00", ["09:30", "09:59"], ["09:29", "10:00", "00:00"])],
)  # fmt: skip
def test_hours_may_go_past_midnight(text: str, inside: list[str], outside: list[str]) -> None:
    assert all(polite.is_within(text, time.strptime(each, "%H:%M")) for each in inside)
    assert not any(polite.is_within(text, time.strptime(each, "%H:%M")) for each in outside)


@pytest.mark.parametrize("said", [3, {"nice": 20}, {"nice": True}, {"nice": -1}, {"hours": "7-8"}, {"hours": 7},
                                  {"hours": "24:00-07:00"}, {"hours": "07:00-07:00"}, {"yield": "on"}])  # fmt: skip
def test_what_makes_no_sense_is_refused(said: Any) -> None:
    with pytest.raises(BadOrder, match="polite"):
        polite.checked(said)


def utmp(kind: int, pid: int, user: bytes, line: bytes) -> bytes:
    return struct.pack("hi32s4s32s256s52x", kind, pid, line, b"", user, b"far")


def test_who_is_logged_in_has_a_terminal_or_a_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polite, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(polite, "SESSIONS", str(tmp_path / "sessions"))
    assert polite.logged_in() == []
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    rows = [
        utmp(7, os.getpid(), b"alice", b"pts/1"),
        utmp(8, os.getpid(), b"bob", b"pts/2"),
        utmp(7, gone, b"carl", b"tty1"),
    ]
    (tmp_path / "utmp").write_bytes(b"".join(rows) + b"torn")
    (tmp_path / "sessions").mkdir()
    for name, text in {
        "1": "USER=alice\nCLASS=user\nTTY=pts/1\nSTATE=active\n",
        "2": "USER=dora\nCLASS=user\nSEAT=seat0\nSTATE=online\n",
        "3": "USER=scitq\nCLASS=user\nSERVICE=sshd\nSTATE=active\n",  # as of a connection without a terminal
        "4": "USER=eve\nCLASS=user\nTTY=tty1\nSTATE=closing\n",
        "5": "USER=gdm\nCLASS=greeter\nSEAT=seat0\nSTATE=active\n",
    }.items():
        (tmp_path / "sessions" / name).write_text(text)
    assert polite.logged_in() == ["alice (pts/1)", "dora (seat0)"]


def why(driver: Driver) -> str | None:
    found: str | None = driver.ask("GET", "/stats").json()["polite"]
    return found


def test_nothing_is_started_outside_of_its_hours_and_what_runs_goes_on(driver: Driver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    driver.say({"order": 1, "script": f"echo go; while [ ! -e {gate} ]; do sleep 0.02; done; echo end"})
    driver.wait_for(1, b"go\n")
    assert why(driver) is None
    driver.say({"polite": {"hours": NOT_NOW}}, {"order": 2, "script": "echo late"})
    assert why(driver) == f"it is outside of its hours, {NOT_NOW}"
    assert driver.held()["polite"]["asked"] == {"hours": NOT_NOW}
    gate.touch()
    assert driver.exit_of(1)["o"] == "go\nend\n"
    assert driver.held()["held"] == {"2": "queued"}
    driver.say({"polite": {"hours": NOW}})
    assert driver.exit_of(2)["o"] == "late\n" and why(driver) is None


@pytest.mark.parametrize("who", ["nobody", "keeper"])
def test_what_runs_stands_still_if_that_is_wanted_and_is_woken_by_whoever_comes(
    driver: Driver, root: Path, tmp_path: Path, who: str
) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    gate = tmp_path / "gate"
    driver.say({"order": 1, "script": f"while [ ! -e {gate} ]; do sleep 0.02; done; echo end"})
    pid = driver.seen("pid", 1)["pid"]
    driver.say({"polite": {"hours": NOT_NOW, "suspend": True}})
    driver.until(lambda: state(pid) == "T")
    if who == "keeper":
        os.kill(driver.held()["keeper"], signal.SIGKILL)
        driver.until(lambda: len([line for line in driver.lines if line["k"] == "keeper"]) == 2)
    driver.say({"signal": 1, "number": signal.SIGSTOP} if who == "nobody" else {"slots": 2})
    gate.touch()
    driver.say({"polite": None})
    if who == "nobody":  # its user wants it to stand still as well
        assert state(pid) == "T" and driver.held()["held"] == {"1": "running"}
        driver.say({"signal": 1, "number": signal.SIGCONT})
    assert driver.exit_of(1)["why"] == (None if who == "nobody" else "unknown")


def test_a_later_keeper_is_as_polite(driver: Driver, root: Path) -> None:
    driver.say({"polite": {"hours": NOT_NOW, "nice": 7}}, {"order": 1, "script": "nice"})
    held = driver.held()
    for pid in (held["pid"], held["keeper"]):
        os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root, linger=60)
    assert driver.held()["held"] == {"1": "queued"} and why(driver)
    driver.say({"polite": {"nice": 7}})
    assert driver.exit_of(1)["code"] == 0


def test_tasks_stand_back_and_those_that_run_as_well(driver: Driver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.02; done; nice"
    driver.say({"order": 1, "script": wait})
    driver.seen("pid", 1)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    driver.say({"polite": {"nice": 7}}, {"order": 2, "script": wait})
    driver.seen("pid", 2)
    gate.touch()
    assert {driver.exit_of(number)["o"] for number in (1, 2)} == {f"{max(own, 7)}\n"}


def test_a_wish_without_sense_is_refused_and_changes_nothing(driver: Driver) -> None:
    driver.say({"polite": {"hours": "now"}})
    bad = driver.until(lambda: next((line for line in driver.lines if line["k"] == "bad"), None))
    assert "hours must be like" in bad["note"] and driver.run(1, "true")["code"] == 0


def test_statistics_tell_of_disks_network_and_uptime(driver: Driver) -> None:
    told = driver.ask("GET", "/stats").json()
    assert told["uptime"] > 0 and {"net_in", "net_out"} <= told.keys()
    assert all(size >= free >= 0 and path.startswith("/") for path, (size, free) in told["disks"].items())
    assert machine.network().keys() == {"net_in", "net_out"}
