"""The work of a batch while workers are counted for it: what nobody is there for yet, and for how much of it a worker is got."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scitq.appraising import slots_of
from scitq.offers import Offer
from scitq.placement import at_once
from scitq.roster import BOOT_S, Demand, Staff, Work
from scitq.task import Need
from scitq.worker import Capacity, Recruiter


class Kind:
    """Tasks that ask the same, while they are counted: those that nobody is there for yet."""

    __slots__ = ("far", "near", "need", "ready")

    def __init__(self, work: Work, keep_s: float) -> None:
        self.need, self.ready = work.need, work.ready
        # Worth a machine now; and only worth keeping one that there is.
        self.near = sum(count for in_s, count in work.soon if in_s <= BOOT_S)
        self.far = sum(count for in_s, count in work.soon if BOOT_S < in_s <= keep_s)

    @property
    def left(self) -> int:
        return self.ready + self.near + self.far

    def take(self, count: int) -> None:
        for name in ("ready", "near", "far"):
            had = getattr(self, name)
            setattr(self, name, max(0, had - count))
            count = max(0, count - had)


class Backlog:
    """One batch while workers are found for it."""

    def __init__(self, demand: Demand, keep_s: float) -> None:
        self.demand = demand
        # Those that ask most first: what serves them serves the others, too.
        self.kinds = sorted(
            (Kind(work, keep_s) for work in demand.work), key=lambda kind: size_of(kind.need), reverse=True
        )
        self.limits = [rule.maximum_workers for rule in demand.recruiters]
        service = demand.service
        self.present = [service.terms[worker].ranks for worker in service.serving if worker in service.terms]

    @property
    def left(self) -> int:
        return sum(kind.left for kind in self.kinds)

    @property
    def ready(self) -> int:
        return sum(kind.ready for kind in self.kinds)

    @property
    def wanted(self) -> int:
        """How many tasks a machine would be rented for."""
        return sum(kind.ready + kind.near for kind in self.kinds)

    def serve(self, each_of: Callable[[Need | None], int], held: int = 0) -> int:
        """Count a worker that is got for `each_of` tasks of a kind, of which it has some; returns how many it is there for."""
        share, served = 1.0, 0
        for kind in self.kinds:
            if not kind.left or not (each := each_of(kind.need)):
                continue
            if not served and held:
                share, held = 1.0 - held / each, 0
            count = min(kind.left, int(share * each + 1e-9))
            if count > 0:
                share -= count / each
                served += count
                kind.take(count)
        return served


# --- figures ----------------------------------------------------------------------------------------------------------------------


def size_of(need: Need | None) -> tuple[float, int, float]:
    return (0.0, 0, 0.0) if need is None else (float(need.gpus or 0), need.memory or 0, need.cpus or 0.0)


def by_worker(rule: Recruiter, each: Staff, rounds: int | None = None) -> Callable[[Need | None], int]:
    """For how many tasks of a kind a worker is got by a recruiter."""
    capacity = each.capacity

    def found(need: Need | None) -> int:
        if rule.concurrency == 0 or not (count := at_once(need, capacity, rule.concurrency)):
            return 0
        return count if rounds else rule.tasks_per_worker or count * rule.rounds

    return found


def by_offer(rule: Recruiter, offer: Offer) -> Callable[[Need | None], int]:
    """The same of a machine that is not there yet."""

    def found(need: Need | None) -> int:
        count = slots_of(offer.flavor, rule.concurrency, (need,))
        return (rule.tasks_per_worker or count * rule.rounds) if count else 0

    return found


def capacity_of(facts: Mapping[str, Any]) -> Capacity:
    """What a machine of which an agent has said this has in all."""
    return Capacity(
        1,
        cpus=float(facts.get("cpus") or 0),
        memory_total=int(facts.get("memory") or 0),
        gpu_count=len(facts.get("gpus") or ()),
    )
