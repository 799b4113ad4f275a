"""What is said at a journey's two ends: what workers were given before nobody drives, and what they bring home afterwards."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.events import Event
from scitq.leaving import handed
from scitq.shell import facts
from scitq.shell.answers import clean, duration, several, size
from scitq.shell.show import Screen
from scitq.states import LIVE, TaskState
from scitq.store import listing, manifests
from scitq.task import TaskRow
from scitq.worker import LOCAL

# What was away for longer than this is told when it comes home.
AWAY_S = 5.0
SETTLE_S = 1.0
# Workers elsewhere need so long at most until they are reached, or cannot be.
MEET_S = 20.0


def hand_over(engine: Engine, args: SimpleNamespace) -> dict[str, Any]:
    """Before the driver stops: give workers elsewhere as much work as they can do, and say how much that is."""
    screen: Screen = args.screen
    if all(row.kind == LOCAL for row in engine.workers()):
        screen.say("There is no worker elsewhere that could go on: scitq worker add HOST")
        return {"workers": [], "tied": 0, "gpus": 0, "left": 0}
    told = engine.handoff(args.hours, send=args.send)
    for sentence in handed(told):
        screen.say(sentence)
    return told


class HomeComing:
    """What ended at the workers while nobody drove: told once, a moment after the file is driven again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        rows = engine.rows(status=LIVE) if facts.driver_of(engine) is None else []
        self._live = [row.id for row in rows]
        self._where = _holders(engine, rows)
        newest: list[Event] = engine.journal(limit=1)
        self._away_s = max(0, facts.now_ms() - newest[0].at_ms) / 1000 if newest else 0.0
        self._since: float | None = None
        self._is_told = not self._live

    def news(self, *, now: bool = False) -> str | None:
        """The sentence, when it is time."""
        if self._is_told:
            return None
        self._since = self._since or time.monotonic()
        rows = listing.select(self._engine._reader(), ids=self._live, limit=len(self._live))
        ended = [row for row in rows if not row.state.is_live]
        waited_s = time.monotonic() - self._since
        is_coming = any(row.state is TaskState.COLLECTING for row in rows)
        settled = waited_s >= (SETTLE_S if self._has_met() and not is_coming else MEET_S)
        if len(ended) < len(rows) and not now and not settled:
            return None
        self._is_told = True
        if not ended and self._away_s < AWAY_S:
            return None
        still = len(rows) - len(ended)
        parts = [f"{several(len(ended), 'task')} came home ({_counted(ended)})" if ended else "nothing ended meanwhile"]
        if still:
            parts.append(f"{still} still {'runs' if still == 1 else 'run'}")
        return f"Awake after {duration(self._away_s)}: {', '.join(parts)}.{self._by_worker(ended)}"

    def _has_met(self) -> bool:
        """Whether workers elsewhere that held something have been heard, as far as they can be."""
        if set(self._where.values()) <= {LOCAL}:
            return True
        driver = self._engine._driver
        return driver is None or driver.has_met()

    def _by_worker(self, ended: list[TaskRow]) -> str:
        """The same for each worker elsewhere: what it finished, and what of it is there."""
        text = ""
        for name in sorted(set(self._where.values()) - {LOCAL}):
            own = [row for row in ended if self._where[row.id] == name]
            row = next((row for row in self._engine.workers() if row.name == name), None)
            if not own:
                why = f": {row.note}" if row is not None and row.note else ""
                text += f"\n{clean(name)}: nothing yet{clean(why)}."
                continue
            bytes_ = manifests.bytes_of(self._engine._reader(), [row.id for row in own])
            outputs = f", {size(bytes_)} of outputs are where they belong" if bytes_ else ""
            text += f"\n{clean(name)}: {len(own)} finished ({_counted(own)}){outputs}, logs complete."
        return text


def _holders(engine: Engine, rows: list[TaskRow]) -> dict[int, str]:
    """Which worker holds each task."""
    held: dict[int, str] = {}
    for worker in engine.workers():
        held |= {int(execution.task): worker.name for execution in engine.held_by(int(worker.id))}
    return {int(row.id): held.get(int(row.id), LOCAL) for row in rows}


def _counted(rows: list[TaskRow]) -> str:
    counts = Counter(row.state for row in rows)
    bad = counts[TaskState.FAILED] + counts[TaskState.CANCELLED]
    return f"{counts[TaskState.SUCCEEDED]} succeeded, {bad} failed"
