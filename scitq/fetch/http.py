"""http and https: read with Range, resumed only onto the same version, redirects followed, proxies honoured."""

from __future__ import annotations

import base64
import binascii
import contextlib
import email.utils
import http.client
import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin

from scitq.fetch.entry import Entry
from scitq.fetch.errors import AccessDenied, Cancelled, FetchError, Interrupted, NotFound, Stalled, Throttled
from scitq.fetch.retry import Watch
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Identity, unsupported
from scitq.fetch.uri import Address

if TYPE_CHECKING:
    import ssl

REDIRECTS = 10
AGENT = "scitq"


class HttpBody:
    """An answer that is being read."""

    mode = None

    def __init__(self, exchange: _Exchange, address: Address, settings: Settings, asked: int) -> None:
        self._exchange, self._address, self._settings = exchange, address, settings
        answer = exchange.answer
        length = _number(answer.getheader("Content-Length"))
        self.offset = 0
        size = length
        if answer.status == 206:
            self.offset, size = _content_range(answer, address)
            if self.offset != asked:
                raise _failed(address, f"it sends from byte {self.offset} on, and was asked for {asked}")
        modified = answer.getheader("Last-Modified")
        # A body that the server compresses on the way has another length on the wire; then it is not known.
        self.identity = Identity(size, answer.getheader("ETag"), modified)
        self.md5 = _md5(answer)
        self.modified_s = _stamp(modified)
        self._left = length
        self._watch = Watch(settings.stall_timeout_s, settings.total_s(size))

    def readinto(self, buffer: memoryview) -> int:
        """What has come, at most the buffer."""
        answer, wire = self._exchange.answer, self._exchange.wire
        with _typed(self._address, self._settings, self._watch), self._settings.cancel.waking(self._exchange.interrupt):
            if wire is not None:
                wire.settimeout(max(0.01, self._watch.left_s()))
            data = answer.read1(len(buffer))
        if not data:
            if self._left:
                raise Interrupted(
                    f"{self._address.shown}: the connection ended, {self._left:,} bytes are missing.",
                    uri=self._address.shown, phase="get",
                )  # fmt: skip
            return 0
        self._watch.moved()
        if self._left is not None:
            self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the connection, also in the middle."""
        self._exchange.close()


class Http:
    """http and https."""

    def open(self, address: Address, settings: Settings, offset: int = 0, identity: Identity | None = None) -> HttpBody:
        """GET it, from `offset` on if the server still has the same version."""
        headers = {}
        if offset and identity is not None and (validator := _validator(identity)):
            headers = {"Range": f"bytes={offset}-", "If-Range": validator}
        exchange = _ask(address, "GET", headers, settings)
        try:
            if exchange.answer.status == 416:
                # Behind the end: nothing is missing, or it is another file. From the beginning either way.
                exchange.close()
                exchange = _ask(address, "GET", {}, settings)
            _check(exchange.answer, address)
            return HttpBody(exchange, address, settings, offset if headers else 0)
        except BaseException:
            exchange.close()
            raise

    def put(self, source: str, address: Address, settings: Settings) -> None:
        """No."""
        raise unsupported(address, "put files", "For WebDAV, configure an rclone remote.")

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """No."""
        raise unsupported(address, "list folders", "Name each file, or configure an rclone remote of type http.")

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """HEAD it; a server that refuses that is asked for the first byte."""
        exchange = _ask(address, "HEAD", {}, settings)
        if exchange.answer.status in (400, 403, 405, 501):
            exchange.close()
            exchange = _ask(address, "GET", {"Range": "bytes=0-0"}, settings)
        with contextlib.closing(exchange):
            answer = exchange.answer
            size = _number(answer.getheader("Content-Length"))
            if answer.status == 206:
                _, size = _content_range(answer, address)
            elif answer.status == 416:  # an empty file has no first byte
                size = 0
            else:
                _check(answer, address)
            stamp = _stamp(answer.getheader("Last-Modified"))
            date = None if stamp is None else datetime.fromtimestamp(stamp, timezone.utc)
            return Entry(address.text, address.name, size, date, date, md5=_md5(answer), etag=answer.getheader("ETag"))

    def delete(self, address: Address, settings: Settings) -> None:
        """No."""
        raise unsupported(address, "delete")


@dataclass
class _Exchange:
    """One request and its answer."""

    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    wire: socket.socket | None

    def interrupt(self) -> None:
        """From another thread: whoever reads gets an end of file."""
        _shut(self.wire)

    def close(self) -> None:
        """Both ends."""
        self.answer.close()
        self.connection.close()


def _shut(wire: socket.socket | None) -> None:
    if wire is not None:
        # Of the socket below TLS: a TLS shutdown from another thread would disturb the one that reads.
        socket.socket.shutdown(wire, socket.SHUT_RDWR)


def _ask(address: Address, method: str, headers: dict[str, str], settings: Settings) -> _Exchange:
    """The answer behind all redirects."""
    url = f"{address.proto}://{_encoded(address.path)}"
    first_host = host = ""
    for _ in range(REDIRECTS):
        scheme, _, rest = url.partition("://")
        authority, target = _parts(rest)
        login, _, host = authority.rpartition("@")
        first_host = first_host or host
        sent = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if login:
            sent["Authorization"] = _basic(login)
        exchange = _exchange(scheme, host, target, method, sent, address, settings)
        answer = exchange.answer
        where = answer.getheader("Location")
        if answer.status not in (301, 302, 303, 307, 308) or not where:
            return exchange
        exchange.close()
        url = urljoin(url, where)
        if url.partition("://")[0] not in ("http", "https"):
            raise _failed(address, f"it redirects to {url.partition('://')[0]}://, which is not followed")
        if login and "@" not in _parts(url.partition("://")[2])[0] and _parts(url.partition("://")[2])[0] == host:
            url = url.replace("://", f"://{login}@", 1)  # the same host may see the password again; no other one
        url = url.partition("://")[0] + "://" + _encoded(url.partition("://")[2])
    raise _failed(address, f"it redirects more than {REDIRECTS} times")


def _exchange(
    scheme: str, host: str, target: str, method: str, headers: dict[str, str], address: Address, settings: Settings
) -> _Exchange:
    settings.cancel.check(address.shown, "get")
    watch = Watch(min(settings.stall_timeout_s, settings.connect_timeout_s))
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    with _typed(address, settings, watch):
        connection = _connection(scheme, proxy or host, watch.left_s(), settings)
        if proxy and scheme == "https":
            connection.set_tunnel(host, headers=_proxy_login(proxy))
        elif proxy:
            target = f"{scheme}://{host}{target}"
            headers = {**headers, **_proxy_login(proxy), "Host": host}
        try:
            connection.connect()
            wire = connection.sock
            with settings.cancel.waking(lambda: _shut(wire)):
                # A server may think for as long as it may be silent.
                watch = Watch(settings.stall_timeout_s)
                wire.settimeout(watch.left_s())
                connection.request(method, target, headers=headers)
                return _Exchange(connection, connection.getresponse(), wire)
        except BaseException:
            connection.close()
            raise


def _connection(scheme: str, place: str, timeout_s: float, settings: Settings) -> http.client.HTTPConnection:
    """To the server, or to its proxy, which may be named with a scheme and a login."""
    host = re.sub(r"^[a-z]+://", "", place).rstrip("/").rpartition("@")[2]
    if scheme == "http":
        connection = http.client.HTTPConnection(host, timeout=timeout_s)
    else:
        connection = http.client.HTTPSConnection(host, timeout=timeout_s, context=_context())
    # The one hook there is: the stock one cannot be stopped while it connects.
    connection._create_connection = lambda place, *_: connect(place, timeout_s, settings)  # type: ignore[attr-defined]
    return connection


def connect(place: tuple[str, int], timeout_s: float, settings: Settings) -> socket.socket:
    """A connection to the first address that answers; a request to stop ends the attempt."""
    last: OSError | None = None
    for family, kind, proto, _, where in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
        wire = socket.socket(family, kind, proto)
        try:
            wire.settimeout(timeout_s)
            with settings.cancel.waking(lambda wire=wire: _shut(wire)):  # type: ignore[misc]
                wire.connect(where)
            settings.cancel.check(place[0], "get")
            return wire
        except OSError as error:
            wire.close()
            last = error
        except BaseException:
            wire.close()
            raise
    raise last or OSError(f"{place[0]}: no address")


def _context() -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)


@contextlib.contextmanager
def _typed(address: Address, settings: Settings, watch: Watch) -> Iterator[None]:
    """What goes wrong on the wire is ours, and of the right kind."""
    shown = address.shown
    try:
        yield
    except FetchError:
        raise
    except TimeoutError as error:
        _or_cancelled(settings, shown, error)
        raise Stalled(f"{shown}: the server was silent for too long.", uri=shown, phase="get") from error
    except (http.client.HTTPException, OSError, ValueError, AttributeError) as error:
        # After a shutdown from another thread http.client may stumble over what is not there any more.
        _or_cancelled(settings, shown, error)
        if type(error).__name__ in ("SSLCertVerificationError", "CertificateError"):
            raise AccessDenied(f"{shown}: its certificate is not trusted: {error}.", uri=shown, phase="get") from error
        if isinstance(error, (http.client.HTTPException, OSError)):
            raise Interrupted(f"{shown}: {str(error) or type(error).__name__}.", uri=shown, phase="get") from error
        raise


def _or_cancelled(settings: Settings, shown: str, error: BaseException) -> None:
    if settings.cancel.is_set:
        raise Cancelled(f"{shown}: cancelled.", uri=shown, phase="get") from error


def _check(answer: http.client.HTTPResponse, address: Address) -> None:
    """Raise what a status means, unless it is good."""
    status, shown = answer.status, address.shown
    if status in (200, 206):
        return
    said = f"{shown}: {status} {answer.reason}."
    if status in (401, 403, 407, 451):
        raise AccessDenied(said, uri=shown, phase="get", status=status)
    if status in (404, 410):
        raise NotFound(said, uri=shown, phase="get", status=status)
    after_s = _retry_after(answer.getheader("Retry-After"))
    if status == 429 or (status == 503 and after_s is not None):
        raise Throttled(said, uri=shown, phase="get", status=status, retry_after_s=after_s)
    if status in (408, 425, 500, 502, 503, 504):
        raise Interrupted(said, uri=shown, phase="get", status=status)
    raise FetchError(said, uri=shown, phase="get", status=status)


def _failed(address: Address, why: str) -> FetchError:
    return FetchError(f"{address.shown}: {why}.", uri=address.shown, phase="get")


def _encoded(path: str) -> str:
    """Spaces and unicode as URLs want them; what is encoded already stays."""
    host, slash, rest = path.partition("/")
    login, at, name = host.rpartition("@")
    with contextlib.suppress(UnicodeError):
        name = name if name.isascii() else name.encode("idna").decode()
    main, _, _ = rest.partition("#")
    stray = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", main)
    return login + at + name + slash + quote(stray, safe="/%:?#[]@!$&'()*+,;=~", errors="surrogatepass")


def _parts(rest: str) -> tuple[str, str]:
    """Authority and request target."""
    found = re.search(r"[/?]", rest)
    if found is None:
        return rest, "/"
    target = rest[found.start() :]
    return rest[: found.start()], target if target.startswith("/") else f"/{target}"


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(unquote(login).encode()).decode()


def _proxy_login(proxy: str) -> dict[str, str]:
    login = re.sub(r"^[a-z]+://", "", proxy).rpartition("@")[0]
    return {"Proxy-Authorization": _basic(login)} if login else {}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _content_range(answer: http.client.HTTPResponse, address: Address) -> tuple[int, int | None]:
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.getheader("Content-Range") or "")
    if found is None:
        raise _failed(address, "it sends a part without saying which")
    return int(found.group(1)), _number(found.group(2))


def _validator(identity: Identity) -> str | None:
    """What may stand in If-Range: a strong ETag, else the date."""
    if identity.etag and not identity.etag.startswith("W/"):
        return identity.etag
    return identity.modified


def _md5(answer: http.client.HTTPResponse) -> str | None:
    """What the server says of the whole file. Content-MD5 of a part would be the part's."""
    found = []
    if answer.status == 200:
        found.append(answer.getheader("Content-MD5") or "")
    for header, mark in (("x-goog-hash", "md5="), ("Digest", "md5="), ("Repr-Digest", "md5=:")):
        found += [
            part.strip()[len(mark) :].rstrip(":")
            for part in (answer.getheader(header) or "").split(",")
            if part.strip().lower().startswith(mark)
        ]
    for text in found:
        with contextlib.suppress(binascii.Error, ValueError):
            digest = base64.b64decode(text, validate=True)
            if len(digest) == 16:
                return digest.hex()
    return None


def _stamp(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, OverflowError):
        return None


def _retry_after(text: str | None) -> float | None:
    """Seconds, whether the server names them or a date."""
    if text is None:
        return None
    if (seconds := _number(text.strip())) is not None:
        return float(seconds)
    stamp = _stamp(text)
    return None if stamp is None else max(0.0, stamp - time.time())
