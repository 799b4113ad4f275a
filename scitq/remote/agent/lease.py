"""The worker's lease: until when it may publish outputs without asking. Whether it may is decided here, and nowhere else.

Whoever drives says `{"lease": seconds, "at": clock}`, `clock` being what this worker's own clock said (`clock` in its answer
to /held) plus what has passed on the driver's since: an order that was long on its way, or lay here while the machine
slept, cannot give more than was meant. An agent that was never leased is its driver's own machine's, and free.

The clock counts from boot and does not stand still while the machine sleeps. After another boot the lease has ended.
"""

from __future__ import annotations

import json
import os
from typing import Any

from scitq.remote.agent import processes

_SIZE = 128
LONGEST_S = 10 * 365 * 86400.0


class BadLease(ValueError):
    """What was said is no lease; the text says why."""


class Lease:
    """One, in the file `lease` of the root folder: there from the first one on."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = os.path.join(root, "lease")
        self._boot = processes.boot_id()
        self.is_ruled = os.path.exists(self._path)
        """Whether this worker publishes only while it is leased."""
        self._until = self._read()

    def take(self, said: dict[str, Any]) -> None:
        """Be leased anew, for longer or less long than before.

        Raises:
            OSError: the first one cannot be written down, so that a later agent would not know.
        """
        now = processes.boot_time()
        until = min(now, float(said.get("at", now))) + float(said["lease"])
        text = json.dumps({"boot": self._boot, "until": until}).ljust(_SIZE - 1) + "\n"
        try:
            # In place: a renewal takes no room on a full disk. One write: cut short by nothing but the machine's end.
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, text.encode("ascii"), 0)
                if not self.is_ruled:  # that there is one must outlive even the machine's end
                    from scitq.fetch.files import sync_folder

                    os.fsync(file)
                    sync_folder(self._root)
            finally:
                os.close(file)
        except OSError:
            if not self.is_ruled:
                raise  # else a later agent may publish for less long, which harms nobody
        self.is_ruled, self._until = True, until

    @property
    def left_s(self) -> float | None:
        """For how long it lasts; None for a worker that needs none."""
        return max(0.0, self._until - processes.boot_time()) if self.is_ruled else None

    @property
    def allows(self) -> bool:
        """Whether outputs may be published now."""
        return not self.is_ruled or processes.boot_time() < self._until

    def _read(self) -> float:
        try:
            with open(self._path, encoding="ascii") as file:
                said = json.load(file)
            return float(said["until"]) if self._boot and said["boot"] == self._boot else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0  # killed while it made the file


def checked(said: dict[str, Any]) -> dict[str, Any]:
    """The command, if it makes sense.

    Raises:
        BadLease: it does not.
    """
    for name in ("lease", "at"):
        value = said.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST_S:
            raise BadLease(f"{name} must be a number of seconds")
    return said
