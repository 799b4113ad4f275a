"""What an offer is worth: how many tasks it runs at once, what it costs for the time that it works, what it takes of quotas.

Pure. Which offers would do, and in which order, is `ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scitq.container import ALL_GPUS
from scitq.offers import Flavor, Observed, Offer, Quota
from scitq.protofilter import NEARLY
from scitq.task import Need

Key = tuple[str, str, str, str]
# A machine is thought to work so long, and to need so long until it does, as long as nothing better is known.
WORK_S = 3600.0
BOOT_S = 120.0
# What the provider says of evictions weighs as much as so many hours of one's own machines.
TRUST_H = 20.0
# One per cent of evictions per hour makes work dearer by so much: what ran is lost, and a machine begins anew.
LOSS = 0.02
# The family of the limit that a user sets on how many machines of a provider there may be, in all regions together.
MACHINES = "max_machines"
# Quotas that every machine of a region draws on, of flavors that do not say on which they do.
GENERIC = ("cores", "instances", "ram")


class Left(NamedTuple):
    """What is left of a quota, in its unit."""

    unit: str
    amount: float


def boot_of(seen: Observed) -> float:
    """How long it takes until a machine works, in seconds: what was seen, with the tries in vain."""
    mean = (seen.boot_s + BOOT_S) / (seen.boots + 1)
    return mean * (1 + seen.failures / (seen.boots + 1))


def eviction_of(offer: Offer, seen: Observed) -> float:
    """How often a machine is taken back, in per cent per hour: what was seen, and what the provider says of it."""
    if not seen.machine_s and not seen.evictions:
        return offer.eviction
    return (100 * seen.evictions + offer.eviction * TRUST_H) / (seen.machine_s / 3600 + TRUST_H)


def dearer(offer: Offer, boot_s: float, eviction: float, work_s: float = WORK_S) -> float:
    """How many times its price a machine costs for the time that it works."""
    # When a machine ends, half of a piece that is billed is left over, on average.
    paid_s = max(float(offer.minimum_s), work_s + boot_s + offer.billed_s / 2)
    return paid_s / work_s * (1 + LOSS * eviction)


def slots_of(flavor: Flavor, concurrency: int | None, needs: Sequence[Need | None]) -> int:
    """How many tasks at once a machine would run; 0: none of them fits."""
    slots = max(1, flavor.cpu) if concurrency is None else max(1, concurrency)
    if not needs:
        return slots
    return max(_fitting(flavor, slots, need or Need()) for need in needs)


def _fitting(flavor: Flavor, slots: int, need: Need) -> int:
    gpus = 0 if flavor.gpu is None else int(flavor.gpu.count)
    if need.gpus:
        slots = min(slots, (1 if gpus else 0) if need.gpus == ALL_GPUS else gpus // need.gpus)
    if need.cpus:
        slots = min(slots, int(flavor.cpu / need.cpus))
    if need.memory:
        # The system keeps some for itself.
        slots = min(slots, int(flavor.ram * NEARLY / need.memory))
    return slots


# --- quotas -----------------------------------------------------------------------------------------------------------------------


def draws(offer: Offer) -> list[tuple[str, str, str]]:
    """The quotas that a machine draws on, each by provider, region ("": all of them) and family."""
    flavor = offer.flavor
    families = flavor.families.get(offer.market, ())
    if not flavor.families or not any(one != MACHINES for names in flavor.families.values() for one in names):
        families = (*GENERIC, *families)
    return [_key(flavor.provider, offer.region, family) for family in families]


def _key(provider: str, region: str, family: str) -> tuple[str, str, str]:
    return (provider, "" if family == MACHINES else region, family)


def takes(flavor: Flavor, unit: str) -> float:
    """How much a machine takes of a quota that is in that unit."""
    return {"vcpu": flavor.cpu, "bytes": flavor.ram}.get(unit, 1)


def left_of(
    quotas: Iterable[Quota], rented: Iterable[tuple[Offer, int | None]] = ()
) -> dict[tuple[str, str, str], Left]:
    """What is left of quotas. `rented`: the machines of this file that the provider has, or is asked for, and since when (ms; None:
    not yet): those that it had when it told count already in what it told, others' too."""
    limits: dict[tuple[str, str, str], tuple[Quota, float]] = {}
    for quota in sorted(
        quotas, key=lambda quota: quota.fetched_ms
    ):  # of what is told in every region the newest word counts
        if quota.limit is not None:
            limits[_key(quota.provider, quota.region, quota.family)] = (quota, quota.limit - (quota.used or 0))
    for offer, since_ms in rented:
        for key in draws(offer):
            if (found := limits.get(key)) is None:
                continue
            quota, left = found
            is_told = quota.used is not None and since_ms is not None and since_ms < quota.fetched_ms
            if not is_told:
                limits[key] = (quota, left - takes(offer.flavor, quota.unit))
    return {key: Left(quota.unit, left) for key, (quota, left) in limits.items()}
