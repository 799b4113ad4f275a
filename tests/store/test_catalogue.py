"""Rows of what providers sell: what is read is what was told, unchanged rows are not written again, holds and quotas end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scitq.offers import Flavor, Gpu, Hold, Observed, Offer, Quota
from scitq.store import catalogue, query
from scitq.store.catalogue import Read
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA

C4 = Flavor("fake", "c4", 4, 16 * 10**9, families={"spot": ("low",), "ondemand": ("cores", "dv5")})
G1 = Flavor("fake", "g1", 8, 64 * 10**9, 0, 400 * 10**9, 2, "nvme", Gpu("A100", 1 / 6, 80 * 10**9), "arm64", True, 25.0)
OFFERS = [
    Offer(C4, "north", price=0.2, billed_s=3600, minimum_s=60), Offer(C4, "south", "spot", ("1", "2"), 0.05, "USD", eviction=5.0),
    Offer(G1, "north", price=None, eviction_known=False, available=0, reason="out of stock", score=3.0),
]  # fmt: skip


@pytest.fixture
def store(state_file: Path) -> Iterator[Store]:
    with Store.open(state_file, SCHEMA) as store:
        yield store


def put(store: Store, *offers: Offer, now: int = 1, regions: list[str] | None = None) -> None:
    store.write(lambda db: catalogue.put_offers(db, now, "fake", offers, regions))


def keys(store: Store) -> list[str]:
    return [f"{one.flavor.name}@{one.region}" for one in catalogue.offers(store.reader())]


def test_offers_are_read_as_they_were_told(store: Store) -> None:
    put(store, *OFFERS, now=7)

    found = catalogue.offers(store.reader())

    assert sorted(found, key=str) == sorted((Offer(**{**vars(one), "fetched_ms": 7}) for one in OFFERS), key=str)
    assert len({id(one.flavor) for one in found}) == 2, "a flavor is one object, however many regions sell it"
    assert catalogue.offer(store.reader(), OFFERS[1].key) is not None
    assert catalogue.offer(store.reader(), ("fake", "east", "c4", "spot")) is None
    assert [one.flavor.name for one in catalogue.offers(store.reader(), "fake", "g1")] == ["g1"]


def test_what_is_not_sold_any_more_goes_and_what_stays_is_not_written_again(store: Store) -> None:
    put(store, *OFFERS, now=1)
    put(store, OFFERS[0], Offer(C4, "south", "spot", price=0.06), now=2)

    assert keys(store) == ["c4@north", "c4@south"]
    assert [one.fetched_ms for one in catalogue.offers(store.reader())] == [1, 2]
    assert query.rows(store.reader(), "select name from flavor") == [("c4",)]

    put(store, now=3, regions=["south"])
    assert keys(store) == ["c4@north"], "of one region only those are told"


def test_quotas_that_are_learned_count_until_the_provider_tells_them(store: Store) -> None:
    def told() -> list[tuple[str, float | None]]:
        return [(one.family, one.limit) for one in catalogue.quotas(store.reader())]

    store.write(lambda db: catalogue.learn_quota(db, 1, "fake", "north", "cores", 20))
    store.write(
        lambda db: catalogue.put_quotas(db, 1, "fake", "north", [Quota("fake", "north", "ram", "bytes", 1e12, None)])
    )
    assert told() == [("cores", 20), ("ram", 1e12)]
    store.write(
        lambda db: catalogue.put_quotas(db, 2, "fake", "north", [Quota("fake", "north", "cores", "vcpu", 40, 3)])
    )
    assert told() == [("cores", 40)]
    assert catalogue.quotas(store.reader(), "other") == []


def test_holds_last_as_long_as_the_longest_reason(store: Store) -> None:
    long, short = (
        Hold("fake", "north", None, None, 500, "no stock", "X"),
        Hold("fake", "north", None, None, 300, "slow"),
    )
    for hold in (long, short, Hold("fake", "north", "c4", "spot", 200, "gone")):
        store.write(lambda db, hold=hold: catalogue.put_hold(db, hold))  # type: ignore[misc]

    assert len(catalogue.holds(store.reader(), 100)) == 2
    assert catalogue.holds(store.reader(), 400) == [long]
    store.write(lambda db: catalogue.drop_holds(db, 400))
    assert len(query.rows(store.reader(), "select * from hold")) == 1
    store.write(lambda db: catalogue.drop_holds(db, 0, "fake"))
    assert catalogue.holds(store.reader(), 0) == []


def test_a_failure_keeps_what_was_read_with_its_age(store: Store) -> None:
    def fail(now: int) -> None:
        store.write(lambda db: catalogue.note_failure(db, now, "fake", "offers", "", "no network", now + 50))

    assert catalogue.read(store.reader(), "fake", "offers") == Read("fake", "offers")
    fail(10)
    assert catalogue.read(store.reader(), "fake", "offers").fetched_ms is None
    store.write(lambda db: catalogue.note_read(db, 100, "fake", "offers"))
    fail(200)
    fail(300)
    assert catalogue.reads(store.reader()) == [Read("fake", "offers", "", 100, 300, 350, 2, "no network")]


def test_every_change_is_told_by_the_version(store: Store) -> None:
    before = catalogue.version(store.reader())
    put(store, *OFFERS)
    store.write(lambda db: catalogue.put_hold(db, Hold("fake", None, None, None, 5, "x")))
    store.write(lambda db: catalogue.put_quotas(db, 1, "fake", "north", []))
    assert catalogue.version(store.reader()) == before + 3


def test_providers_that_are_not_configured_any_more_sell_nothing(store: Store) -> None:
    put(store, *OFFERS)
    store.write(lambda db: catalogue.note_read(db, 1, "fake", "offers"))
    store.write(lambda db: catalogue.forget(db, ["fake", "ovh"]))
    assert len(keys(store)) == 3
    store.write(lambda db: catalogue.forget(db, ["ovh"]))
    assert keys(store) == [] and catalogue.reads(store.reader()) == []


def test_what_became_of_machines_is_summed_over_hours(store: Store) -> None:
    row = "insert into observed values ('fake', 'north', 'c4', 'spot', ?, 3600, 1, 60, ?, 0)"
    store.write(lambda db: [db.execute(row, (hour, hour % 2)) for hour in (10, 11, 12)])

    assert catalogue.history(store.reader()) == {("fake", "north", "c4", "spot"): Observed(10_800, 3, 180, 1, 0)}
    assert catalogue.history(store.reader(), 11 * 3_600_000)["fake", "north", "c4", "spot"].boots == 2


def test_the_file_takes_no_price_below_nothing(store: Store) -> None:
    with pytest.raises(apsw.ConstraintError):
        put(store, Offer(C4, "north", price=-1.0))
