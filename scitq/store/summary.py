"""Many tasks in a few numbers, for people: states of a selection, requests that nobody can meet, what batches really used.

Only reads; every function may run on a reader.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import apsw

from scitq.states import Outcome, TaskState
from scitq.store import query
from scitq.task import Need, TaskId


def states_of(db: apsw.Connection, ids: Sequence[int]) -> dict[TaskState, int]:
    """How many of these tasks are in each state; states without any are absent."""
    rows = query.rows(
        db,
        "select state, count(*) from task where id in (select value from json_each(?)) group by state",
        (json.dumps(ids),),
    )
    return {TaskState(state): n for state, n in rows}


@dataclass(frozen=True)
class InVain:
    """Queued tasks of one kind of request that no worker can ever meet: how many, the oldest, and why."""

    need: Need
    note: str
    tasks: int
    first: TaskId


def in_vain(db: apsw.Connection) -> list[InVain]:
    """The pending tasks that ask for what no worker has, by kind of request."""
    # Through the index of what could run: other pending tasks, however many, are not looked at.
    rows = query.rows(
        db,
        f"""select need.cpus, need.memory, need.gpus, need.note, count(*), min(task.id)
        from need cross join batch cross join task indexed by task_ready
          on task.batch = batch.id and task.need = need.id and task.state = {int(TaskState.PENDING)} and task.not_before is null
        where need.note is not null group by need.id order by min(task.id)""",
    )
    return [
        InVain(Need(cpus or None, memory or None, gpus or None), note, count, TaskId(first))
        for cpus, memory, gpus, note, count, first in rows
    ]


@dataclass(frozen=True)
class Usage:
    """What the successful executions of a batch took. `cpu_use` is CPU time by run time: how many CPUs were busy.

    `asked` are the largest requests among their tasks. None: it was never measured.
    """

    batch: str
    runs: int
    run_s_median: float | None
    run_s_p95: float | None
    run_s_max: float | None
    cpu_s: float | None
    cpu_use: float | None
    cpu_use_p95: float | None
    memory_median: int | None
    memory_max: int | None
    asked: Need


_FIGURES = tuple(field.name for field in fields(Usage) if field.name != "asked")


def usage(db: apsw.Connection, batch: str | None = None) -> list[Usage]:
    """What the executions that succeeded used, for each batch (or one), in the order of the batches."""
    # Percentiles are the nearest rank, among the executions that have the figure: nulls come last where ranks count.
    rows = query.rows(
        db,
        f"""with run as materialized (
          select task.batch, run_s, cpu_s, cpu_s / nullif(run_s, 0) as cpu_use, peak_memory, need.cpus, need.memory, need.gpus
          from execution join task on task.id = execution.task left join need on need.id = task.need
          where outcome = {int(Outcome.SUCCEEDED)} and (?1 is null or task.batch = (select id from batch where name = ?1))),
        ranked as (select *,
          row_number() over (partition by batch order by run_s nulls last) as run_rank, count(run_s) over whole as run_n,
          row_number() over (partition by batch order by cpu_use nulls last) as use_rank, count(cpu_use) over whole as use_n,
          row_number() over (partition by batch order by peak_memory nulls last) as peak_rank,
          count(peak_memory) over whole as peak_n
          from run window whole as (partition by batch))
        select batch.name, count(*),
          max(run_s) filter (where run_rank = (run_n + 1) / 2), max(run_s) filter (where run_rank = (95 * run_n + 99) / 100), max(run_s),
          sum(cpu_s), sum(cpu_s) / nullif(sum(run_s), 0), max(cpu_use) filter (where use_rank = (95 * use_n + 99) / 100),
          max(peak_memory) filter (where peak_rank = (peak_n + 1) / 2), max(peak_memory),
          max(ranked.cpus), max(ranked.memory), max(ranked.gpus)
        from ranked join batch on batch.id = ranked.batch group by ranked.batch order by ranked.batch""",
        (batch,),
    )
    return [
        Usage(**dict(zip(_FIGURES, row, strict=False)), asked=Need(*(value or None for value in row[10:])))
        for row in rows
    ]
