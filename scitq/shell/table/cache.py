"""The results that tasks may take."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import IDS, LONG, NO_HEAD, YES

CACHE: tuple[Command, ...] = (
    Command(
        "cache list", "caching:listed",
        """The results that tasks may take, the newest first: how old and how large, how often they were taken.""",
        (
            Option(("--older-than",), "Only those of so many days ago.", "number", metavar="DAYS"),
            Option(("--limit",), "How many at most; 0: all.", "whole", metavar="N", default=50),
            LONG, NO_HEAD,
        ),
        reads=True,
        examples=(
            "scitq cache list",
            "scitq cache list --older-than 30",
        ),
        schema="cached", aliases=("ls",),
    ),
    Command(
        "cache explain", "caching:explain", "What the key of a task is made of; of two tasks, what differs.",
        (Argument("task", metavar="ID|NAME", takes="task"), Argument("other", required=False, metavar="ID|NAME", takes="task")),
        reads=True,
        examples=(
            "scitq cache explain 1",
            "scitq cache explain 1 2",
        ),
        schema="key",
    ),
    Command(
        "cache forget", "caching:forget", "Take results no more. Asks first; their tasks and files stay.",
        (
            IDS,
            Option(("--older-than",), "Those of so many days ago.", "number", metavar="DAYS"),
            Option(("--all",), "All of them.", "flag"),
            YES,
        ),
        examples=(
            "scitq cache forget 1 --yes",
            "scitq cache forget --all --yes",
        ),
        schema="forgotten",
    ),
)  # fmt: skip
