"""Folders of ended executions: deliver their output, delete what nobody needs, forget what the driver has.

The decisions are made in the agent's loop, the blocking work in a few threads (`collect`).
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import collect, root
from scitq.remote.agent.orders import key_of

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent


class Folders:
    """What becomes of `exec/<execution>`."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.root = agent.folder
        self.pool = collect.Pool()
        self.collecting: set[str] = set()
        self.forget_later: dict[str, bool] = {}

    def _in_pool(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Do `job` in a thread and then `done` in the loop."""
        self.pool.open += 1

        def finished() -> None:
            self.pool.open -= 1
            done()

        def run() -> None:
            try:
                job()
            except Exception:
                root.say(self.root, "agent", traceback.format_exc())
            self.agent.later(finished)

        self.pool.do(run)

    def empty_trash(self) -> None:
        """Delete what has been put out of sight."""
        self._in_pool(lambda: collect.empty_trash(self.root), lambda: None)

    def left(self, ends: list[dict[str, Any]]) -> None:
        """Successes that left a folder, as the keeper tells them; after a restart, those still owed."""
        for end in ends:
            key = key_of(end["id"])
            if "deliver" not in end:
                self._tidy(key, bool(end["inline"]))
            elif key not in self.collecting:
                self.collecting.add(key)
                self._collect(end["id"], key, end["deliver"])

    def _tidy(self, key: str, is_inline: bool) -> None:
        self._in_pool(lambda: collect.tidy(self.root, key, is_inline), lambda: None)

    def _collect(self, identity: Any, key: str, destination: str) -> None:
        result: dict[str, Any] = {"id": identity, "ok": False, "note": "the agent failed; see its agent.log"}

        def job() -> None:
            try:
                collect.deliver(self.root, key, destination)
            except collect.CannotDeliver as error:
                result["note"] = str(error)
            except OSError as error:
                where = f" ({error.filename})" if error.filename else ""
                result["note"] = f"{destination}: {error.strerror}{where}"
            else:
                result.update(ok=True, note=None)

        def done() -> None:
            # Told until confirmed: the keeper writes it down, or a later agent begins this again.
            self.agent.keeper.hand(json.dumps({"collected": result}).encode("ascii") + b"\n", confirmed)

        def confirmed() -> None:
            self.collecting.discard(key)
            if key in self.forget_later:
                self.forget(key, self.forget_later.pop(key))
            elif result["ok"]:
                self._tidy(key, False)

        self._in_pool(job, done)

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
