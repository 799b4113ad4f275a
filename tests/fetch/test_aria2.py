"""The option @aria2 against the test's own web server."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import random
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import (
    AccessDenied,
    BadURI,
    Cancelled,
    ChecksumMismatch,
    Collision,
    FetchError,
    Interrupted,
    NotFound,
    ToolMissing,
)  # fmt: skip
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from tests.fetch.conftest import names
from tests.fetch.web import WebServer, wait_for

DATA = random.Random(7).randbytes(12_000_000)
ONCE = Policy(attempts=1)


def address(web: WebServer, rest: str) -> str:
    return web.url.replace("http://", "http@aria2://") + rest


def test_several_connections_bring_one_file(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/a b.bin", DATA)

    fetch.get(address(web, "/a b.bin"), f"{tmp_path}/", settings=settings)

    assert (tmp_path / "a b.bin").read_bytes() == DATA and names(tmp_path) == ["a b.bin"]
    begun = {asked for method, _, asked in web.requests if method == "GET" and asked}
    assert len(begun) > 1  # parts of the file, by connections of their own
    assert sum(1 for method, _, _ in web.requests if method == "GET") > 2


def test_an_action_follows(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x.gz", gzip.compress(b"text"))

    fetch.get(address(web, "/x.gz|gunzip"), tmp_path, settings=settings)

    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"text"


def test_a_cut_connection_goes_on_where_it_was(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, cuts=[1_500_000] * 3)

    fetch.get(address(web, "/x"), tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA and names(tmp_path) == ["x"]
    assert web.sent_bytes < 2 * len(DATA)


def test_another_version_is_not_sewn_to_what_is_left_of_the_first(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/x", DATA, cuts=[1_000_000] * 50)
    with pytest.raises(Interrupted):
        fetch.get(address(web, "/x"), tmp_path, settings=replace(settings, retry=ONCE))
    assert not (tmp_path / "x").exists()
    other = bytes(reversed(DATA))
    web.add("/x", other)

    fetch.get(address(web, "/x"), tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == other and names(tmp_path) == ["x"]


@pytest.mark.parametrize("status, kind", [(404, NotFound), (403, AccessDenied), (503, Interrupted)])
def test_what_the_server_says_is_typed(
    status: int, kind: type[FetchError], web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/x", DATA, statuses=[(200, {}), *[(status, {})] * 50])
    web.pages["/x"].statuses = [(status, {})] * 50

    with pytest.raises(kind) as raised:
        fetch.get(address(web, "/x"), tmp_path, settings=replace(settings, retry=Policy(attempts=2, first_wait_s=0.0)))

    assert type(raised.value) is kind and names(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, headers={"x-goog-hash": "md5=" + base64.b64encode(hashlib.md5(b"other").digest()).decode()})

    with pytest.raises(ChecksumMismatch):
        fetch.get(address(web, "/x"), tmp_path, settings=replace(settings, retry=ONCE))

    assert names(tmp_path) == []


def test_cancelling_ends_the_program(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, stalls=[100_000] * 20)
    cancel = Cancel()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            fetch.get(address(web, "/x"), tmp_path, settings=settings, cancel=cancel)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(web.stalled.is_set)
    cancel.set()
    thread.join(60)

    assert [type(error) for error in ended] == [Cancelled] and not (tmp_path / "x").exists()


def test_a_password_is_on_no_command_line(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    secret = uuid.uuid4().hex  # nobody else's, whatever else runs here
    web.add("/x", DATA, stalls=[100_000] * 20, login="Basic " + base64.b64encode(f"me:{secret}".encode()).decode())
    cancel = Cancel()

    def work() -> None:
        with pytest.raises(Cancelled):
            fetch.get(address(web, "/x").replace("://", f"://me:{secret}@"), tmp_path, settings=settings, cancel=cancel)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(web.stalled.is_set)
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone, or another user's
            lines.append(path.read_bytes())
    cancel.set()
    thread.join(60)

    assert [line for line in lines if secret.encode() in line] == [] and any(b"aria2c" in line for line in lines)


def test_the_option_belongs_to_protocols_that_have_it_and_to_a_program(
    web: WebServer, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadURI):
        fetch.get("s3@aria2://b/x", tmp_path, settings=settings)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ToolMissing, match="apt install aria2"):
        fetch.get(address(web, "/x"), tmp_path, settings=settings)


def test_what_is_there_is_kept_without_overwrite(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA)
    (tmp_path / "x").write_text("mine")

    with pytest.raises(Collision):
        fetch.get(address(web, "/x"), tmp_path, overwrite=False, settings=settings)

    assert (tmp_path / "x").read_text() == "mine"
