"""A launcher that gives a process clocks of its own. Nothing of the product knows about it.

    python clocks.py FILE -m MODULE …      a Python program
    python clocks.py FILE agent|keeper …   an agent (and the keeper that it starts) with the clocks in FILE

FILE holds two numbers: how far the wall clock, and the monotonic ones, are ahead of the machine's. They may be changed at any
moment, for all processes that share FILE. (libfaketime is no help: with its monotonic clock Python's timed waits for locks,
which it does not know, wait for the difference. What is replaced here are the functions that are asked what time it is; waits
are relative and real.)
"""

from __future__ import annotations

import json
import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

_FORM = struct.Struct("dd")


class Clocks:
    """The two numbers, for the one who sets them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_FORM.pack(0.0, 0.0))

    def jump(self, *, wall_s: float = 0.0, monotonic_s: float = 0.0) -> None:
        """Move the clocks on; back, if negative (which no monotonic clock does)."""
        wall, monotonic = _FORM.unpack(self.path.read_bytes())
        with self.path.open("r+b") as file:
            file.write(_FORM.pack(wall + wall_s, monotonic + monotonic_s))

    def command(self) -> list[str]:
        """What to put before `-m MODULE`, or before `agent`."""
        return [sys.executable, "-W", "error", __file__, str(self.path)]


def _install(path: str) -> None:
    with open(path, "rb") as file:
        numbers = mmap.mmap(file.fileno(), _FORM.size, prot=mmap.PROT_READ)
    wall, wall_ns, monotonic, clock_gettime = time.time, time.time_ns, time.monotonic, time.clock_gettime
    time.time = lambda: wall() + _FORM.unpack_from(numbers)[0]
    time.time_ns = lambda: wall_ns() + int(1e9 * _FORM.unpack_from(numbers)[0])
    time.monotonic = lambda: monotonic() + _FORM.unpack_from(numbers)[1]
    time.clock_gettime = lambda clock: clock_gettime(clock) + _FORM.unpack_from(numbers)[clock != time.CLOCK_REALTIME]


def main() -> None:
    """Install the clocks, then be the program."""
    here = Path(__file__).resolve()
    file, role, *rest = sys.argv[1:]
    sys.path[0] = str(here.parents[2])
    _install(file)
    if role == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    from scitq.remote.agent import __main__ as program

    if role == "agent":
        rest += ["--keeper-command", json.dumps([sys.executable, str(here), file, "keeper"])]
    sys.exit(program.main([role, *rest]))


if __name__ == "__main__":
    main()
