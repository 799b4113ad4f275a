"""What may stand next in a query or a condition: columns of the views, words of SQL, and values of the columns that have few."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from scitq.shell.completing import Candidate

if TYPE_CHECKING:
    import apsw

KEYWORDS = (
    "select", "from", "where", "group by", "order by", "having", "limit", "join", "left join", "on", "as", "and", "or", "not", "in",
    "is null", "is not null", "like", "glob", "between", "case", "when", "then", "else", "end", "desc", "asc", "distinct", "union all",
    "with",
)  # fmt: skip
_OF_CONDITIONS = ("and", "or", "not", "in", "is null", "is not null", "like", "glob", "between")
FUNCTIONS = (
    "count(", "sum(", "avg(", "min(", "max(", "round(", "coalesce(", "iif(", "length(", "lower(", "upper(", "substr(", "instr(",
    "abs(", "total(", "group_concat(", "datetime(", "date(", "strftime(", "unixepoch(", "printf(",
)  # fmt: skip
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[\w.]+|[<>=!|]+|\S")
_LAST_WORD = re.compile(r"[\w.]*$")
_AFTER_TABLE = re.compile(r"\b(?:from|join)\s+$", re.IGNORECASE)
# The column that a string which is still open is compared with.
_COMPARED = re.compile(
    r"([\w.]+)\s*(?:=|==|<>|!=|is|is\s+not|like|glob|(?:not\s+)?in\s*\((?:\s*'(?:[^']|'')*'\s*,)*)\s*$", re.IGNORECASE
)


def sql_candidates(db: apsw.Connection | None, text: str, *, is_condition: bool) -> Iterator[Candidate]:
    """What may stand at the end of a query, or of a condition over the view tasks."""
    opened = _open_string(text)
    if opened is not None:
        yield from _values(db, text, opened)
        return
    match = _LAST_WORD.search(text)
    assert match is not None
    before, word = text[: match.start()], match.group()
    from scitq.store import names

    views = names.columns(db) if db is not None else {}
    if not is_condition and _AFTER_TABLE.search(before):
        yield from _words(before, word, [*views, *_TABLES], "table")
        return
    named = {token.lower() for token in _TOKEN.findall(text)} & set(views)
    tables = ["tasks"] if is_condition else sorted(named) or list(views)
    prefix, dot, last = word.rpartition(".")
    if dot:
        yield from _words(f"{before}{prefix}.", last, views.get(prefix.lower()) or _all(views, tables), "column")
        return
    if not before.strip() and not is_condition:
        yield from _words(before, word, ("select ", "with "), "keyword")
        return
    yield from _words(before, word, _all(views, tables), "column")
    yield from _words(before, word, _OF_CONDITIONS if is_condition else KEYWORDS, "keyword")
    if word:
        yield from _words(before, word, FUNCTIONS, "function")


# Tables that people ask though views serve them better.
_TABLES = ("journal", "requirement")


def _all(views: dict[str, list[str]], tables: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(column for table in tables for column in views.get(table, [])))


def _words(before: str, word: str, words: Iterable[str], kind: str) -> Iterator[Candidate]:
    for one in words:
        if one.startswith(word.lower()) and one != word:
            typed = one.upper() if word.isupper() and kind == "keyword" else one
            yield Candidate(before + typed, "", kind, typed)


def _open_string(text: str) -> int | None:
    """Where a string begins that is not closed; None: there is none."""
    at, opened = 0, None
    while at < len(text):
        if text[at] == "'":
            opened = at if opened is None else None
        elif text[at] == '"' and opened is None:
            at = text.find('"', at + 1)
            if at < 0:
                return None
        at += 1
    return opened


def _values(db: apsw.Connection | None, text: str, opened: int) -> Iterator[Candidate]:
    compared = _COMPARED.search(text[:opened])
    if compared is None:
        return
    column = compared.group(1).rpartition(".")[2].lower()
    written = text[opened + 1 :]
    for value in _values_of(db, column, written):
        quoted = value.replace("'", "''")
        if quoted.startswith(written):
            yield Candidate(f"{text[:opened]}'{quoted}'", "", column, value)


def _values_of(db: apsw.Connection | None, column: str, text: str) -> list[str]:
    from scitq.saying import clean
    from scitq.states import JobState, Outcome, TaskState, WorkerState
    from scitq.store import names

    if column in ("state", "status"):
        return list(dict.fromkeys(one.word for states in (TaskState, WorkerState, JobState) for one in states))
    if column in ("cause", "outcome"):
        return [one.word for one in Outcome]
    look = {"batch": names.batches, "worker": names.workers, "workflow": names.workflows}.get(column)
    if db is None:
        return []
    if look is not None:
        found = look(db, text, 100)
    elif column == "name":
        found = [one.name for one in names.tasks_named(db, text, 100) if one.name]
    else:
        found = []
    return [value for value in found if clean(value) == value]
