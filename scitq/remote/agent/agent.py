"""The agent: answers the driver over HTTP on `agent.sock`, hands its orders to the keeper, reads the keeper's journal.

It holds nothing that is not on disk or repeated by its peers, so it may be killed at any instruction, restarted, or
replaced by a newer one while tasks run. Output by offset is `outputs`, delivery is `collect`.

    POST /commands   a JSON object a line: order, cancel, slots, signal, forget, stop, remotes,
                         registries. 200: all is on disk
    GET /events      ?journal=ID&from=N&wait=S: lines from N on, which acknowledges everything before N
    GET /held        what is not over, as of the offset `end`; facts about the machine
    GET /output/E/out|err   ?from=N&max=M&wait=S: bytes of a stream; Scitq-Size, Scitq-Ended
    GET /stats, GET /ping   load, CPU, memory, disk, tasks; whether the agent lives

A request with a Scitq-Epoch below the highest that was ever seen is answered 409: its driver has been replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from scitq.remote.agent import VERSION, address, machine, root, strays
from scitq.remote.agent.folders import Folders
from scitq.remote.agent.http import BadRequest, Client, Request, answer, json_answer
from scitq.remote.agent.keeperlink import KeeperLink
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.outputs import Outputs
from scitq.remote.agent.reader import JournalReader
from scitq.remote.agent.remotes import BadRemotes
from scitq.remote.agent.staging import Staging

WAIT_LIMIT_S = 3600.0
NDJSON = "application/x-ndjson"
RECEIVE_BYTES = 1 << 16  # larger ones would be mapped and unmapped for each of the many small messages
CLOSE_S = 10.0
"""How long the agent waits at its end for transfers to notice that they were stopped."""


class Poll:
    """A long poll for events."""

    __slots__ = ("client", "offset", "until")

    def __init__(self, client: Client, offset: int, until: float) -> None:
        self.client = client
        self.offset = offset
        self.until = until


class Agent:
    """The loop, and what each request means."""

    def __init__(self, folder: str, linger: float, slots: int | None, keeper_command: list[str]) -> None:
        self.folder = folder
        self.linger = linger
        self.selector = selectors.DefaultSelector()
        self.listener = self._listen()
        self.clients: set[Client] = set()
        self.polls: list[Poll] = []
        self.journal = JournalReader(folder)
        self.rung = 0
        self.acked = 0
        self.told_ack = 0
        self.epoch = self._read_epoch()
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
        self.outputs = Outputs(self)
        self.keeper = KeeperLink(self, keeper_command, slots)
        self.has_ended = False

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
                if key.fileobj is self.listener:
                    self._accept()
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
            self.staging.attend(now)
            self._linger(now)
            self.keeper.send()

    def _patience(self) -> float | None:
        due = [poll.until for poll in self.polls]
        due.extend(self.outputs.due())
        due.extend(self.staging.due())
        if self.keeper.retry_at is not None:
            due.append(self.keeper.retry_at)
        if self.lone_since is not None:
            due.append(self.lone_since + self.linger)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _linger(self, now: float) -> None:
        """Alone for long enough: ask whether anything is held; if not, take the keeper and go."""
        if self.lone_since is None or now < self.lone_since + self.linger or self.is_leaving:
            return
        self.lone_since = now  # look again after as long

        def told(held: dict[str, Any]) -> None:
            is_idle = not held["held"] and not self.folders.collecting
            if self.clients or not is_idle:
                return
            if max(self.acked, held["acked"]) >= held["last_exit"] or not os.path.exists(self.folder):
                self.is_leaving = True
                self.keeper.tell({"stop": "when_idle", "acked": self.acked})

        self.keeper.ask({"held": 1}, told)

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
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, "agent.sock"))
        self._accept()
        if not self.clients:
            return True
        self.selector.unregister(self.listener)
        while True:  # all who are in the queue of the old socket
            before = len(self.clients)
            self._accept()
            if len(self.clients) == before:
                break
        self.listener.close()
        self.listener = self._listen()
        return False

    def later(self, call: Callable[[], None]) -> None:
        """From another thread: have the loop call this."""
        self.results.append(call)
        with contextlib.suppress(BlockingIOError):
            self.waker.send(b".")

    # Connections.

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
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
                self.reply(client, json_answer(error.status, {"error": str(error)}))
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

    def _handle(self, client: Client, request: Request) -> None:
        route = (request.method, request.path)
        if route == ("GET", "/events"):
            self._events(client, request)
        elif route == ("POST", "/commands"):
            self._commands(client, request)
        elif route == ("GET", "/held"):
            self.keeper.ask({"held": 1}, lambda held: self._give_held(client, held), client)
        elif request.method == "GET" and request.path.startswith("/output/"):
            self.outputs.request(client, request)
        elif route == ("GET", "/stats"):
            self.keeper.ask({"held": 1}, lambda held: self._give_stats(client, held), client)
        elif route == ("GET", "/ping"):
            self.reply(client, json_answer(200, {"pid": os.getpid(), "version": VERSION, "stopping": self.stop}))
        elif request.path in ("/events", "/commands", "/held", "/stats", "/ping"):
            raise BadRequest(405, f"{request.method} {request.path}: not this way")
        else:
            raise BadRequest(404, f"{request.path[:200]}: no such thing here")

    def _give_held(self, client: Client, held: dict[str, Any]) -> None:
        del held["tag"]
        self.reply(
            client, json_answer(200, {**held, **machine.facts(), "keeper": self.keeper.pid, "epoch": self.epoch})
        )

    def _give_stats(self, client: Client, held: dict[str, Any]) -> None:
        states = list(held["held"].values())
        counts = {state: states.count(state) for state in ("running", "queued")}
        staging = {"staging": self.staging.progress()}
        self.reply(client, json_answer(200, {**machine.stats(self.folder), **counts, **staging}))

    def _check_epoch(self, request: Request) -> None:
        text = request.headers.get("scitq-epoch")
        if text is None:
            return
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequest(400, "Scitq-Epoch must be a number")
        epoch = int(text)
        if epoch < self.epoch:
            raise BadRequest(409, f"epoch {epoch} is over: the driver of epoch {self.epoch} has taken this worker over")
        if epoch > self.epoch:
            path = os.path.join(self.folder, "epoch")
            with open(path + ".new", "w", encoding="ascii") as file:
                file.write(f"{epoch}\n")
            os.rename(path + ".new", path)
            self.epoch = epoch

    def _read_epoch(self) -> int:
        try:
            with open(os.path.join(self.folder, "epoch"), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    def _commands(self, client: Client, request: Request) -> None:
        self._check_epoch(request)
        handed: list[bytes] = []
        forgets: list[tuple[list[str], bool]] = []
        stop = None
        for number, line, said in _commands_of(request.body):
            if "forget" in said:
                try:
                    keys = [key_of(each) for each in said["forget"]]
                except (ValueError, TypeError) as error:
                    raise BadRequest(400, f"line {number}: forget needs a list of executions: {error}") from None
                forgets.append((keys, bool(said.get("keep_work"))))
                continue
            if "remotes" in said and "order" not in said:
                try:
                    self.staging.take_remotes(said["remotes"])
                except BadRemotes as error:
                    raise BadRequest(400, f"line {number}: {error}") from None
                continue  # for this process only: it holds secrets, which nobody writes down
            if "registries" in said and "order" not in said:
                try:
                    self.staging.take_registries(said["registries"])
                except BadRemotes as error:
                    raise BadRequest(400, f"line {number}: {error}") from None
                continue
            if said.get("stop") in ("now", "when_idle"):
                stop = said["stop"]
            handed.append(line)
        for keys, is_work_kept in forgets:
            for key in keys:
                self.folders.forget(key, is_work_kept)
        if forgets:
            self.folders.empty_trash()
        done = json_answer(200, {"ok": True})
        if not handed:
            self.reply(client, done)
            return
        if stop:
            self.stop = stop
        self.keeper.hand(b"\n".join(handed) + b"\n", lambda: self.reply(client, done), client)

    def _events(self, client: Client, request: Request) -> None:
        self._check_epoch(request)
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
                    self.polls.append(Poll(client, start, until))
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
            other.sendall(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
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
        agent = Agent(folder, linger, slots, keeper_command)
        root.say(folder, "agent", f"started, version {VERSION}, python {sys.version.split()[0]}")
        agent.folders.empty_trash()
        try:
            agent.run()
        finally:
            agent.folders.close(CLOSE_S)
            agent.staging.end()
            strays.end(folder)  # what did not listen
    except Exception:
        root.say(folder, "agent", "died: " + traceback.format_exc())
        return 70
    root.say(folder, "agent", "ended")
    os.close(held)
    return 0
