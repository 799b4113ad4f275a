"""`scitq workflow …`: which there are and how far, scripts run and planned, paused, deleted."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from scitq.errors import BadInput, ScitqError, WorkflowFailed, WorkflowLeft
from scitq.shell import facts
from scitq.shell.answers import Column, Rows, Text, When, several
from scitq.shell.show import result_apart
from scitq.states import BAD, Halt, TaskState
from scitq.store import workflows

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.shell.show import Screen
    from scitq.store.workflows import StepRow, WorkflowRow

INTERRUPTED = 130
# So long workers are waited for that have to stop tasks of a workflow before it can be deleted.
DESTROY_S = 60.0


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The workflows, and how far each is."""
    db, rows = engine._reader(), []
    for row in workflows.all_of(db):
        steps = workflows.steps(db, row.id)
        counts: dict[TaskState, int] = {}
        for step in steps:
            for state, n in step.counts.items():
                counts[state] = counts.get(state, 0) + n
        rows.append({
            "workflow": row.name, "state": _state(row, steps, counts), "steps": len(steps), "tasks": sum(counts.values()),
            "done": counts.get(TaskState.SUCCEEDED, 0), "running": facts.live(counts),
            "failed": sum(n for state, n in counts.items() if state in BAD),
            "started": None if row.started_ms is None else When(row.started_ms), "script": row.script,
        })  # fmt: skip
    columns = [
        Column("workflow", gives=True),
        Column("state"),
        Column("steps", worth=10),
        *(Column(key) for key in ("tasks", "done", "running", "failed")),
        Column("started", worth=20),
    ]
    notes = [] if rows else [f"{engine.path.name} has no workflows yet."]
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header)


def _state(row: WorkflowRow, steps: list[StepRow], counts: dict[TaskState, int]) -> str:
    halts = {step.halt for step in steps}
    if Halt.SUSPENDED in halts or Halt.PAUSED in halts:
        return (Halt.SUSPENDED if Halt.SUSPENDED in halts else Halt.PAUSED).word
    open_ones = sum(n for state, n in counts.items() if not state.is_settled)
    if open_ones:
        return "running" if facts.live(counts) else "queued"
    if not counts:
        return "empty"
    return "failed" if any(state in BAD for state in counts) else "done"


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """One workflow, step by step."""
    from scitq.workflow.summary import summary

    row = workflows.get(engine._reader(), args.name)
    found = summary(engine, args.name)
    data = {**found.to_dict(), "script": row.script, "settings": dict(row.settings)}
    lines = [str(found)]
    if row.script:
        lines.append(f"Declared by {row.script}.")
    if found.failed:
        named = ", ".join(task.row().label for task in found.failed[:5])
        lines.append(f"Failed: {named}{' …' if len(found.failed) > 5 else ''}")
    return Text("\n".join(lines), data)


def pause(engine: Engine, args: SimpleNamespace) -> Text:
    """Launch nothing more of them."""
    return _halt(engine, args, Halt.SUSPENDED if args.suspend else Halt.PAUSED)


def unpause(engine: Engine, args: SimpleNamespace) -> Text:
    """Let them go on."""
    return _halt(engine, args, Halt.GO)


def _halt(engine: Engine, args: SimpleNamespace, wanted: Halt) -> Text:
    from scitq.workflow.workflow import halt

    for name in args.names:  # all of them known before anything is done
        workflows.get(engine._reader(), name)
    data = [
        {"workflow": name, "state": wanted.word, "told": halt(engine, name, wanted)}
        for name in dict.fromkeys(args.names)
    ]
    lines = [f"{one['workflow']} {'goes on' if wanted is Halt.GO else f'is {wanted.word}'}." for one in data]
    return Text("\n".join(lines), data, facts.nobody_drives(engine) if wanted is Halt.GO else [])


def delete(engine: Engine, args: SimpleNamespace) -> Text:
    """Delete a workflow with its tasks."""
    from scitq.selection import Selection
    from scitq.shell.editing import confirmed
    from scitq.workflow.deeds import destroy, refuse

    row = workflows.get(engine._reader(), args.name)
    refuse(engine, args.name)
    counts: dict[TaskState, int] = {}
    for step in workflows.steps(engine._reader(), row.id):
        for state, n in step.counts.items():
            counts[state] = counts.get(state, 0) + n
    live = facts.live(counts)
    said = f"{several(sum(counts.values()), 'task')} of {args.name}: {facts.counted(counts)}. "
    said += "All are deleted with all history and logs; what was delivered stays"
    said += f"; {several(live, 'task')} at the workers {'is' if live == 1 else 'are'} cancelled first." if live else "."
    chosen = Selection(engine, sorted(workflows.all_tasks(engine._reader(), row.id)))
    if not confirmed(engine, args, said, f"Delete {args.name}?", chosen):
        return Text("", {"workflow": args.name, "deleted": 0}, ["Nothing was done."], code=1)
    screen: Screen = args.screen
    count = destroy(engine, args.name, said=screen.status_line, timeout_s=DESTROY_S) or 0
    screen.clear_line()
    return Text(f"{args.name} was deleted: {several(count, 'task')}.", {"workflow": args.name, "deleted": count})


# --- scripts ------------------------------------------------------------------------------------------------------------------


def plan(engine: Engine | None, args: SimpleNamespace) -> Text | int:
    """What running a script would do."""
    args.plan = True
    return run(engine, args)


def run(_: Engine | None, args: SimpleNamespace) -> Text | int:
    """Run a script, and its workflows to their end."""
    from scitq.workflow import mode

    screen: Screen = args.screen
    if not os.path.isfile(args.script):
        raise BadInput(f"{args.script}: there is no such script.")
    mode.current = mode.Mode(
        plan_only=args.plan, offers=args.offers, fresh=args.fresh, prune=args.prune, file=None if args.file is None else Path(args.file),
        script=os.path.abspath(args.script), is_set=True, debug=getattr(args, "debug", False),
    )  # fmt: skip
    try:
        with result_apart(screen):
            code = _executed(args.script, args.words)
            if code:
                return code
            for workflow in mode.current.made:  # what was only started, or only declared, is run
                if workflow._by_step and not workflow.is_over:
                    found = workflow.plan(offers=args.offers) if args.plan else workflow.run()
                    if args.plan:
                        raise mode.PlanShown(found)  # type: ignore[arg-type]
                    if not screen.as_json:
                        screen.say(str(found))
    except mode.PlanShown as shown:
        return _planned(shown.plan, args)
    except WorkflowLeft as left:
        screen.say(str(left))
        return INTERRUPTED if getattr(left, "left", None) is not None and left.left.value == "interrupted" else 0  # type: ignore[attr-defined]
    except WorkflowFailed as problem:
        if screen.as_json:
            return Text(
                "", [workflow.status().to_dict() for workflow in mode.current.made if workflow.is_started], code=1
            )
        screen.error(str(problem))
        return 1
    finally:
        made, mode.current = mode.current.made, mode.Mode()
        for workflow in made:
            workflow.quit()
    if args.plan:
        screen.say("The script declares no workflow.")
    if screen.as_json:
        return Text("", [workflow.status().to_dict() for workflow in made if workflow.is_started])
    return 0


def _planned(found: Any, args: SimpleNamespace) -> Text | int:
    """Show the plan; on a terminal it may be run then."""
    screen: Screen = args.screen
    text = Text(str(found), found.to_dict())
    if screen.as_json or not found.has_changes or not (args.yes or (sys.stdin.isatty() and sys.stdout.isatty())):
        return text
    screen.answer(text)
    if not args.yes and not screen.ask("Run?"):
        return 0
    words = [
        sys.executable,
        "-m",
        "scitq",
        "workflow",
        "run",
        *(["--fresh"] if args.fresh else []),
        *(["--prune"] if args.prune else []),
    ]
    words += ["-f", str(args.file)] if args.file is not None else []
    sys.stdout.flush()
    os.execv(sys.executable, [*words, args.script, *args.words])


def _executed(script: str, words: tuple[str, ...]) -> int:
    """Run a script as Python would; returns its exit code. Its mistakes are told as Python tells them, ours in a sentence."""
    from scitq.workflow.mode import PlanShown

    path = os.path.abspath(script)
    before = sys.argv, list(sys.path)
    sys.argv, sys.path[0] = [script, *words], os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except (PlanShown, WorkflowFailed, WorkflowLeft, KeyboardInterrupt):
        raise
    except SystemExit as end:
        if isinstance(end.code, str):
            click.echo(end.code, err=True)
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except ScitqError as problem:
        lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == path]
        place = f"{script}, line {lines[-1]}: " if lines else ""
        raise type(problem)(f"{place}{problem}", **problem.parts) from problem
    except Exception as error:
        behind = error.__traceback__
        while behind is not None and behind.tb_frame.f_code.co_filename != path:
            behind = behind.tb_next
        traceback.print_exception(type(error), error, behind)
        return 1
    finally:
        sys.argv, sys.path[:] = before
    return 0
