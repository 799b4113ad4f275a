"""A small client for tests: HTTP over the agent's socket, written by hand, and a driver's stand-in over it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scitq.remote.agent import address

DEADLINE_S = 30.0


class Reply(NamedTuple):
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """One connection to the agent of a root folder."""

    def __init__(self, root: Path) -> None:
        self.sock = address.connect(str(root), "agent.sock")
        self.sock.settimeout(DEADLINE_S)
        self.rest = b""

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        head = [f"{method} {path} HTTP/1.1", "Host: agent", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def receive(self) -> Reply:
        data = self.rest
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        parts, size, length = [data], len(data), int(headers["content-length"])
        while size < length:
            parts.append(self._more())
            size += len(parts[-1])
        data = b"".join(parts)
        self.rest = data[length:]
        return Reply(int(first.split(" ")[1]), headers, data[:length])

    def _more(self) -> bytes:
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError("the agent closed the connection")
        return data

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        self.send(method, path, body, headers)
        return self.receive()


class Driver:
    """Sends commands and follows events, as the engine's driver does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.http: Http | None = None
        self.journal = ""
        self.offset = 0
        self.lines: list[dict[str, Any]] = []
        self.exits: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        if self.http is not None:
            self.http.sock.close()
            self.http = None

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        if self.http is None:
            self.http = Http(self.root)
        try:
            return self.http.ask(method, path, body, headers)
        except OSError:
            self.close()
            raise

    def say(self, *commands: dict[str, Any]) -> None:
        reply = self.ask("POST", "/commands", ndjson(commands))
        assert reply.status == 200, reply

    def held(self) -> dict[str, Any]:
        held: dict[str, Any] = self.ask("GET", "/held").json()
        return held

    def poll(self, wait: float = 10) -> list[dict[str, Any]]:
        reply = self.ask("GET", f"/events?journal={self.journal}&from={self.offset}&wait={wait}")
        assert reply.status == 200, reply
        self.journal, start = reply.headers["scitq-journal"], int(reply.headers["scitq-from"])
        self.offset = start + len(reply.body)
        lines = [json.loads(line) for line in reply.body.splitlines()]
        self.lines += lines
        for line in lines:
            if line["k"] == "exit":
                self.exits[str(line["id"])] = line
        return lines

    def until(self, done: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := done()):
            assert time.monotonic() < deadline, f"waited in vain; last events: {self.lines[-5:]}"
            self.poll(0.25)
        return found

    def exit_of(self, execution: object) -> dict[str, Any]:
        """The exit line of an execution, waited for."""
        exit_line: dict[str, Any] = self.until(lambda: self.exits.get(str(execution)))
        return exit_line

    def seen(self, kind: str, execution: object) -> dict[str, Any]:
        """The first line of a kind about an execution, waited for."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.lines if line["k"] == kind and line.get("id") == execution), None)

        line: dict[str, Any] = self.until(find)
        return line

    def run(self, execution: object, *argv: str, **more: Any) -> dict[str, Any]:
        """Order a program and wait for its exit line."""
        self.say({"order": execution, "task": execution, "argv": list(argv), **more})
        return self.exit_of(execution)

    def script(self, execution: object, text: str, **more: Any) -> dict[str, Any]:
        """Order a script and wait for its exit line."""
        self.say({"order": execution, "task": execution, "script": text, **more})
        return self.exit_of(execution)

    def wait_for(self, execution: object, text: bytes) -> None:
        """Until a running execution has written that to its output; an end before that fails the test."""
        deadline = time.monotonic() + 2 * DEADLINE_S
        while text not in (body := self.ask("GET", f"/output/{execution}/out?wait=1").body):
            self.poll(0)
            assert str(execution) not in self.exits, f"it ended: {self.exits[str(execution)]}"
            assert time.monotonic() < deadline, f"waited in vain for {text!r}, there is {body[-200:]!r}"
            time.sleep(0.01)

    def output(self, execution: object, stream: str = "out") -> bytes:
        """Every byte of a stream, wherever it is."""
        line = self.exits.get(str(execution))
        if line is not None and line["o" if stream == "out" else "e"] is not None:
            text: str = line["o" if stream == "out" else "e"]
            return text.encode("latin-1")
        data = b""
        while True:
            reply = self.ask("GET", f"/output/{execution}/{stream}?from={len(data)}")
            assert reply.status == 200, reply
            data += reply.body
            if len(data) >= int(reply.headers["scitq-size"]):
                return data


def ndjson(commands: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(command) + "\n" for command in commands).encode()


def below(folder: Path) -> list[Path]:
    """Everything in a folder, as far as it stands still: an agent may be emptying its trash meanwhile."""
    return [Path(top, name) for top, folders, names in os.walk(folder) for name in (*folders, *names)]


def content(path: Path) -> bytes:
    """What a file says; nothing if it is none, or gone."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""
