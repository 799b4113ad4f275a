"""The demo through a real engine, and its numbers again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from scitq import engine
from scitq.demo import run


@pytest.mark.usefixtures("workers_may_linger")
def test_the_demo_runs_through_an_engine(state_file: Path, tmp_path: Path) -> None:
    with engine.open(state_file) as queue:
        *steps, report = run.submit(queue, tmp_path / "demo results")
        text = report.result().stdout

    assert len(steps) == 24
    assert text.rstrip("\n") == run.table(tmp_path / "demo results")
    rows = {row["sample"]: row for row in run.summary(tmp_path / "demo results")}
    assert list(rows) == [*run.samples(), "all"]
    assert (rows["all"]["reads"], rows["all"]["kept"], rows["all"]["mismatches"]) == ("4108", "3848", "17")


def test_samples_share_the_lane_evenly_and_leave_no_tile_out() -> None:
    ranges = [tuple(map(int, name.split("-")[1:])) for name in run.samples()]

    assert ranges[0][0] == 1 and ranges[-1][1] == run.TILES
    assert all(one[1] + 1 == two[0] for one, two in pairwise(ranges))
    assert {last - first + 1 for first, last in ranges} == {12, 13}
