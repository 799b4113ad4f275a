"""`scitq batch …`: going on or not, defaults, cancel and delete."""

from __future__ import annotations

import pytest

import scitq
from tests.shell.conftest import Lab


@pytest.fixture
def two(lab: Lab) -> Lab:
    """Batch 'a b' with three queued tasks, batch c with one; nobody drives."""
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["sleep", "60"]] * 3, batch="a b")
        engine.submit(["true"], batch="c")
    return lab


def state_of(lab: Lab, name: str) -> str:
    return {row["batch"]: row["state"] for row in lab.json("batch", "list")}[name]


def test_batch_is_paused_suspended_and_goes_on(two: Lab) -> None:
    assert two.out("batch", "pause", "a b", "c") == (
        "a b is paused: 3 tasks stay queued.\nc is paused: 1 task stays queued.\n"
    )
    assert (state_of(two, "a b"), state_of(two, "c")) == ("paused", "paused")
    assert two.out("batch", "suspend", "c").startswith("c is suspended")
    assert state_of(two, "c") == "suspended"
    ended = two.scitq("batch", "go", "c", "a b")
    assert ended.stdout == b"c goes on: 1 task queued.\na b goes on: 3 tasks queued.\n"
    assert b"Nobody drives" in ended.stderr
    assert (state_of(two, "a b"), state_of(two, "c")) == ("go", "go")


def test_words_of_the_first_scitq(two: Lab) -> None:
    two.scitq("batch", "stop", "-n", "c")
    assert state_of(two, "c") == "paused"
    two.scitq("batch", "go", "-n", "c")
    assert state_of(two, "c") == "go"
    assert "\n  stop " not in two.out("batch", "--help")


def test_unknown_batch_keeps_the_others_as_they_are(two: Lab) -> None:
    for verb in ("pause", "suspend", "go", "stop"):
        assert b"no batch is named 'nope'" in two.scitq("batch", verb, "c", "nope", code=1).stderr
        assert b"which batch?" in two.scitq("batch", verb, code=2).stderr
    assert state_of(two, "c") == "go"


def test_paused_batch_launches_nothing_and_suspended_one_stops_where_it_is(lab: Lab) -> None:
    script = "echo up; while ! test -e go; do sleep 0.05; done; echo on"
    child = lab.start("-f", "lab.scitq", "run", "-b", "s", "--shell", script)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"

    said = lab.json("batch", "suspend", "s")
    assert said == [{"batch": "s", "state": "suspended", "told": 1, "queued": 0, "live": 1}]
    lab.scitq("launch", "-b", "s", "true")
    status = lab.out("status")
    assert "batch s is suspended: 1 task queued, 1 at the workers. scitq batch go s" in status
    assert "is suspended. Let it go on: scitq batch go s" in lab.out("task", "why", "2")
    (lab.folder / "go").touch()
    lab.scitq("batch", "go", "s")
    assert child.communicate(timeout=30)[0] == b"on\n"
    assert "suspended" not in lab.out("status")


def test_defaults_are_set_shown_and_taken_away(lab: Lab) -> None:
    words = [
        "--retry",
        "2",
        "--retry-delay",
        "0.5",
        "--run-timeout",
        "90",
        "--priority",
        "3",
        "--cpus",
        "1",
        "--memory",
        "1.5G",
    ]
    said = lab.scitq("-f", "lab.scitq", "batch", "set", "new", *words, "--gpus", "0", "-e", "A=1", "-e", "B=2")
    assert b"It is a new batch." in said.stdout
    lab.scitq("launch", "-b", "new", "--priority", "7", "true")

    found = lab.json("task", "show", "1")
    assert (found["retry"], found["run_timeout"], found["priority"], found["env"]) == (2, 90.0, 7, {"A": "1", "B": "2"})
    assert (found["cpus"], found["memory"]) == (1.0, 1_500_000_000)
    row = lab.json("batch", "list")[0]
    assert row["defaults"]["memory"] == 1_500_000_000 and row["defaults"]["retry_delay"] == 0.5
    assert "retry 2, " in lab.out("batch", "list") and "memory 1.5 GB" in lab.out("batch", "list")

    lab.scitq("batch", "set", "new", "--retry", "1")
    assert lab.json("batch", "list")[0]["defaults"]["retry"] == 1
    assert lab.json("batch", "set", "-n", "new", "--clear", "--priority", "1")["defaults"] == {"priority": 1}
    assert lab.json("batch", "set", "new", "--clear")["defaults"] == {}
    assert "new: its machines may cost 5 €." in lab.out("batch", "set", "new", "--max-cost", "5 EUR")
    assert [(one["name"], one["limit"]) for one in lab.json("max-cost")] == [("new", 5.0)]
    assert "its machines may cost what they do" in lab.out("batch", "set", "new", "--max-cost", "none")
    assert b"nothing to set" in lab.scitq("batch", "set", "new", code=2).stderr
    assert b"memory must be" in lab.scitq("batch", "set", "new", "--memory", "lots", code=1).stderr


def test_batch_is_cancelled_after_a_yes(two: Lab) -> None:
    refused = two.scitq("batch", "cancel", "a b", code=2)
    assert b"3 tasks: 3 pending. All are cancelled" in refused.stderr and b"--yes" in refused.stderr

    assert two.json("batch", "cancel", "a b", "--yes") == {"matched": 3, "done": 3}
    assert two.json("batch", "list")[0]["cancelled"] == 3
    assert two.scitq("batch", "cancel", "a b").stderr == b"Nothing of a b is queued or running.\n"


def test_batch_is_deleted_with_its_defaults_after_a_yes(two: Lab) -> None:
    two.scitq("batch", "set", "a b", "--retry", "9")
    two.scitq("batch", "pause", "a b")
    assert b"3 tasks: 3 pending. All are deleted" in two.scitq("batch", "delete", "a b", code=2).stderr

    assert two.out("batch", "delete", "a b", "--yes") == "3 tasks deleted.\n"
    assert [row["batch"] for row in two.json("batch", "list")] == ["c"]
    two.scitq("launch", "-b", "a b", "true")
    assert two.json("task", "list", "-b", "a b")[0]["retry"] == 0
    assert state_of(two, "a b") == "go"


def test_batch_of_which_something_runs_is_not_deleted(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "run", "-b", "a b", "--shell", "echo up; sleep 60")
    assert child.stdout is not None and child.stdout.readline() == b"up\n"

    refused = lab.scitq("batch", "delete", "a b", "--yes", code=1)

    assert b"1 task of a b is on workers: nothing was deleted. Cancel first: scitq batch cancel 'a b'" in refused.stderr
    lab.scitq("batch", "cancel", "a b", "--yes")
    child.communicate(timeout=30)
    assert lab.out("batch", "delete", "a b", "--yes") == "1 task deleted.\n"


def test_batch_with_a_quote_in_its_name(lab: Lab) -> None:
    name = "it's; drop table task --"
    lab.scitq("-f", "lab.scitq", "launch", "-b", name, "true")
    lab.scitq("launch", "-b", "other", "true")

    assert lab.json("batch", "delete", name, "--yes") == {"matched": 1, "done": 1}
    assert [task["batch"] for task in lab.json("task", "list")] == ["other"]
