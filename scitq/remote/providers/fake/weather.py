"""What happens in the make-believe cloud by itself, as its clock goes on: machines boot, are taken away, are gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scitq.remote.providers.base import InstanceState
from scitq.remote.providers.fake import machines
from scitq.remote.providers.fake.world import OVER, UNPAID, Fault, Machine, Thing, World

LOCAL, HOSTS = "local", "hosts"
# What a leftover costs an hour.
_PRICES: Mapping[str, float] = {"disk": 0.002, "ip": 0.004}


def settle(world: World) -> None:
    """Everything that is due."""
    now = world.now_ms()
    for one in [one for one in world.changes if one.at_ms <= now]:
        world.changes.remove(one)
        change(world, one.do, one.arguments)
    for machine in world.alive():
        _age(world, machine, now)


def _age(world: World, machine: Machine, now: int) -> None:
    ends: tuple[tuple[int | None, InstanceState, str], ...] = (
        (machine.vanish_ms, "gone", "it vanished"),
        (machine.evict_ms, "evicted" if machine.stays else "gone", "it was taken back"),
        (machine.expires_ms, "gone", "it ended itself: its time was over"),
    )
    for at, state, why in ends:
        if at is not None and at <= now and machine.state not in UNPAID:
            end(world, machine, "gone" if machine.state == "deleting" else state, at, why)
    if machine.state == "creating" and now >= machine.boots_ms:
        if machine.is_broken:
            machine.state, machine.why = "error", "it does not boot"
        elif world.machines_are == LOCAL or machine.host is not None:
            machine.state = "running"
    elif machine.state == "deleting" and now >= (machine.gone_ms or 0) and not _still_runs(world, machine):
        end(world, machine, "gone", machine.gone_ms or now, "it was deleted")


def _still_runs(world: World, machine: Machine) -> bool:
    """Whether the host that it is has not been ended yet."""
    return world.machines_are == HOSTS and not machine.is_off


def end(world: World, machine: Machine, state: InstanceState, at_ms: int, why: str) -> None:
    """A machine is no more, or somebody else's."""
    is_paid = machine.state not in UNPAID
    machine.state, machine.why = state, why
    if is_paid:
        machine.ended_ms = max(at_ms, machine.accepted_ms)
        sale = world.sale(machine.region, machine.flavor, machine.market)
        if sale is not None and sale.stock is not None:
            sale.stock += 1
    if state in OVER:
        for kind in machine.leaves:
            id = f"{kind}-{world.number()}"
            world.things[id] = Thing(
                id,
                kind,
                machine.region,
                machine.name,
                machine.code,
                machine.store,
                machine.ended_ms or at_ms,
                _PRICES.get(kind),
            )
        machine.leaves = []
        machine.user_data = ""


def change(world: World, do: str, arguments: Mapping[str, Any]) -> int:
    """Change what is sold, what may be had, or what goes wrong; how many things are different then. Who is not named is any."""
    if do == "fault":
        world.script.append(Fault(**arguments))
        return 1
    about = {key: value for key, value in arguments.items() if key in ("region", "flavor", "market", "family")}
    found: list[Any] = world.limits if do == "quota" else world.sales
    found = [
        one for one in found if all(getattr(one, key) == value for key, value in about.items() if value is not None)
    ]
    for one in found:
        for key, value in arguments.items():
            if key == "factor":
                one.price = None if one.price is None else round(one.price * value, 6)
            elif key not in about:
                setattr(one, key, value)
    return len(found)


def next_ms(world: World) -> int | None:
    """When something is due next that is not a thing of asking: a machine is to be told of its end, or ended. None: nothing."""
    moments = [change.at_ms for change in world.changes]
    for machine in world.alive():
        if machine.state not in UNPAID:
            moments += [at for at in (machine.evict_ms, machine.vanish_ms, machine.expires_ms) if at is not None]
            moments += [machine.notice_ms] if machine.notice_ms is not None and not machine.is_noticed else []
            moments += [machine.gone_ms] if machine.state == "deleting" and machine.gone_ms is not None else []
    return min(moments, default=None)


def look(world: World, folder: Path) -> None:
    """Machines that ended themselves are gone."""
    for machine in world.alive() if world.machines_are == LOCAL else ():
        if machine.state == "running" and machines.has_shut_down(folder, machine.id):
            end(world, machine, "gone", world.now_ms(), "it shut itself down")


def is_done(world: World, folder: Path) -> bool:
    """Do to the machines that are folders here what is to be done; whether there was anything. Repeated after a kill."""
    if world.machines_are != LOCAL:
        return False
    found = False
    now = world.now_ms()
    for machine in world.machines.values():
        if machine.is_off:
            continue
        if machine.state in (*UNPAID, *OVER, "error"):
            machines.power_off(folder, machine.id)
            machine.is_off = found = True
        elif _is_to_be_told(machine, now) and machines.is_there(folder, machine.id):  # else nobody could read it yet
            at = (machine.evict_ms or now) - world.offset_ms  # agents know this machine's clock, not the cloud's
            machines.give_notice(folder, machine.id, at, "the provider takes this machine back")
            machine.is_noticed = found = True
    return found


def _is_to_be_told(machine: Machine, now: int) -> bool:
    return machine.notice_ms is not None and machine.notice_ms <= now and not machine.is_noticed
