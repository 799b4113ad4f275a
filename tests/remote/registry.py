"""A registry of images in this process, which knows one image and lets in whom it is told to: what is asked of it is kept."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIGEST = "sha256:" + "5e" * 32
PATH = "/v2/lab/tool/manifests/1.0"


class Registry(ThreadingHTTPServer):
    """`mode`: open, basic, bearer, or busy; `user` and `secret` are let in."""

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.user, self.secret = "ann", "s3cret:x"
        self.says_digest = True
        self.realm = f"http://{self.host}/token?account=a"
        self.asked: list[tuple[str, str, str]] = []

    @property
    def host(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        lab = self.server
        permit = self.headers.get("Authorization", "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        lab.asked.append((self.command, self.path, permit or body))
        basic = "Basic " + base64.b64encode(f"{lab.user}:{lab.secret}".encode()).decode()
        if self.path.startswith("/token"):
            asked = urllib.parse.parse_qs(body or self.path.partition("?")[2])
            good = permit == basic or asked.get("refresh_token") == ["long-lived"]
            right = asked.get("scope") == ["repository:lab/tool:pull"] and asked.get("service") == ["the lab"]
            return self._answer(200 if good and right else 401, json.dumps({"token": "t0ken"}).encode())
        wanted = {"open": None, "busy": None, "basic": basic, "bearer": "Bearer t0ken"}[lab.mode]
        if lab.mode == "busy":
            return self._answer(429)
        if wanted is not None and permit != wanted:
            told = {"basic": 'Basic realm="lab"', "bearer": f'Bearer realm="{lab.realm}",service="the lab"'}[lab.mode]
            return self._answer(401, WWW_Authenticate=told)
        if self.path != PATH:
            return self._answer(404)
        return self._answer(200, b"{}", **({"Docker_Content_Digest": DIGEST} if lab.says_digest else {}))

    do_HEAD = do_GET = do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@contextmanager
def registry(mode: str = "open") -> Iterator[Registry]:
    """One of these, as long as it is needed."""
    with Registry(mode) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
