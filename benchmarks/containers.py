"""(l) `echo` in a container of a private Docker daemon: what scitq adds to `docker run --rm` by hand."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.report import Section, at_most, spread
from tests.containers import IMAGE, Dockerd, closing

OURS, BY_HAND = "scitq, submit to result", "docker run --rm"
BAR_MS = 100.0


def echo(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(l) The daemon, the worker and the image are there; both take turns."""
    import scitq

    taken: dict[str, list[float]] = {OURS: [], BY_HAND: []}
    before = dict(os.environ)
    with closing(Dockerd()) as daemon:
        os.environ.update(daemon.environment)
        try:
            with scitq.open(folder / "echo.scitq") as engine:
                engine.submit(["echo", "hi"], container=IMAGE).result(timeout=120)
                for turn in range(3 if quick else 5 * rounds):
                    for name in (OURS, BY_HAND) if turn % 2 else (BY_HAND, OURS):
                        begin = time.perf_counter()
                        if name == OURS:
                            engine.submit(["echo", "hi"], container=IMAGE).result(timeout=120)
                        else:
                            subprocess.run(
                                ["docker", "run", "--rm", IMAGE, "echo", "hi"], check=True, capture_output=True
                            )
                        taken[name].append((time.perf_counter() - begin) * 1000)
                        time.sleep(0.3)  # ours is removed after its end: not while by hand has its turn
        finally:
            os.environ.clear()
            os.environ.update(before)
    added = [ours - theirs for ours, theirs in zip(taken[OURS], taken[BY_HAND], strict=True)]
    rows = [(name, spread(times, 0)) for name, times in taken.items()]
    return Section(
        "l", "`echo` in a container, in milliseconds", ("", "one task"), rows,
        [at_most(f"{OURS} - {BY_HAND}", statistics.median(added), BAR_MS, " ms", 0)],
        ["By hand includes the removal of the container, which scitq does once the end of the task is on record."],
    )  # fmt: skip
