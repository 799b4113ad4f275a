"""What is there to do, and what will be soon, as recruiters count it: by batch and kind of request, without looking at what has ended.

Every function runs on a reader, or inside a transaction of the caller's. What follows is `scitq.staffing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from scitq.roster import BOOT_S, Work
from scitq.states import Halt, Outcome, TaskState
from scitq.store import listing, query
from scitq.store.listing import LISTED, OUT_OF_PLACE, READY
from scitq.task import Need

# More tasks of a kind than this are not counted one by one.
COUNTED = 5000
# So many prerequisites of waiting tasks are looked at, at most, of those that are with workers.
LOOKED_AT = 20_000
# So many of a batch's newest successes tell how long its tasks run.
USUAL = 20
# Retries that are due later than this are nothing to keep a worker for.
LATER_MS = 600_000


class Wanting(NamedTuple):
    """A batch that goes on, has recruiters, and something pending or waiting."""

    batch: int
    name: str
    workflow: int | None
    pending: int
    waiting: int


def wanting(db: apsw.Connection) -> list[Wanting]:
    """The batches that may want workers."""
    rows = query.rows(
        db,
        f"""select batch.id, batch.name, batch.workflow, pending.n, waiting.n
        from (select distinct batch from recruiter) rule cross join batch on batch.id = rule.batch and halt = {int(Halt.GO)}
        cross join counter pending on pending.batch = batch.id and pending.state = {int(TaskState.PENDING)}
        cross join counter waiting on waiting.batch = batch.id and waiting.state = {int(TaskState.WAITING)}
        where pending.n > 0 or waiting.n > 0""",
    )
    return [Wanting(*row) for row in rows]


def ready(db: apsw.Connection, batches: Iterable[Wanting]) -> dict[int, list[Work]]:
    """By batch: how many tasks of each kind of request could run now."""
    kinds = _kinds(db)
    return {
        one.batch: [Work(kinds.get(need), count) for need, count in _ready(db, one).items()] if one.pending else []
        for one in batches
    }


def work(db: apsw.Connection, now_ms: int, batches: Sequence[Wanting]) -> dict[int, list[Work]]:
    """The same, with how many will be able to soon."""
    counts = {(one.batch, need): count for one in batches if one.pending for need, count in _ready(db, one).items()}
    soon: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for key, in_s in (*_unlocked(db, now_ms, batches), *_delayed(db, now_ms, batches)):
        soon.setdefault(key, []).append((in_s, 1))
    kinds = _kinds(db)
    found: dict[int, list[Work]] = {one.batch: [] for one in batches}
    for batch, need in sorted(counts.keys() | soon.keys()):
        found[batch].append(Work(kinds.get(need), counts.get((batch, need), 0), tuple(soon.get((batch, need), ()))))
    return found


def _kinds(db: apsw.Connection) -> dict[int, Need | None]:
    return {id: need for id, (need, _) in listing.needs(db).items()}


def _ready(db: apsw.Connection, one: Wanting) -> dict[int, int]:
    """How many tasks of each kind could run now. Those that wait for the cache's answer, or for another try, are none of them."""
    found = {}
    for need in listing.kinds_of(db, one.batch):
        found[need] = query.one(
            db,
            f"select count(*) from (select 1 from task indexed by task_ready where batch = ? and need = ? and {READY} limit {COUNTED})",
            (one.batch, need),
        )[0]
    large = [need for need, count in found.items() if count == COUNTED]
    if large:  # then nearly all are of such kinds
        rest = one.pending - sum(count for need, count in found.items() if need not in large)
        found |= {need: max(COUNTED, rest // len(large)) for need in large}
    return found


def _unlocked(db: apsw.Connection, now_ms: int, batches: Iterable[Wanting]) -> list[tuple[tuple[int, int], float]]:
    """Tasks that wait only for others that are with workers: batch and kind of each, and in how many seconds it could run."""
    waiting = [one.batch for one in batches if one.waiting]
    if not waiting:
        return []
    children: dict[int, tuple[tuple[int, int], int, list[float]]] = {}
    usual: dict[int, float | None] = {}
    for child, batch, need, unmet, of, started in query.rows(
        db,
        f"""select child.id, child.batch, child.need, child.unmet, parent.batch, execution.started
        from execution indexed by execution_worker cross join requirement on requirement.parent = execution.task
        cross join task child on child.id = requirement.child and child.state = {int(TaskState.WAITING)}
        cross join task parent on parent.id = execution.task
        where execution.ended is null and child.batch in {LISTED} limit {LOOKED_AT}""",
        (json.dumps(waiting),),
    ):
        if of not in usual:
            usual[of] = usual_s(db, of)
        past_s = 0.0 if started is None else max(0, now_ms - started) / 1000
        children.setdefault(child, ((batch, need), unmet, []))[2].append(_left_s(usual[of], past_s))
    return [(key, max(left)) for key, unmet, left in children.values() if len(left) == unmet]


def _left_s(usual_s: float | None, past_s: float) -> float:
    """How long something may run on. What is not known is thought to be half over, but never about to end: nothing is rented for it."""
    if usual_s is None:
        return max(past_s, BOOT_S + 1)
    return abs(usual_s - past_s)


def _delayed(db: apsw.Connection, now_ms: int, batches: Iterable[Wanting]) -> list[tuple[tuple[int, int], float]]:
    """Tasks whose next try is due soon."""
    rows = query.rows(
        db,
        f"""select batch, need, not_before from task indexed by task_later where not_before is not null and not_before <= ?
        and state = {int(TaskState.PENDING)} and batch in {LISTED} limit {COUNTED}""",
        (now_ms + LATER_MS, json.dumps([one.batch for one in batches if one.pending])),
    )
    return [((batch, need), max(0.0, (due - now_ms) / 1000)) for batch, need, due in rows]


def usual_s(db: apsw.Connection, batch: int) -> float | None:
    """How long the newest tasks of a batch that have succeeded have run, on average; None: none has."""
    found: float | None = query.one(
        db,
        f"""select avg(run_s) from
          (select id from task indexed by task_place where batch = ? and state = {int(TaskState.SUCCEEDED)}
            and state not in ({OUT_OF_PLACE})
            order by id desc limit {USUAL}) recent
          cross join execution on execution.task = recent.id where outcome = {int(Outcome.SUCCEEDED)}""",
        (batch,),
    )[0]
    return found


def first_ms(db: apsw.Connection, batch: int) -> int | None:
    """Since when the first task of a batch could have run."""
    found = [
        row[0]
        for need in listing.kinds_of(db, batch)
        if (row := query.row(
            db,
            f"select changed from task indexed by task_ready where batch = ? and need = ? and {READY} order by priority desc, id limit 1",
            (batch, need),
        )) is not None
    ]  # fmt: skip
    return min(found, default=None)


def executions(db: apsw.Connection) -> dict[int, int]:
    """How many executions each worker has that have not ended."""
    return dict(
        query.rows(
            db,
            "select worker, count(*) from execution indexed by execution_worker where ended is null and worker is not null group by worker",
        )
    )


def workflow_limits(db: apsw.Connection, workflows: Iterable[int]) -> dict[int, int]:
    """How many rented machines some workflows may have at once, of those that say it."""
    rows = query.rows(
        db,
        f"""select id, settings ->> '$.max_workflow_workers' from workflow
        where id in {LISTED} and settings ->> '$.max_workflow_workers' is not null""",
        (json.dumps(list(workflows)),),
    )
    return {id: int(most) for id, most in rows}


def workflow_of(db: apsw.Connection, batches: Iterable[int]) -> dict[int, int]:
    """The workflows of some batches, of those that have one."""
    rows = query.rows(
        db,
        f"select id, workflow from batch where id in {LISTED} and workflow is not null",
        (json.dumps(list(batches)),),
    )
    return dict(rows)


def found(db: apsw.Connection) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """What machines of each provider's flavors had, as the agent of the newest of them that became a worker said."""
    rows = query.rows(
        db,
        """select provider, flavor, facts from rental join worker on worker.id = rental.worker
        where rental.worker in (select max(rental.worker) from rental join worker on worker.id = rental.worker
          where worker.facts ->> '$.python' is not null group by provider, flavor)""",
    )
    return {(provider, flavor): json.loads(facts) for provider, flavor, facts in rows}
