"""Facts about this machine, as the driver asks for them. Cheap: nothing is started, nothing is kept."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import Any

from scitq.remote.agent import VERSION


def cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def facts() -> dict[str, Any]:
    """What does not change while the agent runs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    who = {"version": VERSION, "pid": os.getpid(), "host": socket.gethostname(), "python": sys.version.split()[0]}
    return {**who, "cpus": cpus(), "memory": memory}


def stats(folder: str) -> dict[str, Any]:
    """What does: load, memory, the disk of the root folder."""
    disk = os.statvfs(folder)
    free = None
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    sizes = {"disk": disk.f_blocks * disk.f_frsize, "disk_free": disk.f_bavail * disk.f_frsize}
    return {"at": time.time(), "load": os.getloadavg(), "memory_free": free, **sizes}
