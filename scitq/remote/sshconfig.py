"""How a host is reached, as the user's own SSH configuration says: aliases, users, ports, keys, jumps.

OpenSSH itself is asked (`ssh -G`), so that Include, Match and tokens mean what they mean to `ssh`. Nothing is connected here.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from scitq.errors import BadInput, HostUnfit

_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s@:/\[\]-][^\s@:/\[\]]*)(?::(?P<port>\d{1,5}))?"
)
_ASK_S = 20
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class Place:
    """One host, and how to get there."""

    address: str
    host: str
    user: str
    port: int = 22
    keys: tuple[Path, ...] = ()
    uses_agent: bool = True
    only_keys: bool = False
    known_hosts: tuple[Path, ...] = ()
    key_name: str | None = None
    timeout_s: float | None = None
    jumps: tuple[Place, ...] = ()
    command: str | None = None

    def __str__(self) -> str:
        port = "" if self.port == 22 else f" port {self.port}"
        where = f"{self.user}@{self.host}{port}"
        return where if self.address in (self.host, where) else f"{self.address} ({where})"


def split(address: str) -> tuple[str | None, str, int | None]:
    """`user@host:port`, of which only the host must be there.

    Raises:
        BadInput: it is none.
    """
    match = _ADDRESS.fullmatch(address.removeprefix("ssh://").rstrip("/"))
    if match is None or not 0 < int(match["port"] or 22) < 65536:
        raise BadInput(f"{address!r} is no host: write an alias of ~/.ssh/config, host, user@host or user@host:port.")
    return match["user"], match["host"].strip("[]"), int(match["port"]) if match["port"] else None


def look_up(address: str) -> Place:
    """What the user's configuration says of an address.

    Raises:
        BadInput: the address is none, or the configuration cannot be read.
    """
    return _look_up(address, depth=0)


def _look_up(address: str, depth: int) -> Place:
    if depth > 8:
        raise BadInput(f"{address}: the SSH configuration jumps in a circle.")
    user, host, port = split(address)
    told = _ask(address, user, host, port)
    first = {name: values[0] for name, values in told.items()}
    place = Place(
        address=address,
        host=first.get("hostname", host),
        user=first.get("user") or user or getpass.getuser(),
        port=int(first.get("port", port or 22)),
        keys=tuple(Path(_expanded(name)) for name in told.get("identityfile", []) if name != "none"),
        uses_agent=first.get("identityagent", "") != "none",
        only_keys=first.get("identitiesonly", "no") in ("yes", "true"),
        known_hosts=_files(told.get("userknownhostsfile", []) + told.get("globalknownhostsfile", [])),
        key_name=first.get("hostkeyalias"),
        timeout_s=float(first["connecttimeout"]) if first.get("connecttimeout", "").isdecimal() else None,
    )
    if not place.keys:
        place = replace(place, keys=tuple(_ssh_folder() / name for name in _DEFAULT_KEYS))
    jumps = first.get("proxyjump", "none")
    if jumps.lower() != "none":
        return replace(place, jumps=tuple(_look_up(each.strip(), depth + 1) for each in jumps.split(",")))
    command = " ".join(told.get("proxycommand", [])[:1])
    if command.lower() in ("", "none"):
        return place
    means = {"%": "%", "h": place.host, "n": host, "p": str(place.port), "r": place.user}
    expanded = re.sub(r"%(.)", lambda token: means.get(token[1], token[0]), command)
    return replace(place, command=expanded)


def _ask(address: str, user: str | None, host: str, port: int | None) -> dict[str, list[str]]:
    program = shutil.which("ssh")
    if program is None:
        raise HostUnfit(
            f"{address}: the program `ssh` is not installed here; scitq asks it what your SSH configuration says. "
            "Install OpenSSH's client.",
            host=address,
        )
    words = [program, "-G"]
    own = _ssh_folder() / "config"
    if _ssh_folder().parent != Path(pwd.getpwuid(os.getuid()).pw_dir):
        # ssh itself does not look at HOME.
        words += ["-F", str(own) if own.exists() else "none"]
    words += ["-p", str(port)] if port else []
    words += ["-l", user] if user else []
    try:
        done = subprocess.run(
            [*words, "--", host], capture_output=True, text=True, check=False, timeout=_ASK_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BadInput(f"{address}: `{shlex.join(words)} {host}` does not answer: {problem}") from None
    if done.returncode:
        raise BadInput(f"{address}: your SSH configuration cannot be used: {done.stderr.strip()}")
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        told.setdefault(name.lower(), []).append(value.strip())
    return told


def _files(values: list[str]) -> tuple[Path, ...]:
    return tuple(Path(_expanded(name)) for value in values for name in shlex.split(value) if name != "none")


def _expanded(name: str) -> str:
    """As ssh would, but for the home, which is HOME here."""
    home = str(_ssh_folder().parent)
    own = pwd.getpwuid(os.getuid()).pw_dir
    name = name.strip('"')
    if name.startswith("~/"):
        return home + name[1:]
    # ssh -G tells some names with the home that the system knows.
    return home + name[len(own) :] if home != own and name.startswith(f"{own}/.ssh/") else name


def _ssh_folder() -> Path:
    return Path.home() / ".ssh"
