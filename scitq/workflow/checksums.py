"""Checksums of inputs on this machine, computed when a report is asked for them: the cache tells their versions by time alone.

Only of files that are still what was read then, by their time of change and number; of others nobody can say any more.
"""

from __future__ import annotations

import hashlib
import os

from scitq.errors import ScitqError
from scitq.fetch.uri import parse
from scitq.workflow.reportfacts import Facts, File


def compute(facts: Facts) -> None:
    """Give the inputs that facts tell of their SHA-256, where that can be had. Takes as long as reading them."""
    for source in facts.sources:
        if source.files is None:
            continue
        bare = source.address.partition("|")[0]
        for number, file in enumerate(source.files):
            if (digest := _sha256(bare, file)) is not None:
                facts.checksums[bare, file.name, file.mark] = digest
                source.files[number] = file._replace(mark=f"sha256:{digest}")


def _sha256(address: str, file: File) -> str | None:
    path = _path(address, file.name)
    if path is None or file.mark is None or _mark(path) != file.mark:
        return None
    try:
        with open(path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None
    return digest if _mark(path) == file.mark else None


def _path(address: str, name: str) -> str | None:
    """Where the file of that name was among what was read at an address; it may be gone."""
    try:
        there = parse(address)
    except ScitqError:
        return None
    if not there.is_local:
        return None
    path = there.path.rstrip("/")
    if os.path.basename(path) == name and os.path.isfile(path):
        return path
    return os.path.join(os.path.dirname(path) if there.has_glob else path, name)


def _mark(path: str) -> str | None:
    """What tells its version, as `identities` says it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"time:{found.st_mtime_ns}-{found.st_ino}"
