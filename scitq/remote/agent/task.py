"""A started execution, as the keeper knows it."""

from __future__ import annotations

import os
from typing import Any

from scitq.remote.agent import containers, processes
from scitq.remote.agent.cgroups import Box
from scitq.remote.agent.orders import CAP_BYTES, GRACE_S, HOME, key_of
from scitq.remote.agent.slots import Slot


class Task:
    """A started execution and the slot it runs in."""

    __slots__ = (
        "again",
        "at",
        "b",
        "box",
        "cap",
        "deliver",
        "ecut",
        "grace",
        "home",
        "id",
        "image",
        "is_adopted",
        "is_staged",
        "key",
        "kill_at",
        "m",
        "ocut",
        "pid",
        "pidfd",
        "slot",
        "slots",
        "suspended_at",
        "terminated",
        "timeout",
        "why",
    )  # fmt: skip

    def __init__(self, facts: dict[str, Any], slot: Slot) -> None:
        self.id = facts["id"]
        self.key = key_of(self.id)
        self.slot = slot
        self.at = float(facts["at"])
        """Wall clock at the start; `b` counts from boot, `m` is the monotonic clock."""
        self.b = float(facts["b"])
        self.m = float(facts["m"])
        self.timeout: float | None = facts.get("timeout")
        self.grace = float(facts.get("grace", GRACE_S))
        self.cap = int(facts.get("cap", CAP_BYTES))
        self.deliver: str | None = facts.get("deliver")
        home = {name: facts[name] for name in HOME if name in facts}
        self.home: dict[str, Any] | None = home or None
        """Where its output goes, beside `deliver`."""
        self.slots = int(facts.get("slots", 1))
        """How many run slots it takes."""
        self.is_staged = bool(facts.get("staged"))
        """Whether the agent holds things for it until it is over."""
        self.pid: int = facts.get("pid", 0)
        """0 before the spawn, -1 when it was never written down."""
        self.why: str | None = facts.get("why")
        box = facts.get("box")
        self.box = None if box is None else Box(box)
        """The control group that limits it, if any."""
        self.image: dict[str, Any] | None = facts.get("image")
        """What its container is made of, and by which engine, if it has one."""
        self.again = 0
        """How often another process has taken the place of the one that stood for its container."""
        self.terminated = False
        self.suspended_at: float | None = None
        """Since when it is stopped (SIGSTOP) on request."""
        self.kill_at: float | None = None
        self.is_adopted = False
        self.pidfd = -1
        self.ocut = self.ecut = False

    def facts(self) -> dict[str, Any]:
        """What a later keeper needs to know; the same keys as in a start line."""
        known: dict[str, Any] = {"id": self.id, "slot": self.slot.number, "at": self.at, "b": self.b, "m": self.m}
        known |= {"pid": self.pid, "grace": self.grace, "cap": self.cap}
        if self.slots > 1:
            known["slots"] = self.slots
        if self.is_staged:
            known["staged"] = True
        if self.home is not None:
            known |= self.home
        if self.box is not None:
            known["box"] = self.box.folders
        for name in ("timeout", "deliver", "why", "image"):
            if getattr(self, name) is not None:
                known[name] = getattr(self, name)
        return known

    def goes(self, is_success: bool, why: str | None, has_output: bool) -> dict[str, Any] | None:
        """Where its output is to be brought now that it has ended; the words of the exit line."""
        home = self.home or {}
        if is_success and "output" in home:
            return {name: home[name] for name in ("output", "owner", "overwrite", "remotes") if name in home}
        if is_success and "home" in home:
            return {"home": True} if has_output or home["home"] == "always" else None
        if is_success:
            return {"deliver": self.deliver} if self.deliver is not None and has_output else None
        if "failed" not in home or not has_output or why not in (None, "timeout", "memory"):
            return None
        if home["failed"] is True:
            return {"home": True, "failed": True}
        if "output" not in home:
            return {"deliver": home["failed"], "failed": True}
        more: dict[str, Any] = {name: home[name] for name in ("owner", "remotes") if name in home}
        return {"output": home["failed"], **more, "failed": True}

    @property
    def is_before_boot(self) -> bool:
        """Whether it was started before this machine was, so that nothing of it can run any more."""
        return self.pid == -1

    @property
    def is_apart(self) -> bool:
        """Whether it runs in a container that is not among our own processes."""
        return containers.is_apart(self.image)

    def is_alive(self, journal: str) -> bool:
        """Whether its process is there, and really its. Our own child keeps its number until we have reaped it."""
        return not self.is_adopted or processes.is_execution(self.pid, self.b, self.key, journal)

    def cut(self) -> None:
        """Cut streams that grew over their cap; append-mode writers go on at the new end."""
        if os.fstat(self.slot.out).st_size > self.cap:
            os.ftruncate(self.slot.out, self.cap)
            self.ocut = True
        if os.fstat(self.slot.err).st_size > self.cap:
            os.ftruncate(self.slot.err, self.cap)
            self.ecut = True
