"""What every page is made with: the templates, what stands on each of them, what a form said, and where it leads.

Text is escaped by the templates, always; and control characters and turns of the direction of writing are shown, not obeyed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import jinja2
import markupsafe
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from scitq._version import VERSION
from scitq.errors import BadInput
from scitq.markup import Markup
from scitq.saying import age, clean, duration, several, size
from scitq.shell import facts

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.shell.web.live import Live
    from scitq.shell.web.security import Session, Sessions

T = TypeVar("T")


class Kept:
    """Figures that take long to count, kept while nothing changes; and, where everything changes, for twenty times as long as it
    took: a page that is open counts for a twentieth of the time at most."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float, object]] = {}

    def get(self, what: str, version: str, count: Callable[[], T]) -> T:
        """The figures of that name, of the file at that version or of a moment ago."""
        known = self._known.get(what)
        began = time.monotonic()
        if known is None or (known[0] != version and began >= known[1]):
            value = count()
            took = time.monotonic() - began
            known = self._known[what] = (version, began + 21 * took, value)
        found: T = known[2]  # type: ignore[assignment]
        return found


@dataclass(frozen=True)
class Site:
    """What the pages share."""

    engine: Engine
    sessions: Sessions
    live: Live
    chosen: dict[str, Any]  # what previews are about, until they are confirmed: see `doing`
    kept: Kept


def site(request: Request) -> Site:
    """What the pages share."""
    found: Site = request.app.state.site
    return found


def engine(request: Request) -> Engine:
    """The state file."""
    return site(request).engine


def session(request: Request) -> Session:
    """The browser that asks."""
    found: Session = request.state.session
    return found


# --- what a form said -----------------------------------------------------------------------------------------------------


def field(request: Request, name: str, default: str = "") -> str:
    """What a form says in a field."""
    return fields(request, name)[-1] if fields(request, name) else default


def fields(request: Request, name: str) -> list[str]:
    """Everything that it says under a name."""
    form: Mapping[str, list[str]] = getattr(request.state, "form", {})
    return form.get(name, [])


def whole(text: str, what: str) -> int:
    """A number of 0 or more that somebody typed.

    Raises:
        BadInput: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadInput(f"{what} must be a number of 0 or more, not {text!r}.")
    return int(text)


# --- answers --------------------------------------------------------------------------------------------------------------


def render(request: Request, template: str, code: int = 200, **values: Any) -> Response:
    """A page. `topics` are what it is to be refreshed for (`tasks`, `workers`, `jobs`); none: never."""
    return HTMLResponse(templates().get_template(template).render({**_common(request), **values}), code)


def said(request: Request, sentence: str, kind: str = "good") -> None:
    """A sentence for the next page that this browser opens: `good`, `note` or `bad`."""
    session(request).said.append((kind, sentence))


def go(request: Request, otherwise: str) -> Response:
    """After something was done: to the page that the form names in `next`, or else there."""
    return RedirectResponse(back(request, otherwise), 303)


def back(request: Request, otherwise: str) -> str:
    """The page that a form names in `next`, if it is one of ours; or else that one."""
    target = field(request, "next")
    is_ours = target.startswith("/") and not target.startswith("//") and target.isprintable() and "\\" not in target
    return target if is_ours else otherwise


def address(path: str, **query: Any) -> str:
    """A path with its query; what is None or empty is left out. A list stands for several values."""
    kept = {key: value for key, value in query.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(kept, doseq=True)}" if kept else path


def _common(request: Request) -> dict[str, Any]:
    """What stands on every page."""
    known = getattr(request.state, "session", None)
    is_live = "x-live" in request.headers
    found: dict[str, Any] = {
        "request": request,
        "csrf": None,
        "flash": [],
        "path": request.url.path,
        "topics": "",
        "version": "",
    }
    found["here"] = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if known is None:
        return found
    here = engine(request)
    counts, holder = here.counts(), facts.driver_of(here)
    if not is_live:
        found["flash"], known.said = known.said, []
    return {
        **found, "csrf": known.csrf, "file": here.path.name, "counts": counts, "driver": holder,
        "driver_says": holder.describe(facts.now_ms()) if holder else None, "open_tasks": facts.live(counts) + facts.queued(counts),
        "version": site(request).live.version(here),
    }  # fmt: skip


# --- templates ------------------------------------------------------------------------------------------------------------


@functools.cache
def templates() -> jinja2.Environment:
    """The templates, which escape everything."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("scitq.shell.web"), autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(
        ours=ours, text=_text, size=lambda value: "" if value is None else size(int(value)), date=_date, ago=_ago,
        duration=lambda value: "" if value is None else duration(float(value)), several=several, number=lambda value: f"{value:,}",
    )  # fmt: skip
    found.globals.update(address=address, scitq_version=VERSION, now_ms=facts.now_ms)
    return found


def _shown(value: Any) -> Any:
    """A value as it stands on a page: None is nothing, and no text commands how the page reads."""
    if value is None:
        return ""
    return clean(value) if type(value) is str else value


def ours(value: Markup) -> markupsafe.Markup:
    """Markup that our own functions have made (`scitq.markup`), as it is; nothing else can get through."""
    if not isinstance(value, Markup):
        raise TypeError("this is no markup of ours")
    return markupsafe.Markup(str(value))


def _text(value: str) -> markupsafe.Markup:
    """A text of several lines, for a textarea or a pre: escaped, its ends of lines and tabs kept."""
    return markupsafe.Markup("\n").join(
        markupsafe.escape("\t".join(clean(part) for part in line.split("\t"))) for line in value.split("\n")
    )


def _ago(at_ms: int | None) -> str:
    return "" if at_ms is None else age((time.time_ns() // 1_000_000 - at_ms) / 1000)


def _date(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
