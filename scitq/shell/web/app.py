"""The application: routes, and what becomes of errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import resources
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from scitq.errors import BadInput, IllegalMove, NameTaken, ScitqError, UnknownBatch, UnknownTask
from scitq.shell.web import page
from scitq.shell.web.live import Live
from scitq.shell.web.pages import batches, cost, doing, edit, home, planned, rent, task, tasks, workers, workflow
from scitq.shell.web.security import App, Guard, Refused, Sessions

if TYPE_CHECKING:
    from scitq.engine import Engine

# So many pages are made at a time; further ones wait. Each has a thread, and each thread a connection to the file.
AT_ONCE = 8
_STATIC = {
    "page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml", "task.css": "text/css",
    "task.js": "text/javascript",
}  # fmt: skip
_PAGES = (home, workers, batches, tasks, task, edit, doing, workflow, planned, cost, rent)


def make(engine: Engine, sessions: Sessions, live: Live) -> App:
    """The application on an open state file (opened with drive=False), behind its guard."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = AT_ONCE
        await live.begin(engine)
        yield

    routes = [
        Route("/enter", _enter),
        Route("/live", live.stream),
        Route("/static/{name}", _static),
        *(route for module in _PAGES for route in module.ROUTES),
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan,
        exception_handlers={HTTPException: _http, ScitqError: _ours, TimeoutError: _late, Exception: _bug},
    )  # fmt: skip
    app.state.site = page.Site(engine, sessions, live, {}, page.Kept())
    return Guard(app, sessions, lambda problem: _page(problem.code, problem.sentence))


def _enter(request: Request) -> Response:
    """The way in: a link's token becomes this browser's session, and is dead from then on."""
    sessions = page.site(request).sessions
    try:
        name = sessions.enter(request.query_params.get("token", ""))
    except Refused as problem:
        return _page(problem.code, problem.sentence)
    # No redirect: the browser came from outside, and would not show its new cookie (SameSite) on the way of a redirect. The
    # page leads on by itself, from within.
    text = page.templates().get_template("enter.html").render()
    return HTMLResponse(text, headers={"set-cookie": sessions.cookie_line(name)})


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "pictures.css":  # graphs and timelines look as in reports
        from scitq.workflow.reportstyle import PICTURES

        return Response(PICTURES, media_type="text/css", headers={"cache-control": "private, max-age=3600"})
    if name not in _STATIC:
        raise HTTPException(404)
    data = (resources.files("scitq.shell.web") / "static" / name).read_bytes()
    return Response(data, media_type=_STATIC[name], headers={"cache-control": "private, max-age=3600"})


# --- errors -----------------------------------------------------------------------------------------------------------------


def _page(code: int, sentence: str) -> HTMLResponse:
    """One sentence."""
    return HTMLResponse(page.templates().get_template("error.html").render(code=code, sentence=sentence), code)


async def _http(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    sentences = {404: "There is no such page.", 405: "This page does not do that."}
    return _page(problem.status_code, sentences.get(problem.status_code, problem.detail))


async def _ours(_: Request, problem: Exception) -> Response:
    codes: list[tuple[type[Exception], int]] = [
        (BadInput, 400), (IllegalMove, 409), (NameTaken, 409), (UnknownTask, 404), (UnknownBatch, 404),
    ]  # fmt: skip
    is_unknown = type(problem).__name__.startswith("Unknown")
    code = 404 if is_unknown else next((code for kind, code in codes if isinstance(problem, kind)), 503)
    return _page(code, str(problem))


async def _late(_: Request, problem: Exception) -> Response:
    return _page(503, str(problem) or "This took too long.")


async def _bug(_: Request, problem: Exception) -> Response:
    return _page(500, f"A mistake of scitq's own ({type(problem).__name__}); the terminal of scitq web says more.")
