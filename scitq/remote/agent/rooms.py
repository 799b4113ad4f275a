"""Room on the disk for what is to come: some is always kept free, and the cache gives way to what is wanted now."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from scitq.fetch.errors import NoSpace
from scitq.fetch.settings import Settings
from scitq.remote.agent.collect import empty_trash

RESERVE_BYTES = 1 << 30
RESERVE_SHARE = 0.05


def reserve_bytes(root: str) -> int:
    """What must stay free: a gigabyte, or a twentieth of a small disk."""
    found = os.statvfs(root)
    return int(min(RESERVE_BYTES, RESERVE_SHARE * found.f_blocks * found.f_frsize))


def with_room(root: str, evict: Callable[[], bool], action: Callable[[Settings], None], settings: Settings) -> None:
    """Do it with room made before the first byte; when it does not suffice, once more with more room."""
    reserve = reserve_bytes(root)
    make_room(root, evict, reserve)
    told = replace(settings, reserve_bytes=reserve)
    try:
        action(told)
    except NoSpace as error:
        wanted = getattr(error, "wanted_bytes", None)
        # A disk that turns out to be full says nothing of how much more there was to come: all that can go goes.
        if not make_room(root, evict, None if wanted is None else wanted + reserve):
            raise NoSpace(
                f"{error} Nothing on this worker can give way: what is in its cache is in use, or there is none.",
                uri=error.uri, phase=error.phase,
            ) from error  # fmt: skip
        action(told)


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


def _is_enough(root: str, wanted_bytes: int | None) -> bool:
    if wanted_bytes is None:
        return False
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize >= wanted_bytes
