"""The page for renting machines by hand: what there is, what would be rented of it and at what price; and then, renting that."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput, ScitqError
from scitq.hints import command_for, quoted
from scitq.offers import Offer
from scitq.ranking import Ranking
from scitq.saying import age
from scitq.shell import facts
from scitq.shell.renting import price_of
from scitq.shell.web import page
from scitq.shell.web.pages.doing import PREVIEWS
from scitq.store import names, rentals

# So long the page waits for providers that were not asked for too long, before it shows what the file has.
PATIENCE_S = 5.0
# So old a preview may be: prices and what is free change.
GOOD_S = 600.0
# So many offers are listed, of those that would do and of those that would not; so many names are proposed.
LISTED = 40
OUT = 10
PROPOSED = 300
# What a form says, with the options of `scitq worker deploy` that say the same.
OPTIONS = {
    "flavor": "-f", "provider": "-P", "region": "-r", "market": "-m", "number": "-N", "concurrency": "-C", "prefetch": "-p",
    "batch": "-b", "max_price": "--max-price", "name": "-n", "expires": "--expires",
}  # fmt: skip
_EXAMPLES = ("auto:cpu>=8:ram>=32", "auto:cpu>=8:market==spot", "auto:gpu>=1")


@dataclass(frozen=True)
class Wish:
    """What is wanted: `look` for the ranking, `rent` for what becomes of it."""

    text: dict[str, str]
    look: dict[str, Any]
    rent: dict[str, Any]
    number: int


@dataclass(frozen=True)
class Shown:
    """What a preview is about: these machines are rented by its button, and no others."""

    offers: Sequence[Offer]
    wish: Wish
    line: str
    good_until: float


def show(request: Request) -> Response:
    """What could be rented, best first, and what would be rented of it. Changes nothing."""
    here = page.engine(request)
    text = {name: request.query_params.get(name, "").strip() for name in OPTIONS}
    found, wish, problem = Ranking(), None, None
    notes = _fresh(here)
    try:
        wish = _wish(text)
        found = here.flavors(text["flavor"] or None, **wish.look)
    except BadInput as bad:
        problem = str(bad)
    preview = key = line = None
    if wish is not None and found.ranked:
        offers = [one.offer for one in found.ranked[: rentals.MOST_OFFERS]]
        line, preview = _line(here, text), price_of(offers, wish.number)
        key = _keep(request, Shown(offers, wish, line, time.monotonic() + GOOD_S))
    db = here._reader()
    return page.render(
        request, "rent.html", 200 if problem is None else 400, given=text, found=found, problem=problem, notes=[*notes, *found.notes],
        preview=preview, key=key, line=line, number=wish.number if wish else 1, ranked=found.ranked[:LISTED],
        excluded=list(found.excluded[:OUT]), more=max(0, len(found.ranked) - LISTED), out=len(found.excluded),
        flavors=[*((one, "what is needed") for one in _EXAMPLES), *names.flavors(db, "", PROPOSED)],
        regions=names.regions(db, "", PROPOSED), providers=sorted(here.catalogue.configured()), batches=sorted(here.batches()),
    )  # fmt: skip


def rent(request: Request) -> Response:
    """Rent what was shown, once. Whoever drives asks the provider: each machine is a job."""
    here = page.engine(request)
    shown = page.site(request).chosen.pop(page.field(request, "chosen"), None)
    if not isinstance(shown, Shown) or time.monotonic() > shown.good_until:
        raise BadInput("This was done already, or is too old: nothing was rented. Look again at what there is.")
    try:
        rows = here.worker_rent(shown.offers, number=shown.wish.number, **shown.wish.rent)
    except ScitqError as problem:
        page.said(request, str(problem), "bad")
        return page.go(request, page.address("/rent", **shown.wish.text))
    many = ", ".join(row.name for row in rows)
    page.said(
        request,
        f"{many}: to be deployed; {'its job is' if len(rows) == 1 else 'their jobs are'} below. The same: {shown.line}",
    )
    if facts.driver_of(here) is None:
        page.said(request, " ".join(facts.nobody_drives(here)), "note")
    return page.go(request, "/workers")


def _wish(text: dict[str, str]) -> Wish:
    """What the form means.

    Raises:
        BadInput: it makes no sense.
    """

    def whole(name: str) -> int | None:
        return page.whole(text[name], f"“{name}”") if text[name] else None

    def amount(name: str) -> float | None:
        try:
            value = float(text[name].replace(",", ".")) if text[name] else None
        except ValueError:
            value = -1.0
        if value is not None and not 0 < value < 1e9:
            raise BadInput(f"“{name.replace('_', ' ')}” must be a number above 0, not {text[name]!r}.")
        return value

    number = whole("number")
    if number == 0:
        raise BadInput("The number of machines must be 1 or more.")
    hours, slots = amount("expires"), whole("concurrency")
    if slots == 0:
        raise BadInput("A machine has to run one task at once, or more.")
    look = {
        "provider": _any(text["provider"]), "region": _any(text["region"]), "market": text["market"] or None,
        "max_price": amount("max_price"), "concurrency": slots,
    }  # fmt: skip
    ahead = None if text["prefetch"] in ("", "auto") else whole("prefetch")
    kept = {
        "name": text["name"] or None, "concurrency": slots, "prefetch": ahead,
        "batch": text["batch"] or None, "max_price": look["max_price"], "expires": None if hours is None else 3600 * hours,
    }  # fmt: skip
    return Wish(text, look, kept, number or 1)


def _any(word: str) -> str | None:
    return None if word in ("", "auto") else word


def _line(here: Engine, text: dict[str, str]) -> str:
    """The command line that rents the same."""
    words = [
        f"{OPTIONS[name]} {quoted(value)}" for name, value in text.items() if value and (name, value) != ("number", "1")
    ]
    return command_for(here, " ".join(["worker deploy", *words]))


def _keep(request: Request, shown: Shown) -> str:
    kept = page.site(request).chosen
    while len(kept) >= PREVIEWS:
        kept.pop(next(iter(kept)), None)
    key = secrets.token_urlsafe(12)
    kept[key] = shown
    return key


def _fresh(here: Engine) -> list[str]:
    """Ask whoever was not asked for too long; what is wrong with providers, and of when what they sell is then."""
    if not here.catalogue.configured():
        return [
            "No provider is configured, so nothing can be rented. In a terminal: scitq provider add NAME --kind KIND"
        ]
    if not here._store.read_only:
        here.flavor_refresh(only_old=True, timeout=PATIENCE_S)
    now = facts.now_ms()
    return [
        f"{one.provider}: {one.problem} "
        + (
            "Nothing of it is known."
            if one.fetched_ms is None
            else f"Shown is what it sold {age((now - one.fetched_ms) / 1000)}."
        )
        for one in here.flavor_reads()
        if one.problem is not None
    ]


ROUTES = [Route("/rent", show), Route("/rent", rent, methods=["POST"])]
