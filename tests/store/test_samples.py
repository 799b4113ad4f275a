"""The trend of a worker: a sample every half minute at most, the newest ones only, none of a worker that has gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.contact import checked_stats
from scitq.remote.link import Answer
from scitq.states import WorkerState
from scitq.store import workers
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA
from scitq.store.workers import SAMPLE_MS, SAMPLES
from scitq.worker import WorkerId

AT = 1_700_000_000_000


@pytest.fixture
def store(state_file: Path) -> Iterator[Store]:
    with Store.open(state_file, SCHEMA) as store:
        yield store


@pytest.fixture
def atlas(store: Store) -> WorkerId:
    return store.write(lambda db: workers.add(db, 1, "atlas", "ssh", "me@atlas"))


def measure(store: Store, worker: WorkerId, at: int, **stats: float) -> None:
    store.write(lambda db: workers.measure(db, worker, {"at": at, **stats}))


def times(store: Store, worker: WorkerId) -> list[int]:
    return [sample.at_ms - AT for sample in workers.samples(store.reader(), worker)]


def test_a_worker_that_is_asked_every_second_is_sampled_every_half_minute(store: Store, atlas: WorkerId) -> None:
    for second in range(0, 100):
        measure(store, atlas, AT + 1000 * second, load=float(second), net_in=second)

    assert times(store, atlas) == [0, 30_000, 60_000, 90_000]
    assert workers.find(store.reader(), atlas).stats["load"] == 99.0  # and what is newest is known all the same
    last = workers.samples(store.reader(), atlas, AT + 90_000)[0]
    assert (last.load, last.net_in, last.memory_free) == (90.0, 90, None)


def test_only_the_newest_samples_stay(store: Store, atlas: WorkerId) -> None:
    for n in range(SAMPLES + 5):
        measure(store, atlas, AT + n * SAMPLE_MS)

    assert times(store, atlas) == [n * SAMPLE_MS for n in range(5, SAMPLES + 5)]


def test_a_clock_that_was_set_back_begins_anew(store: Store, atlas: WorkerId) -> None:
    for at in (AT, AT + SAMPLE_MS, AT - 10 * SAMPLE_MS, AT - 9 * SAMPLE_MS):
        measure(store, atlas, at)

    assert times(store, atlas) == [-10 * SAMPLE_MS, -9 * SAMPLE_MS]


@pytest.mark.parametrize("nonsense", [1e300, 10**400, "many", None])
def test_figures_that_make_no_sense_are_left_out(store: Store, atlas: WorkerId, nonsense: float) -> None:
    measure(store, atlas, AT, load=nonsense, disk_free=nonsense, cpu=0.5)

    [sample] = workers.samples(store.reader(), atlas)
    assert (sample.load, sample.disk_free, sample.cpu) == (None, None, 0.5)


def test_a_worker_that_has_gone_leaves_no_samples(store: Store, atlas: WorkerId) -> None:
    measure(store, atlas, AT)
    store.write(lambda db: workers.move(db, AT, atlas, WorkerState.FAILED))
    assert times(store, atlas) == [0]

    store.write(lambda db: workers.move(db, AT, atlas, WorkerState.GONE))

    assert not times(store, atlas)


def test_what_an_agent_says_of_its_machine_is_looked_at_first() -> None:
    said = b'{"load": NaN, "cpu": Infinity, "memory_free": 1e400, "disk_free": 12, "net_in": "much"}'

    assert checked_stats(Answer(200, {}, said)).keys() == {"at", "disk_free"}
