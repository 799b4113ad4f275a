"""A visit to what a task left, with somebody at the terminal: the shell, and the question what becomes of a changed command.sh.

`entering` finds the folder and leads there; `adopting` decides and writes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq import adopting
from scitq.entering import Ready, Sandbox, sandbox_of
from scitq.errors import BadInput
from scitq.saying import clean, duration
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.adopting import Adoption
    from scitq.engine import Engine

Say = Callable[[str], None]
# Of a diff, so many lines are shown.
DIFF_LINES = 60


def visit(engine: Engine, task: TaskId, command: str | None = None, say: Say | None = None) -> int:
    """Enter what the newest execution of a task left, with a shell or to run one command there; gives the exit code.

    Raises:
        BadInput: there is nothing to enter, or no terminal for a shell.
    """
    say = say or _say
    has_terminal = os.isatty(0) and os.isatty(1)
    if command is None and not has_terminal:
        raise BadInput("a shell needs a terminal, and there is none here. To run one command there: --command 'ls -l'")
    with sandbox_of(engine, task) as sandbox:
        ready = sandbox.open(command)
        if command is None:
            say(_welcome(sandbox, ready))
        code = sandbox.enter(has_terminal=command is None)
        script = sandbox.script()
    before = adopting.script_of(sandbox.row.spec)
    if script is None or script.rstrip("\n") == before.rstrip("\n"):
        return code
    count = adopting.lines_changed(before, script)
    changed = f"command.sh changed ({count} {'line' if count == 1 else 'lines'})"
    if command is not None:
        say(f"{changed}. To adopt it: scitq task adopt {task}, or with --step for the whole step")
        return code
    _ask(engine, task, before, script, changed, say)
    return code


def _welcome(sandbox: Sandbox, ready: Ready) -> str:
    """Where one is, and what there is."""
    row, ended = sandbox.row, sandbox.last.ended_ms or 0
    kept = duration(max(0.0, time.time() - ended / 1000))
    name = clean(row.name or row.spec.line())
    image = f" ({clean(ready.image)}, same mounts and environment)" if ready.image else ""
    lines = [
        f"Sandbox of '{name if len(name) <= 60 else name[:59] + '…'}' on {clean(sandbox.worker.name)}, kept {kept}{image}."
    ]
    if ready.is_fresh:
        lines.append("It had left no files: the folders are as empty as they were.")
    shell = clean(row.spec.shell or "sh")
    if ready.start == ready.work:
        lines.append(f"Its command: {shell} command.sh")
    else:
        lines.append(f"You are where it ran. Its command: {shell} $COMMAND (command.sh in its work folder)")
    return "\n".join(lines)


def _ask(engine: Engine, task: TaskId, before: str, script: str, changed: str, say: Say) -> None:
    """Whose command it becomes."""
    shown = adopting.diff(before, script)
    say("\n".join(clean(line) for line in shown[:DIFF_LINES]))
    if len(shown) > DIFF_LINES:
        say(f"… and {len(shown) - DIFF_LINES} lines more")
    wide = adopting.plan(engine, task, script, step=True)
    answer = _read(f"{changed}. Adopt it for [t]his task, the whole [s]tep ({wide.describe()}), or [n]othing? ")
    if answer not in ("t", "s"):
        say(f"Nothing was changed. command.sh stays as it is: scitq task adopt {task}")
        return
    wanted = wide if answer == "s" else adopting.plan(engine, task, script, step=False)
    count = len(wanted.failed)
    again = count and _read(f"Relaunch {'it' if count == 1 else f'the {count} that ended'} now? [Y/n] ") in (
        "",
        "y",
        "yes",
    )
    say(told(adopting.carry_out(engine, wanted, relaunch=bool(again)), relaunched=bool(again)))


def told(done: Adoption, *, relaunched: bool) -> str:
    """What became of it."""
    tasks = "task has" if done.done == 1 else "tasks have"
    said = f"{done.done:,} {tasks} the new command."
    if done.failed and relaunched:
        said += f" {len(done.failed):,} {'is' if len(done.failed) == 1 else 'are'} queued once more."
    elif done.failed:
        said += f" To run it: scitq task relaunch {' '.join(str(id) for id in done.failed[:10])}{' …' if len(done.failed) > 10 else ''}"
    if done.unlike:
        few = ", ".join(str(id) for id in done.unlike[:10]) + (" …" if len(done.unlike) > 10 else "")
        said += f" Left as they are, since theirs differs just where it was edited: {few}."
    return said


def _read(question: str) -> str:
    """A line from the terminal, in lower case; n where it ends."""
    sys.stderr.write(question)
    sys.stderr.flush()
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    if not line.endswith("\n"):
        sys.stderr.write("\n")
        return "n"
    return line.strip().lower()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
