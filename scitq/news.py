"""What agents report, stored with all its consequences: the driver's half of a journal.

Every function runs inside the driver's transaction, which may run twice: it changes the file and its own plan, nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scitq.contact import Plan
from scitq.errors import BadAnswer, StaleDriver
from scitq.remote.link import Answer
from scitq.remote.orders import lines
from scitq.store import executions, held, manifests, workers
from scitq.store.executions import Exit
from scitq.task import ExecutionId

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# A task that runs for less is not shown as running.
SHOWN_AFTER_S = 0.03
# Lines that count for executions of that worker only: elsewhere the number may be another one's, of another copy of the file.
# (Of exits the statement that records them sees to that, of starts what shows them.)
_ABOUT_OURS = ("collected", "note")


def apply(db: apsw.Connection, now: int, plan: Plan, answer: Answer) -> None:
    """Store one answer of journal lines with all consequences; a second time it changes nothing."""
    try:
        name, start = answer.headers["scitq-journal"], int(answer.headers["scitq-from"])
    except (KeyError, ValueError):
        raise BadAnswer("an answer of the agent lacks its place in the journal.", worker=plan.worker) from None
    end = start + len(answer.body)
    if not workers.advance(db, plan.worker, plan.journal, plan.acked, name, end):
        raise StaleDriver("the journal of a worker was read by another driver meanwhile; this one stops.")
    if plan.journal is not None and (name != plan.journal or start != plan.acked):
        # The agent started a new journal, or part of the old is gone: ask what it still holds.
        plan.synced = False
    plan.journal, plan.acked = name, end
    try:
        found = lines(answer.body)
    except BadAnswer as nonsense:
        raise BadAnswer(str(nonsense), worker=plan.worker) from nonsense
    executions.reserve(db, max((id for line in found if isinstance(id := line.fields.get("id"), int)), default=0))
    for line in found:
        fields = line.fields
        try:
            if line.kind in _ABOUT_OURS and not executions.is_of(db, ExecutionId(fields["id"]), plan.worker):
                continue
            if "image" in fields and line.kind in ("start", "exit"):
                has, digest = fields["image"], fields["image"]["digest"]
                execution, image = ExecutionId(fields["id"]), str(has["id"])
                if executions.is_of(db, execution, plan.worker):
                    executions.runs_image(db, now, execution, image, None if digest is None else str(digest))
            if line.kind == "start":
                plan.starts[ExecutionId(fields["id"])] = time.monotonic()
                plan.stagings.pop(fields["id"], None)
            elif line.kind == "exit":
                plan.starts.pop(fields["id"], None)
                plan.stagings.pop(fields["id"], None)
                plan.has_news = True
                _exited(db, now, plan, fields)
                _discard(db, plan, fields)
            elif line.kind == "collected":
                plan.has_news = True
                if fields.get("held"):
                    if not held.hold(db, ExecutionId(fields["id"]), fields):
                        plan.forget.append(ExecutionId(fields["id"]))
                elif _collected(db, now, fields):
                    # Of one that did not end well the folder stays for whoever wants to look, until room is needed.
                    is_well = fields["ok"] and not fields.get("failed")
                    (plan.forget if is_well else plan.forget_logs).append(ExecutionId(fields["id"]))
                else:
                    _discard(db, plan, fields)
            elif line.kind == "stage":
                plan.stagings[ExecutionId(fields["id"])] = time.monotonic()
            elif line.kind == "note":
                plan.has_news = True
                manifests.note(db, now, ExecutionId(fields["id"]), str(fields["text"]))
            elif line.kind == "keeper":
                # It holds what it was ordered to run, but knows no more of what else was wanted.
                plan.synced = False
                plan.is_told = False
            elif line.kind == "bad":
                log.warning("worker %s refused a command: %s", plan.worker, fields.get("note"))
        except (KeyError, TypeError, ValueError) as problem:
            raise BadAnswer(
                f"a line of the agent's journal makes no sense ({problem!r}): {fields!r:.200}.", worker=plan.worker
            ) from problem


def show_running(db: apsw.Connection, now: int, plan: Plan) -> None:
    """Write down which executions run, or wait for their data. One that ends within moments is never shown as running: that
    would cost as much as its end. (A driver that dies in these moments leaves it to the next, who asks the agent what it holds.)"""
    due = time.monotonic() - SHOWN_AFTER_S
    for execution in [execution for execution, at in plan.stagings.items() if at <= due]:
        del plan.stagings[execution]
        plan.has_news = True
        if executions.is_of(db, execution, plan.worker):
            executions.staging(db, now, execution)
    for execution in [execution for execution, at in plan.starts.items() if at <= due]:
        del plan.starts[execution]
        plan.has_news = True
        if executions.is_of(db, execution, plan.worker):
            executions.started(db, execution, now)


def _discard(db: apsw.Connection, plan: Plan, fields: Mapping[str, Any]) -> None:
    """What ended of executions that were lost, and may have run elsewhere since, leaves no trace."""
    if plan.contact.is_far and executions.is_discarded(db, ExecutionId(fields["id"])):
        plan.forget.append(ExecutionId(fields["id"]))


def _collected(db: apsw.Connection, now: int, fields: Mapping[str, Any]) -> bool:
    execution, is_failed = ExecutionId(fields["id"]), bool(fields.get("failed"))
    if fields["ok"]:
        manifest = _manifest(fields) if "to" in fields else None
        return executions.collected(db, now, execution, None, manifest, is_failed=is_failed)
    problem = str(fields.get("note") or fields.get("error") or "the output could not be delivered")
    why = "cancel" if fields.get("error") == "Cancelled" else "collect"
    return executions.collected(db, now, execution, problem, is_failed=is_failed, why=why)


def _manifest(fields: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Where an output went, and its files."""
    return str(fields["to"]), list(fields["files"])


def _exited(db: apsw.Connection, now: int, plan: Plan, fields: Mapping[str, Any]) -> None:
    execution = ExecutionId(fields["id"])
    out, err = fields.get("o"), fields.get("e")
    end = Exit(
        execution=execution,
        code=fields.get("code"),
        signal=fields.get("sig"),
        why=fields.get("why"),
        note=fields.get("note") or ("its output was there already" if fields.get("why") == "exists" else None),
        output=None if out is None and fields.get("on") else (out or "").encode("latin-1"),
        error=None if err is None and fields.get("en") else (err or "").encode("latin-1"),
        output_size=fields.get("on", 0),
        error_size=fields.get("en", 0),
        output_cut=bool(fields.get("ocut")),
        error_cut=bool(fields.get("ecut")),
        collecting=bool(fields.get("collect")),
        run_s=fields.get("run"),
        cpu_s=None if fields.get("u") is None else fields["u"] + fields.get("s", 0.0),
        peak_memory_bytes=fields.get("rss"),
        read_bytes=fields.get("read", 0) if "u" in fields else None,
        written_bytes=fields.get("written", 0) if "u" in fields else None,
        manifest=_manifest(fields) if "to" in fields else None,
        trouble=fields.get("error"),
        is_final=bool(fields.get("final")),
        has_image="image" in fields,
    )
    ended = executions.exited(db, now, end, plan.worker)
    if end.run_s is not None and end.why is None:
        plan.mean_run_s = end.run_s if plan.mean_run_s is None else 0.9 * plan.mean_run_s + 0.1 * end.run_s
    if ended and fields.get("kept"):
        (plan.forget if end.code == 0 and end.why is None else plan.forget_logs).append(execution)
