"""Orders that wait for others to end well: `after` names executions of this worker.

An execution has ended well when it succeeded and what it left is where it was to go, or is held here. Then its files can be
read here (`kept`), so whoever waited is staged as if it had just come. One that did not end well, or that nobody here knows,
gives back those that wait for it, and those in turn those that wait for them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from scitq.remote.agent.orders import Order

if TYPE_CHECKING:
    from scitq.remote.agent.tasks import Tasks


class Conditions:
    """Which queued orders wait, and for what."""

    def __init__(self, tasks: Tasks, failed: set[str], left: set[str]) -> None:
        self.tasks = tasks
        self.failed = failed
        """Of the executions that ended in a retained segment of the journal, those that did not end well."""
        self.left = left
        """Of those that ended well, the ones whose output was brought somewhere: the others left nothing."""
        self.open: dict[str, set[str]] = {}
        """What each order waits for; the orders are in the queue."""
        self._waiters: dict[str, list[str]] = {}
        """By what they wait for; some may wait no more."""
        self._news: deque[tuple[str, bool]] = deque()
        self._is_telling = False

    def take(self, order: Order) -> bool:
        """An order of the queue. True: it waits for nothing (any more)."""
        missing = set()
        for key in order.after:
            is_well = self._is_well(key)
            if is_well is False:
                self._give_back(order, key)
                return False
            if is_well is None:
                missing.add(key)
            else:
                self._note(order, key)
        if not missing:
            return True
        self.open[order.key] = missing
        for key in missing:
            self._waiters.setdefault(key, []).append(order.key)
        return False

    def _is_well(self, key: str) -> bool | None:
        """Whether an execution has ended well; None when it has not ended."""
        tasks = self.tasks
        if key in tasks.owed and key not in self.failed:
            return None
        if key in tasks.ended:
            return key not in self.failed
        return None if key in tasks.running or key in tasks.queue else False

    def ended(self, key: str, is_well: bool, *, has_left: bool = False) -> None:
        """An execution has ended, and its output, if it left any, is where it belongs, if that is well."""
        self.open.pop(key, None)
        if has_left and is_well:
            self.left.add(key)
        if not is_well:
            self.failed.add(key)
        if key not in self._waiters:
            return
        self._news.append((key, is_well))
        if self._is_telling:
            return  # whoever is given back below may have others that wait for it: without end, one after another
        self._is_telling = True
        while self._news:
            self._tell(*self._news.popleft())
        self._is_telling = False

    def _tell(self, key: str, is_well: bool) -> None:
        for waiter in self._waiters.pop(key, ()):
            missing = self.open.get(waiter)
            if missing is None:
                continue
            order = self.tasks.queue[waiter]
            if not is_well:
                self._give_back(order, key)
                continue
            self._note(order, key)
            missing.discard(key)
            # As the order file will say it by the time that the journal does not know of the other one any more.
            order.raw["after"] = sorted(missing)
            if not missing:
                del self.open[waiter]
                self.tasks.go_on(order)

    def _note(self, order: Order, key: str) -> None:
        """What the agent has to know of one that ended well: that there is nothing to be read, if that is so."""
        if key not in self.left and key not in (known := order.raw.get("nothing", [])):
            order.raw["nothing"] = [*known, key]

    def _give_back(self, order: Order, key: str) -> None:
        del self.tasks.queue[order.key]
        self.tasks.never_ran(
            order.id, order.key, "recall", None, f"execution {key}, which it waited for, did not end well"
        )

    def forget(self, key: str) -> None:
        """Its end was acknowledged long ago."""
        self.failed.discard(key)
        self.left.discard(key)
