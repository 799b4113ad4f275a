"""What a driver shows to an agent that others could reach: the text in the file `token` of its root folder.

An agent without that file, as on the driver's own machine, trusts the mode of its socket. It is never said, logged or given to
a task.
"""

from __future__ import annotations

import hmac
import os

NAME = "token"


def read(root: str) -> str | None:
    """The token; None where there is none."""
    try:
        with open(os.path.join(root, NAME), encoding="ascii") as file:
            return file.read().strip() or None
    except FileNotFoundError:
        return None


def header(token: str | None) -> str:
    """The line that shows it, for a request."""
    return "" if token is None else f"Authorization: Bearer {token}\r\n"


def is_shown(token: str, headers: dict[str, str]) -> bool:
    """Whether a request shows it."""
    return hmac.compare_digest(headers.get("authorization", "").encode(), f"Bearer {token}".encode())
