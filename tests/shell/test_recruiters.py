"""`scitq recruiter …`, and what `worker` says of flavors."""

from __future__ import annotations

import pytest

import scitq
from tests.shell.conftest import Lab


@pytest.fixture
def queued(lab: Lab) -> Lab:
    """One task that ran here, and one of batch b; nobody drives."""
    lab.scitq("-f", "lab.scitq", "run", "true")
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit(["true"], batch="b")
    return lab


def test_a_recruiter_is_made_changed_shown_and_taken_away(queued: Lab) -> None:
    said = queued.scitq(
        "recruiter", "create", "b", "-f", "auto:cpu>=1", "-C", "2", "-W", "1", "-T", "4", "-m", "2", "-p", "1"
    )
    assert (
        said.stdout == b"b is served by workers of flavor auto:cpu>=1 (local), 2 at once on each, 1 workers at most.\n"
    )
    assert b"Nobody drives" in said.stderr
    [row] = queued.json("recruiter", "list")
    assert row == {
        "batch": "b", "rank": 1, "tasks_per_worker": 4, "flavor": "auto:cpu>=1", "provider": None, "region": None, "concurrency": 2,
        "prefetch": 1, "minimum_tasks": 2, "maximum_workers": 1, "rounds": None, "market": None, "max_price": None, "max_cost": None,
        "patience": None, "idle_timeout": None,
    }  # fmt: skip
    queued.scitq("recruiter", "update", "b", "-W", "auto", "-f", "")
    [row] = queued.json("recruiter", "list", "-b", "b")
    assert (row["maximum_workers"], row["flavor"], row["concurrency"]) == (None, None, 2)
    assert "every worker without a batch of its own serves it now" in queued.out("recruiter", "delete", "b")
    assert queued.json("recruiter", "list") == []


def test_the_letters_of_the_first_scitq(queued: Lab) -> None:
    queued.scitq("recruiter", "create", "-b", "b", "-n", "2", "-f", "local", "-C", "2", "-P", "ovh", "-r", "GRA11")
    [row] = queued.json("recruiter", "list", "-H")
    assert (row["rank"], row["provider"], row["region"]) == (2, "ovh", "GRA11")
    queued.scitq("recruiter", "delete", "-b", "b", "-n", "2")


def test_a_recruiter_that_rents_says_what_it_may_and_what_its_batch_waits_for(queued: Lab) -> None:
    said = queued.scitq(
        "recruiter", "create", "b", "-f", "auto:cpu>=4", "-P", "nobody", "-r", "north", "--market", "spot", "--max-price", "0.5",
        "--max-cost", "15 EUR", "--patience", "30", "--idle-timeout", "60", "--rounds", "3", "-W", "4",
    )  # fmt: skip
    assert (
        b"Rents up to 4 machines of nobody for 0.5 an hour each at most, 15 \xe2\x82\xac in all: they cost money"
        in said.stderr
    )
    row = queued.json("recruiter", "show", "b")
    assert [row[key] for key in ("market", "max_price", "max_cost", "patience", "idle_timeout", "rounds")] == [
        "spot", 0.5, "15 €", 30, 60, 3,
    ]  # fmt: skip
    assert row["waits"] is None or "patient" in row["waits"]
    queued.scitq("recruiter", "update", "b", "--patience", "auto", "--max-price", "auto", "--market", "auto")
    assert "nobody has not told yet what it sells" in queued.out("recruiter", "show", "b")
    queued.scitq("recruiter", "update", "b", "-P", "")
    row = queued.json("recruiter", "show", "b")
    assert (row["provider"], row["market"], row["max_price"], row["waits"]) == (None, None, None, None)


def test_match_says_who_may_serve_and_why_not_the_others(queued: Lab) -> None:
    queued.scitq("recruiter", "create", "b", "-f", "big")
    [row] = queued.json("recruiter", "match", "b")
    assert (row["worker"], row["matches"], row["why"]) == ("local", False, "local is of flavor local")
    queued.scitq("worker", "update", "local", "--flavor", "big", "--keep-batch", "on")
    [row] = queued.json("recruiter", "match", "b")
    assert (row["flavor"], row["matches"]) == ("big", True)
    assert queued.json("worker", "list")[0]["flavor"] == "big"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "b", "--market", "black"], 2, b"--market takes ondemand, spot, any or auto"),
        (["create", "b", "--max-price", "much"], 2, b"--max-price takes a number or auto"),
        (["create", "b", "--max-cost", "much"], 1, b"max_cost must be an amount"),
        (["create", "b", "-f", "auto:cores>=3"], 1, b"at column 6, 'cores' is nothing to ask for"),
        (["create", "b", "-W", "many"], 2, b"takes a number or auto"),
        (["update", "b"], 2, b"nothing to change"),
        (["update", "b", "-C", "1"], 1, b"batch b has no recruiter of rank 1"),
        (["delete", "nope"], 1, b"no batch is named 'nope'"),
        (["match"], 2, b"which batch?"),
        (["create", "b", "-n", "0"], 1, b"rank must be 1"),
    ],
)
def test_mistakes_are_one_sentence(queued: Lab, words: list[str], code: int, said: bytes) -> None:
    ended = queued.scitq("recruiter", *words, code=code)
    assert said in ended.stderr
    assert queued.json("recruiter", "list") == []
