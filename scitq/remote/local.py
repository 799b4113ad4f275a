"""The worker on this machine: starting and stopping an agent as a detached process.

Talking to it is `link`; what it does is `agent`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scitq.errors import AgentFailed
from scitq.remote.agent import root, starting
from scitq.remote.agent.__main__ import FLAGS


def ensure(folder: Path, *, linger: float = 60, command: Sequence[str] | None = None) -> None:
    """Start the agent of this root folder unless one answers there. Harmless to repeat, also at the same time.

    `command` replaces the program that is started. Raises AgentFailed when it does not answer.
    """
    place = os.path.abspath(folder)
    starting.ensure(
        place, lambda: command if command is not None else [sys.executable, *FLAGS, _program(place)], linger
    )


def _program(place: str) -> str:
    """The bundle, copied into the root folder: keepers are started from it, also after the user emptied the cache."""
    from scitq.remote.bundle import bundle, is_whole, store  # hashes, archives: for whoever starts an agent

    try:
        path, digest = bundle()
        own = Path(place, f"agent-{digest[:16]}.pyz")
        if not is_whole(own, digest):
            if not root.is_locked(place, "agent.lock") and not root.is_locked(place, "keeper.lock"):
                for old in Path(place).glob("agent-*.pyz"):
                    old.unlink(missing_ok=True)
            store(own, path.read_bytes())
    except OSError as error:
        raise AgentFailed(
            f"The agent's program cannot be stored: {error}. Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
            folder=place,
        ) from error
    return str(own)


def stop(folder: Path) -> None:
    """End the agent of this root folder, its keeper and its tasks (TERM, grace, KILL); return when they are gone.

    What was queued is given back, what ran is recorded as cancelled; the record stays for the next agent to report.
    """
    starting.stop(os.path.abspath(folder), lambda: ensure(folder))
