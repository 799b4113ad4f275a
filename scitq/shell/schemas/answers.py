"""The answers of commands: of each its title, and what it looks like."""

from __future__ import annotations

from scitq.shell.schemas.kinds import (
    ANY,
    BYTES,
    COUNTS,
    EXECUTION_FIELDS,
    FLAG,
    JOB_FIELDS,
    NUMBER,
    OBJECT,
    SECONDS,
    TASK_FIELDS,
    TEXT,
    TIME,
    WHOLE,
    WORKER_FIELDS,
    WORKFLOW_FIELDS,
    Schema,
    either,
    many,
    mapped,
    may,
    record,
    ref,
)
from scitq.states import TaskState

_REHEARSED = record(
    {"name": may(TEXT), "batch": TEXT, "command": ref("command"), "shell": may(TEXT), "priority": WHOLE, "requires": many(WHOLE)},
    {"env": mapped(TEXT), "retry": ANY, "container": TEXT, "input": many(TEXT)},
    says="What would be queued: more fields, as far as they were asked for.",
    has_more=True,
)  # fmt: skip
_DRIVING = record({"pid": WHOLE, "driving": FLAG, "started": FLAG}, {"log": TEXT}, "Who drives the file now.")
_WRITTEN = many(record({"path": TEXT, "size": BYTES}, says="A file or folder that was written."))
_ACTIONS = ("new", "rerun", "keep", "running", "vanished", "later")
_PLANNED = record(
    {
        "workflow": TEXT, "notes": many(TEXT), "steps": many(record({"step": TEXT, "why": TEXT, **dict.fromkeys(_ACTIONS, WHOLE)})),
        "tasks": many(record({"step": TEXT, "name": TEXT, "action": TEXT, "reason": may(TEXT), "task": may(WHOLE)})),
    },
    {
        "offers": many(record({
            "step": TEXT, "tasks": WHOLE, "why": TEXT,
            "lasting": may(record({"low_s": SECONDS, "high_s": SECONDS, "known": WHOLE})),
            "ways": many(record({
                "called": TEXT, "machines": WHOLE, "flavor": TEXT, "provider": TEXT, "region": TEXT, "market": TEXT, "slots": WHOLE,
                "per_hour": NUMBER, "currency": TEXT, "low_s": may(SECONDS), "high_s": may(SECONDS), "low_cost": may(NUMBER),
                "high_cost": may(NUMBER),
            })),
        })),
    },
    says="What running a script would do.",
)  # fmt: skip
_HALTED = many(record({"workflow": TEXT, "state": ref("halt"), "told": WHOLE}))
_SOURCE = record(
    {"address": TEXT, "actions": ANY, "told_by": TEXT, "files": may(many(OBJECT))},
    says="An input: its files, and how they are told from others of the same name.",
)  # fmt: skip
_MOVED = record({"source": TEXT, "destination": TEXT, "bytes": BYTES, "seconds": SECONDS})
_REMOTES = many(
    either(
        record({"remote": TEXT, "type": may(TEXT), "settings": mapped(TEXT)}),
        record({"remote": TEXT, "ok": FLAG, "error": may(TEXT), "note": may(TEXT)}),
    )
)
_INSTALLED = record(
    {"file": TEXT, "into": TEXT, "new": many(TEXT), "changed": many(TEXT), "same": many(TEXT), "done": FLAG}, {"backup": may(TEXT)}
)  # fmt: skip
_PROVIDER = record({"provider": TEXT, "kind": TEXT, "settings": OBJECT})
_MACHINE = record({
    "name": TEXT, "state": ref("worker-state"), "batch": may(TEXT), "runs": WHOLE, "holds": WHOLE, "concurrency": WHOLE,
    "prefetch": ref("number-or-auto"), "cpu": may(NUMBER), "load": may(NUMBER), "memory": may(BYTES), "memory_used": may(BYTES),
    "disk": may(BYTES), "disk_free": may(BYTES), "in_s": may(BYTES), "out_s": may(BYTES), "measured": may(TIME), "trend": many(ANY),
    "note": may(TEXT),
})  # fmt: skip
_HELD = record({
    "id": WHOLE, "execution": WHOLE, "name": may(TEXT), "batch": TEXT, "worker": may(TEXT), "state": TEXT, "time": may(SECONDS),
    "cpu": may(NUMBER), "cpu_s": may(SECONDS), "memory": may(BYTES), "last_line": may(TEXT),
})  # fmt: skip
_ENTRY = record({
    "id": WHOLE, "at": TIME, "kind": TEXT, "task": may(WHOLE), "execution": may(WHOLE), "worker": may(WHOLE), "from": may(TEXT),
    "to": may(TEXT), "data": OBJECT, "what": TEXT,
})  # fmt: skip
_NUMBERS_OF_BATCH = {"runs": WHOLE, "run_s_median": may(SECONDS), "run_s_p95": may(SECONDS), "run_s_max": may(SECONDS)}

_CODES = many(record({"code": TEXT, "meaning": TEXT}))

SCHEMAS: dict[str, tuple[str, Schema]] = {
    "message": (
        "A line on stderr beside --json: a sentence under what it is (error, note, warning, info, debug)",
        {"type": "object", "additionalProperties": TEXT, "minProperties": 1, "maxProperties": 1},
    ),
    # --- scitq itself
    "help": (
        "Help: a text; or, with --schema, a JSON Schema",
        either(
            record(
                {"about": TEXT, "text": TEXT},
                {"commands": many(record({"command": TEXT, "help": TEXT})), "codes": _CODES, "fetch": _CODES},
            ),
            {"type": "object", "required": ["$schema", "title"]},
        ),
    ),
    "completion": ("A script for a shell", record({"shell": TEXT, "script": TEXT, "install": TEXT})),
    # --- tasks
    "tasks": ("Tasks", many(ref("task"))),
    "run": (
        "A task that was run, or the workflows of a script",
        either(record({**TASK_FIELDS, "stdout": TEXT, "stderr": TEXT}), many(ref("workflow"))),
    ),
    "launched": ("A task that was queued; with --test, what would be", either(ref("task"), _REHEARSED)),
    "task-show": (
        "Everything about a task",
        record({
            **TASK_FIELDS, "why": TEXT, "folder": may(TEXT), "requires_count": WHOLE, "limits_reason": may(TEXT), "avoids": many(TEXT),
            "requires": many(record({"id": WHOLE, "name": may(TEXT), "status": ref("task-state")})),
            "executions": many(ref("left-by-execution")), "tail": many(TEXT),
        }),
    ),
    "task-output": (
        "What a task wrote; with --follow, an object a line",
        either(
            record({"task": WHOLE, "execution": may(WHOLE)}, {"stdout": TEXT, "stderr": TEXT, "cut": mapped(FLAG), "fields": OBJECT}),
            record({"stream": {"enum": ["stdout", "stderr"]}, "text": TEXT}),
        ),
    ),
    "tail": (
        "A line that a task wrote, a line",
        record({"task": WHOLE, "execution": WHOLE, "stream": {"enum": ["stdout", "stderr"]}, "text": TEXT}),
    ),
    "why": ("What tasks are waiting for, or how they ended", many(record({"id": WHOLE, "status": ref("task-state"), "why": TEXT}))),
    "stats": (
        "What tasks used, by batch, and what to ask for",
        many(record({
            "batch": TEXT, **_NUMBERS_OF_BATCH, "cpu_s": may(SECONDS), "cpu_use": may(NUMBER), "cpu_use_p95": may(NUMBER),
            "memory_median": may(BYTES), "memory_max": may(BYTES), "read_median": may(BYTES), "written_median": may(BYTES),
            "out_of_memory": WHOLE, "asked": ref("need"), "proposal": may(ref("need")), "options": may(TEXT),
        })),
    ),
    "executions": (
        "Executions", many(record({**EXECUTION_FIELDS, "task": WHOLE, "name": may(TEXT), "batch": TEXT})),
    ),
    "deed": ("The tasks as they are then; with --where, how many", either(many(ref("status")), ref("done"))),
    "done": ("How many", ref("done")),
    "updated": ("The task as it is then; with --where, how many", either(ref("task"), ref("done"))),
    "exit-code": ("How the command there ended", record({"exit_code": WHOLE})),
    "debugged": ("How a task ended in the foreground, and where its data is", record({"id": WHOLE, "exit_code": WHOLE, "folder": TEXT})),
    "adopted": ("An edit, and of how many tasks", record({"changed": WHOLE, "unlaunched": WHOLE, "ended": WHOLE, "unlike": many(WHOLE)})),
    # --- the cache
    "cached": (
        "Results that tasks may take",
        many(record({
            "task": WHOLE, "label": TEXT, "execution": WHOLE, "key": TEXT, "age": TIME, "run_s": may(SECONDS), "files": WHOLE,
            "bytes": BYTES, "used": WHOLE, "address": may(TEXT), "kept": FLAG,
        })),
    ),
    "key": (
        "What a key is made of, or what differs between two",
        either(
            record({
                "task": WHOLE, "why": TEXT, "key": TEXT, "command": ref("command"), "shell": may(TEXT), "container": may(TEXT),
                "container_options": many(TEXT), "env": mapped(TEXT), "input": many(_SOURCE), "resource": many(_SOURCE),
            }),
            record({"tasks": many(WHOLE), "keys": many(TEXT), "differences": many(record({"what": TEXT, "old": ANY, "new": ANY}))}),
        ),
    ),
    "forgotten": ("How many results are taken no more", record({"forgotten": WHOLE, "matched": WHOLE})),
    # --- driving
    "up": (
        "Who drives; with --until-done, how it ended",
        either(
            _DRIVING,
            record(
                {"done": FLAG, "counts": COUNTS},
                {"held": record({"paused": WHOLE, "suspended": WHOLE, "batches": many(TEXT)}, says="What is left, and waits for you.")},
            ),
        ),
    ),
    "down": ("Who was asked to stop", record({"stopped": may(WHOLE), "driver": may(WHOLE), "counts": COUNTS}, {"handed": OBJECT})),
    "status": (
        "Who drives, what runs, what needs you",
        record({
            "file": TEXT, "counts": COUNTS, "ended_last_minute": WHOLE,
            "driver": may(record({"pid": WHOLE, "host": TEXT, "program": may(TEXT), "is_here": FLAG, "seen": may(TIME)})),
            "workers": many(record({"name": TEXT, "state": ref("worker-state"), "concurrency": WHOLE})),
            "spent": many(record({"currency": TEXT, "cost": NUMBER, "per_hour": NUMBER, "machines": WHOLE, "limit": may(NUMBER)})),
            "notices": many(ref("notice")),
        }),
    ),
    "notices": ("What needs you", many(ref("notice"))),
    "demo": (
        "What the demo did",
        record({"file": TEXT, "results": TEXT, "tasks": WHOLE, "seconds": SECONDS, "samples": many(OBJECT)}),
    ),
    # --- workflows
    "workflows": (
        "Workflows",
        many(record({
            "workflow": TEXT, "state": TEXT, "steps": WHOLE, "tasks": WHOLE, "done": WHOLE, "running": WHOLE, "failed": WHOLE,
            "started": may(TIME), "script": may(TEXT),
        })),
    ),
    "workflow-show": (
        "How a workflow stands",
        record({**WORKFLOW_FIELDS, "script": may(TEXT), "settings": OBJECT}),
    ),
    "workflow-run": ("The workflows that a script ran; with --plan, what it would do", either(many(ref("workflow")), _PLANNED)),
    "plan": ("What running a script would do", _PLANNED),
    "watched": ("One change of a workflow a line", record({"workflow": TEXT, "text": TEXT}, has_more=True)),
    "halted-workflows": ("Workflows that were paused or let go on", _HALTED),
    "deleted-workflow": ("How many tasks a workflow had", record({"workflow": TEXT, "deleted": WHOLE})),
    "report": ("Files that were written; without --html and --crate, all there is to tell", either(_WRITTEN, OBJECT)),
    # --- workers
    "workers": ("Workers", many(ref("worker"))),
    "worker-show": (
        "Everything about a worker",
        record({
            **WORKER_FIELDS,
            "work": record({
                "outcomes": mapped(WHOLE), "run_s": SECONDS, "mean_run_s": may(SECONDS), "cpu_s": SECONDS, "read_bytes": BYTES,
                "written_bytes": BYTES,
            }),
        }),
    ),
    "worker-updated": (
        "A worker as it is then",
        record({
            "name": TEXT, "concurrency": WHOLE, "prefetch": ref("number-or-auto"), "cpus": NUMBER, "memory": BYTES, "gpus": many(TEXT),
            "output_cap": may(BYTES), "limits": many(TEXT), "limits_reason": may(TEXT), "container_engine": TEXT,
        }),
    ),
    "worker-told": ("A worker as it is then", ref("worker-told")),
    "workers-told": ("Workers as they are then", many(ref("worker-told"))),
    "freed": ("How many tasks can run elsewhere", record({"freed": WHOLE})),
    "top": (
        "Workers and what they hold, at this moment",
        record({"workers": many(_MACHINE), "tasks": many(_HELD), "counts": COUNTS, "driver": may(TEXT)}),
    ),
    "job": ("A long operation", ref("job")),
    "jobs": ("Long operations", many(ref("job"))),
    "machines": (
        "Machines at providers",
        many(
            record(
                {
                    "provider": TEXT, "region": TEXT, "id": may(TEXT), "name": TEXT, "worker": may(TEXT), "state": TEXT,
                    "flavor": may(TEXT), "market": may(TEXT), "price": may(NUMBER), "currency": may(TEXT), "age": may(SECONDS),
                    "expires": may(TIME), "file": TEXT, "project": may(TEXT), "known": FLAG, "detail": may(TEXT),
                }
            )
        ),
    ),
    "reaped": ("What was found at providers, and done", record({"providers": OBJECT, "note": may(TEXT)})),
    "job-show": ("What a long operation did", record({**JOB_FIELDS, "log": TEXT, "data": OBJECT})),
    "argv": ("The command line that leads there", record({"argv": many(TEXT)})),
    "trusted": (
        "A host's key", record({"host": TEXT, "name": TEXT, "kind": TEXT, "fingerprint": TEXT, "done": FLAG}),
    ),
    # --- batches
    "batches": (
        "Batches",
        many(record({
            "batch": TEXT, "state": ref("halt"), "tasks": WHOLE, "queued": WHOLE, "live": WHOLE, "defaults": OBJECT,
            **{state.word: WHOLE for state in TaskState},
        })),
    ),
    "halted": ("Batches that were paused, stopped or let go on", many(ref("batch-told"))),
    "stopped": ("Batches that were paused; how many tasks were cancelled", either(many(ref("batch-told")), ref("done"))),
    "costs": (
        "What rented machines have cost",
        many(record(
            {
                "by": TEXT, "id": may(WHOLE), "name": may(TEXT), "currency": TEXT, "cost": may(NUMBER), "idle": may(NUMBER),
                "failed": may(NUMBER), "run_s": may(SECONDS), "state": TEXT,
            },
            {"per_hour": NUMBER, "machines": WHOLE, "limit": may(NUMBER)},
        )),
    ),
    "limits": ("How much may be spent", either(many(ref("limit")), ref("limit"))),
    "defaults": ("The defaults of a batch", record({"batch": TEXT, "defaults": OBJECT})),
    "recruiters": ("Recruiters", many(ref("recruiter"))),
    "recruiter": ("A recruiter", ref("recruiter")),
    "recruiter-now": ("A recruiter, and what it does now", ref("recruiter-now")),
    "dismissed": ("A recruiter that is gone", record({"batch": TEXT, "rank": WHOLE, "left": WHOLE})),
    "matching": (
        "Workers, and whether a recruiter may use them",
        many(record({
            "worker": TEXT, "state": ref("worker-state"), "flavor": may(TEXT), "batch": may(TEXT), "free": WHOLE, "slots": WHOLE,
            "why": may(TEXT), "matches": FLAG,
        })),
    ),
    "flavors": ("What could be rented, best first", many(ref("offer"))),
    "flavor": ("A flavor, and where it is sold", many(ref("offer"))),
    "catalogue": (
        "How it went to ask providers",
        many(record({
            "provider": TEXT, "what": {"enum": ["offers", "quotas"]}, "region": may(TEXT), "state": {"enum": ["read", "failed"]},
            "read": may(TIME), "problem": may(TEXT), "offers": may(WHOLE),
        })),
    ),
    # --- the file
    "journal": ("What happened; with --follow, an entry a line", either(many(_ENTRY), _ENTRY)),
    "rows": ("Rows: names of columns, and their values", many(OBJECT)),
    "exported": ("What was written", record({"path": TEXT, "size": BYTES, "rows": mapped(WHOLE)})),
    "purged": (
        "What was deleted, or would be",
        record({"deleted": FLAG, "tasks": WHOLE, "executions": WHOLE, "journal": WHOLE, "logs": WHOLE, "log_bytes": BYTES}),
    ),
    "checked": (
        "What is wrong with a file; with --repair, what could be read",
        either(
            record({"file": TEXT, "problems": many(TEXT), "seconds": SECONDS}),
            record({
                "target": TEXT, "source": TEXT, "rows": mapped(WHOLE), "unreadable": mapped(WHOLE), "repairs": many(TEXT),
                "problems": many(TEXT),
            }),
        ),
    ),
    "written": ("A file that was written", record({"path": TEXT, "size": BYTES})),
    "promoted": ("Where the file is driven", record({"host": TEXT, "path": TEXT, "program": many(TEXT), "driving": FLAG})),
    "note": ("What was done", record({"note": TEXT})),
    "rclone": ("Remotes; with --install, what was written", either(_REMOTES, _INSTALLED)),
    "providers": ("Who rents machines, as your settings say it", many(_PROVIDER)),
    "provider": ("A provider of your settings", _PROVIDER),
    "providers-checked": ("How providers stand, and what to do", many(record({
            "provider": TEXT, "kind": TEXT, "regions": many(TEXT), "status": {"enum": ["ok", "warning", "error"]}, "text": TEXT,
            "todo": may(TEXT),
        }))),
    "settings": ("Your settings", many(record({
            "key": TEXT, "value": ANY, "source": TEXT, "default": ANY, "allowed": TEXT, "environment": many(TEXT), "help": TEXT,
        }))),
    "setting": ("A setting", record({"key": TEXT, "value": ANY, "source": TEXT}, {"path": TEXT})),
    "settings-path": ("Where the settings are", record({"path": TEXT, "exists": FLAG})),
    "settings-checked": ("What is wrong with the settings", record({"path": TEXT, "exists": FLAG, "problems": many(TEXT)})),
    "doctor": ("What was looked at, how it stands, and what to do", many(record({
            "about": TEXT, "status": {"enum": ["ok", "advice", "problem"]}, "text": TEXT, "todo": may(TEXT),
        }))),
    # --- data
    "moved": ("What was copied", _MOVED),
    "synced": ("What was copied; with --dry-run, what would be", either(_MOVED, many(ref("entry")))),
    "entries": ("Files and folders", many(ref("entry"))),
    "entry": ("A file or folder", ref("entry")),
    "deleted": ("What was deleted; with --dry-run, what would be", either(record({"deleted": WHOLE, "bytes": BYTES}), many(ref("entry")))),
    "ncdu": ("What was written; to stdout, ncdu's own format", either(record({"file": TEXT, "entries": WHOLE, "bytes": BYTES}), many(ANY))),
    "contents": ("What files say", many(record({"name": TEXT, "size": BYTES, "text": TEXT}))),
}  # fmt: skip
