"""A disk that fills up under an engine at work: run in a mount namespace of its own, on two small disks in memory.

    unshare -rm python full.py FOLDER file|agent SEED

Fills the disk of the state file (its agent has another one), or that of the agent's folder, at a random moment, with tasks
running and others behind them; makes room again; says as JSON what was found. FOLDER is on a real disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from scitq import driver
from scitq.engine import Engine
from scitq.errors import StateFileFull
from scitq.remote import local
from scitq.states import LIVE, Outcome, TaskState

WAIT_S = 90
TASKS = 40


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    ballast = disk / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 16, 512, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(size))
    os.close(fd)
    return ballast


def submit(engine: Engine, what: str, folder: Path) -> list[int]:
    """Two tasks that run until the disk is full, and others; those with much to say only where that fits."""
    ids = []
    for n in range(TASKS):
        script = f"echo $SCITQ_TASK >> {folder}/ran; "
        if n < 2:
            script += f"while ! [ -e {folder}/go ]; do sleep 0.02; done; "
        if what == "file" and n % 5 == 2:
            script += "head -c 100000 /dev/zero | tr '\\0' x; "
        elif what == "file":
            script += f"echo {n}; "
        ids.append(int(engine.submit(script + "exit 0", shell=True).id))
    return ids


def until_written(engine: Engine, text: Path) -> None:
    """Until both of the first tasks run."""
    deadline = time.monotonic() + WAIT_S
    while not text.exists() or len(text.read_text().split()) < 2:
        assert time.monotonic() < deadline, [engine.task(id).why() for id in (1, 2)]
        time.sleep(0.01)


def until_stuck(engine: Engine) -> None:
    """Until nothing has happened for a second, though there is something to do."""
    seen, since = engine.counts(), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        assert not all(state.is_settled for state in seen), "the full disk was no obstacle"
        if (now := engine.counts()) != seen:
            seen, since = now, time.monotonic()


def main(folder: Path, what: str, dice: random.Random) -> dict[str, object]:
    """One round."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("scitq").addHandler(handler)
    driver.OBSTACLE_S = 0.5
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", disk], check=True)
    acked: list[int] = []
    refused = ""
    with Engine(disk / "lab.scitq", linger_s=1e6) as engine:
        agent = engine.side / "local"
        agent.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", agent], check=True)
        acked += submit(engine, what, folder)
        until_written(engine, folder / "ran")
        ballast = fill(disk if what == "file" else agent)
        (folder / "go").touch()
        with contextlib.suppress(StateFileFull):
            for _ in range(200):
                acked.append(int(engine.submit("true").id))
        if what == "file":
            deadline = time.monotonic() + WAIT_S
            while not any("goes on by itself" in one for one in said):
                assert time.monotonic() < deadline, "the driver never met the full disk"
                time.sleep(0.01)
            try:
                engine.submit_many([f"echo {'x' * 1000}"] * 1000)
            except StateFileFull as problem:
                refused = str(problem)
        else:
            until_stuck(engine)
        time.sleep(dice.uniform(0.0, 1.0))
        whys = [engine.task(row.id).why() for row in engine.rows(status=LIVE, limit=3)]
        live = sum(engine.counts().get(state, 0) for state in LIVE)  # reading works
        is_driving = engine.is_driving
        ballast.unlink()
        engine.wait_all(WAIT_S)
        found = problems(engine, acked, folder)
        result = {
            "refused": refused, "whys": whys, "live": live, "is_driving": is_driving, "said": said, "problems": found,
            "rows": sum(engine.counts().values()), "acked": len(acked),
        }  # fmt: skip
    local.stop(agent)
    return result


def problems(engine: Engine, acked: list[int], folder: Path) -> list[str]:
    """What is not as it would be on a large disk."""
    found = list(engine.check())
    ran = Counter(map(int, (folder / "ran").read_text().split()))
    for n, id in enumerate(acked):
        task = engine.task(id)
        outcomes = Counter(attempt.outcome for attempt in task.executions)
        # What the worker could not write down it did not start: it gave it back.
        given_back = sum(one.outcome is Outcome.LOST and one.stage is None for one in task.executions)
        if task.state is not TaskState.SUCCEEDED or outcomes - Counter({Outcome.LOST: given_back}) != {
            Outcome.SUCCEEDED: 1
        }:
            found.append(f"task {id} is {task.state.word} after {outcomes}: {task.why()}")
        if n < TASKS and ran[id] != 1:
            found.append(f"task {id} ran {ran[id]} times")
    if what_was_written := [
        id for id in acked[2:TASKS:5] if engine.task(id).output_bytes(0) not in (b"", b"x" * 100_000)
    ]:
        found.append(f"the stored output of {what_was_written} is not what was written")
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], random.Random(sys.argv[3]))))
    except OSError as problem:
        raise SystemExit(f"{errno.errorcode.get(problem.errno or 0)}: {problem}") from problem
