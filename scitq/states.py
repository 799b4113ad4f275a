"""States of tasks, workers and jobs, outcomes of executions, and every allowed move between states.

Defined here only. `store.schema` copies the tables into the state file, where triggers enforce them against whoever writes.
The numbers are stored in state files: append, never renumber.
"""

from __future__ import annotations

from enum import IntEnum


class TaskState(IntEnum):
    """Where a task is on its way. DESIGN.md §5 tells the story."""

    WAITING = 0
    PENDING = 1
    ASSIGNED = 2
    STAGING = 3
    RUNNING = 4
    COLLECTING = 5
    SUCCEEDED = 6
    FAILED = 7
    CANCELLED = 8
    BLOCKED = 9
    PAUSED = 10
    DEBUG = 11

    @property
    def word(self) -> str:
        """The state's name on screens and in JSON."""
        return self.name.lower()

    @property
    def is_final(self) -> bool:
        """The task has ended (it can still be relaunched)."""
        return self in FINAL

    @property
    def is_settled(self) -> bool:
        """Nothing more will happen to the task by itself: it ended, or is blocked for good."""
        return self in FINAL or self is TaskState.BLOCKED

    @property
    def is_live(self) -> bool:
        """The task has an execution that has not ended."""
        return self in LIVE


LIVE = frozenset({TaskState.ASSIGNED, TaskState.STAGING, TaskState.RUNNING, TaskState.COLLECTING})
FINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
# Live, but not launched as far as is known: a worker may still give it back.
RECALLABLE = frozenset({TaskState.ASSIGNED, TaskState.STAGING})
# Ends that keep dependents from ever running.
BAD = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED})
# A task in one of these has not been given to a worker: everything about it may still be edited.
UNPLACED = frozenset({TaskState.WAITING, TaskState.PENDING, TaskState.BLOCKED, TaskState.PAUSED, TaskState.DEBUG})

_T = TaskState
# An agent's events come in rounds, so a short task may be seen to end before it was seen to start: every live state may end.
# Back to the queue means waiting, or blocked, when a prerequisite was relaunched in the meantime; paused, when that was asked.
_ENDS = frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED, _T.PENDING, _T.WAITING, _T.BLOCKED, _T.PAUSED})

TASK_MOVES: dict[TaskState, frozenset[TaskState]] = {
    _T.WAITING: frozenset({_T.PENDING, _T.ASSIGNED, _T.BLOCKED, _T.CANCELLED, _T.PAUSED, _T.DEBUG}),
    _T.PENDING: frozenset(
        {_T.ASSIGNED, _T.WAITING, _T.BLOCKED, _T.SUCCEEDED, _T.FAILED, _T.CANCELLED, _T.PAUSED, _T.DEBUG}
    ),
    _T.ASSIGNED: frozenset({_T.STAGING, _T.RUNNING, _T.COLLECTING}) | _ENDS,
    _T.STAGING: frozenset({_T.RUNNING, _T.COLLECTING}) | _ENDS,
    _T.RUNNING: frozenset({_T.COLLECTING}) | _ENDS,
    _T.COLLECTING: _ENDS,
    _T.SUCCEEDED: frozenset({_T.PENDING, _T.WAITING, _T.BLOCKED}),
    _T.FAILED: frozenset({_T.PENDING, _T.WAITING, _T.BLOCKED}),
    _T.CANCELLED: frozenset({_T.PENDING, _T.WAITING, _T.BLOCKED}),
    _T.BLOCKED: frozenset({_T.WAITING, _T.PENDING, _T.CANCELLED, _T.PAUSED, _T.DEBUG}),
    _T.PAUSED: frozenset({_T.WAITING, _T.PENDING, _T.BLOCKED, _T.CANCELLED, _T.DEBUG}),
    _T.DEBUG: frozenset({_T.WAITING, _T.PENDING, _T.BLOCKED, _T.CANCELLED, _T.PAUSED}),
}


class Outcome(IntEnum):
    """How an execution ended."""

    SUCCEEDED = 0
    FAILED = 1
    TIMED_OUT = 2
    OUT_OF_MEMORY = 3
    CANCELLED = 4
    EVICTED = 5
    LOST = 6
    RECALLED = 7

    @property
    def word(self) -> str:
        """The outcome's name on screens and in JSON."""
        return self.name.lower()

    @property
    def is_free(self) -> bool:
        """The task is not to blame: another try does not count as a retry."""
        return self in (Outcome.EVICTED, Outcome.LOST, Outcome.RECALLED)


class Wanted(IntEnum):
    """What is wanted of a live execution: a state, compared by the agent whenever it can, not a signal that may be missed."""

    RUN = 0
    STOPPED = 1
    RECALLED = 2
    SUSPENDED = 3
    RESUMED = 4


class Probe(IntEnum):
    """Where a task stands with the cache. One from WANTED on is not placed: it waits for an answer."""

    NONE = 0
    MISSED = 1
    WANTED = 2
    TWIN = 3


class Halt(IntEnum):
    """Whether a batch goes on: nothing new is launched while it is paused; suspended, what runs is stopped where it is."""

    GO = 0
    PAUSED = 1
    SUSPENDED = 2

    @property
    def word(self) -> str:
        """The name on screens and in JSON."""
        return self.name.lower()


class Stage(IntEnum):
    """The part of an execution in which it ended."""

    STAGE_IN = 0
    RUN = 1
    COLLECT = 2

    @property
    def word(self) -> str:
        """The stage's name on screens and in JSON."""
        return self.name.lower()


class WorkerState(IntEnum):
    """What may be expected of a worker."""

    WANTED = 0
    DEPLOYING = 1
    PREPARING = 2
    READY = 3
    UNREACHABLE = 4
    DRAINING = 5
    PAUSED = 6
    EVICTED = 7
    DELETING = 8
    GONE = 9
    FAILED = 10

    @property
    def word(self) -> str:
        """The state's name on screens and in JSON."""
        return self.name.lower()


_W = WorkerState

WORKER_MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    _W.WANTED: frozenset({_W.DEPLOYING, _W.PREPARING, _W.DELETING, _W.GONE, _W.FAILED}),
    _W.DEPLOYING: frozenset({_W.PREPARING, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED}),
    _W.PREPARING: frozenset({_W.READY, _W.UNREACHABLE, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED, _W.PAUSED}),
    _W.READY: frozenset(
        {_W.PREPARING, _W.UNREACHABLE, _W.DRAINING, _W.PAUSED, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED}
    ),
    _W.UNREACHABLE: frozenset(
        {_W.PREPARING, _W.READY, _W.DRAINING, _W.PAUSED, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED}
    ),
    _W.DRAINING: frozenset({_W.READY, _W.UNREACHABLE, _W.PAUSED, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED}),
    _W.PAUSED: frozenset(
        {_W.PREPARING, _W.READY, _W.UNREACHABLE, _W.DRAINING, _W.EVICTED, _W.DELETING, _W.GONE, _W.FAILED}
    ),
    _W.EVICTED: frozenset({_W.DELETING, _W.GONE}),
    _W.DELETING: frozenset({_W.GONE, _W.FAILED}),
    _W.GONE: frozenset(),
    _W.FAILED: frozenset({_W.PREPARING, _W.DEPLOYING, _W.DELETING, _W.GONE}),
}


class JobState(IntEnum):
    """A long operation of ours: deploy, destroy."""

    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4

    @property
    def word(self) -> str:
        """The state's name on screens and in JSON."""
        return self.name.lower()


_J = JobState

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    _J.PENDING: frozenset({_J.RUNNING, _J.CANCELLED}),
    _J.RUNNING: frozenset({_J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.PENDING}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset({_J.PENDING}),
    _J.CANCELLED: frozenset(),
}


def task_state(word: str) -> TaskState:
    """The state of that name, upper or lower case.

    Raises:
        ValueError: no state has that name; the message lists them.
    """
    try:
        return TaskState[word.strip().upper()]
    except KeyError:
        known = " ".join(state.word for state in TaskState)
        raise ValueError(f"{word!r} is not a task state (known: {known})") from None
