"""The logins of image registries that the driver has told: a private file in memory, gone when the agent ends for good.

The file is a config.json as docker and podman read it, and holds what the driver sent: the registries that this
worker's executions name. The driver's word is `{"config": {"host:port": {"auth": BASE64}}, "insecure": ["host:port"]}`; an
entry may have an `identitytoken` as well, and is empty where the user has no login.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, NamedTuple

from scitq.remote.agent.remotes import BadRemotes, PrivateFile, is_private, places

NAME = "config.json"


class Login(NamedTuple):
    """Who asks a registry; `is_token`: the secret is an identity token and not a password."""

    host: str
    user: str
    secret: str
    is_token: bool


class Registries(PrivateFile):
    """Logins, and what may be talked to without TLS."""

    def __init__(self, root: str) -> None:
        super().__init__(root, NAME)
        self.auths: dict[str, dict[str, str]] = {}
        self.insecure: set[str] = set()
        self._read()

    def take(self, said: Any) -> None:
        """Add what one command says, and have the file hold it before this returns."""
        config = said.get("config", {}) if isinstance(said, dict) else None
        insecure = said.get("insecure", []) if isinstance(said, dict) else None
        if not isinstance(config, dict) or not isinstance(insecure, list):
            raise BadRemotes(
                "registries needs an object with config: an object of logins, and insecure: a list of hosts"
            )
        for host, login in config.items():
            if not _is_entry(login):
                raise BadRemotes(f"registries: the login of {host} is none")
        self.auths.update(config)
        self.insecure.update(str(host) for host in insecure)
        if config or insecure:
            self.write(json.dumps({"auths": self.auths, "scitq-insecure": sorted(self.insecure)}))

    def has(self, ask: dict[str, Any]) -> bool:
        """Whether what an execution waits for is known."""
        return not ask.get("login") or _hosts(ask.get("registry")) & self.auths.keys() != set()

    def login(self, registry: str | None) -> Login | None:
        """What a registry is to be told; None when the user has no login there."""
        for host in _hosts(registry):
            entry = self.auths.get(host) or {}
            if (found := _taken_apart(entry.get("auth", ""))) is not None:
                user, password = found
                return Login(host, user, entry.get("identitytoken") or password, "identitytoken" in entry)
        return None

    def is_insecure(self, registry: str | None) -> bool:
        """Whether it may be talked to without TLS; on this machine itself always, as docker has it."""
        host = (registry or "").rpartition(":")[0] or registry or ""
        return registry in self.insecure or host == "localhost" or host.startswith("127.")

    def _read(self) -> None:
        """What an agent that was killed here has left."""
        for folder in places(self._root):
            if not is_private(folder):
                continue
            with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, NAME), encoding="utf-8") as file:
                said = json.load(file)
                self.auths.update(said["auths"])
                self.insecure.update(said["scitq-insecure"])
                self.folder = folder


def _is_entry(entry: Any) -> bool:
    """Whether it is one of a docker configuration. An empty one says that the user has no login there."""
    if entry == {}:
        return True
    return (
        isinstance(entry, dict)
        and entry.keys() <= {"auth", "identitytoken"}
        and all(isinstance(value, str) for value in entry.values())
        and _taken_apart(entry.get("auth", "")) is not None
    )


def _hosts(registry: str | None) -> set[str]:
    """The names under which a registry's login may be kept."""
    if registry in (None, ""):
        return set()
    if registry in ("docker.io", "index.docker.io"):
        return {"docker.io", "index.docker.io", "https://index.docker.io/v1/"}
    return {str(registry)}


def _taken_apart(auth: str) -> tuple[str, str] | None:
    import base64  # for agents that have to do with registries
    import binascii

    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (user, password) if colon else None
