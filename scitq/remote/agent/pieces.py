"""The requests that bring files of the submitting machine: asked in the agent's loop, done in threads, answered in the loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import collect
from scitq.remote.agent.blobs import NAME, Damaged, inflated, wanted_of
from scitq.remote.agent.http import BadRequest, Client, Request, json_answer

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent


class Pieces:
    """`/blobs`, see there."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pool = collect.Pool()

    def request(self, client: Client, request: Request) -> None:
        """Begin to answer one."""
        blobs = self.agent.staging.parcels.blobs
        if (request.method, request.path) == ("POST", "/blobs"):
            wanted = wanted_of(request.json())
            self.agent.reply(client, json_answer(200, {sha: blobs.here(sha) for sha in wanted}))
            return
        sha = request.path.removeprefix("/blobs/")
        if request.method != "PUT" or not NAME.match(sha):
            raise BadRequest(
                404, f"{request.method} {request.path[:200]}: POST /blobs or PUT /blobs/<sha256> is wanted"
            )
        start, size = request.offset("from"), request.offset("size")
        time_text = request.query.get("mtime", "")
        if not (time_text.isascii() and (time_text == "" or (time_text.isdigit() and len(time_text) < 20))):
            raise BadRequest(400, "mtime must be a time in ns since 1970")
        mtime_ns = int(time_text) if time_text else time.time_ns()
        encoding = request.headers.get("content-encoding")
        answers: list[tuple[int, dict[str, Any]]] = [(500, {"error": "the agent failed; see its agent.log"})]

        def work() -> None:
            answers.append(self._add(sha, start, size, mtime_ns, request.body, encoding))

        def done() -> None:
            status, said = answers[-1]
            if status == 507:
                self.agent.staging.cannot_come(sha, str(said["error"]), str(said["note"]))
            self.agent.reply(client, json_answer(status, said))

        self.pool.do_then(self.agent, work, done)

    def _add(
        self, sha: str, start: int, size: int, mtime_ns: int, body: bytes, encoding: str | None
    ) -> tuple[int, dict[str, Any]]:
        from scitq.fetch.errors import FetchError, of_os_error

        site = self.agent.staging.site
        try:
            data = inflated(body, encoding)
            return 200, {"here": site.parcels.blobs.put(sha, start, size, mtime_ns, data, site.make_room)}
        except BadRequest as error:
            return error.status, {"error": str(error)}
        except Damaged:
            return 422, {"error": "Damaged", "note": f"{sha}: other bytes came than were announced"}
        except (OSError, FetchError) as error:
            typed = error if isinstance(error, FetchError) else of_os_error(error, "the data of a task", "get")
            return 507, {"error": type(typed).__name__, "note": str(typed)}
