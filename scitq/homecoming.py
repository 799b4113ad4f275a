"""Outputs that workers elsewhere hold come home: fetched into `<side>/incoming`, verified, put where their tasks wanted them.

One thread for each worker that holds some. What has come is kept over any failure, and gone on with, also by the next driver:
it is known by its size, and verified as a whole. Putting it in its place is what an agent does with outputs of its own machine
(`remote.agent.publish`), so it is done at once or not at all. Only then the execution has succeeded, and its worker may let go.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scitq.contact import Contact
from scitq.data import owed
from scitq.errors import BadAnswer, StaleDriver, WorkerError
from scitq.fetch.errors import FetchError, NoSpace
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.remote.agent import publish
from scitq.remote.link import Stream
from scitq.states import Outcome, Stage, Wanted
from scitq.store import executions, held, manifests
from scitq.store.connection import Store
from scitq.store.held import Held, HeldFile
from scitq.store.lease import Lease
from scitq.task import ExecutionId
from scitq.worker import WorkerId

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

PIECE_BYTES = 4 << 20
WINDOW_BYTES = 16 << 20
WINDOW_PIECES = 64
# Outputs that are fetched together.
AT_ONCE = 64
ANSWER_S = 300.0
# After a failure the next try waits this long.
AGAIN_S = 5.0
# How often a file is fetched that arrives as something else than was told.
TRIES = 3


@dataclass
class Result:
    """What became of one output: `problem` None: it is in its place."""

    execution: ExecutionId
    is_failed: bool = False
    to: str = ""
    files: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None
    is_lost: bool = False


class Homecoming:
    """Brings outputs home for one driver. Every method but the threads' own runs on the driver's thread.

    `later` runs a function on that thread, `wake` makes it look at the file again.
    """

    def __init__(
        self, store: Store, lease: Lease, stop: threading.Event, *, later: Callable[[Callable[[], None]], None],
        wake: Callable[[], None], is_over: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._store, self._lease, self._stop = store, lease, stop
        self._later, self._wake, self._is_over = later, wake, is_over
        self._root = str(store.side / "incoming")
        self._outputs = str(store.side / "outputs")
        self._cancels: dict[WorkerId, dict[ExecutionId, Cancel]] = {}
        """Of each worker that a thread fetches from, what it fetches."""
        self._has_swept = False

    def see_to(self, db: apsw.Connection, contact: Contact, wishes: Mapping[ExecutionId, Wanted]) -> None:
        """See that what this worker holds comes home, unless it is `wishes` that it does not."""
        worker = contact.worker
        cancels = self._cancels.get(worker)
        if cancels is None:
            found = held.due(db, worker, AT_ONCE)
            if not found:
                return
            stale = self._stale(db)
            cancels = self._cancels[worker] = {each.order.execution: Cancel() for each in found}
            file_id = manifests.file_id(db)
            goes = {
                each.order.execution: owed(db, each.order, self._outputs, file_id, is_failed=each.is_failed)
                for each in found
            }
            threading.Thread(
                target=self._bring, args=(contact, found, goes, cancels, stale), name="scitq-home", daemon=True
            ).start()
        for execution, cancel in cancels.items():
            if wishes.get(execution) is Wanted.STOPPED:
                cancel.set()

    def _stale(self, db: apsw.Connection) -> list[str]:
        """Once: what earlier drivers left here, and nobody waits for."""
        if self._has_swept:
            return []
        self._has_swept = True
        place = os.path.join(self._root, "exec")
        try:
            names = os.listdir(place)
        except FileNotFoundError:
            return []
        return [os.path.join(place, name) for name in names if not held.is_due(db, name)]

    # The thread.

    def _bring(
        self, contact: Contact, found: list[Held], goes: dict[ExecutionId, dict[str, Any]],
        cancels: dict[ExecutionId, Cancel], stale: list[str],
    ) -> None:  # fmt: skip
        problem: Exception | None = None
        try:
            for path in stale:
                shutil.rmtree(path, ignore_errors=True)
            for name in ("exec", "trash"):
                os.makedirs(os.path.join(self._root, name), mode=0o700, exist_ok=True)
            for group in _groups(found):
                results = self._bring_group(contact, group, goes, cancels)
                self._later(partial(self._arrived, contact, results, cancels))
        except (OSError, WorkerError, FetchError, StaleDriver) as error:
            problem = error
        except Exception as error:
            log.exception("outputs of worker %s did not come home", contact.worker)
            problem = error
        self._later(lambda: self._ended(contact, problem))

    def _bring_group(
        self, contact: Contact, group: list[Held], goes: dict[ExecutionId, dict[str, Any]],
        cancels: dict[ExecutionId, Cancel],
    ) -> list[Result]:  # fmt: skip
        lost: set[ExecutionId] = set()
        results: list[Result] = []
        for _ in range(TRIES):
            due = [
                each for each in group
                if each.order.execution not in lost and not cancels[each.order.execution].is_set and not self._is_here(each)
            ]  # fmt: skip
            if not due or self._stop.is_set():
                break
            wanted = [(each, file, path) for each in due for file, path in self._missing(each)]
            if wanted:
                with contextlib.closing(contact.route.stream()) as stream:
                    lost |= self._receive(stream, wanted, cancels)
            for each in due:
                if each.order.execution not in lost and not cancels[each.order.execution].is_set:
                    self._verify(each)
        for each in group:
            execution = each.order.execution
            if self._stop.is_set():
                break
            if execution in lost:
                results.append(Result(execution, is_lost=True))
            elif cancels[execution].is_set or self._is_here(each):
                results.append(self._put(each, goes[execution], cancels[execution]))
            else:
                text = "what comes of its output is not what its worker says it is"
                results.append(Result(execution, each.is_failed, problem=text))
        return results

    def _missing(self, each: Held) -> Iterator[tuple[HeldFile, str]]:
        """The files of an output that are not all here."""
        output = self._output(each)
        os.makedirs(output, mode=0o700, exist_ok=True)
        for folder in each.folders:
            os.makedirs(os.path.join(output, folder), exist_ok=True)
        for file in each.files:
            path = os.path.join(output, file.name)
            try:
                size = os.path.getsize(path)
            except FileNotFoundError:
                size = -1
            if size > file.size:
                os.unlink(path)
            if size != file.size:
                yield file, path

    def _verify(self, each: Held) -> None:
        """Delete what is not what it should be; if all is, say so for whoever goes on."""
        output = self._output(each)
        if any(True for _ in self._missing(each)):
            return
        bad = [file for file in each.files if _sha256(os.path.join(output, file.name)) != file.sha256]
        for file in bad:
            os.unlink(os.path.join(output, file.name))
        if bad:
            return
        for name in each.programs:
            path = os.path.join(output, name)
            mode = os.stat(path).st_mode
            os.chmod(path, mode | (mode & 0o444) >> 2)
        os.close(os.open(self._mark(each), os.O_WRONLY | os.O_CREAT, 0o600))

    def _is_here(self, each: Held) -> bool:
        return os.path.exists(self._mark(each))

    def _output(self, each: Held) -> str:
        return os.path.join(self._root, "exec", str(each.order.execution), "output")

    def _mark(self, each: Held) -> str:
        """There once all of it is; to put it in its place may take its files away from where they came."""
        return os.path.join(self._root, "exec", str(each.order.execution), "arrived")

    def _receive(
        self, stream: Stream, wanted: list[tuple[Held, HeldFile, str]], cancels: dict[ExecutionId, Cancel]
    ) -> set[ExecutionId]:
        """Fetch the rest of these files, several pieces at a time on their way."""
        lost: set[ExecutionId] = set()
        asked: deque[tuple[ExecutionId, str, int, int]] = deque()

        def take() -> None:
            answer = stream.receive(timeout_s=ANSWER_S)
            execution, path, start, count = asked.popleft()
            if answer.status in (404, 410):  # it is not there, or not any more as it was
                lost.add(execution)
                return
            if answer.status != 200 or len(answer.body) != count:
                raise BadAnswer(f"the agent answered {answer.status} with {len(answer.body)} bytes, not {count}.")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with open(handle, "wb", buffering=0):
                view, at = memoryview(answer.body), start
                while view:
                    written = os.pwrite(handle, view, at)
                    view, at = view[written:], at + written

        for each, file, path in wanted:
            execution = each.order.execution
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.exists(path):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
            start = os.path.getsize(path)
            while start < file.size and execution not in lost:
                if self._stop.is_set() or cancels[execution].is_set:
                    break
                count = min(PIECE_BYTES, file.size - start)
                name = quote(file.name, safe="/", errors="surrogateescape")
                stream.queue("GET", f"/kept/{execution}/{name}?from={start}&max={count}")
                stream.flush()
                asked.append((execution, path, start, count))
                start += count
                while sum(piece[3] for piece in asked) > WINDOW_BYTES or len(asked) > WINDOW_PIECES:
                    take()
        while asked:
            take()
        return lost

    def _put(self, each: Held, goes: dict[str, Any], cancel: Cancel) -> Result:
        """All of it is here: to where it belongs."""
        result = Result(each.order.execution, each.is_failed, goes.get("output") or goes["deliver"])
        if each.note:
            result.notes.append(each.note)
        try:
            cancel.check(result.to, "collect")
            if executions.glance(self._store.reader()).epoch != self._lease.epoch:
                raise StaleDriver("another driver has taken over meanwhile; this one puts nothing anywhere.")
            if not held.is_due(self._store.reader(), str(result.execution)):
                result.problem = "it was given up meanwhile"  # lost, say: another execution has the place now
                return result
            settings = Settings(cancel=cancel, warn=result.notes.append)
            brought = publish.bring(self._root, goes, str(each.order.execution), settings)
            result.files, result.notes = brought.files, [*result.notes, *brought.left_out]
        except NoSpace:
            raise
        except FetchError as error:
            result.problem = error.message
        return result

    # What came of it.

    def _arrived(self, contact: Contact, results: list[Result], cancels: dict[ExecutionId, Cancel]) -> None:
        """These have been dealt with."""
        if self._is_over() or not results:
            return
        for execution, outcome in self._store.write(lambda db: self._write(db, results, cancels)):
            (contact.forget if outcome is Outcome.SUCCEEDED else contact.forget_logs).append(execution)
        for result in results:
            shutil.rmtree(os.path.join(self._root, "exec", str(result.execution)), ignore_errors=True)
        self._wake()

    def _ended(self, contact: Contact, problem: Exception | None) -> None:
        """The thread has ended; there may be more by now."""
        self._cancels.pop(contact.worker, None)
        if self._is_over():
            return
        if problem is not None and contact.connected:
            contact.tail_after = time.monotonic() + AGAIN_S
            full = isinstance(problem, NoSpace) or getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            log.warning(
                "outputs of worker %s did not come home: %s. They are held there; next try in %g s.",
                contact.worker, "this machine's disk is full" if full else problem, AGAIN_S,
            )  # fmt: skip
        self._wake()

    def _write(
        self, db: apsw.Connection, results: list[Result], cancels: dict[ExecutionId, Cancel]
    ) -> list[tuple[ExecutionId, Outcome]]:
        self._lease.check(db)
        now = time.time_ns() // 1_000_000
        for result in results:
            execution = result.execution
            if result.is_lost:
                detail = "its worker lost the output, or something changed it there, before all of it was here"
                executions.finish(db, now, execution, Outcome.LOST, Stage.COLLECT, detail)
                continue
            for text in result.notes:
                manifests.note(db, now, execution, text)
            why = "cancel" if cancels[execution].is_set else "collect"
            manifest = None if result.problem is not None else (result.to, result.files)
            executions.collected(db, now, execution, result.problem, manifest, is_failed=result.is_failed, why=why)
        return [
            (result.execution, outcome)
            for result in results
            if (outcome := executions.outcome_of(db, result.execution)) is not None
        ]


def _groups(found: list[Held]) -> Iterator[list[Held]]:
    """Small outputs together, large ones one by one: each is reported when it has arrived."""
    group: list[Held] = []
    size = 0
    for each in found:
        group.append(each)
        size += sum(file.size for file in each.files)
        if size > WINDOW_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
