"""kill -9 of agent, keeper or both at random moments, several times in a run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.remote.scenario import Scenario

ROUNDS = os.environ.get("SCITQ_ROUNDS", "10")
SEED = int(os.environ.get("SCITQ_SEED", "1"))


class Killer(threading.Thread):
    """Kills the processes named in the lock files now and then."""

    def __init__(self, root: Path, who: tuple[str, ...], rng: random.Random, most: int) -> None:
        super().__init__()
        self.root, self.who, self.rng, self.most = root, who, rng, most
        self.over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while self.kills < self.most and not self.over.wait(self.rng.uniform(0.0, 0.25)):
            for role in self.who:
                with contextlib.suppress(OSError, ValueError):
                    os.kill(json.loads((self.root / f"{role}.lock").read_text())["pid"], signal.SIGKILL)
                    self.kills += 1


@pytest.mark.sampled
@pytest.mark.parametrize("who", [("agent",), ("keeper",), ("agent", "keeper")], ids="+".join)
def test_killed_at_random_nothing_is_lost_or_doubled(tmp_path: Path, who: tuple[str, ...]) -> None:
    rounds = int(ROUNDS) if ROUNDS.isdigit() else 100
    kills = 0
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        scenario = Scenario(folder)
        killer = Killer(scenario.root, who, random.Random(f"{SEED} {who} {number}"), most=8)
        killer.start()
        try:
            scenario.run()
        finally:
            killer.over.set()
            killer.join()
        kills += killer.kills
        assert scenario.problems == [], f"{scenario.problems} (seed {SEED}, round {number}, {folder})"
        shutil.rmtree(folder)
    print(f"\n{'+'.join(who)}: {kills} kills in {rounds} rounds (seed {SEED})")
    assert kills
