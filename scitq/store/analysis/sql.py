"""Queries that people write: one SELECT, on a connection of its own, within a time limit.

Whatever the text, it can only read: SQLite asks our authorizer before each kind of access, and the connection is read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from scitq.errors import BadInput
from scitq.pictured import Pictured
from scitq.store.faults import explain

if TYPE_CHECKING:
    from scitq.markup import Markup
    from scitq.store.connection import Store

T = TypeVar("T")
LIMIT_S = 30.0
NO_PANDAS = "pandas is not installed here, and data frames are its: pip install 'scitq[notebook]'"
# A notebook shows so many rows, and so much of a value.
SHOWN = 50
SHOWN_CHARACTERS = 200
VIEWS = ("tasks", "executions", "workers", "workflows")

_STEPS = 10_000  # of SQLite's machine between two looks at the clock: about a millisecond
_ALLOWED = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "fts5", "readfile", "writefile", "edit"})
_OTHER_STATEMENT = "only SELECT is possible here (also WITH … SELECT and VALUES), and one statement at a time"
# A piece of an expression as SQLite reads it; what is none of these stands for itself.
_PIECE = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | -- | /\* | .""", re.DOTALL | re.VERBOSE
)
_QUERY = re.compile(r"\s*(?:select|with|values)\b", re.IGNORECASE)
_kept = threading.local()


class Rows(Pictured, list[dict[str, Any]]):
    """The answer to a query: a list of mappings from column to value, and `columns`, which are there without rows too.
    `to_frame()` makes a pandas DataFrame of it.

    Where two columns have one name, the second is `name_2`.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]] = ()) -> None:
        self.columns = _distinct(columns)
        super().__init__(dict(zip(self.columns, row, strict=True)) for row in rows)

    def __repr__(self) -> str:
        return f"<{len(self)} {'row' if len(self) == 1 else 'rows'}: {', '.join(self.columns)}>"

    def _picture(self) -> Markup:
        from scitq.markup import joined, soft, table

        shown = [*self[:SHOWN]]
        cells = [[_shown(value) for value in row.values()] for row in shown]
        right = [at for at, name in enumerate(self.columns) if any(isinstance(row[name], int | float) for row in shown)]
        more = len(self) - len(shown)
        return joined([table(self.columns, cells, right), soft(f"and {more:,} more rows") if more else None])

    def to_frame(self) -> Any:
        """The same as a pandas DataFrame.

        Raises:
            BadInput: pandas is not installed.
        """
        from importlib import import_module

        try:
            pandas: Any = import_module("pandas")
        except ImportError:
            raise BadInput(NO_PANDAS) from None
        return pandas.DataFrame.from_records([tuple(row.values()) for row in self], columns=list(self.columns))


def sql(store: Store, query: str, params: Sequence[Any] | Mapping[str, Any] = (), timeout_s: float = LIMIT_S) -> Rows:
    """The rows of one SELECT.

    Raises:
        BadInput: not a SELECT, or a mistake in it.
        TimeoutError: it took longer than `timeout_s`.
    """
    db = kept(store, "sql", lambda: _connection(store))
    with _explained(store, query), _limited(db, timeout_s):
        return _ask(db, query, params)


def select_ids(
    db: apsw.Connection, where: str, timeout_s: float = LIMIT_S, *, among: Sequence[int] | None = None
) -> list[int]:
    """The numbers of the tasks (of some, if they are given) that meet a condition on the view `tasks`, such as
    `batch = 'x' and state = 'failed'`.

    `db` may be any connection of ours, in a transaction or not: while this runs it can only read.

    Raises:
        BadInput: not an expression, or it names a column that does not exist.
        TimeoutError: it took longer than `timeout_s`.
    """
    _refuse_more_than_expression(where)
    # Parentheses match and nothing is a comment, so what is between ours is one expression: it cannot end the statement,
    # add a clause or comment the rest away. The line break is for the eye only.
    some = "" if among is None else "id in (select value from json_each(?)) and "
    query = f"select id from tasks where {some}(\n{where}\n) order by id"
    try:
        with _reading_only(db), _limited(db, timeout_s):
            return [int(row["id"]) for row in _ask(db, query, () if among is None else (json.dumps(among),))]
    except (apsw.SQLError, apsw.AuthError, apsw.MismatchError, UnicodeError) as error:
        ours = query.index(where)  # ASCII: as many bytes as characters
        raise BadInput(f"where: {_sentence(error, where, ours)}{_hint(db, error, where)}") from error


def columns_of(db: apsw.Connection, view: str) -> list[str]:
    """The columns of a view or table."""
    return [str(name) for _, name, *_ in db.execute(f'pragma table_info("{view}")').fetchall()]


# --- what is allowed ----------------------------------------------------------------------------------------------------------


def authorize(action: int, first: str | None, second: str | None, _database: str | None, _inner: str | None) -> int:
    """SQLite's question whether a statement may do this."""
    if action not in _ALLOWED or (action == apsw.SQLITE_FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS):
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK


def kept(store: Store, kind: str, make: Callable[[], T]) -> T:
    """What this thread keeps for a store, made at its first use. In a forked child it is refused, not inherited."""
    by_store: weakref.WeakKeyDictionary[Store, dict[tuple[str, int], Any]] | None = getattr(_kept, "by_store", None)
    if by_store is None:
        by_store = _kept.by_store = weakref.WeakKeyDictionary()
    mine = by_store.setdefault(store, {})
    key = kind, os.getpid()
    if key not in mine or store.closed:
        mine[key] = make()
    found: T = mine[key]
    return found


def _connection(store: Store) -> apsw.Connection:
    """A connection for queries: read-only, and with the authorizer for life."""
    db = store.connect_reader()
    db.set_authorizer(authorize)
    db.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    return db


@contextlib.contextmanager
def _reading_only(db: apsw.Connection) -> Iterator[None]:
    before = db.authorizer
    db.set_authorizer(authorize)
    try:
        yield
    finally:
        db.set_authorizer(before)


@contextlib.contextmanager
def _limited(db: apsw.Connection, limit_s: float) -> Iterator[None]:
    ends = time.monotonic() + limit_s

    def is_late() -> bool:
        return time.monotonic() > ends

    db.set_progress_handler(is_late, _STEPS)
    try:
        yield
    except apsw.InterruptError as error:
        if not is_late():
            raise  # the store was closed meanwhile
        raise TimeoutError(
            f"the query took longer than {limit_s:g} s and was stopped. Narrow it, allow it more time, or ask a copy: "
            "engine.snapshot()"
        ) from error
    finally:
        db.set_progress_handler(None)


def _ask(db: apsw.Connection, query: str, params: Sequence[Any] | Mapping[str, Any]) -> Rows:
    if "\0" in query:
        raise BadInput("a query cannot contain a NUL character.")
    columns: list[str] = []

    def begin(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        found = [str(column[0]) for column in cursor.get_description()]
        if found and columns:  # whatever may be asked here has columns; a comment has none
            raise BadInput(f"SQL: {_OTHER_STATEMENT}.")
        columns.extend(found)
        return True

    cursor = db.cursor()
    cursor.exec_trace = begin
    try:
        rows = cursor.execute(
            query, params if isinstance(params, Mapping) else tuple(params), can_cache=False
        ).fetchall()
    finally:
        cursor.exec_trace = None
        cursor.close(True)
    if not columns:
        raise BadInput("SQL: there is no statement. For example: select state, count(*) from tasks group by state")
    return Rows(columns, rows)


def _refuse_more_than_expression(where: str) -> None:
    """What is between our parentheses must stay there."""
    depth = 0
    pieces = [piece.group() for piece in _PIECE.finditer(where)]
    if not where.strip():
        raise BadInput("where: the condition is empty. For example: batch = 'x' and state = 'failed'")
    if _QUERY.match(where):
        raise BadInput("where: a condition is wanted, not a query; a query inside it stands in parentheses.")
    for piece in pieces:
        if piece in ("--", "/*"):
            raise BadInput(f"where: a condition has no comments, so no {piece} outside of quotes.")
        if piece in ("'", '"', "`", "["):
            raise BadInput(f"where: a {piece} is never closed.")
        if piece in ("?", "$", "@", "#", ":", ";", "\0"):
            raise BadInput(f"where: {piece!r} has no place in a condition; text stands in 'single quotes'.")
        depth += (piece == "(") - (piece == ")")
        if depth < 0:
            raise BadInput("where: a ) closes nothing.")
    if depth:
        raise BadInput("where: a ( is never closed.")


# --- mistakes -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(store: Store, query: str) -> Iterator[None]:
    """Errors in the query in a sentence that shows where; the file's own as everywhere."""
    try:
        yield
    except apsw.AuthError as error:
        raise BadInput(f"SQL: {_OTHER_STATEMENT} ({error}).") from error
    except apsw.BindingsError as error:
        raise BadInput(f"SQL: the parameters do not fit the query: {error}.") from error
    except KeyError as error:
        raise BadInput(f"SQL: there is no parameter {error}.") from error
    except UnicodeEncodeError as error:
        raise BadInput("SQL: the query is not valid text.") from error
    except UnicodeDecodeError as error:
        raise BadInput("SQL: a value is no valid text; ask for hex(…) of it.") from error
    except (TypeError, OverflowError) as error:
        raise BadInput(f"SQL: a parameter cannot be used: {error}.") from error
    except (apsw.SQLError, apsw.MismatchError, apsw.TooBigError, apsw.RangeError) as error:
        tables = f" There are: {', '.join((*VIEWS, 'journal'))}." if "no such table" in str(error) else ""
        raise BadInput(f"SQL: {_sentence(error, query, 0)}{tables}") from error
    except apsw.Error as error:
        raise explain(error, store.path) from error


def _sentence(error: BaseException, text: str, before: int) -> str:
    """SQLite's word on a mistake, and where in the text it is (`before`: bytes of ours in front of it)."""
    offset = getattr(error, "error_offset", -1) - before
    data = text.encode(errors="replace")
    if not 0 <= offset <= len(data):
        return f"{error}."
    at = len(data[:offset].decode(errors="replace"))
    rest = " ".join(text[at : at + 30].split())
    place = f"from here: {rest}{'…' if len(text) > at + 30 else ''}" if rest else "at its end"
    return f"{error} (character {at + 1}, {place})."


def _hint(db: apsw.Connection, error: BaseException, where: str) -> str:
    if "no such column" not in str(error):
        return ""
    quotes = " Text stands in 'single quotes'." if '"' in where else ""
    return f" Columns: {', '.join(columns_of(db, 'tasks'))}.{quotes}"


def _shown(value: Any) -> str:
    """A value as a notebook shows it."""
    if isinstance(value, bytes):
        value = value[:SHOWN_CHARACTERS].decode(errors="backslashreplace")
    text = "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        wanted, n = name, 1
        while wanted in found:
            n += 1
            wanted = f"{name}_{n}"
        found[wanted] = None
    return tuple(found)
