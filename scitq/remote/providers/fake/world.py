"""What a make-believe cloud consists of, and how it is kept: one JSON file in a folder, changed by one process at a time.

A change is on the disk, whole, before its maker goes on: nobody finds half of one after a kill. What happens in the world by
itself is `weather`; who sells is `cloud`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scitq.errors import BadRequest
from scitq.offers import Flavor, Gpu, Market, Unit
from scitq.remote.providers.base import InstanceState, LeftoverKind

FILE = "cloud.json"
FORMAT = 1
OVER = ("gone",)
"""States in which nobody sees a machine any more."""
UNPAID = ("gone", "evicted")


@dataclass
class Sale:
    """A flavor that is sold in a region on a market. `stock` None: as many as anybody wants."""

    region: str
    flavor: str
    market: Market
    price: float | None
    currency: str = "EUR"
    billed_s: int = 1
    minimum_s: int = 0
    eviction: float = 0.0
    stock: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies it."""
        return (self.region, self.flavor, self.market)


@dataclass
class Limit:
    """A quota of a region; `others`: what of it is used by machines that are not in this world."""

    region: str
    family: str
    unit: Unit
    limit: float
    others: float = 0.0


@dataclass
class Machine:
    """A machine that was accepted, for ever: the ledger is made of them. `request`: the number of the create that it came of."""

    id: str
    name: str
    code: str
    store: str
    project: str
    region: str
    flavor: str
    market: Market
    price: float | None
    currency: str
    billed_s: int
    minimum_s: int
    request: int
    accepted_ms: int
    boots_ms: int
    state: InstanceState = "creating"
    ended_ms: int | None = None
    why: str = ""
    user: str = ""
    user_data: str = ""
    public_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    expires_ms: int | None = None
    host: dict[str, Any] | None = None
    """Where machines are hosts: who leads to it (`host`, `user`, `port`, `host_keys`), once it runs."""
    hidden_ms: int = 0
    """Until then nobody is shown it."""
    notice_ms: int | None = None
    evict_ms: int | None = None
    vanish_ms: int | None = None
    gone_ms: int | None = None
    stays: bool = True
    """An evicted one is shown until it is deleted."""
    is_noticed: bool = False
    is_broken: bool = False
    """It will not boot."""
    deaf: int = 0
    """So many deletes are accepted and come to nothing."""
    leaves: list[LeftoverKind] = field(default_factory=list)
    """What stays behind when it goes: `disk`, `ip`, `nic`."""
    is_off: bool = False
    """Nothing of it runs any more."""


@dataclass
class Thing:
    """A leftover."""

    id: str
    kind: LeftoverKind
    region: str
    name: str
    code: str
    store: str
    created_ms: int
    price: float | None = None


@dataclass
class Fault:
    """A thing that goes wrong, as `faults` says: at which call, how often (-1: always), after how many that go well."""

    call: str
    fault: str
    times: int = 1
    skip: int = 0
    region: str = ""
    flavor: str = ""
    market: str = ""
    name: str = ""
    value: float | None = None
    until_ms: int | None = None


@dataclass
class Change:
    """What happens when the clock says so: `do` is a method of `Cloud`, `with_` its arguments."""

    at_ms: int
    do: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """All there is."""

    machines_are: str = "local"
    tags: bool = True
    offset_ms: int = 0
    serial: int = 0
    boot_ms: int = 0
    delete_ms: int = 0
    notice_ms: int = 120_000
    user: str = ""
    regions: list[str] = field(default_factory=list)
    flavors: dict[str, dict[str, Any]] = field(default_factory=dict)
    sales: list[Sale] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    things: dict[str, Thing] = field(default_factory=dict)
    script: list[Fault] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    allowed: list[str] = field(default_factory=list)

    def now_ms(self) -> int:
        """Its own clock, which need not be right."""
        return time.time_ns() // 1_000_000 + self.offset_ms

    def number(self) -> int:
        """The next number that nothing has had."""
        self.serial += 1
        return self.serial

    def sale(self, region: str, flavor: str, market: str) -> Sale | None:
        """What is sold under that name."""
        return next((one for one in self.sales if one.key == (region, flavor, market)), None)

    def alive(self) -> list[Machine]:
        """The machines that there are."""
        return [one for one in self.machines.values() if one.state not in OVER]

    def used(self, limit: Limit) -> float:
        """How much of a quota is in use."""
        return limit.others + sum(
            weight(self.flavors[one.flavor], limit.unit)
            for one in self.alive()
            if one.region == limit.region
            and one.state not in UNPAID
            and limit.family in self.flavors[one.flavor]["families"].get(one.market, ())
        )

    def flavor(self, name: str, provider: str) -> Flavor:
        """A flavor as its buyers see it."""
        told = dict(self.flavors[name])
        gpu = told.pop("gpu", None)
        families = {market: tuple(names) for market, names in told.pop("families", {}).items()}
        return Flavor(provider, name, gpu=None if gpu is None else Gpu(**gpu), families=families, **told)


def weight(flavor: Mapping[str, Any], unit: str) -> float:
    """How much of a quota one machine takes."""
    return float({"vcpu": flavor["cpu"], "bytes": flavor["ram"]}.get(unit, 1))


class Keeper:
    """The world of a folder: read, changed and written back under a lock."""

    def __init__(self, folder: Path, born: Callable[[], World]) -> None:
        """`born` makes it when nothing is there yet."""
        self.folder, self._born = folder, born
        self._before = ""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadRequest(f"{folder}: no cloud can be kept there: {error.strerror}.") from error

    @contextlib.contextmanager
    def open(self) -> Iterator[World]:
        """The world, for oneself. What was changed is kept by `save`."""
        with self._locked():
            world, self._before = self._read()
            yield world

    def save(self, world: World) -> None:
        """Write it down now, within `open`."""
        text = json.dumps({"format": FORMAT, **asdict(world)})
        if text == self._before:
            return
        fresh = self.folder / f"{FILE}.new"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)  # host keys are in it
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, self.folder / FILE)
        self._before = text

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        held = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _read(self) -> tuple[World, str]:
        try:
            text = (self.folder / FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return self._born(), ""
        try:
            return _world(json.loads(text)), text
        except (ValueError, TypeError, KeyError) as problem:
            raise BadRequest(
                f"{self.folder / FILE} is not what a cloud is kept in ({problem}). Delete the folder to begin anew."
            ) from problem

    def stamp(self) -> tuple[int, int] | None:
        """Changes when the world does; None before it is written for the first time."""
        try:
            found = os.stat(self.folder / FILE)
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns)


def _world(told: dict[str, Any]) -> World:
    if told.pop("format") != FORMAT:
        raise ValueError("made by another version of scitq")
    known = {one.name for one in fields(World)}
    if strange := set(told) - known:
        raise ValueError(f"unknown: {', '.join(sorted(strange))}")
    for name, kind in (("sales", Sale), ("limits", Limit), ("script", Fault), ("changes", Change)):
        told[name] = [kind(**row) for row in told[name]]
    told["machines"] = {id: Machine(**row) for id, row in told["machines"].items()}
    told["things"] = {id: Thing(**row) for id, row in told["things"].items()}
    return World(**told)
