"""Tasks with data, from the submission to what they left, with the real agent and a real S3 server."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import TaskFailed
from scitq.path import URI
from scitq.states import Outcome, TaskState
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S, until
from tests.fetch.servers import MOTO, _line
from tests.fetch.web import WebServer

CONFIG = """[{name}]
type = s3
provider = Other
endpoint = http://127.0.0.1:{port}
access_key_id = test
secret_access_key = geheim1234
region = us-east-1
force_path_style = true
no_check_bucket = true
"""


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A server that speaks S3."""
    server = subprocess.Popen(
        [sys.executable, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    yield int(_line(server.stdout, lambda line: line.startswith("127.0.0.1")).split()[1])
    server.kill()
    server.communicate()


@pytest.fixture
def s3(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> URI:
    """A bucket of this test's own."""
    import urllib.request

    name = f"b{os.urandom(6).hex()}"
    url = f"http://127.0.0.1:{s3_port}/{name}"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
    (tmp_path / "rclone.conf").write_text(CONFIG.format(name="s3", port=s3_port))
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    return URI(f"s3://{name}")


@pytest.fixture(scope="session")
def web_server() -> Iterator[WebServer]:
    """A web server."""
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def web(web_server: WebServer) -> Iterator[WebServer]:
    """The same, empty."""
    web_server.reset()
    yield web_server
    web_server.reset()


def put(address: URI, text: str, tmp_path: Path) -> None:
    """A file there."""
    from scitq.fetch import put

    source = tmp_path / f"source-{os.urandom(4).hex()}"
    source.write_text(text)
    put(str(source), address.address)


def left_at(address: URI) -> dict[str, str]:
    """Every file there but the manifest, with what it says."""
    return {
        row.rel_name: row.uri.read_text()
        for row in address.list()
        if row.type == "file" and "manifest" not in row.rel_name
    }


# --- chains -----------------------------------------------------------------------------------------------------------------


def test_a_chain_needs_no_address_at_all(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / f"{name}.txt").write_text(f"{name}\n")
    counts = [
        engine.submit(f"cat $INPUT/* > $OUTPUT/{path.stem}.out", shell=True, input=path, name=path.stem)
        for path in sorted((tmp_path / "data").iterdir())
    ]
    total = engine.submit("cat $INPUT/*", shell=True, input=[count.output for count in counts])
    assert total.result(WAIT_S).stdout == "one\ntwo\n"
    sound(engine)


def test_a_plain_path_is_linked_not_copied(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "reads [1].fq"
    source.write_text("ACGT\n")
    task = engine.submit("stat -L -c %i $INPUT/*", shell=True, input=[source, str(tmp_path / "rea*|mv:sub")])
    inode = str(source.stat().st_ino)
    shown = engine.submit("find $INPUT/ -follow -type f -exec stat -L -c %i {} +", shell=True, input=[source])
    assert shown.result(WAIT_S).stdout.split() == [inode]
    assert inode in task.result(WAIT_S).stdout.split()


def test_a_source_that_left_nothing_gives_nothing(engine: Engine) -> None:
    source = engine.submit("true")
    task = engine.submit("ls -A $INPUT", shell=True, input=source.output)
    assert task.result(WAIT_S).stdout == ""


def test_data_comes_from_the_web_and_resources_are_unpacked(engine: Engine, web: WebServer) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("ref/genome.fa")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"ACGT\n"))
    web.add("/reads.fq.gz", gzip.compress(b"reads\n"))
    web.add("/ref.tgz", packed.getvalue())
    tasks = [
        engine.submit(
            "cat $INPUT/reads.fq $RESOURCE/ref/genome.fa", shell=True, input=f"{web.url}/reads.fq.gz|gunzip",
            resource=f"{web.url}/ref.tgz|untar",
        )
        for _ in range(3)
    ]  # fmt: skip
    for task in tasks:
        assert task.result(WAIT_S).stdout == "reads\nACGT\n"


def test_data_comes_from_a_bucket(engine: Engine, s3: URI, tmp_path: Path) -> None:
    put(s3 / "in" / "a b.txt", "from the bucket\n", tmp_path)
    task = engine.submit('cat "$INPUT/a b.txt"', shell=True, input=s3 / "in")
    assert task.result(WAIT_S).stdout == "from the bucket\n"
    engine.close()
    held = [path for path in engine.side.parent.rglob("*") if path.is_file() and path.name != "rclone.conf"]
    assert not any(b"geheim1234" in path.read_bytes() for path in held)


# --- failures ---------------------------------------------------------------------------------------------------------------


def test_data_that_is_not_there_fails_with_the_reason_and_uses_up_a_retry(engine: Engine, web: WebServer) -> None:
    task = engine.submit("true", input=f"{web.url}/absent", retry=1, retry_delay=0.01)
    with pytest.raises(TaskFailed, match=r"failed \(stage in\).*absent"):
        task.result(WAIT_S)
    assert [one.cause for one in task.executions] == ["failed (stage in)"] * 2
    assert "absent" in task.why()
    sound(engine)


def test_what_takes_too_long_to_come_is_timed_out(engine: Engine, web: WebServer) -> None:
    web.add("/slow", b"x" * 100_000, stalls=[10, 10, 10])
    task = engine.submit("true", input=f"{web.url}/slow", stage_in_timeout=0.5)
    assert task.wait(WAIT_S) is TaskState.FAILED
    assert task.executions[-1].cause == "timed out (stage in)"


def test_a_staged_task_can_be_watched_edited_and_cancelled(engine: Engine, web: WebServer, tmp_path: Path) -> None:
    web.add("/slow", b"x" * 100_000, stalls=[10] * 4)
    (tmp_path / "here").write_text("here\n")
    edited = engine.submit("cat $INPUT/*", shell=True, input=f"{web.url}/slow")
    cancelled = engine.submit("true", resource=f"{web.url}/slow")
    for task in (edited, cancelled):
        until(lambda task=task: task.state is TaskState.STAGING, "staging")  # type: ignore[misc]
        assert "staging" in task.why()
    edited.update(input=tmp_path / "here", timeout=WAIT_S)
    cancelled.cancel()
    assert cancelled.wait(WAIT_S) is TaskState.CANCELLED
    assert edited.result(WAIT_S).stdout == "here\n"
    assert [one.outcome for one in edited.executions] == [Outcome.RECALLED, Outcome.SUCCEEDED]
    sound(engine)


# --- kills ------------------------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from scitq.engine import Engine
with Engine(sys.argv[1], linger_s=20) as engine:
    engine.drive()
    print("there", flush=True)
    sys.stdin.read()
"""


def driver(path: Path) -> subprocess.Popen[str]:
    """Another process that drives the file."""
    root = str(Path(scitq.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path)],
        env={**os.environ, "PYTHONPATH": root}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    return child


def test_a_driver_killed_while_data_comes_is_followed_by_one_that_finishes(
    open_engine: Opener, s3: URI, web: WebServer, tmp_path: Path
) -> None:
    put(s3 / "x", "from the bucket\n", tmp_path)
    web.add("/slow", b"slow\n", stalls=[2])
    watching = open_engine(drive=False)
    task = watching.submit("cat $INPUT/*", shell=True, input=[f"{web.url}/slow", s3 / "x"])
    first = driver(watching.path)
    until(lambda: task.state is TaskState.STAGING, "staging")
    first.kill()
    first.communicate()
    web.release.set()
    second = open_engine()
    second.drive()
    assert task.result(WAIT_S).stdout == "slow\nfrom the bucket\n"
    assert len(task.executions) == 1
    sound(second)
