"""This machine as a provider, for rehearsals: it lends workers of one flavor, each an agent in a folder of its own. Free of charge.

Kept as the make-believe cloud keeps its machines, so that whatever dies, the next process knows what was lent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from scitq.remote.providers.base import Capabilities, Context
from scitq.remote.providers.fake.catalogue import flavor
from scitq.remote.providers.fake.cloud import Cloud
from scitq.remote.providers.fake.renting import Fake
from scitq.remote.providers.fake.world import Sale

REGION = "local"


class Local(Fake):
    """Workers on this machine."""

    kind = "local"

    def __init__(self, name: str, cloud: Cloud) -> None:
        super().__init__(name, cloud)
        self.caps = Capabilities(creates=False, bills_when_stopped=False)


def factory(name: str, settings: Mapping[str, Any], context: Context) -> Local:
    """The provider of that name: what it lends follows the settings, what is lent already stays."""
    cloud = Cloud(context.folder, bare=True)
    called = settings.get("flavor") or "local"
    disk = os.statvfs(cloud.folder)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    arch = "arm64" if os.uname().machine in ("aarch64", "arm64") else "x86_64"
    lent = flavor(os.cpu_count() or 1, memory, disk.f_blocks * disk.f_frsize, arch=arch)
    with cloud.open() as world:
        world.regions = [REGION]
        world.flavors[called] = {**lent, "families": {}}
        count = sum(one.flavor == called for one in world.alive())
        stock = max(0, settings.get("machines", 1) - count)
        world.sales = [
            Sale(REGION, called, "ondemand", settings.get("cost", 0), settings.get("currency", "EUR"), stock=stock)
        ]
    return Local(name, cloud)
