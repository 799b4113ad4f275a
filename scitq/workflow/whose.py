"""Whose state file a workflow is in: that of `engine=`, `file=` or `server=`, else the one that `scitq.open()` finds."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from scitq.engine import Engine, find
from scitq.errors import BadInput
from scitq.workflow import mode

log = logging.getLogger("scitq")
# Workflows of one file share an engine.
_engines: dict[Path, Engine] = {}
_warned: set[str] = set()


def engine_of(engine: Engine | None, file: Any, server: Any) -> Engine:
    """The engine that was meant.

    Raises:
        BadInput: several were given, or none of them.
    """
    if sum(each is not None for each in (engine, file, server)) > 1 and not (file is None and engine is None):
        raise BadInput("engine=, file= and server= all say which state file is meant: give one of them.")
    if engine is None and isinstance(server, Engine):
        engine = server
    if engine is not None:
        if not isinstance(engine, Engine):
            raise BadInput(f"engine= takes what scitq.open() returns, not {type(engine).__name__}.")
        return engine
    if server is not None and not isinstance(server, str | os.PathLike):
        found = getattr(server, "engine", None)
        if not isinstance(found, Engine):
            raise BadInput(f"server= takes a scitq.lib.Server, an engine or a state file, not {type(server).__name__}.")
        return found
    if isinstance(server, os.PathLike) or (isinstance(server, str) and (os.sep in server or server.endswith(".scitq"))):
        file = server
    path = Path(os.path.realpath(find(mode.current.file if file is None else file)))
    if server is not None and file is None and str(server) not in _warned:
        _warned.add(str(server))
        log.warning("There is no server %r in this scitq: the queue is a file, %s.", server, path)
    known = _engines.get(path)
    if known is None or known._closed or known._pid != os.getpid():
        known = _engines[path] = Engine(path)
    return known


@atexit.register
def _release() -> None:
    for engine in _engines.values():
        with contextlib.suppress(Exception):
            engine.close()
