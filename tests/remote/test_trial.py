"""A first task on a new host: it runs the way of all tasks, and leaves nothing, whatever an earlier one left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import bundle, local
from scitq.remote.agent import trial
from scitq.remote.agent.__main__ import FLAGS
from scitq.remote.agent.root import is_locked
from tests.remote.client import Driver


@pytest.fixture
def own() -> list[str]:
    """How the bundle is started."""
    return [sys.executable, *FLAGS, str(bundle.bundle()[0])]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A root folder; what lives in its trial at the end is ended."""
    folder = tmp_path / "worker"
    folder.mkdir()
    yield folder
    if (folder / trial.FOLDER).is_dir():
        local.stop(folder / trial.FOLDER)


def test_a_first_task_runs_and_leaves_nothing(place: Path, own: list[str]) -> None:
    found = trial.run(str(place), own)

    assert found["ok"] and found["seconds"] > 0
    assert os.listdir(place) == [trial.LOCK]


def test_what_a_killed_trial_left_is_cleared_away(place: Path, own: list[str]) -> None:
    left = place / trial.FOLDER
    local.ensure(left, linger=60)
    driver = Driver(left)
    driver.say({"slots": 1}, {"order": 1, "script": "sleep 600"})
    driver.seen("pid", 1)
    driver.close()

    assert trial.run(str(place), own)["ok"]
    assert not is_locked(str(left), "agent.lock") and not left.exists()


def test_two_at_once_take_turns(place: Path, own: list[str]) -> None:
    found: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(trial.run(str(place), own))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [each["ok"] for each in found] == [True] * 3, found


def test_a_machine_that_runs_no_program_says_so_in_a_sentence(
    place: Path, own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = place / "nowhere"
    monkeypatch.setattr(
        trial, "_SCRIPT", trial._SCRIPT.replace('"$TRIAL" > "$program"', f'"$TRIAL" > "{nowhere}/program"')
    )
    found = trial.run(str(place), own)
    assert not found["ok"] and f"could write nothing in {place} (" in found["error"]

    monkeypatch.setattr(trial, "_SCRIPT", "echo some; kill -9 $$")
    assert "it ended by signal 9; it wrote 'some" in trial.run(str(place), own)["error"]
    assert os.listdir(place) == [trial.LOCK]


def test_as_a_program_it_says_one_json_object(place: Path, own: list[str]) -> None:
    done = subprocess.run([*own, "try", "--root", str(place)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:12]) == (0, '{"ok": true,'), done
