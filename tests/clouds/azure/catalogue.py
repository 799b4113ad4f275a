"""What the stand-in sells, in the shapes in which Azure tells it."""

from __future__ import annotations

from typing import Any

REGIONS = ("westeurope", "northeurope")
RATES = [
    {"skuName": "standard_d4s_v5", "location": "westeurope", "rate": "0-5"},
    {"skuName": "standard_d4s_v5", "location": "northeurope", "rate": "20+"},
    {"skuName": "standard_d32ads_v5", "location": "westeurope", "rate": "new words"},
]
# Name, limit, used.
USAGES = (
    ("cores", 100, 4),
    ("lowPriorityCores", 350, 3),
    ("virtualMachines", 25000, 2),
    ("standardDSv5Family", 100, 0),
    ("standardDADSv5Family", 64, 0),
    ("standardNCADSA100v4Family", 24, 0),
    ("availabilitySets", 2500, 0),
)
NETWORK_USAGES = (
    ("PublicIPAddresses", 1000, 1),
    ("StandardSkuPublicIpAddresses", 20, 1),
    ("NetworkSecurityGroups", 5000, 1),
)


def sku(name: str, family: str, region: str, *restrictions: dict[str, Any], **has: str) -> dict[str, Any]:
    """One row of Microsoft.Compute/skus."""
    said = {
        "HyperVGenerations": "V1,V2",
        "CpuArchitectureType": "x64",
        "LowPriorityCapable": "True",
        "AcceleratedNetworkingEnabled": "True",
        **has,
    }
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "size": name.partition("_")[2],
        "family": family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": ["1", "2", "3"], "zoneDetails": []}],
        "capabilities": [{"name": key, "value": value} for key, value in said.items()],
        "restrictions": list(restrictions),
    }


def skus(region: str) -> list[dict[str, Any]]:
    """All of a region, and what is no machine. Azure tells regions in any case."""
    shown = {"westeurope": "WestEurope"}.get(region, region)
    if region not in REGIONS:
        return []
    why = "NotAvailableForSubscription"
    zone = {"type": "Zone", "restrictionInfo": {"locations": [shown], "zones": ["3"]}, "reasonCode": why}
    location = {"type": "Location", "restrictionInfo": {"locations": [shown]}, "reasonCode": why}
    nvme = {"NvmeDiskSizeInMiB": "1831054", "NvmeSizePerDiskInMiB": "915527"}
    new = {"HyperVGenerations": "V2", "DiskControllerTypes": "NVMe", "TrustedLaunchDisabled": "True"}
    arm = {"HyperVGenerations": "V2", "CpuArchitectureType": "Arm64", "LowPriorityCapable": "False"}
    ads, dc = "standardDADSv5Family", "standardDCASv5Family"
    rows = [
        sku("Standard_D4s_v5", "standardDSv5Family", shown, vCPUs="4", MemoryGB="16"),
        sku("Standard_D32ads_v5", ads, shown, zone, vCPUs="32", MemoryGB="128", MaxResourceVolumeMB="1228800"),
        sku(
            "Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", shown, vCPUs="24", MemoryGB="220", GPUs="1", **nvme
        ),
        sku("Standard_NV6ads_A10_v5", "StandardNVADSA10v5Family", shown, vCPUs="6", MemoryGB="55", GPUs="1"),
        sku("Standard_D4ps_v5", "standardDPSv5Family", shown, vCPUs="4", MemoryGB="16", **arm),
        sku("Standard_D8s_v6", "standardDSv6Family", shown, vCPUs="8", MemoryGB="32", **new),
        sku("Standard_DC4as_v5", dc, shown, vCPUs="4", MemoryGB="16", ConfidentialComputingType="SNP"),
        sku("Standard_NP10s", "standardNPSFamily", shown, vCPUs="10", MemoryGB="168", GPUs="1"),
        sku("Basic_A1", "basicAFamily", shown, vCPUs="1", MemoryGB="1.75", HyperVGenerations="V1"),
        {"resourceType": "disks", "name": "Premium_LRS", "locations": [shown]},
    ]
    if region == "northeurope":
        rows[1]["restrictions"] = [location]
    return rows


def price_items(region: str) -> list[dict[str, Any]]:
    """The list of prices of a region: with what is to be left out."""
    dsv5, dads = "Virtual Machines DSv5 Series", "Virtual Machines Dadsv5 Series"
    rows = [
        ("Standard_D4s_v5", "D4s v5", dsv5, 0.2),
        ("Standard_D4s_v5", "D4s v5 Spot", dsv5, 0.03),
        ("Standard_D4s_v5", "D4s v5 Low Priority", dsv5, 0.01),
        ("Standard_D4s_v5", "D4s v5", f"{dsv5} Windows", 0.15),
        ("Standard_D32ads_v5", "D32ads v5", dads, 1.6),
        ("Standard_D32ads_v5", "D32ads v5 Spot", dads, 0.31),
        ("Standard_NC24ads_A100_v4", "NC24ads A100 v4", "Virtual Machines NCads A100 v4 Series", 3.6),
        ("Standard_D8s_v6", "D8s v6", "Virtual Machines Dsv6 Series", 0.45),
    ]
    fixed = {"currencyCode": "EUR", "armRegionName": region, "serviceName": "Virtual Machines", "type": "Consumption"}
    return [
        {
            **fixed,
            "unitPrice": price,
            "meterName": sku,
            "productName": product,
            "skuName": sku,
            "armSkuName": arm,
            "unitOfMeasure": "1 Hour",
        }
        for arm, sku, product, price in rows
    ]
