"""Lives of one machine, lived by processes that are killed on the way, and what must hold at the end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scitq.engine import Engine
from scitq.offers import RentalState
from tests.renting.dream import Dream

ROOT = Path(__file__).parents[2]


@dataclass
class Zygote:
    """Starts them."""

    process: subprocess.Popen[str]

    def run(self, order: dict[str, Any]) -> int:
        """How one ended: 0, or the signal as a negative number."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def zygote(env: dict[str, str]) -> Iterator[Zygote]:
    """One for a module's tests."""
    words = [sys.executable, "-m", "tests.renting.zygote"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    try:
        yield Zygote(process)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


@dataclass
class Lives:
    """One state file, and the processes that drove it one after the other."""

    zygote: Zygote
    dream: Dream
    file: Path
    env: dict[str, str]
    offers: tuple[str, ...] = ("north/std-2", "south/std-2")
    ends: list[int] = field(default_factory=list)

    def live(self, kill: str = "", phase: str = "deploy", *, reap: bool = False, **env: str) -> int:
        """One more process, which dies there. `reap`: at its end it looks at the provider until nothing is left."""
        offers = [each.plain() for each in self.dream.offers(*self.offers)]
        order = {
            "file": str(self.file),
            "env": {**self.env, **env},
            "kill": kill,
            "phase": phase,
            "offers": offers,
            "reap": reap,
        }
        self.ends.append(self.zygote.run(order))
        return self.ends[-1]

    def check(self) -> None:
        """No machine is left, none is unknown to the file, none was had twice; and what is billed is what the file says was had."""
        cloud = self.dream.cloud
        assert (cloud.machines(), cloud.things()) == ([], [])
        with Engine(self.file, drive=False) as engine:
            assert engine.check() == []
            assert {one.state for one in engine.rentals(every=True)} == {RentalState.GONE}
            had = {one.cloud_id: one for one in engine.rentals(every=True) if one.cloud_id is not None}
            strays = {one.id: one for one in engine.strays(every=True)}
            for bill in cloud.ledger():
                own = had.get(bill.machine)
                assert own is not None or bill.machine in strays, f"{bill} is not known"
                assert bill.ended_ms is not None
                if own is not None:
                    assert (own.accepted_ms, own.code) == (bill.accepted_ms, bill.code)
                    assert own.ended_ms is not None and own.ended_ms >= bill.ended_ms
                    assert "asked" not in own.data
            assert set(had) <= {bill.machine for bill in cloud.ledger()}
