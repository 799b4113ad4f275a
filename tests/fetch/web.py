"""A small web server for tests: Range, validators, and the faults that real servers have, on demand."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Page:
    """What the server has at a path, and how it misbehaves."""

    data: bytes
    etag: str | None = None
    modified_s: float | None = 1_700_000_000.0
    has_range: bool = True
    says_length: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # answer by answer: so many bytes of the body, then the end
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # request by request, before it is good
    stalls: list[int] = field(default_factory=list)  # answer by answer: so many bytes, then silence
    login: str | None = None


class WebServer:
    """Pages by path, and what was asked and sent."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.sent_bytes = 0
        self.at_once = self.most_at_once = 0
        self.stalled = threading.Event()  # somebody is being kept waiting
        self.release = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def add(self, path: str, data: bytes, **how: object) -> Page:
        """Put a page there; its ETag is that of its content unless said otherwise."""
        how.setdefault("etag", f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        page = self.pages[path] = Page(data, **how)  # type: ignore[arg-type]
        return page

    def secure(self, context: ssl.SSLContext) -> None:
        """From now on with TLS; the handshake is the connection's own thread's."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """As new."""
        self.release.set()
        self.pages, self.requests, self.headers, self.sent_bytes = {}, [], [], 0
        self.most_at_once = 0
        self.stalled, self.release = threading.Event(), threading.Event()

    def close(self) -> None:
        """Stop."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: WebServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        owner = self.server.owner
        with owner.lock:
            owner.at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner.at_once)
        try:
            yield
        finally:
            with owner.lock:
                owner.at_once -= 1

    def _answer(self, *, with_body: bool) -> None:
        owner = self.server.owner
        path = unquote(self.path)
        with owner.lock:
            owner.requests.append((self.command, path, self.headers.get("Range")))
            owner.headers.append(dict(self.headers.items()))
            page = owner.pages.get(path)
            status, more = page.statuses.pop(0) if page is not None and page.statuses else (200, {})
        if page is not None and page.login is not None and self.headers.get("Authorization") != page.login:
            status = 401
        if page is None or status != 200:
            self._send_head(404 if page is None else status, {**more, "Content-Length": "0"})
            return
        with self._counted():
            self._send(page, owner, with_body)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, page: Page, owner: WebServer, with_body: bool) -> None:
        begin, end, status = 0, len(page.data), 200
        headers = dict(page.headers)
        modified = formatdate(page.modified_s, usegmt=True) if page.modified_s is not None else None
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked and page.has_range and (condition is None or condition in (page.etag, modified)):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1, end) if last else end
            if begin >= len(page.data):
                self._send_head(416, {"Content-Range": f"bytes */{len(page.data)}", "Content-Length": "0"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(page.data)}"
        if page.has_range:
            headers["Accept-Ranges"] = "bytes"
        if page.etag is not None:
            headers["ETag"] = page.etag
        if modified is not None:
            headers["Last-Modified"] = modified
        if page.says_length:
            headers["Content-Length"] = str(end - begin)
        else:
            headers["Connection"] = "close"
            self.close_connection = True
        self._send_head(status, headers)
        if with_body:
            self._send_body(page, owner, page.data[begin:end])

    def _send_body(self, page: Page, owner: WebServer, body: bytes) -> None:
        with owner.lock:
            cut = page.cuts.pop(0) if page.cuts else None
            stall = page.stalls.pop(0) if page.stalls else None
        limit = min(len(body) if cut is None else cut, len(body) if stall is None else stall)
        for at in range(0, limit, 1 << 16):
            piece = body[at : min(at + (1 << 16), limit)]
            self.wfile.write(piece)
            with owner.lock:
                owner.sent_bytes += len(piece)
        if stall is not None and limit == stall:
            owner.stalled.set()
            owner.release.wait(120)
        if cut is not None or stall is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def wait_for(condition: object, patience_s: float = 60.0) -> None:
    """Until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
