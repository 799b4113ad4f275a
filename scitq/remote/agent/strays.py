"""Programs that move data for an agent (rclone, aria2c) outlive it when it is killed: the next agent ends them.

They are known by a mark in their environment that names the root folder, never by their name. A file in that folder
says that there may be any, so that an agent that starts after a good end looks for nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from scitq.remote.agent import processes

MARK = "SCITQ_TRANSFERS"
_FILE = "transfers"
END_S = 10.0


def expect(root: str) -> None:
    """Programs may be started from now on."""
    if os.environ.get(MARK) != root:
        with open(os.path.join(root, _FILE), "w", encoding="ascii"):
            pass
        os.environ[MARK] = root


def environment() -> dict[str, str]:
    """Ours without the mark: for a keeper, which is to live on."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def forget(root: str) -> None:
    """All of ours have ended."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(root, _FILE))


def end(root: str) -> int:
    """End what an agent that was killed here has left; return how many there were. Only the holder of the lock calls it."""
    if not os.path.exists(os.path.join(root, _FILE)):
        return 0
    deadline, count = time.monotonic() + END_S, 0
    while found := _find(root):
        count += len(found)
        for file in found:
            signal.pidfd_send_signal(file, signal.SIGKILL)
        for file in found:
            select.select([file], [], [], max(0.0, deadline - time.monotonic()))
            os.close(file)
        if time.monotonic() > deadline:
            break
    forget(root)
    return count


def _find(root: str) -> list[int]:
    """A descriptor for each that carries the mark: a number alone might be another's by the time it is used."""
    mark = os.fsencode(f"{MARK}={root}")
    if not hasattr(os, "pidfd_open") or not os.path.isdir("/proc/self"):
        return []
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                continue
            file = os.pidfd_open(int(name))
            if mark in (processes.environment(int(name)) or ()) and processes.facts(int(name)) is not None:
                found.append(file)
            else:
                os.close(file)
    return found
