"""Facts about this machine, as the driver asks for them. Cheap: nothing is started but, once, NVIDIA's program."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any

from scitq.remote.agent import VERSION, processes


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
        disk_rates()
    return {**who, "cpus": cpus(), "memory": memory, "gpus": [gpu["id"] for gpu in found], "gpu_models": found}


_ESCAPED = re.compile(r"\\([0-7]{3})")

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


_NOT_DISKS = ("squashfs", "iso9660", "udf")
_BRIDGES = ("lo", "veth", "docker", "br-", "virbr", "cni", "flannel")
_MOST_DISKS = 16


def disks() -> dict[str, list[int]]:
    """Bytes, and bytes free, of each disk of this machine, by where it is mounted first. What lies on a network is not asked: a
    server that does not answer would hold up everything here."""
    found: dict[str, list[int]] = {}
    seen = set()
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            device, place, kind, *_ = line.split(" ")
            if not device.startswith("/dev/") or device in seen or kind in _NOT_DISKS or len(found) == _MOST_DISKS:
                continue
            seen.add(device)
            path = _ESCAPED.sub(lambda each: chr(int(each.group(1), 8)), place)
            with contextlib.suppress(OSError):
                disk = os.statvfs(path)
                if os.path.isdir(path) and disk.f_blocks:
                    found[path] = [disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize]
    return found


_NOT_WHOLE = ("loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd")
_SECTOR = 512
# What /proc/diskstats said at the last look: bytes read, bytes written, and when.
_moved: tuple[int, int, float] | None = None


def moved(text: str, whole: Collection[str]) -> tuple[int, int]:
    """Bytes that were read from and written to disks, by a text like /proc/diskstats. `whole`: the devices that are no parts of
    others; those made of others are not counted beside them."""
    counts = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 9 and words[2] in whole:
            counts[words[2]] = int(words[5]) * _SECTOR, int(words[9]) * _SECTOR
    real = {name: pair for name, pair in counts.items() if not name.startswith(_NOT_WHOLE)}
    return sum(pair[0] for pair in real.values()), sum(pair[1] for pair in real.values())


def disk_rates() -> dict[str, float]:
    """Bytes read from and written to this machine's disks, a second, since the last call; empty at the first, or right after
    another."""
    global _moved
    before, now = _moved, time.monotonic()
    if before is not None and now - before[2] < 0.1:
        return {}
    try:
        with open("/proc/diskstats", encoding="ascii") as file:
            read, written = moved(file.read(), os.listdir("/sys/block"))
    except (OSError, ValueError):
        return {}
    _moved = read, written, now
    if before is None or read < before[0] or written < before[1]:
        return {}
    seconds = now - before[2]
    return {"read_s": round((read - before[0]) / seconds), "written_s": round((written - before[1]) / seconds)}


def network() -> dict[str, int]:
    """Bytes received and sent; of interfaces that lead elsewhere, if there are others as well."""
    counts: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError), open("/proc/net/dev", encoding="ascii") as file:
        for line in file.readlines()[2:]:
            name, _, fields = line.partition(":")
            words = fields.split()
            if len(words) > 8:
                counts[name.strip()] = int(words[0]), int(words[8])
    far = {name: pair for name, pair in counts.items() if not name.startswith(_BRIDGES)}
    far = far or {name: pair for name, pair in counts.items() if name != "lo"}
    if not counts:
        return {}
    return {"net_in": sum(pair[0] for pair in far.values()), "net_out": sum(pair[1] for pair in far.values())}


def stats(folder: str) -> dict[str, Any]:
    """What does: load of the last minute, busy CPUs, memory, the disk of the root folder and others, how fast disks are read and
    written, bytes that came and went over the network and seconds, both since this machine started."""
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
        "uptime": round(processes.boot_time(), 1),
        "disks": disks(),
        **sizes,
        **disk_rates(),
        **network(),
    }
