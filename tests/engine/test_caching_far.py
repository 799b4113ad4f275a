"""The cache and storages: what is asked of their servers, counted there, and how a result gets from one place to another."""

from __future__ import annotations

import http.client
import os
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.fetch import delete
from scitq.handle import Task
from scitq.path import URI
from scitq.states import TaskState
from scitq.store import cache
from tests.containers import Dockerd
from tests.engine.conftest import Opener, sound
from tests.engine.test_caching import ran, recorded, until
from tests.engine.test_data import CONFIG, left_at, put, s3_port
from tests.engine.test_engine import WAIT_S
from tests.fetch.web import WebServer

pytestmark = pytest.mark.servers


class Counted:
    """An S3 server that tells what it was asked: one request each, as (method, bucket/key or prefix, what for)."""

    def __init__(self, port: int) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.is_down = False
        counted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                counted._note(self)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if counted.is_down:
                    self.close_connection = True
                    return
                there = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                there.request(self.command, self.path, body, dict(self.headers.items()))
                answer = there.getresponse()
                data = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(data)
                there.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _note(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        said = urllib.parse.parse_qs(query, keep_blank_values=True)
        what = "copy" if "x-amz-copy-source" in request.headers else "list" if "max-keys" in said else "object"
        place = path.strip("/")
        if what == "list":
            place = f"{place}/{said.get('prefix', [''])[0]}"
        self.asked.append((request.command, urllib.parse.unquote(place).rstrip("/"), what))

    def listings(self) -> Counter[str]:
        """How often each folder was listed."""
        return Counter(place for _, place, what in self.asked if what == "list")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def counted_server(s3_port: int) -> Iterator[Counted]:
    """The S3 server of the tests of data, seen through a counter."""
    server = Counted(s3_port)
    yield server
    server.close()


@pytest.fixture
def counted(counted_server: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """It, counting from now on, as the remotes `s3` and `other`."""
    (tmp_path / "rclone.conf").write_text(
        "".join(CONFIG.format(name=n, port=counted_server.port) for n in ("s3", "other"))
    )
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    counted_server.is_down = False
    counted_server.asked.clear()
    return counted_server


def bucket(server: Counted) -> URI:
    """A new one."""
    name = f"b{os.urandom(6).hex()}"
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}/{name}", method="PUT")).close()
    return URI(f"s3://{name}")


@pytest.mark.sampled
def test_a_pipeline_of_fifty_samples_is_taken_with_one_listing_of_each_folder(
    open_engine: Opener, counted: Counted, tmp_path: Path
) -> None:
    lab = bucket(counted)
    samples = [f"s{number:02}" for number in range(50)]
    place = str(lab).removeprefix("s3://")
    for sample in samples:
        body = f"{sample}\n".encode()
        url = f"http://127.0.0.1:{counted.port}/{place}/raw/{sample}.fq"
        plain = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers=plain, method="PUT")).close()

    def pipeline(engine: Engine) -> list[list[Task]]:
        ones = engine.map(
            "cat $INPUT/* > $OUTPUT/copy", samples, shell=True, input=f"{lab}/raw/{{}}.fq", use_cache=True
        )
        steps = [list(ones)]
        for script in ("sort $INPUT/copy > $OUTPUT/copy", "cat $INPUT/copy"):
            common = {"shell": True, "use_cache": True}
            steps.append(
                [*engine.submit_many([{"command": script, "input": one.output, **common} for one in steps[-1]])]
            )
        return steps

    with open_engine() as engine:
        first = [task for step in pipeline(engine) for task in step]
        assert not [task.why() for task, was_run in zip(first, ran(*first), strict=True) if not was_run]
        recorded(engine)
    counted.asked.clear()
    with open_engine() as engine:
        began = time.monotonic()
        again = pipeline(engine)
        assert set(ran(*(task for step in again for task in step))) == {False}
        print(f"{time.monotonic() - began:.2f} s, {dict(Counter(what for *_, what in counted.asked))}")
        assert counted.listings() and max(counted.listings().values()) == 1
        assert not [one for one in counted.asked if one[0] == "GET" and one[2] == "object"]
        assert again[2][7].result().stdout == "s07\n"
        assert engine._driver is not None and not any(one.connected for one in engine._driver._contacts.values())
        sound(engine)


def test_a_result_in_another_bucket_is_copied_by_the_storage(engine: Engine, counted: Counted, tmp_path: Path) -> None:
    lab = bucket(counted)
    script = "echo one > $OUTPUT/a; mkdir $OUTPUT/sub; seq 1 1000 > $OUTPUT/sub/b"
    first = engine.submit(script, shell=True, output=lab / "first", use_cache=True)
    first.result(WAIT_S)
    recorded(engine)
    counted.asked.clear()
    second = engine.submit(script, shell=True, output=bucket(counted) / "second", use_cache=True)
    assert ran(second) == [False]
    assert sorted(place.rpartition("second/")[2] for _, place, what in counted.asked if what == "copy") == [
        "a",
        "sub/b",
    ]
    files = [
        one for one in counted.asked if one[2] == "object" and "manifest" not in one[1] and one[0] in ("GET", "PUT")
    ]
    assert [one for one in files if one[1].count("/")] == []  # not a byte of them went through here
    assert left_at(second.output) == left_at(first.output)
    assert second.files() == first.files()
    reader = engine.submit("cat $INPUT/a", shell=True, input=second.output)
    assert reader.result(WAIT_S).stdout == "one\n"
    sound(engine)


def test_a_result_in_place_moves_nothing(engine: Engine, counted: Counted) -> None:
    lab = bucket(counted)
    tasks = [
        engine.submit("echo one > $OUTPUT/a", shell=True, output=lab / "out", use_cache=True, name=name)
        for name in "ab"
    ]
    assert ran(*tasks) == [True, False]
    assert {one[0] for one in counted.asked[-2:]} <= {"GET", "HEAD"}
    for _ in range(2):
        assert ran(tasks[1].relaunch()) == [True]  # the place is its own by now
    sound(engine)


@pytest.mark.parametrize("deed", ["delete", "change"])
def test_a_result_that_was_altered_in_its_bucket_is_made_anew(
    engine: Engine, counted: Counted, tmp_path: Path, deed: str
) -> None:
    lab = bucket(counted)
    script = f"echo x >> {tmp_path}/runs; echo one > $OUTPUT/a"
    first = engine.submit(script, shell=True, output=lab / "out", use_cache=True)
    first.result(WAIT_S)
    recorded(engine)
    if deed == "delete":
        delete((lab / "out" / "a").address)
    else:
        put(lab / "out" / "a", "two\n", tmp_path)
    second = engine.submit(script, shell=True, output=lab / "out", use_cache=True, overwrite=True)
    assert ran(second) == [True]
    said = "is gone" if deed == "delete" else "its MD5 is another"
    assert (
        f"because the result of {first.id} was no good any more: {lab}/out/a" in second.why() and said in second.why()
    )
    assert left_at(lab / "out") == {"a": "one\n"}


@pytest.mark.parametrize(
    ("source", "target"), [("here", "s3"), ("s3", "here"), ("s3", "other"), ("s3", None), (None, "s3")]
)
def test_small_results_are_carried_from_one_place_to_another(
    engine: Engine, counted: Counted, tmp_path: Path, source: str | None, target: str | None
) -> None:
    script = "echo one > '$OUTPUT/a b'; mkdir $OUTPUT/sub; echo two > $OUTPUT/sub/c".replace(
        "'$OUTPUT/a b'", '"$OUTPUT/a b"'
    )
    places = {"here": str(tmp_path / "results"), None: None}
    for name in ("s3", "other"):
        places[name] = str(bucket(counted) / "out").replace("s3:", f"{name}:")
    first = engine.submit(script, shell=True, output=places[source], use_cache=True)
    first.result(WAIT_S)
    second = engine.submit(script, shell=True, output=places[target], use_cache=True)
    assert ran(second) == [False], second.why()
    assert second.files() == first.files()
    assert left_at(second.output) == {"a b": "one\n", "sub/c": "two\n"}
    assert not list((engine.side / "reuse" / "exec").iterdir())
    third = engine.submit(script, shell=True, output=places[target], use_cache=True)
    assert ran(third) == [False]
    sound(engine)


def test_a_large_result_is_not_carried_and_why_says_so(
    engine: Engine, counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCITQ_CACHE_CARRY", "1k")
    script = "seq 1 1000 > $OUTPUT/a"
    engine.submit(script, shell=True, use_cache=True).result(WAIT_S)
    task = engine.submit(script, shell=True, output=bucket(counted) / "out", use_cache=True)
    assert ran(task) == [True]
    assert "3,893 bytes would have to pass through this machine (the limit is 1,000: SCITQ_CACHE_CARRY)" in task.why()


def test_the_place_of_others_is_not_taken(engine: Engine, counted: Counted, tmp_path: Path) -> None:
    lab = bucket(counted)
    put(lab / "out" / "mine", "precious\n", tmp_path)
    engine.submit("echo one > $OUTPUT/a", shell=True, use_cache=True).result(WAIT_S)
    task = engine.submit("echo one > $OUTPUT/a", shell=True, output=lab / "out", use_cache=True)
    assert task.wait(WAIT_S) is TaskState.FAILED
    assert left_at(lab / "out") == {"mine": "precious\n"}


def test_a_storage_that_is_down_keeps_nobody_waiting(engine: Engine, counted: Counted, tmp_path: Path) -> None:
    lab = bucket(counted)
    put(lab / "in" / "a", "one\n", tmp_path)
    counted.is_down = True
    task = engine.submit("cat $INPUT/a", shell=True, input=lab / "in", use_cache=True)
    until(lambda: (looked := cache.looked(engine._reader(), task.id)) is not None and looked.note is not None)
    counted.is_down = False
    assert ran(task) == [True]
    assert "because it was not looked up: s3://" in task.why()


def test_a_result_whose_storage_is_down_is_not_dropped(engine: Engine, counted: Counted) -> None:
    lab = bucket(counted)
    first = engine.submit("echo one > $OUTPUT/a", shell=True, output=lab / "out", use_cache=True)
    first.result(WAIT_S)
    recorded(engine)
    counted.is_down = True
    second = engine.submit("echo one > $OUTPUT/a", shell=True, use_cache=True)
    assert ran(second) == [True]
    assert f"because the result of {first.id} could not be taken: s3://" in second.why()
    counted.is_down = False
    second.delete()
    assert ran(engine.submit("echo one > $OUTPUT/a", shell=True, use_cache=True)) == [False]


def test_a_container_is_known_by_its_bits_and_its_options(dockerd: Dockerd, engine: Engine) -> None:
    def run(options: str | None = None) -> Task:
        return engine.submit(
            "echo fine", container="cached:test", container_options=options, use_cache=True, name="tool"
        )

    dockerd.make_image("cached:test", "LABEL bits=1")
    assert ran(run(), run()) == [True, False]
    other = run("--network none")
    assert ran(other) == [True]
    assert "container options changed (old: none, new: --network none)" in other.why()
    dockerd.make_image("cached:test", "LABEL bits=2")  # other bits behind the same tag
    changed = run()
    assert ran(changed) == [True]
    assert "container changed (old: sha256:" in changed.why()
    assert ran(run()) == [False]
    sound(engine)


def test_pages_are_told_apart_by_what_their_server_says(engine: Engine, web: WebServer) -> None:
    script = "cat $INPUT/page"
    web.add("/page", b"one\n", etag='"one"')
    tasks = [engine.submit(script, shell=True, input=f"{web.url}/page", use_cache=True) for _ in range(2)]
    assert ran(*tasks) == [True, False]
    web.add("/page", b"two\n", etag='"two"')
    changed = engine.submit(script, shell=True, input=f"{web.url}/page", use_cache=True)
    assert ran(changed) == [True]
    assert 'ETag "one"' in changed.why() and 'ETag "two"' in changed.why()


__all__ = ["s3_port"]
