"""The hazards of a second library in the process (S1 to S6 of reference/sqlite.md) are refused with a sentence."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import LiveFileOpened
from scitq.store.connection import Store
from tests.store.small import SMALL, SMALL_2, bodies, put, run_child

WAYS: dict[str, Callable[[str], Any]] = {
    "S1 read with sqlite3": lambda path: sqlite3.connect(path).execute("SELECT count(*) FROM note"),
    "S2 write with sqlite3": lambda path: sqlite3.connect(path).execute("INSERT INTO note(body) VALUES ('x')"),
    "S3 open": lambda path: open(path, "rb").close(),
    "S3 open -shm": lambda path: open(path + "-shm", "rb").close(),
    "S3 open -wal": lambda path: open(path + "-wal", "rb").close(),
    "S3 os.open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "S3 read_bytes": lambda path: Path(path).read_bytes(),
    "S3 copy": lambda path: shutil.copy(path, path + ".copy"),
    "S3 hash": lambda path: hashlib.md5(Path(path).read_bytes()),
    "S3 compress": gzip.open,
    "S6 mode=ro": lambda path: sqlite3.connect(f"file:{path}?mode=ro", uri=True),
    "S6b immutable": lambda path: sqlite3.connect(f"file://{path}?immutable=1", uri=True),
    "localhost": lambda path: sqlite3.connect(f"file://localhost{path}", uri=True),
    "a quoted URI": lambda path: sqlite3.connect("file:" + path.replace("l", "%6c"), uri=True),
    "bytes": lambda path: sqlite3.connect(os.fsencode(path)),
    "a Path": lambda path: sqlite3.connect(Path(path)),
    "a relative path": lambda path: sqlite3.connect(os.path.relpath(path)),
    "a roundabout path": lambda path: open(os.path.join(os.path.dirname(path), ".", "lab.scitq")).close(),
}


@pytest.mark.parametrize("way", WAYS)
def test_opening_a_live_file_otherwise_is_refused(state_file: Path, way: str) -> None:
    with Store.open(state_file, SMALL) as store:
        store.write(put("one"))
        with pytest.raises(LiveFileOpened, match=r"engine.snapshot\(\).*scitq backup FILE"):
            WAYS[way](str(state_file))
        # The locks are still there: another process is not the last user, and what we go on writing stays.
        run_child("store = Store.open(PATH, SMALL); store.write(put('other')); store.close()", state_file)
        store.write(put("two"))
    with Store.open(state_file, SMALL) as store:
        assert bodies(store.reader()) == {"one", "two", "other"}


def test_links_of_both_kinds_are_seen_through(state_file: Path) -> None:
    with Store.open(state_file, SMALL):
        soft, hard = state_file.with_name("soft"), state_file.with_name("hard")
        soft.symlink_to(state_file)
        hard.hardlink_to(state_file)
        for link in (soft, hard):
            with pytest.raises(LiveFileOpened):
                sqlite3.connect(link)
            with pytest.raises(LiveFileOpened):
                link.read_bytes()


def test_a_read_only_store_is_guarded_as_well(state_file: Path) -> None:
    Store.open(state_file, SMALL).close()
    with Store.open(state_file, SMALL, read_only=True), pytest.raises(LiveFileOpened):
        state_file.read_bytes()


def test_a_file_stays_guarded_until_its_last_store_is_closed(state_file: Path) -> None:
    first, second = Store.open(state_file, SMALL), Store.open(state_file, SMALL)
    first.close()
    with pytest.raises(LiveFileOpened):
        state_file.read_bytes()
    second.close()
    assert state_file.read_bytes().startswith(b"SQLite format 3")
    sqlite3.connect(state_file).close()


def test_other_files_and_other_processes_are_free(state_file: Path, tmp_path: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        store.write(put("one"))
        (tmp_path / "other").write_text("x")
        other = sqlite3.connect(tmp_path / "other.db")
        other.execute("CREATE TABLE t(x)")
        other.close()
        sqlite3.connect(":memory:").close()
        code = "import sqlite3; db = sqlite3.connect(PATH); say(*db.execute('SELECT body FROM note').fetchone()); db.close()"
        assert run_child(code, state_file) == ["one"]
        assert subprocess.run(["md5sum", state_file], check=True, capture_output=True).stdout
        store.write(put("two"))
        assert len(bodies(store.reader())) == 2


def test_a_failed_opening_leaves_no_guard(state_file: Path) -> None:
    state_file.write_text("not a database" * 100)
    with pytest.raises(Exception, match="no SQLite file"):
        Store.open(state_file, SMALL)
    assert state_file.read_text().startswith("not")


def test_a_refused_opening_of_a_live_file_keeps_its_guard(state_file: Path) -> None:
    with Store.open(state_file, SMALL_2) as store:
        with Store.open(state_file, SMALL) as older:
            assert older.read_only
        with pytest.raises(LiveFileOpened):
            state_file.read_bytes()
        store.write(put("one"))
