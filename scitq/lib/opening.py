"""Which state file a `Server` means: what version 1 was told as the address of a server."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Any

import scitq.engine
from scitq.engine import Engine
from scitq.errors import BadInput

log = logging.getLogger("scitq")
_warned: set[str] = set()


def engine_for(server: Any = None, file: str | Path | None = None) -> Engine:
    """The engine that is meant: one that is given, of a file that is given, or of the one that `scitq.open` would take.

    An address (`127.0.0.1`, the name of a host) was that of a server of version 1: there is none, and that is said once.
    """
    if isinstance(server, Engine):
        return server
    if isinstance(inner := getattr(server, "engine", None), Engine):
        return inner
    if server is not None and not isinstance(server, str | os.PathLike):
        raise BadInput(
            f"a server is a state file, an engine, or (for nothing) an address, not {type(server).__name__}."
        )
    if file is None and server is not None and is_file(server):
        server, file = None, Path(server)
    engine = scitq.engine.open(file)
    if server is not None and str(server) not in _warned:
        _warned.add(str(server))
        log.warning("There is no server %r in this scitq: the queue is a file, %s.", str(server), engine.path)
    return engine


def is_file(server: str | os.PathLike[str]) -> bool:
    """Whether a text names a state file, and no address."""
    return isinstance(server, os.PathLike) or ("://" not in server and (os.sep in server or server.endswith(".scitq")))


def addresses(value: Any) -> Any:
    """What version 1 took as input or resource: spaces separate addresses, unless a file of that very name is there.

    None and '' are none. Everything else is an address, or several, as `Engine.submit` takes them.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        if " " not in value.strip() or Path(value).exists():
            return value if Path(value).exists() else value.strip()
        return value.split()
    if isinstance(value, list | tuple):
        return [found for one in value for found in _listed(addresses(one))]
    return value


def options(value: Any) -> Any:
    """Options of containers; '' is none."""
    return shlex.split(value) or None if isinstance(value, str) else value or None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
