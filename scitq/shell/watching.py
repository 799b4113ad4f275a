"""`scitq workflow watch`: the screen of a workflow, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.saying import several
from scitq.shell import facts
from scitq.shell.show import Screen
from scitq.store import workflows
from scitq.workflow.left import Left


def watch(engine: Engine, args: SimpleNamespace) -> int:
    """Show it until it has ended, or the user leaves."""
    name = args.workflow or _only(engine)
    workflows.get(engine._reader(), name)
    screen: Screen = args.screen
    if sys.stdin.isatty() and sys.stdout.isatty() and not args.plain and not screen.as_json:
        from scitq.workflow import screen as full

        left = full.run(engine, name, args.refresh, stays=True)
    else:
        from scitq.workflow import lines

        left = lines.follow(engine, name, args.refresh, sys.stdout, as_json=screen.as_json)
    if left is Left.DESTROYED:
        screen.say(f"Workflow {name} was deleted.")
        return 0
    if left is Left.ENDED:
        return 0
    row = workflows.get(engine._reader(), name)
    queued = workflows.unsettled(engine._reader(), row.id)
    if queued:
        again = facts.command_for(engine, f"workflow watch {facts.quoted(name)}")
        goes_on = "goes" if queued == 1 else "go"
        screen.say(f"{name}: {several(queued, 'task')} {goes_on} on. To come back: {again}")
        for note in facts.nobody_drives(engine):
            screen.say(note)
    return 130 if left is Left.INTERRUPTED else 0


def _only(engine: Engine) -> str:
    """The one workflow there is, or the one that was run last."""
    found = workflows.all_of(engine._reader())
    if not found:
        raise BadInput(f"no workflow is in {engine.path.name}. A script makes one: from scitq.workflow import Workflow")
    return max(found, key=lambda row: (row.started_ms or row.created_ms, row.id)).name
