"""The workers: what they are, hold, have done, and how busy they are; how much they run, changed in place; and the jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.markup import Markup
from scitq.shell.rented import Rented, rented
from scitq.shell.web import jobdeeds, page, workerdeeds
from scitq.shell.web.deeds import Deed
from scitq.shell.web.sparks import rates, spark
from scitq.states import Outcome, TaskState
from scitq.store import executions, query, summary
from scitq.store import workers as rows
from scitq.worker import Load, WorkerRow

JOBS = 20
LOG_LINES = 200
# What is shown of how busy a machine is; none of it, for one that was never asked.
_FIGURES = ("cpu", "load", "memory", "memory_free", "disk", "disk_free", "disks", "read_s", "written_s")
_BAD = frozenset(Outcome) - {Outcome.SUCCEEDED, Outcome.RECALLED, Outcome.CANCELLED}


@dataclass(frozen=True)
class Disk:
    """A disk of a worker's machine."""

    place: str
    total: int
    free: int

    @property
    def used(self) -> float:
        """The share that is taken."""
        return 1 - self.free / self.total if self.total else 0.0


@dataclass(frozen=True)
class Shown:
    """A worker as the page shows it."""

    row: WorkerRow
    load: Load
    live: dict[TaskState, int]
    succeeded: int
    failed: int
    stats: dict[str, Any]
    disks: list[Disk]
    trends: dict[str, Markup | None]
    net_in: float | None
    net_out: float | None
    deeds: list[Deed]
    rented: Rented | None = None


def workers(request: Request) -> Response:
    """The page."""
    here = page.engine(request)
    db = here._reader()
    loads, live = executions.loads(db), _live(here)
    done = page.site(request).kept.get(
        "outcomes", str(query.one(db, "select max(id) from journal")[0]), lambda: summary.outcomes(db)
    )
    paid, found = rented(here), []
    for row in here.workers():
        ended = done.get(int(row.id), {})
        found.append(
            _shown(here, row, loads.get(row.id, Load()), live.get(int(row.id), {}), ended, paid.get(int(row.id)))
        )
    known = {one.row.id: one.row for one in found}
    jobs = [
        (job, jobdeeds.fit(job, None if job.worker is None else known.get(job.worker))) for job in here.jobs(limit=JOBS)
    ]
    return page.render(
        request, "workers.html", topics="tasks,workers,jobs", shown=found, jobs=jobs, batches=sorted(here.batches()),
        log_lines=LOG_LINES, given=None,
    )  # fmt: skip


def _live(here: Engine) -> dict[int, dict[TaskState, int]]:
    """How many tasks each worker holds, by state."""
    found: dict[int, dict[TaskState, int]] = {}
    for worker, state, count in query.rows(
        here._reader(),
        """select execution.worker, task.state, count(*) from execution indexed by execution_worker
        join task on task.id = execution.task where execution.ended is null group by execution.worker, task.state""",
    ):
        found.setdefault(worker, {})[TaskState(state)] = count
    return found


def _shown(
    here: Engine, row: WorkerRow, load: Load, live: dict[TaskState, int], ended: dict[Outcome, int], paid: Rented | None
) -> Shown:  # fmt: skip
    samples = rows.samples(here._reader(), int(row.id))
    stats = {key: row.stats.get(key) for key in _FIGURES}
    memory = stats.get("memory") or row.memory
    disk = stats.get("disk")
    net = {key: rates([(one.at_ms, getattr(one, key)) for one in samples]) for key in ("net_in", "net_out")}
    latest = {key: next((value for _, value in reversed(some) if value is not None), None) for key, some in net.items()}
    trends = {
        "cpu": spark([(one.at_ms, one.cpu) for one in samples], "CPUs busy, lately", top=1.0),
        "load": spark([(one.at_ms, one.load) for one in samples], "load, lately"),
        "memory": spark([(one.at_ms, _used(one.memory_free, memory)) for one in samples], "memory taken, lately", top=1.0),
        "disk": spark([(one.at_ms, _used(one.disk_free, disk)) for one in samples], "disk taken, lately", top=1.0),
        "net": spark([(a[0], (a[1] or 0) + (b[1] or 0)) for a, b in zip(net["net_in"], net["net_out"], strict=True)], "network, lately"),
    }  # fmt: skip
    disks = [Disk(str(place), *sizes) for place, sizes in (stats.get("disks") or {}).items() if _is_pair(sizes)]
    return Shown(
        row, load, live, ended.get(Outcome.SUCCEEDED, 0), sum(ended.get(outcome, 0) for outcome in _BAD), stats, disks, trends,
        latest["net_in"], latest["net_out"], workerdeeds.fit(row), paid,
    )  # fmt: skip


def _is_pair(sizes: object) -> bool:
    return isinstance(sizes, list) and len(sizes) == 2 and all(isinstance(one, int) for one in sizes)


def _used(free: int | None, total: int | None) -> float | None:
    return None if free is None or not total else 1 - free / total


# --- changes --------------------------------------------------------------------------------------------------------------


def change(request: Request) -> Response:
    """How much a worker runs, and for whom: what the form says of `concurrency` and `prefetch` (a number, `auto` or, by a
    button, one more or less), and `batch`."""
    here = page.engine(request)
    row = here.worker(request.path_params["id"])
    given: dict[str, Any] = {}
    if text := page.field(request, "concurrency").strip():
        given["concurrency"] = page.whole(text, "concurrency")
    if text := page.field(request, "prefetch").strip():
        given["prefetch"] = "auto" if text == "auto" else page.whole(text, "prefetch")
    match page.field(request, "step"):
        case "concurrency+" | "concurrency-" as step:
            given["concurrency"] = max(0, row.concurrency + (1 if step[-1] == "+" else -1))
        case "prefetch+" | "prefetch-" as step:
            given["prefetch"] = max(0, (row.prefetch or 0) + (1 if step[-1] == "+" else -1))
    if page.fields(request, "batch"):
        given["batch"] = page.field(request, "batch").strip()
    row = here.update_worker(int(row.id), **given)
    ahead = "as many as short tasks need" if row.prefetch is None else str(row.prefetch)
    serves = f"batch {row.batch}" if row.batch else "every batch"
    page.said(request, f"{row.name}: {row.concurrency} at once, {ahead} ready beyond those, for {serves}.")
    return page.go(request, "/workers")


def add(request: Request) -> Response:
    """Make a host a worker. Whoever drives prepares it: its job is in the table below."""
    here = page.engine(request)
    text = {
        name: page.field(request, name).strip()
        for name in ("host", "name", "concurrency", "prefetch", "batch", "flavor")
    }
    ahead: int | str | None = None
    if text["prefetch"]:
        ahead = "auto" if text["prefetch"] == "auto" else page.whole(text["prefetch"], "prefetch")
    if not text["host"]:
        raise BadInput("Which host? Give an alias of your SSH configuration, or user@host.")
    row = here.worker_add(
        text["host"], name=text["name"] or None, prefetch=ahead, batch=text["batch"] or None, flavor=text["flavor"] or None,
        concurrency=page.whole(text["concurrency"], "concurrency") if text["concurrency"] else None,
        install=bool(page.field(request, "install")),
    )  # fmt: skip
    page.said(request, f"{row.name} is to be prepared: its job is below.")
    return page.go(request, "/workers")


ROUTES = [
    Route("/workers", workers),
    Route("/workers/add", add, methods=["POST"]),
    Route("/workers/{id:int}/change", change, methods=["POST"]),
]
