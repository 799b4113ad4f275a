"""The provider itself: what the protocol asks for, made of calls of the SDK."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.rest import HttpRequest

from scitq.errors import FlavorUnavailable, MachineNameTaken, MachineNotFound, ProviderError
from scitq.offers import Flavor, Market, Offer, Quota
from scitq.remote.providers.azure import access, bodies, prices, sizes, views
from scitq.remote.providers.azure.account import Account
from scitq.remote.providers.azure.errors import refusal, said_in, typed
from scitq.remote.providers.azure.sizes import Size
from scitq.remote.providers.base import Capabilities, Context, CreateRequest, Image, Instance, Leftover, Problem

AT_ONCE = 8
_MINUTE_S = 60
# What groups and networks this file has made, so that who may reach them can be said when nothing is being rented.
_PLACES = "places.json"


class Azure:
    """One subscription, as a provider. Several of them, in several processes, may be the same one."""

    kind = "azure"

    def __init__(self, name: str, account: Account, context: Context) -> None:
        self.name, self.account = name, account
        self.caps = Capabilities(
            spot=True, tags=True, quotas=True, firewall=True, user_data=True, eviction_notice="imds-azure", self_destruct="none",
            bills_when_stopped=True,
        )  # fmt: skip
        self._folder, self._now_ms = Path(context.folder), context.now_ms
        self._networks: tuple[str, ...] | None = None
        self._gate = threading.Lock()
        self._sizes: dict[str, dict[str, Size]] = {}
        self._made: dict[tuple[str, str], tuple[str, str]] = {}

    # --- looking ----------------------------------------------------------------------------------------------------------

    def check(self) -> list[Problem]:
        """Whether Azure lets us in, and what right is missing. Never raises."""
        try:
            with self._typed():
                self._resources.resource_groups.get(self.account.group) if self.account.group else None
                granted = list(self._ask(f"{self._scope()}{access.PERMISSIONS}"))
                states = {one: self._provider_state(one) for one in access.NAMESPACES}
        except ProviderError as problem:
            return [Problem("error", str(problem), access.LOGIN)]
        return access.problems(self.name, self._scope(), granted, states)

    def _scope(self) -> str:
        group = f"/resourceGroups/{self.account.group}" if self.account.group else ""
        return f"/subscriptions/{self.account.subscription}{group}"

    def _provider_state(self, namespace: str) -> str:
        return str(_plain(self._resources.providers.get(namespace)).get("registrationState") or "")

    def regions(self) -> list[str]:
        """Those in which the subscription may have machines."""
        path = f"/subscriptions/{self.account.subscription}/locations?api-version=2022-12-01"
        with self._typed():
            rows = list(self._ask(path))
        physical = [row for row in rows if (row.get("metadata") or {}).get("regionType", "Physical") == "Physical"]
        return sorted({str(row["name"]).lower() for row in physical})

    def offers(self, regions: Iterable[str] | None = None) -> list[Offer]:
        """What is sold: of the regions of the settings, if none is named."""
        wanted = sorted({one.lower() for one in regions or self.account.regions or self.regions()})
        if not wanted:
            return []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rates = pool.submit(self._rates, wanted)
            found = list(pool.map(self._sold, wanted))
            known = rates.result()
        now = self._now_ms()
        return [
            self._offer(size, market, costs, known, now)
            for each, costs in found
            for size in each.values()
            for market in (("ondemand", "spot") if size.is_spot else ("ondemand",))
        ]

    def _sold(self, region: str) -> tuple[dict[str, Size], dict[tuple[str, Market], prices.Cost]]:
        with self._typed(region):
            listed = prices.costs(prices.pages(prices.address(self.account.prices, region, self.account.currency)))
        return self._sizes_of(region, anew=True), listed

    def _offer(
        self,
        size: Size,
        market: Market,
        costs: Mapping[tuple[str, Market], prices.Cost],
        rates: Mapping[tuple[str, str], float] | None,
        now: int,
    ) -> Offer:
        name = size.flavor.name.lower()
        cost = costs.get((name, market))
        rate = None if rates is None else rates.get((size.region, name))
        return Offer(
            size.flavor, size.region, market, size.zones, None if cost is None else cost.price,
            self.account.currency if cost is None else cost.currency, _MINUTE_S, 0,
            0.0 if market == "ondemand" else prices.UNKNOWN_RATE if rate is None else rate, market == "ondemand" or rate is not None,
            0 if size.reason else None, size.reason, now,
        )  # fmt: skip

    def _sizes_of(self, region: str, *, anew: bool = False) -> dict[str, Size]:
        """By name in small letters. They change every few weeks; a long process looks again when the catalogue is refreshed."""
        known = self._sizes.get(region)
        if known is None or anew:
            with self._typed(region):
                rows = [
                    _plain(row)
                    for row in self._compute.resource_skus.list(filter=f"location eq '{region}'", retry_total=3)
                ]
            found = [size for row in rows if (size := sizes.size_of(self.name, row)) is not None]
            known = {size.flavor.name.lower(): size for size in found if size.region == region}
            self._sizes[region] = known
        return known

    def _rates(self, regions: list[str]) -> dict[tuple[str, str], float] | None:
        """How often machines are taken back; None: it cannot be had, which is no reason to sell nothing."""
        rows: list[Mapping[str, Any]] = []
        options: dict[str, Any] = {"resultFormat": "objectArray", "$top": 1000}
        body = {"subscriptions": [self.account.subscription], "query": prices.question(regions)}
        try:
            while True:
                answer = self._post(
                    "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01", {**body, "options": options}
                )
                rows += answer.get("data") or ()
                if not answer.get("$skipToken"):
                    return prices.rates(rows)
                options["$skipToken"] = answer["$skipToken"]
        except AzureError:
            return None

    def quotas(self, region: str) -> list[Quota]:
        """Limits of the subscription there, and what everybody uses of them."""
        with self._typed(region):
            machines = [_plain(one) for one in self._compute.usage.list(region)]
            addresses = [_plain(one) for one in self._network.usages.list(region)]
        return sizes.quotas_of(self.name, region, machines, addresses, self._now_ms())

    def image(self, region: str, flavor: Flavor, wanted: str | None = None) -> Image:
        """The one for that flavor; or `PUBLISHER:OFFER:SKU[:VERSION]`, as it is now."""
        if wanted is None:
            return bodies.image_of(region, flavor)
        publisher, product, sku, version = bodies.urn_of(self.name, wanted)
        images = self._compute.virtual_machine_images
        with self._typed(region, flavor.name):
            if version == "latest":
                found = images.list(region, publisher, product, sku, top=1, orderby="name desc")
                if not found:
                    raise MachineNotFound(
                        f"{self.name} {region}: there is no image {wanted}.", provider=self.name, region=region
                    )
                version = str(_plain(found[0])["name"])
            one = _plain(images.get(region, publisher, product, sku, version)).get("properties") or {}
        plan = one.get("plan")
        named = f"#{plan['name']}:{plan['product']}:{plan['publisher']}" if plan else ""
        arch = "arm64" if str(one.get("architecture") or "").lower() == "arm64" else "x86_64"
        urn = f"{publisher}:{product}:{sku}:{version}"
        return Image(f"{urn}{named}", urn, region, bodies.USER, arch)

    def get(self, region: str, id: str) -> Instance | None:
        """A machine with the state that it is in, and where it is reached."""
        known = views.place(id, self.account.subscription)
        if known is None:
            return None
        with self._typed(region):
            try:
                machine = _plain(self._compute.virtual_machines.get(*known, expand="instanceView"))
            except HttpResponseError as problem:
                if _is_absent(problem):
                    return None
                raise
            power = views.power_of(machine.get("properties") or {})
            host = self._address(machine) if power == "running" else ""
        return views.instance(self.name, machine, power, host)

    def _address(self, machine: Mapping[str, Any]) -> str:
        """The public address of a machine; empty as long as it has none."""
        cards = ((machine.get("properties") or {}).get("networkProfile") or {}).get("networkInterfaces") or ()
        for card in cards:
            try:
                group, name = _last(card["id"])
                has = _plain(self._network.network_interfaces.get(group, name)).get("properties") or {}
                for one in has.get("ipConfigurations") or ():
                    if public := (one.get("properties") or {}).get("publicIPAddress"):
                        found = _plain(self._network.public_ip_addresses.get(*_last(public["id"])))
                        if address := (found.get("properties") or {}).get("ipAddress"):
                            return str(address)
            except HttpResponseError as problem:
                if not _is_absent(problem):
                    raise
        return ""

    def find(self, region: str, name: str) -> list[Instance]:
        """The machine of that name, if there is one that is to stay: names are what Azure knows machines by."""
        known = views.parts(name)
        if known is None:
            return []
        with self._typed(region):
            try:
                machine = _plain(self._compute.virtual_machines.get(self._group(known[0]), name, expand="instanceView"))
            except HttpResponseError as problem:
                if _is_absent(problem):
                    return []
                raise
        found = views.instance(self.name, machine)
        return [found] if found is not None and found.region == region and found.state != "deleting" else []

    def instances(self, regions: Iterable[str] | None = None) -> list[Instance]:
        """All of scitq's in the subscription."""
        wanted = None if regions is None else {one.lower() for one in regions}
        machines = self._compute.virtual_machines
        with self._typed():
            rows = [_plain(one) for one in machines.list_all()]
            states = [_plain(one) for one in machines.list_all(status_only="true")] if rows else []
        powers = {str(one.get("id")).lower(): views.power_of(one.get("properties") or {}) for one in states}
        found = [views.instance(self.name, one, powers.get(str(one.get("id")).lower())) for one in rows]
        return [one for one in found if one is not None and (wanted is None or one.region in wanted)]

    # --- renting ----------------------------------------------------------------------------------------------------------

    def create(self, request: CreateRequest) -> Instance:
        """Ask for a machine of that name, unless there is one. What Azure refuses within some seconds is told as what it is."""
        offer = request.offer
        about: dict[str, str] = {"region": offer.region, "flavor": offer.flavor.name, "market": offer.market}
        size = self._sizes_of(offer.region).get(offer.flavor.name.lower())
        if size is None:
            text = f"{self.name} {offer.region}: Azure does not sell {offer.flavor.name} there."
            raise FlavorUnavailable(text, provider=self.name, **about)
        group = self._group(request.store)
        with self._typed(*about.values()):
            guard, network = self._surroundings(group, offer.region, request)
        body = bodies.machine(request, size, guard, network)
        try:
            self._put(group, request.name, body, about)
        except MachineNameTaken:
            found = self.find(offer.region, request.name)
            if not found:
                raise
            return found[0]
        except ProviderError as problem:
            if problem.go_on != "after-lookup":
                self._forget(group, request.name, offer.region)
            raise
        found = self.find(offer.region, request.name)
        if found:
            return found[0]
        id = f"/subscriptions/{self.account.subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{request.name}"
        return Instance(
            self.name, offer.region, id, request.name, "creating", request.code, request.store, request.project,
            offer.flavor.name, offer.market, created_ms=self._now_ms(),
        )  # fmt: skip

    def _put(self, group: str, name: str, body: Mapping[str, Any], about: Mapping[str, str]) -> None:
        """Ask for a machine, and wait for some seconds whether it is refused."""
        with self._typed(*about.values(), is_create=True):
            answer = self._compute.virtual_machines.begin_create_or_update(
                group, name, body, match_condition=MatchConditions.IfMissing, polling=False,
                cls=lambda raw, _, __: raw.http_response.headers,
            )  # fmt: skip
            operation = answer.result().get("Azure-AsyncOperation")
        deadline = time.monotonic() + self.account.refused_s
        while operation and time.monotonic() < deadline:
            try:
                told = self._get_json(operation)
            except AzureError:
                return  # it was accepted: what became of it is seen like that of any other
            state = str(told.get("status") or "").lower()
            if state in ("failed", "canceled"):
                said = said_in(told.get("error")) or [("", f"it ended {state}")]
                raise refusal(self.name, said, 200, about, is_create=True)
            if state == "succeeded":
                return
            time.sleep(self.account.polling_s)

    def _forget(self, group: str, name: str, region: str) -> None:
        """A machine that was refused leaves a row in Azure's books, and perhaps a card, an address and a disk."""
        try:
            with self._typed(region):
                self._compute.virtual_machines.begin_delete(group, name, force_deletion=True, polling=False)
        except ProviderError:
            pass  # it is listed, and nobody knows it: it is deleted as such

    def _surroundings(self, group: str, region: str, request: CreateRequest) -> tuple[str, str]:
        """Group, security group and network of a region, made when they are not there: their ids."""
        with self._gate:
            if (known := self._made.get((group, region))) is not None:
                return known
            own = {"scitq-store": request.store, "scitq-project": request.project}
            if self.account.group is None:
                self._resources.resource_groups.create_or_update(group, {"location": region, "tags": own})
            networks = request.allow_from or self._networks or ()
            guard = self._guard(group, region, networks, own)
            body = bodies.virtual_network(region, guard, own)
            made = self._network.virtual_networks.begin_create_or_update(group, _named(region, "vnet"), body).result(60)
            self._made[group, region] = guard, str(_plain(made)["id"])
            self._note(group, region)
            return self._made[group, region]

    def _guard(self, group: str, region: str, networks: tuple[str, ...], own: Mapping[str, str]) -> str:
        body = bodies.security_group(region, networks, own)
        groups = self._network.network_security_groups
        return str(_plain(groups.begin_create_or_update(group, _named(region, "nsg"), body).result(60))["id"])

    def delete(self, instance: Instance) -> None:
        """Have it deleted; card, address and disk go with it."""
        known = views.place(instance.id, self.account.subscription)
        if known is None:
            return
        with self._typed(instance.region):
            try:
                self._compute.virtual_machines.begin_delete(*known, force_deletion=True, polling=False)
            except HttpResponseError as problem:
                if not _is_absent(problem):
                    raise

    def sweep(self, store: str, keep: set[str]) -> list[Leftover]:
        """Cards, addresses and disks whose machine is gone."""
        group = self._group(store)
        with self._typed():
            try:
                things = [
                    _plain(one) for one in self._resources.resources.list_by_resource_group(group, expand="createdTime")
                ]
                there = {
                    known[1]
                    for one in self._compute.virtual_machines.list(group)
                    if (known := views.parts(str(_plain(one)["name"])))
                }
            except HttpResponseError as problem:
                if _is_absent(problem):
                    return []
                raise
        return views.leftovers(self.name, store, things, keep, there)

    def delete_leftover(self, item: Leftover) -> None:
        """Delete one."""
        group, name = _last(item.id)
        calls = {
            "nic": self._network.network_interfaces, "ip": self._network.public_ip_addresses, "disk": self._compute.disks,
        }  # fmt: skip
        with self._typed(item.region):
            try:
                calls[item.kind].begin_delete(group, name, polling=False)
            except HttpResponseError as problem:
                if not _is_absent(problem):
                    raise

    def allow_from(self, networks: tuple[str, ...]) -> None:
        """Admit SSH from these networks only, wherever this file has rented, and wherever it will."""
        with self._gate, self._typed():
            self._networks = networks
            for group, region in self._noted():
                try:
                    there = _plain(self._network.network_security_groups.get(group, _named(region, "nsg")))
                except HttpResponseError as problem:
                    if _is_absent(problem):
                        continue
                    raise
                rules = (there.get("properties") or {}).get("securityRules") or ()
                has = [tuple((one.get("properties") or {}).get("sourceAddressPrefixes") or ()) for one in rules]
                if has != ([networks] if networks else []):
                    self._guard(group, region, networks, there.get("tags") or {})

    def close(self) -> None:
        """Let go of connections."""
        self.account.close()

    # --- how it is done ---------------------------------------------------------------------------------------------------

    @property
    def _compute(self) -> Any:
        return self.account.client("compute")

    @property
    def _network(self) -> Any:
        return self.account.client("network")

    @property
    def _resources(self) -> Any:
        return self.account.client("resources")

    def _group(self, store: str) -> str:
        return self.account.group or bodies.group_name(store)

    @contextmanager
    def _typed(
        self, region: str = "", flavor: str = "", market: str = "", *, is_create: bool = False
    ) -> Iterator[None]:
        """What the SDK raises inside is an error of scitq."""
        try:
            yield
        except AzureError as problem:
            found = typed(self.name, problem, region=region, flavor=flavor, market=market, is_create=is_create)
            if found.code.lower() == "resourcegroupnotfound":
                self._made.clear()
            raise found from problem

    def _get_json(self, url: str) -> dict[str, Any]:
        answer = self._resources.send_request(HttpRequest("GET", url))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _ask(self, path: str) -> Iterator[Mapping[str, Any]]:
        """All rows of a list that the SDK has no call for."""
        url: str | None = path
        while url:
            page = self._get_json(url)
            yield from page.get("value") or ()
            url = page.get("nextLink")

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._resources.send_request(HttpRequest("POST", path, json=body))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _noted(self) -> list[tuple[str, str]]:
        try:
            return [
                (str(group), str(region))
                for group, region in json.loads((self._folder / _PLACES).read_text(encoding="utf-8"))
            ]
        except (OSError, ValueError, TypeError):
            return []

    def _note(self, group: str, region: str) -> None:
        if (group, region) not in (noted := self._noted()):
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self._folder / f".{_PLACES}.{os.getpid()}"
            fresh.write_text(json.dumps([*noted, (group, region)]), encoding="utf-8")
            fresh.replace(self._folder / _PLACES)


def _plain(model: Any) -> dict[str, Any]:
    """A row of the SDK as the JSON that it came as."""
    if isinstance(model, dict):
        return model
    as_dict: Callable[[], dict[str, Any]] = model.as_dict
    return as_dict()


def _is_absent(problem: HttpResponseError) -> bool:
    return problem.status_code == 404


def _last(id: str) -> tuple[str, str]:
    """Group and name of a resource."""
    words = id.strip("/").split("/")
    return words[3], words[-1]


def _named(region: str, what: str) -> str:
    return f"scitq-{region}-{what}"
