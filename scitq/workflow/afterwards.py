"""What is done with a workflow's results: brought into a folder, and cleaned away, as in version 1."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput
from scitq.fetch import transfer
from scitq.fetch.uri import Address, parse
from scitq.outputs import TaskOutput
from scitq.path import URI
from scitq.states import TaskState
from scitq.store import listing, logs, workflows
from scitq.store.manifests import of_task
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.engine import Engine

_UNFIT = re.compile(r"[/\0\n\r]")


def bring(source: Any, destination: Path) -> list[Path]:
    """Bring what is at an address (of a task's output: all of it) below a folder, made if need be; returns the files."""
    destination.mkdir(parents=True, exist_ok=True)
    if isinstance(source, TaskOutput):
        found = of_task(source.task._engine._reader(), TaskId(source.task.id))
        if found is not None and not found.files:
            return []
        address: Address = URI(source).address
    elif isinstance(source, URI):
        address = source.address
    elif isinstance(source, os.PathLike):
        address = URI(source).address
    else:
        address = parse(source)
    if not address.is_folder_like and URI(address).isdir():
        address = parse(f"{address}/") if not address.actions else address
    landed = transfer.get(address, f"{destination}/")
    return [Path(found.path) for found in landed]


def download(engine: Engine, name: str, uris: Iterable[Any] | None, destination: Path) -> list[Path]:
    """Bring given addresses into a folder; or what all tasks of a workflow left, in a folder for each step.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    if uris is not None:
        if isinstance(uris, str | URI | os.PathLike):
            uris = [uris]
        return [path for uri in uris for path in bring(uri, destination)]
    from scitq.handle import Task
    from scitq.outputs import output_of

    found: list[Path] = []
    db = engine._reader()
    for step in workflows.steps(db, workflows.get(db, name).id):
        place = destination / _UNFIT.sub("_", step.step)
        for row in listing.select(db, states=[TaskState.SUCCEEDED], batch=step.batch, limit=1 << 40):
            found += bring(output_of(Task(engine, row.id)), place)
    return found


def clean(engine: Engine, name: str, *, force: bool, logs_to: Path | None) -> int:
    """Delete the succeeded tasks of a workflow from the file, their output written to files first, and its recruiters; with
    `force` all that is not on a worker, and the steps with it. What tasks left at addresses stays. Returns how many.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    db = engine._reader()
    workflow = workflows.get(db, name)
    ids = workflows.deletable(db, workflow.id, everything=force)
    if logs_to is not None and not force:
        for start in range(0, len(ids), 1000):
            rows = listing.select(db, ids=ids[start : start + 1000])
            _write_logs(engine, [(row.id, row.name or str(row.id)) for row in rows], logs_to)
    for start in range(0, len(ids), 10_000):
        engine._delete(ids[start : start + 10_000], keep_cache=True)
    engine._write(lambda db: workflows.drop_recruiters(db, workflow.id))
    return len(ids)


def _write_logs(engine: Engine, named: Sequence[tuple[TaskId, str]], folder: Path) -> None:
    from scitq.handle import Task

    folder.mkdir(parents=True, exist_ok=True)
    for id, name in named:
        handle = Task(engine, id)
        for stream, word in ((logs.OUT, "output"), (logs.ERR, "error")):
            data = handle.output_bytes(stream)
            if not data:
                continue
            with (folder / f"{_UNFIT.sub('_', name)}_{word}.log").open("ab") as file:
                file.write(data)


def checked_destination(given: str | os.PathLike[str] | None) -> Path:
    """A folder to bring things into, by default the current one.

    Raises:
        BadInput: a file is there.
    """
    folder = Path.cwd() if given is None else Path(given)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: a file is there; a folder is wanted.")
    return folder
