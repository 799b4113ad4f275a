"""Slot folders: made once, reused while a task leaves them untouched, handed over to a task that does not.

    slot/<n>/ work/ input/ output/ temp/ resource/   out err command

A created folder costs 0.1 to 1 ms, so none is made per task. Untouched means: the modification times of the slot and
its five folders are still the 0 they were set to. (Comparing with an earlier time is unsound: the clock behind it
stands still for milliseconds.)
"""

from __future__ import annotations

import os

WORK, INPUT, OUTPUT, TEMP, RESOURCE = FOLDERS = ("work", "input", "output", "temp", "resource")
_MODE = 0o40700
_OPEN = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Slot:
    """One run slot's folder. Paths are relative to the root, which is the keeper's current folder."""

    __slots__ = (
        "command",
        "environment",
        "err",
        "err_path",
        "folder",
        "is_dirty",
        "number",
        "out",
        "out_path",
        "places",
        "work",
    )

    def __init__(self, root: str, number: int) -> None:
        self.number = number
        self.move_to(f"slot/{number}")
        full = f"{root}/{self.folder}"
        self.environment = {
            "INPUT": f"{full}/{INPUT}",
            "OUTPUT": f"{full}/{OUTPUT}",
            "RESOURCE": f"{full}/{RESOURCE}",
            "TEMP": f"{full}/{TEMP}",
        }
        self.out_path, self.err_path = f"{full}/out", f"{full}/err"
        self.command = f"{full}/command"
        self.out = self.err = self.work = -1
        self.is_dirty = False
        """Whether bytes of an earlier task are still in `out` or `err`."""

    def move_to(self, folder: str) -> None:
        """Say where the folder is."""
        self.folder = folder
        self.places = (folder, *(f"{folder}/{name}" for name in FOLDERS))

    @property
    def is_open(self) -> bool:
        """Whether its folder is made and its files are open."""
        return self.out >= 0 and self.work >= 0

    @property
    def is_given(self) -> bool:
        """Whether an earlier keeper has handed the folder over already."""
        return self.folder.startswith("exec/")

    def make(self) -> None:
        """A fresh folder; whatever lay there is put in the trash."""
        self.close()
        if os.path.lexists(self.folder):
            discard(self.folder)
        os.mkdir(self.folder, 0o700)
        for name in FOLDERS:
            os.mkdir(f"{self.folder}/{name}", 0o700)
        self.open()
        self.reset()

    def open(self, is_whole: bool = True) -> None:
        """Open the files of an existing folder. One whose task still runs may have lost its work folder."""
        try:
            self.out = os.open(f"{self.folder}/out", _OPEN, 0o600)
            self.err = os.open(f"{self.folder}/err", _OPEN, 0o600)
            if is_whole:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self.work = os.open(f"{self.folder}/{WORK}", flags)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; the folder stays."""
        for file in (self.out, self.err, self.work):
            if file >= 0:
                os.close(file)
        self.out = self.err = self.work = -1
        self.is_dirty = False

    def reset(self) -> None:
        """Mark all folders as untouched."""
        for place in self.places:
            os.utime(place, (0, 0))

    def clean(self) -> None:
        """Empty the streams for the next task. The journal must already hold what they held."""
        for file, path in ((self.out, self.out_path), (self.err, self.err_path)):
            if os.fstat(file).st_size:
                os.ftruncate(file, 0)
                # ext4 and XFS take a file that was emptied for a document that is being saved, and begin to write it to the
                # disk when it is next closed: at the end of the task, and the next emptying would wait for the disk (0.5 ms,
                # 5 ms when others use it). Closing it once while nothing is in it settles that.
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
        self.is_dirty = False

    def is_untouched(self) -> bool:
        """Whether no file was created, removed or renamed in the slot, and no folder made unreadable."""
        try:
            for place in self.places:
                found = os.lstat(place)
                if found[8] != 0 or found[0] != _MODE:
                    return False
        except OSError:
            return False
        return True

    def is_empty(self) -> bool:
        """Whether the folders are as made, though touched. Resets them then."""
        try:
            if os.stat(self.folder)[8] != 0:
                return False  # touched beside the five folders: the files of the slot may have been replaced
            for place in self.places:
                if os.lstat(place).st_mode != _MODE or (place != self.folder and os.listdir(place)):
                    return False
            self.reset()
        except OSError:
            return False
        return True

    def write_command(self, text: bytes) -> None:
        """Put a script in the slot's `command` file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        is_new = not os.path.lexists(self.command)
        file = os.open(self.command, flags, 0o700)
        try:
            os.ftruncate(file, 0)
            view = memoryview(text)
            while view:
                view = view[os.write(file, view) :]
        finally:
            os.close(file)
        if is_new:
            os.utime(self.folder, (0, 0))

    def give(self, key: str) -> None:
        """Hand the folder over to the execution that used it; this slot needs a new one."""
        if not self.is_given:
            os.rename(self.folder, f"exec/{key}")
        self.close()


def discard(path: str) -> None:
    """Move something into the trash in one step; the agent empties it when it has time."""
    os.rename(path, f"trash/{os.urandom(8).hex()}")


def has_output(folder: str) -> bool:
    """Whether an execution left something in its output folder."""
    try:
        with os.scandir(f"{folder}/{OUTPUT}") as entries:
            return next(entries, None) is not None
    except OSError:
        return False
