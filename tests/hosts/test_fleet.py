"""Engines with real hosts: added, used, cut off, rebooted, deleted."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq import network
from scitq.engine import Engine
from scitq.remote import local
from scitq.states import JobState, TaskState, WorkerState
from tests.engine.test_engine import WAIT_S, until
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.shell.conftest import Lab

pytestmark = pytest.mark.servers


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    """An engine whose own machine's worker does nothing."""
    with Engine(state_file) as engine:
        engine.drive()
        until(lambda: bool(engine.workers()), "the local worker")
        engine.worker_pause("local")
        yield engine
        engine.cancel_all(None)
    if (engine.side / "local").is_dir():
        local.stop(engine.side / "local")


def test_a_bare_host_becomes_a_worker_and_goes_without_a_trace(engine: Engine, cloud: Cloud, host: Host) -> None:
    engine.worker_add(host.name, concurrency=2)
    row = engine.worker_ready(host.name, WAIT_S)
    assert (row.link["how"], row.concurrency) == ("socket", 2)
    assert {"connect", "answer"} <= {
        line.partition(" ")[0] for line in engine.jobs(host.name)[0].log.splitlines()
    } or row.link["root"]
    task = engine.submit("hostname; pwd", shell=True)
    name, folder = task.result(WAIT_S).stdout.split()
    assert name == host.name
    assert folder.startswith(row.link["root"])
    assert host.processes("keeper")
    job = engine.worker_delete(host.name)
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    until(lambda: not host.processes("agent"), "the agent's end")
    assert host.said(f"ls -d {row.link['root']} 2>/dev/null | wc -l").strip() == "0"


@pytest.mark.sampled
def test_a_host_that_is_cut_off_works_on_and_is_believed_when_it_is_back(engine: Engine, host: Host) -> None:
    engine.worker_add(host.name, concurrency=1)
    engine.worker_ready(host.name, WAIT_S)
    task = engine.submit("until [ -e /root/go ]; do sleep 0.1; done; echo done", shell=True)
    until(lambda: task.state is TaskState.RUNNING, "it runs")
    host.cut("reset")
    until(lambda: engine.worker(host.name).state is WorkerState.UNREACHABLE, "it is missed")
    assert task.state is TaskState.RUNNING
    host.run("touch /root/go")
    host.heal()
    assert task.result(60).stdout == "done\n"
    assert len(task.executions) == 1


def test_after_a_reboot_a_host_is_a_worker_again_and_what_ran_there_runs_anew(engine: Engine, host: Host) -> None:
    engine.worker_add(host.name, concurrency=1)
    engine.worker_ready(host.name, WAIT_S)
    task = engine.submit("[ -e /root/mark ] || { touch /root/mark; sleep 600; }; echo again", shell=True)
    until(
        lambda: task.state is TaskState.RUNNING and host.said("ls /root/mark 2>/dev/null || true").strip() != "",
        "it runs",
    )
    host.reboot()
    assert task.result(60).stdout == "again\n"
    assert [execution.cause for execution in task.executions] == ["lost", "succeeded"] or len(task.executions) == 2


def test_the_kernel_tells_when_the_network_changes(cloud: Cloud) -> None:
    heard = network.listen()
    assert heard is not None
    with heard:
        network.drain(heard)
        cloud.delete(cloud.boot())  # its cable ends here
        assert select.select([heard], [], [], WAIT_S)[0]
        network.drain(heard)


@pytest.mark.sampled
def test_the_lid_is_closed_and_opened_again(cloud: Cloud, host: Host, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    try:
        added = lab.scitq("-f", "lab.scitq", "worker", "add", host.name, "-C", "2").stderr.decode()
        assert f"{host.name}: python 3" in added
        assert "ready in" in added
        lab.scitq("worker", "pause", "local")
        for _ in range(6):
            lab.scitq("launch", "--shell", "sleep 0.2; echo some > $OUTPUT/file")
        first = lab.json("task", "list")[0]["id"]
        lab.scitq("launch", "-R", str(first), "echo", "after")
        left = lab.scitq("down", "--keep-working")
        assert f"Handed over: {host.name} has" in left.stderr.decode()
        assert "(7 tasks, 1 of them after others it also holds)" in left.stderr.decode()
        assert "You can close the lid." in left.stderr.decode()
        assert lab.json("status")["driver"] is None
        held = "ls -d /root/.scitq/*/*/kept/*/output 2>/dev/null | wc -l"
        until(lambda: host.said(held) == "6" and not host.processes("/command"), "all of it is done there")
        back = lab.scitq("up", "--until-done").stderr.decode()
        assert (
            f"{host.name}: 7 finished (7 succeeded, 0 failed), 30 B of outputs are where they belong, logs complete."
            in back
        )
        assert len(list(tmp_path.glob("lab.scitq.d/outputs/*/file"))) == 6
    finally:
        lab.clean_up()


def test_what_a_host_lacks_is_installed_once_the_user_asks_for_it(engine: Engine, cloud: Cloud) -> None:
    host = cloud.boot(
        at_boot="""for name in docker podman apptainer singularity; do rm -f /usr/bin/$name /usr/local/bin/$name; done
printf '#!/bin/sh\\nprintf "#!/bin/sh\\\\n" > /usr/local/bin/docker; chmod 755 /usr/local/bin/docker\\n' > /usr/local/sbin/apt-get
chmod 755 /usr/local/sbin/apt-get"""
    )
    engine.worker_add(host.name, install=True)
    engine.worker_ready(host.name, 4 * WAIT_S)
    assert "docker installed" in engine.jobs(host.name)[0].log
    job = engine.worker_delete(host.name)
    until(lambda: engine.job(job.id).state is JobState.SUCCEEDED, "the job")
    cloud.delete(host)


def test_the_example_of_another_machine_works(host: Host, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    words = [sys.executable, str(root / "examples" / "12_ssh_worker.py"), host.name]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "a first task ran there, and what it wrote was read back" in done.stdout
    shown = ["2", "ACGT", host.name, "2", "ACGT", "1", "TTTT", f"{host.name}:", "succeeded"]
    assert done.stdout.split()[-len(shown) :] == shown, done.stdout
    assert host.said("ls /root/.scitq/* | wc -l") == "0"
    local.stop(tmp_path / "far.scitq.d" / "local")
