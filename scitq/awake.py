"""How long this process was awake: the only time by which others are judged.

A laptop whose lid was closed, or a process that was stopped, heard nobody because it did not listen. Such gaps do not count,
and after one it listens first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# The loop comes round at least every minute: one that was away for longer than this was not awake.
GAP_S = 75.0
# Clocks that stand still during a suspension, and such that do not, drift by less than this between two looks.
_DRIFT_S = 1.0


class Awake:
    """A clock of awake seconds, from 0 on. It goes on only by being looked at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] | None = None) -> None:
        self._clock, self._wall = clock, wall or since_boot
        self._last, self._ahead = clock(), self._wall() - clock()
        self.seconds = 0.0

    def tick(self) -> bool:
        """Look at it; True when there was a gap before."""
        now, ahead = self._clock(), self._wall() - self._clock()
        passed, grown = now - self._last, ahead - self._ahead
        self._last, self._ahead = now, ahead
        if passed > GAP_S:
            return True
        self.seconds += max(0.0, passed)
        return grown > _DRIFT_S


def since_boot() -> float:
    """A clock that goes on while the machine is suspended, where there is one; the time of day may be set back and forth."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
