"""The user's logins for registries of images, as `docker login` has left them: `~/.docker/config.json`, or `$DOCKER_CONFIG`.

Read when one is needed, only the entry of that registry, kept in memory only. Nothing here is ever logged or put in a message.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from scitq.container import DOCKER_HUB
from scitq.errors import RegistryError

HELPER_S = 60.0
# Registries without TLS, or with certificates that nobody has signed: `host:port` by comma.
INSECURE = "SCITQ_INSECURE_REGISTRIES"
_HUB_KEYS = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"
_LOOPBACK = re.compile(r"localhost(:[0-9]+)?|127\.[0-9.]+(:[0-9]+)?|\[::1\](:[0-9]+)?")


class Login:
    """A name and a secret for a registry; `is_token`: the secret is an identity token, to be exchanged there."""

    __slots__ = ("is_token", "secret", "user")

    def __init__(self, user: str, secret: str, *, is_token: bool = False) -> None:
        self.user, self.secret, self.is_token = user, secret, is_token

    def __repr__(self) -> str:
        return "<a login>"

    @property
    def basic(self) -> str:
        """What follows `Basic` in a request."""
        return base64.b64encode(f"{self.user}:{self.secret}".encode()).decode("ascii")

    def entry(self) -> dict[str, str]:
        """It as an entry of a docker configuration."""
        if self.is_token:
            return {"auth": base64.b64encode(f"{self.user}:".encode()).decode("ascii"), "identitytoken": self.secret}
        return {"auth": self.basic}


def may_have(registry: str) -> bool:
    """Whether the user's configuration may hold a login for a registry: quick, no helper is asked.

    Raises:
        RegistryError: the configuration cannot be read.
    """
    found = _configuration()
    keys = _keys(registry)
    return bool(
        found.get("credsStore")
        or any(found.get("credHelpers", {}).get(key) for key in keys)
        or any(_entry(found, key) for key in keys)
    )


def login_of(registry: str) -> Login | None:
    """The user's login for a registry, None without one. A credential helper may take its time.

    Raises:
        RegistryError: the configuration cannot be read, or its credential helper does not work.
    """
    found = _configuration()
    for key in _keys(registry):
        helper = found.get("credHelpers", {}).get(key) or (
            found.get("credsStore") if key == _keys(registry)[0] else None
        )
        if helper and (login := _ask(str(helper), key)) is not None:
            return login
    for key in _keys(registry):
        entry = _entry(found, key)
        if entry and (login := _login(entry, registry)) is not None:
            return login
    return None


def for_agent(registry: str, login: Login | None) -> dict[str, dict[str, str]]:
    """The entries of a docker configuration that an agent is given for a registry; an empty one where there is no login."""
    entry = {} if login is None else login.entry()
    # Docker looks for Docker Hub under its old address, podman under its name.
    return {DOCKER_HUB: entry, _HUB_KEYS[0]: entry} if registry == DOCKER_HUB else {registry: entry}


def insecure() -> list[str]:
    """The registries that may be asked without TLS, or with a certificate that cannot be checked."""
    return [host.strip() for host in os.environ.get(INSECURE, "").split(",") if host.strip()]


def is_insecure(registry: str) -> bool:
    """Whether a registry is one of these; one of this very machine always is, as for docker."""
    return registry in insecure() or _LOOPBACK.fullmatch(registry) is not None


def stamp() -> object:
    """Another value whenever the configuration has changed."""
    try:
        found = os.stat(_path())
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


# What was read last, and as of which state of the file.
_known: tuple[object, dict[str, Any]] | None = None


def _configuration() -> dict[str, Any]:
    global _known
    path, now = _path(), (str(_path()), stamp())
    known = _known
    if known is not None and known[0] == now:
        return known[1]
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or not all(
            isinstance(found.get(key, {}), dict) for key in ("auths", "credHelpers")
        ):
            raise ValueError
    except FileNotFoundError:
        found = {}
    except OSError as problem:
        raise RegistryError(f"{path} cannot be read: {problem.strerror}.") from None
    except ValueError:
        raise RegistryError(f"{path} is not what docker login writes: mend it, or put it away.") from None
    _known = (now, found)
    return found


def _keys(registry: str) -> tuple[str, ...]:
    """Under what a registry may stand there, the likeliest first."""
    if registry == DOCKER_HUB:
        return _HUB_KEYS
    return (
        registry,
        f"https://{registry}",
        f"https://{registry}/",
        f"http://{registry}",
        f"https://{registry}/v1/",
        f"https://{registry}/v2/",
    )


def _entry(found: dict[str, Any], key: str) -> dict[str, Any] | None:
    entry = found.get("auths", {}).get(key)
    return entry if isinstance(entry, dict) and entry else None


def _login(entry: dict[str, Any], registry: str) -> Login | None:
    user, secret = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        try:
            user, _, secret = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except ValueError:
            raise RegistryError(
                f"the login for {registry} in {_path()} is damaged: docker login {registry} makes it anew."
            ) from None
    if token := entry.get("identitytoken"):
        return Login(str(user or _TOKEN_USER), str(token), is_token=True)
    return Login(str(user), str(secret)) if user and secret else None


def _ask(helper: str, key: str) -> Login | None:
    """What a credential helper knows of a registry; None when it knows of none."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise RegistryError(f"{_path()} names a credential helper {helper!r}, which cannot be the name of one.")
    program = f"docker-credential-{helper}"
    try:
        ended = subprocess.run([program, "get"], input=key, capture_output=True, text=True, timeout=HELPER_S)
    except FileNotFoundError:
        raise RegistryError(f"{_path()} asks for the program {program}, which is not on PATH.") from None
    except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
        raise RegistryError(f"{program} does not answer ({type(problem).__name__}).") from None
    # Helpers say on stdout what is wrong, in English, and end with 1.
    if ended.returncode:
        if "not found" in ended.stdout or "no credentials" in ended.stdout.lower():
            return None
        raise RegistryError(
            f"{program} failed for {key} (exit {ended.returncode}): run `{program} get` by hand to see why."
        )
    try:
        told = json.loads(ended.stdout)
        user, secret = str(told["Username"]), str(told["Secret"])
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"{program} answered what makes no sense.") from None
    return Login(user, secret, is_token=user == _TOKEN_USER) if secret else None
