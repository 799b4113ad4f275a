"""What tasks may use and did use: limits as the user sees them, bytes read and written, how busy a worker is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from scitq.engine import Engine
from scitq.states import Outcome
from scitq.store import summary
from scitq.worker import WorkerRow
from tests.engine.conftest import sound
from tests.engine.test_engine import WAIT_S, until

HOG = [sys.executable, "-I", "-S", "-c", "x = bytearray(300_000_000)"]
WRITE = ["dd", "if=/dev/zero", "of=large", "bs=1048576", "count=4"]


def local(engine: Engine) -> WorkerRow:
    [row] = engine.workers()
    return row


def test_a_task_that_exceeds_its_memory_is_out_of_memory_where_limits_are_kept(engine: Engine) -> None:
    task = engine.submit(HOG, memory="100M", retry=1, retry_delay=0.01)
    task.wait(WAIT_S)
    row = local(engine)
    if "memory" in row.limits:
        print("limited by control groups")
        assert task.status == "failed" and [each.outcome for each in task.executions] == [Outcome.OUT_OF_MEMORY] * 2
        assert "out of memory after 2 tries: it was killed at its limit of 0.1 GB of memory" in task.why()
    else:
        print(f"not limited here: {row.limits_reason}")
        assert task.status == "succeeded" and row.limits_reason
    sound(engine)


def test_limits_can_be_switched_off(engine: Engine) -> None:
    engine.submit("true").result(WAIT_S)
    able = local(engine).limits
    row = engine.update_worker("local", limits=False)
    assert (row.limits, row.limits_reason) == ((), "switched off")
    assert engine.submit(HOG, memory="100M").result(WAIT_S).exit_code == 0
    assert engine.update_worker("local", limits=True).limits == able


def test_bytes_read_and_written_are_those_that_the_system_counts(engine: Engine, tmp_path: Path) -> None:
    child = subprocess.Popen(WRITE, cwd=tmp_path, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    (tmp_path / "large").unlink()
    print(f"a program that writes 4 MiB here is said to write {usage.ru_oublock * 512:,} bytes")

    task = engine.submit(WRITE)
    assert task.result(WAIT_S).exit_code == 0
    [one] = task.executions
    assert one.read_bytes is not None and one.written_bytes is not None
    # What it writes to stderr is on a disk too.
    assert usage.ru_oublock * 512 <= one.written_bytes < usage.ru_oublock * 512 + (1 << 20)
    assert engine.sql("select read_bytes, written_bytes from executions") == [
        {"read_bytes": one.read_bytes, "written_bytes": one.written_bytes}
    ]
    never = engine.submit("/nowhere/program")
    never.wait(WAIT_S)
    assert (never.executions[0].read_bytes, never.executions[0].written_bytes) == (None, None)


def test_a_worker_with_work_says_how_busy_it_is(engine: Engine, tmp_path: Path) -> None:
    before_ms = time.time_ns() // 1_000_000
    task = engine.submit("until [ -e gate ]; do sleep 0.02; done", shell=True)
    until(lambda: any(row.stats for row in engine.workers()), "the worker's word on its machine")
    stats = local(engine).stats
    assert before_ms <= stats["at"] <= time.time_ns() // 1_000_000
    assert 0 < stats["memory_free"] < stats["memory"] and 0 < stats["disk_free"] < stats["disk"]
    assert stats["load"] >= 0 and {"running", "queued"} <= stats.keys()
    (tmp_path / "gate").touch()
    assert task.result(WAIT_S).exit_code == 0


def test_what_a_worker_has_done_is_counted_on_request(engine: Engine) -> None:
    for task in engine.map("sh -c 'exit {}'", [0, 0, 3]):
        task.wait(WAIT_S)
    work = summary.work_of(engine._reader(), int(local(engine).id))
    assert (work.outcomes, work.ended) == ({Outcome.SUCCEEDED: 2, Outcome.FAILED: 1}, 3)
    assert work.mean_run_s is not None and work.run_s > 0 and abs(work.mean_run_s - work.run_s / 3) < 1e-9
    assert summary.work_of(engine._reader(), 99) == summary.Work({}, 0.0, None, 0.0, 0, 0)
