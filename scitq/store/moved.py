"""Where a state file is driven, when that is another host: the mark of `scitq promote`, and what it forbids.

The file at one place is sealed, copied, and opened at the other, in this order, each step written down before the next: at no
instant may both be written. A sealed file is read as ever; its writers and drivers are refused with a sentence.

    leaving     its copy is being taken to `host`; nothing can be driven there yet
    away        it is driven on `host`
    arriving    a copy that is not to be driven yet: the file that it comes from still may be
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import apsw

from scitq.errors import NotAStateFile, StateFileElsewhere
from scitq.states import JobState
from scitq.store import copies, jobs, query, workers
from scitq.worker import WorkerId

_KEY = "moved"
MOVES = ("promote", "demote")
"""Jobs that a command does, and no driver."""


@dataclass(frozen=True)
class Moved:
    """Where the file is: a host, as `ssh` is told it, the path there, and the words that are scitq there."""

    state: Literal["leaving", "away", "arriving"]
    host: str
    path: str = ""
    program: list[str] = field(default_factory=list)
    since_ms: int = 0

    @property
    def is_followed(self) -> bool:
        """Whether commands given here are passed on."""
        return self.state == "away" and bool(self.program)

    @property
    def since(self) -> str:
        """In words."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since_ms / 1000))

    def refusal(self, name: str) -> StateFileElsewhere:
        """Why nothing is written here."""
        since, lost = self.since, "if that one is lost: scitq demote --abandon"
        if self.state == "leaving":
            said = f"is being moved to {self.host} since {since}; scitq promote {self.host} goes on with that, scitq demote undoes it"
        elif self.state == "arriving":
            said = f"is on its way from {self.host}; go on there with what was begun, scitq promote or demote ({lost})"
        elif self.is_followed:
            said = (
                f"is driven on {self.host} since {since} ({self.path}), and only read here. scitq's commands go there by "
                "themselves; scitq demote brings it back"
            )
        else:
            said = f"was taken to {self.host} on {since}, and is driven there ({lost})"
        return StateFileElsewhere(f"{name} {said}.", host=self.host, state=self.state)


def found(db: apsw.Connection) -> Moved | None:
    """The mark of a file; None when it is driven where it is."""
    row = query.row(db, "select v from meta where k = ?", (_KEY,))
    return None if row is None else Moved(**json.loads(row[0]))


def mark(db: apsw.Connection, moved: Moved) -> None:
    """Seal the file, or say what has become of it."""
    db.execute("insert or replace into meta(k, v) values (?, ?)", (_KEY, json.dumps(asdict(moved))))


def clear(db: apsw.Connection) -> None:
    """It is driven here (again)."""
    db.execute("delete from meta where k = ?", (_KEY,))


def ask_to_stop(db: apsw.Connection) -> None:
    """Whoever drives lets go, as of `scitq down`."""
    db.execute("update lead set stop_wanted = 1")


def dismiss(db: apsw.Connection) -> None:
    """Nobody drives any more; one that stands still finds its number stale, should it go on."""
    db.execute("update lead set epoch = epoch + 1, pid = null, seen = null, stop_wanted = 0")


def alter(
    copy: Path, moved: Moved | None, old_side: str, new_side: str | None, *, place: str | None = None, cpus: int = 0
) -> None:
    """Give a copy, which nobody has open, its mark; and let what it says of its side folder be true at its new place. `place`
    names (`copies`) where it was until now: the folders and environments from which tasks were submitted are there. `cpus` are
    that machine's: its own worker, if it ran as many tasks at once, runs as many as the next machine has."""
    db = apsw.Connection(str(copy))
    try:
        with db:
            if moved is None:
                clear(db)
            else:
                mark(db, moved)
            # Where it arrives nobody does them any more.
            for job in jobs.open_ones(db):
                if job.kind in MOVES:
                    jobs.move(db, job.started_ms or job.created_ms, job.id, JobState.SUCCEEDED)
            for table in ("manifest", "kept") if new_side is not None else ():
                db.execute(
                    f"""update {table} set address = ?1 || substr(address, length(?2) + 1)
                    where substr(address, 1, length(?2) + 1) = ?2 || '/'""",
                    (new_side, old_side),
                )
            if place is not None:
                copies.is_sole(db)
                # They stay apart from equal ones of other times: the texts are unique.
                db.execute(
                    """update context set data = json_set(data, '$.place', ?, '$.number', id)
                    where data ->> '$.place' is null""",
                    (place,),
                )
            for (id,) in query.rows(db, "select id from worker where kind = 'local' and concurrency = ?", (cpus,)):
                workers.settle(db, WorkerId(id), {"slots_as_cpus": True})
    finally:
        db.close(True)


def identity(copy: Path) -> tuple[str, int]:
    """Which file a copy is of, which nobody has open, and as of which driver's number.

    Raises:
        NotAStateFile: it is no copy of one.
    """
    db = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        [(id, epoch)] = query.rows(db, "select (select v from meta where k = 'id'), epoch from lead")
        return str(id), int(epoch)
    except apsw.Error as error:
        raise NotAStateFile(f"what arrived is no state file: {error}.", path=copy) from error
    finally:
        db.close(True)
