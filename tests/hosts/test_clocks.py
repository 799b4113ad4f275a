"""Hosts whose clocks are wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from scitq.engine import Engine
from tests.engine.conftest import sound
from tests.engine.test_engine import WAIT_S
from tests.hosts.cloud import Cloud
from tests.hosts.test_fleet import engine

__all__ = ["engine"]

pytestmark = pytest.mark.servers

# A Python whose programs (the agent, its keeper) believe another time. There is one real clock for all hosts here.
PYTHON = """#!/usr/bin/python3 -IS
import runpy, sys, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + SHIFT
time.time_ns = lambda: real_ns() + SHIFT * 10**9
sys.executable = "/root/python"
words = sys.argv[1:]
while words[0] in ("-I", "-S", "-IS", "-X", "utf8"):
    del words[0]
if words[0] == "-c":
    sys.argv = ["-c", *words[2:]]
    exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
else:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
"""


def test_hosts_whose_clocks_are_an_hour_off_work_as_any(engine: Engine, cloud: Cloud, tmp_path: Path) -> None:
    hosts = {cloud.boot(): shift for shift in (3600, -3600)}
    (tmp_path / "in").write_text("data")
    for host, shift in hosts.items():
        program = PYTHON.replace("SHIFT", str(shift))
        host.run(f"cat > /root/python <<'E'\n{program}E\nchmod 755 /root/python")
        engine.worker_add(host.name, concurrency=1, python="/root/python", lost_after=60, batch=host.name)
    began = time.time()
    for host, shift in hosts.items():
        engine.worker_ready(host.name, WAIT_S)
        command = "cat $INPUT/in; seq 9000; echo made > $OUTPUT/made"
        task = engine.submit(command, shell=True, input=tmp_path / "in", batch=host.name, output=tmp_path / host.name)
        said = task.result(60).stdout
        assert said.startswith("data1\n2\n")
        assert said.endswith("\n8999\n9000\n")
        believed = json.loads(host.said(f"cat {engine.worker(host.name).link['root']}/agent.lock"))["at"]
        assert abs(believed - time.time() - shift) < 600
        assert (tmp_path / host.name / "made").read_text() == "made\n"
        (execution,) = task.executions
        assert execution.started_ms is not None and execution.ended_ms is not None
        assert began - 1 <= execution.assigned_ms / 1000 <= execution.started_ms / 1000 <= execution.ended_ms / 1000
        assert execution.ended_ms / 1000 <= time.time() + 1
    sound(engine)
    for host in hosts:
        cloud.delete(host)
