"""The agent: answers the driver over HTTP on `agent.sock`, hands its orders to the keeper, reads the keeper's journal.

It holds nothing that is not on disk or repeated by its peers, so it may be killed at any instruction, restarted, or
replaced by a newer one while tasks run. Output by offset is `outputs`, delivery is `collect`.

    POST /commands   a JSON object a line: order, cancel, slots, signal, forget, stop, clean, polite,
                         remotes, registries, parcels, lease. 200: all is on disk
    POST /drive      who drives from now on (see `fence`), said before anything else over a new connection
    GET /events      ?journal=ID&from=N&wait=S: lines from N on, which acknowledges everything before N
    GET /held        what is not over, as of the offset `end`; `clock` and `leased`, see `lease`; facts
                         about the machine
    GET /output/E/out|err   ?from=N&max=M&wait=S: bytes of a stream; Scitq-Size, Scitq-Ended
    POST /blobs, PUT /blobs/SHA   files of the submitting machine, by content; see `blobs`
    GET /kept/E/NAME   ?from=N&max=M: bytes of a file of an output that is held here; see `returns`
    GET /stats, GET /ping   load, CPU, memory, disks, network, tasks, what each takes, why none is started (`polite`); is it alive
    POST /port       listen on a port of the loopback as well, where there is a token; which

A request with a Scitq-Epoch below the highest that was ever seen, or with a Scitq-Copy that is not the one that drives, is
answered 409: its driver has been replaced, and the answer says by whom.
Where the root folder has a token, a request that does not show it is answered 401 (see `token`).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import VERSION, address, machine, processes, root, strays, token
from scitq.remote.agent.commands import Commands
from scitq.remote.agent.fence import Conflict, Fence, Refused
from scitq.remote.agent.folders import Folders
from scitq.remote.agent.http import BadRequest, Client, Request, answer, json_answer
from scitq.remote.agent.keeperlink import KeeperLink
from scitq.remote.agent.outputs import Outputs
from scitq.remote.agent.pieces import Pieces
from scitq.remote.agent.reader import JournalReader
from scitq.remote.agent.rented import Rented
from scitq.remote.agent.returns import Returns
from scitq.remote.agent.staging import Staging

if TYPE_CHECKING:
    from scitq.remote.agent.kept import Kept

WAIT_LIMIT_S = 3600.0
NDJSON = "application/x-ndjson"
RECEIVE_BYTES = 1 << 16  # larger ones would be mapped and unmapped for each of the many small messages
CLOSE_S = 10.0
"""How long the agent waits at its end for transfers to notice that they were stopped."""


class Poll:
    """A long poll for events."""

    __slots__ = ("client", "offset", "request", "until")

    def __init__(self, client: Client, request: Request, offset: int, until: float) -> None:
        self.client = client
        self.request = request
        self.offset = offset
        self.until = until


class Agent:
    """The loop, and what each request means."""

    def __init__(self, folder: str, linger: float, slots: int | None, keeper_command: list[str], lock: int) -> None:
        self.folder = folder
        self.lock = lock
        self.linger = linger
        self.selector = selectors.DefaultSelector()
        self.listener = self._listen()
        self.port: socket.socket | None = None
        self.token = token.read(folder)
        self.clients: set[Client] = set()
        self.polls: list[Poll] = []
        self.journal = JournalReader(folder)
        self.rung = 0
        self.acked = 0
        self.told_ack = 0
        self.fence = Fence(folder)
        self.stop: str | None = None
        self.is_leaving = False
        self.lone_since: float | None = time.monotonic()
        self.folders = Folders(self)
        self.staging = Staging(self)
        self.results: list[Callable[[], None]] = []
        self.wake, self.waker = socket.socketpair()
        for end in (self.wake, self.waker):
            end.setblocking(False)
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        self.commands = Commands(self)
        self.outputs = Outputs(self)
        self.pieces = Pieces(self)
        self.returns = Returns(self)
        self.keeper = KeeperLink(self, keeper_command, slots)
        self.rented = Rented(self)
        self.has_ended = False
        self._kept: Kept | None = None
        self._loading = threading.Lock()

    def _listen(self) -> socket.socket:
        listener = address.listen(self.folder, "agent.sock")
        self.selector.register(listener, selectors.EVENT_READ, None)
        return listener

    # The loop.

    def run(self) -> None:
        """Until stopped, or alone with nothing to do for `linger` seconds."""
        self.keeper.connect()
        while not self.has_ended:
            for key, mask in self.selector.select(self._patience()):
                if key.fileobj is self.listener or key.fileobj is self.port:
                    self._accept(key.fileobj)
                elif key.fileobj is self.wake:
                    with contextlib.suppress(BlockingIOError):
                        self.wake.recv(4096)
                elif isinstance(key.data, Client):
                    if mask & selectors.EVENT_READ and not key.data.is_closed:
                        self._receive(key.data)
                    if mask & selectors.EVENT_WRITE and not key.data.is_closed:
                        self._send(key.data)
                else:
                    self.keeper.ready(key.fileobj, mask)
            now = time.monotonic()
            while self.results:
                self.results.pop(0)()
            self.keeper.attend(now)
            self._answer_polls(now)
            self.outputs.attend(now)
            self.folders.attend()
            self.staging.attend(now)
            self._linger(now)
            self.rented.attend()
            self.keeper.send()

    def _patience(self) -> float | None:
        due = [poll.until for poll in self.polls]
        due.extend(self.outputs.due())
        due.extend(self.staging.due())
        due.extend(self.folders.due())
        if self.keeper.retry_at is not None:
            due.append(self.keeper.retry_at)
        if self.lone_since is not None and not self.rented.asked:
            due.append(self.lone_since + self.linger)
        if (rented_s := self.rented.due_s()) is not None:
            due.append(time.monotonic() + rented_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _linger(self, now: float) -> None:
        """Alone for long enough: ask whether anything is held; if not, take the keeper and go."""
        if self.lone_since is None or now < self.lone_since + self.linger or self.is_leaving or self.rented.asked:
            return  # a rented machine ends as a whole, when nobody wants it any more
        self.lone_since = now  # look again after as long

        def told(held: dict[str, Any]) -> None:
            is_idle = not held["held"] and not self.folders.collecting
            if self.clients or not is_idle:
                return
            if max(self.acked, held["acked"]) >= held["last_exit"] or not self.is_home():
                self.is_leaving = True
                self.keeper.tell({"stop": "when_idle", "acked": self.acked})

        self.keeper.ask({"held": 1}, told)

    def is_home(self) -> bool:
        """Whether the folder is still the one that it was started in: another agent may live at that path by now."""
        return root.is_still(self.folder, "agent.lock", self.lock)

    def keeper_is_gone(self) -> bool:
        """The keeper's end of the line closed. True when that was the plan and the agent ends as well."""
        if self.stop is None and not self.is_leaving:
            return False
        if self.stop is None and not self._close_door():
            self.is_leaving = False
            return False
        self.has_ended = True
        return True

    def _close_door(self) -> bool:
        """Stop listening; False (and listening again) when somebody came in at the last moment."""
        if self.clients:
            return False
        if self.is_home():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, "agent.sock"))
        self._accept(self.listener)
        if not self.clients:
            return True
        self.selector.unregister(self.listener)
        while True:  # all who are in the queue of the old socket
            before = len(self.clients)
            self._accept(self.listener)
            if len(self.clients) == before:
                break
        self.listener.close()
        self.listener = self._listen()
        return False

    @property
    def kept(self) -> Kept:
        """The outputs that stay here. Loaded by the first who asks, and never by an agent that holds none."""
        with self._loading:
            if self._kept is None:
                from scitq.remote.agent.kept import Kept

                self._kept = Kept(self.folder)
            return self._kept

    def later(self, call: Callable[[], None]) -> None:
        """From another thread: have the loop call this."""
        self.results.append(call)
        with contextlib.suppress(BlockingIOError):
            self.waker.send(b".")

    # Connections.

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        if listener is self.port:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(sock)
        self.clients.add(client)
        self.lone_since = None
        self.selector.register(sock, selectors.EVENT_READ, client)

    def _close(self, client: Client) -> None:
        if client.is_closed:
            return
        client.is_closed = True
        self.selector.unregister(client.sock)
        client.sock.close()
        self.clients.discard(client)
        self.polls = [poll for poll in self.polls if poll.client is not client]
        self.outputs.drop(client)
        if not self.clients:
            self.lone_since = time.monotonic()

    def _receive(self, client: Client) -> None:
        try:
            data = client.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.inbox += data
        if client.is_busy:
            self.keeper.hurry()
        self._serve(client)

    def _serve(self, client: Client) -> None:
        while not client.is_closed:
            try:
                request = client.next_request()
            except BadRequest as error:
                client.is_last = client.is_busy = True
                self.reply(client, json_answer(error.status, {"error": str(error)}))
                return
            if request is None:
                return
            try:
                self._handle(client, request)
            except BadRequest as error:
                more = error.facts if isinstance(error, Conflict) else {}
                self.reply(client, json_answer(error.status, {"error": str(error), **more}))
            except Exception as error:
                root.say(self.folder, "agent", traceback.format_exc())
                self.reply(client, json_answer(500, {"error": f"{type(error).__name__}: {error}"}))

    def reply(self, client: Client, data: bytes) -> None:
        """Answer the request that the client waits for, in one write."""
        if client.is_closed:
            return
        client.outbox += data
        client.is_busy = False
        self._send(client)

    def _send(self, client: Client) -> None:
        try:
            if client.outbox:
                sent = client.sock.send(client.outbox)
                del client.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        if client.is_last and not client.outbox and not client.is_busy:
            self._close(client)
            return
        if bool(client.outbox) != client.wants_write:
            client.wants_write = bool(client.outbox)
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_write else 0)
            self.selector.modify(client.sock, mask, client)
        if not client.is_busy and client.inbox:
            self._serve(client)

    # Requests.

    def _is_ours(self, request: Request) -> bool:
        """Whether the request comes from somebody who knows the token, where there is one."""
        if self.token is None or token.is_shown(self.token, request.headers):
            return True
        self.token = token.read(self.folder) or self.token  # it may be a new one
        return token.is_shown(self.token, request.headers)

    def _give_port(self, client: Client) -> None:
        if (self.token is None) and (found := token.read(self.folder)) is not None:
            self.token = found
        if self.token is None:
            raise BadRequest(409, "without a token nobody is let in by a port")
        if self.port is None:
            self.port = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.port.setblocking(False)
            self.selector.register(self.port, selectors.EVENT_READ, None)
        self.reply(client, json_answer(200, {"port": self.port.getsockname()[1]}))

    def _handle(self, client: Client, request: Request) -> None:
        route = (request.method, request.path)
        if not self._is_ours(request):
            client.is_last = True
            self.reply(client, json_answer(401, {"error": "this agent answers to its driver only"}))
            return
        self.rented.heard()
        if route == ("GET", "/events"):
            self._events(client, request)
        elif route == ("POST", "/commands"):
            self.fence.check(request)
            self.commands.request(client, request)
        elif route == ("POST", "/drive"):
            self._drive(client, request)
        elif route == ("GET", "/held"):
            self.keeper.ask({"held": 1}, lambda held: self._give_held(client, held), client)
        elif request.method == "GET" and request.path.startswith("/output/"):
            self.outputs.request(client, request)
        elif request.path.startswith("/kept/"):
            self.returns.request(client, request)
        elif request.path == "/blobs" or request.path.startswith("/blobs/"):
            self.pieces.request(client, request)
        elif route == ("GET", "/stats"):
            self.keeper.ask({"held": 1, "pids": 1}, lambda held: self._give_stats(client, held), client)
        elif route == ("GET", "/ping"):
            self.reply(client, json_answer(200, {"pid": os.getpid(), "version": VERSION, "stopping": self.stop}))
        elif route == ("POST", "/port"):
            self._give_port(client)
        elif request.path in ("/events", "/commands", "/drive", "/held", "/stats", "/ping", "/port"):
            raise BadRequest(405, f"{request.method} {request.path}: not this way")
        else:
            raise BadRequest(404, f"{request.path[:200]}: no such thing here")

    def _give_held(self, client: Client, held: dict[str, Any]) -> None:
        del held["tag"]
        more: dict[str, Any] = {"keeper": self.keeper.pid, **self.fence.facts()}
        more |= {"clock": processes.boot_time(), "leased": self.folders.lease.left_s}
        self.reply(client, json_answer(200, {**held, **machine.facts(), **more}))

    def _give_stats(self, client: Client, held: dict[str, Any]) -> None:
        states = list(held["held"].values())
        counts = {state: states.count(state) for state in ("running", "queued")}
        more = {"staging": self.staging.progress(), "polite": held.get("polite", {}).get("why")}
        pids = {pid: key for key, pid in held.get("pids", {}).items()}  # a keeper of an older agent tells none
        used = {pids[pid]: [round(use.cpu_s, 2), use.memory] for pid, use in processes.use(pids).items()}
        self.reply(client, json_answer(200, {**machine.stats(self.folder), **counts, **more, "tasks": used}))

    def _drive(self, client: Client, request: Request) -> None:
        try:
            said = json.loads(request.body)
            if not isinstance(said, dict):
                raise ValueError("not an object")
            self.fence.enter(said)
        except Refused as refused:
            raise Conflict(str(refused), refused.facts) from None
        except (ValueError, RecursionError) as error:
            raise BadRequest(400, str(error)) from None
        self.reply(client, json_answer(200, {"ok": True, **self.fence.facts()}))
        self._send_away()

    def _send_away(self) -> None:
        """Whoever drove until now, and waits for news, hears at once that its time is over."""
        waiting, self.polls = self.polls, []
        for poll in waiting:
            try:
                self.fence.check(poll.request)
                self.polls.append(poll)
            except Conflict as refused:
                self.reply(poll.client, json_answer(409, {"error": str(refused), **refused.facts}))

    def _events(self, client: Client, request: Request) -> None:
        self.fence.check(request)
        journal, offset = request.query.get("journal", ""), request.offset("from")
        wait = request.number("wait", 0.0, WAIT_LIMIT_S)
        until = time.monotonic() + wait

        def begin() -> None:
            try:
                start = self.journal.begin(journal, offset, self.rung)
            except FileNotFoundError:
                self.journal.look_again()
                start = self.journal.begin(journal, offset, self.rung)
            if start == offset and journal == self.journal.id:
                self._acknowledge(offset)
                if start == self.rung and wait:
                    self.polls.append(Poll(client, request, start, until))
                    return
            self._give_events(client, start)

        self.keeper.when_known(begin, client)

    def _acknowledge(self, offset: int) -> None:
        self.acked = max(self.acked, offset)
        if len(self.journal.segments) > 1 and self.acked >= self.journal.segments[1] > self.told_ack:
            self.told_ack = self.acked
            self.keeper.tell({"ack": self.acked})

    def _give_events(self, client: Client, start: int) -> None:
        try:
            body = self.journal.read(start, self.rung) if start < self.rung else b""
        except FileNotFoundError:  # another client has acknowledged it meanwhile
            self.journal.look_again()
            start = self.journal.segments[0]
            body = self.journal.read(start, self.rung)
        self.reply(client, answer(200, body, NDJSON, {"Scitq-Journal": self.journal.id, "Scitq-From": start}))

    def _answer_polls(self, now: float) -> None:
        """What was rung for goes out; a new poll that came before the next ring waits for it."""
        waiting, self.polls = self.polls, []
        for poll in waiting:
            if poll.client.is_closed:
                continue
            if poll.offset < self.rung or now >= poll.until:
                self._give_events(poll.client, poll.offset)
            else:
                self.polls.append(poll)

    def journal_is_new(self) -> None:
        """Another journal took the place of the one that polls wait for: their drivers must begin again."""
        waiting, self.polls = self.polls, []
        self.acked = self.told_ack = 0
        for poll in waiting:
            self._give_events(poll.client, self.journal.segments[0])


def main(folder: str, linger: float, slots: int | None, keeper_command: list[str]) -> int:
    """Run the agent of this root; 0 when another one already does."""
    folder = os.path.realpath(folder)
    os.umask(0o077)
    root.make(folder)
    deadline = time.monotonic() + 10
    while (held := root.lock(folder, "agent.lock")) is None:
        # Another one: it answers, or it is about to end.
        with contextlib.suppress(OSError), address.connect(folder, "agent.sock") as other:
            other.settimeout(2)
            other.sendall(f"GET /ping HTTP/1.1\r\n{token.header(token.read(folder))}Connection: close\r\n\r\n".encode())
            if b'"stopping": null' in other.recv(4096):
                return 0
        if time.monotonic() > deadline:
            root.say(folder, "agent", "another agent has this folder but does not answer; see the pid in agent.lock")
            return 75
        time.sleep(0.01)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        if ended := strays.end(folder):
            root.say(folder, "agent", f"ended {ended} programs that an agent that was killed had left behind")
        agent = Agent(folder, linger, slots, keeper_command, held)
        root.say(folder, "agent", f"started, version {VERSION}, python {sys.version.split()[0]}")
        agent.folders.empty_trash()
        try:
            agent.run()
        finally:
            agent.folders.close(CLOSE_S)
            agent.staging.end()
            if agent.is_home():
                strays.end(folder)  # what did not listen
    except Exception:
        root.say(folder, "agent", "died: " + traceback.format_exc())
        return 70
    if agent.is_home():
        root.say(folder, "agent", "ended")
    os.close(held)
    return 0
