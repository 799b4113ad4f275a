"""What the make-believe cloud sells when nothing else is said: three regions, a dozen flavors, two markets."""

from __future__ import annotations

from typing import Any

from scitq.offers import Unit
from scitq.remote.providers.fake.world import Limit, Sale, World

GB, GIB = 10**9, 1 << 30
REGIONS = {"north": 1.0, "south": 1.1, "island": 1.3}
"""How dear they are. Time on the island is billed by the hour."""
_ISLAND = "island"
SPOT = 0.35
# Name: CPUs, GiB of memory, GB of root disk, price an hour in the north, more.
_FLAVORS: dict[str, tuple[int, int, int, float, dict[str, Any]]] = {
    "tiny-1": (1, 2, 20, 0.02, {}),
    "std-2": (2, 8, 50, 0.08, {}),
    "std-4": (4, 16, 100, 0.16, {}),
    "std-8": (8, 32, 100, 0.32, {}),
    "std-16": (16, 64, 200, 0.64, {}),
    "std-32": (32, 128, 400, 1.28, {}),
    "mem-8": (8, 64, 100, 0.45, {}),
    "mem-16": (16, 128, 200, 0.90, {}),
    "disk-8": (8, 32, 50, 0.42, {"local_disk": 475 * GB, "local_disks": 1, "local_kind": "nvme"}),
    "arm-8": (8, 32, 100, 0.26, {"arch": "arm64"}),
    "gpu-8": (8, 32, 100, 0.90, {"gpu": {"model": "L4", "count": 1, "memory": 24 * GIB}}),
    "metal-32": (32, 128, 400, 1.60, {"metal": True, "local_disk": 1920 * GB, "local_disks": 2, "local_kind": "nvme"}),
}
EVICTION = 2.0
LIMITS: tuple[tuple[str, Unit, float], ...] = (
    ("cores", "vcpu", 128.0),
    ("spot-cores", "vcpu", 64.0),
    ("machines", "instances", 20.0),
    ("gpus", "instances", 2.0),
)


def flavor(cpu: int, ram: int, root_disk: int = 0, **more: Any) -> dict[str, Any]:
    """A flavor as the world keeps it: bytes, and the quotas that it draws on."""
    extra = ("gpus",) if more.get("gpu") else ()
    families = {"ondemand": ["cores", "machines", *extra], "spot": ["spot-cores", "machines", *extra]}
    return {"cpu": cpu, "ram": ram, "root_disk": root_disk, "families": families, **more}


def born(**more: Any) -> World:
    """A new world."""
    world = World(regions=[*REGIONS], **more)
    for name, (cpu, ram, disk, price, others) in _FLAVORS.items():
        world.flavors[name] = flavor(cpu, ram * GIB, disk * GB, **others)
        for region, factor in REGIONS.items():
            if name == "gpu-8" and region == _ISLAND:
                continue
            billing = (3600, 0) if region == _ISLAND else (1, 60)
            full = round(price * factor, 4)
            world.sales.append(Sale(region, name, "ondemand", full, "EUR", *billing))
            if not others.get("metal") and region != _ISLAND:
                world.sales.append(Sale(region, name, "spot", round(full * SPOT, 4), "EUR", *billing, EVICTION))
    world.limits = [Limit(region, *limit) for region in REGIONS for limit in LIMITS]
    return world
