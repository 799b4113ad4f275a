"""What a fork does to open stores: the child's are dead, the parent's unharmed.

SQLite's view of its locks is memory, which a fork copies, while the locks themselves stay with the parent. So in the child
every store refuses work, the lock descriptors are closed (a `flock` lives as long as any copy of its descriptor), and SQLite's
objects are neither used nor finalised. A child may open the file anew: then the inherited connections are closed first,
which with NO_CKPT_ON_CLOSE touches nothing but the child's own memory.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Protocol

import apsw

from scitq.errors import ForkedProcess
from scitq.store import guard


class Forkable(Protocol):
    path: Path

    def before_fork(self) -> bool:
        """Wait for the end of a running transaction, so that the child's copy of SQLite's memory is a quiet one."""

    def after_fork(self) -> None:
        """In the parent: go on."""

    def after_fork_in_child(self) -> list[apsw.Connection]:
        """Be dead, and hand over the connections."""


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_waited_for: list[tuple[Forkable, bool]] = []
_inherited: list[tuple[Path, list[apsw.Connection], bool]] = []
_is_hooked = False
_take_reference: Any = None


def watch(store: Forkable) -> None:
    """Look after `store` at a fork, from now until it is closed or forgotten."""
    global _is_hooked
    _open.add(store)
    if not _is_hooked:
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
        _is_hooked = True


def unwatch(store: Forkable) -> None:
    _open.discard(store)


def every() -> list[Any]:
    """All stores that are open in this process."""
    return list(_open)


def refusal(path: Path) -> ForkedProcess:
    return ForkedProcess(
        f"{path} was opened before this process was forked, and an open SQLite file does not survive a fork. "
        "Open it again here, in the child (scitq.open), or start the child with multiprocessing's 'spawn' method.",
        path=path,
    )


def let_go_of_inherited(path: Path) -> None:
    """Before a forked child opens `path` anew: SQLite would take the parent's locks on it, as it remembers them, for its own."""
    for entry in [entry for entry in _inherited if entry[0] == path]:
        _, connections, was_quiet = entry
        try:
            if not was_quiet:
                raise apsw.ThreadingViolationError("forked inside a transaction")
            for db in connections:
                db.close(True)
        except apsw.Error as error:
            raise ForkedProcess(
                f"{path} was in use at the moment this process was forked, so it cannot be opened here ({error}). "
                "Start the child with multiprocessing's 'spawn' method, or fork before opening.",
                path=path,
            ) from error
        _inherited.remove(entry)


def _before() -> None:
    # Here, not in the child: another thread may be importing at the moment of the fork, and in the child nobody ends that.
    import ctypes

    global _take_reference
    _take_reference = ctypes.pythonapi.Py_IncRef
    _take_reference.argtypes = [ctypes.py_object]
    _waited_for[:] = [(store, store.before_fork()) for store in _open]


def _in_parent() -> None:
    for store, is_quiet in _waited_for:
        if is_quiet:
            store.after_fork()
    _waited_for.clear()


def _in_child() -> None:
    guard.forget()
    for store, is_quiet in _waited_for:
        connections = store.after_fork_in_child()
        _keep_for_ever(connections)
        _inherited.append((store.path, connections, is_quiet))
    _waited_for.clear()
    _open.clear()


def _keep_for_ever(connections: list[apsw.Connection]) -> None:
    """One reference too many: else the interpreter would finalise them at its end, with mutexes in an unknown state."""
    for db in connections:
        _take_reference(db)
