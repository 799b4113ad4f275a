"""Which workers change batches, which machines are rented, which are let go: the rule alone, on worlds made up here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.appraising import Left
from scitq.money import HOUR_MS, Account, Allowance, Life, Limit, Scope, commitment, nanos
from scitq.offers import Flavor, Offer, Rental, RentalState
from scitq.ranking import Ranked, Ranking
from scitq.recruiting import services
from scitq.roster import (
    BOOT_S,
    Decision,
    Demand,
    Deploy,
    Destroy,
    Drain,
    Idle,
    Move,
    Resume,
    Short,
    Staff,
    Work,
    World,
)  # fmt: skip
from scitq.staffing import MOST_RENTED, decide, recycle
from scitq.states import WorkerState
from scitq.task import Need
from scitq.worker import Recruiter, WorkerId, WorkerRow
from tests.test_recruiting import worker

NOW = 10**12
MINUTE = 60_000


def demand(batch: int, ready: int, *rules: Recruiter, known: list[WorkerRow], **more: Any) -> Demand:
    service = services(rules, known, more.pop("held", {}))[batch]
    more.setdefault("work", [Work(None, ready)])
    return Demand(batch, rules, service, name=f"b{batch}", **more)


# --- changing batches -------------------------------------------------------------------------------------------------------------


def spares(*rows: WorkerRow) -> list[Staff]:
    return [Staff(row, row.concurrency) for row in rows]


def test_a_worker_whose_batch_has_nothing_pending_changes_to_one_that_has() -> None:
    rule = Recruiter(2, 1, tasks_per_worker=4)
    row = worker(1, batch=1)
    assert recycle([demand(2, 4, rule, known=[row])], spares(row), {2: 4}) == [Move(row.id, 2, 1, rule)]
    assert recycle([demand(2, 4, rule, known=[row])], spares(row), {1: 1, 2: 4}) == []


@pytest.mark.promise("core 11.10")
@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.READY])
def test_only_workers_that_are_ready_change_their_batch_or_count(state: WorkerState) -> None:
    rule = Recruiter(2, 1, tasks_per_worker=1, maximum_workers=1)
    row = worker(1, batch=1, state=state)
    assert recycle([demand(2, 4, rule, known=[row])], spares(row), {2: 4}) == []
    there, able = worker(3, batch=2, state=state), worker(4, batch=1)
    moves = recycle([demand(2, 1, rule, known=[there, able])], spares(there, able), {2: 1})
    on_its_way = state in (WorkerState.WANTED, WorkerState.DEPLOYING, WorkerState.PREPARING)
    assert bool(moves) is not on_its_way, "one that cannot work does not take the place of one that can"


@pytest.mark.promise("core 11.10")
def test_ranks_of_one_batch_do_not_get_a_worker_each_for_the_same_need() -> None:
    first, second = Recruiter(2, 1, tasks_per_worker=4), Recruiter(2, 2, tasks_per_worker=4)
    rows = [worker(n, batch=1) for n in range(1, 6)]
    moves = recycle([demand(2, 8, first, second, known=rows)], spares(*rows), {2: 8})
    assert [move.rank for move in moves] == [1, 1]


@pytest.mark.promise("core 11.10")
def test_the_second_rank_goes_on_where_the_first_has_all_that_it_may_have() -> None:
    first = Recruiter(2, 1, tasks_per_worker=1, maximum_workers=1, flavor="big")
    second = Recruiter(2, 2, tasks_per_worker=1, maximum_workers=1, flavor="small")
    rows = [worker(n, batch=1, settings={"flavor": "big" if n > 3 else "small"}) for n in range(1, 6)]
    moves = recycle([demand(2, 9, first, second, known=rows)], spares(*rows), {2: 9})
    assert [(move.worker, move.rank) for move in moves] == [(4, 1), (1, 2)]
    same = [Recruiter(2, rank, tasks_per_worker=1, maximum_workers=2) for rank in (1, 2)]
    assert len(recycle([demand(2, 9, *same, known=rows)], spares(*rows), {2: 9})) == 4


def test_limits_and_minimum_are_kept_and_the_idlest_worker_is_taken() -> None:
    rows = [worker(n, batch=1) for n in range(1, 5)]
    for rule, pending, count in (
        (Recruiter(2, 1, tasks_per_worker=2, minimum_tasks=10), 9, 0),
        (Recruiter(2, 1, tasks_per_worker=2, minimum_tasks=10), 10, 4),
        (Recruiter(2, 1, tasks_per_worker=2, maximum_workers=1), 9, 1),
        (Recruiter(2, 1, tasks_per_worker=2, maximum_workers=0), 9, 0),
        (Recruiter(2, 1, tasks_per_worker=5), 9, 2),
        (Recruiter(2, 1, concurrency=3), 9, 3),
        (Recruiter(2, 1, tasks_per_worker=2, flavor="big"), 9, 0),
    ):
        assert len(recycle([demand(2, pending, rule, known=rows)], spares(*rows), {2: pending})) == count, rule
    busy = [Staff(rows[0], 1, held=7), Staff(rows[1], 0, held=8), Staff(rows[2], 5, held=3)]
    found = recycle([demand(2, 2, Recruiter(2, 1, tasks_per_worker=1), known=rows)], busy, {2: 2})
    assert [move.worker for move in found] == [3, 1], "a partly idle one is enough, a full one is not"


def test_a_worker_that_could_do_nothing_for_a_batch_is_not_taken() -> None:
    row = worker(1, batch=1)
    for needs, is_taken in (
        ([Need(cpus=64)], False),
        ([Need(cpus=64), None], True),
        ([Need(cpus=8)], True),
        ([], False),
    ):
        want = replace(demand(2, 4, Recruiter(2, 1), known=[row]), work=[Work(need, 4) for need in needs])
        assert bool(recycle([want], spares(row), {2: 4})) is is_taken


def test_a_worker_that_is_to_keep_its_batch_keeps_it() -> None:
    row = worker(1, batch=1, settings={"keep_batch": True})
    assert recycle([demand(2, 4, Recruiter(2, 1), known=[row])], spares(row), {2: 4}) == []


def test_a_worker_goes_home_when_there_is_work_again_and_none_where_it_is() -> None:
    row = worker(1, batch=2)
    assert recycle([], [Staff(row, 8, home=1)], {1: 3}) == [Move(row.id, 1, None)]
    assert recycle([], [Staff(row, 8, home=1)], {1: 3, 2: 1}) == []
    assert recycle([], [Staff(row, 8, home=2)], {2: 0}) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(WorkerState)), st.integers(0, 8)), max_size=12),
    st.dictionaries(st.integers(1, 3), st.integers(0, 30), max_size=3),
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 5)),
        max_size=5, unique_by=lambda rule: rule[:2],
    ),
)  # fmt: skip
def test_whatever_is_wanted_nobody_is_taken_twice_or_from_work_and_no_limit_is_passed(
    shapes: list[tuple[int, WorkerState, int]],
    pending: dict[int, int],
    asked: list[tuple[int, int, int, int | None, int]],
) -> None:
    known = [worker(n, batch=batch or None, state=state) for n, (batch, state, _) in enumerate(shapes)]
    rules: dict[int, list[Recruiter]] = {}
    for batch, rank, each, most, least in sorted(asked, key=lambda rule: rule[:2]):
        rule = Recruiter(batch, rank, tasks_per_worker=each, maximum_workers=most, minimum_tasks=least)
        rules.setdefault(batch, []).append(rule)
    demands = [demand(batch, pending.get(batch, 0), *ranked, known=known) for batch, ranked in rules.items()]
    free = [Staff(row, row.concurrency - busy) for row, (_, _, busy) in zip(known, shapes, strict=True)]
    moves = recycle(demands, free, pending)
    assert len({move.worker for move in moves}) == len(moves)
    rows = {row.id: row for row in known}
    for move in moves:
        row = rows[move.worker]
        assert row.state is WorkerState.READY
        assert row.batch_id not in (None, move.batch)
        assert not pending.get(row.batch_id or 0)
    for want in demands:
        gained = [move for move in moves if move.batch == want.batch]
        count = len(want.service.serving) + len(gained)
        least_each = min(rule.tasks_per_worker or 1 for rule in want.recruiters)
        assert not gained or count <= -(-want.ready // least_each)
        limits = [rule.maximum_workers for rule in want.recruiters]
        if gained and None not in limits:
            assert count <= sum(limit or 0 for limit in limits)
    # The next pass, which sees what was written, wants nothing more.
    after = [replace(row, batch_id=next((m.batch for m in moves if m.worker == row.id), row.batch_id)) for row in known]
    again = [demand(batch, pending.get(batch, 0), *ranked, known=after) for batch, ranked in rules.items()]
    left = [Staff(row, row.concurrency - busy) for row, (_, _, busy) in zip(after, shapes, strict=True)]
    assert recycle(again, left, pending) == []


# --- renting ----------------------------------------------------------------------------------------------------------------------


def offer(name: str = "m4", region: str = "north", *, cpu: int = 4, price: float | None = 0.2, **more: Any) -> Offer:
    more.setdefault("families", {"ondemand": ("cores",)})
    flavor = Flavor("fake", name, cpu, cpu * 4 * 10**9, families=more.pop("families"))
    return Offer(flavor, region, price=price, **more)


def sold(*offers: Offer) -> Any:
    """A market: what is sold, best first, whoever asks."""
    found = Ranking([Ranked(one, one.price, one.currency, one.flavor.cpu, 0.0, BOOT_S) for one in offers])
    return lambda demand, rule: found


def rule(batch: int = 1, rank: int = 1, **more: Any) -> Recruiter:
    more.setdefault("provider", "fake")
    return Recruiter(batch, rank, **more)


def rented(id: int, batch: int | None = 1, *, state: WorkerState = WorkerState.READY, **more: Any) -> Staff:
    """A rented worker; `spare` slots of its 4, `held` executions, …"""
    one = more.pop("offer", offer())
    times: dict[str, Any] = {
        "wanted_ms": NOW - 60 * MINUTE,
        "accepted_ms": NOW - 59 * MINUTE,
        "running_ms": NOW - 58 * MINUTE,
    }
    times |= more.pop("times", {})
    rental = Rental(
        worker=WorkerId(id), code=f"code{id}", state=more.pop("rental_state", RentalState.RUNNING), provider="fake",
        region=one.region, flavor=one.flavor.name, market=one.market, price=one.price, currency=one.currency, billed_s=one.billed_s,
        minimum_s=one.minimum_s, ended_ms=None, expires_ms=None, cloud_id=f"i-{id}", batch=more.pop("rented_for", batch),
        rank=more.pop("rank", 1), **times,
    )  # fmt: skip
    row = worker(
        id, batch=batch, slots=4, state=state, kind="rented", facts={"cpus": one.flavor.cpu, "memory": one.flavor.ram},
        settings={"flavor": one.flavor.name, **more.pop("settings", {})}, **more.pop("row", {}),
    )  # fmt: skip
    return Staff(row, more.pop("spare", 4), rental=rental, **more)


def kinds(decision: Decision, kind: type) -> list[Any]:
    return [action for action in decision.actions if isinstance(action, kind)]


def asked(decision: Decision) -> list[tuple[str, str]]:
    return [(action.offer.flavor.name, action.offer.region) for action in kinds(decision, Deploy)]


def world(*demands: Demand, staff: list[Staff] | None = None, **more: Any) -> World:
    more.setdefault("offers", sold(offer()))
    return World(NOW, demands, staff or [], {one.batch: one.ready for one in demands}, **more)


@pytest.mark.parametrize(
    ("fields", "ready", "count"),
    [
        ({"tasks_per_worker": 5}, 11, 3),
        ({"concurrency": 2}, 11, 6),
        ({"concurrency": 2, "settings": {"rounds": 3}}, 11, 2),
        ({}, 11, 3),  # as many at once as it has CPUs
        ({"settings": {"rounds": 2}}, 11, 2),
        ({"tasks_per_worker": 1}, 99, MOST_RENTED),
        ({"tasks_per_worker": 1, "maximum_workers": 25}, 99, 25),
        ({"tasks_per_worker": 1, "minimum_tasks": 12}, 11, 0),
        ({"provider": None}, 11, 0),
        ({"concurrency": 0}, 11, 0),
    ],
)
def test_a_machine_is_rented_for_every_so_many_tasks(fields: dict[str, Any], ready: int, count: int) -> None:
    found = decide(world(demand(1, ready, rule(**fields), known=[])))
    assert len(kinds(found, Deploy)) == count


@pytest.mark.promise("core 11.10")
def test_those_that_are_there_or_on_their_way_count_with_what_they_have_taken_already() -> None:
    states = [
        WorkerState.WANTED,
        WorkerState.DEPLOYING,
        WorkerState.PREPARING,
        WorkerState.READY,
        WorkerState.UNREACHABLE,
    ]
    staff = [rented(n, state=state) for n, state in enumerate(states)]
    want = demand(1, 22, rule(tasks_per_worker=4), known=[each.row for each in staff])
    assert len(kinds(decide(world(want, staff=staff)), Deploy)) == 1
    dead = [
        rented(n, state=state)
        for n, state in enumerate((WorkerState.EVICTED, WorkerState.DELETING, WorkerState.FAILED))
    ]
    want = demand(1, 4, rule(tasks_per_worker=4), known=[each.row for each in dead])
    assert len(kinds(decide(world(want, staff=dead)), Deploy)) == 1, (
        "the replacement is asked for before the old one is deleted"
    )
    lost = [rented(1, state=WorkerState.UNREACHABLE, is_lost=True)]
    want = demand(1, 4, rule(tasks_per_worker=4), known=[each.row for each in lost])
    assert len(kinds(decide(world(want, staff=lost)), Deploy)) == 1
    busy = [rented(1, spare=0, held=4)]
    want = demand(1, 2, rule(tasks_per_worker=4), known=[busy[0].row], held={1: {WorkerId(1): 4}})
    assert len(kinds(decide(world(want, staff=busy)), Deploy)) == 1, "it has its share already"
    late = demand(1, 2, rule(), known=[busy[0].row], held={1: {WorkerId(1): 4}}, mean_s=10.0)
    assert not kinds(decide(world(late, staff=busy)), Deploy), "it will have done it before another one would begin"


def test_work_that_will_be_there_by_the_time_a_machine_is_counts_and_later_work_does_not() -> None:
    soon = [Work(None, 0, ((BOOT_S - 1, 4), (BOOT_S + 1, 4)))]
    want = demand(1, 0, rule(tasks_per_worker=4), known=[], work=soon)
    assert len(kinds(decide(world(want)), Deploy)) == 1


def test_the_best_offer_is_taken_while_there_is_some_of_it_and_the_next_region_in_the_same_pass() -> None:
    market = sold(offer("m4", "north", available=1), offer("m4", "south"), offer("m8", "north", cpu=8))
    left = {("fake", "south", "cores"): Left("vcpu", 7.0)}
    want = demand(1, 12, rule(concurrency=2), known=[])
    found = decide(world(want, offers=market, left=left))
    assert asked(found) == [("m4", "north"), ("m4", "south"), *[("m8", "north")] * 4]
    assert [one.flavor.name for one in kinds(found, Deploy)[0].others] == ["m4", "m8"], "in case that it is refused"
    assert not kinds(found, Short)
    few = sold(offer("m4", "north", available=1), offer("m4", "south"))
    short = kinds(decide(world(want, offers=few, left=left)), Short)
    assert [(one.batch, one.rank, one.tasks) for one in short] == [(1, 1, 8)]
    assert short[0].why == "no offer of any flavor can be had now: m4 in north: no more are available"


def test_ranks_of_one_batch_do_not_rent_a_machine_each_for_the_same_need() -> None:
    first, second = rule(tasks_per_worker=2, maximum_workers=2), rule(rank=2, tasks_per_worker=2)
    found = decide(world(demand(1, 10, first, second, known=[])))
    assert [action.recruiter.rank for action in kinds(found, Deploy)] == [1, 1, 2, 2, 2]


def test_what_can_be_recycled_or_called_back_is_not_rented() -> None:
    own = Staff(worker(1, batch=2), 8)
    going = rented(2, state=WorkerState.DRAINING, is_ours=True)
    want = demand(1, 12, rule(tasks_per_worker=4), known=[own.row, going.row])
    found = decide(world(want, staff=[own, going]))
    assert [(move.worker, move.batch) for move in kinds(found, Move)] == [(1, 1)]
    assert kinds(found, Resume) == [Resume(WorkerId(2))]
    assert len(kinds(found, Deploy)) == 1
    held_back = rented(2, state=WorkerState.DRAINING)
    assert not kinds(decide(world(want, staff=[held_back])), Resume), "a person said so"


def test_those_that_will_be_free_when_what_is_waited_for_ends_are_counted_on() -> None:
    full = rented(1, 2, spare=0, held=4)
    soon = demand(1, 0, rule(tasks_per_worker=4), known=[], work=[Work(None, 0, ((1.0, 3),))])
    found = decide(world(soon, staff=[full]))
    assert not kinds(found, Deploy) and not kinds(found, Move)
    now = demand(1, 3, rule(tasks_per_worker=4), known=[])
    assert len(kinds(decide(world(now, staff=[full])), Deploy)) == 1, "nobody knows when that will be"
    on_its_way = rented(1, 2, state=WorkerState.PREPARING)
    found = decide(world(now, staff=[on_its_way]))
    assert found.actions == [], "got for another batch, which has been served meanwhile"


def test_patience_waits_for_a_worker_that_gets_free_and_says_so() -> None:
    patient = rule(tasks_per_worker=4, settings={"patience": 30.0})
    found = decide(world(demand(1, 4, patient, known=[], waited_s=10.0)))
    assert not kinds(found, Deploy) and found.due_ms == NOW + 20_001
    (short,) = kinds(found, Short)
    assert short.kind == "patience" and "rents in 20 s" in short.why
    assert kinds(decide(world(demand(1, 4, patient, known=[], waited_s=30.0))), Deploy)


def test_tasks_that_ask_much_get_machines_on_which_they_fit() -> None:
    market = sold(offer("m4"), offer("m16", cpu=16))
    work = [Work(Need(cpus=8), 1), Work(None, 6)]
    want = demand(1, 0, rule(), known=[], work=work)
    assert asked(decide(world(want, offers=market))) == [("m16", "north")], "which serves the others, too"
    small = {("fake", "m16"): {"cpus": 4, "memory": 10**9}}
    found = decide(world(want, offers=market, found=small))
    assert ("m16", "north") not in asked(found), "one that was rented had less than was said"


def test_a_workflow_has_so_many_rented_machines_at_once_and_may_have_others_beside() -> None:
    one, two = rule(1, tasks_per_worker=1), rule(2, tasks_per_worker=1)
    there = [rented(9, 1, held=1, spare=3)]
    demands = [
        demand(batch, 5, rule_of, known=[each.row for each in there], workflow=7)
        for batch, rule_of in ((1, one), (2, two))
    ]
    found = decide(world(*demands, staff=there, workflows={7: 4}, workflow_of={1: 7, 2: 7}))
    assert [action.batch for action in kinds(found, Deploy)] == [1, 1, 1]
    assert "its workflow may have 4 rented workers at once" in kinds(found, Short)[0].why
    found = decide(world(*demands, staff=there, workflow_of={1: 7, 2: 7}))
    assert len(kinds(found, Deploy)) == MOST_RENTED - 1, "a stated number, where none is given"


# --- letting go -------------------------------------------------------------------------------------------------------------------


def test_a_machine_without_work_is_let_go_after_a_while_and_not_before() -> None:
    fresh = rented(1)
    assert decide(world(staff=[fresh])).actions == [Idle(WorkerId(1), NOW)]
    waiting = replace(fresh, idle_ms=NOW - 299_000)
    assert decide(world(staff=[waiting])) == Decision([], NOW + 1000)
    over = replace(fresh, idle_ms=NOW - 300_000)
    assert kinds(decide(world(staff=[over])), Destroy) == [Destroy(WorkerId(1), "it has nothing to do")]
    busy = replace(over, held=1)
    assert decide(world(staff=[busy])).actions == [Idle(WorkerId(1), None)]
    by_hand = rented(1, None, rank=None, idle_ms=NOW - 300_000)
    assert not kinds(decide(world(staff=[by_hand])), Destroy)
    said = rented(1, settings={"idle_timeout": 10}, idle_ms=NOW - 10_000)
    assert kinds(decide(world(staff=[said])), Destroy)
    paused = rented(1, state=WorkerState.PAUSED, idle_ms=NOW - 10**8)
    assert not kinds(decide(world(staff=[paused])), Destroy), "a person wants it to stand by"
    not_rented = Staff(worker(1, batch=1), 8)
    assert decide(world(staff=[not_rented])).actions == []


@pytest.mark.promise("core 11.21")
def test_one_that_will_be_needed_within_its_boot_time_is_kept() -> None:
    idle = rented(1, idle_ms=NOW - 10**7, boot_s=500.0)
    for in_s, is_kept in ((500.0, True), (559.0, True), (5000.0, False)):
        want = demand(1, 0, rule(tasks_per_worker=4), known=[idle.row], work=[Work(None, 0, ((in_s, 1),))])
        assert bool(kinds(decide(world(want, staff=[idle])), Destroy)) is not is_kept
        other = demand(2, 0, rule(2, tasks_per_worker=4), known=[idle.row], work=[Work(None, 0, ((in_s, 1),))])
        found = decide(world(other, staff=[idle]))
        assert bool(kinds(found, Destroy)) is not is_kept and not kinds(found, Move), "of another batch as well"
    two = [idle, rented(2, idle_ms=NOW - 10**7, boot_s=500.0)]
    want = demand(1, 0, rule(tasks_per_worker=4), known=[each.row for each in two], work=[Work(None, 0, ((10.0, 3),))])
    assert len(kinds(decide(world(want, staff=two)), Destroy)) == 1, "and no more of them than that takes"


def test_an_hour_that_was_begun_is_used_up_and_no_other_is_begun() -> None:
    hourly = offer(billed_s=3600)
    idle_since = NOW - 30 * MINUTE
    accepted = NOW - 50 * MINUTE
    one = rented(1, offer=hourly, idle_ms=idle_since, times={"accepted_ms": accepted})
    end = accepted + 60 * MINUTE - 120_000
    assert decide(world(staff=[one])) == Decision([], end)
    assert decide(replace(world(staff=[one]), now_ms=end - 1)) == Decision([], end)
    assert kinds(decide(replace(world(staff=[one]), now_ms=end)), Destroy)
    assert kinds(decide(replace(world(staff=[one]), now_ms=end + 119_000)), Destroy)
    missed = decide(replace(world(staff=[one]), now_ms=end + 121_000))
    assert missed == Decision([], end + 60 * MINUTE)


def test_failed_and_lost_machines_are_let_go() -> None:
    failed = rented(1, state=WorkerState.FAILED, row={"seen_ms": NOW - 9 * MINUTE})
    assert decide(world(staff=[failed])) == Decision([], NOW + MINUTE)
    assert kinds(decide(replace(world(staff=[failed]), now_ms=NOW + MINUTE)), Destroy)
    lost = rented(1, state=WorkerState.UNREACHABLE, is_lost=True, held=1, row={"silent_ms": 16 * MINUTE})
    assert kinds(decide(world(staff=[lost])), Destroy)
    silent = rented(1, state=WorkerState.UNREACHABLE, row={"silent_ms": 16 * MINUTE})
    assert not kinds(decide(world(staff=[silent])), Destroy)


# --- money ------------------------------------------------------------------------------------------------------------------------


def capped(amount: float, *lives: Life) -> Allowance:
    return Allowance(
        NOW, (Account(Scope("batch", 1), "b1", Limit(nanos(amount), "EUR"), batches=frozenset({1}), lives=lives),)
    )


def test_no_more_is_rented_than_there_is_money_for_and_cheaper_offers_are_tried() -> None:
    each = commitment(offer())
    assert each is not None
    want = demand(1, 12, rule(tasks_per_worker=4), known=[])
    found = decide(world(want, allowance=capped(2.5 * each / 10**9)))
    assert len(kinds(found, Deploy)) == 2
    assert "the money limit of batch b1 is reached" in kinds(found, Short)[0].why
    market = sold(offer("m8", cpu=8, price=9.0), offer("unknown", price=None), offer())
    assert asked(decide(world(want, offers=market, allowance=capped(1.0)))) == [("m4", "north")] * 3
    dear = rule(tasks_per_worker=4, settings={"max_price": 0.1})
    assert not kinds(decide(world(demand(1, 4, dear, known=[]))), Deploy)


def test_when_the_money_is_spent_machines_are_drained_and_then_let_go() -> None:
    busy, idle, other = rented(1, held=1), rented(2), rented(3, 2, settings={"keep_batch": True})
    lives = [Life(((0, 1.0),), "EUR", NOW - HOUR_MS, batch=1, rank=1, worker=n) for n in (1, 2)]
    want = demand(1, 20, rule(tasks_per_worker=4), known=[busy.row, idle.row])
    found = decide(world(want, staff=[busy, idle, other], allowance=capped(2.0, *lives)))
    assert [type(action) for action in found.actions] == [Short, Drain, Destroy, Idle]
    drained = replace(busy, row=replace(busy.row, state=WorkerState.DRAINING), is_ours=True)
    again = decide(world(want, staff=[drained], allowance=capped(2.0, *lives)))
    assert not kinds(again, Resume) and not kinds(again, Drain)
    assert kinds(decide(world(staff=[replace(drained, held=0)], allowance=capped(2.0, *lives))), Destroy)
    assert kinds(decide(world(want, staff=[drained], allowance=capped(9.0, *lives))), Resume), "more was allowed since"


def test_one_that_is_taken_back_is_replaced_before_it_has_gone() -> None:
    gone = rented(1, state=WorkerState.EVICTED)
    want = demand(1, 1, rule(tasks_per_worker=1, maximum_workers=1), known=[gone.row])
    offers = sold(offer())
    assert len(asked(decide(world(want, staff=[gone], offers=offers)))) == 1
