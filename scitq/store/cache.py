"""The cache as rows: which success is the answer to which key, what was asked for which task, and what came of it.

Every function runs inside a transaction of the caller's (or on a reader). A success without a key has not been looked at yet;
an empty key is one that is no answer to anything. What a key is made of: `scitq.digest`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from scitq.digest import File, Fingerprint, Source
from scitq.events import EventKind
from scitq.states import Halt, Outcome, Probe, Stage, TaskState
from scitq.store import journal, listing, logs, manifests, query
from scitq.store.listing import LISTED
from scitq.store.manifests import Left, Manifest
from scitq.store.query import compact
from scitq.task import ExecutionId, PendingTask, Spec, TaskId

_SUCCEEDED, _PENDING = int(Outcome.SUCCEEDED), int(TaskState.PENDING)
_GOING_ON = f"select id from batch where halt = {int(Halt.GO)}"
_IN_DOUBT = f"""task indexed by task_probe where state = {_PENDING} and probe >= {int(Probe.WANTED)}
  and probe = {int(Probe.WANTED)}"""
# What a driver has to see to, as conditions of `executions.glance`.
HAS_WANTED = f"exists(select 1 from ({_GOING_ON}) going where exists(select 1 from {_IN_DOUBT} and batch = going.id))"
HAS_UNKEYED = f"""exists(select 1 from execution indexed by execution_unkeyed
  where key is null and outcome = {_SUCCEEDED})"""
_IS_OVER = f"(execution.id is null or (ended is not null and (outcome <> {_SUCCEEDED} or execution.key is not null)))"
_TWINS = "from probe indexed by probe_twin left join execution on execution.id = twin where twin is not null"
HAS_WAITERS = "exists(select 1 from probe indexed by probe_twin where twin is not null)"
HAS_TWINS = f"exists(select 1 {_TWINS} and {_IS_OVER})"


class Asked(NamedTuple):
    """A task that waits for the cache's answer."""

    id: TaskId
    spec_text: str
    spec: Spec
    image: str | None


class Ended(NamedTuple):
    """A success that has no key yet."""

    execution: ExecutionId
    task: TaskId
    spec: Spec
    image: str | None
    why: str | None
    assigned_ms: int
    ended_ms: int
    probed_ms: int | None
    probe_key: str | None


@dataclass(frozen=True)
class Entry:
    """A result that there is: an execution's, or what was kept of one whose task was deleted (`kept` is its row then)."""

    key: str
    execution: ExecutionId
    task: TaskId
    label: str
    ended_ms: int
    run_s: float | None
    manifest: Manifest | None
    kept: int | None = None
    is_gone: bool = False
    """Left something once of which no list was made."""


# --- asking ---------------------------------------------------------------------------------------------------------------------


def wanted(db: apsw.Connection, limit: int) -> list[Asked]:
    """The tasks that could be placed, but for the cache's answer."""
    found: list[Asked] = []
    for (batch,) in query.rows(db, _GOING_ON):
        rows = query.rows(
            db,
            f"select id, spec, raised ->> '$.image' from {_IN_DOUBT} and batch = ? order by id limit ?",
            (batch, limit - len(found)),
        )
        found += [_asked(TaskId(id), *row) for id, *row in rows]
        if len(found) >= limit:
            break
    return found


def _asked(id: TaskId, text: str, pinned: str | None) -> Asked:
    spec = listing.spec_of(text)
    return Asked(id, text, spec, (pinned or spec.container) if spec.container is not None else None)


def is_asked(db: apsw.Connection, asked: Asked) -> bool:
    """Whether a task still waits for an answer to the same question."""
    row = query.row(db, "select spec from task where id = ? and state = ? and probe = ?",
                    (asked.id, _PENDING, int(Probe.WANTED)))  # fmt: skip
    return row is not None and row[0] == asked.spec_text


def find(db: apsw.Connection, key: str) -> list[Entry]:
    """The results of that key, the newest first."""
    rows = query.rows(
        db,
        f"""select id from execution indexed by execution_key where key > '' and key = ? and outcome = {_SUCCEEDED}
        order by id desc limit 20""",
        (key,),
    )
    found = [of_execution(db, ExecutionId(id)) for (id,) in rows]
    kept = query.rows(db, "select id from kept where key = ? order by id desc limit 20", (key,))
    return [*(entry for entry in found if entry is not None), *(_of_kept(db, id) for (id,) in kept)]


def of_execution(db: apsw.Connection, execution: ExecutionId) -> Entry | None:
    """The result of an execution; None when it is not there any more."""
    row = query.row(
        db,
        """select key, task, task.name, coalesce(execution.spec, task.spec), ended, run_s from execution
        join task on task.id = execution.task where execution.id = ? and outcome = 0""",
        (execution,),
    )
    if row is None:
        return None
    key, task, name, spec, ended, run_s = row
    label = name or listing.spec_of(spec).line()
    manifest = manifests.of_execution(db, execution)
    return Entry(key or "", execution, TaskId(task), label, ended, run_s, manifest)


def _of_kept(db: apsw.Connection, id: int) -> Entry:
    key, source, origin, label, at, run_s, address, files = query.one(
        db, "select key, source, origin, label, at, run_s, address, files from kept where id = ?", (id,)
    )
    left = [Left(*file) for file in json.loads(files or "[]")]
    manifest = None if address is None else Manifest(ExecutionId(source), manifests._named(address), left)
    return Entry(key, ExecutionId(source), TaskId(origin), label, at, run_s, manifest, id)


# Of so many successes of a recipe the one is chosen that is most like a task.
LIKE = 100


def nearest(db: apsw.Connection, asked: Asked, recipe: str, sources: Sequence[Source]) -> ExecutionId | None:
    """The success that is most like a task: of the same name; else of the same recipe, with the most like it in what it reads."""
    row = query.row(
        db,
        f"""select execution.id from task named join task on task.name = named.name and task.id <> named.id
        join execution on execution.task = task.id where named.id = ? and named.name is not null
        and outcome = {_SUCCEEDED} order by execution.id desc limit 1""",
        (asked.id,),
    )
    if row is not None:
        return ExecutionId(row[0])
    rows = query.rows(
        db,
        f"""select execution, parts from recipe join execution on execution.id = recipe.execution
        where digest = ? and task <> ? and outcome = {_SUCCEEDED} order by execution desc limit {LIKE}""",
        (recipe, asked.id),
    )
    kin = {source.address: _kin(db, source.address) for source in sources}
    wanted = [(kin[source.address], source.digest) for source in sources]

    def likeness(parts: str) -> int:
        there = [Source(*one) for what in json.loads(parts) for one in what]
        pairs = zip(wanted, there, strict=False)
        return sum((one.address in addresses) + (one.digest == digest) for (addresses, digest), one in pairs)

    found = max(rows, key=lambda row: likeness(row[1]), default=None)
    return None if found is None else ExecutionId(found[0])


def _kin(db: apsw.Connection, address: str) -> set[str]:
    """An address, and what it was in an earlier run: for what a task leaves, what the one left whose place it took."""
    found = re.match(r"task://([0-9]+)(.*)", address, re.DOTALL)
    if found is None:
        return {address}
    rows = query.rows(
        db,
        """select task from execution where id in (select near from probe where task = ?1
          union all select cached_from from execution where task = ?1)""",
        (int(found[1]),),
    )
    return {address, *(f"task://{task}{found[2]}" for (task,) in rows)}


# --- answers --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What was found out about a task: its key with what that was made of, and what there is to say."""

    key: str | None = None
    recipe: str | None = None
    data: Any = None
    near: ExecutionId | None = None
    note: str | None = None
    tried: Sequence[ExecutionId] = ()


def missed(db: apsw.Connection, now_ms: int, asked: Asked, answer: Answer) -> None:
    """There is no result for a task: it may be placed."""
    if is_asked(db, asked):
        _note(db, now_ms, asked.id, answer)
        _set(db, asked.id, Probe.MISSED)


def _note(db: apsw.Connection, now_ms: int, task: TaskId, answer: Answer) -> None:
    data = None if answer.data is None else compact(answer.data)
    db.execute(
        "insert or replace into probe(task, at, key, digest, parts, near, tried, note) values (?, ?, ?, ?, ?, ?, ?, ?)",
        (task, now_ms, answer.key, answer.recipe, data, answer.near, compact(list(answer.tried)), answer.note),
    )


def _set(db: apsw.Connection, task: TaskId, probe: Probe) -> None:
    db.execute("update task set probe = ? where id = ?", (int(probe), task))


def hit(
    db: apsw.Connection, now_ms: int, asked: Asked, answer: Answer, entry: Entry, address: str | None, side: Path
) -> ExecutionId | None:
    """A task succeeds with an earlier result, which lies at `address` (None: there are no files); returns its execution.

    None when the task does not wait for it any more.
    """
    if not is_asked(db, asked):
        return None
    (execution,) = query.one(
        db,
        f"""insert into execution(task, attempt, assigned, started, ended, outcome, stage, exit_code, key, cached_from, image)
        values (?1, 1 + (select count(*) from execution where task = ?1 and outcome is not {int(Outcome.RECALLED)}),
          ?2, ?2, ?2, {_SUCCEEDED}, {int(Stage.RUN)}, 0, ?3, ?4, (select image from execution where id = ?4)) returning id""",
        (asked.id, now_ms, entry.key, entry.execution),
    )
    if answer.data is not None:
        put_recipe(db, execution, answer.recipe or "", answer.data)
    if entry.manifest is not None:
        manifests.put(db, execution, address or entry.manifest.address, entry.manifest.files)
    _copy_logs(db, entry, execution, side)
    _note(db, now_ms, asked.id, answer)
    db.execute(
        f"""update task set state = {int(TaskState.SUCCEEDED)}, probe = {int(Probe.NONE)}, changed = ?, reason = null,
        not_before = null where id = ?""",
        (now_ms, asked.id),
    )
    return ExecutionId(execution)


def _copy_logs(db: apsw.Connection, entry: Entry, execution: ExecutionId, side: Path) -> None:
    if entry.kept is not None:
        out, err, out_size, err_size = query.one(
            db, "select out, err, out_size, err_size from kept where id = ?", (entry.kept,)
        )
        for stream, content, size in ((logs.OUT, out, out_size), (logs.ERR, err, err_size)):
            if content:
                logs.keep(db, execution, stream, content, len(content), size > len(content))
        return
    for stream in (logs.OUT, logs.ERR):
        found = logs.get(db, entry.execution, stream)
        if found is None:
            continue
        if found.content is None:  # it lies in a file: another name for it, before the row says so
            source, target = (logs.path(side, number, stream) for number in (entry.execution, execution))
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(source)
            except FileNotFoundError:
                continue  # somebody deleted it: then there is no log, as there is none of the source
            except OSError:  # a file system without such links
                target.write_bytes(source.read_bytes())
        logs.keep(db, execution, stream, found.content, found.size, found.cut)


def put_recipe(db: apsw.Connection, execution: int, recipe: str, data: Any) -> None:
    """Write down what a key is made of, beside the spec."""
    db.execute("insert or replace into recipe values (?, ?, ?)", (execution, recipe, compact(data)))


def put_fingerprints(db: apsw.Connection, found: Mapping[str, Fingerprint]) -> None:
    """Write down what there was at addresses, each version once."""
    for digest, one in found.items():
        db.execute(
            "insert or ignore into fingerprint values (?, ?)", (digest, compact([list(file) for file in one.files]))
        )


def fingerprint_of(db: apsw.Connection, digest: str) -> Fingerprint | None:
    """The files behind a digest; None when that is not known any more."""
    row = query.row(db, "select files from fingerprint where digest = ?", (digest,))
    return None if row is None else Fingerprint(tuple(File(*file) for file in json.loads(row[0])))


def data_of(db: apsw.Connection, execution: ExecutionId) -> Any:
    """What a key was made of beside the spec; None when there was no data, or nothing was recorded."""
    row = query.row(db, "select parts from recipe where execution = ?", (execution,))
    return None if row is None else json.loads(row[0])


def task_of(db: apsw.Connection, execution: ExecutionId) -> TaskId | None:
    """Whose execution it is."""
    row = query.row(db, "select task from execution where id = ?", (execution,))
    return None if row is None else TaskId(row[0])


def image_of(db: apsw.Connection, execution: ExecutionId) -> str | None:
    """The bits of the container that an execution ran in."""
    row = query.row(db, "select image from execution where id = ?", (execution,))
    return None if row is None else row[0]


class Looked(NamedTuple):
    """What the look into the cache found for a task."""

    at_ms: int
    key: str | None
    data: Any
    twin: ExecutionId | None
    near: ExecutionId | None
    note: str | None


def looked(db: apsw.Connection, task: TaskId) -> Looked | None:
    """The last look into the cache for a task."""
    row = query.row(db, "select at, key, parts, twin, near, note from probe where task = ?", (task,))
    if row is None:
        return None
    at, key, parts, twin, near, note = row
    return Looked(at, key, None if parts is None else json.loads(parts), twin, near, note)


def probe_of(db: apsw.Connection, task: TaskId) -> Probe:
    """Where a task stands with the cache."""
    row = query.row(db, "select probe from task where id = ?", (task,))
    return Probe.NONE if row is None else Probe(row[0])


def cached_from(db: apsw.Connection, execution: ExecutionId) -> ExecutionId | None:
    """The execution whose result another one took."""
    row = query.row(db, "select cached_from from execution where id = ?", (execution,))
    return None if row is None or row[0] is None else ExecutionId(row[0])


# --- two equal ones at once, and at launch ----------------------------------------------------------------------------------


def without_known(
    db: apsw.Connection, waiting: list[PendingTask]
) -> tuple[list[PendingTask] | None, list[PendingTask]]:
    """Those of the tasks to be placed for which there is nothing to be had, and those that are equal to an earlier one of them.
    None: some were turned away."""
    if not any(task.is_probed for task in waiting):
        return waiting, []
    alone, doubles, keys, is_less = [], [], set(), False
    for task in waiting:
        row = query.row(db, "select key from probe where task = ?", (task.id,)) if task.is_probed else None
        key = None if row is None else row[0]
        if key is not None and key in keys:
            doubles.append(task)
        elif key is not None and turn_away(db, task.id):
            is_less = True
        else:
            alone.append(task)
            keys.add(key)
    return (None if is_less else alone), doubles


def turn_away(db: apsw.Connection, task: TaskId) -> bool:
    """Just before a task is launched: whether there is a result for it by now (it is looked at again), or an equal one runs
    (it waits for that one)."""
    row = query.row(db, "select key, tried from probe where task = ? and key is not null", (task,))
    if row is None:
        return False
    key, tried = row
    if query.row(
        db,
        f"""select 1 from execution indexed by execution_key where key > '' and key = ? and outcome = {_SUCCEEDED}
        and id not in {LISTED} limit 1""",
        (key, tried or "[]"),
    ):
        _set(db, task, Probe.WANTED)
        return True
    twin = query.row(  # one that has succeeded runs as long as it was not looked at
        db,
        f"""select execution.id from probe join execution on execution.task = probe.task
        where probe.key = ? and probe.task <> ? and execution.assigned >= probe.at
          and (ended is null or (outcome = {_SUCCEEDED} and execution.key is null)) limit 1""",
        (key, task),
    )
    if twin is None:
        return False
    db.execute("update probe set twin = ? where task = ?", (twin[0], task))
    _set(db, task, Probe.TWIN)
    return True


def release_twins(db: apsw.Connection) -> int:
    """Those that waited for an equal one that has ended, and whose result is known, are looked at again; returns how many."""
    ended = query.rows(db, f"select distinct twin {_TWINS} and {_IS_OVER}")
    count = 0
    for (twin,) in ended:
        tasks = query.rows(db, "update probe set twin = null where twin = ? returning task", (twin,))
        db.execute(
            f"update task set probe = {int(Probe.WANTED)} where probe = {int(Probe.TWIN)} and id in {LISTED}",
            (json.dumps([task for (task,) in tasks]),),
        )
        count += len(tasks)
    return count


# --- recording ------------------------------------------------------------------------------------------------------------------


def unkeyed(db: apsw.Connection, limit: int) -> list[Ended]:
    """Successes that have not been looked at yet, the oldest first."""
    rows = query.rows(
        db,
        f"""select execution.id, execution.task, coalesce(execution.spec, task.spec), image, why, assigned, ended, probe.at, probe.key
        from execution indexed by execution_unkeyed join task on task.id = execution.task
        left join probe on probe.task = task.id
        where execution.key is null and outcome = {_SUCCEEDED} order by execution.id limit ?""",
        (limit,),
    )
    return [
        Ended(ExecutionId(id), TaskId(task), listing.spec_of(spec), image, why, assigned, ended, at, key)
        for id, task, spec, image, why, assigned, ended, at, key in rows
    ]


def record(db: apsw.Connection, execution: ExecutionId, key: str, recipe: str | None = None, data: Any = None) -> None:
    """A success is the answer to this key ('': to none)."""
    done = query.row(
        db, "update execution set key = ? where id = ? and key is null returning id", (key, execution)
    )  # fmt: skip
    if done is not None and data is not None and key:
        put_recipe(db, execution, recipe or "", data)


# --- forgetting -----------------------------------------------------------------------------------------------------------------


def drop(db: apsw.Connection, now_ms: int, entry: Entry, reason: str) -> None:
    """A result is no good any more: it is never looked at again."""
    if entry.kept is not None:
        db.execute("delete from kept where id = ?", (entry.kept,))
    else:
        db.execute("update execution set key = '' where id = ? and key > ''", (entry.execution,))
    journal.note(db, now_ms, EventKind.NOTE, task=entry.task, execution=entry.execution, cache=f"dropped: {reason}")


def entries(db: apsw.Connection, limit: int, *, before_ms: int | None = None) -> list[Entry]:
    """What there is to take, the newest first; only what ended before a moment, if that is given."""
    latest = 1 << 60 if before_ms is None else before_ms
    rows = query.rows(
        db,
        f"""select id from execution where key > '' and outcome = {_SUCCEEDED} and ended < ?
        order by id desc limit ?""",
        (latest, limit),
    )
    found = [entry for (id,) in rows if (entry := of_execution(db, ExecutionId(id))) is not None]
    kept = query.rows(db, "select id from kept where at < ? order by id desc limit ?", (latest, limit))
    found += [_of_kept(db, id) for (id,) in kept]
    return sorted(found, key=lambda entry: -entry.ended_ms)[:limit]


def of_task(db: apsw.Connection, task: TaskId) -> list[Entry]:
    """The results of one task that may be taken, those that it took itself among them."""
    rows = query.rows(
        db,
        f"select id from execution where task = ? and outcome = {_SUCCEEDED} and key > '' order by id desc",
        (task,),
    )
    return [entry for (id,) in rows if (entry := of_execution(db, ExecutionId(id))) is not None]


def unknown(db: apsw.Connection, limit: int = 100_000) -> int:
    """How many successes have not been looked at yet (counted up to a limit)."""
    (count,) = query.one(
        db,
        f"""select count(*) from (select 1 from execution indexed by execution_unkeyed
        where key is null and outcome = {_SUCCEEDED} limit ?)""",
        (limit,),
    )
    return int(count)


def uses(db: apsw.Connection, execution: ExecutionId) -> int:
    """How often a result was taken."""
    (count,) = query.one(
        db,
        "select count(*) from execution indexed by execution_cached where cached_from is not null and cached_from = ?",
        (execution,),
    )
    return int(count)


def sweep(db: apsw.Connection) -> int:
    """Forget fingerprints that nothing refers to any more; returns how many."""
    return len(
        query.rows(
            db,
            """delete from fingerprint where digest not in (
              select source.value ->> 2 from (select parts from recipe union all select parts from kept
                union all select parts from probe where parts is not null) known,
                json_each(known.parts) what, json_each(what.value) source) returning digest""",
        )
    )


def keep(db: apsw.Connection, ids: Sequence[int], side: Path) -> int:
    """Keep the results of tasks that are about to be deleted; returns how many."""
    rows = query.rows(
        db,
        f"""select execution.id, coalesce(recipe.digest, ''), coalesce(recipe.parts, '[[],[]]')
        from execution left join recipe on recipe.execution = execution.id
        where task in {LISTED} and outcome = {_SUCCEEDED} and key > '' order by execution.id""",
        (json.dumps(list(ids)),),
    )
    for id, digest, parts in rows:
        entry = of_execution(db, ExecutionId(id))
        assert entry is not None
        streams = [_log(db, side, entry.execution, stream) for stream in (logs.OUT, logs.ERR)]
        manifest = entry.manifest
        db.execute(
            """insert into kept(key, digest, parts, source, origin, label, at, run_s, address, files, out, err, out_size, err_size)
            values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                entry.key, digest, parts, id, entry.task, entry.label, entry.ended_ms, entry.run_s,
                None if manifest is None else manifests._stored(manifest.address),
                None if manifest is None else compact([list(file) for file in manifest.files]),
                streams[0][0], streams[1][0], streams[0][1], streams[1][1],
            ),
        )  # fmt: skip
    return len(rows)


# So much of a stream is kept with a result whose task is deleted.
KEPT_BYTES = 1 << 20


def _log(db: apsw.Connection, side: Path, execution: ExecutionId, stream: int) -> tuple[bytes | None, int]:
    found = logs.get(db, execution, stream)
    if found is None:
        return None, 0
    if found.content is not None:
        return found.content, found.size
    try:
        with logs.path(side, execution, stream).open("rb") as file:
            return file.read(KEPT_BYTES), found.size
    except OSError:
        return None, 0
