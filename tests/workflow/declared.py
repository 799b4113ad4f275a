"""Workflows in a state file without a script: rows as a declaration leaves them, for tests of what only looks at them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from scitq.engine import Engine
from scitq.handle import Task
from scitq.store import batches, workflows


def declare(engine: Engine, name: str, steps: Mapping[str, Iterable[Mapping[str, Any] | str]]) -> dict[str, list[Task]]:
    """Queue the steps' tasks as a workflow of that name: of each its command, or arguments of `Engine.submit`.

    Tasks that have no name get `<step> #<n>`. What is declared a second time under the same names comes to what is there.
    """
    now = time.time_ns() // 1_000_000
    wanted = {
        step: [dict(item) if isinstance(item, Mapping) else {"command": item} for item in items]
        for step, items in steps.items()
    }

    def make(db: Any) -> tuple[Any, dict[str, Any]]:
        workflow = workflows.put(db, now, name, {}, "declared.py")
        workflows.begun(db, now, workflow)
        return workflow, {step: workflows.put_step(db, workflow, name, step, n) for n, step in enumerate(wanted)}

    workflow, numbers = engine._write(make)
    found: dict[str, list[Task]] = {}
    for step, items in wanted.items():
        found[step] = []
        for n, item in enumerate(items, 1):
            arguments = {"name": f"{step} #{n}", **item, "batch": f"{name}.{step}"}
            task = engine.submit(**arguments)
            digest = hashlib.sha256(repr(sorted(item.items(), key=str)).encode()).hexdigest()
            row = (task.id, numbers[step], arguments["name"], digest, n, None, None, 0)
            engine._write(lambda db, row=row: workflows.put_members(db, workflow, [row]))  # type: ignore[misc]
            found[step].append(task)
    return found


def halt(engine: Engine, name: str, wanted: Any) -> None:
    """Pause, suspend or release all steps of a workflow."""
    now = time.time_ns() // 1_000_000
    for step in workflows.steps(engine._reader(), workflows.get(engine._reader(), name).id):
        engine._write(lambda db, step=step: batches.halt(db, now, step.batch, wanted))  # type: ignore[misc]
