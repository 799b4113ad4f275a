"""What every storage must do alike, and what only many files, faults on the way or a look at the line show."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import FetchError
from scitq.fetch.progress import Progress
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names
from tests.fetch.servers import Storages
from tests.fetch.test_program import LISTENING
from tests.fetch.web import wait_for

DATA = random.Random(12).randbytes(1_500_000)
ODD = ["a b", "it's", "$(touch x)", "ünï", "-dash", 'q"q', "b|ar", "`id`", "a;b&c", "50%", "#hash", "[x]", "empty"]


@pytest.fixture
def settings(settings: Settings, store: Storages) -> Settings:
    """With the configuration of the test's own storages."""
    return replace(settings, rclone_config=str(store.config))


def odd_tree(folder: Path) -> Path:
    """Files of every odd name, one of them empty, and the same in a folder with an odd name."""
    for below in (folder, folder / "-d $(id)"):
        below.mkdir(parents=True)
        for name in ODD:
            (below / name).write_text("" if name == "empty" else name)
    return folder


@pytest.mark.promise("data 11.3", "data 11.21")
def test_a_sync_there_and_back_moves_what_differs(top: str, tmp_path: Path, settings: Settings) -> None:
    source = odd_tree(tmp_path / "in")

    fetch.sync(source, top, settings=settings)
    fetch.sync(top, tmp_path / "out", settings=settings)
    assert names(tmp_path / "out") == names(source)
    assert (tmp_path / "out/-d $(id)/$(touch x)").read_text() == "$(touch x)"

    (source / "ünï").write_text("changed")
    (source / "a b").unlink()
    (source / "more").write_text("more")
    fetch.sync(source, top, settings=settings)
    there = {
        row.rel_name: row.size for row in fetch.list_content(top, no_rec=True, settings=settings) if not row.is_dir
    }
    assert there == {**{name: len(name.encode()) for name in ODD}, "ünï": 7, "more": 4, "empty": 0}
    fetch.sync(source, top, delete=True, settings=settings)
    fetch.sync(top, tmp_path / "out", delete=True, settings=settings)
    assert names(tmp_path / "out") == names(source) and (tmp_path / "out/ünï").read_text() == "changed"
    assert names(Path.cwd()) == names(tmp_path)  # nothing was given to a shell


def test_a_file_of_the_same_size_is_sent_all_the_same(top: str, tmp_path: Path, settings: Settings) -> None:
    for number in (1, 2):
        (tmp_path / "x").write_text(str(number))
        os.utime(tmp_path / "x", (1_700_000_000, 1_700_000_000))
        fetch.put(tmp_path / "x", f"{top}/x", settings=settings)
    fetch.get(f"{top}/x", tmp_path / "back", settings=settings)
    assert (tmp_path / "back").read_text() == "2"


def test_a_folder_whose_file_has_the_same_size_is_sent_all_the_same(
    top: str, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    """Also where the storage keeps no times. A sync to such a one says what it went by."""
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        for name, at_s in (("x", 1_700_000_000 + number), ("y", 1_600_000_000)):
            (tmp_path / "in" / name).write_text(str(number if name == "x" else 0))
            os.utime(tmp_path / "in" / name, (at_s, at_s))
        fetch.put(tmp_path / "in", f"{top}/d", settings=settings)
        fetch.get(f"{top}/d", f"{tmp_path}/back", settings=settings)
        assert (tmp_path / "back/x").read_text() == str(number)
    fetch.sync(tmp_path / "in", f"{top}/d", settings=settings)
    assert [("neither times nor checksums" in each) for each in heard.warnings] == [True] * top.startswith("dav")


def test_progress_is_told_on_every_storage(top: str, tmp_path: Path, settings: Settings, heard: Heard) -> None:
    (tmp_path / "in" / "d").mkdir(parents=True)
    for name in ("x", "y", "d/x"):
        (tmp_path / "in" / name).write_bytes(DATA)

    def told(*files: str, each_file: bool = True) -> None:
        said, heard.progress[:] = heard.progress[:], []
        wholes = [each for each in said if not each.file]
        assert wholes[-1].done_bytes == wholes[-1].total_bytes == len(files) * len(DATA)
        assert [each.done_bytes for each in wholes] == sorted(each.done_bytes for each in wholes)
        singles = {each.file for each in said if each.file and each.is_done and each.done_bytes == len(DATA)}
        assert singles <= set(files) and (len(files) > 1 or not each_file or singles == set(files))

    fetch.put(tmp_path / "in/x", f"{top}/one", settings=settings)
    told("x")
    fetch.put(tmp_path / "in", f"{top}/all", settings=settings)
    told("x", "y", "d/x")
    fetch.get(f"{top}/one", tmp_path / "back", settings=settings)
    told("one")
    fetch.get(f"{top}/all", tmp_path / "out", settings=settings)
    told("x", "y", "d/x")
    (tmp_path / "out/d/x").unlink()
    fetch.sync(f"{top}/all", tmp_path / "out", settings=settings)
    told("d/x", each_file=False)  # rclone may be done before it tells of a single file


def test_hundreds_of_small_files_in_one_folder(top: str, tmp_path: Path, settings: Settings) -> None:
    """5,000 of them: tests/fetch/test_large.py."""
    many_files(100, top, tmp_path, replace(settings, parallel=16))


def many_files(count: int, top: str, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    for number in range(count):
        (tmp_path / "in" / f"{number:04}").write_text(str(number))

    fetch.put(tmp_path / "in", f"{top}/all", settings=settings)
    rows = fetch.list_content(f"{top}/all", settings=settings)
    fetch.get(f"{top}/all", tmp_path / "out", settings=settings)
    gone = fetch.delete(f"{top}/all", recursive=True, settings=settings)

    assert len(rows) == count == len([row for row in gone if not row.is_dir])
    assert names(tmp_path / "out") == names(tmp_path / "in")
    assert all((tmp_path / "out" / f"{number:04}").read_text() == str(number) for number in range(count))


@pytest.mark.sampled
def test_ten_thousand_objects_are_listed_with_md5_by_questions_at_once(
    store: Storages, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Nothing is downloaded; of every tenth the storage knows no MD5, which takes a question of its own."""
    from scitq.shell import cli

    bucket = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(bucket)
    store.fill(bucket, 10_000)
    store.s3.reset()
    monkeypatch.setenv("RCLONE_CONFIG", str(store.config))

    assert cli.run(cli.fetch_program(), ["nrlist", f"s3://{bucket}", "--md5", "-H"], "scitq-fetch") == 0

    said = capfdbinary.readouterr()
    rows = [line.split() for line in said.out.decode().splitlines()]
    known = {row[0]: row[-1] for row in rows}
    assert len(known) == 10_000 and b"10,000 files" in said.err
    assert [name for name, md5 in known.items() if md5 == "-"] == [
        f"{number:05}.txt" for number in range(0, 10_000, 10)
    ]
    assert known["01234.txt"] == "-" or known["01234.txt"] == hashlib.md5(b"1234").hexdigest()
    assert all(md5 == "-" or md5 == hashlib.md5(str(int(name[:5])).encode()).hexdigest() for name, md5 in known.items())
    assert store.s3.most_at_once < 100  # of 1,000 questions: 16 at once, and lines that have just been left
    assert store.s3.up_bytes < 1_500 * 900  # 1,000 questions, and some 20 pages


def test_the_md5_of_an_object_sent_in_parts_is_kept(store: Storages, tmp_path: Path, settings: Settings) -> None:
    bucket = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(bucket)
    data = DATA * 8
    (tmp_path / "x").write_bytes(data)

    fetch.put(
        tmp_path / "x", f"s3://{bucket}/x",
        settings=replace(settings, rclone_options=("--s3-upload-cutoff=5M", "--s3-chunk-size=5M")),
    )  # fmt: skip

    assert fetch.info(f"s3://{bucket}/x", md5=True, settings=settings).md5 == hashlib.md5(data).hexdigest()
    (row,) = fetch.list_content(f"s3://{bucket}", md5=True, settings=settings)
    assert row.md5 == hashlib.md5(data).hexdigest()


def test_a_download_from_a_storage_that_is_cut_goes_on_where_it_was(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    bucket = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(bucket)
    data = DATA * 8
    (tmp_path / "x").write_bytes(data)
    fetch.put(tmp_path / "x", f"s3://{bucket}/x", settings=settings)
    store.s3.reset()
    store.s3.cut_at = random.randrange(100_000, len(data) - 1_000_000)

    fetch.get(f"s3://{bucket}/x", tmp_path / "y", settings=settings)

    assert (tmp_path / "y").read_bytes() == data and store.s3.cut_at == -1
    assert store.s3.down_bytes < 1.1 * len(data) + 2_000_000  # what stood in the line when it was cut is lost


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_rclone_ends_with_the_program_that_started_it(
    number: int, code: int, store: Storages, tmp_path: Path, settings: Settings
) -> None:
    bucket = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(bucket)
    (tmp_path / "x").write_bytes(DATA)
    fetch.put(tmp_path / "x", f"s3://{bucket}/x", settings=settings)
    store.s3.reset()
    store.s3.hold_at = 500_000
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "RCLONE_CONFIG": str(store.config),
        "MARK": bucket,
    }
    child = subprocess.Popen([*LISTENING, "copy", f"s3://{bucket}/x", "out/"], env=environ, stderr=subprocess.PIPE)
    try:
        wait_for(store.s3.is_held.is_set)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()

    wait_for(lambda: not processes_with(f"MARK={bucket}".encode()))
    store.s3.reset()
    assert child.returncode == code and (said.count(b"\n") == 1 or number == signal.SIGKILL)
    assert not (tmp_path / "out/x").exists()
    if number != signal.SIGKILL:
        assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []
    fetch.get(f"s3://{bucket}/x", f"{tmp_path}/out/", settings=settings)
    assert (tmp_path / "out/x").read_bytes() == DATA


def processes_with(sign: bytes) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sign in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_who_listens_to_many_files_hears_one_at_a_time(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    for number in range(50):
        (tmp_path / "in" / str(number)).write_bytes(bytes(1000))
    inside: list[int] = []

    def hear(progress: Progress) -> None:
        inside.append(1)
        assert len(inside) == 1
        inside.pop()

    fetch.sync(tmp_path / "in", tmp_path / "out", settings=replace(settings, parallel=8), progress=hear)
    with pytest.raises(FetchError):
        fetch.sync(tmp_path / "none", tmp_path / "out", settings=settings, progress=hear)
