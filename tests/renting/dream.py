"""The cloud of these tests, and what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.offers import Offer, Rental, RentalState
from scitq.remote.providers.fake import Cloud, Fake

GIB = 1 << 30
PATIENCE_S = 60.0


@dataclass
class Dream:
    """A cloud that sells two flavors in two regions."""

    cloud: Cloud

    def __post_init__(self) -> None:
        self.cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 * GIB)
        self.cloud.sell("south", "std-2", 0.12)
        self.cloud.sell("north", "std-4", 0.2, cpu=4, ram=16 * GIB)
        self.provider = Fake("dream", self.cloud)

    def configure(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Let it be a provider of this test's settings."""
        config = folder / "config"
        (config / "scitq").mkdir(parents=True)
        text = f'[providers.dream]\nkind = "fake"\nfolder = "{self.cloud.folder}"\n'
        (config / "scitq" / "config.toml").write_text(text)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(config))

    def offers(self, *keys: str) -> list[Offer]:
        """Those of `region/flavor`, in that order."""
        there = {f"{one.region}/{one.flavor.name}": one for one in self.provider.offers()}
        return [there[key] for key in keys]

    def shown(self) -> None:
        """Wait until no machine is hidden from lists any more."""
        until(lambda: all((one.hidden_ms or 0) <= time.time() * 1000 for one in self.cloud.machines()))

    def end(self) -> None:
        """Nothing of it stays."""
        self.cloud.heal()
        for one in self.provider.instances():
            self.provider.delete(one)
        self.provider.close()


def until(what: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    """Wait for something, not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


def state_of(engine: Engine, worker: int) -> RentalState:
    """How far a machine is."""
    return next(one for one in engine.rentals(every=True) if one.worker == worker).state


def rental_of(engine: Engine, worker: int) -> Rental:
    """Its row."""
    return next(one for one in engine.rentals(every=True) if one.worker == worker)
