"""`scitq.lib.Server`: scripts of version 1 find their methods, and get what they knew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scitq.catalogue import Catalogue
from scitq.engine import Engine
from scitq.errors import BadInput, IllegalMove, NotSupported, ScitqError, UnknownTask
from scitq.lib import HTTPException, JoinFailed, Record, Server
from scitq.lib.opening import addresses
from scitq.offers import Flavor, Gpu, Offer
from scitq.remote import local
from scitq.states import TaskState
from scitq.store import catalogue, workers
from scitq.worker import LOCAL
from tests.engine.test_engine import WAIT_S, until

# Every method of version 1 (reference: chapter 7 of its behaviour).
METHODS = """
    workers worker_get worker_create worker_update worker_delete worker_ping worker_callback worker_executions workers_tasks
    worker_signals worker_create_signal worker_deploy executions execution_create execution_update execution_output_write
    execution_error_write execution_get execution_output task_create task_update task_get task_freeze tasks task_status
    task_delete batches batch_stop batch_go batch_delete recruiters recruiter_create recruiter_update recruiter_delete
    recruiters_match flavors flavor_find config_rclone config_remote queue_size join
"""


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    found = Engine(state_file)
    yield found
    found.close()
    if (found.side / "local").is_dir():
        local.stop(found.side / "local")


@pytest.fixture
def idle(state_file: Path) -> Iterator[Engine]:
    """A file that nobody drives; it has a worker all the same."""
    found = Engine(state_file, drive=False)
    found._write(lambda db: workers.ensure(db, 0, LOCAL, LOCAL, 4))
    yield found
    found.close()


def test_it_has_every_method_of_version_1(idle: Engine) -> None:
    server = Server(idle)
    assert [name for name in METHODS.split() if not callable(getattr(server, name, None))] == []
    assert server.queue_size() == 0
    assert "lab" in repr(server)


# --- which file -------------------------------------------------------------------------------------------------------------------


def test_an_address_means_the_default_file_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.scitq").parent.mkdir(exist_ok=True)
    Engine(tmp_path / "mine.scitq", drive=False).close()
    monkeypatch.setattr("scitq.lib.opening._warned", set())
    with caplog.at_level(logging.WARNING, "scitq"):
        first, second = Server("10.0.0.7"), Server("10.0.0.7", style="object")
        monkeypatch.setenv("SCITQ_SERVER", "queue.example.org")
        third = Server()
    told = [record.getMessage() for record in caplog.records if "no server" in record.getMessage()]
    assert [text.split("'")[1] for text in told] == ["10.0.0.7", "queue.example.org"]
    assert {one.engine.path.name for one in (first, second, third)} == {"mine.scitq"}
    for one in (first, second, third):
        one.engine.close()


def test_a_path_an_engine_or_a_server_say_which_file(tmp_path: Path, idle: Engine) -> None:
    other = Server(str(tmp_path / "other.scitq"))
    assert other.engine.path.name == "other.scitq"
    assert Server(other).engine is other.engine
    assert Server(engine=idle).engine is Server(idle).engine is idle
    named = Server(file=tmp_path / "named.scitq")
    assert named.engine.path.name == "named.scitq"
    for wrong in ({"ip": 3}, {"ip": idle, "style": "xml"}):
        with pytest.raises(BadInput):
            Server(**wrong)
    other.engine.close()
    named.engine.close()


# --- tasks ------------------------------------------------------------------------------------------------------------------------


def test_a_task_has_the_fields_of_version_1_in_both_styles(idle: Engine, tmp_path: Path) -> None:
    Path("a.txt").write_text("a")
    Path("b c.txt").write_text("b")
    server, objects = Server(idle), Server(idle, style="object")
    first = server.task_create("echo 'one word' two", name="first")
    made = objects.task_create(
        command="sh -c 'cat $INPUT/*'", name="second", batch="qc", input="a.txt file:///x/y.gz", output=f"file://{tmp_path}/out",
        container="", container_options="", resource=["b c.txt", "s3x/none b c.txt"][:1], required_task_ids=[first], retry=2,
        download_timeout=60, run_timeout=5, use_cache=True, asynchronous=True,
    )  # fmt: skip
    assert first["command"] == "echo 'one word' two"
    assert (first["batch"], first["status"], first["input"], first["output"]) == ("Default", "pending", None, None)
    assert isinstance(first["creation_date"], datetime)
    assert isinstance(made, Record)
    assert (made.status, made.state, made.batch, made.retry, made.run_timeout) == ("waiting", "waiting", "qc", 2, 5.0)
    assert made.required_task_ids == [first["task_id"]]
    assert made.input.split()[1] == "file:///x/y.gz"
    assert made.output == f"file://{tmp_path}/out/"
    assert made.use_cache is True
    assert dict(made) == server.task_get(made.task_id) == server.task_get(made)
    assert made["name"] == "second"
    assert len(objects.tasks()) == 2, "a list, which has a length"
    assert [task["name"] for task in server.tasks(batch="qc")] == ["second"]
    assert [task["name"] for task in server.tasks(status="pending")] == ["first"]
    assert [task["name"] for task in server.tasks(task_id=[made.task_id, first["task_id"]])] == ["first", "second"]
    assert [task["name"] for task in server.tasks(name="first", status=["pending", "failed"], batch="Default")] == [
        "first"
    ]
    assert server.task_status([made, first["task_id"]]) == ["waiting", "pending"]
    with pytest.raises(BadInput, match="status must be one of"):
        server.tasks(status="sleeping")


def test_spaces_separate_addresses_unless_a_file_has_that_name(tmp_path: Path) -> None:
    Path("two words.txt").write_text("")
    assert addresses("a b  c") == ["a", "b", "c"]
    assert addresses("two words.txt") == "two words.txt"
    assert addresses(["a b", "two words.txt", Path("x")]) == ["a", "b", "two words.txt", Path("x")]
    assert addresses("") is addresses(None) is None
    assert addresses("s3://b/k|untar ") == "s3://b/k|untar"


def test_a_task_is_edited_and_values_are_taken_back(idle: Engine) -> None:
    server = Server(idle)
    task = server.task_create("true", batch="b", run_timeout=5, output="file:///tmp/x", retry=1)
    changed = server.task_update(
        task["task_id"], command="sh -c 'echo it'", name="n", run_timeout=None, output=None, batch="c"
    )
    assert (changed["command"], changed["name"], changed["run_timeout"], changed["output"]) == (
        "sh -c 'echo it'",
        "n",
        None,
        None,
    )
    assert (changed["batch"], changed["retry"]) == ("c", 1)
    assert server.task_update(task, batch="Default")["batch"] == "Default"
    assert server.task_update(task, status="paused")["status"] == "paused"
    assert server.task_update(task, status="running")["status"] == "pending"
    assert server.task_update(task, status="failed")["state"] == "cancelled"
    assert server.task_update(task, status="pending")["status"] == "pending"
    with pytest.raises(BadInput, match="not 'succeeded'"):
        server.task_update(task, status="succeeded")
    paused = server.task_create("true", status="paused")
    assert (paused["status"], server.engine.task(paused["task_id"]).row().priority) == ("paused", 0)
    server.task_delete(task)
    with pytest.raises(UnknownTask) as caught:
        server.task_get(task)
    assert caught.value.status_code == 404
    with pytest.raises(BadInput, match="pending, waiting"):
        server.task_create("true", status="debug")


def test_errors_have_status_codes_and_one_name(idle: Engine) -> None:
    server = Server(idle)
    assert HTTPException is ScitqError
    for call, code in (
        (lambda: server.task_create(""), 400),
        (lambda: server.task_get(99), 404),
        (lambda: server.worker_get(99), 404),
        (lambda: server.execution_get(99), 404),
        (lambda: server.batch_delete("nope"), 404),
        (lambda: server.worker_delete(1), 409),
        (lambda: server.recruiter_update("nope", 1), 404),
    ):
        with pytest.raises(HTTPException) as caught:
            call()
        assert (caught.value.status_code, caught.value.message) == (code, str(caught.value))


def test_what_only_workers_of_version_1_called_says_who_does_it_now(idle: Engine) -> None:
    server = Server(idle)
    calls: list[Callable[[], Any]] = [
        lambda: server.worker_ping(1, "0.1", 3, {}), lambda: server.worker_callback(1, "idle"), lambda: server.task_freeze(1, 1),
        lambda: server.execution_create(1, 1), lambda: server.execution_update(1, status="failed"),
        lambda: server.execution_output_write(1, "x"), lambda: server.execution_error_write(1, "x"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NotSupported, match="agents"):
            call()


# --- what happens -----------------------------------------------------------------------------------------------------------------


def test_what_ran_is_joined_and_its_output_read_from_a_position(engine: Engine) -> None:
    server = Server(engine)
    task = server.task_create("echo añb; echo bad >&2; exit 3", shell=True, name="t")
    assert server.join([task["task_id"]], retry=1) == {"failed": 1}
    found = server.executions(task_id=task["task_id"])
    assert [(one["status"], one["return_code"], one["latest"]) for one in found] == [
        ("failed", 3, False),
        ("failed", 3, True),
    ]
    assert [one["execution_id"] for one in server.executions(task_name="t", reverse=True, limit=1)] == [
        found[1]["execution_id"]
    ]
    [last] = server.executions(task_id=task["task_id"], latest=True, trunc=3)
    assert (last["output"], last["error"], last["worker_id"], last["worker"]) == ("ñb\n", "ad\n", 1, "local")
    assert "output" not in server.executions(execution_id=last["execution_id"], no_output=True)[0]
    assert server.executions(status="succeeded") == []
    said = server.execution_output(last["execution_id"], output_position=2)
    assert (said["output"], said["error"], said["output_position"]) == ("ñb\n", "bad\n", 5)
    assert server.execution_output(last, error=False, output_position=5) == {
        "execution_id": last["execution_id"], "output": "", "output_position": 5,
    }  # fmt: skip
    assert server.execution_output(last, error=False)["output"] == "añb\n", "from the beginning again"
    assert server.execution_get(last)["output"] == "añb\n"


def test_output_is_followed_while_it_is_written(engine: Engine, tmp_path: Path) -> None:
    server = Server(engine, style="object")
    gate = tmp_path / "gate"
    # The first byte of a letter of two comes alone.
    task = server.task_create(f"printf 'a\\303'; until [ -e {gate} ]; do sleep 0.02; done; printf '\\261b'", shell=True)
    until(lambda: len(server.executions(task_id=task)) == 1, "it has begun")
    [execution] = server.executions(task_id=task)
    seen, at = "", 1

    def more() -> bool:
        nonlocal seen, at
        said = server.execution_output(execution, output_position=at)
        seen, at = seen + said.output, said.output_position
        return bool(seen)

    until(more, "its first letter")
    assert seen == "a"
    gate.touch()
    server.join([task], retry=0, check=True)
    more()
    assert (seen, at) == ("añb", 4)


@pytest.mark.promise("core 11.8")
def test_join_waits_for_what_waits_and_for_what_a_retry_frees(engine: Engine, tmp_path: Path) -> None:
    server = Server(engine)
    once = tmp_path / "once"
    first = server.task_create(f"test -e {once} || {{ touch {once}; exit 1; }}", shell=True)
    second = server.task_create("true", required_task_ids=first["task_id"])
    third = server.task_create("true", required_task_ids=[second])
    assert server.join([third, second, first], retry=1, check=True) == {"succeeded": 3}
    bad = server.task_create("false")
    after = server.task_create("true", required_task_ids=[bad])
    with pytest.raises(RuntimeError, match="2 of 2 tasks did not succeed") as caught:
        server.join([bad, after], retry=1, check=True)
    assert isinstance(caught.value, JoinFailed)
    assert caught.value.parts["counts"] == {"failed": 2}
    assert len(server.executions(task_id=bad)) == 2
    assert server.task_get(after)["state"] == "blocked"
    with pytest.raises(BadInput):
        server.join([])
    with pytest.raises(UnknownTask):
        server.join([999])


def test_what_runs_is_stopped_queued_once_more_and_deleted(engine: Engine, tmp_path: Path) -> None:
    server = Server(engine)
    gate = tmp_path / "gate"
    task = server.task_create(f"test -e {gate} || sleep 600", shell=True, batch="b")
    until(lambda: server.task_get(task)["status"] == "running", "it runs")
    with pytest.raises(IllegalMove):
        server.task_update(task, command="true")
    gate.touch()
    again = server.task_update(task, status="pending", command=f"test -e {gate}")
    assert again["task_id"] == task["task_id"]
    assert server.join([task], retry=0, check=True) == {"succeeded": 1}
    long = server.task_create("sleep 600", batch="b")
    until(lambda: server.task_get(long)["status"] == "running", "it runs")
    [execution] = server.worker_executions(1)
    assert (execution["task_id"], execution["status"]) == (long["task_id"], "running")
    assert server.workers_tasks() == [{"worker_id": 1, "status": "running", "count": 1}]
    server.task_delete(long)
    assert server.task_status([task]) == ["succeeded"]
    another = server.task_create("sleep 600", batch="b")
    until(lambda: server.task_get(another)["status"] == "running", "it runs")
    [execution] = server.worker_executions(1, status="running")
    server.worker_create_signal(1, execution["execution_id"], 9)
    assert server.join([another], retry=0) == {"failed": 1}
    server.recruiter_create("b", 1, 1, "local", 1)
    last = server.task_create("sleep 600", batch="b")
    until(lambda: server.task_get(last)["status"] == "running", "it runs")
    server.batch_delete("b")
    assert (server.tasks(), server.recruiters()) == ([], [])


def test_batches_stop_with_their_signals_and_go(engine: Engine, tmp_path: Path) -> None:
    server = Server(engine, style="object")
    server.batch_stop("b")
    gate = tmp_path / "gate"
    task = server.task_create(f"until [ -e {gate} ]; do sleep 0.02; done", shell=True, batch="b")
    assert "batch b is paused" in server.engine.task(task.task_id).why()
    server.batch_go("b")
    until(lambda: server.task_get(task).status == "running", "it runs")
    server.batch_stop("b", 20)
    until(lambda: "stands still" in server.engine.task(task.task_id).why(), "it is stopped")
    gate.touch()
    server.batch_go("b", 18)
    assert server.join([task], retry=0) == {"succeeded": 1}
    long = server.task_create("sleep 600", batch="b")
    until(lambda: server.task_get(long).status == "running", "it runs")
    [shown] = [one for one in server.batches() if one.batch == "b"]
    assert (shown.running, shown.succeeded, shown.failed, shown.workers) == (1, 1, 0, [])
    server.batch_stop("b", signal=9)
    assert server.join([long], retry=0) == {"failed": 1}
    with pytest.raises(BadInput, match="signal must be"):
        server.batch_stop("b", 1)


# --- workers and recruiters -------------------------------------------------------------------------------------------------------


def test_workers_and_recruiters_in_words_of_version_1(engine: Engine) -> None:
    server, objects = Server(engine), Server(engine, style="object")
    assert server.join([server.task_create("true")], check=True) == {"succeeded": 1}
    [worker] = objects.workers()
    assert (worker.name, worker.status, worker.flavor, worker.batch) == ("local", "running", "local", "Default")
    assert objects.workers(status="paused") == []
    assert server.worker_update(worker.worker_id, concurrency=3, prefetch=2, flavor="big")["concurrency"] == 3
    assert (objects.worker_get("local").prefetch, objects.worker_get(worker).flavor) == (2, "big")
    assert server.worker_update(worker, status="paused")["status"] == "paused"
    assert server.worker_update(worker, status="running", batch="b")["batch"] == "b"
    assert server.worker_update(worker, batch=None, flavor=None)["flavor"] == "local"
    assert server.worker_signals(worker) == []
    with pytest.raises(BadInput, match="not 'evicted'"):
        server.worker_update(worker, status="evicted")
    with pytest.raises(BadInput, match="keeps its name"):
        server.worker_update(worker, name="other")
    made = server.recruiter_create("b", 1, 4, "local", 2, prefetch=1, maximum_workers=3)
    assert (made["tasks_per_worker"], made["flavor"], made["concurrency"]) == (4, "local", 2)
    assert (
        server.recruiter_update(batch="b", rank=1, tasks_per_worker=2, maximum_workers=None)["maximum_workers"] is None
    )
    assert [one.rank for one in objects.recruiters(batch="b", flavor="local")] == [1]
    assert [(one.name, one.recruiter_batch) for one in objects.recruiters_match(batch="b")] == [("local", "b")]
    server.recruiter_delete("b", 1)
    server.recruiter_delete("b", 1)
    assert server.recruiters() == []
    with pytest.raises(BadInput, match="nothing called 'colour'"):
        server.workers(colour="red")


def test_deploying_is_satisfied_by_what_is_there_or_says_what_to_do(engine: Engine) -> None:
    server = Server(engine)
    task = server.task_create("echo $CPU", shell=True, batch="b")
    server.worker_deploy(number=0, batch="b", flavor="b3-64", provider="ovh", region="GRA11", concurrency=2)
    assert server.recruiters() == []
    server.worker_deploy(number=2, batch="b", flavor="local", concurrency=1, prefetch=1, provider=None)
    assert [(one["flavor"], one["concurrency"]) for one in server.recruiters(batch="b")] == [("local", 1)]
    assert server.join([task], check=True) == {"succeeded": 1}
    with pytest.raises(BadInput, match=r"there is nothing to rent.*scitq provider list.*worker_add\('user@host'"):
        server.worker_deploy(1, "c", "GRA11", "b3-64", 2, "ovh")
    with pytest.raises(BadInput, match="column 6"):
        server.worker_deploy(1, "c", "auto", "auto:cores>=3", 2, "auto")


def test_flavors_are_what_providers_sell_in_the_fields_of_version_1(idle: Engine) -> None:
    server = Server(idle)
    assert server.flavors(min_cpu=8, protofilters="ram>=64") == []
    gpu = Gpu("A100", 2, 80 * 10**9)
    small, large = Flavor("ovh", "b3-32", 8, 32 * 10**9, 200 * 10**9), Flavor("ovh", "b3-64", 16, 64 * 10**9)
    sold = [
        Offer(large, "GRA11", price=0.6), Offer(small, "GRA9", price=0.24, available=3), Offer(small, "SBG5", price=0.3),
        Offer(replace(large, name="a100", gpu=gpu), "GRA9", price=2.0), Offer(small, "BHS5", price=0.1, eviction=20.0),
    ]  # fmt: skip
    idle._write(lambda db: catalogue.put_offers(db, 1, "ovh", sold))
    idle._market = Catalogue(idle._store, lambda: {"ovh": {}})

    [best, *_] = server.flavors(protofilters="region~GRA%")
    assert best == {
        "name": "b3-32", "provider": "ovh", "region": "GRA9", "cpu": 8, "ram": 32.0, "tags": "", "gpu": None, "gpumem": 0, "disk": 200.0,
        "cost": 0.24, "currency": "EUR", "market": "ondemand", "eviction": 0.0, "available": 3,
    }  # fmt: skip
    assert [one["name"] for one in server.flavors(min_cpu=8, min_ram=48)] == ["b3-64"]
    assert [one["region"] for one in server.flavors(8, max_eviction=100, limit=1)] == ["BHS5"]
    assert [(one["gpu"], one["gpumem"], one["tags"]) for one in server.flavors(protofilters="auto:tags#G")] == [
        ("A100", 80.0, "G")
    ]
    assert [one.region for one in Server(idle, style="object").flavors(provider="ovh", region="SBG5")] == ["SBG5"]
    assert len(server.flavor_find(8, 32)) == 1 and len(server.flavor_find(8, 32, n=2)) == 2
    with pytest.raises(BadInput, match="nothing to ask for"):
        server.flavors(protofilters="cores>=3")


@pytest.mark.servers
@pytest.mark.promise("core 11.2")
def test_the_rclone_configuration_is_told_without_its_secrets(
    idle: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "rclone.conf"
    place.write_text("[lab]\ntype = s3\nprovider = Minio\nsecret_access_key = hush-hush\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(place))
    told = Server(idle).config_rclone()
    assert told["lab"]["type"] == "s3"
    assert "hush-hush" not in repr(told)
    assert Server(idle).config_remote() == {"url": None}


def test_a_worker_of_version_1_is_a_host_here(idle: Engine) -> None:
    server = Server(idle)
    made = server.worker_create("w1", 4, "me@host", flavor="big", batch="qc")
    assert (made["name"], made["hostname"], made["concurrency"], made["flavor"], made["status"]) == (
        "w1", "me@host", 4, "big", "paused",
    )  # fmt: skip
    with pytest.raises(BadInput, match="hostname"):
        server.worker_create()
    server.worker_delete(made)
    assert [one["name"] for one in server.workers(status="failed")] == ["w1"]
    assert idle.counts().get(TaskState.PENDING, 0) == 0
    assert WAIT_S > 0
