"""scitq itself for another host: its package and those that it needs, as they are installed here.

What is compiled among them runs only where Python and platform are the same, which `Kind` tells.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata as metadata
import platform
import re
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PACKAGE = Path(__file__).resolve().parent.parent
_SKIPPED = ("__pycache__", ".pyc")
NAME = "scitq"


@dataclass(frozen=True)
class Kind:
    """What compiled packages depend on."""

    version: str
    platform: str
    abi: str
    libc: str

    @classmethod
    def here(cls) -> Kind:
        """Of this process."""
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        abi = sysconfig.get_config_var("SOABI") or ""
        return cls(version, sysconfig.get_platform(), str(abi), platform.libc_ver()[0])


def requirements() -> list[str]:
    """What scitq needs, as pip is told it."""
    return [text for text in metadata.requires(NAME) or [] if "extra ==" not in text]


def files() -> dict[str, Path]:
    """Every file of scitq and of what it needs, by its path below site-packages."""
    found = {
        str(path.relative_to(_PACKAGE.parent)): path
        for path in sorted(_PACKAGE.rglob("*"))
        if _is_wanted(path.name, path)
    }
    seen: set[str] = {NAME}
    left = [_name(text) for text in requirements()]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            there = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform, or left out here: what works here works there
        for file in there.files or []:
            path = Path(str(there.locate_file(file)))
            if not str(file).startswith("..") and _is_wanted(file.name, path):
                found[str(file)] = path
        left += [_name(text) for text in there.requires or [] if "extra ==" not in text]
    return found


def digest(found: dict[str, Path]) -> str:
    """What tells one such set from another: the content of our own modules, the sizes of the rest (whose names carry versions)."""
    seen = hashlib.sha256()
    for name, path in sorted(found.items()):
        content = path.read_bytes() if name.startswith(f"{NAME}/") else str(path.stat().st_size).encode()
        seen.update(f"{name}\0{len(content)}\0".encode() + content)
    return seen.hexdigest()


def pack(found: dict[str, Path], sink: IO[bytes]) -> None:
    """Write them as a compressed tar, while it is read at the other end."""
    # The fastest: the files are many and small, and a fifth of their size is saved by more.
    with (
        gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for name, path in sorted(found.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)


def _is_wanted(name: str, path: Path) -> bool:
    return not name.endswith(_SKIPPED) and "__pycache__" not in path.parts and path.is_file()


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0] if found else requirement).lower()
