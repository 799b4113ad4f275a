"""Offers in order: which would do, what makes one better than another, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq import recruiting
from scitq.appraising import Left, boot_of, eviction_of, left_of
from scitq.errors import BadInput, BadProtofilter
from scitq.offers import Flavor, Gpu, Hold, Observed, Offer, Quota
from scitq.protofilter import Machine, machine_of, suits
from scitq.ranking import Known, Ranking, Volume, Wish, rank
from scitq.states import WorkerState
from scitq.task import Need
from scitq.worker import WorkerId, WorkerRow

GB = 10**9
NOW = 1_700_000_000_000
OF_FLAVOR = ("cpu", "ram", "provider", "gpu", "arch", "metal", "local_disk", "families")


def flavor(name: str = "c4", cpu: int = 4, ram: int = 16, provider: str = "fake", **more: Any) -> Flavor:
    return Flavor(provider, name, cpu, ram * GB, **more)


def offer(name: str = "c4", price: float | None = 0.2, region: str = "north", **more: Any) -> Offer:
    of_flavor = {key: more.pop(key) for key in OF_FLAVOR if key in more}
    return Offer(flavor(name, **of_flavor), region, price=price, **more)


def names(ranking: Ranking) -> list[str]:
    return [f"{one.offer.flavor.name}@{one.offer.region}" for one in ranking.ranked]


def reasons(offers: Sequence[Offer], wish: Wish, known: Known | None = None) -> list[str]:
    return [one.reason for one in rank(offers, wish, known or Known(), NOW).excluded]


# --- order ------------------------------------------------------------------------------------------------------------------------


def test_the_cheapest_for_a_slot_comes_first_and_what_has_no_known_price_last() -> None:
    offers = [offer("big", 0.5, cpu=16), offer("free", None), offer("small", 0.2, cpu=4), offer("tiny", 0.06, cpu=1)]

    assert names(rank(offers, Wish(), Known(), NOW)) == ["big@north", "small@north", "tiny@north", "free@north"]
    assert names(rank(offers, Wish(concurrency=1), Known(), NOW)) == [
        "tiny@north",
        "small@north",
        "big@north",
        "free@north",
    ]
    found = rank(offers, Wish(needs=(Need(cpus=4),)), Known(), NOW)
    assert [(one.offer.flavor.name, one.slots) for one in found.ranked] == [("big", 4), ("small", 1), ("free", 1)]


def test_a_preferred_region_goes_before_a_better_price() -> None:
    offers = [
        offer(region="SBG5", price=0.1),
        offer(region="GRA9", price=0.3),
        offer(region="east", price=0.2, provider="other"),
    ]

    found = rank(offers, Wish(), Known(preferred={"fake": ["GRA%"]}), NOW)

    assert names(found) == ["c4@east", "c4@GRA9", "c4@SBG5"]  # who has no preferences has no region that is worse
    assert "not in a preferred region" in found.ranked[-1].why
    both = rank(offers, Wish(provider="fake"), Known(preferred={"fake": ["GRA%", "SBG%"]}), NOW)
    assert names(both) == ["c4@GRA9", "c4@SBG5"] and "not in" not in both.ranked[1].why, "those named first are better"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"billed_s": 1}, {"billed_s": 3600}),
        ({}, {"eviction": 4.0}),
        ({"price": 0.2, "eviction": 4.0}, {"price": 0.25}),
        ({}, {"minimum_s": 7200}),
        ({"available": 5}, {"available": 2}), ({"available": 5}, {"available": None}), ({"score": 9.0}, {"score": 3.0}),
    ],
)  # fmt: skip
def test_what_else_makes_an_offer_better(better: dict[str, Any], worse: dict[str, Any]) -> None:
    one, other = offer("b", **better), offer("a", **worse)

    assert names(rank([other, one], Wish(), Known(), NOW)) == ["b@north", "a@north"]


def test_what_was_seen_of_boots_evictions_and_failures_counts() -> None:
    slow, fast = offer("a"), offer("b")
    for seen in (
        Observed(boots=3, boot_s=3600),
        Observed(machine_s=36_000, evictions=5),
        Observed(boots=1, boot_s=100, failures=9),
    ):
        assert names(rank([slow, fast], Wish(), Known(history={slow.key: seen}), NOW)) == ["b@north", "a@north"], seen

    assert boot_of(Observed()) == 120 and boot_of(Observed(boots=99, boot_s=99 * 20)) == pytest.approx(21)
    told = offer(eviction=5.0)
    assert eviction_of(told, Observed()) == 5.0
    assert eviction_of(told, Observed(machine_s=3600 * 1980)) < 0.1, "machines that stay are believed in the end"


def test_currencies_are_compared_by_configured_rates_or_not_at_all() -> None:
    offers = [
        offer("euro", 0.20, currency="EUR"),
        offer("dollar", 0.21, currency="USD"),
        offer("franc", 0.1, currency="CHF"),
    ]

    apart = rank(offers, Wish(), Known(), NOW)
    assert names(apart) == ["franc@north", "euro@north", "dollar@north"]
    assert "Prices in CHF and EUR and USD are not compared, those in CHF come first" in apart.notes[0]

    some = rank(offers, Wish(max_price=1), Known(currency="EUR", rates={"USD": 0.9}), NOW)
    assert names(some) == ["dollar@north", "euro@north", "franc@north"]
    assert [one.currency for one in some.ranked] == ["EUR", "EUR", "CHF"]
    assert "those in EUR come first" in some.notes[0] and "taken as one in each of CHF and EUR" in some.notes[1]

    assert rank(offers, Wish(), Known(currency="EUR", rates={"USD": 0.9, "CHF": 1.05}), NOW).notes == []
    assert reasons(offers[1:2], Wish(max_price=0.1), Known(currency="EUR", rates={"USD": 0.9})) == [
        "its price is 0.189 EUR an hour, more than 0.1"
    ]


def test_a_larger_disk_is_asked_for_where_the_provider_has_them_and_paid_for() -> None:
    offers = [offer("local", 0.2, local_disk=500 * GB), offer("plain", 0.2), offer("other", 0.2, provider="other")]
    known = Known(volumes={"fake": Volume(1000 * GB, 0.073)})

    found = rank(offers, Wish("auto:disk>=400"), known, NOW)

    assert names(found) == ["local@north", "plain@north"]
    plain = found.ranked[1].offer
    assert plain.root_disk == 400 * GB and plain.price == pytest.approx(0.2 + 400 * 0.0001)
    assert "with a disk of 400 GB" in found.ranked[1].why
    assert suits("auto:disk>=400", machine_of(plain)), "the worker that it becomes is what was asked for"
    assert [one.reason for one in found.excluded] == ["disk>=400 is not met: it has 0 GB"]
    assert names(rank(offers, Wish("auto:disk>=2T"), known, NOW)) == []
    assert names(rank(offers, Wish("auto:disk>=400:disk<=450"), known, NOW)) == ["plain@north"]
    assert names(rank(offers, Wish("auto:disk>=400"), Known(volumes={"fake": Volume(1000 * GB, 0)}), NOW)) == [
        "local@north",
        "plain@north",
    ]


# --- what would not do ------------------------------------------------------------------------------------------------------------

A100 = Gpu("A100", 2, 80 * GB)


@pytest.mark.parametrize(
    ("one", "wish", "known", "said"),
    [
        (offer(), Wish("auto:cpu>=8"), Known(), "cpu>=8 is not met: it has 4"),
        (offer(), Wish("auto:region~GRA%"), Known(), "region~GRA% is not met: it has north"),
        (offer(), Wish("auto:price<0.1"), Known(), "price<0.1 is not met: it has 0.2"),
        (offer(), Wish("auto:zone==north-1"), Known(), "zone==north-1 is not met: it has not known"),
        (offer(), Wish("c8"), Known(), "its flavor is c4, not c8"),
        (offer(), Wish(provider="ovh"), Known(), "its provider is fake, not ovh"),
        (offer(), Wish(region="GRA%"), Known(), "its region is north, not GRA%"),
        (offer(eviction=20.0), Wish(), Known(), "it is taken back too often (20 % an hour): say eviction<= and how much may be"),
        (offer(metal=True), Wish("auto"), Known(), "it is bare metal, which was not asked for: tags#M or tags~%"),
        (offer(gpu=A100), Wish("auto:cpu>=2"), Known(), "it has a GPU, which was not asked for: gpu>=1 or tags#G"),
        (offer(eviction=9.0), Wish("c%"), Known(), "it is taken back too often (9 % an hour): say eviction<= and how much may be"),
        (offer(arch="arm64"), Wish(), Known(), "its CPUs are arm64, which was not asked for: arch==arm64"),
        (offer(market="spot"), Wish(), Known(), "its market is spot, and ondemand is configured for fake"),
        (offer(), Wish(), Known(markets={"fake": "spot"}), "its market is ondemand, and spot is configured for fake"),
        (offer(), Wish(market="spot"), Known(), "its market is ondemand, and spot was asked for"),
        (offer(), Wish(max_price=0.1), Known(), "its price is 0.2 EUR an hour, more than 0.1"),
        (offer(price=None), Wish(max_price=0.1), Known(), "its price is not known, and there is a limit"),
        (offer(available=0), Wish(), Known(), "none is available now"),
        (offer(available=0, reason="out of stock"), Wish(), Known(), "out of stock"),
        (offer(), Wish(needs=(Need(cpus=8), Need(memory=64 * GB))), Known(),
         "no task fits on it: they ask for 64 GB or 8 CPUs, and it has 4 CPUs, 16 GB"),
        (offer(), Wish(needs=(Need(gpus=1),)), Known(), "no task fits on it: they ask for 1 GPU, and it has 4 CPUs, 16 GB"),
        (offer(), Wish(), Known(holds=(Hold("fake", "north", None, None, NOW + 720_000, "no stock"),)),
         "not tried for 12 min more: no stock"),
        (offer(), Wish(), Known(left={("fake", "north", "cores"): Left("vcpu", 3)}), "quota of cores in north: 3 left, 4 needed"),
        (offer(), Wish(), Known(left={("fake", "north", "ram"): Left("bytes", 8e9)}), "quota of ram in north: 8.0 GB left, 16 GB needed"),
        (offer(families={"ondemand": ("dv5",)}), Wish(), Known(left={("fake", "north", "dv5"): Left("instances", -1)}),
         "quota of dv5 in north: 0 left, 1 needed"),
    ],
)  # fmt: skip
def test_each_exclusion_says_why(one: Offer, wish: Wish, known: Known, said: str) -> None:
    assert reasons([one], wish, known) == [said]


@pytest.mark.parametrize(
    ("one", "wish", "known"),
    [
        (offer(gpu=A100), Wish("auto:gpu>=1"), Known()), (offer(gpu=A100), Wish("auto:tags#G"), Known()),
        (offer(gpu=A100), Wish("auto:gpumem>=40"), Known()), (offer(gpu=A100), Wish(needs=(Need(gpus=1),)), Known()),
        (offer(gpu=A100, metal=True), Wish("auto:tags~%"), Known()), (offer(metal=True), Wish("auto:tags#M"), Known()),
        (offer(eviction=20.0), Wish("auto:eviction>=0"), Known()), (offer(eviction=20.0), Wish(max_eviction=100), Known()),
        (offer(arch="arm64"), Wish("auto:arch~%"), Known()), (offer(market="spot"), Wish("auto:market==spot"), Known()),
        (offer(market="spot"), Wish(market="any"), Known()), (offer(market="spot"), Wish(), Known(markets={"fake": "any"})),
        (offer(market="spot"), Wish(market="spot"), Known()), (offer(zones=("n1", "n2")), Wish("auto:zone==n2"), Known()),
        (offer(gpu=A100, metal=True, arch="arm64", eviction=50.0), Wish("c4"), Known()),  # who names it wants it
        (offer(gpu=A100, metal=True), Wish("c%", "f%", "%th"), Known()), (offer(), Wish("auto", "auto", "auto"), Known()),
        (offer(ram=125), Wish("auto:ram>=128"), Known()),
        (offer(), Wish(), Known(holds=(Hold("fake", None, None, None, NOW, "over"), Hold("fake", "south", None, None, NOW + 9, "no")))),
        (offer(), Wish(), Known(left={("fake", "south", "cores"): Left("vcpu", 0), ("fake", "north", "cores"): Left("vcpu", 4)})),
        (offer(families={"spot": ("cores",)}), Wish(), Known(left={("fake", "north", "cores"): Left("vcpu", 0)})),
    ],
)  # fmt: skip
def test_what_would_do(one: Offer, wish: Wish, known: Known) -> None:
    assert reasons([one], wish, known) == []


def test_a_wish_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadProtofilter) as caught:
        rank([], Wish("auto:cpu=3"), Known(), NOW)
    assert caught.value.parts["column"] == 9
    with pytest.raises(BadInput, match="spot"):
        rank([], Wish(market="cheap"), Known(), NOW)


# --- quotas -----------------------------------------------------------------------------------------------------------------------


def test_what_is_left_of_a_quota_counts_others_and_what_was_rented_since() -> None:
    def left(used: float | None, *since: int | None) -> float:
        quota = Quota("fake", "north", "cores", "vcpu", 20, used, fetched_ms=NOW)
        return left_of([quota], [(offer(), one) for one in since])["fake", "north", "cores"].amount

    assert left(6) == 14
    assert left(6, NOW - 1, NOW - 1) == 14, "they are among those that the provider counted"
    assert left(6, NOW, None) == 6
    assert left(None, NOW - 1, None) == 12, "a provider that does not count leaves it to us"
    assert left_of([Quota("fake", "north", "cores", "vcpu", None, 3)]) == {}


def test_the_most_machines_of_a_provider_are_those_of_all_regions_together() -> None:
    limited: dict[str, Any] = {"families": {"ondemand": ("cores", "max_machines")}}
    told = [Quota("fake", region, "max_machines", "instances", 3, 1, fetched_ms=NOW) for region in ("north", "south")]

    left = left_of(told, [(offer(region="south", **limited), NOW)])

    assert left == {("fake", "", "max_machines"): Left("instances", 1)}
    assert rank([offer(**limited)], Wish(), Known(left=left), NOW).ranked[0].available == 1


def test_how_many_can_be_had_is_the_least_of_stock_and_quotas() -> None:
    left = {("fake", "north", "cores"): Left("vcpu", 14), ("fake", "", "max_machines"): Left("instances", 0)}
    limited: dict[str, Any] = {"families": {"ondemand": ("max_machines",)}}

    def had(one: Offer, left: dict[tuple[str, str, str], Left]) -> int | None:
        return rank([one], Wish(), Known(left=left), NOW).ranked[0].available

    assert had(offer(), {}) is None and had(offer(available=5), {}) == 5
    assert had(offer(available=5), left) == 3
    assert reasons([offer(**limited)], Wish(), Known(left=left)) == ["max_machines of fake is reached"]
    left["fake", "", "max_machines"] = Left("instances", 2)
    assert had(offer(**limited), left) == 2


# --- always -----------------------------------------------------------------------------------------------------------------------

_flavors = st.builds(
    Flavor, st.sampled_from(["fake", "ovh"]), st.sampled_from(["a", "b", "c"]), st.integers(1, 64),
    st.integers(1, 512).map(lambda n: n * GB),
    st.sampled_from([0, 50 * GB]), st.sampled_from([0, 400 * GB]), local_kind=st.sampled_from(["none", "nvme"]),
    gpu=st.sampled_from([None, A100]), arch=st.sampled_from(["x86_64", "arm64"]), metal=st.booleans(),
)  # fmt: skip
_offers = st.builds(
    Offer, _flavors, st.sampled_from(["GRA9", "GRA11", "west"]), st.sampled_from(["ondemand", "spot"]), st.sampled_from([(), ("1", "2")]),
    st.sampled_from([None, 0.0, 0.1, 0.1, 2.0]), st.sampled_from(["EUR", "USD"]), st.sampled_from([1, 3600]),
    eviction=st.sampled_from([0.0, 5.0, 20.0]), available=st.sampled_from([None, 0, 1, 7]),
)  # fmt: skip
_pieces = st.sampled_from([
    "cpu>=8", "cpu<32", "ram>=64", "ram<64GiB", "disk>=100", "disk>=300:disk<800", "gpu>=1", "gpu==A100",
    "gpumem>=40", "tags#N", "tags!#M", "tags~%",
    "region~GRA%", "region!=west", "provider==ovh", "name~a%", "market==spot", "price<=0.1", "eviction<=20", "arch==arm64", "zone==1",
])  # fmt: skip
_wishes = st.lists(_pieces, max_size=3).map(lambda pieces: ":".join(["auto", *pieces]))
_known = st.builds(
    Known, left=st.sampled_from([{}, {("ovh", "GRA9", "cores"): Left("vcpu", 16)}]), markets=st.sampled_from([{}, {"ovh": "any"}]),
    preferred=st.sampled_from([{}, {"ovh": ["GRA%"]}]), volumes=st.sampled_from([{}, {"fake": Volume(500 * GB, 0.1)}]),
    currency=st.sampled_from([None, "EUR"]), rates=st.sampled_from([{}, {"USD": 0.5}]),
)  # fmt: skip


@given(
    st.lists(_offers, max_size=12, unique_by=lambda one: one.key), _wishes, _known, st.randoms(use_true_random=False)
)
def test_the_order_is_total_and_does_not_depend_on_that_of_the_offers(
    offers: list[Offer], flavor: str, known: Known, random: Any
) -> None:
    found = rank(offers, Wish(flavor), known, NOW)
    shuffled = list(offers)
    random.shuffle(shuffled)

    assert rank(shuffled, Wish(flavor), known, NOW).ranked == found.ranked
    all_of = sorted([one.offer.key for one in found.ranked] + [one.offer.key for one in found.excluded])
    assert all_of == sorted(one.key for one in offers), "each is either ranked or excluded"
    assert all(one.reason for one in found.excluded) and all(one.why for one in found.ranked)


@given(_offers, _wishes)
def test_a_filter_means_the_same_of_an_offer_and_of_the_worker_that_it_became(one: Offer, flavor: str) -> None:
    known = Known(volumes={"fake": Volume(500 * GB, 0.1)})
    bare = replace(one, available=None)
    found = rank([bare], Wish(flavor, market="any"), known, NOW)
    bought = found.ranked[0].offer if found.ranked else bare
    row = worker(bought)

    assert Offer.of(row.settings["offer"]) == bought
    its_own = suits(flavor, recruiting.machine(row))
    if found.ranked:
        assert its_own, "what was rented for a flavor is taken over for it"
    elif its_own:
        assert "not asked for" in found.excluded[0].reason or "taken back" in found.excluded[0].reason


def worker(one: Offer) -> WorkerRow:
    settings = {"offer": one.plain(), "flavor": one.flavor.name, "provider": one.flavor.provider, "region": one.region}
    return WorkerRow(
        WorkerId(3), "node1", "rented", WorkerState.READY, None, 4, None, {}, None, None, 0, NOW, None, settings=settings
    )  # fmt: skip


def test_many_offers_are_ranked_without_looking_at_each_flavor_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def counted(one: Offer) -> Machine:
        looked.append(one.flavor.name)
        return machine_of(one)

    monkeypatch.setattr("scitq.ranking.machine_of", counted)
    kinds = [flavor(f"c{n}", cpu=n) for n in range(1, 11)]
    offers = [Offer(kind, f"r{n}", price=0.1 * kind.cpu) for kind in kinds for n in range(40)]

    found = rank(offers, Wish("auto:cpu>=4:region~r%:price<0.8"), Known(), NOW)

    assert len(found.ranked) == 4 * 40 and len(found.excluded) == 6 * 40
    assert len(looked) <= 10 + 40 + 2 * 10
