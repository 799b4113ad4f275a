"""Renting from the make-believe cloud: the provider of kind `fake`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    PriceTooLow,
    ProviderDown,
    ProviderError,
    QuotaExceeded,
)
from scitq.offers import Flavor, Offer, Quota
from scitq.remote.providers.base import PREFIX, Capabilities, CreateRequest, Image, Instance, Leftover, Problem, Reach
from scitq.remote.providers.fake import faults, machines, weather
from scitq.remote.providers.fake.cloud import Cloud
from scitq.remote.providers.fake.world import OVER, UNPAID, Fault, Machine, Sale, World, weight

T = TypeVar("T")
USER_DATA = 16 << 10
WATCH_S = 1.0


class Fake:
    """The cloud of a folder, as a provider. Several of them, in several processes, are the same cloud."""

    kind = "fake"

    def __init__(self, name: str, cloud: Cloud) -> None:
        self.name, self.cloud = name, cloud
        with cloud.open() as world:
            has_tags, self._are = world.tags, world.machines_are
        self.caps = Capabilities(
            spot=True, tags=has_tags, quotas=True, firewall=True, user_data=self._are == weather.HOSTS,
            eviction_notice="file", self_destruct="shutdown-terminates", bills_when_stopped=False,
        )  # fmt: skip
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._watching = threading.Lock()

    # --- looking ----------------------------------------------------------------------------------------------------------

    def check(self) -> list[Problem]:
        """What its script says is wrong with credentials and rights."""
        try:
            self._call("check", lambda world, _: None)
        except ProviderError as problem:
            return [Problem("error", str(problem), "Renew what it takes for credentials: Cloud.heal().")]
        return []

    def regions(self) -> list[str]:
        """Those that it has."""
        return self._call("regions", lambda world, _: list(world.regions))

    def offers(self, regions: Iterable[str] | None = None) -> list[Offer]:
        """What is sold, and how many more there are."""
        wanted = None if regions is None else set(regions)
        return self._call(
            "offers",
            lambda world, _: [self._offer(world, one) for one in world.sales if wanted is None or one.region in wanted],
        )

    def quotas(self, region: str) -> list[Quota]:
        """Limits, and what everybody uses of them."""

        def found(world: World, _: list[Fault]) -> list[Quota]:
            now = world.now_ms()
            return [
                Quota(self.name, region, one.family, one.unit, one.limit, world.used(one), now)
                for one in world.limits
                if one.region == region
            ]

        return self._call("quotas", found, region=region)

    def image(self, region: str, flavor: Flavor, wanted: str | None = None) -> Image:
        """One that fits."""

        def found(world: World, _: list[Fault]) -> Image:
            name = wanted or f"rehearsal-{flavor.arch}"
            return Image(
                f"{region}/{name}", name, region, world.user or "root", flavor.arch, has_nvidia=flavor.gpu is not None
            )

        return self._call("image", found, region=region, flavor=flavor.name)

    def get(self, region: str, id: str) -> Instance | None:
        """One, by its id."""

        def found(world: World, _: list[Fault]) -> Instance | None:
            one = world.machines.get(id)
            return self._instance(one) if one is not None and one.region == region and _is_seen(world, one) else None

        return self._call("get", found, region=region)

    def find(self, region: str, name: str) -> list[Instance]:
        """Those of a name."""
        return [one for one in self._list("find", [region], name) if one.name == name]

    def instances(self, regions: Iterable[str] | None = None) -> list[Instance]:
        """All of scitq's."""
        return self._list("instances", regions)

    def _list(self, call: str, regions: Iterable[str] | None, name: str = "") -> list[Instance]:
        wanted = None if regions is None else set(regions)
        about = {"region": next(iter(wanted))} if wanted is not None and len(wanted) == 1 else {}
        return self._call(
            call,
            lambda world, _: [
                self._instance(one)
                for one in world.alive()
                if one.name.startswith(PREFIX) and (wanted is None or one.region in wanted) and _is_seen(world, one)
            ],
            **about,
            name=name,
        )

    # --- renting ----------------------------------------------------------------------------------------------------------

    def create(self, request: CreateRequest) -> Instance:
        """A machine, unless there is one of that name."""
        offer = request.offer
        return self._call(
            "create",
            lambda world, wrong: self._create(world, request, wrong),
            region=offer.region,
            flavor=offer.flavor.name,
            market=offer.market,
            name=request.name,
        )

    def delete(self, instance: Instance) -> None:
        """Have it gone, by and by."""

        def deed(world: World, wrong: list[Fault]) -> None:
            one = world.machines.get(instance.id)
            if one is None or one not in world.alive() or any(fault.fault == "deaf" for fault in wrong):
                return
            if one.deaf > 0:
                one.deaf -= 1
            elif one.state in UNPAID:
                weather.end(world, one, "gone", world.now_ms(), one.why)
            elif one.state != "deleting":
                one.state, one.gone_ms = "deleting", world.now_ms() + world.delete_ms

        self._call("delete", deed, region=instance.region, name=instance.name)

    def sweep(self, store: str, keep: set[str]) -> list[Leftover]:
        """What is left of machines of this file."""

        def found(world: World, _: list[Fault]) -> list[Leftover]:
            return [
                Leftover(self.name, one.region, one.kind, one.id, one.name, one.code, one.created_ms, one.price)
                for one in world.things.values()
                if one.store == store and one.code not in keep
            ]

        return self._call("sweep", found)

    def delete_leftover(self, item: Leftover) -> None:
        """Throw one away."""
        self._call("delete_leftover", lambda world, _: world.things.pop(item.id, None), region=item.region)

    def allow_from(self, networks: tuple[str, ...]) -> None:
        """Note who is let in."""

        def deed(world: World, _: list[Fault]) -> None:
            world.allowed = list(networks)

        self._call("allow_from", deed)

    def close(self) -> None:
        """Stop watching. The cloud stays."""
        self._closed.set()
        watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()

    # --- how it is done ---------------------------------------------------------------------------------------------------

    def _call(self, call: str, deed: Callable[[World, list[Fault]], T], **about: str) -> T:
        """One call: counted, spoilt as the script says, done."""
        with self.cloud.open() as world:
            world.calls[call] = world.calls.get(call, 0) + 1
            wrong = faults.take(world, call, about)
            slow_s = sum(fault.value or 0.0 for fault in wrong if fault.fault == "slow")
            if not slow_s:
                return self._done(world, call, deed, wrong, about)
        time.sleep(slow_s)
        with self.cloud.open() as world:
            return self._done(world, call, deed, wrong, about)

    def _done(
        self,
        world: World,
        call: str,
        deed: Callable[[World, list[Fault]], T],
        wrong: list[Fault],
        about: dict[str, str],
    ) -> T:
        faults.refuse(self.name, call, about, wrong)
        found = deed(world, wrong)
        if call in ("create", "delete") or weather.next_ms(world) is not None:
            self._watch()
        if any(fault.fault == "lost" for fault in wrong):
            error = AmbiguousCreate if call == "create" else ProviderDown
            faults.fail(self.name, error, "ConnectionReset", "was asked, and its answer was lost", about)
        return found

    def _create(self, world: World, request: CreateRequest, wrong: list[Fault]) -> Instance:
        offer = request.offer
        about = {"region": offer.region, "flavor": offer.flavor.name, "market": offer.market}
        if not request.name.startswith(PREFIX) or len(request.user_data.encode()) > USER_DATA:
            text = f"takes names that begin with {PREFIX}, and {USER_DATA} bytes of user data"
            faults.fail(self.name, BadRequest, "InvalidRequest", text, about)
        there = [one for one in world.alive() if one.name == request.name and one.region == offer.region]
        if there:
            return self._instance(there[0])
        sale = world.sale(*about.values())
        if sale is None:
            faults.fail(self.name, FlavorUnavailable, "NotForSale", "does not sell that flavor there", about)
        self._check(world, request, sale, about)
        one = self._made(world, request, sale, wrong)
        if any(fault.fault == "duplicate" for fault in wrong):
            self._made(world, request, sale, wrong)
        return self._instance(one)

    def _check(self, world: World, request: CreateRequest, sale: Sale, about: dict[str, str]) -> None:
        flavor = world.flavors[sale.flavor]
        if request.image.arch != flavor.get("arch", "x86_64"):
            text = f"cannot start an image for {request.image.arch} on that flavor"
            faults.fail(self.name, FlavorUnsupported, "ImageMismatch", text, about)
        if request.max_price is not None and sale.price is not None and sale.price > request.max_price:
            text = f"asks for {sale.price:g} {sale.currency} an hour, more than {request.max_price:g}"
            faults.fail(self.name, PriceTooLow, "PriceTooLow", text, about)
        for limit in world.limits:
            if limit.region != sale.region or limit.family not in flavor["families"].get(sale.market, ()):
                continue
            used, required = world.used(limit), weight(flavor, limit.unit)
            if used + required > limit.limit:
                text = (
                    f"lets this account have {limit.limit:g} of {limit.family} there, {used:g} are in use, "
                    f"{required:g} were wanted. Ask for more, or use other machines"
                )
                faults.fail(
                    self.name, QuotaExceeded, "QuotaExceeded", text, about,
                    family=limit.family, limit=limit.limit, used=used, required=required,
                )  # fmt: skip
        if sale.stock == 0:
            faults.fail(self.name, CapacityUnavailable, "OutOfStock", "has none of that flavor now", about)

    def _made(self, world: World, request: CreateRequest, sale: Sale, wrong: list[Fault]) -> Machine:
        now, number = world.now_ms(), world.number()
        if sale.stock is not None:
            sale.stock = max(0, sale.stock - 1)
        one = Machine(
            f"m-{number:04}", request.name, request.code, request.store, request.project, sale.region, sale.flavor,
            sale.market, sale.price, sale.currency, sale.billed_s, sale.minimum_s, world.calls["create"], now,
            now + world.boot_ms, user=request.user, user_data=request.user_data, public_key=request.ssh_public_key, tags=dict(request.tags),
            expires_ms=request.expires_ms,
        )  # fmt: skip
        for fault in wrong:
            later = now + int((fault.value or 0) * 1000)
            if fault.fault == "error":
                one.is_broken = True
            elif fault.fault == "boot":
                one.boots_ms += int((fault.value or 0) * 1000)
            elif fault.fault == "vanish":
                one.vanish_ms = later
            elif fault.fault == "evict":
                one.notice_ms, one.evict_ms = max(now, later - world.notice_ms), later
            elif fault.fault == "hidden":
                one.hidden_ms = later
            elif fault.fault == "deaf":
                one.deaf = int(fault.value or 1)
            elif fault.fault == "leave":
                one.leaves = ["disk", "ip"]
        world.machines[one.id] = one
        weather.settle(world)
        return one

    # --- how things look from outside -------------------------------------------------------------------------------------

    def _offer(self, world: World, one: Sale) -> Offer:
        return Offer(
            world.flavor(one.flavor, self.name), one.region, one.market, (), one.price, one.currency, one.billed_s,
            one.minimum_s, one.eviction, True, one.stock, "out of stock" if one.stock == 0 else "", world.now_ms(),
        )  # fmt: skip

    def _instance(self, one: Machine) -> Instance:
        reach = None
        if self._are == weather.LOCAL:
            reach = Reach("folder", folder=str(machines.place(self.cloud.folder, one.id)))
        elif one.host is not None:
            reach = Reach(
                "ssh", one.host["host"], one.host.get("user", one.user), one.host.get("port", 22),
                host_keys=tuple(one.host.get("host_keys", ())),
            )  # fmt: skip
        _, store, code = one.name.split("-", 2) if one.name.count("-") >= 2 else ("", None, None)
        return Instance(
            self.name, one.region, one.id, one.name, one.state, code, store, one.project if self.caps.tags else None,
            one.flavor, one.market, reach if one.state == "running" else None, one.accepted_ms,
            one.expires_ms if self.caps.tags else None, one.why,
        )  # fmt: skip

    # --- its time goes on though nobody asks ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """See that machines are told, and ended, when it is time. Called with the world open, as the watcher ends with it open."""
        with self._watching:
            if not self._closed.is_set() and self._watcher is None:
                self._watcher = threading.Thread(target=self._go_on, name=f"cloud {self.name}", daemon=True)
                self._watcher.start()

    def _go_on(self) -> None:
        """While it has machines, and is there at all."""
        stamp: tuple[int, int] | None = None
        due: float | None = None
        try:
            while not self._closed.is_set():
                if self.cloud.stamp() != stamp or (due is not None and time.time() >= due):
                    with self.cloud.open() as world:
                        moment = weather.next_ms(world)
                        if not world.alive():
                            self._watcher = None
                            return
                        due = None if moment is None else (moment - world.offset_ms) / 1000
                    stamp = self.cloud.stamp()
                # What is overdue cannot be done yet: a machine that is to be told has nobody who reads.
                left_s = WATCH_S if due is None else due - time.time()
                self._closed.wait(min(WATCH_S, left_s) if left_s > 0 else WATCH_S)
        except (OSError, ProviderError):
            self._watcher = None


def _is_seen(world: World, one: Machine) -> bool:
    return one.state not in OVER and world.now_ms() >= one.hidden_ms
