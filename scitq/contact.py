"""What a driver knows of its connection to one worker's agent, and the words that it exchanges with it.

A `Contact` lives as long as the driver; a `Plan` is a copy of it for one transaction, which may run twice. Nothing here reads or
writes the state file: that is `news` and `driver`.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scitq.errors import BadAnswer
from scitq.remote.link import Answer, Stream
from scitq.states import Wanted
from scitq.task import ExecutionId
from scitq.worker import WorkerId

# What is kept of what an agent says of its machine, and of how busy it is.
FACTS = ("cpus", "memory", "gpus", "gpu_models", "python", "host", "version", "limits", "limits_reason")
# Just short enough to be given one for each slot in advance (see worker.window).
FETCHING_S = 0.99
STATS = ("load", "cpu", "memory", "memory_free", "disk", "disk_free", "running", "queued")


@dataclass
class Contact:
    """The connection to one worker's agent: nothing here outlives it, the file holds all that counts."""

    worker: WorkerId
    root: Path
    events: Stream | None = None
    commands: Stream | None = None
    # What the answers on the command stream will be about, in order.
    asked: deque[str] = field(default_factory=deque)
    journal: str | None = None
    acked: int = 0
    # After a (re)connection the agent's list of what it holds is compared with the file, once its journal was read so far.
    held: dict[str, Any] | None = None
    synced: bool = False
    connecting: bool = False
    failures: int = 0
    next_try: float = 0.0
    slots_sent: int | None = None
    # What the agent was told is wanted of executions, since this connection was made.
    told: dict[ExecutionId, Wanted] = field(default_factory=dict)
    # The remotes that it was given, and as of which state of the configuration, since this connection was made.
    remotes: dict[str, object] = field(default_factory=dict)
    # The same of registries of images, and when that was.
    registries: dict[str, tuple[object, float]] = field(default_factory=dict)
    forget: list[ExecutionId] = field(default_factory=list)
    forget_logs: list[ExecutionId] = field(default_factory=list)
    tails: set[tuple[ExecutionId, int]] = field(default_factory=set)
    # After a failure to bring a log home (a full disk, say) the next try waits.
    tail_after: float = 0.0
    mean_run_s: float | None = None
    # It was given something to fetch, since this connection was made.
    fetches: bool = False
    # What the agent last said of its machine, until it is in the file; and when it may be asked again.
    stats: dict[str, Any] | None = None
    stats_after: float = 0.0
    # Executions that were seen to start, and when: written down only if they do not end within moments.
    starts: dict[ExecutionId, float] = field(default_factory=dict)
    # The same of those that wait for their data.
    stagings: dict[ExecutionId, float] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Both streams are open."""
        return self.events is not None and self.commands is not None


class Plan:
    """What one transaction makes of a contact: copies of its place, and what is to be said to its agent."""

    def __init__(self, contact: Contact) -> None:
        self.contact = contact
        self.worker = contact.worker
        self.journal = contact.journal
        self.acked = contact.acked
        self.held = contact.held
        self.synced = contact.synced
        self.mean_run_s = contact.mean_run_s
        self.starts = dict(contact.starts)
        self.stagings = dict(contact.stagings)
        self.has_news = False
        self.is_told = True
        self.commands: list[dict[str, Any]] = []
        self.forget: list[ExecutionId] = []
        self.forget_logs: list[ExecutionId] = []


def pace_s(contact: Contact, mean_run_s: float | None) -> float | None:
    """The run time by which it is decided how many executions a worker gets ahead of their turn. Where there is something to
    fetch, one for each slot comes even when they run for long: its data is brought while others run."""
    return min(mean_run_s, FETCHING_S) if contact.fetches and mean_run_s is not None else mean_run_s


def checked_held(answer: Answer) -> dict[str, Any]:
    """An agent's word on itself and what it holds.

    Raises:
        BadAnswer: it makes no sense.
    """
    held = answer.json()
    kinds = {"journal": str, "base": int, "end": int, "held": dict}
    for key, kind in kinds.items():
        if not isinstance(held.get(key), kind):
            raise BadAnswer(f"the agent's answer to /held makes no sense ({key} is {held.get(key)!r:.80}).")
    if not all(str(id).isdecimal() for id in held["held"]):
        raise BadAnswer("the agent holds executions that are not ours.")
    return held


def checked_stats(answer: Answer) -> dict[str, Any]:
    """An agent's word on its machine and on what it fetches, by our clock."""
    told = answer.json()
    kept: dict[str, Any] = {key: told[key] for key in STATS if isinstance(told.get(key), int | float)}
    fetching = told.get("staging")
    if isinstance(fetching, dict):
        whole = {id: pair for id, pair in fetching.items() if _is_progress(pair)}
        kept |= {"staging": whole} if whole else {}
    return {"at": time.time_ns() // 1_000_000, **kept}


def _is_progress(pair: object) -> bool:
    """Bytes that are here, and bytes in all where that is known."""
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and isinstance(pair[1], int | None)


def news_first(place: Contact | Plan) -> bool:
    """The agent's journal says more, up to its list of what it holds, than has been read."""
    held = place.held
    return held is not None and (place.journal != held["journal"] or place.acked < held["end"])


def wish(execution: ExecutionId, wanted: Wanted) -> dict[str, Any]:
    """What is wanted of an execution, in the agent's words."""
    if wanted is Wanted.STOPPED:
        return {"cancel": execution}
    if wanted is Wanted.RECALLED:
        return {"recall": execution}
    return {"signal": execution, "number": signal.SIGSTOP if wanted is Wanted.SUSPENDED else signal.SIGCONT}
