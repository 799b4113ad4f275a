"""Which keys of hosts were accepted: the user's known_hosts and the system's, then scitq's own.

Only files are looked at here; who shows which key is found out by `ssh`. Nothing is accepted but by `accept`.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PORT = 22


@dataclass(frozen=True)
class HostKey:
    """A public key of a host, as base64 text, and its kind (ssh-ed25519 and others)."""

    kind: str
    key: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen shows it."""
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind.removeprefix('ssh-').removeprefix('ecdsa-sha2-').upper()} {self.fingerprint}"


@dataclass(frozen=True)
class Known:
    """A line of a known_hosts file about the host that was asked for."""

    key: HostKey
    file: Path
    line: int
    is_revoked: bool = False


def own_file() -> Path:
    """Where scitq keeps those that it was told to accept."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "scitq" / "known_hosts"


def name_of(host: str, port: int = PORT) -> str:
    """How known_hosts names a host."""
    return host if port == PORT else f"[{host}]:{port}"


def find(name: str, files: Iterable[Path]) -> list[Known]:
    """What the files, and scitq's own, say of a host; files that are not there say nothing."""
    found = []
    for file in (*files, own_file()):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, 1):
            if (known := _parsed(line, name, file, number)) is not None:
                found.append(known)
    return found


def accept(name: str, keys: Sequence[HostKey]) -> Path:
    """Add keys of a host to scitq's own file; lines of it that say otherwise go. Returns the file."""
    file = own_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    kinds = {key.kind for key in keys}
    kept = [
        line
        for number, line in enumerate(lines, 1)
        if (known := _parsed(line, name, file, number)) is None or known.key.kind not in kinds or known.is_revoked
    ]
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in [*kept, *(f"{name} {key.kind} {key.key}" for key in keys)])
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    return file


def _parsed(line: str, name: str, file: Path, number: int) -> Known | None:
    """A line of known_hosts, if it is about this host and says something that we understand."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    mark = words.pop(0) if words[0].startswith("@") else ""
    if mark not in ("", "@revoked") or len(words) < 3 or not _is_meant(words[0], name):
        return None
    try:
        base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Known(HostKey(words[1], words[2]), file, number, mark == "@revoked")


def _is_meant(patterns: str, name: str) -> bool:
    """Whether the first field of a line means this host: patterns with * and ?, !patterns, or one hash."""
    if patterns.startswith("|1|"):
        salt, _, digest = patterns[3:].partition("|")
        try:
            wanted = base64.b64decode(digest, validate=True)
            made = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(wanted, made)
    is_meant = False
    for pattern in patterns.split(","):
        # Brackets stand for themselves here: [host]:port.
        matches = fnmatch.fnmatchcase(name.lower(), pattern.lstrip("!").lower().replace("[", "[[]"))
        if matches and pattern.startswith("!"):
            return False
        is_meant = is_meant or matches
    return is_meant
