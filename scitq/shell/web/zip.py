"""All output of many tasks as one archive, written while it is read: no copy is made, and none is held in memory.

A folder for each task with what it wrote (`stdout.txt`, `stderr.txt`; those of earlier tries beside it) and the files that it left
on this machine; what it left elsewhere is named in `elsewhere.txt`, what could not be read in `left-out.txt`.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from typing import IO

from scitq.engine import Engine
from scitq.errors import ScitqError
from scitq.fetch.uri import parse
from scitq.saying import several, size
from scitq.shell.facts import shown_address
from scitq.shell.web.archive import HELD_BYTES, Archive
from scitq.shell.web.output import STREAMS
from scitq.states import Outcome
from scitq.store import executions, listing, logs, manifests
from scitq.task import ExecutionRow, TaskId, TaskRow
from scitq.workflow.looking import size_of

# So much is read at a time, and so many tasks.
PIECE_BYTES = 256 << 10
PAGE = 500
NAME_CHARACTERS = 80
# Names that Windows keeps for devices, and signs that it does not let into names.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{what}{n}" for what in ("com", "lpt") for n in range(1, 10))})
_UNFIT = re.compile(r'[<>:"/\\|?*]')
# What is compressed already.
_DENSE = (".gz", ".bgz", ".bz2", ".xz", ".zst", ".zip", ".bam", ".cram", ".png", ".jpg", ".jpeg", ".7z", ".h5")


def pieces(engine: Engine, ids: Sequence[int]) -> Generator[bytes, None, None]:
    """The bytes of the archive. Whoever stops asking ends it; nothing is left behind.

    What is written or deleted meanwhile is in it as it is when its turn comes.
    """
    with Archive() as archive, _Remarks() as elsewhere, _Remarks() as left_out:
        for start in range(0, len(ids), PAGE):
            for row in listing.select(engine._reader(), ids=ids[start : start + PAGE]):
                yield from _task(engine, row, archive, elsewhere, left_out)
        for name, remarks in (("elsewhere.txt", elsewhere), ("left-out.txt", left_out)):
            if remarks.size:
                yield from archive.file(name, remarks.pieces(), remarks.size, time.time_ns() // 1_000_000)
        yield from archive.end()


def _task(engine: Engine, row: TaskRow, archive: Archive, elsewhere: _Remarks, left_out: _Remarks) -> Iterator[bytes]:
    folder = folder_of(row)
    attempts = executions.of_task(engine._reader(), row.id)
    for one in attempts:
        place = folder if one is attempts[-1] else f"{folder}/try {one.attempt} ({one.id})"
        for word, stream in STREAMS.items():
            if count := _size(engine, one, stream):
                at = one.ended_ms or one.started_ms or one.assigned_ms
                yield from archive.file(f"{place}/{word}.txt", log(engine, one, stream, count), count, at)
    done = next((one for one in reversed(attempts) if one.outcome is Outcome.SUCCEEDED), None)
    left = None if done is None else manifests.of_execution(engine._reader(), done.id)
    if left is None or not left.files:
        return
    root = _folder(left.address)
    if root is None:
        files = several(len(left.files), "file")
        elsewhere.add(f"{row.label}: {files}, {size(left.size)}, in {shown_address(left.address)}")
        return
    taken: set[str] = set()
    for file in left.files:
        name = f"{folder}/output/{_fresh(relative(file.name), taken)}"
        try:
            source = _opened(root, file.name)
        except OSError as problem:
            left_out.add(f"{row.id} {file.name}: {problem.strerror or problem}")
            continue
        with source:
            found = os.fstat(source.fileno())
            level = 0 if name.lower().endswith(_DENSE) else 1
            at = int(found.st_mtime * 1000)
            yield from archive.file(name, _read(source), found.st_size, at, level=level)


def _size(engine: Engine, one: ExecutionRow, stream: int) -> int:
    """How many bytes of a stream there are. What has ended and is not in the file wrote nothing: its folder is not searched."""
    stored = logs.get(engine._reader(), one.id, stream)
    if stored is not None:
        return stored.size
    return 0 if one.ended_ms is not None else size_of(engine, one.id, stream)


def log(engine: Engine, one: ExecutionRow, stream: int, count: int) -> Iterator[bytes]:
    """What there is of a stream now; it may grow meanwhile."""
    at = 0
    while at < count and (piece := engine._log_bytes(one.id, stream, at, min(PIECE_BYTES, count - at))):
        at += len(piece)
        yield piece


def _read(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE_BYTES):
        yield piece


def _folder(address: str) -> str | None:
    """The folder of this machine that an address is; None: it is elsewhere."""
    if address.startswith("/"):
        return address
    try:
        found = parse(address)
    except ScitqError:
        return None
    return found.path if found.is_local else None


def _opened(root: str, name: str) -> IO[bytes]:
    """A file below a folder, which nothing that the task left there leads out of."""
    real, inside = os.path.realpath(os.path.join(root, name)), os.path.realpath(root)
    if not real.startswith(f"{inside}/"):
        raise OSError("it leads out of the output folder")
    # Without waiting: it may be a pipe by now.
    handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("it is no file any more")
    return os.fdopen(handle, "rb", 0)


def ids_of(engine: Engine, batch: str) -> list[TaskId]:
    """The tasks of a batch."""
    db = engine._reader()
    with db:  # one view of the file
        found = [TaskId(id) for id in listing.numbers(db, None, batch)]
    return found


# --- names ------------------------------------------------------------------------------------------------------------------------


def folder_of(row: TaskRow) -> str:
    """The folder of a task: its number, and its name as far as the name of a folder can say it."""
    return safe(f"{row.id} {row.name or row.spec.line()}")


def relative(name: str) -> str:
    """The name of a file below a folder, every part of it safe."""
    parts = [safe(part) for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"


def safe(text: str) -> str:
    """A name that no system takes for anything but the name of a file."""
    shown = "".join("_" if unicodedata.category(char)[0] == "C" else char for char in text)
    found = _UNFIT.sub("_", shown)[:NAME_CHARACTERS].strip(" .") or "_"
    return f"_{found}" if found.partition(".")[0].lower() in _DEVICES else found


def _fresh(name: str, taken: set[str]) -> str:
    """The name, or one like it that no other file has; some systems do not tell capitals from small letters."""
    found, number = name, 1
    while found.lower() in taken:
        number += 1
        stem, dot, suffix = name.rpartition(".")
        found = f"{stem} ({number}).{suffix}" if dot and "/" not in suffix else f"{name} ({number})"
    taken.add(found.lower())
    return found


class _Remarks:
    """Lines for a text of their own, which may become many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 - closed by __exit__
        self.size = 0

    def __enter__(self) -> _Remarks:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: str) -> None:
        self.size += self._file.write(f"{line}\n".encode(errors="backslashreplace"))

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece
