"""ftp against a real server."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import AccessDenied, Cancelled, Collision, Interrupted, NotFound, Stalled
from scitq.fetch.ftplines import parse_line
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names
from tests.fetch.ftpserver import FtpServer
from tests.fetch.servers import Storages
from tests.fetch.web import WebServer, wait_for

DATA = random.Random(6).randbytes(2_000_000)
ODD = ["a b", "it's", "$(touch x)", "ünï", "-dash", 'q"q', "b|ar", "`id`", "a;b&c", "50%", "a%20b"]


def test_the_server_does_not_move_the_process_that_it_is_in(ftp: FtpServer, settings: Settings) -> None:
    (ftp.root / "folder").mkdir()
    before = Path.cwd()
    assert fetch.info(f"{ftp.url}/folder", settings=settings).is_dir
    assert Path.cwd() == before


def test_a_file_goes_there_and_comes_back(ftp: FtpServer, tmp_path: Path, settings: Settings, heard: Heard) -> None:
    (tmp_path / "x.bin").write_bytes(DATA)

    fetch.put(tmp_path / "x.bin", f"{ftp.url}/d/e/", settings=settings)
    (landed,) = fetch.get(f"{ftp.url}/d/e/x.bin", f"{tmp_path}/back/", settings=replace(settings, md5=True))

    assert (tmp_path / "back/x.bin").read_bytes() == DATA and landed.md5 == hashlib.md5(DATA).hexdigest()
    assert names(ftp.root) == ["d", "d/e", "d/e/x.bin"]
    assert [each for each in heard.progress if each.done_bytes == len(DATA)]


@pytest.mark.parametrize("way", ["MLSD", "LIST"])
def test_a_folder_goes_there_is_listed_comes_back_and_is_deleted(
    way: str, ftp: FtpServer, tmp_path: Path, settings: Settings
) -> None:
    ftp.has_mlsd = way == "MLSD"
    source = tmp_path / "in"
    (source / "d" / "deep").mkdir(parents=True)
    for name in (*ODD, "d/deep/x", "d/empty"):
        (source / name).write_text("" if name.endswith("empty") else name)

    fetch.put(source, f"{ftp.url}/all", settings=settings)
    rows = fetch.list_content(f"{ftp.url}/all", settings=settings, md5=True)
    fetch.get(f"{ftp.url}/all/", tmp_path / "out", settings=settings)

    assert sorted(row.rel_name for row in rows) == sorted([*ODD, "d/", "d/deep/", "d/deep/x", "d/empty"])
    assert {row.md5 for row in rows if row.rel_name == "50%"} == {hashlib.md5(b"50%").hexdigest()}
    assert all(row.size == len((source / row.rel_name).read_bytes()) for row in rows if not row.is_dir)
    assert all(row.modification_date for row in rows)
    assert names(tmp_path / "out") == names(source) and (tmp_path / "out/a%20b").read_text() == "a%20b"
    fetch.get(f"{ftp.url}/all/d*/**/x", tmp_path / "globbed", settings=settings)
    assert names(tmp_path / "globbed") == ["x"]
    assert len(fetch.delete(f"{ftp.url}/all", recursive=True, dry_run=True, settings=settings)) == len(rows) + 1
    with pytest.raises(Collision, match="recursive=True"):
        fetch.delete(f"{ftp.url}/all", settings=settings)
    fetch.delete(f"{ftp.url}/all", recursive=True, settings=settings)
    assert names(ftp.root) == []


def test_a_cut_connection_goes_on_where_it_was(
    ftp: FtpServer, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    (ftp.root / "x").write_bytes(DATA)
    ftp.cuts = [700_000, 600_000]

    (landed,) = fetch.get(f"{ftp.url}/x", tmp_path, settings=replace(settings, md5=True))

    assert (tmp_path / "x").read_bytes() == DATA and landed.md5 == hashlib.md5(DATA).hexdigest()
    assert ftp.sent_bytes < 1.1 * len(DATA) and len(heard.warnings) == 2


def test_a_file_that_changed_meanwhile_is_read_anew(ftp: FtpServer, tmp_path: Path, settings: Settings) -> None:
    (ftp.root / "x").write_bytes(DATA)
    ftp.cuts = [1_500_000]
    with pytest.raises(Interrupted):
        fetch.get(f"{ftp.url}/x", tmp_path, settings=replace(settings, retry=Policy(attempts=1)))
    (ftp.root / "x").write_bytes(b"new")

    fetch.get(f"{ftp.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == b"new" and names(tmp_path) == ["x"]


def test_an_upload_that_is_cut_leaves_no_half_file(
    ftp: FtpServer, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    (ftp.root / "x").write_bytes(b"old")
    ftp.upload_cuts = [500_000]

    fetch.put(tmp_path / "x", f"{ftp.url}/x", settings=settings)

    assert (ftp.root / "x").read_bytes() == DATA and len(heard.warnings) == 1
    assert [row.rel_name for row in fetch.list_content(ftp.url, settings=settings)] == ["x"]


def test_silence_is_a_stall(ftp: FtpServer, tmp_path: Path, settings: Settings) -> None:
    (ftp.root / "x").write_bytes(DATA)
    ftp.stalls = True

    with pytest.raises(Stalled):
        fetch.get(f"{ftp.url}/x", tmp_path, settings=replace(settings, retry=Policy(attempts=1), stall_timeout_s=1.0))
    ftp.reset_faults()
    fetch.get(f"{ftp.url}/x", tmp_path, settings=settings)
    assert (tmp_path / "x").read_bytes() == DATA


def test_cancelling_ends_a_download_that_waits_for_bytes(ftp: FtpServer, tmp_path: Path, settings: Settings) -> None:
    (ftp.root / "x").write_bytes(DATA)
    ftp.stalls = True
    cancel = Cancel()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            fetch.get(f"{ftp.url}/x", tmp_path, settings=settings, cancel=cancel)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(ftp.stalled.is_set)
    cancel.set()
    thread.join(60)

    assert [type(error) for error in ended] == [Cancelled] and not (tmp_path / "x").exists()


def test_a_user_with_a_password_sees_what_others_do_not(ftp: FtpServer, tmp_path: Path, settings: Settings) -> None:
    (ftp.root / "x").write_bytes(DATA)
    mine = ftp.url.replace("://", "://me:p%40ss@")

    fetch.get(f"{mine}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA and set(ftp.users) == {"me"}
    with pytest.raises(AccessDenied) as raised:
        fetch.get(f"{mine.replace('p%40ss', 'geheim')}/x", tmp_path, settings=settings)
    assert "geheim" not in f"{raised.value} {raised.value.uri}"


def test_what_is_not_there_or_not_allowed_is_said(ftp: FtpServer, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_text("x")
    for action in (
        lambda: fetch.get(f"{ftp.url}/none", tmp_path / "y", settings=settings),
        lambda: fetch.info(f"{ftp.url}/none", settings=settings),
        lambda: fetch.list_content(f"{ftp.url}/none", settings=settings),
        lambda: fetch.delete(f"{ftp.url}/none", settings=settings),
        lambda: fetch.get(f"{ftp.url}/none.gz|gunzip", tmp_path / "y", settings=settings),
    ):
        with pytest.raises(NotFound):
            action()
    with pytest.raises(AccessDenied):
        fetch.put(tmp_path / "x", f"{ftp.url.replace('://', '://reader:r@')}/x", settings=settings)
    assert names(ftp.root) == []


def test_info_tells_a_file_from_a_folder(ftp: FtpServer, settings: Settings) -> None:
    (ftp.root / "d").mkdir()
    (ftp.root / "d" / "x").write_bytes(DATA)

    assert fetch.info(f"{ftp.url}/d", settings=settings).type == "dir"
    entry = fetch.info(f"{ftp.url}/d/x", md5=True, settings=settings)
    assert (entry.size, entry.type, entry.md5) == (len(DATA), "file", hashlib.md5(DATA).hexdigest())
    assert fetch.list_content(f"{ftp.url}/d/x", settings=settings)[0].rel_name == "x"


def test_actions_and_sync_and_copies_work_with_ftp_too(
    ftp: FtpServer, web: WebServer, store: Storages, tmp_path: Path, settings: Settings
) -> None:
    settings = replace(settings, rclone_config=str(store.config))
    store.bucket("from-ftp")
    web.add("/w.gz", gzip.compress(DATA))

    fetch.copy(f"{web.url}/w.gz", f"{ftp.url}/d/w.gz", settings=settings)
    fetch.get(f"{ftp.url}/d/w.gz|gunzip", tmp_path / "w", settings=settings)
    fetch.copy(f"{ftp.url}/d", "s3://from-ftp/d", settings=settings)
    fetch.sync(f"{ftp.url}/d", tmp_path / "synced", settings=settings)
    first = (tmp_path / "synced" / "w.gz").stat().st_ino
    fetch.sync(f"{ftp.url}/d", tmp_path / "synced", settings=settings)

    assert (tmp_path / "w").read_bytes() == DATA and names(tmp_path / "synced") == ["w.gz"]
    assert fetch.info("s3://from-ftp/d/w.gz", settings=settings).size == (ftp.root / "d/w.gz").stat().st_size
    assert (tmp_path / "synced" / "w.gz").stat().st_ino == first


NOW = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "-rw-r--r--   1 ftp  ftp  1234 Jan 15 10:30 a b.txt",
            ("a b.txt", "file", 1234, datetime(2024, 1, 15, 10, 30)),
        ),
        ("-rw-r--r--   1 ftp  ftp  1234 Dec 15 10:30 x", ("x", "file", 1234, datetime(2023, 12, 15, 10, 30))),
        ("drwxr-xr-x   2 0 0 4096 Feb 29  2020  lead", (" lead", "dir", None, datetime(2020, 2, 29))),
        ("lrwxrwxrwx   1 0 0 7 Feb 01  2020 l -> target", ("l", "link", None, datetime(2020, 2, 1))),
        ("-rw-r--r--   1 ftp  5 Feb 01  2020 nogroup", ("nogroup", "file", 5, datetime(2020, 2, 1))),
        ("01-31-24  02:05PM       <DIR>          sub dir", ("sub dir", "dir", None, datetime(2024, 1, 31, 14, 5))),
        ("12-31-2023  12:05AM             1000 f.gz", ("f.gz", "file", 1000, datetime(2023, 12, 31, 0, 5))),
        ("total 12", None),
        ("drwxr-xr-x   2 0 0 4096 Feb 01  2020 ..", None),
        ("", None),
    ],
)
def test_a_listing_for_eyes_is_read(line: str, expected: tuple[str, str, int | None, datetime] | None) -> None:
    found = parse_line(line, NOW)

    if expected is None:
        assert found is None
    else:
        name, kind, size, when = expected
        assert found == (name, (kind, size, when.replace(tzinfo=UTC)))
