"""What else touches the file: a fork in the user's script, another program's SQLite, several processes at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import FINAL, TaskState
from scitq.store.locks import holder_of
from tests.crash import clients
from tests.crash.conftest import SCENARIO, reset, rounds

WAIT_S = 120
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(state_file: Path) -> Iterator[Begin]:
    """Starts a Python process that runs a module, or `-c CODE`; what is left of it is ended with the test, and the worker."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(SCENARIO.parents[2])},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.communicate()
    root = state_file.with_name(state_file.name + ".d") / "local"
    if root.is_dir():
        local.stop(root)


def end(child: subprocess.Popen[str]) -> str:
    """What it wrote; it must have ended well."""
    out, err = child.communicate(timeout=WAIT_S)
    assert child.returncode == 0, err
    return out


# --- forks --------------------------------------------------------------------------------------------------------------

FORKING = """
import json, multiprocessing, os, random, sys, threading, time
from scitq.engine import Engine
from scitq.errors import ForkedProcess

dice, forks = random.Random(sys.argv[2]), int(sys.argv[3])
engine = Engine(sys.argv[1], linger_s=20)
tasks = [engine.submit("echo first")]
tasks[0].result(60)
assert engine.is_driving
stop = threading.Event()

def keep_submitting():
    while not stop.is_set():
        tasks.append(engine.submit("echo $SCITQ_TASK >> ran; echo more", shell=True))
        time.sleep(0.01)

def child():
    refused = 0
    for use in (lambda: engine.submit("true"), engine.counts, tasks[0].cancel, engine.rows, tasks[0].row, engine.drive):
        try:
            use()
        except ForkedProcess as error:
            refused += "before this process was forked" in str(error)
    sys.exit(refused)

thread = threading.Thread(target=keep_submitting)
thread.start()
said = []
for n in range(forks):
    time.sleep(dice.uniform(0.0, 0.03))
    if n % 2:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        said.append(process.exitcode)
    elif pid := os.fork():
        said.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    else:
        stop.set()
        child()
stop.set()
thread.join()
out, into = os.pipe()
if (left := os.fork()) == 0:  # one outlives its parent: nothing of the file may depend on that
    for fd in (0, 1, 2):
        os.close(fd)
    os.close(into)
    os.read(out, 1)
    os._exit(0)
os.close(out)
engine.wait_all(60)
engine.close()
print(json.dumps({"said": said, "left": left, "tasks": [task.id for task in tasks]}), flush=True)
sys.stdin.readline()
"""


def test_a_forked_child_may_not_use_the_engine_is_told_so_and_keeps_nothing(
    begin: Begin, state_file: Path, dice: random.Random
) -> None:
    for number in range(rounds(1, 0.3)):
        child = begin("-c", FORKING, state_file, dice.random(), 6)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.communicate()[1]
        told = json.loads(line)
        # The child that is left holds neither the lease nor the write lock, though its parent never let it close them.
        assert Path(f"/proc/{told['left']}").exists()
        assert holder_of(Path(f"{state_file}.d/driver.lock")) is None
        with Engine(state_file, linger_s=20) as engine:
            assert engine.submit("true").wait(WAIT_S) is TaskState.SUCCEEDED
            assert engine.is_driving
            assert engine.check() == []
            assert {int(row.id) for row in engine.rows()} >= set(told["tasks"])
            assert set(engine.counts()) == {TaskState.SUCCEEDED}
            assert all(len(engine.task(id).executions) == 1 for id in told["tasks"])
            ran = Counter(map(int, Path("ran").read_text().split()))
            assert ran == dict.fromkeys(told["tasks"][1:], 1)
        end(child)
        assert told["said"] == [6] * 6, f"round {number}"
        reset(state_file)


# --- another program's SQLite ---------------------------------------------------------------------------------------------

STRANGER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
db.execute("create table if not exists comment(task integer, text text)")
db.commit()
print("ready", flush=True)
rows = written = 0
for line in sys.stdin:
    word = line.strip()
    if word == "read":
        rows += len(db.execute("select * from task join execution on execution.task = task.id").fetchall())
        rows += db.execute("select count(*) from tasks").fetchone()[0]
    elif word == "write":
        written += 1
        with db:
            db.execute("insert into comment values (?, 'seen')", (written,))
    else:
        db.execute("pragma wal_checkpoint(" + word + ")").fetchall()
        db.close()
        db = sqlite3.connect(sys.argv[1], timeout=60)
    print(written, flush=True)
db.close()
"""


def test_another_process_with_sqlite3_reads_writes_and_checkpoints_without_harm(
    begin: Begin, state_file: Path, dice: random.Random
) -> None:
    for number in range(rounds(1, 0.3)):
        with Engine(state_file, linger_s=20) as engine:
            tasks = list(engine.submit_many([f"echo {n}" for n in range(50)]))
            stranger = begin("-c", STRANGER, state_file)
            assert stranger.stdin is not None and stranger.stdout is not None
            assert stranger.stdout.readline() == "ready\n"
            written = 0
            for step in range(40):
                word = dice.choice(["read", "write", "write"])
                if step in (20, 39):  # with work going on, but not in the very moment of a commit of ours (see below)
                    word = dice.choice(["passive", "full", "restart", "truncate"])
                    engine.wait_all(WAIT_S)
                tasks += engine.submit_many([f"echo {n}" for n in range(3)])
                if word not in ("read", "write"):
                    engine.wait_all(WAIT_S)  # SQLite before 3.51.3 can lose pages when both happen at once
                stranger.stdin.write(word + "\n")
                stranger.stdin.flush()
                written += word == "write"
                assert stranger.stdout.readline() == f"{written}\n", stranger.communicate()[1]
            end(stranger)
            engine.wait_all(WAIT_S)
            assert engine.check() == [], f"round {number}"
            assert set(engine.counts()) == {TaskState.SUCCEEDED}
            assert engine.counts()[TaskState.SUCCEEDED] == len(tasks) == 170
            assert [dict(row) for row in engine.sql("select count(*) as n from comment")] == [{"n": written}]
        reset(state_file)


# --- four at once ---------------------------------------------------------------------------------------------------------


def test_four_processes_submit_edit_and_cancel_at_once(begin: Begin, state_file: Path, dice: random.Random) -> None:
    operations = 40
    done: Counter[str] = Counter()
    for number in range(rounds(1, 0.3)):
        with Engine(state_file, linger_s=20) as engine:
            engine.submit("true").result(WAIT_S)
            children = [begin("-m", "tests.crash.clients", state_file, n, dice.random(), operations) for n in range(4)]
            told: list[dict[str, Any]] = [json.loads(end(child)) for child in children]
            clients.settle(engine, WAIT_S)
            assert clients.problems(engine, told) == [], f"round {number}"
            assert all(state in FINAL or state is TaskState.BLOCKED for state in engine.counts())
        for one in told:
            done.update(one["done"])
        reset(state_file)
    print(f"{done.total()} operations: {dict(done.most_common())}")
