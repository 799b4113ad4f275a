"""The first page: how it goes, what needs somebody and what could be done about it, who drives, and who else may come in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.errors import BadInput, NoDriver
from scitq.hints import command_for, driver_of, quoted
from scitq.leaving import Behind
from scitq.noticing import Action
from scitq.shell import facts, looking
from scitq.shell.web import page
from scitq.states import TaskState

# Where the commands that notices propose are to be found on the page: what stands first in their words, and the page.
_PAGES = {
    ("task", "show"): "/task/{}",
    ("task", "why"): "/task/{}",
    ("worker", "list"): "/workers",
    ("worker", "show"): "/workers",
}
# What they propose that a button can do: the noun and the deed.
_BUTTONS = {("batch", "go"), ("task", "relaunch"), ("worker", "restart"), ("worker", "lost"), ("worker", "resume")}


def home(request: Request) -> Response:
    """How it goes."""
    here = page.engine(request)
    counts, notices = here.counts(), here.notices()
    if "x-live" not in request.headers:
        here.notices_seen(notices)
    return page.render(
        request, "home.html", topics="tasks,workers,jobs", says=facts.counted(counts), spent=[str(one) for one in here.spending()],
        per_minute=looking.rate(here), workers=here.workers(), start=command_for(here, "up"), total=sum(counts.values()),
        order=list(TaskState),
        notices=[(notice, [(action, command_for(here, " ".join(map(quoted, action.words))), leads_to(action), deed_for(action))
                           for action in notice.actions]) for notice in notices],
        put_aside=len(here.notices(dismissed=True)) - len(notices), is_here=_is_here(request),
    )  # fmt: skip


def leads_to(action: Action) -> str | None:
    """The page that shows what an action's command would."""
    target = _PAGES.get((action.words[0], action.words[1]) if len(action.words) > 1 else ("", ""))
    if target is None or ("{}" in target and not (len(action.words) == 3 and action.words[2].isdecimal())):
        return None
    return target.format(*action.words[2:3])


def deed_for(action: Action) -> tuple[str, dict[str, str]] | None:
    """The button that does what an action's command would: where it posts, and what."""
    words = action.words
    if words[:2] not in _BUTTONS or len(words) not in (3, 4):
        return None
    where = f"/do/{words[0]}/{words[1]}"
    if len(words) == 4:
        return (where, {"where": words[3]}) if words[2] == "--where" else None
    if words[2].startswith("-"):
        return None
    return where, {"id" if words[0] == "task" else "name": words[2]}


def _is_here(request: Request) -> bool:
    """Whether the driver, if there is one, is a process of this machine."""
    holder = driver_of(page.engine(request))
    return holder is None or holder.is_here


def dismiss(request: Request) -> Response:
    """Put a notice aside until it changes."""
    notice = page.engine(request).dismiss(page.field(request, "key"))
    page.said(request, f"Put aside until it changes: {notice.text}")
    return page.go(request, "/")


def drive(request: Request) -> Response:
    """Leave a driver behind, which goes on when this page is gone."""
    here = page.engine(request)
    holder = driver_of(here)
    if holder is not None:
        page.said(request, f"{here.path.name} is driven already: {holder.describe(facts.now_ms())}.", "note")
        return page.go(request, "/")
    page.said(request, Behind(here).told)
    return page.go(request, "/")


def stop(request: Request) -> Response:
    """Ask whoever drives to let go."""
    here = page.engine(request)
    if driver_of(here) is None:
        raise NoDriver(f"nobody drives {here.path.name}.")
    if page.field(request, "sure") != "yes":
        return page.render(
            request,
            "stop.html",
            live=facts.live(here.counts()),
            queued=facts.queued(here.counts()),
            line=command_for(here, "down"),
        )
    here.stop_driver()
    page.said(request, f"The driver is asked to let go. {facts.goes_on(here.counts())}".strip())
    return page.go(request, "/")


def link(request: Request) -> Response:
    """A link for one more browser."""
    sessions = page.site(request).sessions
    host = request.headers["host"]
    if not host:
        raise BadInput("this request does not say by which address it came.")
    return page.render(request, "link.html", link=f"http://{host}/enter?token={sessions.token()}")


ROUTES = [
    Route("/", home),
    Route("/notices/dismiss", dismiss, methods=["POST"]),
    Route("/driver/start", drive, methods=["POST"]),
    Route("/driver/stop", stop, methods=["POST"]),
    Route("/link", link, methods=["POST"]),
]
