"""What the screen of a workflow asks for, and what is read for that: its steps, the tasks of one, or one task."""

from __future__ import annotations

from dataclasses import dataclass

from scitq.engine import Engine
from scitq.errors import UnknownTask
from scitq.states import TaskState
from scitq.task import TaskId
from scitq.workflow.looking import Detail, Follower, Page, page
from scitq.workflow.overview import Overview, Watch


@dataclass(frozen=True)
class Request:
    """What is wanted beside the steps: the tasks of a step around a number, or one task."""

    serial: int = 0
    batch: str | None = None
    states: frozenset[TaskState] | None = None
    text: str = ""
    at: int | None = None
    task: TaskId | None = None


@dataclass(frozen=True)
class Looked:
    """What was read for a request. Without `page` or `detail` where none was asked for, or there is none any more."""

    serial: int
    overview: Overview
    page: Page | None = None
    detail: Detail | None = None


class Look:
    """Reads what is asked for. Used by one thread."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine = engine
        self._watch = watch
        self._follower: Follower | None = None

    def __call__(self, request: Request) -> Looked:
        """What there is to see of it now."""
        overview = self._watch.look()
        if request.task is not None:
            if self._follower is None or self._follower.id != request.task:
                self._follower = Follower(self._engine, request.task)
            try:
                return Looked(request.serial, overview, detail=self._follower.look())
            except UnknownTask:
                return Looked(request.serial, overview)
        self._follower = None
        if request.batch is not None:
            found = page(self._engine, request.batch, request.states, request.text, request.at)
            return Looked(request.serial, overview, page=found)
        return Looked(request.serial, overview)
