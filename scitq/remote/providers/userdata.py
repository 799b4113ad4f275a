"""What a machine is given before it starts: a key by which its sshd proves itself, who may log in, which machine it is. Nothing else.

The host's key is made here, so that it is known before the first connection. Its private half identifies this one machine, and is
in the state file only until the machine runs.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Several machines are deployed at the same time: they share the key of the driver, and the file of known hosts.
_gate = threading.Lock()
LIMIT = 16_384
"""Bytes that every provider takes."""

_QUIET = "systemctl mask --now apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service \
unattended-upgrades.service 2>/dev/null || true"
_SSHD = """HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
PermitRootLogin no
ClientAliveInterval 30
"""


def make_key(comment: str) -> tuple[str, str]:
    """A new ed25519 key: its private half as OpenSSH writes it, its public half in one line."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()).decode()
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment}"


def text(private: str, public: str, driver_key: str, identity: Mapping[str, Any]) -> str:
    """The document for cloud-init. It is JSON, which YAML is a superset of: nothing in it can be taken for anything else."""
    said = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": private, "ed25519_public": public},
        "ssh_authorized_keys": [driver_key],
        "disable_root": True,
        "ssh_pwauth": False,
        "package_update": False,
        "package_upgrade": False,
        "bootcmd": [["sh", "-c", _QUIET]],
        "write_files": [
            {"path": "/etc/ssh/sshd_config.d/10-scitq.conf", "permissions": "0644", "content": _SSHD},
            {"path": "/etc/scitq/identity.json", "permissions": "0644", "content": json.dumps(dict(identity))},
        ],
    }
    return "#cloud-config\n" + json.dumps(said, indent=1, ensure_ascii=True) + "\n"


def driver_key(folder: Path, comment: str) -> tuple[Path, str]:
    """The key with which a state file's driver logs in at its machines, made once: where its private half is, and its public half."""
    with _gate:
        return _driver_key(folder / "id_ed25519", folder / "id_ed25519.pub", comment)


def _driver_key(private: Path, public: Path, comment: str) -> tuple[Path, str]:
    folder = private.parent
    if not public.is_file() or not private.is_file():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret, open_half = make_key(comment)
        # The public half last: as long as it is missing the pair is not whole.
        public.unlink(missing_ok=True)
        _store(private, secret)
        _store(public, open_half + "\n")
    return private, public.read_text(encoding="ascii").strip()


def _store(path: Path, content: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def pin(file: Path, names: tuple[str, ...], keys: tuple[str, ...]) -> None:
    """Write into a file in OpenSSH's form that these hosts prove themselves with these keys (`ssh-ed25519 AAAA…`), and with no others."""
    with _gate:
        _pin(file, names, keys)


def _pin(file: Path, names: tuple[str, ...], keys: tuple[str, ...]) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    mine = set(names)
    kept = [line for line in lines if not mine & set(line.split(" ", 1)[0].split(","))]
    fresh = [f"{','.join(names)} {' '.join(key.split()[:2])}" for key in keys]
    if lines != [*kept, *fresh]:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _store(file, "".join(f"{line}\n" for line in [*kept, *fresh]))


def unpin(file: Path, name: str) -> None:
    """A host is no more."""
    if file.is_file():
        pin(file, (name,), ())
