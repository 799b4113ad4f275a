"""The keeper's side of staging: orders whose data the agent must bring before they may start.

The agent does the work in `stage/<execution>/` and says when it is done; nothing of it is believed to be done before
that. A keeper that took another's place asks for everything again: the agent knows what is there already.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent.orders import BadOrder, Order, key_of
from scitq.remote.agent.slots import INPUT, RESOURCE, Slot

if TYPE_CHECKING:
    from scitq.remote.agent.channel import Channel
    from scitq.remote.agent.tasks import Tasks

_ASKED = ("input", "resource", "output", "owner", "overwrite", "skip", "stage_timeout", "remotes",
          "check", "image", "options", "registry", "login", "engine", "nothing")  # fmt: skip
_WHY = ("stage_in", "stage_timeout")


class Stagings:
    """Which queued orders wait for the agent, and what it has to be told."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.open: dict[str, Order] = {}
        """Of the queue: what may not start yet, in order of arrival."""
        self.held: set[str] = set()
        """Executions that have a folder in `stage`, until they are over."""
        self._asks: list[Order] = []
        self._over: list[str] = []

    def take(self, order: Order, *, is_told: bool = False) -> None:
        """An order that is to be staged. `is_told`: the journal has it, and an agent hears of it when it says hello."""
        self.open[order.key] = order
        self.held.add(order.key)
        if not is_told:
            self._asks.append(order)

    def over(self, key: str) -> None:
        """An execution that was staged, or was to be, needs its folder no more."""
        self.held.discard(key)
        self.open.pop(key, None)
        self._over.append(key)

    def tell(self, channels: Iterable[Channel], is_stored: bool) -> None:
        """Journal and ask for what is new, once the orders are on disk; say what is over."""
        if self._asks and is_stored:
            asks = [order for order in self._asks if order.key in self.open]
            for order in asks:
                self.tasks.journal.add(json.dumps({"k": "stage", "id": order.id, "at": round(time.time(), 3)}))
            self._say(channels, {"stage": [_question(order) for order in asks]})
            self._asks.clear()
        if self._over and not self.tasks.is_urgent:  # a container may go when its end is written down, not before
            self._say(channels, {"over": self._over})
            self._over = []

    @staticmethod
    def _say(channels: Iterable[Channel], message: dict[str, Any]) -> None:
        for channel in channels:
            if channel.is_agent:
                channel.say(message)

    def hello(self) -> dict[str, Any]:
        """For an agent that has just come: all that is to be staged, and what is and has to stay."""
        return {
            "stage": [_question(order) for order in self.open.values()],
            "staged": [key for key in self.held if key not in self.open],
        }

    def done(self, said: dict[str, Any]) -> None:
        """The agent has staged an execution, cannot, or found that there is nothing to be done."""
        key = key_of(said["id"])
        order = self.open.get(key)
        if order is None:
            return  # cancelled meanwhile, or said twice
        tasks = self.tasks
        if not said["ok"]:
            why = said["why"] if said.get("why") in _WHY else "stage_in"
            del tasks.queue[key]
            more: dict[str, Any] = {name: said[name] for name in ("error", "final") if name in said}
            tasks.never_ran(order.id, key, why, None, said.get("note"), more)
        elif said.get("exists"):
            del tasks.queue[key]
            tasks.never_ran(order.id, key, "exists", 0, None, {"to": said.get("to"), "files": said.get("files")})
        else:
            del self.open[key]
            if (image := said.get("image")) is not None:
                order.image = {**image, "memory": (order.limit or {}).get("memory")}
            tasks.waiting.append(key)

    def note(self, said: dict[str, Any]) -> None:
        """Something about an execution that its user must hear."""
        key_of(said["id"])
        if not isinstance(said["text"], str):
            raise BadOrder("a note is a text")
        self.tasks.record(json.dumps({"k": "note", "id": said["id"], "text": said["text"]}))

    def place(self, order: Order, slot: Slot) -> None:
        """Put what was staged where the task looks for it: two renames over folders that are empty."""
        for name in (INPUT, RESOURCE):
            with contextlib.suppress(FileNotFoundError):  # it has none of that kind
                os.rename(f"stage/{order.key}/{name}", f"{slot.folder}/{name}")


def _question(order: Order) -> dict[str, Any]:
    return {"id": order.id, **{name: order.raw[name] for name in _ASKED if name in order.raw}}
