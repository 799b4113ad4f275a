"""What executions left and where, what their workers had to say of them, and what a task's output means to another task.

Every function runs inside a transaction of the caller's, or on a reader. Names that are not UTF-8 have surrogates in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from scitq.events import EventKind
from scitq.states import Outcome
from scitq.store import journal, query
from scitq.task import ExecutionId, TaskId


class Left(NamedTuple):
    """One file that an execution left: its name below the output folder, its size, its MD5 where it is known."""

    name: str
    size: int
    md5: str | None


class Manifest(NamedTuple):
    """What an execution left, and where: an address, or an absolute path of the submitting machine."""

    execution: ExecutionId
    address: str
    files: list[Left]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.files)


def file_id(db: apsw.Connection) -> str:
    """What tells this state file from others, in what its tasks leave."""
    return str(query.one(db, "select v from meta where k = 'id'")[0])


def put(db: apsw.Connection, execution: ExecutionId, address: str, files: Sequence[Sequence[Any]]) -> None:
    """Write down what an execution left, as its worker told it.

    Raises:
        ValueError, TypeError, IndexError: it makes no sense.
    """
    rows = [[str(name), int(size), None if md5 is None else str(md5)] for name, size, md5 in files]
    db.execute(
        "insert or replace into manifest select ?1, ?2, ?3 where exists(select 1 from execution where id = ?1)",
        (execution, _stored(str(address)), query.compact(rows)),
    )


def of_execution(db: apsw.Connection, execution: ExecutionId) -> Manifest | None:
    """What an execution left; None when it left nothing, or has not said so."""
    row = query.row(db, "select address, files from manifest where execution = ?", (execution,))
    if row is None:
        return None
    return Manifest(execution, _named(row[0]), [Left(*file) for file in json.loads(row[1])])


def of_task(db: apsw.Connection, task: TaskId) -> Manifest | None:
    """What the newest success of a task left."""
    last = _last_success(db, task)
    return None if last is None else of_execution(db, last)


def address(db: apsw.Connection, task: TaskId) -> str | None:
    """Where the newest success of a task put its output; None when it left nothing, or there is none."""
    last = _last_success(db, task)
    row = None if last is None else query.row(db, "select address from manifest where execution = ?", (last,))
    return None if row is None else _named(row[0])


def owner_of(db: apsw.Connection, task: TaskId) -> str:
    """On whose behalf a task's output lies at its address: its own; or, when it took what another had left at that very place,
    that one's."""
    found = task
    for _ in range(100):
        row = query.row(
            db,
            """select source.task from execution join manifest on manifest.execution = execution.id
            join execution source on source.id = execution.cached_from
            join manifest there on there.execution = source.id and there.address = manifest.address
            where execution.task = ? order by execution.id desc limit 1""",
            (found,),
        )
        if row is None:
            break
        found = TaskId(row[0])
    return f"{file_id(db)}:{found}"


def success_ended_ms(db: apsw.Connection, task: TaskId) -> int | None:
    """When the newest success of a task ended; None without one."""
    last = _last_success(db, task)
    return None if last is None else int(query.one(db, "select ended from execution where id = ?", (last,))[0])


def source(db: apsw.Connection, task: TaskId, folder: str) -> str | None:
    """Where what a task left is, for those who use it: an address; None when it left nothing. `folder` is its place in the
    side folder, for executions of files that had no manifests yet, and for tasks that were deleted."""
    last = _last_success(db, task)
    if last is None:
        return folder
    row = query.row(db, "select address, files = '[]' from manifest where execution = ?", (last,))
    if row is not None:
        return None if row[1] else _named(row[0])
    earlier = query.row(
        db, "select 1 from manifest join execution on execution.id = manifest.execution where task = ? limit 1", (task,)
    )
    # It left something once: what lies there is not of this time.
    return None if earlier is not None else folder


def bytes_of(db: apsw.Connection, tasks: Sequence[int]) -> int:
    """How much the newest successes of some tasks left."""
    row = query.one(
        db,
        f"""select coalesce(sum(value ->> 1), 0) from manifest, json_each(manifest.files) where execution in (
          select max(id) from execution where task in (select value from json_each(?)) and outcome = {int(Outcome.SUCCEEDED)}
          group by task)""",
        (json.dumps([int(task) for task in tasks]),),
    )
    return int(row[0])


def made_on(db: apsw.Connection, task: TaskId, worker: int) -> ExecutionId | None:
    """The newest success of a task, if it was on that worker."""
    last = _last_success(db, task)
    row = (
        None if last is None else query.row(db, "select id from execution where id = ? and worker = ?", (last, worker))
    )
    return None if row is None else ExecutionId(row[0])


def making(db: apsw.Connection, task: TaskId, worker: int) -> ExecutionId | None:
    """The execution of a task that has not ended, if that worker has it."""
    row = query.row(db, "select id from execution where task = ? and worker = ? and ended is null", (task, worker))
    return None if row is None else ExecutionId(row[0])


def _last_success(db: apsw.Connection, task: TaskId) -> ExecutionId | None:
    row = query.row(
        db,
        f"select id from execution where task = ? and outcome = {int(Outcome.SUCCEEDED)} order by id desc limit 1",
        (task,),
    )
    return None if row is None else ExecutionId(row[0])


def note(db: apsw.Connection, at_ms: int, execution: ExecutionId, text: str) -> None:
    """Write down what a worker had to say of an execution."""
    row = query.row(db, "select task from execution where id = ?", (execution,))
    if row is None:
        return
    text = text.encode(errors="backslashreplace").decode()
    db.execute("insert into note(execution, at, text) values (?, ?, ?)", (execution, at_ms, text))
    journal.note(db, at_ms, EventKind.NOTE, task=row[0], execution=execution, text=text)


def notes(db: apsw.Connection, execution: ExecutionId) -> list[str]:
    """What its worker had to say of an execution, in order."""
    return [text for (text,) in query.rows(db, "select text from note where execution = ? order by id", (execution,))]


def _stored(text: str) -> str:
    """SQLite's text is UTF-8: bytes that are none stand in a JSON text, which begins with a quote as no address does."""
    return text if text.isascii() or _is_utf8(text) else json.dumps(text)


def _named(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
