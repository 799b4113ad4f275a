"""Old history goes when it is asked to, and only what nobody needs; backups and vacuum come by themselves."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import BadInput, StateFileMoved, UnknownTask
from scitq.states import Outcome, Stage, TaskState
from scitq.store import executions, keep, listing, logs, query, sweeping, workers
from scitq.store.keep import DAY_S, Purged, purge, when_idle
from scitq.task import Assignment, TaskId
from scitq.worker import WorkerId
from tests.store.small import until

OLD_MS = int((time.time() - 10 * DAY_S) * 1000)


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    with scitq.open(state_file, drive=False) as opened:
        opened._write(lambda db: workers.ensure(db, OLD_MS, "local", "local", 2))
        yield opened


def run(
    engine: Engine, task: int, outcome: Outcome = Outcome.SUCCEEDED, at_ms: int = OLD_MS, log: bytes | None = None
) -> int:
    """Let a task have run, and ended at that time; a given log is a file in the side folder."""

    def write(db: apsw.Connection) -> int:
        order = executions.begin(db, at_ms, [Assignment(TaskId(task), WorkerId(1))])[0]
        logs.keep(db, order.execution, logs.OUT, None if log else b"out", len(log or b"out"), False)
        executions.finish(db, at_ms, order.execution, outcome, Stage.RUN, None)
        return order.execution

    execution = engine._write(write)
    if log is not None:
        path = logs.path(engine.side, execution, logs.OUT)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(log)
    return execution


def age_journal(engine: Engine) -> None:
    """What was noted just now was noted long ago."""

    def write(db: apsw.Connection) -> None:
        text = query.one(db, "select sql from sqlite_schema where name = 'journal_frozen'")[0]
        db.execute("drop trigger journal_frozen")
        db.execute("update journal set at = ?", (OLD_MS,))
        db.execute(text)

    engine._write(write)


def left(engine: Engine) -> list[int]:
    return [row["id"] for row in engine.sql("select id from tasks order by id")]


def test_old_ended_tasks_go_with_their_history(engine: Engine) -> None:
    old, failed, young, queued = (engine.submit(["echo", str(n)]).id for n in range(4))
    execution = run(engine, old, log=b"x" * 100)
    run(engine, failed, Outcome.FAILED)
    run(engine, young, at_ms=OLD_MS + int(9 * DAY_S * 1000))
    age_journal(engine)
    path = logs.path(engine.side, execution, logs.OUT)

    would = engine.purge(5, dry_run=True)
    assert left(engine) == [old, failed, young, queued]
    assert path.exists()
    did = engine.purge(5)

    assert would == did
    assert (did.tasks, did.executions, did.logs, did.log_bytes) == (2, 2, 1, 100)
    assert left(engine) == [young, queued]
    assert not path.exists()
    assert engine.sql("select distinct task from journal where task is not null") == [{"task": young}, {"task": queued}]
    assert engine.sql("select id from log") == [{"id": 2 * 3}]
    assert engine.journal()[-1].data["purged"] == 2
    assert engine.check() == []
    with pytest.raises(UnknownTask):
        engine.task(old)
    assert not engine.purge(5)


def test_failed_tasks_can_be_kept(engine: Engine) -> None:
    good, bad = engine.submit("true").id, engine.submit("false").id
    run(engine, good)
    run(engine, bad, Outcome.FAILED)

    assert engine.purge(5, keep_failed=True).tasks == 1

    assert left(engine) == [bad]
    assert [entry.task for entry in engine.journal() if entry.dst is TaskState.FAILED] == [bad]


def test_what_something_unfinished_requires_is_kept(engine: Engine) -> None:
    first = engine.submit("true")
    second = engine.submit("true", requires=first)
    other = engine.submit("true")
    waiting = engine.submit("true", requires=[second, other])
    run(engine, first.id)
    run(engine, second.id)

    assert engine.purge(5).tasks == 1

    # Its prerequisite is needed; that one's own has done its part.
    assert left(engine) == [second.id, other.id, waiting.id]
    assert engine.check() == []


def test_a_failure_is_kept_as_long_as_what_it_blocks_could_be_relaunched(engine: Engine) -> None:
    bad = engine.submit("false")
    child = engine.submit("true", requires=bad)
    run(engine, bad.id, Outcome.FAILED)
    assert child.state is TaskState.BLOCKED
    assert not engine.purge(5)

    child.cancel()  # just now
    assert not engine.purge(5).tasks
    assert engine.purge(5, dry_run=True) == Purged()
    later = purge(engine._store, 5, now_s=time.time() + 6 * DAY_S)

    assert later.tasks == 2
    assert left(engine) == []


def test_a_new_dependent_saves_a_task_that_was_chosen_already(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine.submit("true")
    run(engine, first.id)
    real = keep._needed

    def slow(db: apsw.Connection, chosen: keep._Chosen) -> set[int]:
        found = real(db, chosen)
        engine.submit("true", requires=first)
        return found

    monkeypatch.setattr(keep, "_needed", slow)

    assert engine.purge(5).tasks == 0
    assert first.id in left(engine)


def test_relaunched_tasks_stay_sound_when_the_old_journal_goes(engine: Engine) -> None:
    task = engine.submit("true")
    run(engine, task.id)
    task.relaunch()
    age_journal(engine)
    run(engine, task.id, at_ms=OLD_MS + int(9 * DAY_S * 1000))

    engine.purge(5)

    assert left(engine) == [task.id]
    assert engine.check() == []


def test_numbers_are_never_given_out_twice(engine: Engine) -> None:
    old = engine.submit("true")
    run(engine, old.id)
    age_journal(engine)
    before = engine.journal()[-1].id

    purge(engine._store, 0, now_s=time.time() + DAY_S)

    assert engine.submit("true").id > old.id
    assert all(entry.id >= before for entry in engine.journal())


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_days_must_be_days(engine: Engine, days: float) -> None:
    with pytest.raises(BadInput, match="no number of days"):
        engine.purge(days)


def test_random_histories_are_purged_as_foretold(state_file: Path) -> None:
    """A dry run tells exactly what happens; what is left is sound, and nothing unfinished lost what it requires."""
    seed = int(os.environ.get("SCITQ_SEED", "1"))
    chance = random.Random(seed)
    for n in range(12):
        path = state_file.with_name(f"lab{n}.scitq")
        with scitq.open(path, drive=False) as engine, pytest.MonkeyPatch.context() as patch:
            patch.setattr(keep, "SLICE", 7)
            engine._write(lambda db: workers.ensure(db, OLD_MS, "local", "local", 2))
            ids: list[int] = []
            for _ in range(40):
                parents = chance.sample(ids, min(len(ids), chance.choice([0, 0, 1, 2])))
                ids.append(engine.submit("true", requires=parents).id)
                for id in chance.sample(ids, 2 if len(ids) > 1 else 1):
                    if listing.state_of(engine._reader(), TaskId(id)) is TaskState.PENDING and chance.random() < 0.7:
                        outcome = chance.choice([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED])
                        log = b"log" if chance.random() < 0.3 else None
                        run(engine, id, outcome, OLD_MS + chance.choice([0, int(9 * DAY_S * 1000)]), log)
            if chance.random() < 0.5:
                age_journal(engine)
            kept = chance.random() < 0.3
            unmet = engine.sql(
                "select id, unmet_requirements, state from tasks where state in ('waiting', 'blocked', 'pending')"
            )
            needed = engine.sql(
                "select distinct parent from requirement join tasks on tasks.id = child where state in ('waiting', 'blocked', 'pending')"
            )

            would = engine.purge(5, keep_failed=kept, dry_run=True)
            did = engine.purge(5, keep_failed=kept)

            assert did == would, seed
            assert len(left(engine)) == 40 - did.tasks
            assert {row["parent"] for row in needed} <= set(left(engine))
            assert (
                engine.sql(
                    "select id, unmet_requirements, state from tasks where state in ('waiting', 'blocked', 'pending')"
                )
                == unmet
            )
            assert engine.check() == []


def test_writers_get_their_turn_while_much_is_purged(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "SLICE", 10)
    ids = list(range(1, 61))
    engine.submit_many(["true"] * 60)
    for id in ids:
        run(engine, id)
    slices: list[int] = []
    real = keep._delete

    def watched(db: apsw.Connection, chosen: keep._Chosen, wanted: str, side: Path | None) -> object:
        slices.append(len(query.rows(db, "select id from task")))
        return real(db, chosen, wanted, side)

    monkeypatch.setattr(keep, "_delete", watched)

    assert engine.purge(5).tasks == 60
    assert slices == [60, 50, 40, 30, 20, 10]


# --- by itself ----------------------------------------------------------------------------------------------------------------


def settle(engine: Engine) -> None:
    """Wait for the thread that when_idle has started."""
    thread = keep._chores[engine._store].thread
    if thread is not None:
        thread.join(30)
        assert not thread.is_alive()


def test_a_backup_is_made_once_a_day_and_seven_are_kept(engine: Engine) -> None:
    engine.submit("true")
    now = time.time()
    store = engine._store
    when_idle(store, now)
    settle(engine)
    assert keep.backups(store) == []  # the file is of today

    for day in range(1, 12):
        engine.submit("true")
        at = now + day * DAY_S + day
        os.utime(f"{engine.path}-wal", (at, at))
        for minute in range(0, 60, 5):
            when_idle(store, at + 60 * minute)
            settle(engine)

    found = keep.backups(store)
    assert len(found) == 7
    with scitq.open(found[-1], drive=False) as copy:
        assert copy.counts() == {TaskState.PENDING: 12}


def test_no_backup_of_what_has_not_changed(engine: Engine) -> None:
    engine.submit("true")
    now = time.time() + 2 * DAY_S
    assert keep.backup_is_due(engine._store, now)
    keep.daily_backup(engine._store, now)

    assert not keep.backup_is_due(engine._store, now + 2 * DAY_S)
    os.utime(engine.path, (now + 3 * DAY_S, now + 3 * DAY_S))
    assert keep.backup_is_due(engine._store, now + 3 * DAY_S)
    # A clock that was set back does not put backups off for a year.
    assert keep.backup_is_due(engine._store, now - 300 * DAY_S)


def test_no_backup_on_a_disk_that_is_nearly_full(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        f_bavail = 1
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    engine.submit("true")
    now = time.time() + 2 * DAY_S
    with caplog.at_level(logging.WARNING):
        for hour in range(6):
            when_idle(engine._store, now + 3600 * hour)
            settle(engine)

    assert keep.backups(engine._store) == []
    assert len([record for record in caplog.records if "nearly full" in record.message]) == 1


def test_looking_for_chores_is_cheap_and_says_when_to_come_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    assert when_idle(engine._store, now) == keep.LOOK_S
    settle(engine)

    def refuse(*_: object) -> bool:
        raise AssertionError("it was asked a moment ago")

    monkeypatch.setattr(keep, "backup_is_due", refuse)
    assert when_idle(engine._store, now + 1) == pytest.approx(keep.LOOK_S - 1)
    monkeypatch.undo()
    assert when_idle(engine._store, now - 40 * DAY_S) == keep.LOOK_S  # the clock was set back


def test_free_pages_go_back_to_the_disk(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "VACUUM_FROM", 10)
    monkeypatch.setattr(keep, "VACUUM_PAGES", 50)
    engine.submit_many([["echo", "x" * 2000]] * 400)
    engine._write(lambda db: db.execute("delete from task"))
    assert keep.free_pages(engine._reader()) > 100

    when_idle(engine._store, time.time())
    settle(engine)

    assert keep.free_pages(engine._reader()) < 10
    assert engine.check() == []


def test_vacuum_stops_when_there_is_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "VACUUM_FROM", 10)
    monkeypatch.setattr(keep, "VACUUM_PAGES", 20)
    engine.submit_many([["echo", "x" * 2000]] * 400)
    engine._write(lambda db: db.execute("delete from task"))
    real = keep.free_pages

    def busy(db: apsw.Connection) -> int:
        engine.submit("true")
        return real(db)

    monkeypatch.setattr(keep, "free_pages", busy)

    assert 0 < keep.vacuum(engine._store) <= 21


def test_logs_without_an_execution_are_swept(engine: Engine) -> None:
    known = run(engine, engine.submit("true").id, log=b"known")
    folder = engine.side / "logs"
    (folder / "99.out").write_bytes(b"orphan")
    (folder / "98.out.4.part").write_bytes(b"on its way")
    (folder / "README").write_bytes(b"not ours")

    assert sweeping.sweep_logs(engine._store, time.time()) == 0  # too young: it may be on its way into the file
    assert sweeping.sweep_logs(engine._store, time.time() + 2 * DAY_S) == 1

    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{known}.out", "98.out.4.part", "README"])


def test_closing_does_not_wait_for_a_backup(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.submit_many([["echo", "x" * 1000]] * 5000)
    when_idle(engine._store, time.time() + 2 * DAY_S)
    thread = keep._chores[engine._store].thread
    assert thread is not None
    engine.close()

    until(lambda: not thread.is_alive())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [path.name for path in (engine.side / "backups").glob(".*")] == []


# --- the file itself ------------------------------------------------------------------------------------------------------------


def test_a_replaced_file_is_noticed(engine: Engine, tmp_path: Path) -> None:
    engine.submit("true")
    engine.backup(tmp_path / "other")
    os.replace(tmp_path / "other", engine.path)

    for _ in range(2):
        with pytest.raises(StateFileMoved, match="deleted, moved or replaced"):
            engine.submit("true")


def test_a_deleted_file_is_noticed(engine: Engine) -> None:
    engine.submit("true")
    engine.path.unlink()

    with pytest.raises(StateFileMoved):
        engine.submit("true")
    assert not engine.path.exists()


def test_a_file_that_is_put_back_goes_on(engine: Engine) -> None:
    engine.submit("true")
    away = engine.path.with_name("away")
    os.rename(engine.path, away)
    with pytest.raises(StateFileMoved):
        engine.submit("true")

    os.rename(away, engine.path)

    assert engine.submit("true").id == 2
