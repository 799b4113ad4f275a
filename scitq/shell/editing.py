"""`scitq task relaunch|cancel|pause|resume|update|delete`: what changes tasks, one by one or all that meet a condition.

Named tasks are done at once, each with a sentence of its own. Many (`--where`), and whatever deletes, are shown and asked about
first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.errors import BadInput, ScitqError
from scitq.handle import Task
from scitq.selection import Selection
from scitq.shell import facts
from scitq.shell.answers import Text, several
from scitq.shell.attention import Attention
from scitq.shell.show import Screen
from scitq.shell.submitting import conditions, words
from scitq.shell.tasks import one_of, some_of, table_of
from scitq.states import FINAL, LIVE, RECALLABLE, TaskState, Wanted
from scitq.store import listing, summary

SHOWN = 10


class Unconfirmed(click.ClickException):
    """There is nobody to ask, and nobody has said yes."""

    exit_code = 2


@dataclass(frozen=True)
class Deed:
    """Something that can be done to many tasks: the verb, to which of them, what it means, that it is done, what becomes of
    those that run."""

    verb: str
    able: frozenset[TaskState]
    means: str
    done: str
    live: str = ""


_ALL = frozenset(TaskState)
RELAUNCH = Deed("Relaunch", FINAL, "queued once more, and what was blocked by that goes on", "queued once more")
CANCEL = Deed("Cancel", _ALL - FINAL, "cancelled", "cancelled", "what runs is stopped")
PAUSE = Deed("Pause", _ALL - FINAL, "paused", "paused", "what runs is stopped where it is")
RESUME = Deed("Resume", LIVE | {TaskState.PAUSED}, "let go on", "let go on")
EDIT = Deed("Edit", (_ALL - LIVE) | RECALLABLE, "edited", "edited", "what a worker holds ready is called back first")
DELETE = Deed("Delete", _ALL - LIVE, "deleted with all history and logs; what was delivered stays", "deleted")


# --- commands -------------------------------------------------------------------------------------------------------------------


def relaunch(engine: Engine, args: SimpleNamespace) -> Text:
    """Queue them again."""
    if args.where is not None:
        return _where(engine, args, RELAUNCH, Selection.relaunch)
    return _each(engine, args, lambda task: _said(task.relaunch(), "is {status} again"))


def cancel(engine: Engine, args: SimpleNamespace) -> Text:
    """Stop them."""
    if args.where is not None:
        return _where(engine, args, CANCEL, Selection.cancel)

    def one(task: Task) -> str:
        _refuse_ended(task)
        task.cancel()
        return _said(task, "is {status}" if not task.state.is_live else "is asked to stop")

    return _each(engine, args, one)


def pause(engine: Engine, args: SimpleNamespace) -> Text:
    """Keep them from being launched; stop where they are those that run."""
    if args.where is not None:
        return _where(engine, args, PAUSE, Selection.pause)

    def one(task: Task) -> str:
        _refuse_ended(task)
        if task.pause() == TaskState.PAUSED.word:
            return _said(task, "is paused")
        return _said(task, "is called back" if task.state in RECALLABLE else "is asked to stop where it is")

    return _each(engine, args, one)


def resume(engine: Engine, args: SimpleNamespace) -> Text:
    """Let them go on."""
    if args.where is not None:
        return _where(engine, args, RESUME, Selection.resume)

    def one(task: Task) -> str:
        row, last = task.row(), facts.latest(task)
        is_held = last is not None and last.wanted in (Wanted.SUSPENDED, Wanted.RECALLED)
        if row.state is not TaskState.PAUSED and not (row.state.is_live and is_held):
            raise BadInput(f"task {row.label} is not paused: it is {row.state.word}.")
        task.resume()
        return _said(task, "is {status} again" if row.state is TaskState.PAUSED else "goes on")

    return _each(engine, args, one)


def delete(engine: Engine, args: SimpleNamespace) -> Text:
    """Remove them from the file."""

    def does(chosen: Selection) -> int:
        return chosen.delete(keep_cache=args.keep_cache)

    if args.where is not None:
        return _where(engine, args, DELETE, does)
    return many(engine, args, Selection(engine, [task.id for task in some_of(engine, args)]), DELETE, does)


def update(engine: Engine, args: SimpleNamespace) -> Text:
    """Edit one, or all that meet a condition."""
    changes = _changes(args)
    if args.replace:
        from scitq.shell.replacing import replace

        return replace(engine, args, changes)
    if args.status is not None:
        return _status(engine, args, changes)
    if not changes:
        raise click.UsageError("nothing to change: give at least one option.")
    if args.where is not None:
        return _where(engine, args, EDIT, lambda chosen: chosen.update(**changes), changes)
    if len(args.ids) > 1:
        raise click.UsageError("one task at a time; for many: --where, or --replace.")
    task = one_of(engine, SimpleNamespace(**{**vars(args), "task": next(iter(args.ids), None)}))
    if args.command is not None and args.shell is None and task.row().spec.shell is None:
        changes["command"] = words([args.command], None)[0]
    before = task.row()
    can_wait = before.state not in RECALLABLE or facts.driver_of(engine) is not None
    try:
        task.update(timeout=30.0 if can_wait else 0.0, **changes)
    except TimeoutError:
        why = "it has not answered yet" if can_wait else "nobody drives the file to ask it"
        text = f"{before.label} is held by a worker, and {why}: the edit is made once it has given the task back."
        return Text(text, facts.task_facts(task.row(), facts.latest(task)), facts.nobody_drives(engine), code=1)
    row = task.row()
    again = (
        ""
        if not row.state.is_final
        else f" It has ended; to run it as edited: {facts.command_for(engine, f'task relaunch {task.id}')}"
    )
    return Text(
        f"{row.label} is changed: {', '.join(sorted(changes))}.{again}", facts.task_facts(row, facts.latest(task))
    )


def _status(engine: Engine, args: SimpleNamespace, changes: dict[str, Any]) -> Text:
    """The state that scitq 1 sets a task to, as what it means here."""
    if changes:
        raise click.UsageError("-S stands alone: first the edit, then the state.")
    if args.status == "pending":
        tasks = some_of(engine, args)
        is_held = all(task.state is TaskState.PAUSED for task in tasks)
        return resume(engine, args) if is_held else relaunch(engine, args)
    return (pause if args.status == "paused" else cancel)(engine, args)


def _changes(args: SimpleNamespace) -> dict[str, Any]:
    """The arguments of `Task.update` that the options say."""
    changes = conditions(args)
    if args.requires and not any(one.strip() for one in args.requires):
        changes["requires"] = []
    for key, value in (
        ("command", args.command),
        ("shell", args.shell),
        ("name", args.new_name),
        ("batch", args.batch),
    ):
        if value is not None:
            changes[key] = value
    return changes


def _refuse_ended(task: Task) -> None:
    row = task.row()
    if row.state.is_final:
        how = "was cancelled" if row.state is TaskState.CANCELLED else row.state.word
        raise BadInput(f"task {row.label} has ended already: it {how}.")


def _said(task: Task, what: str) -> str:
    row = task.row()
    return f"{row.label} {what.format(status=row.state.word)}"


def _each(engine: Engine, args: SimpleNamespace, does: Callable[[Task], str]) -> Text:
    """Do it to all of them; those that refuse do not keep the others from it."""
    screen: Screen = args.screen
    lines, data, code = [], [], 0
    for task in some_of(engine, args):
        try:
            lines.append(does(task))
        except ScitqError as problem:
            screen.error(str(problem))
            code = 1
        data.append({"id": int(task.id), "status": task.status})
    idle = {state.word for state in (*FINAL, TaskState.BLOCKED, TaskState.PAUSED)}
    needs_driver = any(task["status"] not in idle for task in data)
    return Text("\n".join(lines), data, facts.nobody_drives(engine) if needs_driver else [], code=code)


# --- many at once ---------------------------------------------------------------------------------------------------------------


def _where(
    engine: Engine,
    args: SimpleNamespace,
    deed: Deed,
    does: Callable[[Selection], int],
    changes: dict[str, Any] | None = None,
) -> Text:
    named = list(getattr(args, "ids", ())) or getattr(args, "task", None) or args.by_id or args.by_name
    if named:
        raise click.UsageError("either tasks by number or name, or --where.")
    chosen = engine.where(args.where)
    if changes and chosen.ids:  # what is wrong with the changes themselves is told before anybody is asked
        engine._edit_of(chosen[0].row(), changes)
    return many(engine, args, chosen, deed, does, changes)


def many(
    engine: Engine,
    args: SimpleNamespace,
    chosen: Selection,
    deed: Deed,
    does: Callable[[Selection], int],
    changes: dict[str, Any] | None = None,
    *,
    is_shown: bool = False,
) -> Text:
    """Show what would be done to which tasks (unless they were shown), ask, do it. Ctrl-C stops after a whole thousand."""
    found = foreseen(engine, chosen, deed, changes)
    data = {"matched": found.total, "done": 0}
    if not found.able:
        return Text("", data, [found.text])
    if not confirmed(
        engine,
        args,
        found.text,
        f"{deed.verb} {several(found.able, 'task')}?",
        Selection(engine, []) if is_shown else chosen,
    ):
        return Text("", data, ["Nothing was done."], code=1)
    is_interrupted = False
    with Attention() if threading.current_thread() is threading.main_thread() else nullcontext() as attention:
        chosen.is_stopped = lambda: attention is not None and attention.interrupts > 0
        done = does(chosen)
        is_interrupted = chosen.is_stopped()
    if is_interrupted and done < found.able:
        said = f"Interrupted: {done:,} of {several(found.able, 'task')} {deed.done}, the others are as they were."
        return Text(said, {"matched": found.total, "done": done}, code=130)
    notes = facts.nobody_drives(engine) if deed is not DELETE and _needs_driver(engine, chosen) else []
    return Text(told(deed, found, done), {"matched": found.total, "done": done}, notes)


@dataclass(frozen=True)
class Foreseen:
    """What a deed would do: to how many of how many tasks, how many of them workers hold; said in a sentence or two."""

    total: int
    able: int
    live: int
    text: str


def foreseen(engine: Engine, chosen: Selection, deed: Deed, changes: Collection[str] | None = None) -> Foreseen:
    """What a deed would do to these tasks; `changes` are the names of what an edit changes.

    Raises:
        BadInput: it would delete what is on a worker.
    """
    counts = summary.states_of(engine._reader(), chosen.ids)
    total, able = sum(counts.values()), sum(counts.get(state, 0) for state in deed.able)
    live = facts.live(counts)
    if deed is DELETE and live:
        whose = "it is" if live == total == 1 else f"{live} of {several(total, 'task')} {'is' if live == 1 else 'are'}"
        raise BadInput(
            f"{whose} on a worker: nothing was deleted. Cancel and wait for the end first (scitq task cancel), or leave "
            "out what is live."
        )
    if not able:
        none = (
            "No task meets that condition."
            if not total
            else f"Nothing to {deed.verb.lower()}: {facts.counted(counts)}."
        )
        return Foreseen(total, able, live, none)
    means = f"{deed.means} ({', '.join(sorted(changes))})" if changes else deed.means
    left = f"; {total - able} {'is' if total - able == 1 else 'are'} left as {'it is' if total - able == 1 else 'they are'}"
    text = f"{several(total, 'task')}: {facts.counted(counts)}. "
    text += f"{_they(able, total)} {means}{_stopped(deed, live)}{left if total > able else ''}."
    return Foreseen(total, able, live, text)


def told(deed: Deed, found: Foreseen, done: int) -> str:
    """What was done, when it was done to so many."""
    rest = f" {found.total - done} left as before." if found.total > done else ""
    return f"{several(done, 'task')} {deed.done}{_stopped(deed, found.live)}.{rest}"


def _stopped(deed: Deed, live: int) -> str:
    return f"; {deed.live}" if deed.live and live else ""


def confirmed(engine: Engine, args: SimpleNamespace, preview: str, question: str, chosen: Selection) -> bool:
    """Whether it may be done: shown, and answered with yes, or with --yes beforehand.

    Raises:
        Unconfirmed: there is no terminal to ask on.
    """
    screen: Screen = args.screen
    if not screen.as_json:
        screen.say(preview)
    if args.yes:
        return True
    if not screen.as_json and chosen.ids:
        screen.table(table_of(engine, listing.select(engine._reader(), ids=chosen.ids[:SHOWN])), 2)
        if len(chosen) > SHOWN:
            screen.say(f"… and {len(chosen) - SHOWN:,} more")
    answer = screen.ask(question)
    if answer is None:
        raise Unconfirmed(f"{question} Nothing was done: there is no terminal to ask on. To do it: --yes")
    return answer


def _they(able: int, total: int) -> str:
    if able == total:
        return "It is" if able == 1 else "All are"
    return f"{able:,} {'is' if able == 1 else 'are'}"


def _needs_driver(engine: Engine, chosen: Selection) -> bool:
    counts = summary.states_of(engine._reader(), chosen.ids)
    return bool(facts.live(counts) or counts.get(TaskState.PENDING) or counts.get(TaskState.WAITING))
