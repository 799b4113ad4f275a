"""Output that is too large for an agent's journal comes home in pieces, into files of the state file's side folder.

A thread for each stream that is on its way; what it brings is looked at by the driver's thread. Deciding what should come is
`driver`; where the files are is `store.logs`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.contact import Contact
from scitq.errors import WorkerError
from scitq.states import Outcome, Stage
from scitq.store import executions, logs
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.task import ExecutionId

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

FETCH_BYTES = 4 << 20


class Tails:
    """Brings streams home for one driver. Every method but the threads' own runs on the driver's thread.

    `later` runs a function on that thread, `wake` makes it look at the file again, `on_output` hears of new bytes.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        stop: threading.Event,
        *,
        later: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
        is_over: Callable[[], bool],
        on_output: Callable[[], None] | None,
    ) -> None:
        self._store, self._lease, self._stop = store, lease, stop
        self._later, self._wake, self._is_over, self._on_output = later, wake, is_over, on_output

    def fetch(self, contact: Contact, execution: ExecutionId, stream: int) -> None:
        """See that one stream of an execution is being brought home, as long as it grows."""
        key = (execution, stream)
        if key not in contact.tails:
            contact.tails.add(key)
            threading.Thread(target=self._bring, args=(contact, *key), name="scitq-log", daemon=True).start()

    def _bring(self, contact: Contact, execution: ExecutionId, stream: int) -> None:
        """In a thread of its own. What has come is kept over any failure: the next try goes on from there."""
        part = self._part(execution, stream)
        problem: Exception | None = None
        lost = False
        try:
            part.parent.mkdir(mode=0o700, exist_ok=True)
            link = contact.route.stream()
            with contextlib.closing(link), open(part, "ab", opener=_private) as sink:
                while True:
                    here = sink.tell()
                    wanted = f"/output/{execution}/{logs.NAMES[stream]}?from={here}&max={FETCH_BYTES}&wait=30"
                    answer = link.ask("GET", wanted, timeout_s=60)
                    lost = answer.status == 404
                    if answer.status != 200:
                        break
                    if answer.body:
                        sink.write(answer.body)
                        sink.flush()
                        self._store.ring()
                        if self._on_output is not None:
                            self._on_output()
                    elif answer.headers.get("scitq-ended") == "1":
                        break
                    if self._stop.is_set():
                        break
        except (OSError, WorkerError) as found:
            problem = found
        self._later(lambda: self._brought(contact, execution, stream, lost, problem))

    def _brought(
        self, contact: Contact, execution: ExecutionId, stream: int, lost: bool, problem: Exception | None
    ) -> None:
        """The thread that brought a stream home has ended; `_act` looks at what has arrived."""
        if self._is_over():
            return
        contact.tails.discard((execution, stream))
        if problem is not None:
            log.warning(
                "the log of execution %s did not come home: %s. It is kept; next try in 5 s.", execution, problem
            )
            contact.tail_after = time.monotonic() + 5.0
        due = executions.logs_due(self._store.reader(), contact.worker).get(execution, {})
        if lost and stream in due and not self.arrived(execution, stream, due[stream]):
            detail = "its worker lost the log before all of it was here"
            self._store.write(lambda db: self._lose(db, execution, detail))
            self._wake()
        elif not executions.is_live(self._store.reader(), execution):
            # It was only followed, and what it wrote is in the file.
            self._part(execution, stream).unlink(missing_ok=True)

    def _part(self, execution: ExecutionId, stream: int) -> Path:
        return logs.part(self._store.side, execution, stream, self._lease.epoch or 0)

    def arrived(self, execution: ExecutionId, stream: int, size: int) -> bool:
        """Whether all of a stream is home; gives it its final name. The bytes reach the disk before the name."""
        final, part = logs.path(self._store.side, execution, stream), self._part(execution, stream)
        try:
            if final.exists() and final.stat().st_size != size:
                final.unlink()  # of another life of the file, whose numbers a restored copy uses again
            if not final.exists():
                if part.stat().st_size < size:
                    return False
                with part.open("rb+") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
                part.rename(final)
            return final.stat().st_size == size
        except FileNotFoundError:
            return False  # nothing has come yet; or another driver has taken over meanwhile, and begins anew

    def complete(self, contact: Contact, execution: ExecutionId) -> None:
        def write(db: apsw.Connection) -> Outcome | None:
            self._lease.check(db)
            executions.log_arrived(db, time.time_ns() // 1_000_000, execution)
            return executions.outcome_of(db, execution)

        if (outcome := self._store.write(write)) is not None:
            (contact.forget if outcome is Outcome.SUCCEEDED else contact.forget_logs).append(execution)
            self._wake()  # what waited for this task may run

    def _lose(self, db: apsw.Connection, execution: ExecutionId, detail: str) -> None:
        self._lease.check(db)
        executions.finish(db, time.time_ns() // 1_000_000, execution, Outcome.LOST, Stage.COLLECT, detail)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
