"""`scitq watch`: the answer of a command, again whenever the file changes, with what is new in it marked."""

from __future__ import annotations

import os
import shlex
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click

from scitq.shell import facts
from scitq.shell.live.shots import Camera, Shot, only_reads
from scitq.shell.show import Screen

if TYPE_CHECKING:
    from scitq.engine import Engine

DUMB = ("", "dumb", "unknown")
LEAST_S = 0.1
# What does nothing is looked at all the same: ages go on, and a driver that dies says nothing.
QUIET_S = 15.0


def watch(engine: Engine, args: SimpleNamespace) -> int:
    """Repeat it until the user leaves."""
    screen: Screen = args.screen
    words = list(args.command) or ["status"]
    as_json = screen.as_json or "--json" in words
    words = [word for word in words if word != "--json"]
    row = only_reads(words)
    if row.path == "top":
        words = [*words, *(["--once"] if "--once" not in words else [])]
    every_s = args.seconds
    if not every_s >= LEAST_S:
        raise click.UsageError(f"-n takes seconds, {LEAST_S:g} or more, not {every_s:g}.")
    if args.times is not None and args.times < 1:
        raise click.UsageError(f"--times takes 1 or more, not {args.times}.")
    camera = Camera(engine, words, as_json=as_json)
    is_full = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in DUMB
    facts.hush()
    if not is_full or as_json or args.times is not None:
        return _again_and_again(engine, camera, Screen(as_json=as_json), every_s, args.times)
    from scitq.shell.live.watchscreen import run

    return run(engine, camera, shlex.join(words), every_s)


def _again_and_again(engine: Engine, camera: Camera, screen: Screen, every_s: float, times: int | None) -> int:
    """Print it, and once more, after a blank line, when it has changed; until Ctrl-C, or nobody reads it any more, or it was said
    so many times. Gives the exit code of the last one."""
    last: Shot | None = None
    told = 0
    while True:
        seen, began = engine._changes.count, time.monotonic()
        shot = camera.take()
        if shot != last:
            if last is not None and not screen.as_json:
                screen.out("")
            _print(screen, shot)
            told += 1
            if times is not None and told >= times:
                return shot.code
        last = shot
        engine._changes.wait(seen, QUIET_S)
        time.sleep(max(0.0, began + every_s - time.monotonic()))


def _print(screen: Screen, shot: Shot) -> None:
    if shot.answer is not None:
        screen.answer(shot.answer)
    for line in shot.lines:
        screen.out(line)
    if shot.code or shot.answer is None:
        for note in shot.notes:
            screen.say(note)
