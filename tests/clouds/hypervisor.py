"""What makes the machines of a make-believe cloud SSH hosts: it boots those that were asked for, and ends those that are over.

It looks at the cloud's books only, so that it does not matter which process rents, or how often that one is killed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scitq.remote.providers.base import EVICTION_NOTICE, NOTICE_FOLDER, SHUTDOWN
from scitq.remote.providers.fake import Cloud as FakeCloud
from scitq.remote.providers.fake.weather import end
from scitq.remote.providers.fake.world import UNPAID, Machine
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.image import Keys

LOOK_S = 0.05
OVER = (*UNPAID, "deleting", "error")


class Hypervisor:
    """Hosts for a cloud whose `machines_are` is `hosts`, on a network of hosts."""

    def __init__(self, fake: FakeCloud, network: Cloud) -> None:
        self.fake, self.network = fake, network
        self.hosts: dict[str, Host] = {}
        self.problem: BaseException | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hypervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all hosts."""
        self._is_over.set()
        self._thread.join()
        for host in self.hosts.values():
            self.network.delete(host)
        if self.problem is not None:
            raise self.problem

    def host(self, machine: str) -> Host:
        """The host of a machine (its id)."""
        return self.hosts[machine]

    def _run(self) -> None:
        try:
            while not self._is_over.wait(LOOK_S):
                self._look()
        except BaseException as problem:
            self.problem = problem

    def _look(self) -> None:
        with self.fake.open() as world:
            now = world.now_ms()
            for machine in world.alive():
                host = self.hosts.get(machine.id)
                if host is not None and machine.state == "running":
                    if _inside(host, SHUTDOWN).exists():
                        end(world, machine, "gone", now, "it shut itself down")
                    elif machine.notice_ms is not None and machine.notice_ms <= now and not machine.is_noticed:
                        self._tell(host, (machine.evict_ms or now) - world.offset_ms)
                        machine.is_noticed = True
            starting = [
                one
                for one in world.alive()
                if one.state == "creating" and one.host is None and one.id not in self.hosts
            ]
            over = [one.id for one in world.machines.values() if one.state in OVER and not one.is_off]
        for machine in starting:
            self._boot(machine)
        for id in over:
            if (host := self.hosts.pop(id, None)) is not None:
                self.network.delete(host)
            with self.fake.open() as world:
                world.machines[id].is_off = True

    def _boot(self, machine: Machine) -> None:
        keys = _keys(machine.user_data, machine.public_key)
        host = self.hosts[machine.id] = self.network.boot(
            machine.id.replace("-", ""), keys=keys, user=machine.user or "root"
        )
        with self.fake.open() as world:
            world.machines[machine.id].host = {
                "host": host.ip, "user": host.user, "port": 22, "host_keys": [] if keys.host else [host.key],
            }  # fmt: skip

    def _tell(self, host: Host, at_ms: int) -> None:
        place = _inside(host, EVICTION_NOTICE)
        place.parent.mkdir(exist_ok=True)
        fresh = place.with_suffix(".new")
        fresh.write_text(json.dumps({"at": at_ms / 1000, "why": "the provider takes this machine back"}))
        fresh.replace(place)


def _inside(host: Host, name: str) -> Path:
    """A file of NOTICE_FOLDER there."""
    first = host.facts.first
    return Path("/proc", str(first[0] if first else 0), "root", NOTICE_FOLDER.lstrip("/"), name)


def _keys(user_data: str, public_key: str) -> Keys:
    """What cloud-init would do of it. It is YAML; JSON is, and is all that is understood here."""
    head, _, rest = user_data.partition("\n")
    if head.strip() != "#cloud-config":
        return Keys(users=(public_key,))
    told = json.loads(rest or "{}")
    users = [*told.get("ssh_authorized_keys", ()), public_key]
    return Keys(told.get("ssh_keys", {}).get("ed25519_private", ""), tuple(dict.fromkeys(users)))


@contextmanager
def machines(fake: FakeCloud, network: Cloud) -> Iterator[Hypervisor]:
    """Hosts for a cloud, as long as it lasts."""
    hypervisor = Hypervisor(fake, network)
    try:
        yield hypervisor
    finally:
        hypervisor.close()


def until_off(fake: FakeCloud, within_s: float = 60.0) -> None:
    """Wait until nothing runs any more that is over."""
    deadline = time.monotonic() + within_s
    while any(one.state in OVER and not one.is_off for one in fake.machines(all=True)):
        assert time.monotonic() < deadline, fake.machines(all=True)
        time.sleep(0.05)
