"""What `Server` answers: rows of the state file in the fields and the words of scitq 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from scitq import recruiting
from scitq.errors import BadInput
from scitq.ranking import Ranked
from scitq.states import Outcome, TaskState, WorkerState
from scitq.task import DEFAULT_BATCH, ExecutionRow, TaskRow
from scitq.worker import Recruiter, WorkerRow

# What version 1 calls the batch of those that named none.
V1_DEFAULT = "Default"

# Version 1 has no word for a task that was cancelled, or whose prerequisites failed: what is over and did not succeed has failed.
STATUS = {
    TaskState.PAUSED: "paused", TaskState.WAITING: "waiting", TaskState.PENDING: "pending", TaskState.ASSIGNED: "assigned",
    TaskState.STAGING: "accepted", TaskState.RUNNING: "running", TaskState.COLLECTING: "running", TaskState.FAILED: "failed",
    TaskState.CANCELLED: "failed", TaskState.BLOCKED: "failed", TaskState.SUCCEEDED: "succeeded", TaskState.DEBUG: "debug",
}  # fmt: skip
STATUSES = ("paused", "waiting", "pending", "assigned", "accepted", "running", "failed", "succeeded", "debug")
_EXECUTION = {TaskState.ASSIGNED: "pending", TaskState.STAGING: "accepted"}
_WORKER = {
    WorkerState.READY: "running", WorkerState.DRAINING: "paused", WorkerState.PAUSED: "paused", WorkerState.EVICTED: "evicted",
    WorkerState.FAILED: "failed", WorkerState.DELETING: "failed", WorkerState.GONE: "failed",
}  # fmt: skip


class Record(SimpleNamespace):
    """An answer as an object: its fields are attributes. `dict(record)` gives a dictionary, `record["field"]` one of them."""

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]

    def keys(self) -> Iterable[str]:
        """The names of its fields."""
        return vars(self).keys()


def batch_in(name: str | None) -> str | None:
    """A batch as the file calls it."""
    return DEFAULT_BATCH if name == V1_DEFAULT else name


def batch_out(name: str | None) -> str | None:
    """A batch as version 1 calls it."""
    return V1_DEFAULT if name == DEFAULT_BATCH else name


def id_of(one: Any, field: str) -> int:
    """The number that an argument means: a number, or an answer that has it.

    Raises:
        BadInput: it is neither.
    """
    found = one.get(field) if isinstance(one, Mapping) else getattr(one, field, None)
    if found is None:
        found = getattr(one, "id", one)
    if isinstance(found, str) and found.isdecimal():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        raise BadInput(f"{field} must be a number, or what has one, not {one!r:.80}.")
    return found


def states_of(status: Any) -> list[TaskState] | None:
    """The states that a word of version 1 (or several) stands for; None for none given."""
    if status is None:
        return None
    words = [status] if isinstance(status, str) else list(status)
    if unknown := [word for word in words if word not in STATUSES]:
        raise BadInput(f"status must be one of {', '.join(STATUSES)}, not {unknown[0]!r}.")
    return [state for state, word in STATUS.items() if word in words]


def task(row: TaskRow, requires: Iterable[int]) -> dict[str, Any]:
    """A task. `state` is this scitq's word for its status."""
    spec = row.spec
    retry = spec.retry if isinstance(spec.retry, int) else sum(n for n in spec.retry.values() if isinstance(n, int))
    return {
        "task_id": int(row.id), "name": row.name, "command": spec.line(), "status": STATUS[row.state], "state": row.state.word,
        "creation_date": date(row.created_ms), "modification_date": date(row.changed_ms), "status_date": date(row.changed_ms),
        "batch": batch_out(row.batch), "input": " ".join(spec.input) or None, "output": folder(spec.output),
        "resource": " ".join(spec.resource) or None, "container": spec.container,
        "container_options": " ".join(spec.container_options), "retry": max(0, retry - row.tries), "shell": spec.shell,
        "download_timeout": spec.stage_in_timeout, "run_timeout": spec.run_timeout, "use_cache": spec.use_cache,
        "required_task_ids": sorted(requires),
    }  # fmt: skip


def execution(row: ExecutionRow, task: TaskRow, worker: int | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """One attempt. `more` has what is read elsewhere: whether it is the latest, what it wrote, its files."""
    if row.outcome is None:
        status = _EXECUTION.get(task.state, "running")
    else:
        status = {Outcome.SUCCEEDED: "succeeded", Outcome.RECALLED: "refused"}.get(row.outcome, "failed")
    spec, since = task.spec, row.ended_ms or row.started_ms or row.assigned_ms
    return {
        "execution_id": int(row.id), "worker_id": worker, "worker": row.worker, "task_id": int(row.task), "task_name": task.name,
        "batch": batch_out(task.batch), "status": status, "cause": row.cause, "creation_date": date(row.assigned_ms),
        "modification_date": date(since), "return_code": -row.signal if row.signal else row.exit_code, "pid": None,
        "command": spec.line(), "container": spec.container, "container_options": " ".join(spec.container_options),
        "input": " ".join(spec.input) or None, "resource": " ".join(spec.resource) or None, "output_folder": folder(spec.output),
        "input_hash": None, "output_hash": None, **more,
    }  # fmt: skip


def worker(row: WorkerRow) -> dict[str, Any]:
    """A worker. `state` is this scitq's word for its status."""
    stats = row.stats
    return {
        "worker_id": int(row.id), "name": row.name, "hostname": row.address or row.facts.get("host") or row.name,
        "status": _WORKER.get(row.state, "offline"), "state": row.state.word, "concurrency": row.concurrency,
        "prefetch": row.prefetch or 0, "batch": batch_out(row.batch) or V1_DEFAULT, "permanent": True,
        "flavor": recruiting.flavor(row), "provider": row.settings.get("provider"), "region": row.settings.get("region"),
        "load": f"{stats['load']:.2f}" if "load" in stats else None, "memory": _used(stats), "stats": dict(stats),
        "task_properties": {}, "creation_date": date(row.created_ms), "modification_date": date(row.seen_ms or row.created_ms),
        "last_contact_date": None if row.seen_ms is None else date(row.seen_ms), "ipv4": None, "ipv6": None,
    }  # fmt: skip


def recruiter(one: Recruiter) -> dict[str, Any]:
    """A recruiter, also with the names that its arguments have as columns in version 1."""
    return {
        "batch": batch_out(one.batch_name), "rank": one.rank, "tasks_per_worker": one.tasks_per_worker, "flavor": one.flavor,
        "provider": one.provider, "region": one.region, "concurrency": one.concurrency, "prefetch": one.prefetch or 0,
        "minimum_tasks": one.minimum_tasks, "maximum_workers": one.maximum_workers, "worker_flavor": one.flavor,
        "worker_provider": one.provider, "worker_region": one.region, "worker_concurrency": one.concurrency,
        "worker_prefetch": one.prefetch or 0, "rounds": one.settings.get("rounds"), "market": one.market, "max_price": one.max_price,
        "max_cost": one.max_cost, "patience": one.settings.get("patience"), "idle_timeout": one.idle_timeout,
    }  # fmt: skip


def flavor(one: Ranked) -> dict[str, Any]:
    """What could be rented somewhere. `cost` is per hour; amounts of memory and disk are in GB, as version 1 has them."""
    offer, gpu = one.offer, one.offer.flavor.gpu
    return {
        "name": offer.flavor.name, "provider": offer.flavor.provider, "region": offer.region, "cpu": offer.flavor.cpu,
        "ram": round(offer.flavor.ram / 1e9, 3), "tags": offer.flavor.tags, "gpu": None if gpu is None else gpu.model,
        "gpumem": 0 if gpu is None else round(gpu.memory / 1e9, 3), "disk": round(offer.disk / 1e9, 3), "cost": offer.price,
        "currency": offer.currency, "market": offer.market, "eviction": offer.eviction, "available": one.available,
    }  # fmt: skip


def batch(name: str, counts: Mapping[TaskState, int], workers: Iterable[str]) -> dict[str, Any]:
    """A batch: how many of its tasks are in each status, and the names of its workers."""
    found: dict[str, Any] = {"batch": batch_out(name), "workers": list(workers), **dict.fromkeys(STATUSES, 0)}
    for state, count in counts.items():
        found[STATUS[state]] += count
    return found


def folder(address: str | None) -> str | None:
    """An output, which is a folder: with a slash at its end."""
    return None if address is None else address if address.endswith("/") else address + "/"


def date(at_ms: int) -> datetime:
    """A moment as version 1 has it: in UTC, without saying so."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None)


def _used(stats: Mapping[str, Any]) -> float | None:
    total, free = stats.get("memory"), stats.get("memory_free")
    return None if not total or free is None else round(100 * (1 - free / total), 1)
