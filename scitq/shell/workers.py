"""`worker list`, `show`, `update`: what workers are, hold and have done, and how much they run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import click

from scitq import money, recruiting
from scitq.engine import Engine
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, When, clean, duration, several, shown, size
from scitq.states import WorkerState
from scitq.store import executions, rentals, summary, workers
from scitq.task import Need
from scitq.worker import LOCAL, RENTED_KIND, Load, WorkerRow
from scitq.workersettings import ORPHAN_S, lost_after_s

# How old what is said of a worker may be, and how long a look at it may take.
FRESH_MS = 3_000
LOOK_S = 1.0


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The workers, what they are and hold."""
    look(engine)
    loads = executions.loads(engine._reader())
    states = _states(args.status)
    rows = [
        _facts(row, loads.get(row.id, Load())) for row in engine.workers()
        if (not states or row.state in states) and args.batch in (None, row.batch)
    ]  # fmt: skip
    columns = [Column("name", gives=True), Column("state"), Column("_slots", "slots"), Column("prefetch", worth=15)]
    columns += [Column("_cpus", "cpus", worth=30), Column("memory", worth=29), Column("_gpus", "gpus", worth=10)]
    if any(row["stats"] for row in rows):
        columns += [
            Column("_load", "load", worth=40),
            Column("_memory_free", "free", worth=20),
            Column("_disk_free", "disk free", worth=25),
        ]
    if args.long:
        more = {"memory_taken": "memory taken", "_busy": "busy", "kind": None, "python": None, "host": None, "batch": None, "flavor": None,
                "address": None, "link": None, "created": None, "seen": None, "_measured": "measured", "_limits": "tasks are"}  # fmt: skip
        columns = [Column("id"), *columns, *(Column(key, heading) for key, heading in more.items())]
    if any(row["note"] for row in rows):
        columns.append(Column("note", gives=True, worth=44, good=12))
    notes = (
        []
        if rows
        else ["No such workers."]
        if args.status or args.batch
        else ["No worker yet: this machine becomes one when somebody drives (scitq up, scitq run)."]
    )
    return Rows(columns, rows, notes, head=bool(rows) and not args.no_header, cut=not args.long)


def _states(given: Sequence[str]) -> set[WorkerState]:
    """States by their words; in scitq 1 a worker that is ready is running."""
    known = {state.word: state for state in WorkerState} | {"running": WorkerState.READY}
    return {known[word.strip().lower()] for one in given for word in one.split(",")}


def look(engine: Engine, name: str | int | None = None) -> None:
    """Have workers (or one) say how busy they are, if somebody drives: for a moment, and whoever looks on hears it every second."""
    engine.watch_workers()
    deadline = time.monotonic() + LOOK_S
    while facts.driver_of(engine) is not None and time.monotonic() < deadline:
        seen = engine._changes.count
        rows = [
            row for row in engine.workers() if row.state is WorkerState.READY and name in (None, row.name, int(row.id))
        ]
        # One that was never asked may be one that nobody has contact with.
        if all(not row.stats or facts.now_ms() - row.stats["at"] < FRESH_MS for row in rows):
            return
        engine._changes.wait(seen, 0.1)


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """Everything about a worker. Its history is counted, which takes the longer the more it has done."""
    look(engine, which(args))
    row = workers.find(engine._reader(), which(args))
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
        *_way(row),
        *_rented(engine, row),
    ]
    if stats:
        measured = shown(When(stats["at"]), now)
        lines += [
            ("load", f"{known['_load']}, {known['_busy'] or '?'} of its CPUs busy ({measured})"),
            ("memory", f"{known['_memory_free']} of {shown(_bytes(stats.get('memory')), now)} free"),
            ("disk", f"{known['_disk_free']} of {shown(_bytes(stats.get('disk')), now)} free"),
            *_network(stats, now),
            ("tasks now", f"{stats.get('running', 0)} running, {stats.get('queued', 0)} waiting there"),
            *_coming(stats, now),
        ]
        if stats.get("polite"):
            lines.append(("starts none", f"now: {stats['polite']}"))
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


# Settings that are not the user's, or are told otherwise.
_OURS = frozenset(
    {"lost_after", "slots_as_cpus", "home", "offer", "idle", "end", "orphan_after", "expires_ms", "region", "provider", "market",
     "price", "currency", "eviction", "tags"}
)  # fmt: skip
# The settings of a worker that options give.
_SETTINGS = ("lost_after", "folder", "python", "nice", "hours", "send_limit", "flavor")
_SWITCHES = ("yield_to_users", "keep_batch")


def settings_of(args: SimpleNamespace) -> dict[str, Any]:
    """The worker settings that were given. `auto` takes one back."""
    found: dict[str, Any] = {name: value for name in _SETTINGS if (value := getattr(args, name)) is not None}
    for name, read in (("lost_after", float), ("nice", int)):
        if name in found and found[name] != "auto":
            try:
                found[name] = read(found[name])
            except ValueError:
                raise click.UsageError(
                    f"--{name.replace('_', '-')} takes a number or auto, not {found[name]!r}."
                ) from None
    for name in _SWITCHES:
        if (said := getattr(args, name)) is not None:
            found[name] = said == "on"
    return found


def _way(row: WorkerRow) -> list[tuple[str, str]]:
    """How one that is elsewhere is reached, what was set of it, and what becomes of it when it is silent."""
    if row.kind == LOCAL:
        return []
    lines = [("reached at", row.address)] if row.address is not None else []
    if row.link and (row.kind != RENTED_KIND or row.link.get("root")):
        way = {
            "socket": "its socket, forwarded",
            "dial": "a program on the host",
            "port": "a loopback port, with a token",
        }
        how = str(row.link.get("how"))
        lines.append(
            (
                "through",
                f"SSH, {way.get(how, how)}" + (f"; it lives in {row.link['root']}" if row.link.get("root") else ""),
            )
        )
    lost_after = duration(lost_after_s(row.settings))
    if row.state is WorkerState.UNREACHABLE:
        lines.append(
            (
                "silent for",
                f"{duration(row.silent_ms / 1000)} of awake time; after {lost_after} its tasks may go to others",
            )
        )
    else:
        lines.append(("when silent", f"its tasks may go to others after {lost_after}"))
    if said := [f"{key.replace('_', ' ')} {value}" for key, value in row.settings.items() if key not in _OURS]:
        lines.append(("set", ", ".join(said)))
    return lines


def _rented(engine: Engine, row: WorkerRow) -> list[tuple[str, str]]:
    """What its provider calls its machine, what that costs, and when it ends by itself."""
    rental = None if row.kind != RENTED_KIND else rentals.of(engine._reader(), row.id)
    if rental is None:
        return []
    price = (
        "at a price that is not known"
        if rental.price is None
        else money.said(rental.price, rental.currency, per_hour=True)
    )
    named = "" if rental.cloud_id is None else f", there {rental.cloud_id}"
    lines = [
        (
            "rented",
            f"{rental.flavor} of {rental.provider} {rental.region}, {rental.market}, {price}{named}: {rental.state.word}",
        )
    ]
    if rental.running_ms is not None:
        silent = duration(float(row.settings.get("orphan_after", ORPHAN_S)))
        expires = (
            ""
            if rental.expires_ms is None
            else f", and at {time.strftime('%H:%M', time.localtime(rental.expires_ms / 1000))}"
        )
        what = "its agent ends" if row.settings.get("end", "agent") == "agent" else "it ends itself"
        lines.append(("when alone", f"{what} after {silent} without a driver and with nothing to do{expires}"))
    return lines


def held_to(row: WorkerRow) -> str:
    """What becomes of tasks that take more than they asked for, in words."""
    held = f"held to the {' and '.join(sorted(row.limits, reverse=True))} they ask for" if row.limits else ""
    if row.limits_reason is None:
        return held or "not known yet to be held to what they ask for"
    return (f"{held}; not to the rest: " if held else "not held to what they ask for: ") + row.limits_reason


def _network(stats: Mapping[str, Any], now: int) -> list[tuple[str, str]]:
    """What came and went over the network since it was started."""
    if "net_in" not in stats:
        return []
    came, went = shown(Bytes(stats["net_in"]), now), shown(Bytes(stats["net_out"]), now)
    return [
        ("network", f"{came} in, {went} out since it was started, {shown(Seconds(stats.get('uptime', 0)), now)} ago")
    ]


def _coming(stats: Mapping[str, Any], now: int) -> list[tuple[str, str]]:
    """What it is sent from this machine, as of the same moment."""
    sending = stats.get("sending")
    if not sending:
        return []
    rest = f", about {shown(Seconds(sending['left_s']), now)} more" if "left_s" in sending else ""
    done, total, rate = (shown(Bytes(sending[name]), now) for name in ("bytes", "total", "rate"))
    return [("is sent", f"{done} of {total} from this machine, {rate}/s{rest}")]


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
        "host": row.facts.get("host"), "batch": row.batch, "flavor": recruiting.flavor(row),
        "note": row.note, "created": When(row.created_ms),
        "seen": None if row.seen_ms is None else When(row.seen_ms),
        "address": row.address, "link": row.link.get("how"), "settings": dict(row.settings),
        "silent": Seconds(row.silent_ms / 1000) if row.silent_ms else None,
        "limits": list(row.limits), "limits_reason": row.limits_reason,
        "stats": {**stats, "at": When(stats["at"])} if stats else None,
        "_slots": f"{load.slots}/{row.concurrency}", "_cpus": f"{row.cpus:g}" if row.cpus else "",
        "_gpus": f"{len(load.gpus)}/{len(row.gpus)}" if row.gpus else "0",
        "_load": f"{stats['load']:.2f}" if "load" in stats else "", "_busy": "" if busy is None else f"{busy:.0%}",
        "_memory_free": shown(_bytes(stats.get("memory_free")), now), "_disk_free": shown(_bytes(stats.get("disk_free")), now),
        "_measured": When(stats["at"]) if stats else None, "_limits": held_to(row),
    }  # fmt: skip


def which(args: SimpleNamespace) -> str | int:
    """The worker that was named."""
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
    name = which(args)
    has: dict[str, Any] = {}
    if args.cpus is not None:
        has["cpus"] = _number("--cpus", args.cpus)
    if args.memory is not None:
        has["memory"] = args.memory
    if args.output_cap is not None:
        has["output_cap"] = args.output_cap
    if args.limits is not None:
        has["limits"] = args.limits == "on"
    if args.container_engine is not None:
        has["container_engine"] = args.container_engine
    has |= settings_of(args)
    if args.batch is not None:
        has["batch"] = args.batch
    if args.status is not None:
        engine.worker_pause(name) if args.status == "paused" else engine.worker_resume(name)
    if args.concurrency is None and args.prefetch is None and args.gpus is None and args.status is None and not has:
        raise click.UsageError(
            "nothing to change: give --concurrency, --prefetch, --cpus, --memory, --gpus, --output-cap, --limits, "
            "--container-engine, --batch, or one of what worker add can set."
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
