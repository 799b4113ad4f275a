"""A report as JSON: the facts, and every task with its executions, commands, inputs and outputs to the letter.

The tasks come one by one, so that a hundred thousand of them are written without being held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from scitq.saying import harmless
from scitq.states import Outcome, TaskState
from scitq.store import manifests, reporting
from scitq.store.listing import spec_of
from scitq.store.reporting import Moves, Row
from scitq.workflow.reportfacts import Facts, File, Range, Source, Step, shareable, spread
from scitq.workflow.reportgather import cause_of, shown
from scitq.workflow.reportmethods import methods

if TYPE_CHECKING:
    import apsw

# What the keys mean grows; what they meant does not change within a number.
FORMAT = 1


def parts(facts: Facts, db: apsw.Connection) -> Iterator[str]:
    """The JSON text, in pieces."""
    yield _text(head(facts))[:-1] + ',"tasks":['
    for number, task in enumerate(tasks(facts, db)):
        yield ("," if number else "") + _text(task)
    yield "]}"


def whole(facts: Facts, db: apsw.Connection) -> dict[str, Any]:
    """The same as values."""
    return {**head(facts), "tasks": list(tasks(facts, db))}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def head(facts: Facts) -> dict[str, Any]:
    """All but the tasks."""
    names = {step.id: step.name for step in facts.steps}
    return {
        "format": FORMAT, "workflow": facts.name, "state_file": facts.state_file, "scitq": facts.version, "made": iso(facts.made_ms),
        "script": facts.script, "declared": iso(facts.declared_ms), "first": iso(facts.first_ms), "last": iso(facts.last_ms),
        "is_over": facts.is_over, "active_s": facts.axis.length_ms / 1000, "counts": _counts(facts.counts), "cached": facts.cached,
        "executions": facts.executions, "cost": facts.cost, "methods": methods(facts), "steps": [_step(step) for step in facts.steps],
        "links": [{"from": None if source is None else names[source], "to": names[to], "requirements": count}
                  for source, to, count in facts.links],
        "failures": [
            {"task": one.task, "name": one.name, "step": names[one.step], "cause": one.cause, "detail": one.detail, "worker": one.worker,
             "executions": one.tries, "ended": iso(one.ended_ms), "command": one.command, "stream": one.stream or None,
             "alike": one.alike, "alike_not_named": one.alike_more,
             "tail": harmless(one.tail.decode(errors="surrogateescape"))}
            for one in facts.failures
        ],
        "failures_not_shown": facts.failed_more, "inputs": [_source(source) for source in facts.sources],
        "inputs_not_shown": facts.sources_more,
        "workers": [
            {"name": one.name, "kind": one.kind, "cpus": one.cpus, "memory": one.memory, "gpus": list(one.gpus),
             "concurrency": one.concurrency, "python": one.python, "scitq": one.scitq, "executions": one.executions, "busy_s": one.busy_s}
            for one in facts.workers
        ],
    }  # fmt: skip


def _counts(counts: dict[TaskState, int]) -> dict[str, int]:
    return {state.word: counts.get(state, 0) for state in TaskState}


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name, "batch": step.batch, "counts": _counts(step.counts), "cached": step.cached, "executions": step.executions,
        "tried_again": step.tried_again, "bad_ends": dict(step.bad_ends), "first": iso(step.first_ms), "last": iso(step.last_ms),
        "waiting_s": _spread(step.waiting_s), "staging_s": _spread(step.staging_s), "run_s": _spread(step.run_s),
        "collecting_s": _spread(step.collecting_s), "cpu_s": round(step.cpu_s, 3), "cpus_asked": _range(step.cpus_asked),
        "cpus_used": _spread(step.cpus_used), "memory_asked": _range(step.memory_asked), "memory_used": _spread(step.memory_used),
        "gpus_asked": _range(step.gpus_asked), "read_bytes": step.read_bytes, "written_bytes": step.written_bytes,
        "output_files": step.output_files, "output_bytes": step.output_bytes, "is_last": step.is_last,
        "containers": [{"image": image.name, "bits": image.bits, "executions": count} for image, count in step.images.most_common()],
        "commands": [{"pattern": one.text, "tasks": one.count, "example": one.first, "is_exact": one.is_exact}
                     for one in step.commands.known],
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    found = spread(values)
    return None if found is None else {key: round(value, 4) for key, value in found._asdict().items()}


def _range(asked: Range | None) -> list[float] | None:
    return None if asked is None else [asked.least, asked.most]


def _source(source: Source) -> dict[str, Any]:
    files = None if source.files is None else [_file(file) for file in source.files]
    return {"address": plain(source.address), "as": source.what, "files": files, "tasks": source.tasks}


def _file(file: File) -> dict[str, Any]:
    return {"name": plain(file.name), "size": file.size, "version": file.mark}


# --- tasks ----------------------------------------------------------------------------------------------------------------------


def tasks(facts: Facts, db: apsw.Connection) -> Iterator[dict[str, Any]]:
    """Every task. To be read to its end."""
    batches = [step.id for step in facts.steps]
    names = {step.id: step.name for step in facts.steps}
    machines = {worker.id: worker.name for worker in facts.workers}
    moves = reporting.moves(db, batches)
    for _, group in groupby(reporting.each(db, batches), key=lambda row: row.task):
        rows = list(group)
        row = rows[-1]
        spec = spec_of(row.spec)
        yield {
            "id": row.task, "name": row.name, "step": names[row.batch], "state": TaskState(row.state).word, "reason": row.reason,
            "command": spec.command, "shell": spec.shell, "env": shareable(dict(spec.env)), "container": spec.container,
            "container_options": list(spec.container_options), "cpus": spec.cpus, "memory": spec.memory, "gpus": spec.gpus,
            "input": [plain(shown(one)) for one in spec.input], "resource": [plain(shown(one)) for one in spec.resource],
            "output": None if spec.output is None else plain(shown(spec.output)),
            "executions": [_execution(one, moves, machines, db) for one in rows if one.execution is not None],
        }  # fmt: skip


def _execution(row: Row, moves: Moves, machines: dict[int, str], db: apsw.Connection) -> dict[str, Any]:
    assert row.execution is not None
    left = None
    if row.address is not None:
        files = [File(name, size, f"md5:{md5}" if md5 else None) for name, size, md5 in json.loads(row.files or "[]")]
        left = {"address": plain(shown(manifests._named(row.address))), "files": [_file(file) for file in files]}
    given = None if row.ran is None else spec_of(row.ran).command
    return {
        "id": row.execution, "attempt": row.attempt, "worker": machines.get(row.worker or 0),
        "outcome": None if row.outcome is None else Outcome(row.outcome).word, "cause": cause_of(row), "exit_code": row.exit_code,
        "signal": row.signal, "detail": row.detail, "assigned": iso(row.assigned), "staging": iso(moves.staging(row.execution)),
        "started": iso(row.started), "collecting": iso(moves.collecting(row.execution)), "ended": iso(row.ended), "run_s": row.run_s,
        "cpu_s": row.cpu_s, "peak_memory": row.peak_memory, "read_bytes": row.read_bytes, "written_bytes": row.written_bytes,
        "image": row.image, "cached_from": row.cached_from, "command": given,
        "read": None if row.parts is None else _read(json.loads(row.parts), db), "left": left,
    }  # fmt: skip


def _read(data: Any, db: apsw.Connection) -> list[dict[str, Any]]:
    """What an execution read, with what it was then, where that is known."""
    found = []
    for what, sources in zip(("input", "resource"), data, strict=True):
        for address, actions, digest in sources:
            files = reporting.files_behind(db, digest)
            found.append({
                "address": plain(shown(address)), "actions": actions, "as": what, "digest": digest,
                "files": None if files is None else [_file(File(*file)) for file in files],
            })  # fmt: skip
    return found


def plain(text: str) -> str:
    """Names of files need not be UTF-8: what JSON cannot carry is shown as its escape."""
    return text.encode(errors="backslashreplace").decode()


def iso(at_ms: int | None) -> str | None:
    """`2026-11-23T05:07:24.123Z`."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
