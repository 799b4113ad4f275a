"""Who is in the kept folder of an ended execution: a lock in it, which whoever makes room must have before anything goes.

Whoever is in holds it shared, and so does every process that was started there: it ends with the last of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_FILE = "entered"


def hold(folder: str) -> int:
    """Be in it until the descriptor is closed, in this process and in those it starts. Raises OSError when it is gone."""
    held = _open(folder)
    fcntl.flock(held, fcntl.LOCK_SH)
    os.set_inheritable(held, True)
    return held


@contextlib.contextmanager
def emptying(folder: str) -> Iterator[bool]:
    """Keep others out while something of it is taken away; False when somebody is in it."""
    try:
        held = _open(folder)
    except OSError as error:
        # On a disk that is too full even for that nobody is in one that has no such file; else it went meanwhile.
        yield error.errno in (errno.ENOSPC, errno.EDQUOT)
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, _FILE))  # whoever has it open finds nothing to be in
    finally:
        os.close(held)


def _open(folder: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(os.path.join(folder, _FILE), flags, 0o600)
