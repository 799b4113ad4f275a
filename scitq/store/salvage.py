"""A damaged state file's contents in a new file. The damaged one is only read: it stays as it is, with its -wal and -shm.

What can be read is read row by row from a private copy, around the damaged pages (and, where the way to them is damaged,
from the pages themselves: `pages`), and put into a fresh file of this version's schema. What then does not fit together is
made to: never so that something runs that should not, or counts as done that is not known to be. If there is not one task
to be read, the newest sound backup is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from scitq.errors import BadInput, NotAStateFile, StateFileBusy, StateFileDamaged, StateFileNewer
from scitq.events import EventKind
from scitq.states import BAD, LIVE, UNPLACED, TaskState
from scitq.store import costs, guard, logs, pages, query
from scitq.store.check import check
from scitq.store.connection import Store, connect
from scitq.store.locks import FileLock
from scitq.store.migrate import Schema
from scitq.store.snapshot import copy_into

_S = TaskState
_LIVE = ",".join(str(int(state)) for state in sorted(LIVE))
_BAD = ",".join(str(int(state)) for state in sorted(BAD))
_UNPLACED = ",".join(str(int(state)) for state in sorted(UNPLACED))
_UNMET = f"""(select count(*) from requirement join task p on p.id = parent
  where child = task.id and p.state <> {int(_S.SUCCEEDED)})"""
# Made from our own constants or from the other tables, never from the damaged file.
_DERIVED = frozenset({"meta", "task_move", "worker_move", "job_move", "counter", "lead"})
_ID_GAP = 10_000  # numbers given out in lost rows must not be given out again: workers may know them
_PATIENCE_S = 5.0
_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, UnicodeDecodeError)


@dataclass
class Salvaged:
    """What became of a damaged file."""

    target: Path
    source: str  # "rows", or the backup's name
    rows: dict[str, int] = field(default_factory=dict)  # by table
    gaps: dict[str, int] = field(default_factory=dict)  # places of a table that could not be read
    repairs: list[str] = field(default_factory=list)  # what had to be made to fit
    problems: list[str] = field(default_factory=list)  # what `check` still finds


def salvage(path: Path, target: Path, schema: Schema) -> Salvaged:
    """Make the new state file `target` of what can be read of `path`.

    Raises:
        BadInput: the target exists, or the file is open in this process.
        StateFileBusy: another process is writing it.
        StateFileDamaged: nothing can be read, and there is no sound backup.
    """
    path, target = Path(os.path.realpath(path)), Path(os.path.abspath(target))
    if os.path.lexists(target) or os.path.lexists(target.with_name(target.name + ".d")):
        raise BadInput(f"{target} (or its side folder) exists already; give another name.", path=target)
    if guard.is_live(path):
        raise BadInput(f"{path} is open in this process: close it before it is repaired.", path=path)
    if not path.is_file():
        raise NotAStateFile(f"There is no state file {path}.", path=path)
    side = path.with_name(path.name + ".d")
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        copy = _copy(path, side, folder)
        result = _from_rows(copy, side, target, schema) or _from_backup(path, side, target, schema)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _copy(path: Path, side: Path, folder: Path) -> Path:
    """The file and its WAL as they are, while no scitq writes. SQLite itself would write, even to read."""
    with contextlib.ExitStack() as stack:
        if side.is_dir():
            lock = FileLock(side / "write.lock")
            stack.callback(lock.close)
            if not lock.acquire_within(_PATIENCE_S):
                raise StateFileBusy(f"{path}: another process is writing it. Stop it first: scitq down", path=path)
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", folder / f"damaged{suffix}")
    copy = folder / "damaged"
    with copy.open("rb") as file:
        header = file.read(100)
    # SQLite reads nothing at all of a file that is shorter than it says: what was cut off is nonsense instead.
    said = int.from_bytes(header[16:18], "big") * int.from_bytes(header[28:32], "big")
    if copy.stat().st_size < said < 1 << 40:
        os.truncate(copy, said)
    return copy


# --- from rows ----------------------------------------------------------------------------------------------------------------


def _from_rows(copy: Path, side: Path, target: Path, schema: Schema) -> Salvaged | None:
    """A new file with the rows that can be read; None when there is no task among them."""
    old = apsw.Connection(str(copy))
    known: set[str] = set()
    with contextlib.suppress(*_DAMAGE):
        old.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # of the copy: pages are read from one file
    with contextlib.suppress(*_DAMAGE):
        if query.one(old, "pragma user_version")[0] > schema.version:
            raise StateFileNewer("a newer scitq wrote the damaged file; only that one can repair it.", path=target)
        known = {name for (name,) in query.rows(old, "select name from sqlite_schema where type = 'table'")}
    result = Salvaged(target, "rows")
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    try:
        Store.open(part, schema).close()
        new = connect(part, read_only=False)
        try:
            _fill(old, new, known, copy, result)
            if not result.rows.get("task"):
                return None
            copy_into(new, target)
        finally:
            new.close(True)
    finally:
        old.close(True)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{part}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(f"{part}.d", ignore_errors=True)
    _take_logs(target, side)
    return _checked(result, schema)


def _fill(old: apsw.Connection, new: apsw.Connection, known: set[str], copy: Path, result: Salvaged) -> None:
    new.execute("pragma foreign_keys=off")
    new.execute("begin immediate")
    is_older = False
    with contextlib.suppress(*_DAMAGE):  # it has not all tables, and that is no damage
        is_older = query.one(old, "pragma user_version")[0] < query.one(new, "pragma user_version")[0]
    # They would refuse a task that is born running.
    triggers = query.rows(new, "select name, sql from sqlite_schema where type = 'trigger'")
    for name, _ in triggers:
        new.execute(f'drop trigger "{name}"')
    tables = [
        name
        for (name,) in query.rows(
            new, "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'"
        )
    ]
    for table in tables:
        if table in known and table not in _DERIVED:
            _copy_table(old, new, table, result)
        elif table not in _DERIVED and not is_older:
            result.gaps[table] = 1
    with contextlib.suppress(*_DAMAGE):
        ours = query.rows(old, "select k, v from meta where k in ('id', 'key')") if "meta" in known else []
        for name, mark in ours:  # what outputs say of who wrote them, and what agents know their driver by
            new.execute("update meta set v = ? where k = ?", (mark, name))
        for (told,) in query.rows(old, "select v from meta where k = 'lineage'") if "meta" in known else []:
            new.execute("insert or replace into meta(k, v) values ('lineage', ?)", (told,))
    if result.gaps or not _is_sound(old):
        # A tree may be damaged without an error: it just leads to fewer rows.
        _copy_pages(copy, new, [table for table in tables if table not in _DERIVED], result)
    _fit(old, new, tables, result)
    for _, sql in triggers:
        new.execute(sql)
    new.execute("commit")


def _copy_table(old: apsw.Connection, new: apsw.Connection, table: str, result: Salvaged) -> None:
    there = _table(old, table)
    common = [name for name in _table(new, table) if name in there]
    if not common:
        result.gaps[table] = 1
        return
    names = ", ".join(f'"{name}"' for name in common)
    # A row that breaks a rule is a damaged one.
    put = f'insert or ignore into "{table}"({names}) values ({", ".join("?" * len(common))})'
    count = 0
    for row in (
        _readable(old, table, names, result) if _is_numbered(new, table) else _readable_keys(old, table, names, result)
    ):
        with contextlib.suppress(apsw.ConstraintError, apsw.MismatchError):
            new.execute(put, row)
            count += new.changes()
    result.rows[table] = count


def _is_sound(db: apsw.Connection) -> bool:
    try:
        return query.rows(db, "pragma quick_check(1)") == [("ok",)]
    except _DAMAGE:
        return False


def _copy_pages(copy: Path, new: apsw.Connection, tables: Sequence[str], result: Salvaged) -> None:
    """What the trees of these tables do not lead to any more, from the pages themselves."""
    wanted = {}
    for table in tables:
        if _is_numbered(new, table):
            columns = query.rows(new, f'pragma table_info("{table}")')
            number = next(place for place, row in enumerate(columns) if row[5])
            wanted[table] = pages.Columns([row[2] for row in columns], [bool(row[3]) for row in columns], number)
    if not wanted:
        return
    for table, row in pages.rows(copy, wanted):
        with contextlib.suppress(apsw.ConstraintError, apsw.MismatchError):
            new.execute(f'insert or ignore into "{table}" values ({", ".join("?" * len(row))})', row)
            result.rows[table] = result.rows.get(table, 0) + new.changes()


def _is_numbered(db: apsw.Connection, table: str) -> bool:
    return "without rowid" not in str(query.one(db, "select sql from sqlite_schema where name = ?", (table,))[0])


def _table(db: apsw.Connection, table: str) -> list[str]:
    try:
        return [str(row[1]) for row in query.rows(db, f'pragma table_info("{table}")')]
    except _DAMAGE:
        return []


def _readable(db: apsw.Connection, table: str, names: str, result: Salvaged) -> Iterator[tuple[Any, ...]]:
    """The rows of a table by number; where the file is damaged, on from the next number that can be read."""
    select = f'select rowid, {names} from "{table}" where rowid > ? and rowid <= ? order by rowid'
    last, end, failures = 0, _highest(db, table), 0
    while last < end:
        try:
            for number, *row in db.execute(select, (last, end)):
                if number > last:  # numbers on a damaged page may go backwards: not round in a circle with them
                    last, failures = number, 0
                yield tuple(row)
            return
        except _DAMAGE:
            result.gaps[table] = result.gaps.get(table, 0) + (not failures)
            failures += 1
            # A page holds some hundred rows at most: they are passed one by one. More are missing: ever faster, for the
            # highest number may be nonsense too.
            last += 1 << failures // 500


def _highest(db: apsw.Connection, table: str) -> int:
    """A number that no row exceeds."""
    for sql in (f'select max(rowid) from "{table}"', f"select seq from sqlite_sequence where name = '{table}'"):
        with contextlib.suppress(*_DAMAGE, apsw.SQLError):
            if found := [row[0] for row in query.rows(db, sql)]:
                return int(found[0] or 0)
    # Numbers are given out in order, and the smallest row takes so many bytes.
    return int(query.one(db, "pragma page_count")[0] * query.one(db, "pragma page_size")[0] // 16)


def _readable_keys(db: apsw.Connection, table: str, names: str, result: Salvaged) -> Iterator[tuple[Any, ...]]:
    """The rows of a table without numbers: from the front to the damage, and from the back to it."""
    keys = ", ".join(str(row[1]) for row in query.rows(db, f'pragma table_info("{table}")') if row[5])
    backwards = ", ".join(f"{key} desc" for key in keys.split(", "))
    for order in (keys, backwards):
        try:
            for row in db.execute(f'select {names} from "{table}" order by {order}'):
                yield tuple(row)
            return
        except _DAMAGE:
            result.gaps[table] = result.gaps.get(table, 0) + 1


# --- making it fit ------------------------------------------------------------------------------------------------------------


def _fit(old: apsw.Connection, new: apsw.Connection, tables: Sequence[str], result: Salvaged) -> None:
    """Make what was read agree with itself, on the careful side."""
    now = time.time_ns() // 1_000_000

    def repair(sentence: str, sql: str, values: tuple[Any, ...] = ()) -> None:
        new.execute(sql, values).fetchall()
        if new.changes():
            result.repairs.append(sentence.format(n=new.changes()))

    repair(
        "{n} batches got a new name, as theirs was lost",
        "insert into batch(id, name) select distinct batch, 'recovered ' || batch from task where batch not in (select id from batch)",
    )
    # Whether what a task requires has succeeded is not known: it must not run before a person has looked.
    repair(
        "{n} tasks that require a lost task are paused",
        f"""update task set state = {int(_S.PAUSED)}, execution = null, reason = 'a task that it requires was lost with the damaged file'
        where state in ({_UNPLACED}) and id in (select child from requirement where parent not in (select id from task))""",
    )
    if result.gaps.get("requirement") or (not result.rows.get("requirement") and _may_require(new)):
        repair(
            "{n} waiting tasks are paused: what they require was lost",
            f"""update task set state = {int(_S.PAUSED)}, reason = 'what it requires was lost with the damaged file'
            where state in ({int(_S.WAITING)}, {int(_S.BLOCKED)})
            and unmet <> {_UNMET}""",
        )
    for table in tables:
        _drop_dangling(new, table, repair)
    repair(
        "{n} executions are lost: their task does not run them",
        f"""update execution set ended = ?, outcome = 6, stage = null, detail = 'lost with the damaged file' where ended is null
        and not exists(select 1 from task where task.id = execution.task and task.execution = execution.id and state in ({_LIVE}))""",
        (now,),
    )
    repair(
        "{n} tasks are queued again: the execution that ran them was lost",
        f"""update task set state = {int(_S.PENDING)}, execution = null, changed = ? where state in ({_LIVE})
        and not exists(select 1 from execution where execution.id = task.execution and task = task.id and ended is null)""",
        (now,),
    )
    repair(
        "{n} tasks have succeeded, but how was lost",
        f"""insert into execution(task, attempt, assigned, started, ended, outcome, stage, detail, key)
        select id, 1 + (select count(*) from execution where task = task.id), changed, changed, changed, 0, 1,
          'its record was lost with the damaged file', '' from task where state = {int(_S.SUCCEEDED)}
        and (select outcome from execution where execution.task = task.id order by id desc limit 1) is not 0""",
    )
    new.execute(f"update task set unmet = {_UNMET} where state in ({_UNPLACED})")
    blocking = (
        f"exists(select 1 from requirement join task p on p.id = parent where child = task.id and p.state in ({_BAD}))"
    )
    for state, condition in (
        (_S.PENDING, f"state = {int(_S.WAITING)} and unmet = 0"),
        (_S.WAITING, f"state = {int(_S.PENDING)} and unmet > 0"),
        (_S.WAITING, f"state = {int(_S.BLOCKED)} and unmet > 0 and not {blocking}"),
        (_S.PENDING, f"state = {int(_S.BLOCKED)} and unmet = 0"),
    ):
        repair(f"{{n}} tasks are {state.word} now", f"update task set state = {int(state)} where {condition}")
    while True:  # blocked tasks block those that require them
        new.execute(
            f"update task set state = {int(_S.BLOCKED)} where state = {int(_S.WAITING)} and {blocking}"
        ).fetchall()
        if not new.changes():
            break
        result.repairs.append(f"{new.changes()} tasks are blocked now")
    if mended := costs.mend(new):
        result.repairs.append(f"{mended} sums of what machines cost were made anew")
    _fit_journal(new, now, result)
    _fit_numbers(old, new, result)
    new.execute("delete from counter")
    new.execute("insert into counter(batch, state, n) select batch, state, count(*) from task group by batch, state")


def _may_require(db: apsw.Connection) -> bool:
    return bool(query.rows(db, "select 1 from task where unmet > 0 limit 1"))


def _drop_dangling(db: apsw.Connection, table: str, repair: Any) -> None:
    """Rows that point to nothing: the pointer goes where the column allows it, else the row."""
    columns = {row[1]: bool(row[3]) for row in query.rows(db, f'pragma table_info("{table}")')}
    for _, _, parent, column, to, *_ in query.rows(db, f'pragma foreign_key_list("{table}")'):
        where = f'"{column}" is not null and "{column}" not in (select "{to or "id"}" from "{parent}")'
        if columns[column] or table == "job":  # a job for nobody is another job
            repair(
                f"{{n}} rows of {table} are dropped: their {parent} was lost", f'delete from "{table}" where {where}'
            )
        else:
            repair(
                f"{{n}} rows of {table} forget their {parent}", f'update "{table}" set "{column}" = null where {where}'
            )
    if table == "log":
        repair(
            "{n} logs are dropped: their execution was lost",
            "delete from log where id / 2 not in (select id from execution)",
        )


def _fit_journal(db: apsw.Connection, now: int, result: Salvaged) -> None:
    """The journal says of each task what state it is in, and of each second success that it was asked for."""
    db.execute(
        """insert into journal(at, kind, task, src, dst, data) select ?, 0, task.id, j.dst, task.state, '{"repair":true}' from task
        join (select task, dst, max(id) from journal where kind = 0 group by task) j on j.task = task.id where j.dst <> task.state""",
        (now,),
    )
    for task, missing in query.rows(
        db,
        f"""select execution.task, count(*) - 1 - (select count(*) from journal where kind = {int(EventKind.RELAUNCHED)}
          and journal.task = execution.task) as missing
        from execution where outcome = 0 group by execution.task having missing > 0""",
    ):
        for _ in range(missing):
            db.execute(
                "insert into journal(at, kind, task, data) values (?, ?, ?, '{\"repair\":true}')",
                (now, int(EventKind.RELAUNCHED), task),
            )
    db.execute(
        "insert into journal(at, kind, data) values (?, ?, json_object('repaired', json(?)))",
        (now, int(EventKind.NOTE), json.dumps(result.repairs)),
    )


def _fit_numbers(old: apsw.Connection, new: apsw.Connection, result: Salvaged) -> None:
    """No number is given out twice, and no driver of before may still write to workers."""
    for table, last in query.rows(new, "select name, seq from sqlite_sequence"):
        found = [last]
        with contextlib.suppress(*_DAMAGE, apsw.SQLError):
            found += [row[0] for row in query.rows(old, "select seq from sqlite_sequence where name = ?", (table,))]
        gap = _ID_GAP if result.gaps else 0
        new.execute("update sqlite_sequence set seq = ? where name = ?", (max(found) + gap, table))
    epochs = [0]
    with contextlib.suppress(*_DAMAGE, apsw.SQLError):
        epochs += [row[0] for row in query.rows(old, "select epoch from lead")]
    with contextlib.suppress(*_DAMAGE, apsw.SQLError):
        found_in = f"select max(data ->> '$.epoch') from journal where kind = {int(EventKind.DRIVER)}"
        epochs += [row[0] or 0 for row in query.rows(new, found_in)]
    # Without any trace of it: far above what can have been.
    new.execute("update lead set epoch = ?", (max(epochs) + 1 if max(epochs) else int(time.time()),))


# --- the side folder, and backups ---------------------------------------------------------------------------------------------


def _take_logs(target: Path, side: Path) -> None:
    """The logs that are files, linked (or copied) into the new side folder."""
    db = connect(target, read_only=True)
    try:
        ids = [id for (id,) in query.rows(db, "select id from log where content is null")]
    finally:
        db.close(True)
    fresh = target.with_name(target.name + ".d")
    fresh.mkdir(mode=0o700, exist_ok=True)
    if ids:
        (fresh / "logs").mkdir(mode=0o700, exist_ok=True)
    for id in ids:
        source, there = logs.path(side, id // 2, id % 2), logs.path(fresh, id // 2, id % 2)
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            try:
                os.link(source, there)
            except FileNotFoundError:
                raise
            except OSError:  # another disk, or one without links
                shutil.copyfile(source, there)


def _from_backup(path: Path, side: Path, target: Path, schema: Schema) -> Salvaged:
    folder = side / "backups"
    for copy in sorted(folder.glob("*.scitq"), key=lambda found: found.stat().st_mtime, reverse=True):
        try:
            db = connect(copy, read_only=True)
            try:
                db.pragma("query_only", False)  # VACUUM INTO only reads, but is refused
                is_sound = query.rows(db, "pragma integrity_check(1)") == [("ok",)]
                if is_sound and query.one(db, "pragma application_id")[0] == schema.application_id:
                    copy_into(db, target)
                    break
            finally:
                db.close(True)
        except apsw.Error:
            continue
    else:
        raise StateFileDamaged(
            f"nothing can be read of {path}, and there is no sound backup in {folder}. The file was left as it is.",
            path=path,
        )
    with Store.open(target, schema) as store:  # far above what can have been since
        store.write(lambda db: db.execute("update lead set epoch = max(epoch, ?)", (int(time.time()),)))
    _take_logs(target, side)
    return _checked(Salvaged(target, copy.name), schema)


def _checked(result: Salvaged, schema: Schema) -> Salvaged:
    with Store.open(result.target, schema) as store:
        result.problems = check(store.reader(), store.side)
    return result
