"""What schemas are made of: small makers, and the definitions that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scitq.states import Halt, JobState, Outcome, Stage, TaskState, WorkerState

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}


def may(kind: Schema) -> Schema:
    """That, or null: it is not known, or does not apply."""
    if isinstance(kind.get("type"), str) and "enum" not in kind:
        return {**kind, "type": [kind["type"], "null"]}
    return {"anyOf": [kind, {"type": "null"}]}


def many(kind: Schema) -> Schema:
    """A list of those."""
    return {"type": "array", "items": kind}


def mapped(kind: Schema) -> Schema:
    """Names, and of each that."""
    return {"type": "object", "additionalProperties": kind}


def either(*kinds: Schema) -> Schema:
    """One of those."""
    return {"anyOf": [*kinds]}


def ref(name: str) -> Schema:
    """A shared definition."""
    return {"$ref": f"#/$defs/{name}"}


def record(
    fields: Mapping[str, Schema],
    optional: Mapping[str, Schema] | None = None,
    says: str = "",
    *,
    has_more: bool = False,
) -> Schema:
    """An object with those fields; later versions may add some. `has_more`: this one has others, which depend on what it tells."""
    told: Schema = {"description": says} if says else {}
    more: Schema = {"additionalProperties": True} if has_more else {}
    return {**told, "type": "object", "properties": {**fields, **(optional or {})}, "required": [*fields], **more}


def _words(kind: Any, says: str) -> Schema:
    return {"description": says, "enum": [one.word for one in kind]}


TIME = ref("time")
SECONDS = ref("seconds")
BYTES = ref("bytes")
COUNTS = ref("counts")

_USED = {
    "run_s": may(SECONDS), "cpu_s": may(SECONDS), "peak_memory": may(BYTES), "read_bytes": may(BYTES), "written_bytes": may(BYTES),
}  # fmt: skip
TASK_FIELDS: dict[str, Schema] = {
    "id": WHOLE, "name": may(TEXT), "batch": TEXT, "status": ref("task-state"), "command": ref("command"), "shell": may(TEXT),
    "priority": WHOLE, "retry": either(WHOLE, OBJECT), "tries": WHOLE, "retry_memory": may(NUMBER), "retry_timeout": may(NUMBER),
    "raised": {"type": "object", "description": "What earlier tries changed for the later ones."},
    "run_timeout": may(SECONDS), "env": mapped(TEXT), "tags": mapped(TEXT), "reason": may(TEXT),
    "cpus": may(NUMBER), "memory": may(BYTES), "gpus": may(WHOLE), "input": many(TEXT), "resource": many(TEXT), "output": may(TEXT),
    "overwrite": FLAG, "keep_failed": FLAG, "skip_if_exists": FLAG, "stage_in_timeout": may(SECONDS), "container": may(TEXT),
    "container_options": many(TEXT), "not_before": may(TIME), "created": TIME, "changed": TIME,
    "execution": may(WHOLE), "worker": may(TEXT), "cause": may(TEXT), "exit_code": may(WHOLE), "signal": may(WHOLE), "detail": may(TEXT),
    **_USED,
}  # fmt: skip
EXECUTION_FIELDS: dict[str, Schema] = {
    "id": WHOLE, "attempt": WHOLE, "worker": may(TEXT), "outcome": may(ref("outcome")), "stage": may(ref("stage")), "cause": may(TEXT),
    "exit_code": may(WHOLE), "signal": may(WHOLE), "detail": may(TEXT), "assigned": TIME, "started": may(TIME), "ended": may(TIME),
    **_USED, "image": may(TEXT),
}  # fmt: skip
WORKER_FIELDS: dict[str, Schema] = {
    "id": WHOLE, "name": TEXT, "kind": TEXT, "state": ref("worker-state"), "concurrency": WHOLE, "prefetch": ref("number-or-auto"),
    "holds": {**WHOLE, "description": "Slots that are taken."},
    "cpus": may(NUMBER), "memory": may(BYTES), "memory_taken": BYTES, "gpus": many(TEXT), "gpus_taken": many(TEXT),
    "gpu_models": many(OBJECT), "python": may(TEXT), "host": may(TEXT), "batch": may(TEXT), "flavor": may(TEXT), "note": may(TEXT),
    "created": TIME, "seen": may(TIME), "address": may(TEXT), "link": may(TEXT), "settings": OBJECT, "silent": may(SECONDS),
    "limits": many(TEXT), "limits_reason": may(TEXT), "stats": may(ref("load")),
}  # fmt: skip
RECRUITER_FIELDS: dict[str, Schema] = {
    "batch": TEXT, "rank": WHOLE, "tasks_per_worker": may(WHOLE), "flavor": may(TEXT), "provider": may(TEXT), "region": may(TEXT),
    "concurrency": may(WHOLE), "prefetch": may(WHOLE), "minimum_tasks": may(WHOLE), "maximum_workers": may(WHOLE),
    "rounds": may(WHOLE), "market": may(TEXT), "max_price": may(NUMBER), "max_cost": may(TEXT), "patience": may(SECONDS),
    "idle_timeout": may(SECONDS),
}  # fmt: skip
JOB_FIELDS: dict[str, Schema] = {
    "id": WHOLE, "kind": TEXT, "worker": may(TEXT), "state": ref("job-state"), "step": may(TEXT), "created": TIME, "tries": WHOLE,
    "took": may(SECONDS), "note": may(TEXT),
}  # fmt: skip
WORKFLOW_FIELDS: dict[str, Schema] = {
    "workflow": TEXT, "ok": FLAG, "run_s": may(SECONDS), "counts": mapped(WHOLE), "steps": mapped(mapped(WHOLE)), "failed": many(WHOLE),
}  # fmt: skip

DEFINITIONS: dict[str, Schema] = {
    "time": {"type": "string", "format": "date-time", "description": "UTC, to the millisecond: 2026-11-23T05:07:24.123Z."},
    "seconds": {"type": "number", "minimum": 0, "description": "Seconds."},
    "bytes": {"type": "integer", "minimum": 0, "description": "Bytes."},
    "task-state": _words(TaskState, "Where a task is on its way."),
    "worker-state": _words(WorkerState, "What may be expected of a worker."),
    "job-state": _words(JobState, "How far a long operation is."),
    "outcome": _words(Outcome, "How an execution ended."),
    "stage": _words(Stage, "The part of an execution in which it ended."),
    "halt": _words(Halt, "Whether a batch goes on."),
    "command": {"description": "Words, or the text of a script.", **either(TEXT, many(TEXT))},
    "number-or-auto": either(WHOLE, {"const": "auto"}),
    "counts": {"description": "Tasks by state; every state is there.", **mapped(WHOLE)},
    "task": record(TASK_FIELDS, {"requires": many(WHOLE)}, "A task, and the newest of its executions."),
    "execution": record(EXECUTION_FIELDS, says="One attempt at a task."),
    "left-by-execution": record(
        {
            **EXECUTION_FIELDS, "delivered": may(TEXT), "delivered_bytes": may(BYTES), "notes": many(TEXT),
            "files": many(record({"name": TEXT, "size": BYTES, "md5": may(TEXT)})),
        },
        says="An execution with what it left, and what its worker had to say.",
    ),
    "load": record({"at": TIME}, says="How busy a worker's machine was at that moment: load, cpu, memory_free, disk_free…", has_more=True),
    "worker": record(WORKER_FIELDS, says="A worker, and how busy it is."),
    "worker-told": record(
        {
            "name": TEXT, "kind": TEXT, "state": ref("worker-state"), "address": may(TEXT), "concurrency": WHOLE, "settings": OBJECT,
            "link": may(TEXT), "note": may(TEXT),
        },
        says="A worker, as it is after what was asked.",
    ),
    "job": record(JOB_FIELDS, says="A long operation."),
    "need": record({"cpus": may(NUMBER), "memory": may(BYTES), "gpus": may(WHOLE)}, says="What tasks ask for."),
    "done": record({"matched": WHOLE, "done": WHOLE}, says="How many tasks were meant, and with how many it was done."),
    "status": record({"id": WHOLE, "status": ref("task-state")}),
    "limit": record({
        "scope": TEXT, "name": TEXT, "rank": may(WHOLE), "limit": may(NUMBER), "spent": may(NUMBER), "committed": may(NUMBER),
        "currency": TEXT,
    }),
    "recruiter": record(RECRUITER_FIELDS, says="Which workers serve a batch, and how many."),
    "recruiter-now": record(
        {**RECRUITER_FIELDS, "waits": {**may(TEXT), "description": "What its batch waits for of machines to be rented."}},
        says="A recruiter, and what it does now.",
    ),
    "offer": record(
        {
            "flavor": TEXT, "provider": TEXT, "region": TEXT, "zones": many(TEXT), "market": {"enum": ["ondemand", "spot"]}, "cpu": WHOLE,
            "ram": BYTES, "disk": BYTES, "gpu": may(TEXT), "gpus": NUMBER, "gpumem": may(BYTES), "tags": TEXT, "arch": TEXT,
            "price": may(NUMBER), "currency": TEXT, "eviction": NUMBER, "available": may(WHOLE), "place": may(WHOLE), "slots": may(WHOLE),
            "cost": {**may(NUMBER), "description": "What an hour of a slot is expected to cost."}, "cost_currency": may(TEXT),
            "boot": may(SECONDS), "expected_eviction": may(NUMBER), "why": may(TEXT), "excluded": may(TEXT),
        },
        says="A machine that could be rented; `price` is per hour, `eviction` in per cent per hour. `excluded`: why it would not do.",
    ),
    "workflow": record(
        WORKFLOW_FIELDS,
        says="How a workflow stands: tasks by state, step by step, and which failed.",
    ),
    "entry": record(
        {
            "name": TEXT, "rel_name": TEXT, "type": TEXT, "size": may(BYTES), "creation_date": may(TEXT), "modification_date": may(TEXT),
        },
        {"md5": may(TEXT), "does": {"enum": ["send", "delete"]}},
        says="A file or folder at an address.",
    ),
    "notice": record(
        {
            "key": TEXT, "kind": TEXT, "text": TEXT, "new": FLAG, "dismissed": FLAG, "since": may(TIME), "about": OBJECT,
            "actions": many(record({"label": TEXT, "words": many(TEXT)})),
        },
        says="What needs a person, and the commands that would help.",
    ),
    "batch-told": record({"batch": TEXT, "state": ref("halt"), "told": WHOLE, "queued": WHOLE, "live": WHOLE}),
}  # fmt: skip
