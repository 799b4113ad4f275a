"""What Azure is asked for, as the JSON of its REST interface (versions of 2026 of Microsoft.Compute and Microsoft.Network). Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from scitq.errors import BadRequest
from scitq.offers import Flavor
from scitq.remote.providers.azure.sizes import Size
from scitq.remote.providers.base import CreateRequest, Image

GIB = 1 << 30
SUBNET = "workers"
ROOT_GIB, GPU_ROOT_GIB = 64, 128
# Without a plan to accept. Microsoft's image for GPUs has the driver, docker and the toolkit for containers.
UBUNTU, UBUNTU_ARM = "Canonical:ubuntu-24_04-lts:server:latest", "Canonical:ubuntu-24_04-lts:server-arm64:latest"
WITH_NVIDIA, WITH_ROCM = "microsoft-dsvm:ubuntu-hpc:2404:latest", "microsoft-dsvm:ubuntu-hpc:2404-rocm:latest"
USER = "ubuntu"


def group_name(store: str) -> str:
    """The resource group of a state file."""
    return f"scitq-{store}"


def image_of(region: str, flavor: Flavor) -> Image:
    """What a machine starts from where its user says nothing."""
    if flavor.gpu is not None:
        urn = WITH_ROCM if flavor.gpu.model.startswith("MI") else WITH_NVIDIA
        return Image(
            urn, urn, region, USER, flavor.arch, GPU_ROOT_GIB * GIB, has_docker=True, has_nvidia=urn == WITH_NVIDIA
        )
    urn = UBUNTU_ARM if flavor.arch == "arm64" else UBUNTU
    return Image(urn, urn, region, USER, flavor.arch)


def urn_of(provider: str, wanted: str) -> tuple[str, str, str, str]:
    """The parts of `publisher:offer:sku[:version]`.

    Raises:
        BadRequest: it is something else.
    """
    parts = wanted.split(":")
    if len(parts) == 3:
        parts.append("latest")
    if len(parts) != 4 or not all(parts):
        raise BadRequest(f"{provider}: an image is PUBLISHER:OFFER:SKU[:VERSION], not {wanted!r}.", provider=provider)
    return parts[0], parts[1], parts[2], parts[3]


def tags(request: CreateRequest) -> dict[str, str]:
    """On all that belongs to a machine."""
    found = {**request.tags, "scitq-store": request.store, "scitq-project": request.project, "scitq-code": request.code}
    if request.expires_ms is not None:
        found["scitq-expires"] = datetime.fromtimestamp(request.expires_ms / 1000, UTC).isoformat(timespec="seconds")
    return found


def security_group(region: str, networks: tuple[str, ...], known: Mapping[str, str]) -> dict[str, Any]:
    """Who may open a connection: SSH from these networks; from nowhere if there is none."""
    rule = {
        "name": "ssh",
        "properties": {
            "priority": 1000, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefixes": list(networks),
            "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22",
        },
    }  # fmt: skip
    return {"location": region, "tags": dict(known), "properties": {"securityRules": [rule] if networks else []}}


def virtual_network(region: str, group_id: str, known: Mapping[str, str]) -> dict[str, Any]:
    """The network of a region, its one subnet guarded by the security group."""
    subnet = {
        "name": SUBNET,
        "properties": {"addressPrefix": "10.90.0.0/18", "networkSecurityGroup": {"id": group_id}},
    }
    space = {"addressPrefixes": ["10.90.0.0/16"]}
    return {"location": region, "tags": dict(known), "properties": {"addressSpace": space, "subnets": [subnet]}}


def machine(request: CreateRequest, size: Size, security_group_id: str, network_id: str) -> dict[str, Any]:
    """A machine with its network card, address and disk, which go when it goes."""
    offer, name = request.offer, request.name
    has_gpu = offer.flavor.gpu is not None
    own = tags(request)
    urn, _, plan = request.image.id.partition("#")
    publisher, product, sku, version = urn_of(offer.flavor.provider, urn)
    least_gib = GPU_ROOT_GIB if has_gpu else ROOT_GIB
    root_gib = max(least_gib, -(-request.root_disk // GIB), -(-request.image.min_disk // GIB))
    disk = {
        "name": f"{name}-os", "createOption": "FromImage", "deleteOption": "Delete", "diskSizeGB": root_gib, "caching": "ReadWrite",
        "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
    }  # fmt: skip
    storage: dict[str, Any] = {
        "imageReference": {"publisher": publisher, "offer": product, "sku": sku, "version": version},
        "osDisk": disk,
    }
    if size.is_nvme:
        storage["diskControllerType"] = "NVMe"
    address = {
        "name": f"{name}-ip", "tags": own, "sku": {"name": "Standard", "tier": "Regional"},
        "properties": {"publicIPAllocationMethod": "Static", "deleteOption": "Delete"},
    }  # fmt: skip
    card = {
        "name": f"{name}-nic",
        "tags": own,
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "networkSecurityGroup": {"id": security_group_id},
            "enableAcceleratedNetworking": size.is_accelerated,
            "ipConfigurations": [
                {
                    "name": "ip",
                    "properties": {
                        "primary": True,
                        "subnet": {"id": f"{network_id}/subnets/{SUBNET}"},
                        "publicIPAddressConfiguration": address,
                    },
                }
            ],
        },
    }
    keys = [{"path": f"/home/{request.user}/.ssh/authorized_keys", "keyData": request.ssh_public_key}]
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": offer.flavor.name},
        "storageProfile": storage,
        "osProfile": {
            "computerName": name,
            "adminUsername": request.user,
            # Not userData: every process of a machine may read that from the machine's metadata.
            "customData": base64.b64encode(request.user_data.encode()).decode(),
            "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": keys}},
        },
        "networkProfile": {"networkApiVersion": "2022-11-01", "networkInterfaceConfigurations": [card]},
    }
    if offer.market == "spot":
        properties |= {"priority": "Spot", "evictionPolicy": "Delete"}
        # A cap is in dollars, whatever the bill is in.
        cap = request.max_price if request.max_price is not None and offer.currency == "USD" else -1
        properties["billingProfile"] = {"maxPrice": cap}
    if size.is_trusted and not sku.endswith("gen1"):
        # Modules of GPU drivers are not signed.
        boot = {"secureBootEnabled": not has_gpu, "vTpmEnabled": True}
        properties["securityProfile"] = {"securityType": "TrustedLaunch", "uefiSettings": boot}
    found: dict[str, Any] = {"location": offer.region, "tags": own, "properties": properties}
    if plan:
        plan_name, plan_product, plan_publisher = plan.split(":")
        found["plan"] = {"name": plan_name, "product": plan_product, "publisher": plan_publisher}
    return found
