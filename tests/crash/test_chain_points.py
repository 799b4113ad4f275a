"""kill -9 of the agent and of the keeper before and after every write, rename and send, while executions wait for others.

Whatever was killed: who waits runs once and finds all that was left for it, or is given back; nothing waits for ever.
CI tries a seeded sample (`SCITQ_ROUNDS`, `SCITQ_SEED`), the campaign all points.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from tests.crash.test_agent_points import ALL_FROM, ROUNDS, SEED
from tests.remote.scenario import BEGIN, SLOTS, Scenario, plan

WORK = {
    0: "echo 0 > $OUTPUT/0",
    1: "cat $INPUT/0 > $OUTPUT/1; echo 1 >> $OUTPUT/1; ln -s 1 $OUTPUT/link",
    2: "cat $INPUT/* $RESOURCE/0",
    3: "exit 1",
    4: "echo never",
    5: "echo never",
}
NEEDS = {1: [0], 2: [0, 1], 4: [3], 5: [4, 0]}
SAID = {2: "0\n1\n0\n1\n0\n"}


def of(execution: int) -> dict[str, Any]:
    return {"uri": "/not/here", "of": execution, "below": ""}


class Chained(Scenario):
    """Three that read one another's outputs, and three of which the first fails."""

    def __init__(self, folder: Path, command: list[str] | None = None) -> None:
        super().__init__(folder, command)
        self.orders = {number: self._order(number) for number in WORK}

    def _order(self, number: int) -> dict[str, Any]:
        script = BEGIN.format(ran=self.ran) + WORK.get(number, "")
        found: dict[str, Any] = {"order": number, "task": str(number), "script": script, "grace": 1}
        if number in (0, 1):
            found["home"] = True
        if number in NEEDS:
            found["after"] = NEEDS[number]
            found["input"] = [of(NEEDS[number][-1])]
        if number == 2:
            found["resource"] = [of(0)]
        return found

    def is_over(self) -> bool:
        """Whether every execution has ended and what is held is held."""
        return len(self.driver.exits) == len(WORK) and super().is_over()

    def run(self) -> None:
        """Order, wait, look."""
        self.deadline = time.monotonic() + 60
        local.ensure(self.root, command=self.command)
        self.say({"slots": SLOTS})
        self.say(*(self.orders[number] for number in range(4)))
        self.say(*(self.orders[number] for number in range(4, 6)))
        while not self.is_over():
            if time.monotonic() > self.deadline:
                self.problems.append(f"no end: only {sorted(self.driver.exits)}; {self.driver.lines[-5:]}")
                break
            self.listen(0.2)
        while os.listdir(self.root / "stage") and time.monotonic() < self.deadline:
            self.insist(lambda: self.driver.ask("GET", "/ping"))
            threading.Event().wait(0.01)
        self.check()
        self.driver.close()
        local.stop(self.root)

    def check(self) -> None:
        """What must hold at the end."""
        if left := os.listdir(self.root / "stage"):
            self.problems.append(f"left in stage: {left}")
        whys = {number: self.driver.exits.get(str(number), {}).get("why") for number in WORK}
        unknown = [number for number, why in whys.items() if why == "unknown"]
        if len(unknown) > SLOTS * max(0, self.keepers - 1):
            self.problems.append(f"{unknown} unknown after {self.keepers - 1} deaths of keepers")
        ran = self.ran.read_text().split()
        for number, why in whys.items():
            if ran.count(str(number)) > 1:
                self.problems.append(f"{number} ran {ran.count(str(number))} times")
            needs_well = all(whys[need] is None and need != 3 for need in NEEDS.get(number, []))
            if why == "unknown":
                continue
            if why != (None if needs_well else "recall"):
                self.problems.append(f"{number} ended with {why}: {whys}")
            if why is None and number in SAID and self.driver.exits[str(number)]["o"] != SAID[number]:
                self.problems.append(f"{number} read {self.driver.exits[str(number)]['o']!r}")
            if why is None and number in (0, 1) and not self.collected[str(number)].get("held"):
                self.problems.append(f"{number} is not held: {self.collected[str(number)]}")


@pytest.mark.parametrize("role", ["agent", "keeper"])
def test_killed_at_any_point_who_waits_for_others_finds_all_or_is_given_back(tmp_path: Path, role: str) -> None:
    (tmp_path / "count").mkdir()
    command, log = plan(tmp_path / "count", role, 0, "never")
    counted = Chained(tmp_path / "count", command)
    counted.run()
    assert counted.problems == []
    calls = [line for line in log.read_text().splitlines() if line.startswith(role)]
    points = [(number, when) for number in range(1, len(calls) + 1) for when in ("before", "after")]
    if ROUNDS.isdigit() and int(ROUNDS) < ALL_FROM:
        points = sorted(random.Random(SEED).sample(points, min(max(1, int(ROUNDS) // 20), len(points))))
    hits: Counter[str] = Counter()
    for number, when in points:
        folder = tmp_path / f"{role}-{number}-{when}"
        folder.mkdir()
        command, log = plan(folder, role, number, when)
        scenario = Chained(folder, command)
        scenario.run()
        hit = log.read_text() if log.exists() else "not reached"
        assert scenario.problems == [], f"killed at {hit}: {scenario.problems} (seed {SEED}, in {folder})"
        hits[" ".join(hit.split()[2:])] += 1
        shutil.rmtree(folder)
    print(
        f"\n{role}: {sum(count for name, count in hits.items() if name)} of {2 * len(calls)} points hit: {dict(hits)}"
    )
