"""Folders that the examples of --help are about: `small`, all of whose workers are here, and `full`, which has more of everything.

Tasks: 1 count, 2 to 4 align s01 to s03 (3 and 4 failed), 5 merge (blocked), 6 old (cancelled), 7 index (paused), 8 and 9 trim (pending,
waiting); in `full` the other states, in the batch call. Workflows: qc, which is done, and assembly, which is queued.
"""

from __future__ import annotations

import gzip
import shutil
import time
from pathlib import Path
from typing import Any

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import JobState, TaskState, WorkerState
from scitq.store import executions, jobs, workers
from scitq.store.executions import Exit
from scitq.task import Assignment, TaskId
from scitq.worker import WorkerId
from tests.workflow.declared import declare

READ = "@read\nACGT\n+\nIIII\n"
SCRIPT = """import sys

from scitq.workflow import Workflow

with Workflow("letters") as wf:
    for name in sys.argv[1:] or ["s01"]:
        wf.step("count", f"wc -c reads/{name}.fastq", shell=True, name=name)
"""
ENDED_S = 60


def small(folder: Path) -> Path:
    """A file with work that ended well and badly, and work that is queued; data, a script, rclone's configuration, settings."""
    reads = folder / "reads"
    reads.mkdir(parents=True)
    for name in ("s01", "s02"):
        (reads / f"{name}.fastq").write_text(READ, encoding="utf-8")
    with gzip.open(reads / "s03.fastq.gz", "wt") as file:
        file.write(READ)
    (folder / "qc.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "fixed.sh").write_text("echo aligned s02\n", encoding="utf-8")
    settings(folder / "config.toml")
    (folder / "remotes.conf").write_text("[lab]\ntype = local\n", encoding="utf-8")
    with Engine(folder / "lab.scitq") as engine:
        _ended(engine, reads)
        engine.close()
        local.stop(engine.side / "local")
    with Engine(folder / "lab.scitq", drive=False) as engine:
        _queued(engine)
    return folder


def settings(path: Path) -> Path:
    """The user's settings: a provider, rehearsal, whose cloud is beside each state file."""
    path.write_text('[providers.rehearsal]\nkind = "fake"\n', encoding="utf-8")
    return path


def full(folder: Path, template: Path) -> Path:
    """The same, with workers elsewhere that nobody can reach, what they hold, and everything that a list can show."""
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("*.sock"))
    with Engine(folder / "lab.scitq", drive=False) as engine:
        for name in ("nuc", "atlas"):
            engine.worker_add(f"me@127.0.0.1:{1 if name == 'nuc' else 2}", name=name, concurrency=4)
        calls = [engine.submit(["true"], name=f"call s{n:02}", batch="call").id for n in range(1, 6)]
        engine._write(lambda db: _live(db, engine.worker("nuc").id, calls))
        engine.recruiter_create("align", 1, flavor="auto:cpu>=1", concurrency=2)
        stats = {"at": now_ms(), "load": 0.5, "cpu": 0.25, "memory": 8e9, "memory_free": 2e9, "disk": 1e12, "disk_free": 3e11,
                 "net_in": 1 << 20, "net_out": 1 << 10, "uptime": 60, "running": 0, "queued": 0}  # fmt: skip
        engine._write(lambda db: workers.measure(db, engine.worker("local").id, stats))
        engine._write(lambda db: _failed_job(db, engine.worker("nuc").id))
    return folder


def _failed_job(db: Any, worker: WorkerId) -> None:
    """Job 3, which may be tried again."""
    job = jobs.add(db, now_ms(), "clean", worker)
    jobs.move(db, now_ms(), job, JobState.RUNNING)
    jobs.move(db, now_ms(), job, JobState.FAILED, "the disk does not answer")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _ended(engine: Engine, reads: Path) -> None:
    count = "wc -l < $INPUT/s01.fastq > $OUTPUT/lines; echo counted; echo 1 file >&2"
    engine.submit(count, shell=True, name="count", input=reads / "s01.fastq", use_cache=True)
    engine.submit("echo aligned s01", shell=True, name="align s01", batch="align")
    bad = [
        engine.submit(f"echo aligning {name}; echo {name}: no such index >&2; exit 3", shell=True, name=f"align {name}", batch="align")
        for name in ("s02", "s03")
    ]  # fmt: skip
    engine.submit(["true"], name="merge", requires=bad)
    engine.submit(["true"], name="old", requires=bad).cancel()
    engine.submit(["true"], name="index").pause()
    trim = [
        engine.submit(f"head -n 1 $INPUT/{name}.fastq", shell=True, name=f"trim {name}", batch="trim", input=reads / f"{name}.fastq")
        for name in ("s01", "s02")
    ]  # fmt: skip
    trim[1].update(requires=[trim[0]])
    engine.pause_batch("trim")
    declared = declare(engine, "qc", {"fastp": ["true", "true"], "stats": ["true"]})
    engine.drive()
    for task in [*engine.tasks(name="count"), *engine.tasks(batch="align"), *declared["fastp"], *declared["stats"]]:
        task.wait(ENDED_S)


def _queued(engine: Engine) -> None:
    engine.go_batch("trim")
    declare(engine, "assembly", {"spades": ["true"]})
    engine.set_batch("align", retry=1)


def _live(db: Any, worker: WorkerId, ids: list[TaskId]) -> None:
    """A task of each state that those which a worker holds can be in, and one that is debugged."""
    now = now_ms()
    workers.move(db, now, worker, WorkerState.READY)
    _, staging, running, collecting = executions.begin(db, now, [Assignment(id, worker) for id in ids[:4]])
    db.execute("update task set state = ? where id = ?", (int(TaskState.STAGING), staging.task))
    executions.started(db, running.execution, now)
    executions.exited(
        db, now, Exit(collecting.execution, 0, None, None, None, b"", b"", 0, 0, False, False, True, 0.1, 0.1, 1 << 20)
    )
    db.execute("update task set state = ? where id = ?", (int(TaskState.DEBUG), ids[4]))
    workers.move(db, now, worker, WorkerState.UNREACHABLE, "it does not answer")
