"""What can go wrong with data, in one tree. Each error has `uri`, `phase` and `retryable`.

    FetchError (a ScitqError)
    ├── BadURI (BadInput)           not an address, or one that cannot be meant
    ├── Unsupported (NotSupported)  this protocol or this version cannot do that
    ├── RemoteUnknown (BadInput)    no remote of that name in the rclone configuration
    ├── ToolMissing                 rclone, aria2c or zstd is absent or too old
    ├── NotFound
    ├── AccessDenied
    ├── NoSpace                     here or at the destination
    ├── Collision                   something else is there already; nothing was overwritten
    ├── EscapesFolder               an archive or an address leads out of the folder it was given
    ├── BadArchive                  damaged, cut short, or no archive at all
    ├── TimedOut                    the whole took longer than it may
    ├── Cancelled
    └── Interrupted (Transient)     worth another try
        ├── Stalled                 no byte for too long
        ├── Throttled               the server asks to wait; `retry_after_s`
        └── ChecksumMismatch        what arrived is not what the source says it has

`scitq.errors` travels to workers together with this package, so that there is one tree and one `Transient` everywhere.
"""

from __future__ import annotations

import errno
from typing import Any

from scitq.errors import BadInput, NotSupported, ScitqError, Transient


class FetchError(ScitqError):
    """Root of what concerns data. `uri` never holds a secret."""

    uri: str = ""
    phase: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the same again may succeed."""
        return isinstance(self, Transient)


class BadURI(FetchError, BadInput):
    """Not an address, or one that cannot be meant."""


class Unsupported(FetchError, NotSupported):
    """This protocol, or this version, cannot do that."""


class RemoteUnknown(FetchError, BadInput):
    """No remote of that name is configured."""


class ToolMissing(FetchError):
    """A program that this needs is absent or too old."""


class NotFound(FetchError):
    """There is nothing at that address."""


class AccessDenied(FetchError):
    """The source or the destination says no."""


class NoSpace(FetchError):
    """The disk, or the quota, is full."""


class Collision(FetchError):
    """Something else is there already; it was not overwritten."""


class EscapesFolder(FetchError):
    """A name leads out of the folder that it must stay in."""


class BadArchive(FetchError):
    """Damaged, cut short, or not an archive."""


class TimedOut(FetchError):
    """The whole took longer than it may."""


class Cancelled(FetchError):
    """Somebody asked to stop."""


class Interrupted(FetchError, Transient):
    """The connection or the server failed; the same again may succeed."""

    is_exhausted = False  # it was tried again often enough


class Stalled(Interrupted):
    """Not a byte came for too long."""


class Throttled(Interrupted):
    """The server asks to come back later: `retry_after_s`, or None."""

    retry_after_s: float | None = None


class ChecksumMismatch(Interrupted):
    """What arrived is not what the source says it has."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def of_os_error(error: OSError, path: str, phase: str, **parts: Any) -> FetchError:
    """What an operating system's error means to us."""
    if error.errno in _FULL:
        return NoSpace(
            f"{path}: no space left on its disk. Free some, or choose another folder.", uri=path, phase=phase, **parts
        )
    if error.errno in _DENIED:
        return AccessDenied(f"{path}: {error.strerror}.", uri=path, phase=phase, **parts)
    if error.errno in _ABSENT:
        return NotFound(f"{path}: {error.strerror}.", uri=path, phase=phase, **parts)
    if error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY):
        return Collision(f"{path}: {error.strerror}.", uri=path, phase=phase, **parts)
    if error.errno == errno.ENAMETOOLONG:
        return BadURI(f"{path[:80]}...: a name in it is too long for this file system.", uri=path, phase=phase, **parts)
    return FetchError(f"{path}: {error.strerror or error}.", uri=path, phase=phase, **parts)
