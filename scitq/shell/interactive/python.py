"""Lines that are Python: evaluated here, with the open file at hand.

`q` is the engine, `task(…)`, `tasks(…)` and `wf(…)` look things up, `_` is the last result: of Python, or the rows of the last
table. What it prints is the value, as Python does; an error shows the lines that the user wrote, not ours.
"""

from __future__ import annotations

import codeop
import linecache
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput

if TYPE_CHECKING:
    from scitq.engine import Engine

_SOURCE = "<line {}>"


class Python:
    """A namespace, and code that is run in it."""

    def __init__(self, engine: Callable[[], Engine | None], say: Callable[[str], None]) -> None:
        self._engine, self._say = engine, say
        self._count = 0
        self._compile = codeop.CommandCompiler()
        self.names: dict[str, Any] = {
            "__name__": "__console__", "__builtins__": __builtins__, "scitq": import_module("scitq"), "task": self._task,
            "tasks": self._tasks, "wf": self._workflow, "_": None,
        }  # fmt: skip

    # --- what the namespace offers ----------------------------------------------------------------------------------------

    def _open(self) -> Engine:
        engine = self._engine()
        if engine is None:
            raise BadInput("no state file is open: use FILE")
        return engine

    def _task(self, id_or_name: int | str) -> Any:
        """The task of that number or name."""
        return self._open().task(id_or_name)

    def _tasks(self, **conditions: Any) -> Any:
        """The tasks that meet conditions: status, batch, name, limit."""
        return self._open().tasks(**conditions)

    def _workflow(self, name: str) -> Any:
        """The workflow of that name."""
        return self._open().workflow(name)

    def keep(self, value: Any) -> None:
        """What `_` is from now on."""
        if value is not None:
            self.names["_"] = value

    def refresh(self) -> None:
        """The engine may be another one by now."""
        self.names["q"] = self._engine()

    # --- running ----------------------------------------------------------------------------------------------------------

    def run(self, code: str) -> int:
        """Run some code; gives 0, or 1 after an error, which was shown."""
        self.refresh()
        self._count += 1
        name = _SOURCE.format(self._count)
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        before, sys.displayhook = sys.displayhook, self._display
        try:
            compiled = self._compile(code, name, "single") or self._compile(code + "\n", name, "single")
            if compiled is None:
                raise SyntaxError("the code ends too early")
            exec(compiled, self.names)
        except SystemExit:
            raise
        except KeyboardInterrupt:
            # Where it came out of an exec of a text, Python remembers it, and would end itself by SIGINT when we leave, hours later.
            exec("")
            self._say("KeyboardInterrupt")
            return 130
        except BaseException as error:
            self._say("".join(_told(error)).rstrip("\n"))
            return 1
        finally:
            sys.displayhook = before
            sys.stdout.flush()
            sys.stderr.flush()
        return 0

    def _display(self, value: Any) -> None:
        if value is not None:
            self.names["_"] = value
            print(repr(value))


def _told(error: BaseException) -> list[str]:
    """The traceback of the user's lines."""
    told = traceback.TracebackException.from_exception(error)
    queue = [told]
    while queue:
        one = queue.pop()
        one.stack = traceback.StackSummary.from_list(
            [frame for frame in one.stack if frame.filename.startswith("<line ")]
        )
        queue += [other for other in (one.__cause__, one.__context__) if other is not None]
    return list(told.format())
