"""Keeping the file small and safe: `purge` on request; backups and vacuum by themselves when nothing else is to be done.

Nothing is deleted that anybody may still need: only ended tasks go, with their history and logs, and only when no task that
has not ended requires them. What tasks delivered (`outputs/`) is never touched.

When the disk is full, SQLite takes back the transaction that did not fit, the driver says so, hangs up and looks again every
ten seconds; agents keep what was not acknowledged, and readers go on. Deleting rows needs space before it gives any: make room
elsewhere first, then `purge`. No backup is begun that would leave less room than two more of its size.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from scitq.errors import BadInput, ScitqError
from scitq.events import EventKind
from scitq.states import FINAL, TaskState
from scitq.store import cache, journal, logs, query, sweeping
from scitq.store.snapshot import backup

if TYPE_CHECKING:
    from scitq.store.connection import Store

log = logging.getLogger("scitq.store")

DAY_S = 86_400.0
SLICE = 5_000  # rows of one transaction: other writers get their turn between two
BACKUPS = 7  # daily ones that are kept
LOOK_S = 600.0  # how often `when_idle` looks at all
PAUSE_S = DAY_S / 4  # and after something went wrong
VACUUM_PAGES = 512  # of one transaction
VACUUM_FROM = 2_000  # free pages: fewer are left for what comes next

_FINAL = ",".join(str(int(state)) for state in sorted(FINAL))
_KEPT = ",".join(str(int(state)) for state in sorted(FINAL - {TaskState.FAILED}))
_SUCCEEDED: Final = int(TaskState.SUCCEEDED)
_LISTED = "(select value from json_each(?))"


@dataclass(frozen=True)
class Purged:
    """What a purge deletes, or would delete: rows, and the log files in the side folder with their bytes."""

    tasks: int = 0
    executions: int = 0
    journal: int = 0
    logs: int = 0
    log_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.tasks or self.journal)


# --- on request ---------------------------------------------------------------------------------------------------------------


def purge(
    store: Store,
    older_than_days: float,
    *,
    keep_failed: bool = False,
    keep_cache: bool = False,
    dry_run: bool = False,
    now_s: float | None = None,
) -> Purged:
    """Delete ended tasks whose last change is older, with their executions, logs and journal entries; returns how much.

    Kept are, besides what has not ended: what a task that has not ended requires; what did not succeed and is required by a
    task that is kept; with `keep_failed`, failed tasks. With `keep_cache` results may still be taken. The journal's
    entries about tasks that are kept are kept with them.

    Raises:
        BadInput: not a number of days.
    """
    if not 0 <= older_than_days < 1_000_000:
        raise BadInput(f"{older_than_days:g} is no number of days: 0 or more.")
    before = int(((time.time() if now_s is None else now_s) - older_than_days * DAY_S) * 1000)
    chosen = _Chosen(before, _KEPT if keep_failed else _FINAL)
    needed = _needed(store.reader(), chosen)
    total = Purged()
    last = 0
    while ids := [id for (id,) in query.rows(store.reader(), chosen.page, (last, SLICE))]:
        last = ids[-1]
        wanted = json.dumps([id for id in ids if id not in needed])
        if dry_run:
            total = _sum(total, _count(store.reader(), wanted))
        else:
            side = store.side if keep_cache else None
            gone = store.write(functools.partial(_delete_slice, chosen, wanted, side))
            total = _sum(total, replace(gone[0], log_bytes=_unlink(store.side, gone[1])))
    total = replace(total, journal=_purge_journal(store, chosen, needed, dry_run=dry_run))
    if total and not dry_run:
        store.write(cache.sweep)
        now_ms = time.time_ns() // 1_000_000
        data = {"purged": total.tasks, "before": before}
        store.write(lambda db: journal.note(db, now_ms, EventKind.NOTE, **data))
    return total


class _Chosen:
    """Which tasks a purge is about, before it is asked who needs them."""

    def __init__(self, before_ms: int, states: str) -> None:
        self.before_ms = before_ms
        self._states = states
        self.where = self.of("task")
        self.page = f"select id from task where {self.where} and id > ? order by id limit ?"

    def of(self, table: str) -> str:
        """The condition on a task under another name."""
        return f"({table}.state in ({self._states}) and {table}.changed < {self.before_ms})"


def _needed(db: apsw.Connection, chosen: _Chosen) -> set[int]:
    """The chosen tasks that stay because of a task that requires them and stays. Few, as a rule."""
    needed: set[int] = set()
    # A dependent is younger, so in this order its own fate is known before that of what it requires.
    for parent, child, has_ended, is_chosen in db.execute(
        f"""select p.id, c.id, c.state in ({_FINAL}), {chosen.of("c")}
        from requirement join task p on p.id = parent join task c on c.id = child
        where {chosen.of("p")} and (p.state <> {_SUCCEEDED} or c.state not in ({_FINAL}))
        order by parent desc"""
    ):
        if not has_ended or not is_chosen or child in needed:
            needed.add(parent)
    return needed


def _count(db: apsw.Connection, wanted: str) -> Purged:
    (tasks,) = query.one(db, f"select count(*) from task where id in {_LISTED}", (wanted,))
    (executions,) = query.one(db, f"select count(*) from execution where task in {_LISTED}", (wanted,))
    files, size = query.one(
        db,
        f"""select count(*), coalesce(sum(log.size), 0) from execution
        join log on log.id in (2 * execution.id, 2 * execution.id + 1)
        where execution.task in {_LISTED} and log.content is null""",
        (wanted,),
    )
    return Purged(tasks=tasks, executions=executions, logs=files, log_bytes=size)


def _delete_slice(
    chosen: _Chosen, wanted: str, side: Path | None, db: apsw.Connection
) -> tuple[Purged, list[tuple[int, int]]]:
    return _delete(db, chosen, wanted, side)


def _delete(
    db: apsw.Connection, chosen: _Chosen, wanted: str, side: Path | None = None
) -> tuple[Purged, list[tuple[int, int]]]:
    """One slice: how much, and the log files (execution, stream) that go after the commit. With `side`, the side folder, results
    are kept for the cache."""
    # Asked again: since the tasks were chosen, one may have been relaunched, or required by a new one.
    ids = json.dumps(
        [
            id
            for (id,) in query.rows(
                db,
                f"""select id from task where id in {_LISTED} and {chosen.where} and not exists(
                  select 1 from requirement join task c on c.id = child where parent = task.id and c.state not in ({_FINAL}))""",
                (wanted,),
            )
        ]
    )
    count = _count(db, ids)
    if side is not None:
        cache.keep(db, json.loads(ids), side)
    files = query.rows(
        db,
        f"""select execution.id, log.id % 2 from execution join log on log.id in (2 * execution.id, 2 * execution.id + 1)
        where execution.task in {_LISTED} and log.content is null""",
        (ids,),
    )
    db.execute(f"delete from requirement where parent in {_LISTED}", (ids,))
    db.execute(f"delete from requirement where child in {_LISTED}", (ids,))
    for stream in (logs.OUT, logs.ERR):
        db.execute(
            f"delete from log where id in (select 2 * id + {stream} from execution where task in {_LISTED})", (ids,)
        )
    for table in ("manifest", "note", "recipe"):
        db.execute(f"delete from {table} where execution in (select id from execution where task in {_LISTED})", (ids,))
    # Whatever else hangs on a task (what waits for a launch, who follows its output) has ended with it.
    for (table,) in query.rows(
        db,
        """select name from sqlite_schema where type = 'table' and name not in ('execution', 'journal')
        and exists(select 1 from pragma_table_info(sqlite_schema.name) where name = 'task')""",
    ):
        db.execute(f'delete from "{table}" where task in {_LISTED}', (ids,))
    db.execute(f"delete from execution where task in {_LISTED}", (ids,))
    db.execute(f"delete from task where id in {_LISTED}", (ids,))
    return count, [(execution, stream) for execution, stream in files]


def _purge_journal(store: Store, chosen: _Chosen, needed: set[int], *, dry_run: bool) -> int:
    """Old entries whose task is gone (or would be), and old ones about no task."""
    newest = journal.last(store.reader())  # stays whatever its age: numbers must not be given out twice
    gone = "not exists(select 1 from task where task.id = journal.task)"
    if dry_run:
        gone = f"""(task is null or not exists(select 1 from task where task.id = journal.task)
          or (exists(select 1 from task where task.id = journal.task and {chosen.where})
              and task not in (select value from json_each('{json.dumps(sorted(needed))}'))))"""
    which = f"id > ? and id <= ? and id < {newest} and at < {chosen.before_ms} and {gone}"
    total, last = 0, 0
    while True:
        # Entries are as old as they are early, but for a clock that was set: so not the first young one ends it.
        (end, n, oldest) = query.one(
            store.reader(),
            "select max(id), count(*), min(at) from (select id, at from journal where id > ? order by id limit ?)",
            (last, SLICE),
        )
        if not n or oldest >= chosen.before_ms:
            return total
        place = last, end
        if dry_run:
            total += query.one(store.reader(), f"select count(*) from journal where {which}", place)[0]
        else:
            total += store.write(lambda db, place=place: _delete_entries(db, which, place))  # type: ignore[misc]
        last = end


def _delete_entries(db: apsw.Connection, which: str, place: tuple[int, int]) -> int:
    return len(query.rows(db, f"delete from journal where {which} returning id", place))


def _unlink(side: Path, files: list[tuple[int, int]]) -> int:
    freed = 0
    for execution, stream in files:
        path = logs.path(side, execution, stream)
        with contextlib.suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed


def _sum(a: Purged, b: Purged) -> Purged:
    return Purged(*(getattr(a, name) + getattr(b, name) for name in Purged.__dataclass_fields__))


# --- by itself ----------------------------------------------------------------------------------------------------------------


class _Chores:
    """What `when_idle` remembers of a store."""

    def __init__(self) -> None:
        self.look_at = 0.0
        self.thread: threading.Thread | None = None


_chores: weakref.WeakKeyDictionary[Store, _Chores] = weakref.WeakKeyDictionary()


def when_idle(store: Store, now_s: float) -> float:
    """Nothing is to be done at this moment (`now_s`: Unix time): see to the daily backup, and give free pages back.

    Returns after how many seconds it wants to be asked again, if it is idle still. Costs a comparison as a rule, and a look
    at a folder every ten minutes. The work is done in a thread of its own, so whoever calls may go on driving.
    """
    mine = _chores.get(store)
    if mine is None:
        mine = _chores[store] = _Chores()
    wait_s = mine.look_at - now_s
    if 0 < wait_s <= PAUSE_S:  # farther away only when the clock was set back
        return wait_s
    mine.look_at = now_s + LOOK_S
    if store.read_only or store.closed or (mine.thread is not None and mine.thread.is_alive()):
        return LOOK_S
    has_backup_due = backup_is_due(store, now_s)
    if has_backup_due or free_pages(store.reader()) >= VACUUM_FROM:
        mine.thread = threading.Thread(
            target=_do_chores, args=(store, mine, now_s, has_backup_due), name="scitq-keep", daemon=True
        )
        mine.thread.start()
    return LOOK_S


def _do_chores(store: Store, mine: _Chores, now_s: float, has_backup_due: bool) -> None:
    try:
        if has_backup_due:
            if daily_backup(store, now_s) is None:
                mine.look_at = now_s + PAUSE_S
            sweeping.sweep_logs(store, now_s)
            sweeping.sweep_code(store, now_s)
        vacuum(store)
    except (ScitqError, apsw.Error, OSError) as problem:
        if not store.closed:
            log.warning("%s: not backed up or tidied up now: %s", store.path.name, problem)
            mine.look_at = now_s + PAUSE_S


def backups(store: Store) -> list[Path]:
    """The daily backups, oldest first."""
    return sorted((store.side / "backups").glob("daily-*.scitq"))


def backup_is_due(store: Store, now_s: float) -> bool:
    """The newest backup (or, when there is none, the file) is a day old, and something has changed since."""
    made = [path.stat().st_mtime for path in backups(store)]
    if not made:
        first = query.row(store.reader(), "select at from journal order by id limit 1")
        return first is not None and now_s - first[0] / 1000 >= DAY_S
    # One from the future was made by a clock that was wrong.
    if abs(now_s - max(made)) < DAY_S:
        return False
    changed = [os.stat(path).st_mtime for path in (store.path, f"{store.path}-wal") if os.path.exists(path)]
    return max(changed, default=0.0) > max(made) or now_s < max(made)


def daily_backup(store: Store, now_s: float) -> Path | None:
    """Make today's backup in the side folder and drop the oldest beyond seven; None when the disk is too full for that."""
    folder = store.side / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    size = store.path.stat().st_size
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < 3 * size:
        log.warning(
            "%s: no daily backup: it could take %.1f GB, and the disk is nearly full.", store.path.name, size / 1e9
        )
        return None
    for path in folder.glob(".daily-*.part*"):  # of a process that was killed meanwhile
        if now_s - path.stat().st_mtime > DAY_S:
            path.unlink(missing_ok=True)
    made = backup(store, folder / time.strftime("daily-%Y%m%d-%H%M%S.scitq", time.localtime(now_s)))
    os.utime(made, (now_s, now_s))
    for old in backups(store)[:-BACKUPS]:
        old.unlink(missing_ok=True)
    return made


def free_pages(db: apsw.Connection) -> int:
    """Pages of the file that hold nothing."""
    return int(query.one(db, "pragma freelist_count")[0])


def vacuum(store: Store) -> int:
    """Give free pages back to the disk, slice by slice, until something happens in the file; returns how many."""
    newest = journal.last(store.reader())
    before = left = free_pages(store.reader())
    while left >= VACUUM_FROM and not store.closed:
        store.write(lambda db: db.execute(f"pragma incremental_vacuum({VACUUM_PAGES})").fetchall())
        now = free_pages(store.reader())
        if now >= left or journal.last(store.reader()) != newest:
            left = now
            break
        left = now
    return before - left
