"""What can be done from the page: one table of deeds, each with what it would do, and the command line that does the same.

A deed's targets are numbers of tasks, or names of batches, workflows or workers. It does what the engine's own method does, as
the command line does; nothing here knows of requests or forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scitq.engine import Engine
from scitq.errors import BadInput, UnknownTask
from scitq.hints import command_for, quoted
from scitq.saying import several
from scitq.selection import Selection
from scitq.shell import editing, facts
from scitq.states import FINAL, LIVE, Halt, TaskState
from scitq.store import batches, listing, workflows
from scitq.task import TaskId, TaskRow
from scitq.workflow.deeds import destroy, refuse
from scitq.workflow.workflow import halt

# So many targets are named in the equal command line.
NAMED = 20
# For so long the deletion of a workflow waits for its workers to stop what runs.
DESTROY_S = 20.0

Targets = Sequence[Any]


@dataclass(frozen=True)
class Preview:
    """What a deed would do: to how many of how many, in a sentence; `tasks` are the first of them."""

    text: str
    able: int
    total: int
    tasks: Sequence[TaskRow] = ()


@dataclass(frozen=True)
class Deed:
    """Something that can be done to tasks, batches, workflows or workers (`noun`). `act` returns to how many it was done, and
    `told` says so; `words` are those of the command line, before the targets."""

    noun: str
    name: str
    label: str
    needs_confirmation: bool
    act: Callable[[Engine, Targets], int]
    preview: Callable[[Engine, Targets], Preview]
    told: Callable[[int], str]
    words: tuple[str, ...]
    # Nothing brings it back: shown as what it is.
    destroys: bool = False

    def asks(self, preview: Preview) -> bool:
        """Whether it is shown and confirmed before it is done: whatever destroys, and whatever is done to several at once."""
        return self.needs_confirmation or preview.total > 1

    def line(self, engine: Engine, targets: Targets, where: str | None = None) -> str:
        """The command line that does the same."""
        if where is not None:
            return command_for(engine, f"{' '.join(self.words)} --where {quoted(where)}")
        named = " ".join(quoted(str(target)) for target in targets[:NAMED])
        rest = f" … ({len(targets) - NAMED:,} more)" if len(targets) > NAMED else ""
        return command_for(engine, f"{' '.join(self.words)} {named}{rest}")


# --- tasks ------------------------------------------------------------------------------------------------------------------------


def _of_tasks(
    name: str, deed: editing.Deed, does: Callable[[Selection], int], *, asks: bool, destroys: bool = False
) -> Deed:
    def act(engine: Engine, ids: Targets) -> int:
        return does(Selection(engine, [TaskId(int(id)) for id in ids]))

    def preview(engine: Engine, ids: Targets) -> Preview:
        chosen = Selection(engine, [TaskId(int(id)) for id in ids])
        found = editing.foreseen(engine, chosen, deed)
        if not found.total:
            raise UnknownTask("no such task is in the file any more.")
        first = listing.select(engine._reader(), ids=chosen.ids[: editing.SHOWN])
        return Preview(found.text, found.able, found.total, first)

    def told(count: int) -> str:
        return f"{several(count, 'task')} {deed.done}." if count else "Nothing was done: nothing could follow any more."

    return Deed("task", name, deed.verb, asks, act, preview, told, ("task", name), destroys)


# --- batches ----------------------------------------------------------------------------------------------------------------------


def _counts_of(engine: Engine, names: Targets) -> dict[TaskState, int]:
    """The tasks of some batches, by state.

    Raises:
        UnknownBatch: one is not known.
    """
    found: dict[TaskState, int] = {}
    for name in names:
        batches.known(engine._reader(), name)
        for state, n in engine.counts(name).items():
            found[state] = found.get(state, 0) + n
    return found


def _stay(verb: str, means: str) -> Callable[[Engine, Targets], Preview]:
    """The preview of a deed that changes whether batches go on."""

    def preview(engine: Engine, names: Targets) -> Preview:
        counts = _counts_of(engine, names)
        told = f"{', '.join(map(str, names))}: {facts.counted(counts)}. {verb}: {means}."
        return Preview(told, len(names), len(names))

    return preview


def _tasks_of(engine: Engine, names: Targets, but: frozenset[TaskState] = frozenset()) -> list[TaskId]:
    db = engine._reader()
    with db:  # one view of the file
        found = [TaskId(id) for name in names for id in listing.numbers(db, frozenset(TaskState) - but, name)]
    return found


def _end_of(deed: editing.Deed, but: frozenset[TaskState]) -> Callable[[Engine, Targets], Preview]:
    """The preview of what is done to all tasks of batches."""

    def preview(engine: Engine, names: Targets) -> Preview:
        counts = _counts_of(engine, names)
        ids = _tasks_of(engine, names, but)
        live = facts.live(counts)
        if deed is editing.DELETE and live:
            raise BadInput(
                f"{several(live, 'task')} of {', '.join(names)} {'is' if live == 1 else 'are'} on workers: nothing was deleted. "
                "Cancel first; then, when all have ended, delete."
            )
        if not ids:
            left = "no tasks. Its defaults are deleted" if deed is editing.DELETE else "nothing is queued or running"
            return Preview(f"{', '.join(names)}: {left}.", len(names) if deed is editing.DELETE else 0, len(names))
        found = editing.foreseen(engine, Selection(engine, ids), deed)
        first = listing.select(engine._reader(), ids=ids[: editing.SHOWN])
        return Preview(f"{', '.join(names)}: {found.text}", found.able, found.total, first)

    return preview


def _each(does: Callable[[Engine, str], object]) -> Callable[[Engine, Targets], int]:
    def act(engine: Engine, names: Targets) -> int:
        for name in names:  # all of them known before anything is done
            batches.known(engine._reader(), name)
        for name in names:
            does(engine, name)
        return len(names)

    return act


def _cancel_batches(engine: Engine, names: Targets) -> int:
    return Selection(engine, _tasks_of(engine, names, FINAL)).cancel()


def _named(noun: str, done: str, plural: str | None = None) -> Callable[[int], str]:
    return lambda count: f"{several(count, noun, plural)} {done}."


# --- workflows --------------------------------------------------------------------------------------------------------------------


def _workflow_counts(engine: Engine, name: str) -> tuple[int, dict[TaskState, int]]:
    db = engine._reader()
    steps = workflows.steps(db, workflows.get(db, name).id)
    counts: dict[TaskState, int] = {}
    for step in steps:
        for state, n in step.counts.items():
            counts[state] = counts.get(state, 0) + n
    return len(steps), counts


def _halting(wanted: Halt, verb: str, means: str) -> tuple[Callable[..., int], Callable[..., Preview]]:
    def act(engine: Engine, names: Targets) -> int:
        for name in names:
            workflows.get(engine._reader(), name)
        for name in names:
            halt(engine, name, wanted)
        return len(names)

    def preview(engine: Engine, names: Targets) -> Preview:
        told = [f"{name}: {facts.counted(_workflow_counts(engine, name)[1])}." for name in names]
        return Preview(f"{' '.join(told)} {verb}: {means}.", len(names), len(names))

    return act, preview


def _delete_workflows(engine: Engine, names: Targets) -> int:
    for name in names:
        refuse(engine, name)
    for name in names:
        destroy(engine, name, timeout_s=DESTROY_S)
    return len(names)


def _deletion(engine: Engine, names: Targets) -> Preview:
    told = []
    for name in names:
        refuse(engine, name)
        steps, counts = _workflow_counts(engine, name)
        live = sum(n for state, n in counts.items() if state in LIVE)
        stopped = f" {several(live, 'task')} at workers {'is' if live == 1 else 'are'} stopped first." if live else ""
        total = sum(counts.values())
        told.append(
            f"{name}: {several(steps, 'step')} and {several(total, 'task')} are deleted with their history and logs.{stopped}"
        )
    return Preview(f"{' '.join(told)} What they delivered stays.", len(names), len(names))


# --- all of them ------------------------------------------------------------------------------------------------------------------

_LAUNCH_NOTHING = "nothing more is launched; what runs goes on to its end"
_STOP_ALL = "nothing more is launched, and what runs is stopped where it is"
_GO_ON = "what is queued is launched again, and what was stopped goes on"


def _table() -> dict[tuple[str, str], Deed]:
    found = [
        _of_tasks("relaunch", editing.RELAUNCH, Selection.relaunch, asks=False),
        _of_tasks("pause", editing.PAUSE, Selection.pause, asks=False),
        _of_tasks("resume", editing.RESUME, Selection.resume, asks=False),
        _of_tasks("cancel", editing.CANCEL, Selection.cancel, asks=True),
        _of_tasks("delete", editing.DELETE, Selection.delete, asks=True, destroys=True),
        Deed(
            "batch", "pause", "Pause", False, _each(lambda engine, name: engine.pause_batch(name)),
            _stay("Paused", _LAUNCH_NOTHING), _named("batch", "paused", "batches"), ("batch", "pause"),
        ),
        Deed(
            "batch", "suspend", "Pause with what runs", False,
            _each(lambda engine, name: engine.pause_batch(name, suspend=True)), _stay("Suspended", _STOP_ALL),
            _named("batch", "suspended", "batches"), ("batch", "suspend"),
        ),
        Deed(
            "batch", "go", "Go on", False, _each(lambda engine, name: engine.go_batch(name)), _stay("Going on", _GO_ON),
            _named("batch", "let go on", "batches"), ("batch", "go"),
        ),
        Deed(
            "batch", "cancel", "Cancel", True, _cancel_batches, _end_of(editing.CANCEL, FINAL), _named("task", "cancelled"),
            ("batch", "cancel"),
        ),
        Deed(
            "batch", "delete", "Delete", True, _each(lambda engine, name: engine.delete_batch(name)),
            _end_of(editing.DELETE, frozenset()), _named("batch", "deleted", "batches"), ("batch", "delete"), destroys=True,
        ),
        Deed(
            "workflow", "pause", "Pause", False, *_halting(Halt.PAUSED, "Paused", _LAUNCH_NOTHING),
            _named("workflow", "paused"), ("workflow", "pause"),
        ),
        Deed(
            "workflow", "suspend", "Pause with what runs", False, *_halting(Halt.SUSPENDED, "Suspended", _STOP_ALL),
            _named("workflow", "suspended"), ("workflow", "pause", "--suspend"),
        ),
        Deed(
            "workflow", "unpause", "Go on", False, *_halting(Halt.GO, "Going on", _GO_ON), _named("workflow", "let go on"),
            ("workflow", "unpause"),
        ),
        Deed(
            "workflow", "delete", "Delete", True, _delete_workflows, _deletion, _named("workflow", "deleted"),
            ("workflow", "delete"), destroys=True,
        ),
    ]  # fmt: skip
    return {(deed.noun, deed.name): deed for deed in found}


DEEDS = _table()


def deed_of(noun: str, name: str) -> Deed:
    """The deed of that name.

    Raises:
        BadInput: there is none.
    """
    found = DEEDS.get((noun, name))
    if found is None:
        known = ", ".join(known for of, known in DEEDS if of == noun)
        raise BadInput(f"{name!r} cannot be done to a {noun} (known: {known or 'nothing'}).")
    return found


def of(noun: str, *names: str) -> list[Deed]:
    """Several of them, for the buttons of a page; without names all that there are for that noun."""
    return [DEEDS[noun, name] for name in names] if names else [deed for deed in DEEDS.values() if deed.noun == noun]


def fit(row: TaskRow, *, is_held: bool) -> list[Deed]:
    """What can be done to a task in that state. `is_held`: it is stopped where it runs, or called back."""
    found = []
    for deed in of("task"):
        able = getattr(editing, deed.name.upper()).able
        if row.state not in able or (deed.name == "resume" and row.state is not TaskState.PAUSED and not is_held):
            continue
        if deed.name == "pause" and (is_held or row.state is TaskState.PAUSED):
            continue
        found.append(deed)
    return found


__all__ = ["DEEDS", "Deed", "Preview", "Targets", "deed_of", "fit", "of"]
