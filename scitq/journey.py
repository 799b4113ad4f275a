"""Before a journey: what each worker is given for the hours in which nobody drives, and what comes of it in the file.

Which work that is decides `handoff`, from what is read here. It happens in one of the driver's transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scitq import handoff, recruiting
from scitq.contact import Plan
from scitq.data import tied
from scitq.ordering import Orders
from scitq.placement import choosy, total
from scitq.states import JobState, TaskState, WorkerState
from scitq.store import cache, executions, jobs, listing, recruiters, workers
from scitq.task import PendingTask, TaskId
from scitq.worker import JobRow, WorkerId, WorkerRow
from scitq.workersettings import lost_after_s

if TYPE_CHECKING:
    import apsw

# More than this is not looked at: it would take long to write down, and a worker long to read.
LIMIT = 20_000
# So many of the tasks that cannot be handed over are named.
NAMED = 5
# Of a job's data: the tasks that want a GPU, until it has ended.
WANTING = "wanting"


def _pending(db: apsw.Connection) -> list[PendingTask]:
    """What could run now; of equal tasks that may take each other's result, one."""
    waiting, doubles = cache.without_known(db, listing.pending(db, LIMIT))
    while waiting is None:
        waiting, doubles = cache.without_known(db, listing.pending(db, LIMIT))
    for task in doubles:
        cache.turn_away(db, task.id)
    return waiting


def prepare(
    db: apsw.Connection,
    now_ms: int,
    job: JobRow,
    plans: Mapping[WorkerId, Plan],
    known: Mapping[WorkerId, WorkerRow],
    orders: Orders,
) -> None:
    """Give every worker elsewhere that is there as much as it can do, and a lease for the time. What must be sent for it is sent
    afterwards, as for any order; `finish` says how far that came."""
    hours = float(job.data["hours"])
    times = executions.run_times(db)

    def run_s(batch: int) -> float:
        return times.get(batch, times.get(None, handoff.UNKNOWN_S))

    there = {
        worker: known[worker]
        for worker, plan in plans.items()
        if plan.synced and plan.contact.is_far and worker in known and known[worker].state is WorkerState.READY
    }
    held: dict[int, WorkerId] = {}
    rooms: dict[WorkerId, handoff.Room] = {}
    for worker, row in there.items():
        holds = executions.holdings(db, worker)
        held |= {task: worker for task, _, _ in holds}
        spoken_for_s = sum(slots * run_s(batch) for _, batch, slots in holds)
        rooms[worker] = handoff.Room(total(row), row.concurrency * hours * 3600 - spoken_for_s)

    rules = recruiters.all_of(db)
    services = recruiting.services(rules, known.values(), recruiters.held(db, {rule.batch for rule in rules}))
    terms = {batch: recruiting.admitted(service, rooms) for batch, service in services.items()}

    def work(task: PendingTask, parents: tuple[int, ...] = ()) -> handoff.Work:
        spec = listing.spec_of_task(db, task.id)
        missing = frozenset(worker for worker in rooms if tied(db, spec, worker, held_by(worker, parents)))
        return handoff.Work(
            task.id, task.batch, task.need, run_s(task.batch), parents, missing, task.avoid, terms.get(task.batch)
        )

    def held_by(worker: WorkerId, parents: tuple[int, ...]) -> frozenset[int]:
        return frozenset(task for task, where in held.items() if where == worker) | frozenset(parents)

    pending = choosy(_pending(db), known, services) if rooms else []
    waiting = listing.waiting(db, LIMIT) if rooms else []
    found = handoff.hand_over(
        (work(task) for task in pending), (work(task, parents) for task, parents in waiting), rooms, held
    )
    for assignments, state in ((found.orders, TaskState.PENDING), (found.after, TaskState.WAITING)):
        for order in executions.begin(db, now_ms, assignments, state=state):
            plans[order.worker].commands.append(orders.order(db, order, known.get(order.worker)))
    told: list[dict[str, Any]] = []
    for worker, row in there.items():
        lease_s = hours * 3600 + lost_after_s(row.settings)
        plan = plans[worker]
        plan.commands.append(plan.contact.lease(lease_s))
        plan.journey = (lease_s, now_ms + int(1000 * lease_s))
        workers.linked(db, worker, {**row.link, "lease": lease_s, "lease_ends": plan.journey[1]})
        after = {task.task for task in found.after if task.worker == worker}
        holds = executions.holdings(db, worker)
        work_s = sum(slots * run_s(batch) for _, batch, slots in holds) / max(1, row.concurrency)
        told.append({"worker": row.name, "tasks": len(holds), "after": len(after), "hours": round(work_s / 3600, 3)})
    jobs.move(db, now_ms, job.id, JobState.RUNNING)
    jobs.result(db, job.id, {"workers": told, "left": found.left, WANTING: found.gpus})


def is_over(job: JobRow, now_ms: int, unsent: Collection[int]) -> bool:
    """Whether nothing is waited for any more that is on its way to the workers: it has arrived, or the time for it is over."""
    return not unsent or now_ms >= (job.started_ms or 0) + 1000 * float(job.data.get("send", 0))


def finish(db: apsw.Connection, now_ms: int, job: JobRow, unsent: Collection[int]) -> None:
    """The workers have what they get: of what is said of them is taken off what waits for this machine's files still
    (executions `unsent`)."""
    waiting = executions.holders(db, unsent)
    lacks = Counter(worker for _, worker in waiting)
    told = [
        {
            **each,
            "tasks": each["tasks"] - lacks[each["worker"]],
            "after": min(each["after"], each["tasks"] - lacks[each["worker"]]),
            "hours": round(each["hours"] * (1 - lacks[each["worker"]] / max(1, each["tasks"])), 3),
        }
        for each in job.data.get("workers", [])
    ]
    tasks = [task for task, _ in waiting]
    # Those for which one was free were placed meanwhile, as ever.
    queued = (TaskState.PENDING, TaskState.WAITING)
    gpus = listing.select(db, states=queued, ids=job.data.get(WANTING) or [0], limit=LIMIT)
    names = {"tied": _names(db, tasks), "gpus": [row.label for row in gpus[:NAMED]]}
    jobs.result(db, job.id, {"workers": told, "tied": len(tasks), "gpus": len(gpus), "names": names, WANTING: None})
    jobs.move(db, now_ms, job.id, JobState.SUCCEEDED)


def _names(db: apsw.Connection, tasks: Sequence[TaskId]) -> list[str]:
    return [row.label for row in listing.select(db, ids=tasks[:NAMED])] if tasks else []
