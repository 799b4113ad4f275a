"""The machines of the make-believe cloud that are folders here: the agent of each is a process of this machine.

They are started as any local worker is, by who reaches them (`Reach.how == "folder"`). Here is how they end: at once, as if
somebody had pulled the plug. A file takes the folder's place then, so that nobody starts an agent there again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

from scitq.errors import AgentFailed
from scitq.remote.agent import processes, strays
from scitq.remote.providers.base import EVICTION_NOTICE, SHUTDOWN

CUT_S = 20.0
_ROLES = (b"agent", b"keeper")
# Of the environment that tasks and transfers get: what lies in their agent's folder.
_VARIABLES = frozenset({b"INPUT", b"OUTPUT", b"TEMP", b"RESOURCE", strays.MARK.encode()})


def place(folder: Path, id: str) -> Path:
    """The folder of a machine's agent."""
    return folder / "machines" / id


def is_there(folder: Path, id: str) -> bool:
    """Whether somebody has made an agent's folder of it."""
    return place(folder, id).is_dir()


def has_shut_down(folder: Path, id: str) -> bool:
    """Whether its agent has ended it, as `base.SHUTDOWN` says."""
    return (place(folder, id) / SHUTDOWN).exists()


def power_off(folder: Path, id: str) -> None:
    """End everything that runs in a machine, and take its disk away. Harmless to repeat."""
    own, old = place(folder, id), place(folder, f"{id}.off")
    own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if own.is_dir() and not os.path.isdir("/proc/self"):
        from scitq.remote import local

        with contextlib.suppress(AgentFailed):
            local.stop(own)
    if own.is_dir():
        # Agent and keeper first: nobody is to hear of tasks that end because the plug was pulled.
        for role in _ROLES:
            _kill(own, role)
        own.rename(old)
    own.touch(mode=0o600)
    if old.is_dir():
        deadline = time.monotonic() + CUT_S
        while sum(_kill(own, role) for role in (*_ROLES, None)) and time.monotonic() < deadline:
            time.sleep(0.005)
        shutil.rmtree(old, ignore_errors=True)


def give_notice(folder: Path, id: str, at_ms: int, why: str) -> None:
    """Leave the machine the note that its agent looks for: see `base.EVICTION_NOTICE`."""
    own = place(folder, id)
    if own.is_dir():
        fresh = own / f"{EVICTION_NOTICE}.new"
        fresh.write_text(json.dumps({"at": at_ms / 1000, "why": why}) + "\n", encoding="utf-8")
        fresh.replace(own / EVICTION_NOTICE)


def _kill(own: Path, role: bytes | None) -> int:
    """Kill the processes of a role; None: all. They are known by what they were started with, never by a name alone."""
    count = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid() or not _is_of(entry, own, role):
            continue
        with contextlib.suppress(OSError):
            held = os.pidfd_open(int(entry))  # from here on the number is nobody else's
            try:
                if _is_of(entry, own, role) and processes.facts(int(entry)) is not None:
                    signal.pidfd_send_signal(held, signal.SIGKILL)
                    count += 1
            finally:
                os.close(held)
    return count


def _is_of(entry: str, own: Path, role: bytes | None) -> bool:
    """Whether a process is an agent or keeper of the folder (`ROLE --root FOLDER`), or a task or transfer that one of them started."""
    sign = os.fsencode(own)
    try:
        words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    at = words.index(b"--root") if b"--root" in words else 0
    if at and sign in words[at + 1 : at + 2]:
        return role in (None, words[at - 1])
    return role is None and any(
        name in _VARIABLES and (value == sign or value.startswith(sign + b"/"))
        for name, _, value in (word.partition(b"=") for word in processes.environment(int(entry)) or ())
    )
