"""When the cache is looked at: the driver's part, which only starts threads.

One thread for what this machine knows, one for what storages must be asked about; what they do is `probing`, which is loaded by
them. Nothing here outlives the driver: what there is to do is read from the state file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scitq.errors import Closed, ScitqError, StaleDriver
from scitq.fetch.retry import Cancel
from scitq.store import cache
from scitq.store.executions import Glance

if TYPE_CHECKING:
    import apsw

    from scitq.store.connection import Store
    from scitq.store.lease import Lease

log = logging.getLogger("scitq")

# While there is other work successes are written down only so often, and after it this much later: nobody asks for them.
PACE_S = 5.0
QUIET_S = 0.5
# What found nothing to do looks again after this long at the earliest, while tasks wait for another's answer.
REST_S = 0.05


@dataclass
class Lane:
    """One thread's worth of work: near (this machine only) or far."""

    is_far: bool
    thread: threading.Thread | None = None
    rests_until: float = 0.0
    """It found nothing to do, or could not: it is not begun again at once."""

    @property
    def is_busy(self) -> bool:
        """Whether its thread is at work."""
        return self.thread is not None and self.thread.is_alive()


class Caching:
    """One driver's work on the cache. All methods are called by its thread, or say otherwise."""

    def __init__(self, store: Store, lease: Lease, stop: threading.Event, wake: Callable[[], None]) -> None:
        self.store, self.lease, self.stop, self._wake = store, lease, stop, wake
        self.cancel = Cancel()
        self._lanes = (Lane(False), Lane(True))
        self._busy_at = self._begun_at = 0.0
        self._has_time = True
        # Tasks for which a storage must be asked, as the near lane found out.
        self.known_far: set[int] = set()

    def end(self) -> None:
        """Stop asking."""
        self.cancel.set()

    def see_to(self, seen: Glance, now: float) -> None:
        """Begin what there is to do, unless it is being done."""
        if seen.has_twins:
            self.store.write(self._release_twins)
        if seen.is_live or seen.is_ready:
            self._busy_at = now
        is_waited_for = seen.has_wanted or (seen.has_unkeyed and seen.has_waiters)
        if not (is_waited_for or (seen.has_unkeyed and now >= self._due(seen))):
            return
        self._begun_at = now
        # What nobody waits for is done a little at a time while there is other work.
        self._has_time = is_waited_for or not (seen.is_live or seen.is_ready)
        for lane in self._lanes:
            if not lane.is_busy and now >= lane.rests_until:
                lane.thread = threading.Thread(target=self._work, args=(lane,), name="scitq-cache", daemon=True)
                lane.thread.start()

    def wait_s(self, seen: Glance, now: float) -> float | None:
        """After how long it wants to be asked again, though nothing happens."""
        waits = [self._due(seen) - now] if seen.has_unkeyed else []
        if seen.has_wanted or (seen.has_unkeyed and seen.has_waiters):
            waits += [lane.rests_until - now for lane in self._lanes if not lane.is_busy]
        return max(REST_S, min(waits)) if waits else None

    def _due(self, seen: Glance) -> float:
        """When successes are to be written down."""
        return self._begun_at + PACE_S if seen.is_live or seen.is_ready else self._busy_at + QUIET_S

    def _release_twins(self, db: apsw.Connection) -> None:
        self.lease.check(db)
        cache.release_twins(db)

    def _work(self, lane: Lane) -> None:
        """In a lane's thread: until there is nothing more to do."""
        from scitq.probing import Probing

        work, rest_s = Probing(self, is_far=lane.is_far), PACE_S
        try:
            while not self.stop.is_set():
                did = work.record()
                did |= work.probe()
                if not did or not self._has_time:
                    rest_s = REST_S
                    return
        except (Closed, StaleDriver):
            return
        except ScitqError as problem:
            log.debug("the cache stands still for now: %s", problem)
        except Exception:
            if not self.stop.is_set() and not self.store.closed:
                log.exception("the look into the cache failed; the tasks run")
                work.give_up()
        finally:
            lane.rests_until = time.monotonic() + rest_s
            self._wake()  # what was written down quietly may be waited for
