"""Folders of ended executions: bring their output home (`publish`), delete what nobody needs, forget what the driver has.

The decisions are made in the agent's loop, the blocking work in a few threads.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import collect
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.slots import OUTPUT

if TYPE_CHECKING:
    from scitq.fetch.retry import Cancel
    from scitq.remote.agent.agent import Agent


class Folders:
    """What becomes of `exec/<execution>`."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.root = agent.folder
        self.pool = collect.Pool()
        self.sending = collect.Pool()
        """For addresses: a slow line is not to hold up what stays on this machine."""
        self.collecting: dict[str, Cancel] = {}
        """What is being brought home, or waits for it, and how to stop that."""
        self.waiting: dict[str, dict[str, Any]] = {}
        """Of these, what waits for the driver to tell about its remotes."""
        self.is_closing = False
        self.forget_later: dict[str, bool] = {}

    def empty_trash(self) -> None:
        """Delete what has been put out of sight."""
        self.pool.do_then(self.agent, lambda: collect.empty_trash(self.root), lambda: None)

    def left(self, ends: list[dict[str, Any]]) -> None:
        """Executions that left a folder, as the keeper tells them; after a restart, those still owed."""
        for end in ends:
            key = key_of(end["id"])
            if "deliver" not in end and "output" not in end:
                self._tidy(key, bool(end["inline"]))
            elif key not in self.collecting:
                from scitq.fetch.retry import Cancel

                self.collecting[key] = Cancel()
                self.waiting[key] = end
            if end.get("cancel"):
                self.collecting[key].set()
        self.remotes_came()

    def _tidy(self, key: str, is_inline: bool, *, is_sent: bool = False) -> None:
        def job() -> None:
            if is_sent:
                collect.to_trash(self.root, os.path.join(self.root, "exec", key, OUTPUT))
            collect.tidy(self.root, key, is_inline)

        self.pool.do_then(self.agent, job, lambda: None)

    def remotes_came(self) -> None:
        """Collect what waits for nothing any more. Without its remotes an address means nothing."""
        for key, owed in list(self.waiting.items()):
            if self.collecting[key].is_set or self.agent.staging.remotes.has(owed.get("remotes", [])):
                del self.waiting[key]
                self._collect(owed, key)

    def _collect(self, owed: dict[str, Any], key: str) -> None:
        cancel = self.collecting[key]
        to = owed.get("output") or owed["deliver"]
        result: dict[str, Any] = {"id": owed["id"], "ok": False, "error": "AgentFailed"}
        result["note"] = "the agent failed; see its agent.log"
        if owed.get("failed"):
            result["failed"] = True

        def job() -> None:
            # Here, so that an agent that brings nothing home does not load all that.
            from scitq.fetch.errors import FetchError
            from scitq.remote.agent import publish

            try:
                brought = publish.bring(self.root, owed, key, self.agent.staging.remotes.settings(cancel))
            except FetchError as error:
                result.update(error=type(error).__name__, note=error.message)
            else:
                del result["error"]
                result.update(ok=True, note="; ".join(brought.left_out) or None, to=to, files=brought.files)

        def done() -> None:
            # Told until confirmed: the keeper writes it down, or a later agent begins this again.
            if not self.is_closing:
                self.agent.keeper.hand(json.dumps({"collected": result}).encode("ascii") + b"\n", confirmed)

        def confirmed() -> None:
            del self.collecting[key]
            if key in self.forget_later:
                self.forget(key, self.forget_later.pop(key))
            elif result["ok"] and not owed.get("failed"):
                self._tidy(key, False, is_sent="output" in owed)

        (self.sending if "output" in owed else self.pool).do_then(self.agent, job, done)

    def close(self, patience_s: float) -> None:
        """The agent ends: transfers stop. What they were for is still owed, and another agent begins again."""
        self.is_closing = True
        for cancel in self.collecting.values():
            cancel.set()
        until = time.monotonic() + patience_s
        while (self.sending.is_busy or self.pool.is_busy) and time.monotonic() < until:
            time.sleep(0.01)

    def forget(self, key: str, is_work_kept: bool) -> None:
        """The driver has all it wants of an ended execution. Its folder leaves its place at once."""
        home = os.path.join(self.root, "exec", key)
        if key in self.collecting:
            self.forget_later[key] = is_work_kept
        elif is_work_kept:
            for name in ("out", "err"):
                collect.to_trash(self.root, os.path.join(home, name))
        else:
            collect.to_trash(self.root, home)
