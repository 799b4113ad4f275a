"""Data: addresses, transports, actions on what arrives, and moving it: `get`, `put`, `copy`, `sync`, `list_content`,
`info`, `delete`, `check_uri`, all synchronous and thread-safe, with one error tree (`scitq.fetch.errors`).

What is named in TRAVELS goes to workers: it imports the standard library, itself and `scitq.errors`, and runs on
Python 3.10. Names are loaded on first use, so that an agent that fetches nothing pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scitq.fetch.settings import Settings
    from scitq.fetch.transfer import check_uri, copy, delete, get, info, list_content, put, recursive_delete, sync
    from scitq.fetch.uri import Address, parse

TRAVELS = (
    "__init__", "actions", "archives", "aria2", "entry", "errors", "expand", "files", "ftp", "ftplines", "getting", "http", "listing",
    "local", "patterns", "programs", "progress", "putting", "rclone", "rclonerun", "reader", "retry", "settings", "syncing", "transfer",
    "transport", "tree", "uri",
)  # fmt: skip
"""The modules that a worker's bundle takes along, with `scitq/errors.py`."""

_HOMES = {
    **dict.fromkeys(
        ("check_uri", "copy", "delete", "get", "info", "list_content", "put", "recursive_delete", "sync"),
        "scitq.fetch.transfer",
    ),
    **dict.fromkeys(("Address", "parse"), "scitq.fetch.uri"),
    "Settings": "scitq.fetch.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scitq.fetch' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


__all__ = [
    "Address", "Settings", "check_uri", "copy", "delete", "get", "info", "list_content", "parse", "put", "recursive_delete", "sync",
]  # fmt: skip
