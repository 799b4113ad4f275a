"""Rows of tasks and executions: what the triggers forbid, and what an end brings about."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

from scitq.errors import IllegalMove, UnknownTask
from scitq.states import LIVE, TASK_MOVES, Halt, Outcome, Stage, TaskState, Wanted
from scitq.store import batches, executions, journal, listing, query, tasks, workers
from scitq.store.check import check
from scitq.store.connection import Store
from scitq.store.executions import Exit
from scitq.store.schema import SCHEMA
from scitq.task import Assignment, BatchId, ExecutionId, Need, Spec, TaskId
from scitq.worker import WorkerId

T = TypeVar("T")


@pytest.fixture
def store(state_file: Path) -> Iterator[Store]:
    with Store.open(state_file, SCHEMA) as store:
        store.write(lambda db: workers.ensure(db, 0, "local", "local", 2))
        yield store


def add(store: Store, *requires: int, command: str = "true", retry: int = 0, name: str | None = None) -> TaskId:
    def write(db: apsw.Connection) -> TaskId:
        text = listing.spec_text(Spec(command, retry=retry))
        row = (name, tasks.batch_id(db, "default"), 0, text, 0)
        return TaskId(tasks.add_many(db, 1, [row], None, [requires])[0])

    return store.write(write)


def begin(store: Store, *ids: TaskId) -> list[ExecutionId]:
    orders = store.write(lambda db: executions.begin(db, 2, [Assignment(id, WorkerId(1)) for id in ids]))
    return [order.execution for order in orders]


def end(store: Store, execution: ExecutionId, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    store.write(lambda db: executions.finish(db, 3, execution, outcome, Stage.RUN, None))


def run(store: Store, id: TaskId, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    end(store, begin(store, id)[0], outcome)


def state(store: Store, id: int) -> TaskState:
    return listing.state_of(store.reader(), TaskId(id))


def sound(store: Store) -> None:
    assert check(store.reader(), store.side) == []


@pytest.mark.promise("core 11.5")
def test_every_move_that_is_not_in_the_table_is_refused_by_the_file(store: Store) -> None:
    """Whoever writes: this is bare SQL. Each state is forced in with the guard taken off, then each move tried."""
    id = add(store)
    allowed = {(src, dst) for src, targets in TASK_MOVES.items() for dst in targets}

    def try_all(db: apsw.Connection) -> set[tuple[TaskState, TaskState]]:
        guard = db.execute("select sql from sqlite_schema where name = 'task_move_guard'").fetchall()[0][0]
        for other in ("task_live_proof", "task_moved", "task_release", "task_withdraw"):
            db.execute(f"drop trigger {other}")
        passed = set()
        for src in TaskState:
            for dst in TaskState:
                if src is dst:
                    continue
                db.execute("drop trigger task_move_guard")
                live = 1 if src in LIVE else None
                db.execute("update task set state = ?, execution = ? where id = ?", (int(src), live, id))
                db.execute(str(guard))
                try:
                    live = 1 if dst in LIVE else None
                    db.execute("update task set state = ?, execution = ? where id = ?", (int(dst), live, id))
                    passed.add((src, dst))
                except apsw.ConstraintError as problem:
                    assert "illegal move" in str(problem)
        return passed

    assert store.write(try_all) == allowed


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("insert into task(state, batch, created, changed, spec) values (4, 1, 0, 0, '{}')", "born|CHECK"),
        ("update task set state = 4, execution = 77 where id = 1", "live execution|illegal move"),
        ("update task set state = 2 where id = 1", "CHECK"),
        ("insert into requirement values (2, 1)", "CHECK"),
        ("insert into requirement values (1, 1)", "CHECK"),
        ("insert into requirement values (1, 99)", "FOREIGN KEY|NOT NULL|already been given"),
        ("update requirement set child = 3", "replaced"),
        ("update journal set at = 0", "append-only"),
        ("update task set spec = 'no json' where id = 1", "CHECK"),
        ("update task set priority = 'high' where id = 1", "cannot store TEXT"),
    ],
)
def test_hand_written_sql_cannot_break_the_rules(store: Store, sql: str, message: str) -> None:
    first = add(store)
    add(store, first)
    add(store)
    with pytest.raises(apsw.ConstraintError, match=message):
        store.write(lambda db: db.execute(sql))
    sound(store)


@pytest.mark.promise("core 11.5")
def test_a_second_live_execution_of_a_task_is_impossible(store: Store) -> None:
    id = add(store)
    begin(store, id)
    assert begin(store, id) == []
    with pytest.raises(apsw.ConstraintError, match="UNIQUE"):
        store.write(
            lambda db: db.execute("insert into execution(task, worker, attempt, assigned) values (?, 1, 2, 0)", (id,))
        )


def test_an_execution_ends_once(store: Store) -> None:
    id = add(store)
    (execution,) = begin(store, id)
    end(store, execution)
    end(store, execution, Outcome.FAILED)
    assert state(store, id) is TaskState.SUCCEEDED
    with pytest.raises(apsw.ConstraintError, match="ends once"):
        store.write(lambda db: db.execute("update execution set outcome = 1 where id = ?", (execution,)))


def test_a_dependent_waits_for_all_its_prerequisites(store: Store) -> None:
    first, second = add(store), add(store)
    child = add(store, first, second)
    run(store, first)
    assert state(store, child) is TaskState.WAITING
    run(store, second)
    assert state(store, child) is TaskState.PENDING
    assert state(store, add(store, first)) is TaskState.PENDING
    sound(store)


@pytest.mark.promise("core 11.8")
def test_a_bad_end_blocks_dependents_transitively_and_says_why(store: Store) -> None:
    root = add(store, name="align s07")
    middle = add(store, root)
    leaf = add(store, middle)
    run(store, root, Outcome.FAILED)
    assert state(store, middle) is state(store, leaf) is TaskState.BLOCKED
    assert listing.get(store.reader(), leaf).reason == "1 'align s07' failed"
    late = add(store, leaf)
    assert (state(store, late), listing.get(store.reader(), late).reason) == (TaskState.BLOCKED, "1 'align s07' failed")
    sound(store)


def test_relaunching_the_culprit_frees_its_dependents_but_not_those_of_another(store: Store) -> None:
    bad, worse = add(store), add(store)
    only_bad = add(store, bad)
    both = add(store, bad, worse)
    leaf = add(store, only_bad)
    for id in (bad, worse):
        run(store, id, Outcome.FAILED)
    store.write(lambda db: tasks.relaunch(db, 9, bad))
    assert state(store, bad) is TaskState.PENDING
    assert state(store, only_bad) is state(store, leaf) is TaskState.WAITING
    assert state(store, both) is TaskState.BLOCKED
    sound(store)
    run(store, bad)
    assert state(store, only_bad) is TaskState.PENDING
    sound(store)


def test_a_blocked_task_cannot_be_relaunched_and_the_error_names_the_culprit(store: Store) -> None:
    root = add(store, name="root")
    child = add(store, root)
    run(store, root, Outcome.FAILED)
    with pytest.raises(IllegalMove, match=r"blocked: 1 'root' failed\. Relaunch that one"):
        store.write(lambda db: tasks.relaunch(db, 9, child))


def test_relaunching_a_success_makes_dependents_wait_again(store: Store) -> None:
    parent = add(store)
    child = add(store, parent)
    grandchild = add(store, child)
    run(store, parent)
    store.write(lambda db: tasks.relaunch(db, 9, parent))
    assert state(store, child) is TaskState.WAITING
    sound(store)
    run(store, parent)
    assert state(store, child) is TaskState.PENDING
    run(store, child)
    assert state(store, grandchild) is TaskState.PENDING
    sound(store)


def test_a_retry_waits_for_a_prerequisite_that_was_relaunched_meanwhile(store: Store) -> None:
    parent = add(store)
    child = add(store, parent, retry=1)
    run(store, parent)
    (execution,) = begin(store, child)
    store.write(lambda db: tasks.relaunch(db, 9, parent))
    end(store, execution, Outcome.FAILED)
    assert state(store, child) is TaskState.WAITING
    sound(store)
    run(store, parent)
    assert state(store, child) is TaskState.PENDING
    sound(store)


def test_a_failure_is_retried_after_its_delay_and_not_before(store: Store) -> None:
    id = add(store, retry=1)
    run(store, id, Outcome.FAILED)
    assert state(store, id) is TaskState.PENDING
    assert listing.pending(store.reader(), 10) == []
    due = executions.glance(store.reader()).due_ms
    assert due == 3 + 1000
    assert store.write(lambda db: tasks.release_due(db, due - 1)) == 0
    assert store.write(lambda db: tasks.release_due(db, due)) == 1
    assert [task.id for task in listing.pending(store.reader(), 10)] == [id]
    run(store, id, Outcome.FAILED)
    assert state(store, id) is TaskState.FAILED
    assert [attempt.attempt for attempt in executions.of_task(store.reader(), id)] == [1, 2]


def test_cancelling_what_no_worker_has_is_immediate_and_blocks_dependents(store: Store) -> None:
    id = add(store)
    child = add(store, id)
    assert store.write(lambda db: tasks.cancel(db, 9, id)) is TaskState.CANCELLED
    assert state(store, child) is TaskState.BLOCKED
    store.write(lambda db: tasks.relaunch(db, 9, id))
    assert (state(store, id), state(store, child)) == (TaskState.PENDING, TaskState.WAITING)
    sound(store)


@pytest.mark.promise("core 11.7")
def test_cancelling_a_running_task_marks_the_wish_and_its_end_is_not_retried(store: Store) -> None:
    id = add(store, retry=5)
    (execution,) = begin(store, id)
    assert store.write(lambda db: tasks.cancel(db, 9, id)) is TaskState.ASSIGNED
    assert executions.wishes(store.reader(), WorkerId(1)) == {execution: Wanted.STOPPED}
    end(store, execution, Outcome.CANCELLED)
    assert state(store, id) is TaskState.CANCELLED
    assert executions.wishes(store.reader(), WorkerId(1)) == {}
    sound(store)


def test_an_update_is_refused_once_launched_and_history_keeps_what_ran(store: Store) -> None:
    id = add(store, command="old")
    (execution,) = begin(store, id)
    store.write(lambda db: executions.started(db, execution, 4))
    with pytest.raises(IllegalMove, match="already launched"):
        store.write(lambda db: tasks.update(db, 9, id, {"command": "new"}))
    end(store, execution, Outcome.FAILED)
    failed_ms = listing.get(store.reader(), id).changed_ms
    store.write(lambda db: tasks.update(db, 99, id, {"command": "new"}, name="n", priority=2))
    assert listing.get(store.reader(), id).spec.command == "new"
    assert listing.get(store.reader(), id).changed_ms == failed_ms < 99  # it has been failed since
    kept = store.reader().execute("select spec ->> '$.command' from execution").fetchall()
    assert kept == [("old",)]


def test_an_edit_of_an_assigned_task_is_made_when_the_worker_gives_it_back(store: Store) -> None:
    id = add(store, command="old")
    (execution,) = begin(store, id)
    assert not store.write(lambda db: tasks.update(db, 9, id, {"command": "new"}, name="n"))
    assert not store.write(lambda db: tasks.update(db, 9, id, {"retry": 3}, priority=4))
    assert executions.wishes(store.reader(), WorkerId(1)) == {execution: Wanted.RECALLED}
    end(store, execution, Outcome.RECALLED)
    row = listing.get(store.reader(), id)
    assert (row.spec.command, row.spec.retry, row.name, row.priority) == ("new", 3, "n", 4)
    assert (row.state, row.tries, listing.edit_pending(store.reader(), id)) == (TaskState.PENDING, 0, False)
    sound(store)


def test_an_edit_that_came_too_late_is_dropped(store: Store) -> None:
    id = add(store, command="old")
    (execution,) = begin(store, id)
    store.write(lambda db: tasks.update(db, 9, id, {"command": "new"}))
    store.write(lambda db: executions.started(db, execution, 4))
    assert (listing.get(store.reader(), id).spec.command, listing.edit_pending(store.reader(), id)) == ("old", False)
    assert executions.wishes(store.reader(), WorkerId(1)) == {}


def test_a_pause_holds_a_task_wherever_it_is(store: Store) -> None:
    pending, assigned, running = add(store), add(store), add(store)
    first, second = begin(store, assigned, running)
    store.write(lambda db: executions.started(db, second, 4))
    for id in (pending, assigned, running):
        store.write(lambda db, id=id: tasks.pause(db, 5, id))  # type: ignore[misc]
    assert executions.wishes(store.reader(), WorkerId(1)) == {first: Wanted.RECALLED, second: Wanted.SUSPENDED}
    end(store, first, Outcome.RECALLED)
    assert [state(store, id) for id in (pending, assigned, running)] == [
        TaskState.PAUSED, TaskState.PAUSED, TaskState.RUNNING,
    ]  # fmt: skip
    for id in (pending, assigned, running):
        store.write(lambda db, id=id: tasks.resume(db, 6, id))  # type: ignore[misc]
    assert [state(store, id) for id in (pending, assigned)] == [TaskState.PENDING] * 2
    assert executions.wishes(store.reader(), WorkerId(1)) == {second: Wanted.RESUMED}
    sound(store)


def test_a_paused_task_keeps_count_of_its_prerequisites(store: Store) -> None:
    parent = add(store)
    child = add(store, parent)
    store.write(lambda db: tasks.pause(db, 5, child))
    run(store, parent)
    assert state(store, child) is TaskState.PAUSED
    sound(store)
    store.write(lambda db: tasks.resume(db, 6, child))
    assert state(store, child) is TaskState.PENDING


def test_a_paused_batch_is_passed_over_and_a_suspended_one_stopped(store: Store) -> None:
    def submit(batch: str, priority: int = 0) -> TaskId:
        def write(db: apsw.Connection) -> TaskId:
            rows = [(None, tasks.batch_id(db, batch), priority, listing.spec_text(Spec("true")), 0)]
            return TaskId(tasks.add_many(db, 1, rows, None)[0])

        return store.write(write)

    a, b, urgent, c = submit("a"), submit("b"), submit("b", 7), submit("a")
    assert [task.id for task in listing.pending(store.reader(), 10)] == [urgent, a, b, c]
    (held, launched) = begin(store, a, c)
    store.write(lambda db: executions.started(db, launched, 4))
    assert store.write(lambda db: batches.halt(db, 5, "a", Halt.PAUSED)) == 1
    assert executions.wishes(store.reader(), WorkerId(1)) == {held: Wanted.RECALLED}
    end(store, held, Outcome.RECALLED)
    assert [task.id for task in listing.pending(store.reader(), 10)] == [urgent, b]
    assert store.write(lambda db: batches.halt(db, 5, "a", Halt.SUSPENDED)) == 1
    assert executions.wishes(store.reader(), WorkerId(1)) == {launched: Wanted.SUSPENDED}
    assert store.write(lambda db: batches.halt(db, 5, "a", Halt.PAUSED)) == 1
    assert executions.wishes(store.reader(), WorkerId(1)) == {launched: Wanted.RESUMED}
    assert [task.id for task in listing.pending(store.reader(), 10)] == [urgent, b]
    assert store.write(lambda db: batches.halt(db, 5, "a", Halt.SUSPENDED)) == 1
    assert store.write(lambda db: batches.halt(db, 5, "a", Halt.GO)) == 1
    assert executions.wishes(store.reader(), WorkerId(1)) == {launched: Wanted.RESUMED}
    assert [task.id for task in listing.pending(store.reader(), 10)] == [urgent, a, b]


def test_a_task_that_its_batch_stops_too_is_not_resumed_alone(store: Store) -> None:
    id = add(store)
    (execution,) = begin(store, id)
    store.write(lambda db: executions.started(db, execution, 4))
    store.write(lambda db: batches.halt(db, 5, "default", Halt.SUSPENDED))
    store.write(lambda db: tasks.pause(db, 6, id))
    store.write(lambda db: tasks.resume(db, 7, id))
    assert executions.wishes(store.reader(), WorkerId(1)) == {execution: Wanted.SUSPENDED}
    store.write(lambda db: batches.halt(db, 8, "default", Halt.GO))
    assert executions.wishes(store.reader(), WorkerId(1)) == {execution: Wanted.RESUMED}


def test_a_launch_that_crossed_a_pause_is_stopped_where_it_is(store: Store) -> None:
    id = add(store)
    (execution,) = begin(store, id)
    store.write(lambda db: tasks.pause(db, 5, id))
    store.write(lambda db: executions.started(db, execution, 6))
    assert executions.wishes(store.reader(), WorkerId(1)) == {execution: Wanted.SUSPENDED}


@pytest.mark.promise("core 11.8")
def test_deleting_takes_history_with_it_but_nothing_that_is_needed(store: Store) -> None:
    parent, done = add(store), add(store)
    child = add(store, parent, done)
    run(store, done)
    with pytest.raises(IllegalMove, match="requires"):
        store.write(lambda db: tasks.delete(db, 9, [parent]))
    (execution,) = begin(store, parent)
    with pytest.raises(IllegalMove, match="on a worker"):
        store.write(lambda db: tasks.delete(db, 9, [parent, child]))
    end(store, execution, Outcome.FAILED)
    assert store.write(lambda db: tasks.delete(db, 9, [done])) != []
    sound(store)
    store.write(lambda db: tasks.delete(db, 9, [parent, child]))
    assert listing.counts(store.reader()) == {}
    sound(store)
    assert add(store) > child


@pytest.mark.promise("core 11.8")
def test_requirements_can_be_replaced_and_never_make_a_cycle(store: Store) -> None:
    bad, good = add(store), add(store)
    child = add(store, bad)
    run(store, bad, Outcome.FAILED)
    assert state(store, child) is TaskState.BLOCKED
    store.write(lambda db: tasks.update(db, 9, child, {}, requires=[good]))
    assert state(store, child) is TaskState.WAITING
    sound(store)
    with pytest.raises(IllegalMove, match="only require older"):
        store.write(lambda db: tasks.update(db, 9, good, {}, requires=[child]))
    with pytest.raises(IllegalMove, match="only require older"):
        store.write(lambda db: tasks.update(db, 9, good, {}, requires=[good]))


@pytest.mark.promise("core 11.8")
def test_an_unknown_prerequisite_queues_nothing(store: Store) -> None:
    with pytest.raises(UnknownTask, match="no task 41"):
        add(store, 41)
    assert listing.counts(store.reader()) == {}


@pytest.mark.promise("core 11.17")
def test_a_wide_join_stays_linear_and_a_wide_fan_out_is_released_at_once(store: Store) -> None:
    """One task on 20,000, and 20,000 on one: the work per end does not grow with the width (it is counted in VM steps)."""
    text = listing.spec_text(Spec("true"))

    def steps(width: int) -> int:
        ids = store.write(lambda db: tasks.add_many(db, 1, [(None, tasks.batch_id(db, "d"), 0, text, 0)] * width, None))
        child = add(store, *ids)
        first = begin(store, TaskId(ids[0]))[0]
        total = 0

        def count() -> bool:
            nonlocal total
            total += 1
            return False

        def finish(db: apsw.Connection) -> None:
            db.set_progress_handler(count, 10)
            executions.finish(db, 3, first, Outcome.SUCCEEDED, Stage.RUN, None)
            db.set_progress_handler(None, 0)

        store.write(finish)
        assert state(store, child) is TaskState.WAITING
        return total

    assert steps(20_000) <= 2 * steps(20) + 10
    root = add(store)
    store.write(lambda db: tasks.add_many(db, 1, [(None, BatchId(1), 0, text, 0)] * 20_000, None, [[root]] * 20_000))
    run(store, root)
    sound(store)


def test_the_end_waits_for_every_announced_byte_of_the_log(store: Store) -> None:
    id = add(store)
    (execution,) = begin(store, id)
    big = Exit(execution, 0, None, None, None, None, b"", 50_000, 0, False, False, False, 1.0, 0.5, 1 << 20)
    assert not store.write(lambda db: executions.exited(db, 5, big))
    assert state(store, id) is TaskState.COLLECTING
    assert executions.logs_due(store.reader(), WorkerId(1)) == {execution: {0: 50_000}}
    assert store.write(lambda db: executions.log_arrived(db, 6, execution))
    assert state(store, id) is TaskState.SUCCEEDED
    assert not store.write(lambda db: executions.exited(db, 7, big))
    assert check(store.reader(), store.side) == [f"the log {execution}.out of execution {execution} is missing"]


def test_the_journal_tells_a_task_s_whole_way(store: Store) -> None:
    id = add(store)
    (execution,) = begin(store, id)
    store.write(lambda db: executions.started(db, execution, 4))
    end(store, execution)
    moves = [
        (event.src, event.dst)
        for event in journal.since(store.reader(), 0)
        if event.task == id and event.dst is not None
    ]
    assert moves == [
        (TaskState.PENDING, TaskState.ASSIGNED),
        (TaskState.ASSIGNED, TaskState.RUNNING),
        (TaskState.RUNNING, TaskState.SUCCEEDED),
    ]


def test_names_find_the_task_that_counts(store: Store) -> None:
    old = add(store, name="x")
    run(store, old)
    new = add(store, name="x")
    assert listing.find(store.reader(), "x") == new
    add(store, name="x")
    with pytest.raises(UnknownTask, match="2 tasks are named"):
        listing.find(store.reader(), "x")
    with pytest.raises(UnknownTask, match="no task is named"):
        listing.find(store.reader(), "y")


def test_lists_by_state_and_batch_are_what_a_look_at_every_task_finds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every state, three batches, one with more ranks than the index is searched for; pages of three."""
    monkeypatch.setattr(listing, "PAGE", 3)
    monkeypatch.setattr(listing, "RANKS", 4)
    dice = random.Random(7)

    def fill(db: apsw.Connection) -> None:
        spread = {"one rank": 1, "some": 3, "many": 50}
        need = tasks.need_id(db, Need(cpus=2.0))
        for _ in range(60):
            batch = dice.choice(list(spread))
            kind = need if batch != "one rank" and dice.random() < 0.3 else 0
            text = listing.spec_text(Spec("true", cpus=2.0 if kind else None, retry=1, retry_delay=900))
            row = (None, tasks.batch_id(db, batch), dice.randrange(spread[batch]), text, kind)
            tasks.add_many(db, 1, [row], None, [[]])

    store.write(fill)
    for id in map(TaskId, range(1, 46)):
        match id % 9:
            case 0:
                store.write(partial(tasks.pause, now_ms=2, task=id))
            case 1 | 2:
                begin(store, id)
            case 3:
                store.write(partial(executions.started, execution=begin(store, id)[0], at_ms=2))
            case 4 | 5:
                run(store, id)
            case 6:
                run(store, id, Outcome.FAILED)  # waits for its retry
            case 7:
                store.write(partial(tasks.cancel, now_ms=2, task=id))
    child = add(store, 45)
    everything = listing.select(store.reader(), limit=1000)
    assert len(everything) == 61 and {row.state for row in everything} >= {TaskState.PAUSED, TaskState.WAITING, *LIVE} - {
        TaskState.COLLECTING, TaskState.STAGING
    }  # fmt: skip
    assert everything[-1].id == child

    for states in (None, [TaskState.PENDING], [TaskState.SUCCEEDED], [*LIVE], list(TaskState), [TaskState.WAITING]):
        for batch in (None, "one rank", "some", "many", "default", "nobody's"):
            for newest_first in (False, True):
                for after, limit in ((0, 1000), (20, 1000), (0, 4), (30, 2)):
                    rows = [
                        row
                        for row in (reversed(everything) if newest_first else everything)
                        if row.id > after
                        and row.batch == (batch or row.batch)
                        and (states is None or row.state in states)
                    ]
                    found = listing.select(
                        store.reader(), states=states, batch=batch, after=after, newest_first=newest_first, limit=limit
                    )
                    assert found == rows[:limit]


def test_a_bulk_insert_counts_as_single_ones_do_and_leaves_the_guards_up(store: Store) -> None:
    text = listing.spec_text(Spec("true"))

    def bulk(db: apsw.Connection) -> range:
        one, two = tasks.batch_id(db, "one"), tasks.batch_id(db, "two")
        rows = [(None, one if n % 3 else two, 0, text, 0) for n in range(tasks.BULK_FROM)]
        return tasks.add_many(db, 1, rows, None)

    ids = store.write(bulk)
    assert listing.counts(store.reader(), "two") == {TaskState.PENDING: (tasks.BULK_FROM + 2) // 3}
    sound(store)
    move = f"update task set state = {int(TaskState.RUNNING)} where id = ?"
    with pytest.raises(apsw.ConstraintError, match="illegal move"):
        store.write(lambda db: db.execute(move, (ids[0],)))
    with pytest.raises(apsw.ConstraintError, match="illegal move"):
        store.write(lambda db: (bulk(db), db.execute(move, (ids[0],))))
    sound(store)


def test_a_bulk_insert_keeps_the_order_and_every_spec_to_the_letter(store: Store) -> None:
    odd = ("echo 'a' \"b\" \\\\ $HOME", "tab\there", "naïve ☃ \U0001f600", "lone \udcff", "/* no comment */", "]},[{")
    specs = [
        Spec(
            ["printf", f"{n}", odd[n % len(odd)]],
            env={odd[n % len(odd)][:3]: "x"},
            retry_delay=n / 7 + 1e-12,
            run_timeout=1e9,
        )
        for n in range(2 * tasks.ALIKE)
    ]
    specs[700] = Spec("x" * tasks.ALIKE_CHARACTERS)  # in a statement of its own kind

    def bulk(db: apsw.Connection) -> range:
        tasks.batch_id(db, "one")
        # Long runs of tasks that are alike, and some that are not.
        rows: list[tuple[str | None, BatchId, int, str, int]] = [
            (f"n{n}" if 300 < n < 400 else None, BatchId(1), int(n > 1500), listing.spec_text(spec), 0)
            for n, spec in enumerate(specs)
        ]
        return tasks.add_many(db, 5, rows, None)

    ids = store.write(bulk)
    found = [
        row
        for at in range(0, len(specs), 1000)
        for row in listing.select(store.reader(), after=ids[0] - 1 + at, limit=1000)
    ]
    assert [row.id for row in found] == list(ids)
    assert [row.spec for row in found] == specs
    texts = store.reader().execute("select spec from task order by id").fetchall()
    assert [text for (text,) in texts] == [listing.spec_text(spec) for spec in specs]
    assert [row.name for row in found] == [f"n{n}" if 300 < n < 400 else None for n in range(len(specs))]
    assert [row.priority for row in found] == [int(n > 1500) for n in range(len(specs))]
    assert {(row.created_ms, row.changed_ms, row.unmet, row.state) for row in found} == {(5, 5, 0, TaskState.PENDING)}
    sound(store)


def test_an_edit_does_not_outlive_a_cancel(store: Store) -> None:
    id = add(store, command="old")
    (execution,) = begin(store, id)
    store.write(lambda db: tasks.update(db, 9, id, {"command": "stale"}))
    store.write(lambda db: tasks.cancel(db, 9, id))
    with pytest.raises(IllegalMove, match="being cancelled"):
        store.write(lambda db: tasks.update(db, 9, id, {"command": "later"}))
    end(store, execution, Outcome.CANCELLED)
    assert not listing.edit_pending(store.reader(), id)
    assert listing.get(store.reader(), id).spec.command == "old"


def test_a_number_that_an_agent_has_seen_is_never_given_again(store: Store) -> None:
    store.write(lambda db: executions.reserve(db, 41))
    assert begin(store, add(store)) == [42]
    store.write(lambda db: executions.reserve(db, 7))
    assert begin(store, add(store)) == [43]


def test_kinds_of_requests_without_pending_tasks_cost_nothing(store: Store) -> None:
    def ask(memory: int) -> TaskId:
        def write(db: apsw.Connection) -> TaskId:
            spec = Spec("true", memory=memory)
            row = (None, tasks.batch_id(db, "d"), 0, listing.spec_text(spec), tasks.need_id(db, spec.need))
            return TaskId(tasks.add_many(db, 1, [row], None)[0])

        return store.write(write)

    ids = [ask(memory) for memory in (5, 3, 5, 4)]
    plain = add(store)
    assert [task.id for task in listing.pending(store.reader(), 9)] == sorted([*ids, plain])
    for id in ids[1:]:
        store.write(lambda db, id=id: tasks.cancel(db, 2, id))  # type: ignore[misc]
    found = listing.pending(store.reader(), 9)
    assert [(task.id, task.need and task.need.memory) for task in found] == [(ids[0], 5), (plain, None)]


def test_requirements_of_many_new_tasks_are_those_of_single_ones(tmp_path: Path) -> None:
    text = listing.spec_text(Spec("true"))

    def submit(db: apsw.Connection, sizes: list[int]) -> None:
        batch = [tasks.batch_id(db, name) for name in ("one", "two")]
        first = tasks.add_many(db, 1, [(None, batch[0], 0, text, 0)] * 3, None)
        done, failed, _ = first
        db.execute(f"update task set state = {int(TaskState.SUCCEEDED)} where id = ?", (done,))
        tasks.cancel(db, 1, TaskId(failed))
        total = sum(sizes)
        requires: list[list[int]] = []
        for n in range(total):
            id = first.stop + n
            wanted = (
                {done}
                if n % 5 == 0
                else {first.stop - 1, id - 1, id - 1}
                if n % 7
                else {failed}
                if n % 11 == 0
                else set()
            )
            requires.append(sorted(parent for parent in wanted if parent < id))
        at = 0
        for size in sizes:
            tasks.add_many(
                db, 1, [(None, batch[n % 2], 0, text, 0) for n in range(at, at + size)], None, requires[at : at + size]
            )
            at += size

    found = []
    for name, sizes in (("many", [tasks.BULK_FROM + 100]), ("few", [100] * (tasks.BULK_FROM // 100 + 1))):
        with Store.open(tmp_path / f"{name}.scitq", SCHEMA) as store:
            store.write(lambda db, sizes=sizes: submit(db, sizes))  # type: ignore[misc]
            # But for the success that nothing led to.
            assert check(store.reader(), store.side) == ["task 1 has succeeded, but its last execution has not"]
            rows = query.rows(store.reader(), "select id, state, unmet, batch, reason from task order by id")
            found.append((rows, query.rows(store.reader(), "select * from counter order by batch, state")))
    assert found[0] == found[1]
    assert {state for _, state, *_ in found[0][0]} == {
        TaskState.PENDING, TaskState.WAITING, TaskState.BLOCKED, TaskState.SUCCEEDED, TaskState.CANCELLED,
    }  # fmt: skip


def test_of_many_new_tasks_none_requires_one_that_is_not_there(store: Store) -> None:
    text = listing.spec_text(Spec("true"))

    def submit(db: apsw.Connection, missing: int) -> range:
        batch = tasks.batch_id(db, "one")
        rows = [(None, batch, 0, text, 0)] * tasks.BULK_FROM
        return tasks.add_many(db, 1, rows, None, [[]] * (tasks.BULK_FROM - 1) + [[missing]])

    for missing in (1 << 40, -1):
        with pytest.raises(UnknownTask, match="to require"):
            store.write(lambda db, missing=missing: submit(db, missing))  # type: ignore[misc]
    assert listing.counts(store.reader()) == {}
