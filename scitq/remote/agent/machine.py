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
    return {**who, "cpus": cpus(), "memory": memory, "gpus": [gpu["id"] for gpu in found], "gpu_models": found}


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
