"""What things have cost and may cost, as rows: read from the sums that triggers keep (see `schema6`), and the limits.

Every function runs on a reader or inside a transaction of the caller's. What an amount is, and how it is worked out, is
`scitq.money`. Nothing here reads tasks that have ended, but the costs by task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import apsw

from scitq import money
from scitq.errors import BadInput
from scitq.money import Account, Allowance, Life, Limit, Rates, Scope
from scitq.states import Outcome, TaskState
from scitq.store import query
from scitq.store.listing import LISTED
from scitq.store.schema6 import COSTS, cost_parts, whole

BY = tuple(COSTS)


class Cost(NamedTuple):
    """What something has cost. Amounts are billionths; None: some price is not known. `name` None: what belongs to none.

    `idle` of it was for time in which the machine had nothing to do (which counts for the batch that rented it), `failed` for
    executions that did not succeed.
    """

    scope: str
    id: int | None
    name: str | None
    currency: str
    amount: int | None
    idle: int | None
    failed: int | None
    run_ms: int | None
    is_running: bool


def by(db: apsw.Connection, scope: str, now_ms: int) -> list[Cost]:
    """What there is of a kind (see BY) that has cost something; the most first, days in their order.

    Raises:
        BadInput: there is no such kind.
    """
    if scope not in COSTS:
        raise BadInput(f"costs are told by {', '.join(BY)}, not by {scope!r}.")
    if not has_rentals(db):
        return []
    rows = query.rows(db, f"{cost_parts('?1')} {COSTS[scope]}", (now_ms,))
    found = [
        Cost(kind, id, name, currency, _whole(amount), _whole(idle), _whole(failed), _whole(run_ms), bool(runs))
        for kind, id, name, currency, amount, idle, failed, run_ms, runs in rows
    ]
    if scope == "day":
        return sorted(found, key=lambda cost: (cost.name or "", cost.currency))
    return sorted(found, key=lambda cost: (cost.name is None, -(cost.amount or 0), cost.name or "", cost.currency))


def _whole(value: float | None) -> int | None:
    """A sum of whole numbers, some of which SQLite gives as a float."""
    return None if value is None else int(value)


def has_rentals(db: apsw.Connection) -> bool:
    """Whether anything was ever rented."""
    return query.row(db, "select 1 from rental limit 1") is not None


class Total(NamedTuple):
    """All of a currency: what was spent until now, and what goes on an hour, for how many machines. Billionths."""

    currency: str
    amount: int
    per_hour: int
    machines: int


def totals(db: apsw.Connection, now_ms: int) -> list[Total]:
    """What was spent in each currency. A look at what runs, and one sum."""
    if not has_rentals(db):
        return []
    spent: dict[str, int] = dict(
        query.rows(db, "select currency, sum(coalesce(cost, 0)) from rental where ended is not null group by currency")
    )
    rates: dict[str, int] = {}
    machines: dict[str, int] = {}
    for life in lives(db, now_ms, shared=False):
        if life.accepted_ms is None:
            continue
        spent[life.currency] = spent.get(life.currency, 0) + (life.cost(now_ms) or 0)
        rates[life.currency] = rates.get(life.currency, 0) + money.nanos(life.price or 0)
        machines[life.currency] = machines.get(life.currency, 0) + 1
    found = (Total(each, amount, rates.get(each, 0), machines.get(each, 0)) for each, amount in spent.items())
    return sorted((total for total in found if total.amount or total.machines), key=lambda total: total.currency)


def lives(db: apsw.Connection, now_ms: int, *, shared: bool = True) -> list[Life]:
    """The machines that are paid for now, or may be at any moment; `shared`: with what each batch has of them."""
    rows = query.rows(
        db,
        """select worker, currency, accepted, billed_s, minimum_s, coalesce(batch, 0), coalesce(rank, 0),
          (select json_group_array(json_array(since, price)) from (
            select since, price from tariff where tariff.worker = rental.worker order by since))
        from rental where ended is null order by worker""",
    )
    shares: dict[int, dict[int, int]] = {}
    if rows and shared:
        for worker, batch, amount in query.rows(
            db,
            f"""{cost_parts("?1")} select worker, had.batch, sum(had.amount) from machine join had using (worker)
            where machine.ended is null group by worker, had.batch having sum(had.amount) > 0""",
            (now_ms,),
        ):
            shares.setdefault(worker, {})[batch] = int(amount)
    return [
        Life(
            tuple((since, price) for since, price in json.loads(tariff)), currency, accepted, billed_s, minimum_s,
            batch=batch, rank=rank, worker=worker, shares=shares.get(worker, {}),
        )
        for worker, currency, accepted, billed_s, minimum_s, batch, rank, tariff in rows
    ]  # fmt: skip


# --- prices that change ---------------------------------------------------------------------------------------------------------


def reprice(db: apsw.Connection, now_ms: int, worker: int, price: float) -> bool:
    """From now on a machine has another price; whether that is so. What it has cost until now stays as it is."""
    last = query.row(
        db,
        """select since, tariff.price from tariff join rental using (worker)
        where worker = ? and until is null and ended is null""",
        (worker,),
    )
    if last is None or last[1] == price:
        return False
    at = max(now_ms, last[0] + 1)
    db.execute("update tariff set until = ? where worker = ? and until is null", (at, worker))
    db.execute("insert into tariff(worker, since, price) values (?, ?, ?)", (worker, at, price))
    return True


def follow_prices(db: apsw.Connection, now_ms: int) -> int:
    """Machines of a spot market that run have the price that their offer has now; returns how many have another one by that."""
    rows = query.rows(
        db,
        """select rental.worker, offer.price from rental join offer on offer.provider = rental.provider
        and offer.region = rental.region and offer.flavor = rental.flavor and offer.market = rental.market
        and offer.currency = rental.currency where ended is null and accepted is not null and rental.market = 'spot'
        and offer.price is not null""",
    )
    return sum(reprice(db, now_ms, worker, price) for worker, price in rows)


class Repriced(NamedTuple):
    """A machine that runs at another price than it was rented at."""

    worker: str
    first: float
    now: float
    currency: str
    at_ms: int


def repriced(db: apsw.Connection) -> list[Repriced]:
    """The machines that run, whose price has changed."""
    rows = query.rows(
        db,
        """select worker.name, first.price, last.price, currency, last.since from rental join worker on worker.id = rental.worker
        join tariff first on first.worker = rental.worker and first.since = (select min(since) from tariff t where t.worker = rental.worker)
        join tariff last on last.worker = rental.worker and last.until is null
        where rental.ended is null and last.since <> first.since order by rental.worker""",
    )
    return [Repriced(*row) for row in rows]


# --- limits ---------------------------------------------------------------------------------------------------------------------


def set_limit(db: apsw.Connection, scope: Scope, limit: Limit | None) -> None:
    """How much a file, workflow or batch may cost; None: as much as it does. (A recruiter's is one of its settings.)"""
    db.execute(
        """insert into cap(scope, id, amount, currency) values (?, ?, ?, ?) on conflict do update
        set amount = excluded.amount, currency = excluded.currency""",
        (scope.kind, scope.id, *(limit or (None, ""))),
    )


def declare_limit(db: apsw.Connection, scope: Scope, limit: Limit) -> None:
    """A script says how much a workflow or batch may cost. What was changed by hand stays, as long as the script says the same."""
    db.execute(
        """insert into cap(scope, id, amount, currency, said) values (?, ?, ?, ?, ?) on conflict do update
        set amount = excluded.amount, currency = excluded.currency, said = excluded.said where said is not excluded.said""",
        (scope.kind, scope.id, *limit, str(limit)),
    )


def limit(db: apsw.Connection, scope: Scope) -> Limit | None:
    """How much a file, workflow or batch may cost."""
    row = query.row(
        db,
        "select amount, currency from cap where scope = ? and id = ? and amount is not null",
        (scope.kind, scope.id),
    )
    return None if row is None else Limit(*row)


def limits(db: apsw.Connection) -> dict[Scope, tuple[str, Limit]]:
    """Every limit that there is, with the name of what it is about."""
    found: dict[Scope, tuple[str, Limit]] = {}
    for kind, id, amount, currency, name in query.rows(
        db,
        """select scope, id, amount, currency, case scope when 'batch' then (select name from batch where batch.id = cap.id)
        when 'workflow' then (select name from workflow where workflow.id = cap.id) end
        from cap where amount is not null order by scope = 'file' desc, scope = 'workflow' desc, id""",
    ):
        found[Scope(kind, id)] = (name or "", Limit(amount, currency))
    for batch, rank, name, value in query.rows(
        db,
        """select recruiter.batch, rank, batch.name, recruiter.settings ->> '$.max_cost'
        from recruiter join batch on batch.id = recruiter.batch where recruiter.settings ->> '$.max_cost' is not null order by 1, 2""",
    ):
        found[Scope("recruiter", batch, rank)] = (name, money.limit_of(value) or Limit(0))
    return found


def allowance(db: apsw.Connection, now_ms: int, rates: Rates | None = None, *, without: int | None = None) -> Allowance:
    """How much more may be spent; as if there were no worker `without`. Without limits this costs two look-ups."""
    found = limits(db)
    if not found:
        return Allowance(now_ms)
    running = [life for life in lives(db, now_ms) if life.worker != without]
    accounts = []
    for scope, (name, most) in found.items():
        batches = _batches(db, scope)
        account = Account(scope, name, most, _settled(db, scope, batches), batches)
        accounts.append(replace(account, lives=tuple(life for life in running if _counts(account, life))))
    return Allowance(now_ms, tuple(accounts), rates or {})


def _counts(account: Account, life: Life) -> bool:
    return account.concerns(life.batch, life.rank) or (
        account.scope.kind != "recruiter" and any(account.concerns(batch, 0) for batch in life.shares)
    )


def _batches(db: apsw.Connection, scope: Scope) -> frozenset[int] | None:
    if scope.kind == "workflow":
        return frozenset(id for (id,) in query.rows(db, "select id from batch where workflow = ?", (scope.id,)))
    return None if scope.kind == "file" else frozenset({scope.id})


def _settled(db: apsw.Connection, scope: Scope, batches: frozenset[int] | None) -> Mapping[str, int]:
    """By currency, what of a scope belongs to machines that are gone."""
    sql = "select currency, sum(coalesce(cost, 0)) from rental where ended is not null"
    values: query.Row = ()
    if scope.kind == "recruiter":
        sql += " and batch = ? and rank = ?"
        values = (scope.id, scope.rank)
    elif batches is not None:
        sql = f"""select currency, sum(amount + idle) from spent join rental using (worker)
          where ended is not null and spent.batch in {LISTED}"""
        values = (json.dumps(sorted(batches)),)
    return dict(query.rows(db, f"{sql} group by currency", values))


# --- made to agree again --------------------------------------------------------------------------------------------------------

_SUMS = """(select worker, batch, sum(cost) as cost from (
  select execution.worker, task.batch, cost from execution join task on task.id = execution.task where cost is not null)
  group by worker, batch)"""


def mend(db: apsw.Connection) -> int:
    """After rows were lost, without triggers: sums agree with what is left, and what lost executions cost counts as that of deleted
    ones. Returns how many sums were made anew."""
    before = query.rows(db, "select * from spent")
    db.execute("delete from spent where worker not in (select worker from rental)")
    db.execute("delete from tariff where worker not in (select worker from rental)")
    db.execute("update execution set cost = null where cost is not null and worker not in (select worker from rental)")
    db.execute(
        """insert or ignore into tariff(worker, since, price) select worker, 0, price from rental where price is not null
        and not exists(select 1 from tariff where tariff.worker = rental.worker and until is null)"""
    )
    # A batch that is there is told by its number, others together.
    db.execute(f"insert or ignore into spent(worker, batch) select worker, batch from {_SUMS} where cost > 0")
    db.execute(
        f"""update spent set amount = max(amount, its.cost), gone = max(amount, its.cost) - its.cost, failed = min(failed, amount)
        from (select s.worker, s.batch, coalesce(e.cost, 0) as cost from spent s left join {_SUMS} e using (worker, batch)) as its
        where its.worker = spent.worker and its.batch = spent.batch"""
    )
    db.execute(
        """insert or ignore into spent(worker, batch) select worker, coalesce(batch, 0) from rental where ended is not null"""
    )
    db.execute("update spent set idle = 0")
    db.execute(
        f"""update rental set cost = iif(ended is null, null,
        max({whole("ended")}, (select coalesce(sum(amount), 0) from spent where spent.worker = rental.worker)))"""
    )
    db.execute(
        """update spent set idle = max(0, coalesce(rental.cost, 0)
          - (select sum(amount) from spent as others where others.worker = spent.worker))
        from rental where rental.worker = spent.worker and coalesce(rental.batch, 0) = spent.batch and ended is not null"""
    )
    return len(set(query.rows(db, "select * from spent")) - set(before))


# --- how long it will take ------------------------------------------------------------------------------------------------------


def durations(db: apsw.Connection, batch: str, limit: int = 1000) -> list[float]:
    """How long the newest tasks of a batch that have succeeded ran, in seconds."""
    rows = query.rows(
        db,
        f"""select (select run_s from execution where execution.task = found.id and outcome = {int(Outcome.SUCCEEDED)}
          order by execution.id desc limit 1) from (
          select id from task where batch = (select id from batch where name = ?) and state = {int(TaskState.SUCCEEDED)}
          order by id desc limit ?) as found""",
        (batch, limit),
    )
    return [run_s for (run_s,) in rows if run_s is not None]
