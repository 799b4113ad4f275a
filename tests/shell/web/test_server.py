"""`scitq web` itself: where it listens, how it lets a browser in, what it survives, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.shell.web.server import loopback, unix_socket
from tests.shell.web.conftest import serve

WAIT_S = 120.0


class Served:
    """Pages of a file, each with what it said first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str, **environ: str) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
        """One more, when it listens."""
        process = serve(*words, cwd=self.folder, env=environ)
        self._started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> bytes:
        """Ask it to end; it must, well. What it said besides."""
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors
        return errors

    def close(self) -> None:
        """Whatever a test that failed has left."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """In a folder with a state file."""
    Engine(tmp_path / "lab.scitq", drive=False).close()
    found = Served(tmp_path)
    yield found
    found.close()


def ask(where: socket.socket, text: str) -> str:
    """A request as it is, and the whole answer."""
    where.settimeout(WAIT_S)
    where.sendall(text.encode())
    found = b""
    while piece := where.recv(65536):
        found += piece
    return found.decode()


def get(port: object, path: str, *more: str) -> str:
    """A request by hand."""
    with socket.create_connection(("127.0.0.1", int(str(port))), WAIT_S) as where:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *more]
        return ask(where, "\r\n".join(lines) + "\r\n\r\n")


def entered(port: object, url: object) -> str:
    """The header with the cookie that a link gives."""
    answer = get(port, str(url).partition(str(port))[2])
    found = re.search(r"set-cookie: ([^;]+); HttpOnly; SameSite=Strict; Path=/", answer)
    assert found is not None, answer
    return f"Cookie: {found.group(1)}"


def test_it_listens_on_loopback_tells_of_changes_and_ends_with_its_streams(served: Served) -> None:
    process, told = served.start()
    cookie = entered(told["port"], told["url"])
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    [line] = [line for line in listening.splitlines() if f"pid={process.pid}," in line]
    assert line.split()[3] == f"127.0.0.1:{told['port']}"
    with socket.create_connection(("127.0.0.1", int(str(told["port"]))), WAIT_S) as stream:
        stream.sendall(
            f"GET /live?topics=tasks,jobs HTTP/1.1\r\nHost: 127.0.0.1:{told['port']}\r\n{cookie}\r\n\r\n".encode()
        )
        found, deadline = b"", time.monotonic() + WAIT_S
        stream.settimeout(2)
        with Engine(served.folder / "lab.scitq", drive=False) as engine:
            while b'event: change\ndata: ["tasks"]' not in found:
                assert time.monotonic() < deadline, found
                engine.submit("true")  # the stream may have begun to listen only now
                with contextlib.suppress(TimeoutError):
                    found += stream.recv(65536)
        assert b"event: now" in found and b"text/event-stream" in found

        served.end(process, signal.SIGTERM)

        stream.settimeout(WAIT_S)
        while stream.recv(65536):
            pass


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    process, told = served.start()
    code = subprocess.run(
        [sys.executable, "-m", "scitq", "web", "--port", str(told["port"])], cwd=served.folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}, timeout=WAIT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert code.returncode == 1 and f"port {told['port']}: Address already in use" in code.stderr and code.stdout == ""
    again, more = served.start(SCITQ_WEB_PORT=str(told["port"]))  # of the settings: one may have several pages
    assert more["port"] != told["port"]
    assert b"Address already in use" in served.end(again)
    served.end(process)


def test_a_unix_socket_is_for_its_user_alone(served: Served) -> None:
    path = served.folder / "own" / "web.sock"
    process, told = served.start("--socket", str(path))
    assert told["port"] is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    token = str(told["url"]).partition("token=")[2]
    for host, code in (("localhost:8080", "200"), ("evil.example", "421")):
        with socket.socket(socket.AF_UNIX) as where:
            where.connect(str(path))
            answer = ask(where, f"GET /enter?token={token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert answer.split()[1] == code
        assert ("set-cookie" in answer) == (code == "200")
    with pytest.raises(BadInput, match="somebody listens there already"), unix_socket(path):
        pass

    process.kill()
    process.communicate()
    assert path.exists()
    again, _ = served.start("--socket", str(path))
    served.end(again)

    assert not path.exists()
    path.parent.chmod(0o755)
    with pytest.raises(BadInput, match="others may enter this folder"), unix_socket(path):
        pass
    path.parent.chmod(0o700)
    path.write_text("mine")
    with pytest.raises(BadInput, match="no socket"), unix_socket(path):
        pass
    with pytest.raises(BadInput, match="--port takes"):
        loopback(70_000)
    both = serve("--socket", str(path), "--port", "1", cwd=served.folder)
    _, errors = both.communicate(timeout=WAIT_S)
    assert both.returncode == 1 and b"not both" in errors and b"Traceback" not in errors


def test_the_browser_comes_by_a_file_that_only_its_user_reads(served: Served) -> None:
    """Everybody on a machine sees command lines: the link is on none."""
    seen = served.folder / "seen"
    browser = served.folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}.part\nmv {seen}.part {seen}\n')
    browser.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "scitq", "web"], cwd=served.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "BROWSER": str(browser)},
    )  # fmt: skip
    served._started.append(process)
    assert process.stdout is not None
    link = process.stdout.readline().decode().strip()
    until(seen.exists)
    [address] = seen.read_text().split()
    file = Path(address.removeprefix("file://"))
    token = link.partition("token=")[2]
    assert token and token not in address
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and token in file.read_text()

    port = int(link.partition("127.0.0.1:")[2].partition("/")[0])
    entered(port, link)

    assert not file.exists()
    assert get(port, link.partition(str(port))[2]).split()[1] == "401"
    served.end(process)


def test_what_a_page_that_was_killed_has_left_is_taken_away(served: Served) -> None:
    with Engine(served.folder / "lab.scitq", drive=False) as engine:
        side = engine.side
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    old, other = side / f"open-{dead.stdout.strip()}.html", side / f"open-{os.getpid()}.html"
    for file in (old, other):
        file.write_text("x")
    process = subprocess.Popen(
        [sys.executable, "-m", "scitq", "web"], cwd=served.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "BROWSER": "true"},
    )  # fmt: skip
    served._started.append(process)
    until(lambda: not old.exists())
    assert other.exists()  # of one that is served now
    until(lambda: (side / f"open-{process.pid}.html").exists())
    assert process.stdout is not None and process.stdout.readline()
    served.end(process)
    assert not (side / f"open-{process.pid}.html").exists()


def test_slow_and_broken_requests_hold_up_nobody(served: Served) -> None:
    process, told = served.start()
    cookie = entered(told["port"], told["url"])
    slow = [socket.create_connection(("127.0.0.1", int(str(told["port"]))), WAIT_S) for _ in range(40)]
    for number, one in enumerate(slow):
        head = f"POST /tasks/all HTTP/1.1\r\nHost: 127.0.0.1:{told['port']}\r\n{cookie}\r\nOrigin: http://127.0.0.1:{told['port']}\r\n"
        one.sendall(
            (
                head
                if number % 2
                else head + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\na="
            ).encode()
        )

    assert get(told["port"], "/tasks", cookie).startswith("HTTP/1.1 200")

    with socket.create_connection(("127.0.0.1", int(str(told["port"]))), WAIT_S) as where:
        assert ask(where, "GARBAGE\r\n\r\n").startswith("HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", int(str(told["port"]))), WAIT_S) as where:
        assert " 4" in ask(where, "GET / HTTP/1.1\r\n" + "x: " + "y" * 100_000 + "\r\n\r\n")[:12]
    for one in slow:
        one.close()
    assert get(told["port"], "/", cookie).startswith("HTTP/1.1 200")
    served.end(process)


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
