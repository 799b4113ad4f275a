"""What several commands say about the file: who drives it, how many tasks are where, what a task is in JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from scitq.engine import Engine
from scitq.handle import Task
from scitq.hints import ORDER
from scitq.hints import command_for as command_for
from scitq.hints import counted as counted
from scitq.hints import driver_of as driver_of
from scitq.hints import quoted as quoted
from scitq.hints import short_path as short_path
from scitq.shell.answers import Bytes, Seconds, When, several
from scitq.states import LIVE, TaskState
from scitq.task import ExecutionRow, TaskRow

QUEUED = frozenset({TaskState.PENDING, TaskState.WAITING, TaskState.PAUSED, TaskState.DEBUG})


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def count_words(counts: Mapping[TaskState, int]) -> dict[str, int]:
    """The same for JSON: every state."""
    return {state.word: counts.get(state, 0) for state in ORDER}


def live(counts: Mapping[TaskState, int]) -> int:
    """How many tasks workers hold."""
    return sum(counts.get(state, 0) for state in LIVE)


def queued(counts: Mapping[TaskState, int]) -> int:
    """How many tasks no worker holds yet."""
    return sum(counts.get(state, 0) for state in QUEUED)


def goes_on(counts: Mapping[TaskState, int]) -> str:
    """What happens to the tasks when nobody drives."""
    parts = []
    if running := live(counts):
        parts.append(f"{several(running, 'task')} {'goes' if running == 1 else 'go'} on at the workers")
    if still := queued(counts):
        parts.append(f"{several(still, 'task')} {'stays' if still == 1 else 'stay'} queued")
    return ", ".join(parts)


def nobody_drives(engine: Engine) -> list[str]:
    """The hint for who has queued something that nobody will start."""
    if driver_of(engine) is not None or engine._has_driver():  # ours may be just beginning
        return []
    return [f"Nobody drives {engine.path.name}: {command_for(engine, 'up')}"]


def task_facts(row: TaskRow, last: ExecutionRow | None) -> dict[str, Any]:
    """A task for JSON, and for tables."""
    spec = row.spec
    return {
        "id": int(row.id), "name": row.name, "batch": row.batch, "status": row.state.word, "command": spec.command, "shell": spec.shell,
        "priority": row.priority, "retry": spec.retry, "tries": row.tries,
        "retry_memory": spec.retry_memory, "retry_timeout": spec.retry_timeout,
        "raised": {name: value for name, value in row.raised.__dict__.items() if value},
        "run_timeout": None if spec.run_timeout is None else Seconds(spec.run_timeout),
        "env": dict(spec.env), "tags": dict(spec.tags), "reason": row.reason,
        "cpus": spec.cpus, "memory": None if spec.memory is None else Bytes(spec.memory), "gpus": spec.gpus,
        "input": [shown_address(text) for text in spec.input], "resource": [shown_address(text) for text in spec.resource],
        "output": None if spec.output is None else shown_address(spec.output), "overwrite": spec.overwrite,
        "keep_failed": spec.keep_failed, "skip_if_exists": spec.skip_if_exists, "stage_in_timeout": _seconds(spec.stage_in_timeout),
        "container": spec.container, "container_options": list(spec.container_options),
        "not_before": None if row.not_before_ms is None else When(row.not_before_ms),
        "created": When(row.created_ms), "changed": When(row.changed_ms),
        "execution": None if last is None else int(last.id), "worker": None if last is None else last.worker,
        "cause": None if last is None else last.cause, "exit_code": None if last is None else last.exit_code,
        "signal": None if last is None else last.signal, "detail": None if last is None else last.detail,
        "run_s": _seconds(None if last is None else last.run_s), "cpu_s": _seconds(None if last is None else last.cpu_s),
        "peak_memory": _bytes(None if last is None else last.peak_memory_bytes),
        "read_bytes": _bytes(None if last is None else last.read_bytes),
        "written_bytes": _bytes(None if last is None else last.written_bytes),
    }  # fmt: skip


def shown_address(text: str) -> str:
    """An address for people: without the password that a URL may hold."""
    from scitq.fetch.uri import masked

    return masked(text) if "://" in text else text


def execution_facts(row: ExecutionRow) -> dict[str, Any]:
    """An execution for JSON, and for tables."""
    return {
        "id": int(row.id), "attempt": row.attempt, "worker": row.worker, "outcome": None if row.outcome is None else row.outcome.word,
        "stage": None if row.stage is None else row.stage.word, "cause": row.cause, "exit_code": row.exit_code, "signal": row.signal,
        "detail": row.detail, "assigned": When(row.assigned_ms), "started": _when(row.started_ms), "ended": _when(row.ended_ms),
        "run_s": _seconds(row.run_s), "cpu_s": _seconds(row.cpu_s),
        "peak_memory": _bytes(row.peak_memory_bytes), "read_bytes": _bytes(row.read_bytes),
        "written_bytes": _bytes(row.written_bytes),
        "image": row.image,
    }  # fmt: skip


def latest(task: Task) -> ExecutionRow | None:
    """The newest attempt."""
    found = task.executions
    return found[-1] if found else None


def exit_code(row: TaskRow, last: ExecutionRow | None) -> int:
    """The exit code that a shell would have seen had it run the task itself; 1 where there is none."""
    if row.state is TaskState.SUCCEEDED:
        return 0
    if last is not None and last.outcome is not None:
        if last.signal:
            return 128 + last.signal
        if last.exit_code:
            return last.exit_code
    return 1


def hush() -> None:
    """The library need not repeat what the command has said."""
    logging.getLogger("scitq").setLevel(logging.ERROR)


def _when(at_ms: int | None) -> When | None:
    return None if at_ms is None else When(at_ms)


def _bytes(value: int | None) -> Bytes | None:
    return None if value is None else Bytes(value)


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)
