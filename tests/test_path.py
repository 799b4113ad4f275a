"""URI, the pathlib of addresses."""

from __future__ import annotations

import gzip
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from scitq.fetch.errors import AccessDenied, BadURI, EscapesFolder, Interrupted, NotFound
from scitq.fetch.retry import Policy
from scitq.fetch.settings import Settings
from scitq.path import URI


def test_it_is_put_together_like_a_path() -> None:
    top = URI("s3://bucket")

    assert str(top / "a" / "b.fastq.gz") == "s3://bucket/a/b.fastq.gz" == str(top.joinpath("a", "b.fastq.gz"))
    assert top / "/a" == URI("s3://bucket/a") and top / Path("a/b") == URI("s3://bucket/a/b")
    assert top + "/x" == "s3://bucket/x"
    uri = top / "a/b.fastq.gz"
    assert (uri.proto, uri.path, uri.name, uri.suffix, uri.stem) == (
        "s3",
        "bucket/a/b.fastq.gz",
        "b.fastq.gz",
        ".gz",
        "b.fastq",
    )
    assert uri.parent == top / "a" and str(uri.with_action("gunzip", "mv:x")) == f"{uri}|gunzip|mv:x"
    assert str(URI("https://h/x").with_option("aria2")) == "https@aria2://h/x"
    assert URI("bucket/x", proto="s3") == URI("s3://bucket/x") == URI(URI("s3://bucket/x"))


def test_it_is_a_value() -> None:
    uri = URI("s3://b/x")

    assert len({uri, URI("s3://b//x")}) == 1 and pickle.loads(pickle.dumps(uri)) == uri and uri != "s3://b/x"
    assert sorted([URI("s3://b/2"), URI("s3://b/1")])[0] == URI("s3://b/1")
    assert repr(URI("https://me:geheim@h/x")) == 'URI("https://me:***@h/x")'
    with pytest.raises(AttributeError, match="does not change"):
        uri.path = "y"  # type: ignore[misc]
    with pytest.raises(EscapesFolder):
        uri / "../y"
    with pytest.raises(BadURI):
        uri / "http://x"
    with pytest.raises(BadURI):
        URI("s3://b/x|frobnicate")


def test_a_local_path_is_an_address(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a|b.txt").write_text("text")
    (tmp_path / "d" / "x.gz").write_bytes(gzip.compress(b"packed"))
    top = URI(tmp_path)

    assert (top / "d").isdir() and not (top / "d").isfile() and (top / "d" / "a|b.txt").isfile()
    assert not (top / "none").exists() and not (top / "none").isdir() and not (top / "none").isfile()
    rows = {row.rel_name: row for row in top.list()}
    assert sorted(rows) == ["d/", "d/a|b.txt", "d/x.gz"]
    row = rows["d/a|b.txt"]
    assert row.uri == top / "d/a|b.txt" and row.uri.read_text() == "text" and row.size == 4 and row.md5 is None
    assert [row.rel_name for row in top.list(no_rec=True)] == ["d/"]
    assert (top / "d/x.gz").with_action("gunzip").read_text() == "packed"
    assert (top / "d").info().type == "dir"
    with pytest.raises(NotFound):
        (top / "none").read_text()
    with pytest.raises(NotFound, match="2 files"):
        (top / "d").read_text()


def test_trouble_on_the_way_is_not_absence(tmp_path: Path) -> None:
    once = Settings(retry=Policy(attempts=1))

    with pytest.raises(Interrupted):
        URI("http://127.0.0.1:9/x").exists(settings=once)
    with pytest.raises(Interrupted):
        URI("ftp://127.0.0.1:9/x").isdir(settings=once)
    config = tmp_path / "c"
    config.write_text("[dav]\ntype = webdav\nurl = http://127.0.0.1:9/\nvendor = other\n")
    with pytest.raises(Interrupted):
        URI("dav://x").isfile(settings=replace(once, rclone_config=str(config)))
    assert issubclass(AccessDenied, Exception) and not issubclass(AccessDenied, NotFound)
