"""Tasks as columns, for data frames and timelines: each question is one query, however many tasks it is about. Only reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from scitq.states import Outcome
from scitq.store import query
from scitq.store.listing import LISTED

_SUCCEEDED = int(Outcome.SUCCEEDED)


class Row(NamedTuple):
    """A task with its latest execution (None where there is none). Times are milliseconds since 1970; `input` is the spec's JSON,
    `recipe` that of what the cache knows of its inputs."""

    id: int
    name: str | None
    batch: str
    workflow: str | None
    step: str | None
    state: int
    priority: int
    tries: int
    created: int
    changed: int
    command: str
    input: str | None
    attempt: int | None
    worker: str | None
    assigned: int | None
    started: int | None
    ended: int | None
    outcome: int | None
    stage: int | None
    exit_code: int | None
    signal: int | None
    run_s: float | None
    cpu_s: float | None
    peak_memory: int | None
    read_bytes: int | None
    written_bytes: int | None
    output_bytes: int | None
    recipe: str | None


class Span(NamedTuple):
    """From when to when a worker ran something; `outcome` None: it does so still."""

    worker: str | None
    started: int
    ended: int | None
    outcome: int | None
    task: int


def rows(db: apsw.Connection, ids: Sequence[int]) -> list[Row]:
    """These tasks, by number; those that were deleted are absent."""
    found = query.rows(
        db,
        f"""select task.id, task.name, batch.name, workflow.name, batch.step, task.state, task.priority, task.tries, task.created,
        task.changed, task.spec ->> '$.command', task.spec ->> '$.input', e.attempt, worker.name, e.assigned, e.started, e.ended,
        e.outcome, e.stage, e.exit_code, e.signal, e.run_s, e.cpu_s, e.peak_memory, e.read_bytes, e.written_bytes,
        iif(manifest.files is null, null, (select coalesce(sum(value ->> 1), 0) from json_each(manifest.files))), recipe.parts
        from task join batch on batch.id = task.batch left join workflow on workflow.id = batch.workflow
        left join execution e on e.id = (select max(id) from execution where task = task.id)
        left join worker on worker.id = e.worker left join manifest on manifest.execution = e.id
        left join recipe on recipe.execution = e.id where task.id in {LISTED} order by task.id""",
        (json.dumps(list(ids)),),
    )
    return [Row(*row) for row in found]


def spans(db: apsw.Connection, ids: Sequence[int]) -> list[Span]:
    """Every execution of these tasks that a worker has begun, by when that was."""
    found = query.rows(
        db,
        f"""select worker.name, started, ended, outcome, task from execution left join worker on worker.id = execution.worker
        where task in {LISTED} and started is not null order by started, execution.id""",
        (json.dumps(list(ids)),),
    )
    return [Span(*row) for row in found]


def left_by(db: apsw.Connection, tasks: Iterable[int]) -> dict[int, list[tuple[str, int]]]:
    """What the newest success of each of these tasks left: names and sizes."""
    found = query.rows(
        db,
        f"""select task, manifest.files from execution join manifest on manifest.execution = execution.id
        where execution.id in (select max(id) from execution where task in {LISTED} and outcome = {_SUCCEEDED} group by task)""",
        (json.dumps(sorted(tasks)),),
    )
    return {task: [(str(name), int(size)) for name, size, _ in json.loads(files)] for task, files in found}


def sizes_of(db: apsw.Connection, digests: Iterable[str]) -> dict[str, int | None]:
    """How many bytes each of these fingerprints is about; None where a file's size is not known."""
    found = query.rows(
        db,
        f"""select digest, iif(exists(select 1 from json_each(files) where value ->> 1 is null), null,
        (select coalesce(sum(value ->> 1), 0) from json_each(files))) from fingerprint where digest in {LISTED}""",
        (json.dumps(sorted(digests)),),
    )
    return dict(found)
