"""All output as an archive: read back by others, of any size, safe names, what is elsewhere named."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.shell.web import archive as format
from scitq.shell.web import zip as archive
from scitq.shell.web.archive import Archive
from scitq.states import Outcome
from scitq.store import logs, manifests, query
from scitq.task import ExecutionId
from tests.workflow.history import Made, history

EVIL = "../../etc/<script>\x1b[31m\n'\"\\ con.txt \u202e"


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    """A file that nobody drives."""
    with Engine(state_file, drive=False) as found:
        yield found


def _ended(engine: Engine, **more: Any) -> tuple[int, int]:
    """A task that has succeeded, and its execution."""
    ((task,),) = history(engine, f"w{len(engine.workflows())}", {"s": Made(1, **more)}).values()
    return task, engine.task(task).executions[-1].id


def _wrote(engine: Engine, execution: int, stream: int, data: bytes) -> None:
    engine._write(lambda db: logs.keep(db, ExecutionId(execution), stream, data, len(data), False))


def _left(engine: Engine, execution: int, address: str, names: list[str]) -> None:
    files = [[name, 3, None] for name in names]
    engine._write(lambda db: manifests.put(db, ExecutionId(execution), address, files))


def _of(engine: Engine, *ids: int) -> zipfile.ZipFile:
    found = zipfile.ZipFile(io.BytesIO(b"".join(archive.pieces(engine, ids))))
    assert found.testzip() is None
    return found


def test_output_and_files_of_tasks_are_read_back(engine: Engine, tmp_path: Path) -> None:
    task, execution = _ended(engine, name="one", again=1)
    assert [one.outcome for one in engine.task(task).executions].count(Outcome.SUCCEEDED) == 1
    large = os.urandom(700_000)
    first = engine.task(task).executions[0].id
    _wrote(engine, first, logs.ERR, b"it went wrong\n")
    _wrote(engine, execution, logs.OUT, large)
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_bytes(b"abc" * 100_000)
    (folder / "b.gz").write_bytes(large)
    _left(engine, execution, str(folder), ["sub/a.txt", "b.gz"])

    found = _of(engine, task)

    assert found.read(f"{task} one/stdout.txt") == large
    assert found.read(f"{task} one/try 1 ({first})/stderr.txt") == b"it went wrong\n"
    assert found.read(f"{task} one/output/sub/a.txt") == b"abc" * 100_000
    assert found.read(f"{task} one/output/b.gz") == large
    assert len(found.namelist()) == 4


def test_another_program_finds_nothing_wrong(engine: Engine, tmp_path: Path) -> None:
    task, execution = _ended(engine, name="é " + EVIL)
    _wrote(engine, execution, logs.OUT, b"x" * 1000)
    (tmp_path / "all.zip").write_bytes(b"".join(archive.pieces(engine, [task])))

    program = shutil.which("unzip")
    assert program is not None, "unzip is not installed: see tests/debian-packages.txt"
    ended = subprocess.run([program, "-t", str(tmp_path / "all.zip")], capture_output=True, check=False)

    assert ended.returncode == 0, ended


def test_names_stay_below_their_folder(engine: Engine, tmp_path: Path) -> None:
    task, execution = _ended(engine, name=EVIL)
    folder, outside = tmp_path / "out", tmp_path / "secret"
    folder.mkdir()
    outside.write_text("secret")
    (folder / "link").symlink_to(outside)
    (folder / "inner").symlink_to("plain")
    (folder / "plain").write_text("abc")
    (folder / "Plain").write_text("ABC")
    os.mkfifo(folder / "pipe")
    _wrote(engine, execution, logs.OUT, b"x")
    names = ["link", "inner", "plain", "Plain", "pipe", "../secret", "gone", "/etc/passwd"]
    _left(engine, execution, f"file://{folder}", names)

    found = _of(engine, task)

    names = found.namelist()
    assert all(not name.startswith("/") and ".." not in name.split("/") and name.isprintable() for name in names)
    assert all(name.split("/")[0].startswith(f"{task} ") for name in names if name != "left-out.txt")
    kept = {name.partition("/output/")[2] for name in names if "/output/" in name}
    assert kept == {"inner", "plain", "Plain (2)"}
    told = found.read("left-out.txt").decode()
    assert [word for word in ("link", "pipe", "../secret", "gone", "passwd") if f"{word}:" not in told] == []
    assert b"secret" not in b"".join(found.read(name) for name in names if name != "left-out.txt")


def test_what_is_elsewhere_is_named(engine: Engine) -> None:
    task, execution = _ended(engine, name="far")
    _left(engine, execution, "https://me:secret@host/lab/qc", ["a", "b"])

    found = _of(engine, task)

    assert found.namelist() == ["elsewhere.txt"]
    told = found.read("elsewhere.txt").decode()
    assert f"{task} 'far': 2 files, 6 B, in https://" in told and "secret" not in told


@pytest.mark.parametrize("text", ["con", "a/b", "..", "", "x" * 500, "a. ", "\ud800", "LPT1.txt", "\0"])
def test_safe_names(text: str) -> None:
    found = archive.safe(text)

    assert found and found not in (".", "..") and "/" not in found and "\0" not in found and len(found) <= 81
    assert found.encode() and not found.endswith((" ", ".")) and found.lower() != "con"


def test_an_empty_archive_is_one(engine: Engine) -> None:
    assert _of(engine).namelist() == []


def test_sizes_beyond_four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the border moved, for 4 GB take long: what is above it is written as what is really large would be."""
    monkeypatch.setattr(format, "LARGE_BYTES", 1000)
    with Archive() as target:
        raw = b"".join([*target.file("a", [b"x" * 2000], 2000, 0), *target.file("b", [b"y"], 1, 0), *target.end()])
        found = zipfile.ZipFile(io.BytesIO(raw))
        assert found.testzip() is None and found.read("a") == b"x" * 2000 and found.read("b") == b"y"


def test_a_file_beyond_four_gigabytes_is_found_in_a_sparse_archive(tmp_path: Path) -> None:
    with Archive() as target, (tmp_path / "large.zip").open("wb") as file:
        for piece in target.file("a", [b"first"], 5, 0):
            file.write(piece)
        target._at = 5 << 30
        file.seek(5 << 30)
        for piece in (*target.file("b", [b"second"], 6, 0), *target.end()):
            file.write(piece)
    with zipfile.ZipFile(tmp_path / "large.zip") as found:
        assert found.read("a") == b"first" and found.read("b") == b"second" and found.testzip() is None


def test_more_files_than_the_old_format_counts() -> None:
    with Archive() as target:
        raw = b"".join([*(piece for n in range(66_000) for piece in target.file(f"{n}", (), 0, 0)), *target.end()])
    found = zipfile.ZipFile(io.BytesIO(raw))
    assert len(found.namelist()) == 66_000 and found.read("65999") == b""


def test_many_tasks_begin_at_once_and_take_no_memory(engine: Engine) -> None:
    """By what is read, not by the clock: the first bytes come after a page of tasks, the last ones with nothing more held."""
    (ids,) = history(engine, "big", {"s": Made(10_000)}).values()
    executions = [id for (id,) in query.rows(engine._reader(), "select id from execution")]

    def write(db: Any) -> None:
        for id in executions:
            logs.keep(db, ExecutionId(id), logs.OUT, b"x" * 500, 500, False)

    engine._write(write)
    asked: list[str] = []

    def trace(_: object, sql: str, values: object) -> bool:
        asked.append(sql)
        return True

    engine._reader().set_exec_trace(trace)

    stream = archive.pieces(engine, ids)
    first = next(stream)
    assert first.startswith(b"PK") and len(asked) < 10
    engine._reader().set_exec_trace(None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(map(len, stream))

    assert total > 10_000 * 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kB


def test_who_stops_asking_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    task, execution = _ended(engine, name="one")
    (tmp_path / "a").write_bytes(os.urandom(1 << 20))
    _left(engine, execution, str(tmp_path), ["a"])
    assert not _is_open(tmp_path / "a")

    stream = archive.pieces(engine, [task])
    for _ in range(3):
        next(stream)
    assert _is_open(tmp_path / "a")
    stream.close()

    assert not _is_open(tmp_path / "a")


def _is_open(file: Path) -> bool:
    """Whether this process has a file open."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder itself, which was read
            found.append(os.readlink(handle))
    return str(file) in found
