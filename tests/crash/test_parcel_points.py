"""kill -9 of the agent and of the keeper before and after every write, rename and send, while files are sent to them.

Whatever was killed: a task starts once at most and only with all of its data, nothing half is taken for whole, and what has
arrived is not sent again. CI tries a seeded sample (`SCITQ_ROUNDS`, `SCITQ_SEED`), the campaign all points.
"""

from __future__ import annotations

import hashlib
import json
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
from tests.remote.client import Reply, ndjson
from tests.remote.scenario import BEGIN, SLOTS, Scenario, plan

BIG = random.Random(7).randbytes(300_000)
PIECE = 100_000
FILES = {"big": BIG, "data/x": b"x\n", "data/sub/big": BIG, "data/empty/": b""}
LIST = "cd $INPUT; find . -type f | sort; cd $RESOURCE; find . -type f | sort; cat $(find $INPUT $RESOURCE -type f | sort) | cksum"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Sent(Scenario):
    """Tasks whose data lie on the machine of the driver, which sends them until all are there."""

    def __init__(self, folder: Path, command: list[str] | None = None) -> None:
        super().__init__(folder, command)
        self.wants = {
            0: {"input": ["big"]},
            1: {"input": ["data", "big"], "resource": ["data"]},
            2: {"resource": ["big", "data"]},
        }
        self.orders = {number: self._order(number) for number in self.wants}
        self.pieces: Counter[tuple[str, int]] = Counter()

    def _order(self, number: int) -> dict[str, Any]:
        if not hasattr(self, "wants"):
            return {}
        order: dict[str, Any] = {
            "order": number,
            "task": str(number),
            "grace": 1,
            "script": BEGIN.format(ran=self.ran) + LIST,
        }
        count = 0
        for kind, names in self.wants[number].items():
            order[kind] = []
            for name in names:
                order[kind].append({"uri": f"/home/me/{name}", "parcel": f"{number}.{count}"})
                count += 1
        return order

    def parcels(self, number: int) -> dict[str, Any]:
        """What the driver says of the parcels of an order."""
        said, lists, count = {}, {}, 0
        for names in self.wants[number].values():
            for name in names:
                rows = [
                    [file, len(data), "" if file.endswith("/") else sha(data)]
                    for file, data in FILES.items()
                    if file == name or file.startswith(f"{name}/")
                ]
                key = sha(json.dumps(rows).encode())
                lists[key] = rows
                said[f"{number}.{count}"] = {"list": key, "base": "/home/me", "tail": name}
                count += 1
        return {"parcels": said, "lists": lists}

    def ask(self, method: str, path: str, body: bytes) -> Reply:
        """Until there is an answer."""
        reply: Reply = self.insist(lambda: self.driver.ask(method, path, body))
        return reply

    def supply(self) -> None:
        """As the engine does it: say all, ask what is missing, send that."""
        for number in self.wants:
            if (reply := self.ask("POST", "/commands", ndjson([self.parcels(number)]))).status != 200:
                self.problems.append(f"parcels answered with {reply}")
        by_sum = {sha(data): data for file, data in FILES.items() if not file.endswith("/")}
        missing = self.ask("POST", "/blobs", json.dumps({"want": list(by_sum)}).encode()).json()
        for name, here in missing.items():
            data, tries = by_sum[name], 0
            while here != -1:
                self.pieces[name, here] += 1
                reply = self.ask(
                    "PUT", f"/blobs/{name}?from={here}&size={len(data)}&mtime=1", data[here : here + PIECE]
                )
                tries += 1
                if reply.status != 200 or tries > 20:
                    self.problems.append(f"a piece of {name} from {here} answered with {reply}")
                    return
                here = reply.json()["here"]

    def run(self) -> None:
        """Order, send, wait, look."""
        self.deadline = time.monotonic() + 60
        local.ensure(self.root, command=self.command)
        self.say({"slots": SLOTS})
        self.say(*self.orders.values())
        self.supply()
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
        for place, wanted in (("stage", 0), ("parcels/of", 0), ("blobs", 2)):
            if len(found := os.listdir(self.root / place)) != wanted or any(name.endswith(".part") for name in found):
                self.problems.append(f"in {place}: {found}")
        for name in os.listdir(self.root / "blobs"):
            if sha((self.root / "blobs" / name).read_bytes()) != name.partition("-")[0]:
                self.problems.append(f"{name} is something else")
        ran = self.ran.read_text().split()
        unknown = [key for key, line in self.driver.exits.items() if line["why"] == "unknown"]
        if len(unknown) > SLOTS * max(0, self.keepers - 1):
            self.problems.append(f"{unknown} unknown after {self.keepers - 1} deaths of keepers")
        for number, names in enumerate(
            (["./big"], ["./big", "./sub/big", "./x", "./sub/big", "./x"], ["./big", "./sub/big", "./x"])
        ):
            line = self.driver.exits.get(str(number), {"why": "no exit", "code": None, "o": ""})
            if ran.count(str(number)) > 1:
                self.problems.append(f"{number} ran {ran.count(str(number))} times")
            if line["why"] == "unknown":
                continue
            if (line["why"], line["code"]) != (None, 0) or line["o"].split("\n")[:-2] != names:
                self.problems.append(f"{number} ended with {line}")
        # A piece may be said twice when its answer was lost, or a part before it: never all of it.
        if any(count > 2 for count in self.pieces.values()):
            self.problems.append(f"sent again and again: {self.pieces}")


@pytest.mark.parametrize("role", ["agent", "keeper"])
def test_killed_at_any_point_while_files_are_sent_nothing_half_is_taken_for_whole(tmp_path: Path, role: str) -> None:
    (tmp_path / "count").mkdir()
    command, log = plan(tmp_path / "count", role, 0, "never")
    counted = Sent(tmp_path / "count", command)
    counted.run()
    assert counted.problems == [] and set(counted.pieces.values()) == {1}
    calls = [line for line in log.read_text().splitlines() if line.startswith(role)]
    points = [(number, when) for number in range(1, len(calls) + 1) for when in ("before", "after")]
    if ROUNDS.isdigit() and int(ROUNDS) < ALL_FROM:
        points = sorted(random.Random(SEED).sample(points, min(max(1, int(ROUNDS) // 7), len(points))))
    hits: Counter[str] = Counter()
    for number, when in points:
        folder = tmp_path / f"{role}-{number}-{when}"
        folder.mkdir()
        command, log = plan(folder, role, number, when)
        scenario = Sent(folder, command)
        scenario.run()
        hit = log.read_text() if log.exists() else "not reached"
        assert scenario.problems == [], f"killed at {hit}: {scenario.problems} (seed {SEED}, in {folder})"
        hits[" ".join(hit.split()[2:])] += 1
        shutil.rmtree(folder)
    print(
        f"\n{role}: {sum(count for name, count in hits.items() if name)} of {2 * len(calls)} points hit: {json.dumps(hits)}"
    )
