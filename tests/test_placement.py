"""Which task goes where."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.placement import Service, Terms, admits, choosy, could_ever, place
from scitq.states import WorkerState
from scitq.task import Assignment, BatchId, Need, PendingTask, TaskId
from scitq.worker import Capacity, WorkerId, WorkerRow, window


def some_tasks(count: int, batch: int = 1) -> list[PendingTask]:
    return [PendingTask(TaskId(n), BatchId(batch), 0) for n in range(1, count + 1)]


@pytest.mark.promise("core 11.20")
def test_equal_workers_get_equal_work() -> None:
    free = {WorkerId(n): Capacity(slots=4, concurrency=4) for n in (1, 2, 3)}
    assert Counter(a.worker for a in place(some_tasks(6), free)) == {1: 2, 2: 2, 3: 2}


def test_free_slots_are_filled_before_any_queue() -> None:
    free = {
        WorkerId(1): Capacity(slots=0, queue=9, concurrency=1),
        WorkerId(2): Capacity(slots=2, queue=9, concurrency=8),
    }
    assert [a.worker for a in place(some_tasks(2), free)] == [2, 2]


def test_tasks_are_taken_in_the_order_given() -> None:
    assert [a.task for a in place(some_tasks(5), {WorkerId(1): Capacity(slots=3, concurrency=3)})] == [1, 2, 3]


def test_a_worker_of_another_batch_takes_nothing() -> None:
    free = {WorkerId(1): Capacity(slots=2, concurrency=2, batch=7)}
    assert place(some_tasks(3, batch=1), free) == []
    mixed = [*some_tasks(1, batch=1), PendingTask(TaskId(9), BatchId(7), 0)]
    assert [a.task for a in place(mixed, free)] == [9]


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from([None, 1, 2])), max_size=6),
)
def test_no_worker_is_given_more_than_it_can_take_and_none_idles_beside_a_task(
    count: int, shapes: list[tuple[int, int, int | None]]
) -> None:
    free = {
        WorkerId(n): Capacity(slots=s, queue=q, concurrency=max(1, s), batch=b) for n, (s, q, b) in enumerate(shapes)
    }
    queue = [PendingTask(TaskId(n), BatchId(1 + n % 2), 0) for n in range(count)]
    given_out = place(queue, free)
    taken = Counter(a.worker for a in given_out)
    assert all(taken[w] <= c.slots + c.queue for w, c in free.items())
    assert len({a.task for a in given_out}) == len(given_out)
    left = [task for task in queue if task.id not in {a.task for a in given_out}]
    for worker, capacity in free.items():
        if taken[worker] < capacity.slots + capacity.queue:
            assert not [task for task in left if capacity.batch in (None, task.batch)]


@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.sampled_from([None, Need(cpus=1), Need(cpus=3), Need(memory=5)])), max_size=50
    ),
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 6), st.sampled_from([None, 1])), max_size=6
    ),
)
def test_many_tasks_go_where_they_would_go_one_at_a_time(
    asked: list[tuple[int, Need | None]], shapes: list[tuple[int, int, int, int | None]]
) -> None:
    """Each plain task goes to the worker with a free slot, else the least loaded, of all as they are at that moment."""
    free = {
        WorkerId(n): Capacity(
            slots=min(s, c), queue=q, concurrency=c, batch=b, cpus=c, memory=8, memory_total=8
        )
        for n, (s, q, c, b) in enumerate(shapes)
    }  # fmt: skip
    queue = [PendingTask(TaskId(n), BatchId(batch), 0, need) for n, (batch, need) in enumerate(asked)]
    slots, waiting = {w: c.slots for w, c in free.items()}, dict.fromkeys(free, 0)
    for task, number, taken, *_ in place(queue, free):
        worker = WorkerId(number)
        if queue[task].need is None:
            able = [
                (slots[w] <= 0, (c.concurrency - slots[w] + waiting[w]) / c.concurrency, w)
                for w, c in free.items()
                if c.batch in (None, queue[task].batch) and slots[w] + c.queue - waiting[w] > 0
            ]
            # One that is kept for a larger task takes nothing meanwhile; without such tasks it is exactly the best.
            assert worker in {w for *_, w in able}
            if not any(need for _, need in asked):
                assert worker == min(able)[2]
        if slots[worker] > 0:
            slots[worker] -= taken
        else:
            waiting[worker] += 1


def test_prefetch_is_for_short_tasks_only() -> None:
    assert window(2, None, None) == 4
    assert window(2, None, 0.001) == 2 + 64
    assert window(2, None, 0.02) == 2 + 5
    assert window(2, None, 3600.0) == 2
    assert window(2, 5, 3600.0) == 7
    assert window(64, None, 0.001) == 128
    assert window(0, None, 0.001) == 0


def test_a_worker_elsewhere_holds_what_it_needs_while_its_link_is_silent() -> None:
    assert window(2, None, 2.0, is_far=True) == 2 + 20
    assert window(2, None, 0.001, is_far=True) == 2 + 64
    assert window(2, None, 3600.0, is_far=True) == 2
    assert window(2, None, None, is_far=True) == 4
    assert window(2, 5, 2.0, is_far=True) == 7
    assert window(0, None, 2.0, is_far=True) == 0


def big(id: int, **need: float | str) -> PendingTask:
    return PendingTask(TaskId(id), BatchId(1), 0, Need(**need))  # type: ignore[arg-type]


def host(cpus: int = 8, memory: int = 32, gpus: tuple[str, ...] = (), taken: int = 0) -> Capacity:
    return Capacity(
        slots=cpus - taken,
        concurrency=cpus,
        cpus=cpus,
        memory=memory,
        memory_total=memory,
        gpus=gpus,
        gpu_count=len(gpus),
    )


@pytest.mark.promise("core 11.20")
def test_requests_are_packed_by_cpus_memory_and_gpus() -> None:
    free = {WorkerId(1): host(cpus=8, memory=32, gpus=("0", "1"))}
    placed = place(
        [big(1, cpus=4, memory=16), big(2, gpus=1, memory=8), big(3, gpus=1), big(4, gpus=1), big(5, cpus=2)], free
    )
    assert [(a.task, a.slots, a.memory, a.gpus) for a in placed] == [
        (1, 4, 16, ()), (2, 1, 8, ("0",)), (3, 1, 0, ("1",)),
    ]  # fmt: skip


def test_requests_mix_with_plain_tasks() -> None:
    placed = place([big(1, cpus=6), *some_tasks(5)[1:]], {WorkerId(1): host(cpus=8)})
    assert [a.task for a in placed] == [1, 2, 3]


def test_a_request_too_large_for_now_is_not_starved_by_smaller_ones_behind_it() -> None:
    assert place([big(1, cpus=8), *some_tasks(5)[1:]], {WorkerId(1): host(cpus=8, taken=1)}) == []
    two = {WorkerId(1): host(cpus=8, taken=1), WorkerId(2): host(cpus=4)}
    assert {a.worker for a in place([big(1, cpus=8), *some_tasks(5)[1:]], two)} == {2}


def test_a_request_that_no_worker_can_meet_holds_nobody_up() -> None:
    assert [a.task for a in place([big(1, cpus=64), *some_tasks(3)[1:]], {WorkerId(1): host(cpus=8)})] == [2, 3]


def test_a_request_is_never_staged_ahead() -> None:
    free = {WorkerId(1): Capacity(slots=0, queue=5, concurrency=2, cpus=2, memory=8, memory_total=8)}
    assert place([big(1, memory=4)], free) == []


def test_a_call_goes_where_its_python_is() -> None:
    other, same, own = (Capacity(slots=1, queue=1, concurrency=1, python=version) for version in ("3.9", "3.12", None))
    call = big(1, python="3.12")

    assert not could_ever(Need(python="3.12"), other)
    assert could_ever(Need(python="3.12"), same) and could_ever(Need(python="3.12"), own)
    assert place([call], {WorkerId(1): other, WorkerId(2): same}) == [Assignment(TaskId(1), WorkerId(2))]
    assert place([call], {WorkerId(1): other}) == []
    # It occupies nothing but a slot, so it may be staged ahead, and keeps no room from others while it waits.
    assert len(place([call, big(2, python="3.12"), big(3, python="3.12")], {WorkerId(1): own})) == 2
    plain = PendingTask(TaskId(4), BatchId(1), 0)
    assert place([call, plain], {WorkerId(1): other}) == [Assignment(TaskId(4), WorkerId(1))]


def worker(id: int, state: WorkerState = WorkerState.READY, concurrency: int = 2, memory: int = 8) -> WorkerRow:
    facts = {"cpus": 2, "memory": memory}
    return WorkerRow(WorkerId(id), f"w{id}", "local", state, None, concurrency, None, facts, None, None, 0, 0, None)


def placed(task: PendingTask, known: list[WorkerRow], busy: tuple[int, ...] = ()) -> list[int]:
    """The worker that a task goes to, of these; `busy` ones are full now."""
    free = {
        row.id: Capacity(slots=2, concurrency=2, cpus=2, memory=row.memory, memory_total=row.memory)
        for row in known
        if row.state is WorkerState.READY and row.id not in busy
    }
    return [a.worker for a in place(choosy([task], {row.id: row for row in known}), free)]


def test_a_task_does_not_go_back_to_a_worker_that_made_it_fail() -> None:
    task = PendingTask(TaskId(1), BatchId(1), 0, avoid=(1,))
    assert placed(task, [worker(1), worker(2)]) == [2]
    assert placed(task._replace(need=Need(memory=4)), [worker(1), worker(2)]) == [2]
    assert placed(task, [worker(1), worker(2)], busy=(2,)) == []  # it waits for the other one


@pytest.mark.parametrize(
    "other",
    [None, worker(2, WorkerState.UNREACHABLE), worker(2, WorkerState.DRAINING), worker(2, concurrency=0), worker(2, memory=1)],
)  # fmt: skip
def test_unless_that_is_the_only_one_that_fits(other: WorkerRow | None) -> None:
    task = PendingTask(TaskId(1), BatchId(1), 0, Need(memory=4), avoid=(1,))
    assert placed(task, [worker(1), *([other] if other else [])]) == [1]


def test_a_task_that_avoids_a_worker_keeps_nobody_else_from_it() -> None:
    tasks = [PendingTask(TaskId(1), BatchId(1), 0, avoid=(1,)), *some_tasks(4)[1:]]
    known = {row.id: row for row in (worker(1), worker(2))}
    free = {WorkerId(1): Capacity(slots=2, concurrency=2), WorkerId(2): Capacity(slots=0, queue=0, concurrency=2)}
    assert [(a.task, a.worker) for a in place(choosy(tasks, known), free)] == [(2, 1), (3, 1)]


# --- batches with recruiters ------------------------------------------------------------------------------------------------------


def service(terms: dict[int, Terms], **more: object) -> Service:
    return Service({WorkerId(n): each for n, each in terms.items()}, **more)  # type: ignore[arg-type]


def test_a_task_takes_its_batchs_share_of_a_worker_and_mixes_with_others() -> None:
    tasks = [*some_tasks(2, batch=1), *[PendingTask(TaskId(n), BatchId(2), 0) for n in range(10, 20)]]
    placed = place(tasks, {WorkerId(1): Capacity(slots=8, concurrency=8)}, {1: service({1: Terms(3)})})
    assert [(a.task, a.slots) for a in placed] == [(1, 3), (2, 3), (10, 1), (11, 1)]


def test_only_workers_of_the_recruiters_flavor_are_used() -> None:
    free = {WorkerId(n): Capacity(slots=4, concurrency=4) for n in (1, 2)}
    assert {a.worker for a in place(some_tasks(9), free, {1: service({2: Terms()})})} == {2}


def test_no_more_of_a_batch_are_at_a_worker_than_its_recruiter_says() -> None:
    free = {WorkerId(1): Capacity(slots=8, queue=8, concurrency=8)}
    placed = place(some_tasks(9), free, {1: service({1: Terms(2, most=3)})})
    assert [a.slots for a in placed] == [2, 2, 2]
    assert place(some_tasks(9), free, {1: service({1: Terms(2, most=3)}, held={WorkerId(1): 3})}) == []
    assert place(some_tasks(9), free, {1: service({1: Terms(1, most=0)})}) == []


def test_a_recruiters_prefetch_counts_beside_the_workers_own() -> None:
    free = {WorkerId(1): Capacity(slots=4, queue=0, concurrency=4, ahead=4)}
    assert len(place(some_tasks(9), free, {1: service({1: Terms(2, ahead=2)})})) == 4
    assert len(place(some_tasks(9), free, {1: service({1: Terms(2, ahead=0)})})) == 2
    full = {WorkerId(1): Capacity(slots=0, queue=0, concurrency=4, over=4, ahead=4)}
    assert place(some_tasks(9), full, {1: service({1: Terms(2, ahead=2)})}) == []


def test_a_share_that_is_not_free_now_is_kept_for_the_task_that_came_first() -> None:
    others = [PendingTask(TaskId(n), BatchId(2), 0) for n in range(10, 20)]
    free = {WorkerId(1): Capacity(slots=2, concurrency=8)}
    heavy = {1: service({1: Terms(4)})}
    assert place([*some_tasks(1), *others], free, heavy) == []
    assert len(place([*others, *some_tasks(1)], free, heavy)) == 2
    # Its own batch has all that it may have there: nothing is kept.
    held = {1: service({1: Terms(4)}, held={WorkerId(1): 2})}
    assert [a.task for a in place([*some_tasks(1), *others], {WorkerId(1): Capacity(1, concurrency=8)}, held)] == [10]


def test_no_more_workers_serve_a_batch_than_its_recruiters_allow() -> None:
    free = {WorkerId(n): Capacity(slots=2, concurrency=2) for n in range(1, 5)}
    two = service({n: Terms() for n in free}, limits=[2])
    placed = place(some_tasks(9), free, {1: two})
    assert len(placed) == 4
    assert len({a.worker for a in placed}) == 2
    busy = service({n: Terms() for n in free}, limits=[2], serving=frozenset({WorkerId(3), WorkerId(4)}))
    assert {a.worker for a in place(some_tasks(9), free, {1: busy})} == {3, 4}
    with_need = [PendingTask(TaskId(n), BatchId(1), 0, Need(python="3.12")) for n in range(9)]
    assert {a.worker for a in place(with_need, free, {1: busy})} == {3, 4}


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=3),
    st.lists(st.sets(st.integers(0, 2), min_size=1), max_size=8),
)
def test_one_more_worker_is_let_in_exactly_when_there_is_a_place_for_all(
    limits: list[int | None], suited: list[set[int]]
) -> None:
    ranks = [tuple(sorted(rank for rank in one if rank < len(limits))) for one in suited]
    ranks = [one for one in ranks if one]

    def all_fit(left: list[tuple[int, ...]], room: list[float]) -> bool:
        if not left:
            return True
        return any(
            room[rank] > 0 and all_fit(left[1:], [n - (at == rank) for at, n in enumerate(room)]) for rank in left[0]
        )

    room = [float("inf") if limit is None else float(limit) for limit in limits]
    present: list[tuple[int, ...]] = []
    for one in ranks:
        assert admits(limits, present, one) == all_fit([*present, one], room)
        if all_fit([*present, one], room):
            present.append(one)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, Need(cpus=2)])), max_size=40),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 6), st.one_of(st.none(), st.integers(0, 3)), st.one_of(st.none(), st.integers(0, 2))),
             min_size=3, max_size=3),
)  # fmt: skip
def test_slots_shares_and_numbers_of_workers_are_kept_whatever_is_asked(
    asked: list[tuple[int, Need | None]],
    shapes: list[tuple[int, int]],
    rules: list[tuple[int, int | None, int | None]],
) -> None:
    free = {WorkerId(n): Capacity(slots=c, queue=q, concurrency=c, cpus=c, ahead=99) for n, (c, q) in enumerate(shapes)}
    services = {}
    for batch, (share, ahead, limit) in enumerate(rules[:2], 1):  # batch 3 has no recruiter
        terms = {}
        for worker, capacity in free.items():
            slots = max(1, capacity.concurrency // share)
            uneven = share < capacity.concurrency and capacity.concurrency % share
            terms[worker] = Terms(slots, share if uneven else None, ahead)
        services[batch] = Service(terms, [limit])
    queue = [PendingTask(TaskId(n), BatchId(batch), 0, need) for n, (batch, need) in enumerate(asked)]
    placed = place(queue, free, services)
    assert len({a.task for a in placed}) == len(placed)
    at_once: Counter[int] = Counter()
    for a in placed:
        batch = asked[a.task][0]
        if batch in services:
            assert a.slots >= services[batch].terms[WorkerId(a.worker)].slots
        at_once[a.worker] += a.slots
    for batch, each in services.items():
        its_own = [a.worker for a in placed if asked[a.task][0] == batch]
        limit = each.limits[0]
        assert limit is None or len(set(its_own)) <= limit
        for number, count in Counter(its_own).items():
            worker = WorkerId(number)
            terms_there = each.terms[worker]
            assert terms_there.most is None or count <= terms_there.most
            heavy = free[worker].concurrency // terms_there.slots
            assert count <= heavy + (free[worker].queue if terms_there.ahead is None else terms_there.ahead)
    for worker, capacity in free.items():
        waiting = capacity.queue + max([(r[1] or 0) * max(1, capacity.concurrency // r[0]) for r in rules])
        assert at_once[worker] <= capacity.concurrency + waiting + max(1, capacity.concurrency)
