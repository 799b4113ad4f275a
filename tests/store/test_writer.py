"""One writer per process: what callers get, whatever happens to the others, the disk or the process."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import apsw
import pytest

from scitq.errors import BadInput, LiveFileOpened, StateFileBusy, StateFileFull
from scitq.store import bell, transaction, writer
from scitq.store.connection import Store
from tests.store.small import SMALL, bodies, end, integrity, line, put, run_child, start_child, until


def hold(store: Store) -> tuple[threading.Event, threading.Event]:
    """Keep the writer busy: (it is, let it go)."""
    inside, go = threading.Event(), threading.Event()

    def stay(db: apsw.Connection) -> None:
        inside.set()
        go.wait(30)

    store.post(stay)
    inside.wait(30)
    return inside, go


def test_write_returns_what_the_function_returns(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        assert store.write(lambda db: 42) == 42
        assert store.post(lambda db: 43).result(30) == 43


def test_write_raises_what_the_function_raises_and_leaves_no_trace(state_file: Path) -> None:
    def fail(db: apsw.Connection) -> None:
        put("half")(db)
        raise SystemExit("no")

    with Store.open(state_file, SMALL) as store:
        with pytest.raises(SystemExit):
            store.write(fail)
        with pytest.raises(apsw.ConstraintError):
            store.write(put("bad"))
        store.write(put("good"))
        assert bodies(store.reader()) == {"good"}


def test_what_queues_up_shares_a_commit_and_a_failing_one_harms_no_other(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        commits: list[int] = []
        store.subscribe(lambda: commits.append(1))
        _, go = hold(store)
        futures = [store.post(put("bad" if n % 3 == 0 else str(n))) for n in range(300)]
        go.set()
        wait(futures, 30)
        assert [future.exception() is None for future in futures] == [n % 3 != 0 for n in range(300)]
        assert bodies(store.reader()) == {str(n) for n in range(300) if n % 3}
        until(lambda: commits)
        assert len(commits) < 50


def test_a_group_ends_in_time_for_others(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "GROUP_S", 0.0)
    with Store.open(state_file, SMALL) as store:
        _, go = hold(store)
        futures = [store.post(put(str(n))) for n in range(20)]
        go.set()
        assert len(wait(futures, 30).done) == 20
        rows = list(store.reader().execute("SELECT body FROM note ORDER BY id"))
        assert rows == [(str(n),) for n in range(20)]  # in order all the same


def test_a_job_that_takes_the_whole_group_back_fails_alone(state_file: Path) -> None:
    def rollback(db: apsw.Connection) -> None:
        db.execute("INSERT OR ROLLBACK INTO note(body) VALUES ('bad')")

    with Store.open(state_file, SMALL) as store:
        _, go = hold(store)
        futures = [store.post(put("1")), store.post(rollback), store.post(put("2"))]
        go.set()
        wait(futures, 30)
        assert [type(future.exception()).__name__ for future in futures] == ["NoneType", "ConstraintError", "NoneType"]
        assert bodies(store.reader()) == {"1", "2"}


def test_many_threads_write_at_once(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        failed: list[BaseException] = []

        def work(me: int) -> None:
            try:
                for n in range(100):
                    store.write(put(f"{me} {n}"), full=n % 10 == 0)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(bodies(store.reader())) == 800


def test_full_applies_to_that_commit_only(state_file: Path) -> None:
    def synchronous(db: apsw.Connection) -> object:
        return db.pragma("synchronous")

    with Store.open(state_file, SMALL) as store:
        assert store.write(synchronous, full=True) == 2
        assert store.write(synchronous) == 1
        with pytest.raises(apsw.ConstraintError):
            store.write(put("bad"), full=True)
        assert store.write(synchronous) == 1


def test_reading_rings_no_bell(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[int] = []
        store.subscribe(lambda: calls.append(1))
        store.write(lambda db: bodies(db))
        store.post(lambda db: bodies(db)).result(30)
        store.post(put("one")).result(30)
        until(lambda: calls)
        assert calls == [1]


def test_a_cursor_left_open_is_noticed_and_pins_nothing(state_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[apsw.Cursor] = []

    def careless(db: apsw.Connection) -> None:
        put("three")(db)
        kept.append(db.execute("SELECT body FROM note"))

    with Store.open(state_file, SMALL) as store, Store.open(state_file, SMALL) as other:
        store.write(put("one"))
        store.write(put("two"))
        with caplog.at_level(logging.ERROR, "scitq.store"):
            store.write(careless)
        assert "careless" in caplog.text
        other.write(put("four"))
        store.write(put("five"))
        assert len(bodies(store.reader())) == 5


@pytest.mark.parametrize("grouped", [False, True])
def test_an_error_raised_in_the_middle_of_reading_pins_nothing(
    state_file: Path, caplog: pytest.LogCaptureFixture, grouped: bool
) -> None:
    def fail(db: apsw.Connection) -> None:
        cursor = db.execute("SELECT body FROM note")
        next(cursor)
        raise RuntimeError("in the middle")

    with Store.open(state_file, SMALL) as store, Store.open(state_file, SMALL) as other:
        for n in range(5):
            store.write(put(str(n)))
        if grouped:
            _, go = hold(store)
            futures = [store.post(put("a")), store.post(fail), store.post(put("b"))]
            go.set()
            kept = futures[1].exception(30)
        else:
            with pytest.raises(RuntimeError) as caught:
                store.write(fail)
            kept = caught.value
        other.write(put("other"))
        store.write(put("after"))
        assert str(kept) == "in the middle"
        assert "left open" not in caplog.text


def test_a_subscriber_may_close_the_store_and_may_not_write(state_file: Path) -> None:
    store = Store.open(state_file, SMALL)
    said: list[str] = []

    def told() -> None:
        try:
            store.write(put("never"))
        except BadInput as error:
            said.append(str(error))
        store.close()

    store.subscribe(told)
    store.write(put("one"))
    until(lambda: store.closed and not (state_file.with_name("lab.scitq-wal")).exists())
    assert said and "post()" in said[0]


@pytest.fixture
def slow_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one telling, the next ones are left to the thread; and nobody finds out by himself."""
    monkeypatch.setattr(writer, "TELL_S", 600.0)
    monkeypatch.setattr(bell, "LOOK_S", 600.0)


def _first_told(store: Store) -> None:
    store._writer._told_at = -1000.0  # type: ignore[union-attr]
    store.write(put("first"))


@pytest.mark.usefixtures("slow_telling")
def test_a_commit_made_while_others_are_being_told_of_one_is_told_as_well(state_file: Path) -> None:
    seen: list[set[str]] = []
    telling, go = threading.Event(), threading.Event()

    def told() -> None:
        seen.append(set(bodies(store.reader())))
        telling.set()
        go.wait(30)

    with Store.open(state_file, SMALL) as store:
        store.subscribe(told)
        first = threading.Thread(target=_first_told, args=(store,))
        first.start()
        assert telling.wait(30)
        second = threading.Thread(target=store.write, args=(put("meanwhile"),))
        second.start()
        second.join(30)
        go.set()
        first.join(30)
        until(lambda: "meanwhile" in seen[-1])


@pytest.mark.usefixtures("slow_telling")
def test_a_quiet_commit_does_not_keep_the_one_before_it_from_being_told(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        calls: list[int] = []
        _first_told(store)
        store.subscribe(lambda: calls.append(1))
        store.write(put("loud"))
        store.write(put("quiet"), quiet=True)
        until(lambda: bool(calls))


@pytest.mark.usefixtures("slow_telling")
def test_who_asks_for_it_has_a_run_of_commits_told_at_once(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TELL_LATE_S", 600.0)
    with Store.open(state_file, SMALL) as store:
        calls: list[int] = []
        _first_told(store)
        store.subscribe(lambda: calls.append(1))
        store.write(put("late"))
        assert calls == []
        store.tell_what_is_due()
        assert calls == [1]
        store.tell_what_is_due()
        assert calls == [1]


def test_the_wal_stays_short_though_much_is_written(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        for n in range(300):
            store.write(put(f"{n} {'x' * 50_000}"))
        store.post(lambda db: None).result(30)
        until(lambda: os.path.getsize(f"{state_file}-wal") < 3 * transaction.CHECKPOINT_PAGES * 4096)


def test_after_a_quiet_time_the_wal_is_folded_into_the_file(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "IDLE_S", 0.05)
    with Store.open(state_file, SMALL) as store:
        store.post(put("one")).result(30)
        until(lambda: os.path.getsize(f"{state_file}-wal") == 0)
        store.write(put("two"))
        assert bodies(store.reader()) == {"one", "two"}


def test_a_stuck_process_makes_callers_fail_not_hang(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BUSY_S", 0.2)
    with Store.open(state_file, SMALL) as store:
        child = start_child(
            """
store = Store.open(PATH, SMALL)
def stay(db): say("in"); sys.stdin.readline()
store.write(stay); store.close()
""",
            state_file,
        )
        assert line(child) == "in"
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(StateFileBusy, match=f"process {child.pid}"):
            store.write(put("never"))
        posted = store.post(put("later"))
        os.kill(child.pid, signal.SIGCONT)
        end(child)
        posted.result(30)
        store.write(put("after"))
        assert bodies(store.reader()) == {"later", "after"}


def test_a_foreign_writer_makes_callers_wait_then_fail(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(state_file, SMALL) as store:
        child = start_child(
            """
import sqlite3
db = sqlite3.connect(PATH, isolation_level=None); db.execute("BEGIN IMMEDIATE"); say("in")
sys.stdin.readline(); db.execute("INSERT INTO note(body) VALUES ('foreign')"); db.execute("COMMIT"); db.close()
""",
            state_file,
        )
        assert line(child) == "in"
        store.write.__self__._writer.connection.set_busy_timeout(50)  # type: ignore[attr-defined]
        with pytest.raises(StateFileBusy):
            store.write(put("never"))
        end(child)
        store.write(put("after"))
        assert bodies(store.reader()) == {"foreign", "after"}


def test_ctrl_c_hits_only_callers_and_leaves_whole_transactions(state_file: Path) -> None:
    code = """
import random
store = Store.open(PATH, SMALL)
armed, hits, done = [False], 0, threading.Event()
def struck(*_):
    if armed[0]:
        armed[0] = False  # in the test's own lines it must not strike
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, struck)
def strike():
    while not done.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(random.random() * 0.0005)
def pair(n):
    def run(db):
        put(f"{n} a")(db); put(f"{n} b")(db)
    return run
thread = threading.Thread(target=strike); thread.start()
acknowledged = set()
for n in range(3000):
    try:
        armed[0] = True
        store.write(pair(n)) if n % 3 else store.post(pair(n)).result()
        armed[0] = False
        acknowledged.add(f"{n} a")
    except KeyboardInterrupt:
        hits += 1
done.set(); thread.join()
store.write(put("end"))
found = bodies(store.reader())
say(hits > 20, all((f"{i} a" in found) == (f"{i} b" in found) for i in range(3000)), acknowledged <= found, integrity(store.reader()))
store.close()
say(sorted(os.listdir(Path(PATH).parent)))
"""
    assert run_child(code, state_file) == ["True True True ok", "['lab.scitq', 'lab.scitq.d']"]


def test_what_a_second_ctrl_c_leaves_behind_is_cleared_away(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(state_file, SMALL) as store:
        assert store._lock is not None
        release = store._lock.release

        def struck() -> None:
            monkeypatch.setattr(store._lock, "release", release)
            raise KeyboardInterrupt

        monkeypatch.setattr(store._lock, "release", struck)
        with pytest.raises(KeyboardInterrupt):
            store.write(put("one"))
        code = """
import scitq.store.connection
scitq.store.connection.OPEN_S = 5.0
store = Store.open(PATH, SMALL); store.write(put("other")); store.close()
"""
        run_child(code, state_file)
        store.write(put("two"))
        assert bodies(store.reader()) == {"one", "other", "two"}


# A full disk

FULL = """
import resource, apsw
store = Store.open(PATH, SMALL)
for n in range(20): store.write(put(f"before {n}"))
store.reader().execute("SELECT count(*) FROM note").fetchall()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
from scitq.errors import StateFileFull
"""


def test_a_full_disk_takes_nothing_acknowledged_and_the_writer_goes_on(state_file: Path) -> None:
    code = (
        FULL
        + """
acknowledged = set(bodies(store.reader())); full = 0
for n in range(400):
    try: store.write(put(f"{n} {'x' * 10_000}")); acknowledged.add(f"{n} {'x' * 10_000}")
    except StateFileFull as error: full += 1; message = str(error)
say(full > 0, "Free some space" in message, bodies(store.reader()) == acknowledged, integrity(store.reader()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(put("after")); acknowledged.add("after")
store.close()
with Store.open(PATH, SMALL) as store: say(bodies(store.reader()) == acknowledged, integrity(store.reader()))
"""
    )
    assert run_child(code, state_file) == ["True True True ok", "True ok"]


def test_a_write_too_large_for_the_disk_does_not_take_its_neighbours_along(state_file: Path) -> None:
    code = (
        FULL
        + """
inside, go = threading.Event(), threading.Event()
def stay(db): inside.set(); go.wait()
store.post(stay); inside.wait()
def large(db):
    for n in range(2000): db.execute("INSERT INTO note(body) VALUES (?)", (f"large {n} {'x' * 5_000}",))
futures = [store.post(put("small 1")), store.post(large), store.post(put("small 2"))]
go.set()
say(*(type(f.exception()).__name__ for f in futures), *sorted(b for b in bodies(store.reader()) if b.startswith(("small", "large"))))
"""
    )
    assert run_child(code, state_file) == ["NoneType StateFileFull NoneType small 1 small 2"]


def test_a_size_limit_of_the_database_is_reported_as_full(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        store.write(lambda db: None)
        assert store._writer is not None
        store._writer.connection.pragma("max_page_count", 40)
        with pytest.raises(StateFileFull):
            for n in range(100):
                store.write(put(f"{n} {'x' * 10_000}"))
        store.write(put("small"))


# Two libraries in one process, by a way that the guard cannot see


def test_locks_lost_behind_our_back_stop_the_writer_before_anything_is_lost(state_file: Path) -> None:
    attached = sqlite3.connect(":memory:")
    with Store.open(state_file, SMALL) as store:
        store.write(put("one"))
        # ATTACH raises no audit event. Closing it drops our locks; as the supposed last user it deletes the WAL.
        attached.execute("ATTACH ? AS live", (str(state_file),))
        attached.execute("SELECT count(*) FROM live.note").fetchone()
        attached.execute("DETACH live")
        attached.close()
        run_child(
            "import sqlite3; db = sqlite3.connect(PATH); db.execute('SELECT count(*) FROM note').fetchone(); db.close()",
            state_file,
        )
        with pytest.raises(LiveFileOpened, match="open it again"):
            store.write(put("two"))
    with Store.open(state_file, SMALL) as store:
        store.write(put("three"))
        assert bodies(store.reader()) == {"one", "three"}
        assert integrity(store.reader()) == "ok"


# Other processes


def test_four_processes_write_at_once_and_each_gets_its_turns(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        code = """
store = Store.open(PATH, SMALL); me = sys.argv[2]; say("ready"); sys.stdin.readline()
for n in range(300): store.write(put(f"{me} {n}"))
store.close()
"""
        children = [start_child(code, state_file, me) for me in range(4)]
        for child in children:
            assert line(child) == "ready"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            end(child)
        assert len(bodies(store.reader())) == 1200
        assert integrity(store.reader()) == "ok"


def test_a_bulk_writer_starves_nobody(state_file: Path) -> None:
    def bulk(start: int) -> None:
        def run(db: apsw.Connection) -> None:
            db.executemany("INSERT INTO note(body) VALUES (?)", ((f"bulk {n}",) for n in range(start, start + 2000)))

        store.write(run)

    with Store.open(state_file, SMALL) as store:
        stop = threading.Event()

        def work() -> None:
            start = 0
            while not stop.is_set():
                bulk(start)
                start += 2000

        thread = threading.Thread(target=work)
        thread.start()
        try:
            longest = 0.0
            for n in range(30):
                begun = time.monotonic()
                store.write(put(f"small {n}"))
                longest = max(longest, time.monotonic() - begun)
            run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        finally:
            stop.set()
            thread.join()
        assert longest < writer.BUSY_S
