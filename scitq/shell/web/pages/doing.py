"""Doing something: at once, or after a page that shows what would be done. Every form of every page that changes anything of
tasks, batches and workflows comes here; what is done is in `deeds`.

What was shown is what is done: the targets of a preview are kept here, in memory, until it is confirmed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.errors import BadInput, ScitqError
from scitq.saying import several
from scitq.shell import facts
from scitq.shell.web import page
from scitq.shell.web.deeds import Deed, Preview, deed_of

# So many previews wait for an answer; older ones are forgotten.
PREVIEWS = 20


@dataclass(frozen=True)
class Chosen:
    """What a preview is about."""

    deed: Deed
    targets: Sequence[Any]
    line: str


def do(request: Request) -> Response:
    """`/do/task/cancel` and the like. Targets are `id`s of tasks, or `name`s of others; or tasks that meet `where`."""
    deed = deed_of(request.path_params["noun"], request.path_params["name"])
    kept = page.site(request).chosen
    if key := page.field(request, "chosen"):
        chosen = kept.pop(key, None)
        if not isinstance(chosen, Chosen) or chosen.deed is not deed:
            raise BadInput("This was done already, or is too old: nothing was done. Choose again.")
        return _done(request, deed, chosen.targets, chosen.line)
    here, where = page.engine(request), page.field(request, "where").strip()
    if where:
        targets: Sequence[Any] = here.where(where).ids
        return ask(request, deed, targets, line=deed.line(here, (), where))
    if deed.noun == "task":
        targets = [page.whole(text, "the number of a task") for text in page.fields(request, "id")]
    else:
        targets = page.fields(request, "name")
    return ask(request, deed, targets)


def ask(request: Request, deed: Deed, targets: Sequence[Any], *, line: str | None = None) -> Response:
    """Do it to these; or show what that would be, if it has to be confirmed. `line`: the command line that chooses them."""
    here = page.engine(request)
    if not targets:
        page.said(request, f"Nothing was chosen: nothing to {deed.label.lower()}.", "note")
        return page.go(request, "/tasks")
    try:
        found = deed.preview(here, targets)
    except ScitqError as problem:
        page.said(request, str(problem), "bad")
        return page.go(request, "/")
    if not found.able:
        page.said(request, found.text, "note")
        return page.go(request, "/")
    line = line or deed.line(here, targets)
    if not deed.asks(found):
        return _done(request, deed, targets, line)
    return _shown(request, Chosen(deed, targets, line), found)


def _shown(request: Request, chosen: Chosen, found: Preview) -> Response:
    """The page that asks."""
    kept = page.site(request).chosen
    while len(kept) >= PREVIEWS:
        kept.pop(next(iter(kept)), None)
    key = secrets.token_urlsafe(12)
    kept[key] = chosen
    noun = "task" if found.tasks else chosen.deed.noun
    count = found.able if found.tasks else len(chosen.targets)
    what = several(count, noun, "batches" if noun == "batch" else None)
    return page.render(
        request, "confirm.html", deed=chosen.deed, preview=found, key=key, line=chosen.line, what=what,
        back=page.back(request, "/"), more=found.total - len(found.tasks) if found.tasks else 0,
    )  # fmt: skip


def _done(request: Request, deed: Deed, targets: Sequence[Any], line: str) -> Response:
    here = page.engine(request)
    try:
        count = deed.act(here, targets)
    except ScitqError as problem:
        page.said(request, str(problem), "bad")
        return page.go(request, "/")
    page.said(request, f"{deed.told(count)} The same: {line}", "good" if count else "note")
    if count and not deed.destroys and facts.driver_of(here) is None and facts.queued(here.counts()):
        page.said(request, " ".join(facts.nobody_drives(here)), "note")
    return page.go(request, "/")


ROUTES = [Route("/do/{noun}/{name}", do, methods=["POST"])]
