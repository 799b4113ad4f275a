"""The worker on this machine: starting and stopping an agent as a detached process.

Talking to it is `link`; what it does is `agent`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scitq.errors import AgentFailed
from scitq.remote.agent import address, processes, root
from scitq.remote.agent.__main__ import FLAGS

DEADLINE_S = 10.0
AGAIN_S = 1.0
"""After this long without an agent that even holds its lock, another one is started."""
STOP_S = 30.0


def ensure(folder: Path, *, linger: float = 60, command: Sequence[str] | None = None) -> None:
    """Start the agent of this root folder unless one answers there. Harmless to repeat, also at the same time.

    `command` replaces the program that is started; ` agent --root … --linger …` is added to it.
    Raises AgentFailed with the last lines of its log when it does not answer within ten seconds.
    """
    place = os.path.abspath(folder)
    if _answers(place):
        return
    try:
        root.make(place)
    except OSError as error:
        raise AgentFailed(
            f"{place}: the folder of the local worker cannot be made: {error.strerror}", folder=place
        ) from error
    program = list(command) if command is not None else [sys.executable, *FLAGS, _program(place)]
    program += ["agent", "--root", place, "--linger", f"{linger:g}"]
    started = _start(place, program)
    deadline, pause = time.monotonic() + DEADLINE_S, 0.002
    again = time.monotonic() + AGAIN_S
    while not _answers(place):
        now = time.monotonic()
        # One that is there and has no lock yet waits for it; a second one would take over when the first is stopped.
        if now > again and not root.is_locked(place, "agent.lock") and processes.facts(started) is None:
            started = _start(place, program)  # somebody killed it before it could listen
            again = now + 2 * AGAIN_S
        if now > deadline:
            raise AgentFailed(
                f"The local worker's agent does not answer in {place}. Its log ends:\n{_log_end(place)}\n"
                "Look whether the disk is full or the folder is on a network disk; then try again.",
                folder=place,
            )
        time.sleep(pause)
        pause = min(0.05, pause * 1.3)


def _program(place: str) -> str:
    """The bundle, copied into the root folder: keepers are started from it, also after the user emptied the cache."""
    from scitq.remote.bundle import bundle, is_whole, store  # hashes, archives: for whoever starts an agent

    try:
        path, digest = bundle()
        own = Path(place, f"agent-{digest[:16]}.pyz")
        if not is_whole(own, digest):
            if not root.is_locked(place, "agent.lock") and not root.is_locked(place, "keeper.lock"):
                for old in Path(place).glob("agent-*.pyz"):
                    old.unlink(missing_ok=True)
            store(own, path.read_bytes())
    except OSError as error:
        raise AgentFailed(
            f"The agent's program cannot be stored: {error}. Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
            folder=place,
        ) from error
    return str(own)


def _start(place: str, program: list[str]) -> int:
    """Start a process that is nobody's child: a shell starts it and ends. Returns its pid."""
    reading, writing = os.pipe()
    log = os.open(os.path.join(place, "agent.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
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


def _answers(place: str) -> bool:
    """Whether an agent answers there, and does not say that it is about to end."""
    try:
        with address.connect(place, "agent.sock") as sock:
            sock.settimeout(DEADLINE_S)
            sock.sendall(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
            data = sock.recv(4096)
    except OSError:
        return False
    return data.startswith(b"HTTP/1.1 200 ") and b'"stopping": null' in data


def stop(folder: Path) -> None:
    """End the agent of this root folder, its keeper and its tasks (TERM, grace, KILL); return when they are gone.

    What was queued is given back, what ran is recorded as cancelled; the record stays for the next agent to report.
    """
    place = os.path.abspath(folder)
    deadline = time.monotonic() + STOP_S
    has_said = False
    while root.is_locked(place, "agent.lock") or root.is_locked(place, "keeper.lock"):
        if time.monotonic() > deadline:
            raise AgentFailed(f"The agent in {place} does not end. Its log ends:\n{_log_end(place)}", folder=place)
        if not has_said:
            has_said = _say_stop(place)
            if not has_said and not root.is_locked(place, "agent.lock"):
                ensure(folder)  # a keeper alone: it takes orders only through an agent
        time.sleep(0.01)


def _say_stop(place: str) -> bool:
    body = b'{"stop":"now"}\n'
    try:
        with address.connect(place, "agent.sock") as sock:
            sock.settimeout(DEADLINE_S)
            sock.sendall(b"POST /commands HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _log_end(place: str) -> str:
    try:
        text = Path(place, "agent.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-10:]) or "(empty)"
