"""Connecting to a host and logging in: strict about the host's key, with the user's keys, asking for a passphrase once.

What an error of SSH means, and what its reader can do about it, is said here.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fabric
import paramiko
from paramiko.ssh_exception import (
    BadAuthenticationType,
    IncompatiblePeer,
    PasswordRequiredException,
)

from scitq.errors import HostError, HostKeyChanged, HostKeyUnknown, HostLoginRefused, HostUnfit, HostUnreachable
from scitq.remote import hostkeys
from scitq.remote.hostkeys import HostKey
from scitq.remote.sshconfig import Place
from scitq.remote.sshlink import Proxy, Transport

CONNECT_S = 10.0
GREET_S = 30.0
LOGIN_S = 30.0
CHANNEL_S = 20.0
TRIES = 4
MOST_KEYS = 6
"""sshd's own limit (MaxAuthTries): it hangs up on those who try more."""

_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)

Ask = Callable[[str], str | None]
"""Asks the user for a passphrase, without showing it; None when there is nobody to ask."""

_RSA = ("rsa-sha2-512", "rsa-sha2-256")
# Handshakes are what a connection costs: of a hundred at the same moment none would end in time.
_handshakes = threading.BoundedSemaphore(16)
_passphrases: dict[Path, str] = {}
_asking = threading.Lock()


class Way:
    """The connections that lead to a host, the last one its own; and the user's ProxyCommand, where there is one."""

    def __init__(self) -> None:
        self.connections: list[fabric.Connection] = []
        self.proxy: Proxy | None = None

    @property
    def transport(self) -> Transport:
        """The host's own."""
        found: Transport = self.connections[-1].transport
        return found

    def close(self) -> None:
        """End them, the innermost first."""
        for connection in reversed(self.connections):
            if connection.transport is not None:
                connection.transport.end()
            with contextlib.suppress(Exception):
                connection.close()
        if self.proxy is not None:
            self.proxy.close()


def connect(place: Place, ask: Ask | None = None, *, is_looking: bool = False) -> Way:
    """Connect and log in, through all its jumps. `is_looking`: for its key only.

    Raises:
        HostError: one that says what failed, and what to try.
    """
    way = Way()
    try:
        if place.command is not None:
            way.proxy = Proxy(place.command)
        for each in (*place.jumps, place):
            way.connections.append(_open(each, way, ask, is_looking and each is place))
    except BaseException as problem:
        way.close()
        if way.proxy is not None and isinstance(problem, HostUnreachable) and (said := way.proxy.said()):
            raise HostUnreachable(f"{problem} Its ProxyCommand said: {said}", host=str(place)) from problem
        raise
    return way


def shown_key(place: Place, ask: Ask | None = None) -> tuple[HostKey, HostError | None]:
    """The key that a host shows now, and what is to be said against it: unknown or changed; nothing when it was accepted.

    Nobody is logged in there.
    """
    try:
        connect(place, ask, is_looking=True).close()
    except _Shown as shown:
        return shown.key, shown.problem
    raise AssertionError("a connection without a host key")


class _Shown(Exception):
    """A host's key was seen, which was all that was wanted."""

    def __init__(self, key: HostKey, problem: HostError | None) -> None:
        super().__init__()
        self.key, self.problem = key, problem


def _open(place: Place, way: Way, ask: Ask | None, is_looking: bool) -> fabric.Connection:
    name = place.key_name or hostkeys.name_of(place.host, place.port)
    known = hostkeys.find(name, place.known_hosts)
    kinds = {each.key.kind for each in known if not each.is_revoked}
    kinds |= set(_RSA) if "ssh-rsa" in kinds else set()
    limit_s = place.timeout_s or CONNECT_S
    for left in range(TRIES, 0, -1):
        connection = fabric.Connection(
            place.host,
            user=place.user,
            port=place.port,
            gateway=way.connections[-1] if way.connections else None,
            # Nothing is read from the user's files here: `sshconfig` has done that.
            config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
            connect_timeout=GREET_S,
            connect_kwargs={
                "transport_factory": partial(Transport, kinds=tuple(kinds)),
                "banner_timeout": GREET_S,
                "auth_timeout": LOGIN_S,
                "channel_timeout": CHANNEL_S,
                "auth_strategy": _Login(place, ask),
            },
        )
        connection.client.set_missing_host_key_policy(_Strict(place, known, is_looking))
        try:
            if way.proxy is not None:
                connection.connect_kwargs["sock"] = way.proxy.sock
            elif not way.connections:
                connection.connect_kwargs["sock"] = socket.create_connection((place.host, place.port), limit_s)
            with _handshakes:
                connection.open()
            connection.transport.settle()
            return connection
        except (paramiko.SSHException, OSError, EOFError, HostError, _Shown) as problem:
            transport = connection.client.get_transport()
            if transport is not None:
                transport.end()
            connection.client.close()
            # A busy sshd hangs up on some of those who come at the same moment (MaxStartups).
            if left > 1 and _is_hung_up(problem) and way.proxy is None:
                time.sleep(0.2 * (TRIES - left + 1))
                continue
            if isinstance(problem, HostError | _Shown):
                raise
            raise _told(place, problem, limit_s) from problem
    raise AssertionError("the last try returns or raises")


def _is_hung_up(problem: Exception) -> bool:
    if isinstance(problem, EOFError | ConnectionResetError):
        return True
    return isinstance(problem, paramiko.SSHException) and "banner" in str(problem) and "timed out" not in str(problem)


class _Strict(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    """paramiko is told of no keys, so that all are judged here: accepted are those that stand in a file, and no others."""

    def __init__(self, place: Place, known: list[hostkeys.Known], is_looking: bool) -> None:
        self._place, self._known, self._is_looking = place, known, is_looking

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        """Raise unless it was accepted."""
        shown = HostKey(key.get_name(), key.get_base64())
        problem = self._against(shown)
        if self._is_looking:
            raise _Shown(shown, problem)
        if problem is not None:
            raise problem

    def _against(self, shown: HostKey) -> HostError | None:
        place, name = self._place, self._place.key_name or hostkeys.name_of(self._place.host, self._place.port)
        parts = {
            "host": str(place),
            "name": name,
            "kind": shown.kind,
            "key": shown.key,
            "fingerprint": shown.fingerprint,
        }
        revoked = [each for each in self._known if each.is_revoked and each.key == shown]
        if revoked:
            where = f"{revoked[0].file}:{revoked[0].line}"
            text = f"{place} shows a key that was revoked in {where} ({shown}): it is not used."
            return HostKeyChanged(text, **parts, known=where)
        accepted = [each for each in self._known if not each.is_revoked]
        if any(each.key == shown for each in accepted):
            return None
        if not accepted:
            return HostKeyUnknown(
                f"{place} is not known: it shows the key {shown}, which nobody has accepted yet. Compare it with what the host "
                f"says of itself (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub there), then: scitq worker trust {place.address}",
                **parts,
            )
        first = accepted[0]
        where = f"{first.file}:{first.line}"
        cure = (
            f"scitq worker trust {place.address}"
            if first.file == hostkeys.own_file()
            else f"ssh-keygen -R '{name}' -f {first.file}, and then scitq worker trust {place.address}"
        )
        return HostKeyChanged(
            f"{place} shows another key ({shown}) than the one that was accepted ({first.key}, {where}). Either the host was "
            f"installed anew, or somebody else answers in its place: it is not used. If you know why: {cure}",
            **parts,
            known=where,
        )


class _Login:
    """paramiko's `auth_strategy`: the keys of the user's configuration, the SSH agent's, one after the other."""

    def __init__(self, place: Place, ask: Ask | None) -> None:
        self._place, self._ask = place, ask
        self._locked: list[Path] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in, or raise HostLoginRefused."""
        with contextlib.ExitStack() as at_end:
            held: dict[bytes, paramiko.PKey] = {}
            if self._place.uses_agent:
                with contextlib.suppress(Exception):  # an agent that does not answer is none
                    agent = paramiko.Agent()
                    at_end.callback(agent.close)
                    held = {key.asbytes(): key for key in agent.get_keys()}
            self._try(transport, held)

    def _try(self, transport: paramiko.Transport, held: dict[bytes, paramiko.PKey]) -> None:
        place, tried = self._place, []
        allowed: list[str] = []
        for what, key in self._keys(held):
            tried.append(what)
            try:
                if not transport.auth_publickey(place.user, key):
                    return
                raise HostLoginRefused(
                    f"{place} wants more than a key (a second factor), which scitq cannot give. Let a key alone do for "
                    "this user there.",
                    host=str(place),
                )
            except BadAuthenticationType as problem:
                allowed = problem.allowed_types
                break
            except paramiko.AuthenticationException as problem:
                if not transport.is_active():
                    raise HostLoginRefused(
                        f"{place} hung up after {_several(tried)}: {problem}", host=str(place)
                    ) from None
            except paramiko.SSHException as problem:
                if not transport.is_active():
                    raise
                tried[-1] = f"{what} ({problem})"
            if len(tried) == MOST_KEYS:
                break
        if not tried and not allowed:
            allowed = self._allowed(transport)
            if transport.is_authenticated():
                return  # it lets everybody in
        raise self._refused(tried, allowed)

    def _allowed(self, transport: paramiko.Transport) -> list[str]:
        """How one may log in there; a host that lets everybody in has done so by this question."""
        try:
            transport.auth_none(self._place.user)
        except BadAuthenticationType as problem:
            return list(problem.allowed_types)
        except paramiko.AuthenticationException:
            pass
        return []

    def _refused(self, tried: list[str], allowed: list[str]) -> HostLoginRefused:
        place = self._place
        if allowed and "publickey" not in allowed:
            text = (
                f"{place} lets users in by {' or '.join(allowed)} only, and scitq logs in with keys. Ask its administrator to "
                f"allow public keys; then: ssh-copy-id {place.address}"
            )
        elif self._locked:
            names = _several([str(path) for path in self._locked])
            text = (
                f"{place} did not let {place.user} in: {names} is locked by a passphrase, which nobody was there to give. "
                f"Unlock it for a while with: ssh-add {self._locked[0]}"
            )
        elif tried:
            text = (
                f"{place} does not let {place.user} in with {_several(tried)}. Is that the right user? "
                f"(scitq worker add USER@{place.host}) Else have the key accepted there: ssh-copy-id {place.address}"
            )
        else:
            text = (
                f"{place}: you have no SSH key to log in with. Make one with ssh-keygen, have it accepted there with "
                f"ssh-copy-id {place.address}, then try again."
            )
        return HostLoginRefused(text, host=str(place), locked=str(self._locked[0]) if self._locked else None)

    def _keys(self, held: dict[bytes, paramiko.PKey]) -> Iterator[tuple[str, paramiko.PKey]]:
        """What to try, in order: keys that the configuration names, from the SSH agent where it has them; then its others."""
        given = set()
        for path in self._place.keys:
            public = _public(path)
            if public is not None and public in held:
                given.add(public)
                yield f"{path} (by the SSH agent)", held[public]
                continue
            try:
                is_there = path.is_file()
            except OSError:
                is_there = False
            if is_there and (key := self._from_file(path)) is not None:
                given.add(key.asbytes())
                yield str(path), key
        if not self._place.only_keys:
            for blob, key in held.items():
                if blob not in given:
                    yield "a key of the SSH agent", key

    def _from_file(self, path: Path) -> paramiko.PKey | None:
        """A key of a file; None when it cannot be used. Its passphrase is asked for once in the life of this process."""
        with _asking:
            try:
                return _loaded(path, _passphrases.get(path))
            except PasswordRequiredException:
                pass
            except (paramiko.SSHException, OSError, ValueError):
                return None
            for _ in range(3):
                given = self._ask(f"Passphrase of {path}") if self._ask is not None else None
                if not given:
                    break
                with contextlib.suppress(paramiko.SSHException, ValueError):
                    key = _loaded(path, given)
                    _passphrases[path] = given
                    return key
            self._locked.append(path)
            return None


def unlock(path: Path, passphrase: str) -> bool:
    """Keep a key's passphrase for the life of this process, if it is that."""
    try:
        _loaded(path, passphrase)
    except (paramiko.SSHException, OSError, ValueError):
        return False
    with _asking:
        _passphrases[path] = passphrase
    return True


def _loaded(path: Path, passphrase: str | None) -> paramiko.PKey:
    problem: Exception = paramiko.SSHException("no key")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key = kind.from_private_key_file(str(path), passphrase)
        except PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, IndexError, TypeError) as found:
            problem = found
        else:
            certificate = path.with_name(f"{path.name}-cert.pub")
            if certificate.is_file():
                key.load_certificate(str(certificate))
            return key
    raise paramiko.SSHException(str(problem))


def _public(path: Path) -> bytes | None:
    """The public half that lies beside a private key."""
    import base64

    try:
        words = path.with_name(f"{path.name}.pub").read_text().split()
        return base64.b64decode(words[1])
    except (OSError, ValueError, IndexError):
        return None


def _several(words: list[str]) -> str:
    return ", ".join(words) if len(words) < 4 else f"{', '.join(words[:3])} and {len(words) - 3} more"


def _told(place: Place, problem: Exception, limit_s: float) -> HostError:
    """An error of the network or of SSH, for somebody who wants to use this host."""
    host = str(place)
    if isinstance(problem, socket.gaierror):
        text = f"{host}: no such name is known here now. Check the spelling, ~/.ssh/config, and whether the network (or its VPN) is there."
    elif isinstance(problem, ConnectionRefusedError) or getattr(problem, "errno", None) in _NO_WAY:
        why = getattr(problem, "strerror", None) or problem
        text = (
            f"{host} cannot be connected to ({why}). Is its sshd running, and is {place.port} its port? "
            f"Try: ssh {place.address}"
        )
    elif isinstance(problem, TimeoutError):
        text = f"{host} did not answer within {limit_s:g} s. Is it on, and is the network (or its VPN) there?"
    elif isinstance(problem, IncompatiblePeer):
        return HostUnfit(f"{host}: its sshd is too old or too strict for us: {problem}.", host=host)
    elif isinstance(problem, paramiko.ChannelException):
        text = f"{host}: the host before it cannot reach it: {problem}"
    elif "No existing session" in str(problem) or "timed out" in str(problem).lower():
        text = f"{host} did not greet within {GREET_S:g} s: it is very busy, or asleep."
    else:
        text = f"{host} hung up, or does not speak SSH ({str(problem) or type(problem).__name__}). Try: ssh {place.address}"
    return HostUnreachable(text, host=host)
