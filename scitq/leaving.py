"""Leaving while there is work that this process drives: what may become of that, asked in the same words wherever one leaves.

The question and its answers are pure; the deeds behind them may be repeated. A driver that is left behind stands by before ours
lets go, so that a kill at any moment leaves one that drives, or the file as it was.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.errors import DriverError
from scitq.hints import command_for, driver_of
from scitq.saying import clean, duration, several
from scitq.states import LIVE, TaskState
from scitq.worker import LOCAL

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.store.lease import Holder

# So long a driver that is left behind has to begin.
START_S = 20.0
_QUEUED = frozenset({TaskState.PENDING, TaskState.WAITING, TaskState.PAUSED, TaskState.DEBUG})


class Way(Enum):
    """What may become of the work."""

    KEEP = "keep working"
    DETACH = "detach"
    STOP = "stop"
    STAY = "cancel"

    @property
    def letter(self) -> str:
        """The key that chooses it."""
        return self.value[0]


@dataclass(frozen=True)
class Offer:
    """The question, and what each letter means; any other answer is to stay."""

    text: str
    ways: Mapping[str, Way]

    def way(self, answer: str) -> Way:
        """What an answer means: its first letter counts."""
        return self.ways.get(answer.strip().lower()[:1], Way.STAY)


def offer(counts: Mapping[TaskState, int], name: str, *, has_elsewhere: bool) -> Offer | None:
    """What to ask who leaves a file that this process drives; None when nothing is left to do. Pure.

    `has_elsewhere`: there are workers on other machines, which could be given work for a while.
    """
    live, queued = _total(counts, LIVE), _total(counts, _QUEUED)
    if not live and not queued:
        return None
    parts = [f"{several(live, 'task')} at workers"] if live else []
    parts += [f"{queued:,} queued" if live else f"{several(queued, 'task')} queued"] if queued else []
    ways = [way for way in Way if way is not Way.KEEP or has_elsewhere]
    said = {
        Way.KEEP: "workers elsewhere get as much as they can do until somebody drives again",
        Way.DETACH: "a driver stays behind, and all goes on",
        Way.STOP: f"what runs goes on{', the rest waits for scitq up' if queued else ', and is brought home by scitq up'}",
        Way.STAY: "stay here",
    }
    choices = "; ".join(f"[{way.letter}]{way.value[1:]}: {said[way]}" for way in ways)
    return Offer(f"Leave {clean(name)}, with {' and '.join(parts)}? {choices}.", {way.letter: way for way in ways})


def _total(counts: Mapping[TaskState, int], states: frozenset[TaskState]) -> int:
    return sum(counts.get(state, 0) for state in states)


def of(engine: Engine, *, undriven: bool = False) -> Offer | None:
    """What to ask who leaves this file now; None when nothing is left to do, or another process drives. `undriven`: also when
    nobody does."""
    drives = engine.is_driving
    if not drives and not (undriven and driver_of(engine) is None):
        return None
    has_elsewhere = drives and any(row.kind != LOCAL for row in engine.workers())
    return offer(engine.counts(), engine.path.name, has_elsewhere=has_elsewhere)


def ask(engine: Engine, ask: Callable[[Offer], str]) -> Way | None:
    """Ask, if there is anything to ask: what was chosen; None: leave, there was nothing to ask."""
    found = of(engine)
    return None if found is None else found.way(ask(found))


def carry_out(engine: Engine, way: Way) -> list[str]:
    """Do what was chosen before this process leaves; returns what there is to say. After KEEP and DETACH it drives no more.

    Raises:
        DriverError: the driver to be left behind did not begin; this process goes on driving.
    """
    if way is Way.DETACH:
        return [Behind(engine).told]
    if way is Way.KEEP:
        said = handed(engine.handoff())
        engine.step_down()
        return [*said, f"You can leave. {command_for(engine, 'up')} brings everything home."]
    return []


def handed(told: Mapping[str, Any]) -> list[str]:
    """What a handoff gave to whom, in sentences."""
    parts = []
    for one in told["workers"]:
        after = f", {one['after']} of them after others it also holds" if one["after"] else ""
        work = duration(3600 * one["hours"])
        parts.append(f"{clean(one['worker'])} has {work} of work ({several(one['tasks'], 'task')}{after})")
    said = [f"Handed over: {'; '.join(parts) or 'nothing, for no worker elsewhere is there'}."]
    for what, why in (
        ("tied", "for files that only this machine has"),
        ("gpus", "for a GPU: which one is free is seen only while scitq drives"),
    ):
        if told[what]:
            names = told["names"][what]
            more = ", …" if told[what] > len(names) else ""
            wait = "waits" if told[what] == 1 else "wait"
            said.append(clean(f"{several(told[what], 'task')} {wait} {why} ({', '.join(names)}{more})."))
    if told["left"]:
        said.append(f"{several(told['left'], 'task')} found no room.")
    return said


# --- a driver left behind ---------------------------------------------------------------------------------------------------


class Behind:
    """A driver that outlives this process, started now; made once it drives. `pid` drives; `is_ours` if that is the new one.

    Raises:
        DriverError: it ended at once; the text has what its log says. This process drives on if it did.
    """

    def __init__(self, engine: Engine, *, until_done: bool = False, take_over: bool = False) -> None:
        self.log = engine.side / "driver.log"
        before = self.log.stat().st_size if self.log.exists() else 0
        replaced = engine.driver() if take_over or engine.is_driving else None
        drove = engine.is_driving
        child = _spawn(engine.path, self.log, until_done=until_done, take_over=take_over)
        if drove:
            engine.step_down()
        holder = _await_driver(engine, child, None if replaced is None else replaced.epoch)
        if holder is None:
            if drove:
                engine.drive()
            with self.log.open("rb") as file:
                file.seek(before)
                told = file.read().decode(errors="replace").strip().splitlines()[-5:]
            raise DriverError(
                "the driver ended at once. Its log says:\n"
                + "\n".join(told or ["(nothing)"])
                + f"\nThe log is {self.log}"
            )
        self.pid = holder.pid
        self.is_ours = holder.pid == child
        self.told = f"{engine.path.name} is driven by pid {self.pid}. Its log: {os.path.relpath(self.log)}. To stop it: scitq down"


def _spawn(path: Path, log: Path, *, until_done: bool, take_over: bool) -> int:
    # -P: the folder one happens to be in must not lend its modules to a driver that stays for weeks.
    program = [sys.executable, "-P", "-m", "scitq", "--file", str(path), "up", "--detached"]
    program += ["--until-done"] if until_done else []
    program += ["--take-over"] if take_over else []
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawn(
            program[0], program, environ(), setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, sink, 1), (os.POSIX_SPAWN_DUP2, sink, 2),
            ],
        )  # fmt: skip
    finally:
        os.close(sink)


def environ() -> dict[str, str]:
    """The environment in which another Python of ours finds this very scitq, wherever it was loaded from."""
    found = dict(os.environ)
    root = str(Path(__file__).parent.parent)
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (found.get("PYTHONPATH"), root)))
    return found


def _await_driver(engine: Engine, child: int, replaced: int | None) -> Holder | None:
    """Whoever drives the file now (somebody else may have been quicker); None when the child ended and nobody does."""
    deadline = time.monotonic() + START_S
    is_alive = True
    while True:
        seen = engine._changes.count
        holder = driver_of(engine)
        if holder is not None and holder.epoch != replaced:
            return holder
        if not is_alive or time.monotonic() > deadline:
            return None
        is_alive = os.waitpid(child, os.WNOHANG) == (0, 0)
        engine._changes.wait(seen, 0.05)
