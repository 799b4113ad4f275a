"""A few requests to a Docker daemon over its Unix socket: just enough to follow one container, and light enough for that.

HTTP/1.0, so that an answer ends where its connection ends and nothing comes in chunks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from scitq.remote.agent import address

ASK_S = 60.0
"""How long one question may take; whoever waits longer is told that the daemon is away, and may ask again."""


class Away(Exception):
    """No daemon answers there, or it went while it answered."""


class Answer(NamedTuple):
    """A whole answer: `said` is its JSON, None when it has none."""

    status: int
    said: Any

    @property
    def message(self) -> str:
        """What the daemon says went wrong."""
        found = self.said.get("message") if isinstance(self.said, dict) else None
        return str(found or f"it answered {self.status}")


class Api:
    """The daemon behind one socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, is_long: bool = False
    ) -> Open:
        """Ask, and read the head of the answer; what follows is the caller's to read."""
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.0", "Host: docker", f"Content-Length: {len(data)}"]
        head += ["Content-Type: application/json"] if data else []
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            sock = address.connect(os.path.dirname(self.path) or "/", os.path.basename(self.path))
        except OSError as error:
            raise Away(f"{self.path}: {error.strerror}") from error
        try:
            sock.settimeout(ASK_S)
            sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
            if is_long:
                sock.settimeout(None)
            return Open(sock)
        except OSError as error:
            sock.close()
            raise Away(f"{self.path}: {error}") from error
        except BaseException:
            sock.close()
            raise

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Ask, and read the whole answer."""
        answer = self.open(method, path, body, headers)
        with answer.sock:
            return answer.whole()


class Open:
    """An answer whose head has been read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(1 << 16)
            if not more:
                raise Away("the daemon closed the connection")
            data += more
        head, _, self.rest = data.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])

    def whole(self) -> Answer:
        """All of it, as JSON."""
        data = self.rest
        try:
            while more := self.sock.recv(1 << 16):
                data += more
        except OSError as error:
            raise Away(f"the daemon does not answer: {error}") from error
        try:
            return Answer(self.status, json.loads(data) if data.strip() else None)
        except ValueError as error:
            raise Away(f"the daemon broke off: {error}") from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """Objects, one a line, as they come."""
        data = self.rest
        while True:
            *whole, data = data.split(b"\n")
            for line in whole:
                if line.strip():
                    try:
                        said = json.loads(line)
                    except ValueError as error:
                        raise Away(f"the daemon says what makes no sense: {error}") from error
                    yield said
            try:
                more = self.sock.recv(1 << 16)
            except OSError as error:
                raise Away(f"the daemon does not answer: {error}") from error
            if not more:
                return
            data += more


class Frames:
    """The two streams of a container, taken apart: each piece has a head of eight bytes, the stream first, its size last."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(1 or 2, bytes), also of pieces that have not come whole."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                yield self._stream, piece
                continue
            piece = data[at : at + 8 - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == 8:
                self._stream, self._left = self._head[0], int.from_bytes(self._head[4:], "big")
                self._head = b""
