"""One of several processes that submit, edit and cancel at once: `python -m tests.crash.clients FILE N SEED OPERATIONS`.

It does what it likes to its own tasks and to the others', and says as JSON what it was promised: the numbers of submitted and of
deleted tasks. Refusals are part of the game (somebody else was quicker); any other error ends it.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.events import EventKind
from scitq.states import FINAL, Outcome, TaskState

MARK = "echo $SCITQ_EXECUTION >> ran; "
SCRIPTS = (
    "echo fine",
    "sleep 0.05; echo slow",
    "exit 3",
    "[ -e tried.$SCITQ_TASK ] || { touch tried.$SCITQ_TASK; exit 4; }",
)
DEEDS = {
    "submit": 6, "submit_many": 1, "update": 3, "pause": 2, "resume": 2, "cancel": 2, "relaunch": 2, "delete": 1,
    "batch": 1,
}  # fmt: skip


class Client:
    """The process, and what it was told."""

    def __init__(self, engine: Engine, number: int, dice: random.Random) -> None:
        self.engine, self.number, self.dice = engine, number, dice
        self.submitted: list[int] = []
        self.deleted: list[int] = []
        self.done: Counter[str] = Counter()

    def play(self) -> None:
        """One operation."""
        [deed] = self.dice.choices(list(DEEDS), list(DEEDS.values()))
        try:
            getattr(self, deed)()
            self.done[deed] += 1
        except BadInput:  # an illegal move, a task that is gone
            self.done[f"{deed} refused"] += 1

    def some_task(self) -> Any:
        """Any task of anybody, rather a young one."""
        rows = self.engine.rows(newest_first=True, limit=self.dice.choice([3, 30, 300]))
        if not rows:
            raise BadInput("everything was deleted")
        return self.engine.task(self.dice.choice(rows).id)

    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = {"batch": f"b{self.number}", "priority": self.dice.randint(0, 2)}
        if self.submitted and self.dice.random() < 0.3:
            found["requires"] = self.dice.sample(self.submitted, min(2, len(self.submitted)))
        if self.dice.random() < 0.5:
            found |= {"retry": 1, "retry_delay": 0.01}
        return found

    def submit(self) -> None:
        task = self.engine.submit(MARK + self.dice.choice(SCRIPTS), shell=True, **self.options())
        self.submitted.append(int(task.id))

    def submit_many(self) -> None:
        scripts = [MARK + self.dice.choice(SCRIPTS) for _ in range(5)]
        self.submitted += [int(task.id) for task in self.engine.submit_many(scripts, shell=True, **self.options())]

    def update(self) -> None:
        change: dict[str, Any] = self.dice.choice(
            [{"priority": 3}, {"command": MARK + "echo edited"}, {"retry": 2}, {"name": f"n{self.dice.random()}"}]
        )
        self.some_task().update(timeout=60, **change)

    def pause(self) -> None:
        self.some_task().pause()

    def resume(self) -> None:
        self.some_task().resume()

    def cancel(self) -> None:
        self.some_task().cancel()

    def relaunch(self) -> None:
        self.some_task().relaunch()

    def delete(self) -> None:
        task = self.some_task()
        task.delete()
        self.deleted.append(int(task.id))

    def batch(self) -> None:
        batch = f"b{self.dice.randrange(4)}"
        self.engine.pause_batch(batch, suspend=self.dice.random() < 0.5)
        self.engine.go_batch(batch)


def settle(engine: Engine, timeout_s: float) -> None:
    """Let everything that somebody paused go on, and wait for the end."""
    for row in engine.rows(status=sorted(frozenset(TaskState) - FINAL), limit=100_000):
        engine.task(row.id).resume()
    engine.wait_all(timeout_s)


def problems(engine: Engine, told: list[dict[str, Any]]) -> list[str]:
    """Which promises were not kept (DESIGN.md §10, 1 to 4, 6 and 8)."""
    found = list(engine.check())
    rows = {int(row.id): row for row in engine.rows(limit=100_000)}
    deleted = {id for one in told for id in one["deleted"]}
    submitted = {id for one in told for id in one["submitted"]}
    if missing := submitted - deleted - rows.keys():
        found.append(f"acknowledged submissions are gone: {missing}")
    if back := deleted & rows.keys():
        found.append(f"deleted tasks are there: {back}")
    ran = Counter(map(int, Path("ran").read_text().split()))
    if twice := {execution: n for execution, n in ran.items() if n > 1}:
        found.append(f"executions that ran more than once: {twice}")
    entries = engine.journal(since=0, limit=10_000_000)
    relaunched = Counter(entry.task for entry in entries if entry.kind is EventKind.RELAUNCHED)
    for id in submitted & rows.keys():
        executions = engine.task(id).executions
        good = [one for one in executions if one.outcome is Outcome.SUCCEEDED]
        if len(good) > 1 + relaunched[rows[id].id]:
            found.append(f"task {id} succeeded {len(good)} times, relaunched {relaunched[rows[id].id]} times")
        if any(one.outcome is None for one in executions):
            found.append(f"task {id} has an execution that did not end")
        if any(one.outcome is Outcome.LOST for one in executions):
            found.append(f"task {id} lost an execution")
        if unrun := [int(one.id) for one in good if ran[int(one.id)] != 1]:
            found.append(f"task {id}: executions {unrun} succeeded without having run")
        if rows[id].state is TaskState.SUCCEEDED and (
            not executions or executions[-1].outcome is not Outcome.SUCCEEDED
        ):
            found.append(f"task {id} succeeded, but its last execution did not")
    return found


def main(path: Path, number: int, seed: str, operations: int) -> None:
    """All operations, then what was promised."""
    with Engine(path, drive=False) as engine:
        client = Client(engine, number, random.Random(seed))
        for _ in range(operations):
            client.play()
    print(json.dumps({"submitted": client.submitted, "deleted": client.deleted, "done": client.done}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
