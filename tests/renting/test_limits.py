"""Limits of what may be spent hold for machines that are asked for by hand, and for the offers that are tried after a refusal."""

from __future__ import annotations

import pytest

from scitq.errors import MoneyLimitReached
from scitq.states import JobState
from tests.renting.conftest import Opener
from tests.renting.dream import Dream, until


def test_no_machine_that_could_pass_a_limit_is_rented_by_hand(dream: Dream, open_engine: Opener) -> None:
    engine = open_engine()
    engine.set_max_cost("0.03 EUR")

    with pytest.raises(MoneyLimitReached, match=r"the money limit of the file is reached.*Nothing was rented"):
        engine.worker_rent(dream.offers("north/std-2"), number=2)  # ten minutes of each, at least: 0.033 EUR

    assert engine.rentals(every=True) == [] and dream.cloud.calls().get("create", 0) == 0


def test_an_offer_that_could_pass_a_limit_is_not_tried_after_a_refusal(dream: Dream, open_engine: Opener) -> None:
    engine = open_engine()
    engine.set_max_cost("0.03 EUR")
    dream.cloud.stock(0, region="north", flavor="std-2")

    [row] = engine.worker_rent(dream.offers("north/std-2", "north/std-4"))
    until(lambda: engine.jobs(row.name)[0].state is JobState.FAILED)

    note = str(engine.jobs(row.name)[0].note)
    assert "No other offer is left to try. Of others, the money limit of the file is reached" in note
    assert dream.cloud.machines(all=True) == [] and engine.spending() == []
