"""Facts about this machine, as the driver asks for them. Cheap: nothing is started but, once, NVIDIA's program."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

from scitq.remote.agent import VERSION


def cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def gpus() -> list[dict[str, Any]]:
    """The GPUs that NVIDIA's program tells of: id, name and bytes of memory. Asked once; empty without the program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [[field.strip() for field in line.split(",")] for line in told.splitlines() if line.strip()]
        return [{"id": index, "name": name, "memory": int(float(size)) << 20} for index, name, size in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []  # a driver that does not answer has no GPU to offer


def facts() -> dict[str, Any]:
    """What does not change while the agent runs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    who = {"version": VERSION, "pid": os.getpid(), "host": socket.gethostname(), "python": sys.version.split()[0]}
    found = gpus()
    if _ticks is None:
        busy()  # so that the first to ask for statistics is told of the time since now
    return {**who, "cpus": cpus(), "memory": memory, "gpus": [gpu["id"] for gpu in found], "gpu_models": found}


# What /proc/stat said at the last look: ticks of all CPUs in which they were busy, and in all.
_ticks: tuple[int, int] | None = None


def busy() -> float | None:
    """The share of all CPUs that was busy since the last call; None at the first, or right after another."""
    global _ticks
    before = _ticks
    try:
        with open("/proc/stat", encoding="ascii") as file:
            counts = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    total, idle = sum(counts), counts[3] + counts[4]
    if before is not None and total - before[1] < 10:
        return None
    _ticks = (total - idle, total)
    return None if before is None else round(max(0, _ticks[0] - before[0]) / (total - before[1]), 3)


def stats(folder: str) -> dict[str, Any]:
    """What does: load of the last minute, busy CPUs, memory, the disk of the root folder."""
    disk = os.statvfs(folder)
    free = None
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    sizes = {"disk": disk.f_blocks * disk.f_frsize, "disk_free": disk.f_bavail * disk.f_frsize}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "at": time.time(),
        "load": os.getloadavg()[0],
        "cpu": busy(),
        "memory": memory,
        "memory_free": free,
        **sizes,
    }
