"""How far a transfer is, on a terminal: a bar for the whole and one for each file; elsewhere only the sum is kept."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scitq.fetch.progress import Progress
from scitq.shell.answers import clean, duration, size
from scitq.shell.show import Screen

if TYPE_CHECKING:
    from rich.progress import Progress as Display

MOST = 8  # bars of single files at once


class Bars:
    """Listens to one transfer. Called from its threads, one call at a time."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._display: Display | None = None
        self._tasks: dict[str, Any] = {}
        self._began = time.monotonic()
        self.done_bytes = 0
        self.files = 0

    def __enter__(self) -> Bars:
        if self._screen.errors_are_terminal and not self._screen.as_json:
            self._display = _display(self._screen)
            self._display.start()
            self._tasks[""] = self._display.add_task("in all", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def __call__(self, progress: Progress) -> None:
        """One piece of news."""
        if not progress.file:
            self.done_bytes = progress.done_bytes
        elif progress.is_done:
            self.files += 1
        if self._display is None:
            return
        task = self._tasks.get(progress.file)
        if progress.is_done and progress.file:
            if task is not None:
                self._display.remove_task(self._tasks.pop(progress.file))
            return
        if task is None:
            if len(self._tasks) > MOST:
                return
            task = self._tasks[progress.file] = self._display.add_task(_short(progress.file), total=None)
        self._display.update(task, completed=progress.done_bytes, total=progress.total_bytes)

    def warn(self, sentence: str) -> None:
        """A sentence above the bars."""
        if self._display is None:
            self._screen.say(sentence, kind="warning")
        else:
            self._display.console.print(clean(sentence), markup=False, highlight=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def summary(self) -> str:
        """`1.2 GB in 3.1 s, 390 MB/s.`"""
        speed = f", {size(int(self.done_bytes / self.seconds))}/s" if self.done_bytes and self.seconds > 0.05 else ""
        return f"{size(self.done_bytes)} in {duration(self.seconds)}{speed}."


def _display(screen: Screen) -> Display:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Display

    return Display(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, no_color=not screen.has_colour, highlight=False), transient=True, refresh_per_second=5,
    )  # fmt: skip


def _short(name: str) -> str:
    shown = clean(name)
    return shown if len(shown) <= 28 else f"…{shown[-27:]}"
