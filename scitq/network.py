"""Hearing from the kernel that the network changed: a cable, an address, a route. Linux only; elsewhere nobody tells."""

from __future__ import annotations

import contextlib
import socket

# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


def listen() -> socket.socket | None:
    """A socket that can be read when something changed; None where there is no such thing."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError:
        return None
    try:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
    except OSError:  # a sandbox may forbid it
        sock.close()
        return None
    return sock


def drain(sock: socket.socket) -> None:
    """Read what was told; what it was does not matter."""
    with contextlib.suppress(OSError):  # nothing more; or more than the kernel kept for us
        while sock.recv(1 << 16):
            pass
