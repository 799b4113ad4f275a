"""`TaskOutput`: the folder that a task leaves, as an address that knows its task; and the files in it.

As another task's input it is not an address but a reference, `task://12/sub`: it means that task 12 is required, and what its
newest success left, wherever that is by then.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from scitq.fetch.uri import Address, of_path, parse
from scitq.path import URI
from scitq.store import listing, manifests

if TYPE_CHECKING:
    from scitq.handle import Task


class TaskOutput(URI):
    """What a task leaves (or will leave), or something in it. Made by `Task.output`; `/` and `with_action` keep the task."""

    __slots__ = ("_reference", "_task")
    _task: Task
    _reference: Address

    def __init__(self, task: Task, address: Address, reference: Address) -> None:
        super().__init__(address)
        object.__setattr__(self, "_task", task)
        object.__setattr__(self, "_reference", reference)

    @property
    def task(self) -> Task:
        """Whose it is."""
        return self._task

    @property
    def reference(self) -> Address:
        """What it is as the input of another task: `task://12/sub|untar`."""
        return self._reference

    def joinpath(self, *parts: str | os.PathLike[str]) -> TaskOutput:
        """What lies below it. Leading slashes of a part are dropped; `..` is refused."""
        names = [os.fspath(part) for part in parts]
        return type(self)(self._task, self._address.join(*names), self._reference.join(*names))

    def __truediv__(self, part: str | os.PathLike[str]) -> TaskOutput:
        return self.joinpath(part)

    def with_action(self, *actions: str) -> TaskOutput:
        """The same, with these actions after its own: `with_action("untar", "mv:ref")`."""
        return type(self)(self._task, self._address.with_action(*actions), self._reference.with_action(*actions))


class TaskOutputPath(TaskOutput):
    """An output in a folder of this machine: also a path object."""

    __slots__ = ()

    def __fspath__(self) -> str:
        return self._address.path


def output_of(task: Task) -> TaskOutput:
    """Where the newest success of a task put its output; else where the next one will."""
    db = task._engine._reader()
    folder = f"{task._engine.side}/outputs/{task.id}"
    spec = listing.get(db, task.id).spec
    left = manifests.address(db, task.id)
    there = left if left is not None else spec.output
    address = of_path(folder) if there is None or there == folder else parse(there)
    kind = TaskOutputPath if address.is_local else TaskOutput
    return kind(task, replace(address, actions=()), Address("task", (), str(task.id)))
