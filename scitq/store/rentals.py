"""Machines that were asked of providers, as rows: wanted, accepted, running, to be deleted, gone. What is done about them is `renting`.

Every function runs inside a transaction of the caller's (or on a reader). A rental stays in the file for ever: what was paid for it
is read from it. What a provider has of this file that the file does not know is a row of `stray` until it is gone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from scitq.errors import IllegalMove, NameTaken
from scitq.offers import RENTED, Offer, Rental, RentalState
from scitq.states import JobState, Outcome, Stage, WorkerState
from scitq.store import executions, jobs, notices, query, workers
from scitq.worker import RENTED_KIND, JobId, WorkerId, WorkerRow

KINDS = DEPLOY, DESTROY, REAP = ("deploy", "destroy", "reap")
# Letters and digits that no reader mistakes for one another, all of which may stand in the name of a machine.
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_COLUMNS = """worker, code, state, provider, region, flavor, market, price, currency, billed_s, minimum_s, wanted, accepted, running,
  ended, expires, cloud_id, batch, rank, detail, data from rental"""
_OPEN = ",".join(str(int(state)) for state in sorted(RENTED))
# So many offers are tried for one machine, at most.
MOST_OFFERS = 20
# Workers that may be let go of, and that hold what they were given until then.
_AT_WORK = frozenset({WorkerState.READY, WorkerState.UNREACHABLE, WorkerState.DRAINING, WorkerState.PAUSED})


class Stray(NamedTuple):
    """A machine of this file's at a provider that no row of `rental` has, or one that has gone."""

    provider: str
    region: str
    id: str
    name: str
    code: str
    seen_ms: int
    created_ms: int | None
    asked_ms: int | None
    gone_ms: int | None


def new_code() -> str:
    """What tells a machine from all others of this file."""
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


def machine_name(file_id: str, code: str) -> str:
    """The name of a machine at its provider: the same however often it is asked for."""
    return f"scitq-{file_id}-{code}"


# --- wishes -------------------------------------------------------------------------------------------------------------------


def rent(
    db: apsw.Connection,
    now_ms: int,
    offer: Offer,
    *,
    others: Sequence[Offer] = (),
    name: str | None = None,
    concurrency: int | None = None,
    prefetch: int | None = None,
    batch: int | None = None,
    rank: int | None = None,
    expires_ms: int | None = None,
    max_price: float | None = None,
    settings: Mapping[str, Any] | None = None,
    why: str = "",
) -> WorkerId:
    """A wish for a machine: its worker, its rental and the job that deploys it, in this one transaction. `others` are tried in their
    order when the provider refuses the first. `batch` and `rank` say which recruiter wants it; `concurrency` None: its CPUs.

    Raises:
        NameTaken: there is a worker of that name.
    """
    code = new_code()
    given = dict(settings or {})
    if expires_ms is not None:
        given["expires_ms"] = expires_ms
    worker = workers.add(
        db, now_ms, name or _free_name(db, offer.flavor.provider, code), RENTED_KIND, None,
        concurrency=offer.flavor.cpu if concurrency is None else concurrency, prefetch=prefetch, batch=batch,
        settings={**given, **_described(offer)}, facts=_expected(offer), state=WorkerState.WANTED,
    )  # fmt: skip
    data = {
        "offer": offer.plain(), "offers": [each.plain() for each in (offer, *others[: MOST_OFFERS - 1])], "at": 0,
        "max_price": max_price, "why": why, "slots_as_cpus": concurrency is None,
    }  # fmt: skip
    flavor, price = offer.flavor, offer.price
    db.execute(
        """insert into rental(worker, code, provider, region, flavor, market, price, currency, billed_s, minimum_s, wanted, expires,
        batch, rank, data) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (worker, code, flavor.provider, offer.region, flavor.name, offer.market, price, offer.currency, offer.billed_s,
         offer.minimum_s, now_ms, expires_ms, batch, rank, query.compact(data)),
    )  # fmt: skip
    jobs.add(db, now_ms, DEPLOY, worker, {"wants": why} if why else None)
    return worker


def _free_name(db: apsw.Connection, provider: str, code: str) -> str:
    for length in range(3, len(code) + 1):
        name = f"{provider}-{code[:length]}"
        if query.row(db, "select 1 from worker where name = ?", (name,)) is None:
            return name
    raise NameTaken(f"there is a worker {provider}-{code} already.")  # one chance in 2^40


def _described(offer: Offer) -> dict[str, Any]:
    """What a worker's settings say of the offer behind it."""
    flavor, region, provider = offer.flavor.name, offer.region, offer.flavor.provider
    return {"flavor": flavor, "region": region, "provider": provider, "market": offer.market, "price": offer.price,
            "currency": offer.currency, "eviction": offer.eviction, "tags": offer.flavor.tags, "offer": offer.plain()}  # fmt: skip


def _expected(offer: Offer) -> dict[str, Any]:
    """What its agent will find there, as far as the provider tells."""
    flavor = offer.flavor
    count = int(flavor.gpu.count) if flavor.gpu else 0
    return {"cpus": flavor.cpu, "memory": flavor.ram, "gpus": [str(number) for number in range(count)]}


def let_go(db: apsw.Connection, now_ms: int, worker: WorkerId, reason: str, *, force: bool = False) -> JobId:
    """A wish that a rented machine be deleted: now if it has nothing to do (or with `force`, whatever it has), else once it has
    finished what it holds. A machine that is only wanted still is wanted no more.

    Raises:
        IllegalMove: it is not rented.
    """
    row, rental = workers.find(db, int(worker)), of(db, worker)
    if rental is None:
        raise IllegalMove(f"worker {row.name} is not rented.", worker=row.name)
    is_busy = row.state in _AT_WORK and not force and bool(executions.live(db, worker))
    if is_busy and row.state is not WorkerState.DRAINING:
        workers.move(db, now_ms, worker, WorkerState.DRAINING, reason)
    job = jobs.add(db, now_ms, DESTROY, worker, {"why": reason, **({"force": True} if force else {})})
    if not is_busy:
        give_up(db, now_ms, row, reason)
    return job


def give_up(db: apsw.Connection, now_ms: int, row: WorkerRow, reason: str) -> None:
    """From here on the machine is only deleted; what it holds goes to others, at no cost to their tries."""
    rental = of(db, row.id)
    assert rental is not None
    if rental.state not in (RentalState.DELETING, RentalState.GONE):
        _set(db, row.id, state=RentalState.DELETING)
    if row.state not in (WorkerState.DELETING, WorkerState.GONE):
        for job in jobs.of_worker(db, row.id):
            if job.kind != DESTROY and job.state in (JobState.PENDING, JobState.RUNNING):
                jobs.move(db, now_ms, job.id, JobState.CANCELLED, reason)
        workers.move(db, now_ms, row.id, WorkerState.DELETING, reason)
    free_tasks(db, now_ms, row, Outcome.LOST, f"its worker {row.name} was deleted")


def free_tasks(db: apsw.Connection, now_ms: int, row: WorkerRow, outcome: Outcome, why: str) -> None:
    """What a worker holds ends without an end of its own: its tasks are free for others."""
    for execution in executions.live(db, row.id):
        executions.finish(db, now_ms, execution, outcome, Stage.RUN, why)


# --- what becomes of them -------------------------------------------------------------------------------------------------------


def ask(db: apsw.Connection, now_ms: int, worker: WorkerId, request: Mapping[str, Any], host_key: str) -> None:
    """The provider is about to be asked, with exactly this: kept until the machine runs."""
    row = workers.find(db, int(worker))
    if row.state in (WorkerState.WANTED, WorkerState.FAILED):
        workers.move(db, now_ms, worker, WorkerState.DEPLOYING)
    note(db, worker, asked=dict(request), host_key=host_key, asked_ms=now_ms)


def accepted(db: apsw.Connection, now_ms: int, worker: WorkerId, cloud_id: str, created_ms: int | None) -> None:
    """The provider has it: from when on it is paid for is the provider's word, where there is one."""
    rental = of(db, worker)
    assert rental is not None
    state = RentalState.CREATING if rental.state is RentalState.INTENT else rental.state
    # A provider's clock may be wrong, but nothing was accepted before it was wanted, or after it was known to be.
    since = now_ms if created_ms is None else min(now_ms, max(created_ms, rental.wanted_ms))
    _set(db, worker, state=state, cloud_id=cloud_id, accepted=rental.accepted_ms or since)
    note(db, worker, doubts=None)
    notices.take_back(db, f"lost-answer:{rental.code}")


def runs(db: apsw.Connection, now_ms: int, worker: WorkerId, reach: Mapping[str, Any]) -> None:
    """It runs, and is reached so: the request is needed no more, and the rest is as with any host."""
    note(db, worker, asked=None, reach=dict(reach))
    _set(db, worker, state=RentalState.RUNNING, running=now_ms, detail="")
    row = workers.find(db, int(worker))
    if row.state in (WorkerState.WANTED, WorkerState.DEPLOYING):
        workers.move(db, now_ms, worker, WorkerState.PREPARING)


def ready(db: apsw.Connection, now_ms: int, worker: WorkerId) -> None:
    """Its agent is there and in step for the first time: it is a worker."""
    rental = of(db, worker)
    if rental is None or rental.data.get("ready_ms") is not None:
        return
    note(db, worker, ready_ms=now_ms)
    observe(db, now_ms, rental, boots=1, boot_s=max(0, now_ms - (rental.accepted_ms or now_ms)) / 1000)


def offers_of(rental: Rental) -> list[Offer]:
    """The offers that may be tried for it, in their order."""
    return [Offer.of(each) for each in rental.data.get("offers") or [rental.data["offer"]]]


def take(db: apsw.Connection, worker: WorkerId, number: int, why: str) -> Offer:
    """The provider refused: another of the offers is tried (or the same), under another code, so that what may turn up of the first
    is nobody's."""
    rental = of(db, worker)
    assert rental is not None and rental.cloud_id is None
    offer = offers_of(rental)[number]
    code, flavor = new_code(), offer.flavor
    notices.take_back(db, f"lost-answer:{rental.code}")
    note(
        db, worker, offer=offer.plain(), at=number, asked=None, host_key=None, asked_ms=None, doubts=None,
        former=[*rental.data.get("former", ()), {"code": rental.code, "region": rental.region, "flavor": rental.flavor, "why": why}],
    )  # fmt: skip
    _set(
        db, worker, code=code, provider=flavor.provider, region=offer.region, flavor=flavor.name, market=offer.market,
        price=offer.price, currency=offer.currency, billed_s=offer.billed_s, minimum_s=offer.minimum_s,
    )  # fmt: skip
    workers.settle(db, worker, _described(offer))
    workers.describe(db, worker, _expected(offer))
    if rental.data.get("slots_as_cpus"):
        workers.update(db, worker, concurrency=flavor.cpu)
    return offer


def gone(
    db: apsw.Connection, now_ms: int, worker: WorkerId, ended_ms: int | None = None, note: str | None = None
) -> None:
    """The provider says that there is none (any more), with all that belonged to it; or it was never asked."""
    row, rental = workers.find(db, int(worker)), of(db, worker)
    assert rental is not None
    ended = now_ms if ended_ms is None else max(ended_ms, rental.accepted_ms or rental.wanted_ms)
    if rental.state is not RentalState.GONE:
        _set(db, worker, state=RentalState.GONE, ended=ended)
    _forget_request(db, worker)
    notices.take_back(db, f"lost-answer:{rental.code}")
    if row.state is not WorkerState.GONE:
        free_tasks(db, now_ms, row, Outcome.LOST, f"its worker {row.name} has gone")
        workers.move(db, now_ms, worker, WorkerState.GONE, note)
    for job in jobs.of_worker(db, worker):
        if job.state in (JobState.PENDING, JobState.RUNNING):
            if job.kind == DESTROY and job.state is JobState.RUNNING:
                jobs.move(db, now_ms, job.id, JobState.SUCCEEDED, note)
            else:
                jobs.move(db, now_ms, job.id, JobState.CANCELLED, note or "its machine is gone")


def found_again(db: apsw.Connection, worker: WorkerId) -> None:
    """A machine that was gone is there all the same: it is to be deleted."""
    note(db, worker, gone_ms=None, delete_ms=None, deleting_ms=None)
    _set(db, worker, state=RentalState.DELETING, ended=None)


def _forget_request(db: apsw.Connection, worker: WorkerId) -> None:
    note(db, worker, asked=None)


def note(db: apsw.Connection, worker: WorkerId, **known: Any) -> None:
    """Keep something about a machine; None takes it back."""
    data = json.loads(query.one(db, "select data from rental where worker = ?", (worker,))[0])
    kept = {key: value for key, value in {**data, **known}.items() if value is not None}
    db.execute("update rental set data = ? where worker = ?", (query.compact(kept), worker))


def tell(db: apsw.Connection, worker: WorkerId, detail: str) -> None:
    """The provider's own words on what is wrong with it."""
    _set(db, worker, detail=detail)


def _set(db: apsw.Connection, worker: WorkerId, **columns: Any) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    values = tuple(int(value) if isinstance(value, RentalState) else value for value in columns.values())
    db.execute(f"update rental set {names} where worker = ?", (*values, worker))


# --- looking ------------------------------------------------------------------------------------------------------------------------


def of(db: apsw.Connection, worker: int) -> Rental | None:
    """The rental of a worker; None for one that is not rented."""
    row = query.row(db, f"select {_COLUMNS} where worker = ?", (worker,))
    return None if row is None else _rental(row)


def open_ones(db: apsw.Connection) -> list[Rental]:
    """Those that exist at their providers, or may: oldest first."""
    return [_rental(row) for row in query.rows(db, f"select {_COLUMNS} where state in ({_OPEN}) order by worker")]


def all_of(db: apsw.Connection, limit: int = 1000) -> list[Rental]:
    """The latest of all, newest first."""
    return [_rental(row) for row in query.rows(db, f"select {_COLUMNS} order by worker desc limit ?", (limit,))]


def codes(db: apsw.Connection) -> dict[str, Rental]:
    """Every machine that this file has asked for, by its code."""
    return {rental.code: rental for rental in (_rental(row) for row in query.rows(db, f"select {_COLUMNS}"))}


def providers(db: apsw.Connection, since_ms: int = 0) -> list[str]:
    """Of whom machines were asked that are there still, or that have gone since then; and those with strays."""
    rows = query.rows(
        db,
        f"""select provider from rental where state in ({_OPEN}) union select provider from rental where ended >= ?
        union select provider from stray where gone is null""",
        (since_ms,),
    )
    return sorted(row[0] for row in rows)


def _rental(row: tuple[Any, ...]) -> Rental:
    return Rental(
        worker=WorkerId(row[0]), code=row[1], state=RentalState(row[2]), provider=row[3], region=row[4], flavor=row[5],
        market=row[6], price=row[7], currency=row[8], billed_s=row[9], minimum_s=row[10], wanted_ms=row[11], accepted_ms=row[12],
        running_ms=row[13], ended_ms=row[14], expires_ms=row[15], cloud_id=row[16], batch=row[17], rank=row[18], detail=row[19],
        data=json.loads(row[20]),
    )  # fmt: skip


# --- what was seen of an offer ------------------------------------------------------------------------------------------------------


def observe(
    db: apsw.Connection,
    now_ms: int,
    rental: Rental,
    *,
    boots: int = 0,
    boot_s: float = 0.0,
    evictions: int = 0,
    failures: int = 0,
) -> None:
    """What became of a machine, in its offer's history: by the hour in which it was seen."""
    db.execute(
        """insert into observed(provider, region, flavor, market, hour, boots, boot_s, evictions, failures)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set boots = boots + excluded.boots, boot_s = boot_s + excluded.boot_s,
        evictions = evictions + excluded.evictions, failures = failures + excluded.failures""",
        (
            rental.provider,
            rental.region,
            rental.flavor,
            rental.market,
            now_ms // 3_600_000,
            boots,
            boot_s,
            evictions,
            failures,
        ),
    )


def has_failed(db: apsw.Connection, rental: Rental) -> bool:
    """Whether the machine before this one of the same offer never became a worker, either."""
    row = query.row(
        db,
        """select running is null or json_extract(data, '$.ready_ms') is null from rental
        where provider = ? and region = ? and flavor = ? and market = ? and accepted is not null and worker < ?
        order by worker desc limit 1""",
        (rental.provider, rental.region, rental.flavor, rental.market, rental.worker),
    )
    return bool(row and row[0])


# --- what the file does not know ----------------------------------------------------------------------------------------------------


def stray_seen(
    db: apsw.Connection, now_ms: int, provider: str, region: str, id: str, name: str, code: str, created_ms: int | None
) -> Stray:
    """A machine of ours that belongs to nobody here was seen at its provider."""
    row = query.one(
        db,
        """insert into stray(provider, region, id, name, code, seen, created) values (?, ?, ?, ?, ?, ?, ?)
        on conflict(provider, region, id) do update set gone = null
        returning provider, region, id, name, code, seen, created, asked, gone""",
        (provider, region, id, name, code, now_ms, created_ms),
    )
    return Stray(*row)


def stray_asked(db: apsw.Connection, now_ms: int, stray: Stray) -> None:
    """Its provider is about to be asked to delete it."""
    _set_stray(db, stray, "asked", now_ms)


def stray_gone(db: apsw.Connection, now_ms: int, stray: Stray) -> None:
    """Its provider has none any more."""
    _set_stray(db, stray, "gone", now_ms)


def _set_stray(db: apsw.Connection, stray: Stray, column: str, now_ms: int) -> None:
    db.execute(
        f"update stray set {column} = coalesce({column}, ?) where provider = ? and region = ? and id = ?",
        (now_ms, stray.provider, stray.region, stray.id),
    )


def strays(db: apsw.Connection, *, every: bool = False) -> list[Stray]:
    """Those that are there still (or all there ever were)."""
    where = "" if every else "where gone is null"
    rows = query.rows(
        db, f"select provider, region, id, name, code, seen, created, asked, gone from stray {where} order by seen"
    )
    return [Stray(*row) for row in rows]
