"""The requests by which the driver fetches outputs that are held here: `GET /kept/<execution>/<name>?from=N&max=M`.

A name is as in `files` of the `collected` line, in percent notation. Read in threads. 404: no such file here; 410: it is
not any more as it was when it was collected, and what is announced of it does not hold.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from scitq.remote.agent import collect
from scitq.remote.agent.http import BadRequest, Client, Request, answer, json_answer
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.reader import read_stream

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent

MOST_BYTES = 4 << 20
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")


class Returns:
    """`/kept`, see there."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pool = collect.Pool()

    def request(self, client: Client, request: Request) -> None:
        """Begin to answer one."""
        words = request.path.split("/", 3)
        if request.method != "GET" or len(words) != 4:
            raise BadRequest(404, f"{request.path[:200]}: no such thing here; ask for /kept/<execution>/<name>")
        try:
            key = key_of(words[2])
        except ValueError as error:
            raise BadRequest(404, str(error)) from None
        name = _name_of(words[3])
        offset = request.offset("from")
        most = min(request.offset("max") if "max" in request.query else MOST_BYTES, MOST_BYTES)
        found = [json_answer(500, {"error": "the agent failed; see its agent.log"})]
        self.pool.do_then(
            self.agent,
            lambda: found.append(self._read(key, name, offset, most)),
            lambda: self.agent.reply(client, found[-1]),
        )

    def _read(self, key: str, name: str, offset: int, most: int) -> bytes:
        kept = self.agent.kept
        if (entry := kept.entry(key)) is None or name not in entry["stats"]:
            return json_answer(404, {"error": f"execution {key} holds no such file here: {name!r:.200}"})
        path = kept.file(key, name)
        read = None if path is None else read_stream(path, offset, most, None)
        if read is None or kept.file(key, name) is None:
            return json_answer(
                410, {"error": f"{name!r:.200} of execution {key} was changed on the worker since it ended"}
            )
        return answer(200, read[0], "application/octet-stream", {"Scitq-Size": read[1]})


def _name_of(text: str) -> str:
    raw = text.encode("latin-1")
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found.group(1), 16)]), raw))
