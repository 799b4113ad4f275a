"""What was typed before, in the folder beside the state file: only its owner may read it.

A line that begins with a blank is not kept, and neither is one that sets what is called a token, a key or a password.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory

NAME = "shell-history"
# When the file has grown so large, the older part of it is dropped.
LARGEST = 1 << 20
_SECRET = re.compile(
    r"(?:token|secret|passw|pwd|credential|api_?key|access_?key|private_?key|_key)\w*\s*[=:]\s*\S", re.IGNORECASE
)


def is_kept(line: str) -> bool:
    """Whether a line may be written down."""
    return bool(line.strip()) and line[0] not in " \t" and _SECRET.search(line) is None


class History(FileHistory):
    """The history of a state file; without one, of this session only."""

    def __init__(self, folder: Path | None) -> None:
        self._is_stored = folder is not None
        path = os.devnull if folder is None else str(folder / NAME)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.chmod(path, 0o600)
                _shorten(path)
        super().__init__(path)

    def load_history_strings(self) -> Iterable[str]:
        """What was typed before, the newest first."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def append_string(self, string: str) -> None:
        """A line was typed: it can be had back with ↑ in this session, whatever it is."""
        if string.strip() and (not self._loaded_strings or self._loaded_strings[0] != string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Write it down for later sessions, in one write: several may have the file open."""
        if not self._is_stored or not is_kept(string):
            return
        text = "".join(f"+{line}\n" for line in string.split("\n"))
        with contextlib.suppress(OSError):
            fd = os.open(self.filename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"\n# scitq\n{text}".encode(errors="surrogateescape"))
            finally:
                os.close(fd)


def _shorten(path: str) -> None:
    if os.path.getsize(path) <= LARGEST:
        return
    with open(path, "rb") as file:
        file.seek(-LARGEST // 2, os.SEEK_END)
        rest = file.read()
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(rest[rest.find(b"\n\n") + 1 :])
    os.replace(fresh, path)
