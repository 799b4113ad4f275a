"""Why a task ran although it may use the cache, or whose result it took, in words: said from what the look into the cache found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scitq.digest import Difference, Parts, differences, file_differences, with_data
from scitq.states import Probe
from scitq.store import cache, executions, listing
from scitq.store.cache import Looked
from scitq.task import ExecutionId, ExecutionRow, Spec, TaskId, TaskRow

if TYPE_CHECKING:
    import apsw

# So many differences are told in a sentence.
TOLD = 3


@dataclass(frozen=True)
class Because:
    """Why an execution ran. `of` is the task that is most like it."""

    sentence: str
    of: TaskId | None
    differences: list[Difference]


def reused(db: apsw.Connection, last: ExecutionRow) -> str | None:
    """`reused from 41 (same key), which ran in 9.2 s 3 h ago`; None for an execution that ran."""
    source = cache.cached_from(db, last.id)
    if source is None:
        return None
    entry = cache.of_execution(db, source)
    if entry is None:
        return f"reused from execution {source} (same key), whose task was deleted"
    ago_s = max(0.0, time.time() - entry.ended_ms / 1000)
    took = f" in {entry.run_s:.1f} s" if entry.run_s is not None else ""
    return f"reused from {entry.task} (same key), which ran{took} {_age(ago_s)} ago"


def ran(db: apsw.Connection, row: TaskRow, last: ExecutionRow) -> Because | None:
    """Why an execution ran; None for a task that did not ask the cache."""
    looked = cache.looked(db, row.id)
    if looked is None or looked.at_ms > last.assigned_ms:
        return None
    entry = None if looked.near is None else cache.of_execution(db, looked.near)
    if entry is None:
        return Because(looked.note or "nothing like it had succeeded before", None, [])
    found = between(db, entry.execution, row.spec, looked, last.image)
    if looked.note is not None:
        return Because(looked.note, entry.task, found)
    if not found:
        return Because(f"of {entry.task}, which is like it, it is not known what it read", entry.task, [])
    told = [_told(one) for one in found[:TOLD]] + ([f"and {len(found) - TOLD} more"] if len(found) > TOLD else [])
    return Because(f"compared with {entry.task}, {'; '.join(told)}", entry.task, found)


def between(
    db: apsw.Connection, old: ExecutionId, spec: Spec, looked: Looked | None, image: str | None
) -> list[Difference]:
    """What differs between an execution and what a task was when the cache was looked at for it; `image` is what it ran in."""
    before = executions.spec_of(db, old)
    if before is None:
        return []
    was = cache.image_of(db, old) or before.container
    there = with_data(before, was, cache.data_of(db, old))
    image = image or (was if spec.container == before.container else spec.container)
    here = with_data(spec, image, None if looked is None else looked.data)
    if (spec.input or spec.resource) and (looked is None or looked.data is None):
        here = here._replace(input=there.input, resource=there.resource)
    return detailed(db, there, here)


def detailed(db: apsw.Connection, old: Parts, new: Parts) -> list[Difference]:
    """What differs between two keys, of inputs and resources file by file."""
    return [found for one in differences(old, new) for found in _in_detail(db, one)]


def parts_of(db: apsw.Connection, task: TaskId) -> Parts:
    """What the key of a task is made of, as far as that was looked at: of its last success, else of what it asks for now."""
    spec = listing.get(db, task).spec
    looked = cache.looked(db, task)
    done = cache.of_task(db, task)
    if done:
        ran = executions.spec_of(db, done[0].execution) or spec
        return with_data(
            ran, cache.image_of(db, done[0].execution) or ran.container, cache.data_of(db, done[0].execution)
        )
    return with_data(spec, spec.container, None if looked is None else looked.data)


def _in_detail(db: apsw.Connection, one: Difference) -> list[Difference]:
    """Of an input the files that differ."""
    if one.at is None:
        return [one]
    old, new = (cache.fingerprint_of(db, digest) for digest in (one.old, one.new))
    files = file_differences(old, new) if old is not None and new is not None else []
    if not files:
        return [one._replace(old="another version", new="this one")]
    if len(files) == 1 and one.what.endswith(files[0].what):
        return [files[0]._replace(what=one.what)]
    return [file._replace(what=f"{one.what}: {file.what}") for file in files]


def waits(db: apsw.Connection, task: TaskId) -> str | None:
    """What a pending task waits for of the cache, in words; None when it does not."""
    probe = cache.probe_of(db, task)
    if probe is Probe.WANTED:
        return "it is being looked up whether there is a result for it already."
    if probe is Probe.TWIN:
        looked = cache.looked(db, task)
        twin = None if looked is None or looked.twin is None else cache.task_of(db, looked.twin)
        label = f"task {listing.get(db, twin).label}" if twin is not None else "another task"
        return f"{label} does the same just now; its result will be taken."
    return None


def _told(one: Difference) -> str:
    if one.what == "command":
        return f"its command differs (old: {_clip(one.old)}, new: {_clip(one.new)})"
    return f"{one.what} changed (old: {_clip(one.old)}, new: {_clip(one.new)})"


def _clip(text: str, width: int = 120) -> str:
    line = " ⏎ ".join(part.strip() for part in text.strip().splitlines())
    return line if len(line) <= width else line[: width - 1] + "…"


def _age(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
