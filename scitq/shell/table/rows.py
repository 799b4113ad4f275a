"""What a row of the table is: a command, its options and its arguments. Light: nothing is imported for a row.

A function takes the open engine (None for a row without a file) and the arguments by name, and returns `Rows` or `Text` to
print, or an exit code when it wrote as it went. Printing lives in `show`; parsing in `cli`; completion in `completing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "seconds", "flag", "pair", "two"]
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")
# What the values of an option or argument are, for completion; "words:a,b" names all there are.
TAKES = (
    "task", "batch", "worker", "workflow", "state", "job", "execution", "uri", "file", "folder", "host", "recruiter", "image",
    "flavor", "provider", "region", "kind", "command", "topic",
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """`--flag VALUE`. The last of `flags` names it in the function's arguments, unless `key` does."""

    flags: tuple[str, ...]
    help: str
    kind: Kind = "text"
    many: bool = False
    metavar: str | None = None
    default: Any = None
    key: str | None = None
    hidden: bool = False
    takes: str | None = None

    @property
    def name(self) -> str:
        """The function's name for it."""
        return self.key or self.flags[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Argument:
    """A word by its place. `many`: all that are left."""

    name: str
    many: bool = False
    required: bool = True
    metavar: str | None = None
    takes: str | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Command:
    """One row. `file`: whether the state file is made when there is none, must be there, or is not opened at all."""

    path: str
    does: str
    help: str
    parameters: tuple[Option | Argument, ...] = ()
    file: Literal["made", "there", "none"] = "there"
    # Whether this process may become the driver: never, always, or when one of these arguments is given.
    drives: bool | tuple[str, ...] = False
    # The first word that is no option begins the user's command: options after it are the command's own.
    wraps: bool = False
    hidden: bool = False
    # Other words for the last one of the path: `task ls` for `task list`.
    aliases: tuple[str, ...] = ()
    # Whole command lines, shown by --help; the tests run each of them (tests/shell/test_examples.py).
    examples: tuple[str, ...] = ()
    # What --json prints, by its name in `scitq.shell.schemas`.
    schema: str | None = None
    # It only reads: a copy of the file that is driven elsewhere answers it, too.
    reads: bool = False
    # It needs a terminal of its own, or writes as it goes for as long as it likes.
    terminal: bool = False

    def function(self) -> Callable[..., Any]:
        """What does it, imported now."""
        module, name = self.does.split(":")
        found: Callable[..., Any] = getattr(import_module(f"scitq.shell.{module}"), name)
        return found
