"""What a state file should say, written a second time: a small pure model to compare the product with.

It knows nothing of SQL, triggers or agents, and decides states otherwise than the product does: there, each operation walks
to the dependents it concerns; here, after each operation, the state of every task that is in the queue is worked out anew
from its own facts and its prerequisites' states. `differences` compares the model with what a file says.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from scitq.states import Halt, Outcome, TaskState, Wanted
from scitq.store import query

ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
BAD = (TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED)
NOT_LAUNCHED = (TaskState.ASSIGNED, TaskState.STAGING)
HELD_BY_WORKER = (*NOT_LAUNCHED, TaskState.RUNNING, TaskState.COLLECTING)
IN_QUEUE = (TaskState.PENDING, TaskState.WAITING, TaskState.BLOCKED)
# Another try that does not count: nobody asked for the end, or the worker gave the task back.
FREE = (Outcome.LOST, Outcome.EVICTED, Outcome.RECALLED)


class Refused(Exception):
    """The operation must be refused, or must do nothing."""


@dataclass
class Task:
    """One task, and what is wanted of its live execution."""

    batch: str
    requires: set[int]
    priority: int = 0
    retry: int | dict[str, int] = 0
    version: int = 0
    state: TaskState = TaskState.PENDING
    hold: bool = False
    tries: int = 0
    used: dict[str, int] = field(default_factory=dict)
    delayed: bool = False
    execution: int | None = None
    wanted: Wanted = Wanted.RUN
    edit: dict[str, Any] | None = None


@dataclass
class Run:
    """An execution: which task's, which version of its command, and how it ended."""

    task: int
    version: int
    outcome: Outcome | None = None


@dataclass
class Batch:
    """A batch: whether it goes on, and the default number of retries."""

    halt: Halt = Halt.GO
    retry: int | None = None


@dataclass
class Model:
    """Every task and batch of a file. Operations raise `Refused` and change nothing when they must not be possible."""

    tasks: dict[int, Task] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)

    def copy(self) -> Model:
        """Another one like it."""
        return copy.deepcopy(self)

    def work_out(self) -> None:
        """The state of each task in the queue, from its prerequisites; these are older, so in this order once is enough."""
        for id in sorted(self.tasks):
            if (task := self.tasks[id]).state in IN_QUEUE:
                task.state = self._place(task)

    def _place(self, task: Task) -> TaskState:
        states = {self.tasks[id].state for id in task.requires}
        if states & set(BAD):
            return TaskState.BLOCKED
        if task.hold:
            return TaskState.PAUSED
        return TaskState.PENDING if states <= {TaskState.SUCCEEDED} else TaskState.WAITING

    def _queue(self, task: Task) -> None:
        """It comes back from a worker, a pause or its end. A pause that was asked meanwhile comes before everything."""
        task.execution, task.wanted, task.edit = None, Wanted.RUN, None
        task.state = TaskState.PAUSED if task.hold else self._place(task)
        self.work_out()

    def _task(self, id: int) -> Task:
        if id not in self.tasks:
            raise Refused(f"no task {id}")
        return self.tasks[id]

    def some(self, dice: random.Random, most: int = 1, *, hopeful: bool = False) -> list[int]:
        """Tasks chosen by chance; a single one is often one that a worker has, where most can go wrong. `hopeful`: few of
        those that keep others from running."""
        ids = sorted(self.tasks)
        if hopeful:
            ids = [id for id in ids if self.tasks[id].state not in BAD or dice.random() < 0.1]
        elif most == 1 and dice.random() < 0.4:
            ids = sorted(self.live()) or ids
        return dice.sample(ids, min(len(ids), most))

    def ready(self) -> list[int]:
        """What may be placed, the first one first."""
        able = [
            id
            for id, task in self.tasks.items()
            if task.state is TaskState.PENDING and not task.delayed and self.batches[task.batch].halt is Halt.GO
        ]
        return sorted(able, key=lambda id: (-self.tasks[id].priority, id))

    def live(self) -> dict[int, Task]:
        """The tasks that a worker has."""
        return {id: task for id, task in self.tasks.items() if task.state in HELD_BY_WORKER}

    # --- what users do ----------------------------------------------------------------------------------------------

    def submit(
        self,
        id: int,
        *,
        batch: str = "default",
        requires: Iterable[int] = (),
        retry: int | dict[str, int] | None = None,
        priority: int = 0,
        version: int = 0,
    ) -> None:
        for parent in requires:
            self._task(parent)
        default = self.batches.setdefault(batch, Batch()).retry
        tries = retry if retry is not None else default or 0
        self.tasks[id] = Task(batch, set(requires), priority, tries, version)
        self.work_out()

    def cancel(self, id: int) -> None:
        task = self._task(id)
        if task.state in ENDED:
            raise Refused(f"{id} has ended")
        if task.state in HELD_BY_WORKER:
            task.wanted = Wanted.STOPPED
            return
        task.state, task.delayed = TaskState.CANCELLED, False
        self.work_out()

    def relaunch(self, id: int) -> None:
        task = self._task(id)
        if task.state not in ENDED:
            raise Refused(f"{id} has not ended")
        task.hold, task.tries, task.used, task.delayed = False, 0, {}, False
        self._queue(task)

    def pause(self, id: int) -> None:
        task = self._task(id)
        if task.state in (*ENDED, TaskState.PAUSED):
            raise Refused(f"{id} is {task.state.word}")
        task.hold = True
        if task.state in HELD_BY_WORKER:
            if task.wanted is not Wanted.STOPPED:
                task.wanted = Wanted.RECALLED if task.state in NOT_LAUNCHED else Wanted.SUSPENDED
        elif task.state is not TaskState.BLOCKED:  # what is blocked is paused when it comes free
            task.state = TaskState.PAUSED

    def resume(self, id: int) -> None:
        task = self._task(id)
        task.hold = False
        if task.state is TaskState.PAUSED:
            task.delayed = False
            self._queue(task)
        elif task.state in HELD_BY_WORKER and self.batches[task.batch].halt is not Halt.SUSPENDED:
            task.wanted = Wanted.RESUMED if task.wanted is Wanted.SUSPENDED else task.wanted

    def update(self, id: int, *, requires: Iterable[int] | None = None, **changes: Any) -> None:
        """`changes`: version, retry, priority, batch."""
        task = self._task(id)
        if task.state in HELD_BY_WORKER:
            if task.state not in NOT_LAUNCHED or task.wanted is Wanted.STOPPED or requires is not None:
                raise Refused(f"{id} is launched, being cancelled, or its requirements were met")
            task.edit = {**(task.edit or {}), **changes}
            if task.wanted is Wanted.RUN:
                task.wanted = Wanted.RECALLED
            return
        if requires is not None:
            wanted = set(requires)
            if task.state in ENDED or any(parent >= id or parent not in self.tasks for parent in wanted):
                raise Refused(f"{id} cannot require {wanted}")
            task.requires = wanted
            if task.state is TaskState.PAUSED and self._place(task) is TaskState.BLOCKED:
                task.state = TaskState.BLOCKED
        self._edit(task, changes)
        self.work_out()

    def _edit(self, task: Task, changes: dict[str, Any]) -> None:
        for key, value in changes.items():
            setattr(task, key, value)
        self.batches.setdefault(task.batch, Batch())

    def delete(self, ids: Iterable[int]) -> None:
        going = set(ids)
        for id in going:
            if self._task(id).state in HELD_BY_WORKER:
                raise Refused(f"{id} is on a worker")
        for id, task in self.tasks.items():
            needed = {parent for parent in task.requires & going if self.tasks[parent].state is not TaskState.SUCCEEDED}
            if id not in going and needed and task.state not in (*ENDED, *HELD_BY_WORKER):
                raise Refused(f"{id} requires {needed}")
        self._forget(going)

    def _forget(self, going: set[int]) -> None:
        for id in going:
            del self.tasks[id]
        for task in self.tasks.values():
            task.requires -= going

    def delete_batch(self, name: str) -> None:
        if name not in self.batches:
            raise Refused(f"no batch {name}")
        self.delete([id for id, task in self.tasks.items() if task.batch == name])
        del self.batches[name]

    def purge(self) -> int:
        """Everything that has ended, but for what others may still need. How many tasks that were."""
        going: set[int] = set()
        for id in sorted(self.tasks, reverse=True):
            task = self.tasks[id]
            children = [child for child, other in self.tasks.items() if id in other.requires]
            if task.state is TaskState.SUCCEEDED:
                is_free = all(self.tasks[child].state in ENDED for child in children)
            else:
                is_free = all(child in going for child in children)
            if task.state in ENDED and is_free:
                going.add(id)
        self._forget(going)
        return len(going)

    def halt(self, name: str, wanted: Halt) -> None:
        if name not in self.batches:
            raise Refused(f"no batch {name}")
        self.batches[name].halt = wanted
        for task in self.live().values():
            if task.batch != name:
                continue
            if wanted is not Halt.SUSPENDED and not task.hold and task.wanted is Wanted.SUSPENDED:
                task.wanted = Wanted.RESUMED
            if wanted is Halt.GO:
                continue
            if task.state in NOT_LAUNCHED and task.wanted is Wanted.RUN:
                task.wanted = Wanted.RECALLED
            elif (
                wanted is Halt.SUSPENDED
                and task.state is TaskState.RUNNING
                and task.wanted in (Wanted.RUN, Wanted.RESUMED)
            ):
                task.wanted = Wanted.SUSPENDED

    def set_batch(self, name: str, retry: int | None) -> None:
        self.batches.setdefault(name, Batch()).retry = retry

    # --- what happens -----------------------------------------------------------------------------------------------

    def release(self) -> None:
        """All retry delays are over."""
        for task in self.tasks.values():
            task.delayed = False

    def assign(self, id: int, execution: int) -> None:
        task = self._task(id)
        if task.state is not TaskState.PENDING or self.batches[task.batch].halt is not Halt.GO:
            raise Refused(
                f"{id} is {task.state.word}, its batch {self.batches[task.batch].halt.word}: not to be placed"
            )
        task.state, task.execution, task.wanted, task.delayed = TaskState.ASSIGNED, execution, Wanted.RUN, False
        self.runs[execution] = Run(id, task.version)

    def stage(self, id: int) -> None:
        """Its data is on the way."""
        task = self._task(id)
        if task.state is not TaskState.ASSIGNED:
            raise Refused(f"{id} is {task.state.word}: it cannot be staged")
        task.state = TaskState.STAGING

    def start(self, id: int) -> None:
        task = self._task(id)
        if task.state not in NOT_LAUNCHED:
            raise Refused(f"{id} is {task.state.word}: it cannot start")
        task.state, task.edit = TaskState.RUNNING, None  # an edit comes too late now
        if task.wanted is Wanted.RECALLED:
            stops = task.hold or self.batches[task.batch].halt is Halt.SUSPENDED
            task.wanted = Wanted.SUSPENDED if stops else Wanted.RUN

    def collect(self, id: int) -> None:
        task = self._task(id)
        if task.state not in (*NOT_LAUNCHED, TaskState.RUNNING):
            raise Refused(f"{id} is {task.state.word}: nothing to collect")
        task.state = TaskState.COLLECTING

    def end(self, id: int, outcome: Outcome, *, delay: bool = True, cause: str = "exit") -> None:
        """The execution of a task ended; `cause` is that of a failure."""
        task = self._task(id)
        if task.state not in HELD_BY_WORKER or task.execution is None:
            raise Refused(f"{id} is {task.state.word}: nothing ends")
        self.runs[task.execution].outcome = outcome
        if task.edit is not None and outcome in FREE:
            self._edit(task, task.edit)
        stopped = task.wanted is Wanted.STOPPED or outcome is Outcome.CANCELLED
        is_failure = outcome is not Outcome.SUCCEEDED and outcome not in FREE and not stopped
        if outcome is Outcome.SUCCEEDED:
            task.state = TaskState.SUCCEEDED
        elif stopped:
            task.state = TaskState.CANCELLED
        elif is_failure and not self._may_again(task, "timed_out" if outcome is Outcome.TIMED_OUT else cause):
            task.state = TaskState.FAILED
        else:
            task.tries += is_failure
            task.delayed = (is_failure and delay) or self._is_lost_again(id, task.execution)
            self._queue(task)
            return
        task.execution, task.wanted, task.edit = None, Wanted.RUN, None
        self.work_out()

    @staticmethod
    def _may_again(task: Task, cause: str) -> bool:
        """Whether a try may follow this failure, which it then counts."""
        if isinstance(task.retry, int):
            return task.tries < task.retry
        name = cause if cause in task.retry else "any"
        if task.used.get(name, 0) >= task.retry.get(name, 0):
            return False
        task.used[name] = task.used.get(name, 0) + 1
        return True

    def _is_lost_again(self, id: int, execution: int) -> bool:
        """An execution was lost like the one before it: then the next one waits a little."""
        before = [run.outcome for number, run in self.runs.items() if run.task == id and number < execution]
        return self.runs[execution].outcome is Outcome.LOST and before[-1:] == [Outcome.LOST]


# --- comparing with a file ------------------------------------------------------------------------------------------------


def differences(model: Model, db: apsw.Connection, *, delays: bool = True) -> list[str]:
    """Where a file says something else than the model. `delays`: the model knows when retry delays end."""
    wrong = []
    rows = query.rows(
        db,
        """select task.id, task.state, batch.name, priority, tries, hold <> 0, task.execution, not_before is not null, task.spec,
          coalesce((select wanted from execution where execution.id = task.execution), 0),
          (select json_group_array(parent) from requirement where child = task.id),
          (select json_object('changes', json(data ->> '$.changes'), 'batch', data ->> '$.batch', 'priority', data ->> '$.priority')
            from edit where edit.task = task.id), unmet, reason, raised
        from task join batch on batch.id = task.batch order by task.id""",
    )
    if (found := [row[0] for row in rows]) != sorted(model.tasks):
        return [f"the tasks are {found}, not {sorted(model.tasks)}"]
    for (
        id,
        state,
        batch,
        priority,
        tries,
        hold,
        execution,
        later,
        spec,
        wanted,
        parents,
        edit,
        unmet,
        reason,
        raised,
    ) in rows:
        task = model.tasks[id]
        fields = json.loads(spec)
        says: dict[str, Any] = {
            "state": TaskState(state),
            "batch": batch,
            "priority": priority,
            "requires": set(json.loads(parents)),
            "retry": fields.get("retry", 0),
            "version": version_of(fields["command"]),
            "execution": execution,
            "wanted": Wanted(wanted),
            "edit": edit is not None,
            "used": json.loads(raised or "{}").get("used", {}),
        }
        if task.state not in (*ENDED,):
            says |= {"tries": tries, "hold": bool(hold)}
        if delays:
            says["delayed"] = bool(later)
        expected = {**{key: getattr(task, key) for key in says}, "edit": task.edit is not None}
        wrong += [
            f"task {id}: {key} is {said!r}, not {expected[key]!r}"
            for key, said in says.items()
            if said != expected[key]
        ]
        if task.state not in (*ENDED, *HELD_BY_WORKER):
            left = sum(model.tasks[parent].state is not TaskState.SUCCEEDED for parent in task.requires)
            if unmet != left:
                wrong.append(f"task {id} counts {unmet} unfinished prerequisites, not {left}")
        if task.state is TaskState.BLOCKED and not reason:
            wrong.append(f"task {id} is blocked without a reason")
    wrong += _batch_differences(model, db)
    return wrong


def _batch_differences(model: Model, db: apsw.Connection) -> list[str]:
    counts: dict[tuple[str, int], int] = {}
    for task in model.tasks.values():
        key = (task.batch, int(task.state))
        counts[key] = counts.get(key, 0) + 1
    kept = query.rows(db, "select name, state, n from counter join batch on batch.id = counter.batch where n > 0")
    batches = query.rows(db, "select name, halt, settings ->> '$.retry' from batch order by name")
    expected = sorted((name, int(batch.halt), batch.retry) for name, batch in model.batches.items())
    wrong = []
    if {(name, state): n for name, state, n in kept} != counts:
        wrong.append(f"counted are {kept}, not {counts}")
    if batches != expected:
        wrong.append(f"batches are {batches}, not {expected}")
    return wrong


def version_of(command: str | list[str]) -> int:
    """The number in a command such as `true # v12`."""
    text = command if isinstance(command, str) else " ".join(command)
    return int(text.rpartition("v")[2])


# --- sequences of operations ----------------------------------------------------------------------------------------------

Step = tuple[str, int]
"""An operation's name and the seed of its choices: the same step makes sense whatever came before it."""


def draw(dice: random.Random, weights: dict[str, int], count: int) -> list[Step]:
    """A sequence of steps, likelier ones more often."""
    names = dice.choices(list(weights), list(weights.values()), k=count)
    return [(name, dice.randrange(1 << 30)) for name in names]


def shrink(steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], limit_s: float = 60.0) -> list[Step]:
    """A shorter sequence that fails all the same: pieces are left out, ever smaller ones, as long as that works."""
    kept, until = list(steps), time.monotonic() + limit_s
    size = max(1, len(kept) // 2)
    while size and time.monotonic() < until:
        start, shorter = 0, False
        while start < len(kept) and time.monotonic() < until:
            without = kept[:start] + kept[start + size :]
            if fails(without):
                kept, shorter = without, True
            else:
                start += size
        if not shorter or size > 1:
            size //= 2
    return kept
