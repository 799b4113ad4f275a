"""Starting and stopping the agent of a root folder, on the machine where it lives: `agent.pyz ensure|stop|remove`.

The local worker's is started from `remote.local`, another host's over SSH; the agent itself is `agent`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scitq.errors import AgentFailed
from scitq.remote.agent import VERSION, address, processes, root, token

DEADLINE_S = 10.0
FAR_S = 60.0
"""The same on another host: nobody can say how busy it is."""
AGAIN_S = 1.0
"""After this long without an agent that even holds its lock, another one is started."""
STOP_S = 30.0


def ensure(place: str, program: Callable[[], Sequence[str]], linger: float, patience: float | None = None) -> None:
    """Start the agent of this root folder unless one answers there. Harmless to repeat, also at the same time.

    One that speaks another version is ended, wherever it is; its keeper and its tasks do not notice.

    `program` tells how Python and the bundle are started; ` agent --root … --linger …` is added to it.
    Raises AgentFailed with the last lines of its log when it does not answer within `patience` seconds (ten).
    """
    if (present := _present(place)) is not None:
        if present.get("version") == VERSION:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(present["pid"]), signal.SIGKILL)
    try:
        root.make(place)
    except OSError as error:
        raise AgentFailed(f"{place}: the worker's folder cannot be made: {error.strerror}", folder=place) from error
    words = [*program(), "agent", "--root", place, "--linger", f"{linger:g}"]
    started = _start(place, words)
    deadline, pause = time.monotonic() + (patience or DEADLINE_S), 0.002
    again = time.monotonic() + AGAIN_S
    while not answers(place):
        now = time.monotonic()
        # One that is there and has no lock yet waits for it; a second one would take over when the first is stopped.
        if now > again and not root.is_locked(place, "agent.lock") and processes.facts(started) is None:
            started = _start(place, words)  # somebody killed it before it could listen
            again = now + 2 * AGAIN_S
        if now > deadline:
            raise AgentFailed(
                f"The worker's agent does not answer in {place}. Its log ends:\n{_log_end(place)}\n"
                "Look whether the disk is full or the folder is on a network disk; then try again.",
                folder=place,
            )
        time.sleep(pause)
        pause = min(0.05, pause * 1.3)


def _start(place: str, program: list[str]) -> int:
    """Start a process that is nobody's child: a shell starts it and ends. Returns its pid."""
    try:
        log = os.open(os.path.join(place, "agent.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:  # a full disk, or a folder that somebody took away just now
        raise AgentFailed(f"{place}: the agent's log cannot be written: {error.strerror}", folder=place) from error
    reading, writing = os.pipe()
    try:
        shell = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", '"$@" 3>&- & echo $! >&3', "sh", *program],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, writing, 3),
            ],
            setsid=True,
        )
    finally:
        os.close(log)
        os.close(writing)
    try:
        told = os.read(reading, 100)
    finally:
        os.close(reading)
    os.waitpid(shell, 0)
    return int(told or b"0")


def answers(place: str) -> bool:
    """Whether an agent of this version answers there, and does not say that it is about to end."""
    present = _present(place)
    return present is not None and present.get("version") == VERSION


def _present(place: str) -> dict[str, Any] | None:
    """What an agent there says of itself; None without one, or when it is about to end."""
    try:
        answer = _ask(place, "GET", "/ping")
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, ValueError):
        return None
    return told if answer.startswith(b"HTTP/1.1 200 ") and told.get("stopping") is None else None


def port(place: str) -> int:
    """Have the agent listen on a port of this machine's loopback as well; its number."""
    try:
        answer = _ask(place, "POST", "/port")
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return int(told["port"])
    except (OSError, ValueError, KeyError) as error:
        raise AgentFailed(f"The agent in {place} gave no port to reach it by: {error}", folder=place) from error


def stop(place: str, again: Callable[[], None]) -> None:
    """End the agent of this root folder, its keeper and its tasks (TERM, grace, KILL); return when they are gone.

    What was queued is given back, what ran is recorded as cancelled; the record stays for the next agent to report.
    `again` starts an agent, which a keeper alone needs to be told.
    """
    deadline = time.monotonic() + STOP_S
    has_said = False
    while root.is_locked(place, "agent.lock") or root.is_locked(place, "keeper.lock"):
        if time.monotonic() > deadline:
            raise AgentFailed(f"The agent in {place} does not end. Its log ends:\n{_log_end(place)}", folder=place)
        if not has_said:
            has_said = _say_stop(place)
            if not has_said and not root.is_locked(place, "agent.lock"):
                again()
        time.sleep(0.01)


def _say_stop(place: str) -> bool:
    try:
        return _ask(place, "POST", "/commands", b'{"stop":"now"}\n').startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _ask(place: str, method: str, target: str, body: bytes = b"") -> bytes:
    """A short request, and the beginning of its answer."""
    with address.connect(place, "agent.sock") as sock:
        sock.settimeout(DEADLINE_S)
        head = f"{method} {target} HTTP/1.1\r\n{token.header(token.read(place))}Connection: close\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return sock.recv(4096)


def _log_end(place: str) -> str:
    try:
        text = Path(place, "agent.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-10:]) or "(empty)"


def main(role: str, place: str, own: list[str], linger: float, has_port: bool) -> int:
    """One of the three as a program: what came of it is one JSON object."""
    found: dict[str, Any] = {"ok": True}
    try:
        if role == "ensure":
            ensure(place, lambda: own, linger, FAR_S)
            found["port"] = port(place) if has_port else None
        elif os.path.isdir(place):
            stop(place, lambda: ensure(place, lambda: own, 1.0))
        if role == "remove" and os.path.isdir(place):
            from scitq.remote.agent import trial

            with trial.turn(place):  # one whose engine has gone may be going on
                shutil.rmtree(place)
    except (AgentFailed, OSError) as error:
        found = {"ok": False, "error": str(error)}
    print(json.dumps(found), flush=True)
    return 0 if found["ok"] else 1


def dial(place: str) -> int:
    """Carry bytes between a connection to the agent, and standard input and output, until either ends."""
    import select

    try:
        sock = address.connect(place, "agent.sock")
    except OSError as error:
        print(f"no agent listens in {place}: {error.strerror or error}", file=sys.stderr)
        return 1
    os.write(1, DIALLED)
    with sock:
        ends = [0, sock.fileno()]
        while sock.fileno() in ends:
            for end in select.select(ends, [], [])[0]:
                data = os.read(0, 1 << 16) if end == 0 else sock.recv(1 << 16)
                if not data:
                    ends.remove(end)
                    if end == 0:
                        with contextlib.suppress(OSError):
                            sock.shutdown(1)
                elif end == 0:
                    sock.sendall(data)
                else:
                    _write(data)
    return 0


DIALLED = b"\n@scitq-dialled\n"
"""Said before the agent's first byte: a login's own words may come before it."""


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]
