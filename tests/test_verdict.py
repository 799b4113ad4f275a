"""What an end means for the task."""

from __future__ import annotations

import pytest

from scitq.states import Outcome, TaskState
from scitq.task import Spec
from scitq.verdict import judge


def test_a_success_needs_no_more_tries() -> None:
    assert judge(Outcome.SUCCEEDED, Spec("x", retry=3), 1, stop_wanted=False).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY])
def test_a_failure_uses_up_a_retry_and_the_wait_grows(outcome: Outcome) -> None:
    spec = Spec("x", retry=3, retry_delay=2.0)
    first, second = (judge(outcome, spec, tries, stop_wanted=False) for tries in (0, 1))
    assert (first.state, first.tries, first.delay_s) == (TaskState.PENDING, 1, 2.0)
    assert (second.state, second.tries, second.delay_s) == (TaskState.PENDING, 2, 4.0)
    assert judge(outcome, spec, 3, stop_wanted=False).state is TaskState.FAILED


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.EVICTED])
def test_a_lost_execution_is_free(outcome: Outcome) -> None:
    verdict = judge(outcome, Spec("x"), 0, stop_wanted=False)
    assert (verdict.state, verdict.tries, verdict.delay_s) == (TaskState.PENDING, 0, 0.0)


def test_one_lost_again_and_again_waits_longer_and_longer() -> None:
    delays = [judge(Outcome.LOST, Spec("x"), 0, stop_wanted=False, lost_before=n).delay_s for n in (1, 2, 3, 12)]
    assert delays == [1.0, 2.0, 4.0, 600.0]


def test_a_task_asked_to_stop_is_not_tried_again() -> None:
    for outcome in (Outcome.FAILED, Outcome.LOST, Outcome.CANCELLED, Outcome.TIMED_OUT):
        assert judge(outcome, Spec("x", retry=3), 0, stop_wanted=True).state is TaskState.CANCELLED


def test_a_success_in_spite_of_a_stop_stands() -> None:
    assert judge(Outcome.SUCCEEDED, Spec("x"), 0, stop_wanted=True).state is TaskState.SUCCEEDED
