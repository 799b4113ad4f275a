"""The provider of kind azure, with Microsoft's packages, against a stand-in for Azure Resource Manager on this machine."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    MachineNotFound,
    PermissionDenied,
    PriceTooLow,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    QuotaExceeded,
    RateLimited,
)
from scitq.offers import Gpu
from scitq.remote.providers import load
from scitq.remote.providers.azure import access, bodies
from scitq.remote.providers.azure.account import Account
from scitq.remote.providers.azure.provider import Azure
from scitq.remote.providers.base import Context, CreateRequest, Provider
from scitq.testing import ProviderContract
from tests.clouds.azure import server

GIB = 1 << 30
VM = r"/virtualMachines/scitq-"
QUOTA = (
    "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Additional details - "
    "Deployment Model: Resource Manager, Location: westeurope, Current Limit: 10, Current Usage: 8, Additional Required: 4, "
    "(Minimum) New Limit Required: 12."
)


@pytest.fixture
def azure() -> Iterator[server.Azure]:
    """The stand-in."""
    with server.serving() as found:
        yield found


def settings(azure: server.Azure, **more: Any) -> dict[str, Any]:
    """Of a provider that uses it."""
    return {
        "kind": "azure",
        "subscription": server.SUBSCRIPTION,
        "endpoint": azure.url,
        "price_list": azure.url,
        **more,
    }


class TestAzure(ProviderContract):
    """What every provider does."""

    @pytest.fixture(autouse=True)
    def cloud(self, azure: server.Azure, tmp_path: Path) -> None:
        self.azure, self.folder = azure, tmp_path / "own"

    def make(self) -> Provider:
        return load("azure", settings(self.azure, regions=["westeurope"]), Context(str(self.folder)))

    def settle(self) -> None:
        self.azure.advance(20)

    def faults(self) -> Mapping[type[ProviderError], Callable[[], None]]:
        def refuse(status: int, code: str, message: str = "it is so", **more: Any) -> Callable[[], None]:
            return lambda: self.azure.fail("PUT", VM, status, code, message, **more)

        return {
            QuotaExceeded: refuse(409, "OperationNotAllowed", QUOTA),
            CapacityUnavailable: refuse(0, "AllocationFailed", "Allocation failed.", later=True),
            FlavorUnsupported: refuse(400, "BadRequest", "The selected VM size cannot boot Hypervisor Generation '1'."),
            PermissionDenied: refuse(
                403, "AuthorizationFailed", "The client has no authorization to perform action 'x/write'."
            ),
            ProviderLogin: refuse(401, "ExpiredAuthenticationToken", "The access token expired."),
            RateLimited: refuse(429, "TooManyRequests", "slow down", headers={"Retry-After": "7"}),
            BadRequest: refuse(400, "InvalidRequestContent", "no"),
            AmbiguousCreate: refuse(500, "InternalServerError", "oops"),
            ProviderDown: refuse(409, "AnotherOperationInProgress", "wait"),
        }

    def lose_answer(self) -> bool:
        self.azure.fail("PUT", VM, lost=True)
        return True


@pytest.fixture
def provider(azure: server.Azure, tmp_path: Path) -> Iterator[Azure]:
    """One of that subscription."""
    found = load("azure", settings(azure), Context(str(tmp_path / "own")))
    assert isinstance(found, Azure)
    yield found
    found.close()


class Asks(ProviderContract):
    """What an engine would ask for."""


def request(
    provider: Provider, flavor: str = "Standard_D4s_v5", market: str = "ondemand", **more: Any
) -> CreateRequest:
    """A machine of a flavor, in the west."""
    offer = next(one for one in provider.offers(["westeurope"]) if (one.flavor.name, one.market) == (flavor, market))
    image = provider.image("westeurope", offer.flavor)
    return Asks().request(provider, offer=offer, image=image, user=image.user, **more)


def test_what_is_sold_is_read_from_sizes_prices_and_rates(provider: Azure) -> None:
    found = {one.key[1:]: one for one in provider.offers()}
    small, spot = found["westeurope", "Standard_D4s_v5", "ondemand"], found["westeurope", "Standard_D4s_v5", "spot"]
    assert (small.flavor.cpu, small.flavor.ram, small.price, small.currency, small.eviction) == (
        4,
        16 * GIB,
        0.2,
        "EUR",
        0.0,
    )
    assert (spot.price, spot.eviction, spot.eviction_known, spot.zones) == (0.03, 5.0, True, ("1", "2", "3"))
    assert small.flavor.families["ondemand"] == ("cores", "standarddsv5family", "virtualmachines", "public-ips")
    assert small.flavor.families["spot"] == ("lowprioritycores", "virtualmachines", "public-ips")
    assert found["northeurope", "Standard_D4s_v5", "spot"].eviction == 25.0
    large = found["westeurope", "Standard_D32ads_v5", "spot"]
    assert (large.eviction, large.eviction_known, large.zones) == (5.0, False, ("1", "2"))  # words that nobody knows
    assert (large.flavor.local_kind, large.flavor.local_disk) == ("scsi-temp", 1228800 << 20)
    elsewhere = found["northeurope", "Standard_D32ads_v5", "ondemand"]
    assert (elsewhere.available, elsewhere.reason) == (0, "NotAvailableForSubscription")
    graphics = found["westeurope", "Standard_NC24ads_A100_v4", "spot"]
    assert graphics.flavor.gpu == Gpu("A100", 1, 80 * GIB) and graphics.price is None
    assert (graphics.flavor.tags, graphics.flavor.local_disks) == ("GN", 2)
    assert found["westeurope", "Standard_NV6ads_A10_v5", "ondemand"].flavor.gpu == Gpu("A10", 1 / 6, 24 * GIB)
    assert found["westeurope", "Standard_D4ps_v5", "ondemand"].flavor.arch == "arm64"
    assert ("westeurope", "Standard_D4ps_v5", "spot") not in found
    assert not {name for _, name, _ in found} & {"Standard_DC4as_v5", "Basic_A1", "Standard_NP10s", "Premium_LRS"}


def test_without_rates_of_evictions_machines_are_sold_all_the_same(azure: server.Azure, provider: Azure) -> None:
    azure.fail("POST", "ResourceGraph", 403, "AuthorizationFailed")
    found = [one for one in provider.offers(["westeurope"]) if one.market == "spot"]
    assert found and {(one.eviction, one.eviction_known) for one in found} == {(5.0, False)}


def test_limits_are_those_of_cores_families_machines_and_addresses(provider: Azure) -> None:
    found = {one.family: (one.unit, one.limit, one.used) for one in provider.quotas("westeurope")}
    assert found["cores"] == ("vcpu", 100, 4) and found["lowprioritycores"] == ("vcpu", 350, 3)
    assert found["standarddadsv5family"] == ("vcpu", 64, 0) and found["virtualmachines"] == ("instances", 25000, 2)
    assert found["public-ips"] == ("ip", 20, 1)  # the nearest of several
    assert "availabilitysets" not in found


# Code, words, market; what it is. One line for each of what Microsoft documents.
REFUSALS: tuple[tuple[int, str, str, str, type[ProviderError]], ...] = (
    (409, "SkuNotAvailable", "x", "ondemand", FlavorUnavailable),
    (409, "SkuNotAvailable", "x", "spot", CapacityUnavailable),
    (409, "AllocationFailed", "x", "ondemand", CapacityUnavailable),
    (409, "ZonalAllocationFailed", "x", "ondemand", CapacityUnavailable),
    (409, "OverconstrainedAllocationRequest", "x", "ondemand", CapacityUnavailable),
    (409, "OverconstrainedZonalAllocationRequest", "x", "spot", CapacityUnavailable),
    (409, "OperationNotAllowed", QUOTA, "ondemand", QuotaExceeded),
    (409, "OperationNotAllowed", "exceeding approved LowPriorityCores", "spot", QuotaExceeded),
    (409, "OperationNotAllowed", "approved standardDSv5Family Cores quota", "ondemand", QuotaExceeded),
    (409, "OperationNotAllowed", "Submit a request for Quota increase", "ondemand", QuotaExceeded),
    (409, "OperationNotAllowed", "too many requests", "ondemand", RateLimited),
    (409, "QuotaExceeded", "x", "ondemand", QuotaExceeded),
    (409, "ResourceQuotaExceeded", "x", "ondemand", QuotaExceeded),
    (400, "PublicIPCountLimitReached", "Cannot create more than 10 public IP addresses", "ondemand", QuotaExceeded),
    (400, "IPv4StandardSkuPublicIpCountLimitReached", "PublicIp addresses", "ondemand", QuotaExceeded),
    (409, "SpotPriceGreaterThanProvidedMaxPrice", "x", "spot", PriceTooLow),
    (409, "AzureSpotFeatureNotEnabledForSubscription", "x", "spot", FlavorUnavailable),
    (409, "AzureSpotIsNotSupportedForThisVMSize", "x", "spot", FlavorUnavailable),
    (400, "BadRequest", "Use of TrustedLaunch security type is not supported", "ondemand", FlavorUnsupported),
    (400, "BadRequest", "cannot boot Hypervisor Generation '2'", "ondemand", FlavorUnsupported),
    (400, "InvalidParameter", "'X' is not supported for creation of VMs", "ondemand", FlavorUnsupported),
    (400, "InvalidParameter", "Invalid disk controller", "ondemand", FlavorUnsupported),
    (400, "InvalidParameter", "no", "ondemand", BadRequest),
    (
        403,
        "AuthorizationFailed",
        "no right to perform Microsoft.Compute/virtualMachines/write",
        "ondemand",
        PermissionDenied,
    ),
    (403, "LinkedAuthorizationFailed", "x", "ondemand", PermissionDenied),
    (403, "RequestDisallowedByPolicy", "policy Z", "ondemand", PermissionDenied),
    (401, "InvalidAuthenticationTokenTenant", "x", "ondemand", ProviderLogin),
    (401, "ExpiredAuthenticationToken", "x", "ondemand", ProviderLogin),
    (404, "SubscriptionNotFound", "x", "ondemand", ProviderLogin),
    (409, "DisabledSubscription", "x", "ondemand", ProviderLogin),
    (409, "ReadOnlyDisabledSubscription", "x", "ondemand", ProviderLogin),
    (409, "MissingSubscriptionRegistration", "x", "ondemand", BadRequest),
    (400, "MarketplacePurchaseEligibilityFailed", "legal terms", "ondemand", BadRequest),
    (429, "TooManyRequests", "x", "ondemand", RateLimited),
    (429, "SubscriptionRequestsThrottled", "x", "ondemand", RateLimited),
    (404, "ResourceGroupNotFound", "x", "ondemand", ProviderDown),
    (409, "ResourceGroupBeingDeleted", "x", "ondemand", ProviderDown),
    (404, "ResourceNotFound", "x", "ondemand", MachineNotFound),
    (404, "NotFound", "x", "ondemand", MachineNotFound),
    (409, "Conflict", "x", "ondemand", ProviderDown),
    (409, "AnotherOperationInProgress", "x", "ondemand", ProviderDown),
    (409, "RetryableError", "x", "ondemand", ProviderDown),
    (409, "NicReservedForAnotherVm", "x", "ondemand", ProviderDown),
    (409, "SomethingNew", "x", "ondemand", ProviderDown),
    (400, "SomethingNew", "x", "ondemand", BadRequest),
    (503, "ServerBusy", "x", "ondemand", AmbiguousCreate),
)


def test_each_refusal_is_what_microsoft_says_it_is(azure: server.Azure, provider: Azure) -> None:
    asked = {market: request(provider, market=market) for market in ("ondemand", "spot")}
    for status, code, text, market, error in REFUSALS:
        for how in ({}, {"wrap": True}) if status != 503 else ({},):
            azure.fail("PUT", VM, status, code, text, **how)
            with pytest.raises(ProviderError) as caught:
                provider.create(asked[market])
            assert type(caught.value) is error, (code, text)
            assert caught.value.code == code and caught.value.region == "westeurope" and caught.value.market == market
    assert not azure.machines()


@pytest.mark.parametrize(
    "row", [row for row in REFUSALS if row[0] == 409 and row[4] in (CapacityUnavailable, QuotaExceeded)]
)
def test_what_is_refused_only_later_is_the_same_refusal_and_leaves_nothing(
    azure: server.Azure, provider: Azure, row: tuple[int, str, str, str, type[ProviderError]]
) -> None:
    _, code, text, market, error = row
    azure.fail("PUT", VM, 0, code, text, later=True)
    with pytest.raises(error) as caught:
        provider.create(request(provider, market=market))
    assert caught.value.code == code
    azure.advance(60)
    assert azure.left() == []


def test_a_limit_tells_its_figures(azure: server.Azure, provider: Azure) -> None:
    azure.fail("PUT", VM, 409, "OperationNotAllowed", QUOTA)
    with pytest.raises(QuotaExceeded) as caught:
        provider.create(request(provider))
    problem: Any = caught.value
    assert (problem.family, problem.limit, problem.used, problem.required) == ("cores", 10, 8, 4)
    azure.fail("PUT", VM, 429, "TooManyRequests", "slow down", headers={"Retry-After": "7"})
    with pytest.raises(RateLimited) as throttled:
        provider.create(request(provider))
    assert throttled.value.retry_after_s == 7 and vars(throttled.value)["request_id"] == "r-1"


def test_a_machine_that_was_taken_back_with_its_card_forgotten_is_swept(azure: server.Azure, provider: Azure) -> None:
    azure.forgets_on_eviction = True
    asked = request(provider, market="spot")
    made = provider.create(asked)
    azure.advance(60)
    azure.evict(asked.name)
    assert provider.get("westeurope", made.id) is None and provider.find("westeurope", asked.name) == []
    assert provider.sweep(asked.store, {asked.code}) == []
    left = provider.sweep(asked.store, set())
    assert [(one.kind, one.name) for one in left] == [
        ("nic", f"{asked.name}-nic"), ("ip", f"{asked.name}-ip"), ("disk", f"{asked.name}-os"),
    ]  # fmt: skip
    assert all(one.code == asked.code and one.created_ms for one in left)
    for one in left:
        provider.delete_leftover(one)
        provider.delete_leftover(one)
    assert azure.left() == [] and provider.sweep("nosuchstore", set()) == []


def test_a_spot_machine_that_was_deallocated_is_evicted_and_another_is_stopped(
    azure: server.Azure, provider: Azure
) -> None:
    for market, state in (("spot", "evicted"), ("ondemand", "stopped")):
        asked = request(provider, market=market)
        made = provider.create(asked)
        azure.advance(60)
        azure.deallocate(asked.name)
        found = provider.get("westeurope", made.id)
        assert found is not None and found.state == state and found.reach is None
        assert [one.state for one in provider.instances() if one.name == asked.name] == [state]


def test_what_is_asked_for_is_what_azure_takes(azure: server.Azure, provider: Azure) -> None:
    networks = ("192.0.2.7/32",)
    expires_ms = 1_800_000_000_000
    plain = request(
        provider, "Standard_D4s_v5", allow_from=networks, expires_ms=expires_ms, user_data="#cloud-config\nxyz"
    )
    spot = request(provider, "Standard_NC24ads_A100_v4", "spot", max_price=2.0, root_disk=300 * GIB)
    newer = request(provider, "Standard_D8s_v6")
    for asked in (plain, spot, newer):
        provider.create(asked)
    azure.advance(60)
    has = {one["name"]: one["properties"] for one in azure.machines()}
    first = has[plain.name]
    assert base64.b64decode(first["osProfile"]["customData"]) == b"#cloud-config\nxyz"
    assert not {"priority", "billingProfile"} & first.keys() and "userData" not in first
    assert (
        first["storageProfile"]["osDisk"]["deleteOption"] == "Delete"
        and first["storageProfile"]["osDisk"]["diskSizeGB"] == 64
    )
    assert first["securityProfile"]["uefiSettings"]["secureBootEnabled"] is True
    second = has[spot.name]
    assert (second["priority"], second["evictionPolicy"], second["billingProfile"]) == (
        "Spot",
        "Delete",
        {"maxPrice": -1},
    )
    assert second["storageProfile"]["imageReference"]["offer"] == "ubuntu-hpc"
    assert second["storageProfile"]["osDisk"]["diskSizeGB"] == 300
    assert second["securityProfile"]["uefiSettings"]["secureBootEnabled"] is False
    third = has[newer.name]
    assert third["storageProfile"]["diskControllerType"] == "NVMe" and "securityProfile" not in third
    found = provider.get("westeurope", provider.find("westeurope", plain.name)[0].id)
    assert found is not None and found.expires_ms == expires_ms and found.project == "contract"
    assert found.reach is not None and (found.reach.host, found.reach.user) == ("127.0.0.1", "ubuntu")
    guards = azure.of_type("Microsoft.Network/networkSecurityGroups")
    assert [one["properties"]["securityRules"][0]["properties"]["sourceAddressPrefixes"] for one in guards] == [
        ["192.0.2.7/32"]
    ]


def test_who_may_connect_follows_the_driver(azure: server.Azure, provider: Azure, tmp_path: Path) -> None:
    def admitted() -> list[Any]:
        rules = [one["properties"]["securityRules"] for one in azure.of_type("Microsoft.Network/networkSecurityGroups")]
        return [[rule["properties"]["sourceAddressPrefixes"] for rule in each] for each in rules]

    provider.allow_from(("192.0.2.7/32",))
    provider.create(request(provider))
    assert admitted() == [[["192.0.2.7/32"]]]
    later = load("azure", settings(azure), Context(str(tmp_path / "own")))
    later.allow_from(("198.51.100.9/32", "203.0.113.0/24"))
    assert admitted() == [[["198.51.100.9/32", "203.0.113.0/24"]]]
    asked = len(azure.seen)
    later.allow_from(("198.51.100.9/32", "203.0.113.0/24"))
    assert [method for method, _ in azure.seen[asked:]] == ["GET"]  # nothing is said twice
    later.allow_from(())
    assert admitted() == [[]]
    later.close()


def test_a_group_that_went_is_made_again(azure: server.Azure, provider: Azure) -> None:
    provider.create(request(provider))
    azure.things.clear()
    asked = request(provider)
    with pytest.raises(ProviderDown):
        provider.create(asked)
    assert provider.create(asked).name == asked.name


def test_images(provider: Azure) -> None:
    flavors = {one.flavor.name: one.flavor for one in provider.offers(["westeurope"])}
    assert (
        provider.image("westeurope", flavors["Standard_D4ps_v5"]).id == "Canonical:ubuntu-24_04-lts:server-arm64:latest"
    )
    assert provider.image("westeurope", flavors["Standard_NC24ads_A100_v4"]).has_nvidia
    plain = flavors["Standard_D4s_v5"]
    assert (
        provider.image("westeurope", plain, "Debian:debian-12:12-gen2").id == "Debian:debian-12:12-gen2:24.04.202611010"
    )
    planned = provider.image("westeurope", plain, "nvidia:ngc:some:1.2.3")
    assert planned.id == "nvidia:ngc:some:1.2.3#some:ngc:nvidia" and planned.name == "nvidia:ngc:some:1.2.3"
    with pytest.raises(MachineNotFound, match="no image"):
        provider.image("westeurope", plain, "Debian:debian-12:nothing")
    with pytest.raises(BadRequest, match="PUBLISHER:OFFER:SKU"):
        provider.image("westeurope", plain, "debian")


def test_a_plan_is_sent_along(azure: server.Azure, provider: Azure) -> None:
    asked = request(provider)
    provider.create(replace(asked, image=provider.image("westeurope", asked.offer.flavor, "nvidia:ngc:some:1.2.3")))
    assert azure.machines()[0]["plan"] == {"name": "some", "product": "ngc", "publisher": "nvidia"}


WRONG: tuple[tuple[str, Callable[[dict[str, Any]], None]], ...] = (
    ("security_group", lambda body: body["properties"].update(rules=[])),
    ("virtual_network", lambda body: body["properties"]["subnets"][0]["properties"].update(nsg="x")),
    ("machine", lambda body: body["properties"]["osProfile"].update(customdata="x")),
    (
        "machine",
        lambda body: body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]["properties"].update(
            nic=1
        ),
    ),
)


@pytest.mark.parametrize(("what", "spoil"), WRONG)
def test_the_stand_in_refuses_what_microsofts_models_do_not_have(
    azure: server.Azure,
    provider: Azure,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    made = getattr(bodies, what)

    def wrong(*args: Any) -> dict[str, Any]:
        body: dict[str, Any] = made(*args)
        spoil(body)
        return body

    monkeypatch.setattr(bodies, what, wrong)
    with pytest.raises(BadRequest, match="Could not find member"):
        provider.create(request(provider))


def test_the_role_that_is_shipped_has_exactly_the_rights_that_are_used(azure: server.Azure, provider: Azure) -> None:
    azure.forgets_on_eviction = True
    assert provider.check() == []
    provider.regions(), provider.quotas("westeurope")
    asked = request(provider, market="spot")
    provider.allow_from(("192.0.2.7/32",))
    made = provider.create(asked)
    azure.advance(60)
    provider.allow_from(())
    provider.get("westeurope", made.id), provider.instances()
    provider.image("westeurope", asked.offer.flavor, "Debian:debian-12:12-gen2")
    azure.evict(asked.name)
    for one in provider.sweep(asked.store, set()):
        provider.delete_leftover(one)
    provider.delete(made)
    grouped = load("azure", settings(azure, resource_group=f"scitq-{asked.store}"), Context("/nowhere"))
    assert grouped.check() == []
    grouped.close()
    assert {one.lower() for one in access.actions()} == {one.lower() for one in azure.actions}


def test_a_check_says_which_right_is_missing_and_what_grants_it(azure: server.Azure, provider: Azure) -> None:
    azure.granted = [{"actions": ["*/read"], "notActions": []}]
    azure.unregistered = {"microsoft.network"}
    right, registration = provider.check()
    assert "Microsoft.Compute/disks/delete" in right.what and "and 9 more" in right.what
    assert right.fix.startswith("az role assignment create") and server.SUBSCRIPTION in right.fix
    assert "Microsoft.Network is not registered" in registration.what
    assert registration.fix == "az provider register --namespace Microsoft.Network"
    azure.fail("GET", "permissions", 401, "ExpiredAuthenticationToken", "The token is over")
    (login,) = provider.check()
    assert "The token is over" in login.what and "az login" in login.fix
    azure.granted = [{"actions": ["*"], "notActions": ["Microsoft.Compute/virtualMachines/write"]}]
    assert "virtualMachines/write" in provider.check()[0].what
    azure.granted.append({"actions": ["Microsoft.Compute/virtualMachines/*"], "notActions": []})
    assert len(provider.check()) == 1  # another role grants what the first leaves out


def test_settings_that_make_no_sense_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    context = Context(str(tmp_path))
    with pytest.raises(BadRequest, match="which subscription"):
        load("azure", {"kind": "azure"}, context)
    with pytest.raises(BadRequest, match="endpoint must be https"):
        load("azure", {"kind": "azure", "subscription": "x", "endpoint": "http://azure.example"}, context)
    profile = {"subscriptions": [{"id": "one", "isDefault": False}, {"id": "two", "isDefault": True}]}
    (tmp_path / "azureProfile.json").write_text("\ufeff" + json.dumps(profile), encoding="utf-8")
    found = load("azure", {"kind": "azure"}, context)
    assert isinstance(found, Azure) and found.account.subscription == "two"
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "three")
    assert Account.of("azure", {}).subscription == "three"


def test_no_token_is_sent_to_a_stand_in(azure: server.Azure, provider: Azure) -> None:
    with pytest.raises(AssertionError, match="nothing for a stand-in"):
        provider.account.credential.get_token("scope")
    provider.instances()
    assert azure.headers and not any("authorization" in {name.lower() for name in each} for each in azure.headers)


def test_nothing_of_azure_is_loaded_before_it_is_used() -> None:
    program = "import sys, scitq, scitq.remote.providers as p; p.kinds(); print([m for m in sys.modules if m.startswith('azure')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
