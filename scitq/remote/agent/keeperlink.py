"""The agent's line to its keeper: starting one when there is none, questions and answers, rings.

Everything that wants a confirmation is repeated to the next keeper when this one dies first; all of it is harmless to
repeat.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import address, root, strays
from scitq.remote.agent.http import json_answer

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent
    from scitq.remote.agent.http import Client

FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 5.0
PATIENCE = 4
"""After so many keepers in a row that do not start, who waits is told so."""


class KeeperLink:
    """One connection to the keeper, made again whenever it breaks."""

    def __init__(self, agent: Agent, command: list[str], slots: int | None) -> None:
        self.agent = agent
        self.command = command
        self.slots = slots
        self.sock: socket.socket | None = None
        self.pid = 0
        self.child = 0
        self.ready_pipe = -1
        self.retry_at: float | None = None
        self.wait = FIRST_WAIT_S
        self.is_known = False
        """Whether this keeper has said which journal it writes."""
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.wants_write = False
        self.tag = 0
        self.failures = 0
        """Keepers in a row that could not be started."""
        self.open: dict[int, tuple[bytes, Callable[[dict[str, Any]], None], Client | None]] = {}
        """What is not answered yet, oldest first, with the client that waits for it."""
        self.waiting: list[tuple[Callable[[], None], Client]] = []

    # Making the connection.

    def connect(self) -> None:
        """Connect; start a keeper if nobody answers."""
        self.retry_at = None
        self._bury()
        try:
            self.sock = address.connect(self.agent.folder, "keeper.sock")
        except OSError:
            self._start()
            return
        self.sock.setblocking(False)
        self.agent.selector.register(self.sock, selectors.EVENT_READ, self)
        self.wants_write = False
        self.inbox.clear()
        self.outbox = bytearray(b'{"hello":1}\n')
        for data, _, _ in self.open.values():
            self.outbox += data

    def _start(self) -> None:
        """Start a keeper that is not our child's child; a pipe tells when it listens or has died."""
        if self.child or self.ready_pipe >= 0:
            self.retry_at = time.monotonic() + FIRST_WAIT_S
            return
        ready, theirs = os.pipe()
        arguments = ["--root", self.agent.folder, "--ready-fd", "3"]
        if self.slots is not None:
            arguments += ["--slots", str(self.slots)]
        try:
            if theirs == 3:  # dup2 onto itself would leave it closed on exec
                theirs = os.dup(theirs)
                os.close(3)
            actions = [(os.POSIX_SPAWN_DUP2, theirs, 3)]
            command = [*self.command, *arguments]
            self.child = os.posix_spawn(command[0], command, strays.environment(), file_actions=actions, setsid=True)
        except OSError as error:
            root.say(self.agent.folder, "agent", f"cannot start a keeper: {error}")
            os.close(ready)
            self._failed()
            return
        finally:
            os.close(theirs)
        self.ready_pipe = ready
        self.agent.selector.register(ready, selectors.EVENT_READ, self)

    def _failed(self) -> None:
        """No keeper came of it. After some tries those who wait are told, rather than left hanging."""
        self.failures += 1
        if self.failures >= PATIENCE:
            root.say(self.agent.folder, "agent", f"no keeper after {self.failures} tries; the command: {self.command}")
            told = json_answer(503, {"error": f"the keeper does not start; see {self.agent.folder}/agent.log"})
            clients = [client for _, _, client in self.open.values() if client] + [client for _, client in self.waiting]
            self.open = {tag: entry for tag, entry in self.open.items() if entry[2] is None}
            self.waiting.clear()
            for client in dict.fromkeys(clients):
                self.agent.outputs.drop(client)
                self.agent.reply(client, told)
        self._try_later()

    def _try_later(self) -> None:
        self.retry_at = time.monotonic() + self.wait
        self.wait = min(LONGEST_WAIT_S, self.wait * 2)

    def _bury(self) -> None:
        if self.child:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.child, os.WNOHANG)[0] == 0:
                    return
            self.child = 0

    def _lost(self) -> None:
        """The keeper is gone, or at least the line."""
        assert self.sock is not None
        self.agent.selector.unregister(self.sock)
        self.sock.close()
        self.sock = None
        self.is_known = False
        if not self.agent.keeper_is_gone():
            root.say(self.agent.folder, "agent", f"the keeper (pid {self.pid}) is gone")
            self._try_later()

    def ready(self, what: Any, mask: int) -> None:
        """Something happened on one of our descriptors."""
        if what == self.ready_pipe:
            self.agent.selector.unregister(self.ready_pipe)
            os.close(self.ready_pipe)
            self.ready_pipe = -1
            try:
                probe = address.connect(self.agent.folder, "keeper.sock")
            except OSError:
                self._failed()  # it died, or another one holds the lock and is ending
                return
            probe.close()
            self.connect()
            return
        if what is not self.sock:
            return
        if mask & selectors.EVENT_WRITE:
            self.send()
        if mask & selectors.EVENT_READ and self.sock is not None:
            self._receive()

    def attend(self, now: float) -> None:
        """Try again when it is time."""
        if self.retry_at is not None and now >= self.retry_at and self.sock is None:
            self.connect()

    # Talking.

    def send(self) -> None:
        """Everything said in this round, in one write."""
        if self.sock is None or not self.outbox:
            return
        try:
            sent = self.sock.send(self.outbox)
            del self.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
            return
        if bool(self.outbox) != self.wants_write:
            self.wants_write = bool(self.outbox)
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.wants_write else 0)
            self.agent.selector.modify(self.sock, mask, self)

    def _queue(self, data: bytes, call: Callable[[dict[str, Any]], None], client: Client | None) -> None:
        self.open[self.tag] = (data, call, client)
        if self.sock is not None:
            self.outbox += data

    def ask(
        self, question: dict[str, Any], call: Callable[[dict[str, Any]], None], client: Client | None = None
    ) -> None:
        """Have `call` called with the keeper's answer. `client`, if any, is told when no keeper can be had."""
        self.tag += 1
        self._queue(json.dumps({**question, "tag": self.tag}).encode("ascii") + b"\n", call, client)

    def hand(self, lines: bytes, call: Callable[[], None], client: Client | None = None) -> None:
        """Hand commands on as they are; `call` once the keeper has them on disk."""
        self.tag += 1
        self._queue(lines + b'{"sync":%d}\n' % self.tag, lambda _: call(), client)

    def tell(self, message: dict[str, Any]) -> None:
        """Something that may be lost with the keeper."""
        if self.sock is not None:
            self.outbox += json.dumps(message).encode("ascii") + b"\n"

    def hurry(self) -> None:
        """Somebody has more to say than what is not confirmed yet: the keeper is not to wait with that."""
        if self.open:
            self.tell({"hurry": 1})

    def when_known(self, call: Callable[[], None], client: Client) -> None:
        """Call now, or when a keeper has said what its journal is."""
        if self.is_known:
            call()
        else:
            self.waiting.append((call, client))

    def _receive(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self.inbox += data
        *lines, rest = self.inbox.split(b"\n")
        self.inbox = rest
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        agent = self.agent
        if "ring" in said:
            agent.rung = said["ring"]
            if "segments" in said:
                agent.journal.adopt(agent.journal.id, said["segments"])
            if "left" in said:
                agent.folders.left(said["left"])
            agent.outputs.rung()
        elif "stage" in said:
            agent.staging.asked(said["stage"])
        elif "over" in said:
            agent.staging.over(said["over"])
        elif "synced" in said:
            entry = self.open.pop(said["synced"], None)
            if entry:
                entry[1](said)
        elif "tag" in said:
            entry = self.open.pop(said["tag"], None)
            if entry:
                entry[1](said)
        elif "hello" in said:
            hello = said["hello"]
            self.pid, self.is_known = hello["pid"], True
            self.wait, self.failures = FIRST_WAIT_S, 0
            is_new = hello["journal"] != agent.journal.id
            agent.journal.adopt(hello["journal"], hello["segments"])
            agent.rung = hello["end"]
            agent.stop = agent.stop or (hello["stop"] if hello["stop"] in ("now", "when_idle") else None)
            if is_new:
                agent.journal_is_new()
            agent.folders.left(hello["left"])
            agent.staging.hello(hello.get("stage", []), hello.get("staged", []))
            waiting, self.waiting = self.waiting, []
            for call, _ in waiting:
                call()
