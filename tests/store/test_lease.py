"""One driver per file: the lock decides, the number fences off."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from scitq.errors import NoDriver, StaleDriver, StateFileBusy
from scitq.store import lease as lease_module
from scitq.store import writer as writer_module
from scitq.store.connection import Store
from scitq.store.here import boot_id, machine_id, process_start
from scitq.store.lease import Lease, is_held
from scitq.store.locks import is_stopped
from tests.store.small import SMALL, bodies, end, line, put, run_child, start_child, until

DRIVER = """
store = Store.open(PATH, SMALL); lease = Lease(store)
say(lease.try_acquire(), lease.epoch)
"""


def drive(lease: Lease, body: str) -> Callable[[apsw.Connection], None]:
    def run(db: apsw.Connection) -> None:
        lease.check(db)
        put(body)(db)

    return run


def test_one_drives_and_the_others_do_not(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store, Store.open(state_file, SMALL) as other:
        mine, theirs = Lease(store), Lease(other)
        assert mine.try_acquire() and mine.try_acquire()
        assert not theirs.try_acquire()
        assert run_child(DRIVER, state_file) == ["False None"]
        store.write(drive(mine, "one"))
        with pytest.raises(StaleDriver):
            other.write(drive(theirs, "two"))
        assert bodies(store.reader()) == {"one"}


def test_of_several_at_once_exactly_one_gets_it(state_file: Path) -> None:
    Store.open(state_file, SMALL).close()
    children = [start_child(DRIVER + "sys.stdin.readline()", state_file) for _ in range(5)]
    said = [line(child) for child in children]
    for child in children:
        end(child)
    assert sorted(said) == ["False None"] * 4 + ["True 1"]


def test_each_driver_has_a_higher_number(state_file: Path) -> None:
    for expected in (1, 2, 3):
        assert run_child(DRIVER, state_file) == [f"True {expected}"]


def test_a_killed_drivers_lease_is_free_at_once(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        child = start_child(DRIVER + "sys.stdin.readline()", state_file)
        assert line(child) == "True 1"
        assert not lease.try_acquire()
        child.kill()
        child.communicate()
        assert lease.try_acquire()
        assert lease.epoch == 2


def test_release_wakes_the_others_when_the_lease_is_free(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        assert lease.try_acquire()
        child = start_child(
            """
store = Store.open(PATH, SMALL); lease = Lease(store)
woken = threading.Event(); store.subscribe(woken.set); say(lease.try_acquire())
while not lease.try_acquire():
    assert woken.wait(20); woken.clear()
say(lease.epoch); store.close()
""",
            state_file,
        )
        assert line(child) == "False"
        lease.release()
        assert line(child) == "2"
        end(child)
        assert lease.epoch is None


def test_a_frozen_driver_keeps_its_lease_and_a_replaced_one_writes_no_more(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        frozen = start_child(
            DRIVER
            + """
from scitq.errors import StaleDriver
sys.stdin.readline()
def write(db): lease.check(db); put("zombie")(db)
try: store.write(write)
except StaleDriver as error: say("stale", "another driver has taken over lab.scitq" in str(error))
store.close()
""",
            state_file,
        )
        assert line(frozen) == "True 1"
        os.kill(frozen.pid, signal.SIGSTOP)
        mine = Lease(store)
        assert not mine.try_acquire()
        # A human moved the lock file away (or it is another kernel's): then the number is what protects.
        (store.side / "driver.lock").rename(store.side / "driver.lock.old")
        assert mine.try_acquire()
        store.write(drive(mine, "mine"))
        os.kill(frozen.pid, signal.SIGCONT)
        assert end(frozen) == ["stale True"]
        assert bodies(store.reader()) == {"mine"}


FROZEN = (
    DRIVER
    + """
from scitq.errors import StaleDriver
sys.stdin.readline()
def write(db): lease.check(db); put("zombie")(db)
try: store.write(write)
except StaleDriver as error: say("stale", "another driver has taken over lab.scitq" in str(error))
lease.release(); say(lease.try_acquire(), lease.epoch)
store.close()
"""
)


def test_a_frozen_driver_is_replaced_on_request_only_and_finds_that_out(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        frozen = start_child(FROZEN, state_file)
        assert line(frozen) == "True 1"
        mine = Lease(store)
        assert not mine.try_acquire(take_over=True)  # it is well
        os.kill(frozen.pid, signal.SIGSTOP)
        until(lambda: is_stopped(frozen.pid))
        assert not mine.try_acquire()
        holder = Lease.holder(store.reader())
        assert holder is not None and holder.stands_still(0)
        assert holder.describe(0) == f"python (pid {frozen.pid}, this machine, stopped)"
        assert f"kill -CONT {frozen.pid}" in holder.way_out() and f"kill -9 {frozen.pid}" in holder.way_out()

        assert mine.try_acquire(take_over=True) and mine.epoch == 2
        store.write(drive(mine, "mine"))
        assert run_child(DRIVER, state_file) == ["False None"]  # the new lock counts for everybody
        os.kill(frozen.pid, signal.SIGCONT)
        assert end(frozen) == ["stale True", "False None"]
        store.write(drive(mine, "mine still"))
        assert bodies(store.reader()) == {"mine", "mine still"}
        assert sorted(path.name for path in store.side.glob("driver.lock*")) == ["driver.lock"]
        mine.release()
        assert run_child(DRIVER, state_file) == ["True 3"]


def test_of_several_that_take_over_from_a_frozen_driver_one_gets_it(state_file: Path) -> None:
    Store.open(state_file, SMALL).close()
    frozen = start_child(DRIVER + "sys.stdin.readline()", state_file)
    assert line(frozen) == "True 1"
    os.kill(frozen.pid, signal.SIGSTOP)
    until(lambda: is_stopped(frozen.pid))
    code = """
store = Store.open(PATH, SMALL); lease = Lease(store); say("ready"); sys.stdin.readline()
say(lease.try_acquire(take_over=True), lease.epoch)
sys.stdin.readline()
"""
    others = [start_child(code, state_file) for _ in range(4)]
    assert [line(child) for child in others] == ["ready"] * 4
    for child in others:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [line(child) for child in others]
    for child in (*others, frozen):
        child.kill()
        child.communicate()
    assert sorted(said) == ["False None"] * 3 + ["True 2"]
    assert run_child(DRIVER, state_file) == ["True 3"]


def test_who_looked_at_the_frozen_driver_before_another_replaced_it_does_not_replace_that_one(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(state_file, SMALL) as store:
        frozen = start_child(DRIVER + "sys.stdin.readline()", state_file)
        assert line(frozen) == "True 1"
        os.kill(frozen.pid, signal.SIGSTOP)
        until(lambda: is_stopped(frozen.pid))
        late, quick = Lease(store), Lease(store)
        lock = late._fresh_lock()
        assert quick.try_acquire(take_over=True) and quick.epoch == 2
        monkeypatch.setattr(late, "_fresh_lock", lambda: lock)  # of the frozen one
        assert not late.try_acquire(take_over=True) and late.epoch is None
        store.write(drive(quick, "quick"))
        quick.release()
        frozen.kill()
        frozen.communicate()


def test_who_gets_the_lock_file_that_a_take_over_replaced_does_not_drive(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between getting the lock and writing that down, somebody else takes over."""
    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        lock = lease._fresh_lock()
        (store.side / "driver.lock").rename(store.side / "old")
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_fresh_lock", lambda: lock)
            assert not lease.try_acquire() and lease.epoch is None
        assert lease.try_acquire() and lease.epoch == 1
        lease.release()


def test_a_driver_that_is_silent_for_minutes_stands_still(state_file: Path) -> None:
    """One that hangs is not stopped; but a driver says at least once a minute that it is there."""
    with Store.open(state_file, SMALL) as store:
        child = start_child(DRIVER + "sys.stdin.readline()", state_file)
        assert line(child) == "True 1"
        holder = Lease.holder(store.reader())
        assert holder is not None and holder.seen is not None
        assert not holder.stands_still(holder.seen + 100_000)
        later = holder.seen + 200_000
        assert holder.stands_still(later) and "silent for 200 s" in holder.describe(later)
        store.write(lambda db: db.execute("UPDATE lead SET seen = 0"))
        mine = Lease(store)
        assert not mine.try_acquire()
        assert mine.try_acquire(take_over=True) and mine.epoch == 2
        end(child)


def test_a_take_over_waits_for_no_driver_that_was_stopped_while_it_wrote(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds SQLite's own lock too: nothing but its end helps, and the message says so."""
    monkeypatch.setattr(writer_module, "BUSY_S", 0.2)
    code = DRIVER + "store.write(lambda db: (say('inside'), os.kill(os.getpid(), signal.SIGSTOP)))"
    with Store.open(state_file, SMALL) as store:
        frozen = start_child(code, state_file)
        assert [line(frozen), line(frozen)] == ["True 1", "inside"]
        until(lambda: is_stopped(frozen.pid))
        mine = Lease(store)
        with pytest.raises(StateFileBusy, match=rf"process {frozen.pid} was stopped.*kill -9 {frozen.pid}"):
            mine.try_acquire(take_over=True)
        frozen.kill()
        frozen.communicate()
        assert mine.try_acquire() and mine.epoch == 2
        assert sorted(path.name for path in store.side.glob("driver.lock*")) == ["driver.lock"]


def test_a_driver_whose_lock_file_was_deleted_stops(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        assert lease.try_acquire()
        (store.side / "driver.lock").unlink()
        with pytest.raises(StaleDriver, match="deleted or replaced"):
            store.write(drive(lease, "one"))
        assert bodies(store.reader()) == set()


def test_the_holder_is_named(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        assert Lease.holder(store.reader()) is None
        lease = Lease(store)
        assert lease.try_acquire()
        me = Lease.holder(store.reader())
        assert me is not None
        assert (me.pid, me.machine, me.boot, me.epoch) == (os.getpid(), machine_id(), boot_id(), 1)
        assert me.alive and me.is_here and me.is_me
        assert me.started == process_start(os.getpid())
        lease.release()
        assert Lease.holder(store.reader()) is None

        child = start_child(DRIVER + "sys.stdin.readline()", state_file)
        assert line(child) == "True 2"
        other = Lease.holder(store.reader())
        assert other is not None and other.alive and not other.is_me
        assert other.describe(0) == f"python (pid {child.pid}, this machine)"
        child.kill()
        child.communicate()
        dead = Lease.holder(store.reader())
        assert dead is not None and not dead.alive


def test_asking_who_drives_disturbs_nobody(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "holder_of", lambda path: None)  # as where the system tells nothing
    with Store.open(state_file, SMALL) as store:
        lock = store.side / "driver.lock"
        assert not is_held(lock)
        assert not lock.exists()
        lease = Lease(store)
        assert lease.try_acquire()
        assert is_held(lock)
        store.write(drive(lease, "still"))
        lease.release()
        assert not is_held(lock)
        assert Lease(store).try_acquire()


def test_another_machine_that_was_seen_just_now_is_believed(state_file: Path) -> None:
    def elsewhere(ago_s: float) -> Callable[[apsw.Connection], None]:
        seen = int((time.time() - ago_s) * 1000)

        def run(db: apsw.Connection) -> None:
            sql = "UPDATE lead SET epoch = 7, pid = 1, host = 'nuc', machine = 'm', boot = 'b', program = 'p', seen = ?"
            db.execute(sql, (seen,))

        return run

    with Store.open(state_file, SMALL) as store:
        store.write(elsewhere(4))
        with pytest.raises(
            NoDriver, match=r"lab.scitq is driven by another machine \(nuc, seen \d+ s ago\).*--take-over"
        ):
            Lease(store).try_acquire()
        holder = Lease.holder(store.reader())
        assert holder is not None and not holder.is_here and not holder.alive
        store.write(elsewhere(3600))
        lease = Lease(store)
        assert lease.try_acquire()
        lease.release()
        store.write(elsewhere(4))
        assert Lease(store).try_acquire(take_over=True)


def test_a_container_of_the_same_kernel_is_this_machine(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        assert lease.try_acquire()
        monkeypatch.setattr(lease_module, "machine_id", lambda: "of the container")
        assert Lease.holder(store.reader()).is_here  # type: ignore[union-attr]


def test_being_there_is_said_once_a_minute(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(db: apsw.Connection) -> int:
        [(value,)] = db.execute("SELECT seen FROM lead")
        return int(value)

    def unseen(db: apsw.Connection) -> None:
        db.execute("UPDATE lead SET seen = 0")

    with Store.open(state_file, SMALL) as store:
        lease = Lease(store)
        assert lease.try_acquire()
        store.write(unseen)
        lease.beat()
        store.write(drive(lease, "one"))
        assert seen(store.reader()) == 0
        monkeypatch.setattr(lease_module, "SEEN_EVERY_S", 0.0)
        lease.beat()
        assert seen(store.reader()) > 0


def test_forked_and_started_children_do_not_keep_the_lease(state_file: Path) -> None:
    code = (
        DRIVER
        + """
import subprocess
keeper = subprocess.Popen(["sleep", "60"], close_fds=False)
if (pid := os.fork()) == 0:
    os.close(0); os.close(1); os.close(2)
    time.sleep(60)
    os._exit(0)
say(keeper.pid, pid)
sys.stdin.readline()
"""
    )
    with Store.open(state_file, SMALL) as store:
        child = start_child(code, state_file)
        assert line(child) == "True 1"
        left = [int(word) for word in line(child).split()]
        child.kill()
        child.wait()
        try:
            lease = Lease(store)
            until(lease.try_acquire)
            store.write(put("the write lock is free, too"))
        finally:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            child.communicate()


def test_release_after_the_store_is_closed_is_harmless(state_file: Path) -> None:
    store = Store.open(state_file, SMALL)
    lease = Lease(store)
    assert lease.try_acquire()
    store.close()
    lease.release()
    assert run_child(DRIVER, state_file) == ["True 2"]
    assert subprocess.run(["true"], check=True).returncode == 0
