"""A script runs once more: what stays, what runs again and why, what is new, what is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import WorkflowFailed
from scitq.states import TaskState
from scitq.store import query, workflows
from scitq.workflow import Workflow
from scitq.workflow.plan import Action, Plan
from tests.fetch.web import WebServer
from tests.workflow.conftest import Maker

Script = Callable[..., Workflow]


def counted(plan: Plan) -> dict[str, dict[str, int]]:
    """Of each step how many tasks of each kind, where there are any."""
    words = [action.value for action in Action]
    return {row["step"]: {word: row[word] for word in words if row[word]} for row in plan.rows()}


def runs(engine: Engine) -> dict[str, int]:
    """How often each task was run."""
    rows = query.rows(
        engine._reader(), "select task.name, count(*) from execution join task on task.id = task group by task.id"
    )
    return dict(rows)


@pytest.fixture
def script(make: Maker) -> Script:
    """A script: two samples are made, signed, and put together; the arguments are what may be edited in it."""

    def run(
        samples: str = "ab",
        *,
        sign: str = "signed",
        retry: int = 0,
        together: str = "cat $INPUT/*.txt",
        **options: object,
    ) -> Workflow:
        wf = make(**options)
        for sample in samples:
            made = wf.step("make", f"echo {sample} > $OUTPUT/{sample}.txt", name=f"make {sample}", retry=retry)
            signed = wf.step(
                "sign", f"(cat $INPUT/*; echo {sign}) > $OUTPUT/{sample}.txt", input=made.output, name=f"sign {sample}"
            )
        wf.step("all", together, input=signed.gather("output"), name="all")
        return wf

    return run


def test_an_unchanged_script_does_nothing_again(script: Script, engine: Engine) -> None:
    assert script().run()
    again = script()

    assert counted(again.plan()) == {"make": {"keep": 2}, "sign": {"keep": 2}, "all": {"keep": 1}}
    assert again.run()
    assert set(runs(engine).values()) == {1}
    assert again["all"][0].stdout() == "a\nsigned\nb\nsigned\n"
    assert engine.check() == []


def test_what_changed_runs_again_and_what_follows_from_it(script: Script, engine: Engine) -> None:
    script().run()
    numbers = [task.id for task in engine.tasks()]
    again = script(sign="SIGNED")
    plan = again.plan()

    assert counted(plan) == {"make": {"keep": 2}, "sign": {"rerun": 2}, "all": {"rerun": 1}}
    assert [row["why"] for row in plan.rows()] == ["", "command changed", "follows sign"]
    again.run()
    assert again["all"][0].stdout() == "a\nSIGNED\nb\nSIGNED\n"
    # They keep their numbers and their history.
    assert [task.id for task in engine.tasks()] == numbers
    assert runs(engine) == {"make a": 1, "make b": 1, "sign a": 2, "sign b": 2, "all": 2}
    first, second = query.rows(
        engine._reader(), "select coalesce(execution.spec, task.spec) ->> '$.command' from execution join task on "
        "task.id = task where name = 'sign a' order by execution.id"
    )  # fmt: skip
    assert "signed" in first[0] and "SIGNED" in second[0]
    assert engine.check() == []


def test_a_new_task_is_added_and_what_gathers_it_takes_its_place_after_it(script: Script, engine: Engine) -> None:
    script().run()
    before = engine.task("all").id
    again = script("abc")

    assert counted(again.plan()) == {"make": {"keep": 2, "new": 1}, "sign": {"keep": 2, "new": 1}, "all": {"rerun": 1}}
    again.run()
    assert again["all"][0].stdout() == "a\nsigned\nb\nsigned\nc\nsigned\n"
    # A task may only require older ones.
    assert again["all"][0].id > before
    assert engine.rows(name="all")[0].id != before and len(engine.rows(name="all")) == 1
    assert engine.check() == []


def test_what_is_declared_no_more_is_listed_and_goes_on_request(
    script: Script, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("abc").run()
    again = script("ab")
    plan = again.plan()

    assert [(item.step, item.name) for item in plan.vanished] == [("make", "make c"), ("sign", "sign c")]
    assert "make c: not in the script any more" in str(plan)
    again.run()
    assert engine.task("make c").status == "succeeded"
    from scitq.workflow import mode

    monkeypatch.setattr(mode.current, "prune", True)
    script("ab").run()
    assert engine.tasks(name="* c") == []
    assert engine.check() == []


def test_more_retries_are_no_reason_to_run_again(script: Script, engine: Engine) -> None:
    script().run()
    again = script(retry=3)

    assert not again.plan().has_changes
    again.run()
    assert set(runs(engine).values()) == {1}
    assert engine.task("make a").row().spec.retry == 3


def test_what_failed_runs_again_and_frees_what_it_blocked(make: Maker, engine: Engine, tmp_path: Path) -> None:
    def script() -> Workflow:
        wf = make()
        for n in range(3):
            part = wf.step("part", f"test {n} -ne 1 -o -e {tmp_path}/fixed", name=f"part {n}")
        wf.step("all", "echo all", requires=part.gather(), name="all")
        return wf

    with pytest.raises(
        WorkflowFailed, match=r"1 failed, 1 blocked of 4 tasks(.|\n)*part 1.*failed \(exit 1\)"
    ) as problem:
        script().run()
    assert [task.name for task in problem.value.tasks] == ["part 1"]
    assert not problem.value.summary
    (tmp_path / "fixed").touch()
    again = script()
    assert counted(again.plan()) == {"part": {"keep": 2, "rerun": 1}, "all": {"rerun": 1}}
    assert "part 1: failed (exit 1)" in str(again.plan())
    assert again.run()
    assert runs(engine) == {"part 0": 1, "part 1": 2, "part 2": 1, "all": 1}


def test_a_cancelled_task_runs_again(still: Maker) -> None:
    def script() -> Workflow:
        wf = still()
        wf.step("slow", "sleep 60; echo woken", name="slow")
        return wf

    first = script()
    first.start()
    assert first["slow"][0].cancel() == "cancelled"
    first.quit()
    plan = script().plan()
    assert [(item.action, item.reason) for item in plan.items] == [(Action.RERUN, "was cancelled")]


def test_an_edit_in_the_queue_stays_as_long_as_the_script_says_the_same(make: Maker, engine: Engine) -> None:
    def script(word: str) -> Workflow:
        wf = make()
        wf.step("say", f"echo {word}; test {word} = good", name="say")
        return wf

    with pytest.raises(WorkflowFailed):
        script("bad").run()
    engine.task("say").update(command="echo edited")
    assert script("bad").run()
    assert engine.task("say").stdout() == "edited\n"
    assert not script("bad").plan().has_changes
    assert script("good").run()
    assert engine.task("say").stdout() == "good\n"


def test_an_input_that_changed_is_a_reason_and_is_named(make: Maker, engine: Engine, tmp_path: Path) -> None:
    sources = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, source in enumerate(sources):
        source.write_text(f"{n}\n")

    def script() -> Workflow:
        wf = make()
        for source in sources:
            read = wf.step("read", "cat $INPUT/* > $OUTPUT/read", input=source, name=source.name)
        wf.step("all", "cat $INPUT/*/read", input=[read.gather("output")[n].with_action(f"mv:{n}") for n in range(3)])
        return wf

    script().run()
    assert not script().plan().has_changes
    sources[1].write_text("one\n")
    again = script()
    assert counted(again.plan()) == {"read": {"keep": 2, "rerun": 1}, "all": {"rerun": 1}}
    assert f"1.txt: input {sources[1]} changed (2 → 4 bytes)" in str(again.plan())
    again.run()
    assert runs(engine)["1.txt"] == 2 and runs(engine)["0.txt"] == 1
    # Nothing is looked at on request.
    sources[2].write_text("two\n")
    assert not script().plan(check_inputs=False).has_changes
    assert script().plan().has_changes


def test_a_file_that_is_touched_is_another_and_one_that_came_later_is_not(
    make: Maker, engine: Engine, tmp_path: Path
) -> None:
    source, place = tmp_path / "a.txt", tmp_path / "left"
    source.write_text("a\n")

    def script() -> Workflow:
        wf = make()
        made = wf.step("make", "cp $INPUT/a.txt $OUTPUT/made.txt", input=source, output=place, name="make")
        # By its address: it is not there when it is declared for the first time.
        wf.step("use", "cat $INPUT/made.txt", input=str(place / "made.txt"), requires=made, name="use")
        return wf

    script().run()
    assert not script().plan().has_changes
    os.utime(source, (1, 1))
    assert {item.name: item.reason for item in script().plan().items if item.runs} == {
        "make": f"input {source} changed (its time)", "use": "follows make",
    }  # fmt: skip


def test_a_resource_that_changed_is_a_reason_for_all_that_share_it(make: Maker, engine: Engine, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "index").write_text("1")

    def script() -> Workflow:
        wf = make()
        for n in range(2):
            wf.step("read", "cat $RESOURCE/index", resource=reference, name=str(n))
        return wf

    script().run()
    (reference / "more").write_text("2")
    plan = script().plan()
    assert plan.rows()[0]["why"].startswith(f"resource {reference} changed (files ")
    assert counted(plan) == {"read": {"rerun": 2}}


def test_a_parent_that_was_run_again_by_hand_is_a_reason(script: Script, engine: Engine) -> None:
    script().run()
    engine.task("make a").relaunch().wait(60)

    plan = script().plan()
    assert counted(plan) == {"make": {"keep": 2}, "sign": {"keep": 1, "rerun": 1}, "all": {"rerun": 1}}


def test_queued_tasks_stay_and_changed_ones_are_edited_where_they_are(still: Maker, idle: Engine) -> None:
    def script(word: str) -> Workflow:
        wf = still()
        one = wf.step("one", "echo one", name="one")
        wf.step("two", f"echo {word}", requires=one, name="two")
        return wf

    script("two").start()
    again = script("TWO")
    assert counted(again.plan()) == {"one": {"running": 1}, "two": {"rerun": 1}}
    again.start()
    assert idle.task("two").row().spec.command == "echo TWO"
    assert idle.task("two").state is TaskState.WAITING
    assert len(idle.rows()) == 2


def test_other_requirements_of_queued_tasks(still: Maker, idle: Engine) -> None:
    def script(required: str) -> Workflow:
        wf = still()
        parts = {name: wf.step("one", f"echo {name}", name=name) for name in "ab"}
        wf.step("two", "echo two", requires=[parts[name] for name in required], name="two")
        return wf

    script("a").start()
    second = script("b")
    assert "requires changed" in str(second.plan())
    second.start()
    assert [idle.task("b").id] == [
        parent
        for (parent,) in query.rows(
            idle._reader(), "select parent from requirement where child = ?", (idle.task("two").id,)
        )
    ]
    assert idle.check() == []


def test_a_task_that_comes_to_require_a_younger_one_is_replaced(still: Maker, idle: Engine) -> None:
    first = still()
    first.step("two", "echo two", name="two")
    first.step("one", "echo one", name="one")
    first.start()
    old = idle.task("two").id
    second = still()
    one = second.step("one", "echo one", name="one")
    two = second.step("two", "echo two", name="two", requires=one)
    three = second.step("three", "echo three", name="three", requires=two)
    second.start()

    assert two.id > one.id and three.id > two.id
    assert [row.id for row in idle.rows(name="two")] == [two.id] != [old]
    assert idle.check() == []
    third = still()
    one = third.step("one", "echo one", name="one")
    two = third.step("two", "echo two", name="two", requires=one)
    third.step("three", "echo three", name="three", requires=two)
    assert not third.plan().has_changes


def test_fresh_starts_anew(script: Script, engine: Engine) -> None:
    script("abc").run()
    again = script("ab", fresh=True)
    plan = again.plan()
    assert counted(plan)["make"] == {"rerun": 2, "vanished": 1}
    again.run()
    assert runs(engine) == {"make a": 2, "make b": 2, "sign a": 2, "sign b": 2, "all": 2}


def test_a_running_task_that_changed_is_stopped_first(make: Maker, engine: Engine, tmp_path: Path) -> None:
    def script(word: str) -> Workflow:
        wf = make()
        slow = wf.step("slow", f"touch {tmp_path}/{word}; test {word} = fast || sleep 600", name="slow")
        wf.step("after", "echo after", requires=slow, name="after")
        return wf

    first = script("slow")
    first.start()
    engine._wait_for(
        lambda: not (tmp_path / "slow").exists() and engine.task("slow").state is not TaskState.RUNNING, 60, "it"
    )
    first.quit()
    second = script("fast")
    assert second.run()
    assert [each.cause for each in engine.task("slow").executions] == ["cancelled", "succeeded"]
    assert engine.check() == []


def test_two_workflows_of_one_file_know_nothing_of_each_other(make: Maker, engine: Engine) -> None:
    for name in ("one", "two"):
        wf = make(name)
        wf.step("say", f"echo {name}", name="say")
        assert wf.run()
    assert [row.name for row in workflows.all_of(engine._reader())] == ["one", "two"]
    assert [task.stdout() for task in engine.tasks(name="say")] == ["one\n", "two\n"]
    assert not make("one").steps


def test_tasks_of_a_file_require_one_another_however_they_were_submitted(make: Maker, engine: Engine) -> None:
    plain = engine.submit("echo plain > $OUTPUT/x", shell=True, name="plain")

    def script() -> tuple[Workflow, Workflow]:
        one = make("one")
        first = one.step("say", "cat $INPUT/x; echo one > $OUTPUT/x", input=plain.output, name="first")
        one.start()
        two = make("two")
        two.step("say", "cat $INPUT/x", input=first.output, required_tasks=[plain, first.task_id], name="second")
        return one, two

    one, two = script()
    assert one.run() and two.run()
    assert (
        engine.submit("cat $INPUT/x", shell=True, input=two["say"][0].task._engine.task("first").output).result().stdout
        == "one\n"
    )
    again = script()
    assert [wf.plan().has_changes for wf in again] == [False, False]


def test_an_address_that_changed_is_a_reason_and_one_that_does_not_answer_is_none(
    make: Maker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = WebServer()
    web.add("/a.txt", b"a", etag='"1"')
    web.add("/b.txt", b"b", etag='"1"')

    def script() -> Workflow:
        wf = make()
        for name in "ab":
            wf.step("read", "cat $INPUT/*", input=f"{web.url}/{name}.txt", name=name)
        return wf

    script().run()
    assert not script().plan().has_changes
    web.add("/b.txt", b"B", etag='"2"')
    plan = script().plan()
    assert [(item.name, item.reason) for item in plan.items if item.runs] == [
        ("b", f'input {web.url}/b.txt changed (etag "1"… → "2"…)')
    ]
    script().run()
    assert engine.task("b").stdout() == "B"
    web.close()
    monkeypatch.setattr("scitq.workflow.marks.PATIENCE_S", 0.2)
    plan = script().plan()
    assert not plan.has_changes
    assert f"Not looked at, so taken to be as they were: {web.url}/a.txt, {web.url}/b.txt (no answer)." in str(plan)
