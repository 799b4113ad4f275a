"""`scitq cache list|explain|forget`: the results that there are to take, what a key is made of, and taking one no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq import because
from scitq.digest import Difference, Parts
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.selection import Selection
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, When, clean, several, size
from scitq.shell.editing import confirmed
from scitq.shell.tasks import one_of, some_of
from scitq.store import cache
from scitq.store.cache import Entry


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The newest results that tasks may take."""
    limit = args.limit if args.limit > 0 else 1 << 40
    found = engine.cached(limit + 1, older_than_days=args.older_than)
    rows = [_facts(engine, entry) for entry in found[:limit]]
    notes = [f"These are the newest {len(rows)}; --limit N shows more, --limit 0 all."] if len(found) > limit else []
    if rows:
        notes.append(f"{several(len(rows), 'result')}, {size(sum(row['bytes'] for row in rows))} where they were left.")
    else:
        notes = [f"{engine.path.name} has no results to take yet." if args.older_than is None else "No such results."]
    if (unknown := cache.unknown(engine._reader())) and args.older_than is None:
        notes.append(f"{several(unknown, 'success', 'successes')} will be looked at by the next driver.")
    columns = [Column("task"), Column("label", gives=True), Column("age", "ended", worth=40), Column("run_s", "took", worth=20),
               Column("files", worth=10), Column("bytes", "size", worth=30), Column("used", worth=15),
               Column("address", "where", gives=True, worth=44, good=16)]  # fmt: skip
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header, cut=not args.long)


def _facts(engine: Engine, entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "task": int(entry.task), "label": entry.label, "execution": int(entry.execution), "key": entry.key,
        "age": When(entry.ended_ms), "run_s": None if entry.run_s is None else Seconds(entry.run_s),
        "files": 0 if manifest is None else len(manifest.files), "bytes": Bytes(0 if manifest is None else manifest.size),
        "used": cache.uses(engine._reader(), entry.execution),
        "address": None if manifest is None else facts.shown_address(manifest.address), "kept": entry.kept is not None,
    }  # fmt: skip


def explain(engine: Engine, args: SimpleNamespace) -> Text:
    """What the key of a task is made of; of two, what differs."""
    given = [args.task, args.other] if args.other else [args.task]
    tasks = [one_of(engine, SimpleNamespace(task=one, by_id=(), by_name=())) for one in given]
    parts = [because.parts_of(engine._reader(), task.id) for task in tasks]
    told = [_told(engine, one) for one in parts]
    if len(tasks) == 1:
        why = tasks[0].why()
        data: dict[str, Any] = {"task": int(tasks[0].id), "why": why, **told[0]}
        return Text("\n".join([clean(why), "", *_lines(told[0])]), data)
    found = because.detailed(engine._reader(), *parts)
    data = {
        "tasks": [int(task.id) for task in tasks], "keys": [one["key"] for one in told],
        "differences": [{"what": one.what, "old": one.old, "new": one.new} for one in found],
    }  # fmt: skip
    numbers = f"{tasks[0].id} and {tasks[1].id}"
    if not found:
        return Text(f"{numbers} are equal: the key of both is {told[0]['key']}.", data)
    return Text("\n".join([f"{numbers} differ:", *(clean(line) for one in found for line in _difference(one))]), data)


def _told(engine: Engine, parts: Parts) -> dict[str, Any]:
    db = engine._reader()
    told: dict[str, Any] = {
        "key": parts.key, "command": parts.command, "shell": parts.shell, "container": parts.image,
        "container_options": parts.options, "env": parts.env,
    }  # fmt: skip
    for what, sources in (("input", parts.input), ("resource", parts.resource)):
        told[what] = []
        for source in sources:
            found = cache.fingerprint_of(db, source.digest)
            files = None if found is None else [file._asdict() for file in found.files]
            how = "not looked at yet" if found is None else found.how
            told[what].append({"address": source.address, "actions": source.actions, "told_by": how, "files": files})
    return told


def _lines(told: dict[str, Any]) -> list[str]:
    pairs = [
        ("key", told["key"]),
        ("command", told["command"]),
        ("shell", told["shell"]),
        ("container", told["container"]),
    ]
    pairs.append(("options", " ".join(told["container_options"]) or None))
    pairs += [("env", f"{key}={value}") for key, value in sorted(told["env"].items())]
    for what in ("input", "resource"):
        for source in told[what]:
            count = several(len(source["files"]), "file") if source["files"] is not None else "?"
            actions = f"|{source['actions']}" if source["actions"] else ""
            pairs.append((what, f"{source['address']}{actions} ({count}, told by {source['told_by']})"))
    return [clean(f"{key:<12}{value}") for key, value in pairs if value is not None]


def _difference(one: Difference) -> list[str]:
    return [f"  {one.what}", f"    old: {one.old}", f"    new: {one.new}"]


def forget(engine: Engine, args: SimpleNamespace) -> Text:
    """Take some results no more. Deletes no task and no file."""
    if bool(args.ids) + (args.older_than is not None) + bool(args.all) != 1:
        raise click.UsageError("which results? Give tasks, --older-than DAYS, or --all.")
    if args.ids:
        chosen = some_of(engine, SimpleNamespace(ids=args.ids, by_id=(), by_name=()))
        found = [entry for task in chosen for entry in cache.of_task(engine._reader(), task.id)]
    else:
        found = engine.cached(1 << 40, older_than_days=args.older_than)
    data = {"forgotten": 0, "matched": len(found)}
    if not found:
        raise BadInput("no such result is there to take. scitq cache list shows what there is.")
    what = f"{several(len(found), 'result')} will not be taken any more; their tasks and files stay."
    if not confirmed(engine, args, what, "Forget?", Selection(engine, [])):
        return Text("", data, ["Nothing was done."], code=1)
    count = engine.forget(found)
    return Text(f"{several(count, 'result')} forgotten.", {**data, "forgotten": count})
