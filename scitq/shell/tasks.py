"""`scitq task list|show|output|why`: what there is. What changes tasks is in `editing`."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.handle import Task
from scitq.shell import facts
from scitq.shell.answers import Bytes, Column, Rows, Seconds, Text, clean, duration, iso, several, shown, size
from scitq.shell.attempts import attempts_in
from scitq.shell.show import Screen
from scitq.shell.terminal import harmless
from scitq.states import TaskState, Wanted, task_state
from scitq.store import executions, listing, logs, manifests
from scitq.task import ExecutionRow, TaskId, TaskRow

PIECE_BYTES = 1 << 20
# How long `task output` waits for what a running task has written and nobody had asked for yet.
FRESH_S = 1.5
# So many of the files that an execution left are listed.
FILES_SHOWN = 10


# --- which task -----------------------------------------------------------------------------------------------------------------


def one_of(engine: Engine, args: SimpleNamespace) -> Task:
    """The task that the arguments name."""
    found = some_of(
        engine, SimpleNamespace(ids=[args.task] if args.task else [], by_id=args.by_id, by_name=args.by_name)
    )
    if len(found) > 1:
        raise click.UsageError("one task at a time.")
    return found[0]


def some_of(engine: Engine, args: SimpleNamespace) -> list[Task]:
    """The tasks that the arguments name, one at least."""
    found = [engine.task(given) for given in args.ids]
    for given in args.by_id:
        if not given.isdecimal():
            raise click.UsageError(f"-i takes a number, not {given!r}; a name goes with -n.")
        found.append(engine.task(int(given)))
    found += [Task(engine, listing.find(engine._reader(), given)) for given in args.by_name]
    if not found:
        raise click.UsageError("which task? Give its number or its name; scitq task list shows them.")
    return list(dict.fromkeys(found))


# --- list -----------------------------------------------------------------------------------------------------------------------


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The newest tasks that meet the conditions, oldest of them first."""
    states = [state for given in args.status for state in given.split(",")]
    if args.failed:
        states.append(TaskState.FAILED.word)
    limit = args.limit if args.limit > 0 else None
    rows = _selected(engine, args, states, 1 << 40 if limit is None else limit + 1)
    more = limit is not None and len(rows) > limit
    rows = list(reversed(rows[:limit]))
    table = table_of(engine, rows, long=args.long)
    notes = [f"These are the newest {len(rows)}; --limit N shows more, --limit 0 all."] if more else []
    if not rows:
        notes = [_nothing(engine, args)]
    columns = _failed_columns() if args.failed else table.columns
    return Rows(columns, table.rows, notes, head=not args.no_header and bool(rows), cut=not args.long)


def _selected(engine: Engine, args: SimpleNamespace, words: list[str], limit: int) -> list[TaskRow]:
    if args.where is None:
        return engine.rows(status=words or None, batch=args.batch, name=args.name, limit=limit, newest_first=True)
    try:
        states = [task_state(word) for word in words] or None
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    return listing.select(
        engine._reader(), ids=engine.where(args.where).ids, states=states, batch=args.batch, name=args.name,
        newest_first=True, limit=limit,
    )  # fmt: skip


def table_of(engine: Engine, rows: Sequence[TaskRow], *, long: bool = False) -> Rows:
    """Tasks as a table."""
    found = [_listed(engine, row, long=long) for row in rows]
    return Rows(_columns(engine, found, long=long), found, head=bool(found), cut=not long)


def _nothing(engine: Engine, args: SimpleNamespace) -> str:
    if not engine.counts():
        return f"{engine.path.name} has no tasks yet. {facts.command_for(engine, 'launch COMMAND')} queues one."
    if args.batch is not None and args.batch not in engine.batches():
        return f"No batch is named {args.batch!r}. scitq batch list shows the names."
    return "No such tasks." if not args.failed else "Nothing has failed."


def _listed(engine: Engine, row: TaskRow, *, long: bool) -> dict[str, Any]:
    last = executions.latest(engine._reader(), row.id)
    found = facts.task_facts(row, last)
    found["_task"] = row.name or row.spec.line()
    found["_why"] = _cause(row, last)
    most = f"/{row.spec.retry + 1}" if isinstance(row.spec.retry, int) else ""
    found["_tried"] = f"{row.tries + 1}{most}" if last is not None else ""
    if row.state.is_live and last is not None and last.started_ms is not None:
        found["run_s"] = Seconds(max(0, facts.now_ms() - last.started_ms) / 1000)
    if long:
        found["_line"] = row.spec.line()
        found["requires"] = [int(parent.id) for parent in listing.parents(engine._reader(), row.id)]
        found["_ranges"] = _ranges(found["requires"])
    return found


def _ranges(ids: Sequence[int]) -> str:
    """`1-24 30`."""
    runs: list[list[int]] = []
    for id in sorted(ids):
        if runs and runs[-1][1] == id - 1:
            runs[-1][1] = id
        else:
            runs.append([id, id])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _cause(row: TaskRow, last: ExecutionRow | None) -> str | None:
    if row.state is TaskState.BLOCKED:
        return row.reason
    if row.state is TaskState.PENDING and row.not_before_ms is not None:
        wait_s = max(0, row.not_before_ms - facts.now_ms()) / 1000
        return f"{(last.cause if last else None) or 'failed'}; again in {duration(wait_s)}"
    if row.state is TaskState.FAILED and last is not None:
        return last.cause + (f": {last.detail}" if last.detail else "") if last.cause else last.detail
    if row.state.is_live and last is not None and last.stop_wanted:
        return "asked to stop"
    if row.state is TaskState.RUNNING and last is not None and last.wanted is Wanted.SUSPENDED:
        return "stopped where it is"
    return None


def _columns(engine: Engine, rows: Sequence[dict[str, Any]], *, long: bool) -> list[Column]:
    batch = [Column("batch", gives=True, worth=44, good=16)] if long or len({row["batch"] for row in rows}) > 1 else []
    worker = [Column("worker", worth=30)] if long or len(engine.workers()) > 1 else []
    columns = [
        Column("id"),
        Column("_task", "task", gives=True),
        *batch,
        Column("status"),
        *worker,
        Column("run_s", "time", worth=20),
        Column("changed", "since", worth=40),
    ]
    if any(row["_why"] for row in rows):
        columns.append(Column("_why", "why", gives=True, worth=43, good=12))
    if long:
        data = [Column(key) for key in ("container", "input", "resource", "output") if any(row[key] for row in rows)]
        columns += [
            Column("created"),
            Column("priority"),
            Column("_tried", "tries"),
            Column("run_timeout", "limit"),
            Column("_ranges", "requires"),
            *data,
            Column("_line", "command"),
        ]
    return columns


def _failed_columns() -> list[Column]:
    return [
        Column("id"),
        Column("_task", "task", gives=True),
        Column("worker", worth=30),
        Column("_why", "cause", gives=True, good=16),
        Column("_tried", "tries", worth=20),
        Column("changed", "ended", worth=40),
    ]


# --- show -----------------------------------------------------------------------------------------------------------------------


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """Everything the file says of a task."""
    found = about(engine, one_of(engine, args))
    data, attempts, tail = found.data, found.attempts, found.data["tail"]
    lines = [args.screen.folded(clean(data["why"])), ""]
    lines += [f"{key:<12}{text}" for key, text in found.conditions()]
    if attempts:
        head, *each = attempts_in(attempts, args.screen.width if args.screen.is_terminal else None)
        lines += ["", head]
        for line, facts_of_it in zip(each, data["executions"], strict=True):
            lines += [line, *(clean(f"      {note}") for note in facts_of_it["notes"])]
    lines += _left(data["executions"][-1] if attempts else None)
    if tail:
        lines += ["", "its last lines", *(f"  {harmless(line).rstrip()}" for line in tail)]
    return Text("\n".join(lines), data, safe=True)


@dataclass(frozen=True)
class About:
    """Everything the file says of a task. `data` is what JSON has."""

    row: TaskRow
    attempts: Sequence[ExecutionRow]
    required: Mapping[TaskState, int]
    data: dict[str, Any]

    def conditions(self) -> list[tuple[str, str]]:
        """What it was asked under, name and text; an empty name goes on with the line before. The command comes last."""
        return _conditions(self.row, self.data, dict(self.required))


def about(engine: Engine, task: Task) -> About:
    """It, as it stands now.

    Raises:
        UnknownTask: it was deleted.
    """
    row, attempts = task.row(), task.executions
    last = attempts[-1] if attempts else None
    counts = listing.parent_counts(engine._reader(), task.id)
    parents = listing.parents(engine._reader(), task.id, 20)
    data = {
        **facts.task_facts(row, last),
        "why": task.why(),
        "folder": _context(engine, task.id).get("cwd"),
        "output": _output(task, row),
        "requires": [{"id": int(parent.id), "name": parent.name, "status": parent.state.word} for parent in parents],
        "requires_count": sum(counts.values()),
        "executions": [_attempt_facts(engine, one) for one in attempts],
        "limits_reason": _not_held(engine, row, last),
        "avoids": [worker.name for worker in engine.workers() if worker.id in row.raised.avoid],
        "tail": task.tail(),
    }
    return About(row, attempts, counts, data)


def _attempt_facts(engine: Engine, one: ExecutionRow) -> dict[str, Any]:
    """An attempt, with what it left and what its worker had to say."""
    db = engine._reader()
    left = manifests.of_execution(db, one.id)
    files = [] if left is None else [{"name": name, "size": Bytes(size), "md5": md5} for name, size, md5 in left.files]
    delivered = None if left is None else facts.shown_address(left.address)
    return {
        **facts.execution_facts(one), "delivered": delivered, "files": files,
        "delivered_bytes": None if left is None else Bytes(left.size), "notes": manifests.notes(db, one.id),
    }  # fmt: skip


def _left(last: dict[str, Any] | None) -> list[str]:
    """What the latest attempt left, file by file."""
    if last is None or not last["files"]:
        return []
    files, now = last["files"], facts.now_ms()
    head = f"it left {several(len(files), 'file')}, {shown(last['delivered_bytes'], now)}, in {last['delivered']}"
    lines = [f"  {shown(file['size'], now):>8}  {file['name']}" for file in files[:FILES_SHOWN]]
    more = [f"  … and {len(files) - FILES_SHOWN:,} more (--json has them all)"] if len(files) > FILES_SHOWN else []
    return ["", *(clean(line) for line in [head, *lines, *more])]


def _output(task: Task, row: TaskRow) -> str | None:
    """Where its output is or will be, as far as the file and this machine say; nobody else is asked."""
    output = task.output
    is_there = row.spec.output is not None or not output.address.is_local or os.path.exists(output.path)
    return output.address.shown if is_there else None


def _not_held(engine: Engine, row: TaskRow, last: ExecutionRow | None) -> str | None:
    """Why the worker of its latest execution does not hold it to the memory and CPUs that it asked for."""
    if last is None or not (row.spec.memory or row.spec.cpus):
        return None
    return next((worker.limits_reason for worker in engine.workers() if worker.name == last.worker), None)


def _conditions(row: TaskRow, data: dict[str, Any], counts: dict[TaskState, int]) -> list[tuple[str, str]]:
    spec, now = row.spec, facts.now_ms()
    found: list[tuple[str, Any]] = [
        ("id", row.id),
        ("name", row.name),
        ("batch", row.batch),
        ("status", row.state.word),
        ("since", f"{shown(data['changed'], now)} ({iso(row.changed_ms)})"),
        ("submitted", f"{shown(data['created'], now)} ({iso(row.created_ms)})"),
        ("folder", data["folder"]),
        ("shell", spec.shell),
        ("container", spec.container),
        ("options", shlex.join(spec.container_options) or None),
    ]
    if spec.retry:
        is_simple = isinstance(spec.retry, int)
        found.append(
            ("retry", f"{row.tries} of {spec.retries()} used" if is_simple else f"{spec.retries()}; {row.tries} used")
        )
    found += _raised(row, data)
    if spec.run_timeout is not None:
        found.append(("limit", duration(spec.run_timeout)))
    if row.priority:
        found.append(("priority", row.priority))
    if spec.need is not None:
        found.append(("asks for", spec.need.describe()))
    if data["limits_reason"]:
        found.append(("not held to", f"all of it on {data['worker']}: {data['limits_reason']}"))
    if spec.env:
        found.append(("env", " ".join(f"{key}={value}" for key, value in spec.env.items())))
    if spec.tags:
        found.append(("tags", " ".join(f"{key}={value}" if value else key for key, value in spec.tags.items())))
    if counts:
        total, done = sum(counts.values()), counts.get(TaskState.SUCCEEDED, 0)
        named = ", ".join(f"{parent['id']} {parent['status']}" for parent in data["requires"][:5])
        found.append(("requires", f"{done} of {total} done: {named}{', …' if total > 5 else ''}"))
    for what in ("input", "resource"):
        found += [(what if n == 0 else "", text) for n, text in enumerate(data[what])]
    found.append(("output", data["output"]))
    ways = {"overwrite": spec.overwrite, "skip if exists": spec.skip_if_exists, "failed dropped": not spec.keep_failed}
    if any(ways.values()):
        found.append(("", ", ".join(way for way, is_so in ways.items() if is_so)))
    if spec.stage_in_timeout is not None:
        found.append(("stage limit", duration(spec.stage_in_timeout)))
    pairs = [(key, clean(str(value))) for key, value in found if value is not None]
    script = spec.command if isinstance(spec.command, str) else spec.line()
    first, *others = [clean(line) for line in script.splitlines()] or [""]
    return [*pairs, ("command", first), *(("", line) for line in others)]


def _raised(row: TaskRow, data: dict[str, Any]) -> list[tuple[str, str]]:
    """What earlier tries changed for the later ones, and what may still change."""
    spec, raised = row.spec, row.raised
    found = []
    for what, factor in (("memory", spec.retry_memory), ("time", spec.retry_timeout)):
        if factor is not None:
            found.append(("", f"{factor:g} times the {what} after a try that had too little"))
    if raised.memory is not None:
        found.append(("raised", f"memory to {size(raised.memory)}, after it ran out of memory"))
    if raised.run_timeout is not None:
        found.append(("raised", f"limit to {duration(raised.run_timeout)}, after it had timed out"))
    if raised.stage_in_timeout is not None:
        found.append(("raised", f"stage limit to {duration(raised.stage_in_timeout)}, after it had timed out"))
    if data["avoids"]:
        found.append(
            (
                "avoids",
                f"{', '.join(data['avoids'])}, where it could not be run, as long as there is another worker for it",
            )
        )
    if raised.image is not None:
        found.append(("image", raised.image))
    return found


def _context(engine: Engine, task: TaskId) -> dict[str, Any]:
    sql = "select data from context join task on task.context = context.id where task.id = ?"
    for (text,) in engine._reader().execute(sql, (task,)).fetchall():
        return dict(json.loads(str(text)))
    return {}


# --- output ---------------------------------------------------------------------------------------------------------------------


def output(engine: Engine, args: SimpleNamespace) -> Text | int:
    """What a task wrote."""
    task = one_of(engine, args)
    screen: Screen = args.screen
    streams = (
        (logs.OUT,)
        if args.stdout and not args.stderr
        else (logs.ERR,)
        if args.stderr and not args.stdout
        else (logs.OUT, logs.ERR)
    )
    # Alone, stderr is the result; beside stdout it goes where it came from.
    places = {stream: 1 if len(streams) == 1 else 1 + stream for stream in streams}
    attempt = _attempt_of(task, args.execution)
    if args.follow and args.execution is None:
        return _follow(engine, task, screen, places)
    if attempt is None:
        return Text("", {"task": int(task.id), "execution": None, "stdout": "", "stderr": ""}, [task.why()])
    if attempt.ended_ms is None and facts.driver_of(engine) is not None:
        _fetch(engine, task)
    cuts = {stream: logs.get(engine._reader(), attempt.id, stream) for stream in streams}
    notes = [
        f"{('stdout', 'stderr')[stream]} was cut at {log.size:,} bytes."
        for stream, log in cuts.items()
        if log is not None and log.cut
    ]
    if screen.as_json:
        found = {
            ("stdout", "stderr")[stream]: engine._log_bytes(attempt.id, stream).decode(errors="replace")
            for stream in streams
        }
        cut = {("stdout", "stderr")[stream]: log is not None and log.cut for stream, log in cuts.items()}
        return Text("", {"task": int(task.id), "execution": int(attempt.id), **found, "cut": cut})
    for stream, fd in places.items():
        offset = 0
        while piece := engine._log_bytes(attempt.id, stream, offset, limit=PIECE_BYTES):
            screen.piece(fd, piece)
            offset += len(piece)
    screen.pieces_end()
    for note in notes:
        screen.say(note)
    return 0


def _attempt_of(task: Task, wanted: int | None) -> ExecutionRow | None:
    attempts = task.executions
    if wanted is None:
        return attempts[-1] if attempts else None
    for one in attempts:
        if one.id == wanted:
            return one
    known = ", ".join(str(one.id) for one in attempts) or "none yet"
    raise BadInput(f"execution {wanted} is not one of task {task.id} (its executions: {known}).")


def _fetch(engine: Engine, task: Task) -> None:
    """Ask for what a running task has written so far, and give it a moment to come."""
    task._ask_to_follow()
    deadline = time.monotonic() + FRESH_S
    size = -1
    while time.monotonic() < deadline and task.state.is_live:
        seen = engine._changes.count
        found = len(task.output_bytes(logs.OUT)) + len(task.output_bytes(logs.ERR))
        if found == size and found:
            return
        size = found
        engine._changes.wait(seen, 0.3)


def _follow(engine: Engine, task: Task, screen: Screen, places: dict[int, int]) -> int:
    if not task.state.is_settled:
        for note in facts.nobody_drives(engine):
            screen.say(note)
    try:
        for stream, piece in task.pieces():
            if stream not in places:
                continue
            if screen.as_json:
                screen.json({"stream": ("stdout", "stderr")[stream], "text": piece.decode(errors="replace")})
            else:
                screen.piece(places[stream], piece)
    finally:
        screen.pieces_end()
    return 0


# --- why ------------------------------------------------------------------------------------------------------------------------


def why(engine: Engine, args: SimpleNamespace) -> Text:
    """A sentence for each."""
    found = [(task, task.why()) for task in some_of(engine, args)]
    return Text(
        "\n".join(sentence for _, sentence in found),
        [{"id": int(task.id), "status": task.status, "why": sentence} for task, sentence in found],
        folds=True,
    )
