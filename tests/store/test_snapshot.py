"""Backups: whole, private, and never over something else."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from scitq.errors import BadInput, StateFileFull
from scitq.store.connection import Store
from scitq.store.snapshot import backup
from tests.store.small import SMALL, bodies, put, run_child


def test_a_backup_is_a_whole_state_file_of_its_own(state_file: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Store.open(state_file, SMALL) as store:
            store.write(put("one"))
            target = backup(store, tmp_path / "copy.scitq")
            store.write(put("two"))
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    with Store.open(target, SMALL) as copy:
        assert bodies(copy.reader()) == {"one"}
        copy.write(put("three"))


def test_a_backup_may_be_opened_with_anything(state_file: Path, tmp_path: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        store.write(put("one"))
        db = sqlite3.connect(backup(store, tmp_path / "copy.scitq"))
        assert db.execute("SELECT body FROM note").fetchall() == [("one",)]
        db.close()


def test_a_backup_of_a_file_being_written_is_one_moment_of_it(state_file: Path, tmp_path: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        stop = threading.Event()

        def work() -> None:
            n = 0
            while not stop.is_set():
                store.write(lambda db, n=n: (put(f"{n} a")(db), put(f"{n} b")(db)))  # type: ignore[misc]
                n += 1

        thread = threading.Thread(target=work)
        thread.start()
        try:
            copies = [backup(store, tmp_path / f"copy {n}.scitq") for n in range(5)]
        finally:
            stop.set()
            thread.join()
    for copy in copies:
        with Store.open(copy, SMALL, read_only=True) as opened:
            found = bodies(opened.reader())
            assert {body[:-1] for body in found if body.endswith("a")} == {
                body[:-1] for body in found if body.endswith("b")
            }


def test_an_existing_target_is_never_replaced(state_file: Path, tmp_path: Path) -> None:
    with Store.open(state_file, SMALL) as store:
        (tmp_path / "precious").write_text("x")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        for name in ("precious", "dangling", "lab.scitq"):
            with pytest.raises(BadInput, match="exists already"):
                backup(store, tmp_path / name)
        with pytest.raises(BadInput, match="folder"):
            backup(store, tmp_path)
        with pytest.raises(BadInput, match="does not exist"):
            backup(store, tmp_path / "no" / "copy")
    assert (tmp_path / "precious").read_text() == "x"


def test_a_disk_without_links_takes_a_backup_too(
    state_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Store.open(state_file, SMALL) as store:
        backup(store, tmp_path / "copy.scitq")
        with pytest.raises(BadInput):
            backup(store, tmp_path / "copy.scitq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.scitq", "lab.scitq", "lab.scitq.d"]


def test_a_read_only_store_can_be_backed_up(state_file: Path, tmp_path: Path) -> None:
    Store.open(state_file, SMALL).close()
    with Store.open(state_file, SMALL, read_only=True) as store:
        assert backup(store, tmp_path / "copy.scitq").exists()


def test_a_backup_that_does_not_fit_leaves_nothing(state_file: Path) -> None:
    code = """
import resource
from scitq.errors import StateFileFull
from scitq.store.snapshot import backup
store = Store.open(PATH, SMALL)
for n in range(100): store.write(put(f"{n} {'x' * 10_000}"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try: backup(store, Path(PATH).with_name("copy"))
except StateFileFull as error: say("copy" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
say(sorted(os.listdir(Path(PATH).parent)))
"""
    assert run_child(code, state_file) == ["True", "['lab.scitq', 'lab.scitq.d']"]
    assert issubclass(StateFileFull, Exception)
