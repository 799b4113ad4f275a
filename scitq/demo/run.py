"""The demo as tasks: which step of `pipeline` runs on what, and after what.

Tasks hand one another folders under the results folder. Showing how they get on belongs to `scitq.shell`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from scitq.demo import pipeline

DATA = Path(__file__).parent / "data"
READS = (DATA / "ecoli_1K_1.fq.gz", DATA / "ecoli_1K_2.fq.gz")
REFERENCE = DATA / "reference_1K.fa.gz"
TILES = 100  # of a lane of that machine
SAMPLES = 8

T = TypeVar("T")


class Queue(Protocol[T]):
    """What the demo asks of an engine: to take a command that runs after others."""

    def submit(self, command: list[str], /, *, name: str, batch: str, requires: Sequence[T]) -> T:
        """Queue a command."""


def samples(count: int = SAMPLES) -> list[str]:
    """The lane's tiles in `count` ranges of the same length, give or take one."""
    edges = [round(TILES * i / count) for i in range(count + 1)]
    return [f"tiles-{first + 1:03}-{last:03}" for first, last in pairwise(edges)]


def submit(engine: Queue[T], results: Path) -> list[T]:
    """Queue the whole pipeline and give its tasks: trim, then place and kmer for each sample, last the one report."""
    results = results.resolve()
    trims: list[T] = []
    rest: list[T] = []
    folders: list[Path] = []
    for sample in samples():
        trimmed = results / "trim" / sample
        folders.append(trimmed)
        trims.append(_submit(engine, "trim", sample, [*READS, sample, trimmed], []))
    for sample, trim in zip(samples(), trims, strict=True):
        for step in ("place", "kmer"):
            out = results / step / sample
            folders.append(out)
            rest.append(_submit(engine, step, sample, [results / "trim" / sample, REFERENCE, out], [trim]))
    report = _submit(engine, "report", "all", [results / "report", *folders], [*trims, *rest])
    return [*trims, *rest, report]


def _submit(engine: Queue[T], step: str, sample: str, arguments: Sequence[str | Path], requires: Sequence[T]) -> T:
    # -I: neither the folder a person happens to be in nor their PYTHONPATH may change what the steps do.
    command = [sys.executable, "-I", pipeline.__file__, step, *map(str, arguments)]
    return engine.submit(command, name=f"{step} {sample}", batch=step, requires=requires)


def summary(results: Path) -> list[dict[str, str]]:
    """The report's rows, one a sample and one for all; the keys are `pipeline.COLUMNS`."""
    head, *lines = (results / "report" / "report.tsv").read_text(encoding="utf-8").splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def table(results: Path) -> str:
    """The report as a biologist reads it."""
    return (results / "report" / "report.txt").read_text(encoding="utf-8").rstrip("\n")
