"""`Left`: how somebody who watched a workflow came to leave it."""

from __future__ import annotations

from enum import Enum


class Left(Enum):
    """How a screen, a follower or a dialogue ended."""

    ENDED = "ended"  # nothing more happens by itself
    QUIT = "quit"  # the user left; tasks go on
    DESTROYED = "destroyed"  # the user deleted the workflow
    INTERRUPTED = "interrupted"  # Ctrl-C; tasks go on
    NORMAL = "normal"  # of the debug dialogue: the rest runs as usual
