"""`worker list`, `show`, `update`: what workers are, hold and have done, and how much they run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, When, clean, several, shown, size
from scitq.store import executions, summary, workers
from scitq.task import Need
from scitq.worker import Load, WorkerRow


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The workers, what they are and hold."""
    loads = executions.loads(engine._reader())
    rows = [_facts(row, loads.get(row.id, Load())) for row in engine.workers()]
    columns = [Column("name"), Column("state"), Column("_slots", "slots"), Column("prefetch"), Column("_cpus", "cpus")]
    columns += [Column("memory"), Column("_gpus", "gpus")]
    if any(row["stats"] for row in rows):
        columns += [Column("_load", "load"), Column("_memory_free", "free"), Column("_disk_free", "disk free")]
    if args.long:
        more = {"memory_taken": "memory taken", "_busy": "busy", "kind": None, "python": None, "host": None, "batch": None,
                "created": None, "seen": None, "_measured": "measured", "_limits": "tasks are"}  # fmt: skip
        columns = [Column("id"), *columns, *(Column(key, heading) for key, heading in more.items())]
    if any(row["note"] for row in rows):
        columns.append(Column("note", gives=True))
    notes = [] if rows else ["No worker yet: this machine becomes one when somebody drives (scitq up, scitq run)."]
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header, cut=not args.long)


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """Everything about a worker. Its history is counted, which takes the longer the more it has done."""
    row = workers.find(engine._reader(), _which(args))
    known = _facts(row, executions.loads(engine._reader()).get(row.id, Load()))
    done = summary.work_of(engine._reader(), row.id)
    now, stats = facts.now_ms(), known["stats"]
    lines: list[tuple[str, str]] = [
        ("state", row.state.word + (f": {row.note}" if row.note else "")),
        ("slots", f"{known['holds']} of {row.concurrency} taken, {known['prefetch']} ready beyond those"),
        ("has", Need(row.cpus or None, row.memory or None, len(row.gpus) or None).describe()),
        *([("GPUs", _models(row))] if row.gpus else []),
        ("tasks are", held_to(row)),
        ("host", f"{known['host'] or ''}, Python {known['python'] or '?'}"),
    ]
    if stats:
        measured = shown(When(stats["at"]), now)
        lines += [
            ("load", f"{known['_load']}, {known['_busy'] or '?'} of its CPUs busy ({measured})"),
            ("memory", f"{known['_memory_free']} of {shown(_bytes(stats.get('memory')), now)} free"),
            ("disk", f"{known['_disk_free']} of {shown(_bytes(stats.get('disk')), now)} free"),
            ("tasks now", f"{stats.get('running', 0)} running, {stats.get('queued', 0)} waiting there"),
        ]
    if done.ended:
        outcomes = ", ".join(f"{count:,} {outcome.word.replace('_', ' ')}" for outcome, count in done.outcomes.items())
        lines += [
            (
                "has run",
                f"{outcomes}, in {shown(Seconds(done.run_s), now)}, {shown(_seconds(done.mean_run_s), now)} each",
            ),
            ("CPU time", shown(Seconds(done.cpu_s), now)),
            ("disk I/O", f"{shown(Bytes(done.read_bytes), now)} read, {shown(Bytes(done.written_bytes), now)} written"),
        ]
    data = {
        **{key: value for key, value in known.items() if not key.startswith("_")},
        "work": {
            "outcomes": {outcome.word: count for outcome, count in done.outcomes.items()}, "run_s": Seconds(done.run_s),
            "mean_run_s": _seconds(done.mean_run_s), "cpu_s": Seconds(done.cpu_s), "read_bytes": Bytes(done.read_bytes),
            "written_bytes": Bytes(done.written_bytes),
        },
    }  # fmt: skip
    text = "\n".join([clean(f"{row.name} is {row.kind}"), *(f"{key:<12}{clean(value)}" for key, value in lines)])
    return Text(text, data, safe=True)


def held_to(row: WorkerRow) -> str:
    """What becomes of tasks that take more than they asked for, in words."""
    held = f"held to the {' and '.join(sorted(row.limits, reverse=True))} they ask for" if row.limits else ""
    if row.limits_reason is None:
        return held or "not known yet to be held to what they ask for"
    return (f"{held}; not to the rest: " if held else "not held to what they ask for: ") + row.limits_reason


def _models(row: WorkerRow) -> str:
    """Its GPUs by name, as far as its agent knows."""
    known = {str(one.get("id")): one for one in row.facts.get("gpu_models") or ()}
    said = [known.get(gpu) for gpu in row.gpus]
    return ", ".join(
        gpu if one is None else f"{gpu}: {one.get('name')}, {size(int(one.get('memory') or 0))}"
        for gpu, one in zip(row.gpus, said, strict=True)
    )


def _facts(row: WorkerRow, load: Load) -> dict[str, Any]:
    """A worker for JSON, and for tables."""
    stats, now = row.stats, facts.now_ms()
    busy = stats.get("cpu")
    return {
        "id": int(row.id), "name": row.name, "kind": row.kind, "state": row.state.word, "concurrency": row.concurrency,
        "prefetch": "auto" if row.prefetch is None else row.prefetch, "holds": load.slots,
        "cpus": row.facts.get("cpus"), "memory": _bytes(row.facts.get("memory")), "memory_taken": Bytes(load.memory),
        "gpus": list(row.gpus), "gpus_taken": sorted(load.gpus), "gpu_models": row.facts.get("gpu_models") or [],
        "python": row.facts.get("python"),
        "host": row.facts.get("host"), "batch": row.batch, "note": row.note, "created": When(row.created_ms),
        "seen": None if row.seen_ms is None else When(row.seen_ms),
        "limits": list(row.limits), "limits_reason": row.limits_reason,
        "stats": {**stats, "at": When(stats["at"])} if stats else None,
        "_slots": f"{load.slots}/{row.concurrency}", "_cpus": f"{row.cpus:g}" if row.cpus else "",
        "_gpus": f"{len(load.gpus)}/{len(row.gpus)}" if row.gpus else "0",
        "_load": f"{stats['load']:.2f}" if "load" in stats else "", "_busy": "" if busy is None else f"{busy:.0%}",
        "_memory_free": shown(_bytes(stats.get("memory_free")), now), "_disk_free": shown(_bytes(stats.get("disk_free")), now),
        "_measured": When(stats["at"]) if stats else None, "_limits": held_to(row),
    }  # fmt: skip


def _which(args: SimpleNamespace) -> str | int:
    name: str | int | None = args.worker or args.by_name or args.by_id
    if name is None:
        raise click.UsageError("which worker? scitq worker list shows their names.")
    return name


def _number(option: str, text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise click.UsageError(f"{option} takes a number or auto, not {text!r}.") from None


def _bytes(value: Any) -> Bytes | None:
    return None if value is None else Bytes(value)


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)


def update(engine: Engine, args: SimpleNamespace) -> Text:
    """Change how much a worker runs."""
    name = _which(args)
    has: dict[str, Any] = {}
    if args.cpus is not None:
        has["cpus"] = _number("--cpus", args.cpus)
    if args.memory is not None:
        has["memory"] = args.memory
    if args.output_cap is not None:
        has["output_cap"] = args.output_cap
    if args.limits is not None:
        if args.limits not in ("on", "off"):
            raise click.UsageError(f"--limits takes on or off, not {args.limits!r}.")
        has["limits"] = args.limits == "on"
    if args.container_engine is not None:
        has["container_engine"] = args.container_engine
    if args.concurrency is None and args.prefetch is None and args.gpus is None and not has:
        raise click.UsageError(
            "nothing to change: give --concurrency, --prefetch, --cpus, --memory, --gpus, --output-cap, --limits or "
            "--container-engine."
        )
    prefetch: int | str | None = args.prefetch
    if prefetch is not None and prefetch != "auto":
        if not str(prefetch).isdecimal():
            raise click.UsageError(f"--prefetch takes a number or auto, not {prefetch!r}.")
        prefetch = int(prefetch)
    if args.gpus is not None:
        ids = [one.strip() for one in args.gpus.split(",") if one.strip()]
        has["gpus"] = args.gpus if args.gpus == "auto" else int(args.gpus) if args.gpus.isdecimal() else ids
    row = engine.update_worker(name, concurrency=args.concurrency, prefetch=prefetch, **has)
    ahead = "as many as short tasks need" if row.prefetch is None else str(row.prefetch)
    owns = Need(row.cpus or None, row.memory or None, len(row.gpus) or None).describe()
    return Text(
        f"{row.name} runs {several(row.concurrency, 'task')} at once, and holds {ahead} ready beyond those."
        + (f" For tasks that ask it has {owns}." if has.keys() & {"cpus", "memory", "gpus"} else "")
        + ("" if args.limits is None else f" Tasks are {held_to(row)}.")
        + ("" if row.output_cap is None else f" It keeps {row.output_cap:,} bytes of each stream of a task.")
        + ("" if args.container_engine is None else f" Containers are run by {row.container_engine or 'the first program that works'}."),
        {
            "name": row.name, "concurrency": row.concurrency, "prefetch": "auto" if row.prefetch is None else row.prefetch,
            "cpus": row.cpus, "memory": Bytes(row.memory), "gpus": list(row.gpus), "output_cap": row.output_cap,
            "limits": list(row.limits), "limits_reason": row.limits_reason, "container_engine": row.container_engine or "auto",
        },
        facts.nobody_drives(engine) if facts.queued(engine.counts()) else [],
    )  # fmt: skip
