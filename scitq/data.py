"""What an order says of data: where its input and resources are now, where its output goes, and which remotes that takes.

Reads the state file; what a task left is looked up when the order is written, so that a relaunched source is followed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scitq.addresses import TASK, parent_of
from scitq.fetch.uri import Address, of_path, parse
from scitq.store import listing, manifests
from scitq.store.executions import Order
from scitq.task import Spec, TaskId
from scitq.worker import WorkerId

if TYPE_CHECKING:
    import apsw


def keys(db: apsw.Connection, order: Order, outputs: str, file_id: str, *, is_far: bool = False) -> dict[str, Any]:
    """The keys of an order that concern data. `outputs` is the folder of outputs without an address.

    `is_far`: its worker does not see this machine's files. What is to come from here is named as a parcel (`parcels`).
    """
    spec = order.spec
    found: dict[str, Any] = {}
    used: set[str | None] = set()
    count = 0
    for what, texts in (("input", spec.input), ("resource", spec.resource)):
        entries: list[str | dict[str, Any]] = []
        for text in texts:
            address = parse(text)
            if is_far and (awaited := _awaited(db, address, order.worker, outputs)) is not None:
                used.add(parse(awaited["uri"]).remote)
                entries.append(awaited)
                continue
            there = resolved(db, address, outputs)
            if there is None:
                continue
            used.add(there.remote)
            entry: dict[str, Any] = {"uri": str(there)}
            if is_far and there.is_local:
                entry["parcel"] = f"{order.execution}.{count}"
                count += 1
            if is_far:
                entry |= _made_there(db, address, order.worker)
            entries.append(entry if len(entry) > 1 else entry["uri"])
        if entries:
            found[what] = entries
    if spec.stage_in_timeout is not None and found:
        found["stage_timeout"] = spec.stage_in_timeout
    if is_far and is_here(order):
        # Nothing of it can be looked at from there: it is held there until it has been brought here, to where it belongs.
        found["home"] = True if spec.output is None else "always"
        if spec.keep_failed:
            found["failed"] = True
        if spec.output is not None and (spec.skip_if_exists or not spec.overwrite):
            # Before it runs somebody has to look whether that may be put there, or is there: this machine does, and says so.
            found["check"] = {"parcel": f"{order.execution}.{count}", **goes(db, order, outputs, file_id)}
    else:
        found |= goes(db, order, outputs, file_id)
        if spec.output is not None:
            used.add(parse(spec.output).remote)
    remotes = sorted(name for name in used if name is not None)
    if remotes:
        found["remotes"] = remotes
    return found


def tied(db: apsw.Connection, spec: Spec, worker: WorkerId, held: Collection[int]) -> bool:
    """Whether a task could not begin on a worker elsewhere without something of this machine's: a file, or a look at where its
    output is to go. `held`: tasks whose output will be on that worker."""
    for text in (*spec.input, *spec.resource):
        address = parse(text)
        number = parent_of(address) if address.proto == TASK else None
        if number is not None:
            if number in held or manifests.made_on(db, TaskId(number), worker) is not None:
                continue
            there = manifests.source(db, TaskId(number), "/")
            if there is None or (there != "/" and not parse(there).is_local):
                continue
            return True
        if address.is_local:
            return True
    return spec.output is not None and parse(spec.output).is_local and (spec.skip_if_exists or not spec.overwrite)


def _awaited(db: apsw.Connection, address: Address, worker: WorkerId, outputs: str) -> dict[str, Any] | None:
    """Of what another task will leave: the execution that is to leave it, if that worker has it still; the order waits for it."""
    number = parent_of(address)
    making = None if number is None else manifests.making(db, TaskId(number), worker)
    if number is None or making is None:
        return None
    spec = listing.spec_of_task(db, TaskId(number))
    base = of_path(f"{outputs}/{number}") if spec.output is None else parse(spec.output)
    below = address.path.partition("/")[2].strip("/")
    there = replace(base, path=f"{base.path.rstrip('/')}/{below}" if below else base.path, actions=address.actions)
    return {"uri": str(there), "of": making, "below": below, "awaited": True}


def _made_there(db: apsw.Connection, address: Address, worker: WorkerId) -> dict[str, Any]:
    """Of what another task left: the execution that left it, if that was on this very worker, where it may still be."""
    number = parent_of(address)
    below = address.path.partition("/")[2].strip("/")
    made = None if number is None else manifests.made_on(db, TaskId(number), worker)
    if made is None or ".." in below.split("/"):
        return {}
    return {"of": made, "below": below}


def is_here(order: Order) -> bool:
    """Whether the output is to lie on this machine."""
    return order.spec.output is None or parse(order.spec.output).is_local


def goes(db: apsw.Connection, order: Order, outputs: str, file_id: str) -> dict[str, Any]:
    """The keys of an order that say where its output goes."""
    spec = order.spec
    found: dict[str, Any] = {}
    if spec.output is None:
        found["deliver"] = f"{outputs}/{order.task}"
    else:
        found["output"] = spec.output
        found["owner"] = manifests.owner_of(db, order.task) if spec.use_cache else f"{file_id}:{order.task}"
        if spec.overwrite:
            found["overwrite"] = True
        if spec.skip_if_exists:
            found["skip"] = True
    if spec.keep_failed:
        found["failed"] = _failed(order, outputs)
    return found


def owed(db: apsw.Connection, order: Order, outputs: str, file_id: str, *, is_failed: bool) -> dict[str, Any]:
    """Where an output that came home is to be put, in the words of `remote.agent.publish`."""
    found = goes(db, order, outputs, file_id)
    if not is_failed:
        return {"id": order.execution, **{key: value for key, value in found.items() if key not in ("failed", "skip")}}
    target = _failed(order, outputs)
    where = {"deliver": target} if "owner" not in found else {"output": target, "owner": found["owner"]}
    return {"id": order.execution, **where, "failed": True}


def _failed(order: Order, outputs: str) -> str:
    """Where a failed execution's output goes: beside the output, never into it."""
    if order.spec.output is not None:
        address = parse(order.spec.output)
        # What stands beside a bucket would be another bucket.
        if not address.remote or len(address.segments) > 1:
            return str(replace(address, path=f"{address.path}.failed/{order.execution}"))
    return f"{outputs}/{order.task}.failed/{order.execution}"


def resolved(db: apsw.Connection, address: Address, outputs: str) -> Address | None:
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
