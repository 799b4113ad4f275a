"""The engine's methods about recruiters: the rules by which batches get workers. What follows from them is `recruiting`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from scitq import recruiting, submission
from scitq.events import EventKind
from scitq.store import batches, journal, recruiters, tasks, workers
from scitq.worker import Recruiter, WorkerRow

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")


class Recruiters:
    """What an `Engine` can do about recruiters. A part of that class, not one of its own."""

    if TYPE_CHECKING:

        def _reader(self) -> apsw.Connection: ...
        def _write(self, fn: Callable[[apsw.Connection], T]) -> T: ...
        def _drive(self, *, take_over: bool = False) -> None: ...

    def recruiters(self, batch: str | None = None) -> list[Recruiter]:
        """The recruiters (of one batch), by batch and rank.

        Raises:
            UnknownBatch: there is none of that name.
        """
        db = self._reader()
        return recruiters.all_of(db, None if batch is None else batches.known(db, batch))

    def recruiter(self, batch: str, rank: int = 1) -> Recruiter:
        """One recruiter.

        Raises:
            UnknownBatch: there is none of that name.
            UnknownRecruiter: it has no recruiter of that rank.
        """
        db = self._reader()
        return recruiters.get(db, batches.known(db, batch), rank)

    def recruiter_create(self, batch: str, rank: int = 1, **fields: Any) -> Recruiter:
        """Give a batch a recruiter, in the place of the one of that rank if there is one. A batch that is new is made.

        `flavor` says which workers serve the batch: a name (`local`: this machine, and hosts that were added without another
        one), or a protofilter such as `auto:cpu>=8:ram>=32`; none, and all do. `concurrency` is how many tasks of the batch one
        of them runs at once: of a worker that other batches use too it is a share, and `$CPU` says how many CPUs that is.
        `prefetch` is how many it holds ready beyond those. No more than `maximum_workers` serve the batch at once.
        A worker that has a batch of its own with nothing pending changes to this one: one for every `tasks_per_worker` tasks (as many
        as `concurrency` times `rounds` if not given), from `minimum_tasks` pending ones on.

        With a `provider` (its name in the settings, or "auto") machines are rented for what is left, in that `region`, on that
        `market` (`ondemand`, `spot`, `any`), none that costs more than `max_price` an hour, or could make all of them together cost more
        than `max_cost` (15, "15 EUR"), once the first task has waited for `patience` seconds; 10 at once where `maximum_workers` does
        not say otherwise. One that has had nothing to do for `idle_timeout` seconds (300; where hours are billed, by the end of one), and
        will not be needed soon, is let go.

        Raises:
            BadInput: an argument makes no sense.
        """
        name = submission.name_of("batch", batch)
        given = recruiting.checked(fields)

        def write(db: apsw.Connection) -> Recruiter:
            number = tasks.batch_id(db, name)
            recruiters.put(db, number, rank, **fields)
            _note(db, name, rank, given)
            return recruiters.get(db, number, rank)

        return self._changed(write)

    def recruiter_update(self, batch: str, rank: int = 1, **fields: Any) -> Recruiter:
        """Change a recruiter: the arguments of `recruiter_create`; None takes one back. What runs already is not touched.

        Raises:
            UnknownBatch: there is none of that name.
            UnknownRecruiter: it has no recruiter of that rank.
            BadInput: an argument makes no sense.
        """

        def write(db: apsw.Connection) -> Recruiter:
            number = batches.known(db, batch)
            recruiters.update(db, number, rank, **fields)
            _note(db, batch, rank, recruiting.checked(fields))
            return recruiters.get(db, number, rank)

        return self._changed(write)

    def recruiter_delete(self, batch: str, rank: int = 1) -> None:
        """Take a recruiter away. A batch that has none is served by every worker without a batch of its own.

        Raises:
            UnknownBatch: there is none of that name.
            UnknownRecruiter: it has no recruiter of that rank.
        """

        def write(db: apsw.Connection) -> int:
            number = batches.known(db, batch)
            recruiters.get(db, number, rank)
            _note(db, batch, rank, None)
            return recruiters.delete(db, number, rank)

        self._changed(write)

    def recruiter_match(self, batch: str, rank: int = 1) -> list[WorkerRow]:
        """The workers that a recruiter's flavor suits, whatever they do now.

        Raises:
            UnknownBatch: there is none of that name.
            UnknownRecruiter: it has no recruiter of that rank.
        """
        rule = self.recruiter(batch, rank)
        return [row for row in workers.all_of(self._reader()) if recruiting.misfit(rule, row) is None]

    def _changed(self, write: Callable[[apsw.Connection], T]) -> T:
        found = self._write(write)
        self._drive()
        return found


def _note(db: apsw.Connection, batch: str, rank: int, given: Mapping[str, Any] | None) -> None:
    """Into the journal: a recruiter was made or changed, or (None) taken away."""
    said = None if given is None else {name: value for name, value in given.items() if value is not None}
    journal.note(db, time.time_ns() // 1_000_000, EventKind.NOTE, batch=batch, recruiter=rank, given=said)
