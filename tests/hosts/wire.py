"""A slow, lossy cable between a host and its network: two TAP devices, and this program between them.

For kernels without netem. What is asked of it is in a JSON file, read at the start and at each SIGHUP.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAMES_A_TURN = 64


def _tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


class Cable:
    """Frames on their way, each with the time when it is due."""

    def __init__(self, asked: Path, one: int, other: int) -> None:
        self._asked = asked
        self._other_end = {one: other, other: one}
        self._free = {one: 0.0, other: 0.0}
        self._due: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._how: dict[str, float] = {}
        self.look()

    def look(self, *_: Any) -> None:
        """See what is asked of the cable now."""
        self._how = json.loads(self._asked.read_text())

    def carry(self) -> None:
        """For ever."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, end, frame = heapq.heappop(self._due)
                with contextlib.suppress(OSError):
                    os.write(end, frame)
            patience_s = max(0.0, self._due[0][0] - now) if self._due else 1.0
            for end in select.select(list(self._other_end), [], [], patience_s)[0]:
                self._take(end)

    def _take(self, end: int) -> None:
        for _ in range(_FRAMES_A_TURN):
            try:
                frame = os.read(end, 65536)
            except OSError:
                return
            if random.random() * 100 >= self._how["loss"]:
                self._put(self._other_end[end], frame)

    def _put(self, end: int, frame: bytes) -> None:
        due = now = time.monotonic()
        if self._how["rate"]:
            taken_s = len(frame) / self._how["rate"]
            due = max(now, self._free[end]) + taken_s
            if due - now > 1.0:
                return  # the cable's queue holds one second's worth; what is more is dropped, as a router does
            self._free[end] = due
        self._count += 1
        heapq.heappush(self._due, (due + self._how["delay_ms"] / 1000, self._count, end, frame))


def main(outer: str, netns: str, asked: str) -> None:
    """Make both ends, hand one to the host's network namespace, carry frames between them."""
    one, other = _tap(outer), _tap(f"{outer}n")
    subprocess.run(["ip", "link", "set", f"{outer}n", "netns", netns, "name", "eth0"], check=True)
    cable = Cable(Path(asked), one, other)
    signal.signal(signal.SIGHUP, cable.look)
    cable.carry()


if __name__ == "__main__":
    main(*sys.argv[1:4])
