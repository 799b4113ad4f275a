"""Refuses folders in which SQLite's WAL mode is not safe: network file systems and synchronised folders.

WAL mode needs shared memory and locks that all users of the file see alike; network and sharing file systems do not give
them, or only say so. A synchronising program copies the file and its WAL at different instants.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path, PurePath

from scitq.errors import UnsafeFolder

# Types of /proc/self/mountinfo (Linux) and f_fstypename (macOS).
_NETWORK = {
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "ncpfs", "coda", "webdav"), ""
    ),
    **dict.fromkeys(
        ("lustre", "gpfs", "beegfs", "fhgfs", "ceph", "glusterfs", "gfs2", "ocfs2", "orangefs", "pvfs2"), ""
    ),
    **dict.fromkeys(("panfs", "wekafs", "quobyte", "moosefs", "davfs", "davfs2"), ""),
    **dict.fromkeys(
        ("9p", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "hgfs", "drvfs", "grpcfuse", "fakeowner"), "shared"
    ),
}
# `fuse.*` may be anything; these are local disks.
_LOCAL_FUSE = {"fuseblk", "fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.ext2", "fuse.bindfs"}

_SYNCED_NAMES = {
    "dropbox": "Dropbox",
    "onedrive": "OneDrive",
    "google drive": "Google Drive",
    "googledrive": "Google Drive",
    "my drive": "Google Drive",
    "mobile documents": "iCloud Drive",
    "icloud drive": "iCloud Drive",
    "icloud~com~apple~clouddocs": "iCloud Drive",
    "nextcloud": "Nextcloud",
    "owncloud": "ownCloud",
    "pcloud drive": "pCloud",
    "pclouddrive": "pCloud",
    "megasync": "MEGA",
}
# Files that a synchronising program leaves in the top folder of what it keeps. (~/.dropbox is a folder, and means nothing.)
_SYNCED_FILES = {
    ".dropbox": "Dropbox",
    ".nextcloudsync.log": "Nextcloud",
    ".owncloudsync.log": "ownCloud",
}
_SYNCED_FOLDERS = {".dropbox.cache": "Dropbox", ".stfolder": "Syncthing", ".tmp.drivedownload": "Google Drive"}


@dataclass(frozen=True)
class Mount:
    """A line of the mount table."""

    point: str
    kind: str
    source: str
    options: str = ""


def refuse_unsafe(path: Path) -> None:
    """Raise UnsafeFolder if the state file `path` would be on a network or in a synchronised folder."""
    path = Path(os.path.realpath(path))
    reason = _network_reason(path) or synced_reason(path.parent) or _marked_reason(path.parent)
    if reason:
        raise UnsafeFolder(
            f"{path} {reason}. Put the state file on a local disk of this machine instead, for example "
            f"{Path.home() / path.name}, or in /var/tmp; inputs and outputs may stay where they are.",
            path=path,
            reason=reason,
        )


def mount_of(mountinfo: str, path: PurePath) -> Mount | None:
    """The mount that `path` (absolute, without links) lies in, by a mount table in the form of /proc/self/mountinfo."""
    best: Mount | None = None
    text = str(path)
    for line in mountinfo.splitlines():
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/root rw,errors=continue
        left, dash, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 2:
            continue
        point = _unescape(fields[4])
        inside = text == point or text.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one hides the earlier.
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, rest[0], _unescape(rest[1]), rest[2] if len(rest) > 2 else "")
    return best


def network_reason(mount: Mount) -> str | None:
    """Why a state file cannot be on this mount; None if it can."""
    kind = mount.kind.lower()
    if kind in _LOCAL_FUSE:
        return None
    if kind in _NETWORK or kind == "fuse" or kind.startswith(("fuse.", "nfs", "smb", "osxfuse", "macfuse")):
        what = "a sharing file system" if _NETWORK.get(kind) == "shared" else "a network file system"
        if "drvfs" in mount.options or kind == "drvfs":
            what = "a Windows drive"
        elif kind.startswith(("fuse", "osxfuse", "macfuse")):
            what = "a file system made by a program (FUSE)"
        return f"is on {what} ({mount.kind} {mount.source} at {mount.point}), where SQLite's locks cannot be relied on"
    return None


def synced_reason(folder: PurePath) -> str | None:
    """Why not in this folder, by the names on its way; None if they say nothing."""
    parts = [part.casefold() for part in folder.parts]
    for n, part in enumerate(parts):
        product = _SYNCED_NAMES.get(part)
        # "Dropbox (Institute)", "OneDrive - University", "GoogleDrive-me@lab.org"
        for name in ("dropbox (", "onedrive - ", "googledrive-", "onedrive-"):
            if part.startswith(name):
                product = _SYNCED_NAMES[name.rstrip(" (-")]
        if product is None and parts[max(0, n - 2) : n] == ["library", "cloudstorage"]:  # macOS: one folder per service
            product = "a cloud service"
        if product:
            return f"is in a folder that {product} synchronises ({folder.parts[n]}); it would copy a half-written file"
    return None


def _marked_reason(folder: Path) -> str | None:
    for place in (folder, *folder.parents):
        for name, product in _SYNCED_FILES.items():
            if (place / name).is_file():
                return f"is in {place}, which {product} synchronises; it would copy a half-written file"
        for name, product in _SYNCED_FOLDERS.items():
            if (place / name).is_dir():
                return f"is in {place}, which {product} synchronises; it would copy a half-written file"
    return None


def _network_reason(path: Path) -> str | None:
    if sys.platform == "linux":
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
                mount = mount_of(table.read(), path)
        except OSError:
            return None  # no /proc: nothing is known, and that is no reason
    else:
        mount = _bsd_mount_of(path)
    return network_reason(mount) if mount else None


def _bsd_mount_of(path: Path) -> Mount | None:
    """macOS: the answer of statfs(2), of which Python only shows the numbers."""
    import ctypes

    answer = ctypes.create_string_buffer(4096)
    libc = ctypes.CDLL(None)
    statfs = getattr(libc, "statfs$INODE64", None) or libc.statfs
    if statfs(os.fsencode(path.parent), answer) != 0:
        return None
    # struct statfs: f_fstypename[16] at 72, f_mntonname[1024] at 88, f_mntfromname[1024] at 1112
    kind, point, source = (
        answer.raw[start:end].partition(b"\0")[0].decode(errors="replace")
        for start, end in ((72, 88), (88, 1112), (1112, 2136))
    )
    return Mount(point, kind, source)


def _unescape(field: str) -> str:
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(code, char)
    return field
