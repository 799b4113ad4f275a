"""What Azure sells: sizes of machines as flavors, and the limits that they draw on. Pure: from the JSON of `Microsoft.Compute/skus` and
`usages` (learn.microsoft.com, "Resource Skus - List") to the nouns of `scitq.offers`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from typing import Any, Literal

from scitq.offers import Flavor, Gpu, Quota

GIB = 1 << 30
CORES, SPOT_CORES, MACHINES, ADDRESSES = "cores", "lowprioritycores", "virtualmachines", "public-ips"
# Limits on addresses have had several names; the one that is nearest is what counts.
_ADDRESSES = ("publicipaddresses", "standardskupublicipaddresses", "ipv4standardskupublicipaddresses")
# Sizes that own a share of a GPU and report a whole one, and those that report none.
_SHARES = {
    "standard_nv6ads_a10_v5": Fraction(1, 6),
    "standard_nv12ads_a10_v5": Fraction(1, 3),
    "standard_nv18ads_a10_v5": Fraction(1, 2),
}
_COUNTS = {"standard_nd96is_mi300x_v5": 8, "standard_nd128isr_ndr_gb200_v6": 4, "standard_nd128isr_gb300_v6": 4}
_FPGA = re.compile(r"standard_np\d", re.IGNORECASE)


@dataclass(frozen=True)
class Size:
    """A size in one region: what is sold as a flavor, and what a machine of it has to be asked for with."""

    flavor: Flavor
    region: str
    zones: tuple[str, ...]
    is_spot: bool
    """Whether it is sold on the spot market, too."""
    reason: str
    """Why this account cannot have it; empty: it can."""
    is_trusted: bool
    """Whether it takes trusted launch, which images of the second generation start with."""
    is_nvme: bool
    """Whether its disks are NVMe, and it knows no others."""
    is_accelerated: bool


def size_of(provider: str, sku: Mapping[str, Any]) -> Size | None:
    """A size; None for what is no machine, or none that an ordinary image runs on."""
    if str(sku.get("resourceType", "")).lower() != "virtualmachines":
        return None
    has = {str(one["name"]).lower(): str(one["value"]) for one in sku.get("capabilities") or ()}
    name, family = str(sku["name"]), str(sku.get("family") or "").lower()
    is_other = (
        bool(has.get("confidentialcomputingtype")) or name.lower().startswith("basic_") or bool(_FPGA.match(name))
    )
    if is_other or "v2" not in has.get("hypervgenerations", "V1,V2").lower():
        return None
    cpu = int(float(has.get("vcpusavailable") or has.get("vcpus") or 0))
    ram = int(float(has.get("memorygb") or 0) * GIB)
    if cpu < 1 or ram < 1:
        return None
    disk, disks, kind = _local_disk(has)
    region = str((sku.get("locations") or [""])[0]).lower()
    zones, reason = _restricted(sku, region)
    own = (family,) if family else ()
    flavor = Flavor(
        provider, name, cpu, ram, 0, disk, disks, kind, _gpu(name, family, has),
        "arm64" if has.get("cpuarchitecturetype", "x64").lower() == "arm64" else "x86_64", metal=False,
        families={
            "ondemand": (CORES, *own, MACHINES, ADDRESSES),
            "spot": (SPOT_CORES, MACHINES, ADDRESSES),
        },
    )  # fmt: skip
    controllers = has.get("diskcontrollertypes", "SCSI").upper()
    return Size(
        flavor, region, zones, _is_true(has, "lowprioritycapable"), reason, not _is_true(has, "trustedlaunchdisabled"),
        "SCSI" not in controllers, _is_true(has, "acceleratednetworkingenabled"),
    )  # fmt: skip


def _is_true(has: Mapping[str, str], name: str) -> bool:
    return has.get(name, "").lower() == "true"


def _local_disk(has: Mapping[str, str]) -> tuple[int, int, Literal["none", "scsi-temp", "nvme"]]:
    total = int(float(has.get("nvmedisksizeinmib") or 0)) << 20
    if total:
        each = int(float(has.get("nvmesizeperdiskinmib") or 0)) << 20
        return total, max(1, round(total / each)) if each else 1, "nvme"
    temporary = int(float(has.get("maxresourcevolumemb") or 0)) << 20
    return (temporary, 1, "scsi-temp") if temporary else (0, 0, "none")


def _gpu(name: str, family: str, has: Mapping[str, str]) -> Gpu | None:
    known = gpus().get(family)
    count = float(_SHARES.get(name.lower()) or _COUNTS.get(name.lower()) or float(has.get("gpus") or 0))
    if not count:
        return None
    model, memory = known or ("UNKNOWN", 0)
    return Gpu(model, count, memory)


@functools.cache
def gpus() -> dict[str, tuple[str, int]]:
    """By family in small letters: the model of its GPUs, and bytes of one."""
    text = resources.files(__package__).joinpath("gpus.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {family: (model, int(gib) * GIB) for family, model, gib in rows}


def _restricted(sku: Mapping[str, Any], region: str) -> tuple[tuple[str, ...], str]:
    """The zones that are left, and why none is."""
    info: Mapping[str, Any] = next(
        (one for one in sku.get("locationInfo") or () if str(one.get("location", "")).lower() == region), {}
    )
    zones = set(info.get("zones") or ())
    for one in sku.get("restrictions") or ():
        if str(one.get("type", "")).lower() == "location":
            return (), str(one.get("reasonCode") or "restricted")
        zones -= set((one.get("restrictionInfo") or {}).get("zones") or ())
    return tuple(sorted(zones)), ""


def quotas_of(
    provider: str,
    region: str,
    machines: Iterable[Mapping[str, Any]],
    addresses: Iterable[Mapping[str, Any]],
    now_ms: int,
) -> list[Quota]:
    """Limits of an account in a region: `machines` as Microsoft.Compute tells them, `addresses` as Microsoft.Network does."""
    found = []
    for name, limit, used in map(_usage, machines):
        if name in (CORES, SPOT_CORES) or name.endswith("family"):
            found.append(Quota(provider, region, name, "vcpu", limit, used, now_ms))
        elif name == MACHINES:
            found.append(Quota(provider, region, name, "instances", limit, used, now_ms))
    nearest = sorted((limit - used, limit, used) for name, limit, used in map(_usage, addresses) if name in _ADDRESSES)
    if nearest:
        _, limit, used = nearest[0]
        found.append(Quota(provider, region, ADDRESSES, "ip", limit, used, now_ms))
    return found


def _usage(one: Mapping[str, Any]) -> tuple[str, float, float]:
    return str(one["name"]["value"]).lower(), float(one["limit"]), float(one["currentValue"])
