"""`sql`, `export`, `purge`, `check`: the file as data, its old history, its soundness."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput
from scitq.shell import looking
from scitq.shell.answers import Bytes, Column, Rows, Text, several, size

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.store.keep import Purged


def sql(engine: Engine, args: SimpleNamespace) -> Rows | Text:
    """The rows of a SELECT."""
    limit_s = 30.0 if args.timeout is None else args.timeout
    try:
        found = engine.sql(args.query, timeout=limit_s)
    except TimeoutError:
        raise BadInput(
            f"the query took longer than {limit_s:g} s and was stopped. Narrow it, or allow it more: --timeout SECONDS"
        ) from None
    rows = [{name: _plain(value) for name, value in row.items()} for row in found]
    if args.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not args.no_header:
            writer.writerow(found.columns)
        writer.writerows(row.values() for row in rows)
        return Text(text.getvalue().removesuffix("\n"), rows)
    return Rows([Column(name, gives=True) for name in found.columns], rows, head=not args.no_header)


def _plain(value: Any) -> Any:
    """A value as text and JSON can have it."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def export(engine: Engine, args: SimpleNamespace) -> Text:
    """Write a file for other tools."""
    counts = engine.export(args.target, args.table)
    path = Path(args.target)
    told = ", ".join(
        f"{count:,} {name}" if name != "journal" else f"{count:,} journal entries" for name, count in counts.items()
    )
    length = path.stat().st_size
    return Text(
        f"{path}: {told} ({size(length)})", {"path": str(path.absolute()), "size": Bytes(length), "rows": counts}
    )


def purge(engine: Engine, args: SimpleNamespace) -> Text:
    """Delete old history, or tell what would go."""
    if args.older_than is None:
        raise BadInput("how old must it be? For example: scitq purge --older-than 30")
    found = engine.purge(args.older_than, keep_failed=args.keep_failed, dry_run=True)
    data = {"deleted": bool(args.yes and found), **_purged(found)}
    if not found:
        return Text(f"Nothing in {engine.path.name} is older than {args.older_than:g} days and no longer needed.", data)
    told = f"{_told(found)}. Outputs stay where they are."
    if not args.yes:
        return Text(f"Would delete {told}", data, ["Nothing was deleted. To do it: the same with --yes"])
    args.screen.say(f"Deleting {told}")
    done = engine.purge(args.older_than, keep_failed=args.keep_failed, keep_cache=args.keep_cache)
    note = "The space is used again, or given back when nothing else is to be done."
    return Text(f"Deleted {_told(done)}.", {"deleted": True, **_purged(done)}, [note])


def _purged(found: Purged) -> dict[str, Any]:
    return {
        "tasks": found.tasks,
        "executions": found.executions,
        "journal": found.journal,
        "logs": found.logs,
        "log_bytes": Bytes(found.log_bytes),
    }


def _told(found: Purged) -> str:
    logs = f", {several(found.logs, 'log file')} ({size(found.log_bytes)})" if found.logs else ""
    return (
        f"{several(found.tasks, 'task')} with {several(found.executions, 'execution')}{logs}, "
        f"and {several(found.journal, 'journal entry', 'journal entries')}"
    )


def check(engine: Engine | None, args: SimpleNamespace) -> Text:
    """Is the file sound? Or, with --repair, what can be read of it in a new file."""
    if engine is None:
        return _repair(args)
    found = looking.check(engine, args)
    if found.code:
        hint = f"To put what can be read into a new file: scitq -f {engine.path.name} check --repair NEW.scitq"
        return replace(found, notes=[*found.notes, hint])
    return found


def _repair(args: SimpleNamespace) -> Text:
    from scitq.engine import find
    from scitq.store.salvage import salvage
    from scitq.store.schema import SCHEMA

    path = find(args.file)
    found = salvage(path, Path(args.repair), SCHEMA)
    if found.source == "rows":
        gaps = [f"{table}: {several(n, 'place')} could not be read" for table, n in found.gaps.items()]
        lines = [f"{found.target}: {', '.join(f'{n:,} of {table}' for table, n in found.rows.items() if n)}.", *gaps]
    else:
        lines = [f"{found.target}: of {path.name} nothing could be read; this is the backup {found.source}."]
    lines += [*found.repairs, *(f"still wrong: {problem}" for problem in found.problems)]
    data = {
        "target": str(found.target), "source": found.source, "rows": found.rows, "unreadable": found.gaps,
        "repairs": found.repairs, "problems": found.problems,
    }  # fmt: skip
    notes = [f"{path.name} was left as it is. Look at the new one: scitq -f {args.repair} status"]
    return Text("\n".join(lines), data, notes, code=1 if found.problems else 0)
