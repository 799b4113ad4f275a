"""Which queued task goes to which worker.

Pure: takes tasks and free capacity, returns assignments. It reads no clock and no file.
Writing assignments down is `store.executions.begin`; getting workers is `recruiting`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping

from scitq.container import ALL_GPUS
from scitq.states import WorkerState
from scitq.task import Assignment, Need, PendingTask
from scitq.worker import Capacity, Load, WorkerId, WorkerRow, window


class _Room:
    """What is left of one worker while tasks are placed."""

    def __init__(self, worker: WorkerId, capacity: Capacity) -> None:
        self.worker = worker
        self.total = capacity
        self.slots, self.queue = capacity.slots, capacity.queue
        self.memory, self.gpus = capacity.memory, list(capacity.gpus)
        # Kept for a task that came first and is too large for what is free now.
        self.is_reserved = False

    def serves(self, batch: int) -> bool:
        return self.total.batch is None or self.total.batch == batch

    def rank(self) -> tuple[bool, float, WorkerId]:
        """The smallest is the best choice: one with a free slot, then the least loaded."""
        waiting = self.total.queue - self.queue
        return (
            self.slots <= 0,
            (self.total.concurrency - self.slots + waiting) / max(1, self.total.concurrency),
            self.worker,
        )

    def fits(self, need: Need | None) -> bool:
        """Whether a task can be given to the worker now. One with a request is never staged ahead: it waits for its room."""
        if self.is_reserved:
            return False
        if need is None:
            return self.slots + self.queue > 0
        if not _has_python(need, self.total):
            return False
        if not need.occupies:
            return self.slots + self.queue > 0
        return (
            slots_of(need, self.total) <= self.slots
            and (need.memory or 0) <= self.memory
            and gpus_of(need, self.total) <= len(self.gpus)
        )

    def take(self, task: PendingTask) -> Assignment:
        """Give it the task."""
        need = task.need
        if need is None or not need.occupies:
            if self.slots > 0:
                self.slots -= 1
            else:
                self.queue -= 1
            return Assignment(task.id, self.worker)
        slots = slots_of(need, self.total)
        self.slots -= slots
        self.memory -= need.memory or 0
        count = gpus_of(need, self.total)
        given, self.gpus = tuple(self.gpus[:count]), self.gpus[count:]
        return Assignment(task.id, self.worker, slots, need.memory or 0, given)


class _Ranking:
    """Workers by how good a choice they are for a task without a request. While tasks are placed, a worker only gets worse:
    so its place is looked at again when it has come to the front, and nowhere else."""

    def __init__(self, rooms: list[_Room]) -> None:
        self._heap = [(room.rank(), room) for room in rooms]  # ranks differ, so rooms are never compared
        heapq.heapify(self._heap)

    def best(self) -> _Room | None:
        while self._heap:
            rank, room = self._heap[0]
            if not room.fits(None):
                heapq.heappop(self._heap)
            elif (present := room.rank()) != rank:
                heapq.heapreplace(self._heap, (present, room))
            else:
                return room
        return None


def slots_of(need: Need, capacity: Capacity) -> int:
    """How many of a worker's slots a request takes: its share of the CPUs, one at least."""
    if not need.cpus or not capacity.cpus:
        return 1
    return max(1, math.ceil(need.cpus * capacity.concurrency / capacity.cpus - 1e-9))


def gpus_of(need: Need, capacity: Capacity) -> int:
    """How many GPUs of a worker a request takes: a request for all of them, all there are, and at least one."""
    return max(1, capacity.gpu_count) if need.gpus == ALL_GPUS else need.gpus or 0


def could_ever(need: Need, total: Capacity) -> bool:
    """Whether a worker with nothing else to do could meet a request; `total` is its whole capacity."""
    return (
        total.concurrency > 0
        and _has_python(need, total)
        and (need.cpus or 0) <= total.cpus
        and (need.memory or 0) <= total.memory_total
        and gpus_of(need, total) <= total.gpu_count
    )


def _has_python(need: Need, total: Capacity) -> bool:
    return need.python is None or total.python is None or need.python == total.python


def place(tasks: Iterable[PendingTask], free: Mapping[WorkerId, Capacity]) -> list[Assignment]:
    """Give tasks, best first, to the least loaded worker that serves their batch and has room.

    `tasks` come by priority, then age. Slots that would start a task at once are filled before any queue, and workers are
    balanced by the share of their slots that is busy. A task that fits nowhere now, but would on a worker with less to do,
    reserves that worker: smaller ones behind it do not keep it waiting for ever.
    """
    rooms = [_Room(worker, capacity) for worker, capacity in free.items()]
    plain: dict[int, _Ranking] = {}
    assignments = []
    for task in tasks:
        if task.need is None and not task.avoid:  # nearly all, and there may be many
            if task.batch not in plain:
                plain[task.batch] = _Ranking([room for room in rooms if room.serves(task.batch)])
            best = plain[task.batch].best()
            if best is not None:
                assignments.append(best.take(task))
            if not any(room.slots + room.queue > 0 and not room.is_reserved for room in rooms):
                break
            continue
        candidates = [room for room in rooms if room.serves(task.batch) and room.worker not in task.avoid]
        able = [room for room in candidates if room.fits(task.need)]
        if able:
            assignments.append(min(able, key=_Room.rank).take(task))
        elif task.need is not None and task.need.occupies:
            larger = [room for room in candidates if not room.is_reserved and could_ever(task.need, room.total)]
            if larger:
                min(larger, key=_Room.rank).is_reserved = True
        if not any(room.slots + room.queue > 0 and not room.is_reserved for room in rooms):
            break
    return assignments


def choosy(tasks: Iterable[PendingTask], known: Mapping[WorkerId, WorkerRow]) -> list[PendingTask]:
    """The tasks; those that avoid workers do so only where another one that is ready could take them."""
    return [task if not task.avoid or has_choice(task, known.values()) else task._replace(avoid=()) for task in tasks]


def has_choice(task: PendingTask, known: Iterable[WorkerRow]) -> bool:
    """Whether some worker that a task does not avoid is ready, and could take it."""
    return any(
        row.state is WorkerState.READY and row.id not in task.avoid and could_ever(task.need or Need(), total(row))
        for row in known
    )


def free(
    known: Mapping[WorkerId, WorkerRow], loads: Mapping[WorkerId, Load], means: Mapping[WorkerId, float | None]
) -> dict[WorkerId, Capacity]:
    """What each worker in `means` (those in contact, with their mean run times) can take beside its load."""
    free = {}
    for worker, mean_run_s in means.items():
        row = known.get(worker)
        if row is None or row.state is not WorkerState.READY:
            continue
        load = loads.get(worker, Load())
        slots = max(0, row.concurrency - load.slots)
        queue = max(0, window(row.concurrency, row.prefetch, mean_run_s) - max(load.slots, row.concurrency))
        if slots or queue:
            free[worker] = Capacity(
                slots=slots, queue=queue, concurrency=row.concurrency, cpus=row.cpus,
                memory=max(0, row.memory - load.memory), memory_total=row.memory,
                gpus=tuple(gpu for gpu in row.gpus if gpu not in load.gpus), gpu_count=len(row.gpus),
                python=row.python,
            )  # fmt: skip
    return free


def total(row: WorkerRow) -> Capacity:
    """All that a worker has."""
    return Capacity(
        slots=row.concurrency, concurrency=row.concurrency, cpus=row.cpus, memory=row.memory, memory_total=row.memory,
        gpus=row.gpus, gpu_count=len(row.gpus), python=row.python,
    )  # fmt: skip
