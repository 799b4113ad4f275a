"""Unix sockets in a folder whose path may be longer than a socket address can hold.

Both ends use this: the agent and its keeper to listen, the laptop and the agent to connect.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 100
"""Bytes of a path that every system accepts in a Unix socket address (Linux: 107, macOS: 103)."""


@contextmanager
def _address(root: str, name: str) -> Iterator[str]:
    """An address of `root/name` that is short enough."""
    path = os.path.join(root, name)
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(f"{path}: too long for a Unix socket on this system ({LONGEST} bytes); use a shorter folder")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def connect(root: str, name: str) -> socket.socket:
    """A connection to the socket `name` in the folder `root`; OSError when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(root, name) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(root: str, name: str) -> socket.socket:
    """Listen at `root/name` (mode 0600). Only the holder of the matching lock calls this.

    The socket is made under a neighbouring name and renamed over the old one, so a client finds the dead one or the
    listening one, never none and never one that does not listen yet.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = os.path.join(root, name + ".new")
    try:
        if os.path.lexists(fresh):
            os.unlink(fresh)
        mask = os.umask(0o177)
        try:
            with _address(root, name + ".new") as address:
                listener.bind(address)
        finally:
            os.umask(mask)
        listener.listen(64)
        os.rename(fresh, os.path.join(root, name))
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
