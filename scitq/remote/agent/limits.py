"""What this keeper can limit, and why not the rest; the groups it makes for executions, and their removal.

One group is `cgroups.Box`; in which folders they go is `hierarchies`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from scitq.remote.agent.cgroups import Box, limit, make, unmake
from scitq.remote.agent.hierarchies import CONTROLLERS, folder_for, is_v2
from scitq.remote.agent.lines import Exit
from scitq.remote.agent.spawn import refused

ABANDONED_S = 3600.0
"""Empty groups of keepers that nobody knows any more are removed after this time."""


class Place(NamedTuple):
    """A folder of a hierarchy in which groups can be made, and what they can limit: `memory`, `cpus`."""

    folder: str
    what: tuple[str, ...]


class Limits:
    """Where this keeper can make groups, why not elsewhere, and the groups that wait to be removed."""

    def __init__(self, tag: str, proc: str = "/proc/self") -> None:
        self.tag = tag
        self.proc = proc
        self.places: list[Place] = []
        self.reasons: dict[str, str] = {}
        self.full: list[Box] = []
        """Of executions that are over, but whose daemons are not."""

    def begin(self, running: Collection[str]) -> None:
        """Find out what can be limited; sweep up groups whose execution is over."""
        found: dict[str, tuple[str, ...]] = {}
        for what in CONTROLLERS:
            try:
                folder = folder_for(what, self.proc, [folder for folder in found if is_v2(folder)])
                if folder not in found:
                    self._try(folder, what)
                found[folder] = (*found.get(folder, ()), what)
            except OSError as error:
                self.reasons[what] = (
                    f"no control group may be made ({error.strerror})" if error.filename else str(error)
                )
        self.places = [Place(folder, what) for folder, what in found.items()]
        self._sweep(running)

    def _try(self, folder: str, what: str) -> None:
        """OSError when no group can be made there, limited and entered."""
        box = Box([f"{folder}/scitq-{self.tag}.try"])
        try:
            make(box.folders[0])
            limit(box.folders[0], what, 1 << 30 if what == "memory" else 0.01)
            for door in {f"{box.folders[0]}/cgroup.procs"} | ({f"{folder}/cgroup.procs"} if is_v2(folder) else set()):
                if not os.access(door, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), door)
        finally:
            box.remove()

    def _sweep(self, running: Collection[str]) -> None:
        mine = f"scitq-{self.tag}-"
        for place in self.places:
            for name in os.listdir(place.folder):
                path = f"{place.folder}/{name}"
                if name.startswith(mine) and name[len(mine) :] not in running:
                    self.release(Box([path]))
                elif name.startswith("scitq-") and not name.startswith(mine):
                    with contextlib.suppress(OSError):
                        if time.time() - os.stat(path).st_mtime > ABANDONED_S:
                            unmake(path)  # refused by the system if anything runs in it

    def told(self) -> dict[str, Any]:
        """What the driver is told: what can be limited, and why the rest cannot."""
        able = sorted(what for place in self.places for what in place.what)
        reasons = dict.fromkeys(self.reasons.values())
        return {"limits": able, "limits_reason": "; ".join(reasons) or None}

    def box(self, key: str, wanted: dict[str, float]) -> Box | None:
        """The group for an execution, not made yet; None when nothing of the limit can be had here."""
        found = {}
        for place in self.places:
            here = {what: wanted[what] for what in place.what if what in wanted}
            if here.get("cpus", 0) >= (os.cpu_count() or 1):
                del here["cpus"]  # it cannot have more anyway
            if here:
                found[f"{place.folder}/scitq-{self.tag}-{key}"] = here
        return Box(list(found), found) if found else None

    @staticmethod
    def judge(box: Box, end: Exit) -> str | None:
        """Correct an end by what the system says of its group; returns a note for our log if it was not limited at all."""
        failed = box.failure()
        if end.why in (None, "unknown") and (note := box.shortage(end.sig == signal.SIGKILL)) is not None:
            end.why, end.note = "memory", note
        elif "exec" in failed:
            problem = OSError(failed["exec"], os.strerror(failed["exec"]))
            end.why, (end.code, end.note) = "spawn", refused(box.program, problem)
        return f"ran without limits: {os.strerror(failed['enter'])}" if "enter" in failed else None

    def release(self, box: Box) -> None:
        """The execution is over: remove its group now, or when the last of its processes has ended."""
        self.full.append(box)
        self.retry()

    def end(self) -> None:
        """The keeper ends: groups whose processes were killed a moment ago should not be left to the next one."""
        for _ in range(10):
            if not self.full:
                return
            time.sleep(0.02)
            self.retry()

    def retry(self) -> None:
        """Remove the groups that wait for that, if it can be done now: somebody has ended."""
        self.full = [box for box in self.full if not box.remove()]
