"""The streams from a driver to its workers' agents: opened, written to, lost, opened again with growing waits.

Everything but the opening itself happens on the driver's thread. What is said and what answers mean is `driver` and `news`.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.contact import Contact, checked_held
from scitq.errors import BadAnswer, LinkBroken, ScitqError, StaleDriver, WorkerError
from scitq.remote.link import Stream
from scitq.remote.orders import to_bytes
from scitq.states import WorkerState
from scitq.store import workers
from scitq.store.connection import Store
from scitq.store.copies import Rival
from scitq.store.lease import Lease
from scitq.worker import WorkerRow

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# How long an agent holds a poll with nothing to tell. Only a fallback: a broken connection shows at once.
POLL_S = 600
# How long a driver that ends waits for a connection that is being made.
CONNECT_S = 5.0
# States of workers that say why they get nothing, and who wanted it so.
_SAYS_WHY = frozenset(
    {
        WorkerState.DRAINING,
        WorkerState.PAUSED,
        WorkerState.EVICTED,
        WorkerState.DELETING,
        WorkerState.GONE,
        WorkerState.FAILED,
    }
)
RECONNECT_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Connections:
    """The open streams of one driver. `later` runs a function on its thread; `opened` hears of a contact that is connected,
    `failed` of one that could not be, in the transaction that writes that down (and says whether it is given up)."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        selector: selectors.BaseSelector,
        *,
        later: Callable[[Callable[[], None]], None],
        opened: Callable[[Contact], None],
        failed: Callable[[apsw.Connection, WorkerRow, ScitqError, int], bool],
        is_over: Callable[[], bool],
    ) -> None:
        self._store, self._lease, self._selector = store, lease, selector
        self._later, self._opened, self._failing, self._is_over = later, opened, failed, is_over
        self._connecting: list[threading.Thread] = []

    # --- opening --------------------------------------------------------------------------------------------------------

    def begin(self, contact: Contact) -> None:
        """Have its streams opened, in a thread of its own: starting an agent takes a moment."""
        contact.connecting = True
        thread = threading.Thread(target=self._connect, args=(contact,), name="scitq-connect", daemon=True)
        self._connecting = [old for old in self._connecting if old.is_alive()] + [thread]
        thread.start()

    def join(self) -> None:
        """Wait for those that are being opened: an agent that is being started is not left to appear later."""
        for thread in self._connecting:
            thread.join(CONNECT_S)

    def _connect(self, contact: Contact) -> None:
        """Start the agent where it does not run, and open both streams."""
        if self._is_over():
            return
        streams: list[Stream] = []
        try:
            contact.route.ensure()
            streams.append(contact.route.stream())
            entered, held = self._enter(streams[0])
            if entered is not None:
                streams[0].close()
                self._later(lambda: self._contested(contact, entered))
                return
            streams.append(contact.route.stream())
        except Exception as problem:
            if isinstance(problem, ScitqError):
                found = problem
            else:  # nothing that is foreseen: a worker that is tried again is better than one that never is
                log.exception("worker %s could not be connected", contact.name)
                found = LinkBroken(f"connecting to it ended in {type(problem).__name__}: {problem}.")
            for stream in streams:
                stream.close()
            self._later(lambda: self._failed(contact, found))
        else:
            commands, events = streams
            self._later(lambda: self._connected(contact, commands, events, held))

    def _enter(self, stream: Stream) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Say who drives; then, and not before, ask what the agent holds: whoever drove it until now adds nothing to that.
        Gives who drives according to the agent, if that is somebody else; and what it holds."""
        lease = self._lease
        assert lease.copy is not None
        said = {"epoch": lease.epoch, "copy": lease.copy.id, "place": lease.copy.place, "knows": lease.knows}
        stream.queue("POST", "/drive", to_bytes([said]))
        stream.queue("GET", "/held")
        entered = stream.receive()
        if entered.status == 409:
            told = entered.json()
            if not isinstance(told.get("epoch"), int):
                raise BadAnswer(f"the agent's answer to /drive makes no sense: {entered.body[:200]!r}.")
            return told, {}
        if entered.status not in (200, 404):  # 404: an agent of an older scitq, which knows numbers only
            raise BadAnswer(f"the agent answered {entered.status} to /drive: {entered.body[:200]!r}.")
        return None, checked_held(stream.receive())

    def _contested(self, contact: Contact, told: dict[str, Any]) -> None:
        """The agent believes another driver. One of this very file, or of a copy that this one descends from, is over: go on
        under a higher number. One of another copy is not, unless somebody has said so."""
        if self._is_over():
            return
        contact.connecting = False
        rival = Rival.of(told)
        if rival is not None and not self._lease.may_replace(rival):
            raise self.displaced(contact, rival)
        self._lease.outbid(told["epoch"])
        self.begin(contact)

    def displaced(self, contact: Contact, rival: Rival) -> StaleDriver:
        """Another copy of the file drives a worker: what ends this driver."""
        return self._lease.give_way(rival, workers.find(self._store.reader(), int(contact.worker)).name)

    def _connected(self, contact: Contact, commands: Stream, events: Stream, held: dict[str, Any]) -> None:
        if self._is_over():
            commands.close()
            events.close()
            return
        contact.connecting = False
        contact.trouble = None
        if isinstance(epoch := held.get("epoch"), int) and epoch > (self._lease.epoch or 0):
            self._lease.outbid(epoch)  # an agent of an older scitq
        contact.commands, contact.events = commands, events
        contact.was_tried = False
        contact.told_held(held)
        row = workers.find(self._store.reader(), int(contact.worker))
        contact.journal, contact.acked = row.journal, row.acked
        contact.asked.clear()
        self._selector.register(commands, selectors.EVENT_READ, (contact, commands))
        self._selector.register(events, selectors.EVENT_READ, (contact, events))
        self.say(contact, [{"slots": row.slots}])
        contact.slots_sent = row.slots
        self._opened(contact)
        self.poll(contact)

    def _failed(self, contact: Contact, problem: ScitqError) -> None:
        if self._is_over():
            return
        contact.connecting, contact.was_tried = False, True
        wait_s = RECONNECT_S[min(contact.failures + 1, len(RECONNECT_S) - 1)]
        contact.failures += 1
        contact.next_try = time.monotonic() + wait_s
        if self._call_unreachable(contact, problem):
            contact.failures = 0
            log.warning(
                "worker %s: %s It is given up. To try again: scitq worker restart %s",
                contact.name,
                problem,
                contact.name,
            )
        elif not contact.is_far or contact.trouble != str(problem):  # one that is away may be away for days
            log.warning("worker %s: %s Next try in %g s.", contact.name, problem, wait_s)
        contact.trouble = str(problem)

    def _call_unreachable(self, contact: Contact, problem: ScitqError) -> bool:
        """Write down why a worker cannot be used, for `why` and the tables; whether it is given up for that."""

        def tell(db: apsw.Connection) -> bool:
            self._lease.check(db)
            row = workers.find(db, int(contact.worker))
            if self._failing(db, row, problem, contact.failures):
                return True
            if row.state in _SAYS_WHY:
                return False
            if row.note != str(problem) or row.state is WorkerState.READY:
                # One that is prepared still is not called that: it never was ready.
                is_lost = row.state is WorkerState.READY or (row.state is WorkerState.PREPARING and not contact.is_far)
                state = WorkerState.UNREACHABLE if is_lost else row.state
                workers.move(db, _now_ms(), contact.worker, state, str(problem))
            return False

        return self._store.write(tell)

    # --- losing ---------------------------------------------------------------------------------------------------------

    def lose(self, contact: Contact, problem: WorkerError) -> None:
        """A stream broke, or what came over it makes no sense."""
        log.debug("worker %s: %s", contact.name, problem)
        if isinstance(problem, BadAnswer):
            log.warning("worker %s: %s Connecting anew.", contact.name, problem)
            contact.failures += 1
            self._call_unreachable(contact, problem)
        contact.next_try = time.monotonic() + RECONNECT_S[min(contact.failures, len(RECONNECT_S) - 1)]
        self.hang_up(contact)

    def hang_up(self, contact: Contact) -> None:
        """Close its streams, and forget what only held for them."""
        for stream in (contact.events, contact.commands):
            if stream is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(stream)
                stream.close()
        contact.forget_connection()

    # --- saying ---------------------------------------------------------------------------------------------------------

    def say(self, contact: Contact, commands: list[dict[str, Any]]) -> None:
        """Send commands."""
        if not commands or contact.commands is None:
            return
        contact.commands.queue("POST", "/commands", to_bytes(commands), self._who())
        contact.asked.append("commands")
        self._send(contact, contact.commands)

    def _who(self) -> str:
        copy = self._lease.copy
        return f"Scitq-Epoch: {self._lease.epoch}\r\n" + ("" if copy is None else f"Scitq-Copy: {copy.id}\r\n")

    def ask(self, contact: Contact, what: str) -> None:
        """Ask for the agent's word on something."""
        if contact.commands is not None:
            contact.commands.queue("GET", f"/{what}")
            contact.asked.append(what)
            self._send(contact, contact.commands)

    def poll(self, contact: Contact) -> None:
        """Ask for what comes next in its journal, unless that is asked already."""
        if contact.events is not None and contact.events.waiting == 0:
            target = f"/events?journal={contact.journal or ''}&from={contact.acked}&wait={POLL_S}"
            contact.events.queue("GET", target, headers=self._who())
            self._send(contact, contact.events)

    def _send(self, contact: Contact, stream: Stream) -> None:
        try:
            if not stream.flush():
                self._selector.modify(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, (contact, stream))
        except LinkBroken as problem:
            self.lose(contact, problem)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
