"""What an end means for the task."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.states import Outcome, Stage, TaskState
from scitq.task import Raised, Spec, raised_of
from scitq.verdict import End, judge


def test_a_success_needs_no_more_tries() -> None:
    assert judge(End(Outcome.SUCCEEDED), Spec("x", retry=3), 1, stop_wanted=False).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY])
def test_a_failure_uses_up_a_retry_and_the_wait_grows(outcome: Outcome) -> None:
    spec = Spec("x", retry=3, retry_delay=2.0)
    first, second = (judge(End(outcome), spec, tries, stop_wanted=False) for tries in (0, 1))
    assert (first.state, first.tries, first.delay_s) == (TaskState.PENDING, 1, 2.0)
    assert (second.state, second.tries, second.delay_s) == (TaskState.PENDING, 2, 4.0)
    assert judge(End(outcome), spec, 3, stop_wanted=False).state is TaskState.FAILED


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.EVICTED])
def test_a_lost_execution_is_free(outcome: Outcome) -> None:
    verdict = judge(End(outcome), Spec("x"), 0, stop_wanted=False)
    assert (verdict.state, verdict.tries, verdict.delay_s) == (TaskState.PENDING, 0, 0.0)


def test_one_lost_again_and_again_waits_longer_and_longer() -> None:
    delays = [judge(End(Outcome.LOST), Spec("x"), 0, stop_wanted=False, lost_before=n).delay_s for n in (1, 2, 3, 12)]
    assert delays == [1.0, 2.0, 4.0, 600.0]


def test_a_task_asked_to_stop_is_not_tried_again() -> None:
    for outcome in (Outcome.FAILED, Outcome.LOST, Outcome.CANCELLED, Outcome.TIMED_OUT):
        assert judge(End(outcome), Spec("x", retry=3), 0, stop_wanted=True).state is TaskState.CANCELLED


def test_a_success_in_spite_of_a_stop_stands() -> None:
    assert judge(End(Outcome.SUCCEEDED), Spec("x"), 0, stop_wanted=True).state is TaskState.SUCCEEDED


EXIT_1, EXIT_137 = (End(Outcome.FAILED, Stage.RUN, code) for code in (1, 137))
OUT_OF_MEMORY, TIMED_OUT = End(Outcome.OUT_OF_MEMORY, Stage.RUN), End(Outcome.TIMED_OUT, Stage.RUN)
STAGE_IN, COLLECT = (End(Outcome.FAILED, stage) for stage in (Stage.STAGE_IN, Stage.COLLECT))


def tries_of(retry: Any, *ends: End) -> int:
    """How many of these ends, one after the other, were followed by another try."""
    tries, raised, spec = 0, Raised(), Spec("x", retry=retry)
    for count, end in enumerate(ends):
        verdict = judge(end, spec, tries, stop_wanted=False, raised=raised)
        if verdict.state is not TaskState.PENDING:
            return count
        tries, raised = verdict.tries, raised_of(verdict.raised.text())
    return len(ends)


@pytest.mark.parametrize(
    ("retry", "ends", "count"),
    [
        (2, [EXIT_1, TIMED_OUT, STAGE_IN], 2),  # a number means any
        ({"timed_out": 2, "exit": [1, 137]}, [TIMED_OUT] * 3, 2),
        ({"timed_out": 2, "exit": [1, 137]}, [EXIT_1, TIMED_OUT, EXIT_137, TIMED_OUT, EXIT_1], 4),
        ({"timed_out": 2, "exit": [1, 137]}, [OUT_OF_MEMORY], 0),
        ({"exit": [1]}, [EXIT_137], 0),
        ({"exit": 1}, [EXIT_137, EXIT_1], 1),
        ({"exit": {"137": 3}}, [EXIT_137] * 4, 3),
        ({"exit": {"2": 0}, "any": 1}, [End(Outcome.FAILED, Stage.RUN, 2)], 0),
        ({"exit": {"2": 0}, "any": 2}, [EXIT_1, COLLECT, STAGE_IN], 2),
        ({"stage_in": 1, "collect": 1}, [STAGE_IN, COLLECT, COLLECT], 2),
        ({"out_of_memory": 1}, [OUT_OF_MEMORY, OUT_OF_MEMORY], 1),
        ({"timed_out": 1}, [End(Outcome.LOST)] * 5 + [TIMED_OUT, End(Outcome.EVICTED), TIMED_OUT], 7),
    ],
)
def test_retries_are_limited_by_cause_and_by_code(retry: Any, ends: list[End], count: int) -> None:
    assert tries_of(retry, *ends) == count


@given(
    st.dictionaries(
        st.sampled_from(["exit", "timed_out", "out_of_memory", "stage_in", "collect", "any"]), st.integers(0, 3)
    ),
    st.lists(st.sampled_from([EXIT_1, EXIT_137, TIMED_OUT, OUT_OF_MEMORY, STAGE_IN, COLLECT]), max_size=30),
)
def test_no_cause_gets_more_tries_than_its_limit_and_each_gets_those(retry: dict[str, int], ends: list[End]) -> None:
    left = dict(retry)
    expected = 0
    for end in ends:
        key = end.cause if end.cause in retry else "any"
        if left.get(key, 0) == 0:
            break
        left[key] -= 1
        expected += 1
    assert tries_of(retry, *ends) == expected


def test_waits_grow_whatever_the_cause() -> None:
    spec = Spec("x", retry={"timed_out": 2, "exit": 2}, retry_delay=2.0)
    first = judge(TIMED_OUT, spec, 0, stop_wanted=False)
    assert (first.delay_s, judge(EXIT_1, spec, first.tries, stop_wanted=False, raised=first.raised).delay_s) == (
        2.0,
        4.0,
    )


def test_what_would_fail_anywhere_is_not_tried_again() -> None:
    missing = STAGE_IN._replace(is_final=True)
    assert judge(missing, Spec("x", retry=3), 0, stop_wanted=False).state is TaskState.FAILED


def test_out_of_memory_gets_more_up_to_what_the_largest_worker_has() -> None:
    spec = Spec("x", retry=9, memory=100, retry_memory=2.0)
    raised, seen = Raised(), []
    for tries in range(4):
        raised = judge(OUT_OF_MEMORY, spec, tries, stop_wanted=False, raised=raised, largest_memory=500).raised
        seen.append(raised.memory)
    assert seen == [200, 400, 500, 500]
    # One that asked for more than any worker has keeps that; nobody known: no limit is known.
    assert judge(OUT_OF_MEMORY, spec, 0, stop_wanted=False, largest_memory=50).raised.memory == 100
    assert judge(OUT_OF_MEMORY, spec, 0, stop_wanted=False).raised.memory == 200
    assert judge(EXIT_137, spec, 0, stop_wanted=False, largest_memory=500).raised == Raised()


def test_without_a_word_on_it_nothing_is_raised() -> None:
    spec = Spec("x", retry=9, memory=100, run_timeout=5.0)
    for end in (OUT_OF_MEMORY, TIMED_OUT):
        assert judge(end, spec, 0, stop_wanted=False, largest_memory=500).raised == Raised()
    assert judge(OUT_OF_MEMORY, Spec("x", retry=1, retry_memory=2.0), 0, stop_wanted=False).raised == Raised()


def test_timed_out_gets_more_of_the_time_that_was_too_short() -> None:
    spec = Spec("x", retry=9, run_timeout=10.0, stage_in_timeout=4.0, retry_timeout=1.5)
    first = judge(TIMED_OUT, spec, 0, stop_wanted=False).raised
    second = judge(End(Outcome.TIMED_OUT, Stage.STAGE_IN), spec, 1, stop_wanted=False, raised=first).raised
    third = judge(TIMED_OUT, spec, 2, stop_wanted=False, raised=second).raised
    assert (first.run_timeout, second.stage_in_timeout, third.run_timeout) == (15.0, 6.0, 22.5)
    assert (third.applied(spec).run_timeout, third.applied(spec).stage_in_timeout) == (22.5, 6.0)


def test_a_worker_at_fault_is_avoided_from_then_on_even_where_the_try_was_free() -> None:
    spec = Spec("x", retry=3)
    first = judge(STAGE_IN._replace(culprit=7), spec, 0, stop_wanted=False)
    second = judge(End(Outcome.LOST, culprit=8), spec, first.tries, stop_wanted=False, raised=first.raised)
    third = judge(STAGE_IN._replace(culprit=7), spec, second.tries, stop_wanted=False, raised=second.raised)
    assert [each.raised.avoid for each in (first, second, third)] == [(7,), (7, 8), (7, 8)]
    assert [each.tries for each in (first, second, third)] == [1, 1, 2]


def test_what_was_raised_is_stored_and_read_again() -> None:
    raised = Raised(memory=5, run_timeout=2.5, avoid=(1, 2), used={"exit 1": 1}, image="u@sha256:1")
    assert raised_of(raised.text()) == raised
    assert Raised().text() is None and raised_of(None) == Raised()
    assert raised.without(["memory", "container", "retry"]) == Raised(run_timeout=2.5, avoid=(1, 2), used={"exit 1": 1})
