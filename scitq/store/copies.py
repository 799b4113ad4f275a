"""Copies of one state file: who this one is, which ones it descends from, and which one drives in its place.

A copy is a state file at its place: on this machine, under this path, with this side folder. One that was taken elsewhere
(`scitq backup`, cp) is another, and counts its drivers and executions on by itself, from the numbers at which it was taken. The
file remembers which copies have driven it, each up to which number (epoch): what such a copy did up to there is in this file.
What an agent heard from a copy beyond that is not, and two copies must not take turns at a worker without somebody's word.
Until a copy has met each worker elsewhere it gives no task to anybody: one of those may hold it by the word of the other copy, and
would bring its output while another does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.errors import StateFileReadOnly
from scitq.states import WorkerState
from scitq.store import query
from scitq.store.faults import full
from scitq.store.here import machine_id
from scitq.worker import WorkerId

if TYPE_CHECKING:
    import apsw

_LINEAGE, _SUPERSEDED, _UNMET, _SOLE = "lineage", "superseded", "unmet", "sole"
_NAME = "copy"


@dataclass(frozen=True)
class Copy:
    """A state file at its place."""

    id: str
    place: str  # for people: host and path


@dataclass(frozen=True)
class Rival:
    """Another copy that drives: as an agent knows it."""

    id: str
    epoch: int
    place: str

    @classmethod
    def of(cls, told: Any) -> Rival | None:
        """What an agent says of the copy that drives it; None when it says nothing of one."""
        if not isinstance(told, dict):
            return None
        id, epoch, place = told.get("copy"), told.get("epoch"), told.get("place")
        if not isinstance(id, str) or not isinstance(epoch, int):
            return None
        return cls(id, epoch, str(place or "a place unknown"))


def own(path: Path, side: Path) -> Copy:
    """This copy; it gets its name now if it has none, or if the name that it has was brought along from another place (unless
    that was on this machine, and the file is there no more: it was moved, not copied).

    Raises:
        StateFileError: the name cannot be written down.
    """
    where = {"machine": machine_id(), "path": str(path)}
    try:
        while (id := _name(side, where)) is None:
            _make_name(side, where)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(path) from error
        raise StateFileReadOnly(f"{side / _NAME} cannot be written: {error.strerror}.", path=path) from error
    return Copy(id, f"{socket.gethostname()}:{path}")


def _name(side: Path, where: dict[str, str]) -> str | None:
    try:
        known = json.loads((side / _NAME).read_text(encoding="utf-8"))
        id = known.pop("id")
    except (FileNotFoundError, ValueError, KeyError, AttributeError):
        return None
    if not isinstance(id, str):
        return None
    if known == where:
        return id
    if known.get("machine") == where["machine"] and not Path(str(known.get("path"))).exists():
        fresh = _written(side, id, where)
        fresh.rename(side / _NAME)
        return id
    return None


def _make_name(side: Path, where: dict[str, str]) -> None:
    """Whole at once. Of two that make one, the second finds the first's; one that was brought along is replaced."""
    fresh = _written(side, os.urandom(8).hex(), where)
    try:
        if (side / _NAME).exists():
            fresh.rename(side / _NAME)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(fresh, side / _NAME)
    finally:
        fresh.unlink(missing_ok=True)


def _written(side: Path, id: str, where: dict[str, str]) -> Path:
    fresh = side / f"{_NAME}.{os.urandom(4).hex()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"id": id, **where}, file)
    return fresh


def lineage(db: apsw.Connection) -> dict[str, int]:
    """The copies that have driven this file, each with the highest epoch that is in it."""
    row = query.row(db, "select v from meta where k = ?", (_LINEAGE,))
    return {} if row is None else {str(id): int(epoch) for id, epoch in json.loads(row[0]).items()}


def drives(db: apsw.Connection, copy: str, epoch: int) -> None:
    """A copy drives under this number from now on (or has, until now)."""
    known = lineage(db)
    if known.get(copy, -1) < epoch:
        _put(db, _LINEAGE, {**known, copy: epoch})


def arrive(db: apsw.Connection, copy: str) -> None:
    """A copy begins to drive. If another one did before, it is to meet each worker elsewhere, whose silence begins anew: of what
    that one has said to them since, nothing is known here."""
    known = lineage(db)
    is_sole = bool(query.rows(db, "delete from meta where k = ? returning 1", (_SOLE,)))
    if known and max(known, key=lambda id: known[id]) != copy and not is_sole:
        meet_all(db)


def meet_all(db: apsw.Connection) -> None:
    """Another copy has driven, or may have: see `unmet`."""
    db.execute("update worker set silent_ms = 0 where kind <> 'local'")
    rows = query.rows(
        db,
        "select id from worker where kind <> 'local' and state not in (?, ?)",
        (int(WorkerState.GONE), int(WorkerState.FAILED)),
    )
    if rows:
        _put(db, _UNMET, [id for (id,) in rows])


def is_sole(db: apsw.Connection) -> None:
    """Of a copy on its way: the file that it comes from is driven no more, so that its workers have nothing that it does not know."""
    _put(db, _SOLE, True)


def unmet(db: apsw.Connection) -> list[WorkerId]:
    """The workers that this copy has to meet before it gives anybody a task."""
    row = query.row(db, "select v from meta where k = ?", (_UNMET,))
    return [] if row is None else [WorkerId(id) for id in json.loads(row[0])]


def met(db: apsw.Connection, worker: WorkerId) -> None:
    """A worker was met, or somebody has said that it is lost."""
    left = unmet(db)
    if worker in left:
        left.remove(worker)
        if left:
            _put(db, _UNMET, left)
        else:
            db.execute("delete from meta where k = ?", (_UNMET,))


def superseded(db: apsw.Connection) -> Rival | None:
    """The copy that drives in place of this one; None when that is not known of any."""
    row = query.row(db, "select v from meta where k = ?", (_SUPERSEDED,))
    return None if row is None else Rival(**json.loads(row[0]))


def give_way(db: apsw.Connection, rival: Rival) -> None:
    """Another copy drives: nobody drives this one before somebody says so."""
    _put(db, _SUPERSEDED, asdict(rival))


def claim(db: apsw.Connection) -> None:
    """Somebody has said that this copy is to be driven."""
    if query.rows(db, "delete from meta where k = ? returning 1", (_SUPERSEDED,)):
        meet_all(db)


def _put(db: apsw.Connection, key: str, value: Any) -> None:
    db.execute("insert or replace into meta(k, v) values (?, ?)", (key, json.dumps(value)))
