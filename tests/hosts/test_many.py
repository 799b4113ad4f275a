"""Twenty hosts become workers at the same moment (campaign: it takes a while where there are few processors)."""

from __future__ import annotations

import time

import pytest

from scitq.engine import Engine
from tests.hosts.cloud import Cloud
from tests.hosts.test_fleet import engine

__all__ = ["engine"]

HOSTS = 20
PATIENCE_S = 300.0


@pytest.mark.servers
@pytest.mark.campaign
def test_twenty_hosts_are_added_at_once_and_each_gives_a_result(engine: Engine, cloud: Cloud) -> None:
    hosts = cloud.boot_many([f"many{number}" for number in range(HOSTS)])
    began = time.monotonic()
    for host in hosts:
        engine.worker_add(host.name, concurrency=1)
    for host in hosts:
        engine.worker_ready(host.name, PATIENCE_S)
    print(f"{HOSTS} hosts were ready {time.monotonic() - began:.1f} s after they were named")
    tasks = engine.submit_many([{"command": "sleep 1; hostname", "shell": True} for _ in range(3 * HOSTS)])
    assert {task.result(PATIENCE_S).stdout.strip() for task in tasks} == {host.name for host in hosts}
    for host in hosts:
        cloud.delete(host)
