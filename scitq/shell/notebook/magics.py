"""`%scitq`, `%%scitq`, `%%task`, `%scitq_file`: the command line in a notebook, and cells that are tasks.

Nothing of a line is pasted anywhere: it is split into words, as a shell would, and a word that is `{name}` alone stands for that
Python variable. The file is that of the engine that was opened last among the notebook's variables, else what `scitq.open()` takes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shlex
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from scitq.engine import Engine, find
from scitq.errors import BadInput, Calm, CommandFailed, ScitqError, TaskError
from scitq.handle import Task
from scitq.path import URI
from scitq.shell import cli, submitting
from scitq.shell.completing import candidates, place_of
from scitq.shell.notebook.cell import Cell
from scitq.shell.surroundings import Surroundings
from scitq.shell.table import LAUNCH, Argument, Command, Option

_VARIABLE = re.compile(r"\{([^\W\d]\w*)\}")
_NAME = re.compile(r"[^\W\d]\w*")
# These need no terminal, though they show more on one.
_AT_HOME = ("run", "workflow run")
_NOT_HERE = ("command", "drive", "server")
_TASK = Command(
    "%%task", "",
    """Queue the cell as a task: a script for bash, or for the shell that --shell=NAME says.

    It returns at once, with the task; --wait stays, shows what it writes, and fails if it does. -e NAME gives it a Python
    variable (or one of the environment); a word that is {NAME} alone stands for that variable.""",
    (
        Argument("task_name", required=False, metavar="[NAME]"),
        *(one for one in LAUNCH.parameters if one.name not in _NOT_HERE),
        Option(("-w", "--wait"), "Show what it writes, and wait for its end.", "flag"),
    ),
    file="made",
)  # fmt: skip

_desks: weakref.WeakKeyDictionary[Any, Desk] = weakref.WeakKeyDictionary()


def desk_of(shell: Any) -> Desk:
    """That of this notebook: loading the extension twice is loading it once."""
    if shell not in _desks:
        _desks[shell] = Desk(shell)
    return _desks[shell]


def _literal(magic: Callable[..., Any]) -> Callable[..., Any]:
    """IPython is not to paste variables into its line."""
    magic._ipython_magic_no_var_expand = True  # type: ignore[attr-defined]
    return magic


class Desk:
    """The magics of one notebook, and the file that they are about."""

    def __init__(self, shell: Any) -> None:
        self._shell = weakref.proxy(shell)
        self._file: Path | None = None
        self._own: Engine | None = None

    def register(self) -> None:
        """Bring the magics, and their completion."""
        for kind, name, magic in (
            ("line_cell", "scitq", self.scitq), ("cell", "task", self.task), ("line", "scitq_file", self.file),
        ):  # fmt: skip
            self._shell.register_magic_function(magic, kind, name)
        for key in ("%scitq", "%%scitq", "%%task"):
            self._shell.set_hook("complete_command", self.complete, str_key=key)

    def unregister(self) -> None:
        """Take them away; what is open stays open."""
        for kind, name in (("line", "scitq"), ("cell", "scitq"), ("cell", "task"), ("line", "scitq_file")):
            self._shell.magics_manager.magics[kind].pop(name, None)

    # --- which file -------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine | None:
        """The open engine that lines are about, if there is one."""
        own = [] if self._own is None else [self._own]
        if self._file is not None:
            wanted = os.path.realpath(self._file)
            found = [one for one in (*self._named(), *own) if os.path.realpath(one.path) == wanted]
        else:
            found = self._named() or own
        return max((one for one in found if not one._closed), key=lambda one: one._opened, default=None)

    def _named(self) -> list[Engine]:
        """The open engines among the notebook's variables, and those of its workflows."""
        values = list(self._shell.user_ns.values())
        workflow: Any = getattr(sys.modules.get("scitq.workflow.workflow"), "Workflow", ())
        engines = [one for one in values if isinstance(one, Engine)]
        engines += [one.engine for one in values if isinstance(one, workflow)]
        return [one for one in engines if not one._closed]

    def opened(self, path: Path | None = None) -> Engine:
        """That engine, or else one opened now."""
        found = self.engine
        return found if found is not None else self.adopt(find(path or self._file))

    def adopt(self, path: Path) -> Engine:
        """Open a file, for all lines to come."""
        self._own = Engine(path)
        return self._own

    # --- magics -----------------------------------------------------------------------------------------------------------

    @_literal
    def scitq(self, line: str, cell: str | None = None) -> Any:
        """Any scitq command: %scitq task list --failed. %scitq --help tells all.

        With --json the value of the line is what the command answers: failed = %scitq --json task list --failed
        %%scitq runs each line of the cell. %scitq -f lab.scitq says which file is meant from now on.
        """
        words = self._words(line)
        if cell is None:
            return self._command(words)
        answers = [self._command([*words, *self._words(text)]) for text in _lines(cell)]
        found = [answer for answer in answers if answer is not None]
        return found or None

    @_literal
    def file(self, line: str) -> None:
        """Say which state file %scitq and %%task are about from now on; without a name, tell which it is."""
        words = self._words(line)
        if len(words) > 1:
            raise CommandFailed("%scitq_file takes one file.")
        if words:
            self._file = Path(words[0])
        engine = self.engine
        print(engine.path if engine is not None else self._file or "none is open: %scitq_file FILE")

    @_literal
    def task(self, line: str, cell: str) -> Task | None:
        """Queue the cell as a task: %%task [NAME] [OPTIONS]. %%task --help tells the options."""
        with self._calm():
            given = self._given(line)
            if given is None:
                return None
            screen = Cell()
            name = given.pop("task_name")
            if name is not None and given["name"] not in (None, name):
                raise BadInput(f"two names for one task: {name} and {given['name']}.")
            args = SimpleNamespace(**{**given, "name": name or given["name"]}, command=(cell,))
            args.shell = args.shell or "bash"
            args.env = [self._variable(pair) for pair in args.env]
            engine = self._engine_for(given["_file"])
            wanted = submitting.submission(args, screen)
            if args.test:
                screen.answer(submitting._rehearse(engine, wanted))
                return None
            task = engine.submit(**wanted)
            if not args.wait:
                return task
            self._accompany(engine, task)
            return None

    def _given(self, line: str) -> dict[str, Any] | None:
        try:
            return _task_command().make_context("%%task", self._words(line)).params
        except click.exceptions.Exit:  # --help
            return None
        except click.ClickException as problem:
            raise CommandFailed(f"{problem.format_message()}\nSee %%task --help") from None

    def _engine_for(self, file: str | None) -> Engine:
        if file is None:
            return self.opened()
        wanted = os.path.realpath(file)
        known = [
            one for one in (*self._named(), *([self._own] if self._own else ())) if os.path.realpath(one.path) == wanted
        ]
        return next((one for one in known if not one._closed), None) or self.adopt(Path(file))

    def _accompany(self, engine: Engine, task: Task) -> None:
        """Show what it writes until it is over, and how it ended."""
        screen = Cell()
        try:
            for stream, piece in task.pieces():
                screen.piece(1 + stream, piece)
            task.result()
        except KeyboardInterrupt:
            raise CommandFailed(submitting._goes_on(engine, task), task=task.id) from None
        except TaskError as problem:
            raise CommandFailed(str(problem), task=task.id) from problem
        finally:
            screen.pieces_end()
        screen.say(task.why())

    def _command(self, words: list[str]) -> Any:
        if len(words) == 2 and words[0] in ("-f", "--file"):
            self._file = Path(words[1])
            return None
        self._refuse_terminals(words)
        made: list[Cell] = []

        def screen(as_json: bool) -> Cell:
            made.append(Cell(as_json=as_json))
            return made[-1]

        surroundings = Surroundings(self.engine, screen, is_interactive=True, adopt=self._adopt)
        with self._calm(), _own_log():
            code = cli.run(_program(), words, "scitq", surroundings=surroundings)
        problems = [problem for one in made for problem in one.problems]
        for one in made:
            one.pieces_end()
        if problems:
            raise CommandFailed("\n".join(problems), code=code)
        if code and code != 130:
            raise CommandFailed(f"%scitq {shlex.join(words)}: exit code {code}", code=code)
        data = [value for one in made for value in one.data]
        return None if not data else data[0] if len(data) == 1 else data

    def _adopt(self, path: Path) -> Engine:
        return self.adopt(path if self._file is None else self._file)

    def _refuse_terminals(self, words: list[str]) -> None:
        row = place_of(words).row
        if row is not None and row.terminal and row.path not in _AT_HOME:
            named = "" if self.engine is None else f"-f {shlex.quote(str(self.engine.path))} "
            raise CommandFailed(f"{row.path} needs a terminal. In one: scitq {named}{shlex.join(words)}")

    # --- words ------------------------------------------------------------------------------------------------------------

    def _words(self, line: str) -> list[str]:
        """The words of a line, `{name}` replaced; a list stands for as many words, its option before each."""
        try:
            words = shlex.split(line)
        except ValueError as problem:
            raise CommandFailed(f"{line.strip()}: {problem}.") from None
        found: list[str] = []
        for word in words:
            variable = None if "--" in found else _VARIABLE.fullmatch(word)  # what follows -- is a command of its own
            if variable is None:
                found.append(word)
                continue
            values = self._texts(variable[1])
            flag = found.pop() if found and found[-1].startswith("-") and len(values) != 1 else None
            for value in values:
                found += [value] if flag is None else [flag, value]
        return found

    def _texts(self, name: str) -> list[str]:
        space = self._shell.user_ns
        if name not in space:
            raise CommandFailed(f"{{{name}}}: no variable of this notebook has that name.")
        value = space[name]
        values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        return [_text(name, one) for one in values]

    def _variable(self, pair: str) -> str:
        """`-e NAME`: its value here, in Python or else in the environment."""
        if "=" in pair or not _NAME.fullmatch(pair) or pair not in self._shell.user_ns:
            return pair
        return f"{pair}={_text(pair, self._shell.user_ns[pair])}"

    @contextlib.contextmanager
    def _calm(self) -> Iterator[None]:
        """An error of ours is one sentence."""
        try:
            yield
        except Calm:
            raise
        except ScitqError as problem:
            raise CommandFailed(str(problem), **problem.parts) from problem
        except click.ClickException as problem:
            raise CommandFailed(problem.format_message()) from None

    # --- completion -------------------------------------------------------------------------------------------------------

    def complete(self, _shell: Any, event: Any) -> list[str]:
        """What may stand at the cursor of a line that begins with one of the magics."""
        command, _, rest = event.text_until_cursor.lstrip().partition(" ")
        *before, word = rest.split(" ")
        words = [one for one in before if one]
        if command == "%%task":
            words = ["launch", *words]
        found = candidates(self.engine, words, word)
        skip = len(word) - len(event.symbol)  # IPython replaces what follows the last of its delimiters
        return [one.text[skip:] for one in found if one.text.startswith(word)]


def _text(name: str, value: object) -> str:
    if isinstance(value, Task):
        value = value.output
    if isinstance(value, URI):
        return str(getattr(value, "reference", value))
    if isinstance(value, str | int | float | os.PathLike) and not isinstance(value, bool):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    raise CommandFailed(
        f"{name} is of type {type(value).__name__}: what stands on a line is text, a number, a path or a task."
    )


def _lines(cell: str) -> list[str]:
    """The lines of a cell: empty ones and comments apart, those that end in a backslash joined with the next."""
    found = (line.strip() for line in cell.replace("\\\n", " ").split("\n"))
    return [line for line in found if line and not line.startswith("#")]


@functools.cache
def _program() -> click.Group:
    return cli.program()


@functools.cache
def _task_command() -> click.Command:
    return cli.command(_TASK)


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """A command sets up the library's log for itself: afterwards it is the notebook's again."""
    logger = logging.getLogger("scitq")
    before: Sequence[Any] = (logger.handlers[:], logger.level, logger.propagate)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
