"""The batches: how far each is, whether it goes on, who works for it, how long its tasks take."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.shell import facts
from scitq.shell.web import page
from scitq.shell.web.deeds import Deed, of
from scitq.states import Halt, Outcome, TaskState
from scitq.store import batches as rows
from scitq.store import glances, query, summary
from scitq.store.summary import Times
from scitq.task import BatchId

# So many are listed; a filter by name finds the others.
LIMIT = 300
# Times are of so many executions, the latest of the whole file.
TIMED = 200_000
_ENDS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
_QUEUED = (TaskState.PENDING, TaskState.WAITING, TaskState.PAUSED, TaskState.BLOCKED, TaskState.DEBUG)


@dataclass(frozen=True)
class Shown:
    """A batch as the page shows it."""

    name: str
    halt: Halt
    workflow: str | None
    counts: dict[TaskState, int]
    workers: list[str]
    times: dict[Outcome, Times]
    deeds: list[Deed]

    @property
    def total(self) -> int:
        """All its tasks."""
        return sum(self.counts.values())

    @property
    def parts(self) -> list[tuple[str, float]]:
        """The bar: shares by state."""
        shown = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.RUNNING)
        return [(state.word, self.counts.get(state, 0) / self.total) for state in shown if self.counts.get(state)]

    @property
    def done(self) -> float:
        """The share that has succeeded or failed."""
        ended = self.counts.get(TaskState.SUCCEEDED, 0) + self.counts.get(TaskState.FAILED, 0)
        return ended / self.total if self.total else 0.0

    @property
    def columns(self) -> list[tuple[str, str, int]]:
        """Counts as links: heading, states, number."""
        live = facts.live(self.counts)
        queued = sum(self.counts.get(state, 0) for state in _QUEUED)
        return [
            ("queued", ",".join(state.word for state in _QUEUED), queued),
            ("at workers", "assigned,staging,running,collecting", live),
            *((state.word, state.word, self.counts.get(state, 0)) for state in _ENDS),
        ]  # fmt: skip


def batches(request: Request) -> Response:
    """The page."""
    here = page.engine(request)
    db, text = here._reader(), request.query_params.get("text", "").strip()
    last = str(query.one(db, "select max(id) from journal")[0])
    times = page.site(request).kept.get("times", last, lambda: summary.times(db, TIMED))
    with db:
        known, counts = rows.all_of(db), here.batches()
        ids = {name: BatchId(id) for id, name in query.rows(db, "select id, name from batch")}
        of_workflow: dict[str, str] = dict(query.rows(
            db, "select batch.name, workflow.name from batch join workflow on workflow.id = batch.workflow"
        ))  # fmt: skip
        served = glances.served(db)
        workers = here.workers()
    found = []
    for name, (halt, settings) in known.items():
        if text.lower() not in name.lower() or (not counts.get(name) and halt is Halt.GO and not settings):
            continue
        at_work = served.get(ids[name], frozenset())
        names = [row.name for row in workers if row.batch == name or int(row.id) in at_work]
        found.append(
            Shown(name, halt, of_workflow.get(name), counts.get(name, {}), names, times.get(name, {}), _fit(halt))
        )
    return page.render(
        request, "batches.html", topics="tasks,workers", shown=found[:LIMIT], more=len(found) - LIMIT, text=text, timed=TIMED,
        is_timed_in_part=bool(query.row(db, "select 1 from execution order by id limit 1 offset ?", (TIMED,))),
        outcomes=[Outcome.SUCCEEDED, Outcome.FAILED],
    )  # fmt: skip


def _fit(halt: Halt) -> list[Deed]:
    """What can be done to it as it is."""
    names = {Halt.GO: ("pause", "suspend"), Halt.PAUSED: ("go", "suspend"), Halt.SUSPENDED: ("go", "pause")}[halt]
    return of("batch", *names, "cancel", "delete")


ROUTES = [Route("/batches", batches)]
