"""Workflows that have run, of any size, written into a state file at once: for tests of what tells about them afterwards.

The rows are such as a driver leaves; the triggers, which would have them come about one move at a time, are set aside meanwhile.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scitq.engine import Engine
from scitq.events import EventKind
from scitq.states import Outcome, Stage, TaskState, WorkerState
from scitq.store import logs, workflows
from scitq.task import ExecutionId

START_MS = 1_790_000_000_000


@dataclass
class Made:
    """A step to be: how many tasks, after which steps, what each is like; every `failing`th fails, `again`th runs twice."""

    tasks: int
    after: Sequence[str] = ()
    command: str = "fastp -i $INPUT/{name}.fq.gz -o $OUTPUT/{name}.fq.gz --thread 4"
    run_s: float = 60.0
    failing: int = 0
    again: int = 0
    cached: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    sources: Sequence[str] = ()
    state: TaskState | None = None
    name: str = "s{n:05}"
    stderr: bytes = b"reading input\nerror: the file is truncated\n"


def history(
    engine: Engine,
    name: str,
    steps: Mapping[str, Made],
    *,
    workers: int = 2,
    slots: int = 4,
    seed: int = 7,
    gap_s: float = 0.0,
) -> dict[str, list[int]]:
    """Write it; returns the numbers of each step's tasks. `gap_s`: between steps nothing runs for so long."""
    found: dict[str, list[int]] = {}
    engine._write(lambda db: found.update(_written(db, name, steps, workers, slots, random.Random(seed), gap_s)))
    return found


def _written(
    db: Any, name: str, steps: Mapping[str, Made], workers: int, slots: int, chance: random.Random, gap_s: float
) -> dict[str, list[int]]:
    triggers = db.execute("select name, sql from sqlite_master where type = 'trigger'").fetchall()
    workflow = workflows.put(db, START_MS, name, {}, f"/home/ada/{name}.py")
    workflows.begun(db, START_MS, workflow)
    batches = {step: workflows.put_step(db, workflow, name, step, at) for at, step in enumerate(steps)}
    for trigger, _ in triggers:
        db.execute(f"drop trigger {trigger}")
    machines = []
    for number in range(workers):
        facts = {"cpus": 32.0, "memory": 128_000_000_000, "python": "3.11.2", "version": "2.0.0", "gpus": []}
        (id,) = db.execute(
            """insert into worker(name, kind, state, concurrency, facts, created) values (?, 'ssh', ?, ?, ?, ?) returning id""",
            (f"{name}-node{number + 1}", int(WorkerState.READY), slots, json.dumps(facts), START_MS),
        ).fetchone()
        machines.append(id)
    free = {(machine, slot): float(START_MS) for machine in machines for slot in range(slots)}
    found: dict[str, list[int]] = {}
    for at, (step, made) in enumerate(steps.items()):
        if at and gap_s:
            free = dict.fromkeys(free, max(free.values()) + 1000 * gap_s)
        elif made.after:
            # Its tasks come when those are over, as a whole: near enough.
            free = dict.fromkeys(free, max(free.values()))
        found[step] = [_task(db, workflow, batches[step], made, number, free, chance) for number in range(made.tasks)]
        for parent in made.after:
            _require(db, found[parent], found[step])
    db.execute("delete from counter")
    states = ",".join(f"({int(state)})" for state in TaskState)
    db.execute(
        f"""insert into counter(batch, state, n) select batch.id, s.column1,
        (select count(*) from task where task.batch = batch.id and task.state = s.column1) from batch, (values {states}) s"""
    )
    for _, sql in triggers:
        db.execute(sql)
    return found


def _require(db: Any, parents: Sequence[int], children: Sequence[int]) -> None:
    """One each where they are as many, else all of them."""
    if len(parents) == len(children):
        pairs = list(zip(parents, children, strict=True))
    else:
        pairs = [(parent, child) for child in children for parent in parents]
    db.executemany("insert into requirement(parent, child) values (?, ?)", pairs)


def _task(
    db: Any,
    workflow: int,
    batch: int,
    made: Made,
    number: int,
    free: dict[tuple[int, int], float],
    chance: random.Random,
) -> int:
    name = made.name.format(n=number)
    fails = bool(made.failing) and number % made.failing == made.failing - 1
    state = made.state or (TaskState.FAILED if fails else TaskState.SUCCEEDED)
    spec = {"command": made.command.format(name=name, n=number), **made.spec}
    if made.sources:
        spec["input"] = [source.format(name=name) for source in made.sources]
    (task,) = db.execute(
        """insert into task(state, batch, created, changed, name, spec, reason) values (?, ?, ?, ?, ?, ?, ?) returning id""",
        (int(state), batch, START_MS, START_MS, name, json.dumps(spec), None),
    ).fetchone()
    db.execute(
        "insert into member(workflow, task, batch, name, digest, position, grown) values (?, ?, ?, ?, '', ?, 0)",
        (workflow, task, batch, name, number),
    )
    if state not in (TaskState.SUCCEEDED, TaskState.FAILED):
        return int(task)
    is_cached = bool(made.cached) and number % made.cached == 0
    tries = 2 if made.again and number % made.again == 0 and not is_cached else 1
    for attempt in range(1, tries + 1):
        ends_well = attempt == tries and not fails
        _execution(db, task, spec, made, attempt, ends_well, is_cached, free, chance)
    return int(task)


def _execution(
    db: Any, task: int, spec: Mapping[str, Any], made: Made, attempt: int, ends_well: bool, is_cached: bool,
    free: dict[tuple[int, int], float], chance: random.Random,
) -> None:  # fmt: skip
    place = min(free, key=lambda one: free[one])
    begin = free[place]
    staging, run, collecting = (
        1000 * chance.uniform(0.5, 4),
        1000 * made.run_s * chance.uniform(0.6, 1.4),
        1000 * chance.uniform(0.2, 2),
    )
    started = begin + staging
    ended = started + run + collecting
    if not is_cached:
        free[place] = ended
    outcome = Outcome.SUCCEEDED if ends_well else Outcome.FAILED
    (execution,) = db.execute(
        """insert into execution(task, worker, attempt, assigned, started, ended, outcome, stage, exit_code, run_s, cpu_s, peak_memory,
        read_bytes, written_bytes, image, cached_from, key) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'k') returning id""",
        (task, None if is_cached else place[0], attempt, int(begin), int(begin if is_cached else started),
         int(begin if is_cached else ended), int(outcome), int(Stage.RUN), 0 if ends_well else 1,
         None if is_cached else run / 1000, None if is_cached else run / 1000 * chance.uniform(1.5, 3.8),
         None if is_cached else int(chance.uniform(0.5e9, 3e9)), 4096, 8192, made.image, 999_999_999 if is_cached else None),
    ).fetchone()  # fmt: skip
    for state, at in ((TaskState.STAGING, begin + 50), (TaskState.COLLECTING, started + run)):
        if not is_cached:
            db.execute(
                "insert into journal(at, kind, task, execution, src, dst) values (?, ?, ?, ?, ?, ?)",
                (int(at), int(EventKind.TASK_STATE), task, execution, int(TaskState.ASSIGNED), int(state)),
            )
    if not ends_well:
        # Two tasks in a row write the same, if there is a name in it.
        wrote = made.stderr.replace(b"{name}", b"s%05d" % (task // 2 * 2))
        logs.keep(db, ExecutionId(execution), logs.ERR, wrote, len(wrote), False)
        return
    files = [[f"out-{task}.fq.gz", 1_000_000 + task, f"{task:032x}"]]
    db.execute("insert into manifest values (?, ?, ?)", (execution, f"s3://lab/{task}", json.dumps(files)))
    if spec.get("input"):
        sources = []
        for address in spec["input"]:
            digest = ascii(address)
            db.execute(
                "insert or ignore into fingerprint values (?, ?)",
                (digest, json.dumps([["reads.fq.gz", 1_234_567, "md5:9c1e185a5c5e9fc54612808977ee8f54"]])),
            )
            sources.append([address, "", digest])
        db.execute("insert into recipe values (?, ?, ?)", (execution, "r", json.dumps([sources, []])))
