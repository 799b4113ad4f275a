"""Folders of ended executions: bring their output home (`publish`), delete what nobody needs, forget what the driver has.

The decisions are made in the agent's loop, the blocking work in a few threads.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import collect, root
from scitq.remote.agent.lease import Lease
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.slots import OUTPUT

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent


LOOK_S = 15.0
"""How often the end of the lease is looked for while outputs travel: a machine that slept must not find out much later."""


class Bringing:
    """One output that is being brought home, or waits for that."""

    def __init__(self, owed: dict[str, Any], lease: Lease) -> None:
        self.owed = owed
        self.key = key_of(owed["id"])
        self.is_leased = "output" in owed
        """Whether it takes a lease: what goes to an address could be somebody else's to bring by now."""
        self.is_cancelled = False
        """Whether the driver does not want it any more."""
        self._lease = lease
        self.renew()

    def renew(self) -> None:
        """Once more from the beginning."""
        from scitq.fetch.retry import Cancel

        self.cancel = Cancel((lambda: not self._lease.allows) if self.is_leased else None)
        if self.is_cancelled:
            self.cancel.set()

    def drop(self) -> None:
        """The driver does not want it any more."""
        self.is_cancelled = True
        self.cancel.set()


class Folders:
    """What becomes of `exec/<execution>`."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.root = agent.folder
        self.lease = Lease(agent.folder)
        self.pool = collect.Pool()
        self.sending = collect.Pool()
        """For addresses: a slow line is not to hold up what stays on this machine."""
        self.collecting: dict[str, Bringing] = {}
        """What is being brought home, or waits for that."""
        self.waiting: dict[str, Bringing] = {}
        """Of these, what waits for the driver to tell about its remotes, or for a lease."""
        self.is_closing = False
        self.forget_later: dict[str, bool] = {}
        self.cancelled: set[str] = set()
        """Executions that were cancelled and may be told to be forgotten before they have ended."""

    def empty_trash(self) -> None:
        """Delete what has been put out of sight."""
        self.pool.do_then(self.agent, lambda: collect.empty_trash(self.root), lambda: None)

    def left(self, ends: list[dict[str, Any]]) -> None:
        """Executions that left a folder, as the keeper tells them; after a restart, those still owed."""
        for end in ends:
            key = key_of(end["id"])
            if not {"deliver", "output", "home"} & end.keys():
                self._tidy(key, bool(end["inline"]))
            elif key not in self.collecting:
                self.collecting[key] = self.waiting[key] = Bringing(end, self.lease)
            if end.get("cancel"):
                self.collecting[key].drop()
        self.go_on()

    def cancel(self, identity: Any) -> None:
        """The driver does not want an execution any more. The keeper hears it, too, but only now it is sure to be in time:
        the next thing that is said may be a lease."""
        try:
            key = key_of(identity)
        except ValueError:
            return  # the keeper says so in the journal
        self.cancelled.add(key)
        if key in self.collecting:
            self.collecting[key].drop()
            self.go_on()

    def _tidy(self, key: str, is_inline: bool, *, is_sent: bool = False) -> None:
        def job() -> None:
            if is_sent:
                collect.to_trash(self.root, os.path.join(self.root, "exec", key, OUTPUT))
            collect.tidy(self.root, key, is_inline)

        self.pool.do_then(self.agent, job, lambda: None)

    def go_on(self) -> None:
        """Collect what waits for nothing any more. Without its remotes an address means nothing."""
        for key, each in list(self.waiting.items()):
            is_allowed = self.lease.allows or not each.is_leased
            if each.is_cancelled or (is_allowed and self.agent.staging.remotes.has(each.owed.get("remotes", []))):
                del self.waiting[key]
                self._collect(each)

    def _collect(self, bringing: Bringing) -> None:
        owed, key, cancel = bringing.owed, bringing.key, bringing.cancel
        result: dict[str, Any] = {"id": owed["id"], "ok": False, "error": "AgentFailed"}
        result["note"] = "the agent failed; see its agent.log"
        if owed.get("failed"):
            result["failed"] = True

        def job() -> None:
            # Here, so that an agent that brings nothing home does not load all that.
            from scitq.fetch.errors import FetchError

            try:
                found = self._held(bringing) if "home" in owed else self._brought(bringing)
            except FetchError as error:
                result.update(error=type(error).__name__, note=error.message)
            else:
                del result["error"]
                result.update(ok=True, **found)

        def done() -> None:
            if self.is_closing:
                return
            if not result["ok"] and cancel.is_set and not bringing.is_cancelled:
                bringing.renew()  # its lease ended: nobody hears of it, and the next one lets it begin again
                self.waiting[key] = bringing
                self.go_on()
                return
            # Told until confirmed: the keeper writes it down, or a later agent begins this again.
            self.agent.keeper.hand(json.dumps({"collected": result}).encode("ascii") + b"\n", confirmed)

        def confirmed() -> None:
            del self.collecting[key]
            if key in self.forget_later:
                self.forget(key, self.forget_later.pop(key))
            elif result["ok"] and not owed.get("failed"):
                self._tidy(key, False, is_sent="deliver" not in owed)

        (self.sending if "output" in owed else self.pool).do_then(self.agent, job, done)

    def _brought(self, bringing: Bringing) -> dict[str, Any]:
        """Bring an output to where its order says."""
        from scitq.fetch.errors import FetchError
        from scitq.remote.agent import publish

        owed, settings = bringing.owed, self.agent.staging.remotes.settings(bringing.cancel)
        brought = publish.bring(self.root, owed, bringing.key, settings)
        to = owed.get("output") or owed["deliver"]
        if self.lease.is_ruled and "output" in owed and not owed.get("failed"):
            # Other tasks here may read it: it need not come back. Not on the driver's own machine, which it would fill.
            try:
                self.agent.kept.keep(bringing.key, bringing.cancel)
                self.agent.kept.leave_room(self.agent.staging.held)
            except (FetchError, OSError) as error:
                root.say(self.root, "agent", f"execution {bringing.key}: its output is not kept: {error}")
        return {"note": "; ".join(brought.left_out) or None, "to": to, "files": brought.files}

    def _held(self, bringing: Bringing) -> dict[str, Any]:
        """Keep an output for the driver, who fetches it."""
        from scitq.fetch.errors import of_os_error

        try:
            entry = self.agent.kept.hold(bringing.key, bringing.cancel, is_lenient=bool(bringing.owed.get("failed")))
        except OSError as error:
            raise of_os_error(error, "$OUTPUT", "collect") from error
        told = {name: entry[name] for name in ("files", "folders", "programs")}
        return {"note": "; ".join(entry["left_out"]) or None, "held": True, **told}

    def due(self) -> list[float]:
        """When the lease is to be looked at, if anything depends on it now."""
        left_s = self.lease.left_s
        if left_s is None or not self._travelling():
            return []
        return [time.monotonic() + min(left_s + 0.001, LOOK_S)]

    def attend(self) -> None:
        """Break off what may not be published any more."""
        if not self.lease.allows:
            for each in self._travelling():
                each.cancel.set()

    def _travelling(self) -> list[Bringing]:
        return [each for key, each in self.collecting.items() if each.is_leased and key not in self.waiting]

    def close(self, patience_s: float) -> None:
        """The agent ends: transfers stop. What they were for is still owed, and another agent begins again."""
        self.is_closing = True
        for each in self.collecting.values():
            each.cancel.set()
        until = time.monotonic() + patience_s
        while (self.sending.is_busy or self.pool.is_busy) and time.monotonic() < until:
            time.sleep(0.01)

    def forget(self, key: str, is_work_kept: bool) -> bool:
        """The driver has all it wants of an execution. Its folder leaves its place at once.

        True: it was cancelled, and may not have ended yet, which the keeper knows.
        """
        home = os.path.join(self.root, "exec", key)
        if key in self.collecting:
            self.forget_later[key] = is_work_kept
        elif is_work_kept:
            for name in ("out", "err"):
                collect.to_trash(self.root, os.path.join(home, name))
        else:
            collect.to_trash(self.root, home)
        if collect.confirm(self.root, key):
            self.pool.do_then(self.agent, lambda: self.agent.kept.leave_room(self.agent.staging.held), lambda: None)
        was_cancelled = key in self.cancelled
        self.cancelled.discard(key)
        return was_cancelled
