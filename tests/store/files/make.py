"""Makes the state file of the present schema that later code must still open: `python tests/store/files/make.py [FOLDER]`.

A real engine with a real agent fills it: a task of each state, batches, workers, executions of each kind of end, logs inside and
beside the file. Beside it, a `.json` says what is in it. Run it whenever the schema changes before its release; from a release
on its file stays as it is, for ever, and its SHA-256 stands in RELEASED.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import Halt, JobState, TaskState, WorkerState
from scitq.store import batches, executions, jobs, listing, manifests, query, tasks, workers, workflows
from scitq.store.executions import Exit
from scitq.store.schema import SCHEMA
from scitq.task import Assignment, TaskId
from scitq.worker import WorkerId

HERE = Path(__file__).parent
RELEASED: dict[int, str] = {
    1: "58242a299dc60f53aa580227dab93a3dec054809ddc182bed5d3baa2ddbc8e2e",
    2: "ef0a69c8ace4e28d4888dad29c1cd5b99249cf48c8bc88d5f9146a295da00284",
    3: "a25cc79befcfe34cf8047694712c4eca4d7fc4be8aaff09be213741c5903f6b1",
    4: "bbe68615b84f35a843d03a10a4445a39bda88ab97a23cbbc341e34fd0a9c615e",
    5: "ef8dbb2382acbcf6e7965f129dbbdcf18c7fd659cc341b69298951ee5b233034",
}
"""Schema versions that were released, with the SHA-256 of their files: these are never made anew."""

# Nothing of the machine that makes it may be in the file.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
FACTS = {
    "cpus": 2,
    "memory": 4_000_000_000,
    "gpus": [],
    "gpu_models": [],
    "python": "3.11.2",
    "host": "laptop",
    "version": "",
}
STATS = {
    "at": 1_700_000_000_000,
    "load": 0.5,
    "cpu": 0.25,
    "memory": 8 << 30,
    "memory_free": 2 << 30,
    "disk": 10**12,
    "disk_free": 10**11,
    "running": 1,
    "queued": 0,
}


def main(folder: Path) -> Path:
    """Make the file, its side folder with logs, and what is said of it; returns the file."""
    target = folder / f"schema-{SCHEMA.version}.scitq"
    if SCHEMA.version in RELEASED:
        raise SystemExit(f"schema {SCHEMA.version} is released: its file stays. Give the changed schema a new version.")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "lab.scitq").resolve()
        for name in set(os.environ) - set(ENVIRONMENT):
            del os.environ[name]
        os.environ |= ENVIRONMENT | {"XDG_CACHE_HOME": str(Path(scratch, "cache"))}
        os.chdir("/")
        with Engine(path) as engine:
            side = engine.side
            try:
                live_through(engine)
            finally:
                engine.close()
                local.stop(side / "local")
        with Engine(path, drive=False) as engine:
            engine._write(leave_in_each_state)
            engine._write(add_fleet)
            engine._write(add_workflow)
            engine._write(add_notices)
            assert engine.check() == [], engine.check()
            target.with_suffix(".json").write_text(json.dumps(told(engine), indent=1) + "\n")
        make_anonymous(path)
        shutil.copyfile(path, target)
        shutil.rmtree(logs_of(target), ignore_errors=True)
        logs_of(target).mkdir(parents=True)
        for log in (side / "logs").iterdir():
            shutil.copyfile(log, logs_of(target) / log.name)
    return target


def live_through(engine: Engine) -> None:
    """What a real engine does: ends of each kind."""
    engine.set_batch("align", retry=1, priority=2, env={"A": "b"})
    engine.submit("echo fine", name="fine", tags={"sample": "s07"}).wait(60)
    engine.update_worker("local", concurrency=2, prefetch=1, output_cap="1G")
    engine.submit("seq 1 6000", name="talkative", batch="align").wait(60)  # more than is kept inside the file
    failed = engine.submit("echo oh >&2; exit 3", shell=True, name="failing", batch="align", retry_delay=0.01)
    engine.submit("echo never", name="blocked", requires=failed)
    engine.submit("kill -9 $$", shell=True, name="killed").wait(60)
    engine.submit("sleep 60", name="slow", run_timeout=0.1).wait(60)
    failed.wait(60)
    again = engine.submit("echo again", name="again")
    again.wait(60)
    again.update(command=["echo", "again and again"])
    again.relaunch().wait(60)
    sleeper = engine.submit("sleep 60", name="cancelled")
    until(lambda: sleeper.state is TaskState.RUNNING)
    sleeper.cancel()
    sleeper.wait(60)
    leaver = engine.submit('echo left > "$OUTPUT/a file"', shell=True, name="leaving")
    leaver.wait(60)
    number = leaver.executions[-1].id
    files = [("a file", 5, "9f1b5e1e4cbd7d1c5b2f3f4d2a3b4c5d"), ("sub/caf\udce9", 0, None)]
    engine._write(lambda db: manifests.put(db, number, "s3://lab/left", files))
    engine._write(lambda db: manifests.note(db, 1_700_000_000_000, number, "a resource was changed by the task"))


def leave_in_each_state(db: apsw.Connection) -> None:
    """The other states, as if the driver had died in the middle of them."""
    now = time.time_ns() // 1_000_000
    context = tasks.context_id(db, {"cwd": "/", "env": ENVIRONMENT})

    def add(name: str, *requires: int, batch: str = "default", **spec: Any) -> TaskId:
        wanted = listing.spec_of(json.dumps({"command": ["echo", name], **spec}))
        need = tasks.need_id(db, wanted.need)
        row = (name, tasks.batch_id(db, batch), 0, listing.spec_text(wanted), need)
        return TaskId(tasks.add_many(db, now, [row], context, [requires])[0])

    names = ("assigned", "staging", "running", "collecting", "given back")
    orders = executions.begin(db, now, [Assignment(add(name), WorkerId(1)) for name in names])
    _, staging, running, collecting, back = orders
    db.execute("update task set state = ? where id = ?", (int(TaskState.STAGING), staging.task))
    executions.started(db, running.execution, now)
    tasks.pause(db, now, running.task)
    end = Exit(
        collecting.execution, 0, None, None, None, b"collecting\n", b"", 11, 0, False, False, True, 0.1, 0.1, 1 << 20
    )
    executions.exited(db, now, end)
    tasks.update(db, now, back.task, {"command": ["echo", "edited"]})
    pending = add("pending", cpus=1, memory=1 << 20)
    add("data", pending, input=["/etc/hostname", f"task://{pending}/sub|gunzip"], resource=["s3://lab/ref.tgz|untar"],
        output="s3://lab/data", overwrite=True, keep_failed=False, skip_if_exists=True, stage_in_timeout=60.0)  # fmt: skip
    add("waiting", pending)
    tasks.pause(db, now, add("paused", pending))
    add("halted", batch="held")
    batches.halt(db, now, "held", Halt.SUSPENDED)
    row = "insert into task(state, batch, created, changed, context, name, spec) values (?, 1, ?, ?, ?, 'debug', ?)"
    db.execute(row, (int(TaskState.DEBUG), now, now, context, '{"command":["echo","debug"]}'))


def add_fleet(db: apsw.Connection) -> None:
    """Workers elsewhere, and jobs of each state."""
    now = time.time_ns() // 1_000_000
    atlas = workers.add(db, now, "atlas", "ssh", "me@atlas", concurrency=16, prefetch=4, settings={"lost_after": 7200})
    workers.linked(db, atlas, {"how": "socket", "root": "/home/me/.scitq/0123/atlas"})
    workers.silent(db, atlas, 1_500)
    workers.move(db, now, atlas, WorkerState.FAILED)  # so that nobody who drives this file looks for it
    for kind, *states in (
        ("install", JobState.RUNNING, JobState.SUCCEEDED),
        ("restart", JobState.RUNNING, JobState.FAILED),
        ("clean", JobState.CANCELLED),
    ):
        job = jobs.add(db, now, kind, atlas, {"asked": True})
        for state in states:
            jobs.move(db, now, job, state, note=f"it is {state.word}")
        jobs.say(db, job, "connect", 0.5, "connect 0.1 s")


def add_workflow(db: apsw.Connection) -> None:
    """A workflow whose two steps are batches of tasks that there are."""
    now = 1_700_000_000_000
    workflow = workflows.put(db, now, "qc", {"retry": 2}, "/home/me/qc.py")
    for position, (step, name) in enumerate((("align", "failing"), ("stats", "blocked"))):
        batch = workflows.put_step(db, workflow, "qc", step, position)
        task = query.one(db, "select id from task where name = ?", (name,))[0]
        tasks.update(db, now, task, {}, batch=f"qc.{step}")
        workflows.put_members(db, workflow, [(task, batch, name, "0" * 64, position, '["1:2",null]', None, position)])
    db.execute(
        "insert into recruiter(batch, rank, tasks_per_worker, flavor, concurrency, maximum_workers) "
        "select id, 1, 4, 'auto:cpu>=8', 4, 2 from batch where step = 'align'"
    )


def add_notices(db: apsw.Connection) -> None:
    """What was seen and put aside; a trend; a batch and a workflow at which work has begun, and one whose end was told."""
    now = 1_700_000_000_000
    posted = {"kind": "hook", "text": "the command at the end of batches failed", "about": {"batch": "align"}}
    rows = (("blocked", now, "1", now, None, None), ("halted:held", now, "suspended", now, now, None),
            ("hook", now, "", None, None, json.dumps(posted)))  # fmt: skip
    db.executemany("insert into notice(key, at, mark, seen, dismissed, data) values (?, ?, ?, ?, ?, ?)", rows)
    for n in range(3):
        workers.measure(db, WorkerId(1), {**STATS, "at": now + 40_000 * n, "load": float(n)})
    db.execute("update batch set began = ? where name = 'default'", (now,))
    db.execute("update batch set told = ? where name = 'align'", (now,))
    db.execute("update workflow set began = ?", (now,))


def told(engine: Engine) -> dict[str, Any]:
    """What the file holds."""
    return {
        "states": {state.word: n for state, n in sorted(engine.counts().items())},
        "batches": {name: sum(counts.values()) for name, counts in engine.batches().items()},
        "executions": dict(
            sorted((row["outcome"] or "live", row["n"]) for row in engine.sql(
                "select outcome, count(*) as n from executions group by outcome"
            ))
        ),
        "stdout": {
            task.row().name: hashlib.sha256(task.output_bytes()).hexdigest() for task in engine.tasks(status="succeeded")
        },
        "left": [
            [row["name"], row["delivered"], row["files"], row["delivered_bytes"]]
            for row in engine.sql("select * from executions where delivered is not null")
        ],
        "data": [
            [row["name"], row["input"], row["resource"], row["output"]]
            for row in engine.sql("select * from tasks where input is not null or output is not null")
        ],
        "workers": [
            [row["name"], row["kind"], row["state"], row["concurrency"], row["address"], row["link"], row["silent"]]
            for row in engine.sql("select * from workers where kind <> 'local'")
        ],
        "jobs": [
            [row["kind"], row["worker"], row["state"], row["step"], row["progress"], row["note"]]
            for row in engine.sql("select * from jobs")
        ],
        "workflows": [
            [row["name"], row["script"], row["steps"], row["tasks"], row["failed"]]
            for row in engine.sql("select * from workflows")
        ],
        "members": [[*row.values()] for row in engine.sql(
            "select name, digest, position, seen, grown from member order by position")],
        "recruiters": [[*row.values()] for row in engine.sql(
            "select rank, tasks_per_worker, flavor, concurrency, maximum_workers from recruiter")],
        "notices": [[*row.values()] for row in engine.sql("select * from notice order by key")],
        "samples": [[*row.values()] for row in engine.sql("select * from samples order by at")],
        "ends": [[*row.values()] for row in engine.sql("select name, began, told from batch where began or told order by name")],
    }  # fmt: skip


def make_anonymous(path: Path) -> None:
    """Take the machine's names out of a file that nobody has open."""
    db = sqlite3.connect(path)
    db.execute("update lead set pid = 1, host = 'laptop', machine = 'machine', boot = 'boot', program = 'python'")
    db.execute("update worker set facts = ?, stats = ?, note = null", (json.dumps(FACTS), json.dumps(STATS)))
    db.execute("update meta set v = 'a key that no agent knows' where k = 'key'")
    db.commit()
    db.execute("pragma wal_checkpoint(truncate)")
    db.execute("vacuum")
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()


def logs_of(path: Path) -> Path:
    """Where a file's logs are."""
    return path.with_name(path.name + ".d") / "logs"


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event announces."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE))
