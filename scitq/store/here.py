"""What names this machine, this run of its kernel, and a process of it: for those who compare what a file says with where they are."""

from __future__ import annotations

import socket


def machine_id() -> str:
    """What tells this machine from others; the host name where the system has nothing better."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        text = _read(path)
        if text:
            return text
    return socket.gethostname()


def boot_id() -> str:
    """What tells this run of the kernel from others: the same in all containers of a machine; empty where unknown."""
    return _read("/proc/sys/kernel/random/boot_id")


def process_start(pid: int) -> int | None:
    """When the process began, in ticks since boot: with the pid it names one process for ever. None where unknown."""
    stat = _read(f"/proc/{pid}/stat")
    # The name, in parentheses, may contain anything; field 22 is the 20th after it.
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
