"""One connected agent, as its keeper sees it: bytes that came, bytes that are to go."""

from __future__ import annotations

import json
import socket
from typing import Any


class Channel:
    """One connected agent."""

    __slots__ = ("inbox", "is_agent", "outbox", "sock", "wants_write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.is_agent = False
        self.wants_write = False

    def say(self, message: dict[str, Any]) -> None:
        """Queue one line; it leaves at the end of the round."""
        self.outbox += json.dumps(message).encode("ascii") + b"\n"
