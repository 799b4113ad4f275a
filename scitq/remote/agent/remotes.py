"""The rclone remotes that the driver has told this worker about: a private file in memory, gone when the agent ends.

Only what the driver sends is in it: the sections that this worker's executions name. It never lies on a disk where
there is a memory file system, and nothing of it is ever logged.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import root as roots
from scitq.remote.agent import strays

if TYPE_CHECKING:
    from scitq.fetch.retry import Cancel
    from scitq.fetch.settings import Settings

_NAME = "rclone.conf"


class BadRemotes(Exception):
    """What was sent is no configuration; the text says why, and holds nothing of it."""


class PrivateFile:
    """A file with secrets, in memory where that can be had, which only this user may read."""

    def __init__(self, root: str, name: str) -> None:
        self._root, self._name = root, name
        self.folder: str | None = None
        """Where it is, once there is one."""

    @property
    def path(self) -> str | None:
        """The file, once there is one."""
        return None if self.folder is None else os.path.join(self.folder, self._name)

    def write(self, text: str) -> None:
        """All of it anew."""
        if self.folder is None:
            self.folder = make_folder(self._root)
        path = os.path.join(self.folder, self._name)
        handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, 0o600)
            file.write(text)
        os.rename(f"{path}.new", path)

    def forget(self) -> None:
        """Leave nothing behind."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, self._name))
        if self.folder != self._root:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)
        self.folder = None


class Remotes(PrivateFile):
    """The sections known so far, by name."""

    def __init__(self, root: str) -> None:
        super().__init__(root, _NAME)
        self.program: str | None = None
        """The rclone program to use; None: the one that is found."""
        self.sections: dict[str, dict[str, str]] = {}
        self._read()

    def take(self, said: Any) -> None:
        """Add the sections of one command, and have the file hold them before this returns."""
        if not isinstance(said, dict) or not isinstance(said.get("config", {}), dict):
            raise BadRemotes("remotes needs an object with config: an object of sections")
        program = said.get("rclone")
        if program is not None and not (isinstance(program, str) and program.startswith("/")):
            raise BadRemotes("remotes: rclone must be an absolute path, or null")
        fresh = {_checked(name): _section(name, values) for name, values in said.get("config", {}).items()}
        self.program = program or self.program
        if not fresh:
            return
        self.sections.update(fresh)
        self._write()

    def has(self, names: list[str]) -> bool:
        """Whether all of these are known."""
        return all(name in self.sections for name in names)

    def settings(self, cancel: Cancel) -> Settings:
        """How transfers of this worker behave; loads what moves data."""
        strays.expect(self._root)
        from scitq.fetch.settings import Settings

        return Settings(
            cancel=cancel, rclone_config=self.path, rclone_program=self.program,
            warn=lambda text: roots.say(self._root, "agent", text),
        )  # fmt: skip

    def _write(self) -> None:
        lines = []
        for name, values in self.sections.items():
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
        self.write("\n".join(lines))

    def _read(self) -> None:
        """What an agent that was killed here has left: its executions go on, though the driver may be asleep."""
        for folder in places(self._root):
            path = os.path.join(folder, _NAME)
            if not is_private(folder) or not os.path.isfile(path):
                continue
            with open(path, encoding="utf-8") as file:
                values: dict[str, str] = {}
                for line in file.read().splitlines():
                    if line.startswith("[") and line.endswith("]"):
                        values = self.sections.setdefault(line[1:-1], {})
                    elif line:
                        key, _, value = line.partition(" = ")
                        values[key] = value
            self.folder = folder
            return


def places(root: str) -> list[str]:
    """Where secrets may lie, best first: file systems in memory, then the root folder."""
    found = os.stat(root)
    # By its number: a hash of its path would be the same, and loading a library for that cost 4 MB of memory.
    name = f"scitq-{os.getuid()}-{found.st_dev:x}-{found.st_ino:x}"
    bases = ["/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")]
    return [*(os.path.join(base, name) for base in bases if base.startswith("/")), root]


def make_folder(root: str) -> str:
    """The best of these that can be had."""
    *in_memory, last = places(root)
    for folder in in_memory:
        with contextlib.suppress(FileExistsError, OSError):
            os.mkdir(folder, 0o700)
        if is_private(folder):
            return folder
    roots.say(root, "agent", "no memory file system for the storage configuration: it lies in the root folder, 0600")
    return last


def is_private(folder: str) -> bool:
    """Whether it is a folder of ours that nobody else may enter: the name could have been taken by another user."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _checked(name: str) -> str:
    if not name or set(name) & set("[]\n\r\0"):
        raise BadRemotes("remotes: a name that no section can have")
    return name


def _section(name: str, values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        raise BadRemotes(f"remotes: {name} must be an object of texts")
    found = {}
    for key, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else str(value)
        if set(key) & set("\n\r\0=[") or set(text) & set("\n\r\0") or not key.strip():
            raise BadRemotes(f"remotes: a value of {name} cannot stand in a configuration file")
        found[key] = text
    return found
