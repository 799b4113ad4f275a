"""What the state file holds as a file for other tools: CSV, JSON, or a plain SQLite file without anything of ours."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import apsw

from scitq.errors import BadInput
from scitq.events import EventKind
from scitq.states import TaskState
from scitq.store import query
from scitq.store.faults import explain, full
from scitq.store.snapshot import _give_name

if TYPE_CHECKING:
    from scitq.store.connection import Store

TABLES = ("tasks", "executions", "workers", "journal")
SUFFIXES = (".csv", ".json", ".sqlite")


def _word(column: str, words: dict[int, str]) -> str:
    cases = " ".join(f"when {code} then '{word}'" for code, word in words.items())
    return f"case {column} {cases} end"


_STATES = {int(state): state.word for state in TaskState}
_QUERIES = {
    **{view: f"select * from {view} order by id" for view in TABLES[:3]},
    "journal": f"""select id, at / 1000.0 as at, {_word("kind", {int(kind): kind.word for kind in EventKind})} as kind, task,
      execution, worker, {_word("src", _STATES)} as "from", {_word("dst", _STATES)} as "to", data from journal order by id""",
}


def export(store: Store, target: Path, table: str | None = None) -> dict[str, int]:
    """Write `target`, whose suffix says how; returns the rows of each table in it.

    CSV and JSON hold one table (tasks if not said), SQLite all four or that one. Times are seconds since 1970.

    Raises:
        BadInput: the target exists, its suffix is unknown, or there is no such table.
    """
    target = Path(os.path.abspath(target))
    if target.suffix not in SUFFIXES:
        raise BadInput(f"{target.name}: the suffix says what is written, and it must be one of {', '.join(SUFFIXES)}.")
    if table is not None and table not in TABLES:
        raise BadInput(f"there is no table {table!r} to export (there are: {', '.join(TABLES)}).")
    if os.path.lexists(target):
        raise BadInput(f"{target} exists already; give another name.", path=target)
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} does not exist; make that folder first.", path=target)
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if target.suffix == ".sqlite":
            counts = _to_sqlite(store, part, TABLES if table is None else (table,))
        else:
            counts = {table or "tasks": _to_text(store, part, table or "tasks", as_json=target.suffix == ".json")}
        _give_name(part, target)
    except FileExistsError:
        raise BadInput(f"{target} exists already; give another name.", path=target) from None
    except apsw.FullError as error:
        raise full(target) from error
    except apsw.Error as error:
        raise explain(error, store.path) from error
    finally:
        part.unlink(missing_ok=True)
        part.with_name(part.name + "-journal").unlink(missing_ok=True)
    return counts


@contextlib.contextmanager
def _moment(store: Store) -> Iterator[apsw.Connection]:
    """A connection that sees the file as it is at one moment, however long the reading takes."""
    db = store.connect_reader()
    try:
        db.execute("begin")
        yield db
    finally:
        db.close(True)


def _columns(db: apsw.Connection, table: str) -> list[str]:
    found: list[str] = []

    def look(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        found.extend(str(column[0]) for column in cursor.get_description())
        return True

    cursor = db.cursor()
    cursor.exec_trace = look
    cursor.execute(f"select * from ({_QUERIES[table]}) limit 0").fetchall()
    return found


def _to_text(store: Store, part: Path, table: str, *, as_json: bool) -> int:
    with _moment(store) as db, part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        columns = _columns(db, table)
        rows = db.execute(_QUERIES[table])
        count = _write_json(file, columns, rows) if as_json else _write_csv(file, columns, rows)
        file.flush()
        os.fsync(file.fileno())
    return count


def _write_csv(file: TextIO, columns: Sequence[str], rows: Iterator[Any]) -> int:
    writer = csv.writer(file)
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def _write_json(file: TextIO, columns: Sequence[str], rows: Iterator[Any]) -> int:
    """An array with a line for each row, so that it can be read as lines too."""
    count = 0
    for row in rows:
        file.write("[\n" if not count else ",\n")
        file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _to_sqlite(store: Store, part: Path, tables: Sequence[str]) -> dict[str, int]:
    counts = {}
    with _moment(store) as db, contextlib.closing(apsw.Connection(str(part))) as out:
        out.execute("pragma synchronous=off; begin").fetchall()
        for table in tables:
            columns = _columns(db, table)
            names = ", ".join(f'"{name}"' + (" integer primary key" if name == "id" else "") for name in columns)
            out.execute(f"create table {table}({names})")
            out.executemany(
                f"insert into {table} values ({', '.join('?' * len(columns))})", db.execute(_QUERIES[table])
            )
            counts[table] = int(query.one(out, f"select count(*) from {table}")[0])
        out.execute("commit")
    return counts
