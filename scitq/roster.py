"""What the rule of `staffing` looks at, and what it may say: work, workers, what is sold; moves, machines to rent or to let go.

Values only, made by `hiring` (or a simulation), read and made by `staffing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from scitq.appraising import Left
from scitq.money import Allowance
from scitq.offers import Offer, Rental, RentalState
from scitq.placement import Service, total
from scitq.ranking import Ranking
from scitq.task import Need
from scitq.worker import Capacity, Recruiter, WorkerId, WorkerRow

# A machine is thought to need so long until it works, when nothing is known of its like.
BOOT_S = 120.0
# A note of rankings that are empty only for now.
ASKING = "its providers are being asked what they have"


# --- what there is --------------------------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """Tasks of a batch that ask the same: how many could run now, and how many could in so many seconds, as far as one knows."""

    need: Need | None
    ready: int
    soon: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Demand:
    """A batch that wants workers: its recruiters by rank, who serves it now, and its work.

    `waited_s`: for how long its first task could have run. `mean_s`: how long one usually runs, if known.
    """

    batch: int
    recruiters: Sequence[Recruiter]
    service: Service
    work: Sequence[Work]
    name: str = ""
    workflow: int | None = None
    waited_s: float = float("inf")
    mean_s: float | None = None

    @property
    def ready(self) -> int:
        """How many of its tasks could run now."""
        return sum(work.ready for work in self.work)


@dataclass(frozen=True)
class Staff:
    """A worker. `spare`: slots without work; `held`: how many executions it has; `home`: the batch that its user gave it.

    Of one that is rented: `idle_ms`, since when it has had nothing to do as far as was noticed; `is_ours`, that it was told to go by
    this rule; `is_lost`, that what it holds is not its own any more, for it was silent for so long.
    """

    row: WorkerRow
    spare: int
    home: int | None = None
    held: int = 0
    rental: Rental | None = None
    idle_ms: int | None = None
    boot_s: float = BOOT_S
    is_ours: bool = False
    is_lost: bool = False

    @cached_property
    def capacity(self) -> Capacity:
        """All that it has."""
        return total(self.row)

    @cached_property
    def is_rented(self) -> bool:
        """Whether it is a machine that may be let go."""
        rental = self.rental
        return rental is not None and rental.state not in (RentalState.DELETING, RentalState.GONE)


def _nothing_is_sold(demand: Demand, rule: Recruiter) -> Ranking:
    return Ranking()


@dataclass(frozen=True)
class World:
    """All that is looked at. `pending`: how many tasks of each batch are, of others' too. `offers` ranks what is sold for a recruiter.

    `left`: of quotas, by provider, region and family. `workflows`: how many rented machines each may have. `workflow_of`: of batches.
    `found`: what machines of a provider's flavor really had, where one has been seen.
    """

    now_ms: int
    demands: Sequence[Demand]
    staff: Sequence[Staff]
    pending: Mapping[int, int] = field(default_factory=dict)
    offers: Callable[[Demand, Recruiter], Ranking] = _nothing_is_sold
    left: Mapping[tuple[str, str, str], Left] = field(default_factory=dict)
    allowance: Allowance = field(default_factory=lambda: Allowance(0))
    workflows: Mapping[int, int] = field(default_factory=dict)
    workflow_of: Mapping[int, int] = field(default_factory=dict)
    found: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


# --- what is to be done ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """A worker changes to another batch. `rank` None: it goes back to its own."""

    worker: WorkerId
    batch: int
    rank: int | None
    recruiter: Recruiter | None = None


@dataclass(frozen=True)
class Deploy:
    """A machine is rented for a batch. `others`: what else would do, best first."""

    batch: int
    recruiter: Recruiter
    offer: Offer
    others: tuple[Offer, ...] = ()


@dataclass(frozen=True)
class Drain:
    """A rented worker gets nothing more, and is let go once it has ended what it has."""

    worker: WorkerId
    why: str


@dataclass(frozen=True)
class Resume:
    """One that was told to go is needed after all."""

    worker: WorkerId


@dataclass(frozen=True)
class Destroy:
    """A rented machine without work is let go."""

    worker: WorkerId
    why: str


@dataclass(frozen=True)
class Idle:
    """Remember since when a rented worker has had nothing to do; None: it has something again."""

    worker: WorkerId
    since_ms: int | None


@dataclass(frozen=True)
class Short:
    """So many tasks of a batch want machines that they do not get, and why: it is to be waited (`patience`), somebody has set a
    limit (`limit`), or nothing can be had (`offers`)."""

    batch: int
    rank: int
    tasks: int
    why: str
    kind: Literal["patience", "limit", "offers"] = "offers"


Action = Move | Deploy | Drain | Resume | Destroy | Idle | Short


class Decision(NamedTuple):
    """What is to be done, and when to look again even if nothing happens (None: not before)."""

    actions: list[Action]
    due_ms: int | None = None
