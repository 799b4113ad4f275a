"""Who may talk to the page: one browser that came with the one-time link, from our own pages, with small requests.

A guard around the whole application. It also reads what forms send, so that no page sees a body that was not checked.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a form may send, and how long it may take over it.
BODY_LIMIT = 1 << 20
FIELDS_LIMIT = 20_000
BODY_S = 15.0
LOOPBACK = ("127.0.0.1", "localhost")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that gets no further: the code, and a sentence for whoever looks at it."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass
class Session:
    """One browser. Lives in memory only; `said` are sentences for its next page, (kind, text) each."""

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    said: list[tuple[str, str]] = field(default_factory=list)


class Sessions:
    """The browsers that were let in, and the links that let further ones in, each once."""

    def __init__(self, port: int | None) -> None:
        self.port = port
        # Cookies know no ports: two pages of this machine must not take one another's.
        self.cookie = f"scitq-{port or 'socket'}"
        self._tokens: set[str] = set()
        self._sessions: dict[str, Session] = {}
        # Called when a link was used.
        self.on_enter: Callable[[], None] = lambda: None

    def token(self) -> str:
        """What a link carries, good for one use."""
        token = secrets.token_urlsafe(32)
        self._tokens.add(token)
        return token

    def enter(self, token: str) -> str:
        """Exchange a link's token for a session's name.

        Raises:
            Refused: it was used already, or never given.
        """
        known = next((one for one in self._tokens if hmac.compare_digest(one.encode(), token.encode())), None)
        if known is None:
            raise Refused(401, "This link was used already, or is not of this page. Run scitq web again for a new one.")
        self._tokens.discard(known)
        name = secrets.token_urlsafe(32)
        self._sessions[name] = Session()
        self.on_enter()
        return name

    def of(self, cookies: str) -> Session | None:
        """The session that a request's cookies name."""
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(cookies)
        except CookieError:
            return None
        found = jar.get(self.cookie)
        return None if found is None else self._sessions.get(found.value)

    def cookie_line(self, session: str) -> str:
        """The header that gives a browser its session: no script and no other site can use it."""
        return f"{self.cookie}={session}; HttpOnly; SameSite=Strict; Path=/"

    def knows(self, host: str) -> bool:
        """Whether a Host header is one of ours; any other name that leads here was made up by somebody (DNS rebinding)."""
        name, _, port = host.partition(":")
        return name in LOOPBACK and (self.port is None or port == str(self.port))


class Guard:
    """The application, for those who may use it. `refuse` makes the page that others get."""

    def __init__(self, app: App, sessions: Sessions, refuse: Callable[[Refused], App]) -> None:
        self._app = app
        self._sessions = sessions
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        send = _with_headers(send)
        try:
            receive = await self._checked(scope, receive)
        except Refused as problem:
            await self._refuse(problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = _headers(scope)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(405, "This page knows GET and POST only.")
        if not self._sessions.knows(headers.get("host", "")):
            raise Refused(421, "This page answers to 127.0.0.1 and localhost, with its own port, only.")
        is_reading = scope["method"] != "POST"
        check_origin(headers, is_reading=is_reading)
        session = self._sessions.of(headers.get("cookie", ""))
        scope.setdefault("state", {})["session"] = session
        if session is None and not (is_reading and is_open(scope["path"])):
            raise Refused(401, "Nobody comes in without the link that scitq web prints. Run scitq web for a new one.")
        if is_reading:
            return receive
        form = await _form(headers, receive)
        given = form.get("csrf", [""])[0]
        if session is None or not hmac.compare_digest(given.encode(), session.csrf.encode()):
            raise Refused(403, "This form is of an older page. Go back, load the page anew, and try again.")
        scope["state"]["form"] = form
        return receive


def is_open(path: str) -> bool:
    """What is for everybody: the way in, and how things look."""
    return path == "/enter" or path.startswith("/static/")


def check_origin(headers: dict[str, str], *, is_reading: bool) -> None:
    """Other pages may link to ours, and no more.

    Raises:
        Refused: another site has sent this.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    ours = f"http://{headers.get('host', '')}"
    if origin not in (None, "null", ours):
        raise Refused(403, "Another page has sent this; it is refused.")
    if is_reading:
        is_visit = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if site not in (None, "none", "same-origin") and not is_visit:
            raise Refused(403, "Another page has asked for this; it is refused.")
    # Browsers say "null" of our own forms, because no page of ours is to be named to anybody (no-referrer).
    elif site not in (None, "same-origin") or (site is None and origin != ours):
        raise Refused(403, "Another page has sent this; it is refused.")


async def _form(headers: dict[str, str], receive: Receive) -> dict[str, list[str]]:
    """The fields of a form, read within limits."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "Only forms of this page are understood.")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_LIMIT:
        raise Refused(413, f"A form may have {BODY_LIMIT:,} bytes.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refused(400, "The form broke off.")
                body += message.get("body", b"")
                if len(body) > BODY_LIMIT:
                    raise Refused(413, f"A form may have {BODY_LIMIT:,} bytes.")
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise Refused(408, "The form took too long to arrive.") from None
    try:
        return parse_qs(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_LIMIT, separator="&"
        )
    except (UnicodeError, ValueError):
        raise Refused(400, "The form cannot be read.") from None


def _headers(scope: Scope) -> dict[str, str]:
    """By name; of one that came twice, both, which then fits nothing."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        joint = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{joint}{value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known]
            message["headers"] = [*message.get("headers", ()), *more]
        await send(message)

    return sending
