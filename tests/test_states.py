"""The tables of allowed moves."""

from __future__ import annotations

import pytest

from scitq.states import (
    FINAL,
    JOB_MOVES,
    LIVE,
    TASK_MOVES,
    UNPLACED,
    WORKER_MOVES,
    JobState,
    TaskState,
    WorkerState,
    task_state,
)


def test_every_state_has_its_moves() -> None:
    assert set(TASK_MOVES) == set(TaskState)
    assert set(WORKER_MOVES) == set(WorkerState)
    assert set(JOB_MOVES) == set(JobState)


def test_no_state_without_a_way_out_but_final_ones() -> None:
    """DESIGN.md §10.8; even an ended task can be relaunched, so every task state has one."""
    assert all(TASK_MOVES[state] for state in TaskState)
    assert [state for state in WorkerState if not WORKER_MOVES[state]] == [WorkerState.GONE]


def test_every_live_state_may_end_and_return_to_the_queue() -> None:
    for state in LIVE:
        assert {*FINAL, TaskState.PENDING} <= TASK_MOVES[state]


def test_no_task_runs_without_having_been_assigned() -> None:
    for state in UNPLACED | FINAL:
        assert not TASK_MOVES[state] & {TaskState.STAGING, TaskState.RUNNING, TaskState.COLLECTING}


def test_states_are_found_by_their_word() -> None:
    assert task_state(" Running ") is TaskState.RUNNING
    with pytest.raises(ValueError, match="known: waiting pending"):
        task_state("runing")
