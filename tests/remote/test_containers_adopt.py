"""Whoever is killed, the agent, the keeper, the process that stands for a container or the daemon: the container's end is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from scitq.remote import local
from tests.containers import IMAGE, Dockerd, Engine, kill, wait_until
from tests.remote.client import Driver

pytestmark = pytest.mark.servers

GATED = """trap 'exit 0' TERM
i=0
while [ ! -e /input/gate ]; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.02; done
echo over
exit 4
"""


@pytest.fixture(params=[False, True], ids=["plain", "live-restore"])
def own_dockerd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """A daemon that the test may end."""
    daemon = Dockerd(live_restore=request.param)
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    yield daemon
    left = daemon.containers()
    daemon.close()
    assert left == []


def begin(driver: Driver, **more: object) -> int:
    """A container that writes to both streams until the gate is open; the process that stands for it."""
    driver.say({"order": 1, "task": 1, "script": GATED, "image": IMAGE, **more})
    driver.wait_for(1, b"out 3\n")
    pid: int = driver.seen("pid", 1)["pid"]
    return pid


def open_gate(driver: Driver) -> None:
    slot = driver.seen("start", 1)["slot"]
    (driver.root / "slot" / str(slot) / "input" / "gate").touch()


def check(driver: Driver) -> None:
    """Every line is there once, in order, and the exit code is the true one."""
    line = driver.exit_of(1)
    assert (line["code"], line["why"]) == (4, None), line
    out, err = driver.output(1).decode().splitlines(), driver.output(1, "err").decode().splitlines()
    assert out == [*(f"out {n}" for n in range(1, len(out))), "over"]
    assert err == [f"err {n}" for n in range(1, len(out))]


def kill_keeper(driver: Driver) -> None:
    kill(driver.held()["keeper"])


def kill_agent(driver: Driver) -> None:
    kill(driver.held()["pid"])
    driver.close()
    local.ensure(driver.root)


def kill_both(driver: Driver) -> None:
    held = driver.held()
    kill(held["keeper"])
    kill(held["pid"])
    driver.close()
    local.ensure(driver.root)


def kill_process(driver: Driver) -> None:
    kill(driver.seen("pid", 1)["pid"])


def kill_all(driver: Driver) -> None:
    held = driver.held()
    for pid in (held["keeper"], driver.seen("pid", 1)["pid"], held["pid"]):
        kill(pid)
    driver.close()
    local.ensure(driver.root)


@pytest.mark.parametrize("who", [kill_agent, kill_keeper, kill_both, kill_process, kill_all])
def test_a_container_goes_on_whoever_is_killed(
    containers: Engine, driver: Driver, who: Callable[[Driver], None]
) -> None:
    begin(driver)
    who(driver)
    assert driver.held()["held"] == {"1": "running"}
    open_gate(driver)
    check(driver)


def test_a_container_that_ended_while_nobody_was_there_is_reported_truly(containers: Engine, driver: Driver) -> None:
    begin(driver)
    held = driver.held()
    for pid in (held["keeper"], driver.seen("pid", 1)["pid"], held["pid"]):
        kill(pid)
    open_gate(driver)
    wait_until(lambda: containers.said("ps", "-q") == "", "the container's end")
    driver.close()
    local.ensure(driver.root)
    check(driver)


@pytest.mark.promise("core 11.7", "lessons 3.5.7")
def test_a_cancel_goes_on_through_a_kill(containers: Engine, driver: Driver) -> None:
    begin(driver, grace=1)
    driver.say({"cancel": 1})
    kill_all(driver)
    line = driver.exit_of(1)
    assert line["why"] == "cancel"


def test_a_container_that_somebody_removed_is_lost(dockerd: Dockerd, driver: Driver) -> None:
    begin(driver)
    dockerd.run("rm", "-f", *dockerd.containers())
    line = driver.exit_of(1)
    assert (line["code"], line["why"]) in ((None, "unknown"), (137, None))  # it was killed, and then removed


def test_the_daemon_is_started_anew(own_dockerd: Dockerd, driver: Driver) -> None:
    begin(driver)
    own_dockerd.stop()
    own_dockerd.start()
    if own_dockerd.live_restore:
        open_gate(driver)
        check(driver)
    else:
        line = driver.exit_of(1)
        assert (line["code"], line["why"]) == (None, "unknown")
        assert "the Docker daemon ended" in line["note"]


def test_the_daemon_is_killed(own_dockerd: Dockerd, driver: Driver) -> None:
    begin(driver)
    assert own_dockerd.process is not None
    own_dockerd.process.kill()
    own_dockerd.process.wait()
    own_dockerd.start()
    if own_dockerd.live_restore:
        open_gate(driver)
        check(driver)
    else:
        line = driver.exit_of(1)
        assert (line["code"], line["why"]) == (None, "unknown")
