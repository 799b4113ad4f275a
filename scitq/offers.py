"""What providers sell, and what was rented of it: the nouns between providers, the rules that choose, and the file.

Frozen rows; who reads them from a provider is `remote.providers`, who chooses is `ranking` and `recruiting`. Memory and disks are
in bytes, prices per hour in the currency that stands beside them, evictions in per cent per hour, times in milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Literal

from scitq.worker import WorkerId

Market = Literal["ondemand", "spot"]
Unit = Literal["vcpu", "instances", "bytes", "ip"]
MARKETS: tuple[Market, ...] = ("ondemand", "spot")


@dataclass(frozen=True)
class Gpu:
    """The GPUs of a flavor: `model` in capitals without the vendor, `count` (a share of one is allowed), bytes of memory of ONE."""

    model: str
    count: float
    memory: int


@dataclass(frozen=True)
class Flavor:
    """A size of machine as its vendor names it."""

    provider: str
    name: str
    cpu: int
    ram: int
    root_disk: int = 0
    """Bytes of disk that are there without asking; 0: chosen when a machine is created."""
    local_disk: int = 0
    local_disks: int = 0
    local_kind: Literal["none", "root", "scsi-temp", "nvme"] = "none"
    gpu: Gpu | None = None
    arch: Literal["x86_64", "arm64"] = "x86_64"
    metal: bool = False
    net_gbps: float | None = None
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By market, the quotas that a machine draws on."""

    @property
    def disk(self) -> int:
        """What a protofilter sees as `disk`."""
        return max(self.local_disk, self.root_disk)

    @property
    def tags(self) -> str:
        """Letters: G (GPU), M (bare metal), N (NVMe)."""
        return ("G" if self.gpu else "") + ("M" if self.metal else "") + ("N" if self.local_kind == "nvme" else "")

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "families": {market: list(names) for market, names in self.families.items()}}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Flavor:
        """What `plain` made of one."""
        gpu, families = data.get("gpu"), data.get("families") or {}
        more = {
            "gpu": None if gpu is None else Gpu(**gpu),
            "families": {market: tuple(names) for market, names in families.items()},
        }
        return cls(**{**data, **more})


@dataclass(frozen=True)
class Offer:
    """One way of buying a flavor: in a region, on a market."""

    flavor: Flavor
    region: str
    market: Market = "ondemand"
    zones: tuple[str, ...] = ()
    price: float | None = None
    currency: str = "EUR"
    billed_s: int = 1
    """Time is billed in pieces of so many seconds (an hour: 3600)."""
    minimum_s: int = 0
    """At least so many seconds are billed."""
    eviction: float = 0.0
    eviction_known: bool = True
    available: int | None = None
    """How many more can be started now; None: not known."""
    reason: str = ""
    """Why none is available."""
    fetched_ms: int = 0
    root_disk: int = 0
    """Bytes of the disk that it is to start from, if larger than the flavor's own; the price is with it."""
    score: float = 0.0
    """Of offers that are alike otherwise the higher is tried first: how likely the vendor thinks it is to be had."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Provider, region, flavor, market: what identifies it."""
        return (self.flavor.provider, self.region, self.flavor.name, self.market)

    @property
    def disk(self) -> int:
        """What a protofilter sees as `disk`."""
        return max(self.flavor.disk, self.root_disk)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        mine = {name: value for name, value in vars(self).items() if name != "flavor"}
        return {**mine, "zones": list(self.zones), "flavor": self.flavor.plain()}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Offer:
        """What `plain` made of one."""
        return cls(**{**data, "flavor": Flavor.of(data["flavor"]), "zones": tuple(data.get("zones") or ())})


@dataclass(frozen=True)
class Observed:
    """What became of the machines of an offer that this file has rented: how long they ran, and how they began and ended."""

    machine_s: float = 0.0
    boots: int = 0
    boot_s: float = 0.0
    """How long those boots took together."""
    evictions: int = 0
    failures: int = 0
    """Machines that never became workers."""


@dataclass(frozen=True)
class Quota:
    """A limit of an account in a region. `used` None: the provider does not tell, and what this file has rented is counted."""

    provider: str
    region: str
    family: str
    unit: Unit
    limit: float | None
    used: float | None
    fetched_ms: int = 0


@dataclass(frozen=True)
class Hold:
    """An offer, or all of a region's or provider's (None: any), that is not tried again before `until_ms`."""

    provider: str
    region: str | None
    flavor: str | None
    market: str | None
    until_ms: int
    reason: str
    code: str = ""

    def covers(self, offer: Offer) -> bool:
        """Whether it is about an offer."""
        provider, region, flavor, market = offer.key
        return self.provider == provider and all(
            mine is None or mine == its
            for mine, its in ((self.region, region), (self.flavor, flavor), (self.market, market))
        )


class RentalState(IntEnum):
    """How far a machine is that was asked of a provider. The numbers are stored in state files: append, never renumber."""

    INTENT = 0
    """Written down; the provider may have been called."""
    CREATING = 1
    """The provider has accepted it, and said its own id of it."""
    RUNNING = 2
    DELETING = 3
    """It is to go; asked again until the provider says that it has."""
    GONE = 4
    """The provider says that it is gone, with everything that belonged to it."""

    @property
    def word(self) -> str:
        """The state's name on screens and in JSON."""
        return self.name.lower()


R = RentalState
RENTAL_MOVES: Mapping[RentalState, frozenset[RentalState]] = {
    R.INTENT: frozenset({R.CREATING, R.RUNNING, R.DELETING, R.GONE}),
    R.CREATING: frozenset({R.RUNNING, R.DELETING, R.GONE}),
    R.RUNNING: frozenset({R.DELETING, R.GONE}),
    R.DELETING: frozenset({R.GONE}),
    R.GONE: frozenset({R.DELETING}),  # found again at the provider
}
# Alive at the provider, or maybe.
RENTED = frozenset({R.INTENT, R.CREATING, R.RUNNING, R.DELETING})


@dataclass(frozen=True)
class Rental:
    """One row of table `rental`: a machine that was asked of a provider, for a worker of the same life."""

    worker: WorkerId
    code: str
    """Eight letters and digits, made here: with the file's own id the name of the machine."""
    state: RentalState
    provider: str
    region: str
    flavor: str
    market: Market
    price: float | None
    currency: str
    billed_s: int
    minimum_s: int
    wanted_ms: int
    accepted_ms: int | None
    """From when on it is paid for."""
    running_ms: int | None
    ended_ms: int | None
    """When the provider said that it is gone."""
    expires_ms: int | None
    cloud_id: str | None
    batch: int | None
    rank: int | None
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What else is known: `host_key` (public), `user`, `host`, `port`, `asked` (the exact request, until the machine runs)."""
