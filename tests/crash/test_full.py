"""Full disks, real ones: small file systems in memory, in a mount namespace of our own."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.crash.conftest import SCENARIO, rounds


def play(folder: Path, what: str, dice: random.Random) -> dict[str, Any]:
    """One round of `full`; what it found."""
    folder.mkdir()
    with subprocess.Popen(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-W", "error", "-m", "tests.crash.full", folder, what,
         str(dice.random())],
        env={**os.environ, "PYTHONPATH": str(SCENARIO.parents[2])}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    shutil.rmtree(folder)
    return found


def test_an_engine_whose_disk_is_full_waits_says_how_much_it_needs_and_goes_on_by_itself(
    tmp_path: Path, dice: random.Random
) -> None:
    for number in range(rounds(1, 0.2)):
        found = play(tmp_path / str(number), "file", dice)
        assert found["problems"] == [], f"round {number}"
        assert found["is_driving"] and found["live"] > 0
        waits, goes_on = found["said"]
        for one in (waits, found["refused"]):
            assert "no space left to write" in one and "MB are free on its disk; about 16 MB are needed" in one
        assert waits.endswith("The driver waits for that, and goes on by itself.")
        assert goes_on == "lab.scitq can be written again; it goes on."
        assert found["rows"] == found["acked"]


def test_a_worker_whose_disk_is_full_waits_and_goes_on_by_itself(tmp_path: Path, dice: random.Random) -> None:
    for number in range(rounds(1, 0.2)):
        found = play(tmp_path / str(number), "agent", dice)
        assert found["problems"] == [], f"round {number}"
        assert found["is_driving"] and found["live"] > 0
        assert all("is full (0.0 MB are free, 1 MB are needed at least)" in why for why in found["whys"])
        assert found["rows"] == found["acked"]
