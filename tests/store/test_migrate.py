"""Old files become new ones: once, whole or not at all, after a backup."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from scitq.errors import StateFileDamaged
from scitq.store.connection import Store
from scitq.store.migrate import Schema
from tests.store.small import SMALL, SMALL_2, add_author, base, bodies, integrity, put, run_child, start_child


def columns(db: apsw.Connection) -> list[str]:
    return [str(row[1]) for row in db.execute("PRAGMA table_info(note)")]


def make(path: Path) -> None:
    with Store.open(path, SMALL) as store:
        store.write(put("one"))


def test_an_old_file_is_brought_up_to_date_and_keeps_its_rows(state_file: Path) -> None:
    make(state_file)
    with Store.open(state_file, SMALL_2) as store:
        db = store.reader()
        assert columns(db) == ["id", "body", "author"]
        assert bodies(db) == {"one"}
        assert db.pragma("user_version") == 2
        assert dict(db.execute("SELECT k, v FROM meta WHERE k LIKE 'min%'")) == {"min_reader": 1, "min_writer": 2}
        assert db.pragma("journal_mode") == "wal"


def test_before_it_a_backup_is_made_that_the_old_version_opens(state_file: Path) -> None:
    make(state_file)
    with Store.open(state_file, SMALL_2) as store:
        [copy] = (store.side / "backups").iterdir()
    assert copy.name.startswith("lab-v1-")
    with Store.open(copy, SMALL) as old:
        assert bodies(old.reader()) == {"one"}


def test_a_new_file_needs_no_backup(state_file: Path) -> None:
    with Store.open(state_file, SMALL_2) as store:
        assert not (store.side / "backups").exists()


def test_two_processes_migrate_it_once(state_file: Path) -> None:
    make(state_file)
    code = "store = Store.open(PATH, SMALL_2); store.write(put(sys.argv[2])); store.close()"
    children = [start_child(code, state_file, n) for n in range(4)]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    with Store.open(state_file, SMALL_2) as store:
        assert bodies(store.reader()) == {"one", "0", "1", "2", "3"}
        assert len(list((store.side / "backups").iterdir())) == 1


def test_a_failing_migration_leaves_the_old_version_whole(state_file: Path) -> None:
    def fail(db: apsw.Connection) -> None:
        add_author(db)
        db.execute("DELETE FROM note")
        raise RuntimeError("in the middle")

    make(state_file)
    with pytest.raises(RuntimeError):
        Store.open(state_file, Schema(SMALL.application_id, (base, fail), 1, 2))
    with Store.open(state_file, SMALL) as store:
        assert columns(store.reader()) == ["id", "body"]
        assert bodies(store.reader()) == {"one"}
        store.write(put("two"))


def test_a_failing_creation_leaves_nothing_in_the_way(state_file: Path) -> None:
    def fail(db: apsw.Connection) -> None:
        raise RuntimeError("at birth")

    with pytest.raises(RuntimeError):
        Store.open(state_file, Schema(SMALL.application_id, (base, fail), 1, 1))
    make(state_file)


def test_a_migration_that_breaks_a_reference_is_taken_back(state_file: Path) -> None:
    def breaks(db: apsw.Connection) -> None:
        db.execute("CREATE TABLE child(note INTEGER REFERENCES note(id)) STRICT")
        db.execute("INSERT INTO child VALUES (99)")

    make(state_file)
    with pytest.raises(StateFileDamaged, match=r"child.*keeps its old schema"):
        Store.open(state_file, Schema(SMALL.application_id, (base, breaks), 1, 2))
    make_again = Store.open(state_file, SMALL)
    assert bodies(make_again.reader()) == {"one"}
    make_again.close()


@pytest.mark.parametrize("moment", ["first statement", "second statement", "before commit"])
def test_a_process_killed_while_migrating_leaves_the_old_version(state_file: Path, moment: str) -> None:
    make(state_file)
    code = """
import scitq.store.migrate as migrate
from scitq.store.migrate import Schema
from tests.store.small import base, add_author
def die(): os.kill(os.getpid(), signal.SIGKILL)
def step(db):
    if sys.argv[2] == "first statement": die()
    add_author(db)
    for n in range(2000): db.execute("INSERT INTO note(body) VALUES (?)", (f"{n} {'x' * 2000}",))  # more than the cache
    if sys.argv[2] == "second statement": die()
def version(self, calls=[0]):
    calls[0] += sys._getframe(1).f_code.co_name == "_upgrade"  # read there last for user_version, just before the commit
    if calls[0] and sys.argv[2] == "before commit": die()
    return len(self.migrations)
Schema.version = property(version)
Store.open(PATH, Schema(SMALL.application_id, (base, step), 1, 2))
say("survived")
"""
    with start_child(code, state_file, moment) as child:
        out, err = child.communicate(timeout=60)
    assert child.returncode == -9, (out, err)
    with Store.open(state_file, SMALL) as store:
        assert bodies(store.reader()) == {"one"}
        assert columns(store.reader()) == ["id", "body"]
        assert integrity(store.reader()) == "ok"
        store.write(put("two"))
    assert run_child(
        "store = Store.open(PATH, SMALL_2); say(len(bodies(store.reader()))); store.close()", state_file
    ) == ["2"]
