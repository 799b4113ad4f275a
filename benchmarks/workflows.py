"""(n) A workflow of 100,000 tasks: declared, queued, planned again.

In a process of its own (`python -m benchmarks.workflows SIZE`), so that its memory is its own. Chains of four tasks, each of which
reads a file and what the one before it left, and one task that gathers them all; nobody drives.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.contest import Contestant, Outcome, run
from benchmarks.report import Section, at_most

FILES = 1000


def declared(size: int) -> Outcome:
    """Declare and start such a workflow, then again without a change."""
    import os

    from scitq.engine import Engine
    from scitq.workflow import Workflow

    sources = Path("in")
    sources.mkdir()
    for n in range(FILES):
        (sources / str(n)).write_text("x")
    before = machine.memory_mb(os.getpid())

    def declare(engine: Engine) -> Workflow:
        wf = Workflow("large", engine=engine, shell=True, retry=1)
        for n in range(size // 4):
            a = wf.step("a", f"a --sample s{n} $INPUT/* > $OUTPUT/a.txt", name=f"s{n}", input=sources / str(n % FILES))
            b = wf.step("b", "b $INPUT/a.txt > $OUTPUT/b.txt", name=f"s{n}", input=a.output)
            c = wf.step("c", "c $INPUT/b.txt > $OUTPUT/c.txt", name=f"s{n}", input=b.output, requires=a)
            last = wf.step("d", "d $INPUT/c.txt > $OUTPUT/d.txt", name=f"s{n}", input=c.output)
        wf.step("all", "cat $INPUT/*", input=last.gather("output|mv:x"))
        return wf

    found: Outcome = {"before_mb": before}
    with Engine(Path("lab.scitq"), drive=False) as engine:
        begin = time.perf_counter()
        wf = declare(engine)
        found["declared"] = time.perf_counter() - begin
        wf.start()
        found["queued"] = time.perf_counter() - begin
        found["peak_mb"] = machine.memory_mb(os.getpid(), "VmHWM")
        begin = time.perf_counter()
        wf = declare(engine)
        again = time.perf_counter() - begin
        begin = time.perf_counter()
        plan = wf.plan()
        assert not plan.has_changes
        found["plan"] = time.perf_counter() - begin
        found["planned"] = again + found["plan"]
    return found


def workflows(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(n)"""
    size = 10_000 if quick else 100_000
    found = run(Contestant("workflows", (sys.executable, "-m", "benchmarks.workflows")), size, folder)
    section = Section("n", f"A workflow of {size:,} tasks: chains of four, each task with data, and a gather", ("", ""))
    scale = size / 100_000
    section.findings = [
        at_most("declared and queued", found["queued"], 15 * scale, " s"),
        at_most("peak memory of the process", found["peak_mb"], 300, " MiB", 0),
        at_most("plan of an unchanged rerun", found["plan"], 10 * scale, " s"),
    ]
    section.notes.append(
        f"Declaring alone takes {found['declared']:.1f} s; declaring again and planning {found['planned']:.1f} s. Before it the "
        f"process held {found['before_mb']:.0f} MiB."
    )
    return section


if __name__ == "__main__":
    print(json.dumps(declared(int(sys.argv[1]))))
