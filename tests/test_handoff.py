"""Which work workers are given for a time without a driver."""

from __future__ import annotations

from dataclasses import replace

from scitq.handoff import Handed, Room, Work, hand_over, slots_there
from scitq.placement import Terms
from scitq.task import Assignment, Need, TaskId
from scitq.worker import Capacity, WorkerId

A, B = WorkerId(1), WorkerId(2)


def work(id: int, run_s: float = 100.0, *parents: int, need: Need | None = None, **more: object) -> Work:
    return Work(TaskId(id), 1, need, run_s, parents, **more)  # type: ignore[arg-type]


def rooms(hours_a: float = 1.0, hours_b: float = 1.0, concurrency: int = 2) -> dict[WorkerId, Room]:
    capacity = Capacity(concurrency, concurrency=concurrency, cpus=concurrency, memory_total=8_000)
    return {A: Room(capacity, hours_a * 3600 * concurrency), B: Room(capacity, hours_b * 3600 * concurrency)}


def ids(found: list[Assignment]) -> dict[int, int]:
    return {each.task: each.worker for each in found}


def test_workers_get_as_much_as_they_can_do_and_no_more() -> None:
    found = hand_over([work(n) for n in range(1, 200)], [], rooms(), {})
    assert sorted(ids(found.orders).values()) == [A] * 72 + [B] * 72
    assert found.left == 199 - 144


def test_the_emptiest_is_filled_first() -> None:
    found = hand_over([work(1), work(2), work(3)], [], rooms(hours_a=0.1), {})
    assert ids(found.orders) == {1: B, 2: B, 3: B}


def test_what_waits_goes_where_all_that_it_waits_for_is() -> None:
    found = hand_over(
        [work(1), work(2)],
        [work(3, 1, 1, 9), work(4, 1, 1, 2), work(5, 1, 3), work(6, 1, 4), work(7, 1, 99)],
        rooms(),
        {9: A},
    )
    first = ids(found.orders)
    assert first == {1: A, 2: B}
    assert ids(found.after) == {3: A, 5: A}


def test_what_something_must_be_sent_for_takes_what_room_is_left_and_is_named() -> None:
    both = frozenset((A, B))
    found = hand_over([work(1, tied=both), work(2, tied=frozenset((A,)))], [work(3, 1, 2, tied=both)], rooms(), {})
    assert (ids(found.orders), ids(found.after), found.tied) == ({2: B, 1: A}, {3: B}, [1, 3])
    full = hand_over([work(1, 3600, tied=both), *[work(n, 3600) for n in range(2, 6)]], [], rooms(), {})
    assert (sorted(ids(full.orders)), full.tied, full.left) == ([2, 3, 4, 5], [], 1)


def test_memory_takes_slots_and_gpus_are_not_promised() -> None:
    [capacity, _] = [room.capacity for room in rooms().values()]
    assert slots_there(Need(memory=4_001), capacity) == 2
    assert slots_there(Need(memory=100, cpus=1), capacity) == 1
    found = hand_over([work(1, need=Need(gpus=1)), work(2, need=Need(memory=9_000))], [], rooms(), {})
    assert found == Handed(left=2)  # no worker has one
    has = {A: Room(replace(capacity, gpus=("0",), gpu_count=1), 7200.0)}
    assert hand_over([work(1, need=Need(gpus=1))], [work(2, 1, 9, need=Need(gpus=1))], has, {9: A}) == Handed(
        gpus=[TaskId(1), TaskId(2)]
    )


def test_a_batch_with_recruiters_gets_its_share_of_the_workers_that_serve_it() -> None:
    terms = {B: Terms(2)}
    found = hand_over([work(n, 1800, terms=terms) for n in range(1, 5)], [], rooms(), {})
    assert [(each.worker, each.slots) for each in found.orders] == [(B, 2), (B, 2)]
    assert found.left == 2
    # Nobody counts them there: slots alone see to it that no more than two run at once.
    assert slots_there(None, Capacity(5, concurrency=5), Terms(2, most=2)) == 3
    assert slots_there(Need(cpus=1), Capacity(4, concurrency=4, cpus=4), Terms(2)) == 2
