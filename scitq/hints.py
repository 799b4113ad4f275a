"""Who drives, and what to type next: what sentences for people need of an engine, whichever layer says them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scitq.states import TaskState
from scitq.store.lease import FRESH_S

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.store.lease import Holder

# In the order in which people want to read them.
ORDER = (
    TaskState.RUNNING, TaskState.COLLECTING, TaskState.STAGING, TaskState.ASSIGNED, TaskState.PENDING, TaskState.WAITING,
    TaskState.PAUSED, TaskState.DEBUG, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED,
)  # fmt: skip


def counted(counts: Mapping[TaskState, int]) -> str:
    """`3 running, 41 pending, 6 succeeded`."""
    return ", ".join(f"{counts[state]:,} {state.word}" for state in ORDER if counts.get(state)) or "no tasks"


def driver_of(engine: Engine) -> Holder | None:
    """Who drives the file now, if anybody does."""
    holder = engine.driver()
    if holder is None or holder.alive:
        return holder
    # Of another machine's driver only its own word is known; one that has been silent for long keeps nobody from driving.
    is_fresh = holder.seen is not None and time.time_ns() // 1_000_000 - holder.seen < 1000 * FRESH_S
    return holder if is_fresh and not holder.is_here else None


def command_for(engine: Engine, command: str) -> str:
    """`scitq up`, with `-f FILE` when the file would not be found from here without it."""
    from scitq.errors import ScitqError
    from scitq.finding import looked_for

    try:
        is_found = looked_for().resolve() == engine.path
    except ScitqError:
        is_found = False
    return f"scitq {command}" if is_found else f"scitq -f {short_path(engine)} {command}"


def short_path(engine: Engine) -> str:
    """The state file as one would type it from here."""
    import os
    import shlex

    try:
        relative = os.path.relpath(engine.path)
    except (OSError, ValueError):
        return shlex.quote(str(engine.path))
    return shlex.quote(relative if not relative.startswith("../..") else str(engine.path))


def quoted(word: str) -> str:
    """A word as one would type it in a shell."""
    import shlex

    return shlex.quote(word)
