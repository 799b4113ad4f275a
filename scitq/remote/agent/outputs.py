"""Serving a task's streams by offset, while it runs and after: `GET /output/<execution>/out|err`.

The files of a running task lie in its slot, which the next task will use. So what was read there counts only if the
keeper says afterwards that the slot still is this execution's.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent.http import BadRequest, Client, Request, answer, json_answer
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.reader import read_stream

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent

MOST_BYTES = 4 << 20
FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.25
WAIT_LIMIT_S = 3600.0


class Peek:
    """One request for a part of a stream."""

    __slots__ = ("client", "due", "key", "most", "offset", "pause", "slot", "stream", "until", "was_read")

    def __init__(self, client: Client, key: str, stream: str, offset: int, most: int, until: float) -> None:
        self.client = client
        self.key = key
        self.stream = stream
        self.offset = offset
        self.most = most
        self.until = until
        self.pause = FIRST_LOOK_S
        self.due: float | None = None
        self.slot: int | None = None
        self.was_read: tuple[bytes, int] | None = None


class Outputs:
    """All requests for output that are under way."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.peeks: list[Peek] = []

    def request(self, client: Client, request: Request) -> None:
        """Begin to answer one."""
        words = request.path.split("/")
        if len(words) != 4 or words[3] not in ("out", "err"):
            raise BadRequest(404, f"{request.path[:200]}: no such thing here; ask for /output/<execution>/out or err")
        try:
            key = key_of(words[2])
        except ValueError as error:
            raise BadRequest(404, str(error)) from None
        most = min(request.offset("max") if "max" in request.query else MOST_BYTES, MOST_BYTES)
        until = time.monotonic() + request.number("wait", 0.0, WAIT_LIMIT_S)
        peek = Peek(client, key, words[3], request.offset("from"), most, until)
        self.peeks.append(peek)
        self.agent.keeper.when_known(lambda: self._look(peek), client)

    def drop(self, client: Client) -> None:
        """The client is gone."""
        self.peeks = [peek for peek in self.peeks if peek.client is not client]

    def due(self) -> list[float]:
        """When somebody is to be looked after again."""
        return [peek.due for peek in self.peeks if peek.due is not None]

    def attend(self, now: float) -> None:
        """Look again at what was waited for long enough."""
        for peek in list(self.peeks):
            if peek.due is not None and now >= peek.due:
                self._look(peek)

    def rung(self) -> None:
        """Something started or ended."""
        for peek in list(self.peeks):
            if peek.due is not None:
                self._look(peek)

    def _look(self, peek: Peek) -> None:
        peek.due = None
        if peek.slot is not None:
            path = os.path.join(self.agent.folder, "slot", str(peek.slot), peek.stream)
            peek.was_read = read_stream(path, peek.offset, peek.most, None)
        self.agent.keeper.ask({"where": peek.key}, lambda said: self._told(peek, said), peek.client)

    def _told(self, peek: Peek, said: dict[str, Any]) -> None:
        if peek.client.is_closed or peek not in self.peeks:
            return
        state = said["state"]
        if state == "running":
            if said["slot"] != peek.slot or peek.was_read is None:
                if peek.slot == said["slot"]:
                    self._again(peek)  # its file is not there: the task deleted it
                    return
                peek.slot = said["slot"]
                self._look(peek)
            elif peek.was_read[0] or time.monotonic() >= peek.until:
                self._give(peek, *peek.was_read, has_ended=False)
            else:
                self._again(peek)
        elif state == "queued":
            if time.monotonic() >= peek.until:
                self._give(peek, b"", 0, has_ended=False)
            else:
                self._again(peek)
        elif state == "unknown":
            self._give_kept(peek, None)
        else:
            self._give_ended(peek, said["at"])

    def _again(self, peek: Peek) -> None:
        now = time.monotonic()
        if now >= peek.until:
            self._give(peek, b"", 0, has_ended=False)
            return
        peek.due = min(now + peek.pause, peek.until)
        peek.pause = min(LONGEST_LOOK_S, peek.pause * 1.5)

    def _give_ended(self, peek: Peek, at: int) -> None:
        line = self.agent.journal.line(at)
        if line is None or line.get("k") != "exit":
            self._give_kept(peek, None)
            return
        text = line["o" if peek.stream == "out" else "e"]
        if text is None:
            self._give_kept(peek, line["on" if peek.stream == "out" else "en"])
            return
        data = text.encode("latin-1")
        self._give(peek, data[peek.offset : peek.offset + peek.most], len(data), has_ended=True)

    def _give_kept(self, peek: Peek, limit: int | None) -> None:
        path = os.path.join(self.agent.folder, "exec", peek.key, peek.stream)
        found = read_stream(path, peek.offset, peek.most, limit)
        if found is None:
            self._finish(peek, json_answer(404, {"error": f"execution {peek.key} is not known here, or was forgotten"}))
        else:
            self._give(peek, *found, has_ended=True)

    def _give(self, peek: Peek, data: bytes, size: int, has_ended: bool) -> None:
        headers = {"Scitq-Size": size, "Scitq-Ended": int(has_ended)}
        self._finish(peek, answer(200, data, "application/octet-stream", headers))

    def _finish(self, peek: Peek, data: bytes) -> None:
        if peek in self.peeks:
            self.peeks.remove(peek)
        self.agent.reply(peek.client, data)
