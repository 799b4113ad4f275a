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
from typing import Any

import pytest

import scitq
from scitq import storages
from scitq.engine import Engine
from scitq.errors import TaskFailed
from scitq.fetch import configuration, delete
from scitq.fetch import put as put_there
from scitq.fetch.errors import ToolMissing
from scitq.handle import Task
from scitq.path import URI
from scitq.remote import local
from scitq.states import Outcome, TaskState
from scitq.store import manifests
from scitq.task import ExecutionId
from tests.crash.conftest import holder, kill
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S, until
from tests.fetch.servers import MOTO, _line
from tests.fetch.web import WebServer
from tests.remote.client import below, content

pytestmark = pytest.mark.servers

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


def put(address: URI, text: str, tmp_path: Path) -> None:
    """A file there."""
    source = tmp_path / f"source-{os.urandom(4).hex()}"
    source.write_text(text)
    put_there(str(source), address.address)


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


@pytest.mark.promise("core 11.2")
def test_data_comes_from_a_bucket(engine: Engine, s3: URI, tmp_path: Path) -> None:
    put(s3 / "in" / "a b.txt", "from the bucket\n", tmp_path)
    task = engine.submit('cat "$INPUT/a b.txt"', shell=True, input=s3 / "in")
    assert task.result(WAIT_S).stdout == "from the bucket\n"
    engine.close()
    held = [path for path in below(engine.side.parent) if path.name != "rclone.conf"]
    assert not any(b"geheim1234" in content(path) for path in held)


# --- failures ---------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("data 11.27")
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


def test_the_example_goes_from_the_web_to_a_bucket(web: WebServer, s3: URI, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("names.dmp")
        text = b"562 | Escherichia coli |\n"
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    web.add("/taxdump.tar.gz", packed.getvalue())
    web.add("/genome.fna.gz", gzip.compress(b">x\nAACG\nCGTT\n"))
    root = Path(scitq.__file__).parents[1]
    options = ["--genome", f"{web.url}/genome.fna.gz", "--taxonomy", f"{web.url}/taxdump.tar.gz"]
    try:
        ended = subprocess.run(
            [sys.executable, root / "examples" / "04_data.py", str(s3 / "composition"), *options],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        if (tmp_path / "data.scitq.d" / "local").is_dir():
            local.stop(tmp_path / "data.scitq.d" / "local")
    assert ended.returncode == 0, ended.stderr
    assert "taxon: 562 | Escherichia coli |\n50 % GC\n" in ended.stdout
    assert sorted((s3 / "composition" / "counts" / "bases.txt").read_text().split()) == sorted(
        ["2", "A", "2", "C", "2", "G", "2", "T"]
    )


def test_the_next_task_s_data_comes_while_another_runs_however_long(
    open_engine: Opener, web: WebServer, tmp_path: Path
) -> None:
    web.add("/next", b"next\n")
    engine = open_engine()
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", concurrency=1)
    engine._write(lambda db: db.execute("update execution set run_s = 100"))
    engine.close()
    engine = open_engine()
    (tmp_path / "data").touch()
    first = engine.submit("until [ -e go ]; do sleep 0.05; done", shell=True, input="data")
    second = engine.submit("cat $INPUT/next", shell=True, input=f"{web.url}/next")
    until(lambda: second.state is TaskState.STAGING or bool(web.requests), "the next one's data")
    assert first.state in (TaskState.ASSIGNED, TaskState.STAGING, TaskState.RUNNING)
    (tmp_path / "go").touch()
    assert second.result(WAIT_S).stdout == "next\n"


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


# --- outputs ----------------------------------------------------------------------------------------------------------------


def test_a_chain_through_a_bucket(engine: Engine, s3: URI) -> None:
    first = engine.submit(
        'mkdir "$OUTPUT/sub dir"; printf 12345 > "$OUTPUT/sub dir/ü"; : > $OUTPUT/empty', shell=True, output=s3 / "one"
    )
    second = engine.submit(
        'cat "$INPUT/ü" > $OUTPUT/copy; ls $INPUT', shell=True, input=first.output / "sub dir", output=s3 / "two/"
    )
    assert second.result(WAIT_S).stdout == "ü\n"
    assert {file.name: file.size for file in first.files()} == {"sub dir/ü": 5, "empty": 0}
    assert left_at(s3 / "one") == {"sub dir/ü": "12345", "empty": ""}
    assert (second.output / "copy").read_text() == "12345"
    assert str(second.output) == str(s3 / "two")
    (row,) = engine.sql("select delivered, files, delivered_bytes from executions where task = ?", [first.id])
    assert (row["delivered"], row["files"], row["delivered_bytes"]) == (str(s3 / "one"), 2, 5)
    sound(engine)


def test_an_output_that_is_a_path_is_put_there_whole(engine: Engine, tmp_path: Path) -> None:
    task = engine.submit("echo 1 > $OUTPUT/a", shell=True, output="results/one")
    task.result(WAIT_S)
    assert (tmp_path / "results" / "one" / "a").read_text() == "1\n"
    assert [file.name for file in task.files()] == ["a"]
    with open(task.output / "a") as file:  # type: ignore[call-overload]
        assert file.read() == "1\n"
    task.update(command="echo 2 > $OUTPUT/b", shell=True)
    task.relaunch().result(WAIT_S)
    assert sorted(p.name for p in (tmp_path / "results" / "one").iterdir() if not p.name.startswith(".")) == ["b"]


def test_what_a_failed_try_left_goes_beside_the_output_unless_it_is_dropped(engine: Engine, s3: URI) -> None:
    script = "echo half > $OUTPUT/a; exit 3"
    tasks = [
        engine.submit(script, shell=True, output=s3 / "out"),
        engine.submit(script, shell=True),
        engine.submit(script, shell=True, output=s3 / "dropped", keep_failed=False),
    ]
    for task in tasks:
        assert task.wait(WAIT_S) is TaskState.FAILED
        assert task.executions[-1].cause == "failed (exit 3)"
    kept, beside, dropped = (task.executions[-1].id for task in tasks)
    assert left_at(s3) == {f"out.failed/{kept}/a": "half\n"}
    folder = engine.side / "outputs"
    assert (folder / f"{tasks[1].id}.failed" / str(beside) / "a").read_text() == "half\n"
    assert not (folder / str(tasks[1].id)).exists()
    found = manifests.of_execution(engine._reader(), kept)
    assert found is not None
    assert found.address == str(s3 / f"out.failed/{kept}")
    assert manifests.of_execution(engine._reader(), ExecutionId(dropped)) is None
    sound(engine)


def test_a_place_that_holds_what_is_others_is_refused_unless_overwritten(
    engine: Engine, s3: URI, tmp_path: Path
) -> None:
    put(s3 / "out" / "precious", "precious\n", tmp_path)
    script = "echo new > $OUTPUT/a; touch ran.$SCITQ_TASK"
    refused = engine.submit(script, shell=True, output=s3 / "out")
    with pytest.raises(TaskFailed, match=r"failed \(stage in\)|failed \(collect\)"):
        refused.result(WAIT_S)
    assert left_at(s3 / "out") == {"precious": "precious\n"}
    assert not (tmp_path / f"ran.{refused.id}").exists()
    engine.submit(script, shell=True, output=s3 / "out", overwrite=True).result(WAIT_S)
    assert left_at(s3 / "out") == {"precious": "precious\n", "a": "new\n"}


def test_an_output_that_is_there_complete_is_not_made_again(engine: Engine, s3: URI, tmp_path: Path) -> None:
    def task() -> Task:
        return engine.submit(
            "echo x >> runs; echo 1 > $OUTPUT/a", shell=True, output=s3 / "out", skip_if_exists=True, overwrite=True
        )

    first = task()
    first.result(WAIT_S)
    again = task()
    again.result(WAIT_S)
    assert (tmp_path / "runs").read_text() == "x\n"
    assert "there already" in again.why()
    assert again.files() == first.files()
    delete((s3 / "out" / "a").address)
    task().result(WAIT_S)
    assert (tmp_path / "runs").read_text() == "x\nx\n"


@pytest.mark.promise("core 11.9")
def test_an_output_that_cannot_be_delivered_fails_the_task_with_the_reason(engine: Engine, s3: URI) -> None:
    task = engine.submit("echo 1 > $OUTPUT/a", shell=True, output="s3://no-such-bucket-here/out")
    with pytest.raises(TaskFailed, match="no-such-bucket-here"):
        task.result(WAIT_S)
    assert (task.executions[-1].cause or "").startswith("failed (")


def test_a_relaunched_source_is_followed_to_where_it_left_what_it_left(engine: Engine, s3: URI) -> None:
    source = engine.submit("echo 1 > $OUTPUT/a", shell=True, output=s3 / "first")
    user = engine.submit("cat $INPUT/a", shell=True, input=source.output)
    assert user.result(WAIT_S).stdout == "1\n"
    source.update(output=s3 / "second", command="echo 2 > $OUTPUT/a")
    source.relaunch().result(WAIT_S)
    assert user.relaunch().result(WAIT_S).stdout == "2\n"


def test_a_driver_killed_while_an_output_goes_home_is_followed_by_one_that_finishes(
    open_engine: Opener, s3: URI, tmp_path: Path
) -> None:
    watching = open_engine(drive=False)
    tasks = [
        watching.submit(f"head -c 300000 /dev/zero > $OUTPUT/{n}; : > ran.{n}", shell=True, output=s3 / str(n))
        for n in range(3)
    ]
    first = driver(watching.path)
    until(lambda: (tmp_path / "ran.0").exists(), "the first run")
    first.kill()
    first.communicate()
    second = open_engine()
    second.drive()
    for n, task in enumerate(tasks):
        task.result(WAIT_S)
        assert [(file.name, file.size) for file in task.files()] == [(str(n), 300000)]
        assert len(task.executions) == 1
    sound(second)


def test_a_remote_that_is_gone_from_the_configuration_fails_what_needs_it(
    open_engine: Opener, s3: URI, tmp_path: Path
) -> None:
    watching = open_engine(drive=False)
    task = watching.submit("true", input=s3 / "x")
    (tmp_path / "rclone.conf").write_text("[other]\ntype = local\n")
    open_engine().drive()
    with pytest.raises(TaskFailed, match=r"failed \(stage in\).*s3"):
        task.result(WAIT_S)


def test_a_configuration_that_cannot_be_read_is_said_by_why_and_waited_for(
    engine: Engine, s3: URI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3 / "x", "x\n", tmp_path)
    sections = configuration.sections

    def broken(*given: Any) -> Any:
        raise ToolMissing("rclone: it went away meanwhile.", phase="start")

    monkeypatch.setattr(storages, "AGAIN_S", 0.02)
    monkeypatch.setattr(configuration, "sections", broken)
    task = engine.submit("cat $INPUT/x", shell=True, input=s3 / "x")
    until(lambda: "cannot be read, and is tried again: rclone: it went away meanwhile." in task.why(), "why says so")
    monkeypatch.setattr(configuration, "sections", sections)
    assert task.result(WAIT_S).stdout == "x\n"
    notes = manifests.notes(engine._reader(), ExecutionId(1))
    assert [note.partition(",")[0] for note in notes] == [
        "the rclone configuration cannot be read", "the rclone configuration can be read again.",
    ]  # fmt: skip
    sound(engine)


def test_an_agent_killed_while_data_comes_is_told_of_the_remotes_again(
    engine: Engine, s3: URI, web: WebServer, tmp_path: Path
) -> None:
    put(s3 / "x", "from the bucket\n", tmp_path)
    web.add("/slow", b"slow\n", stalls=[2])
    task = engine.submit("cat $INPUT/*", shell=True, input=[f"{web.url}/slow", s3 / "x"], output=s3 / "out")
    until(lambda: task.state is TaskState.STAGING, "staging")
    assert kill(holder(engine.side / "local", "agent"))
    web.release.set()
    assert task.result(WAIT_S).stdout == "slow\nfrom the bucket\n"
    assert len(task.executions) == 1
    sound(engine)
