"""An apsw connection that sqlite-utils takes for one of the standard library's: `Connection` and `Cursor`, and nothing else.

sqlite-utils is written for the `sqlite3` module, which must never open a live state file in a process that has it open with
apsw (reference/sqlite.md §1). Here it gets the calls that it makes, answered by apsw, with the standard library's exceptions
(their classes, not its library). Its own test suite passes over this (tests/store/test_sqlite_utils_suite.py).

What differs between the two, and is made equal here, each was a failed test once: a statement's columns can be asked for only
while it has rows; a cached statement may show columns that are gone; a statement that is not read to its end blocks COMMIT;
`with connection` is a savepoint there and a commit here; one call may hold several statements there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import apsw

# The module whose classes sqlite-utils catches: another one than the standard library's where pysqlite3 is installed.
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined] # not declared as exported

Description = tuple[tuple[str, None, None, None, None, None, None], ...]

_PLAIN = (type(None), int, float, str, bytes, bytearray, memoryview)
_BLANK = re.compile(r"(?:\s|\ufeff|;|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_CHANGES = ("INSERT", "REPLACE", "UPDATE", "DELETE")
_SEVERAL: Final[type[Exception]] = sqlite3.Warning if sys.version_info < (3, 12) else sqlite3.ProgrammingError

_CLASSES: dict[int, type[Exception]] = {
    **dict.fromkeys((apsw.SQLITE_INTERNAL, apsw.SQLITE_NOTFOUND), sqlite3.InternalError),
    **dict.fromkeys(
        (
            apsw.SQLITE_ERROR, apsw.SQLITE_PERM, apsw.SQLITE_ABORT, apsw.SQLITE_BUSY, apsw.SQLITE_LOCKED, apsw.SQLITE_READONLY,
            apsw.SQLITE_INTERRUPT, apsw.SQLITE_IOERR, apsw.SQLITE_FULL, apsw.SQLITE_CANTOPEN, apsw.SQLITE_PROTOCOL,
            apsw.SQLITE_EMPTY, apsw.SQLITE_SCHEMA,
        ),
        sqlite3.OperationalError,
    ),
    apsw.SQLITE_TOOBIG: sqlite3.DataError,
    **dict.fromkeys((apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH), sqlite3.IntegrityError),
    **dict.fromkeys((apsw.SQLITE_MISUSE, apsw.SQLITE_RANGE), sqlite3.InterfaceError),
}  # fmt: skip


class Connection:
    """What sqlite-utils asks of a connection. With `isolation_level` None it never begins a transaction by itself."""

    def __init__(self, db: apsw.Connection, *, isolation_level: str | None = None) -> None:
        self.db = db
        self._pid = os.getpid()
        self.row_factory: Callable[..., Any] | None = None
        self._isolation_level = isolation_level

    def cursor(self) -> Cursor:
        """A new cursor."""
        self._must_be_open()
        return Cursor(self)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Run one statement."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterator[Any]) -> Cursor:
        """Run one statement for each set of values."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql: str) -> Cursor:
        """Commit, then run any number of statements."""
        return self.cursor().executescript(sql)

    def commit(self) -> None:
        """End the open transaction, if there is one."""
        self._must_be_open()
        if self.db.in_transaction:
            self._run("COMMIT")

    def rollback(self) -> None:
        """Take the open transaction back, if there is one."""
        self._must_be_open()
        if self.db.in_transaction:
            self._run("ROLLBACK")

    def close(self) -> None:
        """Close; harmless when repeated."""
        with Translated():
            self.db.close(True)

    def interrupt(self) -> None:
        """Stop what runs on this connection, from another thread."""
        self.db.interrupt()

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        self._must_be_open()
        return self.db.in_transaction

    @property
    def total_changes(self) -> int:
        """Rows changed since it was opened."""
        self._must_be_open()
        return self.db.total_changes()

    @property
    def isolation_level(self) -> str | None:
        """None: transactions are the caller's business; else a change begins one."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        if level is None:
            self.commit()
        self._isolation_level = level

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False
    ) -> None:
        """Make `func` callable from SQL."""
        self._must_be_open()
        with Translated():
            self.db.create_scalar_function(name, _guarded(func), narg, deterministic=deterministic)

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Callable[[], Any] | None) -> None:
        """Make an aggregate of a class with `step` and `finalize`."""
        self._must_be_open()
        factory = None
        if aggregate_class is not None:
            made: Callable[[], Any] = aggregate_class

            def factory() -> tuple[Any, Any, Any]:
                return made(), lambda held, *values: held.step(*values), lambda held: held.finalize()

        with Translated():
            self.db.create_aggregate_function(name, factory, n_arg)

    def create_collation(self, name: str, function: Callable[[str, str], int] | None) -> None:
        """Make a collation."""
        with Translated():
            self.db.create_collation(name, function)

    def set_authorizer(self, callback: Callable[..., int] | None) -> None:
        """Ask `callback` before each kind of access."""
        self.db.set_authorizer(callback)

    def enable_load_extension(self, enabled: bool) -> None:
        """Allow `load_extension`."""
        with Translated():
            self.db.enable_load_extension(enabled)

    def load_extension(self, path: str) -> None:
        """Load an SQLite extension."""
        with Translated():
            self.db.load_extension(path)

    def iterdump(self) -> Iterator[str]:
        """The SQL that makes the database anew."""
        from sqlite3.dump import _iterdump  # type: ignore[attr-defined] # what Connection.iterdump calls

        self._must_be_open()
        return iter(_iterdump(self))

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.commit() if kind is None else self.rollback()

    def _must_be_open(self) -> None:
        if os.getpid() != self._pid:
            raise sqlite3.ProgrammingError("An SQLite connection does not survive a fork: open the file again here.")
        try:
            self.db.in_transaction  # noqa: B018 - it raises when the connection is closed
        except apsw.ConnectionClosedError:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.") from None

    def _run(self, sql: str) -> None:
        with Translated():
            self.db.execute(sql, can_cache=False).close()


class Cursor:
    """One statement at a time, read one row ahead as the standard library does: the last row sets the statement free."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: Description | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1
        self.row_factory = connection.row_factory
        self._cursor: apsw.Cursor | None = None
        self._ahead: tuple[Any, ...] | None = None
        self._counts = False

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Run one statement."""
        self.close()
        self.connection._must_be_open()
        db = self.connection.db
        self.description, self.rowcount = None, -1
        blank = _BLANK.match(sql)
        start = blank.end() if blank else 0
        word = found.group().upper() if (found := _WORD.match(sql, start)) else ""
        values = _bound(parameters)
        self._counts = word in _CHANGES
        with Translated():
            if self._counts and self.connection.isolation_level is not None and not db.in_transaction:
                db.execute(f"BEGIN {self.connection.isolation_level}", can_cache=False).close()
            cursor = db.cursor()
            cursor.exec_trace = _Alone(sql[start:])
            self._cursor = cursor
            try:
                # A cached statement shows the columns of before, when another connection has changed the schema.
                cursor.execute(sql[start:], values, can_cache=False)
                # It was needed for the beginning only, and keeps the statement alive.
                cursor.exec_trace = None
                self._ahead = next(cursor, None)
            except BaseException:
                self._cursor = None
                cursor.close(True)
                raise
            if self._ahead is not None:
                self.description = _described(cursor.get_description())
            else:
                self._end()
                self.description = self._columns_of(sql[start:], word, values)
        if word in ("INSERT", "REPLACE"):
            self.lastrowid = db.last_insert_rowid()
        return self

    def executemany(self, sql: str, parameters: Iterator[Any]) -> Cursor:
        """Run one statement for each set of values."""
        total = 0
        for values in parameters:
            self.execute(sql, values)
            total += max(0, self.rowcount)
        self.rowcount = total
        return self

    def executescript(self, sql: str) -> Cursor:
        """Commit, then run any number of statements."""
        self.close()
        self.connection.commit()
        with Translated():
            cursor = self.connection.db.execute(sql.removeprefix("\ufeff"), can_cache=False)
            for _ in cursor:
                pass
        return self

    def fetchone(self) -> Any:
        """The next row, None after the last."""
        return next(self, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next few rows."""
        return [row for _, row in zip(range(self.arraysize if size is None else size), self, strict=False)]

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self)

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> Any:
        self.connection._must_be_open()
        row = self._ahead
        if row is None:
            raise StopIteration
        self._ahead = None
        if self._cursor is not None:
            with Translated():
                self._ahead = next(self._cursor, None)
                if self._ahead is None:
                    self._end()
        return row if self.row_factory is None else self.row_factory(self, row)

    def close(self) -> None:
        """Let go of the statement."""
        cursor, self._cursor, self._ahead = self._cursor, None, None
        if cursor is not None:
            cursor.close(True)

    def _end(self) -> None:
        """The statement has done its work."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close(True)
        if self._counts:
            self.rowcount = self.connection.db.changes()

    def _columns_of(self, sql: str, word: str, values: Any) -> Description | None:
        """The columns of a statement that gave no row: it is prepared once more, and not run."""
        if not sql or (word in _CHANGES and "RETURNING" not in sql.upper()):
            return None
        if word not in (*_CHANGES, "SELECT", "VALUES", "WITH", "PRAGMA", "EXPLAIN"):
            return None
        found: list[Description | None] = []

        def look(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
            found.append(_described(cursor.get_description()))
            return False

        probe = self.connection.db.cursor()
        probe.exec_trace = look
        try:
            probe.execute(sql, values, can_cache=False)
        except apsw.ExecTraceAbort:
            pass
        finally:
            probe.exec_trace = None
            probe.close(True)
        return found[0] if found else None


class _Alone:
    """A tracer that refuses a second statement before the first has run."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def __call__(self, _cursor: apsw.Cursor, statement: str, _bindings: Any) -> bool:
        rest = self.sql[len(statement) :] if self.sql.startswith(statement) else ""
        if _BLANK.fullmatch(rest) is None:
            raise _SEVERAL("You can only execute one statement at a time.")
        return True


class Translated:
    """Raises apsw's errors as the standard library's."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, apsw.Error):
            raise _translation(error) from error


class _FunctionFailed(apsw.SQLError):
    result = extendedresult = apsw.SQLITE_ERROR


def _translation(error: apsw.Error) -> BaseException:
    extended = getattr(error, "extendedresult", 0)
    if not extended:  # apsw's own: closed, wrong number of values, used by two threads
        return sqlite3.ProgrammingError(str(error))
    base = extended & 0xFF
    if base == apsw.SQLITE_NOMEM:
        return MemoryError(str(error))
    found = _CLASSES.get(base, sqlite3.DatabaseError)(str(error))
    names = {**apsw.mapping_result_codes, **apsw.mapping_extended_result_codes}
    found.sqlite_errorcode = extended  # type: ignore[attr-defined]
    found.sqlite_errorname = names.get(extended, names.get(base, "unknown"))  # type: ignore[attr-defined]
    return found


def _bound(parameters: Any) -> Any:
    """Values as apsw takes them; those of other types through the standard library's adapters (dates)."""
    if isinstance(parameters, Mapping):
        return {key: _value(value) for key, value in parameters.items()}
    return tuple([_value(value) for value in parameters])


def _value(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return value
    adapted = sqlite3.adapt(value, sqlite3.PrepareProtocol, value)
    if not isinstance(adapted, _PLAIN):
        raise sqlite3.ProgrammingError(f"Error binding parameter: type '{type(value).__name__}' is not supported")
    return adapted


def _described(columns: Sequence[Sequence[Any]]) -> Description | None:
    return tuple((str(column[0]), None, None, None, None, None, None) for column in columns) or None


def _guarded(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The standard library does not tell what a function raised; its callers expect that."""
    if function is None:
        return None
    wanted = function

    def call(*values: Any) -> Any:
        try:
            return wanted(*values)
        except Exception as error:
            raise _FunctionFailed("user-defined function raised exception") from error

    return call
