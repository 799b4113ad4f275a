"""A process that is killed at any place of deploying and destroying forgets no machine, has none twice, leaves none."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.remote.providers import points
from scitq.remote.providers.fake import Cloud
from tests.renting.dream import Dream
from tests.renting.kills import Lives, Zygote, zygote

# By call: what comes before it is called at all; and whether that is when a machine is deleted.
PHASES = {"image": "deploy", "create": "deploy", "get": "deploy", "find": "deploy", "instances": "deploy"}


@pytest.fixture(scope="module")
def killed() -> Iterator[Zygote]:
    """Who starts the processes."""
    with zygote(dict(os.environ)) as found:
        yield found


@pytest.fixture
def lives(killed: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lives]:
    """A state file and a cloud."""
    dream = Dream(Cloud(tmp_path / "cloud", bare=True))
    dream.configure(monkeypatch, tmp_path)
    env = {
        "XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"], "SCITQ_RENTING_PACE": "0.002", "SCITQ_TEST_RUN": os.environ["SCITQ_TEST_RUN"],
    }  # fmt: skip
    yield Lives(killed, dream, tmp_path / "lab.scitq", env)
    dream.end()


# Those that cost money are always played, of the others CI plays a sample.
_EACH = [
    pytest.param(call, place, marks=() if call in ("create", "delete") else pytest.mark.sampled)
    for call in points.CALLS
    for place in points.PLACES
]


@pytest.mark.parametrize(("call", "place"), _EACH)
def test_killed_there_nothing_is_forgotten_doubled_or_left(lives: Lives, call: str, place: str) -> None:
    if call == "find":  # a machine is looked for when it is not known whether it was made
        assert lives.live("create/answer") == -signal.SIGKILL
    elif call == "instances":  # and what there is, where there may be something
        assert lives.live("get/row") == -signal.SIGKILL
    elif call == "delete_leftover":
        lives.dream.cloud.fail("create", "leave")

    assert lives.live(f"{call}/{place}", PHASES.get(call, "destroy")) == -signal.SIGKILL
    assert lives.live() == 0

    lives.check()
    assert len(lives.dream.cloud.ledger()) == 1


@pytest.mark.parametrize("number", [pytest.param(each, marks=pytest.mark.sampled) for each in range(1, 8)])
def test_killed_before_or_after_any_transaction_nothing_is_forgotten(lives: Lives, number: int) -> None:
    place = ("call", "answer")[number % 2]

    assert lives.live(f"{points.WRITE}/{place}:{number}") == -signal.SIGKILL
    assert lives.live() == 0

    lives.check()
    assert len(lives.dream.cloud.ledger()) == 1


# What may go wrong with calls, and how long or how many.
_FAULTS: tuple[tuple[tuple[str, ...], str, float | None], ...] = (
    (("image", "create", "get", "find", "instances", "delete", "sweep"), "down", None),
    (("create", "get", "delete"), "rate", 0.1),
    (("create", "get", "find", "delete"), "lost", None),
    (("create",), "lost-asking", None),
    (("create",), "stock", None),
    (("create",), "quota", None),
    (("create",), "duplicate", None),
    (("create",), "error", None),
    (("create",), "boot", 0.3),
    (("create",), "hidden", 0.5),
    (("create",), "vanish", 0.2),
    (("create",), "leave", None),
    (("create",), "deaf", 2.0),
    (("delete",), "deaf", None),
    (("create", "get", "find", "delete"), "login", None),
)
ROUNDS = int(os.environ.get("SCITQ_ROUNDS", "12"))
SEED = int(os.environ.get("SCITQ_SEED", "9"))


@pytest.mark.parametrize("number", [pytest.param(each, marks=pytest.mark.sampled) for each in range(ROUNDS)])
def test_killed_anywhere_while_anything_goes_wrong_nothing_is_forgotten(lives: Lives, number: int) -> None:
    dice = random.Random(f"{SEED} {number}")
    said = []
    for _ in range(dice.randint(0, 4)):
        calls, fault, value = dice.choice(_FAULTS)
        said.append(
            (dice.choice(calls), fault, {"times": dice.randint(1, 2), "skip": dice.randint(0, 2), "value": value})
        )
        lives.dream.cloud.fail(said[-1][0], said[-1][1], **said[-1][2])
    kills = [f"*:{dice.randint(1, 45)}" for _ in range(dice.randint(1, 3))]

    for kill in kills:
        assert lives.live(kill) in (0, -signal.SIGKILL), (said, kills)
    lives.dream.cloud.heal()
    assert lives.live(reap=True) == 0, (said, kills)
    # What was hidden for longer than machines are believed to be on their way into lists: found by a later look.
    lives.dream.shown()
    assert lives.live(reap=True) == 0, (said, kills)

    lives.check()
