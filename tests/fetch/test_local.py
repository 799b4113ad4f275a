"""Files of this machine, and what the functions mean whatever the transport: folders, globs, sync, delete."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import AccessDenied, BadURI, Collision, FetchError, NotFound, Unsupported
from scitq.fetch.files import neighbour
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names

ODD = ["a b", "it's", "$(touch x)", "ünï", "-dash", "a%20b", 'q"q', "b|ar", "st*r", "[x]", "new\nline", "`id`", "s3:x"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with folders."""
    top = tmp_path / "in"
    for name in ("a.txt", "d/b.txt", "d/e/c.gz", "d/e/empty"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("" if name.endswith("empty") else name)
        os.utime(top / name, (1_700_000_000, 1_700_000_000))
    (top / "hollow").mkdir()
    return top


ALL = ["a.txt", "d", "d/b.txt", "d/e", "d/e/c.gz", "d/e/empty", "hollow"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_names(name: str, tmp_path: Path, settings: Settings) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_text("data")
    (row,) = fetch.list_content(tmp_path / "in", settings=settings)

    assert row.rel_name == name
    fetch.get(source, f"{tmp_path}/one/", settings=settings)
    fetch.get(row.name, f"{tmp_path}/two/", settings=settings)
    fetch.put(source, fetch.parse(f"{tmp_path}/three").join(name), settings=settings)
    assert [names(tmp_path / each) for each in ("one", "two", "three")] == [[name]] * 3
    fetch.delete(row.name, settings=settings)
    assert names(tmp_path / "in") == []


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}"])
def test_a_folders_contents_are_merged_into_the_destination(
    spelling: str, tree: Path, tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "d" / "mine").write_text("mine")

    fetch.get(spelling.format(tree), tmp_path / "out", settings=settings)

    assert names(tmp_path / "out") == sorted([*ALL, "d/mine"])
    assert (tmp_path / "out/d/b.txt").stat().st_mtime == 1_700_000_000


def test_a_file_keeps_its_rights_and_gets_the_name_it_is_given(tree: Path, tmp_path: Path, settings: Settings) -> None:
    (tree / "a.txt").chmod(0o750)
    fetch.get(tree / "a.txt", tmp_path / "new" / "name", settings=settings)

    assert (tmp_path / "new/name").stat().st_mode & 0o777 == 0o750
    with pytest.raises(NotFound, match=r"Not a directory"):
        fetch.get(f"{tree}/a.txt/", tmp_path / "out", settings=settings)


def test_a_path_that_is_relative_without_a_folder_works(tree: Path, tmp_path: Path, settings: Settings) -> None:
    fetch.get(tree / "a.txt", "b.txt", settings=settings)
    fetch.get("b.txt", settings=replace(settings), destination="c.txt")

    assert (tmp_path / "c.txt").read_text() == "a.txt"


def test_a_glob_stands_for_what_matches_now(tree: Path, tmp_path: Path, settings: Settings) -> None:
    def got(pattern: str) -> list[str]:
        out = tmp_path / f"out{len(os.listdir(tmp_path))}"
        fetch.get(f"{tree}/{pattern}", out, settings=settings)
        return names(out)

    assert got("*.txt") == ["a.txt"]
    assert got("d*/*.txt") == ["b.txt"]
    assert got("**/*.txt") == ["a.txt", "b.txt"]
    assert got("d/?") == ["e", "e/c.gz", "e/empty"]
    assert got("*/e/[a-c].gz") == ["c.gz"]
    with pytest.raises(NotFound, match="nothing matches"):
        got("*.bam")


def test_two_files_of_one_name_are_not_thrown_together(tree: Path, tmp_path: Path, settings: Settings) -> None:
    (tree / "d" / "a.txt").write_text("other")

    with pytest.raises(Collision, match=r"both become a\.txt"):
        fetch.get(f"{tree}/**/*.txt", tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_a_file_that_looks_like_a_pattern_is_itself(tmp_path: Path, settings: Settings) -> None:
    for name in ("x[1].txt", "x1.txt"):
        (tmp_path / name).write_text(name)
    fetch.get(f"{tmp_path}/x[1].txt", f"{tmp_path}/out/", settings=settings)
    (tmp_path / "x[1].txt").unlink()
    fetch.get(f"{tmp_path}/x[1].txt", f"{tmp_path}/out/", settings=settings)

    assert names(tmp_path / "out") == ["x1.txt", "x[1].txt"]


def test_a_listing_has_rows_with_relative_names(tree: Path, tmp_path: Path, settings: Settings) -> None:
    rows = {row.rel_name: row for row in fetch.list_content(tree, md5=True, settings=settings)}
    flat = [row.rel_name for row in fetch.list_content(f"{tree}/", no_rec=True, settings=settings)]

    assert sorted(rows) == ["a.txt", "d/", "d/b.txt", "d/e/", "d/e/c.gz", "d/e/empty", "hollow/"]
    assert flat == ["a.txt", "d/", "hollow/"]
    row = rows["d/b.txt"]
    assert (row.name, row.size, row.md5, row.type) == (
        f"{tree}/d/b.txt",
        7,
        hashlib.md5(b"d/b.txt").hexdigest(),
        "file",
    )
    assert row.modification_date == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (rows["d/"].type, rows["d/"].size, rows["d/"].md5) == ("dir", 0, None)
    assert [row.rel_name for row in fetch.list_content(f"{tree}/*.txt", settings=settings)] == ["a.txt"]


def test_links_are_followed_to_files_only_and_sockets_left_out(
    tree: Path, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    (tree / "good").symlink_to("a.txt")
    (tree / "circle").symlink_to(".")
    (tree / "broken").symlink_to("nowhere")
    os.chdir(tree)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.mkfifo("pipe")
        fetch.get(tree, tmp_path / "out", settings=settings)

    assert names(tmp_path / "out") == sorted([*ALL, "good"]) and not (tmp_path / "out/good").is_symlink()
    assert sorted(warning.split(":")[0].rpartition("/")[2] for warning in heard.warnings) == [
        "broken",
        "circle",
        "pipe",
        "socket",
    ]
    with pytest.raises(Unsupported, match="no regular file"):
        fetch.get(tree / "pipe", tmp_path / "x", settings=settings)


def test_what_is_unfinished_is_in_no_listing_and_no_copy(tree: Path, tmp_path: Path, settings: Settings) -> None:
    Path(neighbour(str(tree / "x"), "s", "part")).write_text("half")

    assert ".scitq" not in str(fetch.list_content(tree, settings=settings))
    fetch.copy(tree, tmp_path / "out", settings=settings)
    assert names(tmp_path / "out") == ALL


def test_info_says_what_is_there(tree: Path, settings: Settings) -> None:
    assert fetch.info(tree, settings=settings).type == "dir"
    assert fetch.info(f"file://{tree}/a.txt", md5=True, settings=settings).md5 == hashlib.md5(b"a.txt").hexdigest()
    with pytest.raises(NotFound) as raised:
        fetch.info(tree / "none", settings=settings)
    assert raised.value.uri == str(tree / "none") and raised.value.phase == "info"


def test_a_folder_is_deleted_only_when_that_is_said(tree: Path, settings: Settings) -> None:
    with pytest.raises(Collision, match="recursive=True"):
        fetch.delete(tree, settings=settings)
    with pytest.raises(AccessDenied):
        fetch.delete("/", recursive=True, dry_run=True, settings=settings)
    assert [path for path in ALL if not (tree / path).exists()] == []

    gone = fetch.delete(tree, recursive=True, settings=settings)

    assert not tree.exists() and len(gone) == len(ALL) + 1


def test_a_dry_run_deletes_nothing(tree: Path, settings: Settings) -> None:
    rows = fetch.delete(tree, recursive=True, dry_run=True, settings=settings)
    one = fetch.delete(tree / "a.txt", dry_run=True, settings=settings)
    fetch.recursive_delete(tree, dryrun=True, settings=settings)

    assert len(rows) == len(ALL) + 1 and [row.rel_name for row in one] == ["a.txt"] and names(tree) == ALL


def test_delete_with_a_pattern_takes_the_files_that_match(tree: Path, settings: Settings) -> None:
    assert [row.rel_name for row in fetch.delete(tree, recursive=True, include=["*.txt"], settings=settings)] == [
        "a.txt",
        "d/b.txt",
    ]
    assert names(tree) == ["d", "d/e", "d/e/c.gz", "d/e/empty", "hollow"]


def test_sync_moves_what_differs_and_never_deletes(tree: Path, tmp_path: Path, settings: Settings) -> None:
    out = tmp_path / "out"
    fetch.sync(tree, out, settings=settings)
    first = (out / "a.txt").stat().st_ino
    (out / "more").write_text("more")
    (tree / "d" / "b.txt").write_text("changed!")
    fetch.sync(tree, out, settings=settings)

    assert (out / "a.txt").stat().st_ino == first and (out / "d/b.txt").read_text() == "changed!"
    assert (out / "more").exists()
    fetch.sync(tree, out, delete=True, settings=settings)
    assert not (out / "more").exists() and (out / "a.txt").exists()


@pytest.mark.promise("data 11.10")
def test_include_patterns_of_one_sync_are_not_those_of_the_next(tree: Path, tmp_path: Path, settings: Settings) -> None:
    fetch.sync(tree, tmp_path / "one", include=["*.gz"], settings=settings)
    fetch.sync(tree, tmp_path / "two", settings=settings)

    assert names(tmp_path / "one") == ["d", "d/e", "d/e/c.gz"]
    assert [name for name in names(tmp_path / "two") if (tmp_path / "two" / name).is_file()] == [
        "a.txt",
        "d/b.txt",
        "d/e/c.gz",
        "d/e/empty",
    ]


def test_copy_takes_some_files_of_a_folder(tree: Path, tmp_path: Path, settings: Settings) -> None:
    fetch.copy(tree, tmp_path / "out", file_list=["a.txt", "d/e/c.gz"], settings=settings)

    assert names(tmp_path / "out") == ["a.txt", "d", "d/e", "d/e/c.gz"]
    with pytest.raises(NotFound, match="not there: none"):
        fetch.copy(tree, tmp_path / "out", file_list=["none"], settings=settings)


def test_a_file_is_not_copied_onto_itself(tree: Path, settings: Settings) -> None:
    with pytest.raises(Collision, match="same file"):
        fetch.copy(tree / "a.txt", tree / "d" / ".." / "a.txt", settings=settings)

    assert (tree / "a.txt").read_text() == "a.txt"


def test_a_file_does_not_take_the_place_of_a_folder(tree: Path, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "out" / "a.txt").mkdir(parents=True)
    for action in (
        lambda: fetch.get(tree, tmp_path / "out", settings=settings),
        lambda: fetch.put(tree / "a.txt", str(tmp_path / "out"), settings=settings),
    ):
        with pytest.raises(Collision):
            action()


def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(FetchError) as raised:
        fetch.get(tmp_path / "x", "/proc/self/new/x", settings=settings)

    assert isinstance(raised.value, (NotFound, AccessDenied)) and names(tmp_path) == ["x"]


def test_thousands_of_small_files_arrive(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    for number in range(1000):
        (tmp_path / "in" / f"{number}").write_text(str(number))

    fetch.get(tmp_path / "in", tmp_path / "out", parallel=8, settings=settings)

    assert len(os.listdir(tmp_path / "out")) == 1000 and (tmp_path / "out/777").read_text() == "777"


@pytest.mark.promise("data 11.39")
def test_a_file_larger_than_memory_would_like_passes_in_pieces(tmp_path: Path, settings: Settings) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(64 << 20)
        file.write(b"end")

    fetch.get(tmp_path / "big", tmp_path / "copy", settings=replace(settings, md5=False))

    assert (tmp_path / "copy").stat().st_size == 64 << 20


def test_check_uri_looks_at_no_data(settings: Settings) -> None:
    assert [fetch.check_uri(uri, settings=settings) for uri in ("/none", "file:///none", "ftp://none/x", "https://none/x")] == [
        "file", "file", "ftp", "https",
    ]  # fmt: skip
    with pytest.raises(Unsupported):
        fetch.check_uri("run+fastq://SRR1")


@pytest.mark.promise("data 11.35")
def test_importing_has_no_side_effect_and_needs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import scitq.fetch.transfer, scitq.fetch.rclone, scitq.fetch.ftp, scitq.fetch.http, scitq.fetch.aria2\n"
        "import subprocess, threading; assert dict(os.environ) == before and threading.active_count() == 1\n"
        "print('ssl' in sys.modules, 'scitq.engine' in sys.modules, 'rich' in sys.modules)"
    )
    home = tmp_path / "home"
    home.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={"PATH": "", "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    assert (ended.stdout.split()[1:], ended.returncode) == (["False", "False"], 0), ended.stderr
    assert names(home) == []


def test_old_keyword_names_are_accepted(tree: Path, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: fetch.get(tree / "a.txt", tmp_path / "1", parallel=2, show_progress=True),
        lambda: fetch.put(tree / "a.txt", str(tmp_path / "2"), parallel=None, show_progress=False),
        lambda: fetch.copy(str(tree / "a.txt"), str(tmp_path / "3"), show_progress=True, file_list=None),
        lambda: fetch.sync(str(tree), str(tmp_path / "4"), include=["*.txt"], process=10, show_progress=True),
        lambda: fetch.list_content(str(tree), no_rec=True, md5=True),
        lambda: fetch.info(str(tree), md5=False),
        lambda: fetch.recursive_delete(str(tmp_path / "4"), include=["*"], dryrun=True),
    ]
    for call in calls:
        call()

    assert names(tmp_path / "4") == ["a.txt", "d", "d/b.txt"]
    with pytest.raises(BadURI, match="path of this machine"):
        fetch.get(tree, "s3://b/x")
