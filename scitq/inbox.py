"""The engine's methods about what needs a person. What is said, and when, is in `notices`, which is loaded when asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.noticing import Notice


class Inbox:
    """What an `Engine` can say of what needs a person. A part of that class, not one of its own."""

    def notices(self, *, dismissed: bool = False) -> list[Notice]:
        """What needs you, most pressing first; with `dismissed` also what you put aside. Cheap: it may be asked every second."""
        from scitq import notices

        return notices.found(cast("Engine", self), dismissed=dismissed)

    def notices_seen(self, seen: Iterable[Notice] | None = None) -> None:
        """Mark notices as read (those that were shown; all of them, if not given): they are new again when something changes."""
        from scitq import notices

        notices.see(cast("Engine", self), seen)

    def dismiss(self, key: str) -> Notice:
        """Put a notice aside until it changes: another failure, say, or the same trouble again after it was over.

        Raises:
            BadInput: there is no such notice.
        """
        from scitq import notices

        return notices.dismiss(cast("Engine", self), key)
