"""What every provider has to do (scitq.testing), done by those that come with scitq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    HostKeyUnknown,
    HostLoginRefused,
    HostUnreachable,
    LinkBroken,
    PermissionDenied,
    PriceTooLow,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    QuotaExceeded,
    RateLimited,
    ScitqError,
)
from scitq.offers import Offer
from scitq.remote import ssh
from scitq.remote.providers import load
from scitq.remote.providers.base import Context, Provider
from scitq.remote.providers.fake import Cloud
from scitq.remote.providers.ssh import leases
from scitq.testing import ProviderContract

ERRORS: dict[type[ProviderError], str] = {
    ProviderLogin: "login", PermissionDenied: "permission", BadRequest: "request", QuotaExceeded: "quota",
    CapacityUnavailable: "stock", FlavorUnavailable: "unsold", FlavorUnsupported: "unsupported", PriceTooLow: "price",
    RateLimited: "rate", ProviderDown: "down", AmbiguousCreate: "lost-asking",
}  # fmt: skip


class OfFolders(ProviderContract):
    """Providers that are kept in a folder."""

    settings: Mapping[str, Any]

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        """Where."""
        self.folder = tmp_path / "cloud"

    def make(self) -> Provider:
        """Anew, by its settings."""
        return load("dream", self.settings, Context(str(self.folder)))

    def settle(self) -> None:
        """Its clock is moved."""
        Cloud(self.folder).advance(20)

    def faults(self) -> Mapping[type[ProviderError], Callable[[], None]]:
        """All that there are."""

        def spoil(fault: str) -> Callable[[], None]:
            return lambda: Cloud(self.folder).fail("create", fault)

        return {error: spoil(fault) for error, fault in ERRORS.items()}

    def lose_answer(self) -> bool:
        """By its script."""
        Cloud(self.folder).fail("create", "lost")
        return True


class TestFake(OfFolders):
    """The make-believe cloud."""

    settings: Mapping[str, Any] = {"kind": "fake", "delete_s": 30}


class TestFakeWithoutTags(OfFolders):
    """One where a machine's name is all that tells whose it is, and that takes its time."""

    settings: Mapping[str, Any] = {"kind": "fake", "tags": False, "boot_s": 60, "delete_s": 30}


def test_the_images_of_the_settings_are_used(tmp_path: Path) -> None:
    provider = load("dream", {"kind": "fake", "image": "debian", "gpu_image": "cuda"}, Context(str(tmp_path)))
    flavors = {one.flavor.gpu is not None: one.flavor for one in provider.offers()}
    assert {has_gpu: provider.image("north", flavor).name for has_gpu, flavor in flavors.items()} == {
        False: "debian",
        True: "cuda",
    }
    assert provider.image("north", flavors[False], "mine").name == "mine"
    provider.close()


class TestDeclared(OfFolders):
    """With limits and prices of the settings."""

    settings: Mapping[str, Any] = {
        "kind": "fake", "max_machines": 2, "regions": ["north", "south"], "prices": {"std-4": 0.001}, "quotas": {"cores": 64},
    }  # fmt: skip

    def choose(self, offers: list[Offer]) -> Offer:
        """What was declared is believed."""
        chosen = super().choose(offers)
        assert (chosen.flavor.name, chosen.price) == ("std-4", 0.001)
        return chosen

    def test_there_are_never_more_machines_than_the_settings_allow(self) -> None:
        provider = self.make()
        for _ in range(2):
            provider.create(self.request(provider))
        with pytest.raises(QuotaExceeded, match=r"there are 2 machines, and 2 is the most that your settings allow"):
            provider.create(self.request(provider))
        told = {one.family: (one.limit, one.used) for one in provider.quotas("south")}
        assert told["max_machines"] == (2, 2) and told["cores"][0] == 64
        with pytest.raises(BadRequest, match="region island is not to be used"):
            asked = self.request(provider)
            provider.create(_moved(asked, "island"))
        self.clear(provider)
        provider.close()


class TestLocal(OfFolders):
    """This machine."""

    settings: Mapping[str, Any] = {"kind": "local", "machines": 2}


class TestPool(ProviderContract):
    """Hosts, behind a login that is not one: what would be run there is run here, in a home of its own."""

    @pytest.fixture(autouse=True)
    def homes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Two hosts, the first with two slots."""
        self.folder, self.down = tmp_path, dict[str, ScitqError]()
        self.is_lost = False
        monkeypatch.setattr(ssh, "ask", self.ask)
        yield

    def ask(self, address: str, program: str, asked: dict[str, Any]) -> dict[str, Any]:
        """As `ssh.ask`."""
        if "take" in asked and (problem := self.down.pop(address, None)) is not None:
            raise problem
        # Its text is what travels, so its text is what is run.
        there: dict[str, Any] = {"__name__": "leases"}
        exec(program.replace(leases.PLACE, f"{self.folder}/homes/{address}/leases"), there)
        told: dict[str, Any] = json.loads(json.dumps(there["done"](asked)))
        if "take" in asked and self.is_lost:
            self.is_lost = False
            raise LinkBroken("the connection ended.")
        return told

    def make(self) -> Provider:
        """Anew."""
        hosts = [{"host": "atlas", "slots": 2, "cost": 0.1, "nice": 10}, {"host": "barn", "cost": 0.5}]
        return load("lab", {"kind": "ssh", "hosts": hosts, "region": "room"}, Context(str(self.folder / "known")))

    def faults(self) -> Mapping[type[ProviderError], Callable[[], None]]:
        """What SSH says, as a provider says it."""
        causes: dict[type[ProviderError], ScitqError] = {
            ProviderLogin: HostLoginRefused("no such key", host="atlas"),
            BadRequest: HostKeyUnknown("unknown key", host="atlas"),
            CapacityUnavailable: HostUnreachable("it is off", host="atlas"),
            AmbiguousCreate: LinkBroken("it broke"),
        }

        def spoil(problem: ScitqError) -> Callable[[], None]:
            return lambda: self.down.update(atlas=problem)

        return {error: spoil(problem) for error, problem in causes.items()}

    def lose_answer(self) -> bool:
        """The connection breaks when all is done."""
        self.is_lost = True
        return True

    def test_slots_are_leased_one_by_one_and_kept_by_their_file(self) -> None:
        provider = self.make()
        asked = [self.request(provider, code) for code in ("aaaaaaaa", "bbbbbbbb", "cccccccc")]
        first, second = provider.create(asked[0]), provider.create(asked[1])
        assert first.reach is not None and first.reach.settings == {"nice": 10}
        assert {first.id, second.id} == {"atlas/slot-0/aaaaaaaa", "atlas/slot-1/bbbbbbbb"}
        with pytest.raises(CapacityUnavailable, match="all of atlas is taken"):
            provider.create(asked[2])
        assert {one.flavor.name: one.available for one in provider.offers()} == {"atlas": 0, "barn": 1}
        note = self.folder / "homes/atlas/leases/slot-0" / leases.NOTE
        os.utime(note, (1, 1))  # nobody has asked for it since, and no agent runs there: its own file may take it
        assert provider.create(asked[2]).id == "atlas/slot-0/cccccccc"
        os.utime(note, (1, 1))
        with pytest.raises(CapacityUnavailable):
            provider.create(_of(self.request(provider, "dddddddd"), "another000", asked[0].offer))
        self.clear(provider)
        assert {one.flavor.name: one.available for one in provider.offers()} == {"atlas": 2, "barn": 1}

    def test_a_host_that_is_off_keeps_its_leases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        provider = self.make()
        made = provider.create(self.request(provider))

        def off(address: str, *_: Any) -> dict[str, Any]:
            raise HostUnreachable(f"{address} does not answer", host=address)

        with monkeypatch.context() as patch:
            patch.setattr(ssh, "ask", off)
            assert [(one.id, one.state) for one in provider.instances()] == [(made.id, "unknown")]
            assert {one.available for one in provider.offers()} == {0}
            assert [problem.severity for problem in provider.check()] == ["warning", "warning"]
            with pytest.raises(ProviderDown):
                provider.get("room", made.id)
            with pytest.raises(ProviderDown):
                provider.delete(made)
        self.clear(provider)

    def test_giving_a_lease_back_ends_what_runs_in_it(self) -> None:
        provider = self.make()
        made = provider.create(self.request(provider))
        assert made.reach is not None
        words = ["-c", "import time; time.sleep(600)", "agent", "--root", f"{made.reach.folder}/x"]
        agent = subprocess.Popen([sys.executable, *words])
        task = subprocess.Popen(["sleep", "600"], env={"OUTPUT": f"{made.reach.folder}/x/exec/1/output"})
        other = subprocess.Popen(["sleep", "600"], env={"PWD": made.reach.folder})

        provider.delete(made)

        assert (agent.wait(30), task.wait(30)) == (-9, -9)
        assert other.poll() is None
        other.kill()
        other.wait()
        self.clear(provider)


def _of(asked: Any, store: str, offer: Offer) -> Any:
    from dataclasses import replace

    return replace(asked, store=store, name=f"scitq-{store}-{asked.code}", offer=offer)


def _moved(asked: Any, region: str) -> Any:
    from dataclasses import replace

    return replace(asked, offer=replace(asked.offer, region=region))
