"""`scitq execution list|output`: the attempts at tasks, each by its own number, as in scitq 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.handle import Task
from scitq.shell import facts
from scitq.shell.answers import Column, Rows, Text, several
from scitq.shell.show import Screen
from scitq.shell.tasks import output as output_of
from scitq.shell.tasks import some_of
from scitq.states import Outcome
from scitq.store import batches, executions, listing
from scitq.task import ExecutionRow, TaskRow

# What an execution is called that has not ended.
LIVE = "live"


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The newest executions, the oldest of them first."""
    db = engine._reader()
    outcomes = _outcomes(args.status)
    if args.batch is not None:
        batches.known(db, args.batch)
    chosen = [task.id for task in some_of(engine, args)] if args.ids or args.by_id or args.by_name else None
    limit = args.limit if args.limit > 0 else 1 << 40
    found = executions.newest(db, limit + 1, tasks=chosen, batch=args.batch, outcomes=outcomes or None)
    more = len(found) > limit
    found = found[:limit][::-1]
    tasks = {row.id: row for row in listing.select(db, ids=list({one.task for one in found}), limit=len(found))}
    rows = [_facts(one, tasks[one.task]) for one in found]
    columns = [Column("id"), Column("_task", "task", gives=True), Column("attempt", "try", worth=25),
               Column("_outcome", "outcome", gives=True),
               Column("worker", worth=30), Column("run_s", "time", worth=20), Column("peak_memory", "memory", worth=10),
               Column("_when", "since", worth=40)]  # fmt: skip
    if any(row["detail"] for row in rows) or args.long:
        columns.append(Column("detail", "why", gives=True, worth=43, good=12))
    if args.long:
        long = {"batch": None, "cpu_s": "CPU time", "read_bytes": "read", "written_bytes": "written", "exit_code": "exit", "assigned": None,
                "started": None, "ended": None, "image": None, "_line": "command"}  # fmt: skip
        columns += [Column(key, heading) for key, heading in long.items()]
    notes = [f"These are the newest {len(rows)}; --limit N shows more, --limit 0 all."] if more else []
    return Rows(
        columns,
        rows,
        notes if rows else ["No such executions."],
        head=bool(rows) and not args.no_header,
        cut=not args.long,
    )


def _outcomes(given: Sequence[str]) -> list[Outcome | None]:
    """How they ended; None for what is live."""
    words = [word.strip().lower() for one in given for word in one.split(",")]
    return [None if word == LIVE else Outcome[word.upper()] for word in words]


def _facts(one: ExecutionRow, task: TaskRow) -> dict[str, Any]:
    found = facts.execution_facts(one)
    return {
        **found, "task": int(task.id), "name": task.name, "batch": task.batch, "_task": task.label, "_line": task.spec.line(),
        "_outcome": found["cause"] or (task.state.word if one.outcome is None else one.outcome.word),
        "_when": found["ended"] or found["started"] or found["assigned"],
    }  # fmt: skip


def output(engine: Engine, args: SimpleNamespace) -> Text | int:
    """What one execution wrote: named by its number, or by its task and how many it is before the latest."""
    chosen = _chosen(engine, args)
    wanted = SimpleNamespace(**vars(args))
    wanted.task, wanted.by_id, wanted.by_name = str(int(chosen.task)), (), ()
    wanted.execution, wanted.follow = int(chosen.id), False
    if args.lines is not None and args.lines < 1:
        raise click.UsageError("--lines takes a number from 1 on.")
    names = [name.strip() for given in args.columns for name in given.split(",")]
    row = _facts(chosen, engine.task(int(chosen.task)).row())
    if names and not args.screen.as_json:
        args.screen.table(Rows([Column(name) for name in names], [row], head=not args.no_header, cut=False))
        args.screen.out("")
    found = output_of(engine, wanted) if args.lines is None else _last_lines(engine, args, chosen)
    if names and isinstance(found, Text):
        return replace(found, data={**found.data, "fields": {name: row[name] for name in names}})
    return found


def _chosen(engine: Engine, args: SimpleNamespace) -> ExecutionRow:
    number = args.execution if args.execution is not None else args.number
    named = bool(args.by_id or args.by_name)
    if number is not None and (named or args.relative is not None or args.status):
        raise click.UsageError("either an execution by its number, or a task, -N and -S.")
    if number is not None:
        found = executions.find(engine._reader(), number)
        if found is None:
            raise BadInput(f"no execution has the number {number}. scitq execution list shows them.")
        return found
    if not named:
        raise click.UsageError(
            "which execution? Give its number, or a task with -i or -n; scitq execution list shows them."
        )
    tasks = some_of(engine, SimpleNamespace(ids=(), by_id=args.by_id, by_name=args.by_name))
    if len(tasks) > 1:
        raise click.UsageError("one task at a time.")
    return _relative(tasks[0], args.relative or 0, _outcomes(args.status))


def _relative(task: Task, relative: int, outcomes: Sequence[Outcome | None]) -> ExecutionRow:
    """The latest attempt (that ended so), or one so many before it."""
    attempts = [one for one in task.executions if not outcomes or one.outcome in outcomes]
    place = len(attempts) - 1 - abs(relative)
    if place < 0:
        such = "such execution" if outcomes else "execution"
        raise BadInput(
            f"task {task.row().label} has {several(len(attempts), such)}: there is none {relative} from the latest."
        )
    return attempts[place]


def _last_lines(engine: Engine, args: SimpleNamespace, chosen: ExecutionRow) -> Text | int:
    """The end of it: what is kept in memory is no more than that."""
    screen: Screen = args.screen
    only = [stream for stream, wanted in enumerate((args.stdout, args.stderr)) if wanted]
    texts = {stream: _tail(engine, int(chosen.id), stream, args.lines) for stream in only or (0, 1)}
    if screen.as_json:
        told = {("stdout", "stderr")[stream]: text.decode(errors="replace") for stream, text in texts.items()}
        return Text("", {"task": int(chosen.task), "execution": int(chosen.id), **told})
    for stream, text in texts.items():
        screen.piece(1 if len(texts) == 1 else 1 + stream, text)
    screen.pieces_end()
    return 0


def _tail(engine: Engine, execution: int, stream: int, lines: int) -> bytes:
    offset, kept = 0, b""
    while piece := engine._log_bytes(execution, stream, offset, limit=1 << 20):
        offset += len(piece)
        kept = b"".join((kept + piece).splitlines(keepends=True)[-lines:])
    return kept
