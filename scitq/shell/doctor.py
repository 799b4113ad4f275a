"""`scitq doctor`: what is installed, what is missing, what to do. A line for each; exit code 1 when something is a problem."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from types import SimpleNamespace

from scitq.engine import Engine, find
from scitq.errors import ScitqError
from scitq.saying import clean, several, size
from scitq.shell import checks, facts
from scitq.shell.answers import Text
from scitq.shell.checks import Finding
from scitq.states import WorkerState
from scitq.store import folders, query
from scitq.worker import LOCAL

# A larger file is not read through here: that takes its time.
QUICK_BYTES = 200_000_000
# With the storages, which may be far away.
REMOTES_S = 60.0
_WORDS = {"ok": "ok", "advice": "advice", "problem": "PROBLEM"}


def doctor(_: None, args: SimpleNamespace) -> Text:
    """Look at everything side by side."""
    rclone = functools.partial(checks.rclone, is_asked=args.remote_check)
    found = checks.together(
        [
            ("python", checks.python), ("settings", checks.settings), ("state file", functools.partial(_file, named=args.file)),
            ("disk", checks.disks), ("open files", checks.limits), ("clock", checks.clock), ("terminal", checks.terminal),
            ("containers", checks.engines), ("rclone", rclone), ("aria2", checks.programs), ("ssh", checks.ssh),
            ("packages", checks.packages),
        ],
        args.within or (REMOTES_S if args.remote_check else checks.ALL_S),
    )  # fmt: skip
    width = max(len(one.about) for one in found)
    lines = []
    for one in found:
        lines.append(f"{_WORDS[one.status]:7}  {one.about:{width}}  {clean(one.text)}")
        if one.todo and one.status != "ok":
            lines.append(f"{'':7}  {'':{width}}  -> {clean(one.todo)}")
    problems, advice = (sum(one.status == status for one in found) for status in ("problem", "advice"))
    note = f"{several(problems, 'problem')}, {several(advice, 'piece of advice', 'pieces of advice')}."
    data = [{"about": one.about, "status": one.status, "text": one.text, "todo": one.todo} for one in found]
    return Text("\n".join(lines), data, [note], code=1 if problems else 0, folds=True, safe=True)


def _file(_: float, *, named: str | None) -> Iterator[Finding]:
    """The state file that a command would take here, who drives it, and its worker of this machine."""
    logger = logging.getLogger("scitq")
    before, logger.disabled = logger.disabled, True
    try:
        path = find(named)
    except ScitqError as problem:
        yield Finding("state file", "problem", str(problem), "name one: scitq -f FILE doctor")
        return
    finally:
        logger.disabled = before
    if not path.exists():
        if named or os.environ.get("SCITQ_FILE"):
            yield Finding("state file", "problem", f"there is no {path}", f"scitq -f {path} launch COMMAND makes it")
            return
        try:
            folders.refuse_unsafe(path)
        except ScitqError as problem:
            yield Finding(
                "state file", "advice", f"none here; and none can be made here: {problem}", "work in another folder"
            )
        else:
            yield Finding("state file", "ok", "none here yet: scitq launch COMMAND makes one")
        return
    try:
        with Engine(path, drive=False) as engine:
            yield from _inside(engine)
    except ScitqError as problem:
        yield Finding("state file", "problem", str(problem), f"if it is damaged: scitq -f {path} check --repair NEW")


def _inside(engine: Engine) -> Iterator[Finding]:
    taken = engine.path.stat().st_size
    said = f"{engine.path}, {size(taken)}, {several(sum(engine.counts().values()), 'task')}"
    if taken > QUICK_BYTES:
        yield Finding("state file", "ok", f"{said}, not read through (scitq check)")
    elif (answer := query.rows(engine._reader(), "pragma quick_check(1)")) == [("ok",)]:
        yield Finding("state file", "ok", f"{said}, sound")
    else:
        yield Finding(
            "state file", "problem", f"{said}: {answer[0][0]}", facts.command_for(engine, "check --repair NEW")
        )
    yield checks.disk("the state file", str(engine.side))
    now, holder, counts = facts.now_ms(), facts.driver_of(engine), engine.counts()
    is_open = facts.live(counts) + facts.queued(counts)
    if holder is None:
        what = (
            f"nobody drives, and {several(is_open, 'task')} not done"
            if is_open
            else "nobody drives, and nothing is to be done"
        )
        yield Finding("driver", "advice" if is_open else "ok", what, facts.command_for(engine, "up"))
    elif holder.stands_still(now):
        text = f"{holder.describe(now)} does nothing. {holder.way_out()}"
        yield Finding("driver", "problem", text, facts.command_for(engine, "up --take-over"))
    else:
        yield Finding("driver", "ok", holder.describe(now))
    for row in engine.workers():
        note = f": {row.note}" if row.note else ""
        is_well = row.state in (WorkerState.READY, WorkerState.PREPARING)
        todo = facts.command_for(
            engine, f"worker {'restart' if row.kind == LOCAL else 'show'} {facts.quoted(row.name)}"
        )
        yield Finding(
            "worker", "ok" if is_well else "advice", f"{row.name} is {row.state.word}{note}".split("\n")[0], todo
        )
        if row.kind == LOCAL and row.limits_reason not in (None, "switched off"):
            text = f"{row.name} does not hold tasks to what they ask for: {row.limits_reason}"
            yield Finding("worker", "advice", text, "only where tasks may take more memory than they say")
    waiting = [one for one in engine.notices() if one.kind not in ("driver", "disk")]
    if waiting:
        yield Finding("notices", "advice", several(len(waiting), "notice"), facts.command_for(engine, "notices"))
