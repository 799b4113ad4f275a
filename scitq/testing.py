"""What every provider has to do, as tests: for those that come with scitq, and for plug-ins.

A test module subclasses `ProviderContract` and says how its provider is made, against a fake of its cloud:

    class TestMyCloud(ProviderContract):
        @pytest.fixture(autouse=True)
        def cloud(self, tmp_path):
            self.server = FakeServer(tmp_path)
            yield
            self.server.close()

        def make(self):
            return factory("dream", {"kind": "mycloud", "url": self.server.url}, Context(folder, {}))

Nothing of this imports pytest. `make` is called several times in a test: each is another process's view of the same cloud. Where
a cloud takes its time, `settle` lets it pass (a fake's clock is moved; nobody sleeps).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from scitq.errors import BadRequest, MachineNameTaken, ProviderError
from scitq.offers import MARKETS, Offer
from scitq.remote.providers.base import PREFIX, Capabilities, CreateRequest, Instance, Provider

STORE, OTHER_STORE = "k3v9q2mxab", "zz7b4c2d1e"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_OVER = ("gone", "deleting", "evicted")
_PATIENCE = 50


class ProviderContract:
    """Tests of one provider. Override `make`, and what else is needed."""

    store = STORE

    def make(self) -> Provider:
        """The provider, new to everything that was done with it before, over the same cloud."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let some time of the cloud pass."""

    def faults(self) -> Mapping[type[ProviderError], Callable[[], None]]:
        """By error: what makes the next `create` end with it, at the cloud."""
        return {}

    def lose_answer(self) -> bool:
        """Let the answer of the next create be lost, after it was done; False: the fake cannot."""
        return False

    def choose(self, offers: list[Offer]) -> Offer:
        """What is rented here: the cheapest that can be had, unless this is overridden."""
        able = [one for one in offers if one.available != 0]
        assert able, "the cloud of the test sells nothing"
        return min(able, key=lambda one: (one.price is None, one.price or 0.0, one.key))

    # --- what the tests are made of ---------------------------------------------------------------------------------------

    def request(self, provider: Provider, code: str | None = None, **more: Any) -> CreateRequest:
        """What an engine would ask for."""
        offer = self.choose(provider.offers())
        image = provider.image(offer.region, offer.flavor)
        code = code or "".join(secrets.choice(_LETTERS) for _ in range(8))
        asked = CreateRequest(
            code, f"{PREFIX}{self.store}-{code}", self.store, "contract", offer, image, image.user or "root",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDRiMXRlc3Rrb250cmFrdGtvbnRyYWt0a29udHJha3Rr contract", "#cloud-config\n{}\n",
        )  # fmt: skip
        return replace(asked, **more)

    def running(self, provider: Provider, one: Instance) -> Instance:
        """A machine once it runs."""
        for _ in range(_PATIENCE):
            found = provider.get(one.region, one.id)
            assert found is not None, f"{one} is gone before it ran"
            assert found.state in ("creating", "running"), found
            if found.state == "running":
                return found
            self.settle()
        raise AssertionError(f"{one} does not run")

    def clear(self, provider: Provider) -> None:
        """Everything of ours is gone, machines and leftovers."""
        for _ in range(_PATIENCE):
            there = [one for one in provider.instances() if one.store in (self.store, OTHER_STORE)]
            left = [*provider.sweep(self.store, set()), *provider.sweep(OTHER_STORE, set())]
            if not there and not left:
                return
            for one in there:
                with suppress(ProviderError):
                    provider.delete(one)
            for item in left:
                with suppress(ProviderError):
                    provider.delete_leftover(item)
            self.settle()
        raise AssertionError(f"left: {provider.instances()}")

    # --- what it is -------------------------------------------------------------------------------------------------------

    def test_it_is_a_provider(self) -> None:
        """All methods are there, and its capabilities are said."""
        provider = self.make()
        assert isinstance(provider, Provider)
        assert provider.name and provider.kind and isinstance(provider.caps, Capabilities)
        assert not [one for one in provider.check() if one.severity == "error"]
        provider.close()
        provider.close()

    def test_what_is_sold_is_told_whole(self) -> None:
        """Offers name regions that there are, each once, in the units of scitq.offers."""
        provider = self.make()
        regions, offers = provider.regions(), provider.offers()
        assert offers and len({one.key for one in offers}) == len(offers)
        for one in offers:
            assert one.flavor.provider == provider.name and one.region in regions and one.market in MARKETS
            assert one.flavor.cpu >= 1 and one.flavor.ram >= 1 << 28, f"{one}: memory is in bytes"
            assert one.price is None or one.price >= 0
            assert one.eviction >= 0 and one.billed_s >= 1 and one.minimum_s >= 0
            assert one.market == "ondemand" or provider.caps.spot
            assert one.available is None or one.available >= 0
        some = provider.offers([regions[0]])
        assert {one.region for one in some} <= {regions[0]}
        assert {one.key for one in some} == {one.key for one in offers if one.region == regions[0]}
        provider.close()

    def test_quotas_are_those_that_flavors_draw_on(self) -> None:
        """Each limit is told once a region; what machines use of it can be found by its family."""
        provider = self.make()
        families = {name for one in provider.offers() for names in one.flavor.families.values() for name in names}
        for region in provider.regions():
            told = provider.quotas(region)
            assert len({one.family for one in told}) == len(told)
            assert {one.family for one in told} <= families or not provider.caps.quotas
            assert all((one.provider, one.region) == (provider.name, region) for one in told)
        provider.close()

    # --- renting ----------------------------------------------------------------------------------------------------------

    def test_a_machine_comes_runs_and_goes(self) -> None:
        """And every way of looking says the same of it."""
        provider = self.make()
        asked = self.request(provider)
        made = provider.create(asked)
        assert (made.name, made.code, made.store) == (asked.name, asked.code, asked.store)
        assert (made.provider, made.region) == (provider.name, asked.offer.region)
        runs = self.running(provider, made)
        assert runs.reach is not None
        assert runs.reach.host if runs.reach.how == "ssh" else runs.reach.folder
        assert [one.id for one in provider.find(asked.offer.region, asked.name)] == [made.id]
        assert [one.id for one in provider.instances([asked.offer.region]) if one.name == asked.name] == [made.id]
        assert [one.id for one in provider.instances() if one.name == asked.name] == [made.id]
        provider.delete(runs)
        self.clear(provider)
        assert provider.get(asked.offer.region, made.id) is None
        assert provider.find(asked.offer.region, asked.name) == []
        provider.close()

    def test_the_same_name_is_the_same_machine(self) -> None:
        """However often, and by whom, it is asked for."""
        provider, other = self.make(), self.make()
        asked = self.request(provider)
        first = provider.create(asked)
        for again in (provider, other):
            with suppress(MachineNameTaken):  # to be adopted, then
                assert again.create(asked).id == first.id
        assert [one.id for one in other.find(asked.offer.region, asked.name)] == [first.id]
        self.clear(other)
        provider.close()
        other.close()

    def test_after_a_crash_it_is_found_by_its_name(self) -> None:
        """A process that knows nothing but the request: before the call, after it, and when the answer was lost."""
        provider = self.make()
        asked = self.request(provider)
        assert provider.find(asked.offer.region, asked.name) == []
        if self.lose_answer():
            try:
                provider.create(asked)
            except ProviderError as problem:
                assert problem.go_on in ("after-lookup", "same-offer")
        else:
            provider.create(asked)
        provider.close()
        later = self.make()
        for _ in range(_PATIENCE):
            if found := later.find(asked.offer.region, asked.name):
                break
            self.settle()
        assert len(found) == 1 and found[0].code == asked.code and found[0].store == asked.store
        adopted = later.get(found[0].region, found[0].id)
        assert adopted is not None and adopted.name == asked.name
        later.delete(found[0])
        later.close()
        last = self.make()
        self.clear(last)
        last.close()

    def test_each_step_may_be_done_by_another_process(self) -> None:
        """Whoever did the one before is gone: nothing of a machine's life is in anybody's memory."""

        last = self.make()

        def anew() -> Provider:
            nonlocal last
            last.close()
            last = self.make()
            return last

        asked = self.request(last)
        made = anew().create(asked)
        runs = self.running(anew(), made)
        assert [one.id for one in anew().find(made.region, made.name)] == [made.id]
        anew().delete(runs)
        anew().delete(runs)
        self.clear(anew())
        assert anew().get(made.region, made.id) is None
        last.close()

    def test_deleting_twice_does_no_harm(self) -> None:
        """Neither while it goes, nor when it is gone, nor of what never was."""
        provider = self.make()
        made = provider.create(self.request(provider))
        provider.delete(made)
        provider.delete(made)
        self.clear(provider)
        provider.delete(made)
        provider.delete(replace(made, id=_unlike(made.id)))
        assert provider.get(made.region, made.id) is None
        provider.close()

    def test_machines_of_other_files_are_shown_and_told_apart(self) -> None:
        """By their store, which is in name or tags; their leftovers are not ours."""
        provider = self.make()
        asked = self.request(provider)
        other = replace(asked, name=f"{PREFIX}{OTHER_STORE}-{asked.code}", store=OTHER_STORE)
        provider.create(other)
        found = {one.name: one.store for one in provider.instances()}
        assert found[other.name] == OTHER_STORE
        assert provider.find(asked.offer.region, asked.name) == []
        assert not [one for one in provider.sweep(self.store, set()) if one.code == asked.code]
        self.clear(provider)
        provider.close()

    def test_nothing_is_left_of_what_is_to_be_kept(self) -> None:
        """What belongs to a machine that lives is no leftover."""
        provider = self.make()
        asked = self.request(provider)
        made = provider.create(asked)
        assert [one for one in provider.sweep(self.store, {asked.code}) if one.code == asked.code] == []
        provider.delete(made)
        self.clear(provider)
        provider.close()

    # --- refusals ---------------------------------------------------------------------------------------------------------

    def test_each_refusal_has_its_error(self) -> None:
        """With the provider's name, a sentence, and nothing made."""
        for error, cause in self.faults().items():
            provider = self.make()
            asked = self.request(provider)
            cause()
            try:
                provider.create(asked)
            except ProviderError as problem:
                assert type(problem) is error, f"{problem!r} instead of {error.__name__}"
                assert problem.provider == provider.name and len(str(problem)) > 10
            else:
                raise AssertionError(f"no {error.__name__}")
            if error.go_on != "after-lookup":
                assert provider.find(asked.offer.region, asked.name) == []
            self.clear(provider)
            provider.close()

    def test_what_is_not_sold_is_refused(self) -> None:
        """A flavor of another world makes no machine."""
        provider = self.make()
        asked = self.request(provider)
        strange = replace(asked.offer, flavor=replace(asked.offer.flavor, name="no-such-flavor"))
        try:
            provider.create(replace(asked, offer=strange))
        except ProviderError as problem:
            assert problem.go_on != "same-offer" or isinstance(problem, BadRequest)
        else:
            raise AssertionError("it was made")
        assert provider.find(asked.offer.region, asked.name) == []
        provider.close()


def _unlike(id: str) -> str:
    """An id of the same shape, of nothing."""
    return "".join(chr((ord(one) - 48 + 5) % 10 + 48) if one.isdigit() and one.isascii() else one for one in id)
