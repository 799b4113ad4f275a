"""A provider with what the user's settings say of it: prices and limits that it does not tell, regions to keep to, a most of machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from scitq.appraising import MACHINES
from scitq.errors import BadRequest, QuotaExceeded
from scitq.offers import MARKETS, Flavor, Offer, Quota
from scitq.remote.providers.base import Capabilities, CreateRequest, Image, Instance, Leftover, Problem, Provider

COUNTED_S = 5.0
SAID = ("regions", "prices", "spot_prices", "quotas", "max_machines", "image", "gpu_image")


def with_settings(provider: Provider, settings: Mapping[str, Any]) -> Provider:
    """It, as the settings say it is; itself when they say nothing."""
    return Declared(provider, settings) if any(settings.get(key) not in (None, [], {}) for key in SAID) else provider


class Declared:
    """What is not declared is passed on."""

    def __init__(self, provider: Provider, settings: Mapping[str, Any]) -> None:
        self.provider = provider
        self.name, self.kind = provider.name, provider.kind
        self.caps: Capabilities = provider.caps
        self._prices = {"ondemand": settings.get("prices") or {}, "spot": settings.get("spot_prices") or {}}
        self._quotas: Mapping[str, float] = settings.get("quotas") or {}
        self._regions: list[str] | None = settings.get("regions") or None
        self._most: int | None = settings.get("max_machines")
        self._images: tuple[str | None, str | None] = (settings.get("image") or None, settings.get("gpu_image") or None)
        self._currency = settings.get("currency") or "EUR"
        self._gate = threading.Lock()
        self._asking = 0
        self._counted: tuple[float, int] | None = None

    def check(self) -> list[Problem]:
        """And whether the regions that were named are any."""
        found = self.provider.check()
        if self._regions and not any(one.severity == "error" for one in found):
            there = self.provider.regions()
            found += [
                Problem("error", f"provider {self.name} has no region {region!r}.", f"There are: {', '.join(there)}.")
                for region in self._regions
                if region not in there
            ]
        return found

    def regions(self) -> list[str]:
        """Those that are to be used."""
        return [region for region in self.provider.regions() if self._regions is None or region in self._regions]

    def offers(self, regions: Iterable[str] | None = None) -> list[Offer]:
        """With the prices that were declared, and the limit on all machines."""
        wanted = self._regions if regions is None else [one for one in regions if self._may(one)]
        flavors: dict[str, Flavor] = {}
        found = []
        for offer in self.provider.offers(wanted):
            flavor = flavors.setdefault(offer.flavor.name, self._limited(offer.flavor))
            prices = self._prices[offer.market]
            price = prices.get(f"{offer.region}/{flavor.name}", prices.get(flavor.name))
            said = {} if price is None else {"price": float(price), "currency": self._currency}
            found.append(replace(offer, flavor=flavor, **said))  # type: ignore[arg-type]
        return found

    def _may(self, region: str) -> bool:
        return self._regions is None or region in self._regions

    def _limited(self, flavor: Flavor) -> Flavor:
        if self._most is None:
            return flavor
        return replace(flavor, families={one: (*flavor.families.get(one, ()), MACHINES) for one in MARKETS})

    def quotas(self, region: str) -> list[Quota]:
        """Those of the provider, lower where a lower one was declared, and the others that were."""
        found = {one.family: one for one in self.provider.quotas(region)}
        for key, limit in self._quotas.items():
            where, _, family = key.rpartition("/")
            if where not in ("", region):
                continue
            there = found.get(family)
            if there is None:
                found[family] = Quota(self.name, region, family, _unit(family), limit, None)
            elif there.limit is None or limit < there.limit:
                found[family] = replace(there, limit=limit)
        if self._most is not None:
            found[MACHINES] = Quota(self.name, region, MACHINES, "instances", self._most, self._count())
        return list(found.values())

    def _count(self) -> int:
        """How many machines there are; not counted anew for each region of many that are asked for one after the other."""
        now = time.monotonic()
        if self._counted is None or now - self._counted[0] > COUNTED_S:
            self._counted = (now, len(self.provider.instances()))
        return self._counted[1]

    def create(self, request: CreateRequest) -> Instance:
        """Unless there would be too many machines."""
        if not self._may(request.offer.region):
            raise BadRequest(
                f"{self.name}: region {request.offer.region} is not to be used (regions = …).", provider=self.name
            )
        if self._most is None:
            return self.provider.create(request)
        with self._gate:
            self._asking += 1
        try:
            there = self.provider.instances()
            if all(one.name != request.name for one in there) and len(there) + self._asking > self._most:
                raise QuotaExceeded(
                    f"{self.name}: there are {len(there)} machines, and {self._most} is the most that your settings allow "
                    f"(max_machines of [providers.{self.name}]).",
                    provider=self.name, region=request.offer.region, flavor=request.offer.flavor.name,
                    market=request.offer.market, family=MACHINES, limit=self._most, used=len(there), required=1,
                )  # fmt: skip
            return self.provider.create(request)
        finally:
            with self._gate:
                self._asking -= 1
                self._counted = None

    # --- passed on --------------------------------------------------------------------------------------------------------

    def image(self, region: str, flavor: Flavor, wanted: str | None = None) -> Image:
        """The one of the settings, of machines with GPUs the other one; else as the provider says."""
        return self.provider.image(region, flavor, wanted or self._images[flavor.gpu is not None])

    def get(self, region: str, id: str) -> Instance | None:
        """As the provider says."""
        return self.provider.get(region, id)

    def find(self, region: str, name: str) -> list[Instance]:
        """As the provider says."""
        return self.provider.find(region, name)

    def instances(self, regions: Iterable[str] | None = None) -> list[Instance]:
        """Everywhere, also where nothing is to be rented any more."""
        return self.provider.instances(regions)

    def delete(self, instance: Instance) -> None:
        """As the provider does."""
        self.provider.delete(instance)
        self._counted = None

    def sweep(self, store: str, keep: set[str]) -> list[Leftover]:
        """As the provider says."""
        return self.provider.sweep(store, keep)

    def delete_leftover(self, item: Leftover) -> None:
        """As the provider does."""
        self.provider.delete_leftover(item)

    def allow_from(self, networks: tuple[str, ...]) -> None:
        """As the provider does."""
        self.provider.allow_from(networks)

    def close(self) -> None:
        """Close the provider."""
        self.provider.close()


def _unit(family: str) -> Any:
    """What a limit counts that only the settings know, by its name."""
    return "instances" if "machine" in family or "instance" in family else "bytes" if family == "ram" else "vcpu"
