"""The engine's side of the conversation with an agent: HTTP/1.1 requests and answers over any byte stream.

A `Stream` works in two ways: `queue`/`flush`/`read` never block, for the driver's loop; `ask` blocks, for threads that fetch.
What the requests mean is said in `remote.agent`; how the byte stream is made (Unix socket, SSH channel) is not known here.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scitq.errors import BadAnswer, LinkBroken
from scitq.remote.agent import address

_READ_BYTES = 1 << 20
_HEAD_LIMIT = 64 << 10


@dataclass(frozen=True)
class Answer:
    """An agent's answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            BadAnswer: it is not one.
        """
        try:
            value = json.loads(self.body)
        except ValueError as problem:
            raise BadAnswer(f"an agent's answer is not JSON ({problem}): {self.body[:80]!r}") from None
        if not isinstance(value, dict):
            raise BadAnswer(f"an agent's answer is not a JSON object: {self.body[:80]!r}")
        return value


class Stream:
    """One connection to an agent, requests and answers in order. `headers` go with each request; whole lines, as in `queue`."""

    def __init__(self, sock: socket.socket, headers: str = "") -> None:
        self._sock = sock
        self._headers = headers
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._timeout_s = sock.gettimeout()
        self.waiting = 0  # requests whose answer has not come

    @classmethod
    def to_socket(cls, root: Path) -> Stream:
        """Connect to the agent that lives in the folder `root` of this machine.

        Raises:
            LinkBroken: nobody listens there.
        """
        try:
            return cls(address.connect(str(root), "agent.sock"))
        except OSError as problem:
            raise LinkBroken(f"no agent listens in {root}: {problem.strerror or problem}.", root=str(root)) from problem

    def fileno(self) -> int:
        """For selectors."""
        return self._sock.fileno()

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def queue(self, method: str, target: str, body: bytes = b"", headers: str = "") -> None:
        """Add a request to what `flush` sends. `headers` are whole lines, each ending in CRLF."""
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: agent\r\n{self._headers}{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self._out.append(memoryview(head.encode() + body))
        self.waiting += 1

    def flush(self) -> bool:
        """Send what can be sent without blocking; True when nothing is left.

        Raises:
            LinkBroken: the connection ended.
        """
        self._block(0.0)
        try:
            while self._out:
                sent = self._sock.send(self._out[0])
                if sent == len(self._out[0]):
                    self._out.popleft()
                else:
                    self._out[0] = self._out[0][sent:]
        except BlockingIOError:
            return False
        except OSError as problem:
            raise LinkBroken(f"the connection to the agent ended: {problem.strerror or problem}.") from problem
        return True

    def read(self) -> list[Answer]:
        """The answers that have come, without blocking.

        Raises:
            LinkBroken: the connection ended.
            BadAnswer: what came is not HTTP.
        """
        self._block(0.0)
        try:
            while (count := self._receive()) == _READ_BYTES:
                pass
            if not count:
                raise LinkBroken("the agent closed the connection.")
        except BlockingIOError:
            pass
        except OSError as problem:
            raise LinkBroken(f"the connection to the agent ended: {problem.strerror or problem}.") from problem
        answers = []
        while (answer := self._parse()) is not None:
            answers.append(answer)
        return answers

    def ask(self, method: str, target: str, body: bytes = b"", headers: str = "", *, timeout_s: float = 30.0) -> Answer:
        """Send one request and wait for its answer.

        Raises:
            LinkBroken: the connection ended, or nothing came in time.
            BadAnswer: what came is not HTTP.
        """
        self.queue(method, target, body, headers)
        return self.receive(timeout_s=timeout_s)

    def receive(self, *, timeout_s: float = 30.0) -> Answer:
        """Send what is queued, and wait for the answer that is next.

        Raises:
            LinkBroken: the connection ended, or nothing came in time.
            BadAnswer: what came is not HTTP.
        """
        self._block(timeout_s)
        try:
            while self._out:
                self._sock.sendall(self._out.popleft())
            while (answer := self._parse()) is None:
                if not self._receive():
                    raise LinkBroken("the agent closed the connection.")
        except OSError as problem:
            raise LinkBroken(f"no answer from the agent: {problem.strerror or problem}.") from problem
        return answer

    def _block(self, timeout_s: float) -> None:
        if timeout_s != self._timeout_s:  # mostly it is: a system call saved at each turn
            self._sock.settimeout(timeout_s)
            self._timeout_s = timeout_s

    def _receive(self) -> int:
        piece = self._sock.recv(_READ_BYTES)
        self._in += piece
        return len(piece)

    def _parse(self) -> Answer | None:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            if len(self._in) > _HEAD_LIMIT:
                raise BadAnswer(f"an agent's answer has no end of headers: {bytes(self._in[:80])!r}")
            return None
        lines = bytes(self._in[:end]).decode("latin-1").split("\r\n")
        try:
            version, status, *_ = lines[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            length, code = int(headers["content-length"]), int(status)
            if not version.startswith("HTTP/1.") or length < 0:
                raise ValueError(version)
        except (ValueError, KeyError):
            raise BadAnswer(f"an agent's answer makes no sense: {bytes(self._in[:80])!r}") from None
        total = end + 4 + length
        if len(self._in) < total:
            return None
        body = bytes(self._in[end + 4 : total])
        del self._in[:total]
        self.waiting -= 1
        return Answer(code, headers, body)
