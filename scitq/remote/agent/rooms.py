"""Room on the disk for what is to come: some is always kept free; what is kept for later gives way to what is wanted now.

First what lies in the trash, then resources that no task has, the least recently used first; then the folders of ended
executions, the oldest first: their work, temporary files and inputs. What they wrote to their streams and to $OUTPUT stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import replace

from scitq.fetch.errors import NoSpace
from scitq.fetch.settings import Settings
from scitq.remote.agent import entered
from scitq.remote.agent.collect import empty_trash, to_trash
from scitq.remote.agent.slots import INPUT, RESOURCE, TEMP, WORK

RESERVE_BYTES = 1 << 30
RESERVE_SHARE = 0.05


def reserve_bytes(root: str) -> int:
    """What must stay free: a gigabyte, or a twentieth of a small disk."""
    found = os.statvfs(root)
    return int(min(RESERVE_BYTES, RESERVE_SHARE * found.f_blocks * found.f_frsize))


def with_room(
    root: str, evict: Callable[[], bool], could_give: Callable[[], int], action: Callable[[Settings], None],
    settings: Settings,
) -> None:  # fmt: skip
    """Do it with room made before the first byte; when it does not suffice, once more with more room.

    `could_give`: how many bytes `evict` might free at most. What would not fit even so makes nothing go.
    """
    reserve = reserve_bytes(root)
    make_room(root, evict, reserve)
    told = replace(settings, reserve_bytes=reserve)
    try:
        action(told)
        return
    except NoSpace as error:
        wanted = getattr(error, "wanted_bytes", None)
        if wanted is not None and free_bytes(root) + could_give() < wanted + reserve:
            raise _hopeless(error) from error
        # A disk that turns out to be full says nothing of how much more there was to come: all that can go goes.
        if not make_room(root, evict, None if wanted is None else wanted + reserve):
            raise _hopeless(error) from error
    try:
        action(told)
    except NoSpace as error:
        raise _hopeless(error) from error


def _hopeless(error: NoSpace) -> NoSpace:
    return NoSpace(
        f"{error} Nothing more that this worker keeps can give way: the rest is in use.",
        uri=error.uri,
        phase=error.phase,
    )


def make_room(root: str, evict: Callable[[], bool], wanted_bytes: int | None) -> bool:
    """Have so much free, if it can be had, or as much as can. Whether anything went."""
    has_gone = False
    if _is_enough(root, wanted_bytes):
        return False
    empty_trash(root)
    while not _is_enough(root, wanted_bytes) and evict():
        has_gone = True
        empty_trash(root)
    return has_gone


def kept_bytes(root: str, held: Collection[str]) -> int:
    """What `trim` and emptying the trash might free, at most."""
    place = os.path.join(root, "exec")
    ended = [os.path.join(place, key) for key in os.listdir(place) if key not in held]
    kept = [os.path.join(folder, name) for folder in ended for name in (WORK, TEMP, INPUT, RESOURCE)]
    return sum(map(bytes_below, [*kept, os.path.join(root, "trash")]))


def bytes_below(folder: str) -> int:
    """What the files in a folder hold."""
    found = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                each = os.lstat(os.path.join(top, name))
                found += max(each.st_size, each.st_blocks * 512)
    return found


def trim(root: str, held: Collection[str]) -> bool:
    """Take from the oldest folder of an ended execution what is only kept for those who look; False when none is left.

    Where somebody is in it (`entered`) nothing goes."""
    place = os.path.join(root, "exec")
    ended = [os.path.join(place, key) for key in os.listdir(place) if key not in held]
    for folder in sorted(ended, key=_age):
        kept = [path for name in (WORK, TEMP, INPUT, RESOURCE) if os.path.lexists(path := os.path.join(folder, name))]
        if kept:
            with entered.emptying(folder) as may_go:
                gone = [to_trash(root, path) for path in kept] if may_go else []
            if any(gone):
                return True
    return False


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0  # it went meanwhile


def _is_enough(root: str, wanted_bytes: int | None) -> bool:
    return wanted_bytes is not None and free_bytes(root) >= wanted_bytes


def free_bytes(root: str) -> int:
    """What the disk of a worker has free."""
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize
