"""The jobs that a driver does at its workers: prepare, restart, clean, delete. Written down before they begin, and when they end.

A job that was going on when a driver died is begun again by the next one: each is harmless to repeat.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq import steps
from scitq.contact import Contact
from scitq.errors import HostKeyChanged, HostKeyUnknown, ScitqError, Transient, WorkerFailed
from scitq.states import JobState, Outcome, Stage, WorkerState
from scitq.store import executions, jobs, rentals, workers
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.store.moved import MOVES
from scitq.store.rentals import DEPLOY, DESTROY
from scitq.worker import RENTED_KIND, JobId, JobRow, WorkerId, WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# So often a worker is looked for, at most, before a job for it is given up.
TRIES = 4
# Jobs that are done once the worker is there and in step.
_BY_CONNECTING = ("prepare", "restart", DEPLOY)


class Tending:
    """Does jobs for one driver. `later` runs a function on its thread; `say` sends an agent commands; `rented` hears of the agent of
    a rented machine that could not be reached (see `renting`, which does what is to be done about machines themselves)."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        *,
        later: Callable[[Callable[[], None]], None],
        say: Callable[[Contact, list[dict[str, Any]]], None],
        is_over: Callable[[], bool],
        rented: Callable[[apsw.Connection, WorkerRow, ScitqError, bool, bool], bool],
    ) -> None:
        self._store, self._lease, self._rented = store, lease, rented
        self._later, self._say, self._is_over = later, say, is_over
        self._busy: set[JobId] = set()

    # --- on the driver's thread -------------------------------------------------------------------------------------------

    def begin_anew(self, db: apsw.Connection) -> None:
        """What another driver was in the middle of is to be done still."""
        steps.forsake(db, is_sure=False)
        for job in jobs.open_ones(db):
            # Moves are done by a command, which may be at it; machines go on from where they are.
            if job.state is JobState.RUNNING and job.kind not in MOVES and job.kind not in (DEPLOY, DESTROY):
                jobs.move(db, _now_ms(), job.id, JobState.PENDING, "its driver ended; it begins again")

    def see_to(self, contact: Contact, row: WorkerRow, wanted: list[JobRow]) -> None:
        """Begin what is to be done at one worker."""
        for job in wanted:
            if job.id in self._busy or job.state is not JobState.PENDING or job.kind in rentals.KINDS:
                continue
            if job.kind == "delete":
                if contact.connecting:
                    continue  # what is being started there would outlive it
                self._write(lambda db, job=job: jobs.move(db, _now_ms(), job.id, JobState.RUNNING))  # type: ignore[misc]
                self._busy.add(job.id)
                threading.Thread(
                    target=self._remove, args=(contact, row, job), name="scitq-delete", daemon=True
                ).start()
            elif job.kind in _BY_CONNECTING and (contact.connecting or (contact.synced and job.kind == "prepare")):
                self._write(lambda db, job=job: jobs.move(db, _now_ms(), job.id, JobState.RUNNING))  # type: ignore[misc]
                if contact.synced:  # it was wished for in vain: it is there
                    self._write(lambda db: done(db, _now_ms(), row.id))
            elif contact.synced and job.kind == "restart":
                self._write(lambda db, job=job: jobs.move(db, _now_ms(), job.id, JobState.RUNNING))  # type: ignore[misc]
                self._say(contact, [{"stop": "agent"}])
            elif contact.synced and job.kind == "clean":
                self._say(contact, [{"clean": True}])
                self._write(lambda db, job=job: _at_once(db, job))  # type: ignore[misc]

    def step(self, worker: WorkerId, name: str, seconds: float, text: str) -> None:
        """A step of making a host a worker is done; heard in a thread."""
        self._later(lambda: self._step(worker, name, seconds, text))

    def _step(self, worker: WorkerId, name: str, seconds: float, text: str) -> None:
        if self._is_over():
            return

        def write(db: apsw.Connection) -> None:
            for job in jobs.open_ones(db):
                if job.worker == worker and job.kind in _BY_CONNECTING:
                    jobs.say(db, job.id, name, job.progress, f"{text or name} ({seconds:.1f} s)")

        self._write(write)

    def failed(self, db: apsw.Connection, row: WorkerRow, problem: ScitqError, failures: int) -> bool:
        """A worker could not be reached, in the transaction that says so: what that means for its jobs. Whether it is given up."""
        gives_up = False
        if row.kind == RENTED_KIND and row.state is WorkerState.PREPARING:
            is_wrong = isinstance(problem, HostKeyChanged | HostKeyUnknown)
            return self._rented(db, row, problem, is_wrong, not is_wrong and not isinstance(problem, Transient))
        for job in jobs.open_ones(db):
            if job.worker != row.id or job.kind not in _BY_CONNECTING or job.state is not JobState.RUNNING:
                continue
            error = {"error": type(problem).__name__, **_plain(problem)}
            jobs.result(db, job.id, error)
            if isinstance(problem, Transient) and failures < TRIES:
                is_news = job.log.splitlines()[-1:] != [str(problem)]
                jobs.say(db, job.id, "connect", job.progress, str(problem) if is_news else None)
                continue
            jobs.move(db, _now_ms(), job.id, JobState.FAILED, str(problem))
            if row.state is WorkerState.PREPARING:
                workers.move(db, _now_ms(), row.id, WorkerState.FAILED, str(problem))
                gives_up = True
        return gives_up

    # --- deleting ---------------------------------------------------------------------------------------------------------

    def _remove(self, contact: Contact, row: WorkerRow, job: JobRow) -> None:
        """In a thread of its own: end the agent and take everything of ours away."""
        problem: ScitqError | None = None
        try:
            tries = TRIES if row.link else 1
            for number in range(tries):
                try:
                    contact.route.remove()
                except Transient as found:
                    problem = found
                    if number + 1 < tries and not self._is_over():
                        time.sleep(0.5 * 2**number)
                else:
                    problem = None
                    break
        except ScitqError as found:
            problem = found
        except Exception as found:
            problem = WorkerFailed(f"{type(found).__name__}: {found}", worker=row.name)
            log.exception("worker %s could not be deleted", row.name)
        self._later(lambda: self._removed(row, job, problem))

    def _removed(self, row: WorkerRow, job: JobRow, problem: ScitqError | None) -> None:
        self._busy.discard(job.id)
        if self._is_over():
            return

        def write(db: apsw.Connection) -> None:
            asked = jobs.find(db, job.id)
            # One that never was ready has run nothing: what its preparation may have left harms nobody.
            if problem is not None and row.link and not asked.data.get("force"):
                note = f"{problem} If it does nothing any more: scitq worker delete {row.name} --force"
                jobs.move(db, _now_ms(), job.id, JobState.FAILED, note)
                workers.move(db, _now_ms(), row.id, WorkerState.FAILED, f"could not be deleted: {note}")
                return
            for execution in executions.live(db, row.id):
                executions.finish(
                    db, _now_ms(), execution, Outcome.LOST, Stage.RUN, f"its worker {row.name} was deleted"
                )
            left = None if problem is None else f"what is there was left there: {problem}"
            jobs.move(db, _now_ms(), job.id, JobState.SUCCEEDED, left)
            workers.move(db, _now_ms(), row.id, WorkerState.GONE, left)

        self._write(write)

    def _write(self, fn: Callable[[apsw.Connection], object]) -> None:
        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            fn(db)

        self._store.write(write)


def done(db: apsw.Connection, now_ms: int, worker: WorkerId) -> None:
    """A worker is there and in step: jobs that were about that have succeeded."""
    for job in jobs.open_ones(db):
        if job.worker == worker and job.kind in _BY_CONNECTING and job.state is JobState.RUNNING:
            jobs.move(db, now_ms, job.id, JobState.SUCCEEDED)
            if job.kind == DEPLOY:
                rentals.ready(db, now_ms, worker)


def _at_once(db: apsw.Connection, job: JobRow) -> None:
    jobs.move(db, _now_ms(), job.id, JobState.RUNNING)
    jobs.move(db, _now_ms(), job.id, JobState.SUCCEEDED)


def _plain(problem: ScitqError) -> dict[str, Any]:
    """What an error says of itself that can be written down."""
    return {key: value for key, value in problem.parts.items() if isinstance(value, str | int | float | bool)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
