"""The inbox: what needs a person, as few short items with proposed actions. The engine's methods are in `inbox`.

Read anew from the file each time, by a bounded number of look-ups: `noticing` has the rules. What was seen or put aside is in the
file; so is what only one who was there could know (`store.notices.post`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scitq import noticing
from scitq.errors import BadInput, ScitqError
from scitq.hints import driver_of
from scitq.noticing import Action as Action
from scitq.noticing import Notice as Notice
from scitq.saying import clean, without_place
from scitq.states import LIVE, TaskState
from scitq.store import copies, costs, logs, summary
from scitq.store import notices as rows

if TYPE_CHECKING:
    from scitq.engine import Engine

# Of so many groups of equal failures the last line of the error is read, from so many bytes at its end.
ERRORS_READ = 5
TAIL_BYTES = 2000


def found(engine: Engine, *, dismissed: bool) -> list[Notice]:
    """What needs a person, most pressing first; with `dismissed` also what was put aside."""
    marks = rows.marks(engine._reader())
    listed = []
    for notice in _found(engine):
        known = marks.get(notice.key)
        if known is not None and known.mark == notice.mark:
            notice = notice.seen(is_dismissed=known.is_dismissed)
        if dismissed or not notice.is_dismissed:
            listed.append(notice)
    return listed


def see(engine: Engine, seen: Iterable[Notice] | None) -> None:
    """Some (all, if not given) were shown."""
    present = found(engine, dismissed=True)
    shown = {notice.key: notice.mark for notice in (present if seen is None else seen) if notice.is_new}
    kept = {notice.key for notice in present}
    if not shown and rows.marks(engine._reader()).keys() <= kept:
        return
    now = _now_ms()
    with contextlib.suppress(ScitqError):  # a full disk is no reason not to show that it is full
        engine._write_if_possible(lambda db: rows.see(db, now, shown, kept))


def dismiss(engine: Engine, key: str) -> Notice:
    """Put one aside."""
    present = {notice.key: notice for notice in found(engine, dismissed=True)}
    if key not in present:
        raise BadInput(f"there is no notice {key!r} (there are: {', '.join(present) or 'none'}).")
    now, mark = _now_ms(), present[key].mark
    engine._write(lambda db: rows.dismiss(db, now, key, mark))
    return present[key].seen(is_dismissed=True)


def _found(engine: Engine) -> list[Notice]:
    """What the rules find in the file now."""
    db, now = engine._reader(), _now_ms()
    counts, workers = engine.counts(), engine.workers()
    is_work_left = any(counts.get(state) for state in LIVE | {TaskState.PENDING, TaskState.WAITING})
    free, total = _disk(engine.side)
    refused, failed = noticing.refusals(rows.failed(db)) if counts.get(TaskState.FAILED) else ([], [])
    rented = engine.rented()
    holder = driver_of(engine) if is_work_left or rented is not None else None
    return [
        *noticing.copies(copies.superseded(db)),
        *noticing.drivers(engine.path.name, holder, counts, now, rented),
        *noticing.workers(workers, rows.last_problems(db), is_work_left, now),
        *refused,
        *noticing.disks(workers, engine.path.name, free, total, now),
        *noticing.money(_limits(engine)),
        *noticing.prices(noticing.Repriced(*one) for one in costs.repriced(db)),
        *noticing.posted(rows.posted(db)),
        *noticing.in_vain(summary.in_vain(db)),
        *noticing.halted(rows.halted(db)),
        *(noticing.large_files(rows.large_files(db, noticing.TOO_LARGE)) if is_work_left else ()),
        *noticing.failures(failed, _errors(engine, failed)),
        *noticing.blocked(counts),
    ]


def _limits(engine: Engine) -> list[noticing.Cost]:
    return [
        noticing.Cost(
            one.scope, f"{one.name} {one.rank}" if one.rank else one.name, one.spent, one.limit, one.currency, one.committed, one.strange,
        )
        for one in engine.limits()
    ]  # fmt: skip


def _errors(engine: Engine, failed: Iterable[rows.Failed]) -> Mapping[int, str]:
    """The last line of the error of the newest failure of each kind that is several."""
    alike: dict[tuple[str, str], list[rows.Failed]] = {}
    for one in failed:
        alike.setdefault((one.batch, one.cause), []).append(one)
    found: dict[int, str] = {}
    for them in [them for them in alike.values() if len(them) >= noticing.EQUAL][:ERRORS_READ]:
        execution = them[0].execution
        if execution is not None and (line := last_line(engine._log_tail(execution, logs.ERR, TAIL_BYTES))):
            found[execution] = line
    return found


def last_line(tail: bytes) -> str:
    """The last line that says something, as one can show it."""
    lines = tail.decode(errors="backslashreplace").rstrip().splitlines()
    return clean(without_place(lines[-1].strip())) if lines else ""


def _disk(folder: Path) -> tuple[int | None, int | None]:
    """Bytes free, and bytes in all, of the disk of a folder."""
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return None, None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
