"""What goes with a state file to another machine: the logs and outputs of its side folder, and what its tasks' storages take.

Locks, the local worker's folder and old backups belong to a machine and stay. A file is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from scitq.errors import MoveFailed

FOLDERS = ("logs", "outputs", "incoming")
RCLONE = "rclone.conf"


def contents(side: Path) -> dict[str, list[int]]:
    """The files that go along, by name: size and time of the last change."""
    found = {}
    for top in FOLDERS:
        for folder, _, names in os.walk(side / top):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    facts = path.lstat()
                    found[str(path.relative_to(side))] = [facts.st_size, int(facts.st_mtime)]
    return found


def missing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What they have and we do not, or not so."""
    return sorted(name for name, facts in theirs.items() if ours.get(name) != facts)


def pack(side: Path, names: Iterable[str], sink: IO[bytes]) -> None:
    """Write files of the side folder as a tar. One that has gone meanwhile is passed over."""
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                archive.add(side / name, name, recursive=False)


def unpack(side: Path, source: IO[bytes]) -> int:
    """Put what comes in a tar into the side folder, each file whole or not at all; returns how many.

    Raises:
        MoveFailed: it would lie elsewhere, or is no file.
    """
    count = 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            _take(side, member, archive)
            count += 1
    return count


def _take(side: Path, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    parts = member.name.split("/")
    if parts[0] not in FOLDERS or len(parts) < 2 or not set(parts).isdisjoint(("", ".", "..")):
        raise MoveFailed(f"{member.name!r} does not belong in a side folder; nothing more is taken.")
    target = side.joinpath(*parts)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.parent.resolve() != side.resolve().joinpath(*parts[:-1]):
        raise MoveFailed(f"{member.name!r} would lead out of the side folder; nothing more is taken.")
    part = target.with_name(f".{os.urandom(4).hex()}.part")
    try:
        if member.issym():
            part.symlink_to(member.linkname)
        elif (source := archive.extractfile(member)) is not None:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                while piece := source.read(1 << 20):
                    file.write(piece)
            part.chmod(member.mode & 0o777)
            os.utime(part, (member.mtime, member.mtime))
        else:
            return
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def rclone_file(sections: Mapping[str, Mapping[str, str]]) -> bytes:
    """Sections as rclone reads them."""
    lines = []
    for name, keys in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in keys.items()), ""]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def keep_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, whole or not at all; no bytes: delete it."""
    if not data:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    part.rename(path)
