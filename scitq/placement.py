"""Which queued task goes to which worker.

Pure: takes tasks and free capacity, returns assignments. It reads no clock and no file.
Writing assignments down is `store.executions.begin`; getting workers is `recruiting`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from scitq.task import Assignment, PendingTask
from scitq.worker import Capacity, WorkerId


def place(tasks: Iterable[PendingTask], free: Mapping[WorkerId, Capacity]) -> list[Assignment]:
    """Give tasks, best first, to the least loaded worker that serves their batch.

    `tasks` come by priority, then age. Slots that would start a task at once are filled before any queue, and workers are
    balanced by the share of their slots that is busy, so that equal machines get equal work.
    """
    # One heap per batch served (None: any), of (no free slot, load, id): the head is the best choice there.
    heaps: dict[int | None, list[tuple[bool, float, WorkerId]]] = {}
    left: dict[WorkerId, list[int]] = {}
    for worker, capacity in free.items():
        if capacity.slots + capacity.queue > 0:
            left[worker] = [capacity.slots, capacity.queue]
            heapq.heappush(heaps.setdefault(capacity.batch, []), _rank(worker, capacity, left[worker]))
    assignments = []
    for task in tasks:
        heap = _better(heaps.get(task.batch), heaps.get(None))
        if heap is None:
            if not any(heaps.values()):
                break
            continue
        _, _, worker = heapq.heappop(heap)
        slots_and_queue = left[worker]
        slots_and_queue[0 if slots_and_queue[0] > 0 else 1] -= 1
        assignments.append(Assignment(task.id, worker))
        if sum(slots_and_queue) > 0:
            heapq.heappush(heap, _rank(worker, free[worker], slots_and_queue))
    return assignments


def _rank(worker: WorkerId, capacity: Capacity, left: list[int]) -> tuple[bool, float, WorkerId]:
    waiting = capacity.queue - left[1]
    return (left[0] <= 0, (capacity.concurrency - left[0] + waiting) / max(1, capacity.concurrency), worker)


def _better(
    own: list[tuple[bool, float, WorkerId]] | None, shared: list[tuple[bool, float, WorkerId]] | None
) -> list[tuple[bool, float, WorkerId]] | None:
    if own and shared:
        return own if own[0] <= shared[0] else shared
    return own or shared or None
