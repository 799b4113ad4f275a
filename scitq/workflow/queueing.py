"""A declaration put into the state file: one transaction, so that after a crash there is nothing of it or all.

What is to be done is decided by `plan`, inside that transaction, from what the file says then. Tasks that are to run otherwise
but are on a worker are cancelled first, in a transaction of its own: killed in between, the next start finds them cancelled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scitq.money import Scope
from scitq.states import FINAL, LIVE, Outcome, Probe, Stage, TaskState
from scitq.store import cache, costs, debugging, listing, query, tasks, workflows
from scitq.store.listing import LISTED
from scitq.store.workflows import Member, WorkflowId
from scitq.task import TaskId, describe
from scitq.workflow import recruit
from scitq.workflow.declare import Declared, resolved
from scitq.workflow.given import Recruiting
from scitq.workflow.plan import Action, Item, Plan, Standing, failure, plan

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine
    from scitq.money import Limit
    from scitq.task import BatchId, ExecutionId
    from scitq.workflow.marks import Marks

# Of up to so many declarations each is looked up by itself; of more, all of the workflow's tasks are read.
FEW = 500


@dataclass
class Intent:
    """What is to be put into the file: all that is known of it in memory."""

    workflow: str
    settings: Mapping[str, Any]
    script: str | None
    declared: Sequence[Declared]
    steps: Mapping[str, tuple[int, Recruiting]]  # by name: position, and what is said of workers
    marks: Marks
    fresh: bool = False
    debug: bool = False
    complete: bool = True  # nothing else is declared
    grown: bool = False  # it was started before
    prune: bool = False  # what vanished is deleted
    limits: Mapping[str, Limit] = field(default_factory=dict)  # how much may be spent, by step; "": on all of it


@dataclass
class Entered:
    """What came of it. `stopping`: tasks that were cancelled first; it is to be tried again once they have ended."""

    plan: Plan
    stopping: list[int] = field(default_factory=list)
    gone: list[ExecutionId] = field(default_factory=list)


def standings(
    db: apsw.Connection, found: Sequence[Member], names: Mapping[BatchId, str]
) -> dict[tuple[str, str], Standing]:
    """How the tasks stand that a workflow declared before, by step and name."""
    ids = [member.task for member in found]
    wins = _wins(db, ids)
    causes = _causes(db, [member.task for member in found if member.state in _ENDED_BADLY])
    return {
        (names[member.batch], member.name): Standing(
            member.task, member.state, wins.get(member.task), member.digest, member.position, member.seen,
            causes.get(member.task), member.grown,
        )
        for member in found
    }  # fmt: skip


_ENDED_BADLY = frozenset({TaskState.FAILED, TaskState.BLOCKED})


def _wins(db: apsw.Connection, ids: Sequence[int]) -> dict[int, int]:
    """The newest success of each of these tasks that has one."""
    rows = query.rows(
        db,
        f"""select task, max(id) from execution where task in {LISTED} and outcome = {int(Outcome.SUCCEEDED)} group by task""",
        (json.dumps(ids),),
    )
    return dict(rows)


def _causes(db: apsw.Connection, ids: Sequence[int]) -> dict[int, str]:
    """How the tasks ended, or why they are blocked."""
    found: dict[int, str] = {}
    for task, reason, state, outcome, stage, code, signal in query.rows(
        db,
        f"""select task.id, task.reason, task.state, outcome, stage, exit_code, signal from task left join execution
        on execution.id = (select max(id) from execution where execution.task = task.id) where task.id in {LISTED}""",
        (json.dumps(ids),),
    ):
        if state == TaskState.BLOCKED:
            found[task] = "blocked" if reason is None else f"blocked: {reason}"
        elif outcome is not None:
            found[task] = describe(Outcome(outcome), None if stage is None else Stage(stage), code, signal) or "failed"
    return found


def decide(db: apsw.Connection, intent: Intent) -> tuple[Plan, dict[tuple[str, str], Standing], dict[str, BatchId]]:
    """What a start would do now; nothing is written."""
    row = query.row(db, "select id from workflow where name = ?", (intent.workflow,))
    batch_of: dict[str, BatchId] = {}
    existing: dict[tuple[str, str], Standing] = {}
    if row is not None:
        steps = workflows.steps(db, WorkflowId(row[0]))
        batch_of = {step.step: step.id for step in steps}
        names = {step.id: step.step for step in steps}
        if intent.complete or len(intent.declared) > FEW:
            found = list(workflows.members(db, WorkflowId(row[0])))
        else:
            wanted = [(batch_of[one.step], one.name) for one in intent.declared if one.step in batch_of]
            found = [member for batch, name in wanted if (member := workflows.member(db, batch, name)) is not None]
        existing = standings(db, found, names)
    made = {one.number for one in intent.declared}
    made |= {standing.task for standing in existing.values()}
    others = sorted({parent for one in intent.declared for parent in one.parents if parent not in made})
    outside = _outside(db, others)
    decided = plan(
        intent.workflow, intent.declared, existing, others=outside, seen=intent.marks.of, fresh=intent.fresh,
        complete=intent.complete, notes=intent.marks.notes(),
    )  # fmt: skip
    return decided, existing, batch_of


def _outside(db: apsw.Connection, ids: Sequence[int]) -> dict[int, Standing]:
    """How tasks stand that are required, but not declared here."""
    if not ids:
        return {}
    wins = _wins(db, ids)
    rows = query.rows(db, f"select id, state from task where id in {LISTED}", (json.dumps(ids),))
    return {id: Standing(id, TaskState(state), wins.get(id)) for id, state in rows}


def enter(engine: Engine, intent: Intent) -> Entered:
    """Put a declaration into the file; afterwards each of its tasks has its number.

    Raises:
        UnknownTask: a task that is required is gone; nothing was queued.
    """
    # What it reads was looked at before: no storage is asked while others wait for the file.
    now = time.time_ns() // 1_000_000
    done, numbers = engine._write(lambda db: _enter(engine, db, now, intent))
    if not done.stopping:
        for one, number in zip(intent.declared, numbers, strict=True):
            one.id = number
            one.spec = None  # it is in the file
        engine._drop_logs(done.gone)
    engine._drive()
    return done


def _enter(engine: Engine, db: apsw.Connection, now: int, intent: Intent) -> tuple[Entered, list[int]]:
    decided, existing, batch_of = decide(db, intent)
    reruns = [item for item in decided.items if item.action is Action.RERUN and item.task is not None]
    if any(item.state in LIVE for item in reruns):
        # None of them may begin while the others come to their end.
        stopping = [item.task for item in reruns if item.state not in FINAL and item.state is not TaskState.BLOCKED]
        for task in stopping:
            assert task is not None
            tasks.cancel(db, now, TaskId(task))
        return Entered(decided, [task for task in stopping if task is not None]), []
    done = Entered(decided)
    workflow = workflows.put(db, now, intent.workflow, intent.settings, intent.script)
    if not intent.grown:
        workflows.begun(db, now, workflow)
    for step, (position, recruiting) in intent.steps.items():
        batch_of[step] = workflows.put_step(db, workflow, intent.workflow, step, position)
        recruit.put(db, batch_of[step], recruiting)
    for step, limit in intent.limits.items():
        costs.declare_limit(db, Scope("batch", batch_of[step]) if step else Scope("workflow", workflow), limit)
    numbers: dict[int, int] = {one.id: one.id for one in intent.declared if one.id is not None}
    for item in decided.items:
        if item.declared is not None and item.task is not None and not item.replaced:
            numbers[item.declared.number] = item.task

    def number(of: int) -> int:
        return numbers.get(of, of)

    for item in decided.items:
        if item.declared is not None and item.task is not None and not item.replaced:
            _alter(db, now, item, number, intent, existing[item.step, item.name])
    fresh_ones = [item for item in decided.items if item.action is Action.NEW or item.replaced]
    for offset, item in enumerate(fresh_ones, tasks.last_id(db) + 1):
        assert item.declared is not None
        numbers[item.declared.number] = offset
    for item in fresh_ones:
        if item.task is not None:
            workflows.supersede(db, TaskId(item.task))
            tasks.cancel(db, now, TaskId(item.task))
    if fresh_ones:
        _insert(engine, db, now, fresh_ones, number, batch_of, intent)
    _write_members(db, workflow, decided, existing, numbers, batch_of, intent)
    done.gone = _drop(engine, db, now, workflow, decided if intent.prune or intent.fresh else None)
    return done, [numbers[one.number] for one in intent.declared]


def _alter(db: apsw.Connection, now: int, item: Item, number: Any, intent: Intent, standing: Standing) -> None:
    """What is done with a task that keeps its place: run it again, and what is declared otherwise, edited."""
    one, task = item.declared, item.task
    assert one is not None and task is not None
    id = TaskId(task)
    state = item.state
    if intent.debug and not item.changes and item.reason == failure(standing) and debugging.is_skipped(db, id):
        return  # only for having failed it would run again, and who debugs has said not to ask about that
    if item.action is Action.RERUN and state in FINAL:
        state = tasks.relaunch(db, now, id)
    if item.changes and state not in LIVE:
        spec = listing.spec_of(_resolved(one, number))
        fields = [name for name in item.changes if name not in ("requires", "priority")]
        changes = {name: getattr(spec, name) for name in fields}
        requires = sorted({number(parent) for parent in one.parents}) if "requires" in item.changes else None
        priority = one.priority if "priority" in item.changes else None
        if changes or requires is not None or priority is not None:
            tasks.update(db, now, id, changes, requires=requires, priority=priority)
    if item.action is Action.RERUN and not intent.fresh and one.spec is not None and '"use_cache":true' in one.spec:
        db.execute(
            f"update task set probe = {int(Probe.WANTED)} where id = ? and state <> {int(TaskState.SUCCEEDED)} and probe = 0",
            (id,),
        )
    if intent.debug:
        tasks.hold_for_debug(db, now, id)
    elif state is TaskState.DEBUG:
        tasks.release_from_debug(db, now, id)


def _resolved(one: Declared, number: Any) -> str:
    """The text of a spec, with the numbers that tasks have in the file."""
    assert one.spec is not None
    return resolved(one.spec, number) if "task://" in one.spec else one.spec


def _insert(
    engine: Engine,
    db: apsw.Connection,
    now: int,
    items: Sequence[Item],
    number: Any,
    batch_of: Mapping[str, BatchId],
    intent: Intent,
) -> None:
    needs: dict[Any, int] = {}
    rows, requires = [], []
    for item in items:
        one = item.declared
        assert one is not None
        if one.need not in needs:
            needs[one.need] = tasks.need_id(db, one.need)
        rows.append((one.name, batch_of[one.step], one.priority, _resolved(one, number), needs[one.need]))
        requires.append(sorted({number(parent) for parent in one.parents}))
    state = TaskState.DEBUG if intent.debug else TaskState.PENDING
    ids = tasks.add_many(db, now, rows, engine._submitter.context(db), requires if any(requires) else None, state=state)
    if any('"use_cache":true' in row[3] for row in rows):
        tasks.want_probes(db, ids)


def _write_members(
    db: apsw.Connection,
    workflow: WorkflowId,
    decided: Plan,
    existing: Mapping[tuple[str, str], Standing],
    numbers: Mapping[int, int],
    batch_of: Mapping[str, BatchId],
    intent: Intent,
) -> None:
    """Of each task what was declared; rows that say it already are left alone."""
    rows = []
    for item in decided.items:
        one = item.declared
        if one is None:
            continue
        old = existing.get(one.key)
        marks = intent.marks.of(one)
        grown = intent.grown or one.origin is not None
        if old is not None and not item.replaced:
            if item.state in LIVE and item.changes:
                continue  # its conditions are edited by a later start, when it has ended
            if marks is not None and old.seen is not None and len(marks) == len(old.seen):
                # What could not be looked at now keeps the mark that it had.
                marks = [before if now is None else now for before, now in zip(old.seen, marks, strict=True)]
            same = old.digest == one.digest and old.position == one.position and bool(old.grown) == grown
            if same and (marks is None or (old.seen is not None and tuple(marks) == old.seen)):
                continue
            if marks is None and old.seen is not None:
                marks = list(old.seen)
        seen = None if marks is None else json.dumps(marks)
        rows.append(
            (numbers[one.number], batch_of[one.step], one.name, one.digest, one.position, seen, one.origin, int(grown))
        )
    workflows.put_members(db, workflow, rows)


def _drop(
    engine: Engine, db: apsw.Connection, now: int, workflow: WorkflowId, pruned: Plan | None
) -> list[ExecutionId]:
    """Delete tasks in whose place others stand, and (if wanted) those that vanished, where nobody needs them any more."""
    wanted = [int(task) for task in workflows.superseded(db, workflow)]
    if pruned is not None:
        for item in pruned.vanished:
            assert item.task is not None
            if tasks.cancel(db, now, TaskId(item.task)) in FINAL:
                wanted.append(item.task)
    if not wanted:
        return []
    listed = json.dumps(wanted)
    held = {
        id
        for (id,) in query.rows(
            db,
            f"""select parent from requirement where parent in {LISTED} and child not in {LISTED}
            union select id from task where id in {LISTED} and execution is not null""",
            (listed, listed, listed),
        )
    }
    free = [task for task in wanted if task not in held]
    cache.keep(db, free, engine.side)
    return tasks.delete(db, now, free) if free else []
