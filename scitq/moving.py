"""A state file leaves a machine, or arrives at one: what both ends of `promote` and `demote` do with the file and its side folder.

The order of things over both machines is `promotion`; the marks that keep two from writing are `store.moved`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scitq.errors import MoveFailed
from scitq.fetch import configuration
from scitq.fetch.uri import parse
from scitq.remote.agent import machine
from scitq.states import FINAL, TaskState
from scitq.store import copies, listing, manifests, moved, query
from scitq.store.connection import Store
from scitq.store.lease import is_held
from scitq.store.moved import Moved
from scitq.store.schema import SCHEMA
from scitq.store.snapshot import backup

if TYPE_CHECKING:
    import apsw

STOP_S = 30.0
COPY = "moving"
_SHOWN = 5
_REMOTE = re.compile(r'"([A-Za-z0-9_][A-Za-z0-9_.+@ -]*)(?:@[^":/]*)?://')


# --- leaving ------------------------------------------------------------------------------------------------------------


def obstacles(db: apsw.Connection, side: Path) -> list[str]:
    """Why the file should not leave this machine now, a sentence each."""
    found = []
    held = query.rows(
        db,
        """select task.id, coalesce(task.name, '') from execution join task on task.id = execution.task
        join worker on worker.id = execution.worker where execution.ended is null and worker.kind = 'local' order by task.id""",
    )
    if held:
        found.append(f"{_named(held)} at the worker of this machine; scitq down --wait lets what runs end")
    if paths := _with_paths(db, side):
        shown = ", ".join(paths[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")
        found.append(
            f"{len(paths)} unfinished {'task names' if len(paths) == 1 else 'tasks name'} files of this machine, which are not there "
            f"({shown}); put them in a storage (scitq task update ID --input s3://…), or let these tasks end first"
        )
    return found


def _named(tasks: list[query.Row]) -> str:
    shown = ", ".join(f"{id} {name!r}" if name else str(id) for id, name in tasks[:_SHOWN])
    more = ", …" if len(tasks) > _SHOWN else ""
    return f"{len(tasks)} {'task is' if len(tasks) == 1 else 'tasks are'} ({shown}{more})"


def _with_paths(db: apsw.Connection, side: Path) -> list[str]:
    """`12: /data/x.fq`, for each unfinished task that names a file of this machine. What other tasks left goes along."""
    open_states = ", ".join(str(int(state)) for state in TaskState if state not in FINAL)
    rows = query.rows(
        db,
        f"""select id, spec from task where state in ({open_states})
        and coalesce(spec ->> '$.input', spec ->> '$.resource', spec ->> '$.output') is not null order by id""",
    )
    found = []
    for id, text in rows:
        spec = listing.spec_of(text)
        for address in map(parse, (*spec.input, *spec.resource, *([] if spec.output is None else [spec.output]))):
            if address.is_local and not address.path.startswith(f"{side}/"):
                found.append(f"{id}: {address.shown}")
                break
    return found


def remotes_of(db: apsw.Connection) -> list[str]:
    """The remotes that addresses in the file name, as far as the configuration of this machine has them."""
    named: set[str] = set()
    for sql in (
        "select spec from task where spec like '%://%'",
        "select json_quote(address) from manifest where address like '%://%'",
    ):
        for (text,) in query.rows(db, sql):
            named |= set(_REMOTE.findall(text))
    return sorted(named & set(configuration.names())) if named else []


def leave(store: Store, there: Moved, *, is_forced: bool = False) -> None:
    """Seal the file: whoever drives it stops, and nobody writes any more. Harmless to repeat.

    Raises:
        MoveFailed: something is in the way; the file is as it was.
    """
    store.is_mover = True
    here = moved.found(store.reader())

    def seal(db: apsw.Connection) -> list[str]:
        if here is None and not is_forced and (found := obstacles(db, store.side)):
            return found
        moved.mark(db, there)
        moved.ask_to_stop(db)
        return []

    # Looked at where nobody else writes: a driver begins nothing between the look and the seal.
    if found := store.write(seal, full=True):
        raise MoveFailed(
            f"{store.path.name} cannot leave this machine yet: {'; '.join(found)}. (--force: all the same.)"
        )
    lock, deadline = store.side / "driver.lock", time.monotonic() + STOP_S
    while is_held(lock):
        store.ring()
        if time.monotonic() > deadline:
            if here is None:
                store.write(moved.clear, full=True)
            raise MoveFailed(
                f"the driver of {store.path.name} does not stop, so it stays here. scitq status says who that is; end it first."
            )
        time.sleep(0.05)
    store.write(moved.dismiss, full=True)


def stay(store: Store) -> None:
    """Undo `leave`; or drive what is here although the file went elsewhere."""
    store.is_mover = True
    store.write(moved.clear, full=True)
    drop_copy(store.side)


def copy_out(store: Store, arriving: Moved | None, new_side: str | None = None) -> Path:
    """A copy of the sealed file for the other machine, where it is not to be driven before somebody opens it; or, with None,
    for one that takes it in as a whole."""
    folder = store.side / COPY
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / store.path.name
    target.unlink(missing_ok=True)
    backup(store, target)
    place = copies.own(store.path, store.side).id
    moved.alter(target, arriving, str(store.side), new_side, place=place, cpus=machine.cpus())
    return target


# --- arriving ------------------------------------------------------------------------------------------------------------


def look(path: Path) -> dict[str, Any]:
    """What there is at the place of a file."""
    if not path.exists():
        return {"exists": False}
    with Store.open(path, SCHEMA, read_only=True) as store:
        db = store.reader()
        mark = moved.found(db)
        return {
            "exists": True, "id": manifests.file_id(db), "state": None if mark is None else mark.state,
        }  # fmt: skip


def take_in(path: Path, source: IO[bytes], digest: str) -> None:
    """Put a file that comes as bytes at its place, sealed. One that is there is replaced if it is of the same, and sealed, too.

    Raises:
        MoveFailed: it did not come whole, or another one is there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.arriving")
    seen = hashlib.sha256()
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        while piece := source.read(1 << 20):
            seen.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    try:
        if seen.hexdigest() != digest:
            raise MoveFailed("the state file did not arrive whole; try again.")
        there, theirs = look(path), moved.identity(part)
        if not there["exists"]:
            path.with_name(f"{path.name}.d").mkdir(mode=0o700, exist_ok=True)
            part.rename(path)
            return
        if there["id"] != theirs[0]:
            raise MoveFailed(f"{path}: another state file is there already; give another folder with --folder.")
        if there["state"] is None:
            raise MoveFailed(
                f"{path}: a copy of this file is there that may be written, and would be lost. Move it away, or give another --folder."
            )
        with Store.open(path, SCHEMA) as store:
            store.is_mover = True
            store.replace_by(part)
    finally:
        part.unlink(missing_ok=True)


def open_up(store: Store) -> None:
    """It has arrived, and the place it comes from is sealed: from here on it is driven here."""
    mark = moved.found(store.reader())
    if mark is not None and mark.state != "arriving":
        raise mark.refusal(store.path.name)
    store.is_mover = True
    store.write(moved.clear, full=True)


def settle(store: Store, there: Moved) -> None:
    """It has left: what is only there for the way goes."""
    store.is_mover = True
    store.write(lambda db: moved.mark(db, there), full=True)
    drop_copy(store.side)


def drop_copy(side: Path) -> None:
    """Delete the copy for the way."""
    for path in (side / COPY).glob("*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (side / COPY).rmdir()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
