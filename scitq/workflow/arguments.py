"""The arguments of `Workflow.step`, as the engine takes them: commands that ship, data, requirements. Nothing is queued here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput
from scitq.handle import Task
from scitq.outputs import TaskOutput
from scitq.path import URI
from scitq.store import workflows
from scitq.workflow import code
from scitq.workflow.declare import Declared, one_output, words_of_input
from scitq.workflow.given import task_arguments
from scitq.workflow.step import Gathered, Step, StepTask

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.workflow.workflow import Workflow


class Arguments:
    """Reads the arguments of one workflow's steps. `named` gives the tasks of a name that it declared, over all steps."""

    def __init__(self, workflow: Workflow, base: str | None, named: Callable[[str], list[Declared]]) -> None:
        self._workflow = workflow
        self._base = base
        self._named = named

    @property
    def engine(self) -> Engine:
        """Whose file it goes into."""
        return self._workflow.engine

    def task(
        self, step: str, name: str, command: Any, args: Mapping[str, Any] | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What `Engine.submit` would be given, but for data and requirements."""
        task = task_arguments(given)
        shipped = code.shipped(command, args, given["shell"], in_container=given["container"] is not None)
        task |= {"command": command, "name": name, "batch": workflows.batch_name(self._workflow.name, step)}
        if shipped is not None:
            task |= {"command": shipped.command, "shell": shipped.shell}
            if shipped.python is not None:
                task["python"] = shipped.python
            if shipped.file is not None:
                task["resource"] = [code.keep(self.engine.side, *shipped.file)]
        elif isinstance(command, list | tuple):
            task.pop("shell", None)
        return task

    def data(
        self, task: dict[str, Any], parents: list[int], input: Any, resource: Any, output: Any,
        rel_input: str | Sequence[str] | None, rel_output: str | None,
    ) -> None:  # fmt: skip
        """Put what is said of data into the arguments."""
        inputs = self._sources("input", input)
        if rel_input is not None:
            base = self._base_for("rel_input")
            words = words_of_input("rel_input", rel_input, lambda text: os.path.exists(f"{base}/{text}"))
            if isinstance(words, str) or not isinstance(words, Iterable):
                words = [words]
            inputs += [f"{base}/{_relative('rel_input', word)}" for word in words]
        resources = [*self._sources("resource", resource), *task.get("resource", [])]
        if inputs:
            task["input"] = inputs
        if resources:
            task["resource"] = resources
        if rel_output is not None:
            if output is not None:
                raise BadInput("output= and rel_output= both say where the output goes: give one of them.")
            one_output(rel_output, lambda value: isinstance(value, Gathered | Step))
            output = f"{self._base_for('rel_output')}/{_relative('rel_output', rel_output)}"
        if output is not None:
            one_output(output, lambda value: isinstance(value, Gathered | Step))
            task["output"] = output

    def _base_for(self, what: str) -> str:
        if self._base is None:
            raise BadInput(f"{what}= begins at the workflow's base_storage=, which was not given.")
        return self._base

    def _sources(self, what: str, value: Any) -> list[Any]:
        """Addresses as the engine takes them."""
        if value is None:
            return []
        if isinstance(value, Step):
            value = value.gather("output")
        elif isinstance(value, str):
            value = words_of_input(what, value, os.path.exists)
        if isinstance(value, Task | TaskOutput | URI | str | os.PathLike):
            return [value]
        if isinstance(value, Gathered) and not value._is_output:
            return [task.output for task in value]
        if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
            return [part for one in value for part in ([one] if isinstance(one, str) else self._sources(what, one))]
        return [value]

    def requirements(self, value: Any) -> list[int]:
        """The numbers of tasks, those that stand for tasks of this workflow included."""
        if value is None:
            return []
        if isinstance(value, StepTask):
            if value._workflow is self._workflow or value.is_started:
                return [value.task_id] if value._workflow is self._workflow else self.engine._submitter.ids_of(value)
            return [value.id]  # which says that it is not started
        if isinstance(value, Step):
            value = value.gather()
        if isinstance(value, Gathered):
            return [value._tasks[n].task_id for n in range(len(value))]
        if isinstance(value, TaskOutput):
            return self.requirements(value.task)
        if isinstance(value, str):
            found = self._named(value)
            if len(found) > 1:
                raise BadInput(f"{len(found)} steps have a task named {value!r}: give its handle instead of the name.")
            return [found[0].number] if found else self.engine._submitter.ids_of(value)
        if isinstance(value, Mapping) and isinstance(value.get("task_id"), int):
            return [value["task_id"]]
        if isinstance(value, Iterable) and not isinstance(value, Task):
            return [number for one in value for number in self.requirements(one)]
        if not isinstance(value, Task | int) and isinstance(number := getattr(value, "task_id", None), int):
            return [number]
        return self.engine._submitter.ids_of(value)


def _relative(what: str, given: Any) -> str:
    text = str(given).strip("/") if what == "rel_output" else str(given).lstrip("/")
    if not text or ".." in text.split("|")[0].split("/"):
        raise BadInput(f"{what}: {given!r} is no path below base_storage.")
    return text
