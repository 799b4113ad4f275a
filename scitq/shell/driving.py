"""`scitq up` and `scitq down`: a process that drives the file, in this terminal or left behind, and asking it to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.errors import WorkerError
from scitq.leaving import START_S, Behind
from scitq.shell import facts
from scitq.shell.answers import Text, several
from scitq.shell.attention import Attention
from scitq.shell.journeys import HomeComing, hand_over
from scitq.shell.looking import rate
from scitq.shell.show import Screen
from scitq.states import LIVE, TaskState, WorkerState
from scitq.store import listing, summary, tasks, workers
from scitq.store.lease import Holder
from scitq.task import TaskId

# Why `down --wait` drains workers, by which those are known that nobody else has drained.
DRAINED = "scitq down waits for its tasks"
SECOND_CHANCE_S = 2.0
STOP_S = 15.0
AGENT_STOP_S = 3.0
# How often the counts are looked at at most, and the speed: this process has tasks to hand out.
LOOK_S = 0.2
RATE_EVERY_S = 2.0
# What is left must have been paused or suspended for so long before `--until-done` waits no more for it: it may be let go on
# at once, and workers are to hear of it.
HELD_S = 2.0
WAITS_FOR_YOU = 3


# --- up -------------------------------------------------------------------------------------------------------------------------


def up(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Drive the file in this terminal, or leave a driver behind."""
    screen: Screen = args.screen
    holder = facts.driver_of(engine)
    stands_still = holder is not None and holder.stands_still(facts.now_ms())
    takes_over = args.take_over and (holder is None or stands_still or not holder.is_here)
    if holder is not None and not args.until_done and not args.detached and not takes_over:
        said = f"{engine.path.name} is driven already: {holder.describe(facts.now_ms())}."
        if not holder.is_here:
            said += f" If it is not: {facts.command_for(engine, 'up --take-over')}"
        elif stands_still:
            said += f" But it does nothing. {_way_out(engine, holder)}"
        return Text(said, {"pid": holder.pid, "driving": True, "started": False})
    _let_go_of_drain(engine)
    if args.detach:
        return _leave_behind(engine, until_done=args.until_done, take_over=takes_over)
    if args.surroundings is not None and not args.until_done:
        return _drive_from_here(engine, take_over=takes_over)
    if args.detached:
        os.chdir(engine.path.parent)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if takes_over:
        engine.drive(take_over=True)
    return _drive(engine, screen, until_done=args.until_done, may_choose=not args.detached)


def _drive_from_here(engine: Engine, *, take_over: bool) -> Text:
    """In a process that goes on after the command: drive in the background."""
    deadline = time.monotonic() + START_S
    engine.drive(take_over=take_over)
    while True:
        seen = engine._changes.count
        if engine.is_driving or facts.driver_of(engine) is not None or time.monotonic() > deadline:
            break
        engine._changes.wait(seen, 0.05)
    said = f"Driving {engine.path.name} from here, in the background: {facts.counted(engine.counts())}."
    return Text(said, {"pid": os.getpid(), "driving": engine.is_driving, "started": True})


def _way_out(engine: Engine, holder: Holder) -> str:
    return f"{holder.way_out()}: {facts.command_for(engine, 'up --take-over')}"


def _drive(engine: Engine, screen: Screen, *, until_done: bool, may_choose: bool) -> Text | int:
    home = HomeComing(engine)
    before = engine.counts()
    with Attention(engine) as attention:
        engine.drive()
        told = False
        next_rate, speed = 0.0, 0
        held_since: float | None = None
        while True:
            counts = engine.counts()
            if engine.is_driving and not told:
                told = True
                hint = " Ctrl-C stops." if may_choose else ""
                screen.say(f"Driving {engine.path.name}: {facts.counted(counts)}.{hint}")
            if told and (news := home.news()):
                screen.say(news)
            if attention.is_asked_to_end:
                return _stopped(engine, screen, "Asked to end.", 0)
            if attention.interrupts:
                return _interrupted(engine, screen, attention)
            if engine._driver is not None and engine._driver.ended.is_set():
                return _driver_ended(engine, screen)
            if until_done and all(state.is_settled for state in counts):
                if news := home.news(now=True):
                    screen.say(news)
                return _done(screen, before, counts)
            held = summary.held(engine._reader()) if until_done else None
            held_since = None if held is None else held_since or time.monotonic()
            if held is not None and held_since is not None and time.monotonic() - held_since >= HELD_S:
                return _held(engine, screen, held, counts)
            if screen.errors_are_terminal:
                if time.monotonic() >= next_rate:
                    next_rate, speed = time.monotonic() + RATE_EVERY_S, rate(engine)
                screen.status_line(_status_line(engine, counts, speed))
            attention.wait(1.0, at_least_s=LOOK_S)


def _status_line(engine: Engine, counts: dict[TaskState, int], speed: int) -> str:
    return f"{engine.path.name} · {facts.counted(counts)}" + (f" · {speed:,}/min" if speed else "")


def _done(screen: Screen, before: dict[TaskState, int], counts: dict[TaskState, int]) -> Text:
    bad = [state for state in (TaskState.FAILED, TaskState.BLOCKED) if counts.get(state, 0) > before.get(state, 0)]
    note = "Everything is done: " if not bad else "Nothing more can be done: "
    screen.clear_line()
    return Text(
        "",
        {"done": True, "counts": facts.count_words(counts)},
        [note + facts.counted(counts) + "."],
        code=1 if bad else 0,
    )


def _held(engine: Engine, screen: Screen, held: summary.Held, counts: dict[TaskState, int]) -> Text:
    """What is left waits for whoever stopped it, which may take for ever."""
    screen.clear_line()
    notes = [f"Nothing more goes on by itself: {facts.counted(counts)}."]
    if held.paused == 1:
        row = listing.get(engine._reader(), held.first[0])
        notes.append(f"Task {row.label} is paused: {facts.command_for(engine, f'task resume {row.id}')}")
    elif held.paused:
        notes.append(f"{held.paused:,} tasks are paused: {facts.command_for(engine, _RESUME.format('paused'))}")
    notes += [
        f"Batch {name} is stopped: {facts.command_for(engine, f'batch go {facts.quoted(name)}')}"
        for name in held.batches[:5]
    ]
    if held.suspended:
        said = f"{several(held.suspended, 'task')} {'is' if held.suspended == 1 else 'are'} suspended: "
        notes.append(said + facts.command_for(engine, _RESUME.format("running")))
    notes.append(f"Then: {facts.command_for(engine, 'up --until-done')}")
    facts.hush()
    data = {
        "done": False, "counts": facts.count_words(counts),
        "held": {"paused": held.paused, "suspended": held.suspended, "batches": list(held.batches)},
    }  # fmt: skip
    return Text("", data, notes, code=WAITS_FOR_YOU)


_RESUME = "task resume --where \"state='{}'\""


def _stopped(engine: Engine, screen: Screen, why: str, code: int) -> int:
    stays = facts.goes_on(engine.counts())
    facts.hush()
    engine.close()
    screen.say(f"{why} {stays[:1].upper() + stays[1:] + '.' if stays else 'Nothing was queued or running.'}")
    return code


def _driver_ended(engine: Engine, screen: Screen) -> int:
    if engine._driver_problem is not None:
        facts.hush()
        raise engine._driver_problem
    return _stopped(engine, screen, f"{engine.path.name}: stopped by scitq down.", 0)


def _interrupted(engine: Engine, screen: Screen, attention: Attention) -> int:
    """Ctrl-C: nothing more is handed out. A second one within two seconds cancels what there is."""
    counts, path = engine.counts(), engine.path
    stays, again = facts.goes_on(counts), facts.command_for(engine, "up")
    facts.hush()
    screen.clear_line()
    if not stays:
        screen.say("\nStopped; nothing was queued or running.")
        return 130
    screen.say(f"\nStopped: {stays}. To go on: {again}. Ctrl-C again within {SECOND_CHANCE_S:.0f} s cancels all of it.")
    engine.close()
    deadline = time.monotonic() + SECOND_CHANCE_S
    while attention.interrupts < 2 and (left := deadline - time.monotonic()) > 0:
        attention.wait(left)
    if attention.interrupts >= 2:
        with Engine(path) as fresh:
            cancel_everything(fresh, screen, attention)
    return 130


def cancel_everything(engine: Engine, screen: Screen, attention: Attention) -> None:
    """Cancel what is queued and what runs, and stay until workers have said that it ended (or a further Ctrl-C)."""
    count = _cancel(engine, LIVE | facts.QUEUED)
    screen.say(f"Cancelling {several(count, 'task')} …")
    _until_none_runs(engine, screen, attention, attention.interrupts)
    screen.say(f"Cancelled: {facts.counted(engine.counts())}.")


def _cancel(engine: Engine, states: frozenset[TaskState]) -> int:
    # The newest first: a dependent is cancelled before what it requires could block it.
    ids = [row.id for row in engine.rows(status=states, newest_first=True)]
    for start in range(0, len(ids), 1000):
        chunk = ids[start : start + 1000]

        def cancel(db: Any, chunk: list[TaskId] = chunk) -> None:
            for id in chunk:
                tasks.cancel(db, facts.now_ms(), id)

        engine._write(cancel)
    return len(ids)


def _until_none_runs(engine: Engine, screen: Screen, attention: Attention, interrupts: int) -> bool:
    """Drive (or watch the driver) until workers hold nothing; False after Ctrl-C."""
    if facts.live(engine.counts()):
        engine.drive()
    attention.watch(engine)
    while running := facts.live(counts := engine.counts()):
        screen.status_line(f"{engine.path.name} · {several(running, 'task')} still to end · {facts.counted(counts)}")
        attention.wait(1.0, at_least_s=LOOK_S)
        if attention.interrupts > interrupts or attention.is_asked_to_end:
            screen.clear_line()
            return False
    screen.clear_line()
    return True


def _leave_behind(engine: Engine, *, until_done: bool, take_over: bool) -> Text:
    """Start a driver that outlives this terminal; return when it drives."""
    with contextlib.closing(engine):
        behind = Behind(engine, until_done=until_done, take_over=take_over)
        facts.hush()
    return Text(behind.told, {"pid": behind.pid, "driving": True, "started": behind.is_ours, "log": str(behind.log)})


# --- down -------------------------------------------------------------------------------------------------------------------------


def down(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Ask the driver to stop; first, if wanted, let what runs end."""
    screen: Screen = args.screen
    if args.wait and args.cancel:
        args.wait = False
    handed = hand_over(engine, args) if args.keep_working else None
    holder = facts.driver_of(engine)
    running = facts.live(engine.counts())
    if (args.wait or args.cancel) and running and not _drain(engine, screen, cancel=args.cancel):
        return 130
    facts.hush()
    engine.close()
    with Engine(engine.path, drive=False) as fresh:
        successor = _stop_driver(fresh)
        _let_go_of_drain(fresh)
        counts = fresh.counts()
        _stop_agent(fresh, counts)
        answer = _farewell(fresh, holder, successor, counts)
    if handed is None:
        return answer
    notes = [] if answer.code else ["You can close the lid. scitq up brings everything home."]
    return replace(answer, data={**answer.data, "handed": handed}, notes=[*answer.notes, *notes])


def _drain(engine: Engine, screen: Screen, *, cancel: bool) -> bool:
    """Nothing more is handed out; wait until workers hold nothing. False after Ctrl-C."""

    def drain(db: Any) -> None:
        for row in workers.all_of(db):
            if row.state is WorkerState.READY:
                workers.move(db, facts.now_ms(), row.id, WorkerState.DRAINING, DRAINED)

    try:
        engine._write(drain)
        count = _cancel(engine, LIVE) if cancel else facts.live(engine.counts())
        screen.say(
            f"{'Cancelling' if cancel else 'Waiting for'} {several(count, 'task')} … (Ctrl-C: no more waiting, all goes on)"
        )
        with Attention() as attention:
            if _until_none_runs(engine, screen, attention, 0):
                return True
        screen.say(f"Not stopped: {facts.counted(engine.counts())}.")
        return False
    finally:
        if not engine._closed and facts.live(engine.counts()):
            _let_go_of_drain(engine)


def _let_go_of_drain(engine: Engine) -> None:
    """Undo what `down --wait` did to the workers (also if that was killed in the middle)."""
    if not any(row.state is WorkerState.DRAINING and row.note == DRAINED for row in engine.workers()):
        return

    def ready(db: Any) -> None:
        for row in workers.all_of(db):
            if row.state is WorkerState.DRAINING and row.note == DRAINED:
                workers.move(db, facts.now_ms(), row.id, WorkerState.READY)

    engine._write(ready)


def _stop_driver(engine: Engine) -> Holder | None:
    """Ask until nobody drives; gives who does nevertheless (another process that stood by, perhaps)."""
    asked = facts.driver_of(engine)
    if asked is None:
        return None
    engine.stop_driver()
    deadline = time.monotonic() + STOP_S
    while (
        (holder := facts.driver_of(engine)) is not None and holder.epoch == asked.epoch and time.monotonic() < deadline
    ):
        seen = engine._changes.count
        engine._changes.wait(seen, 0.05)
    return holder


def _stop_agent(engine: Engine, counts: dict[TaskState, int]) -> None:
    """Tell this machine's agent to end when it holds nothing; it would leave by itself a minute later."""
    if facts.live(counts) or facts.driver_of(engine) is not None:
        return
    from scitq.remote import local

    def stop() -> None:
        # It may still be waiting for a leftover of a cancelled task; neither that nor its failure is worth waiting for.
        with contextlib.suppress(WorkerError, OSError):
            local.stop(engine.side / "local")

    thread = threading.Thread(target=stop, name="scitq-stop", daemon=True)
    thread.start()
    thread.join(AGENT_STOP_S)


def _farewell(engine: Engine, holder: Holder | None, successor: Holder | None, counts: dict[TaskState, int]) -> Text:
    name, stays = engine.path.name, facts.goes_on(counts)
    code = 0
    if successor is not None:
        who = successor.describe(facts.now_ms())
        same = holder is not None and holder.epoch == successor.epoch
        said = f"{name}: {who} {'does not stop' if same else 'has taken over; end it too, or ask again'}."
        if same and successor.stands_still(facts.now_ms()):
            said += f" {_way_out(engine, successor)}"
        code = 1
    elif holder is None:
        said = f"Nobody drives {name}."
    else:
        said = f"{name} is not driven any more."
    if stays:
        said += f" {stays[:1].upper()}{stays[1:]}. To go on: {facts.command_for(engine, 'up')}"
    data = {
        "stopped": None if holder is None else holder.pid, "driver": None if successor is None else successor.pid,
        "counts": facts.count_words(counts),
    }  # fmt: skip
    return Text(said, data, code=code)
