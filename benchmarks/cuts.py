"""(o) The same tasks on SSH hosts, with links that stay and with links that are cut at random moments (needs root)."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.hosts import _until_gone
from benchmarks.report import Section, at_most
from tests.hosts.cloud import Cloud

if TYPE_CHECKING:
    from scitq.engine import Engine
    from tests.hosts.host import Host

RATIO_BAR = 1.3
DEADLINE_S = 900.0
# Some task's worth of seconds, different ones; and an output that has to come home.
COMMAND = "sleep $(( {0} % 3 )).$(( {0} % 10 )); seq 500 > $OUTPUT/made; seq 500"


def cuts(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(o) One round after the other: without cuts, with cuts."""
    size, count = (3, 30) if quick else (10, 1000)
    before = dict(os.environ)
    home = folder / "cuts-home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    os.environ["HOME"] = str(home)
    cloud = Cloud()
    rows = []
    ratios = []
    try:
        (home / ".ssh" / "config").symlink_to(cloud.folder / "ssh_config")
        hosts = cloud.boot_many([f"cut{n}" for n in range(size)])
        for turn in range(rounds):
            calm, _, _ = _wall(folder / f"calm{turn}.scitq", hosts, count, None)
            cut, tries, done = _wall(folder / f"cut{turn}.scitq", hosts, count, random.Random(turn))
            ratios.append(cut / calm)
            rows.append(
                (f"{turn + 1}", f"{calm:.1f}", f"{cut:.1f}", f"{ratios[-1]:.2f}", f"{tries}", f"{done.total()}")
            )
    finally:
        cloud.close()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)
    return Section(
        "o", f"{count:,} tasks on {size} SSH hosts, links cut at random moments",
        ("round", "calm, s", "cut, s", "ratio", "executions", "cuts"), rows,
        [at_most("wall time with cuts, as a multiple of that without", max(ratios), RATIO_BAR)],
        ["A link is cut for 0.5 to 8 s every 2 to 12 s at each host: silence both ways or one way, refusal, or a pulled cable. "
         "Each task succeeded once, each output is here."],
    )  # fmt: skip


def _wall(path: Path, hosts: list[Host], count: int, dice: random.Random | None) -> tuple[float, int, Counter[str]]:
    """Seconds from the submission to the last result, how many executions that took, and the cuts there were."""
    import scitq

    stop, done = threading.Event(), Counter[str]()
    with scitq.open(path) as engine:
        engine.drive()
        while not engine.workers():
            time.sleep(0.01)
        engine.worker_pause("local")
        for host in hosts:
            engine.worker_add(host.name, concurrency=2)
        for host in hosts:
            engine.worker_ready(host.name, DEADLINE_S)
        threads = [
            threading.Thread(target=_cut, args=(host, random.Random(dice.random()), stop, done))
            for host in (hosts if dice is not None else [])
            if dice is not None
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        try:
            tasks = engine.submit_many({"command": COMMAND.format(n), "shell": "bash"} for n in range(count))
            engine.wait_all(DEADLINE_S)
            taken = time.perf_counter() - begin
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert _is_whole(engine, count), engine.counts()
        tries = sum(len(task.executions) for task in tasks)
        for host in hosts:
            engine.worker_delete(host.name)
        for host in hosts:
            _until_gone(engine, host.name)
    return taken, tries, done


def _is_whole(engine: Engine, count: int) -> bool:
    made = sorted((engine.side / "outputs").glob("*/made"))
    return (
        {state.word: n for state, n in engine.counts().items() if n} == {"succeeded": count}
        and len(made) == count
        and len({each.read_bytes() for each in made}) == 1
        and not engine.check()
    )


def _cut(host: Host, dice: random.Random, stop: threading.Event, done: Counter[str]) -> None:
    while not stop.wait(dice.uniform(2, 12)):
        kind = dice.choice(["drop", "in", "out", "reset", "cable"])
        if kind == "cable":
            host.plug(False)
        else:
            host.cut(kind)
        stop.wait(dice.uniform(0.5, 8))
        if kind == "cable":
            host.plug(True)
        else:
            host.heal()
        done[kind] += 1
