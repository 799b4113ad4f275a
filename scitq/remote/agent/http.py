"""As much HTTP/1.1 as one trusted-by-nobody client on a Unix socket needs: whole requests in, whole answers out.

Chunked bodies, pipelined answers out of order, and anything about caches are not here. What a request means is `agent`.
"""

from __future__ import annotations

import json
import socket
from typing import Any

HEAD_LIMIT = 32 << 10
BODY_LIMIT = 256 << 20
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict",
            411: "Length Required", 413: "Content Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Content",
            500: "Internal Server Error", 503: "Service Unavailable", 507: "Insufficient Storage"}  # fmt: skip


class BadRequest(Exception):
    """The bytes are no request that we answer; the connection ends after saying so."""

    def __init__(self, status: int, note: str) -> None:
        super().__init__(note)
        self.status = status


class Request:
    """One whole request."""

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        path, _, query = target.partition("?")
        self.path = path
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as a JSON value."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(400, f"the body is not JSON: {error}") from None

    def number(self, name: str, default: float, high: float) -> float:
        """A number of the query, from 0 to `high`."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise BadRequest(400, f"{name} must be a number from 0")
        return min(value, high)

    def offset(self, name: str) -> int:
        """An exact byte offset of the query."""
        text = self.query.get(name, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequest(400, f"{name} must be a byte offset")
        return int(text)


class Client:
    """One connection: bytes in, requests out, one at a time."""

    __slots__ = ("inbox", "is_busy", "is_closed", "is_last", "outbox", "sock", "wants_write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.is_busy = False
        """Whether a request of it waits for its answer."""
        self.is_closed = False
        self.is_last = False
        """Whether to close after the answer."""
        self.wants_write = False

    def next_request(self) -> Request | None:
        """The next whole request, if there is one and the one before it is answered."""
        if self.is_busy:
            if len(self.inbox) > HEAD_LIMIT + BODY_LIMIT:
                raise BadRequest(413, "more requests than anybody waits for")
            return None
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            if len(self.inbox) > HEAD_LIMIT:
                raise BadRequest(413, "the head of the request is too long")
            return None
        if end > HEAD_LIMIT:
            raise BadRequest(413, "the head of the request is too long")
        first, *rest = self.inbox[:end].decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequest(400, "not an HTTP/1.1 request")
        headers = {}
        for line in rest:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest(400, "a header without a colon")
            headers[name.strip().lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise BadRequest(411, "send a Content-Length; chunked bodies are not understood")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequest(400, "Content-Length is not a number")
        if len(length) > 12 or int(length) > BODY_LIMIT:
            raise BadRequest(413, f"the body is longer than {BODY_LIMIT} bytes")
        whole = end + 4 + int(length)
        if len(self.inbox) < whole:
            return None
        body = bytes(self.inbox[end + 4 : whole])
        del self.inbox[:whole]
        self.is_busy = True
        self.is_last = headers.get("connection", "").lower() == "close"
        return Request(words[0], words[1], headers, body)


def answer(status: int, body: bytes, kind: str, headers: dict[str, Any]) -> bytes:
    """An answer in one piece: two small writes would wait for one another on the way (44 ms over SSH)."""
    head = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", f"Content-Type: {kind}"]
    head.extend(f"{name}: {value}" for name, value in headers.items())
    head.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(head).encode("latin-1", "replace") + body


def json_answer(status: int, value: Any) -> bytes:
    """An answer that is one JSON value."""
    return answer(status, json.dumps(value).encode("ascii") + b"\n", "application/json", {})
