"""Which work workers get for the time in which nobody drives: as much as they can do, and what follows from it there.

Pure: takes tasks with their expected times and the workers' room, returns assignments. Writing them down is `deciding`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from scitq.placement import PLAIN, Terms, could_ever, gpus_of, slots_of
from scitq.task import Assignment, Need, TaskId
from scitq.worker import Capacity, WorkerId

# What a task is thought to take of whose kind nothing has run yet.
UNKNOWN_S = 60.0


class Work(NamedTuple):
    """A task that might be handed over. `parents`: what it waits for still. `tied`: workers on which it could not begin
    without something of this machine's, which is to be sent there first."""

    id: TaskId
    batch: int
    need: Need | None
    run_s: float
    parents: tuple[int, ...] = ()
    tied: frozenset[WorkerId] = frozenset()
    avoid: tuple[int, ...] = ()
    terms: Mapping[WorkerId, Terms] | None = None  # of those that serve its batch, if that has recruiters


@dataclass
class Room:
    """A worker's time: slots times seconds that are not spoken for yet."""

    capacity: Capacity
    left_s: float


@dataclass
class Handed:
    """What becomes of it."""

    orders: list[Assignment] = field(default_factory=list)
    # After others that their worker holds as well.
    after: list[Assignment] = field(default_factory=list)
    # Of all these, tasks to whose worker something of this machine's must be sent first.
    tied: list[TaskId] = field(default_factory=list)
    # Tasks that want a GPU: which of them they get is decided when one is free, and nobody will be there then.
    gpus: list[TaskId] = field(default_factory=list)
    # Tasks that found no room.
    left: int = 0


def hand_over(
    ready: Iterable[Work], waiting: Iterable[Work], rooms: Mapping[WorkerId, Room], held: Mapping[int, WorkerId]
) -> Handed:
    """Fill the emptiest worker first. A task that waits goes to the worker that holds all it waits for, if there is one. Those
    that something must be sent for take what room the others leave: there may be no time for it.

    `ready` come best first, `waiting` with what they require before them. `held`: tasks that workers hold already, and where.
    """
    found = Handed()
    places = dict(held)
    later: list[Work] = []

    def give(work: Work, able: list[WorkerId]) -> None:
        best = max(
            able, key=lambda worker: (rooms[worker].left_s / max(1, rooms[worker].capacity.concurrency), -worker)
        )
        found.orders.append(_give(work, best, rooms[best]))
        places[work.id] = best

    for work in ready:
        able = [worker for worker, room in rooms.items() if _fits(work, worker, room)]
        if free := [worker for worker in able if worker not in work.tied]:
            give(work, free)
        elif able:
            later.append(work)
        elif any(_wants_gpu(work, room.capacity) and _serves(work, worker, room) for worker, room in rooms.items()):
            found.gpus.append(work.id)
        else:
            found.left += 1
    for work in later:
        if able := [worker for worker, room in rooms.items() if _fits(work, worker, room)]:
            give(work, able)
            found.tied.append(work.id)
        else:
            found.left += 1
    for work in waiting:
        where = {places.get(parent) for parent in work.parents}
        worker = where.pop() if len(where) == 1 else None
        if worker is None or worker not in rooms:
            continue  # what it waits for ends elsewhere, or on several
        if _fits(work, worker, rooms[worker]):
            found.after.append(_give(work, worker, rooms[worker]))
            places[work.id] = worker
            if worker in work.tied:
                found.tied.append(work.id)
        elif _wants_gpu(work, rooms[worker].capacity):
            found.gpus.append(work.id)
        else:
            found.left += 1
    return found


def slots_there(need: Need | None, capacity: Capacity, terms: Terms = PLAIN) -> int:
    """The slots that a task takes of a worker that has only its slots to go by: its CPUs' share, its memory's, or its batch's."""
    # Where nobody counts, the slots alone have to see to it that not too many run at once.
    least = math.ceil(capacity.concurrency / terms.most) if terms.most else terms.slots
    if need is None:
        return least
    slots = max(least, slots_of(need, capacity))
    if need.memory and capacity.memory_total:
        slots = max(slots, math.ceil(need.memory * capacity.concurrency / capacity.memory_total - 1e-9))
    return min(slots, max(1, capacity.concurrency))


def _serves(work: Work, worker: WorkerId, room: Room) -> bool:
    serves = room.capacity.batch in (None, work.batch) if work.terms is None else worker in work.terms
    return serves and worker not in work.avoid and could_ever(work.need or Need(), room.capacity)


def _wants_gpu(work: Work, capacity: Capacity) -> bool:
    return work.need is not None and bool(work.need.gpus) and gpus_of(work.need, capacity) > 0


def _fits(work: Work, worker: WorkerId, room: Room) -> bool:
    return (
        _serves(work, worker, room)
        and not _wants_gpu(work, room.capacity)
        and _slots(work, worker, room) * work.run_s <= room.left_s
    )


def _slots(work: Work, worker: WorkerId, room: Room) -> int:
    return slots_there(work.need, room.capacity, PLAIN if work.terms is None else work.terms[worker])


def _give(work: Work, worker: WorkerId, room: Room) -> Assignment:
    slots = _slots(work, worker, room)
    room.left_s -= slots * work.run_s
    return Assignment(work.id, worker, slots, (work.need.memory or 0) if work.need is not None else 0)
