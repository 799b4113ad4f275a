"""What an order says of data: where its input and resources are now, where its output goes, and which remotes that takes.

Reads the state file; what a task left is looked up when the order is written, so that a relaunched source is followed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scitq.addresses import TASK, parent_of
from scitq.fetch.uri import Address, of_path, parse
from scitq.store import manifests
from scitq.store.executions import Order
from scitq.task import TaskId

if TYPE_CHECKING:
    import apsw


def keys(db: apsw.Connection, order: Order, outputs: str, file_id: str) -> dict[str, Any]:
    """The keys of an order that concern data. `outputs` is the folder of outputs without an address."""
    spec = order.spec
    found: dict[str, Any] = {}
    used: set[str | None] = set()
    for what, texts in (("input", spec.input), ("resource", spec.resource)):
        addresses = [there for text in texts if (there := _resolved(db, parse(text), outputs)) is not None]
        if addresses:
            found[what] = [str(address) for address in addresses]
            used |= {address.remote for address in addresses}
    if spec.stage_in_timeout is not None and found:
        found["stage_timeout"] = spec.stage_in_timeout
    if spec.output is None:
        found["deliver"] = f"{outputs}/{order.task}"
    else:
        found["output"] = spec.output
        found["owner"] = manifests.owner_of(db, order.task) if spec.use_cache else f"{file_id}:{order.task}"
        used.add(parse(spec.output).remote)
        if spec.overwrite:
            found["overwrite"] = True
        if spec.skip_if_exists:
            found["skip"] = True
    if spec.keep_failed:
        found["failed"] = _failed(order, outputs)
    remotes = sorted(name for name in used if name is not None)
    if remotes:
        found["remotes"] = remotes
    return found


def _failed(order: Order, outputs: str) -> str:
    """Where a failed execution's output goes: beside the output, never into it."""
    if order.spec.output is not None:
        address = parse(order.spec.output)
        # What stands beside a bucket would be another bucket.
        if not address.remote or len(address.segments) > 1:
            return str(replace(address, path=f"{address.path}.failed/{order.execution}"))
    return f"{outputs}/{order.task}.failed/{order.execution}"


def _resolved(db: apsw.Connection, address: Address, outputs: str) -> Address | None:
    """Where it is now; None for what a task that left nothing left."""
    if address.proto != TASK:
        return address
    number = parent_of(address)
    assert number is not None
    below = address.path.partition("/")[2]
    folder = f"{outputs}/{number}"
    there = manifests.source(db, TaskId(number), folder)
    if there is None and not below:
        return None
    base = of_path(folder) if there is None or there == folder else parse(there)
    if there == folder and not below and not os.path.isdir(folder):
        return None  # it left nothing, or somebody deleted it
    return replace(base, path=f"{base.path.rstrip('/')}/{below}" if below else base.path, actions=address.actions)
