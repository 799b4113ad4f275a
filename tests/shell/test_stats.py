"""`scitq task stats`: what succeeded used, and what it proposes to ask for."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import scitq
from scitq.shell.stats import options, propose, rounded_up
from scitq.states import Outcome, TaskState
from scitq.store import summary
from scitq.store.summary import Usage
from scitq.task import Need
from tests.shell.conftest import Lab


def used(runs: int = 3, cpu_use_p95: float | None = 1.0, memory_max: int | None = 1, gpus: int | None = None) -> Usage:
    return Usage("b", runs, 1.0, 1.0, 1.0, 1.0, 1.0, cpu_use_p95, memory_max, memory_max, Need(gpus=gpus))


def test_proposal_is_busy_cpus_and_the_peak_with_a_margin() -> None:
    assert propose(used(cpu_use_p95=3.2, memory_max=20_000_000_000)) == Need(4, 24_000_000_000, None)
    assert propose(used(cpu_use_p95=0.01, memory_max=1)) == Need(1, 100_000_000, None)
    assert propose(used(cpu_use_p95=1.04, gpus=2)) == Need(1, 100_000_000, 2)
    assert propose(used(cpu_use_p95=None)) == Need(None, 100_000_000, None)
    assert propose(used(cpu_use_p95=2.5, memory_max=None)) == Need(3, None, None)
    assert propose(used(cpu_use_p95=None, memory_max=None)) is None
    assert propose(used(runs=2)) is None


def test_what_was_too_little_for_a_task_is_doubled() -> None:
    short: dict[str, Any] = {"out_of_memory": 1, "memory_short": 4_000_000_000}
    assert propose(dataclasses.replace(used(memory_max=3_900_000_000), **short)) == Need(1, 8_000_000_000, None)
    assert propose(dataclasses.replace(used(memory_max=20_000_000_000), **short)) == Need(1, 24_000_000_000, None)
    assert propose(dataclasses.replace(used(runs=0), **short)) == Need(None, 8_000_000_000, None)
    assert options(Need(2.0, 2_400_000_000, 1)) == "--cpus 2 --memory 2.4G --gpus 1"


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, 1e8), (1e8, 1e8), (1.2e9, 1.2e9), (1.21e9, 1.3e9), (9.96e9, 10e9), (10.1e9, 11e9)]
)
def test_memory_is_rounded_up_to_what_one_would_write(count: float, wanted: float) -> None:
    assert rounded_up(count) == wanted


@pytest.fixture
def history(lab: Lab) -> Lab:
    """Batch 'a b': twenty successes of 1 to 20 s, CPU for half of that, 100 to 2000 MB, and a failure; c: one, not measured."""
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine.submit_many([["true"]] * 10, batch="a b", cpus=4, memory="8G")
        engine.submit_many([["true"]] * 11, batch="a b")
        engine.submit(["true"], batch="c")

        def run_all(db) -> None:  # type: ignore[no-untyped-def]
            for task in range(1, 23):
                good = Outcome.FAILED if task == 21 else Outcome.SUCCEEDED
                figures = (None, None, None) if task == 22 else (float(task), task / 2, task * 100_000_000)
                sql = """insert into execution(task, attempt, assigned, started, ended, outcome, run_s, cpu_s, peak_memory)
                    values (?, 1, 1, 1, 2, ?, ?, ?, ?)"""
                db.execute(sql, (task, int(good), *figures))

        engine._write(run_all)
    return lab


def test_usage_is_counted_by_batch(history: Lab) -> None:
    with scitq.open(history.folder / "lab.scitq", drive=False) as engine:
        first, second = summary.usage(engine._reader())
        assert summary.usage(engine._reader(), "c") == [second]

    assert (first.batch, first.runs, first.run_s_median, first.run_s_p95, first.run_s_max) == (
        "a b",
        20,
        10.0,
        19.0,
        20.0,
    )
    assert (first.cpu_s, first.cpu_use, first.cpu_use_p95) == (105.0, 0.5, 0.5)
    assert (first.memory_median, first.memory_max, first.asked) == (
        1_000_000_000,
        2_000_000_000,
        Need(4.0, 8_000_000_000),
    )
    assert second == Usage("c", 1, None, None, None, None, None, None, None, None, Need())


def test_stats_show_what_was_used_and_propose(history: Lab) -> None:
    ended = history.scitq("task", "stats")
    head, first, second = ended.stdout.decode().splitlines()

    assert head.split() == ["batch", "runs", "time", "p95", "max", "CPUs", "memory", "peak", "asked", "proposal"]
    assert re.fullmatch(r"a b +20 +10 s +19 s +20 s +0.5 +1.0 GB +2.0 GB +4 CPUs, 8 GB +1 CPU, 2.4 GB", first)
    assert second.split() == ["c", "1"]
    assert (
        ended.stderr == b"From 20 successes. To ask for it from now on: scitq batch set 'a b' --cpus 1 --memory 2.4G\n"
    )
    history.scitq("batch", "set", "a b", "--cpus", "1", "--memory", "2.4G")
    assert history.json("batch", "list")[0]["defaults"] == {"cpus": 1.0, "memory": 2_400_000_000}


def test_stats_as_data(history: Lab) -> None:
    found = history.json("task", "stats", "-b", "a b")

    assert [row["batch"] for row in found] == ["a b"]
    assert found[0]["options"] == "--cpus 1 --memory 2.4G"
    assert found[0]["proposal"] == {"cpus": 1, "memory": 2_400_000_000, "gpus": None}
    assert (found[0]["asked"]["cpus"], found[0]["run_s_p95"], found[0]["memory_max"]) == (4.0, 19.0, 2_000_000_000)
    assert history.json("task", "stats", "-b", "c")[0]["proposal"] is None
    assert b"A proposal comes after 3 successes" in history.scitq("task", "stats", "-b", "c").stderr
    assert b"no batch is named 'd'" in history.scitq("task", "stats", "-b", "d", code=1).stderr


def test_a_batch_that_was_out_of_memory_is_told_to_ask_for_more(history: Lab) -> None:
    with scitq.open(history.folder / "lab.scitq", drive=False) as engine:
        sql = "insert into execution(task, attempt, assigned, started, ended, outcome, memory) values (1, 2, 1, 1, 2, ?, 8000000000)"
        engine._write(lambda db: db.execute(sql, (int(Outcome.OUT_OF_MEMORY),)))

    found = history.json("task", "stats", "-b", "a b")[0]
    assert (found["runs"], found["out_of_memory"], found["options"]) == (20, 1, "--cpus 1 --memory 16G")
    ended = history.scitq("task", "stats", "-b", "a b")
    assert b"too little" in ended.stdout.splitlines()[0]
    assert b"From 20 successes, 1 that had too little memory. To ask" in ended.stderr


def test_stats_without_history(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")

    ended = lab.scitq("task", "stats")

    assert ended.stdout == b"" and b"Nothing has succeeded yet" in ended.stderr


def test_requests_nobody_can_meet_are_counted_while_they_are_queued(tmp_path: Path) -> None:
    with scitq.open(tmp_path / "lab.scitq", drive=False) as engine:
        engine.submit(["true"])
        engine.submit_many([["true"]] * 3, batch="large", cpus=1000)
        engine._write(lambda db: db.execute("update need set note = 'no worker has it'"))

        [found] = summary.in_vain(engine._reader())
        assert (found.need, found.note, found.tasks, found.first) == (Need(1000.0), "no worker has it", 3, 2)
        assert summary.states_of(engine._reader(), [1, 2, 99]) == {TaskState.PENDING: 2}
        engine.where("batch = 'large'").cancel()
        assert summary.in_vain(engine._reader()) == []
