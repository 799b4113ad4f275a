"""(a) No-op tasks a second on two slots, (b) the latency of one, (e) chains: contests with the system's tools and the peers."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.contest import Contestant, Outcome, median_ratio, ours, peer, play, ratios
from benchmarks.report import Section, at_least, at_most, spread

SCITQ = ours("scitq", "noop")
FILES = "xargs -P2, a file each"
PLAIN = "xargs -P2, nothing kept"


def throughput(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(a)"""
    contestants = [SCITQ, ours(FILES, "xargs_files"), ours(PLAIN, "xargs")]
    if peers:
        contestants += [
            peer("executorlib", "executorlib_peer.py", "noop"),
            peer("huey", "huey_peer.py", "noop"),
            peer("HyperQueue", "hyperqueue_peer.py", "noop", 0.5),
        ]
    size = 300 if quick else 2000
    found = play(contestants, size, rounds, folder)
    section = Section(
        "a", f"{size:,} no-op tasks (`sh -c :`) on two slots", HEADER, _rows(contestants, found, SCITQ.name)
    )
    ratio = median_ratio(found, SCITQ.name, FILES)
    section.findings.append(at_least(f"scitq / {FILES}", ratio, 0.75))
    section.findings.append(at_least(f"scitq / {PLAIN}", median_ratio(found, SCITQ.name, PLAIN), 0.75))
    for name, bar in (("executorlib", 1.2), ("huey", 1.0), ("HyperQueue", 1.0)):
        if name in found:
            section.findings.append(at_least(f"scitq / {name}", median_ratio(found, SCITQ.name, name), bar))
    cpu = statistics.median(each["cpu_ms"] for each in found[SCITQ.name])
    section.findings.append(at_most("CPU a task, whole tree", cpu, 1.1, " ms"))
    peak = statistics.median(each["peak_mb"] for each in found[SCITQ.name])
    section.notes.append(f"Peak resident memory of engine, agent and keeper together: {peak:.0f} MiB.")
    return section


HEADER = ("", "tasks/s", "CPU ms/task", "scitq is times as fast")


def _rows(contestants: list[Contestant], found: dict[str, list[Outcome]], name: str) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            spread([outcome["rate"] for outcome in found[each.name]], 0),
            spread([outcome["cpu_ms"] for outcome in found[each.name]]),
            "" if each.name == name else spread(ratios(found, name, each.name)),
        )
        for each in contestants
        if each.name in found
    ]


def latency(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(b)"""
    contestants = [ours("scitq", "latency"), ours("a bare process", "spawn_latency")]
    if peers:
        contestants += [
            peer("executorlib", "executorlib_peer.py", "latency"),
            peer("huey", "huey_peer.py", "latency"),
            peer("HyperQueue", "hyperqueue_peer.py", "latency"),
        ]
    found = play(contestants, 20 if quick else 100, rounds, folder)
    rows = [
        (name, spread([o["median_ms"] for o in outcomes]), spread([o["p95_ms"] for o in outcomes]))
        for name, outcomes in found.items()
    ]
    section = Section("b", "From submit to result, warm, 20 ms apart", ("", "median ms", "p95 ms"), rows)
    median = statistics.median(each["median_ms"] for each in found["scitq"])
    p95 = statistics.median(each["p95_ms"] for each in found["scitq"])
    section.findings = [at_most("median", median, 4, " ms"), at_most("p95", p95, 8, " ms")]
    return section


def graph(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(e)"""
    chains = 50 if quick else 500
    own = ours("scitq, as many tasks without order", "noop", 4.0)
    contestants = [
        ours("scitq", "chains"), own, ours("make -j2, nothing kept", "make"), ours("make -j2, a file each", "make_files")
    ]  # fmt: skip
    found = play(contestants, chains, rounds, folder)
    section = Section("e", f"{chains} chains of 4 tasks and a gather", HEADER, _rows(contestants, found, "scitq"))
    section.findings = [
        at_least("scitq / its own (a)", median_ratio(found, "scitq", own.name), 0.85),
        at_least("scitq / make with files", median_ratio(found, "scitq", "make -j2, a file each"), 1.0),
    ]
    return section
