"""`scitq task stats`: what tasks really used, beside what they asked for, and what to ask for next time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, several
from scitq.store import batches, summary
from scitq.store.summary import Usage
from scitq.task import Need

# Fewer successes say little about the next one.
ENOUGH = 3
# What a program needs varies, and a limit that is met kills it.
MARGIN = 1.2
# What a task would have used that was stopped at its limit is not known: twice as much is tried.
DOUBLE = 2
SHOWN = 5
# The CPU time of one busy thread comes out a little above its run time; that is no second CPU.
NOISE = 0.1


def stats(engine: Engine, args: SimpleNamespace) -> Rows:
    """Run time, CPU and memory of what succeeded, by batch, and a proposal."""
    if args.batch is not None:
        batches.known(engine._reader(), args.batch)
    found = summary.usage(engine._reader(), args.batch)
    rows = [_row(one) for one in found]
    columns = [Column("batch", gives=True), Column("runs")]
    columns += [
        Column("run_s_median", "time"),
        Column("run_s_p95", "p95", worth=20),
        Column("run_s_max", "max", worth=25),
    ]
    if args.long:
        columns += [Column("cpu_s", "CPU time"), Column("_use", "mean CPUs")]
        columns += [Column("read_median", "read"), Column("written_median", "written")]
    columns += [
        Column("_use_p95", "CPUs"), Column("memory_median", "memory", worth=30), Column("memory_max", "peak"),
        *([Column("out_of_memory", "too little")] if any(one.out_of_memory for one in found) else ()),
        Column("_asked", "asked", gives=True, worth=44, good=12), Column("_proposal", "proposal", gives=True, good=16),
    ]  # fmt: skip
    return Rows(columns, rows, _notes(engine, found), head=bool(rows) and not args.no_header, cut=not args.long)


def propose(used: Usage) -> Need | None:
    """What to ask for next time, after enough successes: the CPUs that were busy, and the most memory with a margin.

    Tasks that were out of memory count at once: more than they had is needed, whatever the others took.
    """
    cpus = None if used.cpu_use_p95 is None else max(1, math.ceil(used.cpu_use_p95 - NOISE))
    memory = (used.memory_max or 0) * MARGIN
    if used.runs < ENOUGH:
        cpus, memory = None, 0.0
    memory = max(memory, (used.memory_short or 0) * DOUBLE)
    return Need(cpus, rounded_up(memory) or None, used.asked.gpus) if cpus or memory else None


def options(need: Need) -> str:
    """What is asked for as one would type it: `--cpus 2 --memory 2.4G`."""
    words = [f"--cpus {need.cpus:g}"] if need.cpus else []
    words += [f"--memory {need.memory / 1e9:g}G"] if need.memory else []
    words += [f"--gpus {need.gpus}"] if need.gpus else []
    return " ".join(words)


def rounded_up(count: float) -> int:
    """Bytes as one would write them: whole GB from 10 GB on, else tenths."""
    step = 1e9 if count > 10e9 else 1e8
    return int(math.ceil(count / step) * step)


def _row(used: Usage) -> dict[str, Any]:
    proposal = propose(used)
    return {
        "batch": used.batch, "runs": used.runs, "run_s_median": _seconds(used.run_s_median), "run_s_p95": _seconds(used.run_s_p95),
        "run_s_max": _seconds(used.run_s_max), "cpu_s": _seconds(used.cpu_s), "cpu_use": _rounded(used.cpu_use),
        "cpu_use_p95": _rounded(used.cpu_use_p95), "memory_median": _bytes(used.memory_median), "memory_max": _bytes(used.memory_max),
        "read_median": _bytes(used.read_median), "written_median": _bytes(used.written_median), "out_of_memory": used.out_of_memory,
        "asked": _need(used.asked), "proposal": None if proposal is None else _need(proposal),
        "options": None if proposal is None else options(proposal),
        "_use": _cpus(used.cpu_use), "_use_p95": _cpus(used.cpu_use_p95), "_asked": used.asked.describe(),
        "_proposal": "" if proposal is None else proposal.describe(),
    }  # fmt: skip


def _notes(engine: Engine, found: list[Usage]) -> list[str]:
    if not found:
        return ["Nothing has succeeded yet: there is nothing to tell."]
    able = [(used, proposal) for used in found if (proposal := propose(used)) is not None]
    if not able:
        return [f"A proposal comes after {ENOUGH} successes."]
    lines = []
    for used, need in able[:SHOWN]:
        command = facts.command_for(engine, f"batch set {facts.quoted(used.batch)} {options(need)}")
        short = f", {used.out_of_memory:,} that had too little memory" if used.out_of_memory else ""
        lines.append(f"From {several(used.runs, 'success', 'successes')}{short}. To ask for it from now on: {command}")
    return lines


def _need(need: Need) -> dict[str, Any]:
    return {"cpus": need.cpus, "memory": _bytes(need.memory), "gpus": need.gpus}


def _bytes(count: int | None) -> Bytes | None:
    return None if count is None else Bytes(count)


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cpus(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.2g}")
