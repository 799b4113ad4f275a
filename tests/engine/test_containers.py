"""Containers as the engine has them: what is asked, kept, edited and ordered. Running one is tested with the agent."""

from __future__ import annotations

import base64
import json
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scitq import registries
from scitq.contact import Contact
from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.ordering import Orders
from scitq.registries import Registries
from scitq.remote.route import LocalRoute
from scitq.store import executions
from scitq.task import Assignment
from scitq.worker import WorkerId
from tests.engine.conftest import Opener
from tests.engine.test_engine import WAIT_S


@pytest.fixture
def still(open_engine: Opener) -> Engine:
    """A file that nobody drives."""
    return open_engine(drive=False)


def order_of(engine: Engine, **given: Any) -> dict[str, Any]:
    """What a worker would be told of a task."""
    task = engine.submit(**given)
    engine._write(
        lambda db: db.execute(
            "insert or ignore into worker(id, name, kind, state, concurrency, created) values (1, 'w', 'local', 3, 1, 0)"
        )
    )
    (order,) = engine._write(lambda db: executions.begin(db, 0, [Assignment(task.id, 1, gpus=("0",))]))
    return Orders(str(engine.side / "outputs")).order(engine._reader(), order, None)


def test_a_container_is_ordered_as_it_was_asked(still: Engine) -> None:
    order = order_of(
        still, command="nvidia-smi", container="nvcr.io/nvidia/pytorch:23.05-py3", container_options="--gpus all"
    )

    assert (order["image"], order["options"]) == ("nvcr.io/nvidia/pytorch:23.05-py3", ["--gpus", "all"])
    assert order["argv"] == ["nvidia-smi"] and order["gpus"] == ["0"]
    assert "cwd" not in order and "base" not in order  # this machine's folder and PATH are not the image's


def test_a_worker_s_container_engine_may_be_chosen(engine: Engine) -> None:
    engine.submit("true").result(WAIT_S)
    assert engine.update_worker("local", container_engine="singularity").container_engine == "singularity"
    task = engine.submit("true", container="ubuntu", retry=1, retry_delay=0.01)
    task.wait(WAIT_S)

    assert [each.cause for each in task.executions] == ["failed (stage in)"] * 2 and "singularity" in task.why()
    assert task.row().raised.avoid == (1,)  # which is the only one, so it was tried there again
    assert engine.update_worker("local", container_engine="auto").container_engine is None
    with pytest.raises(BadInput, match="container_engine must be one of docker, podman"):
        engine.update_worker("local", container_engine="lxc")


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker configuration with a login for quay.example, and one that nobody can have."""
    entry = {"auth": base64.b64encode(b"ann:geheim").decode()}
    configuration = {"auths": {"quay.example": entry}, "credHelpers": {"locked.example": "of-nobody"}}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("SCITQ_INSECURE_REGISTRIES", "lab:5000")
    return tmp_path / "config.json"


def test_an_order_says_whose_login_it_may_need_and_no_login(still: Engine, logins: Path) -> None:
    found = [
        {
            key: value
            for key, value in order_of(still, command="true", container=image).items()
            if key in ("registry", "login")
        }
        for image in ("quay.example/x/y", "ubuntu", "lab:5000/z")
    ]

    assert found == [
        {"registry": "quay.example", "login": True}, {"registry": "docker.io"}, {"registry": "lab:5000", "login": True},
    ]  # fmt: skip
    assert "login" not in order_of(still, command="true", container="other.example/x")


def test_a_login_is_in_no_file_of_ours(open_engine: Opener, logins: Path) -> None:
    engine = open_engine(drive=False)
    order = order_of(engine, command="true", container="quay.example/x")
    engine.close()

    held = b"".join(path.read_bytes() for path in engine.path.parent.glob("lab.scitq*") if path.is_file())
    assert b"quay.example/x" in held
    for secret in ("geheim", base64.b64encode(b"ann:geheim").decode()):
        assert secret not in str(order) and secret.encode() not in held


def test_agents_are_told_the_logins_that_their_orders_need_once(
    still: Engine, logins: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[Any] = []
    notes: dict[int, str] = {}
    waiting: queue.Queue[Callable[[], None]] = queue.Queue()
    there = Registries(
        later=waiting.put,
        say=lambda contact, commands: said.extend(commands),
        note=lambda ids, text: notes.update(dict.fromkeys(ids, text)),
    )
    contact = Contact(WorkerId(1), LocalRoute(Path(), 60))
    contact.commands = object()  # type: ignore[assignment]

    def want(*registries: str) -> None:
        there.want(contact, [{"order": 7, "registry": name, "login": True} for name in registries])
        while there._is_busy:
            waiting.get(timeout=30)()

    want("quay.example", "lab:5000")
    want("quay.example", "lab:5000")
    there.want(contact, [{"registry": "docker.io"}, {"order": 7}])  # nobody has a login for that one
    assert [each["registries"] for each in said] == [
        {"config": {"lab:5000": {}}, "insecure": ["lab:5000"]},
        {"config": {"quay.example": {"auth": base64.b64encode(b"ann:geheim").decode()}}, "insecure": ["lab:5000"]},
    ]
    logins.write_text("{}")
    want("quay.example")  # logged out: what waits for it need not wait any more
    assert said[2:] == [{"registries": {"config": {"quay.example": {}}, "insecure": ["lab:5000"]}}]
    assert "geheim" not in caplog.text and not notes


def test_a_login_that_cannot_be_had_keeps_nobody_else_waiting(
    still: Engine, logins: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registries, "AGAIN_S", 0.0)
    said: list[Any] = []
    notes: dict[int, str] = {}
    waiting: queue.Queue[Callable[[], None]] = queue.Queue()
    there = Registries(
        later=waiting.put,
        say=lambda contact, commands: said.extend(commands),
        note=lambda ids, text: notes.update(dict.fromkeys(ids, text)),
    )
    contact = Contact(WorkerId(1), LocalRoute(Path(), 60))
    contact.commands = object()  # type: ignore[assignment]

    names = ("locked.example", "quay.example")
    there.want(contact, [{"order": id, "registry": name, "login": True} for id, name in enumerate(names)])
    while not said:
        waiting.get(timeout=30)()
    assert list(said[0]["registries"]["config"]) == ["quay.example"]
    assert "docker-credential-of-nobody" in caplog.text and "locked.example" in caplog.text
    assert list(notes) == [0] and "the login for locked.example cannot be had, so it waits: " in notes[0]
    contact.commands = None  # the connection is lost: nobody waits any more
    while there._is_busy:
        waiting.get(timeout=30)()
    assert len(said) == 1


def test_a_task_without_a_container_has_nothing_of_one(still: Engine) -> None:
    assert not {"image", "options", "registry"} & order_of(still, command="true").keys()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"container": "no image"}, "not the name of an image"),
        ({"container_options": "--gpus all"}, "give container= too"),
        ({"container": "ubuntu", "container_options": "--rm"}, "cannot be given"),
        ({"container": ""}, "not the name of an image"),
    ],
)
def test_a_container_that_makes_no_sense_is_refused_at_submission(
    still: Engine, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        still.submit("true", **given)
    with pytest.raises(BadInput, match=problem):
        still.submit_many(["true"], **given)
    assert still.tasks() == []


def test_a_batch_has_a_container_for_its_tasks_and_options_for_those_that_run_in_one(still: Engine) -> None:
    assert still.set_batch("gpu", container_options="--gpus all") == {"container_options": ["--gpus", "all"]}
    plain, other = still.submit("true", batch="gpu"), still.submit("true", batch="gpu", container="ubuntu")
    still.set_batch("gpu", container="debian")
    default = still.submit("true", batch="gpu")
    own = still.submit("true", batch="gpu", container_options=["--network", "none"])

    found = [(task.row().spec.container, task.row().spec.container_options) for task in (plain, other, default, own)]
    assert found == [
        (None, ()), ("ubuntu", ["--gpus", "all"]), ("debian", ["--gpus", "all"]), ("debian", ["--network", "none"]),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="not the name of an image"):
        still.set_batch("gpu", container="No")


def test_the_container_of_a_task_is_edited_and_taken_away(still: Engine) -> None:
    task = still.submit("true", container="ubuntu", container_options="--gpus 1")
    task.update(container="debian:12")
    assert (task.row().spec.container, task.row().spec.container_options) == ("debian:12", ["--gpus", "1"])
    task.update(container_options=["--network", "none"])
    assert task.row().spec.need is None
    task.update(container=None)
    assert (task.row().spec.container, task.row().spec.container_options) == (None, ())
    with pytest.raises(BadInput, match="give container= too"):
        task.update(container_options="--gpus 1")


def test_calls_of_functions_run_in_the_container_that_their_batch_had_when_they_were_begun(still: Engine) -> None:
    still.set_batch("default", container="python:3.12", input="/etc/hostname")
    executor = still.executor()
    still.set_batch("default", container=None, input=None)
    spec = executor.submit(len, "ab").task.row().spec
    assert (spec.container, spec.python, spec.command[0], spec.input[0]) == (
        "python:3.12",
        None,
        "python3",
        "/etc/hostname",
    )
    assert [text.rpartition("|mv:")[2] for text in spec.input[1:]] == ["scitq-call"] * 3 + [
        "scitq-call/lib/cloudpickle"
    ]
    executor.shutdown(wait=False, cancel_futures=True)


def test_a_task_whose_container_asks_for_gpus_waits_for_a_worker_that_has_some(engine: Engine) -> None:
    first = engine.submit("true")
    first.wait(30)
    task = engine.submit("true", container="ubuntu", container_options="--gpus all")
    engine._wait_for(lambda: 0 if "no worker has GPUs" in task.why() else 1, 30, "the reason")

    assert "no worker has GPUs: local has" in task.why() and "add a worker that has it" in task.why()
    assert task.status == "pending"
