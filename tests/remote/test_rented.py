"""A rented machine ends by itself when nobody asks for it any more; one that was never called rented ends nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scitq.remote.agent import processes, rented
from scitq.remote.agent.rented import BadRented, Rented
from scitq.remote.providers.base import SHUTDOWN
from tests.remote.client import Driver

NOTHING = {"held": {}, "acked": 10, "last_exit": 10}


class Machine:
    """An agent as far as this is concerned, and the clock that counts from boot."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        self.folder, self.clock = str(folder), clock
        self.stop: str | None = None
        self.acked = 0
        self.folders = SimpleNamespace(collecting=set())
        self.keeper = self
        self.held: dict[str, Any] = dict(NOTHING)
        self.told: list[dict[str, Any]] = []
        self.rented = Rented(self)  # type: ignore[arg-type]

    def ask(self, _: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        """The keeper's word on what it holds."""
        answer(self.held)

    def tell(self, said: dict[str, Any]) -> None:
        """What the keeper is told."""
        self.told.append(said)

    def later(self, seconds: float) -> str | None:
        """Time goes by; whether it ends then."""
        self.clock[0] += seconds
        self.rented.attend()
        return self.stop

    def why(self) -> str:
        """What it leaves to whoever made it."""
        return str(json.loads(Path(self.folder, SHUTDOWN).read_text())["why"])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A rented one."""
    clock = [1000.0]
    monkeypatch.setattr(processes, "boot_time", lambda: clock[0])
    made = Machine(tmp_path, clock)
    made.rented.take({"orphan_after": 100, "end": "file"})
    return made


def test_it_ends_when_no_driver_was_heard_and_nothing_is_to_be_done(machine: Machine) -> None:
    assert machine.later(60) is None
    machine.rented.heard()
    assert machine.later(99) is None and machine.rented.due_s() == pytest.approx(1)

    assert machine.later(1) == "now"

    assert machine.told == [{"stop": "now"}] and "no driver was heard for 100 s" in machine.why()
    assert machine.rented.due_s() is None


def test_it_waits_for_its_tasks_and_longer_for_somebody_who_fetches_what_they_made(machine: Machine) -> None:
    machine.held = {"held": {"1": "running"}, "acked": 0, "last_exit": 0}
    assert machine.later(250) is None and machine.rented.due_s() == rented.LOOK_S

    machine.held = {"held": {}, "acked": 0, "last_exit": 50}
    assert machine.later(70) is None
    assert machine.later(100) == "now"  # four times as long


def test_it_ends_when_its_time_is_over_whatever_it_does(machine: Machine) -> None:
    machine.held = {"held": {"1": "running"}, "acked": 0, "last_exit": 0}
    machine.rented.take({"orphan_after": 100, "end": "file", "expires": time.time() + 1000})
    assert machine.later(1) is None
    machine.rented.take({"orphan_after": 100, "end": "file", "expires": time.time() - 1})

    assert machine.later(1) == "now" and machine.why() == "its time is over"


def test_a_later_agent_knows_of_it_and_a_host_that_is_not_rented_ends_nothing(machine: Machine, tmp_path: Path) -> None:
    later = Machine(tmp_path, machine.clock)
    assert later.rented.asked == {"orphan_after": 100.0, "end": "file"}

    later.rented.take(None)
    assert later.rented.due_s() is None and later.later(1e6) is None
    own = Machine(tmp_path / "own", machine.clock)
    assert own.rented.due_s() is None and own.later(1e6) is None


def test_the_machine_itself_is_shut_down_where_that_ends_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    down: list[Any] = []
    monkeypatch.setattr(rented, "shut_down", down.append)
    monkeypatch.setattr(rented, "NOTICE_FOLDER", machine.folder)
    machine.rented.take({"orphan_after": 100, "end": "shutdown"})

    assert machine.later(100) == "now" and len(down) == 1


@pytest.mark.parametrize("said", [3, {"end": "at once"}, {"orphan_after": True}, {}, {"orphan_after": 0},
                                  {"orphan_after": 10, "expires": "soon"}])  # fmt: skip
def test_what_makes_no_sense_is_refused(said: Any) -> None:
    if said == {}:
        assert rented.checked(said) == {}
        return
    with pytest.raises(BadRented, match="rented"):
        rented.checked(said)


def test_a_real_agent_ends_with_its_keeper(driver: Driver, root: Path) -> None:
    held = driver.held()
    driver.say({"rented": {"orphan_after": 0.2, "end": "file"}})
    driver.close()

    deadline = time.monotonic() + 30
    while any(processes.facts(pid) is not None for pid in (held["pid"], held["keeper"])):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert (root / SHUTDOWN).is_file()
