"""What can be done to workers from the page: rows of the table of `deeds`, which is made complete here."""

from __future__ import annotations

from collections.abc import Callable

from scitq.engine import Engine
from scitq.saying import several
from scitq.shell.web.deeds import DEEDS, Deed, Preview, Targets
from scitq.states import WorkerState
from scitq.store import rentals
from scitq.worker import LOCAL, RENTED_KIND, WorkerRow

_ABLE = frozenset({WorkerState.READY, WorkerState.UNREACHABLE, WorkerState.DRAINING, WorkerState.PAUSED})
_ENDING = frozenset({WorkerState.DELETING, WorkerState.GONE})


def _deed(
    name: str, label: str, does: Callable[[Engine, str], object], means: Callable[[Engine, WorkerRow], str], done: str, *,
    asks: bool = False, destroys: bool = False,
) -> Deed:  # fmt: skip
    def act(engine: Engine, names: Targets) -> int:
        for one in names:
            does(engine, str(one))
        return len(names)

    def preview(engine: Engine, names: Targets) -> Preview:
        rows = [engine.worker(str(one)) for one in names]
        return Preview(" ".join(means(engine, row) for row in rows), len(rows), len(rows))

    def told(count: int) -> str:
        return f"{several(count, 'worker')} {done}."

    return Deed("worker", name, label, asks, act, preview, told, ("worker", name), destroys)


def _held(engine: Engine, row: WorkerRow) -> str:
    held = len(engine.held_by(int(row.id)))
    return f"{row.name} holds {several(held, 'task')}" if held else f"{row.name} holds no task"


def _deletion(engine: Engine, row: WorkerRow) -> str:
    if row.kind == RENTED_KIND:
        lent = rentals.of(engine._reader(), int(row.id))
        where = "" if lent is None else f" ({lent.flavor} in {lent.region} of {lent.provider})"
        held = engine.held_by(int(row.id))
        return f"{row.name}{where} is deleted at its provider, with everything that is on it. {_held(engine, row)}" + (
            "; they are stopped, and go to other workers." if held else "."
        )
    what = f"{row.name} ({row.address or row.kind}) is stopped, and everything of {engine.path.name} there is deleted. "
    return (
        what
        + _held(engine, row)
        + ("; they are stopped, and go to other workers." if engine.held_by(int(row.id)) else ".")
    )


_TABLE: tuple[Deed, ...] = (
    _deed("pause", "Pause", lambda engine, name: engine.worker_pause(name),
          lambda _, row: f"{row.name} launches nothing more; what runs goes on.", "paused"),
    _deed("resume", "Resume", lambda engine, name: engine.worker_resume(name), lambda _, row: f"{row.name} goes on.", "let go on"),
    _deed("drain", "Drain", lambda engine, name: engine.worker_drain(name),
          lambda _, row: f"{row.name} gets nothing more, and finishes what it holds.", "drained"),
    _deed("restart", "Restart", lambda engine, name: engine.worker_restart(name),
          lambda _, row: f"The agent of {row.name} is started anew; its tasks go on.", "to be started anew"),
    _deed("clean", "Clean", lambda engine, name: engine.worker_clean(name),
          lambda _, row: f"{row.name} throws away what it keeps for later: resources, images' files, and the folders of failed tasks.",
          "to be cleaned", asks=True),
    _deed("lost", "Declare lost", lambda engine, name: engine.worker_lost(name),
          lambda engine, row: f"{_held(engine, row)}. What it may still do about them counts for nothing; they run elsewhere, from "
          "their beginning.", "declared lost", asks=True, destroys=True),
    _deed("delete", "Delete", lambda engine, name: engine.worker_delete(name, force=bool(engine.held_by(name))), _deletion,
          "to be deleted", asks=True, destroys=True),
)  # fmt: skip
DEEDS.update({(deed.noun, deed.name): deed for deed in _TABLE})


def fit(row: WorkerRow) -> list[Deed]:
    """What can be done to a worker as it is."""
    state, names = row.state, []
    if state in _ENDING:
        return []
    if state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.UNREACHABLE, WorkerState.PREPARING):
        names.append("pause")
    if state in (WorkerState.PAUSED, WorkerState.DRAINING):
        names.append("resume")
    if state in (WorkerState.READY, WorkerState.PAUSED, WorkerState.UNREACHABLE):
        names.append("drain")
    names.append("restart")
    if state in _ABLE:
        names.append("clean")
    if row.kind != LOCAL:
        names += ["lost"] if state is WorkerState.UNREACHABLE else []
        names.append("delete")
    return [DEEDS["worker", name] for name in names]


__all__ = ["fit"]
