"""The recruiters of a step, as what is said of its workers makes them."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from scitq.store import query
from scitq.workflow.given import Recruiting

if TYPE_CHECKING:
    import apsw

    from scitq.task import BatchId

# The settings of a recruiter that a step may say.
_SETTINGS = ("rounds", "market", "max_price", "patience", "idle_timeout")


def put(db: apsw.Connection, batch: BatchId, wanted: Recruiting) -> None:
    """Write down who serves a step. What was changed by hand since stays, as long as the script says the same."""
    if wanted.says_nothing:
        return
    said = blake2b(repr(wanted).encode(), digest_size=9).hexdigest()
    if query.row(db, "select 1 from recruiter where batch = ? and settings ->> '$.said' = ?", (batch, said)):
        return
    provider, region = (wanted.provider, wanted.region) if wanted.is_rented else (None, None)
    settings = {"said": said, **{name: value for name in _SETTINGS if (value := getattr(wanted, name)) is not None}}
    if wanted.tasks_each is not None:
        settings.pop("rounds", None)  # they are in that
    db.execute("delete from recruiter where batch = ?", (batch,))
    db.execute(
        """insert into recruiter(batch, rank, tasks_per_worker, flavor, provider, region, concurrency, prefetch, minimum_tasks,
          maximum_workers, settings) values (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            batch, wanted.tasks_each, wanted.flavor, provider, region, wanted.concurrency, wanted.prefetch, wanted.minimum_tasks,
            wanted.maximum_workers, query.compact(settings),
        ),
    )  # fmt: skip
