"""`scitq task enter`, `adopt` and `debug`, `scitq debug`: trying by hand what failed, and a workflow one task at a time."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import SimpleNamespace

from scitq import adopting, visiting
from scitq.engine import Engine
from scitq.entering import sandbox_of
from scitq.errors import BadInput
from scitq.handle import Task
from scitq.shell import facts
from scitq.shell.answers import Text, clean, several
from scitq.shell.editing import Unconfirmed
from scitq.shell.show import Screen, result_apart
from scitq.shell.tasks import one_of
from scitq.worker import LOCAL


def enter(engine: Engine, args: SimpleNamespace) -> Text:
    """A shell in what the newest try of a task left, or one command there."""
    screen: Screen = args.screen
    task = one_of(engine, args)
    with result_apart(screen):
        code = visiting.visit(engine, task.id, args.command, screen.say)
    return Text("", {"exit_code": code}, code=code)


def adopt(engine: Engine, args: SimpleNamespace) -> Text:
    """Make an edited script the command of a task, or of its step, after a look at what that changes."""
    screen: Screen = args.screen
    task = one_of(engine, args)
    row = task.row()
    before, script = adopting.script_of(row.spec), _script(engine, args)
    if script is None:
        with sandbox_of(engine, task.id) as sandbox:
            script = sandbox.script()
        if script is None:
            raise BadInput(f"nobody has entered task {row.label} yet. First: scitq task enter {task.id}")
    wanted = adopting.plan(engine, task.id, script, step=args.step)
    data = {
        "changed": 0, "unlaunched": len(wanted.unlaunched), "ended": len(wanted.failed), "unlike": [int(id) for id in wanted.unlike],
    }  # fmt: skip
    if not wanted.commands:
        return Text(f"{row.label}: nothing differs from its command.", data)
    if not screen.as_json:
        screen.say("\n".join(clean(line) for line in adopting.diff(before, script)[: visiting.DIFF_LINES]))
        screen.say(f"{several(len(wanted.commands), 'task')} would get it: {wanted.describe()}.")
    if not args.yes:
        answer = screen.ask("Adopt it?")
        if answer is None:
            raise Unconfirmed("Adopt it? Nothing was done: there is no terminal to ask on. To do it: --yes")
        if not answer:
            return Text("", data, ["Nothing was done."], code=1)
    done = adopting.carry_out(engine, wanted, relaunch=args.relaunch)
    notes = facts.nobody_drives(engine) if args.relaunch and done.failed else []
    return Text(visiting.told(done, relaunched=args.relaunch), {**data, "changed": done.done}, notes)


def debug(engine: Engine, args: SimpleNamespace) -> Text:
    """Run a task in the foreground, here; the file does not change."""
    from scitq import foreground

    screen: Screen = args.screen
    task = one_of(engine, args) if args.task or args.by_id or args.by_name else _any_queued(engine, args.batch)
    worker = next((row for row in engine.workers() if row.kind == LOCAL), None)
    with result_apart(screen):
        code = foreground.run(
            engine, task.id, Path.cwd(), screen.say, fetches=not args.retry, with_resource=not args.no_resource,
            container_engine=None if worker is None else worker.container_engine,
        )  # fmt: skip
    return Text("", {"id": int(task.id), "exit_code": code, "folder": foreground.folder_of(task.row())}, code=code)


def _any_queued(engine: Engine, batch: str | None) -> Task:
    """One of those that could run now."""
    found = engine.tasks(status="pending", batch=batch, limit=1000)
    if not found:
        where = "" if batch is None else f" of batch {batch}"
        raise BadInput(f"no task{where} is pending. Say which one: scitq task list")
    return random.choice(found)


def script(engine: Engine | None, args: SimpleNamespace) -> Text | int:
    """Run a script whose workflows are debugged, one task at a time."""
    from scitq.shell import workflows

    args.plan = args.prune = args.yes = args.offers = False
    args.debug = True
    return workflows.run(engine, args)


def _script(engine: Engine, args: SimpleNamespace) -> str | None:
    """The script of a file, if one was given."""
    if args.script is None:
        return None
    if args.script == "-":
        return sys.stdin.read()
    return Path(args.script).read_text(encoding="utf-8", errors="surrogateescape")
