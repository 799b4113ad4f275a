"""Contestants in turn: each is a program of its own in a fresh folder, told a size, that prints what it measured as JSON.

What they do is in `contestants` (ours, and the system's tools) and `peers/` (run by the Python of `.venv`, where they are
installed).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

HERE = Path(__file__).parent
ROOT = HERE.parent
VENV = HERE / ".venv"
PEERS = ("hyperqueue", "huey", "executorlib")
TIMEOUT_S = 900.0
Outcome = dict[str, float]


@dataclass(frozen=True)
class Contestant:
    """Who takes part, under which name, and how it is started; `share` of the size for slow ones."""

    name: str
    command: tuple[str, ...]
    share: float = 1.0


def ours(name: str, function: str, share: float = 1.0) -> Contestant:
    """A function of `contestants`."""
    return Contestant(name, (sys.executable, "-m", "benchmarks.contestants", function), share)


def peer(name: str, script: str, what: str, share: float = 1.0) -> Contestant:
    """A program in `peers/`."""
    return Contestant(name, (str(VENV / "bin" / "python"), str(HERE / "peers" / script), what), share)


def install_peers() -> list[str]:
    """Make `.venv` with the peers in it, unless it is there; returns their versions."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    listed = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    code = f"from importlib.metadata import version; print(*(f'{{p}} {{version(p)}}' for p in {PEERS}), sep=', ')"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if asked.returncode:
        subprocess.run([*listed, "install", "--quiet", *PEERS], check=True)
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return asked.stdout.strip().split(", ")


def play(contestants: Sequence[Contestant], size: int, rounds: int, folder: Path) -> dict[str, list[Outcome]]:
    """Everybody once a round, each round beginning with another; who fails once is out, and said so."""
    found: dict[str, list[Outcome]] = {each.name: [] for each in contestants}
    out: set[str] = set()
    for turn in range(rounds):
        shift = turn % len(contestants)
        for each in [*contestants[shift:], *contestants[:shift]]:
            if each.name in out:
                continue
            try:
                found[each.name].append(run(each, max(1, int(size * each.share)), folder))
            except (subprocess.SubprocessError, ValueError) as problem:
                out.add(each.name)
                print(f"{each.name} is out: {problem}", file=sys.stderr)
    return {name: outcomes for name, outcomes in found.items() if outcomes and name not in out}


def surroundings() -> dict[str, str]:
    """The environment of what is measured: this tree, compiled once, as an installed package is."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("SCITQ_FILE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        environ.pop(name, None)
    return environ


def run(contestant: Contestant, size: int, folder: Path) -> Outcome:
    """One contestant, once."""
    place = Path(tempfile.mkdtemp(prefix="b-", dir=folder))
    environ = surroundings() | {machine.MARK: uuid.uuid4().hex}
    process = subprocess.Popen(
        [*contestant.command, str(size)],
        cwd=place, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told, complaints = process.communicate(timeout=TIMEOUT_S)
        if process.returncode:
            raise ValueError("; ".join(complaints.strip().splitlines()[-3:]) or f"exit {process.returncode}")
        outcome: Outcome = json.loads(told.strip().splitlines()[-1])
        return outcome
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(place, ignore_errors=True)


def ratios(found: dict[str, list[Outcome]], name: str, other: str, field: str = "rate") -> list[float]:
    """Round by round, how many times the other's the value of one is."""
    pairs = zip(found.get(name, []), found.get(other, []), strict=False)
    return [one[field] / two[field] for one, two in pairs if two[field]]


def median_ratio(found: dict[str, list[Outcome]], name: str, other: str, field: str = "rate") -> float:
    """The median of those; NaN where one of the two is missing."""
    values = ratios(found, name, other, field)
    return statistics.median(values) if values else float("nan")
