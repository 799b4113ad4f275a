"""What happens to real hosts and to those who drive them: disks full, long cuts, long sleeps. Afterwards all is as it would be."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq import deciding
from scitq.engine import Engine
from scitq.handle import Task
from scitq.remote import local
from scitq.states import Outcome, TaskState, WorkerState
from tests.engine.conftest import sound
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import until
from tests.hosts.test_fleet import engine

__all__ = ["engine"]

pytestmark = [pytest.mark.servers, pytest.mark.sampled]

WAIT_S = 120.0
TWO_MINUTES_S = 120.0
TEN_MINUTES_S = 600.0
GATE = "until [ -e /tmp/gate ]; do sleep 0.05; done"
# A driver in a process of its own that allows no minute for what is on its way.
DRIVER = """
import sys
from scitq import deciding
deciding.MARGIN_S = float(sys.argv.pop(1))
from scitq.shell.cli import main
main()
"""


def two(cloud: Cloud, engine: Engine, lost_after: float) -> tuple[Host, Host]:
    """Two hosts; only the first of them may be given anything as yet."""
    one, other = cloud.boot(), cloud.boot()
    for host in (one, other):
        engine.worker_add(host.name, concurrency=2, lost_after=lost_after)
        engine.worker_ready(host.name, WAIT_S)
    engine.worker_pause(other.name)
    return one, other


def is_running(*tasks: Task) -> bool:
    return all(task.state is TaskState.RUNNING for task in tasks)


def test_a_host_whose_disk_fills_up_under_its_tasks_goes_on_when_there_is_room(engine: Engine, cloud: Cloud) -> None:
    host = cloud.boot(disk="48m")
    engine.worker_add(host.name, concurrency=2)
    engine.worker_ready(host.name, WAIT_S)
    quiet = engine.submit(f"echo before; {GATE}; echo after; echo made > $OUTPUT/file", shell=True)
    loud = engine.submit(
        f"{GATE.replace('gate', 'loud')}; head -c 30000000 /dev/zero > $OUTPUT/large && echo written", shell=True
    )
    until("both run", lambda: is_running(quiet, loud), WAIT_S)
    host.run("head -c 1G /dev/zero > /root/fill", is_checked=False)
    assert host.said("df --output=avail /root | tail -1").strip() == "0"
    waiting = [engine.submit("echo later > $OUTPUT/later", shell=True) for _ in range(3)]
    time.sleep(1)  # so that something of it may be tried while there is no room; nothing depends on it
    host.run("rm /root/fill; head -c 30m /dev/zero > /root/fill; touch /tmp/gate")
    assert quiet.result(WAIT_S).stdout == "before\nafter\n"
    assert (engine.side / "outputs" / str(quiet.id) / "file").read_text() == "made\n"
    for task in waiting:
        task.result(WAIT_S)
        assert (engine.side / "outputs" / str(task.id) / "later").read_text() == "later\n"
    host.run("touch /tmp/loud")
    assert loud.wait(WAIT_S) is TaskState.FAILED  # there never was room for what it makes
    assert "its worker's disk was full when it ended" in loud.why()  # its own words may have found no room
    host.run("rm /root/fill")
    loud.relaunch()
    assert loud.result(WAIT_S).stdout == "written\n"
    sound(engine)
    engine.worker_delete(host.name, force=True)
    until("its end", lambda: engine.worker(host.name).state is WorkerState.GONE, WAIT_S)
    cloud.delete(host)


def test_a_host_that_is_cut_off_for_longer_than_it_is_waited_for_gives_up_what_others_have(
    engine: Engine, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "MARGIN_S", 0.5)
    one, other = two(cloud, engine, lost_after=2)
    gate = "echo start >> /root/started; until [ -e /root/gate ]; do sleep 0.05; done; hostname | tee $OUTPUT/who"
    tasks = [engine.submit(gate, shell=True) for _ in range(2)]
    until("both run", lambda: is_running(*tasks), WAIT_S)
    one.cut("reset")
    engine.worker_resume(other.name)
    until(
        "the other one has them",
        lambda: all(len(task.executions) == 2 for task in tasks) and is_running(*tasks),
        WAIT_S,
    )
    assert len(one.processes("/command")) == 2  # nobody could tell it
    one.heal()
    until("the end of what is not its own any more", lambda: not one.processes("/command"), WAIT_S)
    for host in (one, other):
        host.run("touch /root/gate")
    for task in tasks:
        assert task.result(WAIT_S).stdout == f"{other.name}\n"
        assert (engine.side / "outputs" / str(task.id) / "who").read_text() == f"{other.name}\n"
        assert [(each.outcome, each.worker) for each in task.executions] == [
            (Outcome.LOST, one.name), (Outcome.SUCCEEDED, other.name),
        ]  # fmt: skip
    assert one.said("cat /root/started; ls -d /root/.scitq/*/*/exec/* 2>/dev/null | wc -l") == "start\nstart\n0"
    sound(engine)


def test_a_task_that_its_worker_cannot_start_goes_to_another_one(engine: Engine, cloud: Cloud) -> None:
    one, other = cloud.boot(), cloud.boot()
    other.run("ln -s /usr/bin/hostname /usr/local/sbin/special; mkdir -p /root/bin")
    for host in (one, other):
        engine.worker_add(host.name, concurrency=1, prefetch=0)
        engine.worker_ready(host.name, WAIT_S)
    engine.worker_pause(one.name)
    busy = engine.submit(GATE, shell=True)
    until("the other one is busy", lambda: is_running(busy), WAIT_S)
    engine.worker_resume(one.name)
    task = engine.submit(["special"], retry=1, retry_delay=0)
    until("its first try", lambda: len(task.executions) == 1 and task.executions[0].outcome is not None, WAIT_S)
    assert task.executions[0].worker == one.name
    assert (
        task.state is TaskState.PENDING
        and f"waits for a place on {other.name}: {one.name} could not run it" in task.why()
    )
    other.run("touch /tmp/gate")
    assert task.result(WAIT_S).stdout == f"{other.name}\n"
    assert [each.worker for each in task.executions] == [one.name, other.name]
    sound(engine)


# --- who drives stands still ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for place in tmp_path.glob("*.d/local"):
        local.stop(place)


class Driver:
    """`scitq up` in a process of its own."""

    def __init__(self, path: Path, margin_s: float) -> None:
        words = [sys.executable, "-c", DRIVER, str(margin_s), "-f", str(path), "up"]
        self.log = path.with_suffix(".log")
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self._process.poll() is None:
            self.go_on()
            self._process.kill()
        self._process.wait()


def stopped_for(seconds: float, margin_s: float, lost_after: float, folder: Path, cloud: Cloud) -> None:
    """A driver stands still for longer than it waits for anybody, while its hosts work and one of them is cut off for a while."""
    hosts = [cloud.boot(), cloud.boot()]
    path = folder / "lab.scitq"
    with Engine(path) as engine:
        engine.drive()
        until("the local worker", lambda: bool(engine.workers()))
        engine.worker_pause("local")
        for host in hosts:
            engine.worker_add(host.name, concurrency=2, prefetch=0, lost_after=lost_after)
            engine.worker_ready(host.name, WAIT_S)
    with Engine(path, drive=False) as engine:
        driver = Driver(path, margin_s)
        try:
            gated = [
                engine.submit(f"echo x >> /root/ran; {GATE}; seq 20000; echo $SCITQ_TASK > $OUTPUT/made", shell=True)
                for _ in range(4)
            ]
            more = [engine.submit("echo x >> /root/ran; echo more", shell=True) for _ in range(20)]
            until("four run", lambda: is_running(*gated), WAIT_S)
            for host in hosts:
                engine.update_worker(host.name, prefetch=5)
            until("more wait there", lambda: engine.counts().get(TaskState.ASSIGNED) == 10, WAIT_S)
            driver.stop()
            hosts[0].cut("reset")
            for host in hosts:
                host.run("touch /tmp/gate")
            time.sleep(seconds)
            hosts[0].heal()
            driver.go_on()
            for task in gated:
                assert task.result(WAIT_S).stdout == "".join(f"{n}\n" for n in range(1, 20001))
                assert (engine.side / "outputs" / str(task.id) / "made").read_text() == f"{task.id}\n"
            for task in more:
                assert task.result(WAIT_S).stdout == "more\n"
            assert [len(task.executions) for task in (*gated, *more)] == [1] * 24  # it listened before it judged
            assert sum(int(host.said("wc -l < /root/ran")) for host in hosts) == 24
            sound(engine)
        finally:
            driver.end()
    for host in hosts:
        cloud.delete(host)


def test_a_driver_that_stood_still_listens_before_it_judges(folder: Path, cloud: Cloud) -> None:
    stopped_for(5.0, 0.5, 1.0, folder, cloud)


@pytest.mark.campaign
def test_a_driver_that_stood_still_for_ten_minutes_listens_before_it_judges(folder: Path, cloud: Cloud) -> None:
    stopped_for(TEN_MINUTES_S, 60.0, 30.0, folder, cloud)


@pytest.mark.campaign
def test_two_minutes_without_a_cable_cost_nothing(engine: Engine, cloud: Cloud) -> None:
    host = cloud.boot()
    engine.worker_add(host.name, concurrency=2)
    engine.worker_ready(host.name, WAIT_S)
    tasks = [engine.submit("sleep 40; seq 20000; echo made > $OUTPUT/file", shell=True) for _ in range(4)]
    until("two run", lambda: sum(is_running(task) for task in tasks) == 2, WAIT_S)
    host.cut("drop")
    time.sleep(TWO_MINUTES_S)
    assert engine.worker(host.name).state is WorkerState.UNREACHABLE
    host.heal()
    for task in tasks:
        assert task.result(WAIT_S).stdout == "".join(f"{n}\n" for n in range(1, 20001))
        assert len(task.executions) == 1
    sound(engine)
