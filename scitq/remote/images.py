"""Which bits the name of an image stands for: its digest, by the docker daemon of this machine, or by its registry over HTTPS.

Bringing an image to a worker is the agent's. Whoever asks here waits for a network: never in the driver's loop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from scitq.container import DOCKER_HUB, Image, take_apart
from scitq.errors import ImageNotFound, LoginRefused, RegistryError
from scitq.remote import logins
from scitq.remote.logins import Login

log = logging.getLogger("scitq")

ANSWER_S = 20.0
# The answers of registries that are read here are short.
_LIMIT_BYTES = 1 << 20
# Lists of images for several machines come first: their digest is what an engine that pulls the name records.
_KINDS = ", ".join((
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIELD = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def resolve(image: str, login: Login | None = None) -> str | None:
    """`name@sha256:…` for the name of an image; the id of one that was built on this machine; None when it cannot be known."""
    try:
        return digest_of(image, login)
    except RegistryError as problem:
        log.debug("%s", problem)
        return None


def digest_of(image: str, login: Login | None = None) -> str:
    """The same. Without a `login` it is the user's own for that registry, where there is one.

    Raises:
        ImageNotFound: the registry has none of that name.
        LoginRefused: the registry wants another login.
        RegistryError: it cannot be asked.
    """
    named = take_apart(image)
    if named.digest is not None:
        return _pinned(image, named.digest)
    here = _by_daemon(image)
    if here is not None:
        return here
    if login is None:
        login = logins.login_of(named.registry)
    return _pinned(image, _Registry(named, login).digest())


def _pinned(image: str, digest: str) -> str:
    """The name with the digest in the place of its tag."""
    name = image.partition("@")[0]
    front, slash, last = name.rpartition("/")
    return f"{front}{slash}{last.partition(':')[0]}@{digest}"


def _is_there() -> bool:
    """Whether somebody listens where the docker daemon should (the SDK leaves a socket open when nobody does)."""
    kind, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if kind != "unix":
        return True
    with socket.socket(socket.AF_UNIX) as stream:
        try:
            stream.connect(path)
        except (OSError, ValueError):
            return False
    return True


def _by_daemon(image: str) -> str | None:
    """What the docker daemon of this machine has under a name; None without one, or when it has none."""
    if not _is_there():
        return None
    import docker  # takes a moment to load
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=ANSWER_S)
    except DockerException:
        return None
    with contextlib.closing(client):
        try:
            found = client.images.get(image)
            known = [str(name) for name in found.attrs.get("RepoDigests") or []]
            wanted = take_apart(image)
            same = [name for name in known if take_apart(name)[:2] == wanted[:2]]
            # One that was built here, and never came from or went to a registry, is known by its id.
            return _pinned(image, same[0].partition("@")[2]) if same else str(found.id)
        except (DockerException, OSError):  # requests' errors are of the second kind
            return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """A login is not carried to another address: manifests and tokens are where they are asked for."""
        return None


class _Registry:
    """One question to one registry."""

    def __init__(self, image: Image, login: Login | None) -> None:
        self.image, self.login = image, login
        self.host = "registry-1.docker.io" if image.registry == DOCKER_HUB else image.registry
        self.is_insecure = logins.is_insecure(image.registry)
        context = ssl.create_default_context()
        if self.is_insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(_NoRedirect(), urllib.request.HTTPSHandler(context=context))

    def digest(self) -> str:
        """What the registry says that the name stands for now."""
        path = f"/v2/{self.image.repository}/manifests/{self.image.tag or 'latest'}"
        schemes = ("https", "http") if self.is_insecure else ("https",)
        for at, scheme in enumerate(schemes):
            try:
                return self._ask(f"{scheme}://{self.host}{path}")
            except (OSError, HTTPException) as problem:
                if at + 1 == len(schemes):
                    reason = getattr(problem, "reason", problem)
                    raise RegistryError(f"the registry {self.image.registry} cannot be asked: {reason}.") from None
        raise AssertionError

    def _ask(self, url: str) -> str:
        status, headers, _ = self._open(url, "HEAD", {"Accept": _KINDS})
        if status == 401:
            given = self._permit(headers.get_all("WWW-Authenticate") or [])
            status, headers, _ = self._open(url, "HEAD", {"Accept": _KINDS, "Authorization": given})
        found = headers.get("Docker-Content-Digest", "")
        if status == 200 and not _DIGEST.fullmatch(found):  # not all say it where nothing is fetched
            status, headers, found = self._by_content(url, headers)
        if status == 200 and _DIGEST.fullmatch(found):
            return found
        name = f"{self.image.registry}/{self.image.repository}:{self.image.tag or 'latest'}"
        if status == 404:
            raise ImageNotFound(f"there is no image {name}, or it is not shown to this user.", image=name)
        if status in (401, 403):
            way = f"docker login {self.image.registry}"
            what = "the login for it is refused" if self.login is not None else "it wants a login"
            raise LoginRefused(f"the image {name} cannot be seen: {what}. Log in: {way}", image=name)
        if status == 429:
            raise RegistryError(f"the registry {self.image.registry} wants to be asked less often.", image=name)
        raise RegistryError(
            f"the registry {self.image.registry} answers {status} to the question for {name}.", image=name
        )

    def _by_content(self, url: str, headers: HTTPMessage) -> tuple[int, HTTPMessage, str]:
        import hashlib

        permit = {"Authorization": self._given} if self._given else {}
        status, headers, body = self._open(url, "GET", {"Accept": _KINDS, **permit})
        return status, headers, headers.get("Docker-Content-Digest") or f"sha256:{hashlib.sha256(body).hexdigest()}"

    # The permit that the registry has wanted, if any.
    _given = ""

    def _permit(self, challenges: list[str]) -> str:
        """What it wants to be told, by its own word."""
        for challenge in challenges:
            kind, _, rest = challenge.partition(" ")
            fields = {key.lower(): quoted or plain for key, quoted, plain in _FIELD.findall(rest)}
            if kind.lower() == "bearer" and "realm" in fields:
                self._given = f"Bearer {self._token(fields)}"
            elif kind.lower() == "basic" and self.login is not None:
                self._given = f"Basic {self.login.basic}"
            if self._given:
                return self._given
        return "Basic "  # which it will refuse

    def _token(self, fields: dict[str, str]) -> str:
        """The token for looking at this image, from where the registry says that there are some."""
        realm = urllib.parse.urlsplit(fields["realm"])
        if realm.scheme != "https" and not (realm.scheme == "http" and self.is_insecure):
            raise RegistryError(
                f"the registry {self.image.registry} sends its users to {realm.scheme}: for their tokens: not safe."
            )
        asked = {"service": fields.get("service", ""), "scope": f"repository:{self.image.repository}:pull"}
        headers: dict[str, str] = {}
        url, data = fields["realm"], None
        if self.login is not None and self.login.is_token:
            more = {"grant_type": "refresh_token", "refresh_token": self.login.secret, "client_id": "scitq"}
            data = urllib.parse.urlencode({**asked, **more}).encode()
        else:
            url += ("&" if realm.query else "?") + urllib.parse.urlencode(asked)
            if self.login is not None:
                headers["Authorization"] = f"Basic {self.login.basic}"
        status, _, body = self._open(url, "GET" if data is None else "POST", headers, data)
        with contextlib.suppress(ValueError, AttributeError):
            told: Any = json.loads(body)
            token = told.get("token") or told.get("access_token")
            if status == 200 and isinstance(token, str) and token.isprintable():
                return token
        if status in (401, 403):
            raise LoginRefused(
                f"{realm.hostname} refuses the login for {self.image.registry}. Log in anew: docker login {self.image.registry}"
            )
        raise RegistryError(f"{realm.hostname} gives no token for {self.image.registry} (it answers {status}).")

    def _open(
        self, url: str, method: str, headers: dict[str, str], data: bytes | None = None
    ) -> tuple[int, HTTPMessage, bytes]:
        request = urllib.request.Request(url, data=data, method=method, headers={"User-Agent": "scitq"})
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        try:
            answer = self._opener.open(request, timeout=ANSWER_S)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            return answer.status, answer.headers, answer.read(_LIMIT_BYTES)
