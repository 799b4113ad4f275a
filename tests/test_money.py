"""Amounts, limits and what may still be spent: all pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq import money
from scitq.errors import BadInput
from scitq.money import HOUR_MS, UNIT, Account, Allowance, Life, Limit, Scope
from scitq.offers import Flavor, Offer

LARGE = Flavor("cloud", "large", 8, 1 << 35)


def offer(price: float | None = 1.0, currency: str = "EUR", **more: Any) -> Offer:
    return Offer(LARGE, "here", price=price, currency=currency, **more)


def life(price: float = 1.0, accepted_ms: int | None = 0, **more: Any) -> Life:
    return Life(((0, price),), more.pop("currency", "EUR"), accepted_ms, **more)


def file_limit(amount: float, currency: str = "", **more: Any) -> Allowance:
    account = Account(
        Scope("file"), "", Limit(money.nanos(amount), currency), lives=tuple(more.pop("lives", ())), **more
    )
    return Allowance(0, (account,))


# --- amounts ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (770_000_000, "EUR", "0.77 €"), (0, "EUR", "0.00 €"), (15.0, "USD", "15.00 $"), (1_500_000, "EUR", "0.0015 €"),
        (1, "EUR", "< 0.0001 €"), (None, "EUR", "not known"), (2 * UNIT, "CHF", "2.00 CHF"),
    ],
)  # fmt: skip
def test_amounts_are_told_with_their_currency(amount: int | float | None, currency: str, text: str) -> None:
    assert money.said(amount, currency) == text


@pytest.mark.parametrize(
    ("given", "amount", "currency"),
    [
        (15, 15.0, ""),
        (0, 0.0, ""),
        (0.5, 0.5, ""),
        ("15", 15.0, ""),
        ("15 EUR", 15.0, "EUR"),
        ("2,5€", 2.5, "EUR"),
        ("7 usd", 7.0, "USD"),
    ],
)
def test_a_limit_is_a_number_or_an_amount_with_its_currency(given: Any, amount: float, currency: str) -> None:
    found = money.limit_of(given)
    assert found == (money.nanos(amount), currency)
    assert money.limit_of(str(found)) == found


@pytest.mark.parametrize(
    "given", [-1, True, float("nan"), float("inf"), "much", "15 euros", "-3", "", [], 1e12, "9" * 30]
)
def test_what_is_no_amount_is_refused(given: Any) -> None:
    with pytest.raises(BadInput, match="max_cost must be an amount"):
        money.limit_of(given)


# --- lives ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "accepted", "until", "billed", "minimum", "units"),
    [
        (1.0, 0, HOUR_MS, 1, 0, 1.0),
        (1.0, 0, HOUR_MS + 1, 3600, 0, 2.0),
        (1.0, 0, 0, 3600, 0, 1.0),
        (3600.0, 0, 1500, 1, 0, 2.0),
        (3600.0, 0, 1500, 1, 60, 60.0),
        (3600.0, 5000, 1000, 1, 0, 1.0),  # the clock was set back
        (0.0, 0, HOUR_MS, 1, 60, 0.0),
        (1.0, None, HOUR_MS, 3600, 60, 0.0),
    ],
)
def test_a_life_is_billed_in_whole_pieces_and_at_least_its_minimum(
    price: float, accepted: int | None, until: int, billed: int, minimum: int, units: float
) -> None:
    assert money.cost(price, accepted, until, billed, minimum) == money.nanos(units)


def test_what_has_no_price_has_no_cost_and_no_commitment() -> None:
    assert money.cost(None, 0, HOUR_MS) is None
    assert money.commitment(offer(None)) is None


def test_a_price_that_changes_holds_from_then_on() -> None:
    one = Life(((0, 1.0), (HOUR_MS, 3.0)), "EUR", 0)
    assert [one.cost(hours * HOUR_MS) for hours in (1, 2)] == [UNIT, 4 * UNIT]
    assert one.price == 3.0


LIVES = st.builds(
    Life,
    st.lists(st.floats(0, 100), min_size=1, max_size=4).map(
        lambda prices: tuple((number * 5_000_000, price) for number, price in enumerate(prices))
    ),
    st.sampled_from(["EUR", "USD"]),
    st.one_of(st.none(), st.integers(0, 10**8)),
    st.sampled_from([1, 60, 3600]),
    st.sampled_from([0, 60, 3600]),
    batch=st.integers(0, 2),
    rank=st.integers(1, 2),
    shares=st.dictionaries(st.integers(0, 2), st.integers(0, UNIT), max_size=2),
)


@given(LIVES, st.integers(0, 10**8), st.integers(0, 10**8))
def test_a_life_never_costs_less_later_and_less_than_was_agreed_to(one: Life, first: int, second: int) -> None:
    first, second = sorted((first, second))
    early, late = one.cost(first), one.cost(second)
    assert early is not None and late is not None
    assert 0 <= early <= late
    assert early <= one.committed(first) <= one.committed(second) or one.accepted_ms is None


# --- limits -----------------------------------------------------------------------------------------------------------------------


@given(
    st.lists(LIVES, max_size=6),
    st.dictionaries(st.sampled_from(["EUR", "USD"]), st.integers(0, 20 * UNIT), max_size=2),
    st.integers(0, 10**8),
)
def test_accounts_of_batches_sum_to_that_of_the_file(lives: list[Life], settled: dict[str, int], at: int) -> None:
    whole = Account(Scope("file"), "", Limit(0), settled, None, tuple(lives))
    parts = [
        Account(Scope("batch", batch), "", Limit(0), settled if batch == 0 else {}, frozenset({batch}), tuple(lives))
        for batch in range(3)
    ]
    for committed in (False, True):
        total: dict[str, int] = {}
        for part in parts:
            for currency, amount in part.spent(at, committed=committed).items():
                assert amount >= 0
                total[currency] = total.get(currency, 0) + amount
        found = whole.spent(at, committed=committed)
        assert {c: n for c, n in total.items() if n} == {c: n for c, n in found.items() if n}


@given(st.floats(0, 3), st.lists(st.tuples(st.floats(0, 50), st.sampled_from([1, 60, 3600])), max_size=40))
def test_what_is_agreed_to_never_passes_a_limit(limit: float, wanted: list[tuple[float, int]]) -> None:
    allowed = file_limit(limit)
    for price, billed in wanted:
        one = offer(price, billed_s=billed)
        if allowed.refusal(one) is None:
            allowed = allowed.rented(one)
    agreed = allowed.accounts[0].spent(0).get("EUR", 0)
    assert agreed <= money.nanos(limit)


def test_a_machine_is_refused_with_the_reason() -> None:
    allowed = file_limit(1.0, lives=[life(0.9, billed_s=3600)])
    assert allowed.refusal(offer(0.1, billed_s=3600)) is None
    said = allowed.refusal(offer(0.2, billed_s=3600))
    assert said == (
        "the money limit of the file is reached: 0.90 € of 1 € spent, and one more large is at least 0.20 €"
    )
    assert "not known" in str(allowed.refusal(offer(None)))


def test_a_limit_concerns_what_it_is_about() -> None:
    tight = Limit(0, "EUR")
    accounts = [
        Account(Scope("workflow", 1), "qc", tight, batches=frozenset({1, 2})),
        Account(Scope("recruiter", 3, 2), "other", tight),
        Account(Scope("batch", 4), "last", tight, batches=frozenset({4})),
    ]
    allowed = Allowance(0, tuple(accounts))
    assert [allowed.refusal(offer(), batch, 1) is None for batch in range(6)] == [True, False, False, True, False, True]
    assert allowed.refusal(offer(), 3, 1) is None
    assert "recruiter other 2" in str(allowed.refusal(offer(), 3, 2))
    assert allowed.refusal(offer(0.0), 1, 1) is None, "what costs nothing is never refused"
    assert allowed.left(5, 1) is None and allowed.left(1, 1) == (0, "EUR")


def test_currencies_are_compared_by_rates_or_not_at_all() -> None:
    allowed = file_limit(10, "EUR")
    assert "cannot be compared" in str(allowed.refusal(offer(1.0, "USD")))
    rated = replace(allowed, rates={"EUR": 1.0, "USD": 0.9})
    assert rated.refusal(offer(1.0, "USD")) is None
    assert rated.refusal(offer(70.0, "USD")) is not None
    # Without a currency the limit is in that of what is spent already.
    settled = file_limit(10, settled={"USD": UNIT})
    assert settled.refusal(offer(1.0, "USD")) is None and "cannot be compared" in str(settled.refusal(offer(1.0)))


def test_a_limit_is_reached_in_time_for_all_machines_to_be_let_go() -> None:
    machines = [life(1.0), life(1.0)]
    allowed = file_limit(2.0, lives=machines)
    assert allowed.reached() is None
    exact = HOUR_MS - 1000 * money.LETTING_GO_S
    looks = [0]
    while allowed.reached() is None:
        assert allowed.reached(at_ms=exact + 1) is not None and len(looks) < 8
        due = allowed.due_ms()
        assert due is not None and looks[-1] < due <= exact + 1000
        looks.append(due)
        allowed = replace(allowed, now_ms=due)
    assert "the money limit of the file is reached" in str(allowed.reached())
    gone = money.cost(1.0, 0, looks[-1] + 1000 * money.LETTING_GO_S)
    assert gone is not None and 2 * gone <= money.nanos(2.001)
    assert file_limit(2.0, lives=[life(0.0)]).due_ms() is None
    assert Allowance(0).due_ms() is None
