"""kill -9 of the agent and of the keeper before and after every write, rename, spawn and send.

Nothing is lost, doubled or mixed up. CI tries a seeded sample (`SCITQ_ROUNDS`, `SCITQ_SEED`), the campaign all points.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.remote.scenario import Scenario, plan

ROUNDS = os.environ.get("SCITQ_ROUNDS", "10")
SEED = int(os.environ.get("SCITQ_SEED", "1"))
ALL_FROM = 100
"""With that many rounds or more, every point is tried."""


def points_of(folder: Path, role: str) -> list[str]:
    """The calls that a run without deaths makes in that role."""
    folder.mkdir()
    command, log = plan(folder, role, 0, "never")
    scenario = Scenario(folder, command)
    scenario.run()
    assert scenario.problems == []
    return [line for line in log.read_text().splitlines() if line.startswith(role)]


@pytest.mark.sampled
@pytest.mark.parametrize("role", ["agent", "keeper"])
@pytest.mark.promise("lessons 3.5.3")
def test_killed_at_any_point_nothing_is_lost_or_doubled(tmp_path: Path, role: str) -> None:
    calls = points_of(tmp_path / "count", role)
    points = [(number, when) for number in range(1, len(calls) + 1) for when in ("before", "after")]
    if ROUNDS.isdigit() and int(ROUNDS) < ALL_FROM:
        points = sorted(random.Random(SEED).sample(points, min(int(ROUNDS), len(points))))
    hits: Counter[str] = Counter()
    for number, when in points:
        folder = tmp_path / f"{role}-{number}-{when}"
        folder.mkdir()
        command, log = plan(folder, role, number, when)
        scenario = Scenario(folder, command)
        scenario.run()
        hit = log.read_text() if log.exists() else "not reached"
        assert scenario.problems == [], f"killed at {hit}: {scenario.problems} (seed {SEED}, in {folder})"
        hits[" ".join(hit.split()[2:])] += 1
        shutil.rmtree(folder)
    reached = sum(count for name, count in hits.items() if name)
    print(f"\n{role}: {reached} of {2 * len(calls)} points hit (seed {SEED}): {dict(hits)}")
    assert reached >= len(points) // 3  # a run that is told to die makes a few calls more or less than the counted one


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("error", "calls"),
    [(errno.ENOSPC, ["write", "mkdir"]), (errno.EAGAIN, ["posix_spawn"]), (errno.EIO, ["write"])],
    ids=["disk full", "no more processes", "disk broken"],
)  # fmt: skip
def test_a_machine_that_is_full_for_a_while_loses_nothing(tmp_path: Path, error: int, calls: list[str]) -> None:
    all_calls = points_of(tmp_path / "count", "keeper")
    numbers = [number for number, call in enumerate(all_calls, 1) if call.split()[-1] in calls and number > 40]
    failed = 0
    for number in random.Random(SEED).sample(numbers, 3):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        command, log = plan(folder, "keeper", number, "fails", errno=error, calls=calls, times=3)
        scenario = Scenario(folder, command)
        scenario.may_give_back = True
        scenario.run()
        hit = log.read_text() if log.exists() else ""
        assert scenario.problems == [], f"{hit}: {scenario.problems} (seed {SEED}, in {folder})"
        failed += hit.count("fails")
    print(f"\n{failed} calls failed with {os.strerror(error)} (seed {SEED})")
    assert failed


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("mutation", "role", "name"),
    [("no-start-line", "keeper", "posix_spawn"), ("late-start-line", "keeper", "posix_spawn"),
     ("no-order-file", "keeper", "posix_spawn"), ("no-delivery-record", "agent", "rename")],
)  # fmt: skip
def test_the_checks_notice_a_missing_safeguard(tmp_path: Path, mutation: str, role: str, name: str) -> None:
    calls = points_of(tmp_path / "count", role)
    numbers = [number for number, call in enumerate(calls, 1) if call.endswith(" " + name)]
    for number in numbers[:40]:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        command, _ = plan(folder, role, number, "after", mutation=mutation)
        scenario = Scenario(folder, command)
        scenario.run()
        if scenario.problems:
            print(f"\n{mutation}: noticed, killed after {name} {number}: {scenario.problems[0]}")
            return
    pytest.fail(f"without its safeguard ({mutation}) nothing was noticed at {len(numbers)} points")
