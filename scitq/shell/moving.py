"""`scitq promote` and `demote`, and what they call at the other end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from scitq import hostside, promotion
from scitq.engine import Engine
from scitq.shell.answers import Text
from scitq.shell.show import Screen


def promote(engine: Engine, args: SimpleNamespace) -> Text:
    """Move the file to a host, and drive it there."""
    screen: Screen = args.screen
    there = promotion.promote(
        engine._store, args.host, folder=args.folder, python=args.python, is_forced=args.force, say=screen.say
    )
    data = {"host": there.host, "path": there.path, "program": there.program, "driving": True}
    return Text(
        f"{engine.path.name} is driven on {there.host} ({there.path}). scitq's commands given here go there; scitq demote brings it "
        "back. You can close the lid.",
        data,
    )


def demote(engine: Engine, args: SimpleNamespace) -> Text:
    """Bring the file back from the host that drives it."""
    screen: Screen = args.screen
    store = engine._store
    said = promotion.abandon(store) if args.abandon else promotion.demote(store, is_forced=args.force, say=screen.say)
    return Text(f"{said} To go on: scitq up", {"note": said})


def host_side(_: None, args: SimpleNamespace) -> int:
    """One step of a promotion on the host, for the program at the other end."""
    hostside.step(
        args.verb, Path(args.path), list(args.words), sys.stdin.buffer, sys.stdout.buffer, is_forced=args.force
    )
    return 0
