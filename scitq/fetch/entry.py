"""What is known of a file or folder at an address: one row of a listing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FILE, DIR, LINK, UNKNOWN = "file", "dir", "link", "unknown"


@dataclass(frozen=True)
class Entry:
    """One file or folder. A folder's `name` and `rel_name` end in a slash, and its size is 0. None: not known."""

    name: str
    """The whole address."""
    rel_name: str
    """Relative to the folder that was listed; of a single file its name."""
    size: int | None
    creation_date: datetime | None = None
    modification_date: datetime | None = None
    md5: str | None = None
    type: str = FILE
    etag: str | None = None
    """What the server calls this version of it, where it does."""

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.type == DIR
