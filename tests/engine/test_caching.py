"""Tasks that may use the cache, with the real agent and plain paths: what is taken, what runs, and what is said of it.

Storages and their servers: test_caching_far.py. What a key is made of: tests/test_digest.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.errors import IllegalMove
from scitq.handle import Task
from scitq.states import TaskState
from scitq.store import cache, query
from scitq.task import ExecutionId
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S
from tests.engine.test_engine import until as wait_until


def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event announces."""
    wait_until(condition, "it")


def ran(*tasks: Task) -> list[bool]:
    """Whether each was executed, once all are done."""
    for task in tasks:
        task.result(WAIT_S)
    return [task.executions[-1].worker is not None for task in tasks]


def recorded(engine: Engine) -> None:
    """Wait until it is known of every success what it is the answer to."""
    until(lambda: not query.rows(engine._reader(), "select 1 from execution where key is null and outcome = 0"))


def runs_of(path: Path) -> int:
    """How often a command that leaves a line there has run."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def counting(tmp_path: Path, script: str) -> str:
    """A script that counts its runs beside what it does."""
    return f"echo x >> {tmp_path}/runs; {script}"


def chain(engine: Engine, source: Path, **common: Any) -> list[Task]:
    """Three steps."""
    one = engine.submit("cat $INPUT/* > $OUTPUT/copy", shell=True, input=source, use_cache=True, **common)
    two = engine.submit("wc -c < $INPUT/copy > $OUTPUT/size", shell=True, input=one.output, use_cache=True, **common)
    return [one, two, engine.submit("cat $INPUT/size", shell=True, input=two.output, use_cache=True, **common)]


# --- what is taken --------------------------------------------------------------------------------------------------------------


def test_an_equal_task_is_not_run_again(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, "echo out; echo err >&2; echo left > $OUTPUT/file")
    first, second = (engine.submit(script, shell=True, use_cache=True) for _ in range(2))
    assert ran(first, second) == [True, False]
    assert runs_of(tmp_path / "runs") == 1
    assert (second.result().stdout, second.result().stderr, second.result().exit_code) == ("out\n", "err\n", 0)
    assert second.files() == first.files()
    assert (Path(second.output) / "file").read_text() == "left\n"  # type: ignore[arg-type]
    (row,) = engine.sql(f"select * from executions where task = {second.id}")
    assert (row["cached_from"], row["worker"], row["outcome"]) == (first.executions[-1].id, None, "succeeded")
    assert second.why().startswith(f"{second.row().label} succeeded: reused from {first.id} (same key), which ran in")
    sound(engine)


def test_a_long_output_on_the_screen_comes_with_the_result(engine: Engine) -> None:
    first, second = (engine.submit("seq 1 100000", use_cache=True) for _ in range(2))
    assert ran(first, second) == [True, False]
    assert second.output_bytes() == first.output_bytes() and len(second.output_bytes()) > 500_000
    sound(engine)


def test_a_chain_is_taken_whole_without_a_worker(open_engine: Opener, tmp_path: Path) -> None:
    (tmp_path / "reads.fq").write_text("ACGT\n")
    with open_engine() as engine:
        assert ran(*chain(engine, tmp_path / "reads.fq")) == [True] * 3
        recorded(engine)
    with open_engine() as engine:
        again = chain(engine, tmp_path / "reads.fq")
        assert ran(*again) == [False] * 3
        assert again[-1].result().stdout == "5\n"
        assert engine._driver is not None and not any(one.connected for one in engine._driver._contacts.values())
        sound(engine)


@pytest.mark.promise("core 11.9")
def test_a_task_that_took_a_result_is_a_source_like_any_other(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\n")
    first = chain(engine, tmp_path / "in")[0]
    second = chain(engine, tmp_path / "in")[0]
    assert ran(first, second) == [True, False]
    assert engine.submit("cat $INPUT/copy", shell=True, input=second.output).result(WAIT_S).stdout == "one\n"
    third = engine.submit("cat $INPUT/* > $OUTPUT/copy", shell=True, input=tmp_path / "in", use_cache=True)
    first.delete()
    assert ran(third) == [False]
    assert (Path(third.output) / "copy").read_text() == "one\n"  # type: ignore[arg-type]
    sound(engine)


def test_runs_of_the_past_are_used_though_they_did_not_ask_for_it(open_engine: Opener, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\n")
    script = counting(tmp_path, "cat $INPUT/in")
    with open_engine() as engine:
        engine.submit(script, shell=True, input=tmp_path / "in").result(WAIT_S)
        engine.submit("echo plain").result(WAIT_S)
    with open_engine() as engine:
        tasks = [
            engine.submit(script, shell=True, input=tmp_path / "in", use_cache=True),
            engine.submit(["echo", "plain"], use_cache=True),
        ]
        assert ran(*tasks) == [False, False]
    assert runs_of(tmp_path / "runs") == 1


def test_a_success_that_was_not_looked_at_is_at_the_next_start(open_engine: Opener) -> None:
    with open_engine() as engine:
        engine.submit("echo fine").result(WAIT_S)
        recorded(engine)
        engine._write(lambda db: db.execute("update execution set key = null"))
    with open_engine() as engine:
        engine.drive()
        recorded(engine)
        (key,) = query.one(engine._reader(), "select key from execution")
        assert len(key) == 40


def test_an_input_that_was_changed_after_a_run_that_nobody_watched_does_not_stand_for_it(
    open_engine: Opener, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("one\n")
    with open_engine() as engine:
        engine.submit("cat $INPUT/in", shell=True, input=tmp_path / "in").result(WAIT_S)
        recorded(engine)
        engine._write(lambda db: db.execute("update execution set key = null"))
    (tmp_path / "in").write_text("two\n")
    with open_engine() as engine:
        task = engine.submit("cat $INPUT/in", shell=True, input=tmp_path / "in", use_cache=True)
        assert ran(task) == [True]
        assert task.result().stdout == "two\n"


def test_an_input_that_changes_while_its_task_runs_makes_a_result_of_nothing(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\n")
    script = f"cat $INPUT/in; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    task = engine.submit(script, shell=True, input=tmp_path / "in", use_cache=True)
    until(lambda: task.state is TaskState.RUNNING)
    (tmp_path / "in").unlink()
    (tmp_path / "in").write_text("two\n")
    (tmp_path / "go").touch()
    assert task.result(WAIT_S).stdout == "one\n"
    again = engine.submit(script, shell=True, input=tmp_path / "in", use_cache=True)
    assert ran(again) == [True]
    assert again.result().stdout == "two\n"


# --- what runs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["a", "b"])
def test_one_changed_byte_runs_exactly_the_descendants(engine: Engine, tmp_path: Path, changed: str) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"{name}\n")

    def pipeline() -> list[Task]:
        copies = [
            engine.submit("cat $INPUT/* > $OUTPUT/copy", shell=True, input=tmp_path / name, use_cache=True)
            for name in "ab"
        ]
        joined = engine.submit(
            "cat $INPUT/?/copy", shell=True, use_cache=True,
            input=[copy.output.with_action(f"mv:{name}") for name, copy in zip("ab", copies, strict=True)],
        )  # fmt: skip
        return [*copies, joined]

    assert ran(*pipeline()) == [True] * 3
    with (tmp_path / changed).open("r+") as file:
        file.write("X")
    again = pipeline()
    assert ran(*again) == [changed == "a", changed == "b", True]
    assert again[2].result().stdout == ("X\nb\n" if changed == "a" else "a\nX\n")
    assert f"input {tmp_path}/{changed} changed (old: 2 bytes of 20" in again["ab".index(changed)].why()
    assert f"compared with {3}, input task://" in again[2].why()


def test_a_rerun_with_the_same_outcome_leaves_what_comes_after_alone(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("ACGT\n")
    assert ran(*chain(engine, tmp_path / "in")) == [True] * 3
    (tmp_path / "in").write_text("TTTT\n")  # of the same length: the second step finds what it found before
    assert ran(*chain(engine, tmp_path / "in")) == [True, True, False]


@pytest.mark.parametrize("deed", ["delete", "shorten", "change", "replace"])
@pytest.mark.promise("core 11.9")
def test_a_result_that_was_altered_behind_our_back_is_made_anew(engine: Engine, tmp_path: Path, deed: str) -> None:
    script = counting(tmp_path, "echo result > $OUTPUT/file")
    first = engine.submit(script, shell=True, use_cache=True)
    first.result(WAIT_S)
    recorded(engine)
    file = Path(first.output) / "file"  # type: ignore[arg-type]
    before = file.stat()
    if deed == "delete":
        file.unlink()
    elif deed == "replace":  # with the old time
        file.unlink()
        file.write_text("RESULT\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        until(lambda: _touched_later(file, first))
    else:
        file.write_text("res\n" if deed == "shorten" else "RESULT\n")
        until(lambda: _touched_later(file, first, with_write=True))
    second = engine.submit(script, shell=True, use_cache=True)
    assert ran(second) == [True]
    assert "no good any more" in second.why()
    assert ran(engine.submit(script, shell=True, use_cache=True)) == [False]
    sound(engine)


def _touched_later(file: Path, task: Task, *, with_write: bool = False) -> bool:
    """Whether a file was changed later than its execution ended, by more than coarse clocks differ."""
    if with_write:
        file.write_bytes(file.read_bytes())
    else:
        os.chmod(file, 0o640)
        os.chmod(file, 0o644)
    ended = task.executions[-1].ended_ms
    assert ended is not None
    return file.stat().st_ctime > ended / 1000 + 1.1


def test_what_was_only_looked_at_and_linked_is_still_good(engine: Engine, tmp_path: Path) -> None:
    script = "echo result > $OUTPUT/file"
    first = engine.submit(script, shell=True, use_cache=True)
    first.result(WAIT_S)
    file = Path(first.output) / "file"  # type: ignore[arg-type]
    until(lambda: _touched_later(file, first))
    assert ran(engine.submit(script, shell=True, use_cache=True)) == [False]


def test_relaunched_means_run(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, "echo done")
    tasks = [engine.submit(script, shell=True, use_cache=True) for _ in range(2)]
    assert ran(*tasks) == [True, False]
    assert ran(tasks[1].relaunch()) == [True]
    assert runs_of(tmp_path / "runs") == 2
    sound(engine)


def test_an_edited_task_is_looked_up_as_it_is_then(engine: Engine) -> None:
    engine.submit("echo one").result(WAIT_S)
    engine.set_batch("held")
    engine.pause_batch("held")
    task = engine.submit("echo two", batch="held", use_cache=True)
    task.update(command="echo one")
    engine.go_batch("held")
    assert ran(task) == [False]
    assert task.result().stdout == "one\n"
    other = engine.submit("echo three", batch="held")
    other.result(WAIT_S)
    other.update(command="echo one", use_cache=True)
    assert ran(other.relaunch()) == [True]


def test_a_failure_is_no_result(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, f"[ -e {tmp_path}/go ] && echo fine")
    assert engine.submit(script, shell=True, use_cache=True).wait(WAIT_S) is TaskState.FAILED
    (tmp_path / "go").touch()
    assert ran(engine.submit(script, shell=True, use_cache=True)) == [True]


def test_who_does_not_ask_runs(engine: Engine, tmp_path: Path, open_engine: Opener) -> None:
    script = counting(tmp_path, "echo fine")
    tasks = [engine.submit(script, shell=True, use_cache=use) for use in (True, False, None)]
    assert ran(*tasks) == [True, True, True]
    assert tasks[1].why().endswith("on local.")


def test_the_cache_is_a_default_of_engines_and_batches(state_file: Path, engine: Engine) -> None:
    engine.submit("echo fine").result(WAIT_S)
    with Engine(state_file, drive=False, use_cache=True) as other:
        tasks = [other.submit("echo fine"), *other.map("echo {}", ["fine"])]
        assert ran(*tasks, other.submit("echo fine", use_cache=False)) == [False, False, True]
    engine.set_batch("cached", use_cache=True)
    tasks = [engine.submit("echo fine", batch="cached"), *engine.submit_many(["echo fine"], batch="cached")]
    assert ran(*tasks, engine.submit("echo fine", batch="cached", use_cache=False)) == [False, False, True]


def test_a_paused_batch_takes_nothing_before_it_goes_on(engine: Engine) -> None:
    engine.submit("echo fine").result(WAIT_S)
    recorded(engine)
    engine.set_batch("held")
    engine.pause_batch("held")
    task = engine.submit("echo fine", batch="held", use_cache=True)
    engine.submit("echo fine", use_cache=True).result(WAIT_S)
    assert task.state is TaskState.PENDING
    assert "batch held is paused" in task.why()
    engine.go_batch("held")
    assert ran(task) == [False]


def test_what_cannot_be_looked_up_runs_and_why_says_so(engine: Engine, tmp_path: Path) -> None:
    maker = engine.submit(f"echo made > {tmp_path}/later; sleep 0.1", shell=True)
    task = engine.submit(
        "cat $INPUT/later", shell=True, input=tmp_path / "later", requires=maker, use_cache=True, name="reader"
    )
    assert ran(task) == [True]
    (tmp_path / "later").unlink()
    gone = engine.submit("true", input=tmp_path / "later", requires=maker, use_cache=True)
    assert gone.wait(WAIT_S) is TaskState.FAILED
    looked = cache.looked(engine._reader(), gone.id)
    assert looked is not None and looked.note == f"it was not looked up: {tmp_path}/later: No such file or directory"


# --- two at once ----------------------------------------------------------------------------------------------------------------


def test_of_equal_tasks_at_once_one_runs_and_the_others_take_its_result(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo done")
    tasks = list(engine.submit_many([script] * 5, shell=True, use_cache=True))
    first = tasks[0]
    until(lambda: first.state is TaskState.RUNNING)
    until(lambda: all("does the same just now" in task.why() for task in tasks[1:]))
    other = engine.submit("echo something else", use_cache=True)
    assert ran(other) == [True]  # those that wait take nobody's place
    (tmp_path / "go").touch()
    assert ran(*tasks) == [True, False, False, False, False]
    assert runs_of(tmp_path / "runs") == 1
    sound(engine)


def test_when_the_one_that_runs_fails_another_takes_its_turn(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, f"[ $(wc -l < {tmp_path}/runs) -gt 1 ]")
    tasks = list(engine.submit_many([script] * 3, shell=True, use_cache=True))
    states = [task.wait(WAIT_S) for task in tasks]
    assert sorted(states) == [TaskState.SUCCEEDED, TaskState.SUCCEEDED, TaskState.FAILED]
    assert runs_of(tmp_path / "runs") == 2
    sound(engine)


def test_who_waits_for_an_equal_one_can_be_cancelled_and_deleted(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    first, second, third = engine.submit_many([script] * 3, shell=True, use_cache=True)
    until(lambda: all("does the same just now" in task.why() for task in (second, third)))
    assert second.cancel() == "cancelled"
    second.delete()
    with pytest.raises(IllegalMove):
        first.delete()
    first.cancel()
    first.wait(WAIT_S)
    (tmp_path / "go").touch()
    assert ran(third) == [True]
    sound(engine)


PROCESS = """
import sys, scitq
with scitq.open(sys.argv[1]) as q:
    print(q.submit(sys.argv[2], shell=True, use_cache=True).result(60).stdout, end="")
"""


def test_two_processes_that_submit_the_same_at_once_run_it_once(
    state_file: Path, tmp_path: Path, workers_may_linger: None
) -> None:
    script = counting(tmp_path, "sleep 0.5; echo done")
    command: Sequence[str] = [sys.executable, "-c", PROCESS, str(state_file), script]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=WAIT_S)[0] for process in both] == [b"done\n", b"done\n"]
    assert runs_of(tmp_path / "runs") == 1
    with Engine(state_file, drive=False) as engine:
        assert sorted(row["cached_from"] or 0 for row in engine.sql("select cached_from from executions")) == [0, 1]
        sound(engine)


# --- what outlives its task, and what is forgotten --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["task", "many", "batch", "purge"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_result_outlives_its_task_when_that_is_asked(engine: Engine, tmp_path: Path, way: str, keep: bool) -> None:
    (tmp_path / "in").write_text("data\n")
    common: dict[str, Any] = {"shell": True, "input": tmp_path / "in", "use_cache": True}
    script = counting(tmp_path, "echo said; echo left > $OUTPUT/file")
    first = engine.submit(script, batch="old", **common)
    first.result(WAIT_S)
    recorded(engine)
    if way == "task":
        first.delete(keep_cache=keep)
    elif way == "many":
        engine.where("batch = 'old'").delete(keep_cache=keep)
    elif way == "batch":
        engine.delete_batch("old", keep_cache=keep)
    else:
        engine.purge(0, keep_cache=keep)
    assert [entry.kept is not None for entry in engine.cached()] == [True] * keep
    second = engine.submit(script, **common)
    assert ran(second) == [not keep]
    assert (second.result().stdout, [file.name for file in second.files()]) == ("said\n", ["file"])
    assert (Path(second.output) / "file").read_text() == "left\n"  # type: ignore[arg-type]
    if keep:
        assert "whose task was deleted" in second.why()
    sound(engine)


def test_what_is_forgotten_is_not_taken_any_more(engine: Engine, tmp_path: Path) -> None:
    script = counting(tmp_path, "echo done")
    engine.submit(script, shell=True, use_cache=True).result(WAIT_S)
    recorded(engine)
    assert engine.cached(older_than_days=1) == []
    assert engine.forget(engine.cached()) == 1
    assert engine.cached() == []
    assert ran(engine.submit(script, shell=True, use_cache=True)) == [True]
    sound(engine)


def test_what_differs_is_said_of_the_task_of_the_same_name(engine: Engine) -> None:
    engine.submit("echo one", name="same", env={"A": "1"}, use_cache=True).result(WAIT_S)
    task = engine.submit("echo two", name="same", env={"A": "2"}, use_cache=True)
    assert ran(task) == [True]
    assert (
        "because compared with 1, its command differs (old: echo one, new: echo two); env A changed (old: 1, new: 2)"
        in (task.why())
    )


def test_the_key_of_an_execution_stands_in_the_file(engine: Engine) -> None:
    task = engine.submit("echo one", use_cache=True)
    task.result(WAIT_S)
    recorded(engine)
    entry = cache.of_execution(engine._reader(), ExecutionId(1))
    assert entry is not None and entry.task == task.id
    assert cache.find(engine._reader(), entry.key) == [entry]
