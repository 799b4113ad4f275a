"""Large data of this machine for workers that cannot see it: run by tests/campaign.sh."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from scitq.engine import Engine
from tests.engine.conftest import engine, open_engine, sound
from tests.engine.wires import Far, Wire, cut, far

__all__ = ["engine", "far", "open_engine"]

pytestmark = pytest.mark.campaign
SEED = int(os.environ.get("SCITQ_SEED") or 1)
CUTS = 10


def shaky(wire: Wire, chance: random.Random) -> None:
    """Cut it now and then while pieces pass."""
    left = CUTS

    def before(method: str, target: str) -> None:
        nonlocal left
        if method == "PUT" and left and chance.random() < 0.02:
            left -= 1
            cut()

    wire.before = before


def test_two_gigabytes_for_twenty_tasks_cross_to_each_of_two_workers_once(
    engine: Engine, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.parcels.AGAIN_S", (0.1,))
    chance = random.Random(SEED)
    block = chance.randbytes(1 << 20)
    digest = hashlib.sha256()
    with (tmp_path / "big").open("wb") as file:
        for _ in range(2000):
            file.write(block)
            digest.update(block)
    size = (tmp_path / "big").stat().st_size
    engine.submit("true")
    wires = [far(engine, name, concurrency=10) for name in ("one", "two")]
    for wire in wires:
        shaky(wire, chance)
    began = time.monotonic()
    read = "sha256sum < $INPUT/big"
    tasks = [engine.submit(read, shell=True, input=tmp_path / "big") for _ in range(20)]
    assert {task.result(1800).stdout.split()[0] for task in tasks} == {digest.hexdigest()}
    took_s = time.monotonic() - began
    assert {one.worker for task in tasks for one in task.executions} == {"one", "two"}
    window = (16 << 20) + (4 << 20)
    sent = [sum(length for _, length in wire.pieces) for wire in wires]
    assert all(size <= each <= size + CUTS * window for each in sent), sent
    print(f"\n2 GB to each of 2 workers, {CUTS} cuts each: {took_s:.0f} s, sent {sent} of {size} (seed {SEED})")
    sound(engine)


def test_a_thousand_tasks_with_a_small_file_each_are_not_one_round_trip_each(
    engine: Engine, far: Far, tmp_path: Path
) -> None:
    for number in range(1000):
        (tmp_path / f"f{number}").write_text(f"{number}\n")
    engine.submit("true")
    wire = far(engine, concurrency=20)
    began = time.monotonic()
    tasks = [engine.submit("cat $INPUT/*", shell=True, input=tmp_path / f"f{number}") for number in range(1000)]
    assert [task.result(600).stdout for task in tasks] == [f"{number}\n" for number in range(1000)]
    asked = len(wire.sent) - len(wire.pieces)
    print(f"\n1,000 small inputs: {time.monotonic() - began:.1f} s, {len(wire.pieces)} files, {asked} other requests")
    sound(engine)


def test_a_gigabyte_of_outputs_comes_home_over_a_line_that_breaks(
    engine: Engine, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.homecoming.AGAIN_S", 0.1)
    chance = random.Random(SEED)
    engine.submit("true")
    wire = far(engine, concurrency=2)
    left = CUTS

    def before(method: str, target: str) -> None:
        nonlocal left
        if target.startswith("/kept/") and left and chance.random() < 0.05:
            left -= 1
            cut()

    wire.before = before
    make = "head -c 250000000 /dev/urandom > $OUTPUT/big; sha256sum < $OUTPUT/big"
    tasks = [engine.submit(make, shell=True) for _ in range(4)]
    began = time.monotonic()
    for task in tasks:
        said = task.result(1800).stdout.split()[0]
        with (engine.side / "outputs" / str(task.id) / "big").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == said
    print(f"\n4 outputs of 250 MB, {CUTS - left} cuts: {time.monotonic() - began:.0f} s (seed {SEED})")
    assert left < CUTS
    sound(engine)
