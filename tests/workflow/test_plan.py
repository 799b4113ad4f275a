"""The decision on each task of a script that runs again: pure."""

from __future__ import annotations

import random

from scitq.states import FINAL, LIVE, UNPLACED, TaskState
from scitq.submitter import Prepared
from scitq.workflow.declare import Declared, differing, settle
from scitq.workflow.plan import Action, Item, Plan, Standing, plan


def declared(
    name: str, *requires: Declared, command: str = "true", step: str = "a", source: str | None = None
) -> Declared:
    """A task of a script."""
    spec = f'{{"command":"{command}"' + (f',"input":["{source}"]' if source else "") + "}"
    one = Declared(
        step, name, Prepared(name, f"qc.{step}", 0, spec, [parent.number for parent in requires], None), 0, None
    )
    settle(one, lambda number: next(f"{p.step}/{p.name}" for p in requires if p.number == number), "/side/")
    return one


def standing(
    one: Declared, task: int, state: TaskState = TaskState.SUCCEEDED, won: int | None = None, **more: object
) -> Standing:
    """A task that was declared the same, and how it stands."""
    won = task if won is None and state is TaskState.SUCCEEDED else won
    return Standing(**{"task": task, "state": state, "won": won, "digest": one.digest, **more})  # type: ignore[arg-type]


def decided(ones: list[Declared], there: dict[str, Standing], **more: object) -> dict[str, Item]:
    """The decisions by name."""
    known = {one.key: there[one.name] for one in ones if one.name in there}
    return {item.name: item for item in plan("qc", ones, known, **more).items}  # type: ignore[arg-type]


def test_each_state_of_a_task_that_has_not_changed() -> None:
    one = declared("one")
    for state in TaskState:
        item = decided([one], {"one": standing(one, 1, state)})["one"]
        if state is TaskState.SUCCEEDED:
            assert item.action is Action.KEEP
        elif state in (TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED):
            assert item.action is Action.RERUN and item.reason == f"was {state.word}"
        else:
            assert item.action is Action.STAYS


def test_a_change_is_named_and_conditions_are_none() -> None:
    before, after = declared("one", command="old"), declared("one", command="new")
    item = decided([after], {"one": standing(before, 1)})["one"]
    assert (item.action, item.reason, item.changes) == (Action.RERUN, "command changed", ("command",))
    spec = Prepared("one", "qc.a", 5, '{"command":"old","retry":3,"memory":5}', [], None)
    conditions = Declared("a", "one", spec, 0, None)
    settle(conditions, str, "/side/")
    item = decided([conditions], {"one": standing(before, 1)})["one"]
    assert (item.action, item.changes) == (Action.KEEP, ("memory", "priority", "retry"))


def test_a_task_follows_what_it_requires_as_far_as_it_has_run() -> None:
    old = declared("one", command="old")
    one = declared("one", command="new")
    for state in TaskState:
        two = declared("two", one, step="b")
        item = decided([one, two], {"one": standing(old, 1), "two": standing(two, 2, state)})["two"]
        if state in UNPLACED - {TaskState.BLOCKED}:
            assert item.action is Action.STAYS, state  # it waits for it anyway
        else:
            assert item.action is Action.RERUN
            assert item.reason == ("was blocked" if state is TaskState.BLOCKED else "follows a"), state


def test_a_success_that_is_older_than_its_prerequisites_is_none() -> None:
    one = declared("one")
    two = declared("two", one)
    assert (
        decided([one, two], {"one": standing(one, 1, won=9), "two": standing(two, 2, won=8)})["two"].reason
        == "follows a"
    )
    assert (
        decided([one, two], {"one": standing(one, 1, won=7), "two": standing(two, 2, won=8)})["two"].action
        is Action.KEEP
    )
    again = {"one": standing(one, 1, TaskState.RUNNING, won=7), "two": standing(two, 2, won=8)}
    assert decided([one, two], again)["two"].reason == "follows a"


def test_a_task_that_a_worker_holds_on_condition_is_left_alone() -> None:
    one = declared("one")
    two = declared("two", one)
    for state in LIVE:
        there = {"one": standing(one, 1, TaskState.RUNNING), "two": standing(two, 2, state)}
        assert {item.action for item in decided([one, two], there).values()} == {Action.STAYS}


def test_what_comes_to_require_a_new_task_is_replaced_and_so_is_what_follows() -> None:
    new = declared("new")
    old = declared("two")
    two = declared("two", new)
    three = declared("three", two)
    for state in (TaskState.SUCCEEDED, TaskState.PENDING, TaskState.FAILED):
        items = decided([new, two, three], {"two": standing(old, 1, state), "three": standing(three, 2, state)})
        assert [items[name].replaced for name in ("new", "two", "three")] == [False, True, True]
        assert items["three"].action is Action.RERUN


def test_inputs_are_compared_as_far_as_they_were_seen() -> None:
    one = declared("one", source="/in")
    cases = (
        (("size 1 1",), ["size 2 1"], "input /in changed (1 → 2 bytes)"),
        (("size 1 1",), ["size 1 2"], "input /in changed (its time)"),
        (("md5 9c1eab",), ["md5 77d0cd"], "input /in changed (md5 9c1e… → 77d0…)"),
        (("size 1 1",), [""], "input /in is gone"),
        (("size 1 1",), [None], ""),
        ((None,), ["size 1 1"], ""),
        (("",), ["size 1 1"], ""),
        (None, ["size 1 1"], ""),
        (("size 1 1",), ["size 1 1"], ""),
    )
    for before, now, reason in cases:
        item = decided([one], {"one": standing(one, 1, seen=before)}, seen=lambda _, now=now: now)["one"]
        assert item.reason == reason, (before, now)


def test_what_is_not_declared_has_vanished_unless_it_grew_later() -> None:
    one, grown = declared("one"), declared("grown")
    there = {one.key: standing(one, 1), grown.key: standing(grown, 2, grown=True), ("b", "gone"): standing(one, 3)}
    assert [item.action for item in plan("qc", [one], there).items] == [Action.KEEP, Action.LATER, Action.VANISHED]
    assert len(plan("qc", [one], there, complete=False).items) == 1


def test_the_table_says_how_many_and_why() -> None:
    items = [Item("fastp", f"s{n}", Action.KEEP) for n in range(65)]
    items += [Item("fastp", f"n{n}", Action.NEW) for n in range(3)]
    items += [Item("fastp", "lane2-b", Action.RERUN, "input s3://raw/b.fq.gz changed (md5 9c1e… → 77d0…)")]
    items += [Item("stats", "stats", Action.RERUN, "follows fastp")]
    found = Plan("qc", items)
    assert str(found).splitlines() == [
        " step   new  rerun  keep  why",
        " fastp    3      1    65  lane2-b: input s3://raw/b.fq.gz changed (md5 9c1e… → 77d0…)",
        " stats    -      1     -  follows fastp",
    ]
    assert found.has_changes and found.to_dict()["steps"][0]["keep"] == 65
    many = Plan(
        "qc",
        [Item("a", f"s{n}", Action.RERUN, "failed (exit 1)") for n in range(9)]
        + [Item("a", "x", Action.RERUN, "y\x1b[2J")],
    )
    assert many.rows()[0]["why"] == "s0, s1, s2 and 6 more: failed (exit 1); x: y\x1b[2J" and "\x1b" not in str(many)


def test_digests_say_which_fields_differ() -> None:
    assert differing("command:1 shell:2", "command:1 shell:2") == []
    assert differing("command:1 shell:2", "command:3 input:4") == ["command", "input", "shell"]
    assert differing("0" * 64, "command:1") == ["command"]


def test_whatever_happened_before_nothing_that_succeeded_needlessly_runs_again() -> None:
    """A random graph in random states: what runs again has a reason of its own, or follows something that runs."""
    chance = random.Random(7)
    for _ in range(200):
        ones: list[Declared] = []
        there: dict[str, Standing] = {}
        changed = set()
        for n in range(chance.randint(1, 12)):
            parents = chance.sample(ones, min(len(ones), chance.randint(0, 3)))
            one = declared(str(n), *parents)
            ones.append(one)
            state = chance.choice([TaskState.SUCCEEDED] * 5 + [TaskState.FAILED, TaskState.PENDING, TaskState.RUNNING])
            found = standing(one, n + 1, state, won=n + 1)
            if chance.random() < 0.2:
                changed.add(one.name)
                found = found._replace(digest="command:x")
            if chance.random() < 0.9:
                there[one.name] = found
        items = decided(ones, there)
        for one in ones:
            item, old = items[one.name], there.get(one.name)
            before = [items[parent.name] for parent in ones if parent.number in one.parents]
            unfinished = any(each.action is Action.STAYS for each in before)
            reasons = one.name in changed or old is None or old.state is TaskState.FAILED
            reasons = (
                reasons or any(each.runs for each in before) or (old is not None and old.state in FINAL and unfinished)
            )
            assert not item.runs or reasons
            if (
                old is not None
                and old.state is TaskState.SUCCEEDED
                and (one.name in changed or any(each.runs for each in before))
            ):
                assert item.action is Action.RERUN
