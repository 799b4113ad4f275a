"""What Azure answers about machines and what belongs to them, in the nouns of `base`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from scitq.remote.providers.base import PREFIX, Instance, InstanceState, Leftover, LeftoverKind, Reach

_NAME = re.compile(rf"{PREFIX}(?P<store>[a-z0-9]+)-(?P<code>[a-z2-7]{{8}})(?P<part>-.+)?\Z")
_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/Microsoft\.Compute/virtualMachines/(?P<name>[^/]+)\Z",
    re.IGNORECASE,
)
_POWER: Mapping[str, InstanceState] = {
    "running": "running", "starting": "creating", "stopping": "stopping", "stopped": "stopped", "deallocating": "stopping",
    "deallocated": "stopped",
}  # fmt: skip
_KINDS: Mapping[str, LeftoverKind] = {
    "microsoft.network/networkinterfaces": "nic", "microsoft.network/publicipaddresses": "ip", "microsoft.compute/disks": "disk",
}  # fmt: skip


def parts(name: str) -> tuple[str, str] | None:
    """Store and code in the name of a machine, or of what belongs to one; None: it is not scitq's."""
    found = _NAME.match(name.lower())
    return None if found is None else (found["store"], found["code"])


def place(id: str, subscription: str) -> tuple[str, str] | None:
    """Group and name of a machine; None for what is none of this subscription."""
    found = _ID.match(id)
    if found is None or found["subscription"].lower() != subscription.lower():
        return None
    return found["group"], found["name"]


def instance(provider: str, machine: Mapping[str, Any], power: str | None = None, host: str = "") -> Instance | None:
    """A machine; None: it is not scitq's. `power`: the state in which it is, where that was told apart."""
    name = str(machine.get("name") or "")
    found = _NAME.match(name.lower())
    if found is None or found["part"]:
        return None
    has, tags = machine.get("properties") or {}, machine.get("tags") or {}
    market = "spot" if str(has.get("priority") or "").lower() == "spot" else "ondemand"
    state = _state(str(has.get("provisioningState") or ""), power or power_of(has), market)
    user = str(((has.get("osProfile") or {}).get("adminUsername")) or "ubuntu")
    return Instance(
        provider, str(machine.get("location") or "").lower(), str(machine["id"]), name, state, found["code"], found["store"],
        tags.get("scitq-project"), (has.get("hardwareProfile") or {}).get("vmSize"), "spot" if market == "spot" else "ondemand",
        Reach("ssh", host, user, 22) if host and state == "running" else None, _when(has.get("timeCreated")),
        _when(tags.get("scitq-expires")), _detail(has),
    )  # fmt: skip


def power_of(has: Mapping[str, Any]) -> str | None:
    """The state in which a machine is: running, stopped, deallocated …"""
    for status in (has.get("instanceView") or {}).get("statuses") or ():
        kind, _, state = str(status.get("code") or "").partition("/")
        if kind.lower() == "powerstate":
            return state.lower()
    return None


def _state(provisioning: str, power: str | None, market: str) -> InstanceState:
    was = provisioning.lower()
    if was == "deleting":
        return "deleting"
    if was == "failed":
        return "error"
    if power == "deallocated" and market == "spot":
        return "evicted"
    if power is not None:
        return _POWER.get(power, "unknown") if was != "creating" or power == "running" else "creating"
    return "creating" if was in ("creating", "updating", "succeeded", "") else "unknown"


def _detail(has: Mapping[str, Any]) -> str:
    """What went wrong, in Azure's words."""
    for status in (has.get("instanceView") or {}).get("statuses") or ():
        if str(status.get("level") or "").lower() == "error" and status.get("message"):
            return str(status["message"])[:400]
    return ""


def _when(text: Any) -> int | None:
    if not text:
        return None
    # Seconds have up to seven digits after the point, of which Python reads six.
    short = re.sub(r"(\.\d{6})\d+", r"\1", str(text)).replace("Z", "+00:00")
    try:
        return int(datetime.fromisoformat(short).timestamp() * 1000)
    except ValueError:
        return None


def leftovers(
    provider: str, store: str, things: Iterable[Mapping[str, Any]], keep: set[str], there: set[str]
) -> list[Leftover]:
    """What belongs to none of the machines to keep, nor to one that is there: cards, then addresses, then disks, as each holds the next."""
    found = []
    for one in things:
        kind, name = _KINDS.get(str(one.get("type") or "").lower()), str(one.get("name") or "")
        known = parts(name)
        if kind is None or known is None or known[0] != store or known[1] in keep or known[1] in there:
            continue
        region = str(one.get("location") or "").lower()
        found.append(Leftover(provider, region, kind, str(one["id"]), name, known[1], _when(one.get("createdTime"))))
    return sorted(found, key=lambda each: (("nic", "ip", "disk").index(each.kind), each.name))
