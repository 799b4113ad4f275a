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

from scitq.errors import NoDriver, StaleDriver
from scitq.store import lease as lease_module
from scitq.store.connection import Store
from scitq.store.lease import Lease, boot_id, is_held, machine_id, process_start
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
except StaleDriver as error: say("stale", "another process drives" in str(error))
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
            NoDriver, match=r"lab.scitq is driven by another machine \(nuc, seen 4 s ago\).*--take-over"
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
