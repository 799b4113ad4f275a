"""What the driver says by `POST /commands`, a JSON object a line: what the agent itself obeys, and what the keeper is handed.

All or nothing: a line that makes no sense refuses the whole. 200 means that all of it is on disk, or done; but for secrets
(remotes, registries), which are told again to another agent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import lease
from scitq.remote.agent.http import BadRequest, Client, Request, json_answer
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.parcels import BadParcels
from scitq.remote.agent.remotes import BadRemotes
from scitq.remote.agent.rented import checked as checked_rented

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent


class Said:
    """The lines of one request, sorted by who obeys them."""

    def __init__(self, body: bytes) -> None:
        self.handed: list[bytes] = []
        """As they came, for the keeper."""
        self.told: list[tuple[int, dict[str, Any]]] = []
        """What staging has to know, with the numbers of their lines."""
        self.forgets: list[tuple[list[str], bool]] = []
        self.cancels: list[Any] = []
        self.lease: dict[str, Any] | None = None
        self.rented: list[dict[str, Any]] = []
        """At most one."""
        self.stop: str | None = None
        self.is_leaving = self.is_cleaning = False
        for number, line, said in _commands_of(body):
            try:
                self._take(number, line, said)
            except ValueError as error:
                raise BadRequest(400, f"line {number}: {error}") from None

    def _take(self, number: int, line: bytes, said: dict[str, Any]) -> None:
        if "forget" in said:
            try:
                keys = [key_of(each) for each in said["forget"]]
            except (ValueError, TypeError) as error:
                raise ValueError(f"forget needs a list of executions: {error}") from None
            self.forgets.append((keys, bool(said.get("keep_work"))))
        elif "order" in said:
            self.handed.append(line)
        elif "lease" in said:
            self.lease = lease.checked(said)
        elif "rented" in said:
            self.rented = [checked_rented(said["rented"])]
        elif {"remotes", "registries", "parcels"} & said.keys():
            self.told.append((number, said))
        elif said.get("stop") == "agent":  # this process alone: the next one finds the keeper and the tasks as they are
            self.is_leaving = True
        elif said.get("clean") is True:
            self.is_cleaning = True
        else:
            if said.get("stop") in ("now", "when_idle"):
                self.stop = said["stop"]
            if "cancel" in said:
                self.cancels.append(said["cancel"])
            self.handed.append(line)


class Commands:
    """Obeys them."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def request(self, client: Client, request: Request) -> None:
        """One request, answered when all of it holds."""
        agent, said = self.agent, Said(request.body)
        for number, each in said.told:
            self._tell(number, each)
        for identity in said.cancels:
            agent.folders.cancel(identity)
        drops = [key for keys, is_kept in said.forgets for key in keys if agent.folders.forget(key, is_kept)]
        if drops:
            said.handed.append(json.dumps({"drop": drops}).encode("ascii"))
        if said.forgets:
            agent.folders.empty_trash()
        for wish in said.rented:
            try:
                agent.rented.take(wish)
            except OSError as error:
                raise BadRequest(503, f"how this machine ends cannot be stored: {error.strerror}") from None
        if said.is_cleaning:
            agent.staging.clean()
        if said.stop:
            agent.stop = said.stop

        def done() -> None:
            # The lease last: what was cancelled in the same breath is not published under it.
            if said.lease is None or self._is_leased(client, said.lease):
                agent.reply(client, json_answer(200, {"ok": True}))
                agent.has_ended = agent.has_ended or said.is_leaving

        if said.handed:
            agent.keeper.hand(b"\n".join(said.handed) + b"\n", done, client)
        else:
            done()

    def _tell(self, number: int, said: dict[str, Any]) -> None:
        staging = self.agent.staging
        try:
            if "remotes" in said:
                staging.take_remotes(said["remotes"])  # for this process only: secrets, which nobody writes down
            elif "registries" in said:
                staging.take_registries(said["registries"])
            else:
                staging.take_parcels(said["parcels"], said.get("lists", {}))
        except (BadRemotes, BadParcels) as error:
            raise BadRequest(400, f"line {number}: {error}") from None

    def _is_leased(self, client: Client, said: dict[str, Any]) -> bool:
        """Take the lease, and publish what waited for it; False when it cannot be written down."""
        try:
            self.agent.folders.lease.take(said)
        except OSError as error:
            self.agent.reply(client, json_answer(503, {"error": f"the lease cannot be stored: {error.strerror}"}))
            return False
        self.agent.folders.go_on()
        return True


def _commands_of(body: bytes) -> list[tuple[int, bytes, dict[str, Any]]]:
    """(number, text, object) of each line; BadRequest names the first that is no object."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line and not line.isspace()]
    try:
        # All in one call is half the work; what it does not take as it should is looked at line by line.
        objects = json.loads(b"[%s]" % b",".join([line for _, line in lines]))
    except (ValueError, RecursionError):
        objects = []
    if len(objects) == len(lines) and all(type(said) is dict for said in objects):
        return [(number, line, said) for (number, line), said in zip(lines, objects, strict=True)]
    found = []
    for number, line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequest(400, f"line {number}: {error}") from None
        if not isinstance(said, dict):
            raise BadRequest(400, f"line {number}: not an object")
        found.append((number, line, said))
    return found
