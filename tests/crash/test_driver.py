"""kill -9 of the process that drives, at each moment that counts, and of everything at random."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from scitq.engine import Engine
from tests.crash.conftest import Child, finish, holder, kill, problems, reset, rounds


def moments(child: Child, state_file: Path) -> int:
    """How many moments a run without a crash has."""
    process = child(SCITQ_KILL="count")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert problems(state_file) == []
    reset(state_file)
    return int(output)


def test_a_driver_killed_at_any_moment_loses_and_doubles_nothing(
    child: Child, state_file: Path, dice: random.Random
) -> None:
    count = moments(child, state_file)
    points = [(n, when) for n in range(1, count + 1) for when in ("before", "after")]
    hit: Counter[str] = Counter()
    for n, when in dice.sample(points, min(len(points), rounds(10))):
        process = child(SCITQ_KILL=f"{n}:{when}")
        process.communicate(timeout=120)
        if process.returncode == -9:
            hit[Path("hit").read_text()] += 1
        finish(child)
        assert problems(state_file) == [], f"killed {when} moment {n}"
        reset(state_file)
    print(f"{hit.total()} of {len(points)} moments hit: {dict(hit)}")
    assert hit.total() > 0


@pytest.mark.sampled
def test_a_power_cut_loses_no_log_of_an_ended_task(child: Child, state_file: Path, dice: random.Random) -> None:
    count = moments(child, state_file)
    for n in dice.sample(range(1, count + 1), min(count, rounds(10))):
        child(SCITQ_KILL=f"{n}:after", SCITQ_POWER="1").communicate(timeout=120)
        finish(child)
        assert problems(state_file) == [], f"power cut after moment {n}"
        reset(state_file)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("mutant", "moment", "power"),
    [
        ("orders before the commit", "after:send", ""),
        ("acknowledgement before the results", "after:transaction", ""),
        ("no fsync", "after:rename", "1"),
    ],
)
def test_the_tests_above_notice_a_missing_transaction_or_fsync(
    child: Child, state_file: Path, mutant: str, moment: str, power: str
) -> None:
    """Each mutant breaks one rule; some kill point must show it."""
    for n in range(1, 60):
        process = child(SCITQ_KILL=f"{n}:{moment}", SCITQ_MUTANT=mutant, SCITQ_POWER=power)
        process.communicate(timeout=120)
        if process.returncode != -9:
            break
        try:
            finish(child, SCITQ_WAIT="6")
        except AssertionError:
            return
        if problems(state_file):
            return
        reset(state_file)
    pytest.fail(f"no kill point shows the mutant {mutant!r}")


@pytest.mark.sampled
def test_kills_of_driver_agent_and_keeper_at_random(child: Child, state_file: Path, dice: random.Random) -> None:
    """Any of them, several at once, at any time. A keeper's death may lose what was running, and says so."""
    root = state_file.with_name(state_file.name + ".d") / "local"
    victims: Counter[str] = Counter()
    for _ in range(rounds(10)):
        keeper_died = False
        for _ in range(dice.randint(1, 3)):
            process = child()
            end = time.monotonic() + dice.uniform(0.1, 1.2)
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.005)
            chosen = dice.sample(["driver", "agent", "keeper"], dice.randint(1, 3))
            if "driver" in chosen and process.poll() is None:
                process.kill()
                victims["driver"] += 1
            for role in ("agent", "keeper"):
                if role in chosen and kill(holder(root, role)):
                    victims[role] += 1
                    keeper_died |= role == "keeper"
            if "driver" in chosen:
                process.wait()
            else:
                _, errors = process.communicate(timeout=120)
                assert process.returncode == 0, errors
        finish(child)
        assert problems(state_file, lost_is_fine=keeper_died) == []
        reset(state_file)
    print(f"killed: {dict(victims)}")


def test_two_drivers_started_at_once_share_the_file(child: Child, state_file: Path) -> None:
    """Both make the file, both want to drive, both submit the same steps unless they see the other's."""
    with Engine(state_file, drive=False):
        pass
    processes = [child(), child()]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with Engine(state_file, drive=False) as engine:
        assert engine.check() == []
        ran = Counter(map(int, Path("ran").read_text().split()))
        assert all(ran[row.id] == len(engine.task(row.id).executions) for row in engine.rows())
