"""Small words with the kernel that the hosts of these tests need: programs run, processes known by pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

DEADLINE_S = 60.0
Found = TypeVar("Found")


def run(*words: object, is_checked: bool = True, timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
    """A program, to its end. Errors carry what it said."""
    told = [str(word) for word in words]
    done = subprocess.run(told, text=True, capture_output=True, check=False, timeout=timeout_s, errors="replace")
    if is_checked and done.returncode:
        raise AssertionError(f"{' '.join(told)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def start_time(pid: int) -> int | None:
    """When the kernel started a process, in its ticks; None when there is none, or only its corpse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def lives(process: tuple[int, int] | None) -> bool:
    """Whether a process that was noted down is still that one."""
    return process is not None and start_time(process[0]) == process[1]


def noted(pid: int) -> tuple[int, int] | None:
    """A process, so that it is told from a later one of the same number."""
    started = start_time(pid)
    return None if started is None else (pid, started)


def end(process: tuple[int, int] | None, number: int = signal.SIGKILL) -> None:
    """Signal a process, only while it is still the one that was noted down."""
    if process is not None and lives(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process[0], number)


def until(what: str, found: Callable[[], Found], deadline_s: float = DEADLINE_S) -> Found:
    """Wait for something, patiently; what was found."""
    deadline = time.monotonic() + deadline_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.01)
    return value
