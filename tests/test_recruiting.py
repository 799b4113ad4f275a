"""What recruiters may say, which workers serve a batch, and how much of each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.errors import BadInput
from scitq.placement import Terms
from scitq.recruiting import checked, machine, misfit, rank_of, services, terms
from scitq.states import WorkerState
from scitq.worker import LOCAL, SSH, Recruiter, WorkerId, WorkerRow


def worker(id: int, *, batch: int | None = None, slots: int = 8, **more: Any) -> WorkerRow:
    given: dict[str, Any] = {
        "name": f"w{id}", "kind": SSH, "state": WorkerState.READY, "batch": None, "prefetch": None,
        "facts": {"cpus": 8, "memory": 64 * 10**9}, "note": None, "journal": None, "acked": 0, "created_ms": 0, "seen_ms": None,
        **more,
    }  # fmt: skip
    return WorkerRow(id=WorkerId(id), concurrency=slots, batch_id=batch, **given)


# --- rows -------------------------------------------------------------------------------------------------------------------------


def test_fields_of_a_recruiter_are_checked() -> None:
    assert checked({"flavor": " auto:cpu>=8 ", "concurrency": 0, "provider": None}) == {
        "flavor": "auto:cpu>=8", "concurrency": 0, "provider": None,
    }  # fmt: skip
    for fields, said in (
        ({"flavour": "x"}, "no 'flavour'"),
        ({"flavor": "auto:cores>3"}, "column 6"),
        ({"tasks_per_worker": 0}, "1 or more"),
        ({"maximum_workers": -1}, "whole number"),
        ({"concurrency": "2"}, "whole number"),
        ({"provider": ""}, "line of text"),
        ({"rounds": 0}, "1 or more"),
        ({"market": "black"}, "market must be ondemand, spot or any"),
        ({"max_price": "much"}, "a price per hour"),
        ({"patience": -1}, "a number of seconds"),
        ({"idle_timeout": True}, "a number of seconds"),
        ({"max_cost": "much"}, "max_cost must be an amount"),
    ):
        with pytest.raises(BadInput, match=said):
            checked(fields)
    with pytest.raises(BadInput, match="1 \\(tried first\\)"):
        rank_of(0)


# --- flavors of workers -----------------------------------------------------------------------------------------------------------


def test_a_workers_flavor_is_what_was_said_of_it_or_that_it_is_ones_own() -> None:
    own, named = worker(1), worker(2, settings={"flavor": "gpu-box"}, facts={"cpus": 32, "gpus": ["0"]})
    here = worker(3, kind=LOCAL, settings={"flavor": "laptop"})
    assert misfit(Recruiter(1, 1, flavor="local"), own) is None
    assert misfit(Recruiter(1, 1, flavor="local"), named) == "w2 is of flavor gpu-box"
    assert misfit(Recruiter(1, 1, flavor="local"), here) is None
    assert misfit(Recruiter(1, 1, flavor="laptop"), here) is None
    assert misfit(Recruiter(1, 1, flavor="auto:cpu>=16:tags#G"), named) is None
    assert misfit(Recruiter(1, 1, flavor="auto:cpu>=16"), own) == "w1 does not meet cpu>=16 (it has 8)"
    assert misfit(Recruiter(1, 1), named) is None
    assert machine(worker(4, measured='{"disk":400000000000}')).disk == 400 * 10**9
    assert misfit(Recruiter(1, 1, flavor="auto:ram>=1"), worker(5, facts={})) is not None, "nobody has asked it yet"


# --- shares -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "concurrency", "found"),
    [
        (8, 2, Terms(4)), (8, 8, Terms(1)), (8, 16, Terms(1)), (8, None, Terms(1)), (8, 1, Terms(8)), (8, 3, Terms(2, 3)),
        (8, 5, Terms(1, 5)), (8, 0, Terms(1, 0, 0)), (0, 3, Terms(1)), (1, 1, Terms(1)),
    ],
)  # fmt: skip
def test_a_recruiters_concurrency_is_a_share_of_a_worker(slots: int, concurrency: int | None, found: Terms) -> None:
    assert terms(worker(1, slots=slots), Recruiter(1, 1, concurrency=concurrency), (0,)) == found


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_share_never_lets_too_many_run_and_wastes_less_than_one_of_them(slots: int, concurrency: int) -> None:
    got = terms(worker(1, slots=slots), Recruiter(1, 1, concurrency=concurrency), (0,))
    at_once = min(slots // got.slots, got.most if got.most is not None else slots)
    assert at_once == min(concurrency, slots)
    assert slots - at_once * got.slots < at_once


def test_shared_workers_serve_by_flavor_and_bound_ones_their_batch() -> None:
    known = [
        worker(1), worker(2, settings={"flavor": "big"}), worker(3, batch=7), worker(4, batch=8, settings={"flavor": "big"}),
        worker(5, batch=7, state=WorkerState.FAILED),
    ]  # fmt: skip
    rules = [Recruiter(7, 2, flavor="local", concurrency=2), Recruiter(7, 1, flavor="big", maximum_workers=1)]
    found = services(rules, known, {7: {WorkerId(2): 3, WorkerId(1): 0}})
    assert found.keys() == {7}
    assert found[7].terms == {
        2: Terms(1, ranks=(0,)),
        1: Terms(4, ranks=(1,)),
        3: Terms(4, ranks=(1,)),
        5: Terms(4, ranks=(1,)),
    }
    assert found[7].limits == [1, None]
    assert found[7].serving == {2, 3}, "those that do something for it, and its own, if they can do anything at all"
    assert services([], known, {}) == {}
