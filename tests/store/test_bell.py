"""Commits are heard in other processes, with and without file watching; our own are told once."""

from __future__ import annotations

import functools
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from scitq.store import bell
from scitq.store.bell import Bell, DeafEar, listen_to
from scitq.store.connection import Store
from tests.store.small import SMALL, bodies, end, line, put, run_child, start_child, until

HEARER = """
import scitq.store.bell
scitq.store.bell.LOOK_S = 3600.0
store = Store.open(PATH, SMALL)
store.subscribe(lambda: say("heard"))
say("ready"); sys.stdin.readline(); store.close()
"""


@pytest.fixture(params=["watching", "looking"])
def ears(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "looking":
        monkeypatch.setattr(bell, "listen_to", lambda path: DeafEar())
    return str(request.param)


def test_this_system_can_watch(tmp_path: Path) -> None:
    ear = listen_to(Bell(tmp_path / "bell").path)
    try:
        assert not ear.is_deaf
    finally:
        ear.close()


def test_another_processs_commit_is_heard(state_file: Path, ears: str) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[set[str]] = []
        store.subscribe(lambda: calls.append(bodies(store.reader())))
        run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        until(lambda: calls)
        assert {"other"} in calls


@pytest.mark.promise("core 11.15")
def test_our_commit_is_heard_in_another_process_each_time(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        child = start_child(HEARER, state_file)
        assert line(child) == "ready"
        for n in range(20):
            store.write(put(str(n)))
            assert line(child) == "heard"
        end(child)


def test_another_store_of_the_same_process_hears_it_too(state_file: Path, ears: str) -> None:
    with Store.open(state_file, SMALL) as one, Store.open(state_file, SMALL) as two:
        heard = threading.Event()
        two.subscribe(heard.set)
        one.write(put("one"))
        assert heard.wait(20)


def test_a_foreign_programs_commit_is_found_by_looking(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "LOOK_S", 0.02)
    code = """
import sqlite3
db = sqlite3.connect(PATH); db.execute("INSERT INTO note(body) VALUES ('foreign')"); db.commit(); db.close()
"""
    with Store.open(state_file, SMALL) as store:
        heard = threading.Event()
        store.subscribe(heard.set)
        run_child(code, state_file)
        assert heard.wait(20)
    assert sqlite3.sqlite_version  # the program was a foreign one indeed


def test_a_removed_bell_leaves_the_looking(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        heard = threading.Event()
        store.subscribe(heard.set)
        (store.side / "bell").unlink()
        run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        assert heard.wait(20)


def test_our_own_commit_is_told_once(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[int] = []
        store.subscribe(lambda: calls.append(1))
        for n in range(5):
            store.write(put(str(n)))
            until(functools.partial(lambda told: len(calls) == told, n + 1))
        assert len(calls) == 5


def test_a_run_of_commits_is_told_in_few_calls_and_never_forgotten(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        seen: list[int] = []
        store.subscribe(lambda: seen.append(len(bodies(store.reader()))))
        for n in range(500):
            store.write(put(str(n)))
        until(lambda: seen and seen[-1] == 500)
        assert len(seen) <= 500


def test_unsubscribed_is_called_no_more_and_a_failing_one_harms_nobody(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[str] = []

        def fail() -> None:
            raise RuntimeError("a subscriber's own mistake")

        stop = store.subscribe(lambda: calls.append("stopped"))
        store.subscribe(fail)
        heard = threading.Event()
        store.subscribe(heard.set)
        stop()
        store.write(put("one"))
        assert heard.wait(20)
        assert calls == []


def test_without_subscribers_there_is_no_listening_thread(state_file: Path) -> None:
    def listeners() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "scitq-bell"]

    with Store.open(state_file, SMALL) as store:
        assert listeners() == []
        store.subscribe(lambda: None)
        assert len(listeners()) == 1
    assert listeners() == []


def test_a_read_only_store_hears_commits(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store, Store.open(state_file, SMALL, read_only=True) as reader:
        heard = threading.Event()
        reader.subscribe(heard.set)
        store.write(put("one"))
        assert heard.wait(20)


def test_who_is_about_to_end_does_not_watch_and_hears_all_the_same(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        heard = threading.Event()
        store.subscribe(heard.set, watch_after_s=600.0)
        assert store._listener is not None and store._listener._ear.is_deaf
        run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        assert heard.wait(30)
        assert store._listener._ear.is_deaf


def test_who_begins_to_wait_for_others_watches_from_then_on(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[set[str]] = []
        store.subscribe(lambda: calls.append(bodies(store.reader())), watch_after_s=600.0)
        listener = store._listener
        assert listener is not None
        store.listen_closely()
        until(lambda: not listener._ear.is_deaf)
        run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        until(lambda: calls and "other" in calls[-1])


@pytest.mark.parametrize("after_s", [0.0001, 0.01, 600.0])
def test_a_listener_may_be_closed_while_it_begins_to_watch(state_file: Path, after_s: float) -> None:
    for _ in range(10):
        with Store.open(state_file, SMALL) as store:
            store.subscribe(lambda: None, watch_after_s=after_s)
            store.listen_closely()


@pytest.mark.promise("core 11.15")
def test_listening_costs_next_to_nothing_when_nothing_happens(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        store.subscribe(lambda: None)
        store.write(put("one"))
        turns: list[float] = []
        listener = store._listener
        assert listener is not None
        wait = listener._ear.wait
        done = threading.Event()

        def counted(timeout_s: float) -> bool:
            turns.append(timeout_s)
            done.set()
            return wait(timeout_s)

        listener._ear.wait = counted  # type: ignore[method-assign]
        store.ring()
        begun = time.monotonic()
        assert done.wait(20)
        assert time.monotonic() - begun < 20
        assert set(turns) == {bell.LOOK_S}


def test_nobody_is_rung_for_when_nobody_listens(tmp_path: Path) -> None:
    """A ring wakes our own listener as well: worth a switch of threads only when somebody else is there."""
    mine, other = Bell(tmp_path / "bell"), Bell(tmp_path / "bell")
    mine.attend()
    mine.ring()
    assert (tmp_path / "bell").stat().st_size == 0
    other.attend()
    mine.ring()
    assert (tmp_path / "bell").stat().st_size == 8 and mine.was_mine()
    other.close()
    assert not mine.is_attended()
    mine.close()


def test_nothing_is_missed_between_subscribing_and_the_first_look(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rings are not heard, and the thread that looks is slow to begin."""
    monkeypatch.setattr(bell, "listen_to", lambda path: bell.DeafEar())
    look = bell.Listener._look

    def slow_look(listener: bell.Listener, seen: int | None) -> int | None:
        if seen is None:
            time.sleep(0.3)
        return look(listener, seen)

    monkeypatch.setattr(bell.Listener, "_look", slow_look)
    with Store.open(state_file, SMALL) as one, Store.open(state_file, SMALL) as two:
        heard = threading.Event()
        two.subscribe(heard.set)
        one.write(put("one"))
        assert heard.wait(20)
