"""What a state file must be, and what happens when it is not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scitq.errors import (
    BadInput,
    Closed,
    NotAStateFile,
    NotSupported,
    StateFileBusy,
    StateFileDamaged,
    StateFileError,
    StateFileMoved,
    StateFileNewer,
    StateFileReadOnly,
)
from scitq.store import connection, query
from scitq.store.connection import Store
from scitq.store.locks import FileLock
from scitq.store.migrate import Schema
from tests.store.small import ROOT, SMALL, SMALL_2, add_author, base, bodies, integrity, put, run_child, start_child


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make(path: Path, *notes: str) -> None:
    with Store.open(path, SMALL) as store:
        for note in notes:
            store.write(put(note))


def test_what_is_written_is_there_after_opening_again(state_file: Path) -> None:
    make(state_file, "one")
    with Store.open(state_file, SMALL) as store:
        assert bodies(store.reader()) == {"one"}


def test_connections_follow_the_recipe(state_file: Path) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "temp_store", "auto_vacuum")

    def facts(db: apsw.Connection) -> list[object]:
        return [db.pragma(name) for name in names]

    with Store.open(state_file, SMALL) as store:
        assert store.write(facts) == ["wal", 1, 1, 1, 2, 2]
        assert facts(store.reader()) == ["wal", 1, 1, 1, 2, 2]
        assert store.reader().pragma("application_id") == SMALL.application_id
        with pytest.raises(apsw.SQLError):
            store.reader().execute('SELECT "no such column" FROM note')


def test_readers_cannot_write(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store, pytest.raises(apsw.ReadOnlyError):
        put("one")(store.reader())


def test_files_are_private_whatever_the_umask(state_file: Path) -> None:
    old = os.umask(0)
    try:
        with Store.open(state_file, SMALL) as store:
            store.write(put("one"))
            beside = [Path(f"{state_file}{suffix}") for suffix in ("", "-wal", "-shm")]
            inside = list(store.side.iterdir())
            assert [mode(path) for path in beside + inside] == [0o600] * (3 + len(inside))
            assert mode(store.side) == 0o700
    finally:
        os.umask(old)


def test_the_last_one_to_close_leaves_one_file(state_file: Path) -> None:
    first, second = Store.open(state_file, SMALL), Store.open(state_file, SMALL)
    first.write(put("one"))
    first.close()
    second.write(put("two"))
    second.close()
    assert sorted(path.name for path in state_file.parent.iterdir()) == ["lab.scitq", "lab.scitq.d"]


def test_an_empty_file_is_a_new_one(state_file: Path) -> None:
    state_file.touch()
    make(state_file, "one")


def test_remains_of_a_deleted_file_do_no_harm(state_file: Path) -> None:
    make(state_file, "one")
    state_file.unlink()
    Path(f"{state_file}-wal").write_bytes(os.urandom(8192))
    Path(f"{state_file}-shm").write_bytes(os.urandom(32768))
    with Store.open(state_file, SMALL) as store:
        assert bodies(store.reader()) == set()


def test_it_opens_through_a_link_as_the_same_file(state_file: Path) -> None:
    make(state_file)
    link = state_file.with_name("other.scitq")
    link.symlink_to(state_file)
    with Store.open(link, SMALL) as store:
        assert store.path == state_file.resolve()


def test_two_processes_may_create_it_at_once(state_file: Path) -> None:
    code = "store = Store.open(PATH, SMALL); store.write(put(sys.argv[2])); store.close()"
    children = [start_child(code, state_file, f"child {n}") for n in range(4)]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    with Store.open(state_file, SMALL) as store:
        assert bodies(store.reader()) == {f"child {n}" for n in range(4)}


def test_threads_may_open_it_at_once(state_file: Path) -> None:
    failed: list[BaseException] = []

    def work(n: int) -> None:
        try:
            with Store.open(state_file, SMALL) as store:
                store.write(put(str(n)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with Store.open(state_file, SMALL) as store:
        assert len(bodies(store.reader())) == 8


def test_a_reader_belongs_to_its_thread_and_ends_with_it(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        mine = store.reader()
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(id(store.reader())))
        thread.start()
        thread.join()
        assert store.reader() is mine
        assert seen and seen[0] != id(mine)
        assert store._connections() == [mine]


def test_a_query_cut_short_by_close_says_so(state_file: Path) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    found: list[Exception] = []
    has_begun = threading.Event()

    def begun() -> bool:
        has_begun.set()
        return False

    def read() -> None:
        try:
            db = store.reader()
            db.set_progress_handler(begun, 1000)
            query.rows(db, endless)
        except Exception as problem:
            found.append(problem)

    store = Store.open(state_file, SMALL)
    thread = threading.Thread(target=read)
    thread.start()
    assert has_begun.wait(30)
    store.close()
    thread.join(30)
    assert [type(problem) for problem in found] == [Closed]


def test_after_close_every_use_says_so(state_file: Path) -> None:
    store = Store.open(state_file, SMALL)
    store.close()
    store.close()
    assert store.closed
    for use in (
        lambda: store.write(put("x")),
        lambda: store.post(put("x")),
        store.reader,
        lambda: store.subscribe(print),
    ):
        with pytest.raises(Closed):
            use()


def test_close_is_safe_while_another_thread_reads(state_file: Path) -> None:
    store = Store.open(state_file, SMALL)
    started = threading.Event()
    ended: list[str] = []

    def read() -> None:
        db = store.reader()
        started.set()
        try:
            for _ in db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"):
                pass
        except apsw.Error as error:
            ended.append(type(error).__name__)

    thread = threading.Thread(target=read)
    thread.start()
    started.wait()
    while thread.is_alive():
        store.close()
        for db in store._connections():
            db.interrupt()
    thread.join()
    assert ended


# Files that are not what they should be


def refusal(path: Path, schema: Schema = SMALL, *, read_only: bool = False) -> StateFileError:
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StateFileError) as caught:
        Store.open(path, schema, read_only=read_only)
    assert str(path.name) in str(caught.value)
    if before:
        assert path.read_bytes() == before
    return caught.value


def test_a_foreign_database_is_refused(state_file: Path) -> None:
    db = sqlite3.connect(state_file)
    db.execute("CREATE TABLE precious(x)")
    db.close()
    assert isinstance(refusal(state_file), NotAStateFile)
    assert isinstance(refusal(state_file, read_only=True), NotAStateFile)


def test_a_file_that_is_no_database_is_refused(state_file: Path) -> None:
    state_file.write_text("sample,reads\n" * 1000)
    assert isinstance(refusal(state_file), NotAStateFile)


def test_a_file_cut_short_is_refused(state_file: Path) -> None:
    make(state_file, *(f"{n} {'x' * 500}" for n in range(50)))
    os.truncate(state_file, state_file.stat().st_size // 2)
    error = refusal(state_file)
    assert isinstance(error, StateFileDamaged)
    assert "scitq check" in str(error)


def test_a_file_cut_within_its_header_is_refused(state_file: Path) -> None:
    make(state_file)
    os.truncate(state_file, 60)
    assert isinstance(refusal(state_file), NotAStateFile | StateFileDamaged)


def test_damage_found_later_says_what_to_do(state_file: Path) -> None:
    make(state_file, *(f"{n} {'x' * 500}" for n in range(200)))
    with state_file.open("r+b") as file:
        size = file.seek(0, 2)
        for page in range(8, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with Store.open(state_file, SMALL) as store, pytest.raises(StateFileDamaged, match="scitq check"):
        store.write(lambda db: [store.write.__name__ for _ in db.execute("SELECT * FROM note ORDER BY body")])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert isinstance(refusal(tmp_path), NotAStateFile)


def test_what_is_no_ordinary_file_is_refused_untouched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    for path in (tmp_path / "pipe", Path("/dev/null")):
        before = mode(path)
        with pytest.raises(NotAStateFile, match="no ordinary file"):
            Store.open(path, SMALL)
        assert mode(path) == before
    with pytest.raises(BadInput):
        Store.open("lab\0.scitq", SMALL)


def test_a_stuck_process_makes_opening_fail_not_hang(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPEN_S", 0.2)
    Store.open(state_file, SMALL).close()
    lock = FileLock(Path(f"{state_file}.d/write.lock"))
    lock.acquire()
    with pytest.raises(StateFileBusy, match=f"process {os.getpid()}"):
        Store.open(state_file, SMALL)
    lock.close()
    Store.open(state_file, SMALL).close()


def test_a_missing_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotAStateFile, match="no folder"):
        Store.open(tmp_path / "no" / "lab.scitq", SMALL)
    assert not (tmp_path / "no").exists()


def test_reading_or_not_creating_makes_no_file(state_file: Path) -> None:
    with pytest.raises(NotAStateFile):
        Store.open(state_file, SMALL, read_only=True)
    with pytest.raises(NotAStateFile):
        Store.open(state_file, SMALL, create=False)
    assert list(state_file.parent.iterdir()) == []


def test_read_only_reads_and_refuses_to_write(state_file: Path) -> None:
    make(state_file, "one")
    with Store.open(state_file, SMALL, read_only=True) as store:
        assert bodies(store.reader()) == {"one"}
        assert store.read_only
        with pytest.raises(StateFileReadOnly):
            store.write(put("two"))


def test_a_newer_file_that_allows_reading_is_read(state_file: Path) -> None:
    with Store.open(state_file, SMALL_2) as store:
        store.write(put("one"))
    for asked in (True, False):
        with Store.open(state_file, SMALL, read_only=asked) as store:
            assert store.read_only
            assert bodies(store.reader()) == {"one"}
            with pytest.raises(StateFileReadOnly if asked else StateFileNewer):
                store.write(put("two"))


def test_a_newer_file_says_which_version_it_needs(state_file: Path) -> None:
    with Store.open(state_file, Schema(SMALL.application_id, (base, add_author), min_reader=2, min_writer=2)):
        pass
    for asked in (True, False):
        error = refusal(state_file, read_only=asked)
        assert isinstance(error, StateFileNewer)
        assert "schema 2" in str(error) and "pip install -U scitq" in str(error)


def test_a_newer_file_that_allows_writing_is_written(state_file: Path) -> None:
    with Store.open(state_file, Schema(SMALL.application_id, (base, add_author), min_reader=1, min_writer=1)):
        pass
    make(state_file, "one")


def test_a_file_migrated_while_open_is_written_no_more(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as old, Store.open(state_file, SMALL_2) as new:
        new.write(put("new"))
        with pytest.raises(StateFileNewer, match="Reading works"):
            old.write(put("old"))
        assert bodies(old.reader()) == {"new"}


def test_a_deleted_or_replaced_file_is_noticed(state_file: Path) -> None:
    make(state_file, "one")
    with Store.open(state_file, SMALL) as store:
        shutil.move(state_file, state_file.with_name("away"))
        with pytest.raises(StateFileMoved):
            store.write(put("two"))
        subprocess.run(["cp", state_file.with_name("away"), state_file], check=True)
        with pytest.raises(StateFileMoved):
            store.write(put("two"))


AS_NOBODY = """
import resource
from scitq.errors import *
import apsw, scitq.store.snapshot
home = Path(PATH).parent
def nobody():
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
def attempt(**how):
    try:
        with Store.open(PATH, SMALL, **how) as store:
            say("read", *sorted(bodies(store.reader())))
    except StateFileError as error:
        say(type(error).__name__, error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user can reach, for tests of rights: root has every right."""
    folder = Path(tempfile.mkdtemp(prefix="scitq-rights-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_that_may_not_be_written_is_refused(shared: Path) -> None:
    make(shared / "lab.scitq", "one")
    (shared / "lab.scitq").chmod(0o444)
    shared.chmod(0o777)
    (shared / "lab.scitq.d").chmod(0o777)
    for path in (shared / "lab.scitq.d").iterdir():
        path.unlink()
    [said, read] = run_child(AS_NOBODY + "nobody(); attempt(); attempt(read_only=True)", shared / "lab.scitq")
    assert said.startswith("StateFileReadOnly") and "may not be written" in said
    assert read == "read one"


def test_a_folder_that_may_not_be_written_is_refused(shared: Path) -> None:
    make(shared / "lab.scitq", "one")
    (shared / "lab.scitq").chmod(0o644)
    shared.chmod(0o555)
    (shared / "lab.scitq.d").chmod(0o500)
    code = AS_NOBODY + "nobody(); attempt(); attempt(read_only=True); PATH = str(home / 'new.scitq'); attempt()"
    said, read, new = run_child(code, shared / "lab.scitq")
    assert said.startswith("StateFileReadOnly")
    assert read.startswith("StateFileReadOnly") and "-wal" in read and "Copy the file" in read
    assert new.startswith("StateFileReadOnly")


def test_a_file_that_may_not_be_read_is_refused(shared: Path) -> None:
    make(shared / "lab.scitq", "one")
    (shared / "lab.scitq").chmod(0o000)
    [said] = run_child(AS_NOBODY + "nobody(); attempt(read_only=True)", shared / "lab.scitq")
    assert said.startswith("StateFileReadOnly") and "may not be read" in said


# Forks


def test_a_forked_child_that_just_ends_harms_nothing(state_file: Path) -> None:
    code = """
store = Store.open(PATH, SMALL); store.write(put("before")); store.reader(); store.subscribe(lambda: None)
for ending in (lambda: os._exit(0), lambda: sys.exit(0)):
    for _ in range(3):
        if (pid := os.fork()) == 0:
            ending()
        assert os.waitpid(pid, 0)[1] == 0
        store.write(put(f"after {pid}"))
say(len(bodies(store.reader())), integrity(store.reader())); store.close()
say(sorted(os.listdir(Path(PATH).parent)))
"""
    assert run_child(code, state_file) == ["7 ok", "['lab.scitq', 'lab.scitq.d']"]


def test_a_forked_child_may_not_use_its_parents_store(state_file: Path) -> None:
    code = """
from scitq.errors import ForkedProcess
store = Store.open(PATH, SMALL); store.write(put("before"))
if (pid := os.fork()) == 0:
    refused = 0
    for use in (lambda: store.write(put("x")), lambda: store.post(put("x")), store.reader, lambda: store.subscribe(print)):
        try: use()
        except ForkedProcess as error: refused += "Open it again" in str(error)
    store.close()
    sys.exit(refused)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
store.write(put("after")); say(len(bodies(store.reader()))); store.close()
"""
    assert run_child(code, state_file) == ["4", "2"]


def test_a_forked_child_may_open_the_file_anew(state_file: Path) -> None:
    code = """
import multiprocessing
store = Store.open(PATH, SMALL); store.write(put("before")); store.reader().execute("select 1").fetchall()
stop = threading.Event()
def busy(n=0):
    while not stop.is_set():
        store.write(put(f"parent {n}")); n += 1
    say("parent", n)
def child(me):
    with Store.open(PATH, SMALL) as again:
        for n in range(200):
            again.write(put(f"child {me} {n}"))
        assert "before" in bodies(again.reader())
thread = threading.Thread(target=busy); thread.start()
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=child, args=(n,)) for n in range(3)]
for c in children: c.start()
for c in children: c.join(); assert c.exitcode == 0, c.exitcode
stop.set(); thread.join()
found = bodies(store.reader())
say(len([b for b in found if b.startswith("child")]), len([b for b in found if b.startswith("parent")]), integrity(store.reader()))
store.close()
say(sorted(os.listdir(Path(PATH).parent)))
"""
    parent, counts, left = run_child(code, state_file)
    assert counts == f"600 {parent.split()[1]} ok"
    assert left == "['lab.scitq', 'lab.scitq.d']"


def test_a_forked_child_outlives_its_parents_store(state_file: Path) -> None:
    code = """
store = Store.open(PATH, SMALL); store.write(put("before"))
out, into = os.pipe()
if (pid := os.fork()) == 0:
    again = Store.open(PATH, SMALL)
    again.write(put("child")); os.write(into, b"!")
    until(lambda: "parent" in bodies(again.reader()))
    again.write(put("child again")); again.close()
    os._exit(0)
os.read(out, 1)
store.write(put("parent")); store.close()
assert os.waitpid(pid, 0)[1] == 0
with Store.open(PATH, SMALL) as store: say(*sorted(bodies(store.reader())), integrity(store.reader()))
"""
    assert run_child(code, state_file) == ["before child child again parent ok"]


def test_a_forked_child_that_opens_it_late_does_not_write_back_old_pages(state_file: Path) -> None:
    code = """
import subprocess
store = Store.open(PATH, SMALL); store.write(put("before")); store.reader().execute("select 1").fetchall()
out, into = os.pipe()
if (pid := os.fork()) == 0:
    os.read(out, 1)  # by now the file has been closed by all, and its WAL was another one's in between
    with Store.open(PATH, SMALL) as again: again.write(put("child"))
    os._exit(0)
store.close()
other = "import sys; from tests.store.small import *; from scitq.store.connection import Store\\n"
other += "with Store.open(sys.argv[1], SMALL) as s: [s.write(put(f'other {n}')) for n in range(300)]"
subprocess.run([sys.executable, "-c", other, PATH], check=True)
os.write(into, b"!")
assert os.waitpid(pid, 0)[1] == 0
with Store.open(PATH, SMALL) as store: say(len(bodies(store.reader())), integrity(store.reader()))
"""
    assert run_child(code, state_file) == ["302 ok"]


# Surroundings


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, scitq.store.connection, scitq.store.lease; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "apsw" in loaded
    assert not loaded & {"sqlite3", "asyncio", "subprocess", "ctypes", "sqlite_utils"}


def test_a_system_without_flock_is_refused_with_a_sentence() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import scitq.store.connection"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1].startswith(f"{NotSupported.__module__}.NotSupported: scitq runs on Linux")
    )


def test_posted_writes_are_done_when_the_script_just_ends(state_file: Path) -> None:
    run_child("store = Store.open(PATH, SMALL)\nfor n in range(500): store.post(put(str(n)))", state_file)
    with Store.open(state_file, SMALL) as store:
        assert len(bodies(store.reader())) == 500
        assert integrity(store.reader()) == "ok"


def test_write_inside_write_is_refused(state_file: Path) -> None:
    with Store.open(state_file, SMALL) as store, pytest.raises(BadInput):
        store.write(lambda db: store.write(put("x")))


@pytest.mark.promise("core 11.17")
def test_how_small_the_file_once_was_is_forgotten(state_file: Path) -> None:
    """Statistics of a small file would make its next user, however much it adds, read whole tables."""
    for body in ("one", "two", "three"):
        with Store.open(state_file, SMALL) as store:
            store.write(put(body))
            assert list(store.reader().execute("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'")) == []


def test_a_fork_in_the_middle_of_another_threads_import_waits_for_nobody_in_the_child(tmp_path: Path) -> None:
    program = """
import importlib.abc, os, sys, threading, time
from pathlib import Path
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA

store = Store.open(Path(sys.argv[1]), SCHEMA)
has_begun = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ctypes" and threading.current_thread() is not threading.main_thread():
            has_begun.set()
            time.sleep(1)

sys.modules.pop("ctypes", None)
sys.meta_path.insert(0, Slow())
threading.Thread(target=lambda: __import__("ctypes")).start()
has_begun.wait()
if (child := os.fork()) == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "lab.scitq")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "7\n", done.stderr
