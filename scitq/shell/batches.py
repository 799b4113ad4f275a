"""`scitq batch …`: how far batches are, whether they go on, the defaults of their tasks."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import click

from scitq import submission
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.money import limit_of
from scitq.selection import Selection
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, several, shown
from scitq.shell.editing import CANCEL, DELETE, confirmed, many
from scitq.shell.submitting import conditions
from scitq.states import FINAL, LIVE, Halt, TaskState
from scitq.store import batches

# The numbers of scitq 1, and the options for them.
_SIGNALS = {3: "term", 9: "kill", 20: "pause"}


# What a narrow terminal shows last of a batch.
_CHEAP = {"cancelled": 15, "blocked": 20, "tasks": 30, "queued": 40}


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The batches, how far each is, whether it goes on, and its defaults."""
    all_counts, rows = engine.batches(), []
    for name in args.by_name:
        batches.known(engine._reader(), name)
    for name, (halt, settings) in batches.all_of(engine._reader()).items():
        counts = all_counts.get(name, {})
        if not counts and halt is Halt.GO and not settings:
            continue  # its tasks were deleted, or moved to another batch
        if args.by_name and name not in args.by_name:
            continue
        rows.append({
            "batch": name, "state": halt.word, "tasks": sum(counts.values()), **facts.count_words(counts),
            "queued": facts.queued(counts), "live": facts.live(counts), "defaults": _defaults(settings), "_defaults": _told(settings),
        })  # fmt: skip
    keys = ["tasks", "queued", "live", "succeeded", "failed", "cancelled", "blocked"]
    always = ("tasks", "queued", "live", "succeeded", "failed")
    keys = [key for key in keys if key in always or any(row[key] for row in rows)]
    columns = [Column("batch", gives=True), Column("state")]
    columns += [Column(key, "running" if key == "live" else None, worth=_CHEAP.get(key)) for key in keys]
    if any(row["_defaults"] for row in rows):
        columns.append(Column("_defaults", "defaults", gives=True, worth=10, good=12))
    notes = [] if rows else [f"{engine.path.name} has no tasks yet."]
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header)


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A batch's defaults with their units."""
    found = dict(settings)
    if "memory" in found:
        found["memory"] = Bytes(submission.memory_bytes("memory", found["memory"]))
    for key in ("retry_delay", "run_timeout"):
        if key in found:
            found[key] = Seconds(found[key])
    return found


def _told(settings: Mapping[str, Any]) -> str:
    parts = []
    for key, value in _defaults(settings).items():
        pairs = (
            " ".join(f"{name}={_pair(text)}" for name, text in value.items()) if isinstance(value, Mapping) else None
        )
        parts.append(f"{key} {pairs or (f'{value:g}' if type(value) is float else shown(value, 0))}")
    return ", ".join(parts)


def _pair(value: Any) -> str:
    return ",".join(f"{key}:{one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)


# --- going on or not --------------------------------------------------------------------------------------------------------------


def pause(engine: Engine, args: SimpleNamespace) -> Text:
    """Launch nothing more of them."""
    return _halt(engine, args, Halt.PAUSED)


def suspend(engine: Engine, args: SimpleNamespace) -> Text:
    """The same, and stop what runs where it is."""
    return _halt(engine, args, Halt.SUSPENDED)


def stop(engine: Engine, args: SimpleNamespace) -> Text:
    """What scitq 1 calls stopping a batch: to pause it, and something about what runs."""
    asked = [
        *([args.signal] if args.signal is not None else []),
        *(n for n, flag in _SIGNALS.items() if getattr(args, flag)),
    ]
    if len(asked) > 1:
        raise click.UsageError("one of -N, --term, --kill and --pause at a time.")
    signal = asked[0] if asked else 0
    if signal not in (0, *_SIGNALS):
        raise click.UsageError(f"-N takes 0, 3, 9 or 20, not {signal}.")
    names = _names(engine, args)
    chosen = _running(engine, names) if signal in (3, 9) else Selection(engine, [])
    if not chosen.ids:
        return _halt(engine, args, Halt.SUSPENDED if signal == 20 else Halt.PAUSED)

    def all_that_runs(_: Selection) -> int:
        for name in names:
            engine.pause_batch(name)
        return _running(engine, names).cancel()  # also what has begun since

    return many(engine, args, chosen, CANCEL, all_that_runs)


def _running(engine: Engine, names: list[str]) -> Selection:
    ids = [task for name in names for task in _chosen(engine, name, frozenset(TaskState) - LIVE).ids]
    return Selection(engine, ids)


def go(engine: Engine, args: SimpleNamespace) -> Text:
    """Let them go on."""
    if args.signal not in (None, 0, 18):
        raise click.UsageError(f"-N takes 0 or 18, not {args.signal}.")
    return _halt(engine, args, Halt.GO)


def _halt(engine: Engine, args: SimpleNamespace, wanted: Halt) -> Text:
    names = _names(engine, args)
    lines, data, needs_driver = [], [], False
    for name in names:
        is_go, is_suspend = wanted is Halt.GO, wanted is Halt.SUSPENDED
        count = engine.go_batch(name) if is_go else engine.pause_batch(name, suspend=is_suspend)
        counts = engine.counts(name)
        live, queued = facts.live(counts), facts.queued(counts)
        needs_driver = needs_driver or bool(live or (queued and is_go))
        lines.append(f"{name} {_state(wanted, live, queued, count)}.")
        data.append({"batch": name, "state": wanted.word, "told": count, "queued": queued, "live": live})
    return Text("\n".join(lines), data, facts.nobody_drives(engine) if needs_driver else [])


def _state(halt: Halt, live: int, queued: int, told: int) -> str:
    if halt is Halt.GO:
        parts = [f"{several(queued, 'task')} queued"] if queued else []
        parts += [f"{live} at the workers"] if live else []
        return f"goes on: {', '.join(parts) or 'nothing is queued'}"
    parts = [f"{several(queued, 'task')} {'stays' if queued == 1 else 'stay'} queued"] if queued else []
    if live and halt is Halt.PAUSED:
        parts.append(f"what runs of {live} at the workers runs on to its end")
    elif live:
        parts.append(f"{told} of {live} at the workers {'is' if told == 1 else 'are'} stopped or called back")
    return f"is {halt.word}" + (f": {', '.join(parts)}" if parts else "")


def _names(engine: Engine, args: SimpleNamespace) -> list[str]:
    """The batches that the arguments name, all of them known."""
    names = [*args.names, *args.by_name]
    if not names:
        raise click.UsageError("which batch? scitq batch list shows their names.")
    for name in names:
        batches.known(engine._reader(), name)
    return list(dict.fromkeys(names))


def _name(engine: Engine, args: SimpleNamespace) -> str:
    one = SimpleNamespace(names=[args.batch] if args.batch else [], by_name=args.by_name)
    names = _names(engine, one)
    if len(names) > 1:
        raise click.UsageError("one batch at a time.")
    return names[0]


# --- all tasks of a batch ---------------------------------------------------------------------------------------------------------


def _chosen(engine: Engine, name: str, but: frozenset[TaskState] = frozenset()) -> Selection:
    quoted = name.replace("'", "''")
    words = ", ".join(f"'{state.word}'" for state in sorted(but))
    return engine.where(f"batch = '{quoted}'" + (f" and state not in ({words})" if words else ""))


def cancel(engine: Engine, args: SimpleNamespace) -> Text:
    """Cancel what has not ended of a batch."""
    name = _name(engine, args)
    chosen = _chosen(engine, name, FINAL)
    if not chosen.ids:
        return Text("", {"matched": 0, "done": 0}, [f"Nothing of {name} is queued or running."])
    return many(engine, args, chosen, CANCEL, Selection.cancel)


def delete(engine: Engine, args: SimpleNamespace) -> Text:
    """Delete a batch: its tasks, its defaults."""
    name = _name(engine, args)
    live = facts.live(engine.counts(name))
    if live:
        first = facts.command_for(engine, f"batch cancel {facts.quoted(name)}")
        raise BadInput(
            f"{several(live, 'task')} of {name} {'is' if live == 1 else 'are'} on workers: nothing was deleted. "
            f"Cancel first: {first}; then, when all have ended, delete."
        )
    chosen = _chosen(engine, name)

    def whole(chosen: Selection) -> int:
        engine.delete_batch(name, keep_cache=args.keep_cache)
        return len(chosen)

    if chosen.ids:
        return many(engine, args, chosen, DELETE, whole)
    if not confirmed(engine, args, f"{name} has no tasks.", f"Delete the defaults of {name}?", chosen):
        return Text("", {"matched": 0, "done": 0}, ["Nothing was done."], code=1)
    whole(chosen)
    return Text(f"The defaults of {name} are deleted.", {"matched": 0, "done": 0})


# --- defaults ---------------------------------------------------------------------------------------------------------------------


def defaults(engine: Engine, args: SimpleNamespace) -> Text:
    """Give a batch defaults for the tasks that are submitted to it from now on."""
    names = [*([args.batch] if args.batch else []), *args.by_name]
    if len(names) != 1:
        raise click.UsageError("which batch? It is made if it is new.")
    name = names[0]
    wanted = conditions(args)
    if not wanted and not args.clear and args.max_cost is None:
        raise click.UsageError("nothing to set: give at least one option, or --clear.")
    limit = None if args.max_cost in (None, "none") else limit_of(args.max_cost)  # before anything is set
    known = batches.all_of(engine._reader())
    if args.clear:
        wanted = {**dict.fromkeys(known[name][1] if name in known else ()), **wanted}
    settings = engine.set_batch(name, **wanted)
    said = []
    if args.max_cost is not None:
        engine.set_max_cost(limit, batch=name)
        said.append(f"its machines may cost {'what they do' if limit is None else limit}")
    told = f"defaults of its tasks from now on: {_told(settings)}" if settings else "no defaults any more"
    new = "" if name in known else " It is a new batch."
    if wanted or args.clear:
        said.append(told)
    return Text(f"{name}: {'; '.join(said)}.{new}", {"batch": name, "defaults": _defaults(settings)})
