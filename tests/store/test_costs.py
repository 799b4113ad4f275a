"""What machines cost, by the sums that the file keeps: parts sum to the whole, whatever happens."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scitq import money
from scitq.errors import BadInput
from scitq.money import HOUR_MS, UNIT, Limit, Scope
from scitq.offers import Flavor, Offer
from scitq.states import Outcome
from scitq.store import batches, catalogue, costs, query, tasks, workflows
from scitq.store.check import wrong_sums
from scitq.store.schema6 import COSTS, cost_parts
from tests.store import renting
from tests.store.renting import end, gone, new_file, rent, start, task

H = HOUR_MS


def amounts(db: apsw.Connection, scope: str, now: int) -> dict[str | None, float | None]:
    return {one.name: None if one.amount is None else one.amount / UNIT for one in costs.by(db, scope, now)}


def test_a_machine_is_shared_by_slots_and_time_and_the_rest_is_idle() -> None:
    db = new_file()
    worker = rent(db, "one", 2.0, batch="a")
    end(db, start(db, task(db, "a"), worker, 0), H)
    end(db, start(db, task(db, "b"), worker, H // 2, slots=2), H)
    end(db, start(db, task(db, "a"), worker, H), H + H // 2, Outcome.FAILED)
    live = start(db, task(db, "b"), worker, H)
    now = 2 * H
    assert amounts(db, "worker", now) == {"one": 4.0}
    assert amounts(db, "batch", now) == {"a": 2.0, "b": 2.0}, "what was idle counts for the batch that rented it"
    (of_a,) = [one for one in costs.by(db, "batch", now) if one.name == "a"]
    assert (of_a.idle, of_a.failed, of_a.is_running) == (UNIT // 2, UNIT // 2, True)
    assert amounts(db, "task", now) == {"1": 1.0, "2": 1.0, "3": 0.5, "4": 1.0, None: 0.5}
    end(db, live, now)
    gone(db, worker, now)
    assert [(one.amount, one.idle, one.is_running) for one in costs.by(db, "all", 9 * H)] == [
        (4 * UNIT, UNIT // 2, False)
    ]
    assert amounts(db, "flavor", now) == {"cloud large": 4.0} and amounts(db, "provider", now) == {"cloud": 4.0}
    assert not wrong_sums(db)


def test_currencies_stand_side_by_side() -> None:
    db = new_file()
    for name, currency in (("one", "EUR"), ("two", "USD")):
        worker = rent(db, name, 1.0, currency=currency)
        end(db, start(db, task(db, "a"), worker, 0), H)
        gone(db, worker, H)
    for scope in ("all", "batch", "workflow", "day", "provider"):
        assert [(one.currency, one.amount) for one in sorted(costs.by(db, scope, H), key=lambda one: one.currency)][-1][
            0
        ] == "USD"
        assert {one.currency for one in costs.by(db, scope, H)} == {"EUR", "USD"}
    assert [(total.currency, total.amount) for total in costs.totals(db, H)] == [("EUR", UNIT), ("USD", UNIT)]


def test_a_machine_without_a_price_is_told_as_not_known() -> None:
    db = new_file()
    worker = rent(db, "one", None)
    end(db, start(db, task(db, "a"), worker, 0), H)
    assert amounts(db, "worker", H) == {"one": None}
    gone(db, worker, H)
    assert amounts(db, "worker", H) == {"one": None} and not wrong_sums(db)


def test_what_is_asked_for_and_not_accepted_costs_nothing() -> None:
    db = new_file()
    worker = rent(db, "one", 5.0, accepted=None, billed_s=3600)
    assert amounts(db, "worker", 9 * H) == {"one": 0.0} and costs.totals(db, 9 * H) == []
    # Another offer was taken in its place.
    db.execute("update rental set price = 2.0 where worker = ?", (worker,))
    db.execute("update rental set state = 2, accepted = 0 where worker = ?", (worker,))
    assert [tuple(total) for total in costs.totals(db, H + 1)] == [("EUR", 4 * UNIT, 2 * UNIT, 1)]


def test_a_price_that_changes_changes_nothing_of_what_was() -> None:
    db = new_file()
    worker = rent(db, "one", 1.0, market="spot", concurrency=1)
    first = start(db, task(db, "a"), worker, 0)
    catalogue.put_offers(db, H, "cloud", [Offer(Flavor("cloud", "large", 1, 1), "here", "spot", price=4.0)])
    assert costs.follow_prices(db, H) == 0, "it was followed when it was read"
    end(db, first, 2 * H)
    assert amounts(db, "task", 2 * H)["1"] == 5.0 and amounts(db, "worker", 3 * H) == {"one": 9.0}
    assert [tuple(one) for one in costs.repriced(db)] == [("one", 1.0, 4.0, "EUR", H)]
    assert not wrong_sums(db)


def test_days_are_told_by_the_clock_and_sum_to_the_whole() -> None:
    db = new_file()
    worker = rent(db, "one", 1.0, billed_s=3600)
    days = costs.by(db, "day", 50 * H + 1)
    assert len(days) == 3 and sum(day.amount or 0 for day in days) == 51 * UNIT
    assert [day.is_running for day in days] == [False, False, True]
    gone(db, worker, 50 * H + 1)
    assert sum(day.amount or 0 for day in costs.by(db, "day", 99 * H)) == 51 * UNIT


def test_by_what_costs_are_not_told_is_refused() -> None:
    with pytest.raises(BadInput, match="all, worker, provider"):
        costs.by(new_file(), "colour", 0)


def test_no_scope_but_tasks_reads_executions_that_have_ended() -> None:
    db = new_file()
    rent(db, "one", 1.0)
    read = {}
    for scope in costs.BY:
        plan = query.rows(db, f"explain query plan {cost_parts('?1')} {COSTS[scope]}", (0,))
        steps = [str(step[3]) for step in plan if "execution" in str(step[3])]
        read[scope] = [step for step in steps if "execution_worker" not in step]
    assert read.pop("task") and not any(read.values()), read


# --- whatever happens -----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 7), st.integers(0, 3), st.integers(1, 90 * 60_000)), max_size=40
)


@settings(max_examples=40)
@given(STEPS)
def test_parts_sum_to_the_whole_whatever_happens(steps: list[tuple[int, int, int, int]]) -> None:
    db, now = new_file(), 1_000_000
    machines: list[int] = []
    running: list[int] = []
    done: list[int] = []
    for what, which, how, lasted in steps:
        now += lasted
        names = ("a", "b", "c", "d")
        if what == 0 or not machines:
            price = (None, 0.0, 0.37, 3.0)[how]
            machines.append(
                rent(
                    db, f"w{len(machines)}", price, at=now, accepted=None if which == 7 else now,
                    batch=None if which == 6 else names[how], concurrency=1 + which % 3, billed_s=(1, 3600)[which % 2],
                    currency=("EUR", "USD")[which % 2],
                )
            )  # fmt: skip
        elif what in (1, 2):
            running.append(start(db, task(db, names[how]), machines[which % len(machines)], now, slots=1 + how))
        elif what in (3, 4, 5) and running:
            execution = running.pop(which % len(running))
            outcome = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST, Outcome.SUCCEEDED)[how]
            end(db, execution, now, outcome)  # type: ignore[arg-type]
            done.append(query.one(db, "select task from execution where id = ?", (execution,))[0])
        elif what == 6:
            worker = machines[which % len(machines)]
            if query.row(db, "select 1 from rental where worker = ? and ended is null", (worker,)):
                gone(db, worker, now)
            elif how == 0:
                renting.found_again(db, worker)
        elif what == 7:
            db.execute("update worker set concurrency = ? where id = ?", (how, machines[which % len(machines)]))
            costs.reprice(db, now, machines[which % len(machines)], float(how))
        elif what == 8 and done:
            id = done[which % len(done)]
            if how == 0:
                db.execute("update task set batch = ? where id = ?", (tasks.batch_id(db, "d"), id))
            elif query.row(db, "select 1 from task where id = ? and execution is null", (id,)):
                done = [each for each in done if each != id]
                tasks.delete(db, now, [id])
        elif what == 9:
            name = names[how]
            held = query.row(
                db,
                "select 1 from task join batch on batch.id = task.batch where batch.name = ? and execution is not null",
                (name,),
            )
            if held is None and query.row(db, "select 1 from batch where name = ?", (name,)):
                batches.delete(db, now, name)
                done = [id for id in done if query.row(db, "select 1 from task where id = ?", (id,))]
    verify(db, now)
    verify(db, now + 3 * H)


def verify(db: apsw.Connection, now: int) -> None:
    assert not wrong_sums(db)
    whole = {one.currency: one.amount for one in costs.by(db, "all", now) if one.amount}
    for scope in costs.BY:
        total: dict[str, int] = {}
        for one in costs.by(db, scope, now):
            assert (one.amount or 0) >= (one.idle or 0) >= 0 and (one.amount or 0) >= (one.failed or 0) >= 0, one
            total[one.currency] = total.get(one.currency, 0) + (one.amount or 0)
        assert {currency: amount for currency, amount in total.items() if amount} == whole, scope
    assert {one.currency: one.amount for one in costs.totals(db, now) if one.amount} == whole
    by_worker = {one.id: one for one in costs.by(db, "worker", now)}
    for life in costs.lives(db, now):
        found = by_worker[life.worker].amount
        told = life.cost(now)
        assert (told is None) is (found is None)
        assert told is None or found is None or abs(told - found) <= 1, "what SQL works out is what `money` does"


def a_life(db: apsw.Connection) -> int:
    worker = rent(db, "one", 2.0, batch="a")
    for name in ("a", "b"):
        end(db, start(db, task(db, name), worker, 0), H)
    gone(db, worker, 2 * H)
    return worker


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("update spent set amount = amount + 1 where batch = 1", "what worker 1 cost for batch 1 is kept wrongly"),
        ("delete from spent where batch = 2", "what worker 1 cost for batch 2 is kept wrongly"),
        ("update execution set cost = 7 where id = 1", "what worker 1 cost for batch 1 is kept wrongly"),
        (
            "update spent set idle = idle + 1 where batch = 1",
            "what worker 1, which is gone, cost is not the sum of its parts",
        ),
        ("update rental set cost = cost + 2", "what worker 1, which is gone, cost is not what its prices give"),
        ("delete from tariff", "worker 1 has no price, or more than one at a time"),
    ],
)
def test_a_wrong_sum_is_found_and_made_to_agree_again(damage: str, told: str) -> None:
    db = new_file()
    a_life(db)
    assert wrong_sums(db) == []

    db.execute(damage)

    assert told in wrong_sums(db)
    for (name,) in query.rows(db, "select name from sqlite_schema where type = 'trigger'"):
        db.execute(f'drop trigger "{name}"')
    costs.mend(db)
    assert wrong_sums(db) == [] and costs.by(db, "all", 9 * H)[0].amount in (4 * UNIT, 4 * UNIT + 1)


def test_what_lost_executions_cost_counts_as_that_of_deleted_ones() -> None:
    db = new_file()
    a_life(db)
    before = costs.by(db, "batch", 9 * H)
    db.execute("drop trigger execution_gone")
    db.execute("delete from execution where id = 1")
    assert wrong_sums(db)
    assert costs.mend(db) == 1
    assert not wrong_sums(db) and costs.by(db, "batch", 9 * H) == before
    assert costs.mend(db) == 0


# --- limits ---------------------------------------------------------------------------------------------------------------------


def test_limits_are_kept_by_scope_and_go_with_what_they_are_about() -> None:
    db = new_file()
    flow = workflows.number(db, 0, "qc")
    batch = workflows.put_step(db, flow, "qc", "fastp", 0)
    limits = {
        Scope("file"): Limit(3 * UNIT),
        Scope("workflow", flow): Limit(UNIT, "EUR"),
        Scope("batch", batch): Limit(UNIT),
    }
    for scope, limit in limits.items():
        costs.set_limit(db, scope, limit)
    db.execute("insert into recruiter(batch, rank, settings) values (?, 2, json_object('max_cost', '2 EUR'))", (batch,))
    found = {scope: limit for scope, (_, limit) in costs.limits(db).items()}
    assert found == {**limits, Scope("recruiter", batch, 2): Limit(2 * UNIT, "EUR")}
    batches.delete(db, 0, "qc.fastp")
    workflows.delete(db, flow)
    assert list(costs.limits(db)) == [Scope("file")]
    costs.set_limit(db, Scope("file"), None)
    assert costs.allowance(db, 0).accounts == ()


def test_an_allowance_counts_what_is_gone_what_runs_and_what_is_recycled() -> None:
    db = new_file()
    flow = workflows.number(db, 0, "qc")
    for step in ("a", "b"):
        workflows.put_step(db, flow, "qc", step, 0)
    old = rent(db, "old", 1.0, batch="qc.a", rank=1)
    end(db, start(db, task(db, "other"), old, 0), H)
    gone(db, old, H)
    rent(db, "new", 1.0, accepted=H, batch="qc.b", rank=1)
    batch = {
        name: query.one(db, "select id from batch where name = ?", (name,))[0] for name in ("qc.a", "qc.b", "other")
    }
    for scope in (
        Scope("file"),
        Scope("workflow", flow),
        Scope("batch", batch["qc.a"]),
        Scope("batch", batch["other"]),
    ):
        costs.set_limit(db, scope, Limit(3 * UNIT, "EUR"))
    db.execute("insert into recruiter(batch, rank, settings) values (?, 1, '{\"max_cost\": 3}')", (batch["qc.b"],))
    allowed = costs.allowance(db, 2 * H)
    spent = {
        account.called: account.spent(2 * H, committed=False)["EUR"] / UNIT
        for account in allowed.accounts
        if account.lives or account.settled
    }
    assert spent == {
        "the file": 2.0,
        "workflow qc": 1.5,
        "batch qc.a": 0.5,
        "batch other": 0.5,
        "recruiter qc.b 1": 1.0,
    }
    large = Offer(
        Flavor("cloud", "large", 1, 1), "here", price=9.0
    )  # 1.50 € for the ten minutes that it lives at least
    refusals = [allowed.refusal(large, batch[name], 1) for name in ("qc.a", "other")]
    assert all("the money limit of the file" in str(refusal) for refusal in refusals)
    late = costs.allowance(db, 3 * H)
    assert "the money limit of the file is reached: 3.00 € of 3 € spent" in str(late.reached(batch["qc.b"], 1))
    assert late.due_ms() is not None


def test_money_of_a_restored_file_is_what_it_was() -> None:
    """The number of a machine's currency stays known even when nothing of it ran."""
    db = new_file()
    rent(db, "one", 0.5)
    (life,) = costs.lives(db, 2 * H)
    assert life.cost(2 * H) == UNIT and money.said(life.cost(2 * H), life.currency) == "1.00 €"


# --- what was seen --------------------------------------------------------------------------------------------------------------


def test_how_long_machines_ran_is_experience_with_their_offer() -> None:
    db = new_file()
    one = rent(db, "one", 1.0)
    rent(db, "two", 1.0, accepted=H)
    key = ("cloud", "here", "large", "ondemand")
    assert catalogue.history(db, now_ms=2 * H)[key].machine_s == 3 * 3600
    gone(db, one, 3 * H)
    assert query.rows(db, "select hour, machine_s from observed") == [(3, 3 * 3600.0)]
    assert catalogue.history(db, now_ms=4 * H)[key].machine_s == 6 * 3600
    assert catalogue.history(db, now_ms=catalogue.SEEN_MS + 9 * H)[key].machine_s == (catalogue.SEEN_MS + 8 * H) / 1000
