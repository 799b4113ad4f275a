"""(f) Cold starts of the programs, (g) what an idle engine costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.contest import Contestant, Outcome, run, surroundings
from benchmarks.report import Section, at_most, spread


def cold(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(f) Everything as a person has it: a process from nothing, its output read to the end."""
    import tempfile

    from scitq.remote import local

    taken: dict[str, list[float]] = {}
    program = [sys.executable, "-m", "scitq"]
    environ = surroundings()

    def timed(what: str, command: list[str], place: str, wanted: str = "") -> None:
        begin = time.perf_counter()
        ended = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=True)
        taken.setdefault(what, []).append(time.perf_counter() - begin)
        assert wanted in ended.stdout, ended

    with tempfile.TemporaryDirectory(dir=folder) as place:
        timed(FRESH, [*program, "run", "echo"], place)  # what is not compiled yet is now
        local.stop(Path(place, "scitq.scitq.d", "local"))
        taken.clear()
    for _ in range(max(3, rounds)):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            timed(FRESH, [*program, "run", "echo", "there"], place, "there")
            timed(WARM, [*program, "run", "echo", "there"], place, "there")
            local.stop(Path(place, "scitq.scitq.d", "local"))
            timed(NO_AGENT, [*program, "run", "echo", "there"], place, "there")
            timed(HELP, [*program, "--help"], place, "Usage")
            timed(IMPORT, [sys.executable, "-c", "import scitq"], place)
            timed(OPEN, [sys.executable, "-c", "import scitq; scitq.open"], place)
            timed(BARE, [sys.executable, "-c", "pass"], place)
            local.stop(Path(place, "scitq.scitq.d", "local"))
    rows = [(what, spread([1000 * each for each in each_taken], 0)) for what, each_taken in taken.items()]
    section = Section("f", "Cold start", ("", "ms"), rows)
    bare = min(taken[BARE])
    section.findings = [
        at_most(WARM, _median(taken[WARM]), 0.15, " s"),
        at_most(FRESH, _median(taken[FRESH]), 1.0, " s"),
        at_most(HELP, 1000 * _median(taken[HELP]), 150, " ms", 0),
        at_most(f"{IMPORT}, beyond the bare interpreter", 1000 * (_median(taken[IMPORT]) - bare), 60, " ms", 0),
    ]
    return section


FRESH = "`scitq run echo` in a fresh folder"
WARM = "`scitq run echo` again, the agent still there"
NO_AGENT = "`scitq run echo` again, the agent gone"
HELP = "`scitq --help`"
IMPORT = "`import scitq`"
OPEN = "`import scitq` and load the engine"
BARE = "bare Python"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def idle(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(g)"""
    seconds = 5 if quick else 15
    found = run(Contestant("idle", (sys.executable, "-m", "benchmarks.resting")), seconds, folder)
    rows = [(who, f"{found[f'{who}_cpu']:.4f}", f"{found[f'{who}_mb']:.1f}") for who in ("driver", "agent", "keeper")]
    section = Section("g", f"Idle for {seconds} s after a task", ("", "CPU % of a core", "resident MiB"), rows)
    section.findings = [
        at_most("driver + agent + keeper", sum(float(row[1]) for row in rows), 0.1, " % of a core", 4),
        at_most("agent's memory", found["agent_mb"], 30, " MiB", 1),
    ]
    return section


def watch_idle(seconds: int) -> Outcome:
    """An engine that drives with nothing to do, watched from another process, since looking costs as well."""
    from benchmarks.contestants import NOOP, warm_engine

    with warm_engine() as engine:
        engine.submit(NOOP).result()
        watcher = "import sys; from benchmarks.resting import watch; watch(int(sys.argv[1]), int(sys.argv[2]))"
        ended = subprocess.run(
            [sys.executable, "-c", watcher, str(os.getpid()), str(seconds)], capture_output=True, text=True, check=True
        )
    outcome: Outcome = json.loads(ended.stdout)
    return outcome


def watch(driver: int, seconds: int) -> None:
    """Print the CPU share and memory of the three, over that time."""
    found = machine.marked()
    pids = {"driver": driver}
    for pid, command in found.items():
        if ".pyz" in command or "remote/agent" in command:
            pids["keeper" if " keeper" in command else "agent"] = pid
    time.sleep(1.0)
    before = {who: machine.fine_cpu_s(pid) for who, pid in pids.items()}
    time.sleep(seconds)
    outcome = {f"{who}_cpu": 100 * (machine.fine_cpu_s(pid) - before[who]) / seconds for who, pid in pids.items()}
    outcome |= {f"{who}_mb": machine.memory_mb(pid) for who, pid in pids.items()}
    print(json.dumps(outcome))


if __name__ == "__main__":
    print(json.dumps(watch_idle(int(sys.argv[1]))))
