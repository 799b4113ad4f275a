"""`join`: wait for tasks, queue failed ones once more. Waiting and paused tasks are not over; blocked ones are once nothing is
left that could free them."""

from __future__ import annotations

from collections.abc import Sequence

from scitq.engine import Engine
from scitq.errors import BadInput, TaskFailed
from scitq.handle import Task
from scitq.lib.answers import STATUS
from scitq.states import TaskState


class JoinFailed(TaskFailed, RuntimeError):
    """Tasks that were joined with check=True did not all succeed. Attributes: task (one of them), counts."""


def join(engine: Engine, tasks: Sequence[Task], retry: int, check: bool) -> dict[str, int]:
    """Wait until all tasks are over; how many ended in each status.

    Raises:
        BadInput: there is no task at all.
        JoinFailed: with `check`, if one did not succeed in the end.
    """
    if not tasks:
        raise BadInput("join waits for tasks: give at least one.")
    left = dict.fromkeys((task.id for task in tasks), max(0, retry))
    again = True
    while again:
        again = False
        # All of them each time: one that was blocked goes on when what it needs is queued once more.
        for task in engine.as_completed(tasks):
            if task.state is TaskState.FAILED and left[task.id] > 0:
                left[task.id] -= 1
                task.relaunch()
                again = True
    counts: dict[str, int] = {}
    worst: Task | None = None
    for task in tasks:
        state = task.state
        counts[STATUS[state]] = counts.get(STATUS[state], 0) + 1
        worst = worst if state is TaskState.SUCCEEDED else task
    if check and worst is not None:
        bad = len(tasks) - counts.get("succeeded", 0)
        raise JoinFailed(
            f"{bad} of {len(tasks)} tasks did not succeed, among them {worst.why()}", task=worst.id, counts=counts
        )
    return counts
