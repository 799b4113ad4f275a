"""(p) Where the driver's time goes: (a) once more, or the same through simulated agents, with its thread profiled.

A profile slows what it looks at, calls of small functions most; it tells shares, not times. Times are CPU of that thread.
"""

from __future__ import annotations

import cProfile
import io
import json
import pstats
import re
import sys
import time
from pathlib import Path

from benchmarks.contest import Contestant, Outcome, run
from benchmarks.report import Section

TOP = 22


def profiled(size: int, what: str) -> Outcome:
    """Run it with the driver's thread profiled; the profile goes to the file `profile` in the folder above."""
    from scitq import driver

    profile = cProfile.Profile(time.thread_time)  # CPU, not what others made it wait for
    plain = driver.Driver._main

    def main(self: driver.Driver) -> None:
        profile.runcall(plain, self)

    driver.Driver._main = main  # type: ignore[method-assign]
    if what == "agents":
        from benchmarks.agents import drive

        outcome = drive(size)
    else:
        from benchmarks import contestants

        outcome = getattr(contestants, what)(size)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(TOP)
    Path("../profile").write_text(text.getvalue())
    return outcome


def profile(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(p)"""
    section = Section("p", "Profiles of the driver's thread", ("", ""))
    for what, size in (("noop", 2000), ("latency", 100), ("agents", 5000)):
        command = (sys.executable, "-m", "benchmarks.profiles", what)
        outcome = run(Contestant(what, command), size // 5 if quick else size, folder)
        lines = (folder / "profile").read_text().splitlines()
        begin = next(n for n, line in enumerate(lines) if line.strip().startswith("ncalls"))
        rows = "\n".join(
            re.sub(r"/\S*/(scitq/|lib/python[\d.]+/)", r"\1", line) for line in lines[begin:] if line.strip()
        )
        section.notes.append(
            f"`{what}`: {', '.join(f'{key} {value:,.2f}' for key, value in outcome.items())}\n\n```\n{rows}\n```"
        )
    return section


if __name__ == "__main__":
    print(json.dumps(profiled(int(sys.argv[2]), sys.argv[1])))
