"""What an output folder says of itself: `.scitq-manifest.json`, who wrote it, whether it is complete, which files.

Written twice: before the first file, as a claim, and after the last one was found to have arrived. A claim also names
what the same task left there before and is to go (`stale`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

NAME = ".scitq-manifest.json"
LONGEST_BYTES = 256 << 20

Row = tuple[str, int, "str | None"]
"""Name, size, MD5 if it is known."""


@dataclass(frozen=True)
class Manifest:
    """One of them, read or to be written."""

    owner: str | None
    execution: Any
    is_complete: bool
    files: list[Row] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    def is_of(self, owner: str | None) -> bool:
        """Whether the same task wrote it. Nobody's is nobody's."""
        return owner is not None and self.owner == owner

    @property
    def names(self) -> set[str]:
        """All that its owner has put there."""
        return {row[0] for row in self.files} | set(self.stale)

    def text(self) -> bytes:
        """As it is written."""
        said: dict[str, Any] = {
            "scitq": 1,
            "owner": self.owner,
            "execution": self.execution,
            "complete": self.is_complete,
        }
        said["files"] = self.files
        if self.stale:
            said["stale"] = self.stale
        return json.dumps(said, separators=(",", ":")).encode("ascii") + b"\n"


def parse(data: bytes | None) -> Manifest | None:
    """None when it is none of ours, or damaged."""
    try:
        said = json.loads(data or b"")
        files = [_row(each) for each in said["files"]]
        stale = [str(each) for each in said.get("stale", ())]
        if said["scitq"] != 1 or not isinstance(said["complete"], bool):
            return None
        return Manifest(said["owner"], said["execution"], said["complete"], files, stale)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _row(said: Any) -> Row:
    name, size, md5 = said
    return str(name), int(size), None if md5 is None else str(md5)
