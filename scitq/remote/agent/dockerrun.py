"""One container of a Docker daemon, from `create` to its exit code, whatever becomes of the daemon meanwhile.

The daemon's program is called once, for `create`: it knows what all the options mean. Everything else goes through its
socket, attached before the start, so that the first byte is not missed. When the connection breaks while the container
lives on (live-restore), its log says the rest. A daemon that does not keep its containers takes them with it when it
ends, with an exit code that says nothing of the task: so an end during which the daemon itself ended is `unknown`,
unless that daemon keeps its containers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any

from scitq.remote.agent.container import CONT, KILL, PAUSE_S, STOP, TERM, Ended, Process
from scitq.remote.agent.dockerapi import Api, Away, Frames, Open
from scitq.remote.agent.engines import cpu_shares

UNSEEN = 255
"""What a daemon says of a container that ended while no daemon was there, when nobody else saw it either."""
_KILLED = (128 + TERM, 128 + KILL, UNSEEN)


class DockerRun(Process):
    """A container of a Docker daemon."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__(plan)
        self.api = Api(plan["socket"])
        self.place = f"/containers/{self.name}"
        self.watched: socket.socket | None = None
        """A connection that stands for the daemon's life: nothing ever comes over it but its end."""
        self.has_daemon_ended = False

    def follow(self) -> None:
        """Make and start it, or find it; then until its end."""
        if self.plan["adopt"]:
            self.seen()
        else:
            self.create()
            self.start()
        while True:
            if self.judge(self.patiently(self.look, Away)):
                self.is_running = True
                self.read_log()
            else:
                self.start()

    def watch(self) -> None:
        """Have a connection that ends when the daemon does."""
        if self.watched is None:
            nothing = "%7B%22container%22%3A%5B%22scitq-nothing%22%5D%7D"
            self.watched = self.api.open("GET", f"/events?filters={nothing}").sock

    def look(self) -> dict[str, Any] | None:
        """What the daemon says of the container: None when it knows none. Notes whether it is still the same daemon."""
        if self.watched is not None and _is_over(self.watched):
            self.watched.close()
            self.watched = None
            self.has_daemon_ended = True
        self.watch()
        answer = self.api.ask("GET", f"{self.place}/json")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Away(answer.message)
        assert self.watched is not None
        if _is_over(self.watched):
            raise Away("the daemon is ending")  # what it says now is not its last word
        state: dict[str, Any] = answer.said["State"]
        return state

    def start(self) -> None:
        """Attach, start, and read until it has ended or the daemon has gone."""
        if self.ending is not None:
            raise Ended(None, sig=self.ending)
        try:
            self.watch()
            stream = self.api.open("POST", f"{self.place}/attach?stream=1&stdout=1&stderr=1")
            if stream.status != 200:
                self.refused(stream.whole().message)
            with stream.sock:
                answer = self.api.ask("POST", f"{self.place}/start")
                if answer.status not in (204, 304):
                    self.refused(answer.message)
                self.is_running = True
                self.pump(stream)
            self.wait()
        except Away:
            return

    def wait(self) -> None:
        """It may have closed its streams long before it ends."""
        with self.api.open("POST", f"{self.place}/wait").sock as sock:
            self.until(sock)

    def read_log(self) -> None:
        """What its log has and the streams of the slot have not, until it ends."""
        try:
            self.again()
            stream = self.api.open("GET", f"{self.place}/logs?follow=1&stdout=1&stderr=1")
            with stream.sock:
                if stream.status == 200:
                    self.pump(stream)
                else:
                    stream.whole()
            self.wait()
        except Away:
            time.sleep(PAUSE_S)

    def rest_of_log(self) -> None:
        """The same of a container that has ended."""

        def read() -> None:
            self.again()
            stream = self.api.open("GET", f"{self.place}/logs?stdout=1&stderr=1")
            with stream.sock:
                if stream.status == 200:
                    self.pump(stream)
                else:
                    stream.whole()

        self.patiently(read, Away)

    def pump(self, stream: Open) -> None:
        """Bring what comes into the slot, until the connection ends."""
        frames = Frames()
        data: bytes | None = stream.rest
        while data is not None:
            for number, piece in frames.feed(data):
                self.write(2 if number == 2 else 1, piece)
            data = self.more(stream.sock)

    def until(self, sock: socket.socket) -> None:
        """Until the daemon answers there, or is gone."""
        while self.more(sock):
            pass

    def more(self, sock: socket.socket) -> bytes | None:
        """What comes next; None at the end. Signals go on to the container meanwhile."""
        sock.settimeout(None)
        while True:
            self.pass_on()
            ready, _, _ = select.select([sock.fileno(), self.wake], [], [], self.patience())
            if self.wake in ready:
                self.awake()
            if sock.fileno() in ready:
                try:
                    return sock.recv(1 << 16) or None
                except OSError:
                    return None

    def signal(self, number: int) -> bool:
        try:
            if number in (STOP, CONT):
                what = "pause" if number == STOP else "unpause"
                return self.api.ask("POST", f"{self.place}/{what}").status == 204
            if number in (TERM, KILL):
                self.api.ask("POST", f"{self.place}/unpause")  # a paused one hears nothing
            answer = self.api.ask("POST", f"{self.place}/kill?signal={number}")
            return answer.status in (204, 404, 409)  # 409: it does not run any more
        except Away:
            return False

    def stand_back(self, nice: int) -> None:
        with contextlib.suppress(Away):
            self.api.ask("POST", f"{self.place}/update", {"CpuShares": cpu_shares(nice)})

    def judge(self, state: dict[str, Any] | None) -> bool:
        """Raise Ended when it is over; else say whether it has been started."""
        if state is None:
            raise Ended(None, "unknown", "its container is gone, and not by scitq: how it ended was not seen")
        if state["Status"] == "created":
            if state["ExitCode"]:
                self.refused(state["Error"])
            return False
        if state["Running"] or state["Restarting"]:
            return True
        code = int(state["ExitCode"])
        if self.has_daemon_ended or self.plan["adopt"]:
            self.rest_of_log()
        if state["OOMKilled"]:
            raise Ended(code, "memory", self.shortage())
        if self.ending is None and (self.has_daemon_ended or (self.plan["adopt"] and code in _KILLED)):
            info = self.patiently(lambda: self.api.ask("GET", "/info"), Away)
            if not info.said.get("LiveRestoreEnabled") or code == UNSEEN:
                raise Ended(None, "unknown", "the Docker daemon ended while it ran, and took the container with it")
        raise Ended(code)


def _is_over(sock: socket.socket) -> bool:
    """Whether the other end has closed it."""
    try:
        return bool(select.select([sock], [], [], 0)[0]) and not sock.recv(1 << 16)
    except OSError:
        return True
