"""The pages of workflows: which there are; one, step by step, as a graph and as a timeline; the graph of a batch; the report."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.markup import Markup
from scitq.shell import workflows as told
from scitq.shell.web import deeds, page, pictures
from scitq.shell.web.downloads import attached
from scitq.shell.web.pages import planned
from scitq.states import BAD, LIVE, Halt, TaskState
from scitq.store import batches, workflows
from scitq.workflow import report
from scitq.workflow.overview import QUEUED, Overview, Watch

_watches: weakref.WeakKeyDictionary[Engine, dict[str, Watch]] = weakref.WeakKeyDictionary()
_gate = threading.Lock()
WATCHED = 50
# The parts of a bar of progress.
_PARTS = (("succeeded", frozenset({TaskState.SUCCEEDED})), ("failed", BAD), ("running", LIVE))


def overview(here: Engine, name: str) -> Overview:
    """How a workflow stands; its rates are of what this page has seen so far."""
    with _gate:
        known = _watches.setdefault(here, {})
        if name not in known:
            workflows.get(here._reader(), name)
            while len(known) >= WATCHED:
                del known[next(iter(known))]
            known[name] = Watch(here, name)
        return known[name].look()


def listed(request: Request) -> Response:
    """All of them."""
    here = page.engine(request)
    rows = told.listed(here, SimpleNamespace(no_header=False)).rows
    return page.render(request, "workflows.html", topics="tasks", rows=rows)


def show(request: Request) -> Response:
    """One of them."""
    here, name = page.engine(request), _name(request)
    found = overview(here, name)
    wants = request.query_params.get("draw")
    graph = timeline = None
    if found.total <= pictures.GRAPH_OF or wants == "graph":
        graph = pictures.of_workflow(here, name)
    if 0 < found.total <= pictures.TIMELINE_OF or wants == "timeline":
        timeline = pictures.timeline(here, name)
    halted = found.halt is not Halt.GO
    fit = ("unpause",) if halted else () if found.is_settled else ("pause", "suspend")
    buttons = deeds.of("workflow", *fit, "delete")
    if found.halt is Halt.PAUSED:
        buttons.insert(1, deeds.deed_of("workflow", "suspend"))
    return page.render(
        request, "workflow.html", topics="tasks", flow=found, graph=graph, timeline=timeline, parts=_parts(found), buttons=buttons,
        same=[deed.line(here, [name]) for deed in buttons], legend=pictures.steps_in_order(here, name), live=sorted(LIVE),
        queued=QUEUED, bad=sorted(BAD), done=TaskState.SUCCEEDED, most=pictures.TIMELINE_OF,
        no_plan=planned.unknown(found.row.script),
    )  # fmt: skip


def _parts(found: Overview) -> dict[str, list[tuple[str, float]]]:
    """For each step the parts of its bar."""
    return {
        step.name: [(word, step.count(*states) / step.total) for word, states in _PARTS if step.total]
        for step in found.steps
    }


def graph(request: Request) -> Response:
    """The graph of a batch, whether of a workflow or not."""
    here, name = page.engine(request), request.query_params.get("batch", "")
    batches.known(here._reader(), name)
    total = sum(here.counts(name).values())
    picture: Markup | None = None
    if total <= pictures.GRAPH_OF or request.query_params.get("draw") == "graph":
        picture = pictures.of_batch(here, name)
    flow = next((one.name for one in here.workflows() if name in _steps(here, one.name)), None)
    return page.render(
        request,
        "graph.html",
        topics="tasks",
        batch=name,
        total=total,
        graph=picture,
        flow=flow,
        most=pictures.TASKS_DRAWN,
    )


def _steps(here: Engine, workflow: str) -> set[str]:
    db = here._reader()
    return {step.batch for step in workflows.steps(db, workflows.get(db, workflow).id)}


# --- reports ------------------------------------------------------------------------------------------------------------------


def download(request: Request) -> Response:
    """The report, as a page of its own or as JSON: a file to keep, for this page lets no styles of others in."""
    here, name = page.engine(request), _name(request)
    workflows.get(here._reader(), name)
    suffix = ".json" if request.query_params.get("as") == "json" else ".html"
    handle, path = tempfile.mkstemp(prefix="scitq-report-", suffix=suffix)
    try:
        # All of it in this thread, which has a view of the file of its own.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            if suffix == ".json":
                file.writelines(report.json_parts(here, name))
        if suffix == ".html":
            report.write(here, name, Path(path))
    except BaseException:
        os.unlink(path)
        raise
    kind = "application/json" if suffix == ".json" else "text/html; charset=utf-8"
    return FileResponse(
        path, media_type=kind, headers=attached(f"{name}{suffix}"), background=BackgroundTask(os.unlink, path)
    )


def _name(request: Request) -> str:
    name = request.query_params.get("name")
    if not name:
        raise BadInput("which workflow? The list has their names.")
    return name


ROUTES = [
    Route("/workflows", listed),
    Route("/workflow", show),
    Route("/workflow/report", download),
    Route("/graph", graph),
]
