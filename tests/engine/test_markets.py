"""What providers sell, as engines tell it: asked when it is too old, kept when it cannot be asked, and never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scitq.catalogue import OFFERS, QUOTAS, Catalogue, checked, is_fresh, rates_of, wait_ms
from scitq.engine import Engine
from scitq.errors import BadInput, BadProtofilter, ProviderDown, ProviderLogin, RateLimited, StateFileFull
from scitq.offers import Flavor, Offer, Quota
from scitq.store import catalogue
from scitq.store.catalogue import Read
from scitq.task import Need

C4 = Flavor("shop", "c4", 4, 16 * 10**9)
C8 = Flavor("shop", "c8", 8, 32 * 10**9)
SOLD = [
    Offer(C4, "north", price=0.2),
    Offer(C8, "north", price=0.3),
    Offer(C8, "south", "spot", price=0.1, eviction=3.0),
]
ENOUGH_S = 30.0


class Shop:
    """A provider that sells what it is told to, and counts who asks."""

    name, kind = "shop", "shop"

    class caps:
        quotas = True

    def __init__(self) -> None:
        self.sold: Sequence[Any] = SOLD
        self.limit = 100.0
        self.fault: Exception | None = None
        self.asked: list[Any] = []
        self.open = threading.Event()
        self.open.set()

    def offers(self, regions: Any = None) -> Sequence[Any]:
        self.asked.append(regions)
        assert self.open.wait(ENOUGH_S)
        if self.fault is not None:
            raise self.fault
        return [one for one in self.sold if regions is None or one.region in regions]

    def quotas(self, region: str) -> list[Quota]:
        return [Quota("shop", region, "cores", "vcpu", self.limit, 0.0)]

    def close(self) -> None:
        pass


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def settings() -> dict[str, dict[str, Any]]:
    return {"shop": {"kind": "shop"}}


@pytest.fixture
def lab(tmp_path: Path, shop: Shop, settings: dict[str, dict[str, Any]]) -> Iterator[Engine]:
    with Engine(tmp_path / "lab.scitq", drive=False) as engine:
        engine._market = Catalogue(engine._store, lambda: settings, lambda name, settings: shop)  # type: ignore[arg-type, return-value]
        yield engine


def sold(engine: Engine, *asked: Any, **more: Any) -> list[str]:
    return [f"{one.offer.flavor.name}@{one.offer.region}" for one in engine.flavors(*asked, **more)]


def test_what_was_read_is_ranked_and_each_exclusion_has_its_reason(lab: Engine) -> None:
    assert sold(lab) == [], "nothing was read yet"

    [offers, *quotas] = lab.flavor_refresh()

    assert (offers.provider, offers.what, offers.problem) == ("shop", OFFERS, None)
    assert [(one.what, one.region) for one in quotas] == [(QUOTAS, "north"), (QUOTAS, "south")]
    assert sold(lab) == ["c8@north", "c4@north"]
    assert sold(lab, "cpu>=8", market="any") == ["c8@south", "c8@north"]
    assert sold(lab, "c%") == ["c8@north", "c4@north"]
    assert sold(lab, needs=[Need(memory=20 * 10**9)]) == ["c8@north"]
    found = lab.flavors("auto:cpu>=8")
    assert [one.reason for one in found.excluded] == [  # what nearly would do first
        "its market is spot, and ondemand is configured for shop", "cpu>=8 is not met: it has 4",
    ]  # fmt: skip


@pytest.mark.parametrize(("asked", "column"), [("cpu=3", 4), ("auto:cpu=3", 9), ("cpu>=1:ram>=x", 13)])
def test_errors_point_at_the_column_of_what_was_written(lab: Engine, asked: str, column: int) -> None:
    with pytest.raises(BadProtofilter) as caught:
        lab.flavors(asked)
    assert (caught.value.parts["text"], caught.value.parts["column"]) == (asked, column)


def test_settings_of_a_provider_are_heard(lab: Engine, shop: Shop, settings: dict[str, dict[str, Any]]) -> None:
    shop.sold = [*SOLD, Offer(C4, "east", price=0.5)]
    lab.flavor_refresh()

    settings["shop"] |= {"market": "spot"}
    assert sold(lab) == ["c8@south"]
    settings["shop"] |= {"market": "ondemand", "preferred_regions": ["ea%"]}
    assert sold(lab) == ["c4@east", "c8@north", "c4@north"]
    settings["shop"] |= {"largest_disk": 10**12, "disk_price": 0.1}
    assert [one.offer.root_disk for one in lab.flavors("disk>=100")] == [100 * 10**9] * 3
    shop.limit = 4
    lab.flavor_refresh()
    assert lab.flavors("c8").excluded[0].reason == "quota of cores in north: 4 left, 8 needed"
    assert [one.available for one in lab.flavors("c4")] == [1, 1]


def test_a_provider_that_fails_keeps_what_was_read_with_its_age_and_the_problem(lab: Engine, shop: Shop) -> None:
    lab.flavor_refresh()
    before = lab.flavor_reads()[0].fetched_ms
    shop.fault = ProviderDown("shop: no connection.")

    [read] = lab.flavor_refresh()

    assert (read.problem, read.fetched_ms, read.failures) == ("shop: no connection.", before, 1)
    assert sold(lab) == ["c8@north", "c4@north"]
    shop.fault = ValueError("evil \x1b[2J" + "x" * 1000)
    [read] = lab.flavor_refresh()
    assert read.failures == 2 and read.problem is not None
    assert read.problem.startswith("ValueError: evil ") and "\x1b" not in read.problem and len(read.problem) <= 500
    shop.fault = None
    assert lab.flavor_refresh()[0].failures == 0


def test_who_does_not_answer_in_time_is_not_waited_for(lab: Engine, shop: Shop) -> None:
    lab.flavor_refresh()
    shop.open.clear()

    [read] = lab.flavor_refresh(timeout=0.05)

    assert read.problem == "no answer within 0.05 s" and read.fetched_ms is not None
    assert sold(lab) == ["c8@north", "c4@north"]
    shop.sold = SOLD[:1]
    shop.open.set()
    until(lambda: sold(lab) == ["c4@north"])


def test_what_cannot_be_written_down_is_an_error_of_who_asked(
    lab: Engine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(db: object, *_: object) -> None:
        raise StateFileFull("no space is left.")

    monkeypatch.setattr(catalogue, "put_offers", full)
    with pytest.raises(StateFileFull):
        lab.flavor_refresh()
    assert not lab.catalogue.want(Read("shop", OFFERS), 1, 120)
    until(lambda: not lab.catalogue._busy)  # nobody waits for that one: it is in the log


def test_only_what_is_too_old_is_asked_for_again(lab: Engine, shop: Shop) -> None:
    lab.flavor_refresh(only_old=True)
    lab.flavor_refresh(only_old=True)
    assert len(shop.asked) == 1
    lab.flavor_refresh("shop")
    assert len(shop.asked) == 2
    with pytest.raises(BadInput, match="there is no provider 'stall' in the settings"):
        lab.flavor_refresh("stall")


def test_who_is_not_configured_any_more_sells_nothing(lab: Engine, settings: dict[str, dict[str, Any]]) -> None:
    lab.flavor_refresh()
    kept = dict(settings)
    settings.clear()
    assert sold(lab, market="any") == []
    assert {one.reason for one in lab.flavors().excluded} == {"shop is not in your settings (any more)"}
    settings |= kept
    assert sold(lab) == ["c8@north", "c4@north"], "another process may have other settings: nothing was thrown away"
    settings.clear()
    assert lab.flavor_refresh() == [] and not lab.flavors().excluded


def test_what_is_too_old_is_asked_for_in_the_background_once_and_nobody_waits(lab: Engine, shop: Shop) -> None:
    reader, now = lab.catalogue, time.time_ns() // 1_000_000
    shop.open.clear()

    for _ in range(3):
        assert not reader.want(Read("shop", OFFERS), now, 120)
    until(lambda: len(shop.asked) == 1)
    heard = lab._changes.count
    shop.open.set()
    until(lambda: bool(sold(lab)))

    assert shop.asked == [None] and lab._changes.count > heard, "whoever watches the file hears of it"
    assert reader.want(catalogue.read(lab._reader(), "shop", OFFERS), now, 120)
    assert reader.want(catalogue.read(lab._reader(), "shop", OFFERS), now + 100_000, 120)
    assert not reader.want(Read("shop", OFFERS, "south"), now, 120)
    until(lambda: shop.asked == [None, ["south"]])


def test_after_close_nothing_is_begun(lab: Engine, shop: Shop) -> None:
    lab.catalogue.close()
    assert not lab.catalogue.want(Read("shop", OFFERS), 1, 120)
    assert shop.asked == []


# --- rules ------------------------------------------------------------------------------------------------------------------------


def test_what_is_young_enough_or_was_just_asked_in_vain_does() -> None:
    read = Read("shop", OFFERS, fetched_ms=1_000_000)
    assert is_fresh(read, 1_119_000, 120) and not is_fresh(read, 1_121_000, 120)
    assert not is_fresh(read, 800_000, 120), "the clock was set back"
    assert is_fresh(read, 999_000, 120), "somebody else has read it meanwhile"
    assert not is_fresh(Read("shop", OFFERS), 5, 120)
    assert is_fresh(Read("shop", OFFERS, again_ms=10), 5, 120)


def test_it_is_asked_again_later_and_later() -> None:
    assert [wait_ms(ProviderDown("x"), n) for n in (0, 1, 2, 9)] == [15_000, 30_000, 60_000, 600_000]
    assert wait_ms(RateLimited("x", retry_after_s=7.0), 3) == 7_000
    assert wait_ms(ProviderLogin("x"), 0) == 300_000


def test_offers_that_make_no_sense_are_left_out_and_told_of() -> None:
    good = SOLD[0]
    wrong: list[dict[str, Any]] = [
        {"region": ""}, {"region": "a b"}, {"price": -1.0}, {"price": float("nan")}, {"market": "cheap"}, {"currency": "€uro!"},
        {"available": "many"}, {"flavor": replace(C4, provider="other")}, {"flavor": replace(C4, name="a\x1b")},
        {"flavor": Flavor("shop", "c4", None, 1)},  # type: ignore[arg-type]
    ]  # fmt: skip
    bad: list[Any] = [None, *(replace(good, **one) for one in wrong)]
    found, problem = checked("shop", [*bad, good])

    assert found == [good]
    assert problem is not None and problem.startswith(
        f"{len(bad)} of {len(bad) + 1} offers make no sense and are left out, such as None"
    )
    assert checked("shop", [good]) == ([good], None)


def test_rates_are_numbers_above_nothing() -> None:
    assert rates_of(["USD=0.9", " chf = 1.05", "GBP", "X=a", "Y=-1", "Z=inf"]) == {"USD": 0.9, "CHF": 1.05}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENOUGH_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
