"""The engine as its users see it: real file, real agent, real commands."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import (
    BadInput,
    Closed,
    IllegalMove,
    ScitqError,
    TaskBlocked,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
)
from scitq.remote import local
from scitq.states import Outcome, Stage, TaskState
from tests.engine.conftest import Opener, sound

WAIT_S = 30


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that no event announces to a test."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S} s"
        time.sleep(0.01)


# --- commands -----------------------------------------------------------------------------------------------------------


def test_a_string_is_split_without_a_shell(engine: Engine) -> None:
    assert engine.submit("printf %s|  'a b' $HOME").result(WAIT_S).stdout == "a b|$HOME|"


@pytest.mark.promise("core 11.13")
def test_a_list_is_taken_as_it_is(engine: Engine) -> None:
    words = ["printf", "%s|", "a  b", "'q'", '"', "\n", "ü", "-n", "*", "$(id)", ""]
    assert engine.submit(words).result(WAIT_S).stdout == "".join(f"{word}|" for word in words[2:])


def test_a_script_runs_as_a_file(engine: Engine) -> None:
    script = "set -e\nfor i in 1 2; do\n  echo \"line $i 'quoted' é\"\ndone\ncase $0 in /*) echo file;; esac\n"
    result = engine.submit(script, shell=True).result(WAIT_S)
    assert result.stdout == "line 1 'quoted' é\nline 2 'quoted' é\nfile\n"


def test_a_script_in_another_shell(engine: Engine) -> None:
    assert engine.submit("a=(1 2 3); echo ${#a[@]}", shell="bash").result(WAIT_S).stdout == "3\n"


def test_a_script_longer_than_any_command_line(engine: Engine) -> None:
    script = f": '{'x' * 3_000_000}'\necho done"
    assert engine.submit(script, shell=True).result(WAIT_S).stdout == "done\n"


def test_bytes_that_are_no_text_survive_in_a_command(engine: Engine) -> None:
    word = os.fsdecode(b"\xff\xfe\x80")
    assert engine.submit(["printf", "%s", word]).result(WAIT_S).stdout_bytes == b"\xff\xfe\x80"


def test_an_option_like_program_name_is_only_a_missing_program(engine: Engine) -> None:
    with pytest.raises(TaskFailed, match=r"exit 127.*-x: not found"):
        engine.submit(["-x", "y"]).result(WAIT_S)


def test_a_missing_program_is_named_with_the_path_searched(engine: Engine) -> None:
    with pytest.raises(TaskFailed, match="no-such-program: not found on this worker's PATH") as caught:
        engine.submit("no-such-program --help").result(WAIT_S)
    assert caught.value.exit_code == 127  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("", {}, "empty"),
        ("  \n", {"shell": True}, "empty"),
        ([], {}, "empty"),
        (["", "x"], {}, "empty"),
        ("echo 'oops", {}, "No closing quotation.*shell=True"),
        ("echo \0", {}, "NUL"),
        (["echo", "\0"], {}, "NUL"),
        (["echo"], {"shell": True}, "without a shell"),
        (5, {}, "string or a list"),
        ([["nested"]], {}, "text, a path or a number"),
        ("true", {"shell": 3}, "shell must be"),
        ("true", {"retry": -1}, "retry must be"),
        ("true", {"retry": True}, "retry must be"),
        ("true", {"retry_delay": -1}, "retry_delay must be"),
        ("true", {"run_timeout": 0}, "run_timeout must be"),
        ("true", {"run_timeout": float("nan")}, "run_timeout must be"),
        ("true", {"priority": 1.5}, "priority must be"),
        ("true", {"name": "a\nb"}, "name must be"),
        ("true", {"name": " "}, "name must be"),
        ("true", {"name": "\ud800"}, "Unicode"),
        ("true", {"env": {"A=B": "c"}}, "name of a variable"),
        ("true", {"env": ["A"]}, "mapping"),
        ("true", {"cpus": -1}, "cpus must be"),
        ("true", {"memory": "lots"}, "memory must be a number of bytes, or an amount such as '16G'"),
        ("true", {"gpus": -1}, "gpus must be"),
        ("true", {"requires": 99}, "no task 99"),
        ("true", {"requires": "nobody"}, "no task is named"),
        ("true", {"requires": 1.5}, "requires must be"),
    ],
)
def test_bad_input_gets_one_clear_error_and_queues_nothing(
    engine: Engine, command: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        engine.submit(command, **options)  # type: ignore[arg-type]
    assert engine.counts() == {}


# --- surroundings -------------------------------------------------------------------------------------------------------


def test_the_environment_is_the_user_s_plus_what_a_task_needs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "not for tasks")
    task = engine.submit("env", env={"GREETING": "hello world"})
    env = dict(line.split("=", 1) for line in task.result(WAIT_S).stdout.splitlines())
    assert env["GREETING"] == "hello world"
    assert env["SCITQ_TASK"] == str(task.id) and env["SCITQ_EXECUTION"].isdecimal()
    assert env["PATH"] == os.environ["PATH"] and env["HOME"] == os.environ["HOME"] and int(env["CPU"]) >= 1
    assert "MY_SECRET" not in env
    for name in ("INPUT", "OUTPUT", "RESOURCE", "TEMP"):
        assert env[name].startswith(str(engine.side))


def test_a_task_runs_where_it_was_submitted(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data.txt").write_text("found\n")
    monkeypatch.chdir(tmp_path / "here")
    task = engine.submit("cat data.txt")
    monkeypatch.chdir(tmp_path)
    assert task.result(WAIT_S).stdout == "found\n"
    with pytest.raises(TaskFailed, match=r"No such file"):
        engine.submit("cat data.txt").result(WAIT_S)


def test_what_a_task_leaves_in_its_output_folder_is_delivered(engine: Engine) -> None:
    task = engine.submit("mkdir $OUTPUT/sub; echo 1 > $OUTPUT/a; echo 2 > $OUTPUT/sub/b", shell=True)
    task.result(WAIT_S)
    assert (task.output / "a").read_text() == "1\n"
    assert (task.output / "sub" / "b").read_text() == "2\n"
    task.update(command="echo new > $OUTPUT/c")
    task.relaunch().result(WAIT_S)
    assert sorted(file.name for file in Path(task.output.path).iterdir()) == ["c"]


def test_a_failed_task_delivers_nothing(engine: Engine) -> None:
    task = engine.submit("echo half > $OUTPUT/a; exit 1", shell=True)
    assert task.wait(WAIT_S) is TaskState.FAILED
    assert not task.output.exists()


def test_each_task_finds_its_folders_empty(engine: Engine) -> None:
    engine.update_worker("local", concurrency=1) if engine.workers() else None
    script = "ls -A $INPUT $OUTPUT $TEMP $RESOURCE | grep -v : | wc -w; touch $TEMP/t $OUTPUT/o; mkdir $INPUT/x"
    tasks = [engine.submit(script, shell=True) for _ in range(12)]
    assert {task.result(WAIT_S).stdout.strip() for task in tasks} == {"0"}


# --- output -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 100_000, 5_000_000])
def test_output_is_exact_at_any_size(engine: Engine, size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    result = engine.submit("cat data; cat data >&2", shell=True).result(WAIT_S)
    assert hashlib.sha256(result.stdout_bytes).digest() == hashlib.sha256(data).digest()
    assert result.stderr_bytes == data


@pytest.mark.promise("lessons 3.5.6")
def test_a_line_of_a_megabyte_and_a_million_lines(engine: Engine) -> None:
    long = engine.submit([sys.executable, "-c", "print('x' * 1_000_000, end='')"])
    many = engine.submit("seq 1000000")
    assert long.result(WAIT_S).stdout == "x" * 1_000_000
    assert many.result(WAIT_S).stdout == "".join(f"{n}\n" for n in range(1, 1_000_001))


@pytest.mark.promise("lessons 3.5.6")
def test_output_that_is_no_text_is_kept_to_the_byte_and_shown_all_the_same(engine: Engine) -> None:
    result = engine.submit(r"printf 'a\377\0b'", shell=True).result(WAIT_S)
    assert result.stdout_bytes == b"a\xff\0b"
    assert result.stdout == "a�\0b"


@pytest.mark.promise("core 11.16")
def test_output_beyond_the_cap_is_cut_and_the_cut_is_told(engine: Engine) -> None:
    engine.submit("true").result(WAIT_S)
    assert engine.update_worker("local", output_cap="100 kB").output_cap == 100_000
    task = engine.submit("seq 100000; seq 9 >&2", shell=True)
    result = task.result(WAIT_S)
    assert result.stdout_bytes == b"".join(b"%d\n" % n for n in range(1, 100_001))[:100_000]
    assert result.stderr == "".join(f"{n}\n" for n in range(1, 10))
    told = engine._reader().execute("select id % 2, size, cut from log order by id").fetchall()
    assert told == [(0, 100_000, 1), (1, 18, 0)]
    assert engine.update_worker("local", output_cap="auto").output_cap is None
    assert len(engine.submit("seq 100000").result(WAIT_S).stdout_bytes) == 588_895


@pytest.mark.promise("core 11.16")
def test_output_can_be_read_from_an_offset(engine: Engine) -> None:
    task = engine.submit("printf 0123456789")
    task.wait(WAIT_S)
    assert task.stdout(7) == "789"


def test_lines_can_be_followed_while_they_are_written(engine: Engine, tmp_path: Path) -> None:
    script = "echo one; until [ -e go ]; do sleep 0.02; done; printf 'two\\nlast without end'"
    lines = engine.submit(script, shell=True).follow()
    assert next(lines) == "one"
    (tmp_path / "go").touch()
    assert list(lines) == ["two", "last without end"]


def test_following_gives_every_byte_once_also_of_large_output(engine: Engine) -> None:
    task = engine.submit("seq 200000; seq 5 >&2; sleep 0.2; seq 200000", shell=True)
    got = [b"", b""]
    for stream, piece in task.pieces():
        got[stream] += piece
    once = b"".join(b"%d\n" % n for n in range(1, 200_001))
    assert got == [once + once, b"1\n2\n3\n4\n5\n"]
    assert task.result().stdout_bytes == got[0]


def test_output_of_a_running_task_can_be_read(engine: Engine, tmp_path: Path) -> None:
    task = engine.submit("echo early; until [ -e go ]; do sleep 0.02; done", shell=True)
    until(lambda: task.stdout() == "early\n", "the first line")
    (tmp_path / "go").touch()
    task.result(WAIT_S)
    sound(engine)


# --- ends ---------------------------------------------------------------------------------------------------------------


def test_a_failure_shows_command_exit_code_and_last_lines(engine: Engine) -> None:
    task = engine.submit("seq 30 >&2; exit 3", shell=True, name="count down")
    with pytest.raises(TaskFailed) as caught:
        task.result(WAIT_S)
    text = str(caught.value)
    assert "'count down' failed (exit 3)" in text and "command: seq 30 >&2; exit 3" in text
    assert text.splitlines()[-10:] == [f"  {n}" for n in range(21, 31)]


def test_an_end_by_signal_is_told_as_such(engine: Engine) -> None:
    task = engine.submit("kill -SEGV $$", shell=True)
    task.wait(WAIT_S)
    (attempt,) = task.executions
    assert (attempt.outcome, attempt.signal, attempt.cause) == (Outcome.FAILED, signal.SIGSEGV, "failed (signal 11)")


def test_a_retry_is_a_fresh_execution_and_all_are_remembered(engine: Engine) -> None:
    task = engine.submit("echo try >> log; [ $(wc -l < log) -ge 3 ]", shell=True, retry=5, retry_delay=0.01)
    task.result(WAIT_S)
    assert [(a.attempt, a.outcome) for a in task.executions] == [
        (1, Outcome.FAILED), (2, Outcome.FAILED), (3, Outcome.SUCCEEDED),
    ]  # fmt: skip
    assert task.row().tries == 2


def test_a_run_timeout_ends_the_whole_process_group(engine: Engine, tmp_path: Path) -> None:
    task = engine.submit("sleep 300 & echo $! > child; sleep 300", shell=True, run_timeout=1.0)
    task.wait(WAIT_S)
    (attempt,) = task.executions
    assert (attempt.outcome, attempt.stage) == (Outcome.TIMED_OUT, Stage.RUN)
    child = int((tmp_path / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


def test_cancel_stops_a_running_task_and_what_it_started(engine: Engine, tmp_path: Path) -> None:
    task = engine.submit("sleep 300 & echo $! > child; echo up; wait", shell=True, retry=3)
    assert next(task.follow()) == "up"
    task.cancel()
    assert task.wait(WAIT_S) is TaskState.CANCELLED
    with pytest.raises(TaskCancelled):
        task.result()
    child = int((tmp_path / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")
    assert len(task.executions) == 1


@pytest.mark.sampled
def test_a_task_that_ignores_term_is_killed_after_the_grace(engine: Engine) -> None:
    task = engine.submit("trap '' TERM; echo up; while :; do sleep 0.1; done", shell=True, run_timeout=1.0)
    assert task.wait(WAIT_S) is TaskState.FAILED
    assert task.executions[0].outcome is Outcome.TIMED_OUT


def test_a_daemon_left_behind_holds_nothing_up(engine: Engine, tmp_path: Path) -> None:
    script = """setsid sh -c 'echo $$ > daemon; while :; do echo noise; sleep 0.01; done' &
        until [ -s daemon ]; do sleep 0.01; done; echo main"""
    task = engine.submit(script, shell=True)
    task.result(WAIT_S)
    try:
        others = [engine.submit(["echo", str(n)]) for n in range(20)]
        assert [other.result(WAIT_S).stdout for other in others] == [f"{n}\n" for n in range(20)]
    finally:
        os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)


# --- dependencies -------------------------------------------------------------------------------------------------------


def test_a_chain_and_a_gather_run_in_order(engine: Engine) -> None:
    first = engine.submit("echo 1 >> trace", shell=True)
    middle = [engine.submit(f"echo 2 >> trace.{n}", shell=True, requires=first) for n in range(5)]
    last = engine.submit("cat trace trace.* | sort | uniq -c", shell=True, requires=[first, middle])
    assert last.result(WAIT_S).stdout.split() == ["1", "1", "5", "2"]
    sound(engine)


def test_a_blocked_task_raises_and_goes_on_after_the_culprit_is_relaunched(engine: Engine, tmp_path: Path) -> None:
    bad = engine.submit("test -e fixed", name="align s07")
    child = engine.submit("echo merged", requires=bad)
    leaf = engine.submit("echo reported", requires="align s07")
    with pytest.raises(TaskBlocked, match="'align s07' failed"):
        child.result(WAIT_S)
    assert f"scitq task relaunch {bad.id}" in child.why()
    (tmp_path / "fixed").touch()
    bad.relaunch()
    assert child.result(WAIT_S).stdout == "merged\n"
    assert leaf.result(WAIT_S).stdout == "reported\n"
    sound(engine)


# --- many ---------------------------------------------------------------------------------------------------------------


def test_submit_many_takes_strings_lists_and_mappings(engine: Engine) -> None:
    tasks = engine.submit_many(
        ["echo a", ["echo", "b c"], {"command": "echo d; echo e", "shell": True, "name": "de"}], batch="mixed", retry=1
    )
    assert [task.result(WAIT_S).stdout for task in tasks] == ["a\n", "b c\n", "d\ne\n"]
    assert engine.task("de") == tasks[2] == tasks[-1]
    assert {task.row().batch for task in tasks} == {"mixed"} and tasks[0].row().spec.retry == 1


def test_mere_commands_and_mappings_may_be_mixed_in_submit_many(open_engine: Opener) -> None:
    engine = open_engine(drive=False)
    items: list[Any] = [
        "true",
        ["echo", "a b", 3, Path("/x")],
        ("printf", "'"),
        {"command": "pwd", "batch": "b", "cpus": 2, "priority": 7},
    ]
    parent = engine.submit("true")
    found = [
        task.row()
        for task in engine.submit_many(items * 400, batch="many", requires=parent, env={"A": "é"}, memory="1G")
    ]
    wanted = [
        ("true", "many", 0),
        (["echo", "a b", "3", "/x"], "many", 0),
        (["printf", "'"], "many", 0),
        ("pwd", "b", 7),
    ]
    assert [(row.spec.command, row.batch, row.priority) for row in found] == wanted * 400
    assert {(row.unmet, row.spec.env["A"], row.spec.memory, row.spec.cpus) for row in found} == {
        (1, "é", 10**9, None), (1, "é", 10**9, 2.0)
    }  # fmt: skip
    assert engine.check() == []


def test_a_submission_like_the_last_one_is_checked_and_completed_all_the_same(open_engine: Opener) -> None:
    engine = open_engine(drive=False)
    tags = {"of": "first"}
    first = engine.submit(["echo", "1"], batch="b", retry=1, tags=tags)
    tags["of"] = "second"
    assert engine.submit(["echo", "2"], batch="b", retry=1, tags=tags).row().spec.tags == {"of": "second"}
    wrongs: list[dict[str, Any]] = [
        {"command": ""}, {"command": "a 'b"}, {"retry": True}, {"name": ""}, {"requires": 99}, {"requires": 0},
    ]  # fmt: skip
    for wrong in wrongs:
        assert engine.submit("true", batch="b", retry=1).row().spec.retry == 1
        with pytest.raises(ScitqError):
            engine.submit(**{"command": "true", "batch": "b", "retry": 1, **wrong})
    second = engine.submit("true", batch="b", retry=1, name="n", requires=[first])
    assert (second.row().name, second.row().unmet, engine.submit("true", batch="b", retry=1).row().unmet) == ("n", 1, 0)
    other = open_engine(drive=False)
    other.set_batch("b", shell="bash", cpus=2)  # while this engine believes to know them
    row = engine.submit("echo '", batch="b", retry=1).row()
    assert (row.spec.shell, row.spec.cpus, row.spec.retry) == ("bash", 2.0, 1)
    assert [task.row().spec.shell for task in engine.submit_many(["echo '"], batch="b")] == ["bash"]
    assert engine.submit("true", batch="b", shell=False).row().spec.shell is None
    assert engine.submit("true").row().spec.retry == 0


def test_what_a_task_inherits_is_what_the_environment_is_at_its_submission(
    open_engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(drive=False)
    monkeypatch.setenv("TZ", "caf\udce9")  # bytes that are no UTF-8
    first = engine.submit("true")
    monkeypatch.setenv("TZ", "UTC")
    second = engine.submit("true")
    monkeypatch.delenv("TZ")
    engine.submit_many(["true"])
    monkeypatch.setenv("TZ", "UTC")
    engine.submit_many(["true"])
    seen = [
        json.loads(text)["env"].get("TZ")
        for (text,) in engine._reader().execute(
            "select data from task join context on context.id = context order by task.id"
        )
    ]
    assert seen == ["caf\udce9", "UTC", None, "UTC"] and second.id == first.id + 1


def test_a_bad_item_of_submit_many_says_which_and_what_was_queued(open_engine: Opener) -> None:
    engine = open_engine(drive=False)
    items = (f"echo {n}" if n != 12_345 else "echo 'oops" for n in range(20_000))
    with pytest.raises(BadInput, match="no argument 'inputt'"):
        engine.submit_many(["true"], inputt="x")
    with pytest.raises(BadInput, match=r"item 12345 of submit_many: .*10000 tasks before it were queued"):
        engine.submit_many(items)
    assert engine.counts() == {TaskState.PENDING: 10_000}


def test_a_thousand_short_tasks_each_run_once(engine: Engine, tmp_path: Path) -> None:
    tasks = engine.submit_many({"command": f"echo {n} >> ran", "shell": True} for n in range(1000))
    assert engine.wait_all(60) == {TaskState.SUCCEEDED: 1000}
    assert sorted(map(int, (tmp_path / "ran").read_text().split())) == list(range(1000))
    assert len(tasks) == 1000
    sound(engine)


def test_as_completed_gives_each_as_it_ends(engine: Engine, tmp_path: Path) -> None:
    slow = engine.submit("until [ -e go ]; do sleep 0.02; done", shell=True)
    quick = engine.submit("true")
    order = engine.as_completed([slow, quick], WAIT_S)
    assert next(order) == quick
    (tmp_path / "go").touch()
    assert list(order) == [slow]


def test_join_relaunches_failures_and_counts(engine: Engine) -> None:
    flaky = engine.submit("echo try >> log; [ $(wc -l < log) -ge 2 ]", shell=True)
    hopeless = engine.submit("false")
    after = engine.submit("sleep 0.5", requires=flaky)
    assert engine.join([flaky, hopeless, after], retry=1) == {"succeeded": 2, "failed": 1}
    assert len(hopeless.executions) == 2
    with pytest.raises(TaskFailed, match="1 failed of 1 tasks"):
        engine.join([hopeless], retry=0, check=True)


def test_tasks_can_be_awaited(engine: Engine) -> None:
    async def main() -> list[str]:
        tasks = [engine.submit(["echo", str(n)]) for n in range(50)]
        results = await asyncio.gather(*tasks)
        with pytest.raises(TaskFailed):
            await engine.submit("false")
        return [result.stdout.strip() for result in results]

    assert asyncio.run(main()) == [str(n) for n in range(50)]


@pytest.mark.promise("core 11.20")
def test_a_higher_priority_goes_first(open_engine: Opener, tmp_path: Path) -> None:
    engine = open_engine()
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=1, prefetch=0)
    blocker = engine.submit("until [ -e go ]; do sleep 0.02; done", shell=True)
    until(lambda: blocker.state is TaskState.RUNNING, "the blocker")
    for n, priority in enumerate((0, 5, 0, 9)):
        engine.submit(f"echo {n} >> order", shell=True, priority=priority)
    (tmp_path / "go").touch()
    engine.wait_all(WAIT_S)
    assert (tmp_path / "order").read_text().split() == ["3", "1", "0", "2"]


def test_concurrency_is_kept_and_changes_live(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=3)
    script = "touch run.$SCITQ_TASK; until [ -e go ]; do sleep 0.02; done; rm run.$SCITQ_TASK"
    engine.submit_many([script] * 8, shell=True)

    def running() -> int:
        return len(list(tmp_path.glob("run.*")))

    until(lambda: running() == 3, "three at once")
    engine.update_worker("local", concurrency=5)
    until(lambda: running() == 5, "five at once")
    assert running() == 5
    (tmp_path / "go").touch()
    engine.wait_all(WAIT_S)
    with pytest.raises(BadInput):
        engine.update_worker("local", concurrency=-1)


# --- resources ------------------------------------------------------------------------------------------------------------


def test_requests_are_packed_on_the_worker_and_told_to_the_task(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=4, cpus=4, memory="8G", gpus=2)
    script = "touch run.$SCITQ_TASK; until [ -e go ]; do sleep 0.02; done; echo $CPU $MEMORY $CUDA_VISIBLE_DEVICES"
    wide = engine.submit(script, shell=True, cpus=2, memory="6G")
    gpu = engine.submit(script, shell=True, gpus=1)
    other = engine.submit(script, shell=True, gpus=1)
    greedy = engine.submit(script, shell=True, memory="3GB")
    until(lambda: len(list(tmp_path.glob("run.*"))) == 3, "three at once")
    assert greedy.status == "pending" and "it waits until 3 GB are free on local" in greedy.why()
    (tmp_path / "go").touch()
    assert wide.result(WAIT_S).stdout.split() == ["2", "6000000000"]
    assert {gpu.result(WAIT_S).stdout.split()[-1], other.result(WAIT_S).stdout.split()[-1]} == {"0", "1"}
    assert greedy.result(WAIT_S).stdout.split()[-1] == "3000000000"
    sound(engine)


@pytest.mark.promise("lessons 3.5.10")
def test_a_request_that_no_worker_can_ever_meet_is_explained_at_once(engine: Engine) -> None:
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=2, cpus=2, memory="4G")
    huge = engine.submit("true", cpus=64, memory="1T")
    assert engine.submit("echo small").result(WAIT_S).stdout == "small\n"
    until(lambda: "no worker has 64 CPUs, 1e+03 GB: local has 2 CPUs, 4 GB" in huge.why(), "the explanation")
    huge.update(cpus=1, memory="1G")
    assert huge.result(WAIT_S).exit_code == 0


def test_gpus_are_found_by_the_agent(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for NVIDIA's program: this machine has none."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '0, NVIDIA A100-SXM4-40GB, 40960'\necho '3, NVIDIA A100-SXM4-40GB, 40960'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    tasks = [engine.submit("echo $CUDA_VISIBLE_DEVICES", shell=True, gpus=1) for _ in range(4)]
    assert {task.result(WAIT_S).stdout.strip() for task in tasks} <= {"0", "3"}
    (worker,) = engine.workers()
    assert worker.gpus == ("0", "3") and worker.facts["gpu_models"][0]["memory"] == 40960 << 20


# --- handles and files ----------------------------------------------------------------------------------------------------


def test_a_task_is_found_by_number_and_name_with_spaces_and_slashes(engine: Engine) -> None:
    task = engine.submit("true", name='a/b c\'d "e" é')
    assert engine.task(task.id) == engine.task('a/b c\'d "e" é') == engine.task(str(task.id)) == task
    with pytest.raises(UnknownTask):
        engine.task("a/b")
    with pytest.raises(UnknownTask):
        engine.task(4242)


@pytest.mark.promise("core 11.13")
def test_an_edit_takes_effect_before_the_launch_and_is_refused_after_it(open_engine: Opener) -> None:
    waiting = open_engine(drive=False)
    task = waiting.submit("echo old", name="n")
    task.update(
        command="echo new; echo lines", shell=True, name="m", retry=2, priority=3, env={"A": "b"}, batch="other"
    )
    row = task.row()
    assert (row.name, row.batch, row.priority, row.spec.retry, row.spec.env) == ("m", "other", 3, 2, {"A": "b"})
    with pytest.raises(BadInput, match="no argument"):
        task.update(colour="red")
    driving = open_engine()
    assert driving.task(task.id).result(WAIT_S).stdout == "new\nlines\n"
    busy = driving.submit("sleep 300")
    until(lambda: busy.state is TaskState.RUNNING, "the sleeper")
    with pytest.raises(IllegalMove, match="already launched"):
        busy.update(command="sleep 1")
    busy.cancel()
    busy.wait(WAIT_S)
    assert driving.task(task.id).update(run_timeout=5).row().spec.run_timeout == 5
    assert driving.task(task.id).update(run_timeout=None).row().spec.run_timeout is None


def test_a_late_edit_reaches_a_task_that_a_worker_already_holds(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=1, prefetch=3)
    gate = engine.submit("until [ -e go ]; do sleep 0.02; done", shell=True)
    until(lambda: gate.state is TaskState.RUNNING, "the gate")
    staged = engine.submit("echo old")
    until(lambda: staged.state is TaskState.ASSIGNED, "the prefetch")
    staged.update(command="echo new")
    with pytest.raises(IllegalMove, match="already launched"):
        gate.update(command="true")
    (tmp_path / "go").touch()
    assert staged.result(WAIT_S).stdout == "new\n"
    assert [attempt.outcome for attempt in staged.executions] == [Outcome.RECALLED, Outcome.SUCCEEDED]
    sound(engine)


def test_a_task_is_paused_before_its_launch_or_stopped_where_it_is(engine: Engine, tmp_path: Path) -> None:
    held = engine.submit("echo held", requires=engine.submit("until [ -e go ]; do sleep 0.02; done", shell=True))
    assert held.pause() == "paused"
    ticking = engine.submit("while [ ! -e stop ]; do echo x >> ticks; sleep 0.01; done", shell=True, run_timeout=300)
    until(lambda: (tmp_path / "ticks").exists() and ticking.state is TaskState.RUNNING, "the first tick")
    assert ticking.pause() == "running"
    until(lambda: _stands_still(tmp_path / "ticks"), "standing still")
    (tmp_path / "go").touch()
    assert held.status == "paused"
    assert held.resume() in ("waiting", "pending")
    assert held.result(WAIT_S).stdout == "held\n"
    before = (tmp_path / "ticks").stat().st_size
    ticking.resume()
    until(lambda: (tmp_path / "ticks").stat().st_size > before, "going on")
    (tmp_path / "stop").touch()
    ticking.result(WAIT_S)
    sound(engine)


def _stands_still(path: Path) -> bool:
    before = path.stat().st_size
    time.sleep(0.15)
    return path.stat().st_size == before


def test_a_batch_is_paused_suspended_and_goes_on(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true", batch="other").result(WAIT_S)
    engine.pause_batch("default") if "default" in engine.batches() else None
    ticking = engine.submit("while [ ! -e stop ]; do echo x >> ticks; sleep 0.01; done", shell=True, batch="b")
    until(lambda: (tmp_path / "ticks").exists(), "the first tick")
    engine.pause_batch("b", suspend=True)
    until(lambda: _stands_still(tmp_path / "ticks"), "standing still")
    late = engine.submit("echo late", batch="b")
    assert engine.submit("echo other", batch="other").result(WAIT_S).stdout == "other\n"
    assert "batch b is suspended" in late.why()
    assert late.status == "pending"
    (tmp_path / "stop").touch()
    engine.go_batch("b")
    assert late.result(WAIT_S).stdout == "late\n"
    ticking.result(WAIT_S)
    with pytest.raises(BadInput, match="no batch is named 'nope'"):
        engine.pause_batch("nope")


def test_a_batch_gives_its_tasks_their_defaults(open_engine: Opener) -> None:
    engine = open_engine(drive=False)
    engine.set_batch("align", retry=4, run_timeout=60, env={"A": "b"}, priority=2)
    row = engine.submit("true", batch="align", retry=1).row()
    assert (row.spec.retry, row.spec.run_timeout, row.spec.env, row.priority) == (1, 60.0, {"A": "b"}, 2)
    many = engine.submit_many(["true", {"command": "true", "retry": 0}], batch="align")
    assert [task.row().spec.retry for task in many] == [4, 0]
    assert engine.set_batch("align", retry=None) == {"run_timeout": 60, "env": {"A": "b"}, "priority": 2}
    with pytest.raises(BadInput, match="retry must be"):
        engine.set_batch("align", retry=-1)
    with pytest.raises(BadInput, match="cannot be a default"):
        engine.set_batch("align", name="x")


def test_defaults_that_another_process_sets_hold_from_the_next_submission_on(open_engine: Opener) -> None:
    one, other = open_engine(drive=False), open_engine(drive=False)
    before = one.submit("true", batch="qc")
    other.set_batch("qc", retry=3)
    after = one.submit("true", batch="qc")
    other.set_batch("qc", retry=None)

    assert [before.row().spec.retry, after.row().spec.retry] == [0, 3]
    assert one.submit("true", batch="qc").row().spec.retry == 0
    assert one.submit("true", batch="qc", retry=1).row().spec.retry == 1


def test_deleting_a_task_removes_its_log_file_too(engine: Engine) -> None:
    task = engine.submit("head -c 50000 /dev/zero", shell=True)
    task.result(WAIT_S)
    assert list((engine.side / "logs").iterdir())
    task.delete()
    assert not list((engine.side / "logs").iterdir())
    with pytest.raises(UnknownTask):
        task.row()


def test_why_has_a_sentence_for_every_state(open_engine: Opener, tmp_path: Path) -> None:
    client = open_engine(drive=False)
    first = client.submit("until [ -e go ]; do sleep 0.02; done", shell=True, name="gate")
    second = client.submit("true", requires=first)
    assert "nobody drives lab.scitq. Start a driver: scitq up" in first.why()
    assert "0 of its 1 prerequisite is done; 1 'gate' is pending" in second.why()
    engine = open_engine()
    engine.drive()
    until(lambda: first.state is TaskState.RUNNING, "the gate")
    assert "has been running on local" in first.why()
    engine.update_worker("local", concurrency=0, prefetch=0)
    third = engine.submit("true")
    assert "concurrency of local is 0. Raise it" in third.why()
    (tmp_path / "go").touch()
    first.wait(WAIT_S)
    assert "succeeded in" in first.why()
    engine.update_worker("local", concurrency=1)
    third.wait(WAIT_S)
    retried = engine.submit("false", retry=1, retry_delay=500)
    until(lambda: retried.row().tries == 1, "the first failure")
    assert "its last try failed (exit 1); retry 1 of 1 in" in retried.why()
    retried.cancel()
    assert "was cancelled" in retried.why()


def test_a_fresh_engine_goes_on_where_another_left(open_engine: Opener) -> None:
    with open_engine(drive=False) as first:
        task = first.submit("echo later")
        number = task.id
    with pytest.raises(Closed):
        task.wait()
    assert open_engine().task(number).result(WAIT_S).stdout == "later\n"


def test_leaving_with_work_queued_says_what_stays_and_how_to_go_on(
    open_engine: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "scitq")
    with open_engine() as engine:
        engine.submit("true").result(WAIT_S)
        engine.update_worker("local", concurrency=1, prefetch=0)
        running = engine.submit("sleep 0.3")
        engine.submit_many(["true"] * 3)
        until(lambda: running.state is TaskState.RUNNING, "the sleeper")
    assert "lab.scitq: 3 tasks stay queued, 1 goes on at the workers. To go on: scitq up" in caplog.text
    again = open_engine()
    assert again.wait_all(WAIT_S) == {TaskState.SUCCEEDED: 5}


def test_a_new_file_in_place_of_a_deleted_one_takes_nothing_over(
    open_engine: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers begin anew: the old file's logs, outputs and worker must not be taken for the new one's."""
    script = "head -c 50000 /dev/zero; echo old > $OUTPUT/x"
    first = open_engine()
    first.submit(script, shell=True).result(WAIT_S)
    first.close()
    for path in first.path.parent.glob("lab.scitq*"):
        if path.is_file():
            path.unlink()
    second = open_engine()
    assert "is now in before-" in caplog.text
    task = second.submit("head -c 40000 /dev/zero", shell=True)
    assert (task.id, len(task.result(WAIT_S).stdout)) == (1, 40000)
    assert not task.output.exists()
    (old,) = second.side.glob("before-*")
    assert (old / "outputs" / "1" / "x").read_text() == "old\n"
    local.stop(old / "local")


def test_two_engines_on_one_file_share_work_and_one_drives(open_engine: Opener) -> None:
    first, second = open_engine(), open_engine()
    a = first.submit("echo a")
    b = second.submit("echo b")
    assert (second.task(a.id).result(WAIT_S).stdout, first.task(b.id).result(WAIT_S).stdout) == ("a\n", "b\n")
    assert [first.is_driving, second.is_driving].count(True) == 1


def test_when_the_driver_ends_another_open_process_takes_over(open_engine: Opener) -> None:
    first = open_engine()
    first.submit("true").result(WAIT_S)
    second = open_engine()
    second.submit("true").result(WAIT_S)
    assert first.is_driving and not second.is_driving
    first.close()
    assert second.submit("echo mine").result(WAIT_S).stdout == "mine\n"
    assert second.is_driving


def test_a_driver_asked_to_stop_stops_and_says_so(open_engine: Opener) -> None:
    driver, client = open_engine(), open_engine(drive=False)
    driver.submit("true").result(WAIT_S)
    client.stop_driver()
    until(lambda: client.driver() is None, "the driver's end")  # which lets go of the file last
    assert not driver.is_driving


def test_a_path_too_long_for_a_socket_works(open_engine: Opener, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert open_engine(deep / "lab.scitq").submit("echo deep").result(WAIT_S).stdout == "deep\n"


@pytest.mark.promise("core 11.22")
def test_the_nearest_state_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub" / "deeper")
    with scitq.open(drive=False) as fresh:
        assert fresh.path == tmp_path / "sub" / "deeper" / "scitq.scitq"
    assert "scitq.scitq is made" in caplog.text
    fresh.path.unlink()
    (tmp_path / "lab.scitq").touch()
    with scitq.open(drive=False) as found:
        assert found.path == tmp_path / "lab.scitq"
    (tmp_path / "other.scitq").touch()
    with pytest.raises(BadInput, match="several state files"):
        scitq.open()
    monkeypatch.setenv("SCITQ_FILE", str(tmp_path / "third.scitq"))
    with scitq.open(drive=False) as given:
        assert given.path.name == "third.scitq"


def test_a_script_that_just_ends_says_what_stays_on_stderr_without_any_set_up(open_engine: Opener) -> None:
    """The library has no handlers and prints nothing; Python's own last resort shows the warning."""
    script = """
        import scitq
        q = scitq.open("lab.scitq")
        q.submit("true").result()
        q.update_worker("local", concurrency=0, prefetch=0)
        q.submit("echo left")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=WAIT_S
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "lab.scitq: 1 task stays queued. To go on: scitq up\n"


CTRL_C = """
    import os, pathlib, signal, sys, threading, time
    import scitq, scitq.engine
    scitq.engine.SECOND_CTRL_C_S = float(sys.argv[2])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
    def press():
        while not pathlib.Path("up").exists():
            time.sleep(0.01)
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
    with scitq.open("lab.scitq") as q:
        q.submit("true").result()
        q.update_worker("local", concurrency=1, prefetch=0)
        q.submit("touch up; sleep 1; touch done", shell=True)
        q.submit("touch second")
        threading.Thread(target=press, daemon=True).start()
        q.wait_all()
"""


@pytest.mark.parametrize(("presses", "wait_s"), [(1, 0.2), (2, 20)])
def test_ctrl_c_once_detaches_and_twice_cancels(
    open_engine: Opener, tmp_path: Path, presses: int, wait_s: float
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CTRL_C), str(presses), str(wait_s)],
        capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert "1 task stays queued, 1 goes on at the workers. To go on: scitq up" in done.stderr
    assert "KeyboardInterrupt" in done.stderr
    watcher = open_engine(drive=False)
    if presses == 2:
        assert watcher.counts() == {TaskState.SUCCEEDED: 1, TaskState.CANCELLED: 2}
        return
    until((tmp_path / "done").exists, "the task that went on")
    assert not (tmp_path / "second").exists()
    assert open_engine().wait_all(WAIT_S) == {TaskState.SUCCEEDED: 3}


@pytest.mark.promise("core 11.18")
def test_many_tasks_are_chosen_by_a_condition_and_dealt_with_at_once(engine: Engine, tmp_path: Path) -> None:
    slow = engine.submit_many(["sleep 60"] * 3, run_timeout=0.2, batch="qc")
    bad = engine.submit("false", batch="qc")
    engine.wait_all(WAIT_S)
    chosen = engine.where("batch = 'qc' and cause = 'timed_out'")
    assert [task.id for task in chosen] == [task.id for task in slow]
    assert chosen.update(command="echo quick", run_timeout=20) == 3
    assert chosen.relaunch() == 3
    engine.wait_all(WAIT_S)
    assert {task.status for task in slow} == {"succeeded"} and bad.status == "failed"
    assert engine.where("exit_code = 1 and worker = 'local'").ids == [bad.id]
    assert engine.where("state = 'failed'").delete() == 1
    with pytest.raises(BadInput, match="colour"):
        engine.where("colour = 'red'")
    with pytest.raises(BadInput):
        engine.where("1); delete from task; --")
    sound(engine)


def test_an_edit_that_is_refused_in_part_is_not_made_in_part(open_engine: Opener) -> None:
    engine = open_engine(drive=False)
    first, second = engine.submit("echo old"), engine.submit("true")
    assert engine.where("id = 1").update(command="echo changed", requires=[second]) == 0
    assert first.row().spec.command == "echo old"


def test_waiting_for_a_deleted_task_ends(open_engine: Opener) -> None:
    engine, other = open_engine(drive=False), open_engine(drive=False)
    tasks = [engine.submit("true") for _ in range(3)]
    gone = other.task(tasks[0].id)

    async def main() -> None:
        waiting = asyncio.ensure_future(tasks[1]._arrive())
        await asyncio.sleep(0.05)
        other.task(tasks[1].id).delete()
        with pytest.raises(UnknownTask):
            await asyncio.wait_for(waiting, WAIT_S)

    asyncio.run(main())
    gone.delete()
    with pytest.raises(UnknownTask):
        list(engine.as_completed(tasks, WAIT_S))


def _agent_pid(engine: Engine, role: str) -> int:
    return int(json.loads((engine.side / "local" / f"{role}.lock").read_text())["pid"])


def test_a_log_that_was_coming_home_when_the_agent_died_is_whole(engine: Engine, tmp_path: Path) -> None:
    script = "for n in $(seq 40); do seq 1000; sleep 0.02; done; touch end"
    task = engine.submit(script, shell=True)
    pieces = task.pieces()
    got = next(pieces)[1]
    os.kill(_agent_pid(engine, "agent"), signal.SIGKILL)
    got += b"".join(piece for _, piece in pieces)
    whole = b"".join(b"%d\n" % n for n in range(1, 1001)) * 40
    assert task.result(WAIT_S).stdout_bytes == whole
    assert got == whole


def test_what_ended_before_a_reboot_of_the_worker_is_not_run_again(open_engine: Opener, tmp_path: Path) -> None:
    first = open_engine()
    task = first.submit("until [ -e go ]; do sleep 0.02; done; echo ran >> ran", shell=True)
    until(lambda: task.state is TaskState.RUNNING, "the task")
    number, root = task.id, first.side / "local"
    pids = [_agent_pid(first, role) for role in ("agent", "keeper")]
    first.close()
    (tmp_path / "go").touch()
    until(lambda: any(b'"k":"exit"' in log.read_bytes() for log in (root / "journal").iterdir()), "its end")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for log in (root / "journal").iterdir():
        header, rest = log.read_bytes().split(b"\n", 1)
        facts = json.loads(header)
        fresh = json.dumps({**facts, "boot": "0" * len(facts["boot"])}).encode()
        assert len(fresh) == len(header)
        log.write_bytes(fresh + b"\n" + rest)
    again = open_engine().task(number)
    again.result(WAIT_S)
    assert [attempt.outcome for attempt in again.executions] == [Outcome.SUCCEEDED]
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_an_older_copy_put_back_in_place_goes_on_without_mixing_results(open_engine: Opener, tmp_path: Path) -> None:
    """Its numbers and its driver's are behind what the agent has seen."""
    first = open_engine()
    first.submit("echo one").result(WAIT_S)
    first.backup(tmp_path / "copy")
    for _ in range(3):
        first.submit("echo lost; head -c 20000 /dev/zero", shell=True).result(WAIT_S)
    first.close()
    second = open_engine()
    second.submit("echo lost too").result(WAIT_S)
    second.close()
    for path in tmp_path.glob("lab.scitq*"):
        if path.is_file():
            path.unlink()
    (tmp_path / "copy").rename(tmp_path / "lab.scitq")
    third = open_engine()
    results = [third.submit(f"echo new {n}; head -c 30000 /dev/zero", shell=True).result(WAIT_S) for n in range(5)]
    assert [result.stdout[:6] for result in results] == [f"new {n}\n" for n in range(5)]
    sound(third)


def test_a_task_that_moves_while_tasks_are_listed_is_listed(
    open_engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scitq.store import listing

    engine = open_engine(drive=False)
    task = engine.submit("true", batch="b")
    ranks = listing._ranks

    def moved(*args: Any) -> Any:
        task.pause()
        return ranks(*args)

    monkeypatch.setattr(listing, "_ranks", moved)
    assert engine.tasks(batch="b") == [task]
    assert task.state is TaskState.PAUSED
