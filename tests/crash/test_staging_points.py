"""kill -9 of the agent and of the keeper before and after every write, rename and send, while data is brought.

Whatever was killed: each execution starts once at most and only with all of its data, ends once, and leaves nothing. CI
tries a seeded sample (`SCITQ_ROUNDS`, `SCITQ_SEED`), the campaign all points.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from tests.crash.test_agent_points import ALL_FROM, ROUNDS, SEED
from tests.fetch.web import WebServer
from tests.remote.scenario import BEGIN, SLOTS, Scenario, plan

SHARED = b"shared\n" * 1000
LIST = (
    "cd $INPUT; find . -type f -o -type l | sort; cd $RESOURCE; find . -type f | sort; cat $INPUT/* $RESOURCE/* | cksum"
)


class Staged(Scenario):
    """Tasks with data, of every kind, some of which cannot be had."""

    def __init__(self, folder: Path, web: WebServer, command: list[str] | None = None) -> None:
        self.web = web
        (folder / "near").write_text("near\n")
        web.reset()
        web.add("/far", b"far\n")
        web.add("/shared", SHARED)
        web.add("/never", b"never" * 100, stalls=[100] * 100)
        super().__init__(folder, command)
        self.orders = {number: self._order(number) for number in range(8)}

    def _order(self, number: int) -> dict[str, Any]:
        order: dict[str, Any] = {"order": number, "task": str(number), "grace": 1}
        order["script"] = BEGIN.format(ran=self.ran) + LIST
        near, far, shared = f"{self.folder}/near", f"{self.web.url}/far", f"{self.web.url}/shared"
        more: dict[int, dict[str, Any]] = {
            0: {"input": [near]},
            1: {"input": [far, near]},
            2: {"resource": [shared]},
            3: {"resource": [shared], "input": [far]},
            4: {"input": [f"{self.web.url}/none"]},
            5: {"input": [far, f"{far}|mv:sub"], "resource": [shared, near]},
            6: {"input": [f"{self.web.url}/never"]},
            7: {
                "input": [near],
                "deliver": str(self.folder / "place"),
                "script": order["script"] + "; cp $INPUT/near $OUTPUT/",
            },
        }
        return order | more.get(number, {})

    def run(self) -> None:
        """Order, cancel the one that would never end, wait, look."""

        self.deadline = time.monotonic() + 60
        local.ensure(self.root, command=self.command)
        self.say({"slots": SLOTS})
        self.say(*(self.orders[number] for number in range(4)))
        self.say(*(self.orders[number] for number in range(4, 8)))
        is_cancelled = False
        while not self.is_over():
            if time.monotonic() > self.deadline:
                self.problems.append(f"no end: only {sorted(self.driver.exits)}; {self.driver.lines[-5:]}")
                break
            self.listen(0.2)
            if not is_cancelled and len(self.driver.exits) >= 7:
                self.say({"cancel": 6})
                is_cancelled = True
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
        versions = os.listdir(self.root / "cache")
        if len(versions) != 1 or versions[0].startswith("new-"):
            self.problems.append(f"in the cache: {versions}")
        shared = list((self.root / "cache").glob("*/data/shared"))
        if len(shared) != 1 or shared[0].read_bytes() != SHARED:
            self.problems.append(f"the shared resource is not as it should be: {shared}")
        ran = self.ran.read_text().split()
        unknown = [key for key, line in self.driver.exits.items() if line["why"] == "unknown"]
        if len(unknown) > SLOTS * max(0, self.keepers - 1):
            self.problems.append(f"{unknown} unknown after {self.keepers - 1} deaths of keepers")
        for number in self.orders:
            line = self.driver.exits.get(str(number), {"why": "no exit", "code": None, "o": ""})
            if ran.count(str(number)) > (number not in (4, 6)):
                self.problems.append(f"{number} ran {ran.count(str(number))} times")
            if line["why"] == "unknown":
                continue
            wanted = {4: ("stage_in", None), 6: ("cancel", None)}.get(number, (None, 0))
            if (line["why"], line["code"]) != wanted:
                self.problems.append(f"{number} ended with {line}")
            names = line["o"].split("\n")[:-2] if wanted[1] == 0 else []
            if names != self.names().get(number, []):
                self.problems.append(f"{number} found {names}")
        if self.driver.exits.get("7", {}).get("code") == 0 and not (self.folder / "place" / "near").exists():
            self.problems.append("7 delivered nothing")

    @staticmethod
    def names() -> dict[int, list[str]]:
        """What each finds."""
        return {0: ["./near"], 1: ["./far", "./near"], 2: ["./shared"], 3: ["./far", "./shared"], 7: ["./near"],
                5: ["./far", "./sub/far", "./near", "./shared"]}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    """A web server."""
    found = WebServer()
    yield found
    found.close()


@pytest.mark.parametrize("role", ["agent", "keeper"])
def test_killed_at_any_point_of_a_stage_in_nothing_is_half_there_or_started_twice(
    tmp_path: Path, server: WebServer, role: str
) -> None:
    (tmp_path / "count").mkdir()
    command, log = plan(tmp_path / "count", role, 0, "never")
    counted = Staged(tmp_path / "count", server, command)
    counted.run()
    assert counted.problems == []
    calls = [line for line in log.read_text().splitlines() if line.startswith(role)]
    points = [(number, when) for number in range(1, len(calls) + 1) for when in ("before", "after")]
    if ROUNDS.isdigit() and int(ROUNDS) < ALL_FROM:
        points = sorted(random.Random(SEED).sample(points, min(max(1, int(ROUNDS) // 6), len(points))))
    hits: Counter[str] = Counter()
    for number, when in points:
        folder = tmp_path / f"{role}-{number}-{when}"
        folder.mkdir()
        command, log = plan(folder, role, number, when)
        scenario = Staged(folder, server, command)
        scenario.run()
        hit = log.read_text() if log.exists() else "not reached"
        assert scenario.problems == [], f"killed at {hit}: {scenario.problems} (seed {SEED}, in {folder})"
        hits[" ".join(hit.split()[2:])] += 1
        shutil.rmtree(folder)
    print(
        f"\n{role}: {sum(count for name, count in hits.items() if name)} of {2 * len(calls)} points hit: {json.dumps(hits)}"
    )
