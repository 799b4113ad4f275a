"""Limits by control groups: kept where this machine lets us make groups, and the reason told where it does not.

Every test holds either way, and prints what it saw (`-rP`): as root on a machine with version 1, the real thing; as
another user, that limits are only asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent import processes
from tests.remote.client import DEADLINE_S, Driver
from tests.remote.test_adoption import kill

HOG = (sys.executable, "-I", "-S", "-c", "x = bytearray(300_000_000)")
SMALL = {"memory": 100_000_000}
STUBBORN_DAEMON = """
setsid sh -c 'trap "" TERM; echo $$ > {0}/daemon.new; mv {0}/daemon.new {0}/daemon; while :; do sleep 0.05; done' &
while [ ! -e {0}/daemon ]; do sleep 0.01; done
echo ready
"""


def can_limit(driver: Driver, what: str) -> bool:
    """Whether this worker keeps executions to a limit; if not, it says why."""
    held = driver.held()
    if what in held["limits"]:
        is_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        print(f"{what}: limited by control groups of version {2 if is_v2 else 1}")
        return True
    print(f"{what}: not limited here: {held['limits_reason']}")
    assert held["limits_reason"]
    return False


def folders(driver: Driver, execution: int) -> list[Path]:
    """The control group of an execution that has started."""
    return [Path(path) for path in driver.seen("start", execution).get("box", [])]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_removed(driver: Driver, execution: int) -> bool:
    """Its group goes with the next thing that the keeper does, at the latest."""
    driver.held()
    return not any(folder.exists() for folder in folders(driver, execution))


def daemon_of(folder: Path) -> int:
    return int((folder / "daemon").read_text())


def test_what_can_be_limited_is_told_and_why_the_rest_is_not(driver: Driver) -> None:
    held = driver.held()
    assert set(held["limits"]) <= {"cpus", "memory"}
    assert (held["limits_reason"] is None) == (len(held["limits"]) == 2)
    if os.geteuid() != 0 and not held["limits"]:
        print(held["limits_reason"])
        assert "Permission denied" in held["limits_reason"] or "divided" in held["limits_reason"]


def test_who_takes_more_memory_than_its_limit_is_out_of_memory(driver: Driver) -> None:
    line = driver.run(1, *HOG, limit=SMALL)
    if can_limit(driver, "memory"):
        assert (line["why"], line["code"], line["sig"]) == ("memory", None, signal.SIGKILL)
        assert line["note"] == "it was killed at its limit of 0.1 GB of memory"
    else:
        assert (line["why"], line["code"]) == (None, 0)
    wait_for(lambda: is_removed(driver, 1))
    assert driver.run(2, "true", limit=SMALL)["code"] == 0


def test_a_killed_part_counts_though_the_rest_goes_well(driver: Driver) -> None:
    line = driver.script(1, f"{' '.join(HOG[:-1])} '{HOG[-1]}'; exit 0", limit=SMALL)
    assert line["code"] in (0, None)  # version 2 kills the shell as well
    assert line["why"] == ("memory" if can_limit(driver, "memory") else None)


def test_the_system_is_told_the_limits(driver: Driver, tmp_path: Path) -> None:
    script = f"echo ready; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"
    driver.say({"order": 1, "task": 1, "script": script, "limit": {**SMALL, "cpus": 0.25}})
    wait_for(lambda: driver.ask("GET", "/output/1/out?wait=10").body == b"ready\n")
    told = {path.name: path.read_text().split() for folder in folders(driver, 1) for path in folder.iterdir()
            if path.name in ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max")}  # fmt: skip
    (tmp_path / "gate").touch()
    assert driver.exit_of(1)["code"] == 0
    if can_limit(driver, "memory"):
        limit = int((told.get("memory.max") or told["memory.limit_in_bytes"])[0])
        assert SMALL["memory"] - os.sysconf("SC_PAGE_SIZE") < limit <= SMALL["memory"]
    if can_limit(driver, "cpus"):
        assert (told.get("cpu.max") or told["cpu.cfs_quota_us"])[0] == "25000"


def test_a_program_is_in_its_group_before_it_begins(driver: Driver) -> None:
    line = driver.run(1, "cat", "/proc/self/cgroup", limit={**SMALL, "cpus": 0.5})
    groups = [path.rpartition(":")[2] for path in line["o"].splitlines()]
    for folder in folders(driver, 1):
        assert [path for path in groups if path.endswith("/" + folder.name)]
    assert bool(folders(driver, 1)) == can_limit(driver, "memory")


def test_a_limit_changes_nothing_else_for_a_program(driver: Driver) -> None:
    show = """import os, sys; here = "/proc/self/"
print(sys.argv, os.getcwd(), os.getsid(0) == os.getpid(), sorted(os.listdir(here + "fd"))[:4], sys.stdin.read())
print([line for line in open(here + "status") if line.startswith(("SigIgn", "SigBlk"))])
ours = ("SCITQ_EXECUTION", "INPUT", "OUTPUT", "TEMP", "RESOURCE", "SCITQ_TASK")
print(sorted((name, value) for name, value in os.environb.items() if os.fsdecode(name) not in ours))"""
    order = {
        "argv": [sys.executable, "-I", "-c", show, "two words", "", "caf\u00e9", "\udcff"], "cwd": "/",
        "env": {"A.B": "1", "BASH_FUNC_x%%": "() { :; }", "EMPTY": "", "RAW": "\udcfe", "LD_LIBRARY_PATH": "/nowhere"},
    }  # fmt: skip
    driver.say({"order": 1, "task": 1, **order}, {"order": 2, "task": 1, **order, "limit": {**SMALL, "cpus": 0.5}})
    plain, limited = driver.exit_of(1), driver.exit_of(2)
    assert (plain["code"], plain["e"]) == (0, "")
    assert (limited["code"], limited["o"], limited["e"]) == (0, plain["o"], "")


@pytest.mark.parametrize("what", ["./nosuch", "nosuch", "./no-interpreter", "./not-executable", "./no-program"])
def test_what_cannot_start_is_said_the_same_way(driver: Driver, tmp_path: Path, what: str) -> None:
    for name, text, mode in (
        ("no-interpreter", "#!/nowhere\n", 0o755), ("not-executable", "", 0o644), ("no-program", "hello", 0o755),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    plain = driver.run(1, what, cwd=str(tmp_path))
    limited = driver.run(2, what, cwd=str(tmp_path), limit=SMALL)
    assert plain["why"] == "spawn"
    assert [limited[key] for key in ("code", "why", "note")] == [plain[key] for key in ("code", "why", "note")]
    wait_for(lambda: is_removed(driver, 2))


def test_without_a_limit_no_group_is_made(driver: Driver) -> None:
    line = driver.run(1, "cat", "/proc/self/cgroup", memory=1)
    assert "scitq-" not in line["o"] and "box" not in driver.seen("start", 1)


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
def test_whoever_ends_an_execution_ends_all_of_its_group(driver: Driver, tmp_path: Path, how: str) -> None:
    driver.say({
        "order": 1, "task": 1, "script": STUBBORN_DAEMON.format(tmp_path) + "sleep 600", "limit": SMALL, "grace": 0.2,
        **({"timeout": 1} if how == "timeout" else {}),
    })  # fmt: skip
    wait_for(lambda: (tmp_path / "daemon").exists())
    daemon, is_limited = daemon_of(tmp_path), can_limit(driver, "memory")
    if how == "cancel":
        driver.say({"cancel": 1})
    if how == "stop":
        local.stop(driver.root)
        driver.close()
        local.ensure(driver.root)
    assert driver.exit_of(1)["why"] == ("timeout" if how == "timeout" else "cancel")
    if is_limited:
        wait_for(lambda: processes.facts(daemon) is None)
        wait_for(lambda: is_removed(driver, 1))
    else:
        os.kill(daemon, signal.SIGKILL)


def test_the_daemon_of_a_success_is_left_alone_and_its_group_goes_with_it(driver: Driver, tmp_path: Path) -> None:
    line = driver.script(1, STUBBORN_DAEMON.format(tmp_path), limit=SMALL)
    assert (line["code"], line["kept"]) == (0, True)
    assert driver.run(2, "true", limit=SMALL)["code"] == 0
    daemon = daemon_of(tmp_path)
    assert processes.facts(daemon) is not None
    assert all(folder.exists() for folder in folders(driver, 1))
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: is_removed(driver, 1))
    can_limit(driver, "memory")


def test_a_killed_keeper_loses_no_group(driver: Driver, tmp_path: Path) -> None:
    script = STUBBORN_DAEMON.format(tmp_path) + "sleep 600"
    driver.say({"order": 1, "task": 1, "script": script, "limit": SMALL, "grace": 0.2})
    wait_for(lambda: (tmp_path / "daemon").exists())
    daemon = daemon_of(tmp_path)
    kill(driver, "both")
    assert driver.held()["held"] == {"1": "running"}
    driver.say({"cancel": 1})
    driver.exit_of(1)
    if can_limit(driver, "memory"):
        wait_for(lambda: processes.facts(daemon) is None)
        wait_for(lambda: is_removed(driver, 1))
    else:
        os.kill(daemon, signal.SIGKILL)


def test_out_of_memory_is_known_though_the_keeper_was_killed(driver: Driver, tmp_path: Path) -> None:
    script = f"echo ready; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; exec {' '.join(HOG[:-1])} '{HOG[-1]}'"
    driver.say({"order": 1, "task": 1, "script": script, "limit": SMALL})
    wait_for(lambda: driver.ask("GET", "/output/1/out?wait=10").body == b"ready\n")
    kill(driver, "keeper")
    assert driver.held()["held"] == {"1": "running"}
    (tmp_path / "gate").touch()
    assert driver.exit_of(1)["why"] == ("memory" if can_limit(driver, "memory") else "unknown")
    wait_for(lambda: is_removed(driver, 1))


def test_a_new_keeper_sweeps_up_the_groups_of_what_is_over(driver: Driver) -> None:
    driver.run(1, "true", limit=SMALL)
    left = [folder.with_name(folder.name + "23") for folder in folders(driver, 1)]  # as if of execution 123
    held = driver.held()
    for folder in left:
        folder.mkdir()
    os.kill(held["keeper"], signal.SIGKILL)
    wait_for(lambda: processes.facts(held["keeper"]) is None)
    driver.held()
    assert not any(folder.exists() for folder in left)
    can_limit(driver, "memory")


def test_a_limit_that_makes_no_sense_is_refused(driver: Driver) -> None:
    line = driver.run(1, "true", limit={"memory": "much"})
    assert (line["why"], line["code"]) == ("spawn", 126) and "memory must be a number" in line["note"]
    assert "limit must be an object" in driver.run(2, "true", limit=7)["note"]
