"""(m) SSH hosts (real sshd in namespaces; needs root): from a bare one to its first result, many at once, many held idle."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.report import Section, at_most, spread
from tests.hosts.cloud import Cloud

if TYPE_CHECKING:
    from scitq.engine import Engine

BY_HAND, FIRST = "ssh HOST true, by hand", "bare host to first result"
FIRST_BAR_S, AT_ONCE_BAR_S, CORE_BAR, MEMORY_BAR_MB = 5.0, 30.0, 0.05, 250.0
DEADLINE_S = 300.0


def fleet(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(m) Each host boots before the clock starts."""
    before = dict(os.environ)
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    os.environ["HOME"] = str(home)
    cloud = Cloud()
    try:
        (home / ".ssh" / "config").symlink_to(cloud.folder / "ssh_config")
        return _measured(cloud, rounds, folder, at_once=4 if quick else 20, held=(5, 6) if quick else (50, 100))
    finally:
        cloud.close()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)


def _measured(cloud: Cloud, rounds: int, folder: Path, *, at_once: int, held: tuple[int, ...]) -> Section:
    import scitq

    by_hand: list[float] = []
    first: list[float] = []
    with scitq.open(folder / "first.scitq") as engine:
        engine.submit("true").result(timeout=60)
        engine.worker_pause("local")
        for turn in range(rounds):
            host = cloud.boot(f"first{turn}")
            begin = time.perf_counter()
            subprocess.run(["ssh", "-F", str(cloud.folder / "ssh_config"), host.name, "true"], check=True)
            by_hand.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            engine.worker_add(host.name, concurrency=1)
            engine.submit("hostname").result(timeout=DEADLINE_S)
            first.append(time.perf_counter() - begin)
            engine.worker_delete(host.name)
            _until_gone(engine, host.name)
            cloud.delete(host)
    hosts = cloud.boot_many([f"many{n}" for n in range(held[-1])])
    idle: dict[int, tuple[float, float]] = {}
    with scitq.open(folder / "many.scitq") as engine:
        engine.drive()
        begin = time.perf_counter()
        for host in hosts[:at_once]:
            engine.worker_add(host.name, concurrency=1)
        for host in hosts[:at_once]:
            engine.worker_ready(host.name, DEADLINE_S)
        taken = time.perf_counter() - begin
        for count, before in zip(held, (at_once, *held), strict=False):
            for host in hosts[before:count]:
                engine.worker_add(host.name, concurrency=1)
            for host in hosts[:count]:
                engine.worker_ready(host.name, DEADLINE_S)
            idle[count] = _idle(30.0 if count > 10 else 5.0)
        for host in hosts:
            engine.worker_delete(host.name)
        for host in hosts:
            _until_gone(engine, host.name)
    core, memory = idle[held[0]]
    rows = [
        (BY_HAND, spread(by_hand, 2)),
        (FIRST, spread(first, 2)),
        (f"{at_once} hosts at once", f"{taken:.1f}"),
        *((f"{count} held, idle", f"{used:.2%} of a core, {size:.0f} MiB") for count, (used, size) in idle.items()),
    ]
    return Section(
        "m", "SSH hosts, in seconds", ("", "time"), rows,
        [
            at_most(FIRST, statistics.median(first), FIRST_BAR_S, " s", 2),
            at_most(f"{at_once} hosts added at once until the last is ready", taken, AT_ONCE_BAR_S, " s", 1),
            at_most(f"{held[0]} workers held idle, of a core", core, CORE_BAR, "", 4),
            at_most("memory of the process that holds them", memory, MEMORY_BAR_MB, " MiB", 0),
        ],
        ["The hosts share this machine's cores with the engine: agents that start compete with one another."],
    )  # fmt: skip


def _idle(span_s: float) -> tuple[float, float]:
    """The part of a core and the memory (MiB) that this process takes while nothing happens."""
    time.sleep(span_s / 2)  # statistics of new workers, leases, and the like
    cpu = time.process_time()
    time.sleep(span_s)
    return (time.process_time() - cpu) / span_s, machine.memory_mb(os.getpid())


def _until_gone(engine: Engine, name: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while any(row.name == name for row in engine.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
