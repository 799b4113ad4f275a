"""What is worth remembering: the kinds of journal entries, and one entry as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from scitq.states import TaskState


class EventKind(IntEnum):
    """Stored in state files: append, never renumber."""

    TASK_STATE = 0
    SUBMITTED = 1
    UPDATED = 2
    RELAUNCHED = 3
    CANCEL_ASKED = 4
    DRIVER = 5
    WORKER = 6
    NOTE = 7
    JOB = 8

    @property
    def word(self) -> str:
        """The kind's name on screens and in JSON."""
        return self.name.lower()


@dataclass(frozen=True)
class Event:
    """One journal entry. `at_ms` is milliseconds since 1970; `src` and `dst` belong to a task's move."""

    id: int
    at_ms: int
    kind: EventKind
    task: int | None
    execution: int | None
    worker: int | None
    src: TaskState | None
    dst: TaskState | None
    data: dict[str, Any]
