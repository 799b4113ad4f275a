"""What a worker's agent is told of an execution: the words of `remote.agent.orders`, made from what the state file says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.registries import keys as registry_of
from scitq.store import copies, executions, manifests, query, workers
from scitq.store.executions import Order
from scitq.worker import LOCAL, WorkerRow

if TYPE_CHECKING:
    import apsw


class Orders:
    """Writes orders. `outputs` is the folder of outputs without an address."""

    def __init__(self, outputs: str) -> None:
        self._outputs = outputs
        self._file_id: str | None = None
        self._contexts: dict[int, dict[str, Any]] = {}

    def order(self, db: apsw.Connection, order: Order, row: WorkerRow | None) -> dict[str, Any]:
        """The order of one execution for its worker, `row` as far as it is known."""
        spec = order.spec
        is_far = (row or workers.find(db, int(order.worker))).kind != LOCAL
        command: dict[str, Any] = {"order": order.execution, "task": order.task}
        if spec.shell is not None:
            command["script"], command["shell"] = spec.command, spec.shell
        else:
            command["argv"] = spec.argv()
        if row is not None and row.output_cap is not None:
            command["cap"] = row.output_cap
        if spec.env:
            command["env"] = dict(spec.env)
        if order.slots > 1:
            command["slots"] = order.slots
        if spec.cpus is not None:
            command["cpu"] = max(1, int(spec.cpus))
        elif (
            order.slots > 1 and row is not None and row.cpus
        ):  # the share of the worker that its batch's recruiter wants
            command["cpu"] = max(1, int(order.slots * row.cpus / max(1, row.concurrency)))
        if spec.memory is not None:
            command["memory"] = spec.memory
        if (spec.memory or spec.cpus) and (row is None or row.limits_wanted):
            command["limit"] = {name: value for name, value in (("memory", spec.memory), ("cpus", spec.cpus)) if value}
        if order.gpus:
            command["gpus"] = list(order.gpus)
        if spec.container is not None:
            command["image"] = spec.container
            command.update(registry_of(spec.container))
            if spec.container_options:
                command["options"] = list(spec.container_options)
            if row is not None and row.container_engine is not None:
                command["engine"] = row.container_engine
        if spec.run_timeout is not None:
            command["timeout"] = spec.run_timeout
        if spec.has_data:
            from scitq.data import keys

            if self._file_id is None:
                self._file_id = manifests.file_id(db)
            command.update(keys(db, order, self._outputs, self._file_id, is_far=is_far))
        elif is_far:
            command["home"] = True
            if spec.keep_failed:
                command["failed"] = True
        else:
            command["deliver"] = f"{self._outputs}/{order.task}"
            if spec.keep_failed:
                command["failed"] = f"{self._outputs}/{order.task}.failed/{order.execution}"
        # An image has a folder and a PATH of its own, and so has another machine.
        if order.context is not None and spec.container is None and not is_far:
            if order.context not in self._contexts:
                text = query.one(db, "select data from context where id = ?", (order.context,))[0]
                self._contexts[order.context] = self.circumstances(text)
            command.update(self._contexts[order.context])
        if is_far and (after := executions.conditions(db, order.task, order.worker)):
            command["after"] = after
        return command

    def circumstances(self, text: str) -> dict[str, Any]:
        """The folder and the environment from which a task was submitted; of a file that was moved since, neither is here."""
        data = json.loads(text)
        side = Path(self._outputs).parent
        if "place" in data and data["place"] != copies.own(side.with_name(side.name.removesuffix(".d")), side).id:
            return {}
        return {"base": data.get("env", {}), "cwd": data["cwd"]}
