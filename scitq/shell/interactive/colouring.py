"""The colours of a line that is edited: commands, options, strings, SQL and Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from scitq.shell import completing
from scitq.shell.interactive.lines import Does, Kind, Statement, scan, statements

if TYPE_CHECKING:
    from pygments.lexer import Lexer as Pygments

STYLE = {
    "command": "bold ansigreen", "unknown": "ansired underline", "option": "ansicyan", "string": "ansiyellow", "sign": "bold ansimagenta",
    "comment": "ansibrightblack", "keyword": "bold ansiblue", "number": "ansimagenta", "function": "ansicyan",
    "prompt": "bold ansicyan", "prompt.bad": "bold ansired", "continuation": "ansibrightblack",
    "bottom-toolbar": "noreverse", "auto-suggestion": "ansibrightblack",
}  # fmt: skip
OURS = ("help", "use", "exit", "quit", "py", "python")


class Colours(Lexer):
    """Colours for the shell, or for its Python prompt."""

    def __init__(self, *, is_python: bool = False) -> None:
        self._is_python = is_python

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        text = document.text
        styles = [""] * len(text)
        try:
            for start, end, style in _python(text, 0) if self._is_python else _spans(text):
                styles[start:end] = [f"class:{style}"] * (end - start)
        except Exception:  # colours are no reason to lose what was typed
            styles = [""] * len(text)
        lines = list(_lines(text, styles))
        return lambda number: lines[number] if number < len(lines) else []


def _lines(text: str, styles: list[str]) -> Iterator[StyleAndTextTuples]:
    line: StyleAndTextTuples = []
    for char, style in zip(text, styles, strict=True):
        if char == "\n":
            yield line
            line = []
        else:
            line.append((style, char))
    yield line


def _spans(text: str) -> Iterator[tuple[int, int, str]]:
    for statement in statements(text):
        start, end = statement.start, statement.end
        match statement.does:
            case Does.SYSTEM:
                yield start, start + 1, "sign"
            case Does.PYTHON:
                code = end - len(statement.text)
                yield start, code, "sign"
                yield from _python(statement.text, code)
            case Does.SQL:
                yield start, start + 3, "command"
                yield from _pygments(_sql_lexer(), text[start + 3 : end], start + 3)
            case Does.COMMAND:
                yield from _command(text, statement)


def _command(text: str, statement: Statement) -> Iterator[tuple[int, int, str]]:
    path: list[str] = []
    is_path = True
    for piece in scan(text[: statement.end], statement.start):
        match piece.kind:
            case Kind.COMMENT:
                yield piece.start, piece.end, "comment"
            case Kind.PIPE:
                yield piece.start, piece.start + 1, "sign"
            case Kind.TO | Kind.ONTO | Kind.END:
                yield piece.start, piece.end, "sign"
            case Kind.WORD if piece.text.startswith("-") and not piece.is_quoted:
                yield piece.start, piece.end, "option"
            case Kind.WORD if is_path:
                path.append(piece.text)
                word = piece.text
                ours = len(path) == 1 and word in OURS
                known = True if ours else completing.is_known(path)
                is_typed_on = piece.end == len(text)
                if len(path) == 1 and word == "scitq":
                    path.clear()
                    known = None
                elif known is False and is_typed_on:
                    known = None if completing.candidates(None, path[:-1], word) or _begins(path, word) else False
                if known is False:
                    yield piece.start, piece.end, "unknown"
                else:
                    yield piece.start, piece.end, "command"
                is_path = known is None and (not is_typed_on)
            case Kind.WORD if piece.is_quoted:
                yield piece.start, piece.end, "string"


def _begins(path: list[str], word: str) -> bool:
    return len(path) == 1 and any(one.startswith(word) for one in OURS)


def _python(text: str, offset: int) -> Iterator[tuple[int, int, str]]:
    from pygments.lexers.python import PythonLexer

    return _pygments(PythonLexer(stripnl=False, ensurenl=False), text, offset)


def _sql_lexer() -> Pygments:
    from pygments.lexers.sql import SqlLexer

    return SqlLexer(stripnl=False, ensurenl=False)


def _pygments(lexer: Pygments, text: str, offset: int) -> Iterator[tuple[int, int, str]]:
    from pygments.token import Token

    kinds = (
        (Token.Keyword, "keyword"), (Token.Operator.Word, "keyword"), (Token.Literal.String, "string"), (Token.Literal.Number, "number"),
        (Token.Comment, "comment"), (Token.Name.Function, "function"), (Token.Name.Builtin, "function"),
    )  # fmt: skip
    at = offset
    for kind, piece in lexer.get_tokens(text):
        for known, style in kinds:
            if kind in known:
                yield at, min(at + len(piece), offset + len(text)), style
                break
        at += len(piece)
