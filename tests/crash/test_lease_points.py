"""kill -9 of the agent and of the keeper before and after every write, rename and send, while outputs wait for a lease.

Whatever was killed: nothing is published before the lease, what the driver gave up meanwhile never is, the rest is once.
CI tries a seeded sample (`SCITQ_ROUNDS`, `SCITQ_SEED`), the campaign all points.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent.manifest import NAME, parse
from tests.crash.test_agent_points import ALL_FROM, ROUNDS, SEED
from tests.remote.scenario import BEGIN, SLOTS, Scenario, plan

GIVEN_UP = (2, 3)


class Leased(Scenario):
    """Four outputs made without a lease; two of them are given up before there is one."""

    def __init__(self, folder: Path, command: list[str] | None = None) -> None:
        super().__init__(folder, command)
        self.orders = {number: self._order(number) for number in range(4)}

    def _order(self, number: int) -> dict[str, Any]:
        script = BEGIN.format(ran=self.ran) + "echo mine > $OUTPUT/file"
        more = {"output": str(self.place(number)), "owner": f"test:{number}", "overwrite": number % 2 == 0}
        return {"order": number, "task": str(number), "script": script, "grace": 1, **more}

    def place(self, number: int) -> Path:
        """Where its output goes."""
        return self.folder / "places" / str(number)

    def run(self) -> None:
        """Order, wait; give two up; lease, wait; look."""
        self.deadline = time.monotonic() + 60
        local.ensure(self.root, command=self.command)
        self.say({"slots": SLOTS}, {"lease": 0})
        self.say(*self.orders.values())
        while len(self.driver.exits) < 4 and time.monotonic() < self.deadline:
            self.listen(0.2)
        if (self.folder / "places").exists():
            self.problems.append("published without a lease")
        unknown = {int(key) for key, line in self.driver.exits.items() if line["why"] == "unknown"}
        gone = [{"cancel": number} for number in GIVEN_UP]
        self.say(*gone, {"forget": list(GIVEN_UP)}, {"lease": 1000})
        wanted = {str(number) for number in self.orders if number not in unknown}
        while set(self.collected) != wanted and time.monotonic() < self.deadline:
            self.listen(0.2)
        while (held := self.insist(self.driver.held)["held"]) or any(self.left()):
            if time.monotonic() > self.deadline:
                self.problems.append(f"no end: {held}, {self.left()}")
                break
            self.listen(0.1)
        self.check_places(unknown)
        self.driver.close()
        local.stop(self.root)

    def left(self) -> list[str]:
        """Folders that nobody wants to see."""
        return [str(number) for number in GIVEN_UP if (self.root / "exec" / str(number)).exists()]

    def check_places(self, unknown: set[int]) -> None:
        """What must hold at the end."""
        if len(unknown) > SLOTS * max(0, self.keepers - 1):
            self.problems.append(f"{unknown} unknown after {self.keepers - 1} deaths of keepers")
        for number in self.orders:
            place, said = self.place(number), self.collected.get(str(number), {})
            if number in GIVEN_UP or number in unknown:
                if place.exists() or said.get("ok"):
                    self.problems.append(f"{number} was published: {said}")
                continue
            found = parse((place / NAME).read_bytes()) if (place / NAME).exists() else None
            if not said.get("ok") or found is None or not found.is_complete or found.execution != number:
                self.problems.append(f"{number} was not published: {said}, {found}")


@pytest.mark.parametrize("role", ["agent", "keeper"])
@pytest.mark.promise("core 11.5")
def test_killed_at_any_point_nothing_is_published_without_a_lease(tmp_path: Path, role: str) -> None:
    (tmp_path / "count").mkdir()
    command, log = plan(tmp_path / "count", role, 0, "never")
    counted = Leased(tmp_path / "count", command)
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
        scenario = Leased(folder, command)
        scenario.run()
        hit = log.read_text() if log.exists() else "not reached"
        assert scenario.problems == [], f"killed at {hit}: {scenario.problems} (seed {SEED}, in {folder})"
        hits[" ".join(hit.split()[2:])] += 1
        shutil.rmtree(folder)
    print(
        f"\n{role}: {sum(count for name, count in hits.items() if name)} of {2 * len(calls)} points hit: {dict(hits)}"
    )
