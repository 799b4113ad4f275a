"""Where control groups can be made on this system, or why they cannot: from what it says of its hierarchies."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

CONTROLLERS = {"memory": "memory", "cpus": "cpu"}
"""What can be limited, and the system's name for who does."""


def folder_for(what: str, proc: str, known: Collection[str]) -> str:
    """In which folder groups that limit this must be made. OSError: there is none, and why."""
    name = CONTROLLERS[what]
    groups = [line.split(":", 2) for line in read(f"{proc}/cgroup").splitlines()]
    v2_mount = None
    for mount, root, kind, options in _mounts(f"{proc}/mountinfo"):
        if kind == "cgroup" and name in options.split(","):
            path = next((path for _, names, path in groups if name in names.split(",")), "/")
            return _below(mount, root, path)
        if kind == "cgroup2":
            v2_mount = (mount, root)
    if not groups:
        raise OSError("this system has no control groups")
    path = next((path for number, _, path in groups if number == "0"), "/")
    if v2_mount is None or name not in read(f"{_below(*v2_mount, path)}/cgroup.controllers").split():
        raise OSError(f"no controller of {what} is available")
    own = _below(*v2_mount, path)
    for folder in (own, os.path.dirname(own)):
        # All processes of a hierarchy are in one group each: what is limited second is limited where the first is.
        if (not known or folder in known) and name in read(f"{folder}/cgroup.subtree_control").split():
            return folder
        if own == v2_mount[0] or not _is_free(own):
            break
    raise OSError(f"{own} may not be divided for {what} (try: systemd-run --user --scope scitq up)")


def _is_free(group: str) -> bool:
    """Whether a group has no limits of its own: leaving it escapes none."""
    values = [read(f"{group}/{name}").split()[:1] for name in ("memory.max", "memory.high", "cpu.max")]
    return all(value in ([], ["max"]) for value in values)


def _below(mount: str, root: str, path: str) -> str:
    """Where a group of a hierarchy is seen; in a container only part of the hierarchy (from `root` on) is mounted."""
    inside = os.path.relpath(path, root) if path.startswith(root.rstrip("/") + "/") or path == root else "."
    return os.path.normpath(os.path.join(mount, inside))


def _mounts(path: str) -> Iterator[tuple[str, str, str, str]]:
    """(place, root, kind, options) of each mounted file system."""
    for line in read(path).splitlines():
        fields, _, rest = line.partition(" - ")
        yield fields.split()[4], fields.split()[3], rest.split()[0], rest.split()[-1]


def is_v2(folder: str) -> bool:
    """Whether a group is one of version 2."""
    return os.path.exists(f"{folder}/cgroup.controllers")


def read(path: str) -> str:
    """A file's text; empty when it is not there or not for us."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
