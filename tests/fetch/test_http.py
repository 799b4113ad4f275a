"""http and https against a real server that misbehaves on demand."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    ChecksumMismatch,
    Collision,
    FetchError,
    Interrupted,
    NotFound,
    Stalled,
    Throttled,
    TimedOut,
    Unsupported,
)  # fmt: skip
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from tests.fetch.conftest import Heard, names
from tests.fetch.web import WebServer, wait_for

DATA = random.Random(1).randbytes(3_000_000)
ONCE = Policy(attempts=1)


def test_a_file_arrives_whole_with_its_time(web: WebServer, tmp_path: Path, settings: Settings, heard: Heard) -> None:
    web.add("/d/a b.bin", DATA)

    (landed,) = fetch.get(
        f"{web.url}/d/a%20b.bin?x=1".replace("?x=1", ""), tmp_path, settings=replace(settings, md5=True)
    )

    path = tmp_path / "a b.bin"
    assert path.read_bytes() == DATA and path.stat().st_mtime == 1_700_000_000
    assert (landed.path, landed.size, landed.md5) == (str(path), len(DATA), hashlib.md5(DATA).hexdigest())
    assert names(tmp_path) == ["a b.bin"]
    assert heard.progress[-1].done_bytes == len(DATA) and heard.progress[-2].is_done


@pytest.mark.parametrize("name", ["a b", "it's", "$(touch x)", "ünï", "-dash", "a%b", 'q"q', "semi;colon&x"])
def test_odd_names_pass_through(name: str, web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add(f"/{name}", b"data")

    fetch.get(fetch.parse(web.url).join(name), f"{tmp_path}/", settings=settings)

    assert names(tmp_path) == [name]


def test_an_address_may_hold_spaces_and_a_query(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/a ü?key=v 1", b"data")

    fetch.get(f"{web.url}/a ü?key=v 1", f"{tmp_path}/", settings=settings)

    assert names(tmp_path) == ["a ü"]


def test_an_empty_file_arrives(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/empty", b"")

    fetch.get(f"{web.url}/empty", tmp_path / "deep" / "er" / "x", settings=settings)

    assert (tmp_path / "deep/er/x").read_bytes() == b""


def test_a_cut_connection_goes_on_where_it_was(
    web: WebServer, tmp_path: Path, settings: Settings, heard: Heard
) -> None:
    cuts = sorted(random.Random(2).randrange(1, len(DATA)) for _ in range(3))
    web.add("/x", DATA, cuts=[cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1]])

    (landed,) = fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, md5=True))

    assert (tmp_path / "x").read_bytes() == DATA and landed.md5 == hashlib.md5(DATA).hexdigest()
    assert [asked for _, _, asked in web.requests] == [None, *(f"bytes={cut}-" for cut in cuts)]
    assert web.sent_bytes == len(DATA)
    assert len(heard.warnings) == 3 and "Trying again" in heard.warnings[0]


def test_a_cut_at_any_byte_costs_less_than_a_tenth(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    chance = random.Random(3)
    for number in range(20):
        web.reset()
        web.add("/x", DATA, cuts=[chance.randrange(len(DATA))])
        fetch.get(f"{web.url}/x", tmp_path / str(number), settings=settings)
        assert (tmp_path / str(number)).read_bytes() == DATA and web.sent_bytes < 1.1 * len(DATA)


@pytest.mark.parametrize("validator", ["none", "weak", "changed", "no range"])
def test_what_cannot_be_resumed_begins_anew(validator: str, web: WebServer, tmp_path: Path, settings: Settings) -> None:
    page = web.add("/x", DATA, cuts=[1_000_000])
    other = bytes(reversed(DATA))
    if validator == "none":
        page.etag = page.modified_s = None
    elif validator == "weak":
        page.etag, page.modified_s = 'W/"x"', None
    elif validator == "no range":
        page.has_range = False
    else:

        def change(error: object) -> None:
            page.data, page.etag, page.modified_s = other, '"other"', None

        settings = replace(settings, warn=change)

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == (other if validator == "changed" else DATA)
    assert web.sent_bytes == len(DATA) + 1_000_000


def test_a_date_alone_is_enough_to_resume(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, etag=None, cuts=[1_000_000])

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA and web.sent_bytes == len(DATA)


def test_a_later_call_takes_up_what_an_earlier_one_left(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, cuts=[2_000_000], headers={"x-goog-hash": f"crc32c=AAAAAA==,md5={_base64(DATA)}"})
    with pytest.raises(Interrupted):
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=ONCE))
    assert not (tmp_path / "x").exists()

    (landed,) = fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA and web.sent_bytes == len(DATA)
    assert landed.md5 == hashlib.md5(DATA).hexdigest()  # also of what the earlier call brought
    assert names(tmp_path) == ["x"]


def test_a_part_that_somebody_spoilt_is_found_out(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, cuts=[2_000_000], headers={"Content-MD5": _base64(DATA)})
    with pytest.raises(Interrupted):
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=ONCE))
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(b"!" + part.read_bytes()[1:])

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA


def test_a_length_that_is_not_said_is_no_obstacle(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, says_length=False)

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.promise("data 11.14")
@pytest.mark.parametrize("header", ["Content-MD5", "x-goog-hash", "Digest"])
def test_a_wrong_checksum_leaves_nothing(header: str, web: WebServer, tmp_path: Path, settings: Settings) -> None:
    said = _base64(b"something else")
    web.add("/x", DATA, headers={header: said if header == "Content-MD5" else f"md5={said}"})

    with pytest.raises(ChecksumMismatch, match="MD5") as raised:
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=Policy(attempts=2, first_wait_s=0.0)))

    assert raised.value.retryable and len(web.requests) == 2 and names(tmp_path) == []


def test_one_wrong_answer_is_made_good_by_the_next(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    page = web.add("/x", b"bad", headers={"Content-MD5": _base64(DATA)})

    def mend(warning: str) -> None:
        page.data = DATA

    fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, warn=mend))

    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.promise("data 11.26")
@pytest.mark.parametrize(
    "status, kind, asked",
    [(401, AccessDenied, 1), (403, AccessDenied, 1), (404, NotFound, 1), (410, NotFound, 1), (400, FetchError, 1),
     (429, Throttled, 3), (500, Interrupted, 3), (502, Interrupted, 3), (503, Interrupted, 3)],
)  # fmt: skip
def test_a_permanent_error_is_not_tried_again(
    status: int, kind: type[FetchError], asked: int, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/x", DATA, statuses=[(status, {})] * 9)

    with pytest.raises(kind) as raised:
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=Policy(attempts=3, first_wait_s=0.0)))

    assert type(raised.value) is kind and raised.value.uri == f"{web.url}/x" and raised.value.phase == "get"
    assert len(web.requests) == asked and names(tmp_path) == []


def test_a_server_in_trouble_is_asked_again(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add(
        "/x",
        DATA,
        statuses=[(500, {}), (429, {"Retry-After": "0"}), (503, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"})],
    )

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA


def test_the_wait_that_a_server_asks_for_is_in_its_error(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, statuses=[(429, {"Retry-After": "77"})])

    with pytest.raises(Throttled) as raised:
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=ONCE))

    assert raised.value.retry_after_s == 77


@pytest.mark.promise("data 11.25")
def test_silence_is_a_stall_and_a_later_call_succeeds(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, stalls=[2_000_000])
    with pytest.raises(Stalled):
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, retry=ONCE, stall_timeout_s=1.0))
    assert not (tmp_path / "x").exists()
    web.release.set()

    fetch.get(f"{web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA


def test_a_stall_is_tried_again(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, stalls=[2_000_000])

    fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, stall_timeout_s=1.0))

    assert (tmp_path / "x").read_bytes() == DATA


def test_a_whole_that_takes_too_long_ends(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, stalls=[1_000_000] * 9)

    with pytest.raises(TimedOut, match="longer than the 0 s"):
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, timeout_s=0.3, timeout_s_per_gib=1.0))

    assert not (tmp_path / "x").exists()


def test_cancelling_ends_a_download_that_waits_for_bytes(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, stalls=[100])
    cancel = Cancel()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            fetch.get(f"{web.url}/x", tmp_path, settings=settings, cancel=cancel)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(web.stalled.is_set)
    cancel.set()
    thread.join(60)

    assert not thread.is_alive() and [type(each) for each in ended] == [Cancelled]
    assert names(tmp_path) == []  # so little is not worth keeping


def test_redirects_are_followed_and_strangers_do_not_get_the_password(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    elsewhere = web.url.replace("127.0.0.1", "localhost")
    web.add("/a", b"", statuses=[(302, {"Location": "/b"})], login=login)
    web.add("/b", b"", statuses=[(307, {"Location": f"{elsewhere}/c d"})], login=login)
    web.add("/c d", DATA)

    fetch.get(f"http://me:p%40ss@127.0.0.1:{web.port}/a", tmp_path / "x", settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA
    assert [headers.get("Authorization") for headers in web.headers] == [login, login, None]


def test_a_circle_of_redirects_ends(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/a", b"", statuses=[(302, {"Location": "/a"})] * 99)

    with pytest.raises(FetchError, match="more than 10 times"):
        fetch.get(f"{web.url}/a", tmp_path, settings=settings)


def test_a_server_that_is_not_there_is_worth_another_try(tmp_path: Path, settings: Settings, heard: Heard) -> None:
    with pytest.raises(Interrupted, match="refused"):
        fetch.get(
            "http://127.0.0.1:9/x", tmp_path, settings=replace(settings, retry=Policy(attempts=3, first_wait_s=0.0))
        )

    assert len(heard.warnings) == 2 and names(tmp_path) == []


def test_a_proxy_is_used_where_the_environment_names_one(
    web: WebServer, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.add("http://data.example/x", DATA)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", web.url.replace("://", "://u:p@"))

    fetch.get("http://data.example/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA
    assert web.headers[0]["Proxy-Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_info_tells_without_reading(web: WebServer, settings: Settings) -> None:
    web.add("/d/x.gz", DATA, headers={"Content-MD5": _base64(DATA)})

    entry = fetch.info(f"{web.url}/d/x.gz", settings=settings)

    assert (entry.name, entry.rel_name, entry.size, entry.type) == (f"{web.url}/d/x.gz", "x.gz", len(DATA), "file")
    assert entry.md5 == hashlib.md5(DATA).hexdigest() and entry.etag == web.pages["/d/x.gz"].etag
    assert entry.modification_date == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert web.sent_bytes == 0 and fetch.list_content(f"{web.url}/d/x.gz|gunzip", settings=settings) == [entry]
    with pytest.raises(NotFound):
        fetch.info(f"{web.url}/none", settings=settings)


def test_info_asks_otherwise_where_head_is_refused(web: WebServer, settings: Settings) -> None:
    web.add("/x", DATA, statuses=[(405, {})])
    web.add("/empty", b"", statuses=[(403, {})])

    assert fetch.info(f"{web.url}/x", settings=settings).size == len(DATA)
    assert fetch.info(f"{web.url}/empty", settings=settings).size == 0
    assert web.sent_bytes == 1


def test_what_http_cannot_do_is_said(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_text("x")
    for action in (
        lambda: fetch.put(tmp_path / "x", f"{web.url}/x", settings=settings),
        lambda: fetch.put(tmp_path, f"{web.url}/x", settings=settings),
        lambda: fetch.delete(f"{web.url}/x", settings=settings),
    ):
        web.add("/x", b"x")
        with pytest.raises(Unsupported, match="http cannot"):
            action()


def test_a_file_that_exists_is_kept_without_overwrite(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA)
    (tmp_path / "x").write_text("mine")

    with pytest.raises(Collision):
        fetch.get(f"{web.url}/x", tmp_path, settings=settings, overwrite=False)
    assert (tmp_path / "x").read_text() == "mine" and web.sent_bytes == 0
    fetch.get(f"{web.url}/x", tmp_path, settings=settings)
    assert (tmp_path / "x").read_bytes() == DATA


def test_many_threads_may_fetch_the_same_to_the_same_place(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    web.add("/x", DATA, cuts=[1_500_000] * 4)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            fetch.get(f"{web.url}/x", tmp_path / "x", settings=settings)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert failed == [] and (tmp_path / "x").read_bytes() == DATA and names(tmp_path) == ["x"]


def test_a_disk_that_is_full_is_said_and_freed(web: WebServer, tmp_path: Path, settings: Settings) -> None:
    from scitq.fetch.errors import NoSpace

    web.add("/x", DATA)

    with pytest.raises(NoSpace, match="do not fit"):
        fetch.get(f"{web.url}/x", tmp_path, settings=replace(settings, reserve_bytes=1 << 60))

    assert names(tmp_path) == [] and os.listdir(tmp_path) == []


def _base64(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()
