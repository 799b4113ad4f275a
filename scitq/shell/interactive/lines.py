"""What was typed becomes statements: words as in a POSIX shell, and what is Python, SQL or another program's.

Pure. One scanner serves running, completing and colouring, so that they never disagree about where a word ends.

    words 'quoted words' and\\ escapes   # a comment
    a; b                                  two statements
    a | rest of the line for sh           a > file   a >> file
    !a line for $SHELL                    sql the rest of the line as it is
    > a line of Python                    py the same

Nothing is replaced in words but a leading ~: no variables, no patterns, which are the tasks' or the engine's. A `|` in a
word with `://` before it belongs to that address, and a `>` counts where a word could begin: `auto:cpu>=8` is one word.
"""

from __future__ import annotations

import codeop
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from scitq.errors import BadInput

_PYTHON = re.compile(r"(>(?!>) ?|py(?:thon)?[ \t]+(?=\S))")
_SQL = re.compile(r"sql(?=\s|$)")
_PIPE_OF_SQL = re.compile(r"\s\|(?!\|)(?=\s)")
_BLANKS = " \t"
_BLANK_LINE = re.compile(r"\n[ \t]+$")


class Kind(Enum):
    """What a piece of a line is."""

    WORD = auto()
    END = auto()  # ; or the end of a line
    PIPE = auto()
    TO = auto()  # > FILE
    ONTO = auto()  # >> FILE
    COMMENT = auto()


@dataclass(frozen=True)
class Piece:
    """A piece of a line, from `start` to `end`. `text`: a word without its quotes. `open`: what it still lacks at the end."""

    kind: Kind
    start: int
    end: int
    text: str = ""
    is_quoted: bool = False
    open: str = ""


class Does(Enum):
    """Who takes a statement."""

    COMMAND = auto()
    SQL = auto()
    SYSTEM = auto()
    PYTHON = auto()


@dataclass(frozen=True)
class Statement:
    """One thing to do. `words` of a command; `text` for the other program or Python; `pipe`: a line for sh that reads it."""

    does: Does
    start: int
    words: tuple[str, ...] = ()
    text: str = ""
    pipe: str | None = None
    target: str | None = None
    appends: bool = False
    # What it still lacks before it can be run: a closing quote, the rest of a block.
    open: str = ""
    end: int = field(default=0, compare=False)


def scan(text: str, at: int = 0) -> Iterator[Piece]:
    """The pieces of commands. After `|` and comments it goes on at the end of the line."""
    size = len(text)
    while at < size:
        char = text[at]
        if char in _BLANKS or text.startswith("\\\n", at):
            at += 1 if char in _BLANKS else 2
        elif char == "#":
            end = _line_end(text, at)
            yield Piece(Kind.COMMENT, at, end)
            at = end
        elif char in ";\n":
            yield Piece(Kind.END, at, at + 1)
            at += 1
        elif char == "|":
            end = _line_end(text, at)
            yield Piece(Kind.PIPE, at, end, text[at + 1 : end].strip())
            at = end
        elif char == ">":
            is_onto = text.startswith(">>", at)
            end = at + (2 if is_onto else 1)
            yield Piece(Kind.ONTO if is_onto else Kind.TO, at, end)
            at = end
        else:
            piece = _word(text, at)
            yield piece
            at = piece.end


def _word(text: str, at: int) -> Piece:
    start, size = at, len(text)
    found: list[str] = []
    quote, is_quoted = "", False
    while at < size:
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
            elif (
                char == "\\" and quote == '"' and text[at + 1 : at + 2] in ('"', "\\", "$", "`", "\n") and at + 1 < size
            ):
                at += 1
                found.append("" if text[at] == "\n" else text[at])
            else:
                found.append(char)
        elif char in "'\"":
            quote, is_quoted = char, True
        elif char == "\\":
            if at + 1 == size:
                return Piece(Kind.WORD, start, size, "".join(found), is_quoted, "\\")
            at += 1
            is_quoted = True
            found.append("" if text[at] == "\n" else text[at])
        elif char in " \t\n;" or (char == "|" and "://" not in text[start:at]):
            break
        else:
            found.append(char)
        at += 1
    word = "".join(found)
    if text[start] == "~" and (word == "~" or word.startswith("~/")) and not quote:
        word = os.path.expanduser(word)
    return Piece(Kind.WORD, start, at, word, is_quoted, quote)


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found


# --- statements ---------------------------------------------------------------------------------------------------------------


def statements(text: str) -> list[Statement]:
    """All of them. The last one may lack something: see `Statement.open`."""
    return list(_statements(text))


def missing(text: str) -> str:
    """What the last statement lacks before it can be run; '' for nothing."""
    found = statements(text)
    return found[-1].open if found else ""


def complete(text: str) -> list[Statement]:
    """The statements of a whole text.

    Raises:
        BadInput: the last one lacks something, or a file or a program after > or | is not said.
    """
    found = statements(text)
    if found and (lacks := found[-1].open):
        raise BadInput(f"the line ends where {_LACKS.get(lacks, 'more')} was expected.")
    return found


_LACKS = {
    "'": "a closing '",
    '"': 'a closing "',
    "\\": "another line",
    "(": "a closing bracket",
    ":": "the rest of a block",
}


def _statements(text: str) -> Iterator[Statement]:
    at = 0
    while at < len(text):
        if text[at] in " \t\n;":
            at += 1
        elif found := _PYTHON.match(text, at):
            statement = _python(text, at, found.end())
            yield statement
            at = statement.end
        elif text[at] == "!":
            end = _joined_end(text, at)
            open = "\\" if text[:end].endswith("\\") and end == len(text) else ""
            yield Statement(Does.SYSTEM, at, text=text[at + 1 : end].strip(), open=open, end=end)
            at = end
        elif found := _SQL.match(text, at):
            statement = _sql(text, at, found.end())
            yield statement
            at = statement.end
        else:
            statement = _command(text, at)
            if statement.words or statement.pipe is not None or statement.target is not None:
                yield statement
            at = statement.end


def _joined_end(text: str, at: int) -> int:
    """The end of a line that backslashes join with the next ones."""
    end = _line_end(text, at)
    while text[:end].endswith("\\") and end < len(text):
        end = _line_end(text, end + 1)
    return end


def _command(text: str, at: int) -> Statement:
    words: list[str] = []
    pipe: str | None = None
    target: str | None = None
    appends, wants_target, open, end = False, False, "", at
    for piece in scan(text, at):
        end = piece.end
        match piece.kind:
            case Kind.END:
                break
            case Kind.PIPE:
                pipe = piece.text
            case Kind.TO | Kind.ONTO:
                wants_target, appends = True, piece.kind is Kind.ONTO
                target = ""
            case Kind.WORD:
                open = piece.open
                if wants_target:
                    target, wants_target = piece.text, False
                else:
                    words.append(piece.text)
    else:
        end = len(text)
        if not open and text.endswith("\\\n"):
            open = "\\"
    return Statement(Does.COMMAND, at, tuple(words), pipe=pipe, target=target, appends=appends, open=open, end=end)


def _sql(text: str, start: int, at: int) -> Statement:
    end, open = sql_end(text, at)
    rest = text[at:end]
    options, query_at = _options_of_sql(rest)
    query = rest[query_at:]
    pipe = None
    for found in _PIPE_OF_SQL.finditer(query):
        if not _open_quote(query[: found.start()]):
            query, pipe = query[: found.start()], query[found.end() :].strip()
            break
    query = query.replace("\\\n", "\n").strip()
    pieces = list(scan(query)) if query[:1] in ("'", '"') else []
    if len(pieces) == 1 and pieces[0].end == len(query) and not pieces[0].open and pieces[0].is_quoted:
        query = pieces[0].text  # as one has it from another shell
    words = ("sql", *options, *(["--", query] if query else []))
    return Statement(Does.SQL, start, words, text=query, pipe=pipe, open=open, end=end)


def _options_of_sql(rest: str) -> tuple[list[str], int]:
    """The options before the query, and where that begins."""
    options: list[str] = []
    for piece in scan(rest):
        is_value = bool(options) and options[-1] in ("--timeout", "-f", "--file")
        if piece.kind is not Kind.WORD or not (is_value or (piece.text.startswith("-") and piece.text != "--")):
            return options, piece.end if piece.kind is Kind.WORD and piece.text == "--" else piece.start
        options.append(piece.text)
    return options, len(rest)


def sql_end(text: str, at: int) -> tuple[int, str]:
    """Where a query ends: at the end of a line with no quote or bracket open; and what it lacks if that does not come."""
    quote, depth, position = "", 0, at
    while position < len(text):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "\n" and depth <= 0 and text[position - 1] != "\\":
            return position, ""
        position += 1
    return position, quote or ("(" if depth > 0 else "\\" if text.rstrip(" \t").endswith(("\\", "\\\n")) else "")


def _open_quote(text: str) -> str:
    quote = ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return quote


def _python(text: str, start: int, at: int) -> Statement:
    """As many lines as make the code whole; of a block, up to an empty line."""
    end = _line_end(text, at)
    while True:
        lacks = python_lacks(text[at:end])
        if not lacks or end >= len(text):
            return Statement(Does.PYTHON, start, text=text[at:end], open=lacks, end=end)
        end = _line_end(text, end + 1)


def python_lacks(code: str) -> str:
    """What code lacks before it can be run: ':' or nothing. What is wrong is whole: Python will say what is wrong."""
    code = _BLANK_LINE.sub("\n", code)  # indented by us, left empty by the user: the end of a block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ":" if codeop.compile_command(code, "<shell>", "single") is None else ""
        except (SyntaxError, ValueError, OverflowError):
            return ""
