"""Rows of jobs and of workers elsewhere: one open job of a kind for a worker, moves in the journal, names that are given away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scitq.errors import NameTaken, UnknownJob
from scitq.events import EventKind
from scitq.states import JobState, WorkerState
from scitq.store import jobs, journal, workers
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA
from scitq.worker import WorkerId


@pytest.fixture
def store(state_file: Path) -> Iterator[Store]:
    with Store.open(state_file, SCHEMA) as store:
        yield store


def atlas(store: Store) -> WorkerId:
    return store.write(lambda db: workers.add(db, 1, "atlas", "ssh", "me@atlas", concurrency=16, settings={"nice": 5}))


def test_two_equal_wishes_are_one_job_until_it_ends(store: Store) -> None:
    worker = atlas(store)
    first = store.write(lambda db: jobs.add(db, 1, "clean", worker, {"all": True}))
    assert store.write(lambda db: jobs.add(db, 2, "clean", worker, {"now": True})) == first
    assert store.write(lambda db: jobs.add(db, 2, "restart", worker)) != first
    assert jobs.find(store.reader(), first).data == {"all": True, "now": True}
    store.write(lambda db: jobs.move(db, 3, first, JobState.RUNNING))
    store.write(lambda db: jobs.move(db, 4, first, JobState.SUCCEEDED))
    assert store.write(lambda db: jobs.add(db, 5, "clean", worker)) != first
    assert [job.kind for job in jobs.open_ones(store.reader())] == ["restart", "clean"]
    assert jobs.latest(store.reader()) == jobs.of_worker(store.reader(), worker)


def test_moves_of_a_job_are_in_the_journal_and_illegal_ones_impossible(store: Store) -> None:
    job = store.write(lambda db: jobs.add(db, 1, "prepare", None))
    for state in (JobState.RUNNING, JobState.FAILED, JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED):
        store.write(lambda db, state=state: jobs.move(db, 2, job, state, "why"))  # type: ignore[misc]
    with pytest.raises(apsw.ConstraintError, match="illegal move"):
        store.write(lambda db: jobs.move(db, 3, job, JobState.RUNNING))
    found = jobs.find(store.reader(), job)
    assert (found.tries, found.progress, found.ended_ms) == (2, 1.0, 2)
    moves = [event for event in journal.newest(store.reader(), 10) if event.kind is EventKind.JOB]
    assert [(event.data["from"], event.data["to"]) for event in moves] == [(0, 1), (1, 3), (3, 0), (0, 1), (1, 2)]


def test_a_job_tells_its_steps(store: Store) -> None:
    job = store.write(lambda db: jobs.add(db, 1, "prepare", None))
    for n in range(3):
        store.write(lambda db, n=n: jobs.say(db, job, f"step {n}", n / 3, f"{n} done"))  # type: ignore[misc]
    store.write(lambda db: jobs.say(db, job, "last", 1.0))
    store.write(lambda db: jobs.result(db, job, {"python": "3.11"}))
    found = jobs.find(store.reader(), job)
    assert (found.step, found.log, found.data) == ("last", "0 done\n1 done\n2 done\n", {"python": "3.11"})
    with pytest.raises(UnknownJob):
        jobs.find(store.reader(), 99)


def test_a_workers_name_is_free_again_once_it_has_gone(store: Store) -> None:
    old = atlas(store)
    with pytest.raises(NameTaken, match="--name"):
        atlas(store)
    store.write(lambda db: workers.move(db, 2, old, WorkerState.GONE))
    new = atlas(store)
    assert [row.id for row in workers.all_of(store.reader())] == [new]
    assert workers.find(store.reader(), int(old)).name == f"atlas #{old}"


def test_settings_and_the_link_of_a_worker_are_kept(store: Store) -> None:
    worker = atlas(store)
    store.write(lambda db: workers.settle(db, worker, {"nice": None, "hours": "22:00-07:00"}))
    store.write(lambda db: workers.linked(db, worker, {"how": "socket"}))
    store.write(lambda db: workers.silent(db, worker, 61_000))
    row = workers.find(store.reader(), "atlas")
    assert (row.address, row.settings, row.link["how"], row.silent_ms) == (
        "me@atlas",
        {"hours": "22:00-07:00"},
        "socket",
        61_000,
    )


def test_each_file_has_a_key_of_its_own(store: Store, tmp_path: Path) -> None:
    with Store.open(tmp_path / "other.scitq", SCHEMA) as other:
        keys = [each.reader().execute("select v from meta where k = 'key'").fetchall()[0][0] for each in (store, other)]
    assert keys[0] != keys[1]
    assert all(len(bytes.fromhex(str(key))) == 32 for key in keys)
