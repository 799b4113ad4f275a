"""Which queued task goes to which worker.

Pure: takes tasks and free capacity, returns assignments. It reads no clock and no file.
Writing assignments down is `store.executions.begin`; getting workers is `recruiting`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scitq.container import ALL_GPUS
from scitq.states import WorkerState
from scitq.task import Assignment, Need, PendingTask
from scitq.worker import LOCAL, Capacity, Load, WorkerId, WorkerRow, window


class Terms(NamedTuple):
    """What a batch with recruiters gets of one worker.

    An execution of it takes `slots` there. `most` of them may be there at once, which is said where slots alone do not see to
    it; `ahead` may wait there beyond those that run (None: as the worker's prefetch has it). `ranks`: the recruiters that it suits.
    """

    slots: int = 1
    most: int | None = None
    ahead: int | None = None
    ranks: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Service:
    """Who serves a batch with recruiters: `terms` by worker, of all that may; `limits`, how many workers each recruiter allows;
    `serving`, who does so now, and how many executions of it each one has (`held`)."""

    terms: Mapping[WorkerId, Terms]
    limits: Sequence[int | None] = (None,)
    serving: frozenset[WorkerId] = frozenset()
    held: Mapping[WorkerId, int] = field(default_factory=dict)


NO_SERVICES: Mapping[int, Service] = {}


def admits(limits: Sequence[int | None], present: Iterable[Sequence[int]], ranks: Sequence[int]) -> bool:
    """Whether one more worker, which suits the recruiters `ranks`, may serve beside those `present` (of which the same is said).

    No recruiter has more workers than its limit; who suits several makes room for one that does not.
    """
    at: list[list[Sequence[int]]] = [[] for _ in limits]

    def settle(one: Sequence[int], seen: set[int]) -> bool:
        for rank in one:
            if rank in seen:
                continue
            seen.add(rank)
            limit = limits[rank]
            if limit is None or len(at[rank]) < limit:
                at[rank].append(one)
                return True
            for place, other in enumerate(at[rank]):
                if settle(other, seen):
                    at[rank][place] = one
                    return True
        return False

    if any(limits[rank] is None for rank in ranks):
        return True
    for one in present:
        settle(one, set())  # more than the limit may be there: it was lowered since, or the user sent them
    return settle(ranks, set())


PLAIN = Terms()


class _Room:
    """What is left of one worker while tasks are placed."""

    def __init__(self, worker: WorkerId, capacity: Capacity) -> None:
        self.worker = worker
        self.total = capacity
        self.slots, self.queue, self.over = capacity.slots, capacity.queue, capacity.over
        self.memory, self.gpus = capacity.memory, list(capacity.gpus)
        # Kept for a task that came first and is too large for what is free now.
        self.is_reserved = False

    def serves(self, batch: int) -> bool:
        return self.total.batch is None or self.total.batch == batch

    @property
    def is_open(self) -> bool:
        """Whether any task at all could be given to it."""
        return not self.is_reserved and (self.slots + self.queue > 0 or self.over < self.total.ahead)

    def rank(self, slots: int = 1) -> tuple[bool, float, WorkerId]:
        """The smallest is the best choice: one where a task of so many slots begins at once, then the least loaded."""
        waiting = self.over - self.total.over
        return (
            self.slots < slots,
            (self.total.concurrency - self.slots + waiting) / max(1, self.total.concurrency),
            self.worker,
        )

    def fits(self, need: Need | None, terms: Terms = PLAIN, held: int = 0) -> bool:
        """Whether a task can be given to the worker now. One with a request is never staged ahead: it waits for its room.
        `terms` are its batch's there, which has `held` executions there."""
        if self.is_reserved or (terms.most is not None and held >= terms.most):
            return False
        if need is not None and not _has_python(need, self.total):
            return False
        if need is None or not need.occupies:
            return terms.slots <= self.slots or self._may_wait(terms)
        return (
            max(terms.slots, slots_of(need, self.total)) <= self.slots
            and (need.memory or 0) <= self.memory
            and gpus_of(need, self.total) <= len(self.gpus)
        )

    def _may_wait(self, terms: Terms) -> bool:
        """Whether one may be staged ahead. Where slots alone would let too many run at once, none is: it would begin too early."""
        if terms.most is not None:
            return False
        return terms.slots <= self.queue if terms.ahead is None else self.over < terms.ahead * terms.slots

    def take(self, task: PendingTask, terms: Terms = PLAIN) -> Assignment:
        """Give it the task."""
        need = task.need
        if need is None or not need.occupies:
            if self.slots >= terms.slots:
                self.slots -= terms.slots
            else:
                self.queue = max(0, self.queue - terms.slots)
                self.over += terms.slots
            return Assignment(task.id, self.worker, terms.slots)
        slots = max(terms.slots, slots_of(need, self.total))
        self.slots -= slots
        self.memory -= need.memory or 0
        count = gpus_of(need, self.total)
        given, self.gpus = tuple(self.gpus[:count]), self.gpus[count:]
        return Assignment(task.id, self.worker, slots, need.memory or 0, given)


class _Batch:
    """One batch while tasks are placed: which rooms are for it, and which of them is best for a task without a request.

    While tasks are placed, a worker only gets worse: so its place is looked at again when it has come to the front, and nowhere
    else.
    """

    def __init__(self, batch: int, rooms: Iterable[_Room], service: Service | None) -> None:
        self._service = service
        if service is None:
            self.rooms = [room for room in rooms if room.serves(batch)]
        else:
            self.rooms = [room for room in rooms if room.worker in service.terms]
            self._serving, self._held = set(service.serving), dict(service.held)
        self._heap: list[tuple[tuple[bool, float, WorkerId], _Room]] | None = None

    def terms(self, room: _Room) -> Terms:
        return PLAIN if self._service is None else self._service.terms[room.worker]

    def rank(self, room: _Room) -> tuple[bool, float, WorkerId]:
        return room.rank() if self._service is None else room.rank(self.terms(room).slots)

    def fits(self, room: _Room, need: Need | None) -> bool:
        if self._service is None:
            if need is None:  # nearly always
                return room.slots + room.queue > 0 and not room.is_reserved
            return room.fits(need)
        return room.fits(need, self.terms(room), self._held.get(room.worker, 0)) and self._admits(room)

    def _admits(self, room: _Room) -> bool:
        """Whether its recruiters allow one more worker, if this is one."""
        service = self._service
        if service is None or room.worker in self._serving:
            return True
        present = [service.terms[worker].ranks for worker in self._serving if worker in service.terms]
        return admits(service.limits, present, service.terms[room.worker].ranks)

    def best(self) -> _Room | None:
        """The best room for a task without a request; None when there is none."""
        if self._heap is None:
            self._heap = [(self.rank(room), room) for room in self.rooms]  # ranks differ, so rooms are never compared
            heapq.heapify(self._heap)
        while self._heap:
            rank, room = self._heap[0]
            if not self.fits(room, None):
                heapq.heappop(self._heap)
            elif (present := self.rank(room)) != rank:
                heapq.heapreplace(self._heap, (present, room))
            else:
                return room
        return None

    def take(self, room: _Room, task: PendingTask) -> Assignment:
        if self._service is None:
            return room.take(task)
        self._serving.add(room.worker)
        self._held[room.worker] = self._held.get(room.worker, 0) + 1
        return room.take(task, self.terms(room))

    def reserve(self, task: PendingTask) -> None:
        """Keep the best room for a task that is too large for what is free now anywhere, if another one has to end first."""
        need = task.need if task.need is not None and task.need.occupies else None
        larger = [
            room for room in self.rooms
            if not room.is_reserved and room.worker not in task.avoid and self._is_to_wait_for(room, need)
        ]  # fmt: skip
        if larger:
            min(larger, key=self.rank).is_reserved = True

    def _is_to_wait_for(self, room: _Room, need: Need | None) -> bool:
        """Whether a task would fit if others than its own batch's had ended there."""
        if need is not None and not could_ever(need, room.total):
            return False
        if self._service is None:
            return need is not None
        terms, held = self.terms(room), self._held.get(room.worker, 0)
        if (terms.most is not None and held >= terms.most) or not self._admits(room):
            return False
        return need is not None or (terms.slots > 1 and (held + 1) * terms.slots <= room.total.concurrency)


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


def at_once(need: Need | None, total: Capacity, concurrency: int | None = None) -> int:
    """How many tasks that ask for something a worker with nothing else to do runs at once; `concurrency`: of its batch."""
    slots = total.concurrency if concurrency is None else concurrency
    if need is None:
        return slots
    if not could_ever(need, total):
        return 0
    counts = [slots, total.concurrency // slots_of(need, total) if need.cpus else slots]
    if need.memory:
        counts.append(total.memory_total // need.memory)
    if need.gpus:
        counts.append(total.gpu_count // gpus_of(need, total))
    return max(1, min(counts))


def _has_python(need: Need, total: Capacity) -> bool:
    return need.python is None or total.python is None or need.python == total.python


def place(
    tasks: Iterable[PendingTask], free: Mapping[WorkerId, Capacity], services: Mapping[int, Service] = NO_SERVICES
) -> list[Assignment]:
    """Give tasks, best first, to the least loaded worker that serves their batch and has room.

    `tasks` come by priority, then age. Slots that would start a task at once are filled before any queue, and workers are
    balanced by the share of their slots that is busy. A task that fits nowhere now, but would on a worker with less to do,
    reserves that worker: smaller ones behind it do not keep it waiting for ever. `services` are those of batches with recruiters.
    """
    rooms = [_Room(worker, capacity) for worker, capacity in free.items()]
    batches: dict[int, _Batch] = {}
    waits: set[int] = set()  # batches whose plain tasks fit nowhere any more
    assignments = []
    for task in tasks:
        batch = batches.get(task.batch)
        if batch is None:
            batch = batches[task.batch] = _Batch(task.batch, rooms, services.get(task.batch))
        if task.need is None and not task.avoid:  # nearly all, and there may be many
            if task.batch in waits:
                continue
            best = batch.best()
            if best is not None:
                assignments.append(batch.take(best, task))
                if best.is_open:
                    continue
            else:
                waits.add(task.batch)
                batch.reserve(task)
        else:
            able = [room for room in batch.rooms if room.worker not in task.avoid and batch.fits(room, task.need)]
            if able:
                assignments.append(batch.take(min(able, key=batch.rank), task))
            else:
                batch.reserve(task)
        if not any(room.is_open for room in rooms):
            break
    return assignments


def choosy(
    tasks: Iterable[PendingTask], known: Mapping[WorkerId, WorkerRow], services: Mapping[int, Service] = NO_SERVICES
) -> list[PendingTask]:
    """The tasks; those that avoid workers do so only where another one that is ready could take them."""
    return [
        task
        if not task.avoid or has_choice(task, known.values(), services.get(task.batch))
        else task._replace(avoid=())
        for task in tasks
    ]


def has_choice(task: PendingTask, known: Iterable[WorkerRow], service: Service | None = None) -> bool:
    """Whether some worker that a task does not avoid is ready, and could take it."""
    return any(
        row.state is WorkerState.READY
        and row.id not in task.avoid
        and (row.batch_id in (None, task.batch) if service is None else row.id in service.terms)
        and could_ever(task.need or Need(), total(row))
        for row in known
    )


def free(
    known: Mapping[WorkerId, WorkerRow],
    loads: Mapping[WorkerId, Load],
    means: Mapping[WorkerId, float | None],
    services: Mapping[int, Service] = NO_SERVICES,
) -> dict[WorkerId, Capacity]:
    """What each worker in `means` (those in contact, with their mean run times) can take beside its load."""
    aheads: dict[WorkerId, int] = {}
    for service in services.values():
        for worker, terms in service.terms.items():
            if terms.ahead and terms.most is None:
                aheads[worker] = max(aheads.get(worker, 0), terms.ahead * terms.slots)
    free = {}
    for worker, mean_run_s in means.items():
        row = known.get(worker)
        if row is None or row.state is not WorkerState.READY:
            continue
        load = loads.get(worker, Load())
        slots = max(0, row.concurrency - load.slots)
        holds = window(row.concurrency, row.prefetch, mean_run_s, is_far=row.kind != LOCAL)
        queue = max(0, holds - max(load.slots, row.concurrency))
        over = max(0, load.slots - row.concurrency)
        ahead = aheads.get(worker, 0) if row.concurrency else 0
        if slots or queue or over < ahead:
            free[worker] = Capacity(
                slots=slots, queue=queue, concurrency=row.concurrency, batch=row.batch_id, cpus=row.cpus,
                memory=max(0, row.memory - load.memory), memory_total=row.memory,
                gpus=tuple(gpu for gpu in row.gpus if gpu not in load.gpus), gpu_count=len(row.gpus),
                python=row.python, over=over, ahead=ahead,
            )  # fmt: skip
    return free


def total(row: WorkerRow) -> Capacity:
    """All that a worker has."""
    return Capacity(
        slots=row.concurrency, concurrency=row.concurrency, batch=row.batch_id, cpus=row.cpus, memory=row.memory,
        memory_total=row.memory,
        gpus=row.gpus, gpu_count=len(row.gpus), python=row.python,
    )  # fmt: skip
