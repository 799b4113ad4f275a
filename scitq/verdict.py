"""What the end of an execution means for its task. Pure: writing it down is `store.executions.end`."""

from __future__ import annotations

from dataclasses import dataclass

from scitq.states import Outcome, TaskState
from scitq.task import RETRY_DELAY_LIMIT_S, RETRY_DELAY_S, Spec


@dataclass(frozen=True)
class Verdict:
    """`state` PENDING means another try, after `delay_s`; `tries` is how many retries are then used up."""

    state: TaskState
    tries: int
    delay_s: float = 0.0


def judge(outcome: Outcome, spec: Spec, tries: int, *, stop_wanted: bool, lost_before: int = 0) -> Verdict:
    """Decide what follows an end. `tries` is the number of failures that counted so far.

    A lost or evicted execution is free: the task goes back to the queue, at once unless those right before it
    (`lost_before`) were lost as well. Anything else that is not a success uses up a retry; the wait before each doubles.
    A task that was asked to stop is not tried again.
    """
    if outcome is Outcome.SUCCEEDED:
        return Verdict(TaskState.SUCCEEDED, tries)
    if stop_wanted or outcome is Outcome.CANCELLED:
        return Verdict(TaskState.CANCELLED, tries)
    if outcome.is_free:
        is_row = outcome is Outcome.LOST and lost_before > 0
        delay_s = min(RETRY_DELAY_S * 2 ** (lost_before - 1), RETRY_DELAY_LIMIT_S) if is_row else 0.0
        return Verdict(TaskState.PENDING, tries, delay_s)
    if tries < spec.retry:
        delay_s = min(spec.retry_delay * 2**tries, max(RETRY_DELAY_LIMIT_S, spec.retry_delay))
        return Verdict(TaskState.PENDING, tries + 1, delay_s)
    return Verdict(TaskState.FAILED, tries)
