"""What an agent tells of its machine."""

from __future__ import annotations

from scitq.remote.agent import machine

DISKSTATS = """\
   7       0 loop0 15 0 300 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 259       0 nvme0n1 100 0 2000 5 50 0 1000 9 0 3 4 0 0 0 0 0 0
 259       1 nvme0n1p1 90 0 1900 5 50 0 1000 9 0 3 4 0 0 0 0 0 0
 253       0 dm-0 90 0 1900 5 50 0 1000 9 0 3 4
   8       0 sda 1 0 10 5 5 0 20 9 0 3 4 0 0 0 0 0 0
   8      16 half 1
"""


def test_bytes_of_whole_disks_are_counted_once() -> None:
    whole = ["loop0", "nvme0n1", "dm-0", "sda", "half"]
    assert machine.moved(DISKSTATS, whole) == (2010 * 512, 1020 * 512)
    assert machine.moved("", whole) == (0, 0)
