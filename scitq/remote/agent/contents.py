"""What lies in an output folder: its files by name, with links inside followed. What cannot be brought home is refused.

Looks only; nothing is changed. Names are relative, with slashes; bytes that are no UTF-8 are surrogate escapes.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from scitq.fetch.errors import Collision, EscapesFolder, FetchError, NotFound, Unsupported, of_os_error
from scitq.fetch.retry import Cancel
from scitq.remote.agent.manifest import NAME

MOST_LINKS = 40
_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Found:
    """A file. `place` is where its bytes are, relative to the top: another name than its own when a link leads there."""

    name: str
    place: str
    size: int
    is_shared: bool = False
    """Whether it has other names, perhaps outside: an input that was moved here is still its source's file."""


class Contents:
    """The files and folders of `top`. With `is_lenient`, what is refused otherwise is named in `left_out` instead."""

    def __init__(self, top: str, root: str, key: str, cancel: Cancel, *, is_lenient: bool = False) -> None:
        self.top = top
        self.cancel = cancel
        self.files: list[Found] = []
        self.folders: dict[str, str] = {}
        """Where each is; outer ones come first."""
        self.left_out: list[str] = []
        self._is_lenient = is_lenient
        # The task saw its folder under the slot's name: absolute links that it made into it begin like that.
        self._own = re.compile(
            rf"(?:{re.escape(root)}/(?:slot/[0-9]+|exec/{re.escape(key)})/output|{re.escape(top)})(?:/|\Z)"
        )
        try:
            is_folder = stat.S_ISDIR(os.lstat(top).st_mode)
        except OSError:
            return  # the task deleted it: it left nothing
        if not is_folder:
            raise Unsupported("$OUTPUT is no folder any more: the task put something else there.", phase="collect")
        self._walk("", "", frozenset({""}))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files)

    @property
    def is_plain(self) -> bool:
        """Whether the folder is as it is to arrive: nothing in it is a link, shared, or left out."""
        return (
            not self.left_out
            and all(each.name == each.place and not each.is_shared for each in self.files)
            and all(name == place for name, place in self.folders.items())
        )

    def _walk(self, name: str, place: str, above: frozenset[str]) -> None:
        try:
            with os.scandir(os.path.join(self.top, place) if place else self.top) as found:
                entries = sorted(found, key=lambda each: each.name)
        except OSError as error:
            self._refuse(of_os_error(error, f"$OUTPUT/{printable(name)}", "collect"))
            return
        for entry in entries:
            self.cancel.check("$OUTPUT", "collect")
            try:
                self._take(f"{name}{entry.name}", f"{place}{entry.name}", above)
            except FetchError as error:
                self._refuse(error)
            except OSError as error:
                self._refuse(of_os_error(error, f"$OUTPUT/{printable(name + entry.name)}", "collect"))

    def _take(self, name: str, place: str, above: frozenset[str]) -> None:
        found = os.lstat(os.path.join(self.top, place))
        if stat.S_ISLNK(found.st_mode):
            place = self._follow(name, place)
            found = os.lstat(os.path.join(self.top, place))
        if stat.S_ISREG(found.st_mode):
            if name == NAME:
                raise Collision(f"$OUTPUT/{NAME}: the list of what arrived is kept under this name. Choose another.")
            self.files.append(Found(name, place, found.st_size, found.st_nlink > 1))
        elif stat.S_ISDIR(found.st_mode):
            if place in above:
                raise Unsupported(f"$OUTPUT/{printable(name)}: a link to a folder that it is in; it has no end.")
            self.folders[name] = place
            self._walk(f"{name}/", f"{place}/" if place else "", above | {place})
        else:
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "neither a file nor a folder")
            raise Unsupported(
                f"$OUTPUT/{printable(name)} is {kind}, which cannot be brought home. Delete it in the task."
            )

    def _refuse(self, error: FetchError) -> None:
        if not self._is_lenient:
            raise error
        self.left_out.append(error.message)

    def _follow(self, name: str, place: str) -> str:
        """Where a link leads to, inside; step by step, since every step may be a link."""
        waiting, links = place.split("/")[::-1], 0
        done: list[str] = []
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    raise self._outside(name, place)
                done.pop()
                continue
            here = "/".join([*done, part])
            try:
                is_link = stat.S_ISLNK(os.lstat(os.path.join(self.top, here)).st_mode)
            except OSError:
                raise NotFound(
                    f"$OUTPUT/{printable(name)}: a link to {self._shown(place)}, which is not there.", phase="collect"
                ) from None
            if not is_link:
                done.append(part)
                continue
            links += 1
            if links > MOST_LINKS:
                raise Unsupported(f"$OUTPUT/{printable(name)}: links that lead to one another.", phase="collect")
            text = os.readlink(os.path.join(self.top, here))
            if text.startswith("/"):
                own = self._own.match(text)
                if own is None:
                    raise self._outside(name, place)
                text, done = text[own.end() :], []
            waiting += text.split("/")[::-1]
        return "/".join(done)

    def _outside(self, name: str, place: str) -> FetchError:
        return EscapesFolder(
            f"$OUTPUT/{printable(name)}: a link to {self._shown(place)}, which is not in $OUTPUT. Copy what it is to bring.",
            phase="collect",
        )

    def _shown(self, place: str) -> str:
        try:
            return printable(os.readlink(os.path.join(self.top, place)))
        except OSError:
            return "something"


def printable(name: str) -> str:
    """A name for messages, whatever its bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
