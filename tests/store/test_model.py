"""Random operations on a state file and on a model of it: after each, the two agree and every invariant holds.

Here the worker is played too, so that everything that happens is known and the comparison is exact. The engine with a real
agent is compared with the same model in tests/engine/test_model.py.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from scitq.errors import ScitqError
from scitq.states import Halt, Outcome, Stage, TaskState, Wanted
from scitq.store import batches, executions, keep, listing, tasks, workers
from scitq.store.check import check
from scitq.store.connection import Store
from scitq.store.executions import Exit
from scitq.store.schema import SCHEMA
from scitq.task import Assignment, ExecutionId, Spec, TaskId
from scitq.worker import WorkerId
from tests.model import HELD_BY_WORKER, Model, Refused, Step, differences, draw, shrink

OPERATIONS = 100
"""For each round; so a campaign of 100 rounds plays 10,000."""
ROUNDS = int(os.environ.get("SCITQ_ROUNDS") or 20)
SEED = int(os.environ.get("SCITQ_SEED") or 1)
# None: its batch's.
RETRIES: list[Any] = [None, None, 0, 1, 2, {"exit": 1}, {"timed_out": 1, "any": 2}, {"collect": 2, "exit": 0, "any": 1}]
BATCHES = ("default", "qc", "align")
MOST = 25
"""Tasks in the file at once: with few, operations meet."""

WEIGHTS = {
    "submit": 14, "submit_many": 1, "place": 14, "start": 9, "succeed": 8, "fail": 5, "lose": 3, "collect": 3, "obey": 6,
    "release": 6, "cancel": 5, "pause": 5, "resume": 7, "relaunch": 9, "update": 8, "rewire": 5, "halt": 3, "go": 5,
    "set_batch": 1, "delete": 4, "delete_batch": 1, "purge": 4,
}  # fmt: skip


class Bench:
    """A file and a model of it, to which the same is done."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(path, SCHEMA)
        self.store.write(lambda db: workers.ensure(db, 0, "local", "local", 8))
        self.model = Model()
        self.versions = 0
        self.now = 1_000
        self.done: dict[str, int] = {}

    def close(self) -> None:
        self.store.close()

    def step(self, step: Step) -> list[str]:
        """Do it to both; what is wrong afterwards."""
        name, seed = step
        self.now += 1
        wrong = getattr(self, name)(random.Random(seed)) or []
        db = self.store.reader()
        return [*wrong, *differences(self.model, db), *self.ready(db), *check(db, self.store.side)]

    def ready(self, db: apsw.Connection) -> list[str]:
        found, expected = [task.id for task in listing.pending(db, 1000)], self.model.ready()
        return [] if found == expected else [f"ready are {found}, not {expected}"]

    def both(self, name: str, file: Callable[[apsw.Connection], Any], model: Callable[[], Any]) -> list[str]:
        """One operation; either both do it or both refuse."""
        refused: Refused | None = None
        try:
            model()
        except Refused as problem:
            refused = problem
        before = self.store.write(lambda db: db.total_changes())
        try:
            self.store.write(file)
        except ScitqError as problem:
            return [] if refused else [f"{name} was refused: {problem}"]
        self.done[name] = self.done.get(name, 0) + (refused is None)
        did = self.store.write(lambda db: db.total_changes()) != before
        return [f"{name} was done, though {refused}"] if refused and did else []

    def one(self, dice: random.Random, likely: Sequence[int] = ()) -> TaskId:
        """A task, often one of these; or a number that no task has."""
        found = dice.sample(likely, 1) if likely and dice.random() < 0.8 else self.model.some(dice)
        return TaskId(found[0] if found else 1)

    def spec(self, retry: int | dict[str, int] = 0) -> Spec:
        self.versions += 1
        return Spec(f"true # v{self.versions}", retry=retry)

    # --- what users do ----------------------------------------------------------------------------------------------

    def submit(self, dice: random.Random, count: int = 1) -> list[str]:
        if len(self.model.tasks) + count > MOST:
            return self.purge(dice)
        parents = self.model.some(dice, dice.choice([0, 0, 0, 1, 1, 2, 3]), hopeful=True)
        batch, retry, priority = dice.choice(BATCHES), dice.choice(RETRIES), dice.choice([0, 0, 0, 1, -1])
        default = self.model.batches[batch].retry if batch in self.model.batches else None
        specs = [self.spec(retry if retry is not None else default or 0) for _ in range(count)]
        ids: list[int] = []

        def write(db: apsw.Connection) -> None:
            rows = [(None, tasks.batch_id(db, batch), priority, listing.spec_text(spec), 0) for spec in specs]
            ids[:] = tasks.add_many(db, self.now, rows, None, [parents] * count)

        self.store.write(write)
        for id, version in zip(ids, range(self.versions - count + 1, self.versions + 1), strict=True):
            self.model.submit(id, batch=batch, requires=parents, retry=retry, priority=priority, version=version)
        self.done["submit"] = self.done.get("submit", 0) + count
        return []

    def submit_many(self, dice: random.Random) -> list[str]:
        return self.submit(dice, 7)

    def deed(self, name: str, dice: random.Random) -> list[str]:
        id, function, now = self.one(dice), getattr(tasks, name), self.now
        return self.both(name, lambda db: function(db, now, id), lambda: getattr(self.model, name)(id))

    def cancel(self, dice: random.Random) -> list[str]:
        return self.deed("cancel", dice)

    def pause(self, dice: random.Random) -> list[str]:
        return self.deed("pause", dice)

    def resume(self, dice: random.Random) -> list[str]:
        return self.deed("resume", dice)

    def relaunch(self, dice: random.Random) -> list[str]:
        bad = [id for id, task in self.model.tasks.items() if task.state in (TaskState.FAILED, TaskState.CANCELLED)]
        id, now = self.one(dice, bad), self.now
        return self.both("relaunch", lambda db: tasks.relaunch(db, now, id), lambda: self.model.relaunch(id))

    def update(self, dice: random.Random) -> list[str]:
        id, now = self.one(dice), self.now
        retry, spec = dice.choice(RETRIES[2:]), self.spec()
        columns: dict[str, Any] = {"priority": dice.randint(-1, 1)} if dice.random() < 0.5 else {}
        columns |= {"batch": dice.choice(BATCHES)} if dice.random() < 0.3 else {}
        changes, version = {"command": spec.command, "retry": retry}, self.versions
        return self.both(
            "update",
            lambda db: tasks.update(db, now, id, changes, **columns),
            lambda: self.model.update(id, version=version, retry=retry, **columns),
        )

    def rewire(self, dice: random.Random) -> list[str]:
        id, now = self.one(dice), self.now
        parents = self.model.some(dice, dice.randint(0, 3), hopeful=True)
        if dice.random() < 0.8:
            parents = [parent for parent in parents if parent < id]
        return self.both(
            "rewire",
            lambda db: tasks.update(db, now, id, {}, requires=parents),
            lambda: self.model.update(id, requires=parents),
        )

    def halt(self, dice: random.Random, wanted: Halt | None = None) -> list[str]:
        name, now = dice.choice(BATCHES), self.now
        chosen = dice.choice([Halt.PAUSED, Halt.SUSPENDED]) if wanted is None else wanted
        return self.both(
            chosen.word, lambda db: batches.halt(db, now, name, chosen), lambda: self.model.halt(name, chosen)
        )

    def go(self, dice: random.Random) -> list[str]:
        return self.halt(dice, Halt.GO)

    def set_batch(self, dice: random.Random) -> list[str]:
        name, retry = dice.choice(BATCHES), dice.choice([None, 0, 1])
        values = {} if retry is None else {"retry": retry}
        self.store.write(lambda db: batches.set_settings(db, name, values))
        self.model.set_batch(name, retry)
        return []

    def delete(self, dice: random.Random) -> list[str]:
        ids, now = self.model.some(dice, dice.choice([1, 1, 2, 5])), self.now
        if not self.model.tasks:
            return []
        return self.both("delete", lambda db: tasks.delete(db, now, ids), lambda: self.model.delete(ids))

    def delete_batch(self, dice: random.Random) -> list[str]:
        name, now = dice.choice(BATCHES), self.now
        return self.both(
            "delete_batch", lambda db: batches.delete(db, now, name), lambda: self.model.delete_batch(name)
        )

    def purge(self, dice: random.Random) -> list[str]:
        found = keep.purge(self.store, 0, now_s=time.time() + 1e6)
        expected = self.model.purge()
        self.done["purge"] = self.done.get("purge", 0) + expected
        return [] if found.tasks == expected else [f"purged are {found.tasks} tasks, not {expected}"]

    # --- what the driver and a worker do ------------------------------------------------------------------------------

    def place(self, dice: random.Random) -> list[str]:
        chosen, now = listing.pending(self.store.reader(), dice.randint(1, 4)), self.now
        places = [Assignment(task.id, WorkerId(1)) for task in chosen]
        for order in self.store.write(lambda db: executions.begin(db, now, places)):
            self.model.assign(order.task, order.execution)
        self.done["place"] = self.done.get("place", 0) + len(places)
        return []

    def live(self, dice: random.Random, *states: TaskState) -> tuple[TaskId, ExecutionId] | None:
        able = [id for id, task in self.model.live().items() if task.state in states]
        if not able:
            return None
        id = dice.choice(sorted(able))
        execution = self.model.tasks[id].execution
        assert execution is not None
        return TaskId(id), ExecutionId(execution)

    def start(self, dice: random.Random) -> list[str]:
        if found := self.live(dice, TaskState.ASSIGNED):
            (id, execution), now = found, self.now
            return self.both("start", lambda db: executions.started(db, execution, now), lambda: self.model.start(id))
        return []

    def exit(self, dice: random.Random, code: int, collecting: bool = False) -> list[str]:
        if not (found := self.live(dice, TaskState.ASSIGNED, TaskState.RUNNING)):
            return []
        (id, execution), now = found, self.now
        end = Exit(execution, code, None, None, None, b"out", b"", 3, 0, False, False, collecting, 0.1, 0.1, 1 << 20)
        outcome = Outcome.FAILED if code else Outcome.SUCCEEDED
        return self.both(
            "collect" if collecting else outcome.word,
            lambda db: executions.exited(db, now, end),
            lambda: self.model.collect(id) if collecting else self.model.end(id, outcome),
        )

    def succeed(self, dice: random.Random) -> list[str]:
        if found := self.live(dice, TaskState.COLLECTING):
            (id, execution), now = found, self.now
            problem, outcome = dice.choice([(None, Outcome.SUCCEEDED), ("no room", Outcome.FAILED)])
            return self.both(
                "collected",
                lambda db: executions.collected(db, now, execution, problem),
                lambda: self.model.end(id, outcome, cause="collect"),
            )
        return self.exit(dice, 0)

    def fail(self, dice: random.Random) -> list[str]:
        return self.exit(dice, 3)

    def collect(self, dice: random.Random) -> list[str]:
        return self.exit(dice, 0, collecting=True)

    def finish(self, id: TaskId, execution: ExecutionId, outcome: Outcome) -> list[str]:
        now = self.now
        return self.both(
            outcome.word,
            lambda db: executions.finish(db, now, execution, outcome, Stage.RUN, None),
            lambda: self.model.end(id, outcome),
        )

    def lose(self, dice: random.Random) -> list[str]:
        if found := self.live(dice, *HELD_BY_WORKER):
            return self.finish(*found, dice.choice([Outcome.LOST, Outcome.EVICTED, Outcome.TIMED_OUT]))
        return []

    def obey(self, dice: random.Random) -> list[str]:
        """The worker does what is wanted of its executions."""
        wrong = []
        for execution, wanted in executions.wishes(self.store.reader(), WorkerId(1)).items():
            id = TaskId(self.model.runs[execution].task)
            if wanted is Wanted.STOPPED:
                wrong += self.finish(id, execution, Outcome.CANCELLED)
            elif wanted is Wanted.RECALLED and self.model.tasks[id].state is TaskState.ASSIGNED:
                wrong += self.finish(id, execution, Outcome.RECALLED)
        return wrong

    def release(self, dice: random.Random) -> list[str]:
        self.store.write(lambda db: tasks.release_due(db, 1 << 60))
        self.model.release()
        return []


def play(path: Path, steps: Sequence[Step]) -> tuple[list[str], dict[str, int]]:
    """What is wrong after the first step after which something is; and how often each operation was done."""
    bench = Bench(path)
    try:
        for number, step in enumerate(steps, 1):
            try:
                wrong = bench.step(step)
            except Exception as problem:  # the shortest way to it is of interest too
                wrong = [f"{type(problem).__name__}: {problem}"]
            if wrong:
                return [f"after step {number}, {step[0]}:", *wrong], bench.done
        return [], bench.done
    finally:
        bench.close()


def fresh(folder: Path) -> Path:
    """A file name that was not used yet."""
    return folder / f"lab{len(list(folder.glob('*.scitq')))}.scitq"


@pytest.mark.promise("lessons 3.5.4")
def test_random_operations_leave_what_the_model_says(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In CI 2,000 of them, in the campaign 10,000 (SCITQ_ROUNDS=100), with the invariants checked after each."""
    record_property("rounds", ROUNDS)
    done: dict[str, int] = {}
    for number in range(-(-ROUNDS // 5)):  # a file lives for 500 operations
        steps = draw(random.Random(f"{SEED} {number}"), WEIGHTS, min(5, ROUNDS - 5 * number) * OPERATIONS)
        wrong, did = play(fresh(tmp_path), steps)
        if wrong:
            shorter = shrink(steps, lambda some: bool(play(fresh(tmp_path), some)[0]))
            told = "\n".join(play(fresh(tmp_path), shorter)[0])
            pytest.fail(f"seed {SEED}, file {number}: {len(shorter)} steps {shorter}\n{told}", pytrace=False)
        done = {name: done.get(name, 0) + did.get(name, 0) for name in done | did}
    print(f"{ROUNDS * OPERATIONS} operations, of which done: {done} (seed {SEED})")
