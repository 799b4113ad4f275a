"""What the end of an execution means for its task. Pure: writing it down is `store.executions.end`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from scitq.states import Outcome, Stage, TaskState
from scitq.task import RETRY_DELAY_LIMIT_S, RETRY_DELAY_S, Raised, Spec


class End(NamedTuple):
    """How an execution ended.

    `code` is what a shell would have seen: the exit code, or 128 and the signal. `is_final`: another try would end the same
    way, wherever it is made. `culprit` is the worker, where it was that one's fault.
    """

    outcome: Outcome
    stage: Stage | None = None
    code: int | None = None
    is_final: bool = False
    culprit: int | None = None

    @property
    def cause(self) -> str:
        """By which name `retry=` limits further tries after this."""
        if self.outcome is Outcome.FAILED and self.stage in (Stage.STAGE_IN, Stage.COLLECT):
            return self.stage.word
        return "exit" if self.outcome is Outcome.FAILED else self.outcome.word


@dataclass(frozen=True)
class Verdict:
    """`state` PENDING means another try, after `delay_s`; `tries` is how many retries are then used up; `raised` is what earlier
    tries changed for the later ones."""

    state: TaskState
    tries: int
    delay_s: float = 0.0
    raised: Raised = field(default_factory=Raised)


def judge(
    end: End,
    spec: Spec,
    tries: int,
    *,
    stop_wanted: bool,
    lost_before: int = 0,
    raised: Raised | None = None,
    largest_memory: int = 0,
) -> Verdict:
    """Decide what follows an end. `tries` is the number of failures that counted so far; `largest_memory` is what the worker
    with the most memory has (0: not known).

    A lost or evicted execution is free: the task goes back to the queue, at once unless those right before it
    (`lost_before`) were lost as well. Anything else that is not a success uses up a retry; the wait before each doubles.
    A task that was asked to stop is not tried again.
    """
    raised = raised or Raised()
    if end.outcome is Outcome.SUCCEEDED:
        return Verdict(TaskState.SUCCEEDED, tries, raised=raised)
    if stop_wanted or end.outcome is Outcome.CANCELLED:
        return Verdict(TaskState.CANCELLED, tries, raised=raised)
    if end.culprit is not None and end.culprit not in raised.avoid:
        raised = replace(raised, avoid=(*raised.avoid, end.culprit))
    if end.outcome.is_free:
        is_row = end.outcome is Outcome.LOST and lost_before > 0
        delay_s = min(RETRY_DELAY_S * 2 ** (lost_before - 1), RETRY_DELAY_LIMIT_S) if is_row else 0.0
        return Verdict(TaskState.PENDING, tries, delay_s, raised)
    limit, key = limit_of(spec.retry, end)
    used = tries if key is None else raised.used.get(key, 0)
    if end.is_final or used >= limit:
        return Verdict(TaskState.FAILED, tries, raised=raised)
    if key is not None:
        raised = replace(raised, used={**raised.used, key: used + 1})
    delay_s = min(spec.retry_delay * 2**tries, max(RETRY_DELAY_LIMIT_S, spec.retry_delay))
    return Verdict(TaskState.PENDING, tries + 1, delay_s, _more(end, spec, raised, largest_memory))


def limit_of(retry: int | Mapping[str, object], end: End) -> tuple[int, str | None]:
    """How many further tries there may be after ends like this one, and under which name those are counted (None: all together).

    A code that is named comes before `exit`, and each cause that is named before `any`. A list of codes: each of them once.
    """
    if isinstance(retry, int):
        return retry, None
    named = retry.get(end.cause)
    if isinstance(named, int):
        return named, end.cause
    code = str(end.code)
    if isinstance(named, Mapping) and code in named:
        return int(named[code]), f"exit {code}"
    if isinstance(named, list | tuple) and end.code in named:
        return 1, f"exit {code}"
    rest = retry.get("any", 0)
    return (rest, "any") if isinstance(rest, int) else (0, "any")


def _more(end: End, spec: Spec, raised: Raised, largest_memory: int) -> Raised:
    """What the next try gets more of than this one had."""
    now = raised.applied(spec)
    if end.outcome is Outcome.OUT_OF_MEMORY and spec.retry_memory is not None and now.memory:
        most = max(largest_memory, now.memory) if largest_memory else 1 << 60
        return replace(raised, memory=min(int(now.memory * spec.retry_memory), most))
    if end.outcome is Outcome.TIMED_OUT and spec.retry_timeout is not None:
        if end.stage is Stage.STAGE_IN and now.stage_in_timeout is not None:
            return replace(raised, stage_in_timeout=now.stage_in_timeout * spec.retry_timeout)
        if end.stage is not Stage.STAGE_IN and now.run_timeout is not None:
            return replace(raised, run_timeout=now.run_timeout * spec.retry_timeout)
    return raised
