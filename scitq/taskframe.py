"""`TaskFrame`: the DataFrame that `to_frame()` gives. One of pandas in all ways, whose `plot` can draw a timeline too.

Loads pandas; nobody but `frames` imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from scitq.errors import BadInput
from scitq.frames import timeline
from scitq.states import Outcome
from scitq.store.framing import Span

# Not by `import`: whether their types are known depends on what else is installed.
_Frame: Any = import_module("pandas").DataFrame
_Plots: Any = import_module("pandas.plotting").PlotAccessor
_COLUMNS = ("id", "worker", "started", "ended", "state")
_CODES = {outcome.word: int(outcome) for outcome in Outcome}


class TaskPlots(_Plots):  # type: ignore[misc]
    """pandas' plots, and `timeline`."""

    def timeline(self, ax: Any = None, **options: Any) -> Any:
        """Which worker ran what when: a bar for each row that has begun, coloured by its state; returns the matplotlib `Axes`.

        Raises:
            BadInput: columns are missing, nothing has begun yet, or matplotlib is not installed.
        """
        frame: Any = self._parent
        if missing := [name for name in _COLUMNS if name not in frame]:
            raise BadInput(f"a timeline needs the columns {', '.join(_COLUMNS)}; this frame has no {missing[0]}.")
        rows = frame.loc[frame["started"].notna(), list(_COLUMNS)].sort_values("started")
        spans = [
            Span(
                worker if isinstance(worker, str) else None,
                _ms(started),
                _ms(ended) if ended == ended else None,
                _code(state),
                id,
            )
            for id, worker, started, ended, state in rows.itertuples(index=False)
        ]
        return timeline(spans, ax, **options)


def _ms(at: Any) -> int:
    return int(at.timestamp() * 1000)


def _code(state: str) -> int | None:
    return _CODES.get(state)


class TaskFrame(_Frame):  # type: ignore[misc]
    """A row for each task, as `Tasks.to_frame` says."""

    @property
    def _constructor(self) -> Callable[..., TaskFrame]:
        return TaskFrame

    @property
    def plot(self) -> TaskPlots:
        """Draws: what pandas can, and `plot.timeline()`."""
        return TaskPlots(self)
