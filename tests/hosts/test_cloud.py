"""The hosts that other tests rely on are what they say: machines of their own, with faults that can be had."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hosts.cloud import Cloud, sweep
from tests.hosts.host import Host
from tests.hosts.system import noted, run, until

pytestmark = pytest.mark.servers


def ssh(cloud: Cloud, host: Host, command: str, *, seconds: int = 30) -> subprocess.CompletedProcess[str]:
    options = ["-F", str(cloud.folder / "ssh_config"), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={seconds}"]
    return run("ssh", *options, host.name, command, is_checked=False)


def test_a_host_is_a_machine_of_its_own(cloud: Cloud) -> None:
    host = cloud.boot(user="alice", disk="16m", at_boot="touch $home/was-here")

    said = ssh(cloud, host, "hostname; id -un; pwd; ls; ls /tmp | wc -l").stdout.split()
    assert said == [host.name, "alice", "/home/alice", "was-here", "0"]
    assert "No space left" in ssh(cloud, host, "head -c 40m /dev/zero > ~/large").stderr
    assert host.said("hostname") == host.name and host.processes("sshd")
    assert not host.processes("pytest")
    cloud.delete(host)


def test_a_reboot_keeps_the_disk_and_nothing_else(cloud: Cloud, host: Host) -> None:
    before = ssh(cloud, host, "cat /proc/sys/kernel/random/boot_id; echo x > ~/kept; echo x > /tmp/gone").stdout

    host.reboot()

    after = ssh(cloud, host, "cat /proc/sys/kernel/random/boot_id ~/kept; ls /tmp | wc -l").stdout.split()
    assert after[0] != before.strip() and after[1:] == ["x", "0"]


def test_a_cut_a_reset_a_slow_cable_and_what_heals_them(cloud: Cloud, host: Host) -> None:
    host.cut()
    assert ssh(cloud, host, "true", seconds=1).returncode == 255
    host.cut("reset")
    assert "refused" in ssh(cloud, host, "true").stderr.lower()
    host.heal()
    host.shape(delay_ms=100)
    began = time.monotonic()
    socket.create_connection((host.ip, 22), 30).close()
    assert time.monotonic() - began >= 0.2
    host.shape()
    host.freeze()
    with socket.create_connection((host.ip, 22), 30) as frozen, pytest.raises(TimeoutError):
        frozen.settimeout(0.5)
        frozen.recv(4)
    host.freeze(False)
    assert ssh(cloud, host, "true").returncode == 0


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    program = (
        "import time; from tests.hosts.cloud import Cloud\n"
        "cloud = Cloud(); cloud.boot(disk='8m'); print(cloud.folder, flush=True); time.sleep(600)"
    )
    maker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    folder = Path(maker.stdout.readline().strip())
    told = json.loads((folder / "manifest.json").read_text())
    pid = told["hosts"]["h1"]["first"][0]
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    assert noted(pid) is not None

    def is_swept() -> bool:
        sweep()  # others may be at it
        return not folder.exists()

    until("the sweep", is_swept)
    assert noted(pid) is None
    assert not Path("/sys/class/net", told["bridge"]).exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()
