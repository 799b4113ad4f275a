"""The page of one task: everything the file says of it, what it wrote, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.handle import Task
from scitq.markup import Markup
from scitq.saying import several
from scitq.shell import facts
from scitq.shell import tasks as told
from scitq.shell.web import deeds, output, page
from scitq.shell.web import zip as archives
from scitq.shell.web.downloads import attached
from scitq.shell.web.output import Piece
from scitq.shell.web.pages import following
from scitq.states import LIVE, Wanted
from scitq.store import listing
from scitq.task import ExecutionRow
from scitq.workflow.looking import size_of

# So many executions, prerequisites, dependents and files are listed.
LISTED = 30
# So many tasks go into one archive.
ARCHIVED = 100_000


@dataclass(frozen=True)
class Pane:
    """One stream of an execution as the page shows it."""

    word: str
    piece: Piece
    text: Markup
    is_end: bool


def one(request: Request) -> Task:
    """The task that an address names."""
    return page.engine(request).task(int(request.path_params["id"]))


def show(request: Request) -> Response:
    """The page."""
    here, task = page.engine(request), one(request)
    found = told.about(here, task)
    row, last = found.row, found.attempts[-1] if found.attempts else None
    chosen = _chosen(request.query_params.get("execution"), found.attempts)
    if last is not None and last.ended_ms is None:
        following.ask(task, row.state)  # what it writes is sent for as long as somebody looks
    is_held = last is not None and last.ended_ms is None and last.wanted in (Wanted.SUSPENDED, Wanted.RECALLED)
    fit = deeds.fit(row, is_held=is_held)
    pairs = [(key, text) for key, text in found.conditions() if key not in ("id", "name", "status", "requires")]
    command = next((at for at, (key, _) in enumerate(pairs) if key == "command"), len(pairs))
    parents = listing.parents(here._reader(), task.id, LISTED)
    children = listing.children(here._reader(), task.id, LISTED + 1)
    attempts = list(zip(found.attempts, found.data["executions"], strict=True))[-LISTED:][::-1]
    panes = [_pane(request, here, chosen, word) for word in output.STREAMS]
    return page.render(
        request, "task.html", topics="tasks", task=row, why=found.data["why"], pairs=pairs[:command], spec=row.spec,
        command="\n".join(text for _, text in pairs[command:]), attempts=attempts, attempts_more=len(found.attempts) - len(attempts),
        chosen=chosen, last=last, is_last=chosen is last, left=found.data["executions"][-1] if last else None, parents=parents,
        parents_more=sum(found.required.values()) - len(parents), required=found.data["requires_count"], children=children[:LISTED],
        children_more=len(children) > LISTED, fit=fit, is_held=is_held, panes=panes, is_live=row.state in LIVE,
        same=[deed.line(here, [row.id]) for deed in fit], edit_waits=listing.edit_pending(here._reader(), row.id),
        stream=following.address(row.id, last, *(pane.piece.end for pane in panes)) if chosen is last else f"/task/{row.id}/live",
        nobody=facts.nobody_drives(here) if not row.state.is_settled else [], shown=LISTED,
    )  # fmt: skip


def _chosen(wanted: str | None, attempts: Sequence[ExecutionRow]) -> ExecutionRow | None:
    """The execution whose output is shown: the one that is asked for, or the latest."""
    if wanted is None:
        return attempts[-1] if attempts else None
    for one in attempts:
        if str(one.id) == wanted:
            return one
    raise BadInput(f"execution {wanted} is not one of this task.")


def _pane(request: Request, here: Engine, chosen: ExecutionRow | None, word: str) -> Pane:
    """A stream from its end on; or, without a script that fetches it, the piece before a place."""
    before, stream = request.query_params.get(f"{word}_before"), output.STREAMS[word]
    if chosen is None:
        piece = Piece(0, b"", 0)
    elif before is None:
        piece = output.last(here, chosen.id, stream)
    else:
        piece = output.before(here, chosen.id, stream, page.whole(before, "an offset"))
    return Pane(word, piece, output.shown(piece.data), piece.end >= piece.size)


# --- output ---------------------------------------------------------------------------------------------------------------


def earlier(request: Request) -> Response:
    """What a stream has before a place, for the script."""
    here, task = page.engine(request), one(request)
    chosen = _chosen(request.query_params.get("execution"), task.executions)
    stream = output.STREAMS.get(request.query_params.get("stream", ""))
    if chosen is None or stream is None:
        raise BadInput("there is no such output.")
    piece = output.before(here, chosen.id, stream, page.whole(request.query_params.get("before", ""), "an offset"))
    return JSONResponse({"start": piece.start, "parts": output.Look().feed(piece.data, is_all=True)})


def download(request: Request) -> Response:
    """All of a stream of an execution, as it is."""
    here, task = page.engine(request), one(request)
    chosen = _chosen(request.path_params["execution"], task.executions)
    word = request.path_params["stream"]
    if chosen is None or word not in output.STREAMS:
        raise BadInput("there is no such output.")
    count = size_of(here, chosen.id, output.STREAMS[word])
    name = f"{archives.folder_of(task.row())} {word}" + (f" {chosen.attempt}" if chosen.attempt > 1 else "") + ".txt"
    return StreamingResponse(
        archives.log(here, chosen, output.STREAMS[word], count), media_type="text/plain; charset=utf-8", headers=attached(name)
    )  # fmt: skip


def everything(request: Request) -> Response:
    """All output of tasks as an archive: of the `id`s, of a `batch`, or of those that meet `where`."""
    here, asked = page.engine(request), request.query_params
    ids: list[int] = [page.whole(text, "the number of a task") for text in asked.getlist("id")]
    name = f"tasks {' '.join(map(str, ids[:5]))}" if ids else here.path.stem
    if batch := asked.get("batch"):
        ids, name = list(archives.ids_of(here, batch)), batch
    elif where := asked.get("where"):
        ids, name = list(here.where(where).ids), f"{here.path.stem} selection"
    if not ids:
        raise BadInput("no tasks were chosen: nothing is there to be packed.")
    if len(ids) > ARCHIVED:
        raise BadInput(
            f"{several(len(ids), 'task')} are too many for one archive (at most {ARCHIVED:,}): choose fewer."
        )
    return StreamingResponse(archives.pieces(here, ids), media_type="application/zip", headers=attached(f"{name}.zip"))


def of_task(request: Request) -> Response:
    """All output of one task as an archive."""
    here, task = page.engine(request), one(request)
    name = f"{archives.folder_of(task.row())}.zip"
    return StreamingResponse(archives.pieces(here, [task.id]), media_type="application/zip", headers=attached(name))


ROUTES = [
    Route("/task/{id:int}", show),
    Route("/task/{id:int}/live", following.stream),
    Route("/task/{id:int}/earlier", earlier),
    Route("/task/{id:int}/all.zip", of_task),
    Route("/task/{id:int}/execution/{execution}/{stream}", download),
    Route("/all.zip", everything),
]
