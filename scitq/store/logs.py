"""Output of executions: small ones in the row, large ones as files in the side folder (`logs/<execution>.out|err`).

The bytes are exact. A stream that was cut at the cap says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from scitq.store import query
from scitq.task import ExecutionId

OUT, ERR = 0, 1
NAMES = ("out", "err")


@dataclass(frozen=True)
class Log:
    """One stream of one ended execution. `content` None: the bytes are in the file."""

    size: int
    cut: bool
    content: bytes | None


def path(side: Path, execution: int, stream: int) -> Path:
    """Where a large stream is kept."""
    return side / "logs" / f"{execution}.{NAMES[stream]}"


def part(side: Path, execution: int, stream: int, epoch: int) -> Path:
    """Where a stream grows while it is brought home. Each driver has its own, so that one that was frozen and replaced
    never writes into its successor's."""
    return side / "logs" / f"{execution}.{NAMES[stream]}.{epoch}.part"


def parts(side: Path, execution: int | None = None, stream: int | None = None) -> list[Path]:
    """What has come so far of a stream (or of every one), by whichever driver; the newest driver's last."""
    which = "*" if execution is None or stream is None else f"{execution}.{NAMES[stream]}"
    return sorted((side / "logs").glob(f"{which}.*.part"), key=lambda path: int(path.suffixes[-2][1:]))


def keep(db: apsw.Connection, execution: ExecutionId, stream: int, content: bytes | None, size: int, cut: bool) -> None:
    """Store a small stream; content None records that it is, or while `log_due` will be, in its file."""
    db.execute("insert or replace into log values (?, ?, ?, ?)", (2 * execution + stream, size, cut, content))


def get(db: apsw.Connection, execution: ExecutionId, stream: int) -> Log | None:
    """A stored stream; None when nothing was written, or the execution has not ended."""
    row = query.row(db, "select size, cut, content from log where id = ?", (2 * execution + stream,))
    return None if row is None else Log(row[0], bool(row[1]), row[2])
