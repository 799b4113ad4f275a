"""Random operations on an engine with a real agent, and on a model: whatever happens, the two agree after each.

What users do is played here; when orders are placed, start and end is the engine's affair. The journal says in which order that
happened, and the model follows it: each entry must be possible there, and in the end everything must be as the model says. At
which point among the entries an operation took effect is not known: there must be one at which all of it makes sense.
Between the operations the agent, its keeper and one of two drivers are killed. At times everything is let go: then every task
must get to its end, and what ran must be what is told.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import apsw
import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import IllegalMove, UnknownBatch
from scitq.events import Event, EventKind
from scitq.handle import Task
from scitq.remote import local
from scitq.states import LIVE, Halt, Outcome, TaskState, Wanted
from scitq.store import executions, journal, query
from scitq.store.check import check
from scitq.task import ExecutionId
from tests.crash.conftest import holder, kill
from tests.model import BAD, Model, Refused, Step, differences, draw

ROUNDS = int(os.environ.get("SCITQ_ROUNDS") or 2)
SEED = int(os.environ.get("SCITQ_SEED") or 1)
OPERATIONS = 100
MOST = 25
BATCHES = ("default", "qc", "align")
DEADLINE_S = 120

WEIGHTS = {
    "submit": 18, "submit_many": 3, "watch": 24, "update": 10, "rewire": 4, "pause": 6, "resume": 6, "cancel": 3, "relaunch": 10,
    "halt": 2, "suspend": 2, "go": 8, "set_batch": 1, "delete": 3, "delete_batch": 1, "many": 3, "shut": 6, "unlock": 4, "rest": 2,
    "kill_agent": 1, "kill_keeper": 1, "kill_driver": 1, "reopen": 1,
}  # fmt: skip

# What a task does after it has said that it runs. `flock` waits for a file that the test holds locked, without looking often.
KINDS = {
    "good": "exit 0",
    "bad": "exit 3",
    "flaky": "[ -e tried.$SCITQ_TASK ] && exit 0; touch tried.$SCITQ_TASK; exit 9",
    "gate": "flock -s gate true",
    "bad gate": "flock -s gate true; exit 4",
}
MAY_SUCCEED = ("good", "flaky", "gate")
MAY_FAIL = ("bad", "flaky", "bad gate")
DRIVER = """
import sys
from scitq.engine import Engine
with Engine(sys.argv[1], linger_s=20) as engine:
    engine.drive()
    print("there", flush=True)
    sys.stdin.read()
"""


class Bench:
    """The engine of this process, another process that drives too, and the model."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path, self.dice = path, dice
        self.side = path.with_name(path.name + ".d")
        self.model = Model()
        self.kinds: list[str] = ["good"]
        self.seen = 0
        self.kills = 0
        self.done: Counter[str] = Counter()
        self.gate: IO[str] | None = None
        self.data = path.with_name("data")
        self.data.touch()
        self.engine = Engine(path, linger_s=20)
        self.engine.drive()
        self.other = self._another()
        self._until(lambda: bool(self.engine.workers()), "a driver")
        self.engine.update_worker("local", concurrency=3, prefetch=2)
        self.follow()

    def close(self) -> None:
        self.unlock(self.dice)
        self.engine.close()
        self.other.kill()
        self.other.communicate()
        if (self.side / "local").is_dir():
            local.stop(self.side / "local")

    def _another(self) -> subprocess.Popen[str]:
        root = str(Path(scitq.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.path)],
            env={**os.environ, "PYTHONPATH": root}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                waiting = [f"{task!r}: {task.why()}" for task in self.engine.tasks() if not task.state.is_settled]
                raise AssertionError(f"{what}: not within {DEADLINE_S} s. {waiting}")
            time.sleep(0.01)

    # --- comparing --------------------------------------------------------------------------------------------------

    def follow(self, operation: Callable[[Model], object] | None = None) -> None:
        """Let the model do the operation, and what happened since the last look, in an order in which it makes sense."""

        def look(db: apsw.Connection) -> tuple[Model | None, list[str], int]:
            events = [event for event in journal.since(db, self.seen, 1 << 30) if event.kind is EventKind.TASK_STATE]
            last = journal.last(db)
            ended = {event.execution for event in events if event.src in LIVE}
            outcomes = {id: executions.outcome_of(db, ExecutionId(id)) for id in ended if id is not None}
            commands = _versions(db, [event.execution for event in events if event.execution is not None])
            problems = [check(db, self.side)]
            for place in range(len(events) + 1) if operation else [len(events)]:
                try:
                    model = self._replay(events, outcomes, place, operation)
                except Refused as problem:
                    problems.append([f"at {place} of {len(events)}: {problem}"])
                    continue
                problems.append(differences(model, db, delays=False))
                # An edit before the order and one after the end leave the same task, but another execution.
                problems[-1] += [
                    f"execution {id} has version {version}"
                    for id, version in commands.items()
                    if id in model.runs and model.runs[id].version != version
                ]
                if not problems[0] and not problems[-1]:
                    return model, [], last
            moves = [f"{e.task}: {e.src and e.src.word} -> {e.dst and e.dst.word} ({e.execution})" for e in events]
            return None, [f"{problem}" for problem in problems if problem] + moves, last

        # In a transaction of writing nobody else writes: all of it is of one moment.
        model, problems, self.seen = self.engine._write(look)
        assert model is not None, "\n".join(problems)
        self.model = model

    def _replay(
        self,
        events: list[Event],
        outcomes: dict[int, Outcome | None],
        place: int,
        operation: Callable[[Model], object] | None,
    ) -> Model:
        model = self.model.copy()
        for number in range(len(events) + 1):
            if number == place and operation:
                with contextlib.suppress(Refused):  # then the file must be as it was, too
                    operation(model)
            if number < len(events):
                self._happen(model, events[number], outcomes)
        return model

    def _happen(self, model: Model, event: Event, outcomes: dict[int, Outcome | None]) -> None:
        assert event.task is not None
        if event.dst is TaskState.ASSIGNED:
            assert event.execution is not None
            model.assign(event.task, event.execution)
        elif event.dst is TaskState.STAGING:
            model.stage(event.task)
        elif event.dst is TaskState.RUNNING:
            model.start(event.task)
        elif event.dst is TaskState.COLLECTING:
            model.collect(event.task)
        elif event.src in LIVE:
            outcome = outcomes.get(event.execution or 0)
            if outcome is None:  # deleted since
                ends = {TaskState.SUCCEEDED: Outcome.SUCCEEDED, TaskState.FAILED: Outcome.FAILED}
                outcome = ends.get(event.dst or TaskState.DEBUG, Outcome.RECALLED)
            elif problem := self._is_wrong(model, event, outcome):
                raise Refused(problem)
            model.end(event.task, outcome)
            if model.tasks[event.task].state is not event.dst:
                raise Refused(f"{event.task} is {model.tasks[event.task].state.word} after its end by {outcome.word}")

    def _is_wrong(self, model: Model, event: Event, outcome: Outcome) -> str | None:
        """An outcome that neither its command nor anybody's wish explains."""
        task, run = model.tasks.get(event.task or 0), model.runs.get(event.execution or 0)
        if task is None or run is None:
            return f"{event.task} is not there"
        is_right = {
            Outcome.SUCCEEDED: self.kinds[run.version] in MAY_SUCCEED,
            Outcome.FAILED: self.kinds[run.version] in MAY_FAIL,
            Outcome.CANCELLED: task.wanted is Wanted.STOPPED,
            Outcome.RECALLED: task.wanted in (Wanted.RECALLED, Wanted.STOPPED),
            Outcome.LOST: self.kills > 0,
        }.get(outcome, False)
        return (
            None if is_right else f"{event.task} ended by {outcome.word}: {self.kinds[run.version]}, {task.wanted.name}"
        )

    def step(self, step: Step) -> None:
        """One operation, and the comparison."""
        name, seed = step
        self.follow()
        getattr(self, name)(random.Random(seed))
        self.done[name] += 1
        self.follow()
        if self.model.tasks:
            id = random.Random(seed).choice(sorted(self.model.tasks))
            assert self.engine.task(id).why()

    # --- operations -------------------------------------------------------------------------------------------------

    def command(self, dice: random.Random) -> tuple[str, int]:
        """A script, and its version."""
        kind = dice.choice(["good", "good", "good", "bad", "flaky", "gate", "gate", "gate", "bad gate"])
        self.kinds.append(kind)
        version = len(self.kinds) - 1
        return f"echo $SCITQ_EXECUTION {version} >> ran; echo out {version}; {KINDS[kind]} # v{version}", version

    def submit(self, dice: random.Random, count: int = 1) -> None:
        if len(self.model.tasks) + count > MOST:
            return self.delete(dice, [id for id, task in self.model.tasks.items() if task.state in BAD])
        requires = self.model.some(dice, dice.choice([0, 0, 0, 1, 1, 2, 3]), hopeful=True)
        batch = dice.choice(BATCHES)
        retry, priority = dice.choice([None, None, 0, 1, 2]), dice.choice([0, 0, 0, 1, -1])
        commands = [self.command(dice) for _ in range(count)]
        common: dict[str, Any] = {"batch": batch, "retry": retry, "priority": priority, "requires": requires}
        options = {**common, "shell": True, "retry_delay": 0.01, "input": dice.choice([None, None, self.data])}
        if count == 1:
            ids = [self.engine.submit(commands[0][0], **options).id]
        else:
            ids = [task.id for task in self.engine.submit_many([text for text, _ in commands], **options)]

        def both(model: Model) -> None:
            for id, (_, version) in zip(ids, commands, strict=True):
                model.submit(id, **common, version=version)

        self.follow(both)

    def submit_many(self, dice: random.Random) -> None:
        self.submit(dice, 5)

    def deed(self, dice: random.Random, real: Callable[[Task], object], name: str, likely: Sequence[int] = ()) -> None:
        for id in dice.sample(likely, 1) if likely and dice.random() < 0.8 else self.model.some(dice):
            with contextlib.suppress(IllegalMove):
                real(self.engine.task(id))
            self.follow(lambda model: getattr(model, name)(id))  # noqa: B023

    def cancel(self, dice: random.Random) -> None:
        self.deed(dice, Task.cancel, "cancel")

    def pause(self, dice: random.Random) -> None:
        self.deed(dice, Task.pause, "pause")

    def resume(self, dice: random.Random) -> None:
        self.deed(dice, Task.resume, "resume")

    def relaunch(self, dice: random.Random) -> None:
        bad = [id for id, task in self.model.tasks.items() if task.state in (TaskState.FAILED, TaskState.CANCELLED)]
        self.deed(dice, Task.relaunch, "relaunch", bad)

    def update(self, dice: random.Random) -> None:
        for id in self.model.some(dice):
            text, version = self.command(dice)
            columns: dict[str, Any] = {"retry": dice.randint(0, 2)}
            columns |= {"batch": dice.choice(BATCHES)} if dice.random() < 0.3 else {}
            columns |= {"priority": dice.randint(-1, 1)} if dice.random() < 0.3 else {}
            # What a worker holds is asked back; nobody waits here until it answers.
            with contextlib.suppress(IllegalMove, TimeoutError):
                self.engine.task(id).update(command=text, timeout=0, **columns)
            self.follow(lambda model: model.update(id, version=version, **columns))  # noqa: B023

    def rewire(self, dice: random.Random) -> None:
        for id in self.model.some(dice):
            requires = [
                other
                for other in self.model.some(dice, dice.randint(0, 3), hopeful=True)
                if other < id or dice.random() < 0.1
            ]
            with contextlib.suppress(IllegalMove, TimeoutError):
                self.engine.task(id).update(requires=requires, timeout=0)
            self.follow(lambda model: model.update(id, requires=requires))  # noqa: B023

    def halt(self, dice: random.Random, wanted: Halt = Halt.PAUSED) -> None:
        name = dice.choice(BATCHES)
        with contextlib.suppress(UnknownBatch):
            if wanted is Halt.GO:
                self.engine.go_batch(name)
            else:
                self.engine.pause_batch(name, suspend=wanted is Halt.SUSPENDED)
        self.follow(lambda model: model.halt(name, wanted))

    def suspend(self, dice: random.Random) -> None:
        self.halt(dice, Halt.SUSPENDED)

    def go(self, dice: random.Random) -> None:
        self.halt(dice, Halt.GO)

    def set_batch(self, dice: random.Random) -> None:
        name, retry = dice.choice(BATCHES), dice.choice([None, 0, 1])
        self.engine.set_batch(name, retry=retry)
        self.follow(lambda model: model.set_batch(name, retry))

    def delete(self, dice: random.Random, chosen: Sequence[int] = ()) -> None:
        ids = chosen or self.model.some(dice, dice.choice([1, 1, 2, 5]))
        with contextlib.suppress(IllegalMove):
            self.engine._delete(ids)
        self.follow(lambda model: model.delete(ids))

    def delete_batch(self, dice: random.Random) -> None:
        name = dice.choice(BATCHES)
        with contextlib.suppress(IllegalMove, UnknownBatch):
            self.engine.delete_batch(name)
        self.follow(lambda model: model.delete_batch(name))

    def many(self, dice: random.Random) -> None:
        """A deed on all tasks of a batch at once."""
        name, verb = dice.choice(BATCHES), dice.choice(["cancel", "pause", "resume", "relaunch"])
        chosen = self.engine.where(f"batch = '{name}' and id % 2 = {dice.randint(0, 1)}")
        getattr(chosen, verb)()

        def both(model: Model) -> None:
            # The states count in which they were before the first of them was touched.
            skipped = {id for id in chosen.ids if verb == "resume" and not _can_resume(model.tasks[id].state)}
            for id in [id for id in chosen.ids if id not in skipped and _can(model, verb, id)]:
                getattr(model, verb)(id)

        self.follow(both)

    def shut(self, dice: random.Random) -> None:
        """Tasks that come to the gate wait there."""
        if self.gate is None:
            gate = open("gate", "w")  # noqa: SIM115 - it is closed to open the gate
            with contextlib.suppress(BlockingIOError):  # tasks are just passing
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.gate = gate

    def unlock(self, dice: random.Random) -> None:
        if self.gate is not None:
            self.gate.close()
            self.gate = None

    def watch(self, dice: random.Random) -> None:
        """Let something happen: until the journal has grown, or for a moment."""
        until = time.monotonic() + dice.choice([0.01, 0.05, 0.1])
        while journal.last(self.engine._reader()) == self.seen and time.monotonic() < until:
            time.sleep(0.005)

    def kill_agent(self, dice: random.Random) -> None:
        self.kills += kill(holder(self.side / "local", "agent"))

    def kill_keeper(self, dice: random.Random) -> None:
        self.kills += kill(holder(self.side / "local", "keeper"))

    def kill_driver(self, dice: random.Random) -> None:
        self.other.kill()
        self.other.communicate()
        self.other = self._another()

    def reopen(self, dice: random.Random) -> None:
        self.engine.close()
        self.engine = Engine(self.path, linger_s=20)
        self.engine.drive()

    def rest(self, dice: random.Random) -> None:
        """Let everything go: each task must get to its end. Then what ended and is not needed is purged."""
        self.unlock(dice)
        for name in list(self.model.batches):
            self.engine.go_batch(name)
            self.follow(lambda model: model.halt(name, Halt.GO))  # noqa: B023
        for id in list(self.model.tasks):
            self.engine.task(id).resume()
            self.follow(lambda model: model.resume(id))  # noqa: B023
        self._until(lambda: all(state.is_settled for state in self.engine.counts()), "the end of everything")
        self.follow()
        self.what_ran()
        if dice.random() < 0.5:
            time.sleep(0.002)  # "older than now" is counted in milliseconds
            assert self.engine.purge(0).tasks == self.model.purge()
            self.seen = journal.last(self.engine._reader())

    def what_ran(self) -> None:
        """Each execution ran at most once, with the command that it was given, and is told as it went."""
        lines = Path("ran").read_text().split("\n")[:-1] if Path("ran").exists() else []
        ran = Counter(int(line.split()[0]) for line in lines)
        assert [id for id, times in ran.items() if times > 1] == []
        for id, version in (map(int, line.split()) for line in lines):
            assert self.model.runs[id].version == version, f"execution {id} ran an edited command"
        for id, run in self.model.runs.items():
            if run.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
                assert id in ran, f"execution {id} of task {run.task} {run.outcome.word} without having run"
            if run.outcome is Outcome.RECALLED and run.task in self.model.tasks:
                assert id not in ran, f"execution {id} was given back, but ran"
        for id, task in self.model.tasks.items():
            if task.state is TaskState.SUCCEEDED:
                last = max(run for run, what in self.model.runs.items() if what.task == id)
                assert self.engine.task(id).stdout() == f"out {self.model.runs[last].version}\n"
        live = query.rows(self.engine._reader(), "select id from execution where ended is null")
        assert live == []


def _versions(db: apsw.Connection, ids: Sequence[int]) -> dict[int, int]:
    """Which version of its task's command each of these executions was given."""
    rows = query.rows(
        db,
        """select execution.id, coalesce(execution.spec, task.spec) ->> '$.command' from execution
        join task on task.id = execution.task where execution.id in (select value from json_each(?))""",
        (json.dumps(sorted(set(ids))),),
    )
    return {id: int(command.rpartition("# v")[2]) for id, command in rows if "# v" in command}


def _can_resume(state: TaskState) -> bool:
    return state in LIVE or state in (TaskState.PAUSED, TaskState.BLOCKED)


def _can(model: Model, verb: str, id: int) -> bool:
    """Whether an operation on one task would do anything."""
    try:
        getattr(model.copy(), verb)(id)
    except Refused:
        return False
    return True


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[str, random.Random], Bench]]:
    """Makes a bench in a folder of its own; it is taken apart with the test."""
    made: list[Bench] = []

    def make(name: str, dice: random.Random) -> Bench:
        for old in made:
            old.close()
        made.clear()
        folder = tmp_path / name
        folder.mkdir()
        os.chdir(folder)
        made.append(Bench(folder / "lab.scitq", dice))
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.promise("lessons 3.5.4")
def test_an_engine_does_what_the_model_says_whatever_is_done_to_it(
    bench: Callable[[str, random.Random], Bench], record_property: Callable[[str, object], None]
) -> None:
    """In CI 200 operations, in the campaign 10,000 (SCITQ_ROUNDS=100)."""
    record_property("rounds", ROUNDS)
    done: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for number in range(ROUNDS):
        dice = random.Random(f"{SEED} {number}")
        one = bench(str(number), dice)
        steps = [*draw(dice, WEIGHTS, OPERATIONS), ("rest", 0)]
        for place, step in enumerate(steps, 1):
            try:
                one.step(step)
            except Exception as problem:
                problem.add_note(
                    f"seed {SEED}, round {number}, step {place}: {step}; before it {steps[: place - 1][-20:]}"
                )
                raise
        done += one.done
        ends += Counter(run.outcome.word for run in one.model.runs.values() if run.outcome is not None)
    print(f"{done.total()} operations: {dict(done)}; executions: {dict(ends)} (seed {SEED})")
