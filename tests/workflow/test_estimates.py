"""What running tasks on rented machines would take and cost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.engine import Engine
from scitq.offers import Flavor, Offer
from scitq.ranking import Ranked
from scitq.remote.providers.fake import Cloud
from scitq.states import Outcome
from scitq.store import query
from scitq.workflow import Workflow
from scitq.workflow.estimates import Lasting, lasting, offered, total
from tests.store.renting import end, rent, start

GIB = 1 << 30


def ranked(
    price: float, slots: int, *, name: str = "b3-32", available: int | None = None, billed_s: int = 1, **more: str
) -> Ranked:
    offer = Offer(
        Flavor("ovh", name, slots, 32 * GIB),
        "GRA11",
        price=price,
        billed_s=billed_s,
        currency=more.get("currency", "EUR"),
    )
    return Ranked(offer, price / slots, offer.currency, slots, 0.0, 120.0, available=available)


def test_ways_are_told_with_time_and_cost_as_intervals() -> None:
    found = offered("fastp", 4, Lasting(660, 840, 65), [ranked(0.24, 1, billed_s=3600)], most=4)
    assert found.lines() == [
        " offers for 4 fastp tasks (history: 11\u201314 min each)",
        "   cheapest  1 \u00d7 b3-32  GRA11  0.24 €/h  46\u201358 min  0.24 €",
        "   fastest   4 \u00d7 b3-32  GRA11  0.96 €/h  13\u201316 min  0.96 €",
    ]


def test_without_history_there_is_only_a_price() -> None:
    found = offered("fastp", 4, None, [ranked(0.24, 1), ranked(9.0, 8)])
    assert found.lines() == [
        " offers for 4 fastp tasks (no task of it has succeeded yet, so how long they take is not known)",
        "   an hour  1 \u00d7 b3-32  GRA11  0.24 €/h",
    ]


def test_a_way_between_is_told_where_it_is_another() -> None:
    offers = [ranked(1.0, 4, name="small"), ranked(30.0, 32, name="large")]
    ways = offered("s", 64, Lasting(600, 600, 9), offers, most=10).ways
    assert [way.called for way in ways] == ["cheapest", "balanced", "fastest"]
    assert ways[0].low_cost < ways[1].low_cost < ways[2].low_cost  # type: ignore[operator]
    assert ways[0].low_s > ways[1].low_s > ways[2].low_s  # type: ignore[operator]


def test_nothing_that_has_a_price_is_no_way() -> None:
    assert offered("s", 1, Lasting(1, 1, 1), []).ways == ()
    assert "can be had now" in offered("s", 1, Lasting(1, 1, 1), [ranked(1.0, 1, available=0)]).why
    assert lasting([]) is None and lasting([5.0]) == (5.0, 5.0, 1)


def test_steps_are_summed_and_currencies_are_not() -> None:
    euros = offered("a", 1, Lasting(3600 - 120, 3600 - 120, 1), [ranked(1.0, 1)])
    dollars = offered("b", 1, Lasting(3600 - 120, 3600 - 120, 1), [ranked(2.0, 1, currency="USD")])
    assert total([euros]) == []
    assert total([euros, euros]) == [" all steps", "   cheapest  2.00 €", "   fastest  2.00 €"]
    assert total([euros, dollars])[1] == "   cheapest  1.00 € and 2.00 $"


@given(
    st.integers(1, 500), st.floats(0.1, 1e5), st.floats(1, 3), st.integers(1, 200),
    st.lists(
        st.tuples(st.floats(0, 50), st.integers(1, 64), st.one_of(st.none(), st.integers(0, 9)), st.sampled_from([1, 3600])), max_size=4
    ),
)  # fmt: skip
def test_the_cheapest_way_is_the_cheapest_and_the_fastest_the_fastest(
    tasks: int, low: float, wider: float, most: int, sold: list[tuple[float, int, int | None, int]]
) -> None:
    found = offered(
        "s", tasks, Lasting(low, low * wider, 5),
        [ranked(price, slots, available=available, billed_s=billed) for price, slots, available, billed in sold], most=most,
    )  # fmt: skip
    for way in found.ways:
        assert 1 <= way.machines <= most
        assert (
            way.low_s is not None and way.high_s is not None and way.low_cost is not None and way.high_cost is not None
        )
        assert 0 < way.low_s <= way.high_s and 0 <= way.low_cost <= way.high_cost
    if found.ways:
        named = {way.called: way for way in found.ways}
        cheapest = named["cheapest"]
        fastest = named.get("fastest", cheapest)
        assert all(cheapest.low_cost + cheapest.high_cost <= way.low_cost + way.high_cost + 1e-6 for way in found.ways)  # type: ignore[operator]
        assert all(fastest.low_s + fastest.high_s <= way.low_s + way.high_s + 1e-6 for way in found.ways)  # type: ignore[operator]


def test_a_plan_asks_providers_what_they_sell_and_the_file_how_long_it_takes(
    state_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud(tmp_path / "cloud", bare=True)
    cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 * GIB)
    (tmp_path / "config" / "scitq").mkdir(parents=True)
    (tmp_path / "config" / "scitq" / "config.toml").write_text(
        f'[providers.dream]\nkind = "fake"\nfolder = "{cloud.folder}"\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with Engine(state_file, drive=False) as engine:
        flow = Workflow("qc", engine=engine, provider="dream", flavor="auto:cpu>=2", concurrency=2, max_step_workers=4)
        for number in range(8):
            flow.step("fastp", "true", name=f"s{number}")
        flow.step("stats", "true", provider=None, flavor=None)

        first = flow.plan(offers=True)
        assert flow.plan().offers is None
        assert first.offers is not None
        assert [(one.step, one.tasks, len(one.ways)) for one in first.offers] == [("fastp", 8, 1), ("stats", 1, 0)]
        assert "1 \u00d7 std-2  north  0.10 €/h" in str(first) and first.to_dict()["offers"][1]["why"].startswith(
            "nothing is rented"
        )

        flow.start()
        ids = [row.id for row in engine.rows(batch="qc.fastp")]
        now = time.time_ns() // 1_000_000
        for id in ids[:4]:
            engine._write(lambda db, id=id: end(db, start(db, id, rent(db, f"w{id}", None, at=now), now), now))  # type: ignore[misc]
        engine._write(lambda db: db.execute("update execution set run_s = 60 * id"))
        assert (
            query.one(engine._reader(), "select count(*) from execution where outcome = ?", (int(Outcome.SUCCEEDED),))[
                0
            ]
            == 4
        )
        again = Workflow(
            "qc", engine=engine, provider="dream", flavor="auto:cpu>=2", concurrency=2, fresh=True, join=True
        )
        again.step("fastp", "true", name="s0")
        (offered_now,) = again.plan(offers=True).offers or []
        assert offered_now.lasting == (60.0, 240.0, 4) and offered_now.ways[0].called == "cheapest"
        flow.quit()
        again.quit()
