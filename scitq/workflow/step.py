"""Handles on what a script declares: `StepTask` (one call of `Workflow.step`), `Step` (all of a name), and what is gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from scitq.errors import BadInput, UnknownTask
from scitq.fetch.uri import Address, parse
from scitq.handle import Task
from scitq.outputs import TaskOutput, TaskOutputPath
from scitq.states import TaskState
from scitq.store import listing
from scitq.task import TaskId

if TYPE_CHECKING:
    from scitq.workflow.declare import Declared
    from scitq.workflow.workflow import Workflow

STEP, OUTPUT = "step", "output"


class StepTask(Task):
    """One task of a step, as `Workflow.step` returns it.

    Before the workflow starts it has no number, and can be required, and its output be an input, of further steps (of the same
    workflow) only. From then on it is a `Task`: `result()`, `why()`, `relaunch()` and all the rest.
    """

    def __init__(self, workflow: Workflow, declared: Declared) -> None:
        # Not the parent's: the number is not known yet.
        self._workflow = workflow
        self._declared = declared
        self._engine = workflow.engine

    def __repr__(self) -> str:
        if self._declared.id is None:
            return f"<StepTask {self._declared.step}/{self._declared.name} not started>"
        return super().__repr__().replace("<Task", "<StepTask", 1)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StepTask):
            return other._declared is self._declared or (self.is_started and other.is_started and super().__eq__(other))
        return super().__eq__(other) if self.is_started else False

    def __hash__(self) -> int:
        # The same before and after the start; equal to that of no other kind of handle, which only costs a comparison.
        return hash((self._declared.batch, self._declared.name))

    @property
    def is_started(self) -> bool:
        """Whether it is in the file, and has a number."""
        return self._declared.id is not None

    @property
    def id(self) -> TaskId:  # type: ignore[override]
        """Its number.

        Raises:
            BadInput: the workflow has not been started.
        """
        if self._declared.id is None:
            raise BadInput(
                f"{self._declared.step} {self._declared.name!r} is declared, but not queued yet: {self._workflow.name}.start() "
                "or run() does that."
            )
        return TaskId(self._declared.id)

    @property
    def task_id(self) -> int:
        """Its number; before the start one that stands for it, in `required_tasks=` of further steps."""
        return self._declared.number if self._declared.id is None else self._declared.id

    @property
    def task(self) -> Task:
        """The same as a plain handle."""
        return Task(self._engine, self.id)

    @property
    def step(self) -> Step:
        """All tasks of its step."""
        return self._workflow[self._declared.step]

    @property
    def batch(self) -> str:
        """The name of its step's batch: `workflow.step`."""
        return self._declared.batch

    @property
    def name(self) -> str:
        """Its name, given or by default."""
        return self._declared.name

    @property
    def command(self) -> str | list[str]:
        """What it runs."""
        if self._declared.spec is not None and not self.is_started:
            return listing.spec_of(self._declared.spec).command
        return self.row().spec.command

    @property
    def status(self) -> str:
        """The state's word; `declared` before the start."""
        return self.state.word if self.is_started else "declared"

    @property
    def output(self) -> StepOutput:
        """Where what it leaves is (or will be): as another step's input it implies that this one is required.

        As text it ends with a slash: `f"{task.output}sub/"` is a folder in it.
        """
        return output_of(self)

    def gather(self, what: str = STEP) -> Gathered:
        """All of the step, whichever of its tasks is asked: see `Step.gather`."""
        return self._workflow.gather(self._declared.step, what)

    # --- as in version 1 --------------------------------------------------------------------------------------------------

    def refresh(self) -> StepTask:
        """Nothing: what a handle says is always of now."""
        return self

    def get_output(self) -> str | None:
        """What its latest execution wrote on standard output; None when there was none."""
        return self.stdout() if self.is_started and self.executions else None

    def get_error(self) -> str | None:
        """What its latest execution wrote on standard error; None when there was none."""
        return self.stderr() if self.is_started and self.executions else None

    def clean(self) -> None:
        """Delete it with its history from the file; what it left at an address stays."""
        self.delete()

    def download(self, destination: str | Path | None = None) -> list[Path]:
        """Bring what it left into a folder, by default the current one; returns the files."""
        from scitq.workflow.afterwards import bring

        return bring(self.output, Path(destination) if destination is not None else Path.cwd())


class StepOutput(TaskOutput):
    """What a step's task leaves. Its reference has the task's number from the start of the workflow on."""

    __slots__ = ()
    _task: StepTask

    @property
    def reference(self) -> Address:
        """What it is as the input of another task."""
        return replace(
            self._reference, path=f"{self._task.task_id}{self._reference.path[len(str(self._task._declared.number)) :]}"
        )

    def __str__(self) -> str:
        text = str(self._address)
        return text if self._address.actions or text.endswith("/") or self._is_inside else f"{text}/"

    def __repr__(self) -> str:
        return f'URI("{self._address.shown}")'

    @property
    def _is_inside(self) -> bool:
        return "/" in self._reference.path


class StepOutputPath(StepOutput, TaskOutputPath):
    """One in a folder of this machine: also a path object."""

    __slots__ = ()

    def __fspath__(self) -> str:
        return self._address.path


def output_of(task: StepTask) -> StepOutput:
    """The output of a step's task: where its newest success left it, else where it was told to."""
    declared = task._declared
    reference = Address("task", (), str(declared.number))
    if task.is_started:
        from scitq.outputs import output_of as of_task

        try:
            address = of_task(task.task).address
        except UnknownTask:  # it was deleted
            address = reference
    else:
        assert declared.spec is not None
        there = listing.spec_of(declared.spec).output if '"output":' in declared.spec else None
        address = reference if there is None else parse(there)
    kind = StepOutputPath if address.is_local else StepOutput
    return kind(task, address, reference)


class Gathered(Sequence[Any]):
    """What was gathered of a step: tasks, or their outputs. A sequence; `+` joins several."""

    def __init__(self, tasks: Sequence[StepTask], what: str) -> None:
        self._tasks = tasks
        self._sub, self._actions, self._is_output = _split(what)

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Gathered: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = Gathered(self._tasks[index], STEP)
            part._sub, part._actions, part._is_output = self._sub, self._actions, self._is_output
            return part
        return self._of(self._tasks[index])

    def _of(self, task: StepTask) -> Any:
        if not self._is_output:
            return task
        place: Any = task.output
        if self._sub:
            place = place.joinpath(*self._sub)
        return place.with_action(*self._actions) if self._actions else place

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    def __repr__(self) -> str:
        return f"<{len(self)} {'outputs' if self._is_output else 'tasks'} of {self._tasks[0].batch if self._tasks else 'nothing'}>"


def _split(what: str) -> tuple[list[str], list[str], bool]:
    """`output/sub|mv:sub` taken apart."""
    place, *actions = str(what).split("|")
    if place == STEP and not actions:
        return [], [], False
    head, *sub = [part for part in place.split("/") if part]
    if head != OUTPUT or ".." in sub:
        raise BadInput(f"gather: {what!r} is neither 'step' nor 'output', 'output/folder' or 'output|action'.")
    return sub, actions, True


class Step(Sequence[StepTask]):
    """All tasks of one step, so far: `wf["fastp"]`."""

    def __init__(self, workflow: Workflow, name: str) -> None:
        self._workflow = workflow
        self.name = name
        self.batch = f"{workflow.name}.{name}"

    def __repr__(self) -> str:
        return f"<Step {self.batch}: {len(self)} tasks>"

    @property
    def tasks(self) -> list[StepTask]:
        """Its tasks, in the order of their declaration."""
        return [StepTask(self._workflow, one) for one in self._workflow._declared_of(self.name)]

    def __len__(self) -> int:
        return len(self._workflow._declared_of(self.name))

    def __getitem__(self, index: Any) -> Any:
        found = self._workflow._declared_of(self.name)
        if isinstance(index, str):
            for one in found:
                if one.name == index:
                    return StepTask(self._workflow, one)
            raise KeyError(index)
        if isinstance(index, slice):
            return [StepTask(self._workflow, one) for one in found[index]]
        return StepTask(self._workflow, found[index])

    def __iter__(self) -> Iterator[StepTask]:
        for one in list(self._workflow._declared_of(self.name)):
            yield StepTask(self._workflow, one)

    def gather(self, what: str = STEP) -> Gathered:
        """All of it: its tasks (`"step"`), or what they leave: `"output"`, `"output/sub"`, `"output/sub|mv:sub"`, `"output|untar"`.

        The same whatever else was declared before or after; a step that was gathered gets no more tasks.

        Raises:
            BadInput: that cannot be gathered.
        """
        return self._workflow.gather(self.name, what)

    def wait(self, timeout: float | None = None) -> dict[TaskState, int]:
        """Start the workflow if need be, and wait until nothing more happens to the step's tasks by itself; returns the counts.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        self._workflow.start()
        return self._workflow.engine.wait_all(timeout, batch=self.batch)

    def outputs(self, timeout: float | None = None) -> list[Any]:
        """The files that the step's tasks left, once all have succeeded: starts the workflow and waits. Each is an address that
        knows its task, so that a further step with it as an input requires that one.

        Raises:
            TaskError: one of its tasks ended badly.
            TimeoutError: not within `timeout` seconds.
        """
        self.wait(timeout)
        found: list[Any] = []
        for task in self:
            task._verdict()
            found += [task.output / left.name for left in task.files()]
        return found

    def each(self, function: Callable[..., object]) -> Callable[..., object]:
        """Have `function(task, files)` called for each of its tasks once that has succeeded, while the workflow runs: it may
        declare further steps. `files` are addresses of what the task left. Usable as a decorator.

        Steps without a name are named after the task there. When the script runs again they are found again as any others,
        so the function should declare the same for the same files.
        """
        self._workflow._each(self.name, function)
        return function

    def counts(self) -> dict[TaskState, int]:
        """How many of its tasks are in each state."""
        return self._workflow.engine.counts(self.batch)

    @property
    def status(self) -> str:
        """Its counts in words: `2 running, 14 succeeded`."""
        return ", ".join(f"{n} {state.word}" for state, n in self.counts().items()) or "nothing is queued"
