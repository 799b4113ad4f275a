"""(i) Python functions as tasks: a hundred thousand calls, beside pools that keep nothing."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.contest import median_ratio, ours, peer, play
from benchmarks.report import Finding, Section, spread


def calls(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(i)"""
    size = 5_000 if quick else 100_000
    few = 0.01 if quick else 0.002
    contestants = [
        ours("scitq, executor.map", "functions_map"),
        ours("process pool of the standard library, map", "pool_map"),
        ours("scitq, executor.submit, a task each", "functions_each", few),
        ours("a bare Python each, xargs -P2", "python_each", few),
    ]
    if peers:
        contestants.append(peer("executorlib, submit", "executorlib_peer.py", "functions", 0.02))
    found = play(contestants, size, min(rounds, 3), folder)
    rows = [
        (name, spread([o["rate"] for o in outs], 0), spread([o["cpu_ms"] for o in outs], 3))
        for name, outs in found.items()
    ]
    section = Section("i", f"{size:,} calls of a function (`abs`)", ("", "calls/s", "CPU ms/call"), rows)
    mapped = found[contestants[0].name]
    seconds = statistics.median(each["seconds"] for each in mapped)
    section.findings = [
        Finding(
            f"{size:,} calls by executor.map",
            f"{seconds:.1f} s, in {mapped[0]['chunks']:.0f} tasks, {mapped[0]['peak_mb']:.0f} MiB",
        ),
        Finding(
            "a task each / a bare Python each", f"{median_ratio(found, contestants[2].name, contestants[3].name):.2f}"
        ),
    ]
    return section
