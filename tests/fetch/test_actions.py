"""Actions on what arrives, over http (while it comes) and from a folder of this machine."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import (
    BadArchive,
    BadURI,
    Collision,
    EscapesFolder,
    FetchError,
    NotFound,
    ToolMissing,
    Unsupported,
)
from scitq.fetch.retry import Policy
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names
from tests.fetch.web import WebServer

TEXT = b"".join(b"line %d\n" % number for number in range(50_000))
NOISE = random.Random(4).randbytes(2_000_000)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, mode
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


TREE = tar(
    (member("./"[:-1], tarfile.DIRTYPE), b""),
    (member("ref", tarfile.DIRTYPE, mode=0o755), b""),
    (member("ref/genome.fa", mode=0o4755), TEXT),
    (member("ref/noise"), NOISE),
    (member("empty", tarfile.DIRTYPE), b""),
    (member("ref/alias", tarfile.SYMTYPE, "genome.fa"), b""),
    (member("again", tarfile.LNKTYPE, "ref/genome.fa"), b""),
)
UNPACKED = ["again", "empty", "ref", "ref/alias", "ref/genome.fa", "ref/noise"]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lambda data: lzma.compress(data, preset=0), "tar.zst": zstd,
}  # fmt: skip


@pytest.mark.parametrize("ending", PACKERS)
def test_untar_works_while_the_archive_comes(ending: str, web: WebServer, tmp_path: Path, settings: Settings) -> None:
    data = PACKERS[ending](TREE)
    web.add(f"/ref.{ending}", data, cuts=[len(data) // 3])

    landed = fetch.get(f"{web.url}/ref.{ending}|untar", tmp_path / "out", settings=settings)

    out = tmp_path / "out"
    assert (
        names(out) == UNPACKED
        and (out / "ref/genome.fa").read_bytes() == TEXT
        and (out / "ref/noise").read_bytes() == NOISE
    )
    assert os.readlink(out / "ref/alias") == "genome.fa" and os.path.samefile(out / "again", out / "ref/genome.fa")
    assert stat.S_IMODE((out / "ref/genome.fa").stat().st_mode) == 0o755  # nobody's rights are special
    assert web.sent_bytes == len(data)  # read once, never stored
    assert sorted(os.path.relpath(each.path, out) for each in landed) == [
        "again",
        "ref/alias",
        "ref/genome.fa",
        "ref/noise",
    ]
    assert names(tmp_path) == ["out", *(f"out/{name}" for name in UNPACKED)]


def test_the_compression_is_known_by_its_bytes_not_by_its_name(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/download?id=7", gzip.compress(TREE))

    fetch.get(f"{web.url}/download?id=7|untar", tmp_path, settings=settings)

    assert names(tmp_path) == UNPACKED


def test_gunzip_streams_to_a_folder_or_to_a_name(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    data = gzip.compress(TEXT) + gzip.compress(b"more members\n")
    web.add("/a.txt.gz", data, cuts=[len(data) // 2])

    fetch.get(f"{web.url}/a.txt.gz|gunzip", tmp_path, settings=settings)
    fetch.get(f"{web.url}/a.txt.gz|gunzip", tmp_path / "deep" / "b", settings=settings)

    assert names(tmp_path) == ["a.txt", "deep", "deep/b"]
    assert (tmp_path / "a.txt").read_bytes() == TEXT + b"more members\n" == (tmp_path / "deep/b").read_bytes()


def test_unzip_keeps_folders_and_rights(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add(
        "/x.zip",
        zipped(("d/run.sh", b"#!/bin/sh\n", 0o100755), ("d/é x", TEXT, 0o100644), ("l", b"d/run.sh", 0o120777)),
    )

    fetch.get(f"{web.url}/x.zip|unzip", tmp_path, settings=settings)

    assert names(tmp_path) == ["d", "d/run.sh", "d/é x", "l"] and (tmp_path / "d/é x").read_bytes() == TEXT
    assert os.access(tmp_path / "d/run.sh", os.X_OK) and os.readlink(tmp_path / "l") == "d/run.sh"


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "actions, expected",
    [("mv:sub", ["sub", "sub/a.tar.gz"]), ("mv:a/b", ["a", "a/b", "a/b/a.tar.gz"]), ("untar|mv:x", ["x", "x/f"]),
     ("mv:x|untar", ["x", "x/f"]), ("gunzip", ["a.tar"]), ("gunzip|untar|mv:y", ["y", "y/f"]), ("gunzip|untar", ["f"]),
     ("untar|mv:a|mv:b", ["b", "b/a", "b/a/f"])],
)  # fmt: skip
def test_actions_run_from_left_to_right(
    actions: str, expected: list[str], web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/a.tar.gz", gzip.compress(tar((member("f"), b"x"))))

    fetch.get(f"{web.url}/a.tar.gz|{actions}", f"{tmp_path}/", settings=settings)

    assert names(tmp_path) == expected


def test_mv_is_always_a_folder_also_when_something_is_there(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).write_text(name)
        fetch.get(f"{tmp_path}/in/{name}|mv:sub", tmp_path / "out", settings=settings)
    fetch.get(f"{tmp_path}/in|mv:all/", tmp_path / "out", settings=settings)

    assert names(tmp_path / "out") == ["all", "all/a", "all/b", "sub", "sub/a", "sub/b"]
    assert stat.S_IMODE((tmp_path / "out/sub").stat().st_mode) & 0o700 == 0o700


def test_an_action_on_a_folder_is_done_on_those_files_that_are_meant(tmp_path: Path, settings: Settings) -> None:
    source = tmp_path / "in"
    (source / "d").mkdir(parents=True)
    (source / "d" / "a.gz").write_bytes(gzip.compress(b"a"))
    (source / "b.gz").write_bytes(gzip.compress(b"b"))
    (source / "notes").write_text("n")

    fetch.get(f"{source}|gunzip", tmp_path / "out", settings=settings)
    fetch.get(f"{source}/*.gz|gunzip", tmp_path / "globbed", settings=settings)

    assert names(tmp_path / "out") == ["b", "d", "d/a", "notes"] and (tmp_path / "out/d/a").read_text() == "a"
    assert names(tmp_path / "globbed") == ["b"]
    with pytest.raises(BadArchive, match="nothing to untar"):
        fetch.get(f"{source}|untar", tmp_path / "none", settings=settings)
    assert names(tmp_path / "none") == []


WICKED: dict[str, tuple[bytes, type[FetchError]]] = {
    "dots": (tar((member("a/../../x"), b"x")), EscapesFolder),
    "absolute": (tar((member("/x"), b"x")), EscapesFolder),
    "backslash": (tar((member("..\\x"), b"x")), EscapesFolder),
    "link out": (tar((member("l", tarfile.SYMTYPE, "../x"), b"")), EscapesFolder),
    "absolute link": (tar((member("l", tarfile.SYMTYPE, "/etc"), b"")), EscapesFolder),
    "through a link": (tar((member("l", tarfile.SYMTYPE, "."), b""), (member("l/x"), b"x")), EscapesFolder),
    "links in a row": (
        tar((member("d", tarfile.DIRTYPE), b""), (member("a", tarfile.SYMTYPE, "d"), b""), (member("b", tarfile.SYMTYPE, "a/.."), b""),
            (member("c", tarfile.SYMTYPE, "b/.."), b""), (member("e", tarfile.SYMTYPE, "c/../x"), b"")), EscapesFolder,
    ),
    "hard link out": (tar((member("h", tarfile.LNKTYPE, "/etc/passwd"), b"")), EscapesFolder),
    "hard link to nothing": (tar((member("h", tarfile.LNKTYPE, "x"), b"")), BadArchive),
    "device": (tar((member("null", tarfile.CHRTYPE), b"")), EscapesFolder),
    "pipe": (tar((member("pipe", tarfile.FIFOTYPE), b"")), EscapesFolder),
    "twice": (tar((member("x"), b"1"), (member("./x"), b"2")), Collision),
    "file and folder": (tar((member("x"), b"1"), (member("x/y"), b"2")), Collision),
    "cut short": (TREE[:300_000], BadArchive),
    "cut gzip": (gzip.compress(TREE)[:-100], BadArchive),
    "spoilt gzip": (gzip.compress(TREE)[:-8] + b"\0" * 8, BadArchive),
    "cut bzip2": (bz2.compress(TREE)[:-100], BadArchive),
    "cut xz": (lzma.compress(TREE, preset=0)[:-100], BadArchive),
    "cut zstd": (zstd(TREE)[:-1000] if shutil.which("zstd") else b"", BadArchive),
    "no archive": (TEXT, BadArchive),
    "empty": (b"", BadArchive),
    "html": (b"<html>Sorry</html>" * 100, BadArchive),
}  # fmt: skip


@pytest.mark.promise("data 11.5")
@pytest.mark.parametrize("fault", WICKED)
@pytest.mark.parametrize("way", ["streamed", "from a file"])
def test_an_archive_that_leads_out_or_is_damaged_leaves_nothing(
    fault: str, way: str, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    data, kind = WICKED[fault]
    web.add("/a.tar", data)
    (tmp_path / "x").write_text("precious")

    with pytest.raises(kind) as raised:
        fetch.get(
            f"{web.url}/a.tar|{'mv:y|' if way == 'from a file' else ''}untar", tmp_path / "out", settings=settings
        )

    assert type(raised.value) is kind and "a.tar" in str(raised.value)
    assert names(tmp_path / "out") == [] and (tmp_path / "x").read_text() == "precious"


WICKED_ZIPS: dict[str, tuple[bytes, type[FetchError]]] = {
    "dots": (zipped(("../x", b"x", 0o100644)), EscapesFolder),
    "absolute": (zipped(("/x", b"x", 0o100644)), EscapesFolder),
    "link out": (zipped(("l", b"../x", 0o120777)), EscapesFolder),
    "through a link": (zipped(("l", b".", 0o120777), ("l/x", b"x", 0o100644)), EscapesFolder),
    "device": (zipped(("d", b"", 0o020666)), EscapesFolder),
    "cut short": (zipped(("x", NOISE, 0o100644))[:-200], BadArchive),
    "spoilt": (zipped(("x", b"secret", 0o100644)).replace(b"secret", b"sicret"), BadArchive),
    "no archive": (TEXT, BadArchive),
}


@pytest.mark.promise("data 11.5")
@pytest.mark.parametrize("fault", WICKED_ZIPS)
def test_a_zip_that_leads_out_or_is_damaged_leaves_nothing(
    fault: str, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    data, kind = WICKED_ZIPS[fault]
    web.add("/a.zip", data)
    (tmp_path / "x").write_text("precious")

    with pytest.raises(kind) as raised:
        fetch.get(f"{web.url}/a.zip|unzip", tmp_path / "out", settings=settings)

    assert type(raised.value) is kind
    assert names(tmp_path / "out") == [] and (tmp_path / "x").read_text() == "precious"


def test_a_zip_with_a_password_is_said_to_be_one(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    data = bytearray(zipped(("x", b"x", 0o100644)))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    web.add("/a.zip", bytes(data))

    with pytest.raises(Unsupported, match="encrypted"):
        fetch.get(f"{web.url}/a.zip|unzip", tmp_path, settings=settings)


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(TEXT)[:-20], gzip.compress(TEXT)[:-8] + b"\0" * 8])
def test_what_is_no_whole_gzip_file_leaves_nothing(
    data: bytes, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/a.gz", data)

    with pytest.raises(BadArchive):
        fetch.get(f"{web.url}/a.gz|gunzip", tmp_path / "out", settings=settings)

    assert [name for name in names(tmp_path) if name != "out"] == []


def test_nothing_that_is_there_is_overwritten(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/a.tar", TREE)
    web.add("/genome.fa.gz", gzip.compress(TEXT))
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "genome.fa").write_text("mine")

    with pytest.raises(Collision, match=r"genome\.fa"):
        fetch.get(f"{web.url}/a.tar|untar", tmp_path, settings=settings)
    with pytest.raises(Collision, match=r"genome\.fa"):
        fetch.get(f"{web.url}/genome.fa.gz|gunzip", tmp_path / "ref", settings=settings)

    assert names(tmp_path) == ["ref", "ref/genome.fa"] and (tmp_path / "ref/genome.fa").read_text() == "mine"


def test_folders_are_joined_when_nothing_is_in_the_way(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/a.tar", TREE)
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "mine").write_text("mine")

    fetch.get(f"{web.url}/a.tar|untar", tmp_path, settings=settings)

    assert names(tmp_path) == sorted([*UNPACKED, "ref/mine"])


def test_a_source_that_changes_in_the_middle_is_read_anew(
    web: WebServer, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    page = web.add("/a.tar", TREE, cuts=[1_000_000])

    def change(message: str) -> None:
        page.data, page.etag, page.modified_s = tar((member("new"), b"n")), '"new"', None
        heard.warnings.append(message)

    fetch.get(f"{web.url}/a.tar|untar", tmp_path, settings=replace(settings, warn=change))

    assert names(tmp_path) == ["new"] and "Starting over" in heard.warnings[-1]


def test_a_wrong_checksum_of_an_archive_is_found_though_it_was_streamed(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/a.tar", TREE, headers={"x-goog-hash": "md5=" + "A" * 22 + "=="})

    with pytest.raises(FetchError, match="MD5"):
        fetch.get(
            f"{web.url}/a.tar|untar", tmp_path, settings=replace(settings, retry=Policy(attempts=2, first_wait_s=0.0))
        )

    assert names(tmp_path) == []


def test_an_unknown_action_is_refused_before_anything_is_asked(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/a.tar", TREE)

    for text in ("frobnicate", "untar|x", "mv:../y", "mv:/y", "mv"):
        with pytest.raises((BadURI, EscapesFolder)):
            fetch.get(f"{web.url}/a.tar|{text}", tmp_path, settings=settings)

    assert web.requests == [] and names(tmp_path) == []


def test_actions_belong_to_sources(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_text("x")
    for action in (
        lambda: fetch.put(tmp_path / "x", f"{tmp_path}/y|gunzip", settings=settings),
        lambda: fetch.delete(f"{tmp_path}/x|gunzip", settings=settings),
        lambda: fetch.copy(f"{tmp_path}/x", f"{tmp_path}/y|gunzip", settings=settings),
    ):
        with pytest.raises(BadURI, match="belong to a source"):
            action()


def test_a_missing_zstd_program_is_said_with_the_way_to_get_it(
    web: WebServer, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.add("/a.tar.zst", zstd(TREE))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    with pytest.raises(ToolMissing, match="apt install zstd"):
        fetch.get(f"{web.url}/a.tar.zst|untar", tmp_path / "out", settings=settings)


def test_what_is_missing_is_not_found_with_an_action_too(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(NotFound):
        fetch.get(f"{web.url}/none.tar|untar", tmp_path, settings=settings)
    with pytest.raises(NotFound):
        fetch.get(f"{tmp_path}/none.tar|untar", tmp_path / "out", settings=settings)

    assert [name for name in names(tmp_path) if name != "out"] == []
