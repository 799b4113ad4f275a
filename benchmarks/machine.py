"""What this machine is, and what processes on it have used. Standard library only: the peers' programs use it too."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# Every process of one contestant carries this variable with the same value, however it was started.
MARK = "SCITQ_BENCHMARK"
_TICKS = os.sysconf("SC_CLK_TCK")


def marked() -> dict[int, str]:
    """The living processes that carry this process's mark, with their command lines."""
    sign = f"{MARK}={os.environ[MARK]}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sign in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all its children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def tree_cpu_s() -> float:
    """CPU seconds of everything that carries this process's mark, ended children included."""
    return sum(cpu_s(pid) for pid in marked())


def fine_cpu_s(pid: int) -> float:
    """CPU seconds of a process's living threads, to the nanosecond."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except OSError:
            continue
    return total / 1e9


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """A field of /proc/PID/status in MiB: VmRSS now, VmHWM at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def facts(folder: Path) -> list[tuple[str, str]]:
    """The machine, without names and places."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    import apsw

    return [
        ("CPU", f"{model}, {len(os.sched_getaffinity(0))} cores for us"),
        ("memory", f"{int(memory) / 1048576:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", sys.version.split()[0]),
        ("apsw, SQLite", f"{apsw.apsw_version()}, {apsw.sqlite_lib_version()}"),
        ("disk", _file_system(folder)),
        ("load when it began", f"{os.getloadavg()[0]:.2f}"),
    ]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _file_system(folder: Path) -> str:
    """The type of the file system, and whether its disk turns."""
    best, kind, device = "", "unknown", ""
    for line in _lines("/proc/self/mounts"):
        source, place, found, *_ = line.split()
        if str(folder.resolve()).startswith(place) and len(place) > len(best):
            best, kind, device = place, found, source
    number = os.stat(folder).st_dev
    turning = _lines(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/rotational")
    virtual = ", virtual disk" if "/vd" in device or "virt" in device else ""
    return kind + (virtual or (", rotating" if turning == ["1"] else ""))
