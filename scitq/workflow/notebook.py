"""A workflow in a notebook: a live table, in the cell that runs it or beside all others; and a debug dialogue through `input()`."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scitq.errors import UnknownWorkflow
from scitq.live import Button, Display, Sight, follow, kernel_shell
from scitq.states import Halt
from scitq.workflow import pictures
from scitq.workflow.asking import Asker
from scitq.workflow.left import Left
from scitq.workflow.overview import Overview, Watch
from scitq.workflow.summary import Summary, summary

if TYPE_CHECKING:
    from scitq.engine import Engine


class Table:
    """Shows a workflow in the cell that calls it first, until nothing more happens by itself. With `stop` other cells run meanwhile,
    so there are buttons; and setting it ends it."""

    def __init__(self, engine: Engine, name: str, stop: threading.Event | None = None) -> None:
        self._watch = Watch(engine, name)
        self._stop = stop or threading.Event()
        buttons = [
            Button("Pause", lambda: _halt(engine, name, Halt.PAUSED)), Button("Go on", lambda: _halt(engine, name, Halt.GO)),
        ]  # fmt: skip
        self._shown = Display(_sight(self._watch.look()), [] if stop is None else buttons)

    def __call__(self, engine: Engine, name: str, refresh: float | None = None) -> Left:
        """As any watcher."""
        try:
            is_over = follow(engine, lambda: _sight(self._watch.look()), self._shown, self._stop)
            return Left.ENDED if is_over else Left.QUIT
        except KeyboardInterrupt:
            return Left.INTERRUPTED
        except UnknownWorkflow:
            return Left.DESTROYED


def watch(engine: Engine, name: str, refresh: float | None = None) -> Left:
    """Show a workflow in this cell, to its end."""
    try:
        return Table(engine, name)(engine, name)
    except UnknownWorkflow:
        return Left.DESTROYED


def _halt(engine: Engine, name: str, wanted: Halt) -> None:
    from scitq.workflow.workflow import halt

    halt(engine, name, wanted)


def _sight(seen: Overview) -> Sight:
    from scitq.hints import counted

    return Sight(
        pictures.of_overview(seen), f"workflow {seen.name} {seen.state}: {counted(seen.counts)}", seen.is_settled
    )


# --- beside all else ------------------------------------------------------------------------------------------------------------

_running: dict[tuple[str, str], Background] = {}


class Background:
    """A run that goes on in a thread, which sees to what a run has at its end: `to_end` is called with who watches it."""

    def __init__(self, engine: Engine, name: str, to_end: Callable[[Callable[..., Left]], Summary]) -> None:
        self.future: Future[Summary] = Future()
        self._engine, self._to_end = engine, to_end
        self._stop = threading.Event()
        self._key = str(engine.path), name
        if (before := _running.get(self._key)) is not None:  # the cell was run again
            before.leave()
        _running[self._key] = self
        self._watch: Callable[..., Left] = self._wait if kernel_shell() is None else Table(engine, name, self._stop)
        threading.Thread(target=self._run, name="scitq-run", daemon=True).start()

    def leave(self) -> None:
        """Follow it no more; it goes on."""
        self._stop.set()
        self._engine._changes.announce()

    @staticmethod
    def _wait(engine: Engine, name: str, refresh: float | None) -> Left:
        from scitq.workflow.running import wait

        return wait(engine, name, refresh)

    def _run(self) -> None:
        try:
            found = self._to_end(self._watch)
        except BaseException as problem:
            self.future.set_exception(problem)
        else:
            self.future.set_result(found)
        finally:
            if _running.get(self._key) is self:
                del _running[self._key]


@dataclass(frozen=True)
class Running(Summary):
    """How a workflow stood when `run(block=False)` had started it. `await` it for how it ends, or for its error."""

    _engine: Engine | None = field(default=None, repr=False, compare=False)
    _begin: Callable[[], Background] | None = field(default=None, repr=False, compare=False)
    _cell: int | None = field(default=None, repr=False, compare=False)

    def __await__(self) -> Generator[Any, None, Summary]:
        assert self._begin is not None
        return asyncio.wrap_future(self._begin().future).__await__()

    def _ipython_display_(self) -> None:
        """The cell that started it has a live table already; any other shows how it stands by now."""
        shell = kernel_shell()
        if shell is not None and shell.execution_count != self._cell and self._engine is not None:
            now = summary(self._engine, self.workflow)
            Display(Sight(now._picture(), str(now)))


def begun(engine: Engine, name: str, to_end: Callable[[Callable[..., Left]], Summary]) -> Running:
    """What `run(block=False)` returns. In a notebook the run is followed from now on; elsewhere when it is awaited."""
    begin = functools.lru_cache(maxsize=1)(functools.partial(Background, engine, name, to_end))
    shell = kernel_shell()
    if shell is not None:
        begin()
    found = summary(engine, name)
    cell = None if shell is None else shell.execution_count
    return Running(found.workflow, found.steps, found.failed, found.run_s, engine, begin, cell)


# --- a dialogue -----------------------------------------------------------------------------------------------------------------


class _Input:
    """What somebody answers in the cell, as the file that a dialogue reads."""

    def isatty(self) -> bool:
        """No terminal."""
        return False

    def readline(self) -> str:
        """An answer; '' where there is nobody to give one."""
        try:
            return input() + "\n"
        except (EOFError, RuntimeError):  # a notebook that is executed by a program
            return ""


def asker() -> Asker:
    """Who asks in a notebook."""
    source: Any = _Input()
    return Asker(source)
