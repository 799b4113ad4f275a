"""What a driver knows of its connection to one worker's agent, and the words that it exchanges with it.

A `Contact` lives as long as the driver; a `Plan` is a copy of it for one transaction, which may run twice. Nothing here reads or
writes the state file: that is `news` and `driver`.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from scitq.awake import since_boot
from scitq.errors import BadAnswer
from scitq.remote.link import Answer, Stream
from scitq.remote.route import Route
from scitq.states import Wanted
from scitq.task import ExecutionId
from scitq.worker import WorkerId

# What is kept of what an agent says of its machine, and of how busy it is.
FACTS = ("cpus", "memory", "gpus", "gpu_models", "python", "host", "version", "limits", "limits_reason")
# Just short enough to be given one for each slot in advance (see worker.window).
FETCHING_S = 0.99
STATS = ("load", "cpu", "memory", "memory_free", "disk", "disk_free", "running", "queued", "net_in", "net_out",
         "uptime", "read_s", "written_s")  # fmt: skip


@dataclass
class Contact:
    """The connection to one worker's agent: nothing here outlives it, the file holds all that counts."""

    worker: WorkerId
    route: Route
    name: str = ""
    # It is elsewhere: kept connected, told that its work is its own for so long (a lease), and judged by its silence.
    is_far: bool = False
    lease_s: float = 0.0
    lease_sent_s: float = 0.0
    lost_after_s: float = 0.0
    _clock: tuple[float, float] | None = None
    # When its lease ends by our clock, if that was made long for a journey.
    lease_ends_ms: int | None = None
    # When it was last told so, in awake seconds of this process; and how long it had been silent before that.
    leased_at: float = 0.0
    silent_before_s: float = 0.0
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
    # It was tried in vain to reach it, since it was last connected.
    was_tried: bool = False
    # When it last said anything, in awake seconds.
    heard_at: float = 0.0
    failures: int = 0
    next_try: float = 0.0
    slots_sent: int | None = None
    # What the agent was told is wanted of executions, since this connection was made.
    told: dict[ExecutionId, Wanted] = field(default_factory=dict)
    # The courtesy that it was told of, since this connection was made.
    polite: dict[str, Any] | None = None
    # What it was told of the end of its machine, since this connection was made.
    rented: dict[str, Any] | None = None
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
    # What could not be done when it was last tried to connect, said once.
    trouble: str | None = None
    # What the agent last said of its machine, until it is in the file; and when it may be asked again.
    stats: dict[str, Any] | None = None
    stats_asked: float = float("-inf")
    # Executions that were seen to start, and when: written down only if they do not end within moments.
    starts: dict[ExecutionId, float] = field(default_factory=dict)
    # The same of those that wait for their data.
    stagings: dict[ExecutionId, float] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Both streams are open."""
        return self.events is not None and self.commands is not None

    def silent_s(self, awake_s: float) -> float:
        """For how long, of awake time, it has not been told that its work is its own."""
        return self.silent_before_s + awake_s - self.leased_at

    def told_held(self, held: dict[str, Any]) -> None:
        """The agent said what it holds, and what its clock says."""
        self.held = held
        clock = held.get("clock")
        self._clock = None if not isinstance(clock, int | float) else (float(clock), since_boot())

    def lease(self, seconds: float) -> dict[str, Any]:
        """The words that its work is its own for so long from now on, by its own clock: they may be long on their way."""
        if self._clock is None:
            return {"lease": seconds}
        said, at = self._clock
        return {"lease": seconds, "at": said + since_boot() - at}

    def leased(self, awake_s: float, lease_s: float) -> None:
        """It was told so just now, and what it was told is at most so long."""
        self.leased_at, self.silent_before_s = awake_s, 0.0
        self.lease_s, self.lease_ends_ms = lease_s, None

    def forget_connection(self) -> None:
        """The streams are closed: what was said over them, or was about them, counts no more."""
        self.events = self.commands = self.held = None
        self.starts.clear()
        self.stagings.clear()
        self.synced = False
        self.slots_sent = None
        self.told.clear()
        self.polite = self.rented = None
        self.remotes.clear()
        self.registries.clear()
        self.fetches = False
        self.asked.clear()
        self.stats_asked = float("-inf")


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
        # It is told that its work is its own, for so long; None: it is not told now.
        self.lease_s: float | None = None
        # Its lease is a long one, for a journey: how long, and when it ends by our clock.
        self.journey: tuple[float, int] | None = None
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
    if not isinstance(held.setdefault("highest", 0), int):
        raise BadAnswer(f"the agent's answer to /held makes no sense (highest is {held['highest']!r:.80}).")
    if not all(str(id).isdecimal() for id in held["held"]):
        raise BadAnswer("the agent holds executions that are not ours.")
    return held


def checked_stats(answer: Answer) -> dict[str, Any]:
    """An agent's word on its machine and on what it fetches, by our clock."""
    told = answer.json()
    kept: dict[str, Any] = {key: told[key] for key in STATS if _is_figure(told.get(key))}
    fetching = told.get("staging")
    if isinstance(fetching, dict):
        whole = {id: pair for id, pair in fetching.items() if _is_progress(pair)}
        kept |= {"staging": whole} if whole else {}
    disks = told.get("disks")
    if isinstance(disks, dict) and all(_is_progress(pair) for pair in disks.values()):
        kept["disks"] = disks
    tasks = told.get("tasks")
    if isinstance(tasks, dict):
        kept["tasks"] = {id: pair for id, pair in tasks.items() if str(id).isdecimal() and _is_use(pair)}
    if isinstance(told.get("polite"), str):
        kept["polite"] = told["polite"]
    return {"at": time.time_ns() // 1_000_000, **kept}


def _is_figure(value: object) -> bool:
    """A number that the file can hold: neither infinite nor not-a-number, which JSON in the file cannot say."""
    return isinstance(value, int | float) and abs(value) < 1 << 62


def _is_progress(pair: object) -> bool:
    """Bytes that are here, and bytes in all where that is known."""
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and isinstance(pair[1], int | None)


def _is_use(pair: object) -> bool:
    """CPU seconds, and bytes of memory."""
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, int | float) for one in pair)


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
