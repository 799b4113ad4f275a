"""What was seen and put aside of what needs a person, what was written down for one; and the rows that notices are made from.

Every function runs inside a transaction of the caller's (or on a reader), and none reads more tasks that have ended than it
says. What the rows mean is `noticing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from scitq.states import Outcome, Stage, TaskState
from scitq.store import listing, query
from scitq.store.listing import LISTED
from scitq.task import TaskId, describe

# Among so many of the newest failed tasks equal ones are looked for.
FAILED_SAMPLE = 200
# Words that were written down and put aside are kept for so long, should somebody want to see all.
KEPT_MS = 30 * 86_400_000


class Mark(NamedTuple):
    """How a notice was when it was last seen, and whether it was put aside then."""

    mark: str
    is_dismissed: bool


class Posted(NamedTuple):
    """A notice that somebody wrote down, since nothing else in the file tells of it."""

    key: str
    at_ms: int
    kind: str
    text: str
    about: Mapping[str, Any]
    actions: Sequence[tuple[str, tuple[str, ...]]]


class Failed(NamedTuple):
    """A task that failed, by its last execution. Times are milliseconds since 1970."""

    id: TaskId
    label: str
    batch: str
    execution: int | None
    ended_ms: int | None
    cause: str
    stage: Stage | None
    detail: str


def marks(db: apsw.Connection) -> dict[str, Mark]:
    """What was seen, by key."""
    rows = query.rows(db, "select key, mark, dismissed from notice where seen is not null or dismissed is not null")
    return {key: Mark(mark, dismissed is not None) for key, mark, dismissed in rows}


def see(db: apsw.Connection, now_ms: int, seen: Mapping[str, str], present: Iterable[str]) -> None:
    """Notices were shown, as their marks say. What was seen of others that are not there any more is forgotten."""
    db.executemany(
        """insert into notice(key, at, mark, seen) values (?1, ?3, ?2, ?3) on conflict(key) do update
        set dismissed = iif(mark = excluded.mark, dismissed, null), mark = excluded.mark, seen = excluded.seen""",
        [(key, mark, now_ms) for key, mark in seen.items()],
    )
    db.execute(f"delete from notice where data is null and key not in {LISTED}", (json.dumps([*present]),))
    db.execute("delete from notice where data is not null and dismissed < ?", (now_ms - KEPT_MS,))


def dismiss(db: apsw.Connection, now_ms: int, key: str, mark: str) -> None:
    """Put a notice aside until it is another one."""
    db.execute(
        """insert into notice(key, at, mark, seen, dismissed) values (?1, ?3, ?2, ?3, ?3) on conflict(key) do update
        set mark = excluded.mark, seen = excluded.seen, dismissed = excluded.dismissed""",
        (key, mark, now_ms),
    )


def post(
    db: apsw.Connection,
    now_ms: int,
    key: str,
    kind: str,
    text: str,
    *,
    about: Mapping[str, Any] | None = None,
    actions: Sequence[tuple[str, tuple[str, ...]]] = (),
) -> None:
    """Write down what only who was there can know. It stays until it is taken back, or put aside; said again, it is new again.

    Never a secret: this is in the file.
    """
    data = query.compact({"kind": kind, "text": text, "about": dict(about or {}), "actions": list(actions)})
    db.execute(
        """insert into notice(key, at, data) values (?1, ?2, ?3) on conflict(key) do update
        set at = max(at + 1, excluded.at), data = excluded.data, seen = null, dismissed = null""",
        (key, now_ms, data),
    )


def take_back(db: apsw.Connection, key: str) -> bool:
    """What was written down under a key holds no more; whether there was something."""
    return bool(query.rows(db, "delete from notice where key = ? and data is not null returning 1", (key,)))


def posted(db: apsw.Connection) -> list[Posted]:
    """What was written down, newest first."""
    found = []
    for key, at, text in query.rows(
        db, "select key, at, data from notice where data is not null order by at desc, key"
    ):
        data = json.loads(text)
        actions = [(str(label), tuple(map(str, words))) for label, words in data.get("actions", ())]
        found.append(Posted(key, at, str(data.get("kind")), str(data.get("text")), data.get("about") or {}, actions))
    return found


def failed(db: apsw.Connection) -> list[Failed]:
    """The newest of the tasks that failed, newest first; not more than FAILED_SAMPLE."""
    with db:  # one view of the file
        tasks = listing.select(db, states=[TaskState.FAILED], newest_first=True, limit=FAILED_SAMPLE)
        rows = query.rows(
            db,
            f"""select task, id, ended, outcome, stage, exit_code, signal, detail from execution
            where id in (select max(id) from execution where task in {LISTED} group by task)""",
            (json.dumps([int(task.id) for task in tasks]),),
        )
    last = {task: values for task, *values in rows}
    found = []
    for task in tasks:
        id, ended, outcome, stage, code, signal, detail = last.get(task.id, (None,) * 7)
        part = None if stage is None else Stage(stage)
        cause = describe(None if outcome is None else Outcome(outcome), part, code, signal) or "failed"
        found.append(Failed(task.id, task.label, task.batch, id, ended, cause, part, detail or task.reason or ""))
    return found


def large_files(db: apsw.Connection, words: str) -> list[tuple[str, TaskId, int, str]]:
    """Of executions that are live: what was noted with these words, as (worker, task, when, note); the newest of each worker."""
    rows = query.rows(
        db,
        """select worker.name, execution.task, note.at, note.text
        from execution indexed by execution_worker join note on note.execution = execution.id
        join worker on worker.id = execution.worker
        where ended is null and execution.worker is not null and instr(note.text, ?) order by note.id desc limit 200""",
        (words,),
    )
    newest: dict[str, tuple[str, TaskId, int, str]] = {}
    for worker, task, at, text in rows:
        newest.setdefault(worker, (worker, TaskId(task), at, text))
    return list(newest.values())


def last_problems(db: apsw.Connection) -> dict[int, str]:
    """The class of the error of the last job of each worker that failed, by the worker's number."""
    rows = query.rows(
        db,
        """select id, (select data ->> '$.error' from job where job.worker = worker.id order by job.id desc limit 1)
        from worker where address is not null""",
    )
    return {worker: error for worker, error in rows if error}


def halted(db: apsw.Connection) -> list[tuple[str, int, dict[TaskState, int]]]:
    """The batches that do not go on, how, and how many tasks each has in each state."""
    found: dict[tuple[str, int], dict[TaskState, int]] = {}
    for name, halt, state, count in query.rows(
        db,
        """select name, halt, state, n from batch join counter on counter.batch = batch.id
        where halt <> 0 order by batch.id""",
    ):
        found.setdefault((name, halt), {})[TaskState(state)] = count
    return [(name, halt, counts) for (name, halt), counts in found.items()]
