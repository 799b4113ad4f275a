"""What the system tells about processes: who is alive, since when, and with which execution in its environment.

Linux's /proc first; elsewhere the answers are coarser and said to be so.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from typing import NamedTuple

_HAS_PROC = os.path.exists("/proc/self/stat")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MATCH_S = 0.5


class Facts(NamedTuple):
    """Of a live process: seconds from boot to its start, its parent, group and session."""

    started: float
    parent: int
    group: int
    session: int


def boot_id() -> str:
    """A text that changes with every boot; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        import ctypes

        buffer, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0) == 0:
            return buffer.value.decode("ascii", "replace")
    return ""


def boot_time() -> float:
    """Seconds since boot, suspended time included, as /proc/<pid>/stat counts; else the monotonic clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def facts(pid: int) -> Facts | None:
    """Facts of a process that still runs; None when it is gone or a zombie."""
    if not _HAS_PROC:
        try:
            return Facts(-1.0, 0, os.getpgid(pid), os.getsid(pid))
        except OSError:
            return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return Facts(int(fields[19]) / _TICK, int(fields[1]), int(fields[2]), int(fields[3]))


class Use(NamedTuple):
    """What the processes of a session take: CPU seconds so far, and bytes of memory now (pages that several share count for each)."""

    cpu_s: float
    memory: int


def use(leaders: Collection[int]) -> dict[int, Use]:
    """What the sessions of these leaders take now. One look at every process; what is gone, or cannot be told, is left out."""
    found: dict[int, Use] = {}
    if not _HAS_PROC or not leaders:
        return found
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            session = int(fields[3])
            if session not in leaders:
                continue
            # Its own time, and that of its children that it has waited for.
            cpu_s, pages = sum(map(int, fields[11:15])) / _TICK, int(fields[21])
        except (OSError, ValueError, IndexError):
            continue
        before = found.get(session, Use(0.0, 0))
        found[session] = Use(before.cpu_s + cpu_s, before.memory + pages * _PAGE)
    return found


def environment(pid: int) -> list[bytes] | None:
    """The environment a process was started with; None when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return None


def _marks(execution: str, journal: str) -> tuple[bytes, bytes]:
    return b"SCITQ_EXECUTION=" + os.fsencode(execution), b"SCITQ_JOURNAL=" + os.fsencode(journal)


def is_execution(pid: int, since: float, execution: str, journal: str) -> bool:
    """Whether `pid` still is the process that was spawned at `since` for this execution, not a recycled number.

    Our marks in its environment prove it, however late the stalled system began it. Without a readable environment
    the time of its start must match.
    """
    found = facts(pid)
    if found is None or found.group != pid or found.session != pid:
        return False
    env = environment(pid) or []
    marks = _marks(execution, journal)
    if marks[0] in env and marks[1] in env:
        return True
    # A program may have written its title over its environment: only a whole, different environment is proof against.
    if any(entry.startswith(b"PATH=") for entry in env):
        return False
    return found.started < 0 or abs(found.started - since) <= _MATCH_S


def find(execution: str, journal: str, since: float) -> int | None:
    """The session leader spawned for an execution whose pid was never written down.

    Its children carry the same environment; those that became session leaders themselves started later.
    """
    found = with_execution(execution, journal)
    leaders = [
        (each.started, pid) for pid, each in found.items() if each.session == pid and each.started >= since - _MATCH_S
    ]
    return min(leaders)[1] if leaders else None


def with_execution(execution: str, journal: str) -> dict[int, Facts]:
    """All live processes that carry this execution in their environment."""
    if not _HAS_PROC:
        return {}
    marks = _marks(execution, journal)
    own = os.getpid()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            env = environment(int(name))
            if env and marks[0] in env and marks[1] in env:
                each = facts(int(name))
                if each is not None:
                    found[int(name)] = each
    return found


def adopt_orphans() -> bool:
    """Become the parent of orphaned descendants (Linux). False where that cannot be had."""
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0)  # PR_SET_CHILD_SUBREAPER
    except (ImportError, OSError, AttributeError):
        return False
