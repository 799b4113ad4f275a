"""The completion menu: where the cursor stands in what was typed, what may come there, and how it is to be written there."""

from __future__ import annotations

import os
import re
import rlcompleter
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from scitq.shell import completing
from scitq.shell.completing import Candidate
from scitq.shell.interactive.colouring import OURS
from scitq.shell.interactive.lines import Does, Kind, Piece, Statement, scan, statements

if TYPE_CHECKING:
    from scitq.shell.interactive.session import Session
    from scitq.shell.listings import Listings

_OURS = {
    "help": "What there is, and how it is used.", "use": "Another state file.", "exit": "Leave; what runs goes on.",
    "quit": "Leave; what runs goes on.", "py": "Python.", "python": "Python.",
}  # fmt: skip
_DOTTED = re.compile(r"[A-Za-z_][\w.]*$")
# Kinds after which one goes on typing in the same word.
_GOES_ON = (
    "folder",
    "column",
    "keyword",
    "function",
    "table",
    "state",
    "batch",
    "cause",
    "worker",
    "name",
    "workflow",
    "outcome",
)


@dataclass(frozen=True)
class Spot:
    """Where the cursor is: after these words, in a word that begins at `start` and was opened by a quote, or not."""

    words: tuple[str, ...]
    incomplete: str
    start: int
    quote: str = ""
    takes_files: bool = False


class Menu(Completer):
    """What comes up while one types."""

    def __init__(self, session: Session, listings: Listings, *, is_python: bool = False) -> None:
        self._session, self._listings, self._is_python = session, listings, is_python

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        try:
            found = list(self._python(text) if self._is_python else self._all(text))
        except Exception:  # the file may just be closing; a menu is no reason to disturb who types
            return
        yield from found

    def _all(self, text: str) -> Iterator[Completion]:
        last = _last(text)
        if last is not None and last.does is Does.PYTHON:
            yield from self._python(last.text)
            return
        spot = spot_of(text, last)
        if spot is None:
            return
        for one in self._candidates(spot):
            yield Completion(
                written(one, spot), start_position=spot.start - len(text), display=one.label, display_meta=one.help,
            )  # fmt: skip

    def _candidates(self, spot: Spot) -> Iterator[Candidate]:
        if spot.takes_files:
            yield from completing.files(spot.incomplete)
            return
        words = [*spot.words]
        if words[:1] == ["scitq"]:
            del words[0]
        if words[:1] == ["use"]:
            yield from (
                one for one in completing.files(spot.incomplete) if one.kind == "folder" or one.text.endswith(".scitq")
            )
            return
        elif not words:
            yield from (
                Candidate(word, _OURS[word], "command")
                for word in OURS
                if word != "help"  # a command of the table, too
                if spot.incomplete and word.startswith(spot.incomplete)
            )
        yield from completing.candidates(
            self._session.surroundings.engine, words, spot.incomplete, listings=self._listings
        )

    def _python(self, code: str) -> Iterator[Completion]:
        found = _DOTTED.search(code)
        word = found.group() if found else ""
        if not word and not code.strip():
            return
        self._session.python.refresh()
        completer = rlcompleter.Completer(self._session.python.names)
        seen = set()
        for number in range(completing.MOST):
            match = completer.complete(word, number) if word else None
            if match is None:
                break
            name = match.rstrip("() :")
            if name in seen or (
                name.rpartition(".")[2].startswith("_") and not word.rpartition(".")[2].startswith("_")
            ):
                continue
            seen.add(name)
            yield Completion(name, start_position=-len(word), display=name.rpartition(".")[2])


def _last(text: str) -> Statement | None:
    """The statement in which the end of the text stands; None: a new one."""
    found = statements(text)
    if not found or found[-1].end < len(text.rstrip(" \t")):
        return None
    last = found[-1]
    between = text[last.end :]
    return (
        None
        if last.end and (text[last.end - 1 : last.end] in (";", "\n") or ";" in between or "\n" in between)
        else last
    )


def spot_of(text: str, last: Statement | None) -> Spot | None:
    """Where the cursor is in commands and queries; None: in something of another program's."""
    if last is None:
        return Spot((), "", len(text))
    if last.does is Does.SYSTEM:
        word = re.split(r"[\s;|&<>]", text)[-1].lstrip("!")
        return Spot((), word, len(text) - len(word), takes_files=True) if word else None
    if last.does is Does.SQL:
        at = text.index("sql", last.start) + 3
        if not text[at : at + 1].isspace() or last.pipe is not None:
            return None if last.pipe is not None else Spot((), "sql", last.start)
        pieces = list(scan(text[at:]))
        if (
            pieces
            and pieces[0].text.startswith("-")
            and pieces[-1].text.startswith("-")
            and pieces[-1].end == len(text) - at
        ):
            return Spot(("sql",), pieces[-1].text, at + pieces[-1].start)
        query = text[at:].lstrip()
        start = len(text) - len(query)
        if query[:1] in "'\"" and query:
            query, start = query[1:], start + 1
        return Spot(("sql",), query, start, "raw")
    return _in_command(text, last)


def _in_command(text: str, last: Statement) -> Spot | None:
    words: list[str] = []
    before: Piece | None = None
    pieces = list(scan(text, last.start))
    for number, piece in enumerate(pieces):
        is_end = number == len(pieces) - 1 and piece.end == len(text)
        takes_files = before is not None and before.kind in (Kind.TO, Kind.ONTO)
        if piece.kind in (Kind.PIPE, Kind.COMMENT):
            return None
        if piece.kind is Kind.WORD:
            if is_end:
                typed = text[piece.start :]
                word = typed if typed.startswith("~") else piece.text
                return Spot(tuple(words), word, piece.start, piece.open, takes_files=takes_files)
            if not takes_files:
                words.append(piece.text)
        before = piece
    return Spot(tuple(words), "", len(text), takes_files=before is not None and before.kind in (Kind.TO, Kind.ONTO))


def written(one: Candidate, spot: Spot) -> str:
    """A candidate as it has to stand on the line: quoted where it must be, with the quote that was opened."""
    text = one.text
    if spot.quote == "raw":
        return text
    goes_on = one.kind in _GOES_ON
    if spot.quote == '"' or (spot.quote == "'" and "'" in text):
        escaped = re.sub(r'(["\\$`])', r"\\\1", text)
        return f'"{escaped}' + ("" if goes_on else '"')
    if spot.quote == "'":
        return f"'{text}" + ("" if goes_on else "'")
    if text.startswith("~/"):
        return "~/" + (shlex.quote(text[2:]) if text[2:] else "")
    if one.kind in ("uri", "action") and "://" in text and shlex.quote(text.replace("|", "")) == text.replace("|", ""):
        return text  # a | in an address needs no quotes here
    quoted = shlex.quote(text)
    if quoted != text and goes_on:
        return '"' + re.sub(r'(["\\$`])', r"\\\1", text)
    return quoted if text not in (os.curdir,) else text
