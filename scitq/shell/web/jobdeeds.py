"""What can be done to jobs from the page: rows of the table of `deeds`, which is made complete here."""

from __future__ import annotations

from collections.abc import Callable

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.saying import several
from scitq.shell.renting import number, price_of
from scitq.shell.web import workerdeeds
from scitq.shell.web.deeds import DEEDS, Deed, Preview, Targets
from scitq.states import JobState
from scitq.store import rentals
from scitq.worker import JobRow, WorkerRow


def _deed(
    name: str, label: str, does: Callable[[Engine, int], object], means: Callable[[Engine, JobRow], str],
    able: Callable[[JobRow], bool], done: str,
) -> Deed:  # fmt: skip
    def act(engine: Engine, targets: Targets) -> int:
        for one in targets:
            does(engine, number(str(one)))
        return len(targets)

    def preview(engine: Engine, targets: Targets) -> Preview:
        rows = [engine.job(number(str(one))) for one in targets]
        for row in rows:
            if not able(row):
                raise BadInput(f"job {row.id} ({_what(row)}) is {row.state.word}: nothing to {label.lower()}.")
        return Preview(
            " ".join(f"Job {row.id}, {_what(row)}: {means(engine, row)}" for row in rows), len(rows), len(rows)
        )

    # Each is confirmed: one may rent a machine again, the other deletes one.
    return Deed("job", name, label, True, act, preview, lambda count: f"{several(count, 'job')} {done}.", ("job", name))


def _what(row: JobRow) -> str:
    return f"{row.kind} {row.worker_name or ''}".strip()


def _again(engine: Engine, row: JobRow) -> str:
    rental = None if row.worker is None else rentals.of(engine._reader(), row.worker)
    if rental is None or row.kind != rentals.DEPLOY:
        return "it is tried again."
    return f"a machine is asked for again. {price_of(rentals.offers_of(rental), 1)}"


def _back(_: Engine, row: JobRow) -> str:
    return "it is taken back" + ("; the machine is deleted." if row.kind == rentals.DEPLOY else ".")


def _is_cancellable(row: JobRow) -> bool:
    return row.state is JobState.PENDING or (row.state is JobState.RUNNING and row.kind in rentals.KINDS)


_TABLE = (
    _deed("retry", "Retry", lambda engine, job: engine.job_retry(job), _again, lambda row: row.state is JobState.FAILED, "tried again"),
    _deed("cancel", "Cancel", lambda engine, job: engine.job_cancel(job), _back, _is_cancellable, "taken back"),
)  # fmt: skip
DEEDS.update({(deed.noun, deed.name): deed for deed in _TABLE})


def fit(row: JobRow, worker: WorkerRow | None) -> list[tuple[Deed, str]]:
    """What can be done to a job, and to the worker that it is about (None: there is none any more), each with its target."""
    found = []
    if row.state is JobState.FAILED:
        found.append((DEEDS["job", "retry"], str(int(row.id))))
    if _is_cancellable(row):
        found.append((DEEDS["job", "cancel"], str(int(row.id))))
    if worker is not None and any(deed.name == "delete" for deed in workerdeeds.fit(worker)):
        found.append((DEEDS["worker", "delete"], worker.name))
    return found


__all__ = ["fit"]
