"""A file with machines for rent and tasks on them, in memory: for the tests of what they cost."""

from __future__ import annotations

import apsw

from scitq.states import Outcome, Stage, WorkerState
from scitq.store import executions, listing, query, tasks
from scitq.store.schema import SCHEMA
from scitq.task import Assignment, ExecutionId, Spec, TaskId
from scitq.worker import WorkerId


def new_file() -> apsw.Connection:
    """A file that nothing is in."""
    db = apsw.Connection(":memory:")
    for bring in SCHEMA.migrations:
        bring(db)
    db.pragma("foreign_keys", True)
    return db


def rent(
    db: apsw.Connection,
    name: str,
    price: float | None,
    *,
    at: int = 0,
    accepted: int | None = 0,
    batch: str | None = None,
    concurrency: int = 2,
    currency: str = "EUR",
    billed_s: int = 1,
    market: str = "ondemand",
    rank: int | None = None,
    flavor: str = "large",
) -> int:
    """A machine that was asked for, and accepted; its number."""
    home = None if batch is None else tasks.batch_id(db, batch)
    worker: int = query.one(
        db,
        "insert into worker(name, kind, state, concurrency, created) values (?, 'rented', ?, ?, ?) returning id",
        (name, int(WorkerState.WANTED), concurrency, at),
    )[0]
    db.execute(
        """insert into rental(worker, code, provider, region, flavor, market, price, currency, billed_s, wanted, batch, rank)
        values (?, ?, 'cloud', 'here', ?, ?, ?, ?, ?, ?, ?, ?)""",
        (worker, f"code{worker}", flavor, market, price, currency, billed_s, at, home, rank),
    )
    if accepted is not None:
        db.execute("update rental set state = 2, accepted = ?, running = ?1 where worker = ?", (accepted, worker))
    return worker


def gone(db: apsw.Connection, worker: int, at: int) -> None:
    """The provider says that a machine is gone."""
    db.execute("update rental set state = 4, ended = ? where worker = ?", (at, worker))


def found_again(db: apsw.Connection, worker: int) -> None:
    """It was not."""
    db.execute("update rental set state = 3, ended = null where worker = ?", (worker,))


def task(db: apsw.Connection, batch: str, at: int = 0) -> TaskId:
    """A task of a batch."""
    row = (None, tasks.batch_id(db, batch), 0, listing.spec_text(Spec("true")), at)
    return TaskId(tasks.add_many(db, 1, [row], None, [()])[0])


def start(db: apsw.Connection, id: TaskId, worker: int, at: int, slots: int = 1) -> ExecutionId:
    """It begins to run on a machine."""
    (order,) = executions.begin(db, at, [Assignment(id, WorkerId(worker), slots)])
    executions.started(db, order.execution, at)
    return order.execution


def end(db: apsw.Connection, execution: ExecutionId, at: int, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """It ends."""
    executions.finish(db, at, execution, outcome, Stage.RUN, None)
