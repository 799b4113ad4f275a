"""Outputs that workers elsewhere hold until they were brought here: what there is of them, as their workers told it.

Every function runs inside a transaction of the caller's, or on a reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from scitq.states import Wanted
from scitq.store import listing, query
from scitq.store.executions import Order
from scitq.task import ExecutionId, TaskId, raised_of
from scitq.worker import WorkerId


class HeldFile(NamedTuple):
    """One file of an output: its name below the output folder, its size, its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Held:
    """An output that a worker holds. `folders` are those with nothing in them, `programs` the names of files that may be run."""

    order: Order
    wanted: Wanted
    is_failed: bool
    files: list[HeldFile]
    folders: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    note: str | None = None


def hold(db: apsw.Connection, execution: ExecutionId, said: Mapping[str, Any]) -> bool:
    """Write down what a worker holds of an execution; False when nobody waits for it any more.

    Raises:
        ValueError, TypeError, KeyError: it makes no sense.
    """
    kept = {
        "files": [[_inside(name), int(size), str(sha)] for name, size, sha in said["files"]],
        "folders": [_inside(name) for name in said.get("folders", ())],
        "programs": [_inside(name) for name in said.get("programs", ())],
        "failed": bool(said.get("failed")),
        "note": said.get("note"),
    }
    row = query.row(
        db,
        "update execution set held = ? where id = ? and ended is null and collect_due = 1 returning id",
        (query.compact(kept), execution),
    )
    return row is not None


def _inside(name: Any) -> str:
    parts = str(name).split("/")
    if not isinstance(name, str) or {"", ".", ".."} & set(parts) or "\0" in name:
        raise ValueError(f"{name!r:.100} is no name of a file in an output folder")
    return name


def ids(db: apsw.Connection, worker: WorkerId) -> set[ExecutionId]:
    """The executions whose output a worker holds, and which wait for that."""
    rows = query.rows(
        db,
        "select id from execution indexed by execution_held where worker = ? and ended is null and held is not null",
        (worker,),
    )
    return {ExecutionId(id) for (id,) in rows}


def is_due(db: apsw.Connection, execution: str) -> bool:
    """Whether somebody still waits for the output of an execution, whose number may be any text."""
    if not execution.isdecimal():
        return False
    row = query.row(db, "select 1 from execution where id = ? and ended is null and held is not null", (execution,))
    return row is not None


def due(db: apsw.Connection, worker: WorkerId, limit: int) -> list[Held]:
    """Outputs that a worker holds and that are to be brought here, the oldest first."""
    rows = query.rows(
        db,
        """select execution.id, task.id, coalesce(execution.spec, task.spec), raised, wanted, held
        from execution indexed by execution_held join task on task.id = execution.task
        where execution.worker = ? and ended is null and held is not null order by execution.id limit ?""",
        (worker, limit),
    )
    found = []
    for execution, task, spec, raised, wanted, text in rows:
        said = json.loads(text)
        order = Order(
            ExecutionId(execution), TaskId(task), worker, raised_of(raised).applied(listing.spec_of(spec)), None
        )
        files = [HeldFile(*each) for each in said["files"]]
        found.append(
            Held(order, Wanted(wanted), said["failed"], files, said["folders"], said["programs"], said["note"])
        )
    return found
