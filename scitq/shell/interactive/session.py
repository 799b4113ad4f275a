"""One session of the shell: the file that is open, and statements that are run, at a terminal or from a script.

A command is run by `cli`, in this process, with the engine that is open: what is submitted here is driven here if nobody else
does. What a command gets wrong is said in a sentence, and the session goes on; also when the mistake is ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scitq.engine import Engine
from scitq.errors import BadInput, ScitqError
from scitq.shell import cli
from scitq.shell.answers import Rows, Text
from scitq.shell.interactive import programs
from scitq.shell.interactive.lines import Does, Statement, complete
from scitq.shell.interactive.python import Python
from scitq.shell.show import Log, Screen, visible
from scitq.shell.surroundings import Surroundings
from scitq.shell.table import COMMANDS

HELP = """Commands are those of scitq without that word: status · task list · launch -- ls -l. Tab completes.
  help COMMAND        options and examples of a command; help alone lists this and the commands
  use FILE            another state file; a new one is made by the first task
  !LINE               a line for your own shell
  COMMAND | LINE      what it prints goes to a line for sh: | less, | grep x | wc -l
  COMMAND > FILE      into a file; >> adds to it
  sql SELECT …        the rest of the line as it is; pipes stand between blanks
  > CODE, py CODE     Python: q is the file, task(12), tasks(status='failed'), wf('qc'), _ the last result; py alone: a prompt
  exit, quit, Ctrl-D  leave; what runs goes on
Several on a line: a; b. A line goes on after \\, an open quote, an open bracket of SQL or Python. Ctrl-R searches what was typed
before; lines that begin with a blank, or set what is called a token, key or password, are not kept."""
ERRORS = "shell-errors.log"


class Left(BaseException):
    """The user leaves."""


class Session:
    """The file, and what is done with it. `on_change` is called when another engine is open than before."""

    def __init__(self, path: Path | None, *, is_interactive: bool, as_json: bool = False) -> None:
        self.is_interactive = is_interactive
        self._always = ["--json"] if as_json else []
        self.path = path
        self.program = cli.program()
        self.on_change: Callable[[], None] = lambda: None
        # Asked before the file is left; False: the user stays.
        self.may_leave: Callable[[], bool] = lambda: True
        # What a prompt for Python is, where there is one.
        self.python_prompt: Callable[[], None] | None = None
        self.surroundings = Surroundings(None, self._screen, is_interactive, self._adopt)
        self.python = Python(lambda: self.engine, self._say)
        # Where what the library logs between two commands is said.
        self.between = Screen()

    @property
    def engine(self) -> Engine | None:
        """The engine of the file, opened anew if it was closed (by scitq down, say); None: there is no file yet."""
        found = self.surroundings.engine
        if found is not None:
            is_over = found._driver is not None and found._driver.ended.is_set()
            if not found._closed and not is_over:
                return found
            self.close()
        if self.path is None or not self.path.exists():
            return None
        return self._adopt(self.path)

    def _adopt(self, path: Path) -> Engine:
        engine = Engine(path)
        self.path, self.surroundings.engine = engine.path, engine
        self.on_change()
        return engine

    def close(self) -> str | None:
        """Let go of the file; gives what stays undone for that."""
        engine, self.surroundings.engine = self.surroundings.engine, None
        if engine is None or engine._closed:
            return None
        stays = engine.remains() if engine._has_driver() else None
        with contextlib.suppress(ScitqError, TimeoutError):
            engine._told = True  # it is said by whoever closes it
            engine.close()
        return stays

    def hear(self) -> None:
        """What the library logs is said on the screen between commands; a command takes it over while it runs."""
        logger = logging.getLogger("scitq")
        logger.handlers[:] = [Log(self.between, with_time=False)]
        logger.setLevel(logging.WARNING)
        logger.propagate = False

    # --- running ----------------------------------------------------------------------------------------------------------

    def run(self, text: str, *, keeps_going: bool = False) -> int:
        """Run what was typed, up to the first failure; gives the exit code of that, or 0.

        Raises:
            Left: it says to leave.
        """
        try:
            found = complete(text)
        except BadInput as problem:
            return self._refused(problem)
        code = 0
        for statement in found:
            ended = self.one(statement)
            code = code or ended
            if code and not keeps_going:
                break
        return code

    def one(self, statement: Statement) -> int:
        """Run one statement; gives its exit code. Nothing that goes wrong comes out of here."""
        try:
            return self._one(statement)
        except (ScitqError, OSError) as problem:
            return self._refused(problem)
        except KeyboardInterrupt:
            return 130
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1 if end.code else 0
        except Exception as mistake:
            return self._mistaken(mistake)
        finally:
            self.hear()

    def _one(self, statement: Statement) -> int:
        match statement.does:
            case Does.SYSTEM:
                if not statement.text:
                    raise BadInput("a command for your own shell is expected after !")
                return programs.system(statement.text, stdin=None if self.is_interactive else programs.NOTHING)
            case Does.PYTHON:
                return self.python.run(statement.text)

        def run() -> int:
            return self._command(list(statement.words))

        if statement.pipe is not None:
            return programs.piped(statement.pipe, run)
        if statement.target is not None:
            return programs.filed(statement.target, run, appends=statement.appends)
        return run()

    def _command(self, words: list[str]) -> int:
        if words and words[0] == "scitq":  # as one has it from another shell
            words = words[1:]
        match words:
            case []:
                return 0
            case ["exit" | "quit"]:
                if not self.is_interactive or self.may_leave():
                    raise Left
                return 0
            case ["exit" | "quit", *_]:
                raise BadInput(f"{words[0]} takes nothing.")
            case ["use", file]:
                return self._use(file)
            case ["use", *_]:
                raise BadInput("which file? use FILE")
            case ["help" | "?"]:
                Screen().out(f"{HELP}\n\nCommands:\n{self._summary()}")
                return 0
            case ["py" | "python"]:
                if self.python_prompt is None:
                    raise BadInput("a line of Python is expected after py.")
                self.python_prompt()
                return 0
            case ["shell", *_]:
                raise BadInput("this is the shell already. To another file: use FILE")
        _ = self.engine  # opened anew, should it have been closed
        try:
            return cli.run(self.program, [*self._always, *words], "scitq", surroundings=self.surroundings)
        finally:
            self._remember_file(words)

    def _remember_file(self, words: list[str]) -> None:
        """A command that made the first file here (`demo`, a script) has made the session's."""
        if self.path is None and words:
            with contextlib.suppress(ScitqError, OSError):
                self.path = there(None)

    def _summary(self) -> str:
        rows: dict[str, list[str]] = {}
        for row in COMMANDS:
            if not row.hidden:
                head, _, rest = row.path.partition(" ")
                rows.setdefault(head, []).append(rest)
        return "\n".join(f"  {head:<11}{' '.join(filter(None, rest))}".rstrip() for head, rest in rows.items())

    def _use(self, file: str) -> int:
        path = Path(file)
        if path.is_dir() or not path.parent.is_dir():
            raise BadInput(f"{file}: {'a folder is no state file' if path.is_dir() else 'its folder is not there'}.")
        if self.is_interactive and not self.may_leave():
            return 0
        before = self.path
        self.close()
        try:
            self._adopt(path)
        except BaseException:
            self.path = before
            _ = self.engine
            raise
        return 0

    # --- what is said -----------------------------------------------------------------------------------------------------

    def _screen(self, as_json: bool) -> Screen:
        return Kept(self.python.keep, as_json=as_json)

    def _say(self, text: str) -> None:
        Screen().say(text)

    def _refused(self, problem: Exception) -> int:
        if isinstance(problem, OSError):
            problem = BadInput(f"{problem.filename}: {problem.strerror}." if problem.filename else f"{problem}.")
        Screen().error(str(problem))
        return 1

    def _mistaken(self, mistake: Exception) -> int:
        """A mistake of ours: one sentence, and where the rest is."""
        said = f"a mistake of scitq's own: {type(mistake).__name__}: {mistake}."
        engine = self.surroundings.engine
        if engine is not None:
            log = engine.side / ERRORS
            with contextlib.suppress(OSError):
                fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                    traceback.print_exception(mistake, file=file)
                said += f" What it was doing: {log}"
        Screen().error(said)
        return 70


class Kept(Screen):
    """A screen that hands on what commands answer, for `_` of Python."""

    def __init__(self, keep: Callable[[Any], None], *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self._keep = keep

    def answer(self, answer: Rows | Text | int | None) -> int:
        if isinstance(answer, Rows):
            self._keep([visible(row) for row in answer.rows])
        elif isinstance(answer, Text):
            self._keep(answer.data)
        return super().answer(answer)


def there(file: str | None) -> Path | None:
    """The state file of this folder, or the one that is named, which need not be there; None: there is none.

    Raises:
        BadInput: there are several to choose from.
    """
    if file:
        return Path(file)
    logger = logging.getLogger("scitq")
    before, logger.disabled = logger.disabled, True
    try:
        from scitq.engine import find

        found = find(None)
    finally:
        logger.disabled = before
    return found if found.exists() or os.environ.get("SCITQ_FILE") else None
